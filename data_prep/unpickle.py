"""Pickles of numpy arrays, read as data: no class is looked up, no function of the file is called.

This is an interpreter of its own for the opcodes that arrays, dict, list, tuple, str, bytes and
numbers are written with (protocols 0 to 5, Python 2's too). The few functions that such a file
names (numpy's `_reconstruct`, `_frombuffer`, `scalar`, `dtype`, and `_codecs.encode`) stand for
operations of `data_prep.pickled_arrays`; any other name ends the reading, before anything happens.

The file is mapped, not read: an array is a read-only view into the map, and costs no memory beyond
the pages in use. Only text is decoded; Python 3 writes the bytes of an array as text under the
protocols 0 to 2, and those are copied, at most as many as the file has.
"""

import codecs
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.options import UsageError
from data_prep.pickled_arrays import (
    MAX_NAME,
    NAMES,
    Damaged,
    Name,
    Pending,
    Refused,
    array,
    finished,
    ordered,
)

MAX_BYTES = 1 << 30  # of a file; CMU-MOSI's largest has about 0.5 GB
MAX_STEPS = 5_000_000  # opcodes; its files have some ten thousand
SHORT = 255  # bytes; longer byte strings stay in the file


def load(path: Path) -> Any:
    """The content of a pickle file: builtins and numpy arrays.

    Arrays are read-only; a byte string of more than 255 bytes is a memoryview; an array of objects
    is a list (nested as its shape says) of str, bytes and numbers. Raises `UsageError` for a file
    that is not whole, larger than 1 GiB, or names anything else, and says what.
    """
    try:
        with open(path, "rb") as handle:
            size = handle.seek(0, 2)
            if not size:
                raise Damaged("it is empty")
            if size > MAX_BYTES:
                raise Damaged(f"it has {size} bytes, more than the {MAX_BYTES} that are read")
            data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        if data[:23] == b"version https://git-lfs":
            raise Damaged("it is a git-lfs pointer: run `git lfs pull` in its folder")
        return Machine(data).run()
    except Refused as error:
        raise UsageError(
            f"{path} asks for {printable(error)}, which is no data: the file is refused, and"
            " nothing of it was run; take it from its authors"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        what = f"{path} is no whole pickle file ({printable(error)})"
        raise UsageError(f"{what}; fetch it again") from None


def printable(error: Exception) -> str:
    """The message on one line: a file may name anything, line feeds and control codes included."""
    return str(error).encode("unicode_escape").decode()


class Machine:
    """The state of one reading: position, stack, marks, memo, and what may still be decoded."""

    def __init__(self, data: mmap.mmap):
        self.data, self.view, self.at = data, memoryview(data), 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.allowance = len(data)  # bytes that may be copied out of text, elements checked

    def run(self) -> Any:
        """Executes the opcodes up to STOP and returns what is left on the stack."""
        for _ in range(MAX_STEPS):
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                return self.pop()
            if code not in OPCODES:
                raise Damaged(f"byte {self.at - 1} is {code:#04x}, no opcode that data need")
            OPCODES[code](self)
        raise Damaged(f"it has more than {MAX_STEPS} steps")

    # Reading ------------------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        if not 0 <= count <= len(self.data) - self.at:
            raise Damaged(f"byte {self.at} announces {count} bytes, and the file ends before them")
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, form: str) -> Any:
        """A number of a fixed width: `form` as in `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, longest: int = MAX_NAME) -> bytes:
        """The bytes up to the next line feed, which is passed over."""
        end = self.data.find(b"\n", self.at)
        if end < 0 or end - self.at > longest:
            raise Damaged(f"the line at byte {self.at} does not end")
        line = bytes(self.take(end - self.at))
        self.at += 1
        return line

    def charge(self, amount: int) -> None:
        """Counts what is copied: a few bytes of a file must not ask for any amount of work."""
        self.allowance -= amount
        if self.allowance < 0:
            raise Damaged("it decodes to more than its own size")

    # Stack --------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self) -> Any:
        """The uppermost value, which stays; never one below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged(f"nothing is on the stack at byte {self.at}")
        return self.stack[-1]

    def pop(self) -> Any:
        """The uppermost value, an array in place of what stood for it."""
        self.top()
        return finished(self.stack.pop())

    def pop_marked(self) -> list:
        """All values above the last mark."""
        if not self.marks:
            raise Damaged(f"no mark at byte {self.at}")
        start = self.marks.pop()
        values = [finished(value) for value in self.stack[start:]]
        del self.stack[start:]
        return values

    def extend(self, values: list) -> None:
        """Appends to the list on top."""
        if not isinstance(self.top(), list):
            raise Damaged(f"no list at byte {self.at}")
        self.stack[-1].extend(values)

    def update(self, values: list) -> None:
        """Puts keys and values into the dict on top; a key is a str, bytes or an int."""
        if not isinstance(self.top(), dict) or len(values) % 2:
            raise Damaged(f"no dict at byte {self.at}")
        if not all(isinstance(key, (str, bytes, int)) for key in values[::2]):
            raise Damaged(f"a key at byte {self.at} is neither text nor a number")
        self.stack[-1].update(zip(values[::2], values[1::2]))

    def marked_dict(self) -> None:
        values = self.pop_marked()
        self.push({})
        self.update(values)

    def remember(self, index: int) -> None:
        """Puts the uppermost value into the memo, an array before it is filled."""
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Damaged(f"value {index} is not known at byte {self.at}")
        self.push(self.memo[index])

    def join(self, count: int) -> None:
        """A tuple of the uppermost values."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    # Numbers and text ---------------------------------------------------------------------------

    def check_protocol(self) -> None:
        protocol = self.number("B")
        if protocol > 5:
            raise Damaged(f"protocol {protocol} is unknown")

    def check_frame(self) -> None:
        length = self.number("<Q")
        if length > len(self.data) - self.at:
            raise Damaged(f"the frame at byte {self.at} announces {length} bytes")

    def decimal(self) -> None:
        """A whole number in digits, or a truth value under protocol 0."""
        line = self.line().rstrip(b"L")
        self.push({b"00": False, b"01": True}.get(line) if line in (b"00", b"01") else int(line))

    def string(self, count: int) -> None:
        """A byte string: in the file where it is long."""
        value = self.take(count)
        self.push(bytes(value) if count <= SHORT else value)

    def python2_string(self, count: int) -> None:
        """Python 2's str is text here where it is short (keys), bytes where it is long (arrays)."""
        value = self.take(count)
        self.push(str(value, "latin-1") if count <= SHORT else value)

    def quoted_string(self) -> None:
        """Python 2's str under protocol 0: a literal in quotes."""
        line = self.line(len(self.data))
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"\"'":
            raise Damaged(f"the string before byte {self.at} has no quotes")
        self.push(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))

    # Objects ------------------------------------------------------------------------------------

    def find(self, module: Any, name: Any) -> None:
        """Pushes what stands for a name; raises `Refused` for all that is not in `NAMES`."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged(f"a name at byte {self.at} is no text")
        if (module, name) not in NAMES:
            raise Refused(f"{module[:MAX_NAME]}.{name[:MAX_NAME]}")
        self.push(NAMES[module, name])

    def line_name(self) -> None:
        module, name = self.line().decode(), self.line().decode()
        self.find(module, name)

    def refuse_instance(self) -> None:
        """The opcode that makes an instance of a class of protocol 0."""
        module, name = self.line().decode(), self.line().decode()
        raise Refused(f"{module}.{name}")

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        self.find(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or function.call is None:
            raise Refused(f"a call of {type(function).__name__}")
        if not isinstance(arguments, tuple):
            raise Damaged(f"a call at byte {self.at} has no arguments")
        try:
            self.push(function.call(self.charge, *arguments))
        except TypeError:
            raise Damaged(f"a call at byte {self.at} has other arguments") from None

    def build(self) -> None:
        """Fills an array, or sets a dtype's byte order."""
        state, target = self.pop(), self.top()
        if not isinstance(target, Pending) or not isinstance(state, tuple):
            raise Refused(f"a state of {type(target).__name__}")
        if isinstance(target.value, np.dtype):
            target.value = ordered(target.value, state)
        elif target.value is None and len(state) in (4, 5):  # the oldest lack a version
            shape, dtype, fortran, content = state[-4:]
            target.value = array(self.charge, content, dtype, shape, "F" if fortran else "C")
        else:
            raise Damaged(f"an array is filled in an unknown way at byte {self.at}")


