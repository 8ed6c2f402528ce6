"""CREMA-D: AudioWAV/<clip>.wav and VideoFlash/<clip>.flv, with the emotion in the file name."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from common.options import option
from data_prep.datasets import options
from data_prep.datasets.lists import csv_fields
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import RawTree, find_base
from data_prep.spec import Candidate, Scan, Spec

# The class order of OGM-GE, LFM, ARL and BalanceBenchmark.
LABELS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "CREMA-D is at github.com/CheyneyComputerScience/CREMA-D (git-lfs); the root must contain its"
    " folders AudioWAV and VideoFlash. A tree made for the official MIDAS code works as well."
)
FOLDERS = {"AudioWAV": ".wav", "VideoFlash": ".flv"}
# Actor, sentence, emotion, level. Older copies have one clip with the level X instead of XX.
NAME = re.compile(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How CREMA-D is prepared."""

    keep_all: bool = option(
        True,
        "keep clips with broken audio or video (replaced by silence, repeated or black frames)",
        source="our choice: Table 5 counts all 7,442 clips; the official loader leaves some out",
    )
    audio_feature: str = options.audio_feature("fbank")
    frame_codec: str = options.frame_codec()
    frame_choice: str = options.frame_choice("release", source="official release")
    crop: str = options.crop()


def spec(settings: Settings) -> Spec:
    """Audio [128, 1024] (fbank) or [257, 188] (stft, as in OGM-GE); frames of at most 10 s.

    2 per second as in BalanceBenchmark (the release gives no rate), at least 3 (the release).
    """
    missing = "fill" if settings.keep_all else "reject"
    stft = {"sample_rate": 22050, "seconds": 3.0, "n_fft": 512, "hop": 353}
    frames = {"fps": 2.0, "max_frames": 20, "min_frames": 3, "missing": missing}
    return options.clip_spec("cremad", settings, {"missing": missing}, stft, **frames)


def scan(root: Path, settings: Settings) -> Scan:
    """Pairs of files by clip name, grouped by actor; raises `UsageError` if it is another tree."""
    if release := find_release(root, "cremad", LABELS):
        return scan_release(release)
    tree, files = RawTree(root, find_base(root, SOURCE, tuple(FOLDERS))[0]), []
    for folder, suffix in FOLDERS.items():
        # The regular spelling comes first: it is used if both exist.
        paths = sorted(tree.walk(folder), key=lambda path: ("_X." in path, path))
        files.append(tree.index(paths, partial(_clip, suffix)))
    wavs, flvs = files
    for clip in wavs.keys() | flvs.keys():
        # List both files, even if one is missing: extraction falls back to the other and flags it.
        wav = wavs.get(clip, (tree.path("AudioWAV", f"{clip}.wav"),))
        flv = flvs.get(clip, (tree.path("VideoFlash", f"{clip}.flv"),))
        actor, _, emotion, _ = clip.split("_")
        sources = {"audio": (*wav, *flv), "video": flv}
        tree.take(Candidate(clip, LABELS.index(emotion), sources, actor), flv[0])
    return tree.scan(LABELS, "cremad")


def _clip(suffix: str, path: PurePosixPath) -> str | None:
    """The clip of a file, in the regular spelling."""
    is_clip = NAME.fullmatch(path.stem) and path.suffix.lower() == suffix
    return re.sub("_X$", "_XX", path.stem) if is_clip else None


def scan_release(tree: ReleaseTree) -> Scan:
    """AudioWAV/<clip>.wav and visual_frames/<clip>/ of the clips in three lists."""
    clips = set()
    for row in tree.rows(csv_fields):
        clip, emotion = row.fields[:2]
        clips.add(clip)
        wav, frames = tree.path("AudioWAV", f"{clip}.wav"), tree.path("visual_frames", clip)
        sample = re.sub("_X$", "_XX", clip)  # as in the download
        match = NAME.fullmatch(sample)
        actor, named = match.group(1, 3) if match else ("", "")
        label = LABELS.index(emotion) if emotion in LABELS else -1
        sources = {"audio": (wav,), "video": (frames,)}
        tree.add(
            row,
            Candidate(sample, label, sources, actor, row.part),
            name=clip,
            word=emotion,
            fewest=3,  # the release's loader leaves out folders with fewer frames
            conflict=f"name: {named}" if named not in ("", emotion) else "",
        )
    tree.reject_others("AudioWAV", {f"{clip}.wav" for clip in clips}, ".wav")
    tree.reject_others("visual_frames", clips)
    return tree.result()
