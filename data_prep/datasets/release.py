"""Trees made for the official MIDAS release (commit d25b225), recognised by their names.

    cremad    AudioWAV/ visual_frames/             train_split.csv val.csv test.csv stat.csv
    ucf101    frames_rgb/ flows_u/ flows_v/        trainlist01_new.txt testlist01_new.txt
    food101   images/train/ images/test/           train.jsonl test.jsonl
    kinetics  videos/ audios/                      videos/train.txt videos/val.txt

What the release's loaders leave out is rejected. Class ids are ours. The split rule `release` draws
from all rows of the lists.
"""

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets.lists import UNREADABLE
from data_prep.datasets.tree import RawTree, bases, names_in
from data_prep.spec import Candidate, Listed, Scan


class Form(NamedTuple):
    """A dataset's tree. `download`: names of which its download has one or more.

    If one of these is there, a tree that is not whole is read as the download.
    """

    lists: tuple[str, ...]
    folders: tuple[str, ...]
    download: tuple[str, ...]


FORMS = {
    "cremad": Form(
        ("train_split.csv", "val.csv", "test.csv"), ("AudioWAV", "visual_frames"), ("VideoFlash",)
    ),
    "ucf101": Form(
        ("trainlist01_new.txt", "testlist01_new.txt"),
        ("frames_rgb", "flows_u", "flows_v"),
        ("UCF-101", "ucfTrainTestlist", "ApplyEyeMakeup"),
    ),
    "food101": Form(("train.jsonl", "test.jsonl"), ("images/train", "images/test"), ("texts",)),
    "kinetics": Form(
        ("videos/train.txt", "videos/val.txt"),
        ("videos", "audios"),
        ("train", "val", "annotations"),
    ),
}
# These folders are found in downloads or other trees as well: by themselves they identify nothing.
SHARED = ("AudioWAV", "images/train", "images/test", "videos", "audios")
UNREAD = ("stat.csv", "classInd.txt")  # the names of the classes


def find_release(root: Path, dataset: str, labels: tuple[str, ...]) -> "ReleaseTree | None":
    """The tree in `root` or one of its folders, if any; raises `UsageError` if it is not whole."""
    form, partial, download = FORMS[dataset], "", False
    needed = form.lists + form.folders
    for base in bases(root):
        there = [name for name in form.lists if os.path.isfile(root / base / name)]
        there += [name for name in form.folders if os.path.isdir(root / base / name)]
        if len(there) == len(needed):
            return ReleaseTree(root, base, dataset, labels)
        download |= any(os.path.isdir(root / base / name) for name in form.download)
        own, missing = [n for n in there if n not in SHARED], [n for n in needed if n not in there]
        if own and not partial:
            partial = (
                f"{root / base} holds {own[0]}, as trees of {dataset} made for the official MIDAS"
                f" code do, and lacks {', '.join(missing)}: such a tree must be whole"
            )
    if partial and not download:
        raise UsageError(partial)
    return None


class Row(NamedTuple):
    """A row of a list: `place` is its file and line, `key` its class as the list writes it.

    `header`: the release takes this row for a header and loses it.
    """

    source: str
    place: str
    part: str
    fields: list[str]
    key: str
    header: bool


