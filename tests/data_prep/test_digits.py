"""AV-Digits, the built-in demo dataset: its files, the best accuracies, and its raw tree."""

import signal
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
from conftest import ROOT
from raw import kept, plant, scan
from sklearn.datasets import load_digits

from common.files import read_table, write_table
from common.options import UsageError
from data_prep import digits


def content(root):
    """Every file under `root`."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def write_some(folder, name, seed=0, count=9, workers=1):
    truth_path = folder / f"{name}-truth.csv"
    digits.write_digits(folder / name, truth_path, seed, workers=workers, count=count)
    return folder / name


def test_same_seed_gives_the_same_files_whatever_the_processes_and_the_count(tmp_path):
    first, again, other = (write_some(tmp_path, name, seed) for name, seed in zip("abc", (0, 0, 1)))
    many = content(write_some(tmp_path, "d", count=20, workers=2) / "clips")
    assert content(first) == content(again) != content(other)
    few = content(first / "clips")
    assert len(few) == 18 and len(many) == 40 and few.items() <= many.items()
    assert (tmp_path / "a-truth.csv").read_bytes() == (tmp_path / "b-truth.csv").read_bytes()


def test_files_decode_to_what_was_rendered(tmp_path):
    root = write_some(tmp_path, "a", seed=5)
    images = load_digits()
    for index in range(3):
        clip = digits.render(int(images.target[index]), images.images[index], 5, index)
        with av.open(str(root / f"clips/000{index}.avi")) as source:
            frames = list(source.decode(video=0))
        assert [float(f.time) for f in frames] == pytest.approx(np.arange(12) / 10)
        frames = np.stack([f.to_ndarray(format="rgb24") for f in frames])
        errors = np.sqrt(((frames.astype(float) - clip.frames) ** 2).mean((1, 2, 3)))
        assert frames.shape == (12, 64, 64, 3) and errors.max() < 13  # of 255, in all frames
        wave, rate = soundfile.read(root / f"clips/000{index}.wav")
        assert rate == 16000 and wave == pytest.approx(clip.wave, abs=1 / 32768)


def test_kept_tones_sound_and_erased_ones_do_not():
    pitches = digits.LOWEST * digits.RATIO ** np.arange(10)
    for index in range(30):
        clip = digits.render(4, np.zeros((8, 8)), 0, index)
        power = np.abs(np.fft.rfft(clip.wave)) ** 2
        bins = np.fft.rfftfreq(len(clip.wave), 1 / digits.RATE)
        loud = [power[np.abs(bins / p - 1) < 0.015].max() > 100 * np.median(power) for p in pitches]
        assert loud == [k in (4, 5) and clip.tones_kept[k - 4] for k in range(10)]


def test_cues_are_erased_as_often_as_documented():
    clips = [digits.render(0, np.full((8, 8), 16.0), 3, index) for index in range(600)]
    erased = 1 - np.mean([(*clip.tones_kept, clip.digit_kept) for clip in clips], axis=0)
    assert erased == pytest.approx([0.2, 0.2, 0.15], abs=0.05)
    bright = np.array([clip.frames.mean() for clip in clips])
    there = np.array([clip.digit_kept for clip in clips])
    assert bright[there].min() > bright[~there].max()


def test_ceilings_follow_the_formulas(tmp_path):
    rows = [("0000", 3, 1, 1, 1), ("0001", 3, 1, 0, 0), ("0002", 3, 0, 0, 0), ("0003", 3, 0, 0, 1)]
    write_table(tmp_path / "truth.csv", digits.TRUTH, rows)
    expected = {"audio": 1.7 / 4, "video": 2.2 / 4, "both": 2.6 / 4}
    assert digits.ceilings(tmp_path / "truth.csv") == pytest.approx(expected)
    two = digits.ceilings(tmp_path / "truth.csv", {"0000", "0003"})
    assert two == pytest.approx({"audio": 1.1 / 2, "video": 1.0, "both": 1.0})


def test_the_scan_finds_what_was_written_and_rejects_the_rest(tmp_path):
    root = write_some(tmp_path, "a")
    listed = {row["id"]: (row["label"], "") for row in read_table(root / "labels.csv")}
    found = scan("demo", root)
    assert kept(found) == listed and not found.rejected and len(listed) == 9
    (root / "clips/0001.wav").unlink()
    plant(root, "clips/.DS_Store", "clips/notes.txt", "clips/9999.avi")
    (root / "labels.csv").write_text((root / "labels.csv").read_text() + "0002,7\n0100,eleven\n")
    found = scan("demo", root)
    assert {(r.id, r.reason) for r in found.rejected} == {
        ("0001", "missing_file"), ("0002", "duplicate"), ("0100", "no_label"),
        ("notes", "unknown_name"), ("9999", "no_label"),
    }  # fmt: skip
    assert len(found.candidates) == 8


def test_killed_generation_leaves_no_root_and_can_be_repeated(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from data_prep.digits import whole_folder\n"
        "with whole_folder(Path(sys.argv[1]), Path(sys.argv[1] + '.csv')) as folder:\n"
        "    (folder / 'labels.csv').write_text('id,label')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path / "a"], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "a").exists()
    root = write_some(tmp_path, "a", count=1)
    assert sorted(content(root)) == ["clips/0000.avi", "clips/0000.wav", "labels.csv"]
    assert not (tmp_path / ".a.part").exists()


def test_a_used_root_and_a_truth_inside_the_root_are_refused(tmp_path):
    plant(tmp_path, "a/x")
    for truth, words in (("t.csv", "is not empty"), ("a/truth.csv", "outside")):
        with pytest.raises(UsageError, match=words):
            digits.write_digits(tmp_path / "a", tmp_path / truth, 0, workers=1, count=1)
