"""What an mp4's index claims, read before FFmpeg believes it.

FFmpeg makes an entry in memory for each sample (a picture, or a piece of sound) that the index
counts. A few bytes can count 80 million, for which it fills more than 5 GB (measured with FFmpeg
8), although the file holds nothing of them.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data_prep.reasons import Reject

# How files begin that FFmpeg may take for an mp4 (or a QuickTime movie, which has the same form).
FIRST = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx"}
FIRST |= {b"uuid", b"junk", b"pict"}
FOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
FOLDERS |= {b"edts", b"dinf", b"mvex", b"tref"}  # FFmpeg looks for tables there as well
COUNTS = {b"stsz": 16, b"stz2": 16, b"trun": 12}  # where in the box the number of samples stands
FEW = 1 << 22  # samples for which memory suffices in any case: 46 hours of 25 pictures a second
MOST_BOXES = 1 << 18  # looked at; an hour in fragments of a second has some 30,000


def check_index(path: Path) -> None:
    """Raises `Reject` ("truncated") for an mp4 that counts more samples than the file has bytes.

    A file that is none passes, and so does one that is not there: both are told by opening it.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            if handle.read(8)[4:] not in FIRST:
                return
            claimed = sum(itertools.islice(_counts(handle, size), MOST_BOXES))
    except OSError:
        return
    if claimed > max(size, FEW):
        raise Reject(
            "truncated", f"{path.name}: its index counts {claimed} samples in {size} bytes"
        )


def _counts(handle: BinaryIO, size: int) -> Iterator[int]:
    """The number of samples that each box counts, 0 for all that count none."""
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
        end = min(position + length, ends[-1]) if length >= skip else ends[-1]
        count = 0
        if kind in COUNTS:
            handle.seek(position + COUNTS[kind] + skip - 8)
            count = int.from_bytes(handle.read(4), "big")
        if kind in FOLDERS:
            ends.append(end)
            position += skip
        else:
            position = end
        yield count
