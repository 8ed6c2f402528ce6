"""Kinetics-Sounds: the 31 sounding classes of Kinetics-400, in the trees in which it is found.

(A) train/ID_SSSSSS_EEEEEE.mp4 with annotations/{train,val,test}.csv; (B) train/CLASS NAME/...;
(C) names without the end, or without both times. Mixtures of them are read as well.
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets.csv_rows import columns_wrong, read_records, refuse_line
from data_prep.datasets.options import (
    CROPS,
    FBANK,
    FBANK_CONSTANTS,
    FOLDER_FRAMES,
    audio_feature_option,
    crop_option,
    frame_choice_option,
)
from data_prep.datasets.release_lists import release_scan
from data_prep.datasets.walk import count_warnings, walk
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
ID = "youtube_id"  # the column by which a csv file is known to be a list


@dataclass(frozen=True)
class Settings:
    """How Kinetics-Sounds is prepared."""

    audio_feature: str = audio_feature_option()
    sample_rate: int = option(
        16000, "of the stored sound, Hz", low=8000, high=48000,
        source="the field; the official release's own files probably have 24000 (an inference)",
    )  # fmt: skip
    allow_missing: bool = option(False, "keep clips without sound, as silence")
    drop_silent: bool = option(False, "leave out clips whose sound track is silent")
    frame_codec: str = option("jpeg", "how frames are stored", choices=("jpeg", "raw"))
    frame_choice: str = frame_choice_option("segments")
    crop: str = crop_option()


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
        audio = Audio(**FBANK | sound, normalise=FBANK_CONSTANTS)
    else:
        audio = Audio("stft", seconds=10.0, n_fft=256, hop=128, window=626, **sound)
    video = Video(
        fps=1.0,
        max_frames=10,
        codec=settings.frame_codec,
        of_folder=FOLDER_FRAMES,
        augment=CROPS[settings.crop],
        choice="kinetics" if settings.frame_choice == "release" else "segments",
    )
    return {"audio": audio, "video": video}


class File(NamedTuple):
    """A clip by name and place: `start` in seconds, None if untold; `folder` as a class name."""

    path: str
    youtube: str
    start: int | None
    part: str
    folder: str


class Row(NamedTuple):
    """A line of a list; `label` is "" in lists of the test part that keep it back."""

    source: str
    label: str
    part: str
    start: int | None


@dataclass
class _Findings:
    """What becomes of the files, while they are gone through."""

    clips: dict[str, dict[int | None, Candidate]] = field(default_factory=dict)  # id -> start ->
    rejected: list[Rejection] = field(default_factory=list)
    outside: Counter = field(default_factory=Counter)  # class -> files


def canonical(name: str) -> str:
    """A class name in the spelling of `LABELS`: lower case, single spaces for "_" and blanks."""
    return " ".join(name.replace("_", " ").lower().split())


def parse_name(name: str) -> tuple[str, int | None] | None:
    """(YouTube id, start in seconds or None) of a file name, or None where it is no clip's."""
    path = PurePosixPath(name)
    match = NAME.fullmatch(path.stem)
    if not match or path.suffix.lower() not in SUFFIXES:
        return None
    start = match[2] or match[3]
    return match[1], int(start) if start else None


def scan(root: Path, settings: Settings) -> Scan:
    """All clips of the 31 classes under `root`; raises `UsageError` where it holds no clip."""
    if (found := release_scan(root, "kinetics")) is not None:
        return found
    files, rows, findings = _read_tree(root)
    if not files:
        raise UsageError(f"{root} holds no clip of Kinetics. {SOURCE}")
    files.sort(key=lambda file: (ORDER.index(file.part), file.path))
    # A folder is named by a class if a folder beside it bears one of the 31 names.
    class_level = {str(PurePosixPath(f.path).parents[1]) for f in files if f.folder in IDS}
    for file in files:
        matches = _rows_of(file, rows.get(file.youtube, []))
        _judge(file, matches, class_level, findings)
    findings.rejected += _without_file(files, rows)
    candidates = [
        candidate if len(clips) == 1 else _with_start(candidate, start)
        for clips in findings.clips.values()
        for start, candidate in clips.items()
    ]
    candidates.sort(key=lambda candidate: candidate.id)
    warnings = count_warnings("kinetics", len(candidates))
    if findings.outside:
        count, example = findings.outside.total(), min(findings.outside)
        warnings.append(
            f"{count} clips of {len(findings.outside)} classes outside the 31 left out"
            f" ({example[:80]!r}, for example)"
        )
    return Scan(LABELS, candidates, findings.rejected, warnings)


