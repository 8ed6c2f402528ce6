"""CREMA-D: AudioWAV/<clip>.wav and VideoFlash/<clip>.flv, the emotion in the file's name."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.options import option
from data_prep.datasets import options
from data_prep.datasets.lists import csv_fields
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import RawTree, find_base
from data_prep.spec import Candidate, Scan, Spec

# The order of ids of OGM-GE, LFM, ARL and BalanceBenchmark.
LABELS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "CREMA-D is at github.com/CheyneyComputerScience/CREMA-D (git-lfs);"
    " the root must hold its folders AudioWAV and VideoFlash."
    " A tree made for the official MIDAS code does as well."
)
FOLDERS = {"AudioWAV": ".wav", "VideoFlash": ".flv"}
# Actor, sentence, emotion, level. Older copies hold one clip whose level is a single X.
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)", re.ASCII)
RELEASE_LISTS = {"train_split.csv": "train", "val.csv": "val", "test.csv": "test"}
FEWEST_FRAMES = 3  # the release's loader leaves out folders of fewer


@dataclass(frozen=True)
class Settings:
    """How CREMA-D is prepared."""

    keep_all: bool = option(
        True, "keep clips with broken sound or picture (silence, repeated or black frames instead)",
        source="our choice: Table 5 counts all 7,442 clips, though the official release's loader"
        " leaves out those without a wav file or with fewer than 3 frames",
    )  # fmt: skip
    audio_feature: str = options.audio_feature_option()
    frame_codec: str = option("jpeg", "how frames are stored", choices=("jpeg", "raw"))
    frame_choice: str = options.frame_choice_option("release")
    crop: str = options.crop_option()


def spec(settings: Settings) -> Spec:
    """Audio [128, 1024] (fbank) or [257, 188] (stft, as in OGM-GE); frames of at most 10 s.

    2 frames a second as in BalanceBenchmark (the release states no rate), at least 3 (the release);
    the model sees one of each third of the clip. The filter bank is normalised by the official
    release's constants, the STFT stays as OGM-GE has it.
    """
    from data_prep.modalities.audio import Audio
    from data_prep.modalities.video import Video

    missing = "fill" if settings.keep_all else "reject"
    if settings.audio_feature == "fbank":
        audio = Audio(**options.FBANK, missing=missing, normalise=options.FBANK_CONSTANTS)
    else:
        audio = Audio("stft", 22050, seconds=3.0, n_fft=512, hop=353, missing=missing)
    video = Video(
        fps=2.0,
        max_frames=20,
        min_frames=3,
        codec=settings.frame_codec,
        missing=missing,
        of_folder=options.FOLDER_FRAMES,
        augment=options.CROPS[settings.crop],
        choice="cremad" if settings.frame_choice == "release" else "segments",
    )
    return {"audio": audio, "video": video}


def scan(root: Path, settings: Settings) -> Scan:
    """Pairs of files by clip name, grouped by actor; raises `UsageError` for another tree."""
    if release := find_release(root, "cremad", LABELS):
        return scan_release(release)
    what = f"folders {' and '.join(FOLDERS)}"
    tree = RawTree(root, find_base(root, what, _is_base, SOURCE))
    files = {}
    for folder, suffix in FOLDERS.items():
        # The regular spelling first: it is read where both are there.
        paths = sorted(tree.walk(folder), key=lambda path: (_is_single_x(path), path))
        files[suffix] = tree.index(paths, lambda path, suffix=suffix: _clip(path, suffix))
    clips = files[".wav"].keys() | files[".flv"].keys()
    tree.warn_of_count("cremad", len(clips))
    return tree.scan(LABELS, [_candidate(tree, clip, files) for clip in clips])


def _is_base(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS)


def _is_single_x(path: str) -> bool:
    return "_X." in path


def _clip(path: PurePosixPath, suffix: str) -> str | None:
    """The clip that a file belongs to, in the regular spelling."""
    if not NAME.fullmatch(path.stem) or path.suffix.lower() != suffix:
        return None
    return re.sub("_X$", "_XX", path.stem)


def _candidate(tree: RawTree, clip: str, files: dict[str, dict[str, tuple[str, ...]]]) -> Candidate:
    """A clip with both files, even if one is missing: extraction flags the one it reads instead."""
    actor, _, emotion, _ = NAME.fullmatch(clip).groups()
    wav, flv = (
        files[suffix].get(clip, (tree.path(folder, clip + suffix),))
        for folder, suffix in FOLDERS.items()
    )
    sources = {"audio": (*wav, *flv), "video": flv}
    return Candidate(clip, LABELS.index(emotion), sources, group=actor)


def scan_release(tree: ReleaseTree) -> Scan:
    """AudioWAV/<clip>.wav and visual_frames/<clip>/ of the clips of three lists."""
    tree.check_classes("stat.csv", 0, LABELS)
    clips = set()
    for name, part in RELEASE_LISTS.items():
        for row in tree.rows(name, csv_fields, 2):
            clip, emotion = row.fields[:2]
            clips.add(clip)
            sample = re.sub("_X$", "_XX", clip)  # as in the download
            wav, folder = tree.path("AudioWAV", f"{clip}.wav"), tree.path("visual_frames", clip)
            known, named = emotion in LABELS, NAME.fullmatch(sample)
            label = LABELS.index(emotion) if known else -1
            sources = {"audio": (wav,), "video": (folder,)}
            other = named and named[3] != emotion
            tree.add(
                row,
                Candidate(sample, label, sources, named[1] if named else "", part),
                name=clip,
                unknown_class="" if known else emotion,
                files=[wav],
                folders=[folder],
                fewest=FEWEST_FRAMES,
                conflict=f"list: {emotion}, name: {named[3]}" if other else "",
            )
    tree.reject_others("AudioWAV", {f"{clip}.wav" for clip in clips}, ".wav")
    tree.reject_others("visual_frames", clips)
    return tree.result()
