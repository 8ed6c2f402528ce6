"""The raw trees: names, lists, labels, and what is told about files that are no samples."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from common.options import UsageError, check
from data_prep.datasets import cremad, kinetics
from data_prep.datasets.walk import walk
from data_prep.reasons import REASONS


def plant(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def write_list(path: Path, rows: list[tuple], header: str, mark: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = "utf-8-sig" if mark else "utf-8"
    with open(path, "w", encoding=encoding, newline="") as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_ALL)  # CRLF is the writer's default
        writer.writerow(header.split(","))
        writer.writerows(rows)


def reasons(scan) -> dict[str, str]:
    assert all(rejection.reason in REASONS for rejection in scan.rejected)
    return {rejection.source: rejection.reason for rejection in scan.rejected}


def scan_kinetics(root: Path):
    return kinetics.scan(root, kinetics.Settings())


HEADER = "label,youtube_id,time_start,time_end,split"


# --- walk -----------------------------------------------------------------------------------------


def test_walk_ignores_leftovers_and_sorts(tmp_path):
    plant(tmp_path, "b/x.txt", "a/-y.txt", ".DS_Store", "a/Thumbs.db", "__MACOSX/a/x.txt", ".git/z")
    plant(tmp_path, "ä ö/z 1.txt")
    assert walk(tmp_path) == ["a/-y.txt", "b/x.txt", "ä ö/z 1.txt"]


def test_walk_follows_links_once(tmp_path):
    plant(tmp_path, "real/x.txt")
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    outside = plant(tmp_path.parent / f"{tmp_path.name}-outside", "y.txt")
    (tmp_path / "out").symlink_to(outside)
    assert walk(tmp_path) == ["out/y.txt", "real/x.txt", "self"]


# --- CREMA-D --------------------------------------------------------------------------------------


def cremad_files(*clips: str) -> list[str]:
    return [f for c in clips for f in (f"AudioWAV/{c}.wav", f"VideoFlash/{c}.flv")]


@pytest.mark.parametrize("inside", ["", "CREMA-D/"])
def test_cremad_pairs_files(tmp_path, inside):
    names = cremad_files("1001_DFA_ANG_XX", "1091_IEO_NEU_HI")
    plant(tmp_path, *(inside + name for name in names), inside + "AudioMP3/1001_DFA_ANG_XX.mp3")
    scan = cremad.scan(tmp_path, cremad.Settings())
    first, second = scan.candidates
    assert (first.id, first.label, first.group) == ("1001_DFA_ANG_XX", 5, "1001")
    assert (second.id, second.label, second.group) == ("1091_IEO_NEU_HI", 0, "1091")
    wav, flv = (inside + name for name in names[:2])
    assert first.sources == {"audio": (wav, flv), "video": (flv,)}
    assert scan.rejected == []
    assert any("7442" in warning for warning in scan.warnings)


def test_cremad_single_x_is_the_same_clip(tmp_path):
    plant(tmp_path, "AudioWAV/1040_ITH_SAD_X.wav", "VideoFlash/1040_ITH_SAD_XX.flv")
    (candidate,) = cremad.scan(tmp_path, cremad.Settings()).candidates
    assert candidate.id == "1040_ITH_SAD_XX"
    assert candidate.sources["audio"][0] == "AudioWAV/1040_ITH_SAD_X.wav"


def test_cremad_duplicate_keeps_the_regular_name(tmp_path):
    plant(tmp_path, *cremad_files("1040_ITH_SAD_X", "1040_ITH_SAD_XX"))
    scan = cremad.scan(tmp_path, cremad.Settings())
    names = "VideoFlash/1040_ITH_SAD_XX.flv", "VideoFlash/1040_ITH_SAD_X.flv"
    assert [c.sources["video"] for c in scan.candidates] == [names]
    assert set(reasons(scan).values()) == {"second_file"} and len(scan.rejected) == 2


@pytest.mark.parametrize("name", [
    "1001_DFA_ANG", "2001_DFA_ANG_XX", "1001_dfa_ANG_XX", "1001_DFA_JOY_XX", "1001_DFA_ANG_ZZ",
    "1001_DFA_ANG_XX ", "1001_DFA_ANG_XX.bak", "11001_DFA_ANG_XX", "١٠٠١_DFA_ANG_XX", "readme",
])  # fmt: skip
def test_cremad_unknown_names(tmp_path, name):
    plant(tmp_path, *cremad_files("1001_DFA_ANG_XX"), f"AudioWAV/{name}.wav")
    scan = cremad.scan(tmp_path, cremad.Settings())
    assert reasons(scan) == {f"AudioWAV/{name}.wav": "unknown_name"}
    assert len(scan.candidates) == 1


def test_cremad_names_missing_files_too(tmp_path):
    plant(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "VideoFlash/1002_DFA_ANG_XX.flv")
    for candidate in cremad.scan(tmp_path, cremad.Settings()).candidates:
        wav, flv = f"AudioWAV/{candidate.id}.wav", f"VideoFlash/{candidate.id}.flv"
        assert candidate.sources == {"audio": (wav, flv), "video": (flv,)}


def test_cremad_wrong_root_says_what_it_looked_for(tmp_path):
    plant(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    with pytest.raises(UsageError, match="AudioWAV and VideoFlash") as error:
        cremad.scan(tmp_path, cremad.Settings())
    assert "\n" not in str(error.value)


def test_cremad_spec():
    kept, dropped = cremad.spec(cremad.Settings()), cremad.spec(cremad.Settings(keep_all=False))
    stft = cremad.Settings(audio_feature="stft")
    assert kept["audio"].shape == (128, 1024) and cremad.spec(stft)["audio"].shape == (257, 188)
    assert list(kept) == ["audio", "video"] == list(cremad.views(cremad.Settings()))
    assert {m.missing for m in kept.values()} == {"fill"}
    assert {m.missing for m in dropped.values()} == {"reject"}
    assert kept["video"].max_frames / kept["video"].fps == 10 and kept["video"].min_frames == 3
    constants = {"audio": pytest.approx((-4.503877, 2 * 5.141276)), "video": "imagenet"}
    assert cremad.normalise(cremad.Settings()) == constants
    assert cremad.normalise(stft)["audio"] == "none"


@pytest.mark.parametrize("layout", [cremad, kinetics])
def test_how_frames_of_a_clip_are_cropped_is_a_setting(layout):
    augment = {"frame": "crop_flip_apart", "clip": "crop_flip", "none": "none"}
    for crop, expected in augment.items():
        view = layout.views(layout.Settings(crop=crop))["video"]
        assert (view.frames, view.augment) == (3, expected)
    assert layout.Settings().crop == "frame"
    name = layout.__name__.split(".")[-1]
    for choice, rule in (("segments", "segments"), ("release", name)):
        assert layout.views(layout.Settings(frame_choice=choice))["video"].choice == rule


# --- Kinetics-Sounds ------------------------------------------------------------------------------


HOSTILE = ["-3Mwkq-7TV4", "_a__b--c_12", "-----------", "___________", "01234567890", "a_000010_00"]


@pytest.mark.parametrize("youtube", HOSTILE)
@pytest.mark.parametrize("times,start", [
    ("", None), ("_2", 2), ("_000010_000020", 10), ("_000010", 10), ("_0", 0),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".MP4"])
def test_kinetics_names(youtube, times, start, suffix):
    assert kinetics.parse_name(youtube + times + suffix) == (youtube, start)


@pytest.mark.parametrize("name", [
    "0123456789.mp4", "012345678901.mp4", "01234567890_.mp4", "01234567890_1_2.mp4",
    "01234567890_000010_20.mp4", "01234567890.mp4.part", "01234567890.f137.mp4", "01234567890.wav",
    "01234567890_٢.mp4", "0123456789ä.mp4", "0123456789 .mp4", "01234567890\n.mp4", "01234567890",
])  # fmt: skip
def test_kinetics_names_that_are_none(name):
    assert kinetics.parse_name(name) is None


def test_kinetics_classes():
    assert len(kinetics.LABELS) == 31 and list(kinetics.LABELS) == sorted(kinetics.LABELS)
    assert (kinetics.LABELS[12], kinetics.LABELS[30]) == ("playing guitar", "tickling")
    assert kinetics.canonical(" Playing_Bass  guitar ") == "playing bass guitar"


@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("cc", [True, False])
def test_kinetics_flat_tree_with_lists(tmp_path, mark, cc):
    plant(tmp_path, "train/-3Mwkq-7TV4_000010_000020.mp4", "val/_a__b--c_12_000000_000010.mp4")
    header, more = (HEADER + ",is_cc", ("0",)) if cc else (HEADER, ())
    row = ("playing guitar", "-3Mwkq-7TV4", "10", "20", "train", *more)
    write_list(tmp_path / "annotations/train.csv", [row], header, mark)
    row = ("Tap Dancing", "_a__b--c_12", "0", "10", "validate", *more)
    write_list(tmp_path / "annotations/val.csv", [row], header, mark)
    scan = scan_kinetics(tmp_path)
    assert [(c.id, c.label, c.part, c.group) for c in scan.candidates] == [
        ("-3Mwkq-7TV4", 12, "train", "-3Mwkq-7TV4"), ("_a__b--c_12", 27, "val", "_a__b--c_12"),
    ]  # fmt: skip
    assert scan.candidates[0].sources["audio"] == ("train/-3Mwkq-7TV4_000010_000020.mp4",)
    assert scan.rejected == []
    assert any("24129" in warning for warning in scan.warnings)


def test_kinetics_folders_and_mixture(tmp_path):
    plant(
        tmp_path, "train/playing guitar/-----------_000010_000020.mp4",
        "val/Tap_Dancing/___________.webm", "singing/a_000010_00_2.mkv", "test/01234567890_3.mp4",
    )  # fmt: skip
    write_list(tmp_path / "test.csv", [("tickling", "01234567890", "3", "13", "test")], HEADER)
    scan = scan_kinetics(tmp_path)
    assert {c.id: (kinetics.LABELS[c.label], c.part) for c in scan.candidates} == {
        "-----------": ("playing guitar", "train"), "___________": ("tap dancing", "val"),
        "a_000010_00": ("singing", ""), "01234567890": ("tickling", "test"),
    }  # fmt: skip
    assert scan.rejected == []


def test_kinetics_other_classes_are_one_line(tmp_path):
    plant(tmp_path, "train/singing/01234567890.mp4", "train/yoga/01234567891.mp4")
    plant(tmp_path, "train/zumba/01234567892.mp4", "train/zumba/01234567893.mp4")
    scan = scan_kinetics(tmp_path)
    assert len(scan.candidates) == 1 and scan.rejected == []
    (line,) = (warning for warning in scan.warnings if "outside" in warning)
    assert line.startswith("3 clips of 2 classes")


def test_kinetics_list_of_other_class(tmp_path):
    plant(tmp_path, "train/01234567890.mp4", "train/01234567891.mp4")
    rows = [("yoga", "01234567890", "0", "10", "train"), ("singing", "01234567891", "0", "10", "")]
    write_list(tmp_path / "train.csv", rows, HEADER)
    scan = scan_kinetics(tmp_path)
    assert [c.id for c in scan.candidates] == ["01234567891"] and scan.rejected == []


def test_kinetics_label_conflict_takes_the_list(tmp_path):
    plant(tmp_path, "train/singing/01234567890_000001_000011.mp4")
    write_list(tmp_path / "l.csv", [("tickling", "01234567890", "1", "11", "train")], HEADER)
    scan = scan_kinetics(tmp_path)
    assert [kinetics.LABELS[c.label] for c in scan.candidates] == ["tickling"]
    assert list(reasons(scan).values()) == ["label_conflict"]


def test_kinetics_row_of_another_start_does_not_count(tmp_path):
    plant(tmp_path, "train/singing/01234567890_000001_000011.mp4")
    write_list(tmp_path / "l.csv", [("tickling", "01234567890", "50", "60", "train")], HEADER)
    scan = scan_kinetics(tmp_path)
    assert [kinetics.LABELS[c.label] for c in scan.candidates] == ["singing"]
    assert reasons(scan) == {"l.csv": "missing_file"}


def test_kinetics_no_label(tmp_path):
    plant(tmp_path, "test/01234567890_000001_000011.mp4", "test/01234567891.mp4", "01234567892.mp4")
    header = "youtube_id,time_start,time_end,split"
    write_list(tmp_path / "test.csv", [("01234567890", "1", "11", "test")], header)
    scan = scan_kinetics(tmp_path)
    assert scan.candidates == [] and set(reasons(scan).values()) == {"no_label"}
    assert len(scan.rejected) == 3


def test_kinetics_duplicates_keep_train(tmp_path):
    plant(tmp_path, "val/singing/01234567890.mp4", "train/singing/01234567890_000001_000011.mp4")
    plant(tmp_path, "test/singing/01234567890_000001_000011.mp4")
    scan = scan_kinetics(tmp_path)
    assert [(c.id, c.part) for c in scan.candidates] == [("01234567890", "train")]
    assert sorted(reasons(scan).values()) == ["duplicate", "second_file"]


def test_kinetics_several_clips_of_one_id(tmp_path):
    plant(tmp_path, *(f"train/singing/01234567890_0000{s}_0000{s + 10}.mp4" for s in (10, 50)))
    scan = scan_kinetics(tmp_path)
    assert [(c.id, c.group) for c in scan.candidates] == [
        ("01234567890_000010", "01234567890"), ("01234567890_000050", "01234567890"),
    ]  # fmt: skip


def test_kinetics_rows_without_file_are_listed(tmp_path):
    plant(tmp_path, "train/singing/01234567890.mp4")
    listed = {"01234567890": "singing", "-aaaaaaaaaa": "singing", "-bbbbbbbbbb": "yoga"}
    rows = [(label, youtube, "1", "11", "train") for youtube, label in listed.items()]
    write_list(tmp_path / "train.csv", rows, HEADER)
    scan = scan_kinetics(tmp_path)
    assert [(r.id, r.reason) for r in scan.rejected] == [("-aaaaaaaaaa", "missing_file")]
    assert len(scan.candidates) == 1


def test_kinetics_unknown_files(tmp_path):
    plant(tmp_path, "singing/01234567890.mp4", "readme.md", "singing/01234567890.mp4.part", "x.csv")
    assert reasons(scan_kinetics(tmp_path)) == dict.fromkeys(
        ["readme.md", "singing/01234567890.mp4.part", "x.csv"], "unknown_name"
    )


def test_kinetics_wrong_root(tmp_path):
    plant(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    with pytest.raises(UsageError, match="no clip of Kinetics") as error:
        scan_kinetics(tmp_path)
    assert "\n" not in str(error.value)


def test_kinetics_specs():
    plain, stft = kinetics.Settings(), kinetics.Settings(audio_feature="stft")
    assert kinetics.spec(plain)["audio"].shape == (128, 1024)
    assert kinetics.spec(stft)["audio"].shape == (129, 1251)
    assert kinetics.views(plain)["audio"].window is None
    assert kinetics.views(stft)["audio"].window == 626
    assert kinetics.normalise(plain)["audio"] == pytest.approx((-4.503877, 2 * 5.141276))
    assert kinetics.normalise(stft)["audio"] == "none"
    missing = kinetics.spec(kinetics.Settings(allow_missing=True, drop_silent=True))
    assert missing["audio"].missing == "fill" and missing["audio"].drop_silent
    assert missing["video"].missing == "reject"
    with pytest.raises(UsageError):
        check(kinetics.Settings(audio_feature="mel"))


def test_layouts_import_without_torch():
    code = (
        "import sys, data_prep.datasets.cremad, data_prep.datasets.kinetics;"
        "sys.exit(bool({'torch', 'numpy', 'av', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
