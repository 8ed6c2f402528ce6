"""UCF-101: <Class>/v_<Class>_gXX_cYY.avi, optionally the official lists and precomputed flow.

The class of a clip comes from its folder, or from its name if the folder is not a class. Files of
HandstandPushups are named v_HandStandPushups_..., so names are compared case-insensitively. The
official lists (--split_rule official, official2, official3) have no validation part: we use groups
23 to 25 of the training list (our choice), which all three lists use for training.
"""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from common.options import UsageError, option
from data_prep.datasets import options
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import Index, RawTree, names_in, walk
from data_prep.spec import Candidate, Listed, Scan, Spec

LABELS = options.classes("ucf101")  # as in classInd.txt: case-insensitive alphabetical order
IDS = {name.casefold(): index for index, name in enumerate(LABELS)}
SPLIT_SECOND = 2 / 3
RELEASE_CUT = "train"  # the release passes the train fraction to scikit-learn
SOURCE = (
    "UCF-101 is at www.crcv.ucf.edu/data/UCF101.php; the root must contain a folder of clips"
    " v_<Class>_gXX_cYY.avi for each of the 101 classes, and optionally ucfTrainTestlist."
    " A tree made for the official MIDAS code works as well."
)
CLIP = re.compile(r"v_([A-Za-z]+)_g(\d\d)_c(\d\d)", re.ASCII)
LIST = re.compile(r"(train|test)list0([123])\.txt", re.ASCII)
ROW = re.compile(r"(?:[^/\\\s]+[/\\])*(v_[A-Za-z]+_g\d\d_c\d\d)\.[a-z0-9]+(?:\s+\d+)?", re.ASCII)
SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")  # of the download and of converted copies
VAL_GROUPS = ("23", "24", "25")
BOUND = 20.0  # pixels, as in the precomputed flow


@dataclass(frozen=True)
class Settings:
    """How UCF-101 is prepared, and how its samples become inputs."""

    flow_algo: str = option(
        "dis",
        "optical flow: computed, or precomputed images from flow_root",
        choices=("dis", "farneback", "tvl1", "precomputed"),
        source="our choice; the public precomputed flow is TV-L1",
    )
    flow_root: str = option("tvl1_flow", "folder of precomputed u and v, relative to the raw root")
    flow_stack: int = option(1, "consecutive pairs of frames per position", low=1, high=10)
    flow_positions: int = option(10, "stored positions of flow and frames", low=1, high=25)
    flow_norm: str = option(
        "release",
        "flow scaling: release: its constants; none: 0..1 (BalanceBenchmark); center: -1..1",
        choices=("release", "none", "center"),
    )
    rgb_frames: str = option(
        "over_clip",
        "stored frames: at the positions of the flow, or the first six (official release)",
        choices=("over_clip", "first6"),
    )
    frame_choice: str = options.frame_choice("segments")
    flip: str = option(
        "together",
        "training: mirror flow and frames together, negating u, or apart, keeping u (release)",
        choices=("together", "apart"),
    )
    crop: str = option("none", "training: rrc is a random resized crop", choices=("none", "rrc"))


def spec(settings: Settings) -> Spec:
    """Flow [2, 240, 320] per pair; frames [240, 320, 3] at its positions; the model sees three."""
    from data_prep.modalities.flow import Flow
    from data_prep.modalities.video import Video

    release, count = settings.frame_choice == "release", settings.flow_positions
    constants = {"center": ([0.5], [0.5]), "release": ([0.1307], [0.3081])}
    augment = {"none": "flip", "rrc": "crop_flip"}[settings.crop]
    augment += "_apart" if settings.flip == "apart" else ""
    view: dict[str, Any] = {"of_folder": options.FOLDER_FRAMES, "augment": augment}
    flow = Flow(
        settings.flow_algo,
        positions=count,
        stack=settings.flow_stack,
        bound=BOUND,
        choice="ucf101_flow" if release else "segments",
        normalise=constants.get(settings.flow_norm, "none"),
        **view,
    )
    view |= {"positions": count, "max_frames": count, "min_decoded": flow.min_decoded}
    if settings.rgb_frames == "first6":
        view |= {"positions": None, "first": 6, "max_frames": 6, "min_decoded": 6}
    return {"flow": flow, "video": Video(**view, choice="ucf101" if release else "segments")}


