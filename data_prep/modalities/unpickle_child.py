"""The process that reads a pickle for `unpickle`; its arguments: FILE OUT BYTES.

It imports the standard library alone. Each of the few names that arrays are written with stands for
a record of our own, so nothing of the file is called and no numpy sees it. OUT gets `data`, the
bytes of all arrays, and `tree`, everything else. Exit status 3: the file is refused, and the last
line on stderr says why.
"""

import io
import math
import os
import pickle
import re
import sys

MAX_TREE = 8 << 20  # bytes of what is no array; CMU-MOSI's has less than 1 MB
MAX_DIMENSIONS = 8
SMALL = 1 << 20  # bytes
SLACK = 64 << 20  # bytes; about what a bare interpreter has in use
# What arrays of numbers or fixed-width text are written with; "O": a list of plain values.
CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?")
WIDTH = {"b": 1, "i": 1, "u": 1, "f": 1, "S": 1, "U": 4}  # bytes of one unit of the code's number
PLAIN = (str, bytes, int, float, bool, type(None))


class Refused(Exception):
    """The file holds what is no data, or contradicts itself."""


class Record:
    """Base of what the names stand for: nothing can be set on them from outside."""

    __slots__ = ()

    def __setstate__(self, state):
        raise Refused("it gives a state to what has none")


class Dtype(Record):
    """A dtype: its byte order and code."""

    __slots__ = ("code", "order")

    def __init__(self, code, *flags):
        if not isinstance(code, str) or not CODE.fullmatch(code):
            raise Refused(f"numpy.dtype of {short(code)}, not numbers or text")
        self.code, self.order = code.rstrip("8") if code[0] == "O" else code, "<"

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise Refused("numpy.dtype with fields of its own")
        if state[1] not in ("<", ">", "|", "="):
            raise Refused(f"a byte order {short(state[1])}")
        self.order = state[1].replace("=", "<")

    @property
    def width(self):
        return WIDTH[self.code[0]] * int(self.code[1:])


class Array(Record):
    """An array: `place` is where its bytes are in the data file, or its elements for objects."""

    __slots__ = ("kind", "shape", "fortran", "place", "scalar")

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array with an unknown state")
        _, shape, kind, fortran, content = state
        self.fill(kind, shape, fortran is True, content)

    def fill(self, kind, shape, fortran, content, scalar=False):
        """Checks the record and writes its bytes."""
        if not isinstance(kind, Dtype):
            raise Refused("an array without a dtype")
        sound = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
        if not sound or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
            raise Refused(f"an array of shape {short(shape)}")
        count = math.prod(shape)
        if kind.code == "O":
            fits = isinstance(content, list) and len(content) == count
            if not fits or not all(type(value) in PLAIN for value in content):
                raise Refused("an array of objects that are no plain values")
            self.place = content
        else:
            if isinstance(content, str):  # Python 2's bytes
                content = latin1(content)
            if not isinstance(content, (bytes, bytearray)):
                raise Refused("an array without bytes")
            if len(content) != count * kind.width:
                claimed = f"{kind.code} {list(shape)}"
                raise Refused(f"an array claims {claimed} and has {len(content)} bytes")
            if kind.code[0] == "U" and id(content) not in DATA.places:
                check_text(content, kind.order)
            self.place = DATA.add(content)
        self.kind, self.shape, self.fortran, self.scalar = kind, shape, fortran, scalar


class Global(Record):
    """A function or class that the file names."""

    __slots__ = ("name", "call")

    def __init__(self, name, call=None):
        self.name, self.call = name, call

    def __call__(self, *args):
        if self.call is None:
            raise Refused(f"a call of {self.name}")
        return self.call(*args)


