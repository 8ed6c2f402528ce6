"""The video track of a file: its presentation times without decoding, and decoding in part.

`load_track` reads the compressed packets and with them every presentation time. Frame rates in
headers are often nonsense and many clips have a variable one, so nothing here relies on a rate.
`plan` chooses where decoding starts: at the latest keyframe before each wanted frame, or it goes on
from where it stands if no later keyframe comes between. The frames are those of a full decoding.

Neither packets nor frames are kept: each decoding opens the file anew and lets go of a packet as
soon as it is decoded, so the size of a file does not matter. It also gives each a fresh decoder:
after damage one keeps traces that a flush leaves, and does not decode again what it did before.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

from data_prep.media import demux, open_container
from data_prep.reasons import Reject

LAST = 0.1  # seconds that a last packet may last whose duration is not told
REORDERING = 32  # frames read beyond the last wanted time; H.264 and HEVC reorder within 16
# A header that claims larger pictures is not believed: 8K video has 33,177,600 pixels. Our choice.
MOST_PIXELS = 1 << 25
# Decoders that leave out a picture on which no other depends and give all others unchanged. AV1's
# leaves out more; those of other formats ignore the wish.
CAN_SKIP = ("h264", "hevc", "mpeg4", "mpeg2video")
VOP = b"\0\0\1\xb6"  # begins each coded picture of MPEG-4 Part 2, and stands nowhere else


class Unexpected(Exception):
    """The decoder does not deliver what the packets promise."""


def time_of(item: av.Packet | av.VideoFrame) -> int | None:
    """The time at which it is shown, or failing that at which it is decoded."""
    return item.dts if item.pts is None else item.pts


@dataclass
class Track:
    """What the packets of a video track tell.

    `timeless` if one has no time; `packed` if one holds several pictures (DivX's "packed B-frames":
    the order of the decoded frames is right, the times that they bear go back and forth). `times`:
    presentation times of all frames that are shown, in units of `tick` seconds, ascending. `where`:
    number of the packet of each time; `keys`: (packet, time) of each keyframe. `nominal`: the
    duration in seconds that the container announces, 0 if unknown.
    """

    tick: Fraction
    nominal: float = 0.0
    damaged: bool = False
    timeless: bool = False
    packed: bool = False
    count: int = 0
    times: list[int] = field(default_factory=list)
    where: dict[int, int] = field(default_factory=dict)
    keys: list[tuple[int, int]] = field(default_factory=list)

    def add(self, packet: av.Packet, mpeg4: bool) -> None:
        """Takes the next packet of the stream."""
        self.damaged |= packet.is_corrupt
        self.packed |= mpeg4 and not self.packed and bytes(packet).count(VOP) > 1
        time = time_of(packet)
        if time is None:
            self.timeless = True
        else:
            if not packet.is_discard:  # what an edit list hides is decoded and not shown
                self.times.append(time)
            self.where[time] = self.count
            if packet.is_keyframe:
                self.keys.append((self.count, time))
        self.count += 1

    @property
    def sound(self) -> bool:
        """Whether the packets tell which frames there are."""
        return bool(self.times) and not self.damaged and not self.timeless

    def start_for(self, time: int) -> int:
        """The packet from which the frame of `time` can be decoded."""
        return max((index for index, shown in self.keys if shown <= time), default=0)


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is no cover picture, ready to decode on one thread.

    Raises `Reject`: "no_video", or "unreadable" where no decoder knows the track, its pictures are
    too large, or its times have no unit.
    """
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
    """All presentation times of the first video track.

    `damaged` is set where the file breaks off: a demuxing error, an incomplete packet, fewer
    packets than an mp4's index lists or nine tenths of those another header counts, or a last
    packet (of any stream) well before the container's end. Raises `Reject`: see `open_container`
    and `video_stream`.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        whole = (container.duration or 0) / av.time_base
        own = float((stream.duration or 0) * stream.time_base) or whole
        counted = stream.frames / stream.average_rate if stream.average_rate else 0
        track = Track(stream.time_base, nominal=max(own, float(counted), 0.0))
        expected = _expected(container, stream)
        end = _read_packets(container, stream, track)
    track.damaged |= track.count < expected or end < 0.9 * whole - LAST
    track.times.sort()
    return track


def _expected(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """The number of packets below which a file is held for damaged."""
    if "mov" not in container.format.name:
        return 0.9 * stream.frames
    # An mp4 lists its packets when it is opened, less what is cut out.
    listed = stream.index_entries
    if len(listed) > container.size:  # each has a byte at least; do not count what is not there
        return len(listed)
    return sum(entry.size > 0 for entry in listed)


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
                time += packet.duration or 0
                ends[packet.stream_index] = max(ends.get(packet.stream_index, time), time)
            if packet.stream_index == stream.index:
                track.add(packet, mpeg4)
    except av.error.FFmpegError:
        track.damaged = True
    end = max(
        (
            float(ends[each.index] * each.time_base)
            for each in container.streams
            if each.index in ends and each.time_base
        ),
        default=0.0,
    )
    return end - (container.start_time or 0) / av.time_base


def span(times: Sequence[int], tick: Fraction) -> Fraction:
    """Seconds from the first time to one frame (the median step) after the last; 0 of one frame."""
    steps = sorted(later - time for time, later in pairwise(times))
    return (times[-1] - times[0] + steps[len(steps) // 2]) * tick if steps else Fraction(0)


def plan(track: Track, wanted: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Runs of decoding that give the wanted times: the packet to start from, and the times.

    A run begins only at a keyframe that the run before does not reach, so no plan decodes more
    packets than going through the file once does.
    """
    runs: list[tuple[int, list[int]]] = []
    for time in sorted(set(wanted)):
        start = track.start_for(time)
        if runs and start <= track.where[runs[-1][1][-1]]:
            runs[-1][1].append(time)
        else:
            runs.append((start, [time]))
    return runs


class Decoding:
    """One way through the video track of an open file, forwards.

    With a list `losses`, what does not decode is passed over and added to it; without one it raises
    `Unexpected`. With `wanted` times, pictures of other times may be left out where none of the
    wanted ones depends on them; damage that is confined to such a picture is not seen.
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
        """(time, frame) in the decoder's order, from the packet `start` on.

        What lies between is skipped; if reading has passed `start` already, it goes on from where
        it stands. A frame put back into `ready` comes again.
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
        """Puts the frames that a packet gives, at the end (None) those held back, into `ready`."""
        if self.skips:
            needed = packet is None or time_of(packet) in self.wanted
            self.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        try:
            frames = self.stream.codec_context.decode(packet)
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
        what = what or "decoding error"
        if self.losses is None:
            raise Unexpected(what)
        self.losses.append(what)


def survey(path: Path, limit: float, tick: Fraction) -> tuple[list[int], list[str]]:
    """The times of all frames that decode, ascending, and what went wrong, by a full decoding.

    It ends `REORDERING` frames beyond the first `limit` seconds.
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
    """(number, frame) of the frames with the `wanted` numbers, counted as the decoder gives them.

    Raises `Unexpected` where one does not appear, and without `losses` where a part does not decode
    before it.
    """
    last = max(wanted)
    with open_container(path) as container:
        for n, (_, frame) in enumerate(Decoding(container, losses).frames()):
            if n in wanted:
                yield n, frame
            if n == last:
                return
    raise Unexpected("a frame does not appear")
