"""The process that reads a pickle for `unpickle`. Arguments: FILE OUT MEMORY.

numpy's names in the pickle are mapped to our own record types: no function of the file is called,
and numpy is not involved. Writes to the folder OUT: `data`, the bytes of the arrays, and `tree`,
everything else. Large arrays are not copied: `tree` says where in FILE their bytes are. Exit
status 3 means that the file was refused; the last line on stderr says why. Exit status 4 means that
the disk failed; the last line is the error's number.
"""

import errno
import math
import os
import pickle
import re
import resource
import sys
from typing import Any, BinaryIO

MAX_TREE = 32 << 20  # bytes of everything outside arrays; CMU-MOSI has less than 1 MB
TOO_MUCH = f"more than {MAX_TREE} bytes of it are not arrays"
CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?")  # numbers, text, plain values
PLAIN = {str, bytes, int, float, bool, type(None)}  # allowed in object arrays


class Refused(Exception):
    """The file contains more than data, or is inconsistent."""


class Record:
    """Replaces a name in the pickle. The file cannot change it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("it sets a state on an object without one")

    def __reduce__(self) -> Any:
        raise Refused("it contains a bare name or dtype")


class Name(Record):
    """A class or function; calling it runs `call`."""

    __slots__ = ("call",)

    def __init__(self, call: Any):
        self.call = call

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)


class Dtype(Record):
    """A numpy.dtype of numbers, text, or objects."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *flags: Any):
        if not CODE.fullmatch(code):
            raise Refused("a numpy.dtype that is neither numbers nor text")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple) -> None:
        _, order, *fields = state
        if fields[:3] != [None, None, None] or order not in "<>|=":
            raise Refused("a numpy.dtype with fields or an unknown byte order")
        self.order = "|" if self.code in ("b1", "i1", "u1") else order.replace("=", "<")


class Extent(Record):
    """Bytes that stay in the file: content of an array, since they are too many for `tree`."""

    __slots__ = ("start", "size")

    def __init__(self, start: int, size: int):
        self.start, self.size = start, size

    def __len__(self) -> int:
        return self.size

    def __reduce__(self) -> Any:
        raise Refused(TOO_MUCH)


class Array(Record):
    """An array: `parts` are its dtype, shape, order, and where its bytes are."""

    __slots__ = ("data", "parts")
    parts: tuple[Any, ...] | None

    def __init__(self, data: BinaryIO):
        self.data, self.parts = data, None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.fill(kind, shape, content, "F" if fortran else "C")

    def fill(self, kind: Dtype, shape: Any, content: Any, order: str, scalar: bool = False) -> Any:
        """Validates the array and writes its content."""
        if not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
            raise Refused("an array with an impossible shape")
        count = math.prod(shape)
        if kind.code[0] == "O":
            whole = type(content) is list and len(content) == count and shape != ()
            if not whole or not {type(value) for value in content} <= PLAIN:
                raise Refused("an array of objects that are not plain values")
            self.parts = shape, content
            return self
        if isinstance(content, str):  # bytes from Python 2
            content = content.encode("latin-1")
        width = int(kind.code[1:]) * (4 if kind.code[0] == "U" else 1)
        if len(content) != count * width:
            raise Refused(f"an array claims {count * width} bytes but has {len(content)}")
        in_file = isinstance(content, Extent)
        if kind.code[0] == "U":  # numpy reports an invalid character only when it is accessed
            if in_file:
                raise Refused(f"a text array of more than {MAX_TREE} bytes")
            content.decode("utf-32-be" if kind.order == ">" else "utf-32-le", "surrogatepass")
        if not in_file:
            self.data.seek(-self.data.tell() % 16, 1)
        start = content.start if in_file else self.data.tell()
        self.parts = kind.order + kind.code, shape, order, in_file, start, scalar
        if not in_file:
            self.data.write(content)
        return self

    def __reduce__(self) -> Any:
        if self.parts is None:
            raise Refused("an array without content")
        if len(self.parts) > 2:
            return Array, self.parts
        shape, values = self.parts
        for n in reversed(shape[1:]):
            values = [values[k : k + n] for k in range(0, len(values), n)] if n else []
        return list, (values,)


class Opcodes(dict):
    """The methods of a reader by opcode."""

    def __missing__(self, key: int) -> Any:
        raise pickle.UnpicklingError(f"invalid load key, {chr(key)!r}")


