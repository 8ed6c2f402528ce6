"""What scans of raw trees share: walking them, and noting what cannot be used."""

import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets import DATASETS
from data_prep.spec import Candidate, Listed, Rejection, Scan


def walk(root: Path, skip: Collection[str] = ()) -> list[str]:
    """The files under `root`, without the folders `skip`, as sorted posix paths relative to it.

    A folder that several links lead to is listed once, a real one under its own name: links are
    followed last, so a loop of links ends.
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
                if is_ignored(entry.name) or path in skip:
                    continue
                link = entry.is_symlink()
                # DirEntry.is_dir raises for a link to itself; os.path.isdir returns False.
                if os.path.isdir(entry) if link else entry.is_dir():
                    (links if link else folders).append(path)
                else:
                    found.append(path)
    return sorted(found)


def bases(root: Path) -> list[str]:
    """Where a data set may lie: in the root ("") or in one of its folders."""
    return ["", *sorted(p.name for p in root.iterdir() if p.is_dir() and not is_ignored(p.name))]


def find_base(root: Path, what: str, is_base: Callable[[Path], bool], source: str) -> str:
    """The first of `bases` that `is_base` accepts; raises `UsageError` if there is none.

    `what` says what was looked for, and `source` what the root must hold.
    """
    for base in bases(root):
        if is_base(root / base):
            return base
    raise UsageError(f"{root} holds no {what}, nor does a folder in it. {source}")


def key_by_name(pattern: re.Pattern) -> Callable[[PurePosixPath], str | None]:
    """A key for `RawTree.index`: the first group of a pattern that must match a file's name."""

    def key(path: PurePosixPath) -> str | None:
        match = pattern.fullmatch(path.name)
        return match[1] if match else None

    return key


class RawTree:
    """A data set in the folder `root`/`base`, and what a scan of it rejects and warns of.

    All paths are relative to `root`, also those of candidates and rejections.
    """

    def __init__(self, root: Path, base: str = ""):
        self.root, self.base = root, base
        self.rejected: list[Rejection] = []
        self.warnings: list[str] = []

    def path(self, *parts: str) -> str:
        """A path below the base."""
        return str(PurePosixPath(self.base, *parts))

    def walk(self, folder: str = "") -> list[str]:
        """The files below a folder of the base, sorted."""
        return [self.path(folder, name) for name in walk(self.root / self.base / folder)]

    def reject(self, sample: str, source: str, reason: str, detail: str = "") -> None:
        """Notes a line of rejected.csv."""
        self.rejected.append(Rejection(sample, source, reason, detail))

    def reject_unknown(self, path: str, detail: str = "") -> None:
        """Rejects a file or folder that is no part of the data set."""
        self.reject(PurePosixPath(path).stem, path, "unknown_name", detail)

    def index(
        self, paths: Iterable[str], key: Callable[[PurePosixPath], str | None]
    ) -> dict[str, tuple[str, ...]]:
        """The files of each sample, by the sample that `key` finds in a path.

        Files for which it finds none are rejected. A second file of a sample is noted: it is read
        only if those before it do not decode.
        """
        found: dict[str, tuple[str, ...]] = {}
        for path in paths:
            sample = key(PurePosixPath(path))
            if sample is None:
                self.reject_unknown(path)
                continue
            earlier = found.get(sample, ())
            if earlier:
                self.reject(sample, path, "second_file", earlier[0])
            found[sample] = (*earlier, path)
        return found

    def reject_unlisted(self, files: dict[str, tuple[str, ...]], used: Collection[str]) -> None:
        """Rejects the samples of an index that no list names."""
        for sample, paths in files.items():
            if sample not in used:
                self.reject(sample, paths[0], "no_label", "no line of a list names it")

    def reject_beside(self, folder: str, is_known: Callable[[Path], bool]) -> None:
        """Rejects the files directly in a folder (relative to the root) that are not known."""
        for path in sorted((self.root / folder).iterdir()):
            if not path.is_dir() and not is_ignored(path.name) and not is_known(path):
                self.reject_unknown(str(PurePosixPath(folder, path.name)))

    def warn_of_count(self, dataset: str, found: int) -> None:
        """Warns if the number of samples is not the paper's: its results are on another set."""
        expected = DATASETS[dataset][1]
        if found != expected:
            self.warnings.append(f"{found} samples of {dataset} found; the paper has {expected}")

    def scan(
        self,
        labels: tuple[str, ...],
        candidates: Iterable[Candidate],
        pool: list[Listed] | None = None,
    ) -> Scan:
        """The result of the scan, with the candidates in the order of their ids."""
        ordered = sorted(candidates, key=lambda candidate: candidate.id)
        return Scan(labels, ordered, self.rejected, self.warnings, pool)
