"""AVE: 10 s clips of audible and visible events, 28 classes, by lists whose fields "&" divides.

    Category&VideoID&Quality&StartTime&EndTime

Annotations.txt has every row; trainSet.txt, valSet.txt and testSet.txt have those of the official
parts. A header may stand in any of them (the download has one in Annotations.txt; the copy in the
authors' repository, YapengTian/AVE-ECCV18, has none). Sound and frames are prepared as those of
Kinetics-Sounds in its "stft" form.

Frames are taken inside the event, as by ARL (shicaiwei123/ICCV2025-ARL), sound of the whole clip.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets import kinetics
from data_prep.datasets.lines import read_lines
from data_prep.datasets.walk import walk
from data_prep.spec import Candidate, Rejection, Scan, Spec

# The category names of YapengTian/AVE-ECCV18: data/Annotations.txt, in alphabetical order, which is
# our choice: ARL numbers them by first appearance in testSet.txt.
LABELS = (
    "Accordion", "Acoustic guitar", "Baby cry, infant cry", "Banjo", "Bark", "Bus", "Cat",
    "Chainsaw", "Church bell", "Clock", "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane", "Flute", "Frying (food)", "Goat", "Helicopter", "Horse",
    "Male speech, man speaking", "Mandolin", "Motorcycle", "Race car, auto racing",
    "Rodents, rats, mice", "Shofar", "Toilet flush", "Train horn", "Truck", "Ukulele",
    "Violin, fiddle",
)  # fmt: skip
IDS = {name.casefold(): index for index, name in enumerate(LABELS)}
SPLIT_SECOND = 2 / 3
SPLIT_RULE = "official"
SOURCE = (
    "AVE is linked at github.com/YapengTian/AVE-ECCV18; the root must hold Annotations.txt,"
    " trainSet.txt, valSet.txt and testSet.txt, and clips named <YouTube id>.mp4 in the folder AVE."
)
# The parts before the list of all, so that a row's part is known when it is met first.
LISTS = {"trainSet.txt": "train", "valSet.txt": "val", "testSet.txt": "test", "Annotations.txt": ""}
HEADER = ("category", "videoid", "quality", "starttime", "endtime")
MAX_SHOWN = 80  # characters of a list's words in a message


@dataclass(frozen=True)
class Settings:
    """How AVE is prepared."""

    allow_missing: bool = option(False, "keep clips without sound, as silence")
    drop_silent: bool = option(False, "leave out clips whose sound track is silent")
    every_event: bool = option(
        False,
        "a sample for each row of the lists: those of a video with several are <video>_<k>, in one"
        " group (off: the first row of a video alone)",
        source="our choice; the field counts all rows",
    )


def _as_kinetics(settings: Settings) -> kinetics.Settings:
    """The settings of Kinetics-Sounds that give the same preparation."""
    return kinetics.Settings(
        audio_feature="stft",
        allow_missing=settings.allow_missing,
        drop_silent=settings.drop_silent,
    )


def spec(settings: Settings) -> Spec:
    """10 s of audio, [129, 1251], of which the model sees 5 s as they are.

    1 frame a second of the event, at most 10; the model sees one of each third of it.
    """
    return kinetics.spec(_as_kinetics(settings))


class Row(NamedTuple):
    """A line of a list: `place` says where it stands, `part` which part that list is of."""

    source: str
    place: str
    part: str
    category: str
    youtube: str
    start: str
    end: str

    @property
    def event(self) -> tuple:
        """What equal rows of two lists share, 9 and 9.0 seconds among them."""
        times = (self.start, self.end)
        seconds = map(float, times) if _has_length(*times) else times
        return self.youtube, self.category.casefold(), *seconds


@dataclass
class _Events:
    """What the lists tell: the usable rows of each video, and those that cannot be used."""

    taken: dict[str, list[Row]] = field(default_factory=dict)
    places: dict[tuple[str, ...], str] = field(default_factory=dict)  # of the events that are taken
    refused: list[Rejection] = field(default_factory=list)


def scan(root: Path, settings: Settings) -> Scan:
    """The listed clips under `root`; raises `UsageError` where it holds no lists or no clip."""
    base = _find_base(root)
    clips, rejected = _find_clips(root, base)
    if not clips:
        raise UsageError(f"{root} holds no clip of AVE. {SOURCE}")
    events = _read_events(root, base)
    warnings = [] if settings.every_event else _only_first(events)
    candidates = []
    for youtube, paths in sorted(clips.items()):
        rows = events.taken.get(youtube, [])
        if not rows:
            rejected.append(_without_event(youtube, paths[0], events.refused))
        for number, row in enumerate(rows, 1):
            name = youtube if len(rows) == 1 else f"{youtube}_{number}"
            sources = {"audio": paths, "video": paths}
            label = IDS[row.category.casefold()]
            window = {"video": [float(row.start), float(row.end)]}
            candidates.append(Candidate(name, label, sources, youtube, row.part, window))
    # Of a clip without any event the line above tells it all.
    rejected += [r for r in events.refused if r.id in events.taken or r.id not in clips]
    rejected += [
        Rejection(youtube, row.source, "missing_file", f"{row.place}: {row.category}")
        for youtube, rows in events.taken.items()
        if youtube not in clips
        for row in rows
    ]
    candidates.sort(key=lambda candidate: candidate.id)
    return Scan(LABELS, candidates, rejected, warnings + _warnings(candidates))


def _only_first(events: _Events) -> list[str]:
    """Leaves the first row of each video, and says how many rows that costs."""
    rows = Counter(row.part for same in events.taken.values() for row in same)
    for same in events.taken.values():
        for row in same[1:]:
            detail = f"{row.place}: {_event(row)}; {same[0].place} was taken"
            events.refused.append(Rejection(row.youtube, row.source, "duplicate", detail))
        del same[1:]
    kept = Counter(same[0].part for same in events.taken.values())
    if kept == rows:
        return []
    parts = [part for part in ("train", "val", "test", "") if rows[part]]
    counts = ", ".join(f"{kept[part]} of {rows[part]} {part or 'unassigned'}" for part in parts)
    return [
        f"{rows.total() - kept.total()} rows of videos with several events are left out ({counts}"
        " rows stay); --every_event on makes each a sample, as the field counts them"
    ]


def _find_base(root: Path) -> str:
    """The folder with the lists, relative to `root`: itself, or the first folder in it that is."""
    for base in ["", *sorted(path.name for path in root.glob("*") if path.is_dir())]:
        if any((root / base / name).is_file() for name in LISTS):
            return base
    names = ", ".join(LISTS)
    raise UsageError(f"{root} holds none of {names}, nor does a folder in it. {SOURCE}")


def _find_clips(root: Path, base: str) -> tuple[dict[str, tuple[str, ...]], list[Rejection]]:
    """The clips' paths relative to `root` by YouTube id, and the files that are no first clip."""
    clips: dict[str, tuple[str, ...]] = {}
    rejected = []
    for inside in walk(root / base):
        if inside in LISTS and (root / base / inside).is_file():
            continue
        path = str(PurePosixPath(base, inside))
        name = PurePosixPath(path)
        parsed = kinetics.parse_name(name.name)
        if parsed is None:
            rejected.append(Rejection(name.stem, path, "unknown_name"))
            continue
        same = clips.get(parsed[0], ())
        if same:
            rejected.append(Rejection(parsed[0], path, "second_file", same[0]))
        clips[parsed[0]] = (*same, path)
    return clips, rejected


