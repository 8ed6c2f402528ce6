"""Media headers that claim more than the file has; random damage is in `tests/faults`."""

import json
from pathlib import Path

import pytest
from clips import extract, images, index_of, noise, rejection, write_clip
from conftest import program

from data_prep.media import FEW, lacks_index
from data_prep.modalities.flow import Flow
from data_prep.modalities.video import Video

# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,times,expected", [
    ("a.mkv", [-90, -50, -10, 30], [0, 2, 3]), ("a.mp4", [0, 40, 80, 120, 36 * 10**6], [3, 3, 3]),
    ("a.mkv", [0, 40, 80, 120, 2 * 10**9], [3, 3, 3]),
])  # fmt: skip
def test_far_and_negative_times(tmp_path, name, times, expected):
    path = write_clip(tmp_path / name, times, options={"bf": "0", "tune": "zerolatency"})
    video = Video(positions=3, codec="raw")
    assert [index_of(image) for image in images(video, path)] == expected
    assert extract(video, path).n_frames == len(times)
    assert len(extract(Flow(positions=3), path).payload) == 6


# --- claims ---------------------------------------------------------------------------------------


def box(kind: bytes, content: bytes, long: bool = False) -> bytes:
    if long:
        return (1).to_bytes(4, "big") + kind + (16 + len(content)).to_bytes(8, "big") + content
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def table(kind: bytes, count: int, long: bool = False) -> bytes:
    """A box that claims `count` samples."""
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
    # A box of length 0 extends to the end of its parent, and no further.
    (HEAD + box(b"moov", nest(bytes(16), b"trak") + nest(MANY, *STBL[1:])), True),
    (HEAD + bytes(16) + nest(MANY, *STBL), False),
    (HEAD + box(b"moov", (1 << 31).to_bytes(4, "big") + b"free" + bytes(99)), False),
    (HEAD + nest(b"\0\0\0\3stsz" + bytes(30), *STBL), False),
    (HEAD + nest(MANY[:13], *STBL), False), (b"RIFF" + nest(MANY, *STBL), False),
    (HEAD + nest(b"", *STBL * 500), False), (HEAD, False), (b"", False),
])  # fmt: skip
def test_counts_of_an_index(tmp_path, content, refused):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    if refused:
        assert rejection(lacks_index, path) == "truncated"
    else:
        lacks_index(path)  # raises nothing


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
    """(kind, file, result, seconds, peak MB) of each extraction except those of the first path."""
    done = program("-c", RUN, *paths)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    before = lines[3][4]
    assert [line[2] for line in lines[:4]] == ["kept"] * 4 and len(lines) == 4 * len(paths)
    return [(*line[:4], line[4] - before) for line in lines[4:]]


def test_headers_that_claim_a_billion_frames_cost_neither_time_nor_memory(tmp_path):
    good = write_clip(tmp_path / "good.mp4", 40, options={"bf": "2"}, wave=noise(4))
    paths = [tmp_path / f"{name}.mp4" for name in CLAIMS]
    for path, changes in zip(paths, CLAIMS.values()):
        path.write_bytes(patched(good.read_bytes(), changes))
        assert path.read_bytes() != good.read_bytes()
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
