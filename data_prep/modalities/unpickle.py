"""Reads pickles of numpy arrays safely, in a separate process with limited memory and no numpy.

`unpickle_child` writes the bytes of small arrays to one file and everything else as a pickle that
contains no names except its own. That file, and the original with the bytes of large arrays, are
memory-mapped here.
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

MEMORY = 1 << 30  # memory limit of the child in bytes
SECONDS = 60.0
CHILD = Path(__file__).with_name("unpickle_child.py")


def load(path: Path) -> Any:
    """The content of a pickle file: builtins and numpy arrays.

    Arrays are read-only views of mapped files, large ones of the file itself, which must not change
    while they are in use; object arrays become nested lists, and numpy scalars plain numbers.
    Raises `UsageError` if a file is damaged, contains anything else, or needs more than 1 GiB of
    memory or 60 s, and `OSError` if the disk, or that of temporary files, fails. Large arrays need
    no memory, except those that Python 3 wrote with a protocol below 3: they are text in the file.
    """
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
            return read_result(Path(folder), path)
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
    """Reads the child's `tree`: builtins, and arrays with their bytes in `data` or the `file`."""

    data: Any = b""
    file: Any = b""

    def find_class(self, module: str, name: str) -> Any:
        return {"Array": self._array, "list": list}[name]

    def _array(
        self, code: str, shape: tuple, order: Any, in_file: bool, start: int, scalar: bool
    ) -> Any:
        count, source = math.prod(shape), self.file if in_file else self.data
        values = np.frombuffer(source, code, count, start) if count else np.zeros(0, code)
        values = values.reshape(shape, order=order)
        return values.item() if scalar else values


def read_result(folder: Path, path: Path) -> Any:
    """What the child has written to the folder about the file `path`."""
    with open(folder / "tree", "rb") as tree:
        reader = _Plain(tree)
        reader.data, reader.file = _mapped(folder / "data"), _mapped(path)
        return reader.load()


def _mapped(path: Path) -> Any:
    with open(path, "rb") as handle:
        if not handle.seek(0, 2):  # an empty file cannot be mapped
            return b""
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
