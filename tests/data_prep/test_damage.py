"""Media files damaged at random, and headers that claim what is not there."""

import json
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from clips import extract, images, index_of, noise, refused, rejection, write_clip
from conftest import ROOT

from data_prep.media import FEW, check_index
from data_prep.modalities import decoding, flow, track
from data_prep.modalities.audio import Audio
from data_prep.modalities.flow import Flow
from data_prep.modalities.video import Video
from data_prep.reasons import Reject

NUMBERS = [0, 1, 10**9, 2**31 - 1, 2**31, 2**32 - 1]  # what a damaged header may claim

# --- random damage --------------------------------------------------------------------------------


def damaged(whole: bytes, draw: random.Random, kind: str) -> bytes:
    data = bytearray(whole)
    if kind in ("flip", "both"):
        for _ in range(draw.choice([1, 10, 200])):
            data[draw.randrange(len(data))] = draw.randrange(256)
    if kind in ("cut", "both"):
        data = data[: draw.randrange(len(data) // 3, len(data))]
    if kind == "number":
        for _ in range(draw.choice([1, 2, 4])):
            place, order = draw.randrange(1600), draw.choice(["big", "little"])
            data[place : place + 4] = draw.choice(NUMBERS).to_bytes(4, order)
    if kind == "zero":
        for _ in range(draw.choice([1, 3])):
            place, length = draw.randrange(len(data)), draw.choice([100, 1000, 5000])
            data[place : place + length] = bytes(len(data[place : place + length]))
    return bytes(data)


def attempt(modality, path):
    """What is extracted, or None where it is rejected with a detail."""
    try:
        return extract(modality, path)
    except Reject as reject:
        assert reject.detail
        return None


@pytest.mark.parametrize("name,codec,sound", [
    ("a.mp4", "libx264", "aac"), ("a.flv", "flv", "libmp3lame"), ("a.mkv", "libx264", "aac"),
    ("a.avi", "mpeg4", "pcm_s16le"), ("a.ts", "libx264", "aac"),
])  # fmt: skip
def test_any_damage_ends_in_a_result_or_a_reject(tmp_path, name, codec, sound):
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8), (0, 0), 2)
    frames = np.stack([np.roll(base, (k, 2 * k), (0, 1)) for k in range(60)])
    path, draw, kept = tmp_path / name, random.Random(0), []
    fast = {"movflags": "faststart"} if name == "a.mp4" else {}
    write_clip(
        path, 60, codec=codec, size=(128, 96), image=frames, rate=25, wave=noise(2.4), sound=sound,
        container=fast,
    )  # fmt: skip
    whole = path.read_bytes()
    for turn in range(40):
        kind = ("flip", "cut", "zero", "both", "number")[turn % 5]
        path.write_bytes(damaged(whole, draw, kind))
        stored = attempt(Video(positions=10, min_decoded=4), path)
        motion = attempt(Flow("farneback", positions=2), path)
        attempt(Video(fps=1.0), path)
        kept += [found.flags for found in (stored, attempt(Audio(), path)) if found]
        # What was surveyed is kept by both, or by neither; either may miss the damaged part.
        damage = tuple(f for f in stored.flags if f not in ("black", "still")) if stored else ()
        if motion and motion.flags and damage:
            assert (motion.n_frames, motion.flags) == (stored.n_frames, damage)
        assert not stored or len(stored.payload) == 10 and (motion or not damage)
    assert {(), ("truncated",)} <= set(kept) and (len(kept) < 80 or name == "a.ts")


