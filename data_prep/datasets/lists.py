"""Readers of lists: csv files as people and programs write them, and lists of plain lines.

A csv file may use `,`, `;` or tab, quoted cells, any line end, a byte order mark, or UTF-16 with
its mark. A quote that is never closed would turn all rows up to the next quote into one cell, so a
quoted cell goes on over further lines only as long as none of them looks like a row of its own.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from common.options import UsageError
from data_prep.spec import Rejection

MAX_CSV_BYTES = 1 << 28  # Kinetics-400's lists have 20 MB
MAX_LINES_BYTES = 64 << 20  # the longest list of the two tweet sets has 4 MB
MAX_LINE_BYTES = 16384  # a tweet's line has less than 1,000
MAX_CHARACTERS = 100_000  # of one csv row
MAX_BAD_LINES = 100_000
MAX_SEARCHED = 1 << 22  # characters read ahead for the ends of quotes that are never closed
NEAR = 8  # lines within which most quotes end or turn out to be open
SEPARATORS = ",;\t"
OPEN_QUOTE = "it opens a quote that nothing closes before what looks like the next row"
NOT_UTF8 = "it is not UTF-8"
TOO_LONG = f"it has more than {MAX_CHARACTERS} characters"
SURROGATES = re.compile("[\udc80-\udcff]")  # how Python keeps bytes that are not UTF-8


def check_list(path: Path, most: int) -> None:
    """Raises `UsageError` unless the path is a file of at most `most` bytes.

    A pipe must not be opened: reading it would wait for ever.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file, but a list is expected there")
    if path.stat().st_size > most:
        raise UsageError(f"{path} has more than {most} bytes: no list of samples is that long")


# Lines --------------------------------------------------------------------------------------------


