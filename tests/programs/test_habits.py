"""Encoders, fusions, optimizers, trackers, --config, --seeds, --init_from and --extend as a user
types them: the run's name and record, kills, and refusals."""

import json
import shutil

import pytest
import torch
from conftest import program, start
from test_run import SMALL, words

from common.options import UsageError
from experiments import load_run
from experiments.run.folder import RunFolder
from experiments.run.given import each_seed, with_config

# flags -> the settings in config.json, which also name the run
HABITS = {
    "--fusion film": {"fusion": "film"},
    "--fusion sum --optimizer adam": {"fusion": "sum", "optimizer": "adam"},
    "--fusion gated --schedule cosine --lr_warmup 1": {
        "fusion": "gated",
        "schedule": "cosine",
        "lr_warmup": 1,
    },
    "--optimizer adamw --schedule constant": {"optimizer": "adamw", "schedule": "constant"},
    "--label_smoothing 0.1 --class_weights balanced --grad_clip 1": {
        "label_smoothing": 0.1,
        "class_weights": "balanced",
        "grad_clip": 1.0,
    },
    "--encoder small,video=timm:test_vit": {"encoder": "small,video=timm:test_vit"},
}
SMALL_SET = {"max_epochs": 4, "batch_size": 32}


def names(folder):
    """The folder's name without the seed."""
    return folder.path.parent.name


def place(demo_data, results, *more, method="Midas"):
    """The command line of a run with its default folder in `results`."""
    line = words(demo_data, "-", *more, method=method)
    at = line.index("--output_dir")
    return [*line[:at], "--results_dir", str(results), *line[at + 2 :]]


def run_of(results, method="Midas"):
    (config,) = results.glob(f"runs/demo/{method}/*/seed1/config.json")
    return RunFolder(config.parent)


def same_run(a, b):
    """Whether two runs have equal weights and logs."""
    for name in ("last.pt", "best.pt"):
        one, other = (run.load(name)["method"] for run in (a, b))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    for one, other in zip(a.read_log(), b.read_log(), strict=True):
        assert {k for k in one if one[k] != other[k] and not k.startswith("time/")} == set()


