"""Reads pickles of numpy arrays as data, in a separate process with limited memory and no numpy.

`unpickle_child` writes the bytes of the arrays to one file, which is memory-mapped here, and
everything else as a pickle with no names but its own.
"""

import math
import mmap
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

    Arrays are read-only views of a mapped file; arrays of objects become nested lists, and numpy's
    scalars plain numbers. Raises `UsageError` for a file that is damaged, holds anything else, or
    needs more than 1 GiB or 60 s.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path} has {size} bytes, more than the {MAX_BYTES} that are read")
    with open(path, "rb") as handle:
        head = handle.read(1 << 16)
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a git-lfs pointer: run `git lfs pull` in its folder")
    with tempfile.TemporaryDirectory() as folder:  # a mapped file lives on without its name
        why = _run_child(path, folder)
        if why and head.count(b"\n") > 2 and head.count(b"\n") == head.count(b"\r\n"):
            why += "; its line ends were converted, as by a transfer in text mode: fetch it again"
        if why:
            raise UsageError(f"{path} is refused: {why}")
        try:
            return read_result(Path(folder))
        except Exception as error:  # numpy and pickle raise many for what contradicts itself
            raise UsageError(f"{path} is refused: {error}") from None


def _run_child(path: Path, folder: str) -> str:
    """Why the child could not read the file, or ""."""
    command = [sys.executable, "-I", "-S", str(CHILD), str(path), folder, str(MEMORY)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    refused = done.returncode == 3 and words
    return shown(words[-1]) if refused else f"its reader ended with the status {done.returncode}"


class _Plain(pickle.Unpickler):
    """Reads the child's `tree`: builtins, and the arrays whose bytes are in `data`."""

    data: Any = b""

    def find_class(self, module: str, name: str) -> Any:
        return {"Array": self._array, "list": list}[name]

    def _array(self, code: str, shape: tuple, order: Any, start: int, scalar: bool) -> Any:
        count = math.prod(shape)
        values = np.frombuffer(self.data, code, count, start) if count else np.zeros(0, code)
        values = values.reshape(shape, order=order)
        return values.item() if scalar else values


def read_result(folder: Path) -> Any:
    with open(folder / "tree", "rb") as tree, open(folder / "data", "rb") as handle:
        reader = _Plain(tree)
        if handle.seek(0, 2):  # what is empty cannot be mapped
            reader.data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return reader.load()
