"""Kinetics-Sounds: the 31 sounding classes of Kinetics-400, in the trees in which it is found.

(A) train/ID_SSSSSS_EEEEEE.mp4 with annotations/{train,val,test}.csv; (B) train/CLASS NAME/...;
(C) names without the end, or without both times. Mixtures of them are read as well.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import shown
from common.options import UsageError, option
from data_prep.datasets import options
from data_prep.datasets.lists import read_records, refuse_line
from data_prep.datasets.release import SHOWN, ReleaseTree, find_release
from data_prep.datasets.release import Row as ReleaseRow
from data_prep.datasets.tree import RawTree
from data_prep.spec import Candidate, Rejection, Scan, Spec

# The 31 classes in alphabetical order, which is the order of ids of OGM-GE's and BML's lists.
LABELS = (
    "blowing nose", "blowing out candles", "bowling", "chopping wood", "dribbling basketball",
    "laughing", "mowing lawn", "playing accordion", "playing bagpipes", "playing bass guitar",
    "playing clarinet", "playing drums", "playing guitar", "playing harmonica", "playing keyboard",
    "playing organ", "playing piano", "playing saxophone", "playing trombone", "playing trumpet",
    "playing violin", "playing xylophone", "ripping paper", "shoveling snow", "shuffling cards",
    "singing", "stomping grapes", "tap dancing", "tapping guitar", "tapping pen", "tickling",
)  # fmt: skip
IDS = {name: index for index, name in enumerate(LABELS)}
SPLIT_SECOND = 0.66  # 2/3 does not give the paper's sizes
SOURCE = (
    "Kinetics-400 is at github.com/cvdfoundation/kinetics-dataset; the root must hold clips named"
    " <YouTube id>[_<start>[_<end>]].mp4 (or mkv, webm, avi), in folders named by class or with"
    " csv lists (label,youtube_id,time_start,time_end,split)."
    " A tree made for the official MIDAS code does as well."
)
# An id has 11 characters, which may be "_" and "-" at any place: it is cut off by length.
NAME = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d{6})_\d{6}|_(\d+))?", re.ASCII)
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")
PARTS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
ORDER = ("train", "val", "test", "")
NUMBER = re.compile(r"\d{1,9}", re.ASCII)  # a class
ID = "youtube_id"  # the column by which a csv file is known to be a list


@dataclass(frozen=True)
class Settings:
    """How Kinetics-Sounds is prepared."""

    audio_feature: str = options.audio_feature_option()
    sample_rate: int = option(
        16000, "of the stored sound, Hz", low=8000, high=48000,
        source="published preparations; the official release's files probably have 24000",
    )  # fmt: skip
    allow_missing: bool = option(False, "keep clips without sound, as silence")
    drop_silent: bool = option(False, "leave out clips whose sound track is silent")
    frame_codec: str = option("jpeg", "how frames are stored", choices=("jpeg", "raw"))
    frame_choice: str = options.frame_choice_option("segments")
    crop: str = options.crop_option()


def spec(settings: Settings) -> Spec:
    """10 s of audio, [128, 1024] (fbank) or [129, 1251] (stft); 1 frame a second, at most 10.

    The model sees the whole filter bank, normalised by the official release's constants, or 5 s of
    the STFT as they are, and one frame of each third of the clip.
    """
    from data_prep.modalities.audio import Audio
    from data_prep.modalities.video import Video

    missing = "fill" if settings.allow_missing else "reject"
    sound = {"sample_rate": settings.sample_rate, "missing": missing}
    sound["drop_silent"] = settings.drop_silent
    if settings.audio_feature == "fbank":
        audio = Audio(**options.FBANK | sound, normalise=options.FBANK_CONSTANTS)
    else:
        audio = Audio("stft", seconds=10.0, n_fft=256, hop=128, window=626, **sound)
    video = Video(
        fps=1.0,
        max_frames=10,
        codec=settings.frame_codec,
        of_folder=options.FOLDER_FRAMES,
        augment=options.CROPS[settings.crop],
        choice="kinetics" if settings.frame_choice == "release" else "segments",
    )
    return {"audio": audio, "video": video}


class File(NamedTuple):
    """A clip by name and place: `start` in seconds or None, `folder` as a class name."""

    path: str
    youtube: str
    start: int | None
    part: str
    folder: str


class Row(NamedTuple):
    """A row of a list; `label` is "" in lists of the test part, which keep it back."""

    source: str
    label: str
    part: str
    start: int | None


def canonical(name: str) -> str:
    """A class name in the spelling of `LABELS`: lower case, single spaces for "_" and blanks."""
    return " ".join(name.replace("_", " ").lower().split())


def parse_name(name: str) -> tuple[str, int | None] | None:
    """(YouTube id, start in seconds or None) of a file name, or None if it is no clip's."""
    path = PurePosixPath(name)
    match = NAME.fullmatch(path.stem)
    if not match or path.suffix.lower() not in SUFFIXES:
        return None
    start = match[2] or match[3]
    return match[1], int(start) if start else None


