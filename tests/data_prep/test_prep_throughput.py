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


@pytest.fixture(scope="module")
def compared(clips, tmp_path_factory):
    """What each row leaves behind: its folder and what `compare` returns."""
    found = {}
    for title, row in ROWS.items():
        folder = tmp_path_factory.mktemp("row")
        found[title] = folder, bench.compare(row, clips[row.kind], folder, 1, None)
    return found


def decoded(path):
    """All frames of a file, RGB [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("title", ROWS)
def test_peers_write_the_number_of_pictures_that_the_title_says(title, compared, clips):
    folder, (times, _) = compared[title]
    assert times.keys() == {"peers", "limit", *ROWS[title].specs}
    (peers,) = (folder / "peers").iterdir()
    for pictures in bench.peer_pictures(peers, clips[ROWS[title].kind]):
        assert len(pictures) == ROWS[title].k
        assert pictures[0] == ((256, 341) if ROWS[title].kind == "flv" else SMALL[::-1])


def test_peers_make_the_sound_anew(compared):
    for title, row in ROWS.items():
        folder, _ = compared[title]
        (values,) = map(np.load, folder.rglob("sound.npy"))
        seconds = row.specs["stft"]["audio"].seconds
        assert values.shape == (257, int(seconds * 22050) // 353 + 1)
        assert np.isfinite(values).all() and values.std() > 0.1
        made = list(folder.rglob("sound.wav"))
        assert len(made) == (row.kind in MP4)  # CREMA-D comes with its own
        for path in made:
            with wave.open(str(path)) as file:
                assert (file.getframerate(), file.getnchannels()) == (16000, 1)
                assert file.getnframes() / 16000 == pytest.approx(SECONDS, abs=0.1)


def test_unlike_numbers_of_pictures_are_refused(clips, tmp_path):
    row = ROWS["flv + wav, k = 2"]
    with pytest.raises(RuntimeError, match="not as many pictures"):
        bench.compare(row._replace(step=5), clips["flv"], tmp_path, 1, None)


@pytest.mark.parametrize("title", ROWS)
def test_the_limit_decodes_for_the_frames_that_ours_stores(title, compared, clips):
    row = ROWS[title]
    (clip,), (folder, (_, count)) = clips[row.kind], compared[title]
    frames = decoded(clip.video).astype(np.int16)
    middles = [(2 * j + 1) * len(frames) // (2 * row.k) for j in range(row.k)]
    for form in row.specs:
        stored = Shard(folder / f"{form}.arrow").value(0, "video")
        for number, data in zip(middles, stored, strict=True):
            picture = Image.open(io.BytesIO(data))
            picture = np.asarray(picture.resize(frames.shape[2:0:-1]), dtype=np.int16)
            nearest = np.abs(frames - picture).mean(axis=(1, 2, 3)).argmin()
            assert abs(nearest - number) <= 1  # neighbours differ by hardly more than a JPEG does
    runs = bench.needed(clip.video, row.k)
    assert count == sum(map(len, runs)) >= row.k
    assert all(run.stop <= later.start for run, later in pairwise(runs))


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
    said, met = bench.verdict([*good, line("mp4, k = 3, fbank", 2.1, 1.0)])
    assert not met and "not met by mp4, k = 3, fbank: 2.10" in said[0] and said[1].endswith(": met")
    said, met = bench.verdict([*good, line("flv, stft", 1.0, 1.3)])
    assert not met and said[0].endswith(": met") and "not met by flv, stft: 1.30" in said[1]


def test_peers_read_every_frame(clips, tmp_path, monkeypatch):
    capture, given = bench.cv2.VideoCapture, []

    class Counting:
        def __init__(self, *args):
            self.capture = capture(*args)
            self.get, self.release = self.capture.get, self.capture.release

        def read(self):
            success, image = self.capture.read()
            given.append(success)
            return success, image

    monkeypatch.setattr(bench.cv2, "VideoCapture", Counting)
    bench.peer_frames(clips["gop250"][0].video, tmp_path, 30, 256)
    assert given == [True] * int(SECONDS * 30) + [False]
