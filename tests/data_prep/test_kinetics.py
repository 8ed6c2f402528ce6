"""CREMA-D and Kinetics-Sounds: names, lists, labels, and files that are not samples."""

import csv
import io
import os

import pytest
from raw import kept, plant, reasons, rejects, scan

from common.options import UsageError
from data_prep.__main__ import find_folder
from data_prep.datasets import kinetics
from data_prep.prepare import prepare
from data_prep.spec import spec_hash
from data_prep.stats import stats
from data_prep.verify import verify
from experiments.run.predict import spec_of
from experiments.run.resolve import resolve, run_from_config
from fixtures.release import write_release
from fixtures.trees import write_kinetics

HEADER = "label,youtube_id,time_start,time_end,split"
A, B, SONG = "-3Mwkq-7TV4", "_a__b--c_12", "01234567890"

# CREMA-D ------------------------------------------------------------------------------------------


def cremad_files(*clips):
    return [f for c in clips for f in (f"AudioWAV/{c}.wav", f"VideoFlash/{c}.flv")]


@pytest.mark.parametrize("inside", ["", "CREMA-D/"])
def test_cremad_pairs_files_by_name_and_names_those_that_are_missing(tmp_path, inside):
    names = cremad_files("1001_DFA_ANG_XX", "1091_IEO_NEU_HI")
    plant(tmp_path, *(inside + name for name in names[:-1]), f"{inside}AudioMP3/x.mp3")
    found = scan("cremad", tmp_path)
    assert [(c.id, c.label, c.group) for c in found.candidates] == [
        ("1001_DFA_ANG_XX", 5, "1001"), ("1091_IEO_NEU_HI", 0, "1091"),
    ]  # fmt: skip
    for clip, (wav, flv) in zip(found.candidates, (names[:2], names[2:])):
        assert clip.sources == {"audio": (inside + wav, inside + flv), "video": (inside + flv,)}
    assert found.rejected == []


def test_cremad_single_x_is_the_same_clip_and_the_regular_name_comes_first(tmp_path):
    plant(tmp_path, "AudioWAV/1040_ITH_SAD_X.wav", "VideoFlash/1040_ITH_SAD_XX.flv")
    (clip,) = scan("cremad", tmp_path).candidates
    assert clip.id == "1040_ITH_SAD_XX"
    assert clip.sources["audio"][0] == "AudioWAV/1040_ITH_SAD_X.wav"
    found = scan("cremad", plant(tmp_path, *cremad_files("1040_ITH_SAD_X", "1040_ITH_SAD_XX")))
    assert found.candidates[0].sources["video"][0] == "VideoFlash/1040_ITH_SAD_XX.flv"
    assert [r.reason for r in found.rejected] == ["second_file"] * 2


def test_cremad_unknown_names(tmp_path):
    names = (
        "1001_DFA_ANG", "2001_DFA_ANG_XX", "1001_dfa_ANG_XX", "1001_DFA_JOY_XX", "1001_DFA_ANG_ZZ",
        "1001_DFA_ANG_XX ", "1001_DFA_ANG_XX.bak", "11001_DFA_ANG_XX", "١٠٠١_DFA_ANG_XX", "readme",
    )  # fmt: skip
    others = [f"AudioWAV/{name}.wav" for name in names]
    found = scan("cremad", plant(tmp_path, *cremad_files("1001_DFA_ANG_XX"), *others))
    assert len(found.candidates) == 1 and reasons(found) == dict.fromkeys(others, "unknown_name")


# Kinetics-Sounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("youtube", [A, B, "-----------", "a_000010_00"])
def test_kinetics_names(youtube):
    starts = {"": None, "_2": 2, "_000010_000020": 10, "_000010": 10, "_0": 0}
    for times, start in starts.items():
        for suffix in (".mp4", ".mkv", ".webm", ".avi", ".MP4"):
            assert kinetics.parse_name(youtube + times + suffix) == (youtube, start)


@pytest.mark.parametrize("name", [
    "0123456789.mp4", "012345678901.mp4", "01234567890_.mp4", "01234567890_1_2.mp4",
    "01234567890_000010_20.mp4", "01234567890.mp4.part", "01234567890.wav", "01234567890_٢.mp4",
    "0123456789ä.mp4", "0123456789 .mp4", "01234567890\n.mp4", "01234567890",
])  # fmt: skip
def test_invalid_kinetics_names(name):
    assert kinetics.parse_name(name) is None


