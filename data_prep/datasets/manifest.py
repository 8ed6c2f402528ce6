"""Your own data: a csv file with a row a sample, named as the data set (`--dataset my/pets.csv`).

Columns: `id`, `label`, optionally `split` (train, val, test) and `group` (what a group split keeps
together), and one a modality: `audio`, `video`, `image`, `flow` hold a file's path relative to the
manifest, `array` a .npy file, `text` the text itself. At least one modality; MIDAS and most others
need two. Modalities are taken in the order of the columns; other columns are passed over.

--dataset_root names another folder for the files. Then links may lead out of that folder; without
it they may not. Absolute paths must lie below the folder in either case.

All numbers of the stored forms are our choice: those of the paper's sets that come closest.
"""

import math
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from common.files import shown
from common.options import UsageError, option
from data_prep.datasets.csv_rows import Record, columns_wrong, read_records, refuse_line
from data_prep.datasets.options import max_tokens_option, vocabulary_option
from data_prep.datasets.own_files import Files
from data_prep.modalities import KINDS, Modality, load
from data_prep.spec import Candidate, Rejection, Scan, Spec

PLAIN = ("id", "label", "split", "group")
MODALITIES = tuple(KINDS)
PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "": "",
}  # fmt: skip
UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # characters that show nothing
NOTHING: dict[str, Any] = {}  # one for all samples: a manifest may have a million rows


@dataclass(frozen=True)
class Settings:
    """How the files of a manifest are prepared."""

    audio_feature: str = option("stft", "spectrogram", choices=("stft", "fbank"))
    sample_rate: int = option(16000, "of stored sound, Hz", low=1000, high=192000)
    seconds: float = option(10.0, "of each sound: longer is cut, shorter is tiled", above=0)
    fps: float = option(1.0, "stored frames a second of video", above=0, high=60)
    max_frames: int = option(10, "stored frames of a video", low=1, high=1000)
    frames: int = option(3, "frames of a video (or flow) that make an input", low=1, high=100)
    flow_algo: str = option("dis", "optical flow", choices=("dis", "farneback", "tvl1"))
    vocabulary: str = vocabulary_option()
    max_tokens: int = max_tokens_option(64, "our choice")
    max_length: int = option(512, "vectors of an array", low=1, high=100000)
    flip: bool = option(True, "mirror frames in training")


class Manifest:
    """The layout of one manifest; `order` replaces its columns where the file is not to be read."""

    Settings = Settings
    SPLIT_SECOND = 2 / 3

    def __init__(self, path: Path, order: list[str] | None = None):
        self.path, self._order = Path(path), order
        # True: links may lead out of the root (set by raw_root if the user gave --dataset_root).
        self.anywhere = False
        self.SOURCE = f"The files stand where {self.path} says, relative to its folder."

    @property
    def columns(self) -> list[str]:
        """The columns that count; raises `UsageError` for a manifest that cannot be one."""
        header = read_table(self.path, "--dataset", (*PLAIN, *MODALITIES), PLAIN[:2], []).columns
        if not set(header) - set(PLAIN):
            raise UsageError(
                f"{self.path} has the columns {', '.join(header)}; it needs one or more of"
                f" {', '.join(MODALITIES)} beside id and label"
            )
        return header

    @property
    def order(self) -> list[str]:
        """The modalities, in the order of their columns."""
        if self._order is None:
            self._order = [name for name in self.columns if name in MODALITIES]
        return self._order

    @property
    def SPLIT_RULE(self) -> str:
        """The manifest's own split, where it has one."""
        return "official" if "split" in self.columns else "paper"

    @property
    def defaults(self) -> dict[str, str]:
        """Training settings that follow from the manifest."""
        return {"split_rule": "official"} if self.SPLIT_RULE == "official" else {}

    def spec(self, settings: Settings) -> Spec:
        """The stored form of each modality."""
        return {m: stored_form(m, settings) for m in self.order}

    def scan(self, root: Path, settings: Settings) -> Scan:
        """The rows as candidates; raises `UsageError` for a path that leaves the root.

        A row without a label, with an id that came before, with a missing file or with more or
        fewer cells than the header is listed as rejected.
        """
        files, rejected = Files(root, self.anywhere), []
        table = read_table(
            self.path, "--dataset", (*PLAIN, *MODALITIES), PLAIN[:2], rejected, files
        )
        found: dict[str, Candidate] = {}
        labels: dict[str, int] = {}  # in the order of the rows, at first
        for line, row in table.rows:
            candidate, why = self._candidate(row, line, files, labels)
            if not why and candidate.id in found:
                why = "duplicate", f"id {candidate.id!r}"
            if why:
                where = f"{self.path.name}, line {line}"
                rejected.append(Rejection(row["id"].strip(), where, *why))
            else:
                found[candidate.id] = candidate
        names = tuple(sorted(labels))
        if len(names) < 2:
            raise UsageError(
                f"{self.path} has {len(names)} label(s); two or more classes are needed"
            )
        order = {name: k for k, name in enumerate(names)}
        place = [order[label] for label in labels]
        candidates = [found.pop(name) for name in sorted(found)]
        for k, candidate in enumerate(candidates):
            candidates[k] = replace(candidate, label=place[candidate.label])
        warnings = [*table.notes, *_alike(names)]
        return Scan(names, candidates, rejected, warnings, listed=len(candidates) + len(rejected))

    def _candidate(
        self, row: dict[str, str], line: int, files: Files, labels: dict[str, int]
    ) -> tuple[Candidate | None, tuple[str, str] | None]:
        """The sample of a row, or (reason, detail) why it is none."""
        name, label = row["id"].strip(), row["label"].strip()
        if not name or not label:
            return None, ("no_label", "no label" if name else "no id")
        split = row.get("split", "").strip()
        if split.casefold() not in PARTS:
            raise UsageError(
                f"{self.path}, line {line}: split {split[:80]!r} is none of"
                " train, val (valid, validation, dev), test"
            )
        number, sources = labels.setdefault(label, len(labels)), {}
        for m in self.order:
            if not load(m).inline:
                path, why = find(files, self.path, line, row[m])
                if why:
                    return None, ("missing_file", f"{m}: {why}")
                sources[m] = (path,)
        inline = {m: row[m] for m in self.order if load(m).inline} or NOTHING
        group, part = sys.intern(row.get("group", "").strip()), PARTS[split.casefold()]
        return Candidate(name, number, sources, group, part, inline), None


