"""AVE: lists in every dialect, which row of a video counts, and frames inside the event."""

import cv2
import numpy as np
import pytest
from raw import kept, plant, rejects, scan

from common.files import read_table
from common.options import UsageError
from data_prep.datasets import ave
from data_prep.datasets.lists import MAX_LINES_BYTES
from data_prep.modalities.video import Video
from data_prep.prepare import prepare
from data_prep.reasons import Reject
from data_prep.store import Prepared
from fixtures.clips import HEADER
from fixtures.media import write_video
from fixtures.trees import write_tree

LONE, OTHER = "-3Mwkq-7TV4", "_a__b--c_12"
MP4 = {LONE: f"AVE/{LONE}.mp4", OTHER: f"AVE/{OTHER}.mp4"}


def tree(root, base="", **lists):
    """Both clips, and the given lists, in root/base."""
    plant(root / base, *MP4.values(), lists={f"{k}.txt": v for k, v in lists.items()})
    return root


def test_there_are_28_classes_in_alphabetical_order():
    assert len(ave.LABELS) == 28 and list(ave.LABELS) == sorted(ave.LABELS)
    assert ave.LABELS[2] == "Baby cry, infant cry" and ave.LABELS[-1] == "Violin, fiddle"


@pytest.mark.parametrize("base", ["", "AVE_Dataset"])
def test_parts_come_from_the_lists(tmp_path, base):
    rows = f"Banjo&{LONE}&good&0&10\n", f"Baby cry, infant cry&{OTHER}&good&2&5\n"
    lists = {"Annotations": f"{HEADER}\n{''.join(rows)}", "trainSet": rows[0], "testSet": rows[1]}
    found = scan("ave", tree(tmp_path, base, valSet="", **lists))
    assert kept(found) == {
        LONE: ("Banjo", "train"), OTHER: ("Baby cry, infant cry", "test"),
    }  # fmt: skip
    path = f"{base}/{MP4[LONE]}".lstrip("/")
    assert found.candidates[0].sources == {"audio": (path,), "video": (path,)}
    assert [c.group for c in found.candidates] == [LONE, OTHER]
    assert found.rejected == [] and found.warnings == []


@pytest.mark.parametrize("text", [
    f"{HEADER}\nBus&{LONE}&good&0&10\n", f"\ufeff{HEADER}\r\nBus&{LONE}&good&0&10\r\n",
    f"Bus&{LONE}&good&0&10", f"\n bus & {LONE}&good&0.0&9.5 \n\n",
    f"category&VideoID&quality&starttime&EndTime\nBUS&{LONE}&&0&10\n",
])  # fmt: skip
def test_dialects_of_a_list(tmp_path, text):
    found = scan("ave", plant(tmp_path, MP4[LONE], lists={"valSet.txt": text}))
    assert kept(found) == {LONE: ("Bus", "val")} and found.rejected == []


BARK, CAT, BUS = (f"{word}&{LONE}&good&{times}\n" for word, times in (
    ("Bark", "0&3"), ("Cat", "4&9"), ("Bus", "0&9")))  # fmt: skip
