"""AVE: 10 s clips of audible and visible events, 28 classes, in lists with fields separated by "&".

    Category&VideoID&Quality&StartTime&EndTime

Annotations.txt has all rows, {train,val,test}Set.txt those of the official parts; all may have a
header. Audio is stored as for Kinetics-Sounds with "stft", for the full clip; frames are taken
inside the event, as in ARL (shicaiwei123/ICCV2025-ARL).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets import kinetics, options
from data_prep.datasets.tree import RawTree, find_base
from data_prep.spec import Candidate, Rejection, Scan, Spec

# From YapengTian/AVE-ECCV18: data/Annotations.txt. The alphabetical order is our choice: ARL
# numbers them by first appearance in testSet.txt.
LABELS = options.classes("ave")
IDS = {name.casefold(): index for index, name in enumerate(LABELS)}
SPLIT_SECOND = 2 / 3
SPLIT_RULE = "official"
SOURCE = (
    "AVE is linked at github.com/YapengTian/AVE-ECCV18; the root must contain Annotations.txt,"
    " trainSet.txt, valSet.txt and testSet.txt, and clips named <YouTube id>.mp4 in the folder AVE."
)
# The lists of parts come first, so that the part of a row is known when it first appears.
LISTS = {"trainSet.txt": "train", "valSet.txt": "val", "testSet.txt": "test", "Annotations.txt": ""}
HEADER = ["category", "videoid", "quality", "starttime", "endtime"]


@dataclass(frozen=True)
class Settings:
    """How AVE is prepared."""

    allow_missing: bool = option(False, "keep clips without audio, as silence")
    drop_silent: bool = option(False, "leave out clips with a silent audio track")
    every_event: bool = option(
        False,
        "one sample per row of the lists; several rows of a video are named <video>_<k> and form"
        " one group (off: only the first row of a video)",
        source="our choice; published numbers count all rows",
    )


def spec(settings: Settings) -> Spec:
    """10 s of audio, [129, 1251], of which the model sees 5 s; 1 frame per second of the event."""
    missing, silent = settings.allow_missing, settings.drop_silent
    return kinetics.spec(
        kinetics.Settings(audio_feature="stft", allow_missing=missing, drop_silent=silent)
    )


class Row(NamedTuple):
    """A usable row of a list: `place` is the name and line, `part` the part of the list."""

    source: str
    place: str
    part: str
    label: int
    seconds: list[float]


Events = dict[str, dict[tuple, Row]]  # YouTube id -> event -> its row


def scan(root: Path, settings: Settings) -> Scan:
    """The listed clips under `root`; raises `UsageError` if there are no lists or no clips.

    A clip without an event is rejected for the fault of its first row, in one line for both.
    """
    tree = RawTree(root, find_base(root, SOURCE, *([name] for name in LISTS))[0])
    lists = [tree.path(name) for name in LISTS if (root / tree.base / name).is_file()]
    others = (path for path in tree.walk() if path not in lists)
    clips = tree.index(others, lambda path: (kinetics.parse_name(path.name) or (None,))[0])
    if not clips:
        raise UsageError(f"{root} contains no clips of AVE. {SOURCE}")
    events: Events = {}
    refused = list(_read(tree, lists, settings.every_event, events))
    first_fault = {line.id: line for line in reversed(refused)}
    for youtube, paths in clips.items():
        rows = events.get(youtube, {})
        for number, row in enumerate(rows.values(), 1):
            name = youtube if len(rows) == 1 else f"{youtube}_{number}"
            sources, window = {"audio": paths, "video": paths}, {"video": row.seconds}
            tree.take(Candidate(name, row.label, sources, youtube, row.part, window), paths[0])
        if not rows:
            fault = first_fault.get(youtube, Rejection("", "", "no_label", "no list names it"))
            tree.reject(youtube, paths[0], fault.reason, fault.detail)
    tree.rejected += [line for line in refused if line.id in events or line.id not in clips]
    for youtube in sorted(events.keys() - clips.keys()):
        for row in events[youtube].values():
            tree.reject(youtube, row.source, "missing_file", row.place)
    return tree.scan(LABELS, "ave")


def _read(
    tree: RawTree, lists: list[str], every_event: bool, events: Events
) -> Iterator[Rejection]:
    """Fills `events` with the usable rows of all lists; yields the others as rejections.

    Annotations.txt repeats the rows of the parts: the repeated ones are skipped.
    """
    seen, left_out = set(), 0
    for source, (number, line) in ((s, numbered) for s in lists for numbered in tree.lines(s)):
        list_name = PurePosixPath(source).name
        place, part = f"{list_name}, line {number}", LISTS[list_name]
        # From the right: a category may contain the separator.
        fields = [" ".join(value.split()) for value in line.rsplit("&", len(HEADER) - 1)]
        if [value.casefold() for value in fields] == HEADER:
            continue
        if len(fields) < len(HEADER):
            sample = fields[1][:80] if len(fields) > 1 else place
            yield Rejection(sample, source, "bad_line", f"{place}: {len(fields)} fields, not 5")
            continue
        category, youtube, _, *times = fields
        try:
            start, end = map(float, times)
        except ValueError:
            start, end = 0.0, 0.0
        is_event = 0 <= start < end < math.inf
        event = (category.casefold(), *((start, end) if is_event else times))
        if (youtube, event) in seen and not part:
            continue
        seen.add((youtube, event))
        rows, reason, detail = events.get(youtube, {}), "", ""
        if category.casefold() not in IDS:
            reason = "no_label"
        elif not is_event:
            reason = "empty_event"
        elif rows and (event in rows or not every_event):
            taken = rows.get(event) or next(iter(rows.values()))
            reason, detail = "duplicate", f"; {taken.place} was used"
            left_out += event not in rows
        if reason:
            words = f"{category[:80]!r} from {times[0][:80]!r} to {times[1][:80]!r}"
            yield Rejection(youtube, source, reason, f"{place}: {words}{detail}")
        else:
            row = Row(source, place, part, IDS[category.casefold()], [start, end])
            events.setdefault(youtube, {})[event] = row
    if left_out:
        tree.warnings.append(
            f"{left_out} rows of videos with several events are left out; --every_event on makes"
            " each row a sample, as in published numbers"
        )
