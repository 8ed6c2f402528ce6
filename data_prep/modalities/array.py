"""Sequences of feature vectors: a .npy file, or a row of a pickled data set, as float32 [L, D].

Rows of zeros at either end are padding and are not stored: public code pads in front (yaohungt/
Multimodal-Transformer) or behind (thuiar/MMSA), and pliang279/MultiBench removes such rows too.
MMSA's own row counts are ignored: its script takes the first row that sums to 0 for the end, which
is wrong where a face is lost in between.

Memory: at most twice the 64 MiB of the longest stored sequence. Files are memory-mapped, and each
process keeps one pickled data set open (`unpickle.py`).
"""

import ast
import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.options import UsageError
from data_prep.modalities.base import Draw, Extracted, Modality, last_used, the_file, view
from data_prep.modalities.unpickle import load
from data_prep.reasons import Reject

if TYPE_CHECKING:
    from torch import Tensor

# The numbers that a .npy file may hold, in the words of its header.
DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
BLOCK = 1 << 20  # values looked at together
MAX_HEADER = 10_000  # bytes of a .npy header, numpy's own limit; a plain array's has 128
MAX_STORED = 64 << 20  # bytes of a stored sequence; CMU-MOSI's largest has 150 kB
MAX_COUNT = 2**31 - 1  # the manifest's n_frames is an int32


