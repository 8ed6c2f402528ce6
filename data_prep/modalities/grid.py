"""Grids of values: a .npy file of one map or several, such as depth, a radar image or a heat map.

For values on a grid whose neighbours belong together; a sequence of vectors is an `array`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.modalities.array import (
    MAX_STORED,
    as_float32,
    check_equal,
    check_finite,
    open_npy,
    packed,
    unpacked,
)
from data_prep.modalities.base import Draw, Extracted, Modality, the_file, view
from data_prep.reasons import Reject


@dataclass(frozen=True)
class Grid(Modality):
    """Maps, float32 [T, C, H, W], of one shape in the whole dataset; neither scaled nor augmented.

    The encoder is that of images, and averages over T.
    """

    normalise: str = view("train")

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of the .npy file in `paths`: [H, W], [C, H, W] or [T, C, H, W].

        Flags: "empty" (all values are zero). Raises `Reject`: "missing_file", "unreadable",
        "bad_values" for another number of dimensions and for values that are not finite.
        """
        array = open_npy(the_file(paths, "missing_file"))
        if not 2 <= array.ndim <= 4 or not array.size:
            what = f"shape {array.shape}, expected [H, W], [C, H, W] or [T, C, H, W]"
            raise Reject("bad_values", what)
        if 4 * array.size > MAX_STORED:
            raise Reject("bad_values", f"shape {array.shape} takes more than {MAX_STORED} bytes")
        values = as_float32(array).reshape((1,) * (4 - array.ndim) + array.shape)
        check_finite(values)
        found = bool(values.any())
        return Extracted(packed(values), () if found else ("empty",), 0.0, len(values), found)

    def check_together(self, name: str, samples: Iterable[tuple[str, Any]]) -> None:
        """Raises `UsageError` if the grids differ in their shape."""
        shapes = ((sample, unpacked(stored).shape) for sample, stored in samples)
        check_equal(f"the grids of {name} have several shapes [T, C, H, W]", shapes)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """float32 [T, C, H, W]."""
        return unpacked(stored).copy()

    def on_device(self, stored: Iterable, draw: Draw, device: Any) -> Any:
        from data_prep.modalities.on_device import whole

        return whole(self, stored, draw, device)

    def width(self, made: np.ndarray) -> int:
        return made.shape[-3]

    def stream(self) -> dict[str, Any]:
        return {"kind": "grid"}

    def values(self, batch: Any) -> tuple[Any, tuple[int, ...], int]:
        """[B, T, C, H, W]: one mean per channel."""
        return batch, (0, 1, 3, 4), batch.shape[2]
