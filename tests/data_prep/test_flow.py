"""Optical flow: quantisation, which frames it is taken between, flips, damage, precomputed sets."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import cut, index_of, pack, rejection, texture, write_clip

from common.options import UsageError
from data_prep.modalities import flow, transforms, video
from data_prep.reasons import Reject
from data_prep.spec import Flow, Video, VideoView
from fixtures.media import write_video

BOUND = 20.0


def moving(steps: list[tuple[float, float]], size: tuple[int, int] = (96, 72)) -> np.ndarray:
    """Frames [N + 1, H, W, 3] of a texture that moves by each of the N `steps`, right and down."""
    width, height = size
    wide = texture(height + 120, width + 120)
    places = np.cumsum([(0.0, 0.0), *steps], axis=0)
    frames = []
    for x, y in places:
        shift = np.array([[1, 0, x - 60], [0, 1, y - 60]])
        frames.append(cv2.warpAffine(wide, shift, size, flags=cv2.INTER_CUBIC))
    return np.repeat(np.stack(frames)[..., None], 3, axis=3)


def clip_of(path: Path, steps: list[tuple[float, float]], size=(96, 72)) -> Path:
    write_video(path, moving(steps, size), 25, "mpeg4")
    return path


def decode(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)


def motions(payload: list[bytes]) -> list[tuple[float, float]]:
    """(u, v) in pixels of each stored pair: the median far from the edges."""
    inner = [flow.dequantise(decode(p), BOUND)[12:-12, 12:-12] for p in payload]
    middles = [round(float(np.median(values)), 2) for values in inner]
    return list(zip(middles[0::2], middles[1::2]))


# Quantisation -------------------------------------------------------------------------------------


def test_levels_of_known_motions():
    values = np.array([-30.0, -20.0, 0.0, 20.0, 30.0, 0.5])
    assert flow.quantise(values, 20.0).tolist() == [0, 0, 128, 255, 255, 131]
    assert flow.quantise(np.zeros(3, np.float32), 15.0).tolist() == [128] * 3


@pytest.mark.parametrize("bound", [20.0, 15.0, 0.3])
def test_levels_give_the_motion_back(bound):
    values = np.random.default_rng(0).uniform(-bound, bound, (50, 40, 2)).astype(np.float32)
    levels = flow.quantise(values, bound)
    assert levels.dtype == np.uint8 and levels.shape == values.shape
    error = np.abs(flow.dequantise(levels, bound) - values).max()
    assert 0.9 * bound / 255 < error <= 1.0001 * bound / 255
    assert (flow.quantise(flow.dequantise(levels, bound), bound) == levels).all()


def test_jpeg_keeps_smooth_flow_within_a_level():
    across, down = np.meshgrid(np.linspace(-5, 5, 320), np.linspace(-3, 3, 240))
    values = (across * down).astype(np.float32)
    stored = flow.dequantise(decode(flow.encode(flow.quantise(values, BOUND), 95)), BOUND)
    assert np.abs(stored - values).max() <= BOUND / 255 + 2 * BOUND / 255


def test_an_opposite_motion_has_the_opposite_level():
    values = np.random.default_rng(1).uniform(-25, 25, 1000)
    opposite = 255 - flow.quantise(values, BOUND).astype(int)
    assert (flow.quantise(-values, BOUND) == opposite).all()


# Frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["dis", "farneback", "tvl1"])
def test_a_known_motion_is_found_right_then_down(tmp_path, algorithm):
    path = clip_of(tmp_path / "a.avi", [(2.0, -1.0)] * 11)
    found = flow.extract([path], Flow(algorithm, positions=2))
    assert len(found.payload) == 4 and found.n_frames == 12 and found.flags == ()
    assert found.duration_s == pytest.approx(12 / 25)
    for u, v in motions(found.payload):
        assert u == pytest.approx(2.0, abs=0.2) and v == pytest.approx(-1.0, abs=0.2)


def test_flow_is_that_of_the_frame_shown_and_the_next(tmp_path):
    steps = [(k % 5 - 2.0, k // 5 - 2.0) for k in range(20)]  # no two alike
    path = clip_of(tmp_path / "a.avi", steps)
    for positions in (3, 5, 10):
        shown = [int(21 * (2 * j + 1) / (2 * positions)) for j in range(positions)]
        found = motions(flow.extract([path], Flow(positions=positions)).payload)
        assert found == [pytest.approx(steps[min(k, 19)], abs=0.4) for k in shown]


@pytest.mark.parametrize("name,codec,options", [
    ("a.avi", "mpeg4", {}), ("b.avi", "mpeg4", {"bf": "2"}), ("a.mp4", "libx264", {"bf": "2"}),
    ("a.flv", "flv", {}),
])  # fmt: skip
def test_positions_are_those_of_the_stored_frames(tmp_path, name, codec, options):
    path = write_clip(tmp_path / name, 23, codec=codec, options=options)
    clip = flow.read_clip(path, Flow(positions=10))
    stored = video.extract([path], Video(positions=10, short_side=None, codec="raw"))
    for start, image in zip(clip.starts, stored.payload):
        assert (clip.frames[start] == cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).all()
        assert index_of(clip.frames[start + 1]) == start + 1


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path):
    whole, path = (
        write_clip(tmp_path / "a.mp4", 40, gop=40, options={"bf": "0"}),
        tmp_path / "b.mp4",
    )
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = source.streams.video[0]
        copy, shift = out.add_stream_from_template(stream), int(1.5 / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    clip = flow.read_clip(path, Flow(positions=5))
    assert clip.starts == [2, 7, 12, 17, 22] and clip.found == 25
    assert all(index_of(grey) == n + 15 for n, grey in clip.frames.items())


def test_packed_frames_are_in_order(tmp_path):
    clip = flow.read_clip(pack(tmp_path / "a.avi", 40), Flow(positions=10))
    assert clip.starts == [2, 6, 10, 14, 18, 22, 26, 30, 34, 38] and clip.found == 40
    assert [index_of(grey[:12]) for _, grey in sorted(clip.frames.items())] == sorted(clip.frames)


def test_packed_positions_are_those_of_the_stored_frames(tmp_path):
    path = pack(tmp_path / "a.avi", 40)
    clip = flow.read_clip(path, Flow(positions=7))
    stored = video.extract([path], Video(positions=7, short_side=None, codec="raw"))
    for start, image in zip(clip.starts, stored.payload, strict=True):
        assert (clip.frames[start] == cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).all()


def test_uneven_times_do_not_matter(tmp_path):
    frames = moving([(0.5 * k, 0.0) for k in range(9)])
    times = [0, 40, 80, 120, 160, 1400, 1440, 2600, 2640, 2680]
    path = write_clip(tmp_path / "a.mp4", times, image=frames, size=(96, 72), options={"crf": "5"})
    # At 0.67 s the fifth frame is on the screen, at 2.01 s the seventh.
    found = motions(flow.extract([path], Flow(positions=2)).payload)
    assert [u for u, _ in found] == pytest.approx([2.0, 3.0], abs=0.2)


def test_a_stack_is_pairs_in_succession(tmp_path):
    path = clip_of(tmp_path / "a.avi", [(0.5 * k, -0.25 * k) for k in range(12)])
    found = motions(flow.extract([path], Flow(positions=1, stack=3)).payload)
    assert [u for u, _ in found] == pytest.approx([3.0, 3.5, 4.0], abs=0.25)
    assert [v for _, v in found] == pytest.approx([-1.5, -1.75, -2.0], abs=0.25)


def test_a_stack_at_the_end_of_a_clip_moves_forward(tmp_path):
    path = clip_of(tmp_path / "a.avi", [(0.5 * k, 0.0) for k in range(7)])  # 8 frames
    clip = flow.read_clip(path, Flow(positions=4, stack=5))
    assert clip.starts == [1, 2, 2, 2] and sorted(clip.frames) == [1, 2, 3, 4, 5, 6, 7]
    assert len(flow.extract([path], Flow(positions=4, stack=5)).payload) == 4 * 5 * 2


@pytest.mark.parametrize("count,stack,kept", [(3, 1, False), (4, 1, True), (10, 10, False),
                                              (11, 10, True)])  # fmt: skip
def test_few_frames(tmp_path, count, stack, kept):
    path = clip_of(tmp_path / "a.avi", [(1.0, 0.0)] * (count - 1))
    spec = Flow(positions=10, stack=stack)
    if kept:
        assert len(flow.extract([path], spec).payload) == 20 * stack
    else:
        assert rejection(flow.extract, [path], spec) == "few_frames"


def test_a_still_picture_has_no_motion(tmp_path):
    path = clip_of(tmp_path / "a.avi", [(0.0, 0.0)] * 5)
    for picture in flow.extract([path], Flow()).payload:
        assert (np.abs(decode(picture).astype(int) - 128) <= 1).all()


@pytest.mark.parametrize("size,stored", [
    ((320, 240), (240, 320)), ((96, 72), (72, 96)), ((640, 360), (240, 427)),
    ((480, 640), (320, 240)),
])  # fmt: skip
def test_larger_frames_are_scaled_down_to_those_of_the_set(tmp_path, size, stored):
    path = clip_of(tmp_path / "a.avi", [(2.0, 0.0)] * 3, size)
    payload = flow.extract([path], Flow(positions=1)).payload
    assert [decode(picture).shape for picture in payload] == [stored] * 2
    factor = min(1.0, 240 / min(size))
    assert motions(payload)[0][0] == pytest.approx(2.0 * factor, abs=0.1)


def test_frames_of_several_sizes_in_one_stream(tmp_path):
    small = write_clip(tmp_path / "a.ts", [40 * k for k in range(10)])
    large = write_clip(tmp_path / "b.ts", [400 + 40 * k for k in range(10)], size=(96, 64))
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with av.open(str(path)) as source:
        assert {frame.width for frame in source.decode(video=0)} == {64, 96}
    shapes = {decode(picture).shape for picture in flow.extract([path], Flow()).payload}
    assert shapes == {(48, 64)}


# Flips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["dis", "farneback"])
def test_the_flow_of_the_mirrored_clip_is_the_flipped_flow(tmp_path, algorithm):
    frames = moving([(2.5, 1.0), (-1.0, 2.0), (0.5, -3.0), (3.0, 0.0)] * 2)
    spec, view = Flow(algorithm, positions=4), VideoView(4, "flip")
    write_video(tmp_path / "a.mp4", frames, 25, "h264")
    write_video(tmp_path / "b.mp4", frames[:, :, ::-1], 25, "h264")
    stored, mirrored = (flow.extract([tmp_path / name], spec) for name in ("a.mp4", "b.mp4"))
    rng = np.random.default_rng(0)
    flipped = transforms.flow(stored.payload, spec, view, 72, rng, flip=True)
    wanted = transforms.flow(mirrored.payload, spec, view, 72, None)
    plain = transforms.flow(stored.payload, spec, view, 72, None)
    inner = np.s_[:, :, 12:-12, 12:-12]

    def apart(a, b):  # in pixels of motion
        return np.abs(a[inner].astype(int) - b[inner].astype(int)).mean() * 2 * BOUND / 255

    assert apart(flipped, wanted) < 0.1
    assert apart(plain, wanted) > 1.0
    # Without the change of sign, u alone would be wrong.
    unsigned = flipped.copy()
    unsigned[:, 0] = 255 - unsigned[:, 0]
    assert apart(unsigned, wanted) > 1.0


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.45, 0.62, 0.75, 0.9])
def test_a_cut_clip_is_kept_by_both_modalities_or_by_neither(tmp_path, share):
    path = cut(clip_of(tmp_path / "a.avi", [(1.0, 0.5)] * 49), share)
    try:
        frames = video.extract([path], Video(positions=10, min_decoded=4))
    except Reject as reject:
        assert rejection(flow.extract, [path], Flow()) == reject.reason
        assert share < 0.5
        return
    found = flow.extract([path], Flow())
    assert found.flags == frames.flags == ("truncated",) and share > 0.5
    assert (found.n_frames, found.duration_s) == (frames.n_frames, frames.duration_s)
    assert motions(found.payload)[0] == pytest.approx((1.0, 0.5), abs=0.2)


@pytest.mark.parametrize("content,reason", [
    (b"", "unreadable"), (b"<html>not found</html>" * 50, "unreadable"), (None, "missing_file"),
])  # fmt: skip
def test_files_that_are_no_clips(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.avi").write_bytes(content)
    assert rejection(flow.extract, [tmp_path / "a.avi"], Flow()) == reason


@pytest.mark.parametrize("size", [(8, 8), (14, 64), (64, 14)])
def test_frames_of_a_few_pixels_have_no_flow(tmp_path, size):
    path = clip_of(tmp_path / "a.avi", [(0.0, 0.0)] * 4, size)
    assert rejection(flow.extract, [path], Flow()) == "no_flow"


def test_the_smallest_frames_that_are_taken_have_flow(tmp_path):
    path = clip_of(tmp_path / "a.avi", [(1.0, 0.0)] * 4, (64, 16))
    assert len(flow.extract([path], Flow()).payload) == 20


def test_values_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    path = clip_of(tmp_path / "a.avi", [(0.0, 0.0)] * 4, (16, 16))
    broken = np.full((16, 16, 2), np.nan, np.float32)
    monkeypatch.setattr(flow, "solver", lambda name: lambda first, second: broken)
    assert rejection(flow.extract, [path], Flow()) == "bad_values"


# Algorithms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["dis", "farneback", "tvl1"])
def test_equal_bytes_again_and_with_more_threads(tmp_path, algorithm):
    path = clip_of(tmp_path / "a.avi", [(1.5, 0.5), (4.0, -2.0), (0.0, 3.0)] * 2, (64, 48))
    before, payloads = cv2.getNumThreads(), []
    try:
        for threads in (1, 1, 4):
            cv2.setNumThreads(threads)
            payloads.append(flow.extract([path], Flow(algorithm, positions=2)).payload)
    finally:
        cv2.setNumThreads(before)
    assert payloads[0] == payloads[1] == payloads[2]


def test_tvl1_without_contrib_is_refused_in_words(monkeypatch):
    flow.check_algorithm("tvl1")
    monkeypatch.delattr(cv2, "optflow")
    flow.check_algorithm("dis")
    with pytest.raises(UsageError, match="opencv-contrib-python-headless"):
        flow.check_algorithm("tvl1")


def test_an_unknown_algorithm_is_refused(tmp_path):
    path = clip_of(tmp_path / "a.avi", [(0.0, 0.0)] * 4)
    with pytest.raises(UsageError, match="'farneback'"):
        flow.extract([path], Flow("farnback"))


# Precomputed --------------------------------------------------------------------------------------

READ = Flow("precomputed", positions=5)


def write_set(folder: Path, count: int, without_v: tuple = (), without_u: tuple = ()) -> list[Path]:
    """Folders of u and v whose picture n has the level n in u and 200 - n in v."""
    places = [folder / axis / "v_Archery_g01_c01" for axis in "uv"]
    for place, lacking, level in zip(places, (without_u, without_v), (1, -1)):
        place.mkdir(parents=True)
        for n in range(1, count + 1):
            if n not in lacking:
                grey = np.full((24, 32), level * n % 200, np.uint8)
                (place / f"frame{n:06d}.jpg").write_bytes(flow.encode(grey, 95))
    return places


def numbers(payload: list[bytes]) -> list[tuple[int, int]]:
    levels = [round(float(decode(picture).mean())) for picture in payload]
    return list(zip(levels[0::2], (200 - level for level in levels[1::2])))


def test_precomputed_pictures_are_taken_at_the_positions_of_the_frames(tmp_path):
    places = write_set(tmp_path, 29)  # of 30 frames
    found = flow.extract(places, READ)
    shown = [int(30 * (2 * j + 1) / 10) for j in range(5)]  # counted from 0
    assert numbers(found.payload) == [(k + 1, k + 1) for k in shown]
    assert found.payload[0] == (places[0] / "frame000004.jpg").read_bytes()
    assert (found.flags, found.n_frames, found.duration_s) == ((), 30, 0.0)


@pytest.mark.parametrize("count,stack", [(21, 1), (8, 3), (6, 5)])
def test_precomputed_and_computed_flow_have_the_same_positions(tmp_path, count, stack):
    steps = [(float(k % 7) - 3, 0.0) for k in range(count - 1)]
    path = clip_of(tmp_path / "a.avi", steps, (64, 48))
    starts = flow.read_clip(path, Flow(positions=5, stack=stack)).starts
    spec = Flow("precomputed", positions=5, stack=stack)
    found = numbers(flow.extract(write_set(tmp_path, count - 1), spec).payload)
    assert [u for u, _ in found] == [s + k + 1 for s in starts for k in range(stack)]


def test_pictures_without_a_partner_are_left_out_and_told(tmp_path):
    places = write_set(tmp_path, 29, without_v=(4, 10), without_u=(16, 29))
    found = flow.extract(places, READ)
    assert found.flags == ("unpaired_flow",) and found.n_frames == 26
    assert numbers(found.payload) == [(n, n) for n in (3, 9, 15, 22, 28)]


def test_a_stack_spans_no_gap(tmp_path):
    places = write_set(tmp_path, 29, without_v=(5, 17))
    found = flow.extract(places, Flow("precomputed", positions=5, stack=3))
    first = [n for n, _ in numbers(found.payload)][::3]
    assert first == [2, 10, 14, 22, 27]
    gaps = Flow("precomputed", positions=5, stack=3, min_decoded=2)
    torn = write_set(tmp_path / "torn", 6, without_v=(3, 5))
    assert rejection(flow.extract, torn, gaps) == "few_frames"


def test_few_precomputed_pictures(tmp_path):
    assert flow.extract(write_set(tmp_path / "a", 3), READ).n_frames == 4
    assert rejection(flow.extract, write_set(tmp_path / "b", 2), READ) == "few_frames"


def test_missing_and_empty_folders(tmp_path):
    places = write_set(tmp_path, 5)
    assert rejection(flow.extract, [places[0], tmp_path / "v" / "none"], READ) == "no_flow"
    assert rejection(flow.extract, [places[0], places[0] / "frame000001.jpg"], READ) == "no_flow"
    (tmp_path / "empty").mkdir()
    assert rejection(flow.extract, [tmp_path / "empty"] * 2, READ) == "no_flow"


def test_other_files_in_the_folders_are_passed_over(tmp_path):
    places = write_set(tmp_path, 29)
    before = flow.extract(places, READ)
    (places[0] / "n_frames").write_text("29")
    (places[1] / "frame00001.jpg").write_bytes(b"")
    assert flow.extract(places, READ) == before


@pytest.mark.parametrize("content,reason", [
    (b"<html>not found</html>", "unreadable"), (b"", "unreadable"), ("cut", "bad_image"),
    ("huge", "bad_image"), ("long", "bad_image"), ("other size", "bad_image"),
])  # fmt: skip
def test_damaged_precomputed_pictures(tmp_path, content, reason):
    places = write_set(tmp_path, 29)
    path = places[1] / "frame000010.jpg"
    good = path.read_bytes()
    if content == "cut":
        content = good[:-40]
    elif content == "huge":  # a header that claims 65,000 x 65,000 pixels
        place = good.index(b"\xff\xc0") + 5
        content = good[:place] + (65000).to_bytes(2, "big") * 2 + good[place + 4 :]
    elif content == "long":
        content = good + bytes(flow.LARGEST_PICTURE)
    elif content == "other size":
        content = flow.encode(np.zeros((24, 40), np.uint8), 95)
    path.write_bytes(content)
    assert rejection(flow.extract, places, READ) == reason