@dataclass(frozen=True)
class Array(Modality):
    """A stored sequence of feature vectors, float32 [L, D], L at most `max_length`.

    Not finite numbers become 0 where `clean`, else they reject the sample. D is the data set's own
    and the same for all samples.
    """

    max_length: int = 512
    clean: bool = False
    origin: str = ""  # what else decides the samples where settings choose it: files, label rule
    normalise: str = view("train")

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of a sequence: [int32 (L, D), float32 values], as bytes.

        `paths` holds one file: without `inline` a .npy file of [L, D] or [D] (one vector), with it
        a pickle in which "train/audio/7" is row 7 of the array under "audio" under "train".

        Flags: "cut" (longer than `max_length`), "empty" (all padding), "cleaned" (NaN or infinite
        values became 0). Raises `Reject`: "missing_file", "unreadable", or "bad_values" for what is
        no sequence of numbers and for values that are not finite unless `clean`.
        """
        path, flags = the_file(paths, "missing_file"), ()
        array = open_npy(path) if inline is None else read_row(path, inline)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiub":
            what = f"shape {array.shape} of {array.dtype} is no [L, D] of numbers"
            raise Reject("bad_values", what)
        widest = MAX_STORED // (4 * array.shape[1])  # rows
        first, count = span(array, self.clean) if widest else (0, 1)
        if min(count, self.max_length) > widest:
            detail = f"{count} rows of {array.shape[1]} values are more than {MAX_STORED} bytes"
            raise Reject("bad_values", f"{detail}; a lower max_length cuts them")
        values = as_float32(array[first : first + min(count, self.max_length)])
        finite = np.isfinite(values)
        if not finite.all():
            if not self.clean:
                bad = int(finite.size - finite.sum())
                raise Reject("bad_values", f"{bad} of {finite.size} values are not finite")
            values[~finite] = 0.0
            flags += ("cleaned",)
        flags += ("cut",) * (count > self.max_length) + ("empty",) * (count == 0)
        return Extracted(self.pack(values), flags, 0.0, min(count, MAX_COUNT), count > 0)

    def pack(self, values: np.ndarray) -> list[bytes]:
        """The stored bytes of float32 [L, D]: the shape as int32, and the values."""
        return [np.asarray(values.shape, dtype=np.int32).tobytes(), values.tobytes()]

    def unpack(self, stored: Any) -> np.ndarray:
        """The inverse of `pack`."""
        shape = np.frombuffer(stored[0], dtype=np.int32).tolist()
        return np.frombuffer(stored[1], dtype=np.float32).reshape(shape)

    def check_together(self, name: str, samples: Iterable[tuple[str, Any]]) -> None:
        """Raises `UsageError` where the vectors have several widths D."""
        found: dict[int, list[str]] = {}
        for sample, stored in samples:
            found.setdefault(self.unpack(stored).shape[1], []).append(sample)
        if len(found) > 1:
            widths = "; ".join(
                f"{width} in {len(ids)} samples, the first {ids[0]!r}"
                for width, ids in sorted(found.items())
            )
            raise UsageError(
                f"the vectors of {name} have several widths ({widths}), and one encoder reads them"
                " all: mend the files or leave them out of the list"
            )

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """float32 [max_length, D]: the vectors, then rows of zeros, which are padding."""
        values = self.unpack(stored)
        out = np.zeros((self.max_length, values.shape[1]), dtype=np.float32)
        out[: len(values)] = values
        return out

    def trim(self, batch: np.ndarray) -> np.ndarray:
        """[B, L, D] cut to the longest sequence of the batch: attention costs L squared."""
        return batch[:, : last_used((batch != 0).any((0, 2)))]

    def width(self, made: np.ndarray) -> int:
        """D, which is that of the training data."""
        return made.shape[-1]

    def stream(self) -> dict[str, Any]:
        """Vectors; the constants of the normalisation tell their width."""
        return {"kind": "array"}

    def values(self, batch: "Tensor") -> "tuple[Tensor, tuple[int, ...], int]":
        """[B, L, D] without padding, [N, D]: one mean a feature."""
        return batch[(batch != 0).any(2)], (0,), batch.shape[2]


def as_float32(values: np.ndarray) -> np.ndarray:
    """A copy, rows one after the other; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def span(array: np.ndarray, clean: bool) -> tuple[int, int]:
    """(first, count) of the rows between the padding; with `clean` only finite values count."""
    first, last = None, -1
    step = max(1, BLOCK // array.shape[1])
    for start in range(0, len(array), step):
        values = as_float32(array[start : start + step])
        live = (values != 0) & np.isfinite(values) if clean else values != 0
        rows = np.flatnonzero(live.any(1))
        if len(rows):
            first = start + int(rows[0]) if first is None else first
            last = start + int(rows[-1])
    return (0, 0) if first is None else (first, last + 1 - first)


def open_npy(path: Path) -> np.ndarray:
    """A .npy file's array as a memory map, once its header agrees with the file's size."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(12)
            start = 10 if head[6:7] == b"\x01" else 12  # two or four bytes of length
            length = int.from_bytes(head[8:start], "little")
            # By its first bytes: numpy would open a zip archive (.npz) or a pickle as well.
            if head[:6] != b"\x93NUMPY" or len(head) < 12 or length > MAX_HEADER:
                raise Reject("unreadable", f"{path.name}: not a .npy file")
            handle.seek(start)
            dtype, order, shape = parse_header(handle.read(length).decode("latin-1"))
            size = handle.seek(0, 2)
        claimed = start + length + math.prod(shape) * dtype.itemsize
        if claimed > size:
            raise Reject("unreadable", f"{path.name}: {claimed} bytes claimed, {size} there")
        return np.memmap(path, dtype, "r", start + length, shape, order)
    except FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except OSError as error:
        raise Reject("unreadable", f"{path.name}: {error.strerror}") from None


def parse_header(text: str) -> tuple[np.dtype, str, tuple[int, ...]]:
    """(dtype, order, shape) of a .npy header; objects, records and text are refused."""
    try:
        # Python 2 wrote its long numbers as 7L.
        header = ast.literal_eval(re.sub(r"(\d)L", r"\1", text).strip())
        descr, fortran, shape = (header[key] for key in ("descr", "fortran_order", "shape"))
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError):
        raise Reject("unreadable", "a .npy header that is no dict of its three keys") from None
    if not isinstance(descr, str) or not DTYPE.fullmatch(descr):
        raise Reject("bad_values", f"an array of {str(descr)[:40]!r}, not of numbers")
    sizes = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
    if not sizes or len(shape) > 32:  # numpy itself takes 64 at most
        raise Reject("unreadable", f"an array of shape {str(shape)[:40]}")
    return np.dtype(descr), "F" if fortran else "C", shape


def read_row(path: Path, row: str) -> np.ndarray:
    """One row of an array in a pickle, by the keys that lead to it and its number."""
    try:
        status = path.stat()
        value = opened(path, status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except UsageError as error:
        raise Reject("unreadable", str(error)) from None
    *keys, number = row.split("/")
    try:
        for key in keys:
            value = value[key]
        if isinstance(value, np.ndarray):
            return value[int(number)]
    except (KeyError, IndexError, TypeError):
        pass  # the file is not the one that was scanned
    raise Reject("unreadable", f"{path.name} has no row {row}")


@functools.lru_cache(maxsize=1)
def opened(path: Path, size: int, changed: int) -> Any:
    """The content of a pickle, kept for the next sample; another one takes its place."""
    return load(path)
