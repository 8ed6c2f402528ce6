"""CMU-MOSI: one pickle with text, audio and video features of 2,199 clips, rated from -3 to 3.

MMSA's files (github.com/thuiar/MMSA, MOSI/Processed) have BERT vectors, those of MulT
(github.com/yaohungt/Multimodal-Transformer) GloVe vectors. Both are a dict train, valid, test ->
dict of arrays [N, L, D] under "text", "audio", "vision", the ratings, and "id": "video$_$clip", or
rows of (b"video_clip", start, end). The parts are the official ones (1,284, 229 and 686 clips),
which share no videos.
"""

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from common.options import UsageError, option
from data_prep.datasets.tree import RawTree
from data_prep.spec import Candidate, Scan, Spec

LABELS = ("negative", "positive")
SPLIT_SECOND = 2 / 3  # for --split_rule paper; the paper uses the official parts
SPLIT_RULE = "official"
PARTS = {"train": "train", "valid": "val", "test": "test"}
ARRAYS = {"text": "text", "audio": "audio", "video": "vision"}  # modality -> key
HIGHEST = 3.0  # maximum rating; ratings are means of five annotators, -3..3


# variant -> (file, key of the ratings, maximum rows of audio and video). For the unaligned files,
# the sources give 375 rows for one of audio and video and 500 for the other, but disagree on which:
# 500 is enough for both.
VARIANTS = {
    "mmsa_aligned": ("aligned_50.pkl", "regression_labels", 50),
    "mmsa_unaligned": ("unaligned_50.pkl", "regression_labels", 500),
    "mult_aligned": ("mosi_data.pkl", "labels", 50),
    "mult_unaligned": ("mosi_data_noalign.pkl", "labels", 500),
}
SOURCE = (
    "CMU-MOSI's features are at github.com/thuiar/MMSA and"
    " github.com/yaohungt/Multimodal-Transformer; the root must contain one of"
    f" {', '.join(file for file, *_ in VARIANTS.values())} (see --feature_files),"
    " directly, in Processed, or in either place inside a folder with MOSI in its name."
)


@dataclass(frozen=True)
class Settings:
    """How CMU-MOSI is prepared."""

    feature_files: str = option("mmsa_aligned", "feature files", choices=tuple(VARIANTS))
    label_rule: str = option(
        "neg_nonneg",
        "classes by rating y: neg_nonneg: y < 0, y >= 0; pos_nonpos: y <= 0, y > 0; nonzero:"
        " y < 0, y > 0, without zeros",
        choices=("neg_nonneg", "nonzero", "pos_nonpos"),
        source="BalanceBenchmark; the paper's 2,199 clips are all clips, including zeros",
    )
    standardise: bool = option(
        True, "scale audio and video features to mean 0 and deviation 1 over the training part"
    )