def scan(root: Path, settings: Settings) -> Scan:
    """All clips of the 31 classes under `root`; raises `UsageError` if there is none."""
    if release := find_release(root, "kinetics", LABELS):
        return scan_release(release)
    tree = RawTree(root)
    files, rows = _read_tree(tree)
    if not files:
        raise UsageError(f"{root} holds no clip of Kinetics. {SOURCE}")
    files.sort(key=lambda file: (ORDER.index(file.part), file.path))
    # A folder is named by a class if a folder beside it has one of the 31 names.
    class_level = {str(PurePosixPath(f.path).parents[1]) for f in files if f.folder in IDS}
    clips: dict[str, dict[int | None, Candidate]] = {}  # YouTube id -> start ->
    outside: Counter[str] = Counter()
    for file in files:
        matching = _rows_of(file, rows.get(file.youtube, []))
        label = _label(tree, file, matching, class_level)
        if not label:
            tree.reject(file.youtube, file.path, "no_label")
        elif label not in IDS:
            outside[label] += 1
        else:
            part = file.part or next((row.part for row in matching if row.part), "")
            _add(tree, clips.setdefault(file.youtube, {}), file, IDS[label], part)
    _reject_missing(tree, files, rows)
    candidates = [
        candidate if len(same) == 1 else replace(candidate, id=f"{candidate.id}_{start:06d}")
        for same in clips.values()
        for start, candidate in same.items()
    ]
    tree.warn_of_count("kinetics", len(candidates))
    if outside:
        tree.warnings.append(
            f"{outside.total()} clips of {len(outside)} classes outside the 31 left out"
            f" ({min(outside)[:80]!r}, for example)"
        )
    return tree.scan(LABELS, candidates)


def _read_tree(tree: RawTree) -> tuple[list[File], dict[str, list[Row]]]:
    """The clips, and the lists' rows by YouTube id in the order of their parts."""
    files: list[File] = []
    rows: dict[str, list[Row]] = {}
    for path in tree.walk():
        name = PurePosixPath(path)
        parsed = parse_name(name.name)
        if parsed:
            parts = [PARTS[folder.lower()] for folder in name.parts[:-1] if folder.lower() in PARTS]
            folder = name.parent.name.lower()
            folder = "" if folder in PARTS else canonical(folder)
            files.append(File(path, *parsed, parts[0] if parts else "", folder))
        elif name.suffix.lower() != ".csv" or not _read_list(tree, path, rows):
            tree.reject_unknown(path)
    for same in rows.values():
        same.sort(key=lambda row: ORDER.index(row.part))
    return files, rows


def _read_list(tree: RawTree, path: str, rows: dict[str, list[Row]]) -> bool:
    """Adds the rows of a list; False for a file that has no column `youtube_id`."""
    header: list[str] = []
    if not (tree.root / path).is_file():
        return False
    for record in read_records(tree.root / path, lambda cells: ID in cells, lambda cells: True):
        if not header:
            header = [cell.strip() for cell in record.cells]
            if ID not in header:
                return False
            continue
        has_width = len(record.cells) == len(header)
        if wrong := record.wrong(len(header)):
            place, reason = f"line {record.line}", "open_quote" if has_width else "bad_line"
            refuse_line(tree.rejected, Rejection(place, path, reason, f"{place}: {wrong}"))
        if has_width:
            row = dict(zip(header, record.cells))
            part = PARTS.get(row.get("split", "").strip().lower(), "")
            label, start = canonical(row.get("label", "")), _seconds(row.get("time_start", ""))
            rows.setdefault(row[ID].strip(), []).append(Row(path, label, part, start))
    return bool(header)


def _seconds(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):  # an empty field, in lists without times; or 1e999
        return None