# lists -> the class, part and times of LONE, and the rejects beside OTHER's
SAME_VIDEO = {
    "the part's row comes first": (
        {"Annotations": BARK + CAT, "testSet": BARK, "trainSet": CAT}, ("Cat", "train"), [4.0, 9.0],
        [(LONE, "testSet.txt", "duplicate")],
    ),
    "equal rows of two parts": (
        {"trainSet": BARK, "testSet": BARK, "Annotations": BARK}, ("Bark", "train"), [0.0, 3.0],
        [(LONE, "testSet.txt", "duplicate")],
    ),
    "an empty event before a good one": (
        {"trainSet": f"Cat&{LONE}&good&0&0\n{CAT}"}, ("Cat", "train"), [4.0, 9.0],
        [(LONE, "trainSet.txt", "empty_event")],
    ),
    "times written in two ways": (
        {"Annotations": f"Bark&{LONE}&good&0.0&3.0\n", "trainSet": BARK}, ("Bark", "train"),
        [0.0, 3.0], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME_VIDEO)
def test_of_several_rows_of_a_video_the_first_counts(tmp_path, case):
    lists, sample, window, due = SAME_VIDEO[case]
    root = plant(tmp_path, MP4[LONE], lists={f"{k}.txt": v for k, v in lists.items()})
    found = scan("ave", root)
    assert kept(found) == {LONE: sample} and rejects(found) == due
    assert found.candidates[0].inline == {"video": window}


def test_rows_of_videos_with_several_events_are_counted_and_can_be_kept(tmp_path):
    bus = BUS.replace(LONE, OTHER)
    tree(tmp_path, Annotations=BARK + CAT + bus, trainSet=CAT + bus, testSet=BARK)
    found = scan("ave", tmp_path)
    (note,), (line,) = found.warnings, found.rejected
    assert "(2 of 2 train, 0 of 1 test rows stay); --every_event on" in note
    assert line.detail == (
        "testSet.txt, line 1: 'Bark' from '0' to '3'; trainSet.txt, line 1 was taken"
    )
    found = scan("ave", tmp_path, every_event=True)
    assert kept(found) == {
        f"{LONE}_1": ("Cat", "train"), f"{LONE}_2": ("Bark", "test"), OTHER: ("Bus", "train"),
    }  # fmt: skip
    assert [c.group for c in found.candidates] == [LONE, LONE, OTHER]
    assert not found.rejected and not found.warnings


@pytest.mark.parametrize(("row", "reason"), [
    *((f"Cat&{{}}&good&{times}", "empty_event") for times in (
        "0&0", "7&7", "5&4", "-1&3", "nan&3", "0&inf", "&", "a&b")),
    ("Didgeridoo&{}&good&0&10", "no_label"), ("&{}&good&0&10", "no_label"),
    ("Cat&{}&good", "bad_line"), ("Cat {}", "no_label"), ("", "no_label"),
])  # fmt: skip
def test_a_clip_whose_row_cannot_be_used_is_one_line(tmp_path, row, reason):
    text = f"Bus&{OTHER}&good&0&1\n{row.format(LONE)}\n"
    found = scan("ave", tree(tmp_path, trainSet=text, Annotations=text))
    assert kept(found) == {OTHER: ("Bus", "train")}
    assert [r for r in rejects(found) if r[0] == LONE] == [(LONE, MP4[LONE], reason)]


def test_a_line_that_cannot_be_read_costs_itself_alone(tmp_path):
    lines = (f"Bus&{OTHER}&good&0&1\n".encode(), b"Caf\xe9&", f"{LONE}&good&0&1".encode())
    found = scan("ave", tree(tmp_path, trainSet=b"".join(lines)))
    assert list(kept(found)) == [OTHER] and rejects(found) == [
        (LONE, MP4[LONE], "no_label"), ("trainSet.txt, line 2", "trainSet.txt", "bad_line"),
    ]  # fmt: skip


def test_files_and_rows_without_their_counterpart(tmp_path):
    plant(tmp_path, "AVE/notes.txt", "AVE/a b.mp4", f"AVE/{OTHER}.webm", "ReadMe.txt")
    row = f"Bus&{OTHER}&good&0&9\n"
    found = scan("ave", tree(tmp_path, Annotations=row, valSet="Cat&01234567890&good&0&9\n"))
    assert kept(found) == {OTHER: ("Bus", "")}
    assert rejects(found) == sorted([
        (LONE, MP4[LONE], "no_label"), ("01234567890", "valSet.txt", "missing_file"),
        ("ReadMe", "ReadMe.txt", "unknown_name"), (OTHER, f"AVE/{OTHER}.webm", "second_file"),
        ("a b", "AVE/a b.mp4", "unknown_name"), ("notes", "AVE/notes.txt", "unknown_name"),
    ])  # fmt: skip
    (line,) = found.warnings
    assert line.startswith("1 of 1 samples") and "--split_rule official" in line


def test_lists_without_a_clip_and_lists_that_are_none_are_refused(tmp_path):
    plant(tmp_path, lists={"trainSet.txt": "Bus&01234567890&good&0&9"})
    with pytest.raises(UsageError, match="holds no clip of AVE.* the root must hold Annotations"):
        scan("ave", tmp_path)
    with open(tree(tmp_path) / "trainSet.txt", "wb") as handle:
        handle.truncate(MAX_LINES_BYTES + 1)
    with pytest.raises(UsageError, match="trainSet.txt has more than"):
        scan("ave", tmp_path)


def read_times(path, window, **how):
    """The times of the frames taken of 5 s whose frame k, shown at k / 4 s, is grey 10 k + 5."""
    stored = Video(fps=1.0, short_side=None, **how).extract([path], window, None).payload
    frames = [cv2.imdecode(np.frombuffer(data, np.uint8), 0) for data in stored]
    return [round((float(frame.mean()) - 5) / 10) / 4 for frame in frames]


def test_frames_are_those_of_the_event(tmp_path):
    path = tmp_path / "x.mp4"
    shades = np.arange(20, dtype=np.uint8)[:, None, None, None] * 10 + 5
    write_video(path, np.broadcast_to(shades, (20, 32, 32, 3)), 4, "h264")
    for window, how, due in (
        (None, {}, [0.5, 1.5, 2.5, 3.5, 4.5]), ([1.0, 3.0], {}, [1.5, 2.5]),
        ([3.0, 10.0], {}, [3.5, 4.5]), ([1.75, 2.25], {}, [2.0]),
        ([2.0, 4.0], {"positions": 2}, [2.5, 3.5]),
    ):  # fmt: skip
        assert read_times(path, window, **how) == due
    with pytest.raises(Reject, match="the event starts at 5 s"):
        read_times(path, [5.0, 9.0])


def test_the_official_split_is_that_of_the_lists(tmp_path):
    root, truth = tmp_path / "raw", tmp_path / "truth.csv"
    write_tree("ave", root, 5, truth_path=truth, classes=2, workers=1)
    folder = prepare("ave", root, tmp_path / "data", ave.Settings(), workers=1,
                     allow_missing_classes=True)  # fmt: skip
    prepared = Prepared(folder)
    for part, positions in prepared.split("official", 0).items():
        listed = (root / f"{part}Set.txt").read_text(encoding="utf-8-sig").splitlines()
        names = {line.split("&")[1] for line in listed if line != HEADER}
        assert {prepared.ids[p] for p in positions} == names
    assert len(read_table(truth)) == 10
