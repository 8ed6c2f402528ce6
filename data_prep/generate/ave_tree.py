"""A raw tree of AVE in miniature: Annotations.txt, the lists of the parts, and AVE/<id>.mp4.

Names and lists are those of the real set, hostile ids and several dialects of the lists included;
the content comes from `scenes`, the damage of files from `corrupt`. The truth is that of `trees`,
one line a video.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import write_table, write_text
from data_prep.generate import corrupt
from data_prep.generate.media import run_jobs, whole_folder
from data_prep.generate.scenes import Look
from data_prep.generate.trees import (
    KINETICS_LOOK,
    PART_CYCLE,
    PARTS,
    TRUTH,
    Clip,
    first_classes,
    hostile_id,
    render_clip,
    truth_line,
)

HEADER = "Category&VideoID&Quality&StartTime&EndTime"
FILE_DAMAGE = (
    "zero_byte", "html", "lfs_pointer", "cut_60", "cut_10", "no_moov", "no_audio", "silent",
    "short_audio", "one_frame", "fps_1000", "wrong_extension", "rotated", "pipe", "folder",
    "broken_link", "not_utf8",
)  # fmt: skip
# What must become of each kind: see `corrupt.EXPECTED`. Files as in Kinetics-Sounds; then the
# lists' own mistakes, of which two_events and empty_first leave the video a sample.
EXPECTED = {kind: corrupt.EXPECTED["kinetics"][kind] for kind in FILE_DAMAGE} | {
    "duplicate": "second_file",  # a second file of one id
    "two_events": "duplicate",  # the test list names it again, with another class
    "empty_event": "empty_event",  # from 0 to 0
    "empty_first": "",  # an empty event, then a good one
    "torn_row": "bad_line",
    "unknown_class": "no_label",
    "unlisted": "no_label",
    "row_without_file": "missing_file",
    "unknown_name": "unknown_name",
}
ENDINGS = {"wrong_extension": "avi", "fps_1000": "mkv"}  # else mp4


class Row(NamedTuple):
    """A line of the lists: its part, and the text itself."""

    part: str
    text: str


def write_ave(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    classes: int | None = None,
    seed: int = 0,
    look: Look = KINETICS_LOOK,
    corrupt_each: int = 0,
    workers: int | None = None,
) -> None:
    """`per_class` sound clips of each of the first `classes` of 28 classes (None: of all), and
    `corrupt_each` more of each kind of damage. Raises `UsageError` when `root` is in use."""
    from data_prep.layouts.ave import LABELS

    labels = first_classes(LABELS, classes)
    clips, rows = _plan(labels, per_class, corrupt_each, int(look.seconds[0]), seed)
    with whole_folder(root, truth_path) as folder:
        hidden = ("AVE/.DS_Store", "AVE/._abcdefghijk.mp4", "AVE/Thumbs.db", "__MACOSX/._test.txt")
        corrupt.write_hidden(folder, hidden)
        _write_lists(folder, rows)
        work = functools.partial(_write_clip, folder, labels, look, seed)
        truth = run_jobs(work, clips, workers, "write AVE fixture")
        write_table(truth_path, TRUTH, sorted(truth))


def _plan(
    labels: tuple[str, ...], per_class: int, each: int, seconds: int, seed: int
) -> tuple[list[Clip], list[Row]]:
    """The clips to write and the lines of the lists; events last whole seconds within `seconds`."""
    plan = [(k % len(labels), k // len(labels), "") for k in range(per_class * len(labels))]
    kinds = [kind for kind in EXPECTED for _ in range(each)]
    plan += [(k % len(labels), k, kind) for k, kind in enumerate(kinds)]
    rng = np.random.default_rng([seed, len(plan)])  # two numbers, as for clips, but never a clip's
    clips, rows, seen = [], [], set()
    for k, (label, turn, kind) in enumerate(plan):
        while (name := hostile_id(k, rng)) in seen:
            pass
        seen.add(name)
        start = int(rng.integers(0, seconds))
        end = int(rng.integers(start + 1, seconds + 1))
        part = "train" if kind == "two_events" else PART_CYCLE[turn % len(PART_CYCLE)]
        stem = f"my holiday {name}" if kind == "unknown_name" else name
        file = f"AVE/{stem}.{ENDINGS.get(kind, 'mp4')}"
        told = corrupt.told_stem(kind, stem)
        clip = Clip(told, label, k, "" if kind == "row_without_file" else file, kind)
        if kind == "duplicate":  # .mkv comes before .mp4, and is the one that is kept
            clips.append(Clip(name, label, k, f"AVE/{name}.mkv", ""))
        clips.append(clip)
        rows += _rows(labels, clip, part, start, end)
    return clips, rows


def _rows(labels: tuple[str, ...], clip: Clip, part: str, start: int, end: int) -> list[Row]:
    """The lines that name a clip."""
    category = labels[clip.label]
    row = Row(part, f"{category}&{clip.id}&good&{start}&{end}")
    empty = Row(part, f"{category}&{clip.id}&good&{start}&{start}")
    other = labels[(clip.label + 1) % len(labels)]
    return {
        "two_events": [row, Row("test", f"{other}&{clip.id}&good&{start}&{end}")],
        "empty_event": [empty],
        "empty_first": [empty, row],
        "torn_row": [Row(part, f"{category}&{clip.id}&good")],
        "unknown_class": [Row(part, f"Didgeridoo&{clip.id}&good&{start}&{end}")],
        "unlisted": [],
        "unknown_name": [],
        "not_utf8": [],
    }.get(clip.kind, [row])


def _write_lists(folder: Path, rows: list[Row]) -> None:
    """The four lists, each in another dialect that copies of them come in."""
    lines = {part: [row.text for row in rows if row.part == part] for part in PARTS}
    write_text(folder / "Annotations.txt", "\n".join([HEADER, *(r.text for r in rows)]) + "\n")
    write_text(folder / "trainSet.txt", "\n".join(lines["train"]) + "\n")
    # A header where none belongs, and the line ends and the mark of another system.
    write_text(folder / "valSet.txt", "\ufeff" + "\r\n".join([HEADER, *lines["val"]]) + "\r\n")
    write_text(folder / "testSet.txt", "\n".join(lines["test"]))  # no end of the last line


def _write_clip(folder: Path, labels: tuple[str, ...], look: Look, seed: int, clip: Clip) -> tuple:
    """Writes a clip's file and returns its line of the truth. Runs in a worker process."""
    scene = render_clip(clip, len(labels), look, corrupt.CUT_MP4_SECONDS, seed)
    if clip.file:
        corrupt.write_mp4(folder / clip.file, scene, look.fps, clip.kind)
    return truth_line(clip, labels[clip.label], scene, EXPECTED)
