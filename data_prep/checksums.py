"""SHA-256 of prepared files: what meta.json notes of each, and when the files are checked.

Hashing 12 GB takes a while, so a prepared folder remembers in .local.json the size, time of change
and inode of each shard whose checksum was right: while these stay the same, opening the folder
reads no shard. The same file names the raw folder and the command that prepared it. It holds only
what is true on this machine, and may be deleted; a set that was prepared with --dataset_root then
needs that flag again.
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
    """File name -> SHA-256; `workers` files at a time (None: one a core), in threads."""
    paths = list(paths)
    with ThreadPoolExecutor(workers or cores()) as pool:
        return dict(zip([path.name for path in paths], pool.map(file_digest, paths)))


def changed(folder: Path, sums: dict[str, str]) -> list[str]:
    """The names of the shards whose SHA-256 is not the one in `sums`, missing ones left out.

    A shard whose size, time of change and inode are as remembered is not read again.
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
    """Notes that all shards are right as they are now."""
    note(folder, checked={name: _stamp(folder / name) for name in sums})


def note(folder: Path, **values: Any) -> None:
    """Adds values to .local.json, if the folder can be written."""
    with contextlib.suppress(OSError):
        write_json(folder / LOCAL, read_local(folder) | values)


def _stamp(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def read_local(folder: Path) -> dict[str, Any]:
    """The content of .local.json, {} if it is missing or damaged."""
    try:
        value = read_object(folder / LOCAL)
        to_json(value).encode()  # what cannot be written again is damaged, too
        return value
    except (OSError, ValueError, RecursionError):
        return {}