class Row(NamedTuple):
    """A clip of the official lists, with its part in each of the three ("": none)."""

    name: str
    source: str
    parts: list[str]


def scan(root: Path, settings: Settings) -> Scan:
    """All clips of the 101 classes under `root`; raises `UsageError` if there are none."""
    if release := find_release(root, "ucf101", LABELS):
        return scan_release(release)
    flow_root = posixpath.normpath(settings.flow_root)
    if posixpath.isabs(flow_root):
        raise UsageError(f"--flow_root {flow_root} must be relative to the raw root {root}")
    pictures = [posixpath.normpath(posixpath.join(flow_root, axis)) for axis in "uv"]
    tree, rows = RawTree(root), dict[str, Row]()
    clips = _read_tree(tree, pictures, rows)
    if not any(clips.values()):
        raise UsageError(f"{root} contains no clips of UCF-101. {SOURCE}")
    for key in sorted(rows.keys() - clips.keys()):
        tree.reject(rows[key].name, rows[key].source, "missing_file")
    flow = {}
    if settings.flow_algo == "precomputed":
        flow = _pictures(tree, pictures, clips)
    elif any((root / path).is_dir() for path in pictures):
        tree.warnings.append(f"{flow_root} is ignored; to use its flow: --flow_algo precomputed")
    if settings.flow_algo == "tvl1":
        pairs = settings.flow_positions * settings.flow_stack
        tree.warnings.append(f"TV-L1 may take {pairs} times 1.5 s per clip: see --limit_s")
    for key, files in clips.items():
        if files:
            name, number = PurePosixPath(files[0]).stem, files[0].rpartition("_g")[2][:2]
            label = IDS[key.split("_")[1]]
            parts = rows[key].parts if key in rows else []
            if number in VAL_GROUPS:
                parts = ["val" if part == "train" else part for part in parts]
            sources = {"flow": flow.get(key, tuple(files)), "video": tuple(files)}
            group, part = f"{LABELS[label]}_g{number}", "/".join(parts).rstrip("/")
            tree.take(Candidate(name, label, sources, group, part), files[0])
    # The rows of the first official list, train then test, if they name all clips.
    first = {key: row for key, row in rows.items() if row.parts[0]}
    pool = None
    if all(key in first for key, files in clips.items() if files):
        pool = [
            Listed(Path((clips.get(key) or [row.name])[0]).stem, IDS[key.split("_")[1]])
            for key, row in sorted(first.items(), key=lambda item: item[1].parts[0] != "train")
            if key.split("_")[1] in IDS
        ]
    return tree.scan(LABELS, "ucf101", pool)


def _read_tree(tree: RawTree, skip: list[str], rows: dict[str, Row]) -> dict[str, list[str]]:
    """The usable files of each clip, by lower-case name; adds the rows of the lists."""
    clips: dict[str, list[str]] = {}
    frames: set[PurePosixPath] = set()
    for text in walk(tree.root, skip):  # precomputed flow has five million files
        path = PurePosixPath(text)
        if listed := LIST.fullmatch(path.name.lower()):
            _read_list(tree, text, listed[1], int(listed[2]) - 1, rows)
        elif CLIP.fullmatch(path.stem) and path.suffix.lower() in SUFFIXES:
            files = clips.setdefault(path.stem.casefold(), [])
            folder, word = path.parent.name.strip().casefold(), path.stem.split("_")[1].casefold()
            if folder not in IDS and word not in IDS:
                tree.reject(path.stem, text, "no_label", f"neither {folder} nor {word} is a class")
            elif folder in IDS and folder != word:
                tree.reject(path.stem, text, "unknown_name", f"a clip of {word} in {folder}")
            else:
                files.append(text)
                if files[1:]:
                    tree.reject(path.stem, text, "second_file", files[0])
        elif CLIP.fullmatch(path.parent.name):  # extracted frames give one line per clip
            frames.add(path.parent)
        elif path.name.lower() != "classind.txt":  # classes come from the folders
            tree.reject_unknown(text)
    for place in sorted(frames):
        tree.reject(place.name, str(place), "unknown_name", "a folder of extracted frames")
    return clips


