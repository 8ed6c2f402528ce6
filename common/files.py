"""Atomic file writing, and locks that are released when their process ends."""

import contextlib
import csv
import glob
import hashlib
import io
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import psutil

from common.options import UsageError

CHECKSUM = "sha256"  # the key of an object's own checksum
TEMPORARY = ".*.tmp"  # temporary names used by `atomic`
# Text that a spreadsheet would run as a formula; a name that only starts with a minus is not one.
FORMULA = re.compile(r"[\t\r ]*(?:[=@]|[+-].*[(|!])", re.DOTALL)
HOST = re.sub(r"\W", "-", platform.node()) or "host"


class Busy(UsageError):
    """Another running process holds the lock."""

    exit_status = os.EX_TEMPFAIL


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success fsynced and renamed to `path`, else removed.

    First removes temporary files of `path` left by killed processes on this machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{path.name}.{HOST}."
    temporary = path.with_name(f"{stem}{os.getpid()}.tmp")
    for left in path.parent.glob(f"{glob.escape(stem)}*.tmp"):
        writer = left.name.removeprefix(stem).removesuffix(".tmp")
        if writer.isdecimal() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Fsyncs `folder`, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed processes; call it while holding the folder's lock."""
    for path in folder.glob(TEMPORARY):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`; it is released when the process ends.

    If another process has it: raises `Busy(busy)`, or with `wait` prints the message and waits.
    Forked children, such as loader workers, do not inherit it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    import filelock  # takes as long as the rest of `--help`

    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        if not wait:
            raise Busy(busy) from None
        print(f"note: {busy}; waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden or created by an operating system."""
    return name.startswith(".") or name in ("Thumbs.db", "__MACOSX")


def shown(text: str, most: int = 300) -> str:
    """Text from a file, made safe for messages: truncated, one line, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def to_json(value: Any) -> str:
    """JSON with sorted keys and no NaN: equal values give equal text."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def canonical(value: Any) -> str:
    """The shortest JSON text of a value, keys sorted."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes an object atomically, with its own SHA-256 for `read_object`."""
    value = json.loads(to_json(value))  # as it will be read back, with string keys
    write_text(path, to_json(value | {CHECKSUM: digest(value, 64)}))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises `UsageError` if damaged, `OSError` if unreadable."""
    try:
        value = json.loads(path.read_bytes())
        due = value.pop(CHECKSUM, None) if isinstance(value, dict) else None
        sound = due is None or due == digest(value, 64)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, NaN, nested too deep
        raise UsageError(f"{path} is damaged ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: expected an object, got {type(value).__name__}")
    if not sound:
        raise UsageError(f"{path} is damaged: its content does not match its {CHECKSUM}")
    return value


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """CSV text with LF line ends."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        # Readers also split lines at a bare CR, but Python's writer does not quote it.
        has_end = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoted if has_end else plain).writerow(row)
    return text.getvalue()


def without_formulas(rows: Iterable[Sequence]) -> list[list]:
    """Rows safe to open in a spreadsheet: a ' is put before text that would run as a formula."""
    return [[f"'{c}" if isinstance(c, str) and FORMULA.match(c) else c for c in r] for r in rows]


def write_table(path: Path | None, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes `csv_text` atomically, or to standard output if `path` is None."""
    if path is None:
        sys.stdout.write(csv_text(header, rows))
    else:
        write_text(path, csv_text(header, rows))


def read_columns(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The cells of these columns, row by row, of one of our CSV files; errors as `read_table`."""
    rows = _rows(path)
    header = next(rows)
    for name in columns:
        if name not in header:
            raise UsageError(f"{path} has no column {name!r}; it has {shown(', '.join(header))}")
    places = [header.index(name) for name in columns]
    if len(places) == 1:
        return ((row[places[0]],) for row in rows)
    return map(itemgetter(*places), rows)


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of one of our CSV files as dictionaries.

    Raises `UsageError` with the line number for an unclosed quote or a row with the wrong number of
    cells, and if the header lacks one of `columns`. A byte order mark is skipped.
    """
    header = next(_rows(path))
    names = dict.fromkeys((*header, *columns))
    return [dict(zip(names, row)) for row in read_columns(path, list(names))]


def _rows(path: Path) -> Iterator[list[str]]:
    """The header, then the rows that are not empty."""
    with open(path, encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        try:
            yield (header := next(reader, []))
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise csv.Error(f"{len(row)} cells, but the header has {len(header)}")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}, line {reader.line_num}: {error}") from None
