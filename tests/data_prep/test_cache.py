"""Samples kept in memory or on a device give the inputs that are otherwise read from disk."""

import cv2
import numpy as np
import pytest
import torch
from clips import texture

from data_prep import cache
from data_prep.loader import Loader
from data_prep.modalities.array import Array, packed
from data_prep.modalities.audio import Audio
from data_prep.modalities.base import Draw
from data_prep.modalities.flow import Flow
from data_prep.modalities.grid import Grid
from data_prep.modalities.image import Image
from data_prep.modalities.text import Text
from data_prep.modalities.video import Video

CPU, SIZES = torch.device("cpu"), [(70, 100), (100, 70), (64, 64), (120, 90)]
SPEC = {
    "array": Array(max_length=9),
    "grid": Grid(),
    "audio": Audio(window=100),
    "image": Image(augment="rotate_flip"),
    "flow": Flow(positions=4, frames=2),
    "text": Text(max_tokens=12),
    "video": Video(frames=2),
    "apart": Video(frames=3, augment="crop_flip_apart"),
    "still": Video(frames=2, augment="none", codec="raw"),
}


class Samples:
    """Twelve stored samples of all modalities; the images have four sizes."""

    def __init__(self):
        self.labels, self.rows, draw = np.arange(12) % 3, [], np.random.default_rng(0)
        for k in range(12):
            size = SIZES[k % 4]
            colour = [np.stack([texture(*size, k + c) for c in range(3)], 2) for _ in range(4)]
            grey = [cv2.imencode(".jpg", texture(*size, k + c))[1].tobytes() for c in range(8)]
            ids = draw.integers(1, 99, 2 + k % 9).astype(np.uint16)
            steps = draw.normal(size=(k % 8 + 1, 5)).astype(np.float32)
            row = {
                "audio": draw.normal(size=Audio().shape).astype(np.float16).tobytes(),
                "image": [Video().pack(colour[0])],
                "flow": grey,
                "text": [ids.tobytes(), np.zeros(len(ids), np.uint8).tobytes()],
                "array": packed(steps),
                "grid": packed(draw.normal(size=(2, 1, 4, 3)).astype(np.float32)),
            }
            clips = {
                m: [SPEC[m].pack(image) for image in colour] for m in ("video", "apart", "still")
            }
            self.rows.append(row | clips)

    def __len__(self):
        return len(self.rows)

    def value(self, position, modality):
        return self.rows[position][modality]


@pytest.fixture(scope="module")
def batches():
    """{cache: batches of an evaluation pass and of two training epochs}."""
    found = {}
    for where in ("off", "memory", "device"):
        loader = Loader(Samples(), np.arange(12)[::-1], SPEC, 48, 5, 3, 0, CPU, cache=where)
        found[where] = [*loader.batches(), *loader.epoch(1), *loader.epoch(2)]
    return found


def test_memory_gives_the_same_bits(batches):
    for here, there in zip(batches["off"], batches["memory"], strict=True):
        assert torch.equal(here["index"], there["index"])
        assert all(torch.equal(x, there["inputs"][m]) for m, x in here["inputs"].items())


@pytest.mark.parametrize("m", SPEC)
def test_a_device_gives_the_same_but_for_rounding(batches, m):
    for here, there in zip(batches["off"], batches["device"], strict=True):
        x, y = here["inputs"][m], there["inputs"][m]
        assert x.shape == y.shape and x.dtype == y.dtype
        if m in ("array", "audio", "grid", "text"):
            assert torch.equal(x, y)
        else:
            off = (x.int() - y.int()).abs()
            assert (off > 2).float().mean() <= (0.02 if m == "image" else 0)
            assert off.float().mean() < 0.2


def test_auto_takes_the_memory_that_is_free(monkeypatch):
    samples, draw = Samples(), Draw(48)
    frames = sum(h * w * 3 for h, w in SIZES) * 3  # of one of four frames, of all twelve samples
    size = cache.needed(samples, SPEC, draw, on_device=False)
    assert size == frames * (1 + 3 * 4) + frames // 3 * 8
    for free, where in ((size * 3, "memory"), (size, "off")):
        monkeypatch.setattr(cache, "free_memory", lambda free=free: free)
        monkeypatch.setattr(cache, "cores", lambda: torch.get_num_threads())
        assert cache.choose("auto", samples, SPEC, draw, CPU) == where
        monkeypatch.setattr(cache, "cores", lambda: 2 * torch.get_num_threads())
        assert cache.choose("auto", samples, SPEC, draw, CPU) == "off"
    assert cache.choose("auto", samples, {"audio": Audio()}, draw, CPU) == "off"
    padded = cache.needed(samples, {"video": Video()}, draw, on_device=True)
    assert padded == 12 * 4 * 3 * 120 * 100
