"""UCF-101: names, lists and precomputed flow, and from the generated tree to a run."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from accounts import hidden, raw_files, told_in
from conftest import program

from common.files import file_digest, read_table
from common.options import UsageError, check
from data_prep.datasets import ucf101
from data_prep.datasets.ucf101 import LABELS, Settings
from data_prep.loader import Loader
from data_prep.modalities import flow
from data_prep.prepare import prepare
from data_prep.reasons import REASONS
from data_prep.spec import Flow, spec_hash
from data_prep.split import split_groups, split_official
from data_prep.store import Prepared
from experiments.run.folder import RunFolder
from fixtures.ucf_scenes import Look, glyph, motion, render
from fixtures.ucf_tree import EXPECTED, EXPECTED_PRECOMPUTED, write_ucf101

LOOK = Look(width=48, height=36, fps=10, seconds=(1.0, 1.2))
PAIR = ("Archery/v_Archery_g01_c01.avi", "YoYo/v_YoYo_g25_c07.avi")


def plant(root: Path, *paths: str, **lists: str) -> Path:
    """Empty files, and the given lists in ucfTrainTestlist."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    for name, text in lists.items():
        (root / "ucfTrainTestlist").mkdir(parents=True, exist_ok=True)
        (root / "ucfTrainTestlist" / f"{name}.txt").write_bytes(text.encode())
    return root


def scan(root: Path, **settings):
    found = ucf101.scan(root, Settings(**settings))
    assert all(rejection.reason in REASONS for rejection in found.rejected)
    return found


def kept(found) -> dict[str, str]:
    return {c.id: LABELS[c.label] for c in found.candidates}


def rejects(found) -> list[tuple[str, str, str]]:
    return sorted((r.id, r.source, r.reason) for r in found.rejected)


# Settings -----------------------------------------------------------------------------------------


def test_there_are_101_classes_in_the_order_of_the_official_numbers():
    assert len(set(LABELS)) == 101 and list(LABELS) == sorted(LABELS, key=str.casefold)
    numbers = {LABELS.index(name) + 1: name for name in ("Hammering", "HammerThrow", "YoYo")}
    assert numbers == {35: "Hammering", 36: "HammerThrow", 101: "YoYo"}


def test_flow_and_frames_share_their_positions_and_come_in_this_order():
    spec = ucf101.spec(Settings(flow_positions=7, flow_stack=10, flow_algo="tvl1"))
    assert list(spec) == ["flow", "video"]
    assert spec["flow"] == Flow("tvl1", 7, 10, 20.0, of_folder=30)
    assert spec["video"].positions == 7 and spec["video"].min_decoded == 4
    assert ucf101.spec(Settings())["flow"] == Flow("dis", 10, 1, of_folder=30)


def test_what_changes_stored_samples_changes_their_folder_and_views_do_not():
    def hashed(**settings):
        return spec_hash("ucf101", ucf101.spec(Settings(**settings)))

    changes = ({"flow_algo": "farneback"}, {"flow_stack": 2}, {"flow_positions": 9})
    assert len({hashed(), *(hashed(**change) for change in changes)}) == 4
    assert hashed() == hashed(crop="rrc", flow_norm="center")


def test_views_and_constants():
    plain, other = Settings(), Settings(crop="rrc", flow_norm="center")
    assert {(v.frames, v.augment) for v in ucf101.views(plain).values()} == {(3, "flip")}
    assert {(v.frames, v.augment) for v in ucf101.views(other).values()} == {(3, "crop_flip")}
    assert ucf101.normalise(plain) == {"flow": ([0.1307], [0.3081]), "video": "imagenet"}
    assert ucf101.normalise(other)["flow"] == ([0.5], [0.5])
    assert ucf101.normalise(Settings(flow_norm="none"))["flow"] == "none"
    apart = {v.augment for crop in ("none", "rrc") for v in views(flip="apart", crop=crop)}
    assert apart == {"flip_apart", "crop_flip_apart"}
    assert [v.choice for v in views(frame_choice="release")] == ["ucf101_flow", "ucf101"]
    assert [v.choice for v in views()] == ["segments"] * 2


