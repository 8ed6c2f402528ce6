"""Kinetics-Sounds: 31 sounding classes of Kinetics-400, or others, in all common layouts.

(A) train/ID_SSSSSS_EEEEEE.mp4 with annotations/{train,val,test}.csv; (B) train/CLASS NAME/...;
(C) names without the end time, or without both times. Mixtures of these are read as well.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import digest, shown
from common.options import UsageError, option, unknown
from data_prep.datasets import options
from data_prep.datasets.lists import read_lines, read_records
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import RawTree
from data_prep.spec import Candidate, OwnClasses, Scan, Spec

LABELS = options.classes("kinetics")  # in alphabetical order, as in the lists of OGM-GE and BML
SPLIT_SECOND = 0.66  # 2/3 does not give the paper's sizes
SOURCE = (
    "Kinetics-400 is at github.com/cvdfoundation/kinetics-dataset; the root must have clips named"
    " <YouTube id>[_<start>[_<end>]].mp4 (or mkv, webm, avi), in folders named by class or with"
    " csv lists (label,youtube_id,time_start,time_end,split)."
    " A tree made for the official MIDAS code works as well."
)
# An id has 11 characters, any of which may be "_" or "-", so it is recognised by its length.
NAME = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d{6})_\d{6}|_(\d+))?", re.ASCII)
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")
PARTS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
ORDER = ("train", "val", "test", "")
ID = "youtube_id"  # the column that identifies a csv file as a list


@dataclass(frozen=True)
class Settings:
    """How Kinetics-Sounds is prepared."""

    audio_feature: str = options.audio_feature("fbank")
    sample_rate: int = option(16000, "Hz; the release's files may have 24000", low=8000, high=48000)
    allow_missing: bool = option(False, "keep clips without audio, as silence")
    drop_silent: bool = option(False, "leave out clips with a silent audio track")
    frame_codec: str = options.frame_codec()
    frame_choice: str = options.frame_choice("segments")
    crop: str = options.crop()
    classes: str = option(
        "", "a text file with other Kinetics classes, one a line", source="paper: 31 classes"
    )


def spec(settings: Settings) -> Spec:
    """10 s of audio, [128, 1024] (fbank) or [129, 1251] (stft, 5 s used); 1 frame per second."""
    missing = "fill" if settings.allow_missing else "reject"
    sound = {"missing": missing, "drop_silent": settings.drop_silent}
    sound["sample_rate"] = settings.sample_rate
    stft = {"seconds": 10.0, "n_fft": 256, "hop": 128, "window": 626}
    made = options.clip_spec("kinetics", settings, sound, stft, fps=1.0, max_frames=10)
    return OwnClasses(made, digest(labels_of(settings))) if settings.classes else made


def labels_of(settings: Settings) -> tuple[str, ...]:
    """`LABELS`, or the names in the file `classes`, sorted, so that their order does not matter.

    Raises `UsageError` if the file cannot be read, repeats a name or has fewer than two.
    """
    if not settings.classes:
        return LABELS
    lines = read_lines(Path(settings.classes).expanduser())
    names = sorted(canonical(line) for line in lines if line.strip())
    if len(set(names)) < max(2, len(names)):
        raise UsageError(
            f"--classes {settings.classes} must hold at least two classes, each on one line"
        )
    return tuple(names)


class File(NamedTuple):
    """A clip file: `start` in seconds or None, its `folder` and the one `above` it."""

    path: str
    youtube: str
    start: int | None
    part: str
    folder: str
    above: str


class Row(NamedTuple):
    """A row of a list; `label` is "" in lists of the test part, which withhold it."""

    source: str
    label: str
    part: str
    start: int | None


def canonical(name: str) -> str:
    """A class name in the spelling of `LABELS`: lower case, with single spaces."""
    return " ".join(name.replace("_", " ").lower().split())


def parse_name(name: str) -> tuple[str, int | None] | None:
    """(YouTube id, start in seconds or None) of a file name, or None for another file."""
    path = PurePosixPath(name)
    match = NAME.fullmatch(path.stem)
    if not match or path.suffix.lower() not in SUFFIXES:
        return None
    start = match[2] or match[3]
    return match[1], int(start) if start else None


def scan(root: Path, settings: Settings) -> Scan:
    """All clips of the classes under `root`.

    Raises `UsageError` if there is no clip, or if a name in the file `classes` is neither in a list
    nor the name of a folder.
    """
    labels = labels_of(settings)
    ids = {name: index for index, name in enumerate(labels)}
    if release := find_release(root, "kinetics", LABELS):
        if settings.classes:
            raise UsageError(
                f"--classes does not work with {root / release.base}, made for the official MIDAS"
                " code: its lists number the 31 classes of Kinetics-Sounds"
            )
        return scan_release(release)
    tree, files = RawTree(root), []
    rows: defaultdict[str, list[Row]] = defaultdict(list)  # by YouTube id
    for path in tree.walk():
        name = PurePosixPath(path)
        if parsed := parse_name(name.name):
            parts = [PARTS[folder.lower()] for folder in name.parts[:-1] if folder.lower() in PARTS]
            folder = name.parent.name.lower()
            folder = "" if folder in PARTS else canonical(folder)
            part = parts[0] if parts else ""
            files.append(File(path, *parsed, part, folder, str(name.parent.parent)))
        elif name.suffix.lower() != ".csv" or not _read_list(tree, path, rows):
            tree.reject_unknown(path)
    if not files:
        raise UsageError(f"{root} contains no clips of Kinetics. {SOURCE}")
    if settings.classes:
        known = {row.label for same in rows.values() for row in same} | {f.folder for f in files}
        for label in labels:
            if label not in known:
                what = f"class in --classes {settings.classes}:"
                raise unknown(what, label, sorted(known - {""}))
    outside = _add_clips(tree, files, rows, ids)
    starts = defaultdict(set)
    for file in files:
        starts[file.youtube].add(file.start)
    for youtube, same in rows.items():  # rows without a clip, as after a partial download
        for row in dict.fromkeys(same):
            is_there = any(_may_be(start, row.start) for start in starts[youtube])
            if row.label in ids and not is_there:
                tree.reject(youtube, row.source, "missing_file", row.label)
    if outside:
        tree.warnings.append(
            f"left out {outside.total()} clips of {len(outside)} classes outside the {len(ids)}"
            f" ({min(outside)[:80]!r}, for example)"
        )
    return tree.scan(labels, "" if settings.classes else "kinetics")


def _read_list(tree: RawTree, path: str, rows: defaultdict[str, list[Row]]) -> bool:
    """Adds the rows of a list; False if the file has no column `youtube_id`."""
    header: list[str] = []
    if not (tree.root / path).is_file():
        return False
    for record in read_records(tree.root / path, lambda cells: ID in cells, lambda cells: True):
        if not header:
            header = [cell.strip() for cell in record.cells]
            if ID not in header:
                return False
            continue
        if tree.has_width(record, len(header), path):
            row = dict(zip(header, record.cells))
            try:
                start = int(float(row.get("time_start", "")))
            except (ValueError, OverflowError):  # empty in lists without times; or 1e999
                start = None
            part = PARTS.get(row.get("split", "").strip().lower(), "")
            label = canonical(row.get("label", ""))
            rows[row[ID].strip()].append(Row(path, label, part, start))
    return bool(header)


def _may_be(start: int | None, other: int | None) -> bool:
    """Whether clips with these starts may be the same; None means unknown."""
    return None in (start, other) or start == other


def _add_clips(
    tree: RawTree, files: list[File], rows: dict[str, list[Row]], ids: dict[str, int]
) -> Counter[str]:
    """Adds the clips of the classes in `ids`; returns the number of clips of each other class.

    The class from a list has priority. A file without a start matches any clip of its id.
    """
    found: dict[str, dict[int | None, Candidate]] = {}  # YouTube id -> start ->
    outside: Counter[str] = Counter()
    # A folder name is a class if a sibling folder has one of these names.
    class_level = {file.above for file in files if file.folder in ids}
    for file in sorted(files, key=lambda file: (ORDER.index(file.part), file.path)):
        about = [r for r in rows.get(file.youtube, ()) if _may_be(file.start, r.start)]
        about.sort(key=lambda row: ORDER.index(row.part))
        labels = list(dict.fromkeys(row.label for row in about if row.label))
        folder = file.folder if file.folder in ids or file.above in class_level else ""
        label = labels[0] if labels else folder
        if len(labels) > 1 or folder not in ("", label):
            conflict = f"lists: {', '.join(labels)}; folder: {folder or 'none'}"
            tree.reject(file.youtube, file.path, "label_conflict", conflict)
        if not label:
            tree.reject(file.youtube, file.path, "no_label")
            continue
        if label not in ids:
            outside[label] += 1
            continue
        clips = found.setdefault(file.youtube, {})
        same = clips.get(file.start)
        paths: tuple[str, ...] = (file.path,)
        if same and same.label == ids[label]:
            # The official extractor leaves a broken file in train/ and its fix in replacement/.
            paths = (*same.sources["video"], file.path)
            tree.reject(file.youtube, file.path, "second_file", paths[0])
        elif clips and (file.start is None or None in clips or same):
            first = next(iter(clips.values())).sources["video"][0]
            tree.reject(file.youtube, file.path, "duplicate", first)
            continue
        part = file.part or next((row.part for row in about if row.part), "")
        part, sources = same.part if same else part, {"audio": paths, "video": paths}
        clips[file.start] = Candidate(file.youtube, ids[label], sources, file.youtube, part)
    for clips in found.values():
        for start, clip in clips.items():
            name = clip.id if len(clips) == 1 else f"{clip.id}_{start:06d}"
            tree.take(replace(clip, id=name), clip.sources["video"][0])
    return outside


def scan_release(tree: ReleaseTree) -> Scan:
    """audios/<name>.wav and videos/<name>/ of the clips in two lists: name, start, end, label.

    The release treats the first line of each list as a header and loses that sample.
    """

    def split(line: str) -> list[str]:
        fields = line.split()
        return fields if re.fullmatch(r"\d{1,9}", fields[-1], re.ASCII) else []

    used, lost = set(), []
    for row in tree.rows(split, ("name", "start", "end", "label"), loses=True):
        name, label = row.fields[0], int(row.key)
        used.add(name)
        lost += [shown(name, 80)] if row.header else []
        wav, frames = tree.path("audios", f"{name}.wav"), tree.path("videos", name)
        named = NAME.fullmatch(PurePosixPath(name).name)
        group, label = named[1] if named else name, label if label < len(LABELS) else -1
        sources = {"audio": (wav,), "video": (frames,)}
        candidate = Candidate(name, label, sources, group, row.part)
        tree.add(row, candidate, name=name, word=row.key)
    outer = {name.split("/")[0] for name in used}  # a name may contain a folder
    tree.reject_others("audios", outer | {f"{name}.wav" for name in used}, ".wav")
    tree.reject_others("videos", outer | {"train.txt", "val.txt"})
    if lost:
        tree.warnings.append(
            "the official code treats the first line of each list as a header: with --split_rule"
            f" release, {' and '.join(lost)} will be in no part"
        )
    return tree.result()
