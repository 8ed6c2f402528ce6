"""What every layout needs of a raw tree: its files, and whether their number is the paper's."""

import os
from pathlib import Path

from common.files import is_ignored
from data_prep.datasets import DATASETS


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


def count_warnings(dataset: str, found: int) -> list[str]:
    """A line when the number of samples is not the paper's: its results are on another set then."""
    expected = DATASETS[dataset][1]
    if found == expected:
        return []
    return [f"{found} samples of {dataset} found; the paper has {expected}"]