def read_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of each line, without its end (LF or CRLF) and a byte order mark.

    The text is None for a line of more than `MAX_LINE_BYTES` and for one that is not UTF-8. Other
    characters that Unicode counts as line ends do not end a line. Raises `UsageError` for a path
    that cannot be a list.
    """
    check_list(path, MAX_LINES_BYTES)
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


def csv_fields(line: str) -> list[str]:
    """The fields of a single line of csv, stripped; none if it cannot be split."""
    try:
        return [value.strip() for value in next(csv.reader([line]), [])]
    except csv.Error:
        return []


# Csv ----------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """A row: the number of its first line, from 1; its cells; and what is wrong with it.

    With `OPEN_QUOTE` the cells are those of its line, without the quote; with `NOT_UTF8` and
    `TOO_LONG` there are none.
    """

    line: int
    cells: list[str]
    fault: str = ""

    def wrong(self, width: int) -> str:
        """Why this is no row below a header of `width` columns, or ""."""
        if self.fault in (NOT_UTF8, TOO_LONG) or len(self.cells) == width:
            return self.fault
        more = f"; {self.fault}" if self.fault else ""
        return f"{len(self.cells)} cells where the header has {width}{more}"


def read_records(
    path: Path,
    is_first: Callable[[list[str]], bool],
    is_row: Callable[[list[str]], bool],
    replace: bool = False,
) -> Iterator[Record]:
    """The rows of a csv file that are not blank, its header among them.

    The separator is the first of `SEPARATORS` with which `is_first` accepts the first row, else a
    comma. `is_row` says whether the cells of a line are a whole row: an open quote ends before such
    a line. With `replace`, bytes that are not UTF-8 become U+FFFD. Raises `UsageError` for a path
    that cannot be a list and for a file with too many open quotes.
    """
    check_list(path, MAX_CSV_BYTES)
    lines, separator = _Lines(path, replace), ""
    searched = 0  # characters read ahead in vain
    for number, line in lines:
        if line is None:
            yield Record(number, [], TOO_LONG)
        elif SURROGATES.search(line):
            yield Record(number, [], NOT_UTF8)
        elif line.strip():
            separator = separator or _separator(line, is_first)
            cells, is_open = _split(line, separator)
            if is_open:
                cells, vain = _join(line, separator, lines, is_row)
                searched += vain
            if searched > MAX_SEARCHED:
                raise UsageError(f"{path}, line {number}: {OPEN_QUOTE}, as do many lines above")
            if any(map(SURROGATES.search, cells)):  # in a further line of the row
                yield Record(number, [], NOT_UTF8)
            elif cells:
                yield Record(number, cells)
            else:
                yield Record(number, _without_quotes(line, separator), OPEN_QUOTE)


def refuse_line(rejected: list[Rejection], line: Rejection) -> None:
    """Adds a line that is no row; raises `UsageError` if there are too many for a list."""
    rejected.append(line)
    if len(rejected) > MAX_BAD_LINES:
        raise UsageError(
            f"{line.source}: more than {MAX_BAD_LINES} lines do not have the expected form"
            f" ({line.detail}, for example); this is probably another file"
        )


class _Lines:
    """The lines of a csv file as (number, text with its end); None for the text of too long ones.

    Lines that were read ahead can be given back.
    """

    def __init__(self, path: Path, replace: bool):
        self._lines = self._read(path, replace)
        self._returned: deque[tuple[int, str | None]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str | None]]:
        return self

    def __next__(self) -> tuple[int, str | None]:
        return self._returned.popleft() if self._returned else next(self._lines)

    def give_back(self, lines: list[tuple[int, str | None]]) -> None:
        """Makes these lines the next ones."""
        self._returned.extendleft(reversed(lines))

    @staticmethod
    def _read(path: Path, replace: bool) -> Iterator[tuple[int, str | None]]:
        with open(path, "rb") as handle:
            utf16 = handle.read(2) in (b"\xff\xfe", b"\xfe\xff")
        encoding = "utf-16" if utf16 else "utf-8-sig"
        errors, number = "replace" if replace or utf16 else "surrogateescape", 0
        with open(path, encoding=encoding, errors=errors, newline="") as handle:
            while line := handle.readline(MAX_CHARACTERS):
                number += 1
                whole: str | None = line
                while len(line) == MAX_CHARACTERS and not line.endswith(("\n", "\r")):
                    line, whole = handle.readline(MAX_CHARACTERS), None
                yield number, whole


def _separator(line: str, is_first: Callable[[list[str]], bool]) -> str:
    return next((s for s in SEPARATORS if is_first(_split(line, s)[0])), ",")


def _split(line: str, separator: str) -> tuple[list[str], bool]:
    """The cells of a line, and whether it ends within a quote."""
    if '"' not in line:
        return line.rstrip("\r\n").split(separator), False
    rows = list(csv.reader([line, "."], delimiter=separator))  # an open quote takes the second one
    return rows[0], len(rows) == 1


def _without_quotes(line: str, separator: str) -> list[str]:
    cells = next(csv.reader([line], delimiter=separator, quoting=csv.QUOTE_NONE))
    return [cell.removeprefix('"') for cell in cells]


def _join(
    line: str, separator: str, lines: _Lines, is_row: Callable[[list[str]], bool]
) -> tuple[list[str], int]:
    """The cells of a row whose first line ends within a quote; none if the quote is never closed.

    Returns with them the number of characters that a long search read in vain. Lines that do not
    belong to the row are given back.
    """
    read: list[tuple[int, str | None]] = []
    size, failed = len(line), False

    def further() -> Iterator[str]:
        nonlocal size, failed
        yield line
        for number, text in lines:
            read.append((number, text))
            size += len(text or "")
            failed = text is None or size > MAX_CHARACTERS or is_row(_split(text, separator)[0])
            if failed:
                return
            yield text
        failed = True  # the file ended

    cells = next(csv.reader(further(), delimiter=separator))
    if not failed:
        return cells, 0
    lines.give_back(read)
    return [], size if len(read) > NEAR else 0
