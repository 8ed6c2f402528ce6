"""Video: frames by time, pixels, damaged files, complete samples, and the model's view of them."""

from bisect import bisect_right
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from clips import (
    cut,
    extract,
    hidden_start,
    images,
    index_of,
    noise,
    pack,
    refused,
    texture,
    write_clip,
)  # fmt: skip

from data_prep.modalities import decoding, track
from data_prep.modalities.base import Draw
from data_prep.modalities.flow import Flow
from data_prep.modalities.video import Video
from data_prep.modalities.views import choose_frames, resize

SECOND = Video(fps=1.0)


def indices(path: Path, **spec) -> list[int]:
    video = Video(codec="raw", **{"max_frames": 60, "min_decoded": 1, **spec})
    return [index_of(image) for image in images(video, path)]


# --- frames by time -------------------------------------------------------------------------------


@pytest.mark.parametrize("name,codec,options", [
    ("a.mp4", "libx264", {"bf": "2"}), ("a.mkv", "libx264", {"bf": "2"}), ("a.flv", "flv", {}),
    ("a.avi", "mpeg4", {}), ("b.avi", "mpeg4", {"bf": "2"}),
])  # fmt: skip
def test_frames_at_the_middle_of_seconds(tmp_path, name, codec, options):
    path = write_clip(tmp_path / name, 40, codec=codec, options=options)  # 10 per second
    assert indices(path, fps=1.0) == [5, 15, 25, 35]
    assert indices(path, fps=1.0, max_frames=2) == [5, 15]
    assert indices(path, positions=4) == [5, 15, 25, 35]
    assert indices(path, first=3) == [0, 1, 2]
    assert "cut" in extract(Video(fps=1.0, max_frames=3), path).flags
    assert "cut" not in extract(Video(fps=1.0, max_frames=5), path).flags


