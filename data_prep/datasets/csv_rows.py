"""Csv files as people and programs write them: the lists of data sets, and own manifests.

Understood are `,`, `;` and tab as separators, quoted cells, any line end, a byte order mark, and
UTF-16 behind its mark. A quote that nothing closes would make one cell of all the rows up to the
next quote, so a row is read to its end only as long as no line in it looks like a row of its own.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from common.options import UsageError
from data_prep.spec import Rejection

MAX_LIST_BYTES = 1 << 28  # Kinetics-400's lists have 20 MB
MAX_CHARACTERS = 100_000  # of one row
MAX_BAD_LINES = 100_000
MAX_SEARCHED = 1 << 22  # characters looked through for the ends of quotes that nothing closes
NEAR = 8  # lines within which most quotes end, or turn out to be open
SEPARATORS = ",;\t"
OPEN_QUOTE = "it opens a quote that nothing closes before what looks like the next row"
NOT_UTF8 = "it is not UTF-8"
TOO_LONG = f"it has more than {MAX_CHARACTERS} characters"
SURROGATES = re.compile("[\udc80-\udcff]")  # how Python keeps bytes that are not UTF-8

Lines = Iterator[tuple[int, str | None]]


class Record(NamedTuple):
    """A row: the number of its first line, from 1; its cells; and what is wrong with it.

    With `OPEN_QUOTE` the cells are those of its line, without the quote; with `NOT_UTF8` and
    `TOO_LONG` there are none.
    """

    line: int
    cells: list[str]
    fault: str = ""


def read_records(
    path: Path,
    is_first: Callable[[list[str]], bool],
    is_row: Callable[[list[str]], bool],
    replace: bool = False,
) -> Iterator[Record]:
    """The rows of a csv file that are not blank, its header among them.

    The separator is the first of `SEPARATORS` with which `is_first` accepts the first row, else a
    comma. `is_row` tells whether a line is a whole row; no open quote goes on beyond such a line.
    `replace`: bytes that are not UTF-8 become U+FFFD. Raises `UsageError` if the path is not a
    file, the file is larger than 256 MiB, or too many of its quotes are open.
    """
    if not path.is_file():  # a link to nothing; or a pipe, which would be waited on for ever
        raise UsageError(f"{path} is not a file")
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UsageError(f"{path} has more than {MAX_LIST_BYTES} bytes: no list of samples has")
    lines, separator = _lines(path, replace), ""
    waiting: deque[tuple[int, str | None]] = deque()  # read in search of a quote's end
    searched = 0  # characters, in vain
    while True:
        number, line = waiting.popleft() if waiting else next(lines, (0, ""))
        if not number:
            return
        if line is None:
            yield Record(number, [], TOO_LONG)
        elif SURROGATES.search(line):
            yield Record(number, [], NOT_UTF8)
        elif line.strip():
            separator = separator or _separator(line, is_first)
            cells, is_open = _split(line, separator)
            if is_open:
                cells, vain = _join(line, separator, waiting, lines, is_row)
                searched += vain
            if searched > MAX_SEARCHED:
                raise UsageError(f"{path}, line {number}: {OPEN_QUOTE}, as do many lines above")
            if any(map(SURROGATES.search, cells)):  # in a line that belongs to the row
                yield Record(number, [], NOT_UTF8)
            elif cells:
                yield Record(number, cells)
            else:
                yield Record(number, _without_quotes(line, separator), OPEN_QUOTE)


def columns_wrong(record: Record, width: int) -> str:
    """What is wrong with a row below a header of `width` columns, or ""."""
    if record.fault in (NOT_UTF8, TOO_LONG) or len(record.cells) == width:
        return record.fault
    more = f"; {record.fault}" if record.fault else ""
    return f"{len(record.cells)} cells where the header has {width}{more}"


def refuse_line(rejected: list[Rejection], line: Rejection) -> None:
    """Adds a line that is no row; raises `UsageError` where there are too many for a list."""
    rejected.append(line)
    if len(rejected) > MAX_BAD_LINES:
        raise UsageError(
            f"{line.source}: more than {MAX_BAD_LINES} lines do not have the expected form"
            f" ({line.detail}, for example); this is probably another file"
        )


def _lines(path: Path, replace: bool) -> Lines:
    """(number, text with its end) of each line; None for one that is too long to be held."""
    with open(path, "rb") as handle:
        mark = handle.read(2)
    utf16 = mark in (b"\xff\xfe", b"\xfe\xff")
    errors = "replace" if replace or utf16 else "surrogateescape"
    encoding, number = "utf-16" if utf16 else "utf-8-sig", 0
    with open(path, encoding=encoding, errors=errors, newline="") as handle:
        while line := handle.readline(MAX_CHARACTERS):
            number += 1
            whole: str | None = line
            while len(line) == MAX_CHARACTERS and not line.endswith(("\n", "\r")):
                line, whole = handle.readline(MAX_CHARACTERS), None
            yield number, whole


def _separator(line: str, is_first: Callable[[list[str]], bool]) -> str:
    for separator in SEPARATORS:
        if is_first(_split(line, separator)[0]):
            return separator
    return ","


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
    line: str, separator: str, waiting: deque, lines: Lines, is_row: Callable[[list[str]], bool]
) -> tuple[list[str], int]:
    """The cells of a row that goes on over further lines; none where its quote never closes.

    Beside them the characters of a long search in vain. The lines that were looked at and do not
    belong to the row are left in `waiting`.
    """
    looked: list[tuple[int, str | None]] = []
    size, ended = len(line), False

    def further() -> Iterator[str]:
        nonlocal size, ended
        yield line
        for number, text in chain(list(waiting), lines):
            looked.append((number, text))
            size += len(text or "")
            ended = text is None or size > MAX_CHARACTERS or is_row(_split(text, separator)[0])
            if ended:
                return
            yield text
        ended = True

    cells = next(csv.reader(further(), delimiter=separator))
    if ended:
        kept = list(waiting)[len(looked) :]
        waiting.clear()
        waiting.extend([*looked, *kept])
        return [], size if len(looked) > NEAR else 0
    for _ in range(min(len(looked), len(waiting))):
        waiting.popleft()
    return cells, 0
