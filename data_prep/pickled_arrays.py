"""What a pickle of numpy arrays names, as operations on plain values: see `data_prep.unpickle`.

numpy's `_reconstruct`, `_frombuffer`, `scalar` and `dtype`, and `_codecs.encode`. Each takes the
function `charge` first, which counts the bytes that it copies.
"""

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_NAME = 200  # characters of a number, a module or a function
MAX_DIMENSIONS = 8  # of an array
MAX_LENGTH = 1 << 40  # of a dimension; an empty array may claim any other one

# What an array of numbers or fixed-width text is written with; "O": a list of plain values.
DTYPE = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9]\d{0,5}|O8?")
PLAIN = (str, bytes, int, float, bool, type(None))

Charge = Callable[[int], None]


class Damaged(ValueError):
    """The file is no whole pickle, or says what cannot be."""


class Refused(ValueError):
    """The file names what is no data."""


class Pending:
    """An array between its creation and the opcode that fills it, or a dtype."""

    def __init__(self, value: Any = None):
        self.value = value


class Name:
    """A function or class that the file names, as the operation that stands for it."""

    def __init__(self, call: Callable[..., Any] | None = None):
        self.call = call


def finished(value: Any) -> Any:
    """The array or dtype that a `Pending` has become."""
    if not isinstance(value, Pending):
        return value
    if value.value is None:
        raise Damaged("an array is never filled")
    return value.value


def empty_array(charge: Charge, *arguments: Any) -> Pending:
    """numpy's `_reconstruct(ndarray, (0,), b"b")`: the array follows."""
    if not arguments or arguments[0] is not NAMES["numpy", "ndarray"]:
        raise Refused("an array of another class")
    return Pending()


def make_dtype(charge: Charge, name: Any = None, *_: Any) -> Pending:
    """numpy's `dtype("f4", False, True)`: numbers, text of a fixed width, or objects."""
    name = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(name, str) or not DTYPE.fullmatch(name):
        raise Refused(f"numpy.dtype({str(name)[:MAX_NAME]!r})")
    return Pending(np.dtype(name))


def ordered(dtype: np.dtype, state: tuple) -> np.dtype:
    """The dtype in the byte order of its state (version, order, subarray, names, fields, ...)."""
    order = state[1] if len(state) >= 5 else None
    order = order.decode("latin-1") if isinstance(order, bytes) else order
    if order not in ("<", ">", "|", "="):
        raise Damaged(f"an array has the byte order {order!r}")
    if any(part is not None for part in state[2:5]):
        raise Refused("a dtype with fields")
    return dtype if order == "|" else dtype.newbyteorder(order)


def raw(charge: Charge, content: Any) -> Any:
    """The bytes of an array; Python 2 has them as str."""
    if isinstance(content, str):
        charge(len(content))
        content = content.encode("latin-1")
    if not isinstance(content, (bytes, memoryview)):
        raise Damaged("the content of an array is no byte string")
    return content


def array(charge: Charge, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """A view of `content` as an array; for objects a nested list.

    The shape is believed only where it makes the very number of bytes that are there.
    """
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
        raise Damaged("an array without dtype or shape")
    if len(shape) > MAX_DIMENSIONS or not all(
        isinstance(length, int) and 0 <= length <= MAX_LENGTH for length in shape
    ):
        raise Damaged(f"an array of shape {str(shape)[:MAX_NAME]}")
    count = math.prod(shape)
    if dtype.hasobject:
        return objects(charge, content, count, shape)
    content = raw(charge, content)
    if count * dtype.itemsize != len(content):
        raise Damaged(f"an array claims {count} values of {dtype}, and has {len(content)} bytes")
    if dtype.kind == "U" and count:  # reading one that is no character is a SystemError
        characters = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder))
        if characters.max() > sys.maxunicode:
            raise Damaged("an array of text holds what is no character")
    flat = np.frombuffer(content, dtype) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if order in ("F", b"F") else "C")


def objects(charge: Charge, content: Any, count: int, shape: tuple) -> list:
    """The elements of an array of objects; bytes in their place would be addresses of memory."""
    if not isinstance(content, list) or len(content) != count or not shape:
        raise Refused("an array of objects that is no list of them")
    charge(count)  # each takes a byte of the file or more
    if not all(isinstance(value, PLAIN) for value in content):
        raise Refused("an array of objects that are neither text nor numbers")
    rows = content
    for length in reversed(shape[1:]):
        rows = [rows[k : k + length] for k in range(0, len(rows), length)] if count else []
    if rows is not content:
        content.clear()  # a list makes one array, and is not copied for any number of them
    return rows


def scalar(charge: Charge, dtype: Any = None, content: Any = None) -> Any:
    """numpy's `scalar(dtype, bytes)`: a number, str or bytes."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise Refused("a scalar that is an object")
    return array(charge, content, dtype, (1,), "C").tolist()[0]


def encode(charge: Charge, text: Any = None, encoding: Any = None) -> bytes:
    """`_codecs.encode(text, "latin1")`: how Python 3 writes bytes under the protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode with {str(encoding)[:MAX_NAME]!r}")
    return raw(charge, text)


def no_bytes(charge: Charge, *arguments: Any) -> bytes:
    """`bytes()`: the empty string in those protocols."""
    if arguments:
        raise Refused("bytes of something")
    return b""


NAMES = {
    ("numpy", "ndarray"): Name(),
    ("numpy", "dtype"): Name(make_dtype),
    ("_codecs", "encode"): Name(encode),
    ("__builtin__", "bytes"): Name(no_bytes),
    ("builtins", "bytes"): Name(no_bytes),
}
for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    NAMES[f"{core}.multiarray", "_reconstruct"] = Name(empty_array)
    NAMES[f"{core}.multiarray", "scalar"] = Name(scalar)
    NAMES[f"{core}.numeric", "_frombuffer"] = Name(array)
