"""CREMA-D as prepared for OGM-GE's loader: frames in folders, lists of clips."""

import pytest
from raw import plant, reasons, scan

from common.files import read_table
from common.options import UsageError
from data_prep import datasets
from data_prep.prepare import prepare
from data_prep.store import Prepared
from fixtures.trees import write_tree

CLIPS = ("1001_DFA_ANG_XX", "1002_IEO_HAP_LO", "1003_TIE_NEU_XX")


def frames_tree(root, sounds="AudioWAV", frames="Image-01-FPS", lists=None):
    """A tree of empty files; each clip has two frames."""
    files = [f"{sounds}/{clip}.wav" for clip in CLIPS]
    files += [f"{frames}/{clip}/{k:05d}.jpg" for clip in CLIPS for k in (0, 30)]
    return plant(root, *files, lists=lists)


@pytest.mark.parametrize("base", ["", "CREMA-D"])
@pytest.mark.parametrize(("sounds", "frames"), [
    ("AudioWAV", "Image-01-FPS"), ("Audio", "Image-03-FPS"), ("audio", "visual"),
])  # fmt: skip
def test_frames_are_found_in_the_folders_of_public_loaders(tmp_path, base, sounds, frames):
    frames_tree(tmp_path / base, sounds, frames)
    found = scan("cremad", tmp_path)
    prefix = f"{base}/" if base else ""
    assert [c.sources for c in found.candidates] == [
        {"audio": (f"{prefix}{sounds}/{c}.wav",), "video": (f"{prefix}{frames}/{c}",)}
        for c in CLIPS
    ]
    assert [found.label_names[c.label] for c in found.candidates] == ["ANG", "HAP", "NEU"]
    assert [(c.group, c.part) for c in found.candidates] == [(c[:4], "") for c in CLIPS]
    assert not found.rejected
    assert any(f"{frames}: there is no VideoFlash" in warning for warning in found.warnings)


def test_videos_come_before_frames_and_the_highest_rate_before_others(tmp_path):
    frames_tree(tmp_path)
    frames_tree(tmp_path, frames="Image-04-FPS")
    sources = [c.sources["video"] for c in scan("cremad", tmp_path).candidates]
    assert sources == [(f"Image-04-FPS/{clip}",) for clip in CLIPS]
    plant(tmp_path, f"VideoFlash/{CLIPS[0]}.flv")
    sources = [c.sources["video"] for c in scan("cremad", tmp_path).candidates]
    assert sources == [(f"VideoFlash/{clip}.flv",) for clip in CLIPS]


def test_frames_without_sounds_are_no_tree(tmp_path):
    plant(tmp_path, f"Image-01-FPS/{CLIPS[0]}/00000.jpg", f"sounds/{CLIPS[0]}.wav")
    with pytest.raises(UsageError, match="has AudioWAV, VideoFlash"):
        scan("cremad", tmp_path)


@pytest.mark.parametrize("folder", ["", "annotations/", "CREMAD/"])
def test_lists_give_the_part_and_their_emotion_wins(tmp_path, folder):
    lists = {
        "train.csv": f"\ufeffclip,label\r\n{CLIPS[0]},ANG\r\n1009_ITS_SAD_X,SAD\r\n",
        "val.csv": f"{CLIPS[1]},SAD,more\n{CLIPS[0]},ANG\n",
        "test.csv": b"\xe9\n1003_TIE_NEU_XX\n\nclip,NEU\n" + f"{CLIPS[2]},NEU".encode(),
    }
    found = scan("cremad", frames_tree(tmp_path, lists={folder + k: v for k, v in lists.items()}))
    labels = [found.label_names[c.label] for c in found.candidates]
    assert labels == ["ANG", "SAD", "NEU"]
    assert [c.part for c in found.candidates] == ["train", "val", "test"]
    assert [(r.id, r.source, r.reason) for r in found.rejected] == [
        ("train.csv, line 1", f"{folder}train.csv", "header_line"),
        (CLIPS[0], f"{folder}val.csv", "duplicate"),
        *((f"test.csv, line {n}", f"{folder}test.csv", "bad_line") for n in (1, 2, 4)),
        (CLIPS[1], f"Image-01-FPS/{CLIPS[1]}", "label_conflict"),
        ("1009_ITS_SAD_XX", f"{folder}train.csv", "missing_file"),
    ]


def test_a_file_beside_the_folders_of_frames_is_listed(tmp_path):
    plant(frames_tree(tmp_path), "Image-01-FPS/notes.txt", "Image-01-FPS/other/1.jpg")
    due = {"Image-01-FPS/notes.txt": "unknown_name", "Image-01-FPS/other": "unknown_name"}
    assert reasons(scan("cremad", tmp_path)) == due


@pytest.mark.parametrize("keep_all", [True, False])
def test_all_frames_are_stored_and_a_missing_modality_follows_keep_all(tmp_path, keep_all):
    root = tmp_path / "raw"
    write_tree("cremad", root, 3, truth_path=tmp_path / "truth.csv", layout="frames", workers=1)
    first, second, *_ = sorted((root / "AudioWAV").glob("1*.wav"))
    first.unlink()
    for path in (root / "Image-01-FPS" / second.stem).iterdir():
        path.unlink()
    settings = datasets.load("cremad").Settings(keep_all=keep_all)
    folder = prepare("cremad", root, tmp_path / "data", settings, workers=1, max_bad=1.0)
    rows = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    lost = {r["id"]: r["reason"] for r in read_table(folder / "rejected.csv")}
    if keep_all:
        assert "no_audio" in rows[first.stem]["flags"] and rows[second.stem]["flags"] == "no_video"
        assert len(rows) == 18 and not lost
    else:
        assert lost == {first.stem: "missing_file", second.stem: "few_frames"} and len(rows) == 16
    prepared = Prepared(folder)
    place = prepared.ids.index(sorted(rows)[-1])
    files = sorted((root / "Image-01-FPS" / prepared.ids[place]).iterdir())
    stored = [bytes(image) for image in prepared.value(place, "video")]
    assert stored == [path.read_bytes() for path in files] and len(stored) > 2
    assert {row["part"] for row in rows.values()} == {"train", "test"}