def test_a_frame_that_does_not_decode_again_is_refused(tmp_path, monkeypatch):
    def vanish(*_):
        raise track.Unexpected("a frame does not appear")
        yield

    path = write_clip(tmp_path / "a.avi", 40, codec="mpeg4")
    path.write_bytes(path.read_bytes()[:-2000])
    assert extract(Video(positions=3), path).flags == ("truncated",)
    monkeypatch.setattr(decoding, "numbered", vanish)
    monkeypatch.setattr(flow, "numbered", vanish)
    assert refused(Video(positions=3), path) == refused(Flow(positions=3), path) == "truncated"


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,times,expected", [
    ("a.mkv", [0, 40, 80, 120, 36 * 10**6], [3, 3, 3]), ("a.mkv", [-90, -50, -10, 30], [0, 2, 3]),
    ("a.mp4", [0, 40, 80, 120, 36 * 10**6], [3, 3, 3]),
    ("a.mkv", [0, 40, 80, 120, 2 * 10**9], [3, 3, 3]),
])  # fmt: skip
def test_far_and_negative_times(tmp_path, name, times, expected):
    path = write_clip(tmp_path / name, times, options={"bf": "0", "tune": "zerolatency"})
    video = Video(positions=3, codec="raw")
    assert [index_of(image) for image in images(video, path)] == expected
    assert extract(video, path).n_frames == len(times)
    assert len(extract(Flow(positions=3), path).payload) == 6


@pytest.mark.parametrize("tick", [None, Fraction(0), Fraction(-1, 25)])
def test_times_without_a_unit_are_refused(tick):
    stream = SimpleNamespace(
        codec_context=object(), time_base=tick, width=64, height=48, disposition=0
    )
    container = SimpleNamespace(streams=SimpleNamespace(video=[stream]))
    assert rejection(track.video_stream, container) == "unreadable"


# --- claims ---------------------------------------------------------------------------------------


def box(kind: bytes, content: bytes, long: bool = False) -> bytes:
    if long:
        return (1).to_bytes(4, "big") + kind + (16 + len(content)).to_bytes(8, "big") + content
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def table(kind: bytes, count: int, long: bool = False) -> bytes:
    """A box that counts `count` samples."""
    before = bytes(4) if kind == b"trun" else bytes(8)
    return box(kind, before + count.to_bytes(4, "big"), long)


def nest(content: bytes, *kinds: bytes) -> bytes:
    for kind in reversed(kinds):
        content = box(kind, content)
    return content


STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
HEAD, MANY = box(b"ftyp", b"isom"), table(b"stsz", 1 << 30)


@pytest.mark.parametrize("content,refused", [
    (HEAD + nest(table(b"stsz", FEW), *STBL), False),
    (HEAD + nest(table(b"stsz", FEW + 1), *STBL), True),
    (HEAD + nest(table(b"stsz", FEW + 1, long=True), *STBL), True),
    (HEAD + nest(table(b"stz2", FEW + 1), *STBL), True),
    (HEAD + nest(table(b"trun", FEW + 1), b"moof", b"traf"), True),
    (HEAD + nest(table(b"trun", FEW), b"moof", b"traf") + nest(table(b"trun", 9), b"moof"), True),
    (HEAD + box(b"mdat", bytes(99), long=True) + nest(table(b"stsz", FEW + 1), *STBL), True),
    # A box of length 0 reaches to the end of its folder, and not further.
    (HEAD + box(b"moov", nest(bytes(16), b"trak") + nest(MANY, *STBL[1:])), True),
    (HEAD + bytes(16) + nest(MANY, *STBL), False),
    (HEAD + box(b"moov", (1 << 31).to_bytes(4, "big") + b"free" + bytes(99)), False),
    (HEAD + nest(b"\0\0\0\3stsz" + bytes(30), *STBL), False),
    (HEAD + nest(MANY[:13], *STBL), False),
    (b"RIFF" + nest(MANY, *STBL), False),
    (HEAD + nest(b"", *STBL * 500), False), (HEAD, False), (b"", False),
])  # fmt: skip
def test_counts_of_an_index(tmp_path, content, refused):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    if refused:
        assert rejection(check_index, path) == "truncated"
    else:
        assert check_index(path) is None


def patched(whole: bytes, changes: dict[bytes, list[tuple[int, int]]]) -> bytes:
    """`whole` with 32-bit numbers written at offsets from the name of each box of a kind."""
    data = bytearray(whole)
    for kind, numbers in changes.items():
        order = "little" if kind in (b"avih", b"strh") else "big"
        place = data.find(kind)
        while place >= 0:
            for offset, value in numbers:
                data[place + offset : place + offset + 4] = value.to_bytes(4, order)
            place = data.find(kind, place + 4)
    return bytes(data)