@pytest.mark.parametrize("name,codec,gop,options", [
    ("a.mp4", "libx264", 30, {"bf": "3", "b-pyramid": "normal"}), ("a.mp4", "libx264", 5, {}),
    ("a.mkv", "libx264", 30, {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
    ("a.avi", "mpeg4", 30, {"bf": "2"}), ("a.mpg", "mpeg2video", 12, {"bf": "2"}),
    ("a.flv", "flv", 30, {}),
])  # fmt: skip
def test_stored_frames_are_those_of_a_full_decoding(tmp_path, name, codec, gop, options):
    """Even though packets before a keyframe and non-reference pictures are skipped."""
    still = texture(48, 64)[:, :, None].repeat(3, 2)
    moving = np.stack([np.roll(still, (k, 2 * k), (0, 1)) for k in range(40)])
    rate = 25 if name == "a.mpg" else 10
    path = write_clip(
        tmp_path / name, 40, codec=codec, options=options, gop=gop, rate=rate, image=moving
    )
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
        shown = {f.pts: f.to_ndarray(format="rgb24") for f in container.decode(video=0)}
    times = sorted(shown)
    end = times[-1] + round(1 / (rate * tick))
    for count in (1, 2, 3, 7, 11):
        wanted = [times[0] + (end - times[0]) * (2 * j + 1) / (2 * count) for j in range(count)]
        expected = [shown[times[bisect_right(times, time) - 1]] for time in wanted]
        found = images(Video(positions=count, codec="raw"), path)
        assert np.array_equal(found, expected), count


def test_no_more_is_decoded_than_the_wanted_frames_need(tmp_path, monkeypatch):
    passes, frames, real = [], [], track.Decoding.frames

    def counted(self, *args):
        passes.append(self)
        for item in real(self, *args):
            frames.append(item)
            yield item

    monkeypatch.setattr(track.Decoding, "frames", counted)
    path = write_clip(tmp_path / "a.mp4", 300, options={"preset": "ultrafast"})
    found = extract(Video(fps=1.0, max_frames=3), path)
    assert (found.n_frames, found.duration_s) == (300, 30.0) and passes[-1].read < 60
    path = write_clip(tmp_path / "b.mp4", 40, options={"bf": "3"}, gop=40)
    frames.clear()
    assert indices(path, positions=1) == [20] and len(frames) < 15  # of 21: some are non-reference


def test_variable_frame_rate(tmp_path):
    times = [0, 40, 80, 120, 160, 1400, 1440, 2600, 2640, 2680]
    path = write_clip(tmp_path / "a.mp4", times, options={"bf": "2"})
    # At 0.5 and 1 s the fifth frame is shown, at 2 s the seventh.
    assert indices(path, fps=1.0) == [4, 6, 6]
    assert indices(path, positions=2) == [4, 6]
    assert extract(SECOND, path).duration_s == pytest.approx(2.72, abs=0.01)


def test_nonsense_frame_rates(tmp_path):
    path = write_clip(tmp_path / "a.flv", [40 * i for i in range(40)], codec="flv", rate=1000)
    assert indices(path, fps=2.0) == [6, 18, 31]


@pytest.mark.parametrize("spec,expected", [
    ({"positions": 10}, [2, 6, 10, 14, 18, 22, 26, 30, 34, 38]), ({"positions": 1}, [20]),
    ({"fps": 5.0}, [2, 7, 12, 17, 22, 27, 32, 37]),
])  # fmt: skip
def test_packed_frames_are_picked_in_their_order_also_of_a_cut_clip(tmp_path, spec, expected):
    path, video = pack(tmp_path / "a.avi", 40), Video(codec="raw", **spec)  # 25 per second
    assert [index_of(image[:12]) for image in images(video, path)] == expected
    found = extract(video, path)
    assert (found.flags, found.n_frames, found.duration_s) == ((), 40, 1.6)
    path, video = cut(pack(tmp_path / "b.avi", 47), 0.8), Video(positions=7, codec="raw")
    found = extract(video, path)
    expected = [int(found.n_frames * (2 * j + 1) / 14) for j in range(7)]
    assert found.flags == ("truncated",) and 15 < found.n_frames < 44
    assert [index_of(image[:12]) for image in images(video, path)] == expected


def test_edit_list_hides_frames(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", 40, gop=40, options={"bf": "0"})
    path = hidden_start(whole, tmp_path / "b.mp4", 1.5)
    found = extract(SECOND, path)
    assert found.flags == () and found.duration_s == pytest.approx(2.5, abs=0.01)
    assert indices(path, fps=1.0) == [20, 30]


def test_short_clips(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 4)  # 0.4 s
    found = extract(Video(fps=1.0, min_frames=3), path)
    assert indices(path, fps=1.0, min_frames=3) == [2, 2, 2]
    assert found.flags == ("repeated_frames",) and found.n_frames == 4
    path = write_clip(tmp_path / "b.mp4", 1)
    assert refused(SECOND, path) == "few_frames" and indices(path, positions=3) == [0, 0, 0]


@pytest.mark.parametrize("level,flags", [(0, ("black",)), (90, ("still",)), (None, ())])
def test_black_and_still_videos_are_flagged(tmp_path, level, flags):
    picture = None if level is None else np.full((48, 64, 3), level, np.uint8)
    path = write_clip(tmp_path / "a.mp4", 20, image=picture)
    assert extract(Video(fps=2.0, max_frames=4), path).flags == flags


# --- pixels ---------------------------------------------------------------------------------------


def corners(height=48, width=64) -> np.ndarray:
    """Red top left, green top right, blue bottom left, white bottom right."""
    colours = np.uint8([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]])
    return colours.repeat(height // 2, 0).repeat(width // 2, 1)


def names(image: np.ndarray) -> str:
    """The colours of the corners, from the top left in reading order."""
    height, width = image.shape[:2]
    places = image[height // 4 :: height // 2, width // 4 :: width // 2].reshape(4, 3)
    letters = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w"}
    return "".join(letters[tuple(place)] for place in (places > 127).astype(int).tolist())


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
@pytest.mark.parametrize("turn,expected,shape", [
    (None, "rgbw", (48, 64, 3)), (90, "gwrb", (64, 48, 3)), (180, "wbgr", (48, 64, 3)),
    (-90, "brwg", (64, 48, 3)),
])  # fmt: skip
def test_frames_are_rgb_and_upright(tmp_path, turn, expected, shape, codec):
    """`turn` is counter-clockwise: 90 brings the right edge up."""
    path = write_clip(tmp_path / "a.mp4", 5, image=corners(), turn=turn)
    (image,) = images(Video(fps=1.0, codec=codec), path)
    assert (names(image), image.shape, image.dtype) == (expected, shape, np.uint8)


@pytest.mark.parametrize("matrix,expected", [
    ((1, 0, 0, 1), "rgbw"), ((-1, 0, 0, 1), "grwb"), ((1, 0, 0, -1), "bwrg"),
    ((0, 1, 1, 0), "rbgw"),
])  # fmt: skip
def test_mirrored_display_matrix(matrix, expected):
    a, b, c, d = (value * 65536 for value in matrix)
    side = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32)
    frame = SimpleNamespace(side_data={"DISPLAYMATRIX": side})
    assert names(decoding.upright(corners(), frame)) == expected


@pytest.mark.parametrize("size,spec,shape", [
    ((680, 512), {}, (256, 340)), ((512, 680), {}, (340, 256)), ((64, 48), {}, (48, 64)),
    ((64, 48), {"square": 32, "short_side": None}, (32, 32)), ((642, 480), {}, (256, 342)),
    ((320, 300), {"short_side": None}, (300, 320)),
])  # fmt: skip
def test_scaling(tmp_path, size, spec, shape):
    path = write_clip(tmp_path / "a.mp4", 5, size=size)
    (image,) = images(Video(fps=1.0, codec="raw", **spec), path)
    assert image.shape[:2] == shape


def test_a_converter_kept_from_frame_to_frame_gives_the_pixels_of_a_fresh_one():
    rng, formats = np.random.default_rng(0), ["yuv420p", "yuvj420p", "yuv422p10le", "gray", "rgb24"]
    frames = []  # size, pixel format, range and colour space change between frames
    for k in range(60):
        content = rng.integers(0, 256, (*[(48, 64), (50, 66), (240, 322)][k % 3], 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(content, "rgb24").reformat(format=formats[k % 5])
        frame.colorspace = (1, 5, 5, 9)[k % 4] if frame.format.name.startswith("yuv") else 2
        frames.append(frame)
    for frame in frames:
        found = decoding.render(frame, Video(short_side=None))
        assert np.array_equal(found, frame.to_ndarray(format="rgb24"))


def test_what_does_not_convert_or_is_too_large_is_refused(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", 5, options={"x264-params": "colormatrix=YCgCo"})
    assert refused(SECOND, path) == refused(Flow(), path) == "unreadable"
    monkeypatch.setattr(track, "MOST_PIXELS", 64 * 48 - 1)
    assert refused(SECOND, write_clip(tmp_path / "b.mp4", 5)) == "unreadable"


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,codec,container", [
    ("a.mp4", "libx264", {"movflags": "faststart"}), ("a.flv", "flv", {}), ("a.mkv", "libx264", {}),
    ("a.avi", "mpeg4", {}),
])  # fmt: skip
@pytest.mark.parametrize("seconds,share,kept", [(3, 0.7, True), (3, 0.3, False), (9, 0.5, True)])
def test_cut_files(tmp_path, name, codec, container, seconds, share, kept):
    count = 10 * seconds
    grain = np.random.default_rng(0).integers(0, 255, (count, 48, 64, 3), dtype=np.uint8)
    whole = write_clip(tmp_path / name, count, codec=codec, container=container, image=grain)
    path = cut(whole, share)
    assert extract(SECOND, whole).flags == ()
    if not kept:
        assert refused(SECOND, path) == "truncated"
        assert extract(Video(fps=1.0, missing="fill"), path).flags == ("truncated",)
        return
    found = extract(SECOND, path)
    assert found.flags == ("truncated",)
    assert found.duration_s == pytest.approx(share * seconds, abs=0.5)
    assert len(found.payload) == len([k for k in range(9) if k + 0.5 < found.duration_s])


def test_sound_only_files(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 0, wave=noise(1))
    assert refused(SECOND, path) == "no_video"
    fill = Video(fps=2.0, min_frames=2, missing="fill", codec="raw")
    found = extract(fill, path)
    assert (found.flags, found.n_frames) == (("no_video",), 0)
    assert [image.shape for image in images(fill, path)] == [(256, 341, 3)] * 2
    assert not np.any(images(fill, path))


# --- views ----------------------------------------------------------------------------------------

IMAGE = np.repeat(texture(40, 60)[:, :, None], 3, axis=2)
WHOLE, MIRRORED = (
    resize(np.ascontiguousarray(i), 32).transpose(2, 0, 1) for i in (IMAGE, IMAGE[:, ::-1])
)


def view_of(augment, draw: Draw):
    """The model input from a clip whose three frames are the same texture."""
    video = Video(codec="raw", short_side=None, frames=3, augment=augment)
    return video.to_input([video.pack(IMAGE)] * 3, draw)


def views_of(augment):
    """Twelve training views, every second one mirrored."""
    return [view_of(augment, Draw(32, np.random.default_rng(k), bool(k % 2))) for k in range(12)]


def alike(frames):
    return all(np.array_equal(frames[0], frame) for frame in frames)


@pytest.mark.parametrize("augment", ["crop_flip", "flip", "rotate_flip", "none"])
def test_frames_of_a_clip_share_random_draws(augment):
    views = views_of(augment)
    assert all(alike(frames) for frames in views)
    assert alike(views) == (augment == "none")


def test_separate_draws_differ_and_nothing_is_drawn_in_evaluation():
    assert not any(alike(frames) for frames in views_of("crop_flip_apart"))
    coins = [[np.array_equal(f, MIRRORED) for f in frames] for frames in views_of("flip_apart")]
    for turned, frames in zip(coins, views_of("flip_apart")):
        assert all(t or np.array_equal(f, WHOLE) for t, f in zip(turned, frames))
    assert any(len(set(turned)) == 2 for turned in coins)
    assert alike([*view_of("crop_flip_apart", Draw(32, None, flip=True)), WHOLE])


@pytest.mark.parametrize("augment,u", [("flip_apart", 200), ("flip", 55)])
def test_u_changes_its_sign_only_with_a_shared_flip(augment, u):
    level = cv2.imencode(".png", np.full((8, 8), 200, np.uint8))[1].tobytes()
    draw = Draw(8, np.random.default_rng(0), flip=True)
    out = Flow(frames=3, augment=augment).to_input([level] * 6, draw)
    assert (out[:, 0] == u).all() and (out[:, 1] == 200).all()


def test_equal_segments_cover_every_frame():
    for stored in range(3, 12):
        draws = [choose_frames(stored, 3, np.random.default_rng(s)) for s in range(200)]
        assert {k for places in draws for k in places} == set(range(stored))
    assert [choose_frames(n, 3, None) for n in (1, 2, 10)] == [[0, 0, 0], [0, 1, 1], [1, 5, 8]]


def test_kinetics_frames_are_those_of_the_release():
    """The rule of the release's loader: n > 6, s = n // 3, i s + 1 to i s + s, at most 9."""
    for stored, train, chosen in (
        (6, [[1], [1], [1]], [1, 1, 1]),
        (8, [[1, 2], [3, 4], [5, 6]], [1, 3, 5]),
        (10, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [1, 4, 7]),
        (9, [[1, 2, 3], [4, 5, 6], [7, 8]], [1, 4, 7]),  # it would need a tenth: use the last
        (30, [list(range(1, 10)), [9], [9]], [5, 15, 25]),
        (1, [[0], [0], [0]], [0, 0, 0]),
    ):
        draws = [choose_frames(stored, 3, np.random.default_rng(s), "kinetics") for s in range(300)]
        assert [sorted(set(places)) for places in zip(*draws)] == train, stored
        assert choose_frames(stored, 3, None, "kinetics") == chosen, stored
