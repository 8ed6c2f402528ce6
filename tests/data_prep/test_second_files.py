"""Several files of one sample: the first that decodes is read, sound and picture from the same."""

import pytest
from clips import noise, write_clip

from common.files import read_table
from data_prep.datasets import kinetics
from data_prep.modalities.extracted import extract_sample
from data_prep.prepare import prepare
from data_prep.reasons import Reject
from data_prep.rows import extract_row
from data_prep.spec import Candidate

SETTINGS = kinetics.Settings(sample_rate=8000)


def sample(root, *names: str, **settings):
    both = dict.fromkeys(("audio", "video"), names)
    spec = kinetics.spec(kinetics.Settings(sample_rate=8000, **settings))
    return extract_row(root, spec, None, Candidate("c", 0, both))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A whole clip; one of sound alone and one of pictures alone; an empty one and a cut one."""
    root = tmp_path_factory.mktemp("files")
    write_clip(root / "whole.mp4", 40, wave=noise(4))
    write_clip(root / "dark.mp4", 0, wave=noise(4))
    write_clip(root / "mute.mp4", 40)
    (root / "empty.mp4").write_bytes(b"")
    data = (root / "whole.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: data.index(b"moov") - 4])
    return root


@pytest.mark.parametrize("first", ["empty.mp4", "cut.mp4", "mute.mp4", "dark.mp4", "gone.mp4"])
@pytest.mark.parametrize("allow_missing", [False, True])
def test_sound_and_picture_come_from_the_first_file_that_has_both(files, first, allow_missing):
    row = sample(files, first, "whole.mp4", allow_missing=allow_missing)
    whole = sample(files, "whole.mp4")
    assert row["sources"] == "whole.mp4;whole.mp4" and row["flags"] == "source=mp4"
    assert (row["audio"], row["video"]) == (whole["audio"], whole["video"])


def test_a_whole_file_is_preferred_to_one_that_is_cut(files, tmp_path):
    data = write_clip(tmp_path / "half.avi", 40, wave=noise(4)).read_bytes()
    (files / "half.avi").write_bytes(data[: int(0.8 * len(data))])
    assert "truncated" in sample(files, "half.avi")["flags"].split(";")
    row = sample(files, "half.avi", "whole.mp4")
    assert row["sources"] == "whole.mp4;whole.mp4" and row["flags"] == "source=mp4"
    assert sample(files, "half.avi", "mute.mp4")["sources"] == "half.avi;half.avi"


def test_a_stand_in_is_taken_only_where_no_file_has_both(files):
    row = sample(files, "empty.mp4", "mute.mp4", allow_missing=True)
    assert row["sources"] == "mute.mp4;mute.mp4"
    assert row["flags"].split(";") == ["no_audio", "silent", "source=mp4"]


def test_the_reasons_of_all_files_are_told(files):
    candidate = Candidate("c", 0, dict.fromkeys(("audio", "video"), ("cut.mp4", "mute.mp4")))
    with pytest.raises(Reject) as caught:
        extract_sample(files, candidate, kinetics.spec(SETTINGS))
    assert caught.value.reason == "truncated"
    assert "cut.mp4: " in caught.value.detail and "mute.mp4: " in caught.value.detail


def test_the_mended_clips_of_kinetics_take_the_place_of_the_broken(files, tmp_path):
    """As the official extractor of Kinetics-400 leaves them."""
    root, whole = tmp_path / "raw", (files / "whole.mp4").read_bytes()
    labels = ("playing guitar", "bowling")
    rows = [
        f"{label},id{k}{c}-abcdef,1,11,train" for c, label in enumerate(labels) for k in range(3)
    ]
    names = [f"{row.split(',')[1]}_000001_000011.mp4" for row in rows]
    (root / "train").mkdir(parents=True)
    fixed = root / "replacement" / "replacement_for_corrupted_k400"
    fixed.mkdir(parents=True)
    for name in names:
        (root / "train" / name).write_bytes(whole)
    for name, broken in zip(names[:2], ("empty.mp4", "cut.mp4")):
        (root / "train" / name).write_bytes((files / broken).read_bytes())
        (fixed / name).write_bytes(whole)
    (root / "l.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    folder = prepare(
        "kinetics", root, tmp_path / "data", SETTINGS, workers=1, allow_missing_classes=True
    )
    kept = read_table(folder / "manifest.csv")
    assert len(kept) == 6 and [row["flags"] for row in kept].count("source=mp4") == 2
    told = read_table(folder / "rejected.csv")
    assert [row["reason"] for row in told] == ["second_file"] * 2
