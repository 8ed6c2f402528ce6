"""Several files of one sample: the first that decodes is read, sound and picture from the same."""

import PIL.Image
import pytest
from clips import noise, rejection, write_clip

from common.files import read_table
from data_prep.datasets import kinetics
from data_prep.modalities.audio import Audio
from data_prep.modalities.image import Image
from data_prep.prepare import prepare
from data_prep.reasons import Reject
from data_prep.sample import extract_row, extract_sample
from data_prep.spec import Candidate

SETTINGS = kinetics.Settings(sample_rate=8000)


def sample(root, *names: str, **settings):
    both = dict.fromkeys(("audio", "video"), names)
    spec = kinetics.spec(kinetics.Settings(sample_rate=8000, **settings))
    return extract_row(root, spec, None, Candidate("c", 0, both))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A whole clip; one of sound alone and one of pictures alone; an empty one and two cut ones."""
    root = tmp_path_factory.mktemp("files")
    write_clip(root / "whole.mp4", 40, wave=noise(4))
    write_clip(root / "dark.mp4", 0, wave=noise(4))
    write_clip(root / "mute.mp4", 40)
    (root / "empty.mp4").write_bytes(b"")
    data = (root / "whole.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: data.index(b"moov") - 4])
    data = write_clip(root / "half.avi", 40, wave=noise(4)).read_bytes()
    (root / "half.avi").write_bytes(data[: int(0.8 * len(data))])
    return root


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize(
    "first", ["empty.mp4", "cut.mp4", "half.avi", "mute.mp4", "dark.mp4", "gone.mp4"]
)
def test_sound_and_picture_come_from_the_first_file_that_has_both(files, first, allow_missing):
    row = sample(files, first, "whole.mp4", allow_missing=allow_missing)
    whole = sample(files, "whole.mp4")
    assert row["sources"] == "whole.mp4;whole.mp4" and row["flags"] == "source=mp4"
    assert (row["audio"], row["video"]) == (whole["audio"], whole["video"])


def test_what_is_cut_or_stands_in_is_taken_only_where_no_file_has_both_in_full(files):
    row = sample(files, "half.avi", "mute.mp4")
    assert row["sources"] == "half.avi;half.avi" and "truncated" in row["flags"].split(";")
    row = sample(files, "empty.mp4", "mute.mp4", allow_missing=True)
    assert row["sources"] == "mute.mp4;mute.mp4"
    assert row["flags"].split(";") == ["no_audio", "silent", "source=mp4"]


def test_the_reasons_of_all_files_are_given(files):
    candidate = Candidate("c", 0, dict.fromkeys(("audio", "video"), ("cut.mp4", "mute.mp4")))
    with pytest.raises(Reject) as caught:
        extract_sample(files, kinetics.spec(SETTINGS), None, candidate)
    assert caught.value.reason == "truncated"
    assert "cut.mp4: " in caught.value.detail and "mute.mp4: " in caught.value.detail


def test_one_modality_has_alternatives_too(files):
    PIL.Image.new("RGB", (40, 30)).save(files / "a.png")
    pairs = {"dark.mp4": ("audio", Audio(seconds=5.0)), "a.png": ("image", Image())}
    for second, (name, modality) in pairs.items():
        candidate = Candidate("a", 0, {name: ("empty.mp4", second)})
        found = extract_sample(files, {name: modality}, None, candidate)[name]
        assert (found.flags, found.used) == ((f"source={second.split('.')[1]}",), 1)
    neither = Candidate("a", 0, {"audio": ("empty.mp4", "mute.mp4")})
    assert rejection(extract_sample, files, {"audio": Audio()}, None, neither) == "unreadable"


def test_the_mended_clips_of_kinetics_take_the_place_of_the_broken(files, tmp_path):
    """As the official extractor of Kinetics-400 leaves them."""
    root, whole, rows = tmp_path / "raw", (files / "whole.mp4").read_bytes(), []
    fixed = root / "replacement" / "replacement_for_corrupted_k400"
    (root / "train").mkdir(parents=True)
    fixed.mkdir(parents=True)
    broken = {0: files / "empty.mp4", 3: files / "cut.mp4"}
    for k in range(6):
        rows.append(f"{('playing guitar', 'bowling')[k // 3]},id{k}0-abcdef,1,11,train")
        name, bad = f"id{k}0-abcdef_000001_000011.mp4", broken.get(k)
        (root / "train" / name).write_bytes(bad.read_bytes() if bad else whole)
        if bad:
            (fixed / name).write_bytes(whole)
    (root / "l.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    data, more = tmp_path / "data", {"workers": 1, "allow_missing_classes": True}
    folder = prepare("kinetics", root, data, SETTINGS, **more)
    kept = read_table(folder / "manifest.csv")
    assert len(kept) == 6 and [row["flags"] for row in kept].count("source=mp4") == 2
    rejected = read_table(folder / "rejected.csv")
    assert [row["reason"] for row in rejected] == ["second_file"] * 2
