"""Grids of values: their shapes, damage, and the encoder that reads them."""

import numpy as np
import pytest
import torch
from clips import extract, refused

from common.options import UsageError
from data_prep.modalities import grid
from data_prep.modalities.array import packed
from data_prep.modalities.base import Draw
from data_prep.modalities.grid import Grid
from models.build import Choice, Stream, build_encoder

VALUES = np.random.default_rng(0).normal(5, 2, (3, 2, 6, 7))


def npy(folder, values):
    np.save(folder / "a.npy", values)
    return folder / "a.npy"


@pytest.mark.parametrize(("values", "shape"), [
    (VALUES, (3, 2, 6, 7)), (np.asfortranarray(VALUES[0]), (1, 2, 6, 7)),
    (VALUES[0, 0].astype(np.float16), (1, 1, 6, 7)), (VALUES.astype(np.uint8), (3, 2, 6, 7)),
])  # fmt: skip
def test_maps_become_float32_with_channels_before_rows(tmp_path, values, shape):
    found = extract(Grid(), npy(tmp_path, values))
    made = Grid().to_input(found.payload, Draw())
    assert made.dtype == np.float32 and made.shape == shape
    assert np.array_equal(made, values.astype(np.float32).reshape(shape))
    assert (found.flags, found.n_frames, found.found) == ((), shape[0], True)


def test_zeros_at_the_edges_are_no_padding(tmp_path):
    values = np.zeros((4, 3, 5))
    values[2, 1, 1] = 1
    path = npy(tmp_path, values)
    assert np.array_equal(Grid().to_input(extract(Grid(), path).payload, Draw())[0], values)
    found = extract(Grid(), npy(tmp_path, np.zeros((4, 3, 5))))
    assert (found.flags, found.found) == (("empty",), False)


@pytest.mark.parametrize("values", [
    np.ones(3), np.ones((2, 2, 2, 2, 2)), np.ones((2, 0, 3)), np.array([[1.0, np.nan]]),
    np.array([[1.0, 1e300]]), np.ones((2, 2), complex), np.ones((9, 9)),
])  # fmt: skip
def test_what_is_no_grid_is_rejected(tmp_path, values, monkeypatch):
    monkeypatch.setattr(grid, "MAX_STORED", 80 * 4)
    assert refused(Grid(), npy(tmp_path, values)) == "bad_values"


def test_all_have_one_shape():
    shapes = [(1, 2, 6, 7)] * 9 + [(1, 2, 7, 6)]
    samples = [(f"s{k}", packed(np.zeros(shape, np.float32))) for k, shape in enumerate(shapes)]
    Grid().check_together("depth", samples[:9])
    with pytest.raises(UsageError, match=r"grids of depth have .* \(1, 2, 7, 6\) in 1 samples"):
        Grid().check_together("depth", samples)


def test_the_encoder_has_the_channels_of_the_data_and_sees_normalised_values():
    batch = torch.from_numpy(VALUES[None]).float()
    values, axes, count = Grid().values(batch)
    mean = values.mean(axes)
    assert len(mean) == count == Grid().width(batch.numpy()) == 2
    stream = Stream(normalise=(mean.tolist(), [2.0, 4.0]), **Grid().stream())
    encoder = build_encoder(stream, Choice("small"))
    assert encoder(batch).shape == (1, encoder.width)
    seen, times = encoder.inputs(batch)
    due = (batch[0] - mean[:, None, None]) / torch.tensor([2.0, 4.0])[:, None, None]
    assert times == 3 and torch.allclose(seen, due, atol=1e-6)
