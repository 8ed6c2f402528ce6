"""Frames of a video file: picked by presentation time, scaled, turned upright.

`track` maps times to packets, and `pick` decodes no more of them than the wanted frames need. A
damaged file is first decoded as a whole to see which frames it has. Its frames, and those of
packets that hold several, are then picked by number, since their times may be out of order.
"""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from data_prep.media import open_container
from data_prep.modalities.track import Decoding, Track, Unexpected, load_track, plan, span
from data_prep.reasons import Reject

if TYPE_CHECKING:
    from data_prep.modalities.video import Video

REORDERING = 32  # frames read beyond the last wanted time; H.264 and HEVC reorder within 16
ENOUGH = 3.0  # seconds that must decode of a damaged clip to keep it; our choice


class Clip(NamedTuple):
    """Chosen frames, uint8 [H, W, 3] RGB each; seconds and number of frames of the whole clip."""

    images: list[np.ndarray]
    flags: tuple[str, ...]
    duration: float
    found: int


def sample_times(
    spec: "Video", duration: Fraction, window: Sequence[float] | None = None
) -> list[Fraction]:
    """Seconds after the first frame at which `spec` wants a frame, ascending, at least one.

    `window` is the (start, end) of an event. Raises `Reject` where the clip ends before it.
    """
    start, end = (Fraction(time) for time in window or (0, duration))
    length = min(end, duration) - start
    if window and length <= 0:
        detail = f"{float(duration):.2f} s decode, the event starts at {float(start):g} s"
        raise Reject("few_frames", detail)
    if spec.positions:
        places = range(spec.positions)
        return [start + length * (2 * j + 1) / (2 * spec.positions) for j in places]
    middles = [(2 * k + 1) / (2 * Fraction(spec.fps)) for k in range(spec.max_frames)]
    inside = [time for time in middles if start <= time < start + length]
    return inside or [start + length / 2]


def wanted_times(
    times: Sequence[int],
    tick: Fraction,
    duration: Fraction,
    spec: "Video",
    window: Sequence[float] | None = None,
) -> list[int]:
    """Those of the frames' `times`, in units of `tick`, that `spec` wants."""
    if spec.first:
        return list(times[: spec.first])
    return shown_at(times, tick, sample_times(spec, duration, window))


def shown_at(times: Sequence[int], tick: Fraction, seconds: Sequence[Fraction]) -> list[int]:
    """For each of `seconds` after the first of `times` the latest of `times` that is not after."""
    return [times[bisect_right(times, times[0] + second / tick) - 1] for second in seconds]


def pick(path: Path, runs: list[tuple[int, list[int]]], spec: "Video") -> dict[int, np.ndarray]:
    """The rendered frames of the wanted times: for each the latest frame that is not after it.

    Where the decoder leaves out what is not wanted, the frames must have the wanted times.
    """
    images = {}
    with open_container(path) as container:
        decoding = Decoding(container, wanted=frozenset(t for _, times in runs for t in times))
        for start, wanted in runs:
            queue, held = deque(wanted), None
            for time, frame in decoding.frames(start):
                while queue and time > queue[0] and held is not None and not decoding.skips:
                    images[queue.popleft()] = render(held, spec)
                if queue and time == queue[0]:
                    images[queue.popleft()] = render(frame, spec)
                elif not queue:  # the next run may wait for it
                    decoding.ready.appendleft((time, frame))
                if not queue or time > queue[0]:
                    break
                held = frame
            if queue:
                raise Unexpected("a frame does not appear")
    return images


class _Converter(threading.local):
    """Converts frames to RGB, one converter per thread: FFmpeg's scaler is not thread-safe.

    It is kept from frame to frame, as setting one up takes longer than converting a frame.
    """

    def __init__(self):
        self.reformatter = VideoReformatter()


_CONVERTER = _Converter()


def render(frame: av.VideoFrame, spec: "Video") -> np.ndarray:
    """A frame as stored: RGB uint8 [H, W, 3], scaled down and turned upright."""
    try:
        picture = _CONVERTER.reformatter.reformat(frame, format="rgb24", threads=1)
    except av.error.FFmpegError as error:
        what = f"no way from {frame.format.name} to RGB ({error.strerror})"
        raise Reject("unreadable", what) from None
    return np.ascontiguousarray(upright(scale(picture.to_ndarray(), spec), frame))


