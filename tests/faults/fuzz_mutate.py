"""Damage at random: bytes of sound inputs, changed, cut, repeated, mixed and spiced."""

import random
from collections.abc import Callable

MOST = 1 << 16  # bytes that an input may grow to, if its seed is not larger

TOKENS = (
    b'"', b"'", b",", b";", b"\t", b"&", b":", b"\\", b"/", b"../", b"[", b"]", b"{", b"}", b"(",
    b"\0", b"\0\0\0\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\n", "\u2028".encode(), "\x85".encode(), b"\x1b[31m",
    "\u202e".encode(), "\u0130".encode(), "\u0660".encode(), "\u00b2".encode(), b"\\ud800",
    b"\\u0000", b"\\n", b"1e999", b"-1e999", b"-1", b"0", b"1", b"2.5", b"1e3", b"9" * 400,
    b"9" * 5000, b"4294967296", b"18446744073709551616", b"1" + b"0" * 101, b"null", b"true",
    b"false", b"NaN", b"Infinity", b"-Infinity", b"{}", b"[]", b'""', b'" "', b'"a"', b'{"a":1}',
    b"[" * 3000, b'{"a":' * 3000, b"(" * 300, b'["a",' * 500, b"x" * 300, b"=cmd|", b"%00", b" ",
    b"file://", b"version https://git-lfs", b"moov", b"mdat", b"RIFF", b"PK\x03\x04", b"\x89PNG",
    b"\x93NUMPY", b"\x80\x04", b"cnumpy\nndarray\n", b"cos\nsystem\n", b"R", b"b", b".",
)  # fmt: skip


def _flip(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    for _ in range(draw.choice((1, 1, 1, 4, 16))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _change(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        data[draw.randrange(len(data))] = draw.randrange(256)


def _number(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    """A whole number of 1, 2, 4 or 8 bytes is another one."""
    size, at = draw.choice((1, 2, 4, 4, 8)), draw.randrange(len(data))
    bits = 8 * size
    value = draw.choice((0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1,
                         draw.getrandbits(bits), draw.randrange(256)))  # fmt: skip
    data[at : at + size] = (value % (1 << bits)).to_bytes(size, draw.choice(("little", "big")))


def _span(data: bytearray, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(data))
    return start, min(len(data), start + draw.choice((1, 2, 4, 16, 64, 512)))


def _cut(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    del data[draw.randrange(len(data)) :]


def _delete(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    start, end = _span(data, draw)
    del data[start:end]


def _zero(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    start, end = _span(data, draw)
    data[start:end] = bytes(end - start)


def _duplicate(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    start, end = _span(data, draw)
    at = draw.choice((end, draw.randrange(len(data) + 1)))
    data[at:at] = data[start:end] * draw.choice((1, 1, 2, 30))


def _token(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(TOKENS)


def _overwrite(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    """A token in the place of a word, a number or a quoted text."""
    at = draw.randrange(len(data))
    start = at
    while start and _is_word(data[start - 1]):
        start -= 1
    while at < len(data) and _is_word(data[at]):
        at += 1
    data[start:at] = draw.choice(TOKENS)


def _is_word(byte: int) -> bool:
    return byte in b'."-_+' or 48 <= byte < 58 or 65 <= byte < 91 or 97 <= byte < 123


def _noise(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.randbytes(draw.choice((1, 2, 8, 64)))


def _line_ends(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    data[:] = data.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\0\n")))


def _lines(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    """Lines change places, go, or stand twice."""
    lines = bytes(data).splitlines(keepends=True)
    one, two = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[one] = draw.choice((lines[two], b"", lines[one] + lines[two]))
    data[:] = b"".join(lines)


def _splice(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    other = draw.choice(seeds)
    data[draw.randrange(len(data)) :] = other[draw.randrange(len(other) + 1) :]


def _encoding(data: bytearray, draw: random.Random, seeds: list[bytes]) -> None:
    data[:] = bytes(data).decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-16-be")))


Mutation = Callable[[bytearray, random.Random, list[bytes]], None]
MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip, _change, _number, _number, _cut, _delete, _delete, _zero, _duplicate, _token,
    _token, _token, _overwrite, _overwrite, _overwrite, _noise, _line_ends, _lines, _splice,
)  # fmt: skip


def mutate(seeds: list[bytes], name: str) -> bytes:
    """A damaged input, by its name alone."""
    draw = random.Random(name)
    seed = draw.choice(seeds)
    data, most = bytearray(seed), max(MOST, len(seed))
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        if data:
            draw.choice(MUTATIONS)(data, draw, seeds)
        else:
            _token(data, draw, seeds)
        del data[most:]
    if data and draw.random() < 0.01:
        _encoding(data, draw, seeds)
    return bytes(data)
