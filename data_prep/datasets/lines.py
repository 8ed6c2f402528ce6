"""Lists with a sample a line, or a few lines a sample, and the pictures that they name."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets.walk import walk
from data_prep.spec import Rejection

MAX_LINE_BYTES = 16384  # a tweet's line has less than 1,000
MAX_LIST_BYTES = 64 << 20  # the longest list of the two tweet sets has 4 MB
PICTURES = r"\.(?:jpg|jpeg|png)"


def bases(root: Path) -> list[str]:
    """Where a set may stand: the root itself as "", then the names of the folders in it."""
    return ["", *sorted(p.name for p in root.iterdir() if p.is_dir() and not is_ignored(p.name))]


def read_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of each line, without its end (LF or CRLF) and a byte order mark.

    None stands for a line of more than `MAX_LINE_BYTES` and for one that is not UTF-8. Other
    characters that Unicode counts as line ends do not end a line. Raises `UsageError` for a file
    that no list can be.
    """
    if not path.is_file():  # a link to nothing; or a pipe, which would be waited on for ever
        raise UsageError(f"{path} is no file: a list must be one, or not be there")
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UsageError(f"{path} has more than {MAX_LIST_BYTES} bytes: it is not the list it says")
    with open(path, "rb") as handle:
        number = 0
        while raw := handle.readline(MAX_LINE_BYTES):
            number += 1
            whole = raw
            while len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
                raw, whole = handle.readline(MAX_LINE_BYTES), b""
            try:
                text = whole.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                text = ""
            yield number, text.rstrip("\r\n") if text else None


def index_pictures(
    root: Path, folder: str, name: re.Pattern
) -> tuple[dict[str, tuple[str, ...]], list[Rejection]]:
    """The files under root/folder whose names match, as key -> paths relative to the root.

    The key is the pattern's first group. Beside it what could not be used, other names, and each
    further file of a key, which is only read where those before it do not decode.
    """
    found: dict[str, tuple[str, ...]] = {}
    rejected = []
    for path in walk(root / folder):
        source, match = str(PurePosixPath(folder, path)), name.fullmatch(PurePosixPath(path).name)
        if not match:
            rejected.append(Rejection(PurePosixPath(path).stem, source, "unknown_name"))
        else:
            if match[1] in found:
                rejected.append(Rejection(match[1], source, "second_file", found[match[1]][0]))
            found[match[1]] = (*found.get(match[1], ()), source)
    return found, rejected


def unlisted(pictures: dict[str, tuple[str, ...]], used: set[str]) -> list[Rejection]:
    """The pictures, key -> paths, that no line names."""
    return [
        Rejection(key, paths[0], "no_label", "no line of a list names it")
        for key, paths in pictures.items()
        if key not in used
    ]


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates as U+FFFD: it can be UTF-8 then."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