# opcode -> what it does; the names are those of the standard library's pickletools
OPCODES: dict[int, Callable[[Machine], Any]] = {
    0x80: Machine.check_protocol,
    0x95: Machine.check_frame,
    b"("[0]: lambda m: m.marks.append(len(m.stack)),
    b"N"[0]: lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    b"I"[0]: Machine.decimal,
    b"L"[0]: Machine.decimal,
    b"J"[0]: lambda m: m.push(m.number("<i")),
    b"K"[0]: lambda m: m.push(m.number("B")),
    b"M"[0]: lambda m: m.push(m.number("<H")),
    0x8A: lambda m: m.push(int.from_bytes(m.take(m.number("B")), "little", signed=True)),
    b"F"[0]: lambda m: m.push(float(m.line())),
    b"G"[0]: lambda m: m.push(m.number(">d")),
    b"S"[0]: Machine.quoted_string,
    b"T"[0]: lambda m: m.python2_string(m.number("<i")),
    b"U"[0]: lambda m: m.python2_string(m.number("B")),
    b"B"[0]: lambda m: m.string(m.number("<I")),
    b"C"[0]: lambda m: m.string(m.number("B")),
    0x8E: lambda m: m.string(m.number("<Q")),  # BINBYTES8
    0x96: lambda m: m.string(m.number("<Q")),  # BYTEARRAY8: a writable array under protocol 5
    b"V"[0]: lambda m: m.push(str(m.line(len(m.data)), "raw-unicode-escape")),
    b"X"[0]: lambda m: m.push(str(m.take(m.number("<I")), "utf-8")),
    0x8C: lambda m: m.push(str(m.take(m.number("B")), "utf-8")),
    0x8D: lambda m: m.push(str(m.take(m.number("<Q")), "utf-8")),
    b"]"[0]: lambda m: m.push([]),
    b"l"[0]: lambda m: m.push(m.pop_marked()),
    b"a"[0]: lambda m: m.extend([m.pop()]),
    b"e"[0]: lambda m: m.extend(m.pop_marked()),
    b")"[0]: lambda m: m.push(()),
    b"t"[0]: lambda m: m.push(tuple(m.pop_marked())),
    0x85: lambda m: m.join(1),
    0x86: lambda m: m.join(2),
    0x87: lambda m: m.join(3),
    b"}"[0]: lambda m: m.push({}),
    b"d"[0]: Machine.marked_dict,
    b"s"[0]: lambda m: m.update([m.pop(), m.pop()][::-1]),
    b"u"[0]: lambda m: m.update(m.pop_marked()),
    b"p"[0]: lambda m: m.remember(int(m.line())),
    b"q"[0]: lambda m: m.remember(m.number("B")),
    b"r"[0]: lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    b"g"[0]: lambda m: m.recall(int(m.line())),
    b"h"[0]: lambda m: m.recall(m.number("B")),
    b"j"[0]: lambda m: m.recall(m.number("<I")),
    b"c"[0]: Machine.line_name,
    b"i"[0]: Machine.refuse_instance,
    0x93: Machine.stack_name,
    b"R"[0]: Machine.reduce,
    b"b"[0]: Machine.build,
}
