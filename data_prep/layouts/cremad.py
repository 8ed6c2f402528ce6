"""CREMA-D: AudioWAV/<clip>.wav and VideoFlash/<clip>.flv, the emotion in the file's name."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.options import UsageError, option
from data_prep.layouts.walk import count_warnings, walk
from data_prep.spec import Audio, AudioView, Candidate, Rejection, Scan, Spec, Video, VideoView

# The order of ids of OGM-GE, LFM, ARL and BalanceBenchmark.
LABELS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "CREMA-D is at github.com/CheyneyComputerScience/CREMA-D (git-lfs);"
    " the root must hold its folders AudioWAV and VideoFlash."
)
FOLDERS = {"AudioWAV": ".wav", "VideoFlash": ".flv"}
# Actor, sentence, emotion, level. Older copies hold one clip whose level is a single X.
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How CREMA-D is prepared."""

    keep_all: bool = option(
        True, "keep clips with broken sound or picture (silence, repeated or black frames instead)",
        source="the paper's 7,442 samples are all clips there are",
    )  # fmt: skip
    frame_codec: str = option("jpeg", "how frames are stored", choices=("jpeg", "raw"))


def spec(settings: Settings) -> Spec:
    """Sound [257, 188] as in OGM-GE; 2 frames a second as in BalanceBenchmark, of at most 10 s."""
    missing = "fill" if settings.keep_all else "reject"
    return {
        "audio": Audio("stft", sample_rate=22050, seconds=3.0, n_fft=512, hop=353, missing=missing),
        "video": Video(
            fps=2.0, max_frames=20, min_frames=2, codec=settings.frame_codec, missing=missing
        ),
    }


def views(settings: Settings) -> dict[str, AudioView | VideoView]:
    """The whole spectrogram and one frame of each half of the clip."""
    return {"audio": AudioView(None), "video": VideoView(2, "crop_flip")}


def normalise(settings: Settings) -> dict[str, str | tuple[float, float]]:
    """The log spectrogram stays as it is in the field's scripts."""
    return {"audio": "none", "video": "imagenet"}


def scan(root: Path, settings: Settings) -> Scan:
    """Pairs of files by clip name, grouped by actor; raises `UsageError` for another tree."""
    base = _find_base(root)
    files: dict[str, dict[str, str]] = {}
    rejected = []
    for folder, suffix in FOLDERS.items():
        # The regular spelling first: it is the one kept where both stand.
        for path in sorted(walk(root / base / folder), key=lambda path: ("_X." in path, path)):
            source = str(PurePosixPath(base, folder, path))
            name = PurePosixPath(path)
            match = NAME.fullmatch(name.stem)
            if not match or name.suffix.lower() != suffix:
                rejected.append(Rejection(name.stem, source, "unknown_name"))
                continue
            clip = re.sub("_X$", "_XX", name.stem)
            if suffix in files.setdefault(clip, {}):
                rejected.append(Rejection(clip, source, "duplicate", files[clip][suffix]))
            else:
                files[clip][suffix] = source
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


def _candidate(base: str, clip: str, found: dict[str, str]) -> Candidate:
    """Names both files even where one is missing: that the other stands in for it is noted then."""
    actor, _, emotion, _ = NAME.fullmatch(clip).groups()
    wav, flv = (
        found.get(suffix, str(PurePosixPath(base, folder, clip + suffix)))
        for folder, suffix in FOLDERS.items()
    )
    sources = {"audio": (wav, flv), "video": (flv,)}
    return Candidate(clip, LABELS.index(emotion), sources, group=actor)
