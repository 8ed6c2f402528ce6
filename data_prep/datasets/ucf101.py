"""UCF-101: <Class>/v_<Class>_gXX_cYY.avi, optionally the official lists and precomputed flow.

A clip's class is its folder's, or its name's if the folder is no class: the files of
HandstandPushups are called v_HandStandPushups_..., so names are compared without regard to case.
The folders of classes may be anywhere below the root, and clips may be converted
(.mp4, .mkv, .webm, .mov). `ucfTrainTestlist` holds classInd.txt, trainlist01.txt to 03 and
testlist01.txt to 03; `tvl1_flow/u` and `tvl1_flow/v` hold a folder of pictures a clip.

The official lists have no validation part. Here it is groups 23 to 25 of the training list (our
choice): all three lists train on them, so official results come from 15 of 18 training groups.
--split_rule official is the first list, official2 and official3 are the others.
"""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from common.files import is_ignored
from common.options import UsageError, option
from data_prep.datasets.lists import read_lines
from data_prep.datasets.options import FOLDER_FRAMES, frame_choice_option
from data_prep.datasets.release import ReleaseTree, Row, find_release
from data_prep.datasets.tree import RawTree, walk
from data_prep.spec import Candidate, Listed, Scan, Spec

# In the order of classInd.txt, which is the alphabet's without regard to case.
LABELS = tuple(
    """
ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball
BasketballDunk BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling
BoxingPunchingBag BoxingSpeedBag BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling
CricketShot CuttingInKitchen Diving Drumming Fencing FieldHockeyPenalty FloorGymnastics FrisbeeCatch
FrontCrawl GolfSwing Haircut Hammering HammerThrow HandstandPushups HandstandWalking HeadMassage
HighJump HorseRace HorseRiding HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack JumpRope
Kayaking Knitting LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks ParallelBars
PizzaTossing PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano
PlayingSitar PlayingTabla PlayingViolin PoleVault PommelHorse PullUps Punch PushUps Rafting
RockClimbingIndoor RopeClimbing Rowing SalsaSpin ShavingBeard Shotput SkateBoarding Skiing Skijet
SkyDiving SoccerJuggling SoccerPenalty StillRings SumoWrestling Surfing Swing TableTennisShot TaiChi
TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars VolleyballSpiking WalkingWithDog
WallPushups WritingOnBoard YoYo
    """.split()
)
IDS = {name.casefold(): index for index, name in enumerate(LABELS)}
SPLIT_SECOND = 2 / 3
RELEASE_CUT = "train"  # the release gives scikit-learn the share of train
SOURCE = (
    "UCF-101 is at www.crcv.ucf.edu/data/UCF101.php; the root must hold a folder of clips"
    " v_<Class>_gXX_cYY.avi for each of the 101 classes, and may hold ucfTrainTestlist."
    " A tree made for the official MIDAS code does as well."
)
CLIP = re.compile(r"v_([A-Za-z]+)_g(\d\d)_c(\d\d)", re.ASCII)
LIST = re.compile(r"(train|test)list0([123])\.txt", re.ASCII)
ROW = re.compile(r"(?:[^/\\\s]+[/\\])*(v_[A-Za-z]+_g\d\d_c\d\d)\.[a-z0-9]+(?:\s+\d+)?", re.ASCII)
SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")  # the download's, and converted copies
LISTS = 3
RELEASE_FOLDERS = ("frames_rgb", "flows_u", "flows_v")
VAL_GROUPS = ("23", "24", "25")
BOUND = 20.0  # pixels, as in the precomputed set