def _read_list(tree: RawTree, source: str, part: str, number: int, rows: dict[str, Row]) -> None:
    """Adds the rows of list `number` (zero-based); raises `UsageError` for a clip in both parts."""
    for line_number, line in tree.lines(source):
        match = ROW.fullmatch(line.strip())
        if not match:
            tree.reject(f"line {line_number}", source, "bad_line", line[:80])
            continue
        row = rows.setdefault(match[1].casefold(), Row(match[1], source, [""] * 3))
        if row.parts[number] not in ("", part):
            raise UsageError(f"{tree.root / source} names {match[1]}, as does the other list")
        row.parts[number] = part


def _pictures(tree: RawTree, folders: list[str], clips: dict[str, list[str]]) -> Index:
    """The folders of u and v of each clip; folders without a clip are rejected."""
    found = []
    for path in folders:
        if not (tree.root / path).is_dir():
            raise UsageError(
                f"--flow_algo precomputed: {tree.root} has no folder {path}; set --flow_root to the"
                " folder with u and v, relative to it"
            )
        # The public flow has v_HandstandPushups_... instead of v_HandStandPushups_...
        names = {name.casefold(): name for name in names_in(tree.root / path)}
        for key in sorted(names.keys() - {key for key, files in clips.items() if files}):
            tree.reject(names[key], f"{path}/{names[key]}", "missing_file", "no clip of this name")
        found.append({k: f"{path}/{names.get(k, Path(f[0]).stem)}" for k, f in clips.items() if f})
    u, v = found
    return {key: (u[key], v[key]) for key in u}


def scan_release(tree: ReleaseTree) -> Scan:
    """frames_rgb/<clip>/, flows_u/<clip>/ and flows_v/<clip>/ of the clips in two lists.

    Names are compared case-insensitively, as for the download.
    """
    there = {}
    for folder in tree.form.folders:
        names = names_in(tree.root / tree.path(folder))
        there[folder] = {name.casefold(): name for name in names[::-1]}
    used: dict[str, set[str]] = {folder: set() for folder in there}
    for row in tree.rows(str.split):
        name = row.fields[0]
        place, clip = PurePosixPath(name), PurePosixPath(name).stem
        word, named = place.parent.name, CLIP.fullmatch(clip)
        for folder in there:
            used[folder].add(there[folder].get(clip.casefold(), clip))
        rgb, u, v = (tree.path(f, there[f].get(clip.casefold(), clip)) for f in there)
        label, group, part = IDS.get(word.casefold(), -1), "", row.part
        if named:
            group = f"{LABELS[label]}_g{named[2]}"
            part = "val" if named[2] in VAL_GROUPS and part == "train" else part
        has_form = len(place.parts) == 2 and place.suffix.lower() == ".avi"
        differs = named and named[1].casefold() != word.casefold()
        tree.add(
            row,
            Candidate(clip or name, label, {"flow": (u, v), "video": (rgb,)}, group, part),
            name=name,
            word=word,
            fault="" if has_form else "unknown_name",
            conflict=f"name: {clip}" if differs else "",
        )
    for folder in used:
        tree.reject_others(folder, used[folder])
    tree.warnings.append("optical flow is read from flows_u and flows_v, ignoring --flow_algo")
    return tree.result()
