"""A folder of pictures in place of a video: which of them are stored, and how.

Trees made for the official MIDAS release hold the frames of a clip as a folder of pictures of any
names, in the order of the sorted names. There is no time in it: all of them are stored, or evenly
spread ones where they are too many.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from common.files import is_ignored
from data_prep.modalities.decoding import scale
from data_prep.modalities.pictures import WHOLE, check_listed, is_plain_jpeg, read_picture
from data_prep.reasons import Reject

if TYPE_CHECKING:
    from data_prep.modalities.video import Video

LARGEST_KEPT = 1 << 22  # bytes of a picture that is stored as it is; a real one has some 20,000


class Frame(NamedTuple):
    """RGB uint8 [H, W, 3], and the file's bytes where they can be stored as they are."""

    image: np.ndarray
    data: bytes | None = None


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` places, ascending: the middles of `wanted` equal segments."""
    return [(2 * j + 1) * count // (2 * wanted) for j in range(wanted)]


def places(count: int, spec: "Video") -> list[int]:
    """Which of a folder's `count` pictures are stored.

    The first `first`, or `positions` evenly spread ones, where the spec sets such a number; else
    all of them, or `of_folder` evenly spread ones where there are more than that.
    """
    if spec.first:
        return list(range(min(count, spec.first)))
    return spread(count, spec.positions or min(count, spec.of_folder))


def read_folder(folder: Path, spec: "Video") -> tuple[list[bytes], tuple[str, ...], int]:
    """The stored frames of a folder, all of one size, their flags, and the number of pictures.

    A JPEG whose shorter side is not above the spec's is stored as it is. What is no picture is
    passed over as if it were not there, with the flag "bad_frames". Raises `Reject`: "few_frames",
    "lfs_pointer".
    """
    listing = sorted(name for name in os.listdir(folder) if not is_ignored(name))
    frames: dict[str, Frame] = {}
    broken: dict[str, str] = {}
    while True:
        there = [name for name in listing if name not in broken]
        if len(there) < (1 if spec.missing == "fill" else max(1, spec.min_decoded)):
            what = f"{folder.name}: {len(there)} pictures"
            if broken:
                what = f"{what} of {len(listing)}, {next(iter(broken.values()))}"
            raise Reject("few_frames", what[:300])
        wanted = [there[k] for k in places(len(there), spec)]
        frames = _read_all(folder, wanted, spec, frames, broken)
        if all(name in frames for name in wanted):
            break
    stored = _stored([frames[name] for name in wanted], spec)
    return stored, ("bad_frames",) if broken else (), len(there)


def _read_all(
    folder: Path, wanted: list[str], spec: "Video", before: dict[str, Frame], broken: dict[str, str]
) -> dict[str, Frame]:
    """The wanted pictures that can be read, those read `before` among them; others go to `broken`.

    `broken` has a name's fault.
    """
    frames = {}
    for name in dict.fromkeys(wanted):
        try:
            frames[name] = before[name] if name in before else read(folder / name, spec)
        except Reject as reject:
            if reject.reason == "lfs_pointer":
                raise
            broken[name] = reject.detail
    return frames


def read(path: Path, spec: "Video") -> Frame:
    """A picture at its stored size.

    Raises `Reject`: "lfs_pointer", and what `read_picture` raises.
    """
    check_listed(path)
    image = read_picture(path, WHOLE)
    scaled = scale(image, spec)
    if scaled is not image or spec.codec == "raw" or path.stat().st_size > LARGEST_KEPT:
        return Frame(scaled)
    data = path.read_bytes()
    return Frame(scaled, data if is_plain_jpeg(data) else None)


def _stored(frames: list[Frame], spec: "Video") -> list[bytes]:
    """The stored form of each frame, all of the first one's size."""
    size, stored = frames[0].image.shape[1::-1], []
    for image, data in frames:
        if image.shape[1::-1] != size:
            image, data = cv2.resize(image, size), None
        stored.append(data or spec.pack(image))
    return stored
