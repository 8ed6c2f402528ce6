"""Raw trees of empty files, and what a scan finds in them."""

from pathlib import Path

from data_prep import datasets
from data_prep.reasons import REASONS


def plant(root: Path, *files: str, lists: dict[str, str | bytes] | None = None) -> Path:
    """Creates empty files, and lists with content, below a root."""
    contents = dict.fromkeys(files, b"") | (lists or {})
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def scan(dataset: str, root: Path, **settings):
    """What the dataset finds below a root."""
    layout = datasets.load(dataset)
    found = layout.scan(root, layout.Settings(**settings))
    assert all(rejection.reason in REASONS for rejection in found.rejected)
    return found


def kept(found) -> dict[str, tuple[str, str]]:
    """Sample -> (class, part)."""
    return {c.id: (found.label_names[c.label], c.part) for c in found.candidates}


def rejects(found) -> list[tuple[str, str, str]]:
    """(sample, source, reason), sorted."""
    return sorted((r.id, r.source, r.reason) for r in found.rejected)


def reasons(found) -> dict[str, str]:
    """Source -> reason."""
    return {rejection.source: rejection.reason for rejection in found.rejected}
