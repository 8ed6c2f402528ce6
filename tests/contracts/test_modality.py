"""A custom modality takes one file and one line: from a csv column to a trained model."""

import sys
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

import evaluate
import train
from common.files import read_object, read_table, write_table
from data_prep import modalities
from data_prep.datasets.manifest import Settings
from data_prep.modalities.base import Extracted, Modality, the_file, view
from data_prep.modalities.views import augmented, resize
from data_prep.prepare import prepare
from experiments import load_run


@dataclass(frozen=True)
class Depth(Modality):
    """A 16-bit PNG, stored as 8 bits: 255 is `far` millimetres."""

    far: int = 8000
    normalise: str = view("train")

    def extract(self, paths, inline, folder):
        depth = cv2.imread(str(the_file(paths, "missing_file")), cv2.IMREAD_UNCHANGED)
        levels = np.rint(np.minimum(depth / self.far, 1) * 255).astype(np.uint8)
        return Extracted([cv2.imencode(".png", levels)[1].tobytes()], (), 0.0, 1, True)

    def to_input(self, stored, draw):
        image = cv2.imdecode(np.frombuffer(stored[0], np.uint8), cv2.IMREAD_GRAYSCALE)
        (image,) = augmented([image], "flip", draw.rng, draw.flip)
        return resize(np.ascontiguousarray(image), draw.size)[None, None]

    def stream(self):
        return {"kind": "depth", "channels": 1}

    def values(self, batch):
        return batch / 255, (0, 1, 2, 3, 4), 1


def test_a_modality_registered_under_another_name_is_refused(monkeypatch):
    monkeypatch.setitem(modalities.KINDS, "range", "Depth")
    with pytest.raises(AssertionError, match="class Depth must be registered as 'depth'"):
        modalities.load("range")


def test_depth_is_prepared_loaded_and_trained_on(tmp_path, monkeypatch):
    monkeypatch.setitem(modalities.KINDS, "depth", "Depth")  # the one line
    monkeypatch.setitem(sys.modules, "data_prep.modalities.depth", sys.modules[__name__])
    draw, rows = np.random.default_rng(0), []
    for k in range(40):
        rows.append((k, "near far".split()[k % 2], f"{k}.png", f"{k}.npy"))
        np.save(tmp_path / f"{k}.npy", draw.normal(k % 2, 1, (3, 4)))
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((40, 60), 1000 + 3000 * (k % 2), np.uint16))
    own, data, run = (tmp_path / name for name in ("rooms.csv", "data", "run"))
    write_table(own, ("id", "label", "depth", "array"), rows)
    folder = prepare(str(own), None, data, Settings(), workers=1)
    stored = read_object(folder / "meta.json")["modalities"]["depth"]
    assert stored == {"kind": "depth", "far": 8000}
    words = f"--dataset {own} --data_dir {data} --output_dir {run} --devices cpu --method Midas"
    more = " --encoder small --size 32 --max_epochs 1 --warmup_epochs 0"
    assert train.main((words + more).split()) == 0
    assert 0 <= read_object(run / "result.json")["test/acc_zero/depth"] <= 1


def test_two_columns_of_one_kind_and_a_grid_are_trained_on_and_predicted(tmp_path, capsys):
    draw, rows = np.random.default_rng(0), []
    for k in range(40):
        for name, shape in (("left", (3, 4)), ("right", (5, 2, 2)), ("depth", (2, 9, 8))):
            np.save(tmp_path / f"{name}{k}.npy", draw.normal(k % 2, 1, shape))
        rows.append(
            (k, "near far".split()[k % 2], f"left{k}.npy", f"right{k}.npy", f"depth{k}.npy")
        )
    own, run = tmp_path / "rooms.csv", tmp_path / "run"
    header = ("id", "label", "array:left", "array:right", "grid:depth")
    write_table(own, header, rows)
    words = f"--dataset {own} --data_dir {tmp_path / 'data'} --output_dir {run} --devices cpu"
    more = " --method Midas --encoder small --max_epochs 1 --warmup_epochs 0"
    assert train.main((words + more).split()) == 0
    assert {"test/acc_zero/left", "test/acc_zero/right", "test/acc_zero/depth"} <= read_object(
        run / "result.json"
    ).keys()
    inputs = load_run(run).inputs(**{m: tmp_path / f"{m}0.npy" for m in ("left", "right", "depth")})
    shapes = {"left": (1, 3, 4), "right": (1, 5, 4), "depth": (1, 1, 2, 9, 8)}
    assert {m: tuple(x.shape) for m, x in inputs.items()} == shapes
    assert torch.equal(
        inputs["depth"][0, 0], torch.from_numpy(np.load(tmp_path / "depth0.npy")).float()
    )
    np.save(tmp_path / "depth1.npy", np.ones((3, 9, 8)))
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    write_table(new, ("id", *header[2:]), [row[:1] + row[2:] for row in rows[:2]])
    assert (
        evaluate.main([str(run), "--predict", str(new), "--out", str(out), "--devices", "cpu"]) == 3
    )
    assert [row["id"] for row in read_table(out)] == ["0"]
    assert {"right/prediction", "depth/p/far"} <= read_table(out)[0].keys()
    assert "1: depth has 3 features, the training data had 2" in capsys.readouterr().err
