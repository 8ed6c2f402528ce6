"""UCF-101: <Class>/v_<Class>_gXX_cYY.avi, optionally the official lists and precomputed flow.

A clip's class is its folder's, or its name's where the folder is no class: the files of
HandstandPushups are called v_HandStandPushups_..., so names are compared without regard to case.
Where the folders of classes lie below the root does not matter, nor whether a copy was converted
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
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from common.files import is_ignored
from common.options import UsageError, option
from data_prep.datasets.lines import read_lines
from data_prep.datasets.options import FOLDER_FRAMES, frame_choice_option
from data_prep.datasets.release_lists import release_scan
from data_prep.datasets.walk import count_warnings, walk
from data_prep.spec import Candidate, Listed, Rejection, Scan, Spec

# In the order of classInd.txt, which is the alphabet's without regard to case.
LABELS = (
    "ApplyEyeMakeup", "ApplyLipstick", "Archery", "BabyCrawling", "BalanceBeam", "BandMarching",
    "BaseballPitch", "Basketball", "BasketballDunk", "BenchPress", "Biking", "Billiards",
    "BlowDryHair", "BlowingCandles", "BodyWeightSquats", "Bowling", "BoxingPunchingBag",
    "BoxingSpeedBag", "BreastStroke", "BrushingTeeth", "CleanAndJerk", "CliffDiving",
    "CricketBowling", "CricketShot", "CuttingInKitchen", "Diving", "Drumming", "Fencing",
    "FieldHockeyPenalty", "FloorGymnastics", "FrisbeeCatch", "FrontCrawl", "GolfSwing", "Haircut",
    "Hammering", "HammerThrow", "HandstandPushups", "HandstandWalking", "HeadMassage", "HighJump",
    "HorseRace", "HorseRiding", "HulaHoop", "IceDancing", "JavelinThrow", "JugglingBalls",
    "JumpingJack", "JumpRope", "Kayaking", "Knitting", "LongJump", "Lunges", "MilitaryParade",
    "Mixing", "MoppingFloor", "Nunchucks", "ParallelBars", "PizzaTossing", "PlayingCello",
    "PlayingDaf", "PlayingDhol", "PlayingFlute", "PlayingGuitar", "PlayingPiano", "PlayingSitar",
    "PlayingTabla", "PlayingViolin", "PoleVault", "PommelHorse", "PullUps", "Punch", "PushUps",
    "Rafting", "RockClimbingIndoor", "RopeClimbing", "Rowing", "SalsaSpin", "ShavingBeard",
    "Shotput", "SkateBoarding", "Skiing", "Skijet", "SkyDiving", "SoccerJuggling",
    "SoccerPenalty", "StillRings", "SumoWrestling", "Surfing", "Swing", "TableTennisShot",
    "TaiChi", "TennisSwing", "ThrowDiscus", "TrampolineJumping", "Typing", "UnevenBars",
    "VolleyballSpiking", "WalkingWithDog", "WallPushups", "WritingOnBoard", "YoYo",
)  # fmt: skip
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
VAL_GROUPS = ("23", "24", "25")
BOUND = 20.0  # pixels, as in the precomputed set of the field


@dataclass(frozen=True)
class Settings:
    """How UCF-101 is prepared, and how its samples become inputs."""

    flow_algo: str = option(
        "dis", "optical flow: computed, or the field's pictures from flow_root",
        choices=("dis", "farneback", "tvl1", "precomputed"),
        source="our choice; the field's set is TV-L1",
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
class _Findings:
    """What becomes of the files, while they are gone through; clips by name in lower case."""

    clips: dict[str, Candidate] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)  # names of clips, usable or not
    rejected: list[Rejection] = field(default_factory=list)
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)  # clip -> (its name, a list)
    parts: dict[str, list[str]] = field(default_factory=dict)  # clip -> its part in each list
    first: dict[str, dict[str, None]] = field(  # part -> the clips of the first list, in its order
        default_factory=lambda: {"train": {}, "test": {}}
    )


def scan(root: Path, settings: Settings) -> Scan:
    """All clips of the 101 classes under `root`; raises `UsageError` where it holds none."""
    if (found := release_scan(root, "ucf101")) is not None:
        return found
    flow_root = posixpath.normpath(settings.flow_root)
    if posixpath.isabs(flow_root):
        raise UsageError(f"--flow_root {flow_root} must be relative to the raw root {root}")
    pictures = [posixpath.normpath(posixpath.join(flow_root, axis)) for axis in "uv"]
    findings = _Findings()
    others = _sort_files(root, _files(root, "", set(pictures)), settings, findings)
    if not findings.clips:
        raise UsageError(f"{root} holds no clip of UCF-101. {SOURCE}")
    findings.rejected += _told_by_folder(others)
    findings.rejected += [
        Rejection(name, path, "missing_file")
        for key, (name, path) in findings.rows.items()
        if key not in findings.seen
    ]
    warnings = count_warnings("ucf101", len(findings.clips)) + _part_warnings(findings)
    if settings.flow_algo == "precomputed":
        _use_pictures(root, pictures, findings)
    elif any((root / path).is_dir() for path in pictures):
        warnings.append(f"{flow_root} is left unread; --flow_algo precomputed takes its flow")
    if settings.flow_algo == "tvl1":
        pairs = settings.flow_positions * settings.flow_stack
        warnings.append(f"TV-L1 may take {pairs} times 1.5 s a clip: see --limit_s")
    candidates = sorted(findings.clips.values(), key=lambda candidate: candidate.id)
    return Scan(LABELS, candidates, findings.rejected, warnings, _pool(findings))


def _pool(findings: _Findings) -> list[Listed] | None:
    """The rows of the first official lists, train then test; None where they lack a clip.

    A class is its number in our order, as in the official lists.
    """
    listed = [*findings.first["train"], *findings.first["test"]]
    if not findings.clips.keys() <= set(listed):
        return None
    pool = []
    for key in listed:
        clip, name = findings.clips.get(key), findings.rows[key][0]
        label = clip.label if clip else IDS.get(CLIP.fullmatch(name)[1].casefold())
        if label is not None:
            pool.append(Listed(clip.id if clip else name, label))
    return pool


def _files(root: Path, folder: str, apart: set[str]) -> list[str]:
    """`walk` without the folders `apart`: precomputed flow has five million files."""
    if not any(path.startswith(f"{folder}/" if folder else "") for path in apart):
        return [posixpath.join(folder, path) for path in walk(root / folder)]
    found = []
    for name in sorted(os.listdir(root / folder)):
        path = posixpath.join(folder, name)
        if is_ignored(name) or path in apart:
            continue
        found += _files(root, path, apart) if (root / path).is_dir() else [path]
    return sorted(found)


def _sort_files(root: Path, files: list[str], settings: Settings, findings: _Findings) -> list[str]:
    """Fills `findings` and returns the files that are neither clips nor lists."""
    others = []
    for path in files:
        name = PurePosixPath(path)
        listed = LIST.fullmatch(name.name.lower())
        match = CLIP.fullmatch(name.stem)
        if listed:
            _read_list(root, path, listed[1], int(listed[2]) - 1, findings)
        elif match and name.suffix.lower() in SUFFIXES:
            _judge(path, name, match, findings)
        elif name.name.lower() != "classind.txt":  # it tells nothing that the folders do not
            others.append(path)
    for key, clip in findings.clips.items():
        parts = findings.parts.get(key, [])
        if CLIP.fullmatch(clip.id)[2] in VAL_GROUPS:
            parts = ["val" if part == "train" else part for part in parts]
        findings.clips[key] = replace(clip, part="/".join(parts).rstrip("/"))
    return others


def _judge(path: str, name: PurePosixPath, match: re.Match, findings: _Findings) -> None:
    """Makes a clip a candidate or finds why not."""
    folder, key = name.parent.name.strip(), name.stem.casefold()
    in_class = folder.casefold() in IDS
    label = IDS.get(folder.casefold() if in_class else match[1].casefold())
    findings.seen.add(key)
    if label is None:
        reason, detail = (
            "no_label",
            f"neither {folder!r} nor {match[1]!r} is a class of the set",
        )
    elif in_class and match[1].casefold() != folder.casefold():
        reason, detail = "unknown_name", f"a clip of {match[1]} in the folder {folder}"
    else:
        before = findings.clips.get(key)
        paths = (*(before.sources["video"] if before else ()), path)
        sources = {"flow": paths, "video": paths}
        group = f"{LABELS[label]}_g{match[2]}"
        clip = before.id if before else name.stem
        findings.clips[key] = Candidate(clip, label, sources, group)
        if not before:
            return
        reason, detail = "second_file", paths[0]
    findings.rejected.append(Rejection(name.stem, path, reason, detail))


def _read_list(root: Path, path: str, part: str, number: int, findings: _Findings) -> None:
    """Takes the rows of list `number`, counted from 0; raises `UsageError` for a clip in both.

    The number of a class, which training lists add, is passed over: the folder tells it.
    """
    for row, line in read_lines(root / path):
        match = ROW.fullmatch((line or "").strip())
        if match:
            key = match[1].casefold()
            findings.rows.setdefault(key, (match[1], path))
            parts = findings.parts.setdefault(key, [""] * LISTS)
            if parts[number] not in ("", part):
                raise UsageError(f"{root / path} names {match[1]}, which the other list has, too")
            parts[number] = part
            if number == 0:
                findings.first[part][key] = None
        elif line is None or line.strip():
            findings.rejected.append(Rejection(f"line {row}", path, "bad_line", (line or "")[:80]))


def _told_by_folder(paths: list[str]) -> list[Rejection]:
    """Files that are nothing of this data set; extracted frames as one line a clip's folder."""
    counts = Counter(posixpath.dirname(path) for path in paths)
    rejected = []
    for path in paths:
        folder = posixpath.dirname(path)
        if not CLIP.fullmatch(posixpath.basename(folder)):
            rejected.append(Rejection(PurePosixPath(path).stem, path, "unknown_name"))
        elif count := counts.pop(folder, 0):
            name, detail = posixpath.basename(folder), f"{count} files"
            rejected.append(Rejection(name, folder, "unknown_name", detail))
    return rejected


