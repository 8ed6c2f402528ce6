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

from common.options import UsageError, option
from data_prep.datasets.tree import RawTree
from data_prep.spec import Candidate, Scan, Spec

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

    Other files in the pickle's folder are rejected, except for those of the other variants.
    """
    # Imported here: data sets are imported for --help, and numpy takes a while.
    from data_prep.modalities.unpickle import load

    variant, tree = VARIANTS[settings.feature_files], RawTree(root)
    source = _find_file(root, variant.file)
    content = load(root / source)
    counts = _check(content, root / source, variant)
    _tell_others(tree, PurePosixPath(source))
    of_videos = _names_videos(row for part in counts for row in content[part]["id"])
    found: dict[str, Candidate] = {}
    for part, count in counts.items():
        for row in range(count):
            where, identity = f"{part}/{row}", content[part]["id"][row]
            name, group = _name(identity)
            if of_videos and name:
                name, group = _with_times(name, identity), name
            rating = _rating(content[part][variant.ratings][row])
            label, why = _label(rating, settings.label_rule)
            if not name:
                tree.reject(where, source, "unknown_name", f"id of {where}")
            elif label is None:
                tree.reject(name, source, "no_label", f"{where}: {why}")
            elif name in found:
                tree.reject(name, source, "duplicate", where)
            else:
                rows = {m: f"{part}/{key}/{row}" for m, key in ARRAYS.items()}
                sources = dict.fromkeys(ARRAYS, (source,))
                found[name] = Candidate(name, label, sources, group, PARTS[part], rows)
    tree.warn_of_count("mosi", len(found))
    return tree.scan(LABELS, found.values())


def detect(root: Path) -> dict[str, str]:
    """The variant whose file alone is there."""
    there = [name for name in VARIANTS if root.is_dir() and _places(root, VARIANTS[name].file)]
    return {"feature_files": there[0]} if len(there) == 1 else {}


def _places(root: Path, name: str) -> list[str]:
    """Where there is a file of that name, relative to the root."""
    folders = [path.name for path in root.iterdir() if "mosi" in path.name.casefold()]
    places = [Path(base, inner) for base in ("", *sorted(folders)) for inner in ("", "Processed")]
    return [str(PurePosixPath(p / name)) for p in places if (root / p / name).is_file()]


def _find_file(root: Path, name: str) -> str:
    """The file, relative to the root; raises `UsageError` if there is none."""
    if places := _places(root, name):
        return places[0]
    there = [
        f"--feature_files {variant}"
        for variant, (other, *_) in VARIANTS.items()
        if _places(root, other)
    ]
    hint = f"; what it holds is for {' or '.join(there)}" if there else ""
    raise UsageError(f"{root} holds no {name}{hint}. {SOURCE}")


def _tell_others(tree: RawTree, source: PurePosixPath) -> None:
    """Rejects unknown files beside the pickle, and warns of those of other variants."""
    names = {variant.file: name for name, variant in VARIANTS.items()}
    for file, name in sorted(names.items()):
        path = tree.root / source.with_name(file)
        if file != source.name and os.path.lexists(path) and not path.is_dir():
            tree.warnings.append(f"{file} is there as well; --feature_files {name} takes it")
    tree.reject_beside(str(source.parent), lambda path: path.name in names)


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


# Clips --------------------------------------------------------------------------------------------


def _name(value: Any) -> tuple[str, str]:
    """(id, video) of a clip, or two empty strings if it has none."""
    # MulT's rows are (b"video_clip", start, end) [seconds].
    whole = isinstance(value, (str, bytes))
    try:
        value = value if whole else value[0]
        name = str(value, "utf-8") if isinstance(value, bytes) else value
        name = str(name).strip() if isinstance(name, str) else ""
        name.encode()  # half of a surrogate pair is no text
    except (TypeError, ValueError, IndexError):
        return "", ""
    if "$_$" in name:
        return name, name.rpartition("$_$")[0]
    # A YouTube id may hold "_" itself, at any place.
    return name, name.rpartition("_")[0] or name


def _with_times(name: str, row: Any) -> str:
    """<name>_<start>_<end> of a row (name, start, end); the name alone if it has no times."""
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
    """The rating of a clip: a number, or an array [1] or [1, 1] of one; NaN if it is none."""
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