CLAIMS = {  # offsets from a box's name
    "stts": {b"stts": [(12, 10**9)]},
    "stts entries": {b"stts": [(8, 10**9)]},
    "stsz": {b"stsz": [(12, 10**9)]},
    "duration": {b"mvhd": [(20, 2**31)], b"mdhd": [(20, 2**31)], b"tkhd": [(24, 2**31)]},
    "all": {b"stts": [(12, 10**9)], b"stsz": [(12, 10**9)], b"mdhd": [(20, 2**31)]},
    "equal sizes": {b"stsz": [(8, 100), (12, 8 * 10**7)], b"stsc": [(16, 8 * 10**7)]},
    "sizes of 0": {b"stsz": [(8, 1), (12, 8 * 10**7)], b"stts": [(12, 8 * 10**7)]},
    "ctts": {b"ctts": [(12, 8 * 10**7)]},
    "timescale": {b"mvhd": [(16, 0)], b"mdhd": [(16, 0)]},
}
RUN = """
import json, resource, sys, time
from pathlib import Path
from types import SimpleNamespace
from data_prep.modalities.audio import Audio
from data_prep.modalities.flow import Flow
from data_prep.modalities.video import Video
from data_prep.reasons import Reject
from tests.memory import peak

WORK = {"video": Video(positions=10), "fps": Video(fps=1.0), "audio": Audio(),
        "flow": Flow("farneback", positions=3)}

def run(kind, path):
    begun = time.process_time()  # decoding, not waiting for other programs
    try:
        WORK[kind].extract([Path(path)], None, None)
        result = "kept"
    except Reject as reject:
        result = reject.reason
    seconds = time.process_time() - begun
    print(json.dumps([kind, Path(path).name, result, seconds, peak()]), flush=True)

for kind in WORK:
    run(kind, sys.argv[1])  # a sound file: what is loaded at first use is loaded
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
for path in sys.argv[2:]:
    for kind in WORK:
        run(kind, path)
"""


def measured(*paths: Path) -> list[tuple[str, str, str, float, float]]:
    """(kind, file, result, seconds, peak MB) of each extraction but those of the first path."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, paths)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    before = lines[3][4]
    assert [line[2] for line in lines[:4]] == ["kept"] * 4 and len(lines) == 4 * len(paths)
    return [(*line[:4], line[4] - before) for line in lines[4:]]


def test_headers_that_claim_a_billion_frames_cost_neither_time_nor_memory(tmp_path):
    good = write_clip(tmp_path / "good.mp4", 40, options={"bf": "2"}, wave=noise(4))
    paths = []
    for name, changes in CLAIMS.items():
        paths.append(tmp_path / f"{name}.mp4")
        paths[-1].write_bytes(patched(good.read_bytes(), changes))
        assert paths[-1].read_bytes() != good.read_bytes()
    avi = write_clip(tmp_path / "a.avi", 40, codec="mpeg4", wave=noise(4), sound="pcm_s16le")
    long = {b"avih": [(24, 2**31 - 1)], b"strh": [(40, 2**31 - 1)]}
    avi.write_bytes(patched(avi.read_bytes(), long))
    results = measured(good, *paths, avi)
    for kind, name, result, seconds, peak in results:
        assert result in ("kept", "truncated", "unreadable", "no_audio"), (kind, name, result)
        assert seconds < 5 and peak < 100, (kind, name, seconds, peak)
    found = {(kind, name): result for kind, name, result, _, _ in results}
    assert found["video", "stts.mp4"] == found["audio", "a.avi"] == "kept"
    assert found["video", "equal sizes.mp4"] == found["audio", "equal sizes.mp4"] == "truncated"


def test_a_large_file_is_not_held_in_memory(tmp_path):
    good = write_clip(tmp_path / "a.mp4", 40, size=(640, 480), wave=noise(4))
    path = write_clip(
        tmp_path / "b.avi", 300, codec="rawvideo", size=(640, 480), wave=noise(4),
        sound="pcm_s16le",
    )  # fmt: skip
    assert path.stat().st_size > 130e6
    for kind, _, result, _, peak in measured(good, path):
        assert result == "kept" and peak < 40, (kind, peak)
