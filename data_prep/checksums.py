"""SHA-256 checksums of prepared files: recorded in meta.json, checked when a folder is opened.

Hashing 12 GB takes a while. So .local.json in the prepared folder records the size, mtime and inode
of each shard whose checksum was correct, and a shard is only hashed again if one of them changes.
The same file records the raw folder and the command that prepared it. Its content applies to this
machine only. It can be deleted, but a dataset that was prepared with --dataset_root then needs that
flag again.
"""

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common.files import file_digest, read_object, to_json, write_json
from common.program import cores

LOCAL = ".local.json"


def digests(paths: Iterable[Path], workers: int | None = None) -> dict[str, str]:
    """File name -> SHA-256, computed in `workers` threads (None: one per core)."""
    paths = list(paths)
    with ThreadPoolExecutor(workers or cores()) as pool:
        return dict(zip([path.name for path in paths], pool.map(file_digest, paths)))


def changed(folder: Path, sums: dict[str, str]) -> list[str]:
    """The names of the existing shards whose SHA-256 differs from the one in `sums`.

    A shard whose size, mtime and inode match the record in .local.json is not read again.
    """
    stamps = read_local(folder).get("checked")
    stamps = stamps if isinstance(stamps, dict) else {}
    suspects = [folder / name for name in sums if _stamp(folder / name) != stamps.get(name)]
    found = digests(path for path in suspects if path.exists())
    wrong = [name for name, seen in found.items() if seen != sums[name]]
    if suspects and not wrong:
        remember(folder, sums)
    return wrong


def remember(folder: Path, sums: dict[str, str]) -> None:
    """Records the current state of all shards as verified."""
    note(folder, checked={name: _stamp(folder / name) for name in sums})


def note(folder: Path, **values: Any) -> None:
    """Adds values to .local.json if the folder is writable."""
    with contextlib.suppress(OSError):
        write_json(folder / LOCAL, read_local(folder) | values)


def _stamp(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def read_local(folder: Path) -> dict[str, Any]:
    """The content of .local.json, or {} if it is missing or damaged."""
    try:
        value = read_object(folder / LOCAL)
        to_json(value).encode()  # treat content that cannot be rewritten as damaged too
        return value
    except (OSError, ValueError, RecursionError):
        return {}
