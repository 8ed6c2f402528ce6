"""VGG-Sound: names of clips, sources in separate files, the list, missing clips, the val part."""

from collections import Counter

import numpy as np
import pytest
from raw import kept, plant, rejects, scan

from common.files import read_table
from common.options import UsageError
from data_prep.datasets import vggsound
from data_prep.digits import write_wav
from data_prep.prepare import prepare
from fixtures.release import write_frames
from fixtures.scenes import RATE, Look, render

A, B, SONG = "-3Mwkq-7TV4", "_a__b--c_12", "01234567890"
CHIRP, SIREN = "bird chirping, tweeting", "police car (siren)"
ROWS = f'{A},30,"{CHIRP}",train\n{B},7,{SIREN},test\n'


def listed(text=ROWS, *files, root):
    return scan("vggsound", plant(root, *files, lists={"vggsound.csv": text}))


@pytest.mark.parametrize(("name", "clip"), [
    (f"{A}_000030", f"{A}_000030"), (f"{A}_30", f"{A}_000030"), (f"{B}_0", f"{B}_000000"),
    (f"{A}_30000_40000", f"{A}_000030"), (f"{A}_110000_120000", f"{A}_000110"),
    (f"{A}_000030_000040", None), (A, None), (f"{A}_", None), (f"{A}_3.5", None),
    (f"x{A}_000030", None), (f"{A}_٣", None),
])  # fmt: skip
def test_names_of_clips(name, clip):
    assert vggsound.clip_of(name) == clip


TREES = {  # files, sources of sound and of frames of A
    "archives": (["scratch/x/video/{}.mp4"], [0], [0]),
    "class folders": ([f"train/{CHIRP}/{{}}.mp4"], [0], [0]),
    "separate sound": (["audio/{}.flac", "video/{}.webm"], [0, 1], [1]),
    "OGM-GE": (
        ["train-audios/train-set/{}.wav", "train-videos/train-set-img/Image-01-FPS/{}.mp4/1.jpg",
         "train-videos/train-set-img/Image-01-FPS/{}.mp4/2.jpg", "train-videos/train-set/{}.mp4"],
        [0, 3], [3, 1],
    ),
    "one folder": (["train/{}/1.jpg", "train/{}/2.png", "train/{}/{}.wav"], [2], [0]),
}  # fmt: skip


@pytest.mark.parametrize("stem", [f"{A}_000030", f"{A}_30"])
@pytest.mark.parametrize("case", TREES)
def test_sound_and_frames_are_found_in_public_layouts(tmp_path, case, stem):
    files, sound, frames = TREES[case]
    files = [file.replace("{}", stem) for file in files]
    sources = [f.rpartition("/")[0] if f.endswith(("jpg", "png")) else f for f in files]
    found = listed(ROWS.splitlines()[0], *files, root=tmp_path)
    (clip,) = found.candidates
    assert (clip.id, clip.group, clip.part) == (f"{A}_000030", A, "train")
    assert found.label_names[clip.label] == CHIRP and found.rejected == []
    due = {"audio": sound, "video": frames}
    assert clip.sources == {m: tuple(sources[k] for k in places) for m, places in due.items()}


@pytest.mark.parametrize("text", [
    "# YouTube ID, start seconds, label,train/test split\n" + ROWS, "\ufeff" + ROWS,
    ROWS.replace("\n", "\r\n").replace("30", "000030"), ROWS.replace("train", "Train"),
    ROWS.replace(CHIRP, "Bird_chirping,_tweeting"),
])  # fmt: skip
def test_dialects_of_the_list(tmp_path, text):
    found = listed(text, f"{A}_30.mp4", f"{B}_7.mp4", root=tmp_path)
    assert kept(found) == {f"{A}_000030": (CHIRP, "train"), f"{B}_000007": (SIREN, "test")}
    assert found.rejected == []


@pytest.mark.parametrize(("row", "reason"), [
    (f"{SONG},5,theremin,train", "no_label"), (f"{SONG},5,hail", "bad_line"),
    (f"{SONG},5,hail,dev", "bad_line"), (f"{SONG[1:]},5,hail,test", "bad_line"),
    (f"{SONG},five,hail,test", "bad_line"), (f"{A},030,hail,test", "duplicate"),
    (f"{SONG},5,bird chirping, tweeting,test", "bad_line"),
])  # fmt: skip
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, reason):
    found = listed(ROWS + row, f"{A}_30.mp4", f"{B}_7.mp4", f"{SONG}_5.mp4", root=tmp_path)
    assert len(kept(found)) == 2
    (line,) = (r for r in found.rejected if r.detail.startswith("line 3"))
    assert line.reason == reason
    assert {r.reason for r in found.rejected if r.source.endswith("_5.mp4")} == {"no_label"}


