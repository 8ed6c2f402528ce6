"""Image: a single image, stored as a JPEG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.modalities.base import Extracted, the_file, view
from data_prep.modalities.idx import read_idx
from data_prep.modalities.pictures import from_jpeg, read_picture, shrink, to_jpeg
from data_prep.modalities.views import Visual
from data_prep.reasons import Reject

GREY = (124, 116, 104)  # ImageNet's mean colour (0.485, 0.456, 0.406) times 255
GREY_SIDE = 256  # side in pixels of the placeholder for a missing image


@dataclass(frozen=True)
class Image(Visual):
    """A stored RGB image: an upright JPEG whose shorter side is at most `short_side`.

    Transparent areas become white; only the first frame of an animation is used.
    """

    short_side: int = 256
    quality: int = 90
    max_pixels: int = 100_000_000  # a header that declares more is rejected before decoding
    missing: str = "reject"  # or "fill": a grey image, and a flag in the manifest
    augment: str = view("rotate_flip")
    normalise: str | tuple[list[float], list[float]] = view("imagenet")

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The JPEG of the one file in `paths`; of an idx file, the PNG of the picture `inline`.

        Flags: "missing_image" for the grey placeholder that `missing="fill"` gives for a missing or
        undecodable file. Raises what `read_picture` raises.
        """
        flags: tuple[str, ...] = ()
        if inline is not None:
            return Extracted([from_idx(the_file(paths, "missing_file"), inline)], (), 0.0, 1, True)
        try:
            path = the_file(paths, "missing_file")
            image = read_picture(path, self.short_side, self.max_pixels)
        except Reject:
            if self.missing != "fill":
                raise
            grey = np.full((GREY_SIDE, GREY_SIDE, 3), GREY, np.uint8)
            image, flags = shrink(grey, self.short_side), ("missing_image",)
        return Extracted([to_jpeg(image, self.quality)], flags, 0.0, int(not flags), not flags)

    def unpack(self, stored: Any) -> np.ndarray:
        return from_jpeg(stored)

    def chosen(self, stored: int, rng: np.random.Generator | None) -> list[int]:
        return [0]


def from_idx(path: Path, row: int) -> bytes:
    """A picture of an idx file as PNG: JPEG would blur the few pixels. Raises as `read_idx`."""
    pictures = read_idx(path, 3)
    if row >= len(pictures) or not pictures[row].size:
        raise Reject("bad_image", f"{path.name} has no picture {row}")
    done, data = cv2.imencode(".png", pictures[row])
    assert done
    return data.tobytes()
