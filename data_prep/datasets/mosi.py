"""CMU-MOSI: one pickle of text, audio and video features of 2,199 clips, rated from -3 to 3.

Two families of files, each with the words aligned in all modalities or not:

* MMSA's (github.com/thuiar/MMSA), MOSI/Processed/aligned_50.pkl and unaligned_50.pkl: BERT vectors;
* MulT's (github.com/yaohungt/Multimodal-Transformer), mosi_data.pkl and mosi_data_noalign.pkl:
  GloVe vectors.

Either is a dict train, valid, test -> dict of arrays [N, L, D] under "text", "audio", "vision", the
ratings, and "id": "video$_$clip", or rows of (b"video_clip", start, end). Shapes are read from the
arrays. The parts are the official ones (1,284, 229 and 686 clips), which no video is common to.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from common.files import is_ignored
from common.options import UsageError, option
from data_prep.datasets.walk import count_warnings
from data_prep.spec import Candidate, Rejection, Scan, Spec

LABELS = ("negative", "positive")
SPLIT_SECOND = 2 / 3  # for --split_rule paper; the paper has the official parts
SPLIT_RULE = "official"
PARTS = {"train": "train", "valid": "val", "test": "test"}
ARRAYS = {"text": "text", "audio": "audio", "video": "vision"}  # modality -> key
HIGHEST = 3.0  # of a rating, which are means of five people's -3..3


class Variant(NamedTuple):
    """A file: its name, the key of its ratings, and the rows that its modalities may have."""

    file: str
    ratings: str
    rows: dict[str, int]


# The aligned files have 50 rows of each. Of the unaligned ones the sources name 375 rows for one of
# audio and video and 500 for the other, not for the same one: 500 is enough for both.
_ALIGNED = {"text": 50, "audio": 50, "video": 50}
_UNALIGNED = {"text": 50, "audio": 500, "video": 500}
VARIANTS = {
    "mmsa_aligned": Variant("aligned_50.pkl", "regression_labels", _ALIGNED),
    "mmsa_unaligned": Variant("unaligned_50.pkl", "regression_labels", _UNALIGNED),
    "mult_aligned": Variant("mosi_data.pkl", "labels", _ALIGNED),
    "mult_unaligned": Variant("mosi_data_noalign.pkl", "labels", _UNALIGNED),
}
SOURCE = (
    "CMU-MOSI's features are at github.com/thuiar/MMSA and"
    " github.com/yaohungt/Multimodal-Transformer; the root must hold"
    f" {', '.join(variant.file for variant in VARIANTS.values())} (one of them, --feature_files"
    " says which), in itself, in Processed, or in either place of a folder named by MOSI."
)


@dataclass(frozen=True)
class Settings:
    """How CMU-MOSI is prepared."""

    feature_files: str = option(
        "mmsa_aligned", "which features", choices=tuple(VARIANTS),
        source="our choice: the paper does not say",
    )  # fmt: skip
    label_rule: str = option(
        "neg_nonneg",
        "ratings of the two classes: neg_nonneg: y < 0, y >= 0; pos_nonpos: y <= 0, y > 0; nonzero:"
        " y < 0, y > 0, and zeros are left out",
        choices=("neg_nonneg", "nonzero", "pos_nonpos"),
        source="BalanceBenchmark; the paper's 2,199 clips are all there are, zeros included",
    )
    standardise: bool = option(
        True, "audio and video: mean 0 and deviation 1 of each feature over the training part"
    )


def spec(settings: Settings) -> Spec:
    """Sequences of vectors. Audio has -inf and NaN, video NaN: zeros, as in public loaders.

    Pretrained word vectors stay as they are; pitches and pixels have scales of their own.
    """
    from data_prep.modalities.array import Array

    rows = VARIANTS[settings.feature_files].rows
    origin = f"{settings.feature_files} {settings.label_rule}"
    measured = "train" if settings.standardise else "none"
    text = Array(rows["text"], origin=origin, normalise="none")
    others = {
        m: Array(rows[m], clean=True, origin=origin, normalise=measured)
        for m in ARRAYS
        if m != "text"
    }
    return {"text": text, **others}


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the pickle as candidates; raises `UsageError` for another or a damaged file.

    Other files in the pickle's folder are listed as rejected, but for those of the other variants.
    """
    # Not at the top: layouts are imported for --help, numpy takes a while.
    from data_prep.modalities.unpickle import load

    variant = VARIANTS[settings.feature_files]
    source = _find_file(root, variant.file)
    content = load(root / source)
    counts = _check(content, root / source, variant)
    found: dict[str, Candidate] = {}
    rejected, warnings = _others(root, source)
    of_videos = _names_videos(row for part in counts for row in content[part]["id"])
    for part, count in counts.items():
        ids, ratings = content[part]["id"], content[part][variant.ratings]
        for row in range(count):
            name, group = _name(ids[row])
            if of_videos and name:
                name, group = _with_times(name, ids[row]), name
            where, rating = f"{part}/{row}", _rating(ratings[row])
            label, why = _label(rating, settings.label_rule)
            if not name:
                rejected.append(Rejection(where, source, "unknown_name", f"id of {where}"))
            elif label is None:
                rejected.append(Rejection(name, source, "no_label", f"{where}: {why}"))
            elif name in found:
                rejected.append(Rejection(name, source, "duplicate", where))
            else:
                rows = {m: f"{part}/{key}/{row}" for m, key in ARRAYS.items()}
                files = dict.fromkeys(ARRAYS, (source,))
                found[name] = Candidate(name, label, files, group, PARTS[part], rows)
    warnings += count_warnings("mosi", len(found))
    return Scan(LABELS, [found[name] for name in sorted(found)], rejected, warnings)


