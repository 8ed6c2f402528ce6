"""Frames by time, pixels, damaged files, and samples as a whole."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import PIL.Image
import pytest
import soundfile
from clips import cut, index_of, noise, pack, rejection, texture, write_clip

from data_prep.modalities import audio, flow, track, video
from data_prep.modalities.extracted import extract_sample, is_lfs_pointer, open_container
from data_prep.modalities.transforms import choose_frames, clip, decode_frame, frame_bytes, resize
from data_prep.modalities.transforms import flow as flow_view
from data_prep.spec import Audio, Candidate, Flow, Video, VideoView


def indices(path: Path, **spec) -> list[int]:
    spec = {"max_frames": 60, "min_decoded": 1, **spec}
    return [index_of(image) for image in video.extract([path], Video(codec="raw", **spec)).payload]


# --- frames by time -------------------------------------------------------------------------------


@pytest.mark.parametrize("name,codec,options", [
    ("a.mp4", "libx264", {"bf": "2"}), ("a.mkv", "libx264", {"bf": "2"}), ("a.flv", "flv", {}),
    ("a.avi", "mpeg4", {}), ("b.avi", "mpeg4", {"bf": "2"}),
])  # fmt: skip
def test_frames_at_the_middle_of_seconds(tmp_path, name, codec, options):
    path = write_clip(tmp_path / name, 40, codec=codec, options=options)  # 10 a second
    assert indices(path, fps=1.0) == [5, 15, 25, 35]
    assert indices(path, fps=1.0, max_frames=2) == [5, 15]
    assert indices(path, positions=4) == [5, 15, 25, 35]
    assert indices(path, fps=2.0) == [2, 7, 12, 17, 22, 27, 32, 37]


@pytest.mark.parametrize("name,codec,options", [
    ("a.mp4", "libx264", {"bf": "3", "b-pyramid": "normal"}), ("a.mp4", "libx264", {"bf": "0"}),
    ("a.mkv", "libx264", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
    ("a.avi", "mpeg4", {"bf": "2"}), ("a.mpg", "mpeg2video", {"bf": "2"}), ("a.flv", "flv", {}),
])  # fmt: skip
def test_pictures_left_out_change_none_of_the_others(tmp_path, monkeypatch, name, codec, options):
    draw = np.random.default_rng(0)
    still = texture(48, 64)[:, :, None].repeat(3, 2)
    moving = np.stack([np.roll(still, (k, 2 * k), (0, 1)) for k in range(40)])
    rate = 25 if name == "a.mpg" else 10
    path = write_clip(
        tmp_path / name, 40, codec=codec, options=options, gop=30, rate=rate, image=moving
    )
    for _ in range(8):
        spec = Video(positions=int(draw.integers(1, 12)), codec="raw")
        short = video.extract([path], spec).payload
        with monkeypatch.context() as patch:
            patch.setattr(track, "CAN_SKIP", ())
            assert np.array_equal(short, video.extract([path], spec).payload)


def test_pictures_that_nothing_needs_are_left_out(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 40, options={"bf": "3"}, gop=40)
    with open_container(path) as container:
        every = sum(1 for _ in track.Decoding(container).frames())
    with open_container(path) as container:
        times = [time for time, _ in track.Decoding(container, wanted=frozenset()).frames()]
    assert every == 40 and 5 < len(times) < 30


def test_variable_frame_rate(tmp_path):
    times = [0, 40, 80, 120, 160, 1400, 1440, 2600, 2640, 2680]
    path = write_clip(tmp_path / "a.mp4", times, options={"bf": "2"})
    # At 0.5 and 1 s the fifth frame is on the screen, at 2 s the seventh.
    assert indices(path, fps=1.0) == [4, 6, 6]
    assert indices(path, positions=2) == [4, 6]
    assert video.extract([path], Video(fps=1.0)).duration_s == pytest.approx(2.72, abs=0.01)


@pytest.mark.parametrize("rate", [1000, 1])
def test_nonsense_frame_rates(tmp_path, rate):
    times = [1000 * i // 25 for i in range(40)]
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.flv", "flv")):
        path = write_clip(tmp_path / name, times, codec=codec, rate=rate)
        if rate == 1000:
            assert indices(path, fps=2.0) == [6, 18, 31]
        assert video.extract([path], Video(fps=1.0)).n_frames == 40


@pytest.mark.parametrize("wanted", [
    {"fps": 1.0}, {"fps": 3.0}, {"fps": 10.0}, {"positions": 2}, {"positions": 3}, {"positions": 7},
])  # fmt: skip
@pytest.mark.parametrize("gop,options", [
    (5, {"bf": "2"}), (40, {}), (8, {"x264-params": "open-gop=1:bframes=3:keyint=8:min-keyint=8"}),
])  # fmt: skip
def test_partial_decoding_equals_full_decoding(tmp_path, wanted, gop, options):
    path = write_clip(tmp_path / "a.mp4", 46, gop=gop, options=options)
    spec = Video(codec="raw", max_frames=60, **wanted)
    loaded = track.load_track(path)
    duration = track.span(loaded.times, loaded.tick)
    times = video.shown_at(loaded.times, loaded.tick, video.sample_times(spec, duration))
    runs = track.plan(loaded, times)
    partial = video.pick(path, runs, spec)
    full = video.pick(path, [(0, sorted(set(times)))], spec)
    assert list(partial) == list(full) == sorted(set(times))
    assert all(np.array_equal(partial[time], full[time]) for time in full)
    if gop < 40 and len(times) == 2:
        assert len(runs) == 2 and runs[0][0] > 0  # and it does skip packets


def test_reading_ends_with_the_last_wanted_frame(tmp_path, monkeypatch):
    path, passes = write_clip(tmp_path / "a.mp4", 300, options={"preset": "ultrafast"}), []

    class Counted(track.Decoding):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            passes.append(self)

    monkeypatch.setattr(video, "Decoding", Counted)
    found = video.extract([path], Video(fps=1.0, max_frames=3, codec="raw"))
    assert [index_of(image) for image in found.payload] == [5, 15, 25]
    assert (found.n_frames, found.duration_s) == (300, 30.0)
    assert [each.read < 60 for each in passes] == [True]


@pytest.mark.parametrize("spec,expected", [
    ({"positions": 10}, [2, 6, 10, 14, 18, 22, 26, 30, 34, 38]), ({"positions": 1}, [20]),
    ({"fps": 5.0}, [2, 7, 12, 17, 22, 27, 32, 37]),
])  # fmt: skip
def test_packed_frames_are_picked_in_their_order(tmp_path, spec, expected):
    path = pack(tmp_path / "a.avi", 40)  # 25 a second
    found = video.extract([path], Video(codec="raw", **spec))
    assert [index_of(image[:12]) for image in found.payload] == expected
    assert (found.flags, found.n_frames, found.duration_s) == ((), 40, 1.6)


def test_a_cut_packed_clip_is_picked_in_its_order(tmp_path):
    found = video.extract([cut(pack(tmp_path / "a.avi", 47), 0.8)], Video(positions=7, codec="raw"))
    expected = [int(found.n_frames * (2 * j + 1) / 14) for j in range(7)]
    assert found.flags == ("truncated",) and 15 < found.n_frames < 44
    assert [index_of(image[:12]) for image in found.payload] == expected


def test_edit_list_hides_frames(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", 40, gop=40, options={"bf": "0"})
    trimmed = tmp_path / "b.mp4"
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        shift = int(1.5 / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    found = video.extract([trimmed], Video(fps=1.0, codec="raw"))
    assert found.flags == () and found.duration_s == pytest.approx(2.5, abs=0.01)
    assert [index_of(image) for image in found.payload] == [20, 30]


def test_short_clips(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 4)  # 0.4 s
    spec = Video(fps=1.0, min_frames=3, codec="raw")
    found = video.extract([path], spec)
    assert [index_of(image) for image in found.payload] == [2, 2, 2]
    assert found.flags == ("repeated_frames",) and found.n_frames == 4


def test_one_frame(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 1, wave=noise(3))
    assert rejection(video.extract, [path], Video(fps=1.0)) == "few_frames"
    found = video.extract([path], Video(fps=2.0, min_frames=2, missing="fill", codec="raw"))
    assert [index_of(image) for image in found.payload] == [0, 0]
    assert (found.flags, found.n_frames) == (("repeated_frames",), 1)
    assert indices(path, positions=3) == [0, 0, 0]


# --- pixels ---------------------------------------------------------------------------------------


def corners(height=48, width=64) -> np.ndarray:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = 255
    return image


def names(image: np.ndarray) -> str:
    """The colours of the corners, from the top left in reading order."""
    height, width = image.shape[:2]
    points = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    known = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "w": (255, 255, 255)}
    distance = {n: np.abs(image.astype(int) - known[n]).sum(axis=2) for n in known}
    return "".join(min(known, key=lambda n: distance[n][point]) for point in points)


def test_frames_are_rgb_also_through_jpeg(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 5, image=corners())
    (raw,) = video.extract([path], Video(fps=1.0, codec="raw")).payload
    (data,) = video.extract([path], Video(fps=1.0)).payload
    assert names(raw) == "rgbw" and raw.shape == (48, 64, 3) and raw.dtype == np.uint8
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert names(decoded) == "rgbw"


@pytest.mark.parametrize("turn,expected,shape", [
    (0, "rgbw", (48, 64)), (90, "gwrb", (64, 48)), (180, "wbgr", (48, 64)), (-90, "brwg", (64, 48)),
])  # fmt: skip
def test_rotation_is_applied(tmp_path, turn, expected, shape):
    """`turn` is counter-clockwise: 90 brings the right edge up."""
    path = write_clip(tmp_path / "a.mp4", 5, image=corners(), turn=turn)
    (image,) = video.extract([path], Video(fps=1.0, codec="raw")).payload
    assert (names(image), image.shape[:2]) == (expected, shape)


@pytest.mark.parametrize("matrix,expected", [
    ((1, 0, 0, 1), "rgbw"), ((-1, 0, 0, 1), "grwb"), ((1, 0, 0, -1), "bwrg"),
    ((0, 1, 1, 0), "rbgw"),
])  # fmt: skip
def test_mirrored_display_matrix(matrix, expected):
    a, b, c, d = (value * 65536 for value in matrix)
    side = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], np.int32).tobytes()

    class Frame:
        side_data = {"DISPLAYMATRIX": side}

    assert names(video.upright(corners(), Frame())) == expected


@pytest.mark.parametrize("size,spec,shape", [
    ((680, 512), {}, (256, 340)), ((512, 680), {}, (340, 256)), ((64, 48), {}, (48, 64)),
    ((64, 48), {"square": 32, "short_side": None}, (32, 32)), ((642, 480), {}, (256, 342)),
    ((320, 300), {"short_side": None}, (300, 320)),
])  # fmt: skip
def test_scaling(tmp_path, size, spec, shape):
    path = write_clip(tmp_path / "a.mp4", 5, size=size)
    (image,) = video.extract([path], Video(fps=1.0, codec="raw", **spec)).payload
    assert image.shape[:2] == shape


def pictures(count: int) -> list[av.VideoFrame]:
    """Frames of random content whose size, pixel format and range change from one to the next."""
    rng, formats = np.random.default_rng(0), ["yuv420p", "yuvj420p", "yuv422p10le", "gray", "rgb24"]
    frames = []
    for k in range(count):
        size = [(48, 64), (50, 66), (240, 322)][k % 3]
        content = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(content, "rgb24").reformat(format=formats[k % 5])
        frame.colorspace = (1, 5, 5, 9)[k % 4] if frame.format.name.startswith("yuv") else 2
        frames.append(frame)
    return frames


def test_one_converter_gives_the_pixels_of_one_for_each_frame(monkeypatch):
    def fresh():
        raise AssertionError("a second converter")

    frames, spec = pictures(60), Video(short_side=None)
    expected = [frame.to_ndarray(format="rgb24") for frame in frames]
    video.render(frames[0], spec)
    monkeypatch.setattr(video, "VideoReformatter", fresh)
    for frame, image in zip(frames, expected):
        assert np.array_equal(video.render(frame, spec), image)


def test_threads_share_no_converter():
    parts = [pictures(60) for _ in range(8)]
    expected = [[frame.to_ndarray(format="rgb24") for frame in part] for part in parts]

    def work(part):
        return [video.render(frame, Video(short_side=None)) for frame in part]

    with ThreadPoolExecutor(4) as pool:
        for images, wanted in zip(pool.map(work, parts), expected):
            assert all(np.array_equal(a, b) for a, b in zip(images, wanted, strict=True))


def test_colours_that_do_not_convert_are_refused(tmp_path):
    options = {"x264-params": "colormatrix=YCgCo"}
    path = write_clip(tmp_path / "a.mp4", 5, options=options)
    assert rejection(video.extract, [path], Video(fps=1.0)) == "unreadable"
    assert rejection(flow.extract, [path], Flow()) == "unreadable"


def test_pictures_that_are_too_large_are_refused(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", 5)
    monkeypatch.setattr(track, "MOST_PIXELS", 64 * 48)
    assert len(indices(path, fps=1.0)) == 1
    monkeypatch.setattr(track, "MOST_PIXELS", 64 * 48 - 1)
    assert rejection(video.extract, [path], Video(fps=1.0)) == "unreadable"


# --- damage ---------------------------------------------------------------------------------------


CUTS = [
    ("a.mp4", "libx264", {"movflags": "faststart"}), ("a.flv", "flv", {}), ("a.mkv", "libx264", {}),
    ("a.avi", "mpeg4", {}),
]  # fmt: skip


@pytest.mark.parametrize("name,codec,container", CUTS)
@pytest.mark.parametrize("seconds,share,kept", [(3, 0.7, True), (3, 0.3, False), (9, 0.5, True)])
def test_cut_files(tmp_path, name, codec, container, seconds, share, kept):
    count = 10 * seconds
    images = np.random.default_rng(0).integers(0, 255, (count, 48, 64, 3), dtype=np.uint8)
    path = write_clip(tmp_path / name, count, codec=codec, container=container, image=images)
    assert video.extract([path], Video(fps=1.0)).flags == ()
    if not kept:
        assert rejection(video.extract, [cut(path, share)], Video(fps=1.0)) == "truncated"
        filled = video.extract([cut(path, share)], Video(fps=1.0, missing="fill"))
        assert filled.flags == ("truncated",)
        return
    found = video.extract([cut(path, share)], Video(fps=1.0))
    assert found.flags == ("truncated",)
    assert found.duration_s == pytest.approx(share * seconds, abs=0.5)
    assert len(found.payload) == len([k for k in range(9) if k + 0.5 < found.duration_s])


def test_mp4_without_its_index(tmp_path):
    path = cut(write_clip(tmp_path / "a.mp4"), 0.6)  # the index stands at the end
    assert rejection(video.extract, [path], Video(fps=1.0)) == "truncated"
    assert rejection(audio.read, path) == "truncated"


def test_damage_in_the_middle(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "a.mp4", 40, gop=20, image=images)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) // 2)
    path.write_bytes(data)
    found = video.extract([path], Video(fps=1.0))
    assert found.flags == ("truncated",) and found.n_frames < 40 and len(found.payload) == 4


def test_sound_only_files(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 0, wave=noise(1))
    assert rejection(video.extract, [path], Video(fps=1.0)) == "no_video"
    found = video.extract([path], Video(fps=2.0, min_frames=2, missing="fill", codec="raw"))
    assert [image.shape for image in found.payload] == [(256, 341, 3)] * 2
    assert not np.any(found.payload) and (found.flags, found.n_frames) == (("no_video",), 0)


# --- samples --------------------------------------------------------------------------------------


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n"
FILL = {"audio": Audio(missing="fill"), "video": Video(fps=1.0, missing="fill")}


def candidate(*sound: str, video: str) -> Candidate:
    return Candidate("x", 0, {"audio": sound, "video": (video,)})


def test_sample_of_two_modalities(tmp_path):
    write_clip(tmp_path / "a.mp4", 30, wave=noise(3))
    spec = {"video": Video(fps=1.0), "audio": Audio()}
    sample = extract_sample(tmp_path, candidate("a.mp4", video="a.mp4"), spec)
    assert list(sample) == ["video", "audio"]
    assert [part.flags for part in sample.values()] == [(), ()]


def test_pointers_are_never_filled(tmp_path):
    (tmp_path / "a.wav").write_bytes(POINTER)
    write_clip(tmp_path / "a.flv", codec="flv", wave=noise(3), sound="libmp3lame")
    assert is_lfs_pointer(tmp_path / "a.wav") and not is_lfs_pointer(tmp_path / "a.flv")
    assert not is_lfs_pointer(tmp_path / "none.wav")
    either = candidate("a.wav", "a.flv", video="a.flv")
    assert rejection(extract_sample, tmp_path, either, FILL) == "lfs_pointer"


def test_sample_without_anything_is_no_sample(tmp_path):
    (tmp_path / "a.flv").write_bytes(b"")
    nothing = candidate("a.flv", video="a.flv")
    assert rejection(extract_sample, tmp_path, nothing, FILL) == "unreadable"
    soundfile.write(tmp_path / "a.wav", noise(1, 1)[0], 44100)
    sample = extract_sample(tmp_path, candidate("a.wav", video="a.flv"), FILL)
    assert sample["audio"].flags == () and sample["video"].flags == ("no_video",)


def test_track_span_of_one_frame():
    assert track.span([7], Fraction(1, 10)) == 0
    assert track.span([0, 1, 2, 9], Fraction(1, 10)) == Fraction(1)


@pytest.mark.parametrize("spec", [Video(codec="raw"), Video(codec="raw", square=5)])
def test_a_raw_frame_comes_back_in_its_own_size(spec):
    shape = (5, 5, 3) if spec.square else (4, 7, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    stored = frame_bytes(image[:, ::-1], spec)
    assert np.array_equal(decode_frame(stored, spec), image[:, ::-1])


# --- views ----------------------------------------------------------------------------------------

RAW = Video(codec="raw", short_side=None)


def views_of(augment, seeds=range(12)):
    """Training views of a clip whose three frames are one and the same texture."""
    image = np.repeat(texture(40, 60)[:, :, None], 3, axis=2)
    stored, view = [frame_bytes(image, RAW)] * 3, VideoView(3, augment)
    draws = [np.random.default_rng(seed) for seed in seeds]
    return image, [clip(stored, RAW, view, 32, rng, bool(k % 2)) for k, rng in enumerate(draws)]


def alike(frames):
    return all(np.array_equal(frames[0], frame) for frame in frames)


@pytest.mark.parametrize("augment", ["crop_flip", "flip", "none"])
def test_frames_of_a_clip_share_their_crop_and_flip(augment):
    _, views = views_of(augment)
    assert all(alike(frames) for frames in views)
    assert alike(views) == (augment == "none")


def test_frames_cropped_apart_differ():
    _, views = views_of("crop_flip_apart")
    assert not any(alike(frames) for frames in views)


def test_frames_flipped_apart_toss_a_coin_each_and_are_whole():
    image, views = views_of("flip_apart")
    whole = resize(image, 32).transpose(2, 0, 1)
    mirrored = resize(np.ascontiguousarray(image[:, ::-1]), 32).transpose(2, 0, 1)
    coins = []
    for frames in views:
        turned = [np.array_equal(frame, mirrored) for frame in frames]
        assert all(t or np.array_equal(f, whole) for t, f in zip(turned, frames))
        coins.append(tuple(turned))
    assert {t for turned in coins for t in turned} == {True, False}
    assert any(len(set(turned)) == 2 for turned in coins)


@pytest.mark.parametrize("augment", ["flip_apart", "flip"])
def test_u_changes_its_sign_with_a_shared_flip_alone(augment):
    levels = np.full((2, 8, 8), 200, np.uint8)  # even: a mirrored picture is the picture
    stored = [cv2.imencode(".png", level)[1].tobytes() for level in levels] * 3
    out = flow_view(stored, Flow(), VideoView(3, augment), 8, np.random.default_rng(0), flip=True)
    u = 55 if augment == "flip" else 200
    assert (out[:, 0] == u).all() and (out[:, 1] == 200).all()


def test_nothing_is_drawn_in_evaluation():
    image, _ = views_of("crop_flip_apart", seeds=())
    view = VideoView(3, "crop_flip_apart")
    out = clip([frame_bytes(image, RAW)] * 3, RAW, view, 32, None, flip=True)
    assert alike([*out, resize(image, 32).transpose(2, 0, 1)])


@pytest.mark.parametrize("size", [(240, 320), (48, 64), (224, 224)])
def test_pictures_are_resized_as_pillow_does(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = PIL.Image.fromarray(image).resize((224, 224), PIL.Image.Resampling.BILINEAR)
    assert np.array_equal(resize(image, 224), np.asarray(expected))


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
        (9, [[1, 2, 3], [4, 5, 6], [7, 8]], [1, 4, 7]),  # it would ask for a tenth: the last
        (30, [list(range(1, 10)), [9], [9]], [5, 15, 25]),
        (1, [[0], [0], [0]], [0, 0, 0]),
    ):
        draws = [choose_frames(stored, 3, np.random.default_rng(s), "kinetics") for s in range(300)]
        assert [sorted(set(places)) for places in zip(*draws)] == train, stored
        assert choose_frames(stored, 3, None, "kinetics") == chosen, stored
