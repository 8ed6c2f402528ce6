"""Optical flow between consecutive frames, quantised and stored as two greyscale JPEGs per pair.

u (to the right) and v (downwards), in pixels per frame at the clip's native frame rate, are clipped
to +-20 pixels and mapped linearly to 0..255, with no motion at 128. The precomputed TV-L1 flow of
UCF-101 and the official MIDAS release have this format and are read unchanged (`folders.py`).

The bytes do not depend on the number of threads, but OpenCV's vector code may differ in the last
bit between processor types.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.options import UsageError, unknown
from data_prep.modalities.base import Extracted, the_file, view
from data_prep.modalities.decoding import Clip, middles, read_clip, shown_at
from data_prep.modalities.folders import read_precomputed
from data_prep.modalities.pictures import to_jpeg
from data_prep.modalities.video import Video
from data_prep.modalities.views import Visual, choose_frames
from data_prep.reasons import Reject

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]

ALGORITHMS = ("dis", "farneback", "tvl1")
# Pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags: the values of OpenCV's
# sample code, which public scripts use too.
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)
# UCF-101's frames are 320 x 240. Larger ones are scaled down to this shorter side, so that a bound
# in pixels means the same; smaller ones are not scaled. Our choice.
SCALED = Video(short_side=240)
SMALLEST = 16  # minimum side in pixels: DIS in OpenCV 5.0 crashes on frames of 8 to 15 rows


@dataclass(frozen=True)
class Flow(Visual):
    """Stored optical flow between consecutive frames: u and v as images.

    At each of `positions`, shown at (j + 0.5) / positions of the duration, `stack` consecutive
    pairs of frames give `stack` images of u and of v: 8-bit grey, flow clipped to +-bound pixels
    and mapped linearly to 0..255, so that no motion is 128. Order: u1, v1, u2, v2, ...

    The model sees the flow at `frames` of the positions; `augment` and `choice` as in `Video`.
    """

    algorithm: str = "dis"  # or "farneback", "tvl1", "precomputed"
    positions: int = 10
    stack: int = 1
    bound: float = 20.0
    quality: int = 95
    min_decoded: int = 4  # fewer frames in the file are rejected as few_frames
    of_folder: int = 0  # maximum positions from folders of u and v; 0: folders are not read
    frames: int = view(3)
    augment: str = view("flip")
    choice: str = view("segments")
    normalise: str | tuple[list[float], list[float]] = view("none")

    def check(self) -> None:
        """Raises `UsageError` if the installed OpenCV lacks the algorithm."""
        if self.algorithm != "precomputed":
            solver(self.algorithm)

    def from_row(self, name: str, row: dict[str, str]) -> tuple[list[str], Any]:
        """A video, or for precomputed flow the folders of u and v, separated by ";"."""
        cell = row[name]
        two = self.algorithm == "precomputed" or bool(self.of_folder) and ";" in cell
        paths = cell.split(";") if two else [cell]
        if two and len(paths) != 2:
            raise ValueError("is not two folders, u;v")
        return paths, None

    def is_one_source(self, paths: Sequence[Path]) -> bool:
        """True for precomputed flow, whose folders of u and v belong together."""
        pair = self.algorithm == "precomputed" or bool(self.of_folder and paths[0].is_dir())
        return len(paths) < 2 or pair

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The flow of the one file in `paths`, or of the folders of u and v, in order of time.

        Flags: "truncated" (only part of the clip decodes, but at least 3 s or half of it),
        "unpaired_flow" (precomputed images without a partner were left out), "precomputed_flow"
        (flow was read from folders although `algorithm` would compute it).
        Raises `Reject`: "unreadable", "truncated", "no_video", "few_frames", "missing_file",
        "no_flow", "bad_values", "bad_image"; and `UsageError` if the algorithm is not available.
        """
        folders = self.of_folder and len(paths) == 2 and paths[0].is_dir()
        if self.algorithm == "precomputed" or folders:
            return read_precomputed(paths, self)
        clip = self.read_frames(the_file(paths, "no_video"))
        return Extracted(compute(clip, self), clip.flags, clip.duration, clip.found, True)

    def check_count(self, name: str, frames: int) -> None:
        """Raises `Reject` ("few_frames") if a clip is too short."""
        if frames < max(self.min_decoded, self.stack + 1):
            raise Reject("few_frames", f"{name}: {frames} frames")

    def read_frames(self, path: Path) -> Clip:
        """At each position of a clip, the frame shown there and the next `stack` ones.

        Near the end of a clip, the position moves back to the last frame with enough successors.
        """

        def choice(times: Sequence[int], tick: Fraction, duration: Fraction) -> list[int]:
            self.check_count(path.name, len(times))
            starts = shown_at(times[: -self.stack], tick, middles(duration, self.positions))
            return [start + k for start in starts for k in range(self.stack + 1)]

        # By number, since many clips of UCF-101 pack two frames into one packet (DivX's "packed
        # B-frames"): their order is right but their times are wrong. Damaged clips are handled as
        # in `Video`, so that a clip keeps both modalities or neither.
        return read_clip(path, choice, SCALED, float("inf"), by_number=True)

    def unpack(self, stored: Any) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_GRAYSCALE)

    def chosen(self, stored: int, rng: np.random.Generator | None) -> list[int]:
        """u and v at the chosen positions, u1, v1, u2, v2, ..."""
        channels = 2 * self.stack
        positions = choose_frames(stored // channels, self.frames, rng, self.choice)
        return [k * channels + c for k in positions for c in range(channels)]

    def negated(self, images: int, mirrored: bool) -> list[bool]:
        """Mirroring reverses horizontal motion, which is every u.

        Not if images are mirrored independently, as in the official release.
        """
        shared = mirrored and self.augment != "none" and not self.augment.endswith("_apart")
        return [shared and k % 2 == 0 for k in range(images)]

    def stream(self) -> dict[str, Any]:
        return {"kind": "flow", "channels": 2 * self.stack}

    def values(self, batch: Any) -> tuple[Any, tuple[int, ...], int]:
        """[B, T, C, H, W] scaled to [0, 1]: one mean, since u and v share a scale."""
        return batch / 255, (0, 1, 2, 3, 4), 1


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Motion in pixels as uint8 of the same shape: q = round((clip(f) + b) * 255 / (2 b))."""
    return np.rint((np.clip(flow / bound, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def solver(name: str) -> Solver:
    """The function from two consecutive grey uint8 [H, W] frames to (u, v) float32 [H, W, 2].

    Raises `UsageError` if the algorithm is unknown or not installed.
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
            "--flow_algo tvl1 needs OpenCV's contrib modules, which are not installed: pip"
            " uninstall opencv-python opencv-python-headless, then pip install"
            " opencv-contrib-python-headless; or use --flow_algo dis"
        )
    return lambda first, second: method.calc(first, second, None)


def compute(clip: Clip, spec: "Flow") -> list[bytes]:
    """The stored images of all positions, u1, v1, u2, v2, ...; each pair is computed once.

    Raises `Reject`: "no_flow" for frames smaller than `SMALLEST`, "bad_values".
    """
    grey = {n: cv2.cvtColor(clip.images[n], cv2.COLOR_RGB2GRAY) for n in sorted(clip.images)}
    height, width = next(iter(grey.values())).shape  # for all frames: a stream may change its size
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
