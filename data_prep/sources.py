"""Detects changed raw data, and gives the command that prepares a dataset again.

The candidates' hash in meta.json is valid on every machine. The stamp in .local.json avoids reading
the files again if their metadata is unchanged.
"""

import functools
import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from common.files import canonical, read_columns
from common.options import UsageError, format_value
from data_prep import datasets
from data_prep.checksums import read_local
from data_prep.spec import SEPARATOR, Candidate, Scan

BLOCK = 4096  # bytes


def stamp(root: Path, candidates: list[Candidate]) -> str:
    """As `candidates_hash`, but from file sizes, mtimes and inodes instead of content."""
    return candidates_hash(root, candidates, _facts)


def files_stamp(root: Path, folder: Path, sources: Iterable[str]) -> str:
    """A stamp of the files that a manifest names, without reading the manifest; "" if in doubt.

    `sources`: those of the samples in `folder`, as stored. It is in doubt if a file is missing, as
    the manifest may name others in its place.
    """
    text, seen = hashlib.sha256(str(root.resolve()).encode()), set(sources)
    for source, reason in read_columns(folder / "rejected.csv", ("source", "reason")):
        if reason == "missing_file":
            return ""
        if (root / source).exists():
            seen.add(source)
    for source in sorted(seen):
        for path in source.split(SEPARATOR):
            try:
                facts = _facts(root / path)
            except OSError:
                return ""
            text.update(f"{path}{facts}".encode())
    return text.hexdigest()[:12]


def _facts(path: Path) -> list[int]:
    """Size, mtime and inode; of a folder, also those of its first, middle and last file.

    A folder's own do not change if its frames are extracted again over the former ones.
    """
    status = path.stat()
    facts = [status.st_size, status.st_mtime_ns, status.st_ino]
    if stat.S_ISDIR(status.st_mode) and (names := sorted(os.listdir(path))):
        for name in (names[0], names[len(names) // 2], names[-1]):
            inner = os.stat(path / name, follow_symlinks=False)
            facts += [inner.st_size, inner.st_mtime_ns, inner.st_ino]
    return facts


def candidates_hash(
    root: Path, candidates: list[Candidate], look: Callable[[Path], Any] | None = None
) -> str:
    """A hash of the candidates and of `look(path)` (default `sample`) for each of their files."""
    text = hashlib.sha256()  # updated row by row: a manifest may have a million
    look = functools.lru_cache(64)(look or sample)  # one file may contain all samples
    for c in candidates:
        seen = []
        for path in dict.fromkeys(path for paths in c.sources.values() for path in paths):
            try:
                seen.append(look(root / path))
            except OSError:
                seen.append(None)
        entry = {field.name: getattr(c, field.name) for field in fields(c)}
        text.update(canonical([entry, seen]).encode())
    return text.hexdigest()[:12]


def sample(path: Path) -> list:
    """The size of a file and the SHA-256 of its first, middle and last 4 KiB.

    For a folder, the names and sizes of its files.
    """
    if path.is_dir():
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        return [[entry.name, entry.stat().st_size] for entry in entries]
    size, text = path.stat().st_size, hashlib.sha256()
    if path.is_file():  # reading a pipe would block
        with open(path, "rb") as handle:
            for start in (0, (size - BLOCK) // 2, size - BLOCK):
                handle.seek(max(0, start))
                text.update(handle.read(BLOCK))
    return [size, text.hexdigest()]


def check_same_candidates(folder: Path, before: dict, now: dict, command: str) -> None:
    """Raises `UsageError` if the raw files differ from those that a folder was prepared from."""
    then, today = (
        f"{meta.get('candidates')} candidates (hash {meta.get('candidates_hash')})"
        for meta in (before, now)
    )
    if before and then != today:
        root = read_local(folder).get("root", "an unknown root")
        raise UsageError(
            f"{folder} was prepared from other files: {then} in {root} then, {today} now. Restore"
            " the former files, use another --data_dir, or prepare the dataset again:"
            f" rm -r {shlex.quote(str(folder))} && {command}"
        )


def source_of(scan: Scan, root: Path) -> dict[str, Any]:
    """The entries of meta.json that describe the raw data."""
    return {
        "candidates": len(scan.candidates),
        "candidates_hash": candidates_hash(root, scan.candidates),
    }


def prepare_command(
    dataset: str, root: Path | None, data_dir: Path, settings: Any, allow_missing_classes: bool
) -> str:
    """The shell command that prepares a dataset, with absolute paths."""
    source = str(Path(dataset).resolve()) if datasets.is_manifest(dataset) else dataset
    words = ["python", "-m", "data_prep", "--dataset", source]
    words += ["--dataset_root", str(root.resolve())] if root else []
    words += ["--data_dir", str(data_dir.resolve())]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            words += [f"--{field.name}", format_value(value)]
    return shlex.join(words + ["--allow_missing_classes"] * allow_missing_classes)
