"""Damage of the kinds that raw trees have in the wild, and what must become of it.

`EXPECTED` is the oracle of the tests. Its values are a reason of `data_prep.reasons.REASONS` (the
file does not become a sample, or, for label_conflict, is noted although it does), "flag:<name>" (it
does, and <name> is among its flags in the manifest) or "" (it does, and nothing need be noted).
"""

import os
from collections.abc import Iterable
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
        "rotated": "",  # on its side, as its header says
        "pipe": "unreadable",
        "folder": "missing_file",
        "broken_link": "missing_file",
        "not_utf8": "unknown_name",
        "duplicate": "second_file",
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
        "duplicate": "second_file",  # both spellings of one wav
        "long": "flag:cut",  # frames are taken of its first 10 s
        "pipe": "unreadable",
        "folder": "flag:no_video",
        "broken_link": "flag:no_video",
        "not_utf8": "unknown_name",
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
SHORT_SECONDS, LONG_SECONDS = 0.05, 12.0
HIDDEN = b"\0\0\0\1Bud1"  # how a .DS_Store begins
NOT_UTF8 = ("caf\udce9 ", "caf\\xe9 ")  # a name's beginning with the byte E9, and how it is told
# The matrix of a track's header for a quarter turn, in 16.16 and 2.30 fixed point.
QUARTER_TURN = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)


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
    elif kind == "rotated":
        _rotate(path)
    elif kind in ("pipe", "folder", "broken_link"):  # something else stands in its place
        path.unlink()
        {"pipe": os.mkfifo, "folder": os.mkdir, "broken_link": _link_to_nothing}[kind](path)
    elif kind == "not_utf8":
        path.rename(path.with_name(NOT_UTF8[0] + path.name))


def told_stem(kind: str, stem: str) -> str:
    """How a file of this stem is told of after `damage_file`."""
    return NOT_UTF8[1] + stem if kind == "not_utf8" else stem


def write_hidden(folder: Path, names: Iterable[str]) -> None:
    """What operating systems leave in folders and archives: no scan may count it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(HIDDEN)


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("moved away")


def _rotate(path: Path) -> None:
    """Has the first track of an mp4 shown turned by 90 degrees."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # version 0: behind its times, layer and volume
    matrix = np.array(QUARTER_TURN, ">i4").tobytes()
    content[start : start + len(matrix)] = matrix
    path.write_bytes(content)


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
