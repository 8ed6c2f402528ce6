"""VGG-Sound: clips of 10 s from YouTube, 309 classes, with the authors' list vggsound.csv.

    YouTube id,start in seconds,class,train|test        (no header; classes may contain commas)

A clip is <id>_<start>.mp4, its start padded to six digits or not. It may be anywhere below the
root, since class and part come from the list alone. Its sound may be in a separate wav or flac
file, and its frames may be in a folder of its name. Read for this: the lists of hche11/VGGSound;
the trees of OGM-GE ({train,test}-videos, {train,test}-audios, Image-01-FPS/<clip>.mp4/) and its
followers, BalanceBenchmark's frames, and the archives on Hugging Face. Downloads by audiosetdl,
<id>_<start>_<end>.mp4 in milliseconds, are read too; spectrograms as .npy are not.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets import kinetics, options
from data_prep.datasets.lists import read_records
from data_prep.datasets.tree import Index, RawTree
from data_prep.spec import SEPARATOR, Candidate, Scan, Spec

LABELS = options.classes("vggsound")  # in alphabetical order, as public readers number them
SPLIT_SECOND = 2 / 3
SPLIT_RULE = "official"
LIST = "vggsound.csv"
SOURCE = (
    "VGG-Sound's list is at github.com/hche11/VGGSound, and copies of its clips are at"
    f" huggingface.co/datasets/Loie/VGGSound; the root must contain {LIST} and clips named"
    " <YouTube id>_<start in seconds>.mp4 (or mkv, webm, avi), or folders of their frames with"
    " wav or flac files of their sound."
)
NAME = re.compile(r"([A-Za-z0-9_-]{11})_(\d{1,9})(?:_(\d{1,9}))?", re.ASCII)
CLIP_MS = 10_000
KINDS = {  # kind of source -> its endings; "frames" are folders of such files
    "sound": (".wav", ".flac"),
    "movie": kinetics.SUFFIXES,
    "frames": (".jpg", ".jpeg", ".png"),
}
PARTS = ("train", "test")


@dataclass(frozen=True)
class Settings:
    """How VGG-Sound is prepared."""

    audio_feature: str = options.audio_feature("stft", source="OGM-GE, BalanceBenchmark")
    allow_missing: bool = option(False, "keep clips without audio, as silence")
    drop_silent: bool = option(False, "leave out clips with a silent audio track")


def spec(settings: Settings) -> Spec:
    """As for Kinetics-Sounds: 10 s of audio, [129, 1251] (stft, 5 s used); 1 frame per second."""
    return kinetics.spec(kinetics.Settings(**vars(settings)))


class Row(NamedTuple):
    """A row of the list: `label` is -1 for an unknown class, which `detail` names."""

    label: int
    part: str
    detail: str


def plain(name: str) -> str:
    """A class name without anything that copies of it change: its letters in lower case."""
    return re.sub("[^a-z]", "", name.lower())


IDS = {plain(name): index for index, name in enumerate(LABELS)}


def clip_of(name: str) -> str | None:
    """<id>_<six digits>, the sample's id, of a name without ending; None for another name."""
    match = NAME.fullmatch(name)
    if not match:
        return None
    start, end = int(match[2]), int(match[3] or 0)
    if match[3]:
        if end - start != CLIP_MS:
            return None
        start //= 1000
    return f"{match[1]}_{start:06d}"


def scan(root: Path, settings: Settings) -> Scan:
    """The listed clips under `root`; raises `UsageError` if there is no list or no clip."""
    tree = RawTree(root)
    paths = tree.walk()
    lists = [path for path in paths if PurePosixPath(path).name.lower() == LIST]
    lists.sort(key=lambda path: path.count("/"))  # of copies, the one nearest to the root is read
    if not lists:
        raise UsageError(f"{root} contains no {LIST}. {SOURCE}")
    found = _index(tree, [path for path in paths if path not in lists])
    if not any(found.values()):
        raise UsageError(f"{root} contains no clips of VGG-Sound. {SOURCE}")
    for other in lists[1:]:
        tree.reject(LIST, other, "second_file", lists[0])
    rows, missing = _read(tree, lists[0]), Counter[str]()
    for clip, row in rows.items():
        sound, movie, frames = (files.get(clip, ()) for files in found.values())
        audio, video = sound + movie, movie + frames
        if not audio and not video:
            missing[row.part] += 1
            tree.reject(clip, lists[0], "missing_file", row.detail)
            continue
        tree.take(
            Candidate(clip, row.label, {"audio": audio, "video": video}, clip[:11], row.part),
            SEPARATOR.join(dict.fromkeys(video + audio)),
            (row.label < 0, "no_label", row.detail),
            (not audio, "missing_file", "a folder of frames without a file of its sound"),
            (not video, "missing_file", "a file of sound without a clip or a folder of frames"),
        )
    for files in found.values():
        tree.reject_unlisted(files, rows)
    if missing:
        count = Counter(row.part for row in rows.values())
        which = " and ".join(f"{missing[p]} of {count[p]} {p}" for p in PARTS)
        tree.warnings.append(
            f"{which} clips of {lists[0]} have no file (YouTube removes videos): results are only"
            " comparable with those on the same clips"
        )
    tree.add_val()
    return tree.scan(LABELS, "vggsound")


def _index(tree: RawTree, paths: list[str]) -> dict[str, Index]:
    """The sources of each clip by kind; a folder of frames is one source. Rejects other files."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}
    for path in paths:
        name, source = PurePosixPath(path), None
        kind = next((kind for kind, ends in KINDS.items() if name.suffix.lower() in ends), "")
        if kind == "frames":
            source = name.parent
        elif kind:
            source = name
        if source and _key(source):
            found[kind][str(source)] = None
        else:
            tree.reject_unknown(path)
    return {kind: tree.index(sources, _key) for kind, sources in found.items()}


def _key(path: PurePosixPath) -> str | None:
    return clip_of(path.stem)


def _read(tree: RawTree, source: str) -> dict[str, Row]:
    """The rows of the list by clip; of several rows of a clip, the first counts."""
    rows: dict[str, Row] = {}
    is_first = True

    def is_row(cells: list[str]) -> bool:
        return len(cells) == 4 and cells[3].strip().lower() in PARTS

    for record in read_records(tree.root / source, is_row, is_row):
        if not tree.has_width(record, 4, source):
            continue
        youtube, start, label, part = (cell.strip() for cell in record.cells)
        clip, place = clip_of(f"{youtube}_{start}"), f"line {record.line}"
        is_header, is_first = is_first and not clip and not is_row(record.cells), False
        if is_header:  # of copies
            continue
        if not clip or not is_row(record.cells):
            tree.reject(place, source, "bad_line", f"{place}: {','.join(record.cells)[:80]!r}")
        elif clip in rows:
            tree.reject(clip, source, "duplicate", f"{place}; {rows[clip].detail} was used")
        else:
            rows[clip] = Row(IDS.get(plain(label), -1), part.lower(), f"{place}: {label[:80]!r}")
    return rows
