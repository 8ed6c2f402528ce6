"""The benchmark of the preparation compares like with like."""

import io
import wave
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks import prep_throughput as bench
from benchmarks.prep_clips import MP4, make_clips
from data_prep.shards import Shard

SECONDS = 4.0
ROWS = {row.title: row for row in bench.rows(SECONDS)}
SMALL = 64, 48


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One clip of each kind; the flv is larger than the short side that is stored."""
    return make_clips(tmp_path_factory.mktemp("clips"), 1, SECONDS, SMALL, (384, 288))


@pytest.mark.parametrize("title", ROWS)
def test_all_ways_read_the_same_frames_and_sound(title, clips, tmp_path):
    row, (clip,) = ROWS[title], clips[ROWS[title].kind]
    times, count = bench.compare(row, [clip], tmp_path, 1, None)
    assert times.keys() == {"peers", "limit", *row.specs}
    (peers,) = (tmp_path / "peers").iterdir()
    ((*pictures,),) = bench.peer_pictures(peers, [clip])
    assert pictures == [(256, 341) if row.kind == "flv" else SMALL[::-1]] * row.k
    (values,) = map(np.load, tmp_path.rglob("sound.npy"))
    assert values.shape == (257, int(row.specs["stft"]["audio"].seconds * 22050) // 353 + 1)
    made = list(tmp_path.rglob("sound.wav"))
    assert len(made) == (row.kind in MP4)  # CREMA-D comes with its own
    for path in made:
        with wave.open(str(path)) as file:
            assert file.getnframes() / file.getframerate() == pytest.approx(SECONDS, abs=0.1)

    with av.open(str(clip.video)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = np.stack(shown).astype(np.int16)
    middles = [(2 * j + 1) * len(frames) // (2 * row.k) for j in range(row.k)]
    for form in row.specs:
        stored = Shard(tmp_path / f"{form}.arrow").value(0, "video")
        for number, data in zip(middles, stored, strict=True):
            picture = Image.open(io.BytesIO(data)).resize(frames.shape[2:0:-1])
            apart = np.abs(frames - np.asarray(picture, dtype=np.int16)).mean(axis=(1, 2, 3))
            assert abs(apart.argmin() - number) <= 1  # neighbours differ hardly more than a JPEG
    runs = bench.needed(clip.video, row.k)
    assert count == sum(map(len, runs)) >= row.k
    assert all(run.stop <= later.start for run, later in pairwise(runs))


def test_unlike_numbers_of_pictures_are_refused(clips, tmp_path):
    row = ROWS["flv + wav, k = 2"]
    with pytest.raises(RuntimeError, match="not as many pictures"):
        bench.compare(row._replace(step=5), clips["flv"], tmp_path, 1, None)


def test_the_limit_starts_at_the_last_keyframe_before_each_frame(clips):
    (clip,) = clips["gop60"]
    runs = bench.needed(clip.video, 3)  # of 120 frames number 20, 60 and 100
    assert [run.start for run in runs] == [0, 60]
    assert 20 < len(runs[0]) < 40 and 40 < len(runs[1]) <= 60


def test_the_verdict_names_each_miss():
    def line(title, gain, excess):
        ratios = bench.Ratio(gain, 0.0, 9.0), bench.Ratio(excess, 0.0, 9.0)
        return bench.Line(title, (1.0, 1.0, 1.0), *ratios, 1)

    good = line("mp4, k = 3, stft", 2.3, 1.2), line("mp4, k = 10, stft", 1.3, 1.2)
    assert bench.verdict(list(good))[1]
    said, met = bench.verdict([*good, line("mp4, k = 3, fbank", 2.1, 1.3)])
    assert not met and all("not met by mp4, k = 3, fbank: " in words for words in said)
