"""Raw files before they are decoded: git-lfs pointers, containers, and the index of an mp4.

FFmpeg allocates an entry for each sample (a frame, or a chunk of audio) that an mp4's index counts.
A few bytes can claim 80 million samples, for which it allocates more than 5 GB (measured with
FFmpeg 8), although the file does not contain them. So the index is checked here first.
"""

import itertools
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

from data_prep.reasons import Reject

# FFmpeg's names of the containers that hold sound and pictures themselves.
FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv", "mpeg",
    "mpegts", "mpegvideo", "m4v", "h264", "hevc", "asf", "ogg", "wav", "w64", "aiff", "au", "caf",
    "mp3", "aac", "ac3", "flac", "ivf", "mxf", "rm", "nut", "swf", "dv", "gif", "amr",
)  # fmt: skip
# The first keeps a file that poses as a video from reaching the network, the second a playlist
# from reading other files.
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}

# How files begin that FFmpeg may take for an mp4 (or a QuickTime movie, which has the same form).
FIRST = b"ftyp styp moov moof mdat free skip wide pnot sidx uuid junk pict".split()
FOLDERS = b"moov trak mdia minf stbl moof traf edts dinf mvex tref".split()  # hold other boxes
COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # where in the box's content the number is
FEW = 1 << 22  # samples for which memory suffices in any case: 46 hours of 25 pictures a second
MOST_BOXES = 1 << 18  # looked at; an hour in fragments of a second has some 30,000


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is the small text that git-lfs leaves in place of a file not yet pulled."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size >= 200:
            return False  # a pipe must not be opened: nobody may ever write to it
        return path.read_bytes().startswith(b"version https://git-lfs")
    except OSError:  # the decoder says what is wrong with it
        return False


def open_container(path: Path) -> av.container.InputContainer:
    """Opens a media file by its content; its name and its extension decide nothing.

    Raises `Reject`: "missing_file", "truncated" for an mp4 whose index (moov) is not there, as an
    interrupted download leaves it, or counts what the file cannot hold, else "unreadable".
    """
    no_index = lacks_index(path)
    try:
        # "file:" keeps a colon in a name from being read as a protocol. Tags in other encodings
        # than UTF-8 are common, and no reason to refuse a clip.
        container = av.open(f"file:{path}", options=OPTIONS, metadata_errors="replace")
    except av.error.FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except av.error.FFmpegError as error:
        if not isinstance(error, OSError) and no_index:
            raise Reject("truncated", f"{path.name}: an mp4 without its index (moov)") from None
        raise Reject("unreadable", f"{path.name}: {error.strerror}") from None
    if not container.streams.video and not container.streams.audio:
        container.close()
        if no_index:
            raise Reject("truncated", f"{path.name}: an mp4 that ends within its index (moov)")
        raise Reject("unreadable", f"{path.name}: neither picture nor sound")
    return container


def demux(
    container: av.container.InputContainer, *streams: av.stream.Stream
) -> Iterator[av.Packet]:
    """The packets of the streams (all without any named); raises FFmpeg's errors where it stops."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV 18 raises it after the last packet when a damaged file has announced one more stream
        # while it was being read.
        return


def lacks_index(path: Path) -> bool:
    """Whether the file begins like an mp4 and holds no complete index (moov).

    Raises `Reject` ("truncated") for an mp4 that counts more samples than the file has bytes. Other
    files pass, and so does one that is not there: both are found by opening it.
    """
    claimed, lacking = 0, True
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            first = handle.read(8)[4:]
            if first not in FIRST:
                return False
            for kind, start, end, known in itertools.islice(_boxes(handle, size), MOST_BOXES):
                if kind == b"moov":
                    lacking = known and end > size
                if kind in COUNTS:
                    handle.seek(start + COUNTS[kind])
                    claimed += int.from_bytes(handle.read(4), "big")
    except OSError:
        return False
    if claimed > max(size, FEW):
        what = f"its index counts {claimed} samples in {size} bytes"
        raise Reject("truncated", f"{path.name}: {what}")
    return lacking and first == b"ftyp"


def _boxes(handle: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int, bool]]:
    """(kind, start of the content, end, whether the length is given) of each box of an mp4.

    Boxes inside of `FOLDERS` come after the one that holds them.
    """
    position, ends = 0, [size]  # of the folders around, the file the outermost
    while ends:
        if position + 8 > ends[-1]:
            position = ends.pop()
            continue
        handle.seek(position)
        head = handle.read(16)
        length, kind, skip = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:  # the true length follows in 64 bits
            length, skip = int.from_bytes(head[8:16], "big"), 16
        # 0 means to the end of the folder; less than a head means that nothing follows in it.
        end = position + length if length >= skip else ends[-1]
        yield kind, position + skip, end, length >= skip
        inner = min(end, ends[-1])
        if kind in FOLDERS:
            ends.append(inner)
        position = position + skip if kind in FOLDERS else inner