def rows(*lines, header=HEADER, **how):
    """A csv list as written by a spreadsheet."""
    text = io.StringIO()
    csv.writer(text, **{"quoting": csv.QUOTE_ALL} | how).writerows([header.split(","), *lines])
    return text.getvalue()


@pytest.mark.parametrize(("mark", "more", "how"), [
    ("", ("0",), {}), ("\ufeff", (), {"delimiter": ";"}), ("", (), {"delimiter": "\t"}),
    ("\ufeff", (), {"quoting": csv.QUOTE_MINIMAL, "lineterminator": "\n"}),
])  # fmt: skip
def test_kinetics_flat_tree_with_lists_in_several_dialects(tmp_path, mark, more, how):
    header = HEADER + ",is_cc" * len(more)
    lists = {
        "annotations/train.csv": ("playing guitar", A, "10", "20", "train", *more),
        "annotations/val.csv": ("Tap_Dancing", B, "0", "10", "validate", *more),
    }
    lists = {name: mark + rows(row, header=header, **how) for name, row in lists.items()}
    files = f"train/{A}_000010_000020.mp4", f"val/{B}_000000_000010.mp4"
    found = scan("kinetics", plant(tmp_path, *files, lists=lists))
    assert kept(found) == {A: ("playing guitar", "train"), B: ("tap dancing", "val")}
    assert [c.sources["audio"] for c in found.candidates] == [files[:1], files[1:]]
    assert found.rejected == []