@dataclass(frozen=True)
class Settings:
    """How UCF-101 is prepared, and how its samples become inputs."""

    flow_algo: str = option(
        "dis", "optical flow: computed, or precomputed pictures from flow_root",
        choices=("dis", "farneback", "tvl1", "precomputed"),
        source="our choice; the set that is shared on the web is TV-L1",
    )  # fmt: skip
    flow_root: str = option(
        "tvl1_flow", "the folder that holds u and v of precomputed flow, relative to the raw root"
    )
    flow_stack: int = option(
        1, "pairs of frames in succession a position", low=1, high=10,
        source="BalanceBenchmark; classical two-stream networks: 10",
    )  # fmt: skip
    flow_positions: int = option(10, "stored positions a clip, of flow and frames", low=1, high=25)
    flow_norm: str = option(
        "release", "flow by the official release's constants, as 0..1, or center: as -1..1",
        choices=("release", "none", "center"), source="official release; none: BalanceBenchmark",
    )  # fmt: skip
    rgb_frames: str = option(
        "over_clip", "stored frames: at the positions of the flow, or the first six of the clip",
        choices=("over_clip", "first6"), source="our choice; first6: official release",
    )  # fmt: skip
    frame_choice: str = frame_choice_option("segments")
    flip: str = option(
        "together", "training: flow and frames of a sample mirrored together, u negated, or each"
        " picture apart, u as it is", choices=("together", "apart"),
        source="our choice; apart: official release",
    )  # fmt: skip
    crop: str = option(
        "none", "training crop: none, or rrc: a random resized crop of each modality",
        choices=("none", "rrc"), source="BalanceBenchmark",
    )  # fmt: skip


def spec(settings: Settings) -> Spec:
    """Flow [2, 240, 320] each pair; frames [240, 320, 3] at its positions, or the first six.

    The model sees three positions of each.
    """
    from data_prep.modalities.flow import Flow
    from data_prep.modalities.video import Video

    augment = {"none": "flip", "rrc": "crop_flip"}[settings.crop]
    augment += "_apart" if settings.flip == "apart" else ""
    release = settings.frame_choice == "release"
    constants = {"none": "none", "center": ([0.5], [0.5]), "release": ([0.1307], [0.3081])}
    count = settings.flow_positions
    flow = Flow(
        settings.flow_algo,
        positions=count,
        stack=settings.flow_stack,
        bound=BOUND,
        of_folder=FOLDER_FRAMES,
        augment=augment,
        choice="ucf101_flow" if release else "segments",
        normalise=constants[settings.flow_norm],
    )
    frames = {"positions": count, "max_frames": count, "min_decoded": flow.min_decoded}
    if settings.rgb_frames == "first6":
        frames = {"first": 6, "max_frames": 6, "min_decoded": 6}
    choice = "ucf101" if release else "segments"
    video = Video(**frames, of_folder=FOLDER_FRAMES, augment=augment, choice=choice)
    return {"flow": flow, "video": video}


@dataclass
class Lists:
    """The rows of the official lists, by clip in lower case."""

    names: dict[str, tuple[str, str]] = field(default_factory=dict)  # -> (its name, a list)
    parts: dict[str, list[str]] = field(default_factory=dict)  # -> its part in each list, or ""
    first: dict[str, str] = field(default_factory=dict)  # those of the first list -> their part

    def read(self, tree: RawTree, path: str, part: str, number: int) -> None:
        """Takes the rows of list `number`, from 0; raises `UsageError` for a clip in both parts.

        The number of a class, which training lists add, is not used: the folder gives the class.
        """
        for line_number, line in read_lines(tree.root / path):
            match = ROW.fullmatch((line or "").strip())
            if match:
                key = match[1].casefold()
                self.names.setdefault(key, (match[1], path))
                parts = self.parts.setdefault(key, [""] * LISTS)
                if parts[number] not in ("", part):
                    raise UsageError(
                        f"{tree.root / path} names {match[1]}, which the other list has, too"
                    )
                parts[number] = part
                if number == 0:
                    self.first[key] = part
            elif line is None or line.strip():
                tree.reject(f"line {line_number}", path, "bad_line", (line or "")[:80])

    def part_of(self, key: str, group: str) -> str:
        """The parts of a clip in the three lists, divided by "/"."""
        parts = self.parts.get(key, [])
        if group in VAL_GROUPS:
            parts = ["val" if part == "train" else part for part in parts]
        return "/".join(parts).rstrip("/")

    def pool(self, clips: dict[str, Candidate]) -> list[Listed] | None:
        """The rows of the first list, train then test; None if they lack a clip.

        A class is its number in our order, as in the official lists.
        """
        if not clips.keys() <= self.first.keys():
            return None
        pool = []
        for key in sorted(self.first, key=lambda key: self.first[key] != "train"):
            clip, name = clips.get(key), self.names[key][0]
            label = clip.label if clip else IDS.get(CLIP.fullmatch(name)[1].casefold())
            if label is not None:
                pool.append(Listed(clip.id if clip else name, label))
        return pool

    def warnings(self, clips: Collection[str]) -> list[str]:
        """A line for each official split that will be refused."""
        warnings = []
        for number in range(LISTS):
            without = sum(not self.parts.get(key, [""] * LISTS)[number] for key in clips)
            if without:
                rule = f"official{number + 1 if number else ''}"
                warnings.append(
                    f"{without} of {len(clips)} clips are in no official list {number + 1}:"
                    f" --split_rule {rule} will be refused"
                )
        return warnings


