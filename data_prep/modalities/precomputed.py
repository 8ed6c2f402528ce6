"""Precomputed optical flow: a folder of pictures of u and one of v in place of a video.

Picture n of N - 1 is the motion from frame n to n + 1 of N, counted from 1. Frame rate and bound
are those of whoever made the set; files of other names in the folders are ignored.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.modalities.base import Extracted
from data_prep.modalities.decoding import sample_times
from data_prep.modalities.folders import spread
from data_prep.modalities.pictures import WHOLE, check_listed, read_picture
from data_prep.modalities.video import Video
from data_prep.reasons import Reject

if TYPE_CHECKING:
    from data_prep.modalities.flow import Flow

# Six digits in the shared set, five in the official MIDAS release.
PICTURE = re.compile(r"frame(\d{5,6})\.jpg", re.ASCII | re.IGNORECASE)
FEWEST = 2  # pictures in a folder for the official release, whose loader needs two
LARGEST_PICTURE = 1 << 22  # bytes of a precomputed picture; a real one has some 4,000


def read_precomputed(paths: Sequence[Path], spec: "Flow") -> Extracted:
    """The pictures of u and v nearest to each position, bytes unchanged.

    `n_frames` is one more than the number of pairs. With another algorithm than "precomputed", the
    folders are those of the official release, which uses all pictures: all are stored, or
    `of_folder` evenly spread ones.
    """
    release = spec.algorithm != "precomputed"
    u, v = (_pictures(path) for path in paths)
    both, either = u.keys() & v.keys(), u.keys() | v.keys()
    starts = sorted(n for n in both if all(n + k in both for k in range(spec.stack)))
    name = paths[0].name
    if not either:
        raise Reject("no_flow", f"{name}: no frame%06d.jpg or frame%05d.jpg")
    if release and len(both) < FEWEST:
        raise Reject("few_frames", f"{name}: {len(both)} pictures of u and v")
    if not release:
        spec.check_count(name, len(both) + 1)
    if not starts:
        raise Reject("few_frames", f"{name}: no {spec.stack} pairs of u and v in succession")
    if release:
        chosen = [starts[k] for k in spread(len(starts), min(len(starts), spec.of_folder))]
    else:
        times = sample_times(Video(positions=spec.positions), Fraction(max(either) + 1))
        chosen = [starts[max(0, bisect_right(starts, 1 + int(t)) - 1)] for t in times]
    pairs = [start + k for start in chosen for k in range(spec.stack)]
    stored = {path: _read(path) for n in sorted(set(pairs)) for path in (u[n], v[n])}
    if len({size for _, size in stored.values()}) > 1:
        raise Reject("bad_image", f"{name}: pictures of different sizes")
    payload = [stored[path][0] for n in pairs for path in (u[n], v[n])]
    flags = ("unpaired_flow",) * (both != either) + ("precomputed_flow",) * release
    return Extracted(payload, flags, 0.0, len(both) + 1, True)


def _pictures(folder: Path) -> dict[int, Path]:
    """number -> picture of a folder; raises `Reject` ("no_flow") where there is none.

    Of two names with one number the one with six digits counts.
    """
    try:
        found = [(PICTURE.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    except (FileNotFoundError, NotADirectoryError):
        raise Reject("no_flow", f"no folder {folder.parent.name}/{folder.name}") from None
    return {int(match[1]): path for match, path in reversed(found) if match}


def _read(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """A picture's bytes, up to a JPEG's end, and its [H, W].

    Raises `Reject` where it is none, or damaged.
    """
    check_listed(path)
    if path.exists() and path.stat().st_size > LARGEST_PICTURE:
        raise Reject("bad_image", f"{path.name}: more than {LARGEST_PICTURE} bytes")
    size, data = read_picture(path, WHOLE).shape[:2], path.read_bytes()
    end = data.rfind(b"\xff\xd9") + 2 if data.startswith(b"\xff\xd8") else 0
    return data[: end if end > 2 else None], size