FIRST = f"train/singing/{SONG}_000001_000011.mp4"
TEST = FIRST.replace("train", "test")
MENDED = FIRST.replace("train", "replacement")
# files, rows of a list -> samples (class, part), rejects
CASES = {
    "folders, mixed forms and a list": (
        ["train/playing guitar/-----------_000010_000020.mp4", "val/Tap_Dancing/___________.webm",
         "singing/a_000010_00_2.mkv", f"test/{SONG}_3.mp4"],
        [("tickling", SONG, "3", "13", "test")],
        {"-----------": ("playing guitar", "train"), "___________": ("tap dancing", "val"),
         "a_000010_00": ("singing", ""), SONG: ("tickling", "test")},
        [],
    ),
    "a row of another start": (
        [FIRST], [("tickling", SONG, "50", "60", "train")], {SONG: ("singing", "train")},
        [(SONG, "l.csv", "missing_file")],
    ),
    "train before val and test, and a mended clip after the broken one": (
        [f"val/singing/{SONG}.mp4", FIRST, TEST, MENDED], [], {SONG: ("singing", "train")},
        [(SONG, f"val/singing/{SONG}.mp4", "duplicate"), (SONG, TEST, "second_file"),
         (SONG, MENDED, "second_file")],
    ),
    "several clips of one id": (
        [FIRST, FIRST.replace("01_", "50_")], [],
        {f"{SONG}_000001": ("singing", "train"), f"{SONG}_000050": ("singing", "train")}, [],
    ),
    "rows without a clip, of the 31 classes alone": (
        [f"train/singing/{SONG}.mp4"],
        [("singing", SONG, "1", "11", "train"), ("singing", A, "1", "11", "train"),
         ("yoga", B, "1", "11", "train")],
        {SONG: ("singing", "train")}, [(A, "l.csv", "missing_file")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_kinetics_files_and_rows(tmp_path, case):
    files, listed, samples, due = CASES[case]
    lists = {"l.csv": rows(*listed)} if listed else {}
    found = scan("kinetics", plant(tmp_path, *files, lists=lists))
    assert kept(found) == samples and rejects(found) == sorted(due)
    assert all(c.group == c.id[:11] for c in found.candidates)


def test_kinetics_rows_of_another_form_are_noted_with_their_line(tmp_path):
    good = rows(("singing", A, "1", "11", "train"), ("singing", B, "1", "11", "train"))
    text = good + f"singing,{SONG}\r\n" + good.splitlines()[1].replace(A, SONG)[:-7] + '"x\r\n'
    plant(tmp_path, f"train/{A}.mp4", f"train/{B}.mp4", lists={"l.csv": text})
    found = scan("kinetics", tmp_path)
    assert set(kept(found)) == {A, B}
    noted = {r.id: (r.reason, r.detail) for r in found.rejected if r.id.startswith("line")}
    assert noted["line 4"] == ("bad_line", "line 4: 2 cells, but the header has 5")
    assert noted["line 5"][0] == "open_quote" and "line 5: it opens a quote" in noted["line 5"][1]


def test_other_classes_are_one_line_and_dead_links_and_pipes_are_no_lists(tmp_path):
    plant(tmp_path, FIRST, f"train/yoga/{A}.mp4", f"train/zumba/{B}.mp4", f"train/zumba/{A}_1.mp4")
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    found = scan("kinetics", tmp_path)
    assert reasons(found) == {"gone.csv": "unknown_name", "pipe.csv": "unknown_name"}
    assert any(line.startswith("left out 3 clips of 2 classes outside") for line in found.warnings)


# Another list of classes --------------------------------------------------------------------------


def class_list(folder, text):
    (folder / "classes.txt").write_text(text)
    return str(folder / "classes.txt")


@pytest.mark.parametrize("base", ["train/zumba/{}.mp4", "train/{}.mp4"])
def test_other_classes_of_kinetics_are_taken_by_a_list_of_their_names(tmp_path, base):
    labels = {A: "zumba", B: "yoga", SONG: "singing"}
    files = [base.replace("zumba", label).format(name) for name, label in labels.items()]
    listed = [(label, name, "", "", "train") for name, label in labels.items()]
    lists = {} if "zumba" in base else {"l.csv": rows(*listed)}
    chosen = class_list(tmp_path, "Zumba\n\n yoga \n")
    found = scan("kinetics", plant(tmp_path / "raw", *files, lists=lists), classes=chosen)
    assert kept(found) == {A: ("zumba", "train"), B: ("yoga", "train")}
    assert found.label_names == ("yoga", "zumba")
    (line,) = found.warnings  # and none about the paper's number of samples
    assert line.startswith("left out 1 clips of 1 classes outside the 2")


@pytest.mark.parametrize(("text", "words"), [
    ("singing\nsingin\n", "'singin'. Did you mean 'singing'? Allowed: singing, zumba"),
    ("singing\n", "at least two classes"), ("singing\nzumba\nSinging\n", "each on one line"),
    (None, "is not a file"),
])  # fmt: skip
def test_a_list_of_classes_that_cannot_be_used_is_refused(tmp_path, text, words):
    root = plant(tmp_path / "raw", FIRST, f"train/zumba/{A}.mp4")
    chosen = class_list(tmp_path, text) if text else str(tmp_path / "gone.txt")
    with pytest.raises(UsageError) as error:
        scan("kinetics", root, classes=chosen)
    assert words in str(error.value) and chosen in str(error.value)


def test_each_list_of_classes_has_its_own_prepared_folder(tmp_path):
    def hashed(text):
        chosen = class_list(tmp_path, text) if text else ""
        return spec_hash("kinetics", kinetics.spec(kinetics.Settings(classes=chosen)))

    assert len({hashed(""), hashed("singing\nyoga"), hashed("singing\nzumba")}) == 3
    assert hashed("yoga\nsinging\n") == hashed("singing\nyoga")


def test_samples_of_a_list_of_classes_are_prepared_and_found_again(tmp_path):
    root, data = tmp_path / "raw", tmp_path / "data"
    more = {"layout": "B", "classes": 3, "workers": 1}
    write_kinetics(root, 1, truth_path=tmp_path / "truth.csv", **more)
    settings = kinetics.Settings(classes=class_list(tmp_path, "bowling\nblowing nose\n"))
    folder = prepare("kinetics", root, data, settings, workers=1)
    assert verify(folder, "kinetics") == []
    assert stats(folder)["classes"] == {"blowing nose": 1, "bowling": 1}
    assert stats(folder)["paper"] == {}
    assert find_folder(data, "kinetics", kinetics.spec(settings), True) == folder
    with pytest.raises(UsageError, match=rf"{folder.name} \(2 classes of another list\)"):
        find_folder(data, "kinetics", kinetics.spec(kinetics.Settings()), True)


def test_a_run_can_predict_without_its_list_of_classes(tmp_path):
    chosen = class_list(tmp_path, "singing\nyoga\n")
    config = resolve(["--dataset", "kinetics", "--classes", chosen], "")[0].config()
    (tmp_path / "classes.txt").unlink()
    assert list(spec_of(run_from_config(config), config)) == ["audio", "video"]


def test_a_list_of_classes_is_refused_for_a_tree_of_the_official_code(tmp_path):
    write_release("kinetics", tmp_path / "raw", 2, 1)
    with pytest.raises(UsageError, match="--classes does not work with .*raw"):
        scan("kinetics", tmp_path / "raw", classes=class_list(tmp_path, "singing\nyoga\n"))
