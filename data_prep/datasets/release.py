"""Trees made for the official MIDAS release (commit d25b225), recognised by file names.

    cremad    AudioWAV/ visual_frames/             train_split.csv val.csv test.csv stat.csv
    ucf101    frames_rgb/ flows_u/ flows_v/        trainlist01_new.txt testlist01_new.txt
    food101   images/train/ images/test/           train.jsonl test.jsonl
    kinetics  videos/ audios/                      videos/train.txt videos/val.txt

Samples that the release's loaders leave out are rejected. Class ids are ours. The split rule
`release` draws from all rows of the lists. Trees in MMBT's layout are read in the same way
(`jsonl.mmbt`).
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
    """The tree of a dataset. `download`: folders (with *) that are in other trees of it.

    If one of these exists, an incomplete tree is read as another one. `shared`: names that also
    occur in other trees, so they alone identify nothing. `unread`: names of other files.
    """

    lists: tuple[str, ...]
    folders: tuple[str, ...]
    download: tuple[str, ...]
    shared: tuple[str, ...] = ("AudioWAV", "images/train", "images/test", "videos", "audios")
    unread: tuple[str, ...] = ("stat.csv", "classInd.txt")  # the names of the classes
    made: str = "made for the official MIDAS code"


FORMS = {
    "cremad": Form(
        ("train_split.csv", "val.csv", "test.csv"),
        ("AudioWAV", "visual_frames"),
        ("VideoFlash", "Image-*-FPS", "visual"),
    ),
    "ucf101": Form(
        ("trainlist01_new.txt", "testlist01_new.txt"),
        ("frames_rgb", "flows_u", "flows_v"),
        ("UCF-101", "ucfTrainTestlist", "ApplyEyeMakeup"),
    ),
    "food101": Form(
        ("train.jsonl", "test.jsonl"), ("images/train", "images/test"), ("texts", "texts_txt")
    ),
    "kinetics": Form(
        ("videos/train.txt", "videos/val.txt"),
        ("videos", "audios"),
        ("train", "val", "annotations"),
    ),
}
PARTS = {"train": "train", "val": "val", "dev": "val", "test": "test"}  # start of a list's name


def find_release(
    root: Path, dataset: str, labels: tuple[str, ...], form: Form | None = None
) -> "ReleaseTree | None":
    """The tree in `root` or one of its folders, if any; raises `UsageError` if incomplete.

    `form`: that of the release by default.
    """
    form, partial, download = form or FORMS[dataset], "", False
    needed = form.lists + form.folders
    for base in bases(root):
        there = [name for name in form.lists if os.path.isfile(root / base / name)]
        there += [name for name in form.folders if os.path.isdir(root / base / name)]
        if len(there) == len(needed):
            return ReleaseTree(root, base, dataset, labels, form)
        places = (place for name in form.download for place in (root / base).glob(name))
        download |= any(map(os.path.isdir, places))
        own = [n for n in there if n not in form.shared]
        missing = [n for n in needed if n not in there]
        if own and not partial:
            partial = (
                f"{root / base} has {own[0]}, like trees of {dataset} {form.made},"
                f" but lacks {', '.join(missing)}: such a tree must be complete"
            )
    if partial and not download:
        raise UsageError(partial)
    return None


class Row(NamedTuple):
    """A row of a list: `place` is its file and line, `key` its class as written in the list.

    `header`: the release treats this row as a header and loses it.
    """

    source: str
    place: str
    part: str
    fields: list[str]
    key: str
    header: bool


class ReleaseTree(RawTree):
    """A tree of a `Form`."""

    def __init__(self, root: Path, base: str, dataset: str, labels: tuple[str, ...], form: Form):
        super().__init__(root, base)
        self.dataset, self.labels, self.form = dataset, labels, form
        self.listed: list[tuple[str, Row]] = []
        self.places: dict[str, str] = {}  # sample -> the row that named it first

    def rows(
        self, split: Callable[[str], list[str]], columns: tuple[str, ...] = (), loses: bool = False
    ) -> Iterator[Row]:
        """The rows of all lists; lines that `split` cannot divide into the columns are rejected.

        `columns`: for lists without a header, must include "label". `loses`: the release loses the
        first line of each list. Raises `UsageError` if a list lacks a required header.
        """
        for name in self.form.lists:
            source, stem, header, first = self.path(name), Path(name).stem, list(columns), loses
            for number, line in self.lines(source):
                place, fields = f"{Path(name).name}, line {number}", split(line)
                if line == UNREADABLE:
                    self.reject(place, source, "bad_line", "not UTF-8, or too long for a row")
                    continue
                if not header:
                    header = fields
                    if "label" not in header or len(header) < 2:
                        break
                elif len(fields) == len(header) and fields[0] and fields[header.index("label")]:
                    part = next(part for start, part in PARTS.items() if stem.startswith(start))
                    key = fields[header.index("label")]
                    yield Row(source, place, part, fields, key, first)
                else:
                    reason = "header_line" if first and not fields else "bad_line"
                    self.reject(place, source, reason, line[:80])
                first = False
            if "label" not in header or len(header) < 2:
                raise UsageError(
                    f"{self.root / source} must begin with a header of at least 2 columns, one of"
                    f" them label, but begins with {' '.join(header)[:80]!r}"
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
        """Adds the sample of a row to the pool and, if nothing is wrong, to the candidates.

        `name` is the sample's name in the list and `word` its class; an unknown class has the label
        -1. `fault` is the reason if the name is invalid for the dataset, `fewest` the minimum
        number of frames. `conflict` is reported, but the sample is kept.
        """
        sample, reason, detail, source = candidate.id, "", "", row.source
        self.listed.append((sample, row))
        paths = [(m, path) for m, paths in candidate.sources.items() for path in paths]
        lacking = [path for m, path in paths if not self._is_there(m, path)]
        if not _name_fault(name):  # the first file that is there, if only as a broken link
            there = (path for _, path in paths if os.path.lexists(self.root / path))
            source = next(there, source)
        if sample in self.places:
            reason, detail = "duplicate", f"{self.places[sample]} was used"
        elif _name_fault(name) or fault:
            reason, detail = _name_fault(name) or fault, name
        elif candidate.label < 0:
            reason, detail = "no_label", f"{word[:80]!r} is not one of {len(self.labels)} classes"
        elif lacking:
            reason, detail = "missing_file", f"no {', '.join(lacking)}"
        elif fewest and len(names_in(self.root / paths[-1][1])) < fewest:
            reason, detail = "few_frames", f"in {paths[-1][1]}"
        elif conflict:
            reason, detail = "label_conflict", f"list: {word}, {conflict}"
        self.places.setdefault(sample, row.place)
        if reason:
            self.reject(sample[:80], source, reason, f"{row.place}: {detail}"[:300])
        if reason in ("", "label_conflict"):
            self.candidates[sample] = candidate

    def _is_there(self, modality: str, path: str) -> bool:
        is_folder = os.path.isdir(self.root / path)
        if modality in ("video", "flow"):
            return is_folder
        # Anything that is not a folder counts as a file; a pipe is rejected on reading.
        return os.path.exists(self.root / path) and not is_folder

    def reject_others(self, folder: str, used: Collection[str], suffix: str = "") -> None:
        """Rejects files (without a suffix: image folders) that no list names."""
        for name in names_in(self.root / self.path(folder)):
            path = self.path(folder, name)
            is_folder = os.path.isdir(self.root / path)
            if name not in used:
                is_sample = not is_folder and name.endswith(suffix) if suffix else is_folder
                stem = name if is_folder else PurePosixPath(name).stem
                reason = "no_label" if is_sample else "unknown_name"
                self.reject(stem, path, reason, "no list names it")

    def result(self) -> Scan:
        """The result of the scan; also rejects unknown files in the tree."""
        known = {PurePosixPath(name).parts[0] for name in self.form.lists + self.form.folders}
        for name in names_in(self.root / self.base):
            if name not in known and name not in self.form.unread:
                self.reject_unknown(self.path(name))
        numbers = all(row.key.isdecimal() for _, row in self.listed)
        pool = [
            Listed(sample, int(row.key) if numbers else row.key[:80], row.header)
            for sample, row in self.listed
        ]
        where, count = self.root / self.base, sum(not row.header for row in pool)
        self.warnings.append(f"reading {where} as a tree {self.form.made}")
        return self.scan(self.labels, self.dataset, pool, count)


def _name_fault(name: str) -> str:
    """The reason why a name in a list cannot be a file inside its folder, or ""."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "outside_root"
    plain = name.isprintable() and str(path) == name and name != "."
    return "" if plain and not any(map(is_ignored, path.parts)) else "unknown_name"