def _rows_of(file: File, rows: list[Row]) -> list[Row]:
    """The rows about this clip: of its id, and of its start if both give one."""
    return [row for row in rows if None in (file.start, row.start) or file.start == row.start]


def _label(tree: RawTree, file: File, rows: list[Row], class_level: set[str]) -> str:
    """The class of a clip, "" if none is known. A list's goes before the folder's."""
    labels = list(dict.fromkeys(row.label for row in rows if row.label))
    label = labels[0] if labels else ""
    grandparent = str(PurePosixPath(file.path).parent.parent)
    folder = file.folder if file.folder in IDS or grandparent in class_level else ""
    conflict = ""
    if label and folder and label != folder:
        conflict = f"list: {label}, folder: {folder}"
    elif len(labels) > 1:
        conflict = f"lists: {', '.join(labels)}"
    if conflict:
        tree.reject(file.youtube, file.path, "label_conflict", conflict)
    return label or folder


def _add(
    tree: RawTree, clips: dict[int | None, Candidate], file: File, label: int, part: str
) -> None:
    """Adds a file to the clips of its YouTube id, which differ in their start."""
    same = clips.get(file.start)
    if same and same.label == label:
        # As the official extractor leaves it: broken in train/, mended in replacement/.
        paths = (*same.sources["video"], file.path)
        clips[file.start] = replace(same, sources={"audio": paths, "video": paths})
        tree.reject(file.youtube, file.path, "second_file", paths[0])
    # A file whose name gives no start may be any clip of the id.
    elif clips and (file.start is None or None in clips or same):
        first = next(iter(clips.values())).sources["video"][0]
        tree.reject(file.youtube, file.path, "duplicate", first)
    else:
        sources = {"audio": (file.path,), "video": (file.path,)}
        clips[file.start] = Candidate(file.youtube, label, sources, file.youtube, part)


def _reject_missing(tree: RawTree, files: list[File], rows: dict[str, list[Row]]) -> None:
    """Rejects the rows of the 31 classes without a clip, as after a partial download."""
    starts: dict[str, set[int | None]] = {}
    for file in files:
        starts.setdefault(file.youtube, set()).add(file.start)
    for youtube, same in rows.items():
        there = starts.get(youtube, set())
        for row in dict.fromkeys(same):
            is_there = row.start in there or None in there or (there and row.start is None)
            if row.label in IDS and not is_there:
                tree.reject(youtube, row.source, "missing_file", row.label)


def scan_release(tree: ReleaseTree) -> Scan:
    """audios/<name>.wav and videos/<name>/ of the clips of two lists: name, start, end, label.

    The release takes the first line of each list for a header: under the split rule `release` a
    sample there is in no part, under the others it is one like the rest.
    """
    used, lost = set(), []
    for part in ("train", "val"):
        first = True
        for source, place, line in tree.lines(f"videos/{part}.txt"):
            fields = line.split()
            if len(fields) == 4 and NUMBER.fullmatch(fields[3]):
                used.add(fields[0])
                lost += [fields[0]] if first else []
                _add_release(tree, ReleaseRow(source, place, fields, fields[3], first), part)
            elif first and not NUMBER.fullmatch(fields[-1]):
                tree.reject(place, source, "header_line", line[:SHOWN])
            else:
                tree.reject(place, source, "bad_line", line[:SHOWN])
            first = False
    outer = {name.split("/")[0] for name in used}  # a name may lead into a folder
    tree.reject_others("audios", outer | {f"{name}.wav" for name in used}, ".wav")
    tree.reject_others("videos", outer | {"train.txt", "val.txt"})
    found = tree.result()
    if lost:
        found.warnings.append(
            "the official code takes the first line of each list for a header: under --split_rule"
            f" release, {' and '.join(shown(name, SHOWN) for name in lost)} in no part"
        )
    return found


def _add_release(tree: ReleaseTree, row: ReleaseRow, part: str) -> None:
    name, label = row.fields[0], int(row.key)
    wav, folder = tree.path("audios", f"{name}.wav"), tree.path("videos", name)
    named = NAME.fullmatch(PurePosixPath(name).name)
    sources = {"audio": (wav,), "video": (folder,)}
    tree.add(
        row,
        Candidate(name, label, sources, named[1] if named else name, part),
        name=name,
        unknown_class="" if label < len(LABELS) else row.key,
        files=[wav],
        folders=[folder],
    )