def views(**settings):
    return list(ucf101.views(Settings(**settings)).values())


@pytest.mark.parametrize("wrong", [
    {"flow_algo": "raft"}, {"flow_stack": 0}, {"flow_positions": 26},
    {"crop": "centre"}, {"flow_norm": "zscore"},
])  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}"):
        check(Settings(**wrong))


def test_the_layout_imports_without_torch_or_opencv():
    code = (
        "import sys, data_prep.datasets.ucf101;"
        "sys.exit(bool({'torch', 'numpy', 'av', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", "UCF-101/", "data/videos/"])
def test_class_and_group_come_from_folder_and_name(tmp_path, base):
    found = scan(plant(tmp_path, *(base + path for path in PAIR)))
    assert kept(found) == {"v_Archery_g01_c01": "Archery", "v_YoYo_g25_c07": "YoYo"}
    assert [c.group for c in found.candidates] == ["Archery_g01", "YoYo_g25"]
    path = base + PAIR[0]
    assert found.candidates[0].sources == {"flow": (path,), "video": (path,)}
    assert found.rejected == []


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups", " handstandpushups "])
def test_the_class_whose_files_spell_it_otherwise(tmp_path, folder):
    found = scan(plant(tmp_path, f"{folder}/v_HandStandPushups_g01_c02.avi"))
    assert kept(found) == {"v_HandStandPushups_g01_c02": "HandstandPushups"}
    assert found.candidates[0].group == "HandstandPushups_g01"


def test_files_that_are_no_clips_of_the_set(tmp_path):
    found = scan(plant(
        tmp_path, *PAIR, "Archery/v_Archery_g1_c01.avi", "Archery/v_Archery_g01_c02.avi.part",
        "Archery/-v_Archery_g01_c03.avi", "Archery/v_Archery_g01_c04.txt", "readme.txt",
        "Abseiling/v_Abseiling_g01_c01.avi", "YoYo/v_Archery_g02_c01.avi", "v_Opera_g03_c01.avi",
        "copy/Archery/v_Archery_g01_c01.avi", "Archery/.v_Archery_g01_c05.avi", "YoYo/Thumbs.db",
        "__MACOSX/YoYo/v_YoYo_g01_c01.avi",
    ))  # fmt: skip
    assert sorted(kept(found)) == ["v_Archery_g01_c01", "v_YoYo_g25_c07"]
    assert {(source, reason) for _, source, reason in rejects(found)} == {
        ("Archery/v_Archery_g1_c01.avi", "unknown_name"),
        ("Archery/v_Archery_g01_c02.avi.part", "unknown_name"),
        ("Archery/-v_Archery_g01_c03.avi", "unknown_name"),
        ("Archery/v_Archery_g01_c04.txt", "unknown_name"),
        ("readme.txt", "unknown_name"),
        ("Abseiling/v_Abseiling_g01_c01.avi", "no_label"),
        ("YoYo/v_Archery_g02_c01.avi", "unknown_name"),
        ("v_Opera_g03_c01.avi", "no_label"),
        ("copy/Archery/v_Archery_g01_c01.avi", "second_file"),
    }


def test_upper_case_endings_are_clips_and_another_case_is_a_second_file(tmp_path):
    found = scan(plant(tmp_path, "Archery/v_ARCHERY_g01_c01.AVI", "Archery/v_Archery_g01_c01.avi"))
    assert kept(found) == {"v_ARCHERY_g01_c01": "Archery"}
    assert [r.reason for r in found.rejected] == ["second_file"]
    (clip,) = found.candidates
    paths = "Archery/v_ARCHERY_g01_c01.AVI", "Archery/v_Archery_g01_c01.avi"
    assert clip.sources == {"flow": paths, "video": paths}


