"""Reads pickles of numpy arrays safely, in a separate process with limited memory and no numpy.

`unpickle_child` writes the bytes of the arrays to one file, which is memory-mapped here, and
everything else as a pickle that contains no names except its own.
"""

import errno
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

MAX_BYTES = 1 << 30  # per file; the largest of CMU-MOSI has about 0.5 GB
MEMORY = 1 << 30  # memory limit of the child in bytes
SECONDS = 60.0
CHILD = Path(__file__).with_name("unpickle_child.py")


def load(path: Path) -> Any:
    """The content of a pickle file: builtins and numpy arrays.

    Arrays are read-only views of a mapped file; object arrays become nested lists, and numpy
    scalars plain numbers. Raises `UsageError` if a file is damaged, contains anything else, or
    needs more than 1 GiB or 60 s, and `OSError` if the disk, or that of temporary files, fails.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path} has {size} bytes, more than the maximum of {MAX_BYTES}")
    with open(path, "rb") as handle:
        head = handle.read(1 << 16)
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a git-lfs pointer: run `git lfs pull` in its folder")
    with tempfile.TemporaryDirectory() as folder:  # a mapped file remains readable when deleted
        why = _run_child(path, folder)
        if why and head.count(b"\n") > 2 and head.count(b"\n") == head.count(b"\r\n"):
            why += "; its line breaks were converted, as in a text-mode transfer: download it again"
        if why:
            raise UsageError(f"{path} cannot be read: {why}")
        try:
            return read_result(Path(folder))
        except Exception as error:  # inconsistent content can make numpy and pickle raise anything
            raise UsageError(f"{path} cannot be read: {error}") from None


def _run_child(path: Path, folder: str) -> str:
    """Why the child could not read the file, or "". Raises `OSError` if the disk failed."""
    command = [sys.executable, "-I", "-S", str(CHILD), str(path), folder, str(MEMORY)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"reading takes more than {SECONDS:g} s"
    if done.returncode == 0:
        return ""
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 4:
        number = int(words[-1])
        is_full = number in (errno.ENOSPC, errno.EDQUOT)
        place = tempfile.gettempdir() if is_full else str(path)
        raise OSError(number, os.strerror(number), place)
    refused = done.returncode == 3 and words
    return shown(words[-1]) if refused else f"its reader exited with status {done.returncode}"


class _Plain(pickle.Unpickler):
    """Reads the child's `tree`: builtins, and arrays with their bytes in `data`."""

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
        if handle.seek(0, 2):  # an empty file cannot be mapped
            reader.data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return reader.load()
