"""Checks of raw files before decoding: git-lfs pointers, containers, and mp4 indexes.

FFmpeg allocates an entry for each sample (video frame or audio chunk) that the index of an mp4
declares. A few bytes can declare 80 million samples that the file does not contain, and FFmpeg
allocates more than 5 GB for them (measured with FFmpeg 8). So the index is checked first.
"""

import itertools
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

from data_prep.reasons import Reject

# FFmpeg's names of the container formats that store audio and video in the file itself.
FORMATS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv", "mpeg",
    "mpegts", "mpegvideo", "m4v", "h264", "hevc", "asf", "ogg", "wav", "w64", "aiff", "au", "caf",
    "mp3", "aac", "ac3", "flac", "ivf", "mxf", "rm", "nut", "swf", "dv", "gif", "amr",
)  # fmt: skip
# The first option prevents a file disguised as a video from accessing the network, the second
# prevents a playlist from reading other files.
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}

# First box types of files that FFmpeg may treat as mp4 (or QuickTime, which has the same format).
FIRST = b"ftyp styp moov moof mdat free skip wide pnot sidx uuid junk pict".split()
FOLDERS = b"moov trak mdia minf stbl moof traf edts dinf mvex tref".split()  # contain other boxes
COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # offset of the number in the box's content
FEW = 1 << 22  # samples that always fit into memory: 46 hours at 25 frames per second
MOST_BOXES = 1 << 18  # boxes read at most; an hour in one-second fragments has about 30,000


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is the small text that git-lfs puts in place of a file not yet pulled."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size >= 200:
            return False  # do not open a pipe: reading could block forever
        return path.read_bytes().startswith(b"version https://git-lfs")
    except OSError:  # the decoder reports the problem
        return False


def open_container(path: Path) -> av.container.InputContainer:
    """Opens a media file by its content, ignoring its name and extension.

    Raises `Reject`: "missing_file"; "truncated" for an mp4 whose index (moov) is missing (as after
    an interrupted download) or declares more than the file can contain; else "unreadable".
    """
    no_index = lacks_index(path)
    try:
        # "file:" prevents a colon in a name from being parsed as a protocol. Tags that are not
        # UTF-8 are common and no reason to reject a clip.
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
        raise Reject("unreadable", f"{path.name}: neither video nor audio")
    return container


def demux(
    container: av.container.InputContainer, *streams: av.stream.Stream
) -> Iterator[av.Packet]:
    """The packets of the given streams (default all); FFmpeg's errors are passed on."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV 18 raises this after the last packet if a damaged file declared another stream while
        # it was being read.
        return


def lacks_index(path: Path) -> bool:
    """Whether the file begins like an mp4 but has no complete index (moov).

    Raises `Reject` ("truncated") for an mp4 that declares more samples than the file has bytes.
    Returns False for other or missing files: opening them reports the problem.
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
        what = f"its index declares {claimed} samples in {size} bytes"
        raise Reject("truncated", f"{path.name}: {what}")
    return lacking and first == b"ftyp"


def _boxes(handle: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int, bool]]:
    """(kind, start of the content, end, whether the length is given) of each box of an mp4.

    The boxes inside a box of `FOLDERS` follow it.
    """
    position, ends = 0, [size]  # ends of the enclosing boxes, the file first
    while ends:
        if position + 8 > ends[-1]:
            position = ends.pop()
            continue
        handle.seek(position)
        head = handle.read(16)
        length, kind, skip = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:  # the true length follows in 64 bits
            length, skip = int.from_bytes(head[8:16], "big"), 16
        # 0 means up to the end of the enclosing box; less than a header means it has no more boxes.
        end = position + length if length >= skip else ends[-1]
        yield kind, position + skip, end, length >= skip
        inner = min(end, ends[-1])
        if kind in FOLDERS:
            ends.append(inner)
        position = position + skip if kind in FOLDERS else inner