def test_an_open_quote_ends_with_its_line(tmp_path):
    text = f'{SONG},5,"hail,train\n{ROWS}'
    found = listed(text, f"{A}_30.mp4", f"{B}_7.mp4", f"{SONG}_5.mp4", root=tmp_path)
    assert kept(found)[f"{SONG}_000005"] == ("hail", "train") and len(kept(found)) == 3
    assert rejects(found) == [("line 1", "vggsound.csv", "open_quote")]


def test_missing_clips_are_counted_by_part_and_do_not_fail_the_preparation(tmp_path):
    found = listed(f"{ROWS}{SONG},5,hail,train\n", f"{A}_30.mp4", root=tmp_path)
    missing = [(f"{SONG}_000005", "vggsound.csv", "missing_file")]
    assert rejects(found) == [*missing, (f"{B}_000007", "vggsound.csv", "missing_file")]
    assert found.warnings[0].startswith(
        "1 of 2 train and 1 of 1 test clips of vggsound.csv have no file"
    )
    assert found.listed == 0  # so that --max_bad does not count them


def test_a_clip_without_sound_or_frames_and_a_second_list_are_named(tmp_path):
    files = f"a/{A}_30.wav", f"b/{B}_7/1.jpg", "b/x.csv", "b/cover.jpg"
    found = listed(ROWS, *files, "copy/vggsound.csv", f"{SONG}_1.mp4", root=tmp_path)
    assert rejects(found) == sorted([
        (f"{A}_000030", files[0], "missing_file"), (f"{B}_000007", f"b/{B}_7", "missing_file"),
        ("x", "b/x.csv", "unknown_name"), ("cover", "b/cover.jpg", "unknown_name"),
        ("vggsound.csv", "copy/vggsound.csv", "second_file"),
        (f"{SONG}_000001", f"{SONG}_1.mp4", "no_label"),
    ])  # fmt: skip


@pytest.mark.parametrize(("files", "words"), [
    ((f"{A}_30.mp4",), "contains no vggsound.csv"), (("vggsound.csv",), "contains no clips"),
])  # fmt: skip
def test_a_root_without_list_or_clips_is_refused(tmp_path, files, words):
    with pytest.raises(UsageError, match=f"{words}.*the root must contain"):
        scan("vggsound", plant(tmp_path, *files))


def test_the_val_part_is_a_tenth_of_the_videos_of_each_class_and_divides_none(tmp_path):
    names = [f"video{k:06d}" for k in range(40)]
    rows = [(f"{name}", start, ("hail", "skiing")[k % 2]) for k, name in enumerate(names)
            for start in (0, 20)]  # fmt: skip
    text = "".join(f"{name},{start},{label},train\n" for name, start, label in rows) + ROWS
    files = [f"{name}_{start}.mp4" for name, start, _ in rows]
    found = listed(text, *files, f"{A}_30.mp4", f"{B}_7.mp4", root=tmp_path)
    parts = kept(found)
    assert Counter(parts.values()) == {
        ("hail", "train"): 36, ("hail", "val"): 4, ("skiing", "train"): 36, ("skiing", "val"): 4,
        (CHIRP, "train"): 1, (SIREN, "test"): 1,
    }  # fmt: skip
    for name in names:
        assert len({parts[f"{name}_{start:06d}"][1] for start in (0, 20)}) == 1


def test_frames_and_sound_in_separate_files_are_prepared(tmp_path):
    root, look = tmp_path / "raw", Look(seconds=(3.0, 3.0))
    for k, (clip, part) in enumerate(((f"{A}_30", "train"), (f"{B}_7", "test"))):
        scene = render(k, look, np.random.default_rng(k))
        write_frames(root / f"{part}-img/{clip}", "{:05d}.jpg", scene.frames[:5])
        write_wav(root / f"{clip}.wav", scene.wave, RATE)
    (root / "vggsound.csv").write_text(ROWS)
    settings = vggsound.Settings()
    more = {"workers": 1, "allow_missing_classes": True}
    folder = prepare("vggsound", root, tmp_path / "data", settings, **more)
    rows = read_table(folder / "manifest.csv")
    assert [(row["label_name"], row["flags"], row["n_frames"]) for row in rows] == [
        (CHIRP, "", "5"), (SIREN, "", "5"),
    ]  # fmt: skip
    assert rows[0]["sources"] == f"{A}_30.wav;train-img/{A}_30"


def test_class_names_stay_apart_without_spaces_and_signs():
    assert len(vggsound.IDS) == len(vggsound.LABELS) == 309