def _part_warnings(findings: _Findings) -> list[str]:
    """A line for each official split that will be refused."""
    warnings = []
    for number in range(LISTS):
        without = sum(not findings.parts.get(key, [""] * LISTS)[number] for key in findings.clips)
        if without:
            rule = f"official{number + 1 if number else ''}"
            warnings.append(
                f"{without} of {len(findings.clips)} clips stand in no official list {number + 1}:"
                f" --split_rule {rule} will be refused"
            )
    return warnings


def _use_pictures(root: Path, pictures: list[str], findings: _Findings) -> None:
    """Makes the folders of u and v the clips' flow, and tells of those without a clip."""
    found = []
    for path in pictures:
        if not (root / path).is_dir():
            raise UsageError(
                f"--flow_algo precomputed: {root} has no folder {path}; --flow_root names the"
                " folder that holds u and v, relative to it"
            )
        names = sorted(name for name in os.listdir(root / path) if not is_ignored(name))
        # The shared set calls v_HandStandPushups_... v_HandstandPushups_...
        found.append({name.casefold(): f"{path}/{name}" for name in names})
        findings.rejected += [
            Rejection(name, f"{path}/{name}", "missing_file", "no clip of this name")
            for name in names
            if name.casefold() not in findings.clips
        ]
    for key, clip in findings.clips.items():
        flow = tuple(there.get(key, f"{path}/{clip.id}") for there, path in zip(found, pictures))
        findings.clips[key] = replace(clip, sources={**clip.sources, "flow": flow})