def test_converted_clips_in_one_folder_are_read_by_their_names(tmp_path):
    plant(tmp_path, "videos/v_Archery_g01_c01.mp4", "videos/v_YoYo_g25_c07.mp4")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g01_c01.avi 3\n")
    (lists / "testlist01.txt").write_text("YoYo/v_YoYo_g25_c07.mp4\n")
    found = scan(tmp_path)
    assert kept(found) == {"v_Archery_g01_c01": "Archery", "v_YoYo_g25_c07": "YoYo"}
    assert [c.part for c in found.candidates] == ["train", "test"] and not found.rejected


def test_extracted_frames_are_told_as_one_line_a_clip(tmp_path):
    frames = [f"jpegs_256/v_YoYo_g25_c07/frame00000{k}.jpg" for k in range(5)]
    found = scan(plant(tmp_path, *PAIR, *frames))
    assert rejects(found) == [("v_YoYo_g25_c07", "jpegs_256/v_YoYo_g25_c07", "unknown_name")]
    assert found.rejected[0].detail == "5 files"


def test_a_wrong_root_says_what_it_must_hold(tmp_path):
    plant(tmp_path, "train/singing/01234567890.mp4", "v_x.avi")
    with pytest.raises(UsageError, match="a folder of clips v_<Class>_gXX_cYY.avi") as error:
        scan(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_partial_download_is_refused_with_the_missing_class(tmp_path):
    files = [f"{n}/v_{n}_g01_c01.avi" for n in LABELS if n != "Mixing"]
    with pytest.raises(UsageError, match="class 'Mixing' of ucf101 has no file"):
        prepare("ucf101", plant(tmp_path / "raw", *files), tmp_path / "data", Settings())
    assert not list(tmp_path.rglob("meta.json"))


# Lists --------------------------------------------------------------------------------------------


def rows(*groups: int, number: str = "") -> str:
    return "".join(f"Archery/v_Archery_g{g:02d}_c01.avi{number}\n" for g in groups)


def archery(*groups: int) -> list[str]:
    return [f"Archery/v_Archery_g{g:02d}_c01.avi" for g in groups]


def test_parts_of_each_official_list(tmp_path):
    everything = range(1, 26)
    tests = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
    lists = {}
    for k, tested in tests.items():
        lists[f"testlist0{k}"] = rows(*tested)
        lists[f"trainlist0{k}"] = rows(*(g for g in everything if g not in tested), number=" 3")
    plant(tmp_path, *archery(*everything), **lists)
    found = scan(tmp_path)
    assert found.rejected == [] and len(found.warnings) == 1  # the paper's number
    for tested, rule in zip(tests.values(), ("official", "official2", "official3")):
        parts = split_official([c.part for c in found.candidates], rule)
        for candidate, part in zip(found.candidates, parts):
            group = int(candidate.group[-2:])
            assert part == ("test" if group in tested else "val" if group >= 23 else "train")


def test_a_list_that_is_not_there_is_refused_and_the_others_are_not(tmp_path):
    lists = {"trainlist03": rows(*range(8, 26)), "testlist03": rows(*range(1, 8))}
    found = scan(plant(tmp_path, *archery(*range(1, 26)), **lists))
    parts = [c.part for c in found.candidates]
    assert sorted(set(split_official(parts, "official3"))) == ["test", "train", "val"]
    assert [w.split("--split_rule ")[1] for w in found.warnings[1:]] == [
        "official will be refused", "official2 will be refused"
    ]  # fmt: skip
    for rule in ("official", "official2"):
        with pytest.raises(UsageError, match=f"--split_rule {rule}"):
            split_official(parts, rule)


@pytest.mark.parametrize("text", [
    "Archery/v_Archery_g01_c01.avi 3\r\nYoYo/v_YoYo_g25_c07.avi 101\r\n",
    "\ufeffArchery/v_Archery_g01_c01.avi 3\nYoYo/v_YoYo_g25_c07.avi 101",
    "\nv_archery_g01_c01.avi\n UCF-101\\YoYo\\v_YoYo_g25_c07.avi\t101 \n\n",
])  # fmt: skip
def test_dialects_of_a_list(tmp_path, text):
    found = scan(plant(tmp_path, *PAIR, trainlist01=text))
    assert [c.part for c in found.candidates] == ["train", "val"] and found.rejected == []


def test_clips_without_a_row_and_rows_without_a_clip_are_told(tmp_path):
    plant(
        tmp_path, *archery(8, 9), trainlist01=rows(8, 10, number=" 3"), testlist02=rows(10, 11),
        classInd="1 ApplyEyeMakeup\r\n",
    )  # fmt: skip
    found = scan(tmp_path)
    assert rejects(found) == [
        ("v_Archery_g10_c01", "ucfTrainTestlist/testlist02.txt", "missing_file"),
        ("v_Archery_g11_c01", "ucfTrainTestlist/testlist02.txt", "missing_file"),
    ]
    assert [c.part for c in found.candidates] == ["train", ""]
    assert "1 of 2 clips" in found.warnings[1] and "--split_rule official" in found.warnings[1]


def test_a_clip_in_a_wrong_folder_is_told_once(tmp_path):
    found = scan(plant(tmp_path, *PAIR, "YoYo/v_Archery_g08_c01.avi", trainlist01=rows(8)))
    assert rejects(found) == [("v_Archery_g08_c01", "YoYo/v_Archery_g08_c01.avi", "unknown_name")]


def test_lines_that_are_no_rows_are_told(tmp_path):
    text = rows(8, number=" 3") + "hello world\n" + "x" * 20000 + "\n" + rows(9)
    found = scan(plant(tmp_path, *archery(8, 9), trainlist01=text))
    where = "ucfTrainTestlist/trainlist01.txt"
    assert rejects(found) == [("line 2", where, "bad_line"), ("line 3", where, "bad_line")]
    assert [c.part for c in found.candidates] == ["train", "train"]


def test_a_clip_in_both_lists_is_refused(tmp_path):
    plant(tmp_path, *archery(1), trainlist01=rows(1), testlist01=rows(1))
    with pytest.raises(UsageError, match="v_Archery_g01_c01"):
        scan(tmp_path)


def test_a_group_split_tears_no_group_apart(tmp_path):
    names = [f"{c}/v_{c}_g{g:02d}_c0{k}.avi" for c in LABELS for g in range(1, 9) for k in (1, 2)]
    found = scan(plant(tmp_path, *names)).candidates
    groups = [c.group for c in found]
    parts = split_groups([c.id for c in found], groups, 0, ucf101.SPLIT_SECOND)
    assert len(set(groups)) == 101 * 8 == len(set(zip(groups, parts)))
    shares = [parts.count(part) / len(parts) for part in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.002)
    assert {c.label for c, part in zip(found, parts) if part == "train"} == set(range(101))


# Precomputed flow ---------------------------------------------------------------------------------

HAND = "HandstandPushups/v_HandStandPushups_g01_c01.avi"


@pytest.mark.parametrize("where", ["tvl1_flow", "flow/ucf101_tvl1_flow", "../shared", "."])
def test_precomputed_flow_is_found_whatever_its_spelling(tmp_path, where):
    root = plant(tmp_path / "raw", HAND, PAIR[0])
    names = ("v_HandstandPushups_g01_c01", "v_Archery_g01_c01")
    plant(root / where, *(f"{axis}/{n}/frame000001.jpg" for axis in "uv" for n in names))
    found = scan(root, flow_algo="precomputed", flow_root=where)
    prefix = "" if where == "." else f"{where}/"
    sources = {c.id: c.sources for c in found.candidates}
    assert sources["v_HandStandPushups_g01_c01"] == {
        "flow": (f"{prefix}u/{names[0]}", f"{prefix}v/{names[0]}"), "video": (HAND,),
    }  # fmt: skip
    assert all((root / path).is_dir() for s in sources.values() for path in s["flow"])
    assert found.rejected == []


def test_flow_without_a_clip_and_a_clip_without_flow(tmp_path):
    plant(tmp_path, *PAIR, *(f"tvl1_flow/{axis}/v_Archery_g01_c01/x" for axis in "uv"))
    plant(tmp_path / "tvl1_flow", "u/v_YoYo_g01_c01/x", "notes.txt", "u/.DS_Store")
    found = scan(tmp_path, flow_algo="precomputed")
    assert rejects(found) == [
        ("notes", "tvl1_flow/notes.txt", "unknown_name"),
        ("v_YoYo_g01_c01", "tvl1_flow/u/v_YoYo_g01_c01", "missing_file"),
    ]
    without = found.candidates[1].sources["flow"]
    assert without == ("tvl1_flow/u/v_YoYo_g25_c07", "tvl1_flow/v/v_YoYo_g25_c07")


@pytest.mark.parametrize("where,words", [
    ("nowhere", "no folder nowhere/u"), ("/data/tvl1_flow", "relative to the raw root"),
])  # fmt: skip
def test_a_wrong_flow_root_is_refused(tmp_path, where, words):
    plant(tmp_path, *PAIR)
    with pytest.raises(UsageError, match=words):
        scan(tmp_path, flow_algo="precomputed", flow_root=where)


def test_precomputed_flow_that_is_not_asked_for_is_left_alone_and_told(tmp_path):
    pictures = [f"tvl1_flow/{axis}/v_YoYo_g25_c07/frame000001.jpg" for axis in "uv"]
    found = scan(plant(tmp_path, *PAIR, *pictures))
    assert found.rejected == []
    assert any("--flow_algo precomputed" in warning for warning in found.warnings)


def test_tvl1_without_contrib_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(UsageError, match="opencv-contrib"):
        prepare("ucf101", plant(tmp_path / "raw", *PAIR), tmp_path / "data",
                Settings(flow_algo="tvl1"))  # fmt: skip
    assert not (tmp_path / "data").exists()


def test_tvl1_tells_how_long_it_takes(tmp_path):
    found = scan(plant(tmp_path, *PAIR), flow_algo="tvl1", flow_stack=5)
    assert any("50 times" in warning and "--limit_s" in warning for warning in found.warnings)


# The generated clips ------------------------------------------------------------------------------


def draw(label: int, stream: int, group: int = 1, **look):
    rngs = (np.random.default_rng([0, stream]), np.random.default_rng([0, label, group]))
    return render(label, Look(seconds=(0.4, 0.4), **look), *rngs)


def test_cues_of_all_classes_differ():
    motions = np.stack([motion(label) for label in range(101)])
    gaps = np.linalg.norm(motions[:, None] - motions[None], axis=2) + 9 * np.eye(101)
    assert gaps.min() > 0.3 and np.linalg.norm(motions, axis=1).max() < 5
    shapes = np.stack([glyph(label, 34) for label in range(101)])
    gaps = np.abs(shapes[:, None] - shapes[None]).mean((2, 3)) + np.eye(101)
    assert gaps.min() > 0.02 and 0 <= shapes.min() and shapes.max() <= 1


def test_each_cue_is_left_out_by_itself():
    cues = Counter()
    for k in range(200):
        scene = draw(k % 101, k, width=48, height=36)
        cues[scene.flow_cue, scene.video_cue] += 1
    shares = {key: count / 200 for key, count in cues.items()}
    expected = {(True, True): 0.49, (True, False): 0.21, (False, True): 0.21, (False, False): 0.09}
    assert shares == pytest.approx(expected, abs=0.1)


def test_the_class_moves_the_window_and_nothing_else():
    moved = draw(20, 0, flow_erased=0.0, shake=0.0)
    still = draw(20, 0, flow_erased=1.0, shake=0.0)
    assert moved.flow_cue and not still.flow_cue
    assert np.abs(still.flow).max() == 0
    window = np.abs(moved.flow[0]).sum(2) > 0
    assert 0.3 < window.mean() < 0.45
    assert np.allclose(moved.flow[:, window], motion(20), atol=1e-5)
    # Outside the window both clips are alike, and so are all frames but for noise of 2 %.
    spread = moved.frames[:, ~cv2.dilate(window.astype(np.uint8), np.ones((5, 5))).astype(bool)]
    assert spread.std(0).mean() < 0.03 * 255


def test_the_glyph_is_in_the_half_without_motion_and_can_be_left_out():
    drawn = draw(0, 0, video_erased=0.0, flow_erased=0.0, shake=0.0)
    bare = draw(0, 0, video_erased=1.0, flow_erased=0.0, shake=0.0)
    assert drawn.video_cue and not bare.video_cue
    changed = (np.abs(drawn.frames[0].astype(int) - bare.frames[0]) > 0).any(2)
    assert 0.1 < changed.mean() < 0.4
    assert not (changed & (np.abs(drawn.flow[0]).sum(2) > 0)).any()
    assert (drawn.flow == bare.flow).all()


def test_the_extracted_flow_is_the_class_s_motion(tmp_path):
    from fixtures.media import write_video

    for label in (0, 25, 60, 100):
        scene = draw(label, label, flow_erased=0.0, shake=0.1)
        write_video(tmp_path / "a.avi", scene.frames, 25, "mpeg4")
        found = flow.extract([tmp_path / "a.avi"], Flow()).payload
        pictures = [cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_GRAYSCALE) for p in found]
        window = np.linalg.norm(scene.flow.mean(0), axis=2) > 0.8
        inner = cv2.erode(window.astype(np.uint8), np.ones((9, 9))).astype(bool)
        stored = flow.dequantise(np.stack(pictures), 20.0)[:, inner]
        u, v = np.median(stored[0::2]), np.median(stored[1::2])
        wanted = motion(label)
        # Smoothing over the window's edge costs a part of the length.
        assert np.hypot(u, v) == pytest.approx(np.hypot(*wanted), rel=0.2)
        turn = np.angle(complex(u, v) / complex(*wanted))
        assert abs(turn) < 0.15


