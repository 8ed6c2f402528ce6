"""Several files of one sample: the first that decodes gives both sound and picture."""

import PIL.Image
import pytest
from clips import noise, rejection, write_clip

from data_prep.datasets import kinetics
from data_prep.modalities.audio import Audio
from data_prep.modalities.image import Image
from data_prep.sample import extract_row, extract_sample
from data_prep.spec import Candidate

SETTINGS = kinetics.Settings(sample_rate=8000)


def sample(root, *names: str, **settings):
    both = dict.fromkeys(("audio", "video"), names)
    spec = kinetics.spec(kinetics.Settings(sample_rate=8000, **settings))
    return extract_row(root, spec, None, Candidate("c", 0, both))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A complete clip, one with only sound, one with only pictures, an empty one, two cut ones."""
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


def test_cut_files_and_stand_ins_are_used_only_if_no_file_has_both_in_full(files):
    row = sample(files, "half.avi", "mute.mp4")
    assert row["sources"] == "half.avi;half.avi" and "truncated" in row["flags"].split(";")
    row = sample(files, "empty.mp4", "mute.mp4", allow_missing=True)
    assert row["sources"] == "mute.mp4;mute.mp4"
    assert row["flags"].split(";") == ["no_audio", "silent", "source=mp4"]


def test_one_modality_has_alternatives_too(files):
    PIL.Image.new("RGB", (40, 30)).save(files / "a.png")
    pairs = {"dark.mp4": ("audio", Audio(seconds=5.0)), "a.png": ("image", Image())}
    for second, (name, modality) in pairs.items():
        candidate = Candidate("a", 0, {name: ("empty.mp4", second)})
        found = extract_sample(files, {name: modality}, None, candidate)[name]
        assert (found.flags, found.used) == ((f"source={second.split('.')[1]}",), 1)
    neither = Candidate("a", 0, {"audio": ("empty.mp4", "mute.mp4")})
    assert rejection(extract_sample, files, {"audio": Audio()}, None, neither) == "unreadable"