class ReleaseTree(RawTree):
    """A tree for the official code: its rows become candidates one by one."""

    def __init__(self, root: Path, base: str, dataset: str, labels: tuple[str, ...]):
        super().__init__(root, base)
        self.dataset, self.labels, self.form = dataset, labels, FORMS[dataset]
        self.listed: list[tuple[str, Row]] = []
        self.places: dict[str, str] = {}  # sample -> the row that named it first

    def rows(
        self, split: Callable[[str], list[str]], columns: tuple[str, ...] = (), loses: bool = False
    ) -> Iterator[Row]:
        """The rows of all lists; lines that `split` does not divide into the columns are rejected.

        `columns` are those of lists without a header; one is "label". `loses`: the release loses
        the first line of each list. Raises `UsageError` for a list without the header it needs.
        """
        for name in self.form.lists:
            source, stem, header, first = self.path(name), Path(name).stem, list(columns), loses
            for number, line in self.lines(source):
                place, fields = f"{Path(name).name}, line {number}", split(line)
                if line == UNREADABLE:
                    self.reject(place, source, "bad_line", "not UTF-8, or longer than any row")
                    continue
                if not header:
                    header = fields
                    if "label" not in header or len(header) < 2:
                        break
                elif len(fields) == len(header) and fields[0] and fields[header.index("label")]:
                    part = next(p for p in ("train", "val", "test") if stem.startswith(p))
                    key = fields[header.index("label")]
                    yield Row(source, place, part, fields, key, first)
                else:
                    reason = "header_line" if first and not fields else "bad_line"
                    self.reject(place, source, reason, line[:80])
                first = False
            if "label" not in header or len(header) < 2:
                raise UsageError(
                    f"{self.root / source} does not begin with a header of 2 columns or more, one"
                    f" of them called label, but with {' '.join(header)[:80]!r}"
                )

    def add(
        self,
        row: Row,
        candidate: Candidate,
        *,
        name: str,
        word: str,
        fault: str = "",
        fewest: int = 0,
        conflict: str = "",
    ) -> None:
        """Takes the sample of a row into the pool and, if nothing is wrong, as a candidate.

        `name` is the sample's name in the list and `word` its class, which has the label -1 if it
        is none of ours. `fault` is the reason if the dataset has no such name, `fewest` the number
        of frames that there must be. `conflict` is noted of a sample that is kept.
        """
        sample, reason, detail = candidate.id, "", ""
        self.listed.append((sample, row))
        paths = [(m, path) for m, paths in candidate.sources.items() for path in paths]
        lacking = [path for m, path in paths if not self._is_there(m, path)]
        if sample in self.places:
            reason, detail = "duplicate", f"{self.places[sample]} was taken"
        elif _name_fault(name) or fault:
            reason, detail = _name_fault(name) or fault, name
        elif candidate.label < 0:
            reason, detail = "no_label", f"{word[:80]!r} is none of the {len(self.labels)} classes"
        elif lacking:
            reason, detail = "missing_file", f"no {', '.join(lacking)}"
        elif fewest and len(names_in(self.root / paths[-1][1])) < fewest:
            reason, detail = "few_frames", f"in {paths[-1][1]}"
        elif conflict:
            reason, detail = "label_conflict", f"list: {word}, {conflict}"
        self.places.setdefault(sample, row.place)
        if reason:
            self.reject(sample[:80], row.source, reason, f"{row.place}: {detail}"[:300])
        if reason in ("", "label_conflict"):
            self.candidates[sample] = candidate

    def _is_there(self, modality: str, path: str) -> bool:
        is_folder = os.path.isdir(self.root / path)
        if modality in ("video", "flow"):
            return is_folder
        # Anything but a folder passes for a file: a pipe is refused when it is read.
        return os.path.exists(self.root / path) and not is_folder

    def reject_others(self, folder: str, used: Collection[str], suffix: str = "") -> None:
        """Rejects each file, or without a suffix each folder of pictures, that no list names."""
        for name in names_in(self.root / self.path(folder)):
            path = self.path(folder, name)
            is_folder = os.path.isdir(self.root / path)
            if name not in used:
                is_sample = not is_folder and name.endswith(suffix) if suffix else is_folder
                stem = name if is_folder else PurePosixPath(name).stem
                reason = "no_label" if is_sample else "unknown_name"
                self.reject(stem, path, reason, "no list names it")

    def result(self) -> Scan:
        """All that was found, with what else is in the tree."""
        known = {PurePosixPath(name).parts[0] for name in self.form.lists + self.form.folders}
        for name in names_in(self.root / self.base):
            if name not in known and name not in UNREAD:
                self.reject_unknown(self.path(name))
        numbers = all(row.key.isdecimal() for _, row in self.listed)
        pool = [
            Listed(sample, int(row.key) if numbers else row.key[:80], row.header)
            for sample, row in self.listed
        ]
        where, count = self.root / self.base, sum(not row.header for row in pool)
        self.warnings.append(f"{where} is read as a tree made for the official MIDAS code")
        return self.scan(self.labels, self.dataset, pool, count)


def _name_fault(name: str) -> str:
    """Why a name in a list cannot be that of a file below its folder: a reason, or ""."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "outside_root"
    plain = name.isprintable() and str(path) == name and name != "."
    return "" if plain and not any(map(is_ignored, path.parts)) else "unknown_name"
