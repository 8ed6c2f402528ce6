"""Trees made for the official MIDAS release (commit d25b225): their names, and their lists.

    cremad    AudioWAV/ visual_frames/             train_split.csv val.csv test.csv stat.csv
    ucf101    frames_rgb/ flows_u/ flows_v/        trainlist01_new.txt testlist01_new.txt
    food101   images/train/ images/test/           train.jsonl test.jsonl
    kinetics  videos/ audios/                      videos/train.txt videos/val.txt

Such a tree is recognised by these names. `Reading` gathers what its lists say of each sample.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets.lines import bases, read_lines
from data_prep.datasets.walk import count_warnings
from data_prep.spec import Candidate, Listed, Rejection, Scan

SHOWN = 80  # characters of a list's words in a message
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can write and UTF-8 cannot


class Tree(NamedTuple):
    """What a data set's tree holds; `classes` is a list of class names, which may be absent.

    `download`: names of which at least one stands in the data set's own download. Where one of them
    is there, a tree that is not whole is read as the download.
    """

    lists: tuple[str, ...]
    folders: tuple[str, ...]
    download: tuple[str, ...]
    classes: str = ""


TREES = {
    "cremad": Tree(
        ("train_split.csv", "val.csv", "test.csv"),
        ("AudioWAV", "visual_frames"),
        ("VideoFlash",),
        "stat.csv",
    ),
    "ucf101": Tree(
        ("trainlist01_new.txt", "testlist01_new.txt"),
        ("frames_rgb", "flows_u", "flows_v"),
        ("UCF-101", "ucfTrainTestlist", "ApplyEyeMakeup"),
        "classInd.txt",
    ),
    "food101": Tree(("train.jsonl", "test.jsonl"), ("images/train", "images/test"), ("texts",)),
    "kinetics": Tree(
        ("videos/train.txt", "videos/val.txt"),
        ("videos", "audios"),
        ("train", "val", "annotations"),
    ),
}
# These folders stand in downloads or other trees as well: by themselves they identify nothing.
SHARED = ("AudioWAV", "images/train", "images/test", "videos", "audios")


def find(root: Path, dataset: str) -> str | None:
    """Where under `root` such a tree stands: "" or a folder's name; None where none does.

    Raises `UsageError` for one that lacks a list or a folder.
    """
    tree, parts, download = TREES[dataset], {}, False
    for base in bases(root):
        there = [name for name in tree.lists if os.path.isfile(root / base / name)]
        there += [name for name in tree.folders if os.path.isdir(root / base / name)]
        if len(there) == len(tree.lists + tree.folders):
            return base
        telling = [name for name in there if name not in SHARED]
        download |= any(os.path.isdir(root / base / name) for name in tree.download)
        if telling:
            parts[base] = telling[0], [n for n in tree.lists + tree.folders if n not in there]
    for base, (telling, missing) in () if download else parts.items():
        raise UsageError(
            f"{root / base} holds {telling}, as trees of {dataset} made for the official MIDAS code"
            f" do, and lacks {', '.join(missing)}: such a tree must be whole"
        )
    return None


def release_scan(root: Path, dataset: str) -> Scan | None:
    """The samples of such a tree; None where the root holds none. Raises `UsageError`."""
    base = find(root, dataset)
    if base is None:
        return None
    from data_prep.datasets import release_trees  # not above: it takes the layouts, which call this

    return getattr(release_trees, f"scan_{dataset}")(Reading(root, base))


def name_fault(name: str) -> str:
    """Why a name that a list gives can be no file's below its folder: a reason, or ""."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "outside_root"
    plain = name.isprintable() and str(path) == name and name != "."
    return "" if plain and not any(map(is_ignored, path.parts)) else "unknown_name"


def csv_fields(line: str) -> list[str]:
    """The fields of a line of csv, which a quote that is not closed does not go beyond."""
    try:
        return [value.strip() for value in next(csv.reader([line]), [])]
    except csv.Error:
        return []


class Row(NamedTuple):
    """A row of a list: `place` says where it stands, `key` is its class as written there."""

    source: str
    place: str
    fields: list[str]
    key: str


