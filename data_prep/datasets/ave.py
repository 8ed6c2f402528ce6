"""AVE: 10 s clips of audible and visible events, 28 classes, by lists whose fields "&" divides.

    Category&VideoID&Quality&StartTime&EndTime

Annotations.txt has every row; trainSet.txt, valSet.txt and testSet.txt have those of the official
parts. Any of them may have a header (the download has one in Annotations.txt; the copy in the
authors' repository, YapengTian/AVE-ECCV18, has none). Sound and frames are prepared as those of
Kinetics-Sounds in its "stft" form.

Frames are taken inside the event, as by ARL (shicaiwei123/ICCV2025-ARL), sound of the whole clip.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets import kinetics
from data_prep.datasets.lists import read_lines
from data_prep.datasets.tree import RawTree, find_base
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
        source="our choice; published numbers count all rows",
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
    """A row of a list: `place` is the list's name and line, `part` the part that the list is of."""

    source: str
    place: str
    part: str
    category: str
    youtube: str
    start: str
    end: str

    @property
    def event(self) -> tuple:
        """What equal rows of two lists share; 9 and 9.0 seconds are equal."""
        times = (self.start, self.end)
        return self.youtube, self.category.casefold(), *(self.seconds or times)

    @property
    def seconds(self) -> list[float] | None:
        """[start, end], or None unless these are two times of which the second is later."""
        try:
            start, end = float(self.start), float(self.end)
        except ValueError:
            return None
        return [start, end] if 0 <= start < end < math.inf else None

    def __str__(self) -> str:
        words = (self.category, self.start, self.end)
        return "{} from {} to {}".format(*(repr(word[:MAX_SHOWN]) for word in words))

    def rejection(self, reason: str, detail: str) -> Rejection:
        """The row as a line of rejected.csv."""
        return Rejection(self.youtube, self.source, reason, f"{self.place}: {detail}")


Events = dict[str, dict[tuple, Row]]  # YouTube id -> event -> the usable rows of the video


def scan(root: Path, settings: Settings) -> Scan:
    """The listed clips under `root`; raises `UsageError` if it holds no lists or no clip."""
    tree = RawTree(root, find_base(root, f"list named {' or '.join(LISTS)}", _is_base, SOURCE))
    lists = [tree.path(name) for name in LISTS if (root / tree.base / name).is_file()]
    clips = tree.index((path for path in tree.walk() if path not in lists), _youtube_id)
    if not clips:
        raise UsageError(f"{root} holds no clip of AVE. {SOURCE}")
    events, refused = _read_events(tree, lists)
    if not settings.every_event:
        tree.warnings += _keep_first(events, refused)
    candidates = []
    for youtube, paths in clips.items():
        rows = events.get(youtube, {})
        for number, row in enumerate(rows.values(), 1):
            name = youtube if len(rows) == 1 else f"{youtube}_{number}"
            sources, label = {"audio": paths, "video": paths}, IDS[row.category.casefold()]
            window = {"video": row.seconds}
            candidates.append(Candidate(name, label, sources, youtube, row.part, window))
    _reject_unmatched(tree, clips, events, refused)
    tree.warnings += _without_part(candidates)
    return tree.scan(LABELS, candidates)


def _is_base(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LISTS)


def _youtube_id(path: PurePosixPath) -> str | None:
    parsed = kinetics.parse_name(path.name)
    return parsed[0] if parsed else None


def _read_events(tree: RawTree, lists: list[str]) -> tuple[Events, list[Rejection]]:
    """The usable rows of all lists, each event of a video once, and the lines that are not usable.

    Annotations.txt repeats the rows of the parts: those are not taken again.
    """
    events: Events = {}
    refused: list[Rejection] = []
    seen = set()
    for source in lists:
        for row in _rows(tree.root, source, refused):
            if row.event not in seen or row.part:
                same = events.get(row.youtube, {}).get(row.event)
                if fault := _fault(row, same):
                    refused.append(row.rejection(*fault))
                else:
                    events.setdefault(row.youtube, {})[row.event] = row
            seen.add(row.event)
    return events, refused


def _rows(root: Path, source: str, refused: list[Rejection]) -> Iterator[Row]:
    """The rows of one list; lines that are none go to `refused`."""
    name = PurePosixPath(source).name
    for number, line in read_lines(root / source):
        place = f"{name}, line {number}"
        if line is None:
            what = f"{place}: not UTF-8, or longer than any row"
            refused.append(Rejection(place, source, "bad_line", what))
            continue
        # From the right: a category may contain the separator.
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


def _fault(row: Row, same: Row | None) -> tuple[str, str] | None:
    """(reason, detail) if the row cannot be used; `same` is the row that was taken of its event."""
    if row.category.casefold() not in IDS:
        category = repr(row.category[:MAX_SHOWN])
        return "no_label", f"{category} is none of the {len(LABELS)} classes"
    if not row.seconds:
        return "empty_event", str(row)
    return ("duplicate", f"{row}; {same.place} was taken") if same else None


def _keep_first(events: Events, refused: list[Rejection]) -> list[str]:
    """Leaves the first row of each video, and says how many rows that costs."""
    before = Counter(row.part for rows in events.values() for row in rows.values())
    for youtube, rows in events.items():
        first, *others = rows.values()
        refused += [r.rejection("duplicate", f"{r}; {first.place} was taken") for r in others]
        events[youtube] = {first.event: first}
    kept = Counter(row.part for rows in events.values() for row in rows.values())
    if kept == before:
        return []
    parts = [part for part in ("train", "val", "test", "") if before[part]]
    counts = ", ".join(f"{kept[part]} of {before[part]} {part or 'unassigned'}" for part in parts)
    return [
        f"{before.total() - kept.total()} rows of videos with several events are left out ({counts}"
        " rows stay); --every_event on makes each a sample, as published numbers do"
    ]


def _reject_unmatched(
    tree: RawTree, clips: dict[str, tuple[str, ...]], events: Events, refused: list[Rejection]
) -> None:
    """Rejects clips without an event, unusable rows, and rows without a clip.

    A clip without an event is rejected for what is wrong with its first row, in one line for both.
    """
    first_fault = {row.id: row for row in reversed(refused)}
    for youtube, paths in clips.items():
        if youtube not in events:
            row = first_fault.get(youtube)
            fault = (row.reason, row.detail) if row else ("no_label", "no list names it")
            tree.reject(youtube, paths[0], *fault)
    tree.rejected += [r for r in refused if r.id in events or r.id not in clips]
    for youtube, rows in events.items():
        if youtube not in clips:
            tree.rejected += [r.rejection("missing_file", r.category) for r in rows.values()]


def _without_part(candidates: list[Candidate]) -> list[str]:
    """A warning if the official part of a sample is unknown."""
    without = [candidate.id for candidate in candidates if not candidate.part]
    if not without:
        return []
    return [
        f"{len(without)} of {len(candidates)} samples are in none of trainSet.txt, valSet.txt"
        f" and testSet.txt ({min(without)}, for example): --split_rule official will be refused"
    ]
