"""Reads pickles of numpy arrays as data, in a separate process with limited memory and no numpy.

`unpickle_child` reads the file with the standard library's `Unpickler`, in which plain
records replace the few names that numpy writes, and any other name is refused. It writes the bytes
of the arrays to one file, which is memory-mapped here, and everything else as a pickle in which no
name is allowed.
"""

import math
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common.files import shown
from common.options import UsageError

MAX_BYTES = 1 << 30  # of a file; CMU-MOSI's largest has about 0.5 GB
MEMORY = 1 << 30  # bytes that reading may take
SECONDS = 60.0
CHILD = Path(__file__).with_name("unpickle_child.py")


def load(path: Path) -> Any:
    """The content of a pickle file: builtins and numpy arrays.

    Arrays are read-only views of a mapped file; those of objects are lists, nested as their shape
    says, and numpy's scalars plain numbers. Raises `UsageError` for a file that is damaged, holds
    anything else, or needs more than 1 GiB or 60 s.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path} has {size} bytes, more than the {MAX_BYTES} that are read")
    with open(path, "rb") as handle:
        head = handle.read(1 << 16)
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a git-lfs pointer: run `git lfs pull` in its folder")
    # Where it is mapped, a file lives on without its name; Windows keeps it until the process ends.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        why = _run_child(path, Path(folder))
        if why and head.count(b"\n") > 2 and head.count(b"\n") == head.count(b"\r\n"):
            why += "; its line ends were converted, as by a transfer in text mode: fetch it again"
        if why:
            raise UsageError(f"{path} is refused: {why}")
        try:
            return _read_result(Path(folder))
        except (ValueError, TypeError, pickle.UnpicklingError, MemoryError) as error:
            raise UsageError(f"{path} is refused: {error}") from None


def _run_child(path: Path, folder: Path) -> str:
    """Why the child could not read the file, or ""."""
    command = [sys.executable, "-I", "-S", str(CHILD), str(path), str(folder), str(MEMORY)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    told = words[-1] if done.returncode == 3 and words else ""
    return shown(told) or f"its reader ended with the status {done.returncode}"


class _Plain(pickle.Unpickler):
    """Builtins, and the arrays that the child left in `data`; any name is refused."""

    def __init__(self, handle: Any, data: Any):
        super().__init__(handle)
        self.data, self.seen = data, {}

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no data")

    def persistent_load(self, pid: tuple) -> Any:
        kind, number, *rest = pid
        if number not in self.seen:
            self.seen[number] = self._array(*rest) if kind == "array" else nested(*rest)
        return self.seen[number]

    def _array(self, code: str, shape: tuple, fortran: bool, at: int, scalar: bool) -> Any:
        kind, count = np.dtype(code), math.prod(shape)
        values = np.frombuffer(self.data, kind, count, at) if count else np.zeros(0, kind)
        values = values.reshape(shape, order="F" if fortran else "C")
        return values.item() if scalar else values


def nested(shape: tuple, values: list) -> Any:
    """The elements of an array of objects as lists, one in the other."""
    for length in reversed(shape[1:]):
        values = [values[k : k + length] for k in range(0, len(values), length)] if length else []
    return values if shape else values[0]


def _read_result(folder: Path) -> Any:
    with open(folder / "data", "rb") as handle:
        empty = not os.fstat(handle.fileno()).st_size
        data = b"" if empty else mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    with open(folder / "tree", "rb") as handle:
        return _Plain(handle, data).load()
