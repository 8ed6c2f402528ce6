"""The video track of a file: presentation times without decoding, and partial decoding.

Nothing relies on the frame rate of a header: it is often wrong, and many clips have a variable one.
Every decoding opens the file anew and keeps neither packets nor frames, so the size of a file does
not matter. It also gets a fresh decoder: after damage, a flush does not restore the old one.
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

LAST = 0.1  # seconds that a last packet of unknown duration may last
MOST_PIXELS = 1 << 25  # of a frame; 8K video has 33,177,600. Our choice
# Decoders that can skip frames on which no other depends and leave all others unchanged. AV1's
# skips more; those of other formats ignore the setting.
CAN_SKIP = ("h264", "hevc", "mpeg4", "mpeg2video")
VOP = b"\0\0\1\xb6"  # starts each coded frame of MPEG-4 Part 2, and occurs nowhere else


class Unexpected(Exception):
    """The decoder does not return the frames that the packets promise."""


def time_of(item: Any) -> int | None:
    """The presentation time of a packet or frame, or the decoding time where there is none."""
    return item.dts if item.pts is None else item.pts


@dataclass
class Track:
    tick: Fraction  # seconds
    nominal: float  # seconds that the container claims, 0 if unknown
    damaged: bool = False  # the file breaks off
    timeless: bool = False  # a packet has no time
    # A packet holds several frames (DivX's "packed B-frames"): they are decoded in the right order,
    # but their times go back and forth.
    packed: bool = False
    count: int = 0  # packets
    times: list[int] = field(default_factory=list)  # of the shown frames, in ticks, ascending
    where: dict[int, int] = field(default_factory=dict)  # time -> number of its packet
    keys: list[tuple[int, int]] = field(default_factory=list)  # (packet, time) of each keyframe

    @property
    def complete(self) -> bool:
        """Whether `times` are those of all frames."""
        return bool(self.times) and not self.damaged and not self.timeless


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is no cover picture, set up to decode on one thread."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise Reject("no_video", "no video track")
    stream = streams[0]
    if not stream.codec_context:
        raise Reject("unreadable", "no decoder for the video track")
    if stream.width * stream.height > MOST_PIXELS:
        raise Reject("unreadable", f"pictures of {stream.width} x {stream.height} pixels")
    if not stream.time_base or stream.time_base < 0:
        raise Reject("unreadable", "the times of the video track have no unit")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    return stream


def load_track(path: Path) -> Track:
    """What the packets of the first video track contain, without decoding; raises `Reject`.

    A file breaks off where there is a demuxing error, an incomplete packet, fewer packets than an
    mp4's index lists or nine tenths of those another header counts, or a last packet (of any
    stream) well before the container's end.
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
            # A packet has at least one byte: an index that claims more is not counted through.
            bogus = len(listed) > container.size
            expected = len(listed) if bogus else sum(entry.size > 0 for entry in listed)
        end = _read_packets(container, stream, track)
    track.damaged |= track.count < expected or end < 0.9 * whole - LAST
    track.times.sort()
    return track


def _read_packets(
    container: av.container.InputContainer, stream: av.VideoStream, track: Track
) -> float:
    """Fills `track` and returns the seconds from the container's start to its last packet's end."""
    ends: dict[int, int] = {}  # in each stream's own unit
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
                if not packet.is_discard:  # an edit list may hide a frame that is decoded
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
    """Seconds from the first time to one frame (the median step) after the last; 0 of one frame."""
    steps = sorted(later - time for time, later in pairwise(times))
    return (times[-1] - times[0] + steps[len(steps) // 2]) * tick if steps else Fraction(0)


class Decoding:
    """One pass through the video track of an open file.

    Decoding errors are appended to `losses`, or raise `Unexpected` without such a list. With
    `wanted` times, frames that none of those depends on may be skipped, their damage unnoticed.
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
        """(time, frame) in the decoder's order, from the packet `start` on or from the current one.

        A frame put back into `ready` comes again.
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
        """Appends the frames of a packet to `ready`; None gives those that were held back.

        No frame outlives it here: a decoder reuses their memory, which damaged pictures show.
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
