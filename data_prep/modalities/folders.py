"""Folders of images instead of a video: its frames, or its precomputed optical flow.

The frames of a clip are images with any names, ordered by name, with numbers by their value: 9.jpg
comes before 10.jpg. (The official MIDAS release sorts by characters, which is the same if numbers
have leading zeros.) They have no timestamps, so no frame rate: all images are stored, or evenly
spaced ones if there are too many.

Flow has one folder for u and one for v. Of N frames, image n of N - 1 is the motion from frame n to
n + 1, counted from 1. Frame rate and bound are those of the source. Files with other names are
ignored.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from common.files import is_ignored
from data_prep.media import is_lfs_pointer
from data_prep.modalities.base import Extracted
from data_prep.modalities.decoding import middles, scale
from data_prep.modalities.pictures import WHOLE, is_plain_jpeg, looks, read_picture
from data_prep.reasons import Reject

if TYPE_CHECKING:
    from data_prep.modalities.flow import Flow
    from data_prep.modalities.video import Video

LARGEST_KEPT = 1 << 22  # maximum bytes of an image stored unchanged; a real one has about 20,000
# Six digits in the public precomputed flow, five in the official MIDAS release.
PICTURE = re.compile(r"frame(\d{5,6})\.jpg", re.ASCII | re.IGNORECASE)
FEWEST = 2  # images in a folder; the official release's loader needs two


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` indices, ascending: the midpoints of `wanted` equal segments."""
    return [int(middle) for middle in middles(count, wanted)]


def by_number(name: str) -> tuple[list[str | int], str]:
    """A sort key of file names that orders numbers in them by value."""
    parts = re.split("([0-9]+)", name)  # text and digits in turn
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


def read_folder(folder: Path, spec: "Video") -> tuple[list[bytes], tuple[str, ...], int]:
    """The stored frames of a folder, all of one size, their flags, and the number of images.

    Stores the first `first` or `positions` evenly spaced ones if the spec sets such a number; else
    all, or `of_folder` evenly spaced ones if there are more. A JPEG that needs no downscaling is
    stored unchanged. Files that are not images are skipped, with the flag "bad_frames". Other
    flags: "black", "still". Raises `Reject`: "few_frames", "lfs_pointer".
    """
    names = sorted((name for name in os.listdir(folder) if not is_ignored(name)), key=by_number)
    listed, fault = len(names), ""
    frames: dict[str, tuple[np.ndarray, bytes | None]] = {}
    while True:
        if len(names) < (1 if spec.missing == "fill" else max(1, spec.min_decoded)):
            of = f" of {listed}, {fault}" if fault else ""
            raise Reject("few_frames", f"{folder.name}: {len(names)} images{of}"[:300])
        if spec.first:
            places = list(range(min(len(names), spec.first)))
        else:
            places = spread(len(names), spec.positions or min(len(names), spec.of_folder))
        wanted = [names[k] for k in places]
        broken = set()
        for name in wanted:
            if name in frames or name in broken:
                continue
            try:
                frames[name] = _read(folder / name, spec)
            except Reject as reject:
                if reject.reason == "lfs_pointer":
                    raise
                broken.add(name)
                fault = fault or reject.detail
        if not broken:
            break
        names = [name for name in names if name not in broken]
    size, stored = frames[wanted[0]][0].shape[1::-1], []
    for image, data in (frames[name] for name in wanted):
        if image.shape[1::-1] != size:
            image, data = cv2.resize(image, size), None
        stored.append(data or spec.pack(image))
    flags = ("bad_frames",) if fault else ()
    return stored, flags + looks([frames[name][0] for name in wanted]), len(names)


def _read(path: Path, spec: "Video") -> tuple[np.ndarray, bytes | None]:
    """An image at its stored size, and the file's bytes if they can be stored unchanged."""
    image, data = _read_listed(path)
    scaled = scale(image, spec)
    plain = scaled is image and spec.codec != "raw" and is_plain_jpeg(data)
    return scaled, data if plain else None


def _read_listed(path: Path) -> tuple[np.ndarray, bytes]:
    """An image of a folder and its bytes, or b"" if there are too many; raises `Reject`."""
    if is_lfs_pointer(path):
        raise Reject("lfs_pointer", f"{path.parent.name}/{path.name}")
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise Reject("unreadable", f"{path.name}: not a file")
    image = read_picture(path, *WHOLE)
    return image, path.read_bytes() if path.stat().st_size <= LARGEST_KEPT else b""


def read_precomputed(paths: Sequence[Path], spec: "Flow") -> Extracted:
    """The images of u and v nearest to each position, bytes unchanged.

    `n_frames` is one more than the number of pairs. If the algorithm is not "precomputed", the
    folders are those of the official release, which uses all images: all are stored, or `of_folder`
    evenly spaced ones.
    """
    release = spec.algorithm != "precomputed"
    u, v = (_pictures(path) for path in paths)
    both, either = u.keys() & v.keys(), u.keys() | v.keys()
    starts = sorted(n for n in both if all(n + k in both for k in range(spec.stack)))
    name = paths[0].name
    if not either:
        raise Reject("no_flow", f"{name}: no frame%06d.jpg or frame%05d.jpg")
    if release and len(both) < FEWEST:
        raise Reject("few_frames", f"{name}: {len(both)} images of u and v")
    if not release:
        spec.check_count(name, len(both) + 1)
    if not starts:
        raise Reject("few_frames", f"{name}: no {spec.stack} consecutive pairs of u and v")
    if release:
        chosen = [starts[k] for k in spread(len(starts), min(len(starts), spec.of_folder))]
    else:
        numbers = [1 + int(middle) for middle in middles(max(either) + 1, spec.positions)]
        chosen = [starts[max(0, bisect_right(starts, n) - 1)] for n in numbers]
    pairs = [start + k for start in chosen for k in range(spec.stack)]
    stored = {path: _read_flow(path) for n in sorted(set(pairs)) for path in (u[n], v[n])}
    if len({size for _, size in stored.values()}) > 1:
        raise Reject("bad_image", f"{name}: images of different sizes")
    payload = [stored[path][0] for n in pairs for path in (u[n], v[n])]
    flags = ("unpaired_flow",) * (both != either) + ("precomputed_flow",) * release
    return Extracted(payload, flags, 0.0, len(both) + 1, True)


def _pictures(folder: Path) -> dict[int, Path]:
    """Image number -> file of a folder; raises `Reject` ("no_flow") if the folder is missing.

    If two names have the same number, the one with six digits is used.
    """
    try:
        found = [(PICTURE.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    except (FileNotFoundError, NotADirectoryError):
        raise Reject("no_flow", f"no folder {folder.parent.name}/{folder.name}") from None
    return {int(match[1]): path for match, path in reversed(found) if match}


def _read_flow(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """The bytes of an image, up to a JPEG's end marker, and [H, W]; raises `Reject` if damaged."""
    image, data = _read_listed(path)
    if not data:
        raise Reject("bad_image", f"{path.name}: more than {LARGEST_KEPT} bytes")
    end = data.rfind(b"\xff\xd9") + 2 if data.startswith(b"\xff\xd8") else 0
    return data[: end if end > 2 else None], image.shape[:2]
