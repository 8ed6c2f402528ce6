"""Trees made for the official MIDAS release (commit d25b225): their names, and their lists.

    cremad    AudioWAV/ visual_frames/             train_split.csv val.csv test.csv stat.csv
    ucf101    frames_rgb/ flows_u/ flows_v/        trainlist01_new.txt testlist01_new.txt
    food101   images/train/ images/test/           train.jsonl test.jsonl
    kinetics  videos/ audios/                      videos/train.txt videos/val.txt

Such a tree is recognised by these names, and each data set's `scan_release` reads it. What the
release's loaders leave out is rejected with a reason, and so is what our own rules refuse, such as
a kinetics clip of fewer than three frames. Class ids are ours. The split rule `release` draws from
all rows of the lists.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets.lists import csv_fields, read_lines
from data_prep.datasets.tree import RawTree, bases
from data_prep.spec import Candidate, Listed, Scan

SHOWN = 80  # characters of a list's words in a message
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can write and UTF-8 cannot


@dataclass(frozen=True)
class Names:
    """The names in a data set's tree; `classes` is a list of class names, which may be absent.

    `download`: names of which at least one is in the data set's own download. If one of them is
    there, a tree that is not whole is read as the download.
    """

    lists: tuple[str, ...]
    folders: tuple[str, ...]
    download: tuple[str, ...]
    classes: str = ""

    @property
    def needed(self) -> tuple[str, ...]:
        """All that a whole tree has."""
        return self.lists + self.folders


TREES = {
    "cremad": Names(
        ("train_split.csv", "val.csv", "test.csv"),
        ("AudioWAV", "visual_frames"),
        ("VideoFlash",),
        "stat.csv",
    ),
    "ucf101": Names(
        ("trainlist01_new.txt", "testlist01_new.txt"),
        ("frames_rgb", "flows_u", "flows_v"),
        ("UCF-101", "ucfTrainTestlist", "ApplyEyeMakeup"),
        "classInd.txt",
    ),
    "food101": Names(("train.jsonl", "test.jsonl"), ("images/train", "images/test"), ("texts",)),
    "kinetics": Names(
        ("videos/train.txt", "videos/val.txt"),
        ("videos", "audios"),
        ("train", "val", "annotations"),
    ),
}
# These folders are found in downloads or other trees as well: by themselves they identify nothing.
SHARED = ("AudioWAV", "images/train", "images/test", "videos", "audios")


def find_release(root: Path, dataset: str, labels: tuple[str, ...]) -> "ReleaseTree | None":
    """The tree in `root` or one of its folders; None if there is none.

    Raises `UsageError` for a tree that lacks a list or a folder.
    """
    names, partial, download = TREES[dataset], {}, False
    for base in bases(root):
        there = [name for name in names.lists if os.path.isfile(root / base / name)]
        there += [name for name in names.folders if os.path.isdir(root / base / name)]
        if len(there) == len(names.needed):
            return ReleaseTree(root, base, dataset, labels)
        download |= any(os.path.isdir(root / base / name) for name in names.download)
        if own := [name for name in there if name not in SHARED]:
            partial[base] = own[0], [name for name in names.needed if name not in there]
    if partial and not download:
        base, (own, missing) = next(iter(partial.items()))
        raise UsageError(
            f"{root / base} holds {own}, as trees of {dataset} made for the official MIDAS code"
            f" do, and lacks {', '.join(missing)}: such a tree must be whole"
        )
    return None


def name_fault(name: str) -> str:
    """Why a name that a list gives can be no file's below its folder: a reason, or ""."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "outside_root"
    plain = name.isprintable() and str(path) == name and name != "."
    return "" if plain and not any(map(is_ignored, path.parts)) else "unknown_name"


class Row(NamedTuple):
    """A row of a list: `place` is its file and line, `key` its class as the list writes it.

    `header`: the release takes this row for a header and loses it.
    """

    source: str
    place: str
    fields: list[str]
    key: str
    header: bool = False