def spec(settings: Settings) -> Spec:
    """Sequences of vectors. -inf and NaN in audio and NaN in video become 0, as in public loaders.

    Pretrained word vectors are not rescaled; audio and video features have different scales.
    """
    from data_prep.modalities.array import Array

    rows = VARIANTS[settings.feature_files][2]
    origin = f"{settings.feature_files} {settings.label_rule}"
    measured = "train" if settings.standardise else "none"
    text = Array(50, origin=origin, normalise="none")
    other = Array(rows, clean=True, origin=origin, normalise=measured)
    return {"text": text, "audio": other, "video": other}


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the pickle as candidates; raises `UsageError` for a damaged or other file."""
    # Imported here to keep --help fast: it imports datasets, and numpy takes a while.
    from data_prep.modalities.unpickle import load

    file, key_of_ratings, _ = VARIANTS[settings.feature_files]
    variants = {name: _places(root, other) for name, (other, *_) in VARIANTS.items()}
    if not variants[settings.feature_files]:
        there = [f"--feature_files {name}" for name, places in variants.items() if places]
        hint = f"; it has files for {' or '.join(there)}" if there else ""
        raise UsageError(f"{root} contains no {file}{hint}. {SOURCE}")
    source, tree = variants[settings.feature_files][0], RawTree(root)
    tree.reject_beside(str(PurePosixPath(source).parent), [file for file, *_ in VARIANTS.values()])
    content = load(root / source)
    _check(content, root / source, key_of_ratings)
    clips = {(p, row): _clip(value) for p in PARTS for row, value in enumerate(content[p]["id"])}
    # MulT's rows may only name the video: then one name has clips at different times.
    names = {name for name, _, _ in clips.values()}
    of_videos = len({clip[::2] for clip in clips.values()}) > len(names)
    for (part, row), (name, group, timed) in clips.items():
        where = f"{part}/{row}"
        if of_videos:
            name, group = timed, name
        label, why = _label(content[part][key_of_ratings][row], settings.label_rule)
        rows = {m: f"{part}/{key}/{row}" for m, key in ARRAYS.items()}
        sources = dict.fromkeys(ARRAYS, (source,))
        tree.take(
            Candidate(name or where, label, sources, group, PARTS[part], rows),
            source,
            (not name, "unknown_name", f"id of {where}"),
            (why, "no_label", f"{where}: {why}"),
            (name in tree.candidates, "duplicate", where),
        )
    return tree.scan(LABELS, "mosi")


def detect(root: Path) -> dict[str, str]:
    """The variant whose file is present, if it is the only one."""
    there = [name for name, (file, *_) in VARIANTS.items() if root.is_dir() and _places(root, file)]
    return {"feature_files": there[0]} if len(there) == 1 else {}


def _places(root: Path, name: str) -> list[str]:
    """The paths of files with that name, relative to the root."""
    folders = sorted(path.name for path in root.iterdir() if "mosi" in path.name.casefold())
    places = [Path(base, inner, name) for base in ("", *folders) for inner in ("", "Processed")]
    return [place.as_posix() for place in places if (root / place).is_file()]


def _check(content: Any, path: Path, key_of_ratings: str) -> None:
    """Raises `UsageError` unless all arrays are consistent."""
    keys = ("id", key_of_ratings, *ARRAYS.values())
    widths: dict[str, int] = {}
    for part in PARTS:
        fields = content.get(part) if isinstance(content, dict) else None
        if not isinstance(fields, dict) or any(key not in fields for key in keys):
            raise UsageError(
                f"{path} is not a CMU-MOSI file: {' and '.join(PARTS)} must each be a dict with"
                f" {', '.join(keys)}. {SOURCE}"
            )
        shapes: dict[str, Any] = {}
        for key in keys:
            value = fields[key]
            shapes[key] = (len(value),) if isinstance(value, list) else getattr(value, "shape", ())
        for key in ARRAYS.values():
            if len(shapes[key]) != 3 or fields[key].dtype.kind != "f":
                raise UsageError(f"{path}: {part}/{key} is not an array [clips, rows, values]")
        same = all(widths.setdefault(key, shapes[key][2]) == shapes[key][2] for key in keys[2:])
        if not same or len({shape[:1] for shape in shapes.values()}) != 1 or not shapes["id"]:
            raise UsageError(f"{path}: the arrays of {part} have inconsistent shapes: {shapes}")


def _clip(value: Any) -> tuple[str, str, str]:
    """(id, video, id with times) of an entry under "id"; empty strings if it has none."""
    whole = isinstance(value, (str, bytes))
    try:
        name = value if whole else value[0]
        name = str(name, "utf-8") if isinstance(name, bytes) else name
        name = str(name).strip() if isinstance(name, str) else ""
        name.encode()  # a lone surrogate is not valid text
    except (TypeError, ValueError, IndexError):
        name = ""
    if not name:
        return "", "", ""
    # A YouTube id may contain "_" anywhere.
    video = name.rpartition("$_$" if "$_$" in name else "_")[0] or name
    try:
        start, end = (float(time) for time in value[1:3])
    except (TypeError, ValueError):
        return name, video, name
    timed = not whole and math.isfinite(start + end)
    return name, video, f"{name}_{start:g}_{end:g}" if timed else name


def _label(value: Any, rule: str) -> tuple[int, str]:
    """(label, "") of a rating (a number or one-element array), or (-1, reason)."""
    try:
        rating = float(value if isinstance(value, (int, float)) else value.reshape(()))
    except (AttributeError, TypeError, ValueError):
        rating = math.nan
    if not -HIGHEST <= rating <= HIGHEST:  # also catches NaN
        return -1, f"the rating {rating:g} is not between -3 and 3"
    if rule == "nonzero" and rating == 0:
        return -1, "the rating is 0, which --label_rule nonzero leaves out"
    return int(rating > 0 if rule == "pos_nonpos" else rating >= 0), ""
