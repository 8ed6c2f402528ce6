"""What a raw tree holds, and what a scan or a preparation tells of it."""

import os
from pathlib import Path

from common.files import is_ignored, read_table
from data_prep.prepare import printable


def raw_files(root: Path) -> set[str]:
    """All that is no folder under `root`, hidden things left out, as printable relative paths."""
    found = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_ignored(name)]
        place = os.path.relpath(folder, root)
        found |= {os.path.normpath(f"{place}/{name}") for name in names if not is_ignored(name)}
    return {printable(path) for path in found}


def told_of(sources: list[str]) -> set[str]:
    """The paths that lines name: several divided by ";", which may also stand in a name."""
    return {path for source in sources for path in (source, *source.split(";"))}


def told_in(folder: Path) -> set[str]:
    """The paths that a prepared folder's manifest.csv and rejected.csv name."""
    sources = [row["sources"] for row in read_table(folder / "manifest.csv")]
    return told_of(sources + [row["source"] for row in read_table(folder / "rejected.csv")])


def hidden(paths: set[str]) -> set[str]:
    """Those of the paths that no scan may tell of."""
    return {path for path in paths if any(map(is_ignored, path.split("/")))}
