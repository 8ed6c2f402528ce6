"""What a raw tree holds, and which of it a scan or a preparation names."""

import os
from pathlib import Path

from common.files import is_ignored
from data_prep.prepare import printable


def raw_files(root: Path) -> set[str]:
    """All that is no folder under `root`, hidden things left out, as printable relative paths."""
    found = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_ignored(name)]
        place = os.path.relpath(folder, root)
        found |= {os.path.normpath(f"{place}/{name}") for name in names if not is_ignored(name)}
    return {printable(path) for path in found}


def paths_in(sources: list[str]) -> set[str]:
    """The paths that sources name: several are divided by ";", which may also be in a name."""
    return {path for source in sources for path in (source, *source.split(";"))}


def hidden(paths: set[str]) -> set[str]:
    """Those of the paths that no scan may name."""
    return {path for path in paths if any(map(is_ignored, path.split("/")))}
