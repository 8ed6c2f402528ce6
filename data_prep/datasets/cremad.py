"""CREMA-D: AudioWAV/<clip>.wav and VideoFlash/<clip>.flv, with the emotion in the file name.

Without VideoFlash, the frames of a clip may be images in Image-<rate>-FPS/<clip>/, as the scripts
of GeWu-Lab/OGM-GE_CVPR2022 write them, or in visual/<clip>/ beside audio/<clip>.wav, as its older
ones do (GeWu-Lab/BalanceBenchmark and MMPareto_ICML2024 read these frames, but other files of
sound). Lists (train.csv, test.csv and perhaps val.csv, of clip,emotion) give the part of a clip:
copies of OGM-GE's loader look for them in the root, in annotations/ or in CREMAD/.
"""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from common.options import option
from data_prep.datasets import options
from data_prep.datasets.lists import UNREADABLE, csv_fields
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import RawTree, bases, find_base, names_in
from data_prep.spec import Candidate, Scan, Spec

# The class order of OGM-GE, LFM, ARL and BalanceBenchmark.
LABELS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "CREMA-D is at github.com/CheyneyComputerScience/CREMA-D (git-lfs); the root must contain its"
    " folders AudioWAV and VideoFlash. A tree made for the official MIDAS code works as well, and"
    " so do AudioWAV and frames in Image-01-FPS/<clip>/ or another rate."
)
FOLDERS = {"AudioWAV": ".wav", "VideoFlash": ".flv"}
SOUNDS, FRAMES = ("AudioWAV", "Audio", "audio"), re.compile(r"Image-\d\d-FPS|visual", re.ASCII)
LISTS, LIST_FOLDERS = ("train.csv", "val.csv", "test.csv"), ("", "annotations", "CREMAD")
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
    base, folders = find_frames(root) or (find_base(root, SOURCE, tuple(FOLDERS))[0], FOLDERS)
    tree, files = RawTree(root, base), []
    listed = {} if folders is FOLDERS else _read_lists(tree)
    for folder, suffix in folders.items():
        names = names_in(root / tree.base / folder)
        paths = tree.walk(folder) if suffix else [tree.path(folder, name) for name in names]
        # The regular spelling comes first: it is used if both exist.
        paths.sort(key=lambda path: (PurePosixPath(path).stem.endswith("_X"), path))
        files.append(tree.index(paths, partial(_clip, suffix)))
    (wavs, videos), (sounds, seen) = files, folders
    for clip in wavs.keys() | videos.keys():
        # List both files, even if one is missing: extraction falls back to the other and flags it.
        wav = wavs.get(clip, (tree.path(sounds, f"{clip}.wav"),))
        video = videos.get(clip, (tree.path(seen, f"{clip}{folders[seen]}"),))
        actor, _, emotion, _ = clip.split("_")
        source, label = listed.pop(clip, ("", emotion))
        sources = {"audio": (*wav, *video) if folders is FOLDERS else wav, "video": video}
        part = PurePosixPath(source).stem
        tree.take(Candidate(clip, LABELS.index(label), sources, actor, part), video[0])
        if label != emotion:
            tree.reject(clip, video[0], "label_conflict", f"list: {label}, name: {emotion}")
    for clip, (source, _) in listed.items():
        tree.reject(clip, source, "missing_file", f"no {sounds}/{clip}.wav and no {seen}/{clip}")
    if folders is not FOLDERS:
        tree.warnings.append(f"reading the frames in {root / base / seen}: there is no VideoFlash")
    return tree.scan(LABELS, "cremad")


def find_frames(root: Path) -> tuple[str, dict[str, str]] | None:
    """(base, its folders of sounds and of frames as `FOLDERS`) if the tree has frames, not videos.

    Of several frame rates, the highest is used.
    """
    inside = {base: [n for n in names_in(root / base) if os.path.isdir(root / base / n)]
              for base in bases(root)}  # fmt: skip
    for base, names in inside.items():
        sounds = [name for name in SOUNDS if name in names]
        frames = [name for name in names if FRAMES.fullmatch(name)]
        if sounds and frames and not any("VideoFlash" in names for names in inside.values()):
            return base, {sounds[0]: ".wav", frames[-1]: ""}
    return None


def _read_lists(tree: RawTree) -> dict[str, tuple[str, str]]:
    """clip -> (list, emotion) of all rows in the lists of a tree."""
    found: dict[str, tuple[str, str]] = {}
    for source in (tree.path(folder, name) for folder in LIST_FOLDERS for name in LISTS):
        if not os.path.isfile(tree.root / source):
            continue
        for number, line in tree.lines(source):
            clip, emotion, *_ = *csv_fields(line), "", ""
            name = _clip("", PurePosixPath(clip))
            place = f"{PurePosixPath(source).name}, line {number}"
            if line == UNREADABLE or name is None or emotion not in LABELS:
                is_header = number == 1 and name is None and emotion
                reason = "header_line" if is_header else "bad_line"
                tree.reject(place, source, reason, "not UTF-8" if line == UNREADABLE else line[:80])
            elif name in found:
                tree.reject(name, source, "duplicate", f"{place}; {found[name][0]} was used")
            else:
                found[name] = source, emotion
    return found


def _clip(suffix: str, path: PurePosixPath) -> str | None:
    """The clip of a file or folder, in the regular spelling."""
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