def detect(root: Path) -> dict[str, str]:
    """The settings that follow from the root: the variant whose file alone is there."""
    there = [name for name in VARIANTS if root.is_dir() and _places(root, VARIANTS[name].file)]
    return {"feature_files": there[0]} if len(there) == 1 else {}


def _places(root: Path, name: str) -> list[str]:
    """Where a file of that name stands, relative to the root."""
    folders = [path.name for path in root.iterdir() if "mosi" in path.name.casefold()]
    places = [Path(base, inner) for base in ("", *sorted(folders)) for inner in ("", "Processed")]
    return [str(PurePosixPath(p / name)) for p in places if (root / p / name).is_file()]


def _find_file(root: Path, name: str) -> str:
    """Where the file stands, relative to the root; raises `UsageError` if it does not."""
    if places := _places(root, name):
        return places[0]
    there = [
        f"--feature_files {variant}"
        for variant, (other, *_) in VARIANTS.items()
        if _places(root, other)
    ]
    hint = f"; what it holds is for {' or '.join(there)}" if there else ""
    raise UsageError(f"{root} holds no {name}{hint}. {SOURCE}")


def _check(content: Any, path: Path, variant: Variant) -> dict[str, int]:
    """The number of clips of each part; raises `UsageError` unless all arrays fit together."""
    keys = ("id", variant.ratings, *ARRAYS.values())
    counts, widths = {}, {}
    for part in PARTS:
        fields = content.get(part) if isinstance(content, dict) else None
        if not isinstance(fields, dict) or any(key not in fields for key in keys):
            raise UsageError(
                f"{path} is not what its name says: {' and '.join(PARTS)} must each be a dict with"
                f" {', '.join(keys)}. {SOURCE}"
            )
        for key in ARRAYS.values():
            shape = getattr(fields[key], "shape", ())
            if len(shape) != 3 or fields[key].dtype.kind != "f":
                raise UsageError(f"{path}: {part}/{key} is no array [clips, rows, values]")
            if shape[2] != widths.setdefault(key, shape[2]):
                raise UsageError(
                    f"{path}: {key} has {widths[key]} values in train, {shape[2]} in {part}"
                )
        lengths = {key: _length(fields[key]) for key in keys}
        if len(set(lengths.values())) != 1:
            raise UsageError(f"{path}: {part} holds as many clips as {lengths}: it is damaged")
        counts[part] = lengths["id"]
    return counts


def _length(value: Any) -> int:
    """Entries of a list or an array; -1 for what has none."""
    return len(value) if isinstance(value, list) or getattr(value, "shape", ()) else -1


def _others(root: Path, source: str) -> tuple[list[Rejection], list[str]]:
    """What stands beside the file: unknown ones as rejected, other variants as a line."""
    folder, chosen = (root / source).parent, Path(source).name
    names = {variant.file: name for name, variant in VARIANTS.items()}
    rejected, warnings = [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_ignored(entry.name) or entry.is_dir() or entry.name == chosen:
            continue
        if entry.name in names:
            flag = f"--feature_files {names[entry.name]}"
            warnings.append(f"{entry.name} is there as well; {flag} takes it")
        else:
            path = str(PurePosixPath(source).with_name(entry.name))
            rejected.append(Rejection(Path(entry.name).stem, path, "unknown_name"))
    return rejected, warnings


def _name(value: Any) -> tuple[str, str]:
    """(id, video) of a clip, or two empty strings where it has none."""
    # MulT's rows are (b"video_clip", start, end) [seconds].
    whole = isinstance(value, (str, bytes))
    try:
        value = value if whole else value[0]
        name = str(value, "utf-8") if isinstance(value, bytes) else value
        name = str(name).strip() if isinstance(name, str) else ""
        name.encode()  # half a surrogate pair is no text
    except (TypeError, ValueError, IndexError):
        return "", ""
    if "$_$" in name:
        return name, name.rpartition("$_$")[0]
    # A YouTube id may hold "_" itself, at any place.
    return name, name.rpartition("_")[0] or name


def _with_times(name: str, row: Any) -> str:
    """<name>_<start>_<end> of a row (name, start, end); the name alone where it has no times."""
    if isinstance(row, (str, bytes)):
        return name
    try:
        start, end = (float(value) for value in row[1:3])
    except (TypeError, ValueError, IndexError):
        return name
    return f"{name}_{start:g}_{end:g}" if math.isfinite(start + end) else name


def _names_videos(rows: Iterable[Any]) -> bool:
    """Whether the names are the videos' alone: one of them has clips of different times."""
    times: dict[str, str] = {}
    for row in rows:
        name = _name(row)[0]
        clip = _with_times(name, row)
        if name and times.setdefault(name, clip) != clip:
            return True
    return False


def _rating(value: Any) -> float:
    """The rating of a clip: a number, or an array [1] or [1, 1] of one; NaN where it is none."""
    try:
        return float(value if isinstance(value, (int, float)) else value.reshape(()))
    except (AttributeError, TypeError, ValueError):
        return math.nan


def _label(rating: float, rule: str) -> tuple[int | None, str]:
    """(label, ""), or None and why there is none."""
    if not -HIGHEST <= rating <= HIGHEST:  # NaN as well
        return None, f"the rating {rating:g} is not between -3 and 3"
    if rule == "nonzero" and rating == 0:
        return None, "the rating is 0, which --label_rule nonzero leaves out"
    return int(rating > 0 if rule == "pos_nonpos" else rating >= 0), ""