def test_clips_of_a_group_look_alike_unless_told_otherwise():
    def apart(a, b):
        return float(np.abs(a.frames[0].astype(float) - b.frames[0]).mean())

    one, sibling, stranger = draw(5, 0), draw(5, 1), draw(5, 2, group=2)
    assert apart(one, sibling) < 0.7 * apart(one, stranger)


# The generated tree -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """(raw root, truth) of a clip a class and each kind of damage once, precomputed flow too."""
    folder = tmp_path_factory.mktemp("ucf")
    write_ucf101(folder / "raw", 1, truth_path=folder / "truth.csv", look=LOOK, corrupt_each=1,
                 workers=1, precomputed=True)  # fmt: skip
    return folder / "raw", read_table(folder / "truth.csv")


@pytest.fixture(scope="module")
def ready(tree, tmp_path_factory):
    """Prepared folder of each way to get flow: computed, precomputed."""
    data = tmp_path_factory.mktemp("prepared")
    settings = {"dis": Settings(), "precomputed": Settings(flow_algo="precomputed")}
    return {
        name: prepare("ucf101", tree[0], data, s, workers=1, max_bad=1.0)
        for name, s in settings.items()
    }


@pytest.mark.parametrize("way", ["dis", "precomputed"])
def test_every_kind_of_damage_ends_as_the_truth_says(tree, ready, way):
    kinds = EXPECTED | EXPECTED_PRECOMPUTED
    assert sorted(c["corruption"] for c in tree[1] if c["corruption"]) == sorted(kinds)
    manifest = {row["id"]: row for row in read_table(ready[way] / "manifest.csv")}
    rejected = read_table(ready[way] / "rejected.csv")
    for clip in tree[1]:
        reason, sample = clip["expected_reason"], manifest.get(clip["id"])
        if way == "dis" and clip["corruption"] in EXPECTED_PRECOMPUTED:
            reason = ""
        found = {row["reason"] for row in rejected if row["id"] == clip["id"]}
        if reason.startswith("flag:"):
            assert sample and reason[5:] in sample["flags"].split(";"), clip
        elif reason:
            assert reason in found, (clip, found)
        else:
            assert sample and not sample["flags"], clip
        assert bool(sample) == (reason in ("", "second_file") or reason.startswith("flag:")), clip
        if sample:
            assert sample["label_name"] == clip["label"]


