"""Optical flow between consecutive frames, quantised and stored as two greyscale JPEGs per pair.

u (to the right) and v (downwards), in pixels per frame at the clip's own frame rate, are clipped to
+-20 pixels and mapped linearly to 0..255, with no motion at 128: the form of the precomputed TV-L1
set of UCF-101, and of the official MIDAS release, which are read unchanged (`folders.py`).

The bytes do not depend on the number of threads; between kinds of processors, OpenCV's vector code
may differ in the last bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.options import UsageError, unknown
from data_prep.modalities.base import Draw, Extracted, Modality, the_file, view
from data_prep.modalities.decoding import Clip, middles, read_clip, shown_at
from data_prep.modalities.folders import read_precomputed
from data_prep.modalities.pictures import to_jpeg
from data_prep.modalities.video import Video
from data_prep.modalities.views import augmented, choose_frames, resize
from data_prep.reasons import Reject

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]

ALGORITHMS = ("dis", "farneback", "tvl1")
# Scale of the pyramid, levels, window, iterations, neighbourhood, its sigma, flags: the values of
# OpenCV's sample code, which public scripts use too.
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
# UCF-101's frames are 320 x 240. Larger ones are scaled down to this shorter side, so that a bound
# in pixels keeps its meaning; smaller ones are never scaled up. Our choice.
SCALED = Video(short_side=240)
SMALLEST = 16  # pixels of a side: DIS of OpenCV 5.0 crashes on frames of 8 to 15 rows


@dataclass(frozen=True)
class Flow(Modality):
    """Stored optical flow between consecutive frames: u and v as pictures.

    At each of `positions`, shown at (j + 0.5) / positions of the duration, `stack` consecutive
    pairs of frames give `stack` pictures of u and of v: 8-bit grey, flow clipped to +-bound pixels
    and mapped linearly to 0..255, so that no motion is 128. Order: u1, v1, u2, v2, ...

    The model sees the flow at `frames` of the positions; `augment` and `choice` as for a video.
    """

    algorithm: str = "dis"  # or "farneback", "tvl1", "precomputed"
    positions: int = 10
    stack: int = 1
    bound: float = 20.0
    quality: int = 95
    min_decoded: int = 4  # fewer frames in the file: few_frames
    of_folder: int = 0  # most positions of folders of u and v in place of a video; 0: none is read
    frames: int = view(3)
    augment: str = view("flip")
    choice: str = view("segments")
    normalise: str | tuple[list[float], list[float]] = view("none")

    def check(self) -> None:
        """Raises `UsageError` where OpenCV here cannot compute it."""
        if self.algorithm != "precomputed":
            solver(self.algorithm)

    def from_row(self, name: str, row: dict[str, str]) -> tuple[list[str], Any]:
        """A video; of precomputed flow, the folders of u and of v, joined by ";"."""
        cell = row[name]
        two = self.algorithm == "precomputed" or bool(self.of_folder) and ";" in cell
        paths = cell.split(";") if two else [cell]
        if two and len(paths) != 2:
            raise ValueError("is not two folders, u;v")
        return paths, None

    def is_one_source(self, paths: Sequence[Path]) -> bool:
        """The folders of u and v of precomputed flow belong together."""
        pair = self.algorithm == "precomputed" or bool(self.of_folder and paths[0].is_dir())
        return len(paths) < 2 or pair

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The flow of the one file in `paths`, or of the folders of u and v, in order of time.

        Flags: "truncated" (a part of the clip does not decode, and at least 3 s or half of it do),
        "unpaired_flow" (precomputed pictures without a partner, left out), "precomputed_flow"
        (read, where another algorithm would have computed it).
        Raises `Reject`: "unreadable", "truncated", "no_video", "few_frames", "missing_file",
        "no_flow", "bad_values", "bad_image"; and `UsageError` where the algorithm is not there.
        """
        folders = self.of_folder and len(paths) == 2 and paths[0].is_dir()
        if self.algorithm == "precomputed" or folders:
            return read_precomputed(paths, self)
        clip = self.read_frames(the_file(paths, "no_video"))
        return Extracted(compute(clip, self), clip.flags, clip.duration, clip.found, True)

    def check_count(self, name: str, frames: int) -> None:
        """Raises `Reject` ("few_frames") for a clip that is too short."""
        if frames < max(self.min_decoded, self.stack + 1):
            raise Reject("few_frames", f"{name}: {frames} frames")

    def read_frames(self, path: Path) -> Clip:
        """At each position of a clip the frame shown there and the next `stack` ones.

        Where too few follow, at the end of a clip, the position moves to the last frame that has
        them.
        """

        def choice(times: Sequence[int], tick: Fraction, duration: Fraction) -> list[int]:
            self.check_count(path.name, len(times))
            starts = shown_at(times[: -self.stack], tick, middles(duration, self.positions))
            return [start + k for start in starts for k in range(self.stack + 1)]

        # By number, as many clips of UCF-101 pack two frames into one packet (DivX's "packed
        # B-frames"), so that their order is right and their times are not. What remains of a
        # damaged clip is found as for a video, so that a clip keeps both modalities or neither.
        return read_clip(path, choice, SCALED, float("inf"), by_number=True)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """uint8 [T, 2 * stack, size, size]: u and v at the chosen positions, u1, v1, u2, v2, ...

        A mirrored picture moves the other way: u becomes 255 - u, but where pictures are mirrored
        apart (as in the official release).
        """
        channels = 2 * self.stack
        chosen = choose_frames(len(stored) // channels, self.frames, draw.rng, self.choice)
        places = [k * channels + c for k in chosen for c in range(channels)]
        encoded = (np.frombuffer(stored[place], np.uint8) for place in places)
        maps = [cv2.imdecode(picture, cv2.IMREAD_GRAYSCALE) for picture in encoded]
        out = np.empty((len(maps), draw.size, draw.size), dtype=np.uint8)
        for k, image in enumerate(augmented(maps, self.augment, draw.rng, draw.flip)):
            out[k] = resize(np.ascontiguousarray(image), draw.size)
        shared = self.augment != "none" and not self.augment.endswith("_apart")
        if draw.rng is not None and draw.flip and shared:
            out[0::2] = 255 - out[0::2]
        return out.reshape(len(chosen), channels, draw.size, draw.size)

    def stream(self) -> dict[str, Any]:
        return {"kind": "flow", "channels": 2 * self.stack}

    def values(self, batch: Any) -> tuple[Any, tuple[int, ...], int]:
        """[B, T, C, H, W] scaled to [0, 1]: one mean, for u and v share a scale."""
        return batch / 255, (0, 1, 2, 3, 4), 1


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Pixels of motion as uint8 of the same shape: q = round((clip(f) + b) * 255 / (2 b))."""
    return np.rint((np.clip(flow / bound, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def solver(name: str) -> Solver:
    """The function from a grey uint8 [H, W] and the next one to float32 [H, W, 2], u and v.

    Raises `UsageError` where this machine has no algorithm of that name.
    """
    modules: Any = cv2
    if name not in ALGORITHMS:
        raise unknown("optical flow", name, ALGORITHMS)
    if name == "farneback":
        return lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, *FARNEBACK)
    if name == "dis":
        method = modules.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    elif hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create"):
        method = modules.optflow.DualTVL1OpticalFlow_create()
    else:
        raise UsageError(
            "--flow_algo tvl1 needs OpenCV's contrib modules, and this OpenCV has none: pip"
            " uninstall opencv-python opencv-python-headless, then pip install"
            " opencv-contrib-python-headless; or take --flow_algo dis"
        )
    return lambda first, second: method.calc(first, second, None)


def compute(clip: Clip, spec: "Flow") -> list[bytes]:
    """The stored pictures of all positions, u1, v1, u2, v2, ...; a pair is computed once.

    Raises `Reject`: "no_flow" for frames of a few pixels, "bad_values".
    """
    grey = {n: cv2.cvtColor(clip.images[n], cv2.COLOR_RGB2GRAY) for n in sorted(clip.images)}
    height, width = next(iter(grey.values())).shape  # of all: a stream may change its size
    if min(height, width) < SMALLEST:
        raise Reject("no_flow", f"frames of {width} x {height}, smaller than {SMALLEST} pixels")
    for n, image in grey.items():
        if image.shape != (height, width):
            grey[n] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    solve = solver(spec.algorithm)
    pictures: dict[int, list[bytes]] = {}
    pairs = [n for k, n in enumerate(clip.wanted) if k % (spec.stack + 1) != spec.stack]
    for n in sorted(set(pairs)):
        flow = solve(grey[n], grey[n + 1])
        if not np.isfinite(flow).all():
            raise Reject("bad_values", f"flow after frame {n}")
        levels = quantise(flow, spec.bound)
        pictures[n] = [to_jpeg(levels[:, :, c], spec.quality) for c in (0, 1)]
    return [picture for n in pairs for picture in pictures[n]]