def scale(image: np.ndarray, spec: "Video") -> np.ndarray:
    """[H, W, 3] area-resized to the spec's square or short side; never up to a short side."""
    height, width = image.shape[:2]
    if spec.square:
        size = (spec.square, spec.square)
    elif spec.short_side and min(height, width) > spec.short_side:
        factor = spec.short_side / min(height, width)
        size = (round(width * factor), round(height * factor))
    else:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Applies the display matrix (quarter turns and mirroring) that phones write into a file.

    It maps (x, y) to (a x + c y, b x + d y), in the order a, b, u, c, d, v of 32-bit numbers.
    """
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
    across, down = (a, d)
    if abs(b) > abs(a):
        image, across, down = image.transpose(1, 0, 2), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def read_clip(path: Path, spec: "Video", window: Sequence[float] | None = None) -> Clip:
    """The frames that `spec` wants of a file; raises `Reject` (see `extract`)."""
    track = load_track(path)
    if track.complete:
        duration = span(track.times, track.tick)
        wanted = wanted_times(track.times, track.tick, duration, spec, window)
        _check_count(path.name, len(track.times), spec)
        try:
            if track.packed:
                images = _pick_by_number(path, track.times, wanted, spec)
            else:
                images = pick(path, plan(track, wanted), spec)
            return Clip([images[t] for t in wanted], (), float(duration), len(track.times))
        except Unexpected:
            pass
    limit = float("inf") if spec.positions else max(spec.max_frames / (spec.fps or 1), ENOUGH)
    found = salvage(path, track, limit, strict=spec.missing != "fill")
    _check_count(path.name, len(found.times), spec)
    wanted = wanted_times(found.times, track.tick, found.duration, spec, window)
    try:
        images = _pick_by_number(path, found.times, wanted, spec, losses=[])
    except Unexpected:
        raise Reject("truncated", f"{found.detail}, not the same twice") from None
    return Clip([images[t] for t in wanted], found.flags, float(found.duration), len(found.times))


def _pick_by_number(
    path: Path, times: list[int], wanted: list[int], spec: "Video", losses: list[str] | None = None
) -> dict[int, np.ndarray]:
    """As `pick`, for a decoder that returns frames in order, with times that may be wrong."""
    shown = {bisect_right(times, time) - 1: time for time in wanted}
    return {shown[n]: render(frame, spec) for n, frame in numbered(path, set(shown), losses)}


def survey(path: Path, limit: float, tick: Fraction) -> tuple[list[int], list[str]]:
    """The times of all frames that decode, ascending, and the errors, by a full decoding.

    It stops `REORDERING` frames after the first `limit` seconds.
    """
    times, losses, late = [], [], 0
    with open_container(path) as container:
        for time, _ in Decoding(container, losses).frames():
            times.append(time)
            late += (time - times[0]) * tick > limit
            if late > REORDERING:
                break
    return sorted(times), losses


def numbered(
    path: Path, wanted: set[int], losses: list[str] | None = None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, frame) of the `wanted` frames, numbered in the decoder's order.

    Raises `Unexpected` where one is missing, and without `losses` at a decoding error before it.
    """
    last = max(wanted)
    with open_container(path) as container:
        for n, (_, frame) in enumerate(Decoding(container, losses).frames()):
            if n in wanted:
                yield n, frame
            if n == last:
                return
    raise Unexpected("a frame does not appear")


class Salvage(NamedTuple):
    """Result of decoding a damaged file from the start; `detail` is for rejected.csv."""

    times: list[int]
    duration: Fraction
    flags: tuple[str, ...]
    detail: str


def salvage(path: Path, track: Track, limit: float, strict: bool = True) -> Salvage:
    """Decodes the first `limit` seconds to find the frames that exist.

    Raises `Reject` ("truncated") if there are none, or with `strict` too few for the duration.
    """
    times, losses = survey(path, limit, track.tick)
    damaged = track.damaged or bool(losses)
    duration = span(times, track.tick) if times else Fraction(0)
    seconds = f"{float(duration):.2f} of {track.nominal:.2f} s"
    detail = f"{path.name}: {len(times)} frames, {seconds} decode"
    if damaged and (not times or strict and duration < min(ENOUGH, track.nominal / 2)):
        raise Reject("truncated", detail)
    return Salvage(times, duration, ("truncated",) if damaged else (), detail)


def _check_count(name: str, count: int, spec: "Video") -> None:
    if count < (1 if spec.missing == "fill" else spec.min_decoded):
        raise Reject("few_frames", f"{name}: {count} frames")
