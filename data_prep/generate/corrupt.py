"""Damage of the kinds that raw audio-video trees have in the wild, and what must become of it.

`EXPECTED` is the oracle of the tests. Its values are a reason of `data_prep.spec.REASONS` (the file
does not become a sample, or, for label_conflict, is noted although it does), "flag:<name>" (it
does, and <name> is among its flags in the manifest) or "" (it does, and nothing need be noted).
"""

from pathlib import Path

import numpy as np

from data_prep.generate.media import write_video
from data_prep.generate.scenes import RATE, Scene

EXPECTED = {
    # Kinetics-Sounds: what lacks a modality leaves.
    "kinetics": {
        "zero_byte": "unreadable",
        "html": "unreadable",
        "lfs_pointer": "lfs_pointer",
        "cut_60": "flag:truncated",  # of 8 s: more than the 3 s that are asked remain
        "cut_10": "truncated",
        "no_moov": "truncated",
        "no_audio": "no_audio",
        "silent": "flag:silent",
        "short_audio": "",  # 0.05 s: tiled
        "one_frame": "few_frames",
        "fps_1000": "",  # frames are picked by time: the tag must not matter
        "wrong_extension": "",  # the content decides
        "duplicate": "duplicate",
        "no_label": "no_label",
        "label_conflict": "label_conflict",
        "unknown_name": "unknown_name",
        "row_without_file": "missing_file",
    },
    # CREMA-D: what holds anything at all is kept, as the paper's count of all 7,442 clips implies.
    "cremad": {
        "wav_zero_byte": "flag:source=flv",
        "wav_html": "flag:source=flv",
        "wav_missing": "flag:source=flv",
        "flv_zero_byte": "flag:no_video",
        "flv_html": "flag:no_video",
        "flv_missing": "flag:no_video",
        "cut_60": "flag:truncated",
        "cut_10": "flag:repeated_frames",
        "one_frame": "flag:repeated_frames",
        "no_audio": "flag:silent",  # no wav, and no track in the flv
        "silent": "flag:silent",
        "short_audio": "",
        "fps_1000": "",
        "wrong_extension": "",
        "both_broken": "unreadable",
        "lfs_pointer": "lfs_pointer",
        "name_quirk": "",  # 1040_ITH_SAD_X.wav: taken as ..._XX
        "unknown_name": "unknown_name",
    },
}

LFS_POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 48298\n"
)
HTML = (
    "<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n<body><p>"
    + "The requested file is no longer here. " * 60
    + "</p></body></html>\n"
)
CUT_MP4_SECONDS = 8.0  # length before the cut: 60 % are above the 3 s asked, 10 % below
CUT_FLV_SECONDS = 3.0  # 60 % give the two frames of a sample at 2 a second, 10 % do not
SHORT_SECONDS = 0.05


def damaged_wave(kind: str, wave: np.ndarray) -> np.ndarray | None:
    """The sound to encode for this kind of damage (None: no track)."""
    if kind == "no_audio":
        return None
    if kind == "silent":
        return np.zeros_like(wave)
    return wave[: int(SHORT_SECONDS * RATE)] if kind == "short_audio" else wave


def damage_file(kind: str, path: Path) -> None:
    """Breaks a finished file in place; kinds that concern its content alone change nothing here."""
    if kind.endswith("zero_byte"):
        path.write_bytes(b"")
    elif kind.endswith("html"):
        path.write_text(HTML, encoding="utf-8")
    elif kind == "lfs_pointer":
        path.write_text(LFS_POINTER, encoding="utf-8")
    elif kind in ("cut_60", "no_moov"):
        _cut(path, 0.6)
    elif kind == "cut_10":
        _cut(path, 0.1)


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def write_mp4(path: Path, scene: Scene, fps: int, kind: str) -> None:
    """The video file of a Kinetics clip, with the damage of `kind` ("": none).

    An mp4 has no frame rate tag of its own, so "fps_1000" is a Matroska file.
    """
    tagged = kind == "fps_1000"
    write_video(
        path,
        scene.frames[:1] if kind == "one_frame" else scene.frames,
        fps,
        "h264",
        audio=damaged_wave(kind, scene.wave),
        audio_rate=RATE,
        faststart=kind != "no_moov",  # the index then lies at the end, and the cut takes it away
        container="matroska" if tagged else None,
        fps_tag=1000 if tagged else None,
    )
    damage_file(kind, path)


def write_flv(path: Path, scene: Scene, fps: int, kind: str) -> None:
    """The video file of a CREMA-D clip, with the damage of `kind` ("": none)."""
    write_video(
        path,
        scene.frames[:1] if kind == "one_frame" else scene.frames,
        fps,
        "h264" if kind == "wrong_extension" else "flv1",
        audio=None if kind == "no_audio" else scene.wave,
        audio_rate=RATE,
        fps_tag=1000 if kind == "fps_1000" else None,
    )
    if kind == "both_broken":
        damage_file("html", path)
    elif not kind.startswith("wav_"):
        damage_file(kind, path)
    if kind == "flv_missing":
        path.unlink()
