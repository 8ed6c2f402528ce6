"""What every layout needs of a raw tree: its files, and the rows of its lists."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from common.options import UsageError
from data_prep.layouts import DATASETS

MAX_LIST_BYTES = 1 << 28  # Kinetics-400's lists have 20 MB
IGNORED = ("Thumbs.db", "__MACOSX")  # as are names that begin with a dot


def is_ignored(name: str) -> bool:
    """Whether a file or folder is what an operating system leaves behind, or hidden."""
    return name.startswith(".") or name in IGNORED


def walk(root: Path) -> list[str]:
    """The files under `root` as sorted posix paths relative to it.

    A folder that several links lead to is listed once, a real one under its own name: links are
    followed after all that is not one, so no loop of links runs on.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [""], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(root / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if is_ignored(entry.name):
                    continue
                link = entry.is_symlink()
                # DirEntry raises for a link to itself, where os.path answers no.
                if os.path.isdir(entry) if link else entry.is_dir():
                    (links if link else folders).append(path)
                else:
                    found.append(path)
    return sorted(found)


def read_rows(path: Path, header: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The rows of a csv file by column name; the first line is the header unless one is given.

    A byte order mark, either line ending and quoted fields are understood; a field that a line
    lacks is "". Raises `UsageError` for a file that is not UTF-8 text, or of gigabytes.
    """
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UsageError(f"{path} is larger than {MAX_LIST_BYTES} bytes: no list of samples is")
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, fieldnames=header, restval="")
            return [{(key or "").strip(): value for key, value in row.items()} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a csv file in UTF-8: {error}") from None


def count_warnings(dataset: str, found: int) -> list[str]:
    """A line when the number of samples is not the paper's: its results are on another set then."""
    expected = DATASETS[dataset][1]
    if found == expected:
        return []
    return [f"{found} samples of {dataset} found; the paper has {expected}"]
