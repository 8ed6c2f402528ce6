"""Compares the entries of a raw tree with what a scan or a preparation reports."""

import os
from pathlib import Path

from common.files import is_ignored
from data_prep.prepare import printable


def raw_files(root: Path) -> set[str]:
    """All non-folders under `root` except hidden ones, as printable relative paths."""
    found = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_ignored(name)]
        place = os.path.relpath(folder, root)
        found |= {os.path.normpath(f"{place}/{name}") for name in names if not is_ignored(name)}
    return {printable(path) for path in found}


def paths_in(sources: list[str]) -> set[str]:
    """The paths named by sources: several are separated by ";", which may also occur in a name."""
    return {path for source in sources for path in (source, *source.split(";"))}


def hidden(paths: set[str]) -> set[str]:
    """The paths that no scan may name."""
    return {path for path in paths if any(map(is_ignored, path.split("/")))}
