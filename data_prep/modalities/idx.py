"""MNIST's idx format: one file with an array of bytes, compressed by gzip or not.

The header is a magic number (0, 0, 8, number of dimensions) and each dimension as a big-endian
32-bit integer; the values follow, row-major.
"""

import functools
import gzip
import zlib
from pathlib import Path

import numpy as np

from data_prep.media import is_lfs_pointer
from data_prep.reasons import Reject

MAX_BYTES = 1 << 28  # MNIST's largest file has 47 MB


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of a file, uint8 with `dimensions` axes; the last files read stay in memory.

    Raises `Reject`: "missing_file", "lfs_pointer", or "unreadable" for anything else that is wrong.
    """
    try:
        status = path.stat()
    except OSError:
        raise Reject("missing_file", path.name) from None
    return _opened(path, dimensions, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _opened(path: Path, dimensions: int, size: int, changed: int) -> np.ndarray:
    if is_lfs_pointer(path):
        raise Reject("lfs_pointer", path.name)
    try:
        with open(path, "rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as content:
            data = content.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Reject("unreadable", f"{path.name}: {error}") from None
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) < start:
        kind = f"an idx file of bytes with {dimensions} dimension(s)"
        raise Reject("unreadable", f"{path.name}: not {kind}")
    shape = np.frombuffer(data[4:start], dtype=">u4").tolist()
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count:
        found = f"{len(data) - start} values, but its header announces {count}"
        raise Reject("unreadable", f"{path.name}: {found}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
