"""Files that a crash cannot leave half-written, and locks that a kill frees."""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.options import UsageError


class Busy(UsageError):
    """Another living process holds the lock."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; on success fsynced and renamed to `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left under temporary names; call it under the folder's lock."""
    for path in folder.glob(".*.tmp"):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
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


def write_json(path: Path, value: Any) -> None:
    """Writes `to_json(value)` atomically."""
    write_text(path, to_json(value))


def digest(value: Any, length: int = 12) -> str:
    """A short SHA-256 of a JSON-able value."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A CSV file's text, with LF line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_table(path: Path | None, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """`csv_text` written atomically; to standard output when `path` is None."""
    if path is None:
        sys.stdout.write(csv_text(header, rows))
    else:
        write_text(path, csv_text(header, rows))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by the names of its header; a byte order mark is passed over."""
    with open(path, encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle))


@contextlib.contextmanager
def locked(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, which a kill of the process frees.

    While another process has it: raises `Busy(busy)`, or with `wait` says so and waits. A record
    lock (lockf) and not flock: loader workers are forked, and a child that outlives its killed
    parent for some seconds would still hold an flock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if not wait:
                raise Busy(busy) from None
            print(f"note: {busy}; waiting", file=sys.stderr)
            fcntl.lockf(handle, fcntl.LOCK_EX)
        yield