def scan(root: Path, settings: Settings) -> Scan:
    """All clips of the 101 classes under `root`; raises `UsageError` if it holds none."""
    if release := find_release(root, "ucf101", LABELS):
        return scan_release(release)
    flow_root = posixpath.normpath(settings.flow_root)
    if posixpath.isabs(flow_root):
        raise UsageError(f"--flow_root {flow_root} must be relative to the raw root {root}")
    pictures = [posixpath.normpath(posixpath.join(flow_root, axis)) for axis in "uv"]
    tree, lists = RawTree(root), Lists()
    files = walk(root, skip=pictures)  # precomputed flow has five million files
    clips = _read_tree(tree, files, lists)
    if not any(clips.values()):
        raise UsageError(f"{root} holds no clip of UCF-101. {SOURCE}")
    for key, (name, path) in lists.names.items():
        if key not in clips:
            tree.reject(name, path, "missing_file")
    clips = {key: clip for key, clip in clips.items() if clip}
    for key, clip in clips.items():
        clips[key] = replace(clip, part=lists.part_of(key, CLIP.fullmatch(clip.id)[2]))
    tree.warn_of_count("ucf101", len(clips))
    tree.warnings += lists.warnings(clips)
    if settings.flow_algo == "precomputed":
        clips = _with_pictures(tree, pictures, clips)
    elif any((root / path).is_dir() for path in pictures):
        tree.warnings.append(f"{flow_root} is left unread; --flow_algo precomputed takes its flow")
    if settings.flow_algo == "tvl1":
        pairs = settings.flow_positions * settings.flow_stack
        tree.warnings.append(f"TV-L1 may take {pairs} times 1.5 s a clip: see --limit_s")
    return tree.scan(LABELS, clips.values(), lists.pool(clips))


def _read_tree(tree: RawTree, files: list[str], lists: Lists) -> dict[str, Candidate | None]:
    """The clips by name in lower case, None for one that cannot be used; fills `lists`."""
    clips: dict[str, Candidate | None] = {}
    others = []
    for path in map(PurePosixPath, files):
        listed, match = LIST.fullmatch(path.name.lower()), CLIP.fullmatch(path.stem)
        if listed:
            lists.read(tree, str(path), listed[1], int(listed[2]) - 1)
        elif match and path.suffix.lower() in SUFFIXES:
            key = path.stem.casefold()
            clips[key] = _clip(tree, path, match, clips.get(key))
        elif path.name.lower() != "classind.txt":  # the folders give the classes
            others.append(path)
    _reject_others(tree, others)
    return clips


def _clip(
    tree: RawTree, path: PurePosixPath, match: re.Match, before: Candidate | None
) -> Candidate | None:
    """The clip with one more file; `before` as it was if the file cannot be used."""
    folder, word = path.parent.name.strip(), match[1]
    in_class = folder.casefold() in IDS
    label = IDS.get(folder.casefold() if in_class else word.casefold())
    if label is None:
        what = f"neither {folder!r} nor {word!r} is a class of the set"
        tree.reject(path.stem, str(path), "no_label", what)
        return before
    if in_class and word.casefold() != folder.casefold():
        what = f"a clip of {word} in the folder {folder}"
        tree.reject(path.stem, str(path), "unknown_name", what)
        return before
    paths = (*(before.sources["video"] if before else ()), str(path))
    if before:
        tree.reject(path.stem, str(path), "second_file", paths[0])
    name = before.id if before else path.stem
    sources = {"flow": paths, "video": paths}
    return Candidate(name, label, sources, f"{LABELS[label]}_g{match[2]}")


