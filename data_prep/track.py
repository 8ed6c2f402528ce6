"""The video track of a file: its presentation times without decoding, and decoding in part.

`load_track` reads the compressed packets and with them every presentation time. Frame rates in
headers are often nonsense and many clips have a variable one, so nothing here relies on a rate.
`plan` chooses where decoding starts: at the latest keyframe before each wanted frame, or it goes on
from where it stands if no later keyframe comes between. The frames are those of a full decoding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise

import av

from data_prep.extracted import demux
from data_prep.reasons import Reject

LAST = 0.1  # seconds that a last packet may last whose duration is not told
REORDERING = 32  # packets kept beyond the last wanted time; H.264 and HEVC reorder within 16


class Unexpected(Exception):
    """The decoder does not deliver what the packets promise."""


@dataclass
class Track:
    """A video track before decoding.

    `packets`: compressed, in decoding order, of the first `limit` seconds; `timeless` if one has no
    time. `times`: presentation times of all frames that are shown, in units of `tick` seconds,
    ascending. `where`: packet of each time; `keys`: (packet, time) of each keyframe. `nominal`: the
    duration in seconds that the container announces, 0 if unknown.
    """

    stream: av.VideoStream
    tick: Fraction
    limit: float
    nominal: float = 0.0
    damaged: bool = False
    timeless: bool = False
    count: int = 0
    packets: list[av.Packet] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    where: dict[int, int] = field(default_factory=dict)
    keys: list[tuple[int, int]] = field(default_factory=list)
    late: int = 0  # packets beyond the limit

    def add(self, packet: av.Packet) -> None:
        """Takes the next packet of the stream."""
        self.count += 1
        self.damaged |= packet.is_corrupt
        time = packet.dts if packet.pts is None else packet.pts
        if time is None:
            self.timeless = True
        else:
            if not packet.is_discard:  # what an edit list hides is decoded and not shown
                self.times.append(time)
            self.late += bool(self.times) and time - self.times[0] > self.limit / self.tick
            self.where[time] = len(self.packets)
            if packet.is_keyframe:
                self.keys.append((len(self.packets), time))
        if self.late <= REORDERING:
            self.packets.append(packet)

    def start_for(self, time: int) -> int:
        """The packet from which the frame of `time` can be decoded."""
        return max((index for index, shown in self.keys if shown <= time), default=0)


def load_track(container: av.container.InputContainer, limit: float) -> Track:
    """All presentation times of the first video track, and its packets of `limit` seconds.

    `damaged` is set where the file breaks off: a demuxing error, an incomplete packet, fewer
    packets than an mp4's index lists or nine tenths of those another header counts, or a last
    packet (of any stream) well before the container's end. Raises `Reject`: "no_video", or
    "unreadable" where no decoder knows the track.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise Reject("no_video", "no video track")
    stream = streams[0]
    if not stream.codec_context:
        raise Reject("unreadable", "no decoder for the video track")
    stream.codec_context.thread_count = 1
    whole = (container.duration or 0) / av.time_base
    own = float((stream.duration or 0) * stream.time_base) or whole
    counted = stream.frames / stream.average_rate if stream.average_rate else 0
    track = Track(stream, stream.time_base, limit, nominal=max(own, float(counted)))
    expected = 0.9 * stream.frames
    if "mov" in container.format.name:  # lists its packets when it is opened, less what is cut out
        expected = sum(entry.size > 0 for entry in stream.index_entries)
    end = _read_packets(container, track)
    track.damaged |= track.count < expected or end < 0.9 * whole - LAST
    track.times.sort()
    return track


def _read_packets(container: av.container.InputContainer, track: Track) -> float:
    """Fills `track` and returns the seconds from the container's start to its last packet's end."""
    ends: dict[int, int] = {}  # in each stream's own unit
    try:
        for packet in demux(container):
            if not packet.size:  # a dropped frame, or the end of a stream
                continue
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                time += packet.duration or 0
                ends[packet.stream_index] = max(ends.get(packet.stream_index, time), time)
            if packet.stream_index == track.stream.index:
                track.add(packet)
    except av.error.FFmpegError:
        track.damaged = True
    end = max(
        (
            float(ends[each.index] * each.time_base)
            for each in container.streams
            if each.index in ends
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


def decode_from(
    track: Track, start: int, losses: list[str] | None = None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(time, frame) in order of presentation from the packet `start` on.

    With a list `losses`, what does not decode is passed over and added to it; without one it raises
    `Unexpected`.
    """
    context = track.stream.codec_context
    if context.is_open:
        context.flush_buffers()
    for packet in chain(track.packets[start:], [None]):
        try:
            frames = context.decode(packet)
            lost = ""
        except av.error.FFmpegError as error:
            frames, lost = [], error.strerror or "decoding error"
        for frame in frames:
            time = frame.dts if frame.pts is None else frame.pts
            if frame.is_corrupt or time is None:
                lost = "a corrupt frame"
            else:
                yield time, frame
        if lost and losses is None:
            raise Unexpected(lost)
        if lost:
            losses.append(lost)


def survey(track: Track) -> tuple[list[int], list[str]]:
    """The times of all frames that decode, ascending, and what went wrong, by a full decoding."""
    times, losses = [], []
    for time, _ in decode_from(track, 0, losses):
        if not times or time > times[-1]:
            times.append(time)
    return times, losses
