"""UCF-101: names, official lists, and precomputed flow."""

import pytest
from raw import plant, rejects, scan

from common.options import UsageError
from data_prep.datasets.ucf101 import LABELS
from data_prep.spec import Listed
from data_prep.split import split_official

ONE, TWO = "Archery/v_Archery_g01_c01.avi", "YoYo/v_YoYo_g25_c07.avi"
NAMES = {"v_Archery_g01_c01": "Archery", "v_YoYo_g25_c07": "YoYo"}


def with_lists(root, *files, **lists):
    """Empty files, and the given lists in ucfTrainTestlist."""
    lists = {f"ucfTrainTestlist/{name}.txt": text for name, text in lists.items()}
    return plant(root, *files, lists=lists)


def classes(found):
    return {c.id: LABELS[c.label] for c in found.candidates}


def archery(*groups):
    return [f"Archery/v_Archery_g{g:02d}_c01.avi" for g in groups]


def rows(*groups, number=""):
    return "".join(f"{path}{number}\n" for path in archery(*groups))


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["", "UCF-101/", "data/videos/"])
def test_class_and_group_come_from_folder_and_name(tmp_path, base):
    found = scan("ucf101", plant(tmp_path, base + ONE, base + TWO))
    assert classes(found) == NAMES and found.rejected == []
    assert [c.group for c in found.candidates] == ["Archery_g01", "YoYo_g25"]
    assert found.candidates[0].sources == {"flow": (base + ONE,), "video": (base + ONE,)}


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups", " handstandpushups "])
def test_the_class_whose_files_spell_it_differently(tmp_path, folder):
    found = scan("ucf101", plant(tmp_path, f"{folder}/v_HandStandPushups_g01_c02.avi"))
    assert classes(found) == {"v_HandStandPushups_g01_c02": "HandstandPushups"}
    assert found.candidates[0].group == "HandstandPushups_g01"


def test_files_that_are_not_clips_of_the_dataset(tmp_path):
    unknown = (
        "Archery/v_Archery_g1_c01.avi", "Archery/v_Archery_g01_c02.avi.part", "readme.txt",
        "Archery/-v_Archery_g01_c03.avi", "Archery/v_Archery_g01_c04.txt",
        "YoYo/v_Archery_g02_c01.avi",
    )  # fmt: skip
    reasons = dict.fromkeys(unknown, "unknown_name") | {
        "Abseiling/v_Abseiling_g01_c01.avi": "no_label",
        "v_Opera_g03_c01.avi": "no_label",
        "copy/Archery/v_ARCHERY_g01_c01.AVI": "second_file",
        "jpegs_256/v_YoYo_g25_c07": "unknown_name",  # extracted frames: one line per clip
    }
    frames = [f"jpegs_256/v_YoYo_g25_c07/frame00000{k}.jpg" for k in range(5)]
    hidden = "Archery/.v_Archery_g01_c05.avi", "YoYo/Thumbs.db", "__MACOSX/YoYo/v_YoYo_g01_c01.avi"
    found = scan("ucf101", plant(tmp_path, ONE, TWO, *list(reasons)[:-1], *frames, *hidden))
    assert classes(found) == NAMES and len(found.candidates[0].sources["video"]) == 2
    assert {source: reason for _, source, reason in rejects(found)} == reasons


def test_converted_clips_in_one_folder_are_read_by_their_names(tmp_path):
    lists = {"trainlist01": f"{ONE} 3\n", "testlist01": "YoYo/v_YoYo_g25_c07.mp4\n"}
    files = "videos/v_Archery_g01_c01.mp4", "videos/v_YoYo_g25_c07.mp4"
    found = scan("ucf101", with_lists(tmp_path, *files, **lists))
    assert [c.part for c in found.candidates] == ["train", "test"]
    assert classes(found) == NAMES and not found.rejected


# Lists --------------------------------------------------------------------------------------------


def test_parts_of_each_official_list(tmp_path):
    tests = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
    lists = {}
    for k, tested in tests.items():
        lists[f"testlist0{k}"] = rows(*tested)
        lists[f"trainlist0{k}"] = rows(*(g for g in range(1, 26) if g not in tested), number=" 3")
    found = scan("ucf101", with_lists(tmp_path, *archery(*range(1, 26)), **lists))
    assert found.rejected == [] and len(found.warnings) == 1  # the paper's number
    for tested, rule in zip(tests.values(), ("official", "official2", "official3")):
        parts = split_official([c.part for c in found.candidates], rule)
        for candidate, part in zip(found.candidates, parts):
            group = int(candidate.group[-2:])
            assert part == ("test" if group in tested else "val" if group >= 23 else "train")


