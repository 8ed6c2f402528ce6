"""AVE: lists in every dialect, which row of a video counts, and from the raw tree to a run."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from accounts import hidden, raw_files, told_in
from conftest import program

from common.files import file_digest, read_table
from common.options import UsageError
from data_prep.datasets import ave, kinetics
from data_prep.datasets.lines import MAX_LIST_BYTES
from data_prep.modalities import video
from data_prep.prepare import prepare
from data_prep.reasons import REASONS, Reject
from data_prep.spec import Video
from data_prep.store import Prepared
from experiments.run.folder import RunFolder
from fixtures.ave_tree import EXPECTED, HEADER, write_ave
from fixtures.media import write_video
from fixtures.scenes import Look

LOOK = Look(width=48, height=36, fps=5, seconds=(3.2, 3.2))
LONE, OTHER = "-3Mwkq-7TV4", "_a__b--c_12"


def plant(root: Path, *names: str, base: str = "", **lists: str) -> Path:
    """Empty clips AVE/<name> and the given lists under root/base."""
    (root / base / "AVE").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / base / "AVE" / name).write_bytes(b"")
    for name, text in lists.items():
        (root / base / f"{name}.txt").write_bytes(text.encode())
    return root


def scan(root: Path, **settings):
    found = ave.scan(root, ave.Settings(**settings))
    assert all(rejection.reason in REASONS for rejection in found.rejected)
    return found


def kept(found) -> dict[str, tuple[str, str]]:
    """id -> (class, part)"""
    return {c.id: (ave.LABELS[c.label], c.part) for c in found.candidates}


def rejects(found) -> list[tuple[str, str, str]]:
    return [(r.id, r.source, r.reason) for r in found.rejected]


def test_there_are_28_classes_in_alphabetical_order():
    assert len(ave.LABELS) == 28 and list(ave.LABELS) == sorted(ave.LABELS)
    assert ave.LABELS[2] == "Baby cry, infant cry" and ave.LABELS[-1] == "Violin, fiddle"


def test_the_layout_imports_without_decoders():
    code = (
        "import sys, data_prep.datasets.ave;"
        "sys.exit(bool({'torch', 'numpy', 'av', 'cv2'} & set(sys.modules)))"
    )
    assert program("-c", code).returncode == 0


def test_stored_form_and_views_are_those_of_kinetics_with_stft():
    settings, like = ave.Settings(), kinetics.Settings(audio_feature="stft")
    assert ave.spec(settings) == kinetics.spec(like)
    assert ave.spec(settings)["audio"].shape == (129, 1251)
    assert ave.views(settings)["audio"].window == 626
    assert ave.normalise(settings) == {"audio": "none", "video": "imagenet"}
    filled = ave.spec(ave.Settings(allow_missing=True, drop_silent=True))["audio"]
    assert filled.missing == "fill" and filled.drop_silent


@pytest.mark.parametrize("base", ["", "AVE_Dataset"])
def test_parts_come_from_the_lists(tmp_path, base):
    rows = f"Banjo&{LONE}&good&0&10\n", f"Baby cry, infant cry&{OTHER}&good&2&5\n"
    lists = {"Annotations": f"{HEADER}\n{''.join(rows)}", "trainSet": rows[0], "testSet": rows[1]}
    plant(tmp_path, f"{LONE}.mp4", f"{OTHER}.mp4", base=base, valSet="", **lists)
    found = scan(tmp_path)
    assert kept(found) == {
        LONE: ("Banjo", "train"), OTHER: ("Baby cry, infant cry", "test"),
    }  # fmt: skip
    path = f"{base}/AVE/{LONE}.mp4".lstrip("/")
    assert found.candidates[0].sources == {"audio": (path,), "video": (path,)}
    assert [c.group for c in found.candidates] == [LONE, OTHER]
    assert found.rejected == [] and found.warnings == []


@pytest.mark.parametrize("text", [
    f"{HEADER}\nBus&{LONE}&good&0&10\n",
    f"\ufeff{HEADER}\r\nBus&{LONE}&good&0&10\r\n",
    f"Bus&{LONE}&good&0&10",
    f"\n bus & {LONE}&good&0.0&9.5 \n\n",
    f"category&VideoID&quality&starttime&EndTime\nBUS&{LONE}&&0&10\n",
])  # fmt: skip
def test_dialects_of_a_list(tmp_path, text):
    found = scan(plant(tmp_path, f"{LONE}.mp4", valSet=text))
    assert kept(found) == {LONE: ("Bus", "val")} and found.rejected == []


def test_first_row_of_a_video_counts_and_train_comes_first(tmp_path):
    rows = f"Bark&{LONE}&good&0&3\n", f"Cat&{LONE}&good&4&9\n"
    lists = {"Annotations": "".join(rows), "testSet": rows[0], "trainSet": rows[1]}
    found = scan(plant(tmp_path, f"{LONE}.mp4", **lists))
    assert kept(found) == {LONE: ("Cat", "train")}
    assert found.candidates[0].inline == {"video": [4.0, 9.0]}
    assert rejects(found) == [(LONE, "testSet.txt", "duplicate")]
    assert found.rejected[0].detail == (
        "testSet.txt, line 1: 'Bark' from '0' to '3'; trainSet.txt, line 1 was taken"
    )


def test_rows_of_videos_with_several_events_are_counted_and_can_be_kept(tmp_path):
    rows = [f"Bark&{LONE}&good&0&3\n", f"Cat&{LONE}&good&4&9\n", f"Bus&{OTHER}&good&0&9\n"]
    lists = {"Annotations": "".join(rows), "trainSet": "".join(rows[1:]), "testSet": rows[0]}
    found = scan(plant(tmp_path, f"{LONE}.mp4", f"{OTHER}.mp4", **lists))
    (note,) = found.warnings
    assert "(2 of 2 train, 0 of 1 test rows stay); --every_event on" in note
    found = scan(tmp_path, every_event=True)
    assert kept(found) == {
        f"{LONE}_1": ("Cat", "train"), f"{LONE}_2": ("Bark", "test"), OTHER: ("Bus", "train"),
    }  # fmt: skip
    assert [c.group for c in found.candidates] == [LONE, LONE, OTHER]
    assert not found.rejected and not found.warnings


def test_an_event_is_one_however_two_lists_write_its_times(tmp_path):
    both = [f"Bark&{LONE}&good&{times}\n" for times in ("9.0&10.0", "9&10")]
    lists = dict(zip(("Annotations", "trainSet"), both))
    found = scan(plant(tmp_path, f"{LONE}.mp4", **lists), every_event=True)
    assert kept(found) == {LONE: ("Bark", "train")} and not found.rejected


def test_equal_rows_of_two_parts_are_told(tmp_path):
    row = f"Bark&{LONE}&good&0&3\n"
    found = scan(plant(tmp_path, f"{LONE}.mp4", trainSet=row, testSet=row, Annotations=row))
    assert kept(found) == {LONE: ("Bark", "train")}
    assert rejects(found) == [(LONE, "testSet.txt", "duplicate")]


@pytest.mark.parametrize("times", ["0&0", "7&7", "5&4", "-1&3", "nan&3", "0&inf", "&", "a&b"])
def test_an_event_without_length_is_refused(tmp_path, times):
    text = f"Cat&{LONE}&good&{times}\nCat&{OTHER}&good&0&10\n"
    found = scan(plant(tmp_path, f"{LONE}.mp4", f"{OTHER}.mp4", trainSet=text, Annotations=text))
    assert list(kept(found)) == [OTHER]
    assert rejects(found) == [(LONE, f"AVE/{LONE}.mp4", "empty_event")]


def test_a_later_event_of_the_same_video_is_taken(tmp_path):
    text = f"Cat&{LONE}&good&0&0\nHorse&{LONE}&good&1&2\n"
    found = scan(plant(tmp_path, f"{LONE}.mp4", trainSet=text))
    assert kept(found) == {LONE: ("Horse", "train")}
    assert rejects(found) == [(LONE, "trainSet.txt", "empty_event")]


@pytest.mark.parametrize(("row", "reason"), [
    ("Didgeridoo&{}&good&0&10", "no_label"), ("&{}&good&0&10", "no_label"),
    ("Cat&{}&good", "bad_line"), ("Cat {}", "no_label"),
])  # fmt: skip
def test_rows_that_tell_no_class(tmp_path, row, reason):
    lists = {"trainSet": f"Bus&{OTHER}&good&0&1\n{row.format(LONE)}\n"}
    found = scan(plant(tmp_path, f"{LONE}.mp4", f"{OTHER}.mp4", **lists))
    assert list(kept(found)) == [OTHER]
    assert (LONE, f"AVE/{LONE}.mp4", reason) in rejects(found)


def test_files_and_rows_without_their_counterpart(tmp_path):
    found = scan(plant(
        tmp_path, f"{LONE}.mp4", "notes.txt", "a b.mp4", f"{OTHER}.webm", f"{OTHER}.mp4",
        trainSet=f"Bus&{OTHER}&good&0&9\n", valSet="Cat&01234567890&good&0&9\n", ReadMe="hello",
    ))  # fmt: skip
    assert list(kept(found)) == [OTHER]
    assert sorted(rejects(found)) == [
        (LONE, f"AVE/{LONE}.mp4", "no_label"),
        ("01234567890", "valSet.txt", "missing_file"),
        ("ReadMe", "ReadMe.txt", "unknown_name"),
        (OTHER, f"AVE/{OTHER}.webm", "second_file"),
        ("a b", "AVE/a b.mp4", "unknown_name"),
        ("notes", "AVE/notes.txt", "unknown_name"),
    ]


def test_samples_without_a_part_are_told(tmp_path):
    found = scan(plant(tmp_path, f"{LONE}.mp4", Annotations=f"Bus&{LONE}&good&0&9\n"))
    assert kept(found) == {LONE: ("Bus", "")}
    (line,) = found.warnings
    assert line.startswith("1 of 1 samples") and "--split_rule official" in line


@pytest.mark.parametrize("lists", [{}, {"trainSet": "Bus&01234567890&good&0&9"}])
def test_a_wrong_root_says_what_it_must_hold(tmp_path, lists):
    with pytest.raises(UsageError, match="the root must hold Annotations.txt") as error:
        scan(plant(tmp_path, **lists))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_line_that_cannot_be_read_costs_itself_alone(tmp_path):
    plant(tmp_path, f"{LONE}.mp4", f"{OTHER}.mp4")
    lines = (f"Bus&{OTHER}&good&0&1\n".encode(), b"Caf\xe9&", f"{LONE}&good&0&1".encode())
    (tmp_path / "trainSet.txt").write_bytes(b"".join(lines))
    found = scan(tmp_path)
    assert list(kept(found)) == [OTHER]
    place = "trainSet.txt, line 2"
    assert (place, "trainSet.txt", "bad_line") in rejects(found)
    assert (LONE, f"AVE/{LONE}.mp4", "no_label") in rejects(found)


def test_a_list_that_is_none_is_refused(tmp_path):
    plant(tmp_path, f"{LONE}.mp4")
    with open(tmp_path / "trainSet.txt", "wb") as handle:
        handle.truncate(MAX_LIST_BYTES + 1)
    with pytest.raises(UsageError, match="not the list"):
        scan(tmp_path)


def read_times(path, window, **how):
    """The times of the frames taken of 5 s whose frame k, shown at k / 4 s, is grey 10 k + 5."""
    spec = Video(fps=1.0, codec="raw", short_side=None, **how)
    stored = video.extract([path], spec, window).payload
    return [round((float(frame.mean()) - 5) / 10) / 4 for frame in stored]


def test_frames_are_those_of_the_event(tmp_path):
    path = tmp_path / "x.mp4"
    shades = np.arange(20, dtype=np.uint8)[:, None, None, None] * 10 + 5
    write_video(path, np.broadcast_to(shades, (20, 32, 32, 3)), 4, "h264")
    assert read_times(path, None) == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert read_times(path, [1.0, 3.0]) == [1.5, 2.5]
    assert read_times(path, [3.0, 10.0]) == [3.5, 4.5]
    assert read_times(path, [1.75, 2.25]) == [2.0]
    assert read_times(path, [2.0, 4.0], positions=2) == [2.5, 3.5]
    with pytest.raises(Reject, match="the event starts at 5 s"):
        read_times(path, [5.0, 9.0])


# The generated tree -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """(raw root, truth, prepared folder) of 3 clips a class and each kind of damage once."""
    folder = tmp_path_factory.mktemp("ave")
    truth = folder / "truth.csv"
    write_ave(folder / "raw", 3, truth_path=truth, look=LOOK, corrupt_each=1, workers=1)
    prepared = prepare(
        "ave", folder / "raw", folder / "data", ave.Settings(), workers=1, max_bad=1.0
    )
    return folder / "raw", read_table(truth), prepared


def test_every_kind_of_damage_ends_as_the_truth_says(tree):
    _, truth, folder = tree
    manifest = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    rejected = read_table(folder / "rejected.csv")
    assert {clip["corruption"] for clip in truth} == {"", *EXPECTED}
    for clip in truth:
        reason, sample = clip["expected_reason"], manifest.get(clip["id"])
        found = {row["reason"] for row in rejected if row["id"] == clip["id"]}
        if reason.startswith("flag:"):
            assert reason[5:] in sample["flags"].split(";"), clip
        elif reason:
            assert reason in found, (clip, found)
        else:
            assert sample, clip
        # The first of two files and of two events is a sample all the same.
        kept = reason in ("", "duplicate", "second_file") or reason.startswith("flag:")
        assert bool(sample) == kept, clip
        if sample:
            assert sample["label_name"] == clip["label"]


def test_every_raw_file_is_in_the_manifest_or_among_the_rejects(tree):
    root, _, folder = tree
    told = told_in(folder)
    assert raw_files(root) - set(ave.LISTS) <= told and not hidden(told)


def test_a_turned_video_is_stored_upright(tree):
    _, truth, folder = tree
    prepared, shapes = Prepared(folder), {}
    for kind in ("rotated", "wrong_extension"):
        sample = next(clip["id"] for clip in truth if clip["corruption"] == kind)
        frame = np.frombuffer(prepared.value(prepared.ids.index(sample), "video")[0], np.uint8)
        shapes[kind] = cv2.imdecode(frame, 1).shape[:2]
    assert shapes == {"rotated": (48, 36), "wrong_extension": (36, 48)}


def test_the_official_split_is_that_of_the_lists(tree):
    root, _, folder = tree
    prepared = Prepared(folder)
    parts = prepared.split("official", 0)
    for part, positions in parts.items():
        listed = (root / f"{part}Set.txt").read_text(encoding="utf-8-sig").splitlines()
        names = {line.split("&")[1] for line in listed}
        assert len(positions) >= 28 and {prepared.ids[p] for p in positions} <= names


def test_the_tree_is_deterministic(tmp_path, tree):
    root, truth, _ = tree
    write_ave(tmp_path / "raw", 3, truth_path=tmp_path / "t.csv", look=LOOK, corrupt_each=1,
              workers=2)  # fmt: skip
    assert read_table(tmp_path / "t.csv") == truth
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path / "raw")
        for path in (tmp_path / "raw").rglob("*")
        if path.is_file()
    )
    assert all(file_digest(root / name) == file_digest(tmp_path / "raw" / name) for name in names)


@pytest.mark.slow
def test_from_the_raw_tree_to_a_result_on_the_official_split(tmp_path, tree):
    root, _, _ = tree
    done = program(
        "train.py", "--dataset", "ave", "--dataset_root", root, "--method", "Midas",
        "--split_rule", "official", "--max_epochs", "3", "--size", "32", "--spec_pool", "4",
        "--max_bad", "1", "--batch_size", "16", "--devices", "cpu",
        "--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    result = run.read_json("result.json")
    assert result["count/n_train"] >= 28 and 0 <= result["test/acc_mis"] <= 1
    assert run.read_log()[-1]["train/n_valid"] > 0
