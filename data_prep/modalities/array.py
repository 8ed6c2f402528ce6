"""Sequences of feature vectors: a .npy file, or a row of a pickled dataset, as float32 [L, D].

Rows of zeros at either end are padding and are not stored: public code pads in front (yaohungt/
Multimodal-Transformer) or behind (thuiar/MMSA), and pliang279/MultiBench removes such rows too.
MMSA's own row counts are ignored: its script takes the first row that sums to 0 for the end, which
is wrong where a face is lost in between.
"""

import functools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.options import UsageError
from data_prep.modalities.base import Draw, Extracted, Modality, last_used, the_file, view
from data_prep.modalities.unpickle import load
from data_prep.reasons import Reject

BLOCK = 1 << 20  # values looked at together
MAX_STORED = 64 << 20  # bytes of a stored sequence; CMU-MOSI's largest has 150 kB


@dataclass(frozen=True)
class Array(Modality):
    """A stored sequence of feature vectors, float32 [L, D], L at most `max_length`.

    Values that are not finite become 0 with `clean`, else they reject the sample. D is the same for
    all samples of a dataset.
    """

    max_length: int = 512
    clean: bool = False
    origin: str = ""  # which files and label rule the settings chose, where they decide the samples
    normalise: str = view("train")

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of a sequence: [int32 (L, D), float32 values], as bytes.

        `paths` holds one file: without `inline` a .npy file of [L, D] or [D] (one vector), with it
        a pickle in which "train/audio/7" is row 7 of the array under "audio" under "train".

        Flags: "cut" (longer than `max_length`), "empty" (all padding), "cleaned" (NaN or infinite
        values became 0). Raises `Reject`: "missing_file", "unreadable", or "bad_values" for what is
        no sequence of numbers and for values that are not finite unless `clean`.
        """
        path = the_file(paths, "missing_file")
        array = open_npy(path) if inline is None else read_row(path, inline)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiub":
            what = f"shape {array.shape} of {array.dtype} is no [L, D] of numbers"
            raise Reject("bad_values", what)
        width = array.shape[1]
        first, count = span(array, self.clean) if 4 * width <= MAX_STORED else (0, 1)
        kept = min(count, self.max_length)
        if 4 * width * kept > MAX_STORED:
            detail = f"{count} rows of {width} values are more than {MAX_STORED} bytes"
            raise Reject("bad_values", f"{detail}; a lower max_length cuts them")
        values = as_float32(array[first : first + kept])
        finite = np.isfinite(values)
        cleaned = self.clean and not finite.all()
        if cleaned:
            values[~finite] = 0.0
        elif not finite.all():
            bad = int(finite.size - finite.sum())
            raise Reject("bad_values", f"{bad} of {finite.size} values are not finite")
        found = {"cleaned": cleaned, "cut": count > self.max_length, "empty": not count}
        flags = tuple(flag for flag, is_set in found.items() if is_set)
        return Extracted(self.pack(values), flags, 0.0, count, count > 0)

    def pack(self, values: np.ndarray) -> list[bytes]:
        """The stored bytes of float32 [L, D]: the shape as int32, and the values."""
        return [np.asarray(values.shape, dtype=np.int32).tobytes(), values.tobytes()]

    def unpack(self, stored: Any) -> np.ndarray:
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
        return made.shape[-1]

    def stream(self) -> dict[str, Any]:
        return {"kind": "array"}

    def values(self, batch: Any) -> tuple[Any, tuple[int, ...], int]:
        """[B, L, D] without padding, [N, D]: one mean a feature."""
        return batch[(batch != 0).any(2)], (0,), batch.shape[2]


def as_float32(values: np.ndarray) -> np.ndarray:
    """A copy, rows one after the other; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def span(array: np.ndarray, clean: bool) -> tuple[int, int]:
    """(first, count) of the rows between the padding; with `clean` only finite values count."""
    rows: list[int] = []  # first and last that are used
    step = max(1, BLOCK // array.shape[1])
    for start in range(0, len(array), step):
        values = as_float32(array[start : start + step])
        live = (values != 0) & np.isfinite(values) if clean else values != 0
        used = np.flatnonzero(live.any(1))
        if len(used):
            rows = [*rows[:1], start + int(used[0]), start + int(used[-1])]
    return (rows[0], rows[-1] + 1 - rows[0]) if rows else (0, 0)


def open_npy(path: Path) -> np.ndarray:
    """A .npy file's array of numbers as a memory map."""
    formats = np.lib.format
    try:
        # numpy warns of Python 2's headers, and of claimed sizes beyond what numbers hold.
        with open(path, "rb") as handle, warnings.catch_warnings(action="ignore"):
            first = formats.read_magic(handle) == (1, 0)
            read = formats.read_array_header_1_0 if first else formats.read_array_header_2_0
            shape, fortran, dtype = read(handle)
            if dtype.kind not in "fiub":
                raise Reject("bad_values", f"{path.name}: an array of {dtype}, not of numbers")
            order: Any = "F" if fortran else "C"
            return np.memmap(handle, dtype, "r", handle.tell(), shape, order)
    except FileNotFoundError:
        raise Reject("missing_file", path.name) from None
    except Reject:
        raise
    except Exception as error:  # numpy raises whatever a damaged header leads it to
        words = " ".join(f"{path.name}: not a whole .npy file ({error})".split())
        raise Reject("unreadable", words[:300]) from None


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
