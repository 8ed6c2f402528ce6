"""Files that a crash cannot leave half-written, and locks that a kill frees."""

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
# What spreadsheets take for a formula and run; a name that only begins with a minus is none.
FORMULA = re.compile(r"[\t\r ]*(?:[=@]|[+-].*[(|!])", re.DOTALL)
HOST = re.sub(r"\W", "-", platform.node()) or "host"
IGNORED = ("Thumbs.db", "__MACOSX")  # as are names that begin with a dot


class Busy(UsageError):
    """Another living process holds the lock; status as sysexits.h's EX_TEMPFAIL."""

    exit_status = 75


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; on success fsynced and renamed to `path`, else removed.

    What killed writers of this machine left of the same file is removed first.
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


def is_ignored(name: str) -> bool:
    """Whether a file or folder is what an operating system leaves behind, or hidden."""
    return name.startswith(".") or name in IGNORED


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left under temporary names; call it under the folder's lock."""
    for path in folder.glob(TEMPORARY):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def to_json(value: Any) -> str:
    """JSON with sorted keys and no NaN: equal values give equal text."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes an object atomically, with its own SHA-256 for `read_object`."""
    value = json.loads(to_json(value))  # as it will be read: keys are text then
    write_text(path, to_json(value | {CHECKSUM: digest(value, 64)}))


def canonical(value: Any) -> str:
    """The shortest JSON text of a value, keys sorted."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises `UsageError` for damaged content, `OSError` if it cannot be read. A checksum that
    `write_json` put into it must be right: a flipped bit may leave sound JSON.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number without an end
        raise UsageError(f"{path} is damaged ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: an object was expected, not {type(value).__name__}")
    due = value.pop(CHECKSUM, None)
    if due is not None and due != checksum(value):
        raise UsageError(f"{path} is damaged: its content is not what its {CHECKSUM} says")
    return value


def checksum(value: dict[str, Any]) -> str:
    """SHA-256 of an object; "" for one that `write_json` cannot have written."""
    try:
        return digest(value, 64)
    except (ValueError, RecursionError):  # NaN, infinity, half a character; nested too deep
        return ""


def shown(text: str, most: int = 300) -> str:
    """What a message shows of a text from a file: its beginning, on one line, without controls."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def digest(value: Any, length: int = 12) -> str:
    """A short SHA-256 of a JSON-able value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A CSV file's text, with LF line ends."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        # Python quotes its own line end alone, and a reader takes a bare CR for one, too.
        has_end = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoted if has_end else plain).writerow(row)
    return text.getvalue()


def without_formulas(rows: Iterable[Sequence]) -> list[list]:
    """Rows for people's eyes: a text that a spreadsheet would run as a formula begins with '."""
    return [[f"'{c}" if isinstance(c, str) and FORMULA.match(c) else c for c in r] for r in rows]


def write_table(path: Path | None, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """`csv_text` written atomically; to standard output when `path` is None."""
    if path is None:
        sys.stdout.write(csv_text(header, rows))
    else:
        write_text(path, csv_text(header, rows))


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file of ours, by the names of its header; a byte order mark is passed over.

    Raises `UsageError` naming the line for an open quote, for a row of another length than the
    header, and for a header that lacks one of `columns`.
    """
    with open(path, encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        try:
            header = next(reader, [])
            rows = [dict(zip(header, row)) for row in reader if _fits(path, reader, header, row)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}, line {reader.line_num}: {error}") from None
    for name in columns:
        if name not in header:
            raise UsageError(f"{path} has no column {name!r}, but {shown(', '.join(header))}")
    return rows


def _fits(path: Path, reader: Any, header: list[str], row: list[str]) -> bool:
    """Whether a row is one; raises `UsageError` for one of another length than the header's."""
    if row and len(row) != len(header):
        cells = f"{len(row)} cells where the header has {len(header)}"
        raise UsageError(f"{path}, line {reader.line_num}: {cells}")
    return bool(row)


@contextlib.contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, which a kill of the process frees.

    While another process has it: raises `Busy(busy)`, or with `wait` says so and waits. filelock
    closes the lock in forked children, so a loader worker that outlives a killed run does not hold
    it.
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
