"""CREMA-D: AudioWAV/<clip>.wav and VideoFlash/<clip>.flv, the emotion in the file's name."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.options import UsageError, option
from data_prep.datasets.options import (
    CROPS,
    FBANK,
    FBANK_CONSTANTS,
    FOLDER_FRAMES,
    audio_feature_option,
    crop_option,
    frame_choice_option,
)
from data_prep.datasets.release_lists import release_scan
from data_prep.datasets.walk import count_warnings, walk
from data_prep.spec import Candidate, Rejection, Scan, Spec

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


@dataclass(frozen=True)
class Settings:
    """How CREMA-D is prepared."""

    keep_all: bool = option(
        True, "keep clips with broken sound or picture (silence, repeated or black frames instead)",
        source="our choice: Table 5 counts all 7,442 clips, though the official release's loader"
        " leaves out those without a wav file or with fewer than 3 frames",
    )  # fmt: skip
    audio_feature: str = audio_feature_option()
    frame_codec: str = option("jpeg", "how frames are stored", choices=("jpeg", "raw"))
    frame_choice: str = frame_choice_option("release")
    crop: str = crop_option()


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
        audio = Audio(**FBANK, missing=missing, normalise=FBANK_CONSTANTS)
    else:
        audio = Audio("stft", 22050, seconds=3.0, n_fft=512, hop=353, missing=missing)
    video = Video(
        fps=2.0,
        max_frames=20,
        min_frames=3,
        codec=settings.frame_codec,
        missing=missing,
        of_folder=FOLDER_FRAMES,
        augment=CROPS[settings.crop],
        choice="cremad" if settings.frame_choice == "release" else "segments",
    )
    return {"audio": audio, "video": video}


def scan(root: Path, settings: Settings) -> Scan:
    """Pairs of files by clip name, grouped by actor; raises `UsageError` for another tree."""
    if (found := release_scan(root, "cremad")) is not None:
        return found
    base = _find_base(root)
    files: dict[str, dict[str, tuple[str, ...]]] = {}
    rejected = []
    for folder, suffix in FOLDERS.items():
        # The regular spelling first: it is the one read where both stand.
        for path in sorted(walk(root / base / folder), key=lambda path: ("_X." in path, path)):
            source = str(PurePosixPath(base, folder, path))
            name = PurePosixPath(path)
            match = NAME.fullmatch(name.stem)
            if not match or name.suffix.lower() != suffix:
                rejected.append(Rejection(name.stem, source, "unknown_name"))
                continue
            clip = re.sub("_X$", "_XX", name.stem)
            same = files.setdefault(clip, {}).get(suffix, ())
            if same:
                rejected.append(Rejection(clip, source, "second_file", same[0]))
            files[clip][suffix] = (*same, source)
    candidates = [_candidate(base, clip, files[clip]) for clip in sorted(files)]
    return Scan(LABELS, candidates, rejected, count_warnings("cremad", len(candidates)))


def _find_base(root: Path) -> str:
    """The CREMA-D folder relative to `root`: itself, or the first folder in it that is one."""
    bases = ["", *sorted(path.name for path in root.glob("*") if path.is_dir())]
    for base in bases:
        if all((root / base / folder).is_dir() for folder in FOLDERS):
            return base
    names = " and ".join(FOLDERS)
    raise UsageError(f"{root} holds no folders {names}, nor does a folder in it. {SOURCE}")


def _candidate(base: str, clip: str, found: dict[str, tuple[str, ...]]) -> Candidate:
    """Names both files even where one is missing: that the other stands in for it is noted then."""
    actor, _, emotion, _ = NAME.fullmatch(clip).groups()
    wav, flv = (
        found.get(suffix, (str(PurePosixPath(base, folder, clip + suffix)),))
        for folder, suffix in FOLDERS.items()
    )
    sources = {"audio": (*wav, *flv), "video": flv}
    return Candidate(clip, LABELS.index(emotion), sources, group=actor)
