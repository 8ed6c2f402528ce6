"""Folders of frames and flow, as in trees made for the official release."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from clips import extract, refused

from data_prep import datasets
from data_prep.modalities.flow import Flow
from data_prep.modalities.video import Video
from fixtures.release import write_frames

CREMAD, UCF = (
    datasets.load(d).spec(datasets.load(d).Settings())["video"] for d in ("cremad", "ucf101")
)
FIRST_SIX = Video(first=6, min_decoded=6, of_folder=30)


def grey_frames(folder, count, shape=(24, 32)):
    """A folder of frames in which frame k, from 0, has level 5 * k."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * 5
    write_frames(folder, "img_{:05d}.jpg", np.broadcast_to(levels, (count, *shape, 3)))
    return folder


def levels(payload, step=5):
    pictures = [cv2.imdecode(np.frombuffer(p, np.uint8), 1) for p in payload]
    return [round(float(picture.mean()) / step) for picture in pictures]


@pytest.mark.parametrize("count,spec,expected", [
    (7, CREMAD, range(7)), (30, CREMAD, range(30)),
    (45, CREMAD, [int((j + 0.5) * 1.5) for j in range(30)]), (9, FIRST_SIX, range(6)),
    (10, UCF, range(10)), (40, UCF, range(2, 40, 4)), (6, UCF, [0, 0, 1, 2, 2, 3, 3, 4, 5, 5]),
])  # fmt: skip
def test_which_frames_of_a_folder_are_stored(tmp_path, count, spec, expected):
    folder = grey_frames(tmp_path / "a", count)
    found = extract(spec, folder)
    assert levels(found.payload) == list(expected)
    assert found.payload[0] == (folder / f"img_{expected[0] + 1:05d}.jpg").read_bytes()
    assert (found.flags, found.duration_s, found.n_frames) == ((), 0.0, count)
    assert len(extract(replace(spec, codec="raw"), folder).payload) == len(expected)


def test_only_fitting_jpegs_are_stored_as_they_are(tmp_path):
    folder = grey_frames(tmp_path / "a", 5)
    plain, more, grey, png, turned = sorted(folder.iterdir())
    whole = plain.read_bytes()
    more.write_bytes(whole + b"more")
    cv2.imwrite(str(grey), np.zeros((24, 32), np.uint8))
    png.write_bytes(cv2.imencode(".png", np.zeros((24, 32, 3), np.uint8))[1].tobytes())
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
    turned.write_bytes(
        whole[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + whole[2:]
    )
    found = extract(CREMAD, folder)
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    same = [stored == data for stored, data in zip(found.payload, files)]
    assert same == [True, False, False, False, False] and found.flags == ("black",)


def test_frames_of_several_sizes_take_the_size_of_the_first(tmp_path):
    folder = grey_frames(tmp_path / "a", 4, (300, 400))
    write_frames(folder, "img_{:05d}.jpg", np.zeros((1, 600, 300, 3), np.uint8))
    stored = extract(CREMAD, folder).payload
    assert {cv2.imdecode(np.frombuffer(p, np.uint8), 1).shape for p in stored} == {(512, 256, 3)}


def test_numbers_in_names_count_by_their_value(tmp_path):
    folder = grey_frames(tmp_path / "a", 12)
    for k, path in enumerate(sorted(folder.iterdir()), 1):
        path.rename(folder / f"f{k}.jpg")  # f10.jpg sorts before f2.jpg
    assert levels(extract(CREMAD, folder).payload) == list(range(12))


@pytest.mark.parametrize(("level", "flag"), [(3, "black"), (90, "still")])
def test_equal_frames_are_flagged_as_in_a_file(tmp_path, level, flag):
    write_frames(tmp_path / "a", "{}.jpg", np.full((4, 24, 32, 3), level, np.uint8))
    assert extract(CREMAD, tmp_path / "a").flags == (flag,)


def test_broken_frames_are_skipped(tmp_path):
    folder = grey_frames(tmp_path / "a", 9)
    for k in (1, 4):
        (folder / f"img_{k:05d}.jpg").write_bytes(b"<html>")
    found = extract(FIRST_SIX, folder)
    assert levels(found.payload) == [1, 2, 4, 5, 6, 7] and found.flags == ("bad_frames",)
    assert len(extract(UCF, folder).payload) == 10
    assert refused(Video(min_decoded=8, of_folder=30), folder) == "few_frames"
    assert refused(Video(), folder) == "unreadable"  # that takes no folder


def flow_folders(folder, count):
    """Folders of u and v in which picture n has level 2 n."""
    shape = (count, 24, 32)
    pictures = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint8)[:, None, None] * 2, shape)
    for axis in "uv":
        write_frames(folder / axis, "frame{:05d}.jpg", pictures)
    return folder / "u", folder / "v"


@pytest.mark.parametrize("count,chosen", [
    (2, [1, 2]), (7, range(1, 8)), (30, range(1, 31)), (60, range(2, 61, 2)),
])  # fmt: skip
@pytest.mark.parametrize("stack", [1, 2])
def test_flow_of_folders_is_stored_whatever_the_algorithm(tmp_path, count, chosen, stack):
    paths = flow_folders(tmp_path, count)
    spec = Flow("tvl1" if stack == 2 else "dis", stack=stack, of_folder=30)
    found = extract(spec, *paths)
    numbers = [round(level / 2) for level in levels(found.payload, 1)]
    if stack == 1:
        assert numbers == [n for n in chosen for _ in range(2)]
    assert len(numbers) % (2 * stack) == 0 and numbers[0] < numbers[-1] <= count
    assert found.flags == ("precomputed_flow",) and found.n_frames == count + 1
    (paths[1] / "frame00002.jpg").write_bytes((paths[1] / "frame00002.jpg").read_bytes() + b"note")
    assert extract(spec, *paths) == found


def test_flow_of_folders_by_positions_and_of_one_picture(tmp_path):
    found = extract(Flow("precomputed", of_folder=30), *flow_folders(tmp_path / "a", 40))
    assert len(found.payload) == 20 and found.flags == ()
    few = flow_folders(tmp_path / "b", 1)
    assert refused(Flow(of_folder=30), *few) == "few_frames"
