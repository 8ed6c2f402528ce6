"""Pickles in the form of Python 2, and pickles that must be refused."""

import builtins
import functools
import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.generate.corrupt import HTML, LFS_POINTER


class _Python2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 has it: str and bytes are one type, numpy stands at its old place."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        short = len(content) < 256
        head = b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))
        self.write(head + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or value.__qualname__}\n".encode())
        self.memoize(value)

    dispatch[type] = save_global


def python2_pickle(value: Any) -> bytes:
    """A pickle of builtins and arrays in Python 2's form; text must be ASCII."""
    out = io.BytesIO()
    _Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue()


class _Call:
    """Pickled as a call of `function`, which an ordinary unpickler makes."""

    def __init__(self, function: Any, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def _array_state(shape: tuple, dtype: Any, content: Any) -> bytes:
    """A pickle of an array with a state that need not fit."""

    class Fake:
        def __reduce__(self) -> tuple:
            state = (1, shape, dtype, False, content)
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    return pickle.dumps(Fake(), protocol=4)


def _shell(marker: Path) -> _Call:
    return _Call(os.system, f"touch '{marker}'")


def _evil(function: str, marker: Path) -> bytes:
    """A pickle that calls a builtin on Python code which would create the marker."""
    code = f"open({str(marker)!r}, 'w').close()"
    return pickle.dumps(_Call(getattr(builtins, function), code), protocol=4)


def _getattr(marker: Path) -> bytes:
    """A method of an object, which is looked up before it is called."""
    return pickle.dumps(_Call(marker.touch), protocol=4)


def _nested(marker: Path) -> bytes:
    """A call deep within what looks like data: among the elements of an array of objects."""
    content = {"train": {"id": np.asarray([["a", _shell(marker)]], dtype=object)}}
    return pickle.dumps(content, protocol=4)


# kind -> (what writes it, given the file that must not appear; part of the message)
BAD_PICKLES = {
    "empty": (lambda marker: b"", "it is empty"),
    "html": (lambda marker: HTML.encode(), "invalid load key"),
    "lfs_pointer": (lambda marker: LFS_POINTER.encode(), "git lfs pull"),
    "cut": (lambda marker: pickle.dumps(np.zeros(9), protocol=4)[:-40], "truncated"),
    "system_0": (lambda marker: pickle.dumps(_shell(marker), protocol=0), "posix.system"),
    "system_4": (lambda marker: pickle.dumps(_shell(marker), protocol=4), "posix.system"),
    "eval": (functools.partial(_evil, "eval"), "builtins.eval"),
    "exec": (functools.partial(_evil, "exec"), "builtins.exec"),
    "getattr": (_getattr, "getattr"),
    "nested": (_nested, "posix.system"),
    "instance": (lambda marker: b"(iposix\nsystem\n.", "posix.system"),  # the opcode INST
    "persistent": (lambda marker: b"Pxyz\n.", "an object outside of itself"),
    "numpy_load": (lambda marker: pickle.dumps(_Call(np.load, "x"), protocol=4), "numpy.load"),
    "codec": (lambda marker: b"c_codecs\nencode\n(Vx\nVhex\ntR.", "_codecs.encode"),
    "addresses": (
        lambda marker: _array_state((2,), np.dtype("O"), b"\1" * 16),
        "an array of objects",
    ),
    "object_element": (
        lambda marker: _array_state((1,), np.dtype("O"), [[marker.name]]),
        "an array of objects",
    ),
    "fields": (lambda marker: pickle.dumps(np.zeros(2, "f4,i4"), protocol=4), "numpy.dtype"),
    "claims_more": (
        lambda marker: _array_state((10**9, 50, 768), np.dtype("f4"), b"\0" * 16),
        "claims",
    ),
    "long_bytes": (
        lambda marker: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".",
        "bytes of memory",
    ),
    "deep": (lambda marker: b"(" * 6_000_000 + b".", "it is damaged"),
}


def write_bad_pickle(path: Path, kind: str, marker: Path) -> None:
    """One file that must be refused; an ordinary unpickler would create `marker` for some."""
    path.write_bytes(BAD_PICKLES[kind][0](marker))