def _read_events(root: Path, base: str) -> _Events:
    """The rows of all lists, each event of a video once.

    Annotations.txt repeats the rows of the parts: those are not looked at again.
    """
    events, seen = _Events(), set()
    for name in LISTS:
        if not (root / base / name).is_file():
            continue
        for row in _rows(root, str(PurePosixPath(base, name)), events.refused):
            if row.event not in seen or row.part:
                _judge(row, events)
            seen.add(row.event)
    return events


def _rows(root: Path, source: str, refused: list[Rejection]) -> Iterator[Row]:
    """The rows of one list; lines that are none go to `refused`. Raises `UsageError`."""
    name = PurePosixPath(source).name
    for number, line in read_lines(root / source):
        place = f"{name}, line {number}"
        if line is None:
            what = f"{place}: not UTF-8, or longer than any row"
            refused.append(Rejection(place, source, "bad_line", what))
            continue
        # From the right: a category may hold whatever its author likes.
        fields = [" ".join(value.split()) for value in line.rsplit("&", len(HEADER) - 1)]
        if tuple(value.casefold() for value in fields) == HEADER or not line.strip():
            continue
        if len(fields) == len(HEADER):
            category, youtube, _, start, end = fields
            yield Row(source, place, LISTS[name], category, youtube, start, end)
        else:
            youtube = fields[1][:MAX_SHOWN] if len(fields) > 1 else ""
            what = f"{place}: {len(fields)} fields instead of {len(HEADER)}"
            refused.append(Rejection(youtube, source, "bad_line", what))


def _judge(row: Row, events: _Events) -> None:
    """Takes the row as an event of its video, or finds why not."""
    reason = detail = ""
    if row.category.casefold() not in IDS:
        category = repr(row.category[:MAX_SHOWN])
        reason, detail = "no_label", f"{category} is none of the {len(LABELS)} classes"
    elif not _has_length(row.start, row.end):
        reason, detail = "empty_event", _event(row)
    elif earlier := events.places.get(row.event):
        reason, detail = "duplicate", f"{_event(row)}; {earlier} was taken"
    if reason:
        events.refused.append(Rejection(row.youtube, row.source, reason, f"{row.place}: {detail}"))
    else:
        events.taken.setdefault(row.youtube, []).append(row)
        events.places[row.event] = row.place


def _event(row: Row) -> str:
    category, start, end = (repr(word[:MAX_SHOWN]) for word in (row.category, row.start, row.end))
    return f"{category} from {start} to {end}"


def _has_length(start: str, end: str) -> bool:
    """Whether these are two times of which the second is the later one."""
    try:
        first, last = float(start), float(end)
    except ValueError:
        return False
    return 0 <= first < last < math.inf


def _without_event(youtube: str, path: str, refused: list[Rejection]) -> Rejection:
    """Why a clip has no event: what is wrong with the first of its rows, or that it has none."""
    for row in refused:
        if row.id == youtube:
            return Rejection(youtube, path, row.reason, row.detail)
    return Rejection(youtube, path, "no_label", "no list names it")


def _warnings(candidates: list[Candidate]) -> list[str]:
    """A line where the official parts are not known of every sample."""
    without = [candidate.id for candidate in candidates if not candidate.part]
    if not without:
        return []
    return [
        f"{len(without)} of {len(candidates)} samples stand in none of trainSet.txt, valSet.txt"
        f" and testSet.txt ({without[0]}, for example): --split_rule official will be refused"
    ]