class ReleaseTree(RawTree):
    """A tree for the official code: its rows become candidates one by one."""

    def __init__(self, root: Path, base: str, dataset: str, labels: tuple[str, ...]):
        super().__init__(root, base)
        self.dataset, self.labels = dataset, labels
        self.candidates: list[Candidate] = []
        self.pool: list[Listed] = []
        self._places: dict[str, str] = {}  # sample -> the row that named it first

    def names(self, folder: str) -> list[str]:
        """The names in a folder of the tree, sorted."""
        return sorted(n for n in os.listdir(self.root / self.path(folder)) if not is_ignored(n))

    # Lists

    def lines(self, name: str) -> Iterator[tuple[str, str, str]]:
        """(source, place, text) of each line of a list that is not blank and can be read."""
        source = self.path(name)
        for number, line in read_lines(self.root / source):
            place = f"{PurePosixPath(name).name}, line {number}"
            if line is None:
                self.reject(place, source, "bad_line", "not UTF-8, or longer than any row")
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
                label = header.index("label")
            elif len(fields) != len(header) or not (fields[0] and fields[label]):
                self.reject(place, source, "bad_line", line[:SHOWN])
            else:
                yield Row(source, place, fields, fields[label])
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
                self.reject(place, source, "bad_line", line[:SHOWN])
                continue
            img, text, label = (SURROGATE.sub("\ufffd", word) for word in words)
            yield Row(source, place, [img, text], label)

    def check_classes(self, name: str, column: int, classes: Collection[str]) -> None:
        """Rejects the lines of a list of classes, if there is one, that name another set's."""
        if not os.path.isfile(self.root / self.path(name)):
            return
        known = {word.casefold() for word in classes}
        for source, place, line in self.lines(name):
            fields = csv_fields(line) if name.endswith(".csv") else line.split()
            if not fields or fields[column].casefold() not in known:
                self.reject(place, source, "no_label", f"{place}: a class of another set")

    # Rows

    def refuse(self, sample: str, row: Row, reason: str, detail: str = "") -> None:
        """Rejects a row, or notes what is odd about it."""
        text = f"{row.place}: {detail}" if detail else row.place
        self.reject(sample[:SHOWN], row.source, reason, text[:300])

    def add(
        self,
        row: Row,
        candidate: Candidate,
        *,
        name: str,
        unknown_class: str = "",
        fault: str = "",
        files: Collection[str] = (),
        folders: Collection[str] = (),
        fewest: int = 0,
        conflict: str = "",
    ) -> None:
        """Takes the sample of a row into the pool and, if nothing is wrong, as a candidate.

        `name` is the sample's name in the list; `fault` is the reason if the data set has no such
        name, `unknown_class` the list's word for a class that has no label. `files` and `folders`
        must be there, the latter with `fewest` names in them. `conflict` is noted of a sample that
        is kept.
        """
        sample = candidate.id
        self.pool.append(Listed(sample, row.key[:SHOWN], row.header))
        if sample in self._places:
            self.refuse(sample, row, "duplicate", f"{self._places[sample]} was taken")
            return
        self._places[sample] = row.place
        if reason := name_fault(name) or fault:
            self.refuse(sample, row, reason, name[:SHOWN])
        elif unknown_class:
            what = f"{unknown_class[:SHOWN]!r} is none of the {len(self.labels)} classes"
            self.refuse(sample, row, "no_label", what)
        elif lacking := self._lacking(files, folders):
            self.refuse(sample, row, "missing_file", f"no {', '.join(lacking)}")
        elif few := self._too_few(folders, fewest):
            self.refuse(sample, row, "few_frames", few)
        else:
            if conflict:
                self.refuse(sample, row, "label_conflict", conflict)
            self.candidates.append(candidate)

    def _lacking(self, files: Collection[str], folders: Collection[str]) -> list[str]:
        # Something else than a folder passes for a file here: a pipe is refused when it is read.
        there = [self.root / path for path in files]
        lacking = [f for f, p in zip(files, there) if not os.path.exists(p) or os.path.isdir(p)]
        return lacking + [path for path in folders if not os.path.isdir(self.root / path)]

    def _too_few(self, folders: Collection[str], fewest: int) -> str:
        for folder in folders if fewest else ():
            count = sum(not is_ignored(name) for name in os.listdir(self.root / folder))
            if count < fewest:
                return f"{count} in {folder}"
        return ""

    # What no list names, and the result

    def reject_others(self, folder: str, used: Collection[str], suffix: str = "") -> None:
        """Rejects each file, or without a suffix each folder of pictures, that no list names."""
        for name in self.names(folder):
            if name in used:
                continue
            path = self.path(folder, name)
            is_folder = os.path.isdir(self.root / path)
            detail = "no list names it"
            if is_folder:
                detail += f": {len(os.listdir(self.root / path))} files"
            is_sample = not is_folder and name.endswith(suffix) if suffix else is_folder
            stem = name if is_folder else PurePosixPath(name).stem
            self.reject(stem, path, "no_label" if is_sample else "unknown_name", detail)

    def result(self) -> Scan:
        """All that was found, with what else is in the tree."""
        names = TREES[self.dataset]
        known = {PurePosixPath(name).parts[0] for name in names.needed} | {names.classes}
        for name in self.names(""):
            if name not in known:
                what = "no part of a tree made for the official code"
                self.reject_unknown(self.path(name), what)
        if all(row.key.isdecimal() for row in self.pool):
            self.pool = [Listed(row.id, int(row.key), row.header) for row in self.pool]
        where = self.root / self.base
        self.warnings.append(f"{where} is read as a tree made for the official MIDAS code")
        self.warn_of_count(self.dataset, sum(not row.header for row in self.pool))
        return self.scan(self.labels, self.candidates, self.pool)
