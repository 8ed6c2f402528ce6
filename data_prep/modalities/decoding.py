"""Reads frames of a video file: selected by presentation time, scaled, turned upright.

A damaged file is first decoded completely to find out which frames it has. Its frames, and frames
packed several to a packet, are then selected by number, since their times may be out of order.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from data_prep.media import open_container
from data_prep.modalities.pictures import shrink
from data_prep.modalities.track import Decoding, Track, Unexpected, load_track, span
from data_prep.reasons import Reject

if TYPE_CHECKING:
    from data_prep.modalities.video import Video

REORDERING = 32  # frames read past the last wanted time; H.264 and HEVC reorder within 16
ENOUGH = 3.0  # seconds of a damaged clip that must decode to keep it; our choice
_THREAD = threading.local()

# Returns the numbers of the wanted frames, given the times of all frames, their unit, the duration.
Choice = Callable[[Sequence[int], Fraction, Fraction], list[int]]


class Clip(NamedTuple):
    """The frames read from a video file."""

    images: dict[int, np.ndarray]  # uint8 [H, W, 3] RGB by frame number
    wanted: list[int]  # the chosen frame numbers in order
    flags: tuple[str, ...]
    duration: float  # seconds of the full clip
    found: int  # frames of the full clip


def middles(length: Fraction | int, count: int) -> list[Fraction]:
    """The midpoints of `count` equal segments of a length."""
    return [Fraction(length) * (2 * j + 1) / (2 * count) for j in range(count)]


def shown_at(times: Sequence[int], tick: Fraction, seconds: Sequence[Fraction]) -> list[int]:
    """For each of `seconds`, the index of the latest of `times` that is not after it."""
    return [bisect_right(times, times[0] + second / tick) - 1 for second in seconds]


def choose(
    spec: "Video",
    window: Sequence[float] | None,
    times: Sequence[int],
    tick: Fraction,
    duration: Fraction,
) -> list[int]:
    """The numbers of the frames selected by `spec`, ascending, at least one.

    `window` is the (start, end) of an event. Raises `Reject` if the clip ends before it or has too
    few frames.
    """
    if len(times) < (1 if spec.missing == "fill" else spec.min_decoded):
        raise Reject("few_frames", f"{len(times)} frames")
    if spec.first:
        return [bisect_right(times, time) - 1 for time in times[: spec.first]]
    start, end = (Fraction(time) for time in window or (0, duration))
    length = min(end, duration) - start
    if window and length <= 0:
        detail = f"{float(duration):.2f} s decode, the event starts at {float(start):g} s"
        raise Reject("few_frames", detail)
    if spec.positions:
        seconds = [start + middle for middle in middles(length, spec.positions)]
    else:
        every = middles(spec.max_frames / Fraction(spec.fps), spec.max_frames)
        inside = [second for second in every if start <= second < start + length]
        seconds = inside or [start + length / 2]
    return shown_at(times, tick, seconds)


def read_clip(
    path: Path, choice: Choice, spec: "Video", limit: float, by_number: bool = False
) -> Clip:
    """The frames of a file selected by `choice`, scaled according to `spec`.

    A damaged file is read up to `limit` seconds. `by_number`: decode from the start and count
    frames instead of relying on packet times. Raises `Reject`.
    """
    track = load_track(path)
    if track.complete:
        duration = span(track.times, track.tick)
        wanted = choice(track.times, track.tick, duration)
        try:
            if by_number or track.packed:
                images = _by_number(path, wanted, spec)
            else:
                images = _by_time(path, track, wanted, spec)
            return Clip(images, wanted, (), float(duration), len(track.times))
        except Unexpected:
            pass
    times, damaged = _survey(path, track, limit)
    duration = span(times, track.tick) if times else Fraction(0)
    seconds = f"{float(duration):.2f} of {track.nominal:.2f} s"
    detail = f"{path.name}: {len(times)} frames, {seconds} decode"
    enough = spec.missing == "fill" or duration >= min(ENOUGH, track.nominal / 2)
    if damaged and not (times and enough):
        raise Reject("truncated", detail)
    wanted = choice(times, track.tick, duration)
    try:
        images = _by_number(path, wanted, spec, losses=[])
    except Unexpected:
        raise Reject("truncated", f"{detail}, differently each time") from None
    return Clip(images, wanted, ("truncated",) * damaged, float(duration), len(times))


def _by_time(path: Path, track: Track, wanted: list[int], spec: "Video") -> dict[int, np.ndarray]:
    """The rendered frames of the wanted numbers, decoding no more than necessary.

    Decoding starts at the keyframe before a wanted frame, unless the decoder is already past it. A
    time without a frame gives the frame before it, unless the decoder may have skipped that one.
    """
    images, held, packet = {}, None, -1
    with open_container(path) as container:
        decoding = Decoding(container, wanted=frozenset(track.times[n] for n in wanted))
        for n in sorted(set(wanted)):
            target = track.times[n]
            start = max((key for key, shown in track.keys if shown <= target), default=0)
            if start > packet:
                held = None
            packet = track.where[target]
            for time, frame in decoding.frames(start if held is None else 0):
                if time < target:
                    held = frame
                    continue
                if time > target:
                    if held is None or decoding.skips:
                        raise Unexpected("a frame is missing")
                    decoding.ready.appendleft((time, frame))  # it may be the next wanted one
                    frame = held
                images[n], held = render(frame, spec), frame
                break
            else:
                raise Unexpected("a frame is missing")
    return images


def _by_number(
    path: Path, wanted: list[int], spec: "Video", losses: list[str] | None = None
) -> dict[int, np.ndarray]:
    """The rendered frames of the wanted numbers, counted in decoder order from the start.

    Raises `Unexpected` if a frame is missing or, without `losses`, on a decoding error.
    """
    images, last = {}, max(wanted)
    with open_container(path) as container:
        for n, (_, frame) in enumerate(Decoding(container, losses).frames()):
            if n in wanted:
                images[n] = render(frame, spec)
            if n == last:
                return images
    raise Unexpected("a frame is missing")


def _survey(path: Path, track: Track, limit: float) -> tuple[list[int], bool]:
    """The times of the decodable frames, ascending, and whether the file is damaged.

    Stops `REORDERING` frames after the first `limit` seconds.
    """
    times: list[int] = []
    losses: list[str] = []
    late = 0
    with open_container(path) as container:
        for time, _ in Decoding(container, losses).frames():
            times.append(time)
            late += (time - times[0]) * track.tick > limit
            if late > REORDERING:
                break
    return sorted(times), track.damaged or bool(losses)


def render(frame: av.VideoFrame, spec: "Video") -> np.ndarray:
    """A frame as stored: RGB uint8 [H, W, 3], scaled down and turned upright."""
    if not hasattr(_THREAD, "converter"):
        # One per thread, because FFmpeg's scaler is not thread-safe. It is reused, because creating
        # one takes longer than converting a frame.
        _THREAD.converter = VideoReformatter()
    try:
        picture = _THREAD.converter.reformat(frame, format="rgb24", threads=1)
    except av.error.FFmpegError as error:
        what = f"cannot convert {frame.format.name} to RGB ({error.strerror})"
        raise Reject("unreadable", what) from None
    return np.ascontiguousarray(upright(scale(picture.to_ndarray(), spec), frame))


def scale(image: np.ndarray, spec: "Video") -> np.ndarray:
    """[H, W, 3] area-resized to the spec's square or short side; a short side is never enlarged."""
    if spec.square:
        return cv2.resize(image, (spec.square, spec.square), interpolation=cv2.INTER_AREA)
    return shrink(image, spec.short_side or max(image.shape))


def upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Applies the display matrix (quarter turns and mirroring) that phones write into a file.

    It maps (x, y) to (a x + c y, b x + d y); its 32-bit numbers start with a, b, u, c, d, v.
    """
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
    across, down = (a, d)
    if abs(b) > abs(a):
        image, across, down = image.transpose(1, 0, 2), c, b
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
