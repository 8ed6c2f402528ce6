"""Optical flow: quantisation, choice of frames, flips, damage, precomputed flow."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import cut, extract, hidden_start, images, index_of, pack, refused, texture, write_clip

from common.options import UsageError
from data_prep.modalities import flow, folders
from data_prep.modalities.base import Draw
from data_prep.modalities.flow import Flow
from data_prep.modalities.pictures import to_jpeg
from data_prep.modalities.video import Video
from data_prep.reasons import Reject
from fixtures.media import write_video

BOUND = 20.0


def moving(steps: list[tuple[float, float]], size: tuple[int, int] = (96, 72)) -> np.ndarray:
    """Frames [N + 1, H, W, 3] of a texture that moves by each of the N `steps`, right and down."""
    width, height = size
    wide, frames = texture(height + 120, width + 120), []
    for x, y in np.cumsum([(0.0, 0.0), *steps], axis=0):
        shift = np.array([[1, 0, x - 60], [0, 1, y - 60]])
        frames.append(cv2.warpAffine(wide, shift, size, flags=cv2.INTER_CUBIC))
    return np.repeat(np.stack(frames)[..., None], 3, axis=3)


def clip_of(path: Path, steps: list[tuple[float, float]], size=(96, 72)) -> Path:
    write_video(path, moving(steps, size), 25, "mpeg4")
    return path


def decode(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)


def pixels(levels: np.ndarray, bound: float = BOUND) -> np.ndarray:
    """The motion that stored levels represent."""
    return levels * (2 * bound / 255) - bound


def motions(payload: list[bytes]) -> list[tuple[float, float]]:
    """(u, v) in pixels of each stored pair: the median far from the edges."""
    middles = [round(float(np.median(pixels(decode(p))[12:-12, 12:-12])), 2) for p in payload]
    return list(zip(middles[0::2], middles[1::2]))


# Quantisation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [20.0, 15.0, 0.3])
def test_levels_of_known_motions_and_back(bound):
    known = np.array([-1.5, -1.0, 0.0, 1.0, 1.5, 0.025]) * bound
    assert flow.quantise(known, bound).tolist() == [0, 0, 128, 255, 255, 131]
    values = np.random.default_rng(0).uniform(-bound, bound, (50, 40, 2)).astype(np.float32)
    levels = flow.quantise(values, bound)
    assert levels.dtype == np.uint8 and (flow.quantise(-values, bound) == 255 - levels).all()
    error = np.abs(pixels(levels, bound) - values).max()
    assert 0.9 * bound / 255 < error <= 1.0001 * bound / 255
    across, down = np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 240))
    smooth = (across * down * 0.75 * bound).astype(np.float32)
    stored = pixels(decode(to_jpeg(flow.quantise(smooth, bound), Flow().quality)), bound)
    assert np.abs(stored - smooth).max() <= 3 * bound / 255


# Frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["dis", "farneback", "tvl1"])
def test_a_known_motion_is_found_with_any_number_of_threads(tmp_path, algorithm):
    path, payloads = clip_of(tmp_path / "a.avi", [(2.0, -1.0)] * 11), []
    before = cv2.getNumThreads()
    try:
        for threads in (1, 1, 4):
            cv2.setNumThreads(threads)
            found = extract(Flow(algorithm, positions=2), path)
            payloads.append(found.payload)
    finally:
        cv2.setNumThreads(before)
    assert payloads[0] == payloads[1] == payloads[2] and len(payloads[0]) == 4
    assert (found.n_frames, found.flags) == (12, ())
    assert found.duration_s == pytest.approx(12 / 25)
    for u, v in motions(payloads[0]):
        assert u == pytest.approx(2.0, abs=0.2) and v == pytest.approx(-1.0, abs=0.2)


UNEVEN = [0, 40, 80, 120, 160, 1400, 1440, 2600, 2640, 2680, 2720]
MADE = {
    "a.avi": lambda path: write_clip(path, 23, codec="mpeg4"),
    "b.avi": lambda path: write_clip(path, 23, codec="mpeg4", options={"bf": "2"}),
    "a.mp4": lambda path: write_clip(path, 23, options={"bf": "2"}),
    "a.flv": lambda path: write_clip(path, 23, codec="flv"),
    "packed.avi": lambda path: pack(path, 40),
    "uneven.mp4": lambda path: write_clip(path, UNEVEN, options={"bf": "2"}),
    "hidden.mp4": lambda path: hidden_start(
        write_clip(path.with_name("whole.mp4"), 40, gop=40, options={"bf": "0"}), path, 1.5
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_flow_is_taken_from_the_stored_frames_to_the_next(tmp_path, name):
    path = MADE[name](tmp_path / name)
    clip, first = Flow(positions=7).read_frames(path), 15 * (name == "hidden.mp4")
    stored = images(Video(positions=7, short_side=None, codec="raw"), path)
    for start, image in zip(clip.wanted[::2], stored, strict=True):
        assert (clip.images[start] == image).all()
        assert index_of(clip.images[start + 1][:12]) == start + 1 + first


def test_a_stack_is_pairs_in_succession_and_moves_forward_at_the_end(tmp_path):
    path = clip_of(tmp_path / "a.avi", [(0.5 * k, -0.25 * k) for k in range(12)])
    found = motions(extract(Flow(positions=1, stack=3), path).payload)
    assert [u for u, _ in found] == pytest.approx([3.0, 3.5, 4.0], abs=0.25)
    assert [v for _, v in found] == pytest.approx([-1.5, -1.75, -2.0], abs=0.25)
    path = clip_of(tmp_path / "b.avi", [(0.5 * k, 0.0) for k in range(7)])  # 8 frames
    clip = Flow(positions=4, stack=5).read_frames(path)
    assert clip.wanted[::6] == [1, 2, 2, 2] and sorted(clip.images) == [1, 2, 3, 4, 5, 6, 7]
    assert len(extract(Flow(positions=4, stack=5), path).payload) == 4 * 5 * 2


@pytest.mark.parametrize("size,stored", [
    ((320, 240), (240, 320)), ((640, 360), (240, 427)), ((480, 640), (320, 240)),
])  # fmt: skip
def test_larger_frames_are_scaled_down_to_those_of_the_set(tmp_path, size, stored):
    path = clip_of(tmp_path / "a.avi", [(2.0, 0.0)] * 3, size)
    payload = extract(Flow(positions=1), path).payload
    assert [decode(picture).shape for picture in payload] == [stored] * 2
    assert motions(payload)[0][0] == pytest.approx(2.0 * min(1.0, 240 / min(size)), abs=0.1)


def test_frames_of_several_sizes_in_one_stream(tmp_path):
    small = write_clip(tmp_path / "a.ts", [40 * k for k in range(10)])
    large = write_clip(tmp_path / "b.ts", [400 + 40 * k for k in range(10)], size=(96, 64))
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with av.open(str(path)) as source:
        assert {frame.width for frame in source.decode(video=0)} == {64, 96}
    assert {decode(picture).shape for picture in extract(Flow(), path).payload} == {(48, 64)}


def test_the_flow_of_the_mirrored_clip_is_the_flipped_flow(tmp_path):
    frames = moving([(2.5, 1.0), (-1.0, 2.0), (0.5, -3.0), (3.0, 0.0)] * 2)
    spec = Flow(positions=4, frames=4, augment="flip")
    stored = []
    for name, shown in (("a.mp4", frames), ("b.mp4", frames[:, :, ::-1])):
        write_video(tmp_path / name, shown, 25, "h264")
        stored.append(extract(spec, tmp_path / name).payload)
    flipped = spec.to_input(stored[0], Draw(72, np.random.default_rng(0), flip=True))
    plain, wanted = (spec.to_input(payload, Draw(72)) for payload in stored)
    unsigned = flipped.copy()  # without the sign change, only u would be wrong
    unsigned[:, 0] = 255 - unsigned[:, 0]

    def apart(a):  # in pixels of motion
        inner = np.s_[:, :, 12:-12, 12:-12]
        return np.abs(a[inner].astype(int) - wanted[inner]).mean() * 2 * BOUND / 255

    assert apart(flipped) < 0.1 and apart(plain) > 1.0 and apart(unsigned) > 1.0


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.45, 0.62, 0.75, 0.9])
def test_a_cut_clip_is_kept_by_both_modalities_or_by_neither(tmp_path, share):
    path = cut(clip_of(tmp_path / "a.avi", [(1.0, 0.5)] * 49), share)
    try:
        frames = extract(Video(positions=10, min_decoded=4), path)
    except Reject as reject:
        assert refused(Flow(), path) == reject.reason and share < 0.5
        return
    found = extract(Flow(), path)
    assert found.flags == frames.flags == ("truncated",) and share > 0.5
    assert (found.n_frames, found.duration_s) == (frames.n_frames, frames.duration_s)
    assert motions(found.payload)[0] == pytest.approx((1.0, 0.5), abs=0.2)


@pytest.mark.parametrize("count,size,stack,reason", [
    (3, (96, 72), 1, "few_frames"), (4, (96, 72), 1, ""), (10, (96, 72), 10, "few_frames"),
    (11, (96, 72), 10, ""), (5, (8, 8), 1, "no_flow"), (5, (14, 64), 1, "no_flow"),
    (5, (64, 14), 1, "no_flow"), (5, (64, 16), 1, ""),
])  # fmt: skip
def test_few_and_small_frames(tmp_path, count, size, stack, reason):
    path = clip_of(tmp_path / "a.avi", [(0.0, 0.0)] * (count - 1), size)
    if reason:
        assert refused(Flow(stack=stack), path) == reason
        return
    payload = extract(Flow(stack=stack), path).payload
    assert len(payload) == 20 * stack
    assert all((np.abs(decode(p).astype(int) - 128) <= 1).all() for p in payload)  # it stands still


def test_a_missing_algorithm_is_refused_with_an_explanation(monkeypatch):
    Flow("tvl1").check()
    monkeypatch.delattr(cv2, "optflow")
    Flow("dis").check()
    with pytest.raises(UsageError, match="opencv-contrib-python-headless"):
        Flow("tvl1").check()
    with pytest.raises(UsageError, match="'farneback'"):
        Flow("farnback").check()


# Precomputed --------------------------------------------------------------------------------------

READ = Flow("precomputed", positions=5)
STACK = Flow("precomputed", positions=5, stack=3)


def write_set(folder: Path, count: int, without_v: tuple = (), without_u: tuple = ()) -> list[Path]:
    """Folders of u and v in which picture n has level n in u and 200 - n in v."""
    places = [folder / axis / "v_Archery_g01_c01" for axis in "uv"]
    for place, lacking, level in zip(places, (without_u, without_v), (1, -1)):
        place.mkdir(parents=True)
        for n in {*range(1, count + 1)} - {*lacking}:
            grey = np.full((24, 32), level * n % 200, np.uint8)
            (place / f"frame{n:06d}.jpg").write_bytes(to_jpeg(grey, 95))
    return places


def numbers(spec: Flow, places: list[Path]) -> list[int]:
    """The numbers of the stored pictures, the same for u and v."""
    levels = [round(float(decode(p).mean())) for p in extract(spec, *places).payload]
    assert levels[0::2] == [200 - level for level in levels[1::2]]
    return levels[0::2]


def test_precomputed_pictures_are_taken_at_the_positions_of_the_frames(tmp_path):
    places = write_set(tmp_path, 29)  # of 30 frames
    found = extract(READ, *places)
    assert numbers(READ, places) == [int(30 * (2 * j + 1) / 10) + 1 for j in range(5)]
    assert found.payload[0] == (places[0] / "frame000004.jpg").read_bytes()
    assert (found.flags, found.n_frames, found.duration_s) == ((), 30, 0.0)
    (places[0] / "n_frames").write_text("29")
    (places[1] / "frame00001.jpg").write_bytes(b"")  # the name of six digits counts
    assert extract(READ, *places) == found


@pytest.mark.parametrize("count,stack", [(21, 1), (8, 3), (6, 5)])
def test_precomputed_and_computed_flow_have_the_same_positions(tmp_path, count, stack):
    clip = Flow(positions=5, stack=stack).read_frames(write_clip(tmp_path / "a.mp4", count))
    numbers_of_first = [n + 1 for k, n in enumerate(clip.wanted) if k % (stack + 1) != stack]
    found = numbers(Flow("precomputed", positions=5, stack=stack), write_set(tmp_path, count - 1))
    assert found == numbers_of_first


def test_pictures_without_a_partner_are_left_out_and_flagged(tmp_path):
    places = write_set(tmp_path, 29, without_v=(4, 10), without_u=(16, 29))
    found = extract(READ, *places)
    assert found.flags == ("unpaired_flow",) and found.n_frames == 26
    assert numbers(READ, places) == [3, 9, 15, 22, 28]
    gaps = write_set(tmp_path / "gaps", 29, without_v=(5, 17))
    assert numbers(STACK, gaps)[::3] == [2, 10, 14, 22, 27]  # a stack spans none


def test_too_few_precomputed_pictures_are_refused(tmp_path):
    a, b, torn = (tmp_path / name for name in ("a", "b", "torn"))
    places = write_set(a, 3)
    assert extract(READ, *places).n_frames == 4
    assert refused(READ, *write_set(b, 2)) == "few_frames"
    assert refused(STACK, *write_set(torn, 6, without_v=(3, 5))) == "few_frames"
    (tmp_path / "empty").mkdir()
    for v in (tmp_path / "none", places[0] / "frame000001.jpg"):
        assert refused(READ, places[0], v) == "no_flow"
    assert refused(READ, tmp_path / "empty", tmp_path / "empty") == "no_flow"


GOOD = to_jpeg(np.full((24, 32), 99, np.uint8), 95)
SIZE = GOOD.index(b"\xff\xc0") + 5


@pytest.mark.parametrize("content,reason", [
    (b"<html>not found</html>", "unreadable"), (b"", "unreadable"), (GOOD[:-40], "bad_image"),
    (GOOD[:SIZE] + (65000).to_bytes(2, "big") * 2 + GOOD[SIZE + 4 :], "bad_image"),
    (GOOD + bytes(folders.LARGEST_KEPT), "bad_image"),
    (to_jpeg(np.zeros((24, 40), np.uint8), 95), "bad_image"),
], ids=["html", "empty", "cut", "huge", "long", "other size"])  # fmt: skip
def test_damaged_precomputed_pictures(tmp_path, content, reason):
    places = write_set(tmp_path, 29)
    (places[1] / "frame000010.jpg").write_bytes(content)
    assert refused(READ, *places) == reason
