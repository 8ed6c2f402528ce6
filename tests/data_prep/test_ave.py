"""AVE: lists in every dialect, which row of a video counts, and frames inside the event."""

import cv2
import numpy as np
import pytest
from raw import kept, plant, rejects, scan

from common.options import UsageError
from data_prep.modalities.video import Video
from data_prep.reasons import Reject
from fixtures.clips import HEADER
from fixtures.media import write_video

LONE, OTHER = "-3Mwkq-7TV4", "_a__b--c_12"
MP4 = {LONE: f"AVE/{LONE}.mp4", OTHER: f"AVE/{OTHER}.mp4"}
BARK, CAT, BUS = (f"{word}&{LONE}&good&{times}\n" for word, times in (
    ("Bark", "0&3"), ("Cat", "4&9"), ("Bus", "0&9")))  # fmt: skip
OTHER_BUS = BUS.replace(LONE, OTHER)


def scan_lists(root, every_event=False, **lists):
    """The scan of both clips and the given lists."""
    plant(root, *MP4.values(), lists={f"{name}.txt": text for name, text in lists.items()})
    return scan("ave", root, every_event=every_event)


@pytest.mark.parametrize("base", ["", "AVE_Dataset"])
def test_parts_come_from_the_lists(tmp_path, base):
    rows = f"Banjo&{LONE}&good&0&10\n", f"Baby cry, infant cry&{OTHER}&good&2&5\n"
    lists = {"Annotations": f"{HEADER}\n{''.join(rows)}", "trainSet": rows[0], "testSet": rows[1]}
    scan_lists(tmp_path / base, valSet="", **lists)
    found = scan("ave", tmp_path)
    assert kept(found) == {
        LONE: ("Banjo", "train"), OTHER: ("Baby cry, infant cry", "test"),
    }  # fmt: skip
    path = f"{base}/{MP4[LONE]}".lstrip("/")
    assert found.candidates[0].sources == {"audio": (path,), "video": (path,)}
    assert [c.group for c in found.candidates] == [LONE, OTHER]
    assert found.rejected == [] and found.warnings == []


@pytest.mark.parametrize("text", [
    f"\ufeff{HEADER}\r\nBus&{LONE}&good&0&10\r\n", f"\n bus & {LONE}&good&0.0&9.5 \n\n",
    f"category&VideoID&quality&starttime&EndTime\nBUS&{LONE}&&0&10",
])  # fmt: skip
def test_dialects_of_a_list(tmp_path, text):
    assert kept(scan_lists(tmp_path, valSet=text)) == {LONE: ("Bus", "val")}


# lists -> the class, part and times of LONE, and why a row of it is rejected
SAME_VIDEO = {
    "the part's row comes first": (
        {"Annotations": BARK + CAT, "testSet": BARK, "trainSet": CAT}, ("Cat", "train"), [4.0, 9.0],
        ["duplicate"],
    ),
    "equal rows of two parts": (
        {"trainSet": BARK, "testSet": BARK, "Annotations": BARK}, ("Bark", "train"), [0.0, 3.0],
        ["duplicate"],
    ),
    "times written in two ways": (
        {"Annotations": f"Bark&{LONE}&good&0.0&3.0\n", "trainSet": BARK}, ("Bark", "train"),
        [0.0, 3.0], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME_VIDEO)
def test_of_several_rows_of_a_video_the_first_counts(tmp_path, case):
    lists, sample, window, due = SAME_VIDEO[case]
    found = scan_lists(tmp_path, **lists)
    assert kept(found) == {LONE: sample} and found.candidates[0].inline == {"video": window}
    assert [r.reason for r in found.rejected if r.id == LONE] == due


def test_rows_of_videos_with_several_events_are_counted_and_can_be_kept(tmp_path):
    lists = {"Annotations": BARK + CAT + OTHER_BUS, "trainSet": CAT + OTHER_BUS, "testSet": BARK}
    found = scan_lists(tmp_path, **lists)
    assert found.warnings[0].startswith("1 rows of videos with several events are left out")
    assert "testSet.txt, line 1: 'Bark' from '0' to '3'" in found.rejected[0].detail
    found = scan_lists(tmp_path, every_event=True, **lists)
    assert kept(found) == {
        f"{LONE}_1": ("Cat", "train"), f"{LONE}_2": ("Bark", "test"), OTHER: ("Bus", "train"),
    }  # fmt: skip
    assert [c.group for c in found.candidates] == [LONE, LONE, OTHER]
    assert not found.rejected and not found.warnings


@pytest.mark.parametrize(("row", "reason"), [
    *((f"Cat&{{}}&good&{times}", "empty_event") for times in (
        "7&7", "5&4", "-1&3", "nan&3", "0&inf", "&", "a&b")),
    ("Didgeridoo&{}&good&0&10", "no_label"), ("Cat&{}&good", "bad_line"), ("Cat {}", "no_label"),
    ("", "no_label"),
])  # fmt: skip
def test_a_clip_whose_row_cannot_be_used_is_one_line(tmp_path, row, reason):
    text = f"{OTHER_BUS}{row.format(LONE)}\n"
    found = scan_lists(tmp_path, trainSet=text, Annotations=text)
    assert kept(found) == {OTHER: ("Bus", "train")}
    assert [r for r in rejects(found) if r[0] == LONE] == [(LONE, MP4[LONE], reason)]


def test_lists_without_a_clip_are_refused(tmp_path):
    plant(tmp_path, lists={"trainSet.txt": "Bus&01234567890&good&0&9"})
    with pytest.raises(
        UsageError, match="contains no clips of AVE.* the root must contain Annotations"
    ):
        scan("ave", tmp_path)


def test_frames_are_those_of_the_event(tmp_path):
    """A clip of 5 s whose frame k, shown at k / 4 s, is grey 10 k + 5."""
    path = tmp_path / "x.mp4"
    shades = np.arange(20, dtype=np.uint8)[:, None, None, None] * 10 + 5
    write_video(path, np.broadcast_to(shades, (20, 32, 32, 3)), 4, "h264")
    for window, how, due in (
        (None, {}, [0.5, 1.5, 2.5, 3.5, 4.5]), ([1.0, 3.0], {}, [1.5, 2.5]),
        ([3.0, 10.0], {}, [3.5, 4.5]), ([1.75, 2.25], {}, [2.0]),
        ([2.0, 4.0], {"positions": 2}, [2.5, 3.5]),
    ):  # fmt: skip
        stored = Video(fps=1.0, short_side=None, **how).extract([path], window, None).payload
        frames = [cv2.imdecode(np.frombuffer(data, np.uint8), 0) for data in stored]
        assert [round((float(frame.mean()) - 5) / 10) / 4 for frame in frames] == due
    with pytest.raises(Reject, match="the event starts at 5 s"):
        Video(fps=1.0).extract([path], [5.0, 9.0], None)
