"""Sequences of feature vectors: a .npy file, or a row of a pickled dataset, as float32 [L, D].

The first axis of an array is the sequence; what follows is one vector, row by row, so that 68
points in a plane [L, 68, 2] become [L, 136].

Zero rows at either end are padding and are not stored: public code pads at the front (yaohungt/
Multimodal-Transformer) or the back (thuiar/MMSA), and pliang279/MultiBench removes such rows too.
MMSA's row counts are ignored: its script treats the first row that sums to 0 as the end, which is
wrong if face detection fails in between.
"""

import functools
import math
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

BLOCK = 1 << 20  # values checked at a time
MAX_STORED = 64 << 20  # bytes per stored sequence; the largest in CMU-MOSI has 150 kB


@dataclass(frozen=True)
class Array(Modality):
    """A stored sequence of feature vectors, float32 [L, D], L at most `max_length`.

    With `clean`, non-finite values become 0; otherwise the sample is rejected. D is the same for
    all samples of a dataset.
    """

    max_length: int = 512
    clean: bool = False
    origin: str = ""  # the files and label rule chosen in the settings, if they affect the samples
    normalise: str = view("train")

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of a sequence: [int32 (L, D), float32 values], as bytes.

        `paths` contains one file: without `inline` a .npy file of [L, ...] or [D] (one vector),
        else a pickle, in which "train/audio/7" means row 7 of the array or list at
        ["train"]["audio"].

        Flags: "cut" (longer than `max_length`), "empty" (all padding), "cleaned" (NaN or infinite
        values became 0). Raises `Reject`: "missing_file", "unreadable", or "bad_values" for
        anything that is not a sequence of numbers, and for non-finite values unless `clean`.
        """
        path = the_file(paths, "missing_file")
        array = open_npy(path) if inline is None else read_row(path, inline)
        if array.ndim == 1:
            array = array[None]
        width = math.prod(array.shape[1:])
        if array.ndim < 2 or not width or array.dtype.kind not in "fiub":
            what = f"shape {array.shape} of {array.dtype}, expected [L, D] of numbers"
            raise Reject("bad_values", what)
        first, count = span(array, self.clean) if 4 * width <= MAX_STORED else (0, 1)
        kept = min(count, self.max_length)
        if 4 * width * kept > MAX_STORED:
            detail = f"{count} rows of {width} values are more than {MAX_STORED} bytes"
            raise Reject("bad_values", f"{detail}; decrease max_length")
        values = as_float32(array[first : first + kept]).reshape(kept, width)
        cleaned = self.clean and not np.isfinite(values).all()
        if cleaned:
            values[~np.isfinite(values)] = 0.0
        check_finite(values)
        found = {"cleaned": cleaned, "cut": count > self.max_length, "empty": not count}
        flags = tuple(flag for flag, is_set in found.items() if is_set)
        return Extracted(self.pack(values), flags, 0.0, count, count > 0)

    def pack(self, values: np.ndarray) -> list[bytes]:
        """The stored bytes of float32 [L, D]: the shape as int32, then the values."""
        return packed(values)

    def unpack(self, stored: Any) -> np.ndarray:
        return unpacked(stored)

    def check_together(self, name: str, samples: Iterable[tuple[str, Any]]) -> None:
        """Raises `UsageError` if the vectors differ in their width D."""
        widths = ((sample, self.unpack(stored).shape[1]) for sample, stored in samples)
        check_equal(f"the vectors of {name} have several widths", widths)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """float32 [max_length, D]: the vectors, padded with zero rows at the end."""
        values = self.unpack(stored)
        out = np.zeros((self.max_length, values.shape[1]), dtype=np.float32)
        out[: len(values)] = values
        return out

    def on_device(self, stored: Iterable, draw: Draw, device: Any) -> Any:
        from data_prep.modalities.on_device import whole

        return whole(self, stored, draw, device)

    def trim(self, batch: np.ndarray) -> np.ndarray:
        """[B, L, D] cut to the longest sequence of the batch: attention costs O(L^2)."""
        return batch[:, : last_used((batch != 0).any((0, 2)))]

    def width(self, made: np.ndarray) -> int:
        return made.shape[-1]

    def stream(self) -> dict[str, Any]:
        return {"kind": "array"}

    def values(self, batch: Any) -> tuple[Any, tuple[int, ...], int]:
        """[B, L, D] without padding, as [N, D]: one mean per feature."""
        return batch[(batch != 0).any(2)], (0,), batch.shape[2]


def packed(values: np.ndarray) -> list[bytes]:
    """The stored bytes of a float32 array: the shape as int32, then the values."""
    return [np.asarray(values.shape, dtype=np.int32).tobytes(), values.tobytes()]


def unpacked(stored: Any) -> np.ndarray:
    """The inverse of `packed`, read-only."""
    shape = np.frombuffer(stored[0], dtype=np.int32).tolist()
    return np.frombuffer(stored[1], dtype=np.float32).reshape(shape)


def check_finite(values: np.ndarray) -> None:
    """Raises `Reject` ("bad_values") if a value is NaN or infinite."""
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise Reject("bad_values", f"{bad} of {values.size} values are not finite")


def check_equal(what: str, sizes: Iterable[tuple[str, Any]]) -> None:
    """Raises `UsageError` if the samples, (id, size), have several sizes; `what` says so."""
    found: dict[Any, list[str]] = {}
    for sample, size in sizes:
        found.setdefault(size, []).append(sample)
    if len(found) > 1:
        counts = "; ".join(
            f"{size} in {len(ids)} samples, the first {ids[0]!r}"
            for size, ids in sorted(found.items())
        )
        raise UsageError(
            f"{what} ({counts[:500]}), but the encoder needs one: repair the files or remove them"
            " from the list"
        )


def as_float32(values: np.ndarray) -> np.ndarray:
    """A row-major float32 copy; values out of range become infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def span(array: np.ndarray, clean: bool) -> tuple[int, int]:
    """(first, count) of the rows between the padding; with `clean`, only finite values count."""
    rows: list[int] = []  # first and last rows that are not padding
    step = max(1, BLOCK // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        values = as_float32(array[start : start + step])
        live = (values != 0) & np.isfinite(values) if clean else values != 0
        used = np.flatnonzero(live.reshape(len(live), -1).any(1))
        if len(used):
            rows = [*rows[:1], start + int(used[0]), start + int(used[-1])]
    return (rows[0], rows[-1] + 1 - rows[0]) if rows else (0, 0)


def open_npy(path: Path) -> np.ndarray:
    """Memory-maps the numeric array of a .npy file."""
    formats = np.lib.format
    try:
        # numpy warns about headers written by Python 2 and about sizes that overflow.
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
    except Exception as error:  # a damaged header can make numpy raise anything
        words = " ".join(f"{path.name}: not a complete .npy file ({error})".split())
        raise Reject("unreadable", words[:300]) from None


def read_row(path: Path, row: str) -> np.ndarray:
    """One row of an array, or array of a list, in a pickle, given as "key/.../row number"."""
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
            value = value[int(key) if isinstance(value, (list, tuple)) else key]
        if isinstance(found := value[int(number)], np.ndarray):
            return found
    except (KeyError, IndexError, TypeError, ValueError):
        pass  # the file changed since it was scanned
    raise Reject("unreadable", f"{path.name} has no row {row}")


@functools.lru_cache(maxsize=1)
def opened(path: Path, size: int, changed: int) -> Any:
    """The content of a pickle; only the last one is cached."""
    return load(path)
