"""Reads one pickle with the text, audio and video features of all samples of a dataset.

This is the layout of MulT (github.com/yaohungt/Multimodal-Transformer, src/dataset.py) and of MMSA
(github.com/thuiar/MMSA, <dataset>/Processed): a dict train, valid, test -> dict of arrays [N, L, D]
under "text", "audio", "vision", the labels, and "id": "video$_$clip", or rows of
(b"video_clip", start, end). The parts are the official ones.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from common.options import UsageError
from data_prep.datasets.tree import RawTree
from data_prep.spec import Candidate, Scan, Spec

PARTS = {"train": "train", "valid": "val", "test": "test"}
ARRAYS = {"text": "text", "audio": "audio", "video": "vision"}  # modality -> key
Label = tuple[int, str]  # (label, ""), or (-1, why there is none)


class Variant(NamedTuple):
    """One of the files in which a dataset's features are published, under any of its `names`.

    `labels`: the key of the labels. `rows`: the maximum number of rows of audio and video.
    """

    names: tuple[str, ...]
    labels: str
    rows: int


@dataclass(frozen=True)
class FeatureFiles:
    """The files of a dataset. `name` is also part of the names of folders that contain them.

    Without `needs_ids`, a file may lack "id": then samples are named after their part and row.
    """

    name: str
    title: str
    origin: str
    variants: Mapping[str, Variant]
    needs_ids: bool = True

    @property
    def source(self) -> str:
        return (
            f"{self.title}'s features are at {self.origin}; the root must contain one of"
            f" {', '.join(self.file_names())} (see --feature_files), directly, in Processed, or in"
            f" either place inside a folder with {self.name.upper()} in its name."
        )

    def file_names(self) -> list[str]:
        return [name for variant in self.variants.values() for name in variant.names]

    def places(self, root: Path, variant: str) -> list[str]:
        """The paths of the files of a variant, relative to the root."""
        inside = (path for path in root.iterdir() if self.name in path.name.casefold())
        bases = ["", *sorted(path.name for path in inside)]
        places = [
            Path(base, inner, name)
            for name in self.variants[variant].names
            for base in bases
            for inner in ("", "Processed")
        ]
        return [place.as_posix() for place in places if (root / place).is_file()]

    def detect(self, root: Path) -> dict[str, str]:
        """The variant whose file is present, if it is the only one."""
        there = [name for name in self.variants if root.is_dir() and self.places(root, name)]
        return {"feature_files": there[0]} if len(there) == 1 else {}

    def open(self, root: Path, variant: str) -> tuple[RawTree, str, Any]:
        """(tree with the unknown files beside it as rejects, path of the file, its content).

        Raises `UsageError` if there is no such file, or if it is damaged.
        """
        # Imported here to keep --help fast: it imports datasets, and numpy takes a while.
        from data_prep.modalities.unpickle import load

        places = {name: self.places(root, name) for name in self.variants}
        if not places[variant]:
            there = [f"--feature_files {name}" for name, found in places.items() if found]
            hint = f"; it has files for {' or '.join(there)}" if there else ""
            missing = self.variants[variant].names[0]
            raise UsageError(f"{root} contains no {missing}{hint}. {self.source}")
        tree, (source, *others) = RawTree(root), places[variant]
        tree.reject_beside(str(PurePosixPath(source).parent), self.file_names())
        if others:
            tree.warnings.append(f"{source} is read, and not {', '.join(others)}")
        return tree, source, load(root / source)

    def scan(
        self, root: Path, variant: str, labels: tuple[str, ...], label_of: Callable[[Any], Label]
    ) -> Scan:
        """The rows of the pickle as candidates; raises `UsageError` for a damaged or other file."""
        tree, source, content = self.open(root, variant)
        key_of_labels = self.variants[variant].labels
        self._check(content, root / source, key_of_labels)
        clips = {(p, row): clip for p in PARTS for row, clip in enumerate(_clips(content[p], p))}
        # MulT's rows may only name the video: then one name has clips at different times.
        names = {name for name, _, _ in clips.values()}
        of_videos = len({clip[::2] for clip in clips.values()}) > len(names)
        for (part, row), (name, group, timed) in clips.items():
            where = f"{part}/{row}"
            if of_videos:
                name, group = timed, name
            label, why = label_of(content[part][key_of_labels][row])
            rows = {m: f"{part}/{key}/{row}" for m, key in ARRAYS.items()}
            sources = dict.fromkeys(ARRAYS, (source,))
            tree.take(
                Candidate(name or where, label, sources, group, PARTS[part], rows),
                source,
                (not name, "unknown_name", f"id of {where}"),
                (why, "no_label", f"{where}: {why}"),
                (name in tree.candidates, "duplicate", where),
            )
        return tree.scan(labels, self.name)

    def _check(self, content: Any, path: Path, key_of_labels: str) -> None:
        """Raises `UsageError` unless all arrays are consistent."""
        needed = (*["id"] * self.needs_ids, key_of_labels, *ARRAYS.values())
        widths: dict[str, int] = {}
        for part in PARTS:
            fields = content.get(part) if isinstance(content, dict) else None
            if not isinstance(fields, dict) or any(key not in fields for key in needed):
                raise UsageError(
                    f"{path} is not a {self.title} file: {' and '.join(PARTS)} must each be a dict"
                    f" with {', '.join(needed)}. {self.source}"
                )
            shapes: dict[str, Any] = {}
            for key in (*needed, *fields.keys() & {"id"}):
                value = fields[key]
                is_list = isinstance(value, list)
                shapes[key] = (len(value),) if is_list else getattr(value, "shape", ())
            for key in ARRAYS.values():
                if len(shapes[key]) != 3 or fields[key].dtype.kind != "f":
                    raise UsageError(f"{path}: {part}/{key} is not an array [clips, rows, values]")
                if widths.setdefault(key, shapes[key][2]) != shapes[key][2]:
                    raise UsageError(f"{path}: {key} has vectors of several widths")
            if len({shape[:1] for shape in shapes.values()}) != 1:
                raise UsageError(f"{path}: the arrays of {part} have inconsistent shapes: {shapes}")


def spec(rows: int, origin: str, standardise: bool) -> Spec:
    """Sequences of vectors. -inf and NaN in audio and NaN in video become 0, as in public loaders.

    Pretrained word vectors are not rescaled; audio and video features have different scales.
    """
    from data_prep.modalities.array import Array

    text = Array(50, origin=origin, normalise="none")
    measured = "train" if standardise else "none"
    other = Array(rows, clean=True, origin=origin, normalise=measured)
    return {"text": text, "audio": other, "video": other}


def _clips(fields: dict[str, Any], part: str) -> list[tuple[str, str, str]]:
    """(id, video, id with times) of each row of a part."""
    if "id" in fields:
        return [clip(value) for value in fields["id"]]
    rows = range(len(fields["text"]))
    return [(f"{part}/{row}", "", f"{part}/{row}") for row in rows]


def clip(value: Any) -> tuple[str, str, str]:
    """(id, video, id with times) of an entry under "id"; empty strings if it has none."""
    whole = isinstance(value, (str, bytes))
    try:
        name = value if whole else value[0]
        name = str(name, "utf-8") if isinstance(name, bytes) else name
        name = str(name).strip() if isinstance(name, str) else ""
        name.encode()  # a lone surrogate is not valid text
    except (TypeError, ValueError, LookupError):
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
