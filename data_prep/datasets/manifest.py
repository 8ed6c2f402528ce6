"""Your own data: a csv file with one row per sample (`--dataset my/pets.csv`).

Columns: `id`, `label`, optionally `split` (train, val, test) and `group` (what a group split keeps
together), and one per modality: `audio`, `video`, `image`, `flow` contain a path relative to the
manifest (or to --dataset_root), `array` a .npy file, `text` the text itself. `video` may be a
folder of frames. A column `audio:far` is a modality of the kind `audio` called `far`. The order of
the columns is that of the modalities. Links may point outside the folder only with --dataset_root.
All numeric defaults are our choice, following the most similar datasets of the paper.
"""

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.options import UsageError, option
from data_prep.datasets import options
from data_prep.datasets.own_files import PLAIN, Files, Table
from data_prep.datasets.tree import RawTree
from data_prep.modalities import KINDS, Modality, load
from data_prep.spec import Candidate, Scan, Spec

PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "": "",
}  # fmt: skip
UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # invisible characters
NOTHING: dict[str, Any] = {}  # shared by all samples: a manifest may have a million rows


@dataclass(frozen=True)
class Settings:
    """How the files of a manifest are prepared."""

    audio_feature: str = option("stft", "spectrogram", choices=("stft", "fbank"))
    sample_rate: int = option(16000, "of stored audio, Hz", low=1000, high=192000)
    seconds: float = option(10.0, "audio length: longer is cut, shorter is tiled", above=0)
    fps: float = option(1.0, "stored frames per second of a video file", above=0, high=60)
    max_frames: int = option(10, "maximum stored frames per video", low=1, high=1000)
    frames: int = option(3, "frames of a video (or flow) per input", low=1, high=100)
    flow_algo: str = option("dis", "optical flow", choices=("dis", "farneback", "tvl1"))
    vocabulary: str = options.vocabulary()
    max_tokens: int = options.max_tokens(64)
    max_length: int = option(512, "maximum vectors per array", low=1, high=100000)
    flip: bool = option(True, "mirror frames in training")


class Manifest:
    """The dataset of one manifest.

    `kinds`: each modality's kind, in order; if given, the file is not read for them.
    """

    SPLIT_SECOND = 2 / 3

    def __init__(self, path: Path, kinds: dict[str, str] | None = None):
        self.Settings = Settings
        self.path, self._kinds = Path(path), kinds
        # True: links may point outside the root (set by raw_root if --dataset_root was given).
        self.anywhere = False
        self.SOURCE = f"File paths in {self.path} are relative to its folder."

    def _table(self, files: Files | None = None) -> Table:
        return Table(self.path, "--dataset", PLAIN[:2], files)

    @property
    def kinds(self) -> dict[str, str]:
        """modality -> kind, in the order of the columns; raises `UsageError` if there is none."""
        if self._kinds is None:
            table = self._table()
            self._kinds = table.kinds
            if not self._kinds:
                raise UsageError(
                    f"{self.path} has the columns {table.shown}; it needs one or more of"
                    f" {', '.join(KINDS)} besides id and label"
                )
        return self._kinds

    @property
    def SPLIT_RULE(self) -> str:
        """The default split rule: "official" if the manifest has a split column."""
        return "official" if "split" in self._table().columns else "paper"

    @property
    def defaults(self) -> dict[str, str]:
        """Training settings that follow from the manifest."""
        return {"split_rule": "official"} if self.SPLIT_RULE == "official" else {}

    def spec(self, settings: Settings) -> Spec:
        """The modalities of the columns."""
        return {m: modality_of(kind, settings) for m, kind in self.kinds.items()}

    def scan(self, root: Path, settings: Settings) -> Scan:
        """The rows as candidates; raises `UsageError` if a path leaves the root."""
        tree, table = RawTree(root), self._table(Files(root, self.anywhere))
        classes = {m: load(kind) for m, kind in self.kinds.items()}
        numbers: dict[str, int] = {}  # label -> number in order of appearance
        for line, row in table.rows(tree.rejected):
            name, label = row["id"].strip(), row["label"].strip()
            split, group = row.get("split", "").strip(), sys.intern(row.get("group", "").strip())
            sources, inline, missing = dict[str, tuple[str, ...]](), {}, ""
            if name and label:
                if split.casefold() not in PARTS:
                    raise UsageError(
                        f"{self.path}, line {line}: split {split[:80]!r} is not one of"
                        " train, val (valid, validation, dev), test"
                    )
                numbers.setdefault(label, len(numbers))
                for m, kind in classes.items():
                    if kind.inline:
                        inline[m] = row[m]
                    elif not missing:
                        path, why = table.find(line, row[m], kind.folders)
                        sources[m], missing = (path,), f"{m}: {why}" if why else ""
            part = PARTS.get(split.casefold(), "")
            tree.take(
                Candidate(name, numbers.get(label, -1), sources, group, part, inline or NOTHING),
                f"{self.path.name}, line {line}",
                (not name or not label, "no_label", "no label" if name else "no id"),
                (missing, "missing_file", missing),
            )
        if len(numbers) < 2:
            raise UsageError(
                f"{self.path} has {len(numbers)} label(s); at least two classes are needed"
            )
        names = tuple(sorted(numbers))
        place = {name: k for k, name in enumerate(names)}
        label_of = [place[name] for name in numbers]
        tree.warnings += [*table.notes, *_alike(names)]
        for name, candidate in tree.candidates.items():
            tree.candidates[name] = replace(candidate, label=label_of[candidate.label])
        listed = len(tree.candidates) + len(tree.rejected)
        return replace(tree.scan(names), listed=listed)


def _alike(names: Sequence[str]) -> list[str]:
    """A warning if class names differ only in case, number format or invisible characters."""
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        plain = unicodedata.normalize("NFKC", UNSEEN.sub("", name)).casefold()
        key = re.sub(r"^0+(?=\d)|\.0*$", "", " ".join(plain.split()))  # 01 and 1.0 are 1
        if seen.setdefault(key, name) != name:
            pairs.append(f"{seen[key][:80]!r} and {name[:80]!r}")
    more = f" (and {len(pairs) - 1} more pairs)" if pairs[1:] else ""
    return [f"the classes {pairs[0]}{more} differ only in how they are written"] if pairs else []


def modality_of(kind: str, s: Settings) -> Modality:
    """The modality of a column of this kind.

    Flow is only mirrored, because resizing a crop would change the scale of motion. A folder of
    frames has no frame rate: all of them are stored, or `max_frames` evenly spaced ones.
    """
    if kind == "text":
        from data_prep.modalities.text import text_spec

        return text_spec(s.vocabulary, s.max_tokens)
    crop = "crop_flip" if s.flip else "none"
    sound = {"feature": s.audio_feature, "sample_rate": s.sample_rate, "seconds": s.seconds}
    frames = {"max_frames": s.max_frames, "min_frames": s.frames, "min_decoded": 1}
    flow = {"algorithm": s.flow_algo, "positions": s.max_frames, "frames": s.frames}
    chosen: dict[str, dict[str, Any]] = {
        "audio": {**sound, "n_fft": 512, "hop": 256, "normalise": "train"},
        "video": {**frames, "fps": s.fps, "frames": s.frames, "augment": crop,
                  "of_folder": s.max_frames},
        "image": {"augment": crop},
        "flow": {**flow, "augment": "flip" if s.flip else "none"},
        "array": {"max_length": s.max_length},
    }  # fmt: skip
    return load(kind)(**chosen.get(kind, {}))