@pytest.mark.parametrize("way", ["dis", "precomputed"])
def test_every_raw_file_is_in_the_manifest_or_among_the_rejects(tree, ready, way):
    root, told = tree[0], told_in(ready[way])
    clips = {path for path in raw_files(root) if path.endswith(".avi")}
    assert len(clips) > 101 and clips <= told and not hidden(told)
    folders = {str(p.relative_to(root)) for p in (root / "tvl1_flow" / "u").iterdir()}
    assert (folders <= told) == (way == "precomputed")


def test_the_official_split_is_refused_while_a_clip_stands_in_no_list(ready):
    with pytest.raises(UsageError, match="--split_rule official"):
        Prepared(ready["dis"]).split("official", 0)


def test_batches_of_both_modalities(ready):
    import torch

    prepared, settings = Prepared(ready["dis"]), Settings()
    views = ucf101.views(settings)
    loader = Loader(prepared, np.arange(8), views, 32, 8, 0, 0, torch.device("cpu"))
    (batch,) = loader.epoch(1)
    shapes = {m: (tuple(x.shape), x.dtype) for m, x in batch["inputs"].items()}
    assert shapes == {
        "flow": ((8, 3, 2, 32, 32), torch.uint8), "video": ((8, 3, 3, 32, 32), torch.uint8),
    }  # fmt: skip
    assert list(batch["inputs"]) == ["flow", "video"]


