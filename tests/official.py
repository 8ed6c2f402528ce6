"""The cases of golden_midas_official.json: numbers of the authors' release (commit d25b225).

They come from the release's own step functions, loaders, splits and evaluation; `about` in the file
says how they were run.
"""

import json
from pathlib import Path

import pytest
import torch

GOLDEN = json.loads((Path(__file__).parent / "golden_midas_official.json").read_text())
TOLERANCE = GOLDEN["tolerance"]


def cases(kind):
    """A parameter for each case of a kind: the dataset, the inputs, the expected outputs."""
    return pytest.mark.parametrize(
        ("variant", "given", "expect"),
        [
            pytest.param(c["variant"], c["inputs"], c["expect"], id=c["id"])
            for c in GOLDEN["cases"]
            if c["kind"] == kind
        ],
    )


def exact(values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, expected, kind):
    """Whether numbers agree within the file's tolerance; None is a missing gradient."""
    if expected is None or found is None:
        return found is None and expected is None
    found = found if isinstance(found, torch.Tensor) else exact(found)
    expected = exact(expected)
    assert found.shape == expected.shape
    return torch.allclose(found.detach().double(), expected, rtol=0, atol=TOLERANCE[kind])
