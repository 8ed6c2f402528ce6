"""A raw tree of UCF-101 in miniature: avi clips by class folder, official lists, precomputed flow.

Names, folders and lists are those of the real set, its misspelt class included; the content comes
from `ucf_scenes`. The truth is that of `trees`, one line a clip.
"""

import functools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import write_table, write_text
from common.options import UsageError
from data_prep.generate import corrupt
from data_prep.generate.media import run_jobs, whole_folder, write_video
from data_prep.generate.trees import TRUTH, first_classes
from data_prep.generate.ucf_scenes import Look, render

UCF_LOOK = Look()
CLIPS_A_GROUP = 7
# Each official list finds its three parts in four groups or more: list 1 tests on groups 1 to 7,
# list 2 on 8 to 14, list 3 on 15 to 21.
GROUPS = (8, 1, 23, 15, 2, 9, 24, 16, 3, 10, 25, 17, 4, 11, 22, 18, 5, 12, 19, 6, 13, 20, 7, 14, 21)
TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
DAMAGED_GROUP = 22  # trained on in each list
CUTS = {"cut_60": 0.6, "cut_10": 0.1}  # what is left of the frames
CUT_SECONDS = 8.0  # length before the cut: 60 % are above the 3 s asked, 10 % below

# What must become of each kind of damage: see `corrupt.EXPECTED`.
EXPECTED = {
    "zero_byte": "unreadable",
    "html": "unreadable",
    "lfs_pointer": "lfs_pointer",
    "cut_60": "flag:truncated",
    "cut_10": "truncated",
    "no_index": "",  # the avi's index is unreadable: it is read from front to back
    "count_off": "",  # the header counts one frame too many
    "one_frame": "few_frames",
    "three_frames": "few_frames",
    "frozen": "flag:still",  # one frame again and again: no motion
    "wrong_extension": "",  # an mp4: the content decides
    "fps_1000": "",  # a Matroska file: the frames' own times count, not the tag
    "duplicate": "second_file",
    "no_label": "no_label",  # in the folder of a class outside the 101
    "other_class": "unknown_name",  # in the folder of another class
    "unknown_name": "unknown_name",
    "pipe": "unreadable",
    "folder": "missing_file",
    "broken_link": "missing_file",
    "not_utf8": "unknown_name",
    "row_without_file": "missing_file",
    "unlisted": "",
}
EXPECTED_PRECOMPUTED = {
    "no_flow": "no_flow",
    "u_without_v": "flag:unpaired_flow",
}
NO_PICTURES = (
    "no_flow", "no_label", "unknown_name", "not_utf8", "row_without_file", "folder", "duplicate",
)  # fmt: skip


class Clip(NamedTuple):
    """One clip to write: `stream` numbers its random stream, `file` is relative to the root."""

    id: str
    label: int
    group: int
    stream: int
    file: str
    kind: str = ""


def write_ucf101(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    classes: int | None = None,
    seed: int = 0,
    look: Look = UCF_LOOK,
    corrupt_each: int = 0,
    workers: int | None = None,
    lists: bool = True,
    precomputed: bool = False,
) -> None:
    """`per_class` sound clips of each of the first `classes` of 101 classes (None: of all), and
    `corrupt_each` more of each damage.

    UCF-101/<Class>/*.avi; with `lists` ucfTrainTestlist/*.txt; with `precomputed` tvl1_flow/{u,v},
    the true motion as pictures. Raises `UsageError` when `root` is in use.
    """
    from data_prep.layouts.ucf101 import LABELS

    expected = EXPECTED | (EXPECTED_PRECOMPUTED if precomputed else {})
    labels = first_classes(LABELS, classes)
    clips = _plan(labels, per_class, list(expected), corrupt_each)
    with whole_folder(root, truth_path) as folder:
        for file in {clip.file for clip in clips if clip.file}:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        hidden = (f"UCF-101/{LABELS[0]}/.DS_Store", "UCF-101/Thumbs.db", "__MACOSX/._v_x.avi")
        corrupt.write_hidden(folder, hidden)
        if lists:
            _write_lists(folder / "ucfTrainTestlist", LABELS, clips)
        work = functools.partial(_write_clip, folder, labels, look, seed, precomputed)
        truth = run_jobs(work, clips, workers, "write UCF-101 fixture")
        rows = [(*row, expected[clip.kind] if clip.kind else "") for row, clip in zip(truth, clips)]
        write_table(truth_path, TRUTH, sorted(rows))


def clip_name(label_name: str, group: int, number: int) -> str:
    """A clip's id; the files of one class spell it otherwise than its folder, as the real ones."""
    name = label_name.replace("HandstandPushups", "HandStandPushups")
    return f"v_{name}_g{group:02d}_c{number:02d}"


