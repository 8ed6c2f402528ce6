"""SHA-256 of the shards: what meta.json notes of each, and when the files are held against it.

Hashing 12 GB takes a while, so a prepared folder remembers in .local.json the size, the time of the
last change and the inode of each file whose checksum was right. While these stay as they are,
opening the folder costs no more than a look at them; --verify reads everything. The same file names
the raw folder and the command that prepared it. It holds only what is true on this machine. It may
be deleted; a set that was prepared with --dataset_root then needs that flag again.
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
    """File name -> SHA-256; as many files at a time as there are cores, unless told otherwise.

    Threads do, for hashing does not hold Python's lock.
    """
    paths = list(paths)
    with ThreadPoolExecutor(workers or cores()) as pool:
        return dict(zip([path.name for path in paths], pool.map(file_digest, paths)))


def damaged(folder: Path, sums: dict[str, str]) -> list[str]:
    """The names of files that are there and have another SHA-256 than `sums` says."""
    there = [folder / name for name in sums if (folder / name).exists()]
    return [name for name, seen in digests(there).items() if seen != sums[name]]


def changed(folder: Path, sums: dict[str, str]) -> list[str]:
    """The names of the shards whose SHA-256 is not the one in `sums`.

    A shard whose size, time of change and inode are as remembered is not read again.
    """
    stamps = read_local(folder).get("checked")
    stamps = stamps if isinstance(stamps, dict) else {}
    suspects = {name: sums[name] for name in sums if _stamp(folder / name) != stamps.get(name)}
    wrong = damaged(folder, suspects)
    if suspects and not wrong:
        remember(folder, sums)
    return wrong


def remember(folder: Path, sums: dict[str, str]) -> None:
    """Notes that all shards are right as they are now."""
    note(folder, checked={name: _stamp(folder / name) for name in sums})


def note(folder: Path, **values: Any) -> None:
    """Adds values to .local.json; a folder that cannot be written does without."""
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