def find(files: Files, table: Path, line: int, text: str) -> tuple[str, str]:
    """`files.find`, with the line in its error."""
    try:
        return files.find(text.strip())
    except UsageError as error:
        raise UsageError(f"{table}, line {line}: {error}") from None


def _alike(names: Sequence[str]) -> list[str]:
    """A line where classes differ only in case, in how a number is written, or unseen."""
    seen: dict[Any, str] = {}
    pairs = []
    for name in names:
        try:
            key: Any = float(name)
        except ValueError:
            key = None
        if key is None or not math.isfinite(key):
            seen_by_eye = unicodedata.normalize("NFKC", UNSEEN.sub("", name)).casefold()
            key = " ".join(seen_by_eye.split())
        if key in seen:
            pairs.append(f"{seen[key][:80]!r} and {name[:80]!r}")
        seen.setdefault(key, name)
    if not pairs:
        return []
    more = f" (and {len(pairs) - 1} more pairs)" if pairs[1:] else ""
    return [f"the classes {pairs[0]}{more} differ only in how they are written"]


class Table(NamedTuple):
    """A user's csv file: the known columns in their order, (line, row) pairs, and what to note."""

    columns: list[str]
    rows: Iterator[tuple[int, dict[str, str]]]
    notes: list[str]


def read_table(
    path: Path,
    flag: str,
    known: Sequence[str],
    needed: Sequence[str],
    rejected: list[Rejection],
    files: Files | None = None,
) -> Table:
    """The file that `flag` names, by its columns in lower case; unknown ones are passed over.

    While the rows are read, those with more or fewer cells than the header go to `rejected`. Raises
    `UsageError` for what is no such file, and for a quote that nothing closes: with `files`, a line
    that names one of them is a row of its own, and no part of a text over several lines.
    """

    def is_header(cells: list[str]) -> bool:
        return set(needed) <= {cell.strip().casefold() for cell in cells}

    header: list[str] = []

    def is_row(cells: list[str]) -> bool:
        if len(cells) != len(header):
            return False
        paths = [c for n, c in zip(header, cells) if n in MODALITIES and not load(n).inline]
        if files and paths:
            return any(files.is_there(path) for path in paths)
        return bool(cells[header.index("id")].strip().isalnum())

    try:
        records = read_records(path, is_header, is_row)
        first = next(records, Record(1, []))
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be read: {error.strerror}") from None
    if first.fault:
        raise UsageError(f"{path}, line {first.line}: {first.fault}")
    header += [cell.strip().casefold() for cell in first.cells]
    told = [name for name in header if name in known]
    missing = [name for name in needed if name not in header]
    twice = next((name for name in told if told.count(name) > 1), "")
    if missing or twice:
        what = f"the column {twice} twice" if twice else f"no column {missing[0]}"
        raise UsageError(
            f"{path} has {what} (its columns: {shown(', '.join(header)) or 'none'}); it needs"
            f" {', '.join(needed)}"
        )
    passed = [name or "one without a name" for name in header if name not in known]
    notes = [f"{path.name}: columns passed over: {shown(', '.join(passed))}"] if passed else []
    return Table(told, _rows(path, header, records, rejected), notes)


def _rows(
    path: Path, header: list[str], records: Iterator[Record], rejected: list[Rejection]
) -> Iterator[tuple[int, dict[str, str]]]:
    for record in records:
        if record.fault:
            raise UsageError(f"{path}, line {record.line}: {record.fault}")
        wrong = columns_wrong(record, len(header))
        if wrong:
            where = f"{path.name}, line {record.line}"
            refuse_line(rejected, Rejection("", where, "bad_line", wrong))
        else:
            yield record.line, dict(zip(header, record.cells))


def stored_form(kind: str, s: Settings) -> Modality:
    """The modality of a column.

    Audio and arrays are normalised by the training part, pictures by ImageNet's constants. A crop
    of a moving picture changes its motion's scale, so flow is only mirrored.
    """
    if kind == "text":
        from data_prep.modalities.text import text_spec

        return text_spec(s.vocabulary, s.max_tokens)
    crop = "crop_flip" if s.flip else "none"
    frames = {"max_frames": s.max_frames, "min_frames": s.frames, "min_decoded": 1}
    chosen = {
        "audio": {
            "feature": s.audio_feature,
            "sample_rate": s.sample_rate,
            "seconds": s.seconds,
            "n_fft": 512,
            "hop": 256,
            "normalise": "train",
        },
        "video": {"fps": s.fps, **frames, "frames": s.frames, "augment": crop},
        "image": {"augment": crop},
        "flow": {
            "algorithm": s.flow_algo,
            "positions": s.max_frames,
            "frames": s.frames,
            "augment": "flip" if s.flip else "none",
        },
        "array": {"max_length": s.max_length},
    }
    return load(kind)(**chosen.get(kind, {}))