def _plan(labels: tuple[str, ...], per_class: int, kinds: list[str], each: int) -> list[Clip]:
    """Sound clips of at least three groups a class, then the damaged ones, of a group of theirs."""
    count = max(3, -(-per_class // CLIPS_A_GROUP))
    groups = [group for group in GROUPS if group != DAMAGED_GROUP][:count]
    if len(groups) < count:
        limit = (len(GROUPS) - 1) * CLIPS_A_GROUP
        raise UsageError(f"--per_class {per_class} is refused: there are names for {limit} at most")
    clips = []
    for label, name in enumerate(labels):
        for k in range(per_class):
            group = groups[k % count]
            stem = clip_name(name, group, k // count + 1)
            file = f"UCF-101/{name}/{stem}.avi"
            clips.append(Clip(stem, label, group, len(clips), file))
    for k, kind in enumerate(kind for kind in kinds for _ in range(each)):
        turn, label = divmod(k, len(labels))
        if turn >= 99:
            raise UsageError(f"--corrupt {each} is refused: there are names for 99 of a class")
        clips += _damaged(labels, label, turn + 1, len(clips), kind)
    return clips


def _damaged(
    labels: tuple[str, ...], label: int, number: int, stream: int, kind: str
) -> list[Clip]:
    """The clip of a kind of damage (two for a duplicate)."""
    name = labels[label]
    stem = clip_name(name, DAMAGED_GROUP, number)
    clip = Clip(stem, label, DAMAGED_GROUP, stream, f"UCF-101/{name}/{stem}.avi", kind)
    if kind == "duplicate":
        again = clip._replace(file=f"more/{name}/{stem}.avi")
        return [clip._replace(kind=""), again]
    if kind == "no_label":
        stem = clip_name("Abseiling", DAMAGED_GROUP, number)
        return [clip._replace(id=stem, file=f"UCF-101/Abseiling/{stem}.avi")]
    if kind == "other_class":
        return [clip._replace(file=f"UCF-101/{labels[label - 1]}/{stem}.avi")]
    if kind == "unknown_name":
        return [clip._replace(id=f"my {stem}", file=f"UCF-101/{name}/my {stem}.avi")]
    if kind == "not_utf8":
        return [clip._replace(id=corrupt.told_stem(kind, stem))]
    return [clip._replace(file="")] if kind == "row_without_file" else [clip]


def _write_lists(folder: Path, labels: tuple[str, ...], clips: list[Clip]) -> None:
    """The seven official files; those of the second list as another system writes them."""
    classes = "".join(f"{k} {name}\r\n" for k, name in enumerate(labels, 1))
    write_text(folder / "classInd.txt", classes)
    unlisted = ("unlisted", "unknown_name", "not_utf8", "no_label", "duplicate")
    for number, tested in TEST_GROUPS.items():
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for clip in clips:
            if clip.kind not in unlisted:
                row = f"{labels[clip.label]}/{clip.id}.avi"
                part = "test" if clip.group in tested else "train"
                lines[part].append(row if part == "test" else f"{row} {clip.label + 1}")
        end, mark = ("\r\n", "\ufeff") if number == 2 else ("\n", "")
        for part, rows in lines.items():
            text = mark + "".join(row + end for row in rows)
            write_text(folder / f"{part}list{number:02d}.txt", text)


def _write_clip(
    folder: Path, labels: tuple[str, ...], look: Look, seed: int, precomputed: bool, clip: Clip
) -> tuple:
    """Writes a clip's files and returns its line of the truth. Runs in a worker process."""
    if clip.kind in CUTS:
        look = replace(look, seconds=(CUT_SECONDS, CUT_SECONDS))
    rng = np.random.default_rng([seed, clip.stream])
    shared = [seed, clip.label, clip.group] if look.group_nuisance else [seed, clip.stream, 0, 1]
    scene = render(clip.label, look, rng, np.random.default_rng(shared))
    if clip.file:
        _write_avi(folder / clip.file, scene.frames, look.fps, clip.kind)
    if precomputed and clip.kind not in NO_PICTURES:
        _write_pictures(folder / "tvl1_flow", clip, scene.flow)
    cues = int(scene.flow_cue), int(scene.video_cue)
    return clip.id, labels[clip.label], *cues, clip.kind


def _write_avi(path: Path, frames: np.ndarray, fps: int, kind: str) -> None:
    """The clip with the damage of `kind` ("": none)."""
    if kind in ("one_frame", "three_frames"):
        frames = frames[: 1 if kind == "one_frame" else 3]
    elif kind == "frozen":
        frames = np.repeat(frames[:1], len(frames), axis=0)
    if kind == "fps_1000":
        write_video(path, frames, fps, "h264", container="matroska", fps_tag=1000)
    else:
        write_video(path, frames, fps, "h264" if kind == "wrong_extension" else "mpeg4")
    content = bytearray(path.read_bytes())
    if kind in CUTS:  # of the frames: a share of the file may end within the header
        start, end = content.index(b"movi"), content.rindex(b"idx1")
        del content[start + int(CUTS[kind] * (end - start)) :]
    elif kind == "no_index":
        start = content.rindex(b"idx1") + 8
        content[start:] = bytes(len(content) - start)
    elif kind == "count_off":
        for tag, offset in ((b"avih", 16), (b"strh", 32)):
            place = slice(*(content.index(tag) + 8 + offset + k for k in (0, 4)))
            content[place] = (int.from_bytes(content[place], "little") + 1).to_bytes(4, "little")
    path.write_bytes(content)
    if kind not in CUTS:
        corrupt.damage_file(kind, path)


def _write_pictures(folder: Path, clip: Clip, flow: np.ndarray) -> None:
    """u/<clip>/frame%06d.jpg and v/<clip>/..., numbered from 1, bound 20, as the field's set."""
    from data_prep.flow import encode, quantise
    from data_prep.layouts.ucf101 import BOUND

    for axis, values in zip("uv", quantise(flow, BOUND).transpose(3, 0, 1, 2)):
        # The field's set spells the class as its folder does, not as its files do.
        place = folder / axis / clip.id.replace("HandStand", "Handstand")
        place.mkdir(parents=True, exist_ok=True)
        for k, levels in enumerate(values, 1):
            if not (clip.kind == "u_without_v" and axis == "v" and k % 5 == 0):
                (place / f"frame{k:06d}.jpg").write_bytes(encode(levels, 95))
