"""Your own data: a csv file with a row a sample, named as the data set (`--dataset my/pets.csv`).

Columns: `id`, `label`, optionally `split` (train, val, test) and `group` (what a group split keeps
together), and one a modality: `audio`, `video`, `image`, `flow` hold a file's path relative to the
manifest, `array` a .npy file, `text` the text itself. At least one modality; MIDAS and most others
need two. Modalities are taken in the order of the columns.

All numbers of the stored forms are our choice: those of the paper's sets that come closest.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from common.options import UsageError, option
from data_prep.layouts.walk import read_rows
from data_prep.spec import (
    Array,
    Audio,
    AudioView,
    Candidate,
    Flow,
    Image,
    PlainView,
    Rejection,
    Scan,
    Spec,
    Video,
    VideoView,
    View,
)
from data_prep.text import max_tokens_option, text_spec, vocabulary_option

PLAIN = ("id", "label", "split", "group")
MODALITIES = ("audio", "video", "image", "text", "flow", "array")
PARTS = {"train": "train", "val": "val", "valid": "val", "dev": "val", "test": "test", "": ""}
FIELD_LIMIT = 1_000_000  # characters in one cell


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
        self.SOURCE = f"The files stand where {self.path} says, relative to its folder."

    @property
    def columns(self) -> list[str]:
        """The header; raises `UsageError` for a manifest that cannot be one."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as handle:
                header = [name.strip() for name in next(csv.reader(handle), [])]
        except OSError as error:
            raise UsageError(f"--dataset {self.path} cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{self.path} is not a csv file in UTF-8: {error}") from None
        unknown = [name for name in header if name not in (*PLAIN, *MODALITIES)]
        missing = [name for name in PLAIN[:2] if name not in header]
        if missing or unknown or len(set(header)) != len(header):
            raise UsageError(
                f"{self.path} has the columns {', '.join(header) or 'none'}; it needs id and label,"
                f" may have split and group, and one or more of {', '.join(MODALITIES)}, each once"
            )
        return header

    @property
    def order(self) -> list[str]:
        """The modalities, in the order of their columns."""
        if self._order is None:
            self._order = [name for name in self.columns if name in MODALITIES]
            if not self._order:
                raise UsageError(f"{self.path} has no column of {', '.join(MODALITIES)}")
        return self._order

    @property
    def defaults(self) -> dict[str, str]:
        """Training settings that follow from the manifest: its own split, where it has one."""
        return {"split_rule": "official"} if "split" in self.columns else {}

    def spec(self, settings: Settings) -> Spec:
        """The stored form of each modality."""
        return {m: stored_form(m, settings) for m in self.order}

    def views(self, settings: Settings) -> dict[str, View]:
        """Whole spectrograms; `frames` frames of a video or flow; texts and arrays as they are."""
        moving = VideoView(settings.frames, "crop_flip" if settings.flip else "none")
        # A crop of a moving picture changes its motion's scale, so flow is only mirrored.
        forms: dict[str, View] = {
            "audio": AudioView(),
            "video": moving,
            "image": VideoView(1, moving.augment),
            "flow": VideoView(settings.frames, "flip" if settings.flip else "none"),
        }
        return {m: forms.get(m, PlainView()) for m in self.order}

    def normalise(self, settings: Settings) -> dict[str, str | None]:
        """Sound and arrays by the training part, pictures by ImageNet's constants."""
        own = {"audio": "train", "array": "train", "flow": "none", "text": None}
        return {m: own.get(m, "imagenet") for m in self.order}

    def scan(self, root: Path, settings: Settings) -> Scan:
        """The rows as candidates; raises `UsageError` for a path that leaves the manifest's folder.

        A row without a label, with an unknown split, with an id that came before or with a missing
        file is listed as rejected.
        """
        rows = read_list(self.path, "--dataset")
        if "flow" in self.order:
            from data_prep.flow import check_algorithm  # not above: it loads OpenCV

            check_algorithm(settings.flow_algo)
        names = tuple(sorted({row["label"].strip() for row in rows} - {""}))
        if len(names) < 2:
            raise UsageError(
                f"{self.path} has {len(names)} label(s); two or more classes are needed"
            )
        candidates: dict[str, Candidate] = {}
        rejected = []
        for number, row in enumerate(rows, 2):
            name, where = row["id"].strip(), f"{self.path.name}, line {number}"
            reason, detail = self._fault(root, row, where, candidates)
            if reason:
                rejected.append(Rejection(name, where, reason, detail))
                continue
            candidates[name] = Candidate(
                name,
                names.index(row["label"].strip()),
                {m: (row[m].strip(),) for m in self.order if m != "text"},
                row.get("group", "").strip(),
                PARTS[row.get("split", "").strip()],
                {"text": row["text"]} if "text" in self.order else {},
            )
        return Scan(names, [candidates[name] for name in sorted(candidates)], rejected)

    def _fault(self, root: Path, row: dict, where: str, seen: dict) -> tuple[str, str]:
        """(reason, detail) why a row is no sample, or two empty strings."""
        name = row["id"].strip()
        if not name or not row["label"].strip():
            return "no_label", "no id" if not name else "no label"
        if name in seen:
            return "duplicate", f"id {name!r}"
        if row.get("split", "").strip() not in PARTS:
            raise UsageError(
                f"{where}: split {row['split']!r} is none of train, val (valid, dev), test"
            )
        for m in self.order:
            if m == "text":
                continue
            path = row[m].strip()
            if not inside(root, path):
                raise UsageError(f"{where}: {path!r} leaves the manifest's folder {root}")
            if not path or not there(root / path):
                return "missing_file", f"{m}: {path[:80]!r}"
        return "", ""


def read_list(path: Path, flag: str) -> list[dict[str, str]]:
    """The rows of a user's list; raises `UsageError` where `flag` names no csv file in UTF-8."""
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        return read_rows(path)
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be read: {error.strerror}") from None
    finally:
        csv.field_size_limit(before)


def inside(root: Path, path: str) -> bool:
    """Whether a relative path, links followed, stays under `root`."""
    if Path(path).is_absolute() or "\0" in path:
        return False
    try:
        return (root / path).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle: they lead nowhere
        return True


def there(path: Path) -> bool:
    """Whether it is a file; a name that no file system takes is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def stored_form(modality: str, s: Settings):
    """The kind of a column, from the settings."""
    if modality == "audio":
        fft = {"n_fft": 512, "hop": 256}
        return Audio(s.audio_feature, sample_rate=s.sample_rate, seconds=s.seconds, **fft)
    if modality == "video":
        return Video(fps=s.fps, max_frames=s.max_frames, min_frames=s.frames, min_decoded=1)
    if modality == "image":
        return Image()
    if modality == "flow":
        return Flow(s.flow_algo, positions=s.max_frames)
    if modality == "text":
        return text_spec(s.vocabulary, s.max_tokens)
    return Array(s.max_length)