def test_the_tree_and_its_preparation_are_deterministic(tmp_path, tree, ready):
    root, truth = tree
    write_ucf101(tmp_path / "raw", 1, truth_path=tmp_path / "t.csv", look=LOOK, corrupt_each=1,
                 workers=2, precomputed=True)  # fmt: skip
    assert read_table(tmp_path / "t.csv") == truth
    names = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    again = (p for p in (tmp_path / "raw").rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(tmp_path / "raw") for p in again)
    assert all(file_digest(root / name) == file_digest(tmp_path / "raw" / name) for name in names)
    two = prepare("ucf101", tmp_path / "raw", tmp_path / "data", Settings(), workers=2, max_bad=1.0)
    for name in ("manifest.csv", "rejected.csv", "meta.json", "samples-00000.arrow"):
        assert file_digest(two / name) == file_digest(ready["dis"] / name), name


@pytest.mark.slow
@pytest.mark.parametrize("more,train_size", [
    ((), 212), (("--flow_norm", "center", "--crop", "rrc", "--split_rule", "official"), 101),
])  # fmt: skip
def test_from_the_raw_tree_to_a_result(tmp_path, more, train_size):
    write_ucf101(tmp_path / "raw", 3, truth_path=tmp_path / "truth.csv", look=LOOK)
    done = program(
        "train.py", "--dataset", "ucf101", "--dataset_root", tmp_path / "raw", "--method", "Midas",
        "--max_epochs", "3", "--size", "32", "--encoder", "small", "--devices", "cpu",
        "--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    result = run.read_json("result.json")
    assert result["count/n_train"] == train_size and 0 <= result["test/acc_mis"] <= 1
    assert run.read_log()[-1]["train/n_valid"] > 0
    assert run.read_json("config.json")["prep"]["flow_algo"] == "dis"
