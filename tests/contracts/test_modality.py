"""A modality of one's own is one file and one line: from a column of a csv to a trained model."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import train
from common.files import read_object
from data_prep import modalities
from data_prep.datasets.manifest import Settings
from data_prep.modalities.base import Extracted, Modality, the_file, view
from data_prep.modalities.views import augmented, resize
from data_prep.prepare import prepare
from data_prep.reasons import Reject


@dataclass(frozen=True)
class Depth(Modality):
    """A map of distances, one channel, stored as a PNG of 8 bits; 0 to `far` millimetres."""

    far: int = 8000
    augment: str = view("flip")
    normalise: str = view("train")

    def extract(self, paths, inline, folder):
        path = the_file(paths, "missing_file")
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if depth is None or depth.dtype != np.uint16:
            raise Reject("bad_image", f"{path.name}: not a PNG of 16 bits")
        levels = np.rint(np.minimum(depth / self.far, 1) * 255).astype(np.uint8)
        return Extracted([cv2.imencode(".png", levels)[1].tobytes()], (), 0.0, 1, True)

    def to_input(self, stored, draw):
        image = cv2.imdecode(np.frombuffer(stored[0], np.uint8), cv2.IMREAD_GRAYSCALE)
        (image,) = augmented([image], self.augment, draw.rng, draw.flip)
        return resize(np.ascontiguousarray(image), draw.size)[None, None]

    def stream(self):
        return {"kind": "depth", "channels": 1}

    def values(self, batch):
        return batch / 255, (0, 1, 2, 3, 4), 1


def test_depth_is_prepared_loaded_and_trained_on(tmp_path, monkeypatch):
    monkeypatch.setitem(modalities.KINDS, "depth", "Depth")  # the one line
    monkeypatch.setitem(sys.modules, "data_prep.modalities.depth", sys.modules[__name__])
    draw = np.random.default_rng(0)
    with open(tmp_path / "rooms.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("id", "label", "depth", "array"))
        for k in range(40):
            np.save(tmp_path / f"{k}.npy", draw.normal(k % 2, 1, (3, 4)))
            depth = np.full((40, 60), 1000 + 3000 * (k % 2), np.uint16)
            cv2.imwrite(str(tmp_path / f"{k}.png"), depth)
            writer.writerow((k, "near far".split()[k % 2], f"{k}.png", f"{k}.npy"))
    manifest, data = str(tmp_path / "rooms.csv"), tmp_path / "data"
    folder = prepare(manifest, None, data, Settings(), workers=1)
    assert read_object(folder / "meta.json")["modalities"]["depth"] == {
        "kind": "depth",
        "far": 8000,
    }
    words = ["--dataset", manifest, "--data_dir", data, "--output_dir", tmp_path / "run"]
    words += [
        "--method",
        "Midas",
        "--encoder",
        "small",
        "--max_epochs",
        1,
        "--size",
        32,
        "--warmup_epochs",
        0,
    ]
    assert train.main([str(word) for word in words] + ["--devices", "cpu"]) == 0
    result = read_object(Path(tmp_path) / "run" / "result.json")
    assert 0 <= result["test/acc_zero/depth"] <= 1
