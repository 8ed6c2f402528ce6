"""Shared code of scans: walks raw trees and records rejected files."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets import DATASETS
from data_prep.datasets.lists import MAX_BAD_LINES, TOO_MANY, Record, read_lines
from data_prep.spec import Candidate, Listed, Rejection, Scan

VAL_SHARE = 10  # one in 10 training groups of a class is in the val part of `add_val`
Index = dict[str, tuple[str, ...]]  # the files of each sample


def walk(root: Path, skip: Collection[str] = ()) -> list[str]:
    """The files under `root`, without the folders `skip`, as sorted posix paths relative to it.

    A folder with several links is listed once, under its real name if it is inside `root`: links
    are followed last, so link cycles terminate.
    """
    top, found, seen = os.fspath(root), [], set()
    starts = [top]
    for start in starts:
        for folder, inner, files in os.walk(start, onerror=_fail):
            status, prefix = os.stat(folder), f"{folder}/"[len(top) + 1 :]
            if (status.st_dev, status.st_ino) in seen:
                inner.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            inner[:] = sorted(n for n in inner if not is_ignored(n) and prefix + n not in skip)
            starts += [f"{folder}/{name}" for name in inner if os.path.islink(f"{folder}/{name}")]
            found += [prefix + name for name in files if not is_ignored(name)]
    return sorted(found)


def _fail(error: OSError) -> None:
    raise error


def names_in(folder: Path) -> list[str]:
    """The names in a folder except ignored ones, sorted."""
    return sorted(name for name in os.listdir(folder) if not is_ignored(name))


def bases(root: Path) -> list[str]:
    """Possible locations of a dataset: the root ("") or one of its folders."""
    return ["", *(name for name in names_in(root) if (root / name).is_dir())]


def find_base(root: Path, source: str, *needed: Sequence[str]) -> tuple[str, int]:
    """The first of `bases` that has all names of one of `needed`, and the index of that one.

    Raises `UsageError` if there is none; `source` describes what the root must contain.
    """
    for base in bases(root):
        for k, names in enumerate(needed):
            paths = [root / base / name for name in names]
            if all(path.is_file() or path.is_dir() for path in paths):  # a pipe is neither
                return base, k
    raise UsageError(f"neither {root} nor a folder in it has {', '.join(needed[0])}. {source}")


def by_name(pattern: re.Pattern[str]) -> Callable[[PurePosixPath], str | None]:
    """A key for `RawTree.index`: the first group of a pattern that must match the file name."""
    return lambda path: match[1] if (match := pattern.fullmatch(path.name)) else None


class RawTree:
    """A dataset in the folder `root`/`base`, with the candidates, rejects and warnings of a scan.

    All paths are relative to `root`, including those of candidates and rejections.
    """

    def __init__(self, root: Path, base: str = ""):
        self.root, self.base = root, base
        self.candidates: dict[str, Candidate] = {}
        self.rejected: list[Rejection] = []
        self.warnings: list[str] = []
        self.bad_lines = 0

    def path(self, *parts: str) -> str:
        """A path below the base."""
        return str(PurePosixPath(self.base, *parts))

    def walk(self, folder: str = "") -> list[str]:
        """The files below a folder of the base, sorted."""
        return [self.path(folder, name) for name in walk(self.root / self.base / folder)]

    def lines(self, source: str) -> Iterator[tuple[int, str]]:
        """(line number, text) of the non-blank lines of a list, numbered from 1."""
        numbered = enumerate(read_lines(self.root / source), 1)
        return ((number, line) for number, line in numbered if line.strip())

    def has_width(self, record: Record, width: int, source: str) -> bool:
        """Whether a csv row has `width` cells; notes what is wrong with it, if anything."""
        there, place = len(record.cells) == width, f"line {record.line}"
        if wrong := record.wrong(width):
            reason = "open_quote" if there else "bad_line"
            self.reject(place, source, reason, f"{place}: {wrong}")
        return there

    def reject(self, sample: str, source: str, reason: str, detail: str = "") -> None:
        """Adds a line to rejected.csv; raises `UsageError` if there are too many bad lines."""
        self.rejected.append(Rejection(sample, source, reason, detail))
        self.bad_lines += reason == "bad_line"
        if self.bad_lines > MAX_BAD_LINES:
            raise UsageError(f"{source} and others have more than {MAX_BAD_LINES} {TOO_MANY}")

    def take(self, candidate: Candidate, source: str, *checks: tuple[Any, str, str]) -> None:
        """Adds a candidate, or rejects it by the first applicable (condition, reason, detail).

        After these checks, an id that occurred before is rejected as a duplicate.
        """
        twice = (candidate.id in self.candidates, "duplicate", f"id {candidate.id!r}")
        for wrong, reason, detail in (*checks, twice):
            if wrong:
                return self.reject(candidate.id, source, reason, detail)
        self.candidates[candidate.id] = candidate

    def reject_unknown(self, path: str) -> None:
        """Rejects a file or folder that does not belong to the dataset."""
        self.reject(PurePosixPath(path).stem, path, "unknown_name")

    def index(self, paths: Iterable[str], key: Callable[[PurePosixPath], str | None]) -> Index:
        """The files of each sample; `key` returns the sample of a path, or None to reject it.

        Additional files of a sample are reported: they are only read if earlier ones do not decode.
        """
        found: Index = {}
        for path in paths:
            sample = key(PurePosixPath(path))
            if sample is None:
                self.reject_unknown(path)
                continue
            if earlier := found.get(sample, ()):
                self.reject(sample, path, "second_file", earlier[0])
            found[sample] = (*earlier, path)
        return found

    def reject_unlisted(self, files: Index, used: Collection[str]) -> None:
        """Rejects the samples of an index that no list names."""
        for sample, paths in files.items():
            if sample not in used:
                self.reject(sample, paths[0], "no_label", "no line of a list names it")

    def reject_beside(self, folder: str, known: Collection[str]) -> None:
        """Rejects the files directly in a folder (relative to the root) whose names are unknown."""
        for name in names_in(self.root / folder):
            if name not in known and not (self.root / folder / name).is_dir():
                self.reject_unknown(str(PurePosixPath(folder, name)))

    def add_val(self) -> None:
        """Adds a val part, which the raw data lack: a tenth of the train part of each class.

        Takes the groups (ids, if samples have none) with the smallest SHA-256, at least one of two,
        so no group is divided. Our choice: without a val part, the official test part could not be
        used.
        """
        train = [c for c in self.candidates.values() if c.part == "train"]
        classes, chosen = defaultdict(set), set[str]()
        for c in train:
            classes[c.label].add(c.group or c.id)
        for own in classes.values():
            groups = sorted(own, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
            chosen.update(groups[: -(-len(groups) // VAL_SHARE)] if len(groups) > 1 else ())
        for c in train:
            if (c.group or c.id) in chosen:
                self.candidates[c.id] = replace(c, part="val")

    def scan(
        self,
        labels: tuple[str, ...],
        dataset: str = "",
        pool: list[Listed] | None = None,
        count: int | None = None,
    ) -> Scan:
        """The result of the scan; warns if `count` (default: all) differs from the paper."""
        ordered = sorted(self.candidates.values(), key=lambda candidate: candidate.id)
        found, expected = count or len(ordered), DATASETS.get(dataset, ("", None))[1]
        if expected not in (None, found):
            self.warnings.append(f"{found} samples of {dataset} found; the paper has {expected}")
        return Scan(labels, ordered, self.rejected, self.warnings, pool)