def _read_tree(root: Path) -> tuple[list[File], dict[str, list[Row]], _Findings]:
    """The clips, the lists' rows by YouTube id (in the parts' order), and what is neither."""
    files, rows, findings = [], {}, _Findings()
    for path in walk(root):
        name = PurePosixPath(path)
        parsed = parse_name(name.name)
        if parsed:
            parts = [PARTS[folder.lower()] for folder in name.parts[:-1] if folder.lower() in PARTS]
            folder = name.parent.name.lower()
            folder = "" if folder in PARTS else canonical(folder)
            files.append(File(path, *parsed, parts[0] if parts else "", folder))
        elif name.suffix.lower() != ".csv" or not _read_list(root, path, rows, findings.rejected):
            findings.rejected.append(Rejection(name.stem, path, "unknown_name"))
    for same in rows.values():
        same.sort(key=lambda row: ORDER.index(row.part))
    return files, rows, findings


def _read_list(
    root: Path, path: str, rows: dict[str, list[Row]], rejected: list[Rejection]
) -> bool:
    """Adds the rows of the list root/path; False for a file that names no youtube_id."""
    header: list[str] = []
    if not (root / path).is_file():
        return False
    for record in read_records(root / path, lambda cells: ID in cells, lambda cells: True):
        if not header:
            header = [cell.strip() for cell in record.cells]
            if ID not in header:
                return False
            continue
        wrong = columns_wrong(record, len(header))
        row = dict(zip(header, record.cells)) if len(record.cells) == len(header) else {}
        if wrong:
            name, detail = f"line {record.line}", f"line {record.line}: {wrong}"
            reason = "open_quote" if row else "bad_line"
            refuse_line(rejected, Rejection(name, path, reason, detail))
        if row:
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
    """The rows that speak of this clip: of its id, and of its start if both tell one."""
    return [row for row in rows if None in (file.start, row.start) or file.start == row.start]


def _judge(file: File, rows: list[Row], class_level: set[str], findings: _Findings) -> None:
    """Makes a clip a candidate or finds why not. A list's label goes before the folder's."""
    labels = list(dict.fromkeys(row.label for row in rows if row.label))
    label = labels[0] if labels else ""
    grandparent = str(PurePosixPath(file.path).parent.parent)
    folder = file.folder if file.folder in IDS or grandparent in class_level else ""
    if label and folder and label != folder:
        detail = f"list: {label}, folder: {folder}"
        findings.rejected.append(Rejection(file.youtube, file.path, "label_conflict", detail))
    elif len(labels) > 1:
        detail = f"lists: {', '.join(labels)}"
        findings.rejected.append(Rejection(file.youtube, file.path, "label_conflict", detail))
    label = label or folder
    if not label:
        findings.rejected.append(Rejection(file.youtube, file.path, "no_label"))
        return
    if label not in IDS:
        findings.outside[label] += 1
        return
    clips = findings.clips.setdefault(file.youtube, {})
    same = clips.get(file.start)
    if same and same.label == IDS[label]:
        # As the official extractor leaves it: broken in train/, mended in replacement/.
        paths = (*same.sources["video"], file.path)
        clips[file.start] = replace(same, sources={"audio": paths, "video": paths})
        findings.rejected.append(Rejection(file.youtube, file.path, "second_file", paths[0]))
        return
    # A name that does not tell its start may be any of the id's clips.
    if clips and (file.start is None or None in clips or same):
        first = next(iter(clips.values())).sources["video"][0]
        findings.rejected.append(Rejection(file.youtube, file.path, "duplicate", first))
        return
    part = file.part or next((row.part for row in rows if row.part), "")
    sources = {"audio": (file.path,), "video": (file.path,)}
    clips[file.start] = Candidate(file.youtube, IDS[label], sources, file.youtube, part)


def _with_start(candidate: Candidate, start: int) -> Candidate:
    """The candidate under an id of its own, where a YouTube id has several clips."""
    name = f"{candidate.id}_{start:06d}"
    return Candidate(name, candidate.label, candidate.sources, candidate.group, candidate.part)


def _without_file(files: list[File], rows: dict[str, list[Row]]) -> list[Rejection]:
    """The rows of the 31 classes of which no clip is there, as after a partial download."""
    starts: dict[str, set[int | None]] = {}
    for file in files:
        starts.setdefault(file.youtube, set()).add(file.start)
    missing = []
    for youtube, same in rows.items():
        there = starts.get(youtube, set())
        for row in dict.fromkeys(same):
            if row.label not in IDS or row.start in there or None in there:
                continue
            if there and row.start is None:
                continue
            missing.append(Rejection(youtube, row.source, "missing_file", row.label))
    return missing