class Reader(pickle._Unpickler):
    """An unpickler that accepts only the names needed for numpy arrays.

    The unpickler written in C would read the content of all arrays, 12 GB for CMU-MOSEI, into
    memory, and keep it until the end.
    """

    dispatch = Opcodes(pickle._Unpickler.dispatch)
    read: Any
    append: Any

    def __init__(self, handle: BinaryIO, data: BinaryIO):
        super().__init__(handle, encoding="latin-1")
        self.handle, self.size = handle, os.fstat(handle.fileno()).st_size

        def scalar(kind: Dtype, content: Any) -> Array:
            return Array(data).fill(kind, (), content, "C", True)

        def from_buffer(content: Any, kind: Dtype, shape: Any, order: str) -> Array:
            shape = (shape,) if type(shape) is int else shape
            return Array(data).fill(kind, shape, content, order)

        self.names = {
            "numpy.ndarray": Name(None),
            "numpy.dtype": Name(Dtype),
            "numpy._core.multiarray._reconstruct": Name(lambda *args: Array(data)),
            "numpy._core.multiarray.scalar": Name(scalar),
            "numpy._core.numeric._frombuffer": Name(from_buffer),
            # Python 3 writes bytes this way with the protocols 0 to 2.
            "_codecs.encode": Name(encode),
            "builtins.bytes": Name(lambda: b""),
            "builtins.set": Name(set),  # protocols 0 to 3
        }

    def load_frame(self) -> None:
        self.read(8)  # the size of a frame, which only says how much to read at once

    def content(self, width: int) -> Any:
        """The bytes after a size in `width` bytes, or their extent."""
        size = int.from_bytes(self.read(width), "little")
        if size <= MAX_TREE:
            return self.read(size)
        start = self.handle.tell()
        if size > self.size - start:
            raise EOFError
        self.handle.seek(size, 1)
        return Extent(start, size)

    def load_binbytes(self) -> None:
        self.append(self.content(4))

    def load_binbytes8(self) -> None:
        self.append(self.content(8))

    def load_binstring(self) -> None:
        content = self.content(4)
        self.append(content if isinstance(content, Extent) else content.decode("latin-1"))

    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BINBYTES[0]] = load_binbytes
    dispatch[pickle.BINBYTES8[0]] = dispatch[pickle.BYTEARRAY8[0]] = load_binbytes8
    dispatch[pickle.BINSTRING[0]] = load_binstring

    def find_class(self, module: str, name: str) -> Any:
        # numpy 1 and Python 2 used other module names.
        place = f"{module}.{name}".replace("numpy.core.", "numpy._core.")
        known = self.names.get(place.replace("__builtin__.", "builtins."))
        if known is None:
            raise Refused(f"it refers to {module}.{name}, which is not data")
        return known

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("it refers to an object outside the file")


def encode(text: str, encoding: str) -> bytes:
    """Replaces _codecs.encode."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused("_codecs.encode of something other than bytes")
    return text.encode("latin-1")


def convert(source: str, out: str) -> None:
    """Reads the pickle `source` and writes `data` and `tree` to the folder `out`."""
    with open(source, "rb") as handle, open(os.path.join(out, "data"), "wb") as data:
        content = Reader(handle, data).load()
        tree = pickle.dumps(content, protocol=4)
    if len(tree) > MAX_TREE:
        raise Refused(TOO_MUCH)
    with open(os.path.join(out, "tree"), "wb") as handle:
        handle.write(tree)


def refusal(source: str, out: str, memory: int) -> str:
    """Converts the file; returns why it is refused, or "". Raises `OSError` if the disk fails."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    most = 2 * os.path.getsize(source) + MAX_TREE  # more means that the file repeats its content
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        convert(source, out)
    except Refused as error:
        return str(error)
    except MemoryError:
        return f"reading takes more than {memory} bytes of memory"
    except RecursionError:
        return "its content is nested too deeply"
    except EOFError:
        return "it is empty or truncated"
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        return f"it repeats its content: its arrays have more than {most} bytes"
    except Exception as error:
        return f"it is damaged ({type(error).__name__}: {error})"
    return ""


if __name__ == "__main__":
    try:
        why = refusal(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        status = 3 if why else 0
    except OSError as error:
        why, status = str(error.errno), 4
    if why:
        print(f"\n{' '.join(why.split())}", file=sys.stderr, flush=True)
    os._exit(status)  # not sys.exit: freeing a deep tree takes as long as reading it