@pytest.mark.parametrize("text", [
    f"{ONE} 3\r\n{TWO} 101\r\n", f"\ufeff{ONE} 3\n{TWO} 101",
    "\nv_archery_g01_c01.avi\n UCF-101\\YoYo\\v_YoYo_g25_c07.avi\t101 \n\n",
])  # fmt: skip
def test_dialects_of_a_list(tmp_path, text):
    found = scan("ucf101", with_lists(tmp_path, ONE, TWO, trainlist01=text))
    assert [c.part for c in found.candidates] == ["train", "val"] and found.rejected == []


def test_lines_that_are_not_rows_affect_no_others(tmp_path):
    text = rows(8, number=" 3") + "hello world\n" + "x" * 20000 + "\n" + rows(9)
    found = scan("ucf101", with_lists(tmp_path, *archery(8, 9), trainlist01=text))
    assert [c.part for c in found.candidates] == ["train", "train"]
    source = "ucfTrainTestlist/trainlist01.txt"
    assert rejects(found) == [(f"line {k}", source, "bad_line") for k in (2, 3)]


def test_a_clip_in_both_lists_is_refused(tmp_path):
    with_lists(tmp_path, *archery(1), trainlist01=rows(1), testlist01=rows(1))
    with pytest.raises(UsageError, match="v_Archery_g01_c01"):
        scan("ucf101", tmp_path)


def test_the_order_of_the_official_lists_is_the_pool_if_they_name_all_clips(tmp_path):
    def names(*clips):
        return [f"HandstandPushups/v_HandStandPushups_{clip}.avi" for clip in clips]

    test = names("g01_c02") + ["Archery/v_Archery_g01_c09.avi"] + names("g01_c01")
    lists = {"trainlist01": f"{names('g08_c01')[0]} 37\n", "testlist01": test[0]}
    with_lists(tmp_path, *names("g01_c02", "g08_c01", "g01_c01"), **lists)
    assert scan("ucf101", tmp_path).pool is None
    with_lists(tmp_path, testlist01="\n".join(test))
    assert scan("ucf101", tmp_path).pool == [
        Listed("v_HandStandPushups_g08_c01", 36), Listed("v_HandStandPushups_g01_c02", 36),
        Listed("v_Archery_g01_c09", 2), Listed("v_HandStandPushups_g01_c01", 36),
    ]  # fmt: skip


# Flow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["tvl1_flow", "flow/ucf101_tvl1_flow", "../shared", "."])
def test_precomputed_flow_is_found_whatever_its_spelling(tmp_path, where):
    hand = "HandstandPushups/v_HandStandPushups_g01_c01.avi"
    root = plant(tmp_path / "raw", hand, ONE)
    names = ("v_HandstandPushups_g01_c01", "v_Archery_g01_c01")
    plant(root / where, *(f"{axis}/{n}/frame000001.jpg" for axis in "uv" for n in names))
    found = scan("ucf101", root, flow_algo="precomputed", flow_root=where)
    prefix = "" if where == "." else f"{where}/"
    sources = {c.id: c.sources for c in found.candidates}
    assert sources["v_HandStandPushups_g01_c01"] == {
        "flow": (f"{prefix}u/{names[0]}", f"{prefix}v/{names[0]}"), "video": (hand,),
    }  # fmt: skip
    assert all((root / path).is_dir() for s in sources.values() for path in s["flow"])
    assert found.rejected == []


def test_flow_without_a_clip_and_a_clip_without_flow(tmp_path):
    plant(tmp_path, ONE, TWO, *(f"tvl1_flow/{axis}/v_Archery_g01_c01/x" for axis in "uv"))
    plant(tmp_path / "tvl1_flow", "u/v_YoYo_g01_c01/x", "notes.txt", "u/.DS_Store")
    found = scan("ucf101", tmp_path, flow_algo="precomputed")
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
    plant(tmp_path, ONE, TWO)
    with pytest.raises(UsageError, match=words):
        scan("ucf101", tmp_path, flow_algo="precomputed", flow_root=where)


def test_notes_about_flow_are_printed(tmp_path):
    pictures = [f"tvl1_flow/{axis}/v_YoYo_g25_c07/frame000001.jpg" for axis in "uv"]
    found = scan("ucf101", plant(tmp_path, ONE, TWO, *pictures), flow_algo="tvl1", flow_stack=5)
    assert found.rejected == []  # the pictures are ignored
    assert any("--flow_algo precomputed" in warning for warning in found.warnings)
    assert any("50 times" in warning and "--limit_s" in warning for warning in found.warnings)
