"""Readers of list files: csv files from various programs, and lists of plain lines.

A csv file may use `,`, `;` or tab, quoted cells, any line break, a byte order mark, or UTF-16. An
unclosed quote would merge all rows up to the next quote into one cell, so a quoted cell only
continues over lines that do not look like a complete row.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from common.options import UsageError

MAX_BYTES = 1 << 28  # Kinetics-400's lists have 20 MB
MAX_LINE = 16384  # characters of a plain line; a tweet's has fewer than 1,000
MAX_ROW = 100_000  # characters of a csv row
MAX_SEARCHED = 1 << 28  # maximum characters searched in vain for closing quotes
MAX_BAD_LINES = 100_000
TOO_MANY = "lines without the expected format: this is probably another file"
UNREADABLE = "\ufffd"  # returned by `read_lines` for an unreadable line; never occurs in lists
OPEN_QUOTE = "it opens a quote that is not closed before what looks like the next row"
NOT_UTF8 = "it is not UTF-8"
TOO_LONG = f"it has more than {MAX_ROW} characters"
ESCAPED = re.compile("[\udc80-\udcff]")  # Python's escapes for bytes that are not UTF-8


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a list without line breaks and byte order mark; see `UNREADABLE`.

    Raises `UsageError` if the path cannot be a list.
    """
    for line in _read(path, MAX_LINE, "\n"):
        yield UNREADABLE if line is None or ESCAPED.search(line) else line.rstrip("\r\n")


def csv_fields(line: str) -> list[str]:
    """The stripped fields of a single csv line; empty if it cannot be split."""
    try:
        return [value.strip() for value in next(csv.reader([line]), [])]
    except csv.Error:
        return []


class Record(NamedTuple):
    """A row of a csv file: the number of its first line, its cells, and its fault, if any.

    With `OPEN_QUOTE` the cells are those of one line, with `NOT_UTF8` and `TOO_LONG` empty.
    """

    line: int
    cells: list[str]
    fault: str = ""

    def wrong(self, width: int) -> str:
        """Why this is not a valid row for a header of `width` columns, or ""."""
        if self.fault in (NOT_UTF8, TOO_LONG) or len(self.cells) == width:
            return self.fault
        more = f"; {self.fault}" if self.fault else ""
        return f"{len(self.cells)} cells, but the header has {width}{more}"


def read_records(
    path: Path,
    is_first: Callable[[list[str]], bool],
    is_row: Callable[[list[str]], bool],
    replace: bool = False,
) -> Iterator[Record]:
    """The non-blank rows of a csv file, including its header.

    The separator is the first of `,`, `;` and tab for which `is_first` accepts the first row, else
    a comma. `is_row` decides whether the cells of a line are a complete row: an open quote ends
    before such a line. With `replace`, bytes that are not UTF-8 become U+FFFD. Raises `UsageError`
    if the path cannot be a list or the file has too many open quotes.
    """
    lines = enumerate(_read(path, MAX_ROW, "", replace), 1)
    ahead: deque[tuple[int, str | None]] = deque()  # lines that were read ahead
    separator, searched = "", 0
    while item := ahead.popleft() if ahead else next(lines, None):
        number, line = item
        if line is None or ESCAPED.search(line):
            yield Record(number, [], TOO_LONG if line is None else NOT_UTF8)
            continue
        if not line.strip():
            continue
        separator = separator or next((s for s in ",;\t" if is_first(_split(line, s)[0])), ",")
        cells, is_open = _split(line, separator)
        text, size, fault, read = line, 0, "", []
        while is_open and (item := ahead.popleft() if ahead else next(lines, None)):
            read.append(item)
            following = item[1]
            if following is None or len(text) + len(following) > MAX_ROW:
                break
            if is_row(_split(following, separator)[0]):
                break
            text += following
            if '"' in following:
                cells, is_open = _split(text, separator)
                size += len(text)
        if is_open:
            ahead.extendleft(reversed(read))
            searched += size
            if searched > MAX_SEARCHED:
                raise UsageError(f"{path}, line {number}: {OPEN_QUOTE}, as do many lines above")
            plain = next(csv.reader([line], delimiter=separator, quoting=csv.QUOTE_NONE))
            cells, fault = [cell.removeprefix('"') for cell in plain], OPEN_QUOTE
        elif any(map(ESCAPED.search, cells)):  # in a later line of the row
            cells, fault = [], NOT_UTF8
        yield Record(number, cells, fault)


def _read(path: Path, longest: int, newline: str, replace: bool = False) -> Iterator[str | None]:
    """The lines of a list with their line breaks; None if longer than `longest` characters."""
    if not path.is_file():  # reading a pipe would block
        raise UsageError(f"{path} is not a file, but a list is expected there")
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes: too long for a list of samples")
    with open(path, "rb") as start:
        utf16 = start.read(2) in (b"\xff\xfe", b"\xfe\xff")
    errors = "replace" if replace or utf16 else "surrogateescape"
    encoding = "utf-16" if utf16 else "utf-8-sig"
    with open(path, encoding=encoding, errors=errors, newline=newline) as handle:
        while line := handle.readline(longest):
            whole: str | None = line
            while len(line) == longest and not line.endswith(("\n", "\r")):
                line, whole = handle.readline(longest), None
            yield whole


def _split(line: str, separator: str) -> tuple[list[str], bool]:
    """The cells of a row, and whether it ends inside a quote."""
    if '"' not in line:
        return line.rstrip("\r\n").split(separator), False
    rows = list(csv.reader([line, "."], delimiter=separator))  # an open quote absorbs the second
    return rows[0], len(rows) == 1