@pytest.mark.slow
@pytest.mark.parametrize("flags", HABITS)
def test_an_option_trains_is_recorded_and_survives_a_kill(demo_data, tmp_path, flags):
    runs = []
    for kills, results in ((0, tmp_path / "whole"), (1, tmp_path / "killed")):
        line = place(demo_data, results, *flags.split())
        for _ in range(kills):
            process = start(line)
            assert process.stdout.readline().startswith("epoch")
            process.kill()
            process.communicate()
        done = program(*line)
        assert done.returncode == 0, done.stderr
        runs.append(run_of(results))
    same_run(*runs)
    config = runs[0].read_json("config.json")
    assert config["differing"] == SMALL_SET | HABITS[flags]
    assert all(f"{name}=" in names(runs[0]) for name in HABITS[flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--fusion film --method OGM", "--fusion film does not work with OGM, which splits"),
        ("--optimizer adam --momentum 0.5", "--momentum does nothing without --optimizer sgd"),
        ("--schedule cosine --lr_step 5", "--lr_step does nothing without --schedule step"),
        ("--encoder vgg16", "unknown encoder 'vgg16'. Allowed: small, resnet18, resnet34"),
        ("--encoder timm:resnet10", "unknown timm model 'resnet10'. Did you mean 'resnet10t'?"),
        ("--encoder small,sound=resnet18", "unknown modality 'sound'. Allowed: audio, video"),
        ("--encoder video=small", "--encoder names none for audio"),
        ("--encoder small,resnet18", "--encoder names two for all modalities"),
        ("--encoder hf:no/such", "--encoder hf:no/such is not on this machine"),
        ("--track comet", "unknown tracker 'comet'. Allowed: tensorboard, wandb, mlflow"),
        ("--init_from nowhere", "nowhere"),
        ("--config nowhere.json", "--config nowhere.json cannot be read: No such file"),
        ("--config .", "--config . is a folder: give the config.json in it"),
        ("--seeds 1 2 --output_dir x", "--output_dir does not work with --seeds"),
        ("--seeds 1 x", "--seeds takes a whole number"),
        ("--seeds 1 2 --extend x", "--extend does not work with --seeds"),
        ("--extend x --config y", "--config does not work with --extend"),
        ("--extend x --max_epochs 3", "x has no config.json: it is not a run folder"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(demo_data, tmp_path, flags, message):
    data = ("--data_dir", demo_data[1], "--dataset_root", demo_data[0])
    results = ("--results_dir", tmp_path, "--devices", "cpu")
    done = program("train.py", "--dataset", "demo", *data, *results, *flags.split())
    assert done.returncode == 2, done.stderr
    *notes, error = done.stderr.splitlines()
    assert error.startswith("error: ") and message in error
    assert all(line.startswith("note: ") for line in notes)


def test_a_config_is_a_runs_or_a_part_of_one_and_flags_win(tmp_path):
    path = tmp_path / "config.json"
    whole = {
        "dataset": "demo",
        "method": "Midas",
        "seed": 3,
        "differing": {"lr": 0.5, "eta": 0.2, "spec_bins": 64},
        "settings": {"lr": 0.5, "momentum": 0.9},
        "prep": {"spec_bins": 64},
        "hparams": {"eta": 0.2, "lam": 1.0},
    }
    path.write_text(json.dumps(whole))
    base = ["--config", str(path)]
    same = ["--dataset", "demo", "--method", "Midas", "--seed", "3"]
    assert with_config(base) == [*same, "--lr", "0.5", "--eta", "0.2", "--spec_bins", "64"]
    other = with_config([*base, "--method", "Joint", "--lr", "2"])
    assert other[-4:] == ["--method", "Joint", "--lr", "2"]
    assert "--eta" not in other and "--spec_bins" in other
    assert "--spec_bins" not in with_config([*base, "--dataset", "cremad"])
    path.write_text(json.dumps({"settings": {"lr": 0.1}, "batch_size": 16}))
    assert with_config(base) == ["--lr", "0.1", "--batch_size", "16"]
    path.write_text(json.dumps({"leraning_rate": 1}))
    done = program("train.py", *base)
    assert done.returncode == 2 and "leraning_rate" in done.stderr
    for content, message in (("[1]", "must hold an object"), ("{", "is not JSON")):
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            with_config(base)


def test_seeds_are_runs_one_after_another():
    line = ["--dataset", "demo", "--seeds", "3", "1", "3", "--lr", "1"]
    assert each_seed(line) == [["--dataset", "demo", "--lr", "1", "--seed", k] for k in "31"]
    assert each_seed(["--lr", "1"]) == [["--lr", "1"]]


@pytest.mark.slow
def test_a_finished_run_is_extended_as_if_it_had_been_longer(demo_data, tmp_path):
    """Equal bits with a run of six epochs: the learning rate does not depend on their number."""
    short, long, more = (tmp_path / name for name in ("short", "long", "more"))
    keep = ("--keep_checkpoints", "--warmup_epochs", "1")
    for folder, flags in ((short, ()), (long, ("--max_epochs", "6"))):
        done = program(*words(demo_data, folder, *keep, *flags))
        assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in short.iterdir() if path.is_file()}
    places = ("--data_dir", demo_data[1], "--output_dir", more, *SMALL[4:])
    line = ["train.py", "--extend", short, "--keep_checkpoints", *places]
    refused = program(*line, "--max_epochs", "6", "--lr", "1")
    assert refused.returncode == 2 and "--lr does not work with --extend" in refused.stderr
    process = start([*map(str, line), "--max_epochs", "6"])
    assert process.stdout.readline().startswith("epoch   5")
    process.kill()
    process.communicate()
    done = program(*line, "--max_epochs", "6")
    assert done.returncode == 0, done.stderr
    same_run(RunFolder(long), RunFolder(more))
    assert "WARNING" not in done.stderr
    shorter = program("train.py", "--extend", short, *places, "--max_epochs", "3", "--overwrite")
    assert shorter.returncode == 2 and "give a larger --max_epochs" in shorter.stderr
    assert RunFolder(more).state == "done"  # nothing is removed for a run that cannot start
    assert {path: path.read_bytes() for path in before} == before
    assert RunFolder(more).read_json("config.json") == RunFolder(long).read_json("config.json")


@pytest.mark.slow
def test_init_from_takes_encoders_that_fit_and_names_them(demo_data, tmp_path):
    first = tmp_path / "first"
    assert program(*words(demo_data, first, "--max_epochs", "2")).returncode == 0
    line = words(demo_data, tmp_path / "next", "--init_from", first, "--lr", "1e-9", method="Joint")
    done = program(*line)
    assert done.returncode == 0 and "initial weights of audio, video from" in done.stderr
    states = [RunFolder(f).load("best.pt")["method"] for f in (first, tmp_path / "next")]
    weights = [k for k in states[1] if k.endswith("weight")]
    assert weights and all(torch.allclose(states[0][k], states[1][k], atol=1e-6) for k in weights)
    other = words(demo_data, tmp_path / "other", "--init_from", first, "--encoder", "resnet18")
    done = program(*other)
    assert done.returncode == 2 and "none of its encoders fits this run's" in done.stderr
    shutil.rmtree(first)
    assert program(*line).stdout.startswith("done: ")
    data = ("--data_dir", demo_data[1], "--devices", "cpu")
    done = program("evaluate.py", tmp_path / "next", *data)
    assert done.returncode == 0 and "initial weights" not in done.stderr, done.stderr
    assert load_run(tmp_path / "next").label_names == list("0123456789")