@dataclass
class Reading:
    """What is found while the lists of a tree are gone through."""

    root: Path
    base: str
    seen: dict[str, str] = field(default_factory=dict)  # sample -> where it was named first
    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    pool: list[Listed] = field(default_factory=list)

    def path(self, *parts: str) -> str:
        """A path of the tree, relative to the root."""
        return str(PurePosixPath(self.base, *parts))

    def exists(self, path: str) -> bool:
        """Whether something that is no folder stands there; a pipe is told when it is read."""
        place = self.root / path
        return os.path.exists(place) and not os.path.isdir(place)

    def names(self, folder: str) -> list[str]:
        """The names in a folder of the tree, sorted."""
        return sorted(n for n in os.listdir(self.root / self.path(folder)) if not is_ignored(n))

    def lines(self, name: str) -> Iterator[tuple[str, str, str]]:
        """(source, place, text) of each line of a list that is not blank and can be read."""
        source = self.path(name)
        for number, line in read_lines(self.root / source):
            place = f"{PurePosixPath(name).name}, line {number}"
            if line is None:
                what = "not UTF-8, or longer than any row"
                self.rejected.append(Rejection(place, source, "bad_line", what))
            elif line.strip():
                yield source, place, line

    def rows(self, name: str, split: Callable[[str], list[str]], columns: int) -> Iterator[Row]:
        """The rows below a header that names a column `label`; raises `UsageError` without one."""
        header: list[str] = []
        for source, place, line in self.lines(name):
            fields = split(line)
            if not header:
                header = fields
                if "label" not in header or len(header) < columns:
                    break
                number = header.index("label")
            elif len(fields) != len(header) or not all(fields[k] for k in (0, number)):
                self.bad_line(source, place, line)
            else:
                yield Row(source, place, fields, fields[number])
        if "label" not in header or len(header) < columns:
            raise UsageError(
                f"{self.root / self.path(name)} does not begin with a header of {columns} columns"
                f" or more, one of them called label, but with {' '.join(header)[:SHOWN]!r}"
            )

    def objects(self, name: str) -> Iterator[Row]:
        """The objects of a list of JSON lines with `img`, `text` and `label`."""
        for source, place, line in self.lines(name):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            value = value if isinstance(value, dict) else {}
            words = [value.get(key) for key in ("img", "text", "label")]
            if type(words[2]) is int:
                words[2] = str(words[2])
            if not all(isinstance(word, str) for word in words) or not (words[0] and words[2]):
                self.bad_line(source, place, line)
                continue
            img, text, label = (SURROGATE.sub("\ufffd", word) for word in words)
            yield Row(source, place, [img, text], label)

    def bad_line(self, source: str, place: str, line: str) -> None:
        """Refuses a line of another form than the list's."""
        self.rejected.append(Rejection(place, source, "bad_line", line[:SHOWN]))

    def refuse(self, sample: str, row: Row, reason: str, detail: str = "") -> None:
        """Refuses a row, or notes what is odd about it."""
        text = f"{row.place}: {detail}" if detail else row.place
        self.rejected.append(Rejection(sample[:SHOWN], row.source, reason, text[:300]))

    def first(self, sample: str, row: Row, header: bool = False) -> bool:
        """Takes a row into the pool; whether no other has named its sample, which is told."""
        self.pool.append(Listed(sample, row.key[:SHOWN], header))
        if sample not in self.seen:
            self.seen[sample] = row.place
            return True
        self.refuse(sample, row, "duplicate", f"{self.seen[sample]} was taken")
        return False

    def tell_others(self, folder: str, used: set[str], suffix: str = "") -> None:
        """A line for each file, or folder of pictures (no suffix), that no list names."""
        for name in self.names(folder):
            path = self.path(folder, name)
            if name in used:
                continue
            inside = os.path.isdir(self.root / path)
            fits = not inside and name.endswith(suffix) if suffix else inside
            detail = "no list names it"
            if inside:
                detail += f": {len(os.listdir(self.root / path))} files"
            stem = name if inside else PurePosixPath(name).stem
            reason = "no_label" if fits else "unknown_name"
            self.rejected.append(Rejection(stem, path, reason, detail))

    def scan(self, dataset: str, labels: tuple[str, ...]) -> Scan:
        """All that was found, with what else stands in the tree."""
        tree = TREES[dataset]
        known = {PurePosixPath(name).parts[0] for name in (*tree.lists, *tree.folders)}
        for name in self.names(""):
            if name not in known | {tree.classes}:
                what = "no part of a tree made for the official code"
                path = self.path(name)
                self.rejected.append(
                    Rejection(PurePosixPath(name).stem, path, "unknown_name", what)
                )
        whole = all(row.key.isdecimal() for row in self.pool)
        pool = [Listed(r.id, int(r.key) if whole else r.key, r.header) for r in self.pool]
        where = self.root / self.base
        warnings = [f"{where} is read as a tree made for the official MIDAS code"]
        warnings += count_warnings(dataset, sum(not row.header for row in pool))
        self.candidates.sort(key=lambda candidate: candidate.id)
        return Scan(labels, self.candidates, self.rejected, warnings, pool)
