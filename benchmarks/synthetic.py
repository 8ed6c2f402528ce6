"""Writes prepared datasets of any size from noise, for measurements of everything after that.

The stored forms have the sizes and shapes of the real ones; only their content means nothing.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.files import file_digest
from data_prep import datasets
from data_prep.finish import finish
from data_prep.modalities.pictures import to_jpeg
from data_prep.prepare import constants, prepared_folder
from data_prep.shards import SHARD_SIZE, schema, shard_name, write_shard
from data_prep.spec import Candidate, Scan, Spec, spec_json

# dataset -> classes, frames or flow positions stored per sample, (height, width) of stored images
SHAPES = {
    "cremad": (6, 5, (256, 341)),
    "kinetics": (31, 10, (256, 341)),
    "ucf101": (101, 10, (240, 320)),
    "food101": (101, 1, (256, 341)),
}
DISTINCT = 24  # images drawn in all: noise costs time, and a decoder treats all alike
WORDS = "salt pepper oven slow rice bean lime basil crisp roast soup of the day with".split()


def images(count: int, size: tuple[int, int], grey: bool) -> Iterator[bytes]:
    """JPEGs of smooth noise, over and over."""
    draw, made = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        small = draw.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        image = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
        made.append(to_jpeg(image[:, :, 0] if grey else image, 95))
    return itertools.cycle(made)


def makers(dataset: str, spec: Spec) -> dict[str, Callable[[], Any]]:
    """Per modality, what returns the stored form of the next sample."""
    draw = np.random.default_rng(1)
    _, frames, size = SHAPES[dataset]
    found: dict[str, Callable[[], Any]] = {}
    for m, modality in spec.items():
        kind: Any = modality
        match modality.kind:
            case "audio":
                noise = draw.normal(-4, 2, (DISTINCT, *kind.shape)).astype(np.float16)
                sounds = itertools.cycle(values.tobytes() for values in noise)
                found[m] = lambda sounds=sounds: next(sounds)  # type: ignore[misc]
            case "text":
                found[m] = lambda: [" ".join(draw.choice(WORDS, 12)).encode()]
            case _:
                grey = modality.kind == "flow"
                each = 2 * kind.positions * kind.stack if grey else frames
                pictures = images(each, size, grey)
                found[m] = lambda each=each, p=pictures: [next(p) for _ in range(each)]  # type: ignore[misc]
    return found


def write(data_dir: Path, dataset: str, count: int) -> Path:
    """A finished prepared folder of `count` samples with the dataset's default preparation.

    Food-101's texts are tokenised with a vocabulary built from them (`--vocabulary build`).
    """
    layout: Any = datasets.load(dataset)
    settings = layout.Settings(**({"vocabulary": "build"} if dataset == "food101" else {}))
    spec, classes = layout.spec(settings), SHAPES[dataset][0]
    folder = prepared_folder(data_dir, dataset, spec)
    if (folder / "meta.json").exists():
        return folder
    folder.mkdir(parents=True)
    names = tuple(map(str, range(classes)))
    candidates = [Candidate(f"{k:07d}", k % classes, {}, str(k // 100)) for k in range(count)]
    meta = spec_json(dataset, spec) | constants(layout)
    meta |= {"spec_hash": folder.name, "label_names": list(names), "complete": False}
    meta |= {"candidates": count, "candidates_hash": "", "shards": {}}
    facts = {"part": "", "sources": "", "duration_s": 0.0, "n_frames": 1, "flags": ""}
    made = makers(dataset, spec)
    for number, first in enumerate(range(0, count, SHARD_SIZE)):
        rows = (
            {"id": c.id, "label": c.label, "group": c.group, **facts}
            | {m: make() for m, make in made.items()}
            for c in candidates[first : first + SHARD_SIZE]
        )
        path = folder / shard_name(number)
        write_shard(path, schema(dataset, spec), rows)
        meta["shards"][path.name] = file_digest(path)
    finish(folder, Scan(names, candidates), spec, meta, 0.05, False)
    return folder
