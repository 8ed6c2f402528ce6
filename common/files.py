"""Files that a crash cannot leave half-written, and locks that end with their process."""

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
from pathlib import Path
from typing import Any

import filelock
import psutil

from common.options import UsageError

CHECKSUM = "sha256"  # the key of an object's own checksum
TEMPORARY = ".*.tmp"  # the names under which files are written
# What spreadsheets would run as a formula; a name that merely begins with a minus is none.
FORMULA = re.compile(r"[\t\r ]*(?:[=@]|[+-].*[(|!])", re.DOTALL)
HOST = re.sub(r"\W", "-", platform.node()) or "host"


class Busy(UsageError):
    """Another living process holds the lock."""

    exit_status = os.EX_TEMPFAIL


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; on success fsynced and renamed to `path`, else removed.

    Leftovers of the same file by killed writers of this machine are removed first.
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
    """Makes a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed writers; call it under the folder's lock."""
    for path in folder.glob(TEMPORARY):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, which ends with the process at the latest.

    While another process has it: raises `Busy(busy)`, or with `wait` prints that and waits. Forked
    children, such as loader workers, do not hold it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Whether a file or folder is hidden, or left behind by an operating system."""
    return name.startswith(".") or name in ("Thumbs.db", "__MACOSX")


def shown(text: str, most: int = 300) -> str:
    """A text from a file as messages show it: its beginning, on one line, without controls."""
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
    """The first digits of the SHA-256 of a value's `canonical` text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes an object atomically, with its own SHA-256 for `read_object`."""
    value = json.loads(to_json(value))  # as it will be read: keys are text then
    write_text(path, to_json(value | {CHECKSUM: digest(value, 64)}))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises `UsageError` if damaged, `OSError` if it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        due = value.pop(CHECKSUM, None) if isinstance(value, dict) else None
        sound = due is None or due == digest(value, 64)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, NaN, nested too deep
        raise UsageError(f"{path} is damaged ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: an object was expected, not {type(value).__name__}")
    if not sound:
        raise UsageError(f"{path} is damaged: its content is not what its {CHECKSUM} says")
    return value


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A CSV file's text, with LF line ends."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        # Readers take a bare CR for a line end too, but Python only quotes its own.
        has_end = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoted if has_end else plain).writerow(row)
    return text.getvalue()


def without_formulas(rows: Iterable[Sequence]) -> list[list]:
    """Rows for people's eyes: a text that a spreadsheet would run as a formula begins with '."""
    return [[f"'{c}" if isinstance(c, str) and FORMULA.match(c) else c for c in r] for r in rows]


def write_table(path: Path | None, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes `csv_text` atomically, or to standard output where `path` is None."""
    if path is None:
        sys.stdout.write(csv_text(header, rows))
    else:
        write_text(path, csv_text(header, rows))


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of one of our CSV files, by the names of its header.

    Raises `UsageError` naming the line for an open quote or a row of another length than the
    header, and for a header that lacks one of `columns`. A byte order mark is skipped.
    """
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        try:
            header = next(reader, [])
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise csv.Error(f"{len(row)} cells where the header has {len(header)}")
                rows.append(dict(zip(header, row)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}, line {reader.line_num}: {error}") from None
    for name in columns:
        if name not in header:
            raise UsageError(f"{path} has no column {name!r}, but {shown(', '.join(header))}")
    return rows
