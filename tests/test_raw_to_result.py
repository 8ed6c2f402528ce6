"""From a raw tree in the real layout to a trained and evaluated MIDAS run, with one command."""

import pytest
from conftest import program

from common.files import read_table
from data_prep.generate.trees import write_cremad, write_kinetics
from experiments.run_folder import RunFolder


def train(tmp_path, dataset, *more):
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    small = ("--size", "32", "--spec_pool", "4", "--max_epochs", "2", "--devices", "cpu")
    raw = ("--dataset", dataset, "--dataset_root", tmp_path / "raw", "--method", "Midas")
    done = program("train.py", *raw, *places, *small, *more)
    assert done.returncode == 0, done.stderr
    return done, RunFolder(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["jpeg", "raw"])
def test_cremad_from_flv_and_wav(tmp_path, codec):
    write_cremad(tmp_path / "raw", 6, truth_path=tmp_path / "truth.csv", corrupt_each=0)
    how = ("--split_rule", "group", "--audio_norm", "zscore", "--frame_codec", codec)
    done, run = train(tmp_path, "cremad", *how)
    assert "36 of 36 samples prepared" in done.stderr and "pairs " in done.stdout
    assert run.read_log()[-1]["train/n_valid"] > 0
    parts = {}
    for row in read_table(next((tmp_path / "data").rglob("group-seed0.csv"))):
        parts.setdefault(row["id"].split("_")[0], set()).add(row["part"])
    assert all(len(found) == 1 for found in parts.values())  # no actor stands in two parts


@pytest.mark.slow
@pytest.mark.parametrize("feature", ["fbank", "stft"])
def test_kinetics_from_mp4_with_hostile_names(tmp_path, feature):
    raw, truth = tmp_path / "raw", tmp_path / "truth.csv"
    write_kinetics(raw, 3, truth_path=truth, layout="B")
    names = [path.name for path in raw.rglob("*.mp4")]
    assert any(name.startswith("-") for name in names) and any("--" in name for name in names)
    done, run = train(tmp_path, "kinetics", "--audio_feature", feature, "--precision", "bf16")
    assert run.read_json("result.json")["count/n_train"] == 65
    assert run.read_log()[-1]["train/n_valid"] == 128
    assert run.read_json("config.json")["prep"]["audio_feature"] == feature