class Data:
    """The file of the arrays' bytes; the same bytes object is written once."""

    def __init__(self, path, limit):
        self.handle, self.size, self.limit, self.places = open(path, "wb"), 0, limit, {}

    def add(self, content):
        """Where the bytes are, a multiple of 16."""
        if id(content) in self.places:
            return self.places[id(content)][0]
        at = self.size
        padded = -(-len(content) // 16) * 16
        if at + padded > self.limit:
            raise Refused("its arrays need more bytes than it has itself")
        self.handle.write(content)
        self.handle.write(bytes(padded - len(content)))
        self.size = at + padded
        # Small ones are kept, lest another object gets their id; a large one is seldom shared.
        if len(content) <= SMALL:
            self.places[id(content)] = at, content
        return at


def short(value):
    """A plain value in a message; of anything else its type, for that may be without an end."""
    if type(value) in PLAIN:
        return repr(value)[:60] if not isinstance(value, int) else f"{value % 10**9}"
    if type(value) is tuple and len(value) <= MAX_DIMENSIONS:
        return "(" + ", ".join(short(v) if type(v) in PLAIN else "..." for v in value) + ")"
    return f"a {type(value).__name__}"


def check_text(content, order):
    """Refuses bytes that are not valid code points: Python cannot decode them."""
    try:
        bytes(content).decode("utf-32-be" if order == ">" else "utf-32-le", "surrogatepass")
    except UnicodeDecodeError:
        raise Refused("text with an invalid character") from None


def latin1(text):
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("text where bytes were expected") from None


def encode(text, encoding):
    """Stands for _codecs.encode, by which Python 3 pickles bytes under the protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("_codecs.encode of anything but bytes")
    global copied
    if id(text) in ENCODED:
        return ENCODED[id(text)][1]
    content = latin1(text)
    copied += len(content)
    if copied > SIZE:
        raise Refused("it copies more than its own size")
    if len(content) <= SMALL:
        ENCODED[id(text)] = text, content
    return content


def no_bytes(*args):
    """Stands for bytes(), by which it pickles b"" there."""
    if args:
        raise Refused("a call of bytes")
    return b""


def from_buffer(content, kind, shape, order):
    """An array of protocol 5."""
    array = Array()
    shape = (shape,) if type(shape) is int else shape
    array.fill(kind, shape, order == "F", content)
    return array


def scalar(kind, content=None):
    """One number of numpy's."""
    if isinstance(kind, Dtype) and kind.code == "O":
        raise Refused("numpy.dtype of objects for a scalar")
    array = Array()
    array.fill(kind, (), False, content, scalar=True)
    return array


def reconstruct(cls, shape, code):
    """An empty array, which gets its state next."""
    if cls is not NDARRAY:
        raise Refused("an array of another class than numpy.ndarray")
    return Array()


NDARRAY = Global("numpy.ndarray")
ENCODED = {}
copied = 0  # bytes
NAMES = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Global("numpy.dtype", Dtype),
    ("_codecs", "encode"): Global("_codecs.encode", encode),
    ("__builtin__", "bytes"): Global("bytes", no_bytes),
    ("builtins", "bytes"): Global("bytes", no_bytes),
}
for core in ("numpy.core", "numpy._core"):
    NAMES[f"{core}.multiarray", "_reconstruct"] = Global("_reconstruct", reconstruct)
    NAMES[f"{core}.multiarray", "scalar"] = Global("scalar", scalar)
    NAMES[f"{core}.numeric", "_frombuffer"] = Global("_frombuffer", from_buffer)


class Reader(pickle.Unpickler):
    """The standard library's, with the names above and no other."""

    def find_class(self, module, name):
        if (module, name) not in NAMES:
            raise Refused(f"it asks for {module}.{name}, which is no data")
        return NAMES[module, name]

    def persistent_load(self, pid):
        raise Refused("it refers to an object outside of itself")


class Limited(io.RawIOBase):
    """A file of at most `MAX_TREE` bytes."""

    def __init__(self, path):
        self.handle, self.size = open(path, "wb"), 0

    def write(self, data):
        self.size += len(data)
        if self.size > MAX_TREE:
            raise Refused(f"more than {MAX_TREE} bytes of it are no arrays")
        return self.handle.write(data)


class Writer(pickle.Pickler):
    """Plain values, and references in the arrays' places."""

    numbers = {}

    def persistent_id(self, value):
        if type(value) in (Dtype, Global):
            raise Refused("it holds a bare name or dtype")
        if type(value) is not Array:
            return None
        if not hasattr(value, "kind"):
            raise Refused("an array that is never filled")
        number = self.numbers.setdefault(id(value), len(self.numbers))
        if value.kind.code == "O":
            return "objects", number, value.shape, value.place
        code = ("|" if value.kind.code in ("b1", "i1", "u1") else value.kind.order) + (
            value.kind.code
        )
        return "array", number, code, value.shape, value.fortran, value.place, value.scalar


def limit_memory(size):
    """No more than `size` bytes in all: `SLACK` is what the interpreter has in use by now."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with open("/proc/self/statm") as handle:
        mapped = int(handle.read().split()[0]) * resource.getpagesize()
    limit = mapped + size - SLACK
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def convert(source, out):
    """Reads the pickle `source` and leaves its arrays in `out`/data and the rest in `out`/tree."""
    global SIZE, DATA
    SIZE = os.path.getsize(source)
    output = Limited(os.path.join(out, "tree"))
    DATA = Data(os.path.join(out, "data"), 2 * SIZE + 4096)
    with output.handle, DATA.handle:
        with open(source, "rb") as handle:
            tree = Reader(handle, encoding="latin-1").load()
        ENCODED.clear()
        Writer(output, protocol=4).dump(tree)


if __name__ == "__main__":
    source, out, allowed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if os.path.exists("/proc/self/statm"):
        limit_memory(allowed)
    why = ""
    try:
        convert(source, out)
    except Refused as error:
        why = str(error)
    except MemoryError:
        why = f"reading it takes more than {allowed} bytes of memory"
    except RecursionError:
        why = "its content is nested too deep"
    except EOFError:
        why = "it is empty or cut off"
    except OSError as error:
        why = f"{error.strerror}"
    except Exception as error:
        why = f"it is damaged ({type(error).__name__}: {error})"
    if why:
        sys.stderr.write(f"\n{why.encode('ascii', 'backslashreplace').decode()}\n")
    sys.stderr.flush()
    os._exit(3 if why else 0)  # not sys.exit: to free a deep tree takes as long as to read it