def _reject_others(tree: RawTree, paths: list[PurePosixPath]) -> None:
    """Rejects files that are nothing of this data set; extracted frames as one line a clip."""
    counts = Counter(path.parent for path in paths)
    for path in paths:
        if not CLIP.fullmatch(path.parent.name):
            tree.reject_unknown(str(path))
        elif count := counts.pop(path.parent, 0):
            name = path.parent.name
            tree.reject(name, str(path.parent), "unknown_name", f"{count} files")


def _with_pictures(
    tree: RawTree, pictures: list[str], clips: dict[str, Candidate]
) -> dict[str, Candidate]:
    """The clips with their folders of u and v as flow; folders without a clip are rejected."""
    found = []
    for path in pictures:
        if not (tree.root / path).is_dir():
            raise UsageError(
                f"--flow_algo precomputed: {tree.root} has no folder {path}; --flow_root names the"
                " folder that holds u and v, relative to it"
            )
        names = sorted(name for name in os.listdir(tree.root / path) if not is_ignored(name))
        # The shared set calls v_HandStandPushups_... v_HandstandPushups_...
        found.append({name.casefold(): f"{path}/{name}" for name in names})
        for name in names:
            if name.casefold() not in clips:
                tree.reject(name, f"{path}/{name}", "missing_file", "no clip of this name")
    with_flow = {}
    for key, clip in clips.items():
        flow = tuple(there.get(key, f"{path}/{clip.id}") for there, path in zip(found, pictures))
        with_flow[key] = replace(clip, sources={**clip.sources, "flow": flow})
    return with_flow


def scan_release(tree: ReleaseTree) -> Scan:
    """frames_rgb/<clip>/, flows_u/<clip>/ and flows_v/<clip>/ of the clips of two lists.

    Names are compared without regard to case, as in the download.
    """
    tree.check_classes("classInd.txt", -1, LABELS)
    there = {f: {name.casefold(): name for name in tree.names(f)[::-1]} for f in RELEASE_FOLDERS}
    used: dict[str, set[str]] = {folder: set() for folder in RELEASE_FOLDERS}
    for part in ("train", "test"):
        for row in tree.rows(f"{part}list01_new.txt", str.split, 2):
            clip = PurePosixPath(row.fields[0]).stem
            names = {f: found.get(clip.casefold(), clip) for f, found in there.items()}
            for folder, name in names.items():
                used[folder].add(name)
            _add_release(tree, row, part, [tree.path(f, name) for f, name in names.items()])
    for folder, names in used.items():
        tree.reject_others(folder, names)
    found = tree.result()
    found.warnings.append("optical flow is that of flows_u and flows_v, whatever --flow_algo says")
    return found


def _add_release(tree: ReleaseTree, row: Row, part: str, folders: list[str]) -> None:
    """Adds the clip of a row, with its folders of frames, u and v."""
    name = row.fields[0]
    place, sample = PurePosixPath(name), PurePosixPath(name).stem or name
    word, named = place.parent.name, CLIP.fullmatch(sample)
    label = IDS.get(word.casefold(), -1)
    has_form = len(place.parts) == 2 and place.suffix.lower() == ".avi"
    if named and named[2] in VAL_GROUPS and part == "train":
        part = "val"
    sources = {"flow": tuple(folders[1:]), "video": (folders[0],)}
    group = f"{LABELS[label]}_g{named[2]}" if named else ""
    tree.add(
        row,
        Candidate(sample, label, sources, group, part),
        name=name,
        fault="" if has_form else "unknown_name",
        unknown_class="" if label >= 0 else word,
        folders=folders,
        conflict=f"list: {name}" if named and named[1].casefold() != word.casefold() else "",
    )
