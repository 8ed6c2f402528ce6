"""The video track of a file: presentation times without decoding, and partial decoding.

The frame rate in the header is not used: it is often wrong, and many clips have a variable rate.
Each decoding reopens the file and keeps no packets or frames, so large files need no more memory.
It also gets a fresh decoder, because flushing does not restore one after damage.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from data_prep.media import demux, open_container
from data_prep.reasons import Reject

LAST = 0.1  # maximum seconds of a last packet without a duration
MOST_PIXELS = 1 << 25  # per frame; 8K video has 33,177,600. Our choice
# Decoders that can skip non-reference frames and leave all others unchanged. The AV1 decoder skips
# more, and those of other formats ignore the setting.
CAN_SKIP = ("h264", "hevc", "mpeg4", "mpeg2video")
VOP = b"\0\0\1\xb6"  # starts each coded frame of MPEG-4 Part 2, and occurs nowhere else


class Unexpected(Exception):
    """The decoder does not return the frames expected from the packets."""


def time_of(item: Any) -> int | None:
    """The presentation time of a packet or frame, or else its decoding time."""
    return item.dts if item.pts is None else item.pts


@dataclass
class Track:
    tick: Fraction  # seconds
    nominal: float  # seconds declared by the container, 0 if unknown
    damaged: bool = False  # the file is truncated or corrupt
    timeless: bool = False  # a packet has no time
    # A packet contains several frames (DivX's "packed B-frames"): they are decoded in the right
    # order, but their times are not monotonic.
    packed: bool = False
    count: int = 0  # packets
    times: list[int] = field(default_factory=list)  # of the visible frames, in ticks, ascending
    where: dict[int, int] = field(default_factory=dict)  # time -> packet number
    keys: list[tuple[int, int]] = field(default_factory=list)  # (packet, time) of each keyframe

    @property
    def complete(self) -> bool:
        """Whether `times` covers all frames."""
        return bool(self.times) and not self.damaged and not self.timeless


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not a cover image, set to decode in one thread."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise Reject("no_video", "no video track")
    stream = streams[0]
    if not stream.codec_context:
        raise Reject("unreadable", "no decoder for the video track")
    if stream.width * stream.height > MOST_PIXELS:
        raise Reject("unreadable", f"frames too large: {stream.width} x {stream.height} pixels")
    if not stream.time_base or stream.time_base < 0:
        raise Reject("unreadable", "the video track has no time base")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return stream


def load_track(path: Path) -> Track:
    """Reads the packets of the first video track without decoding; raises `Reject`.

    A file counts as damaged on a demuxing error, an incomplete packet, fewer packets than an mp4's
    index lists (other containers: than 90 % of the header's count), or if the last packet of all
    streams ends well before the container's end.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        whole = (container.duration or 0) / av.time_base
        own = float((stream.duration or 0) * stream.time_base) or whole
        counted = stream.frames / stream.average_rate if stream.average_rate else 0
        track = Track(stream.time_base, nominal=max(own, float(counted), 0.0))
        expected = 0.9 * stream.frames
        if "mov" in container.format.name:  # an mp4 has an index of its packets
            listed = stream.index_entries
            # A packet has at least one byte: an index with more entries is not iterated over.
            bogus = len(listed) > container.size
            expected = len(listed) if bogus else sum(entry.size > 0 for entry in listed)
        end = _read_packets(container, stream, track)
    track.damaged |= track.count < expected or end < 0.9 * whole - LAST
    track.times.sort()
    return track


def _read_packets(
    container: av.container.InputContainer, stream: av.VideoStream, track: Track
) -> float:
    """Fills `track`; returns the seconds from the container's start to its last packet's end."""
    ends: dict[int, int] = {}  # in the unit of each stream
    mpeg4 = stream.codec_context.name == "mpeg4"
    try:
        for packet in demux(container):
            if not packet.size:  # a dropped frame, or the end of a stream
                continue
            time = time_of(packet)
            if time is not None:
                end = time + (packet.duration or 0)
                ends[packet.stream_index] = max(ends.get(packet.stream_index, end), end)
            if packet.stream_index != stream.index:
                continue
            track.damaged |= packet.is_corrupt
            track.packed |= mpeg4 and not track.packed and bytes(packet).count(VOP) > 1
            if time is None:
                track.timeless = True
            else:
                if not packet.is_discard:  # an edit list may hide a decoded frame
                    track.times.append(time)
                track.where[time] = track.count
                if packet.is_keyframe:
                    track.keys.append((track.count, time))
            track.count += 1
    except av.error.FFmpegError:
        track.damaged = True
    units = {each.index: each.time_base for each in container.streams if each.time_base}
    last = max((float(ends[k] * unit) for k, unit in units.items() if k in ends), default=0.0)
    return last - (container.start_time or 0) / av.time_base


def span(times: Sequence[int], tick: Fraction) -> Fraction:
    """Seconds from the first time to one frame (median step) after the last; 0 for one frame."""
    steps = sorted(later - time for time, later in pairwise(times))
    return (times[-1] - times[0] + steps[len(steps) // 2]) * tick if steps else Fraction(0)


class Decoding:
    """One pass through the video track of an open file.

    Decoding errors are appended to `losses`, or raise `Unexpected` if it is None. With `wanted`
    times, frames that they do not depend on may be skipped, and damage in those goes unnoticed.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        losses: list[str] | None = None,
        wanted: frozenset[int] | None = None,
    ):
        self.stream = video_stream(container)
        self.losses, self.wanted = losses, wanted
        self.skips = wanted is not None and self.stream.codec_context.name in CAN_SKIP
        self.packets = self._packets(container)
        self.read = 0  # packets so far
        self.ended = False
        self.ready: deque[tuple[int, av.VideoFrame]] = deque()

    def frames(self, start: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
        """(time, frame) in decoder order, from the packet `start` or the current one if later.

        A frame that is put back into `ready` is returned again.
        """
        if start > self.read:
            while self.read < start and next(self.packets, None):
                pass
            self.ready.clear()
            if self.stream.codec_context.is_open:
                self.stream.codec_context.flush_buffers()
        while self.ready or not self.ended:
            if self.ready:
                yield self.ready.popleft()
                continue
            packet = next(self.packets, None)
            self.ended = packet is None
            self._decode(packet)

    def _packets(self, container: av.container.InputContainer) -> Iterator[av.Packet]:
        try:
            for packet in demux(container, self.stream):
                if packet.size:
                    self.read += 1
                    yield packet
        except av.error.FFmpegError as error:
            self._lose(error.strerror)

    def _decode(self, packet: av.Packet | None) -> None:
        """Appends the frames of a packet to `ready`; None flushes the decoder.

        Keeps no other reference to a frame: decoders reuse the memory, as damaged frames show.
        """
        context = self.stream.codec_context
        if self.skips:
            needed = packet is None or time_of(packet) in self.wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            self._lose(error.strerror)
            return
        for frame in frames:
            time = time_of(frame)
            if frame.is_corrupt or time is None:
                self._lose("a corrupt frame")
            else:
                self.ready.append((time, frame))

    def _lose(self, what: str | None) -> None:
        if self.losses is None:
            raise Unexpected(what)
        self.losses.append(what or "decoding error")
