"""A run end to end: kill and resume, locks, damaged checkpoints, evaluation, prediction."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import TinySet, program, start, tiny_method

import methods
from common.files import HOST, file_digest, read_table, write_table, write_text
from common.options import UsageError
from experiments.run.folder import RunFolder
from experiments.run.metrics import Protocol, collect
from train import evaluate

TWO = ("--max_epochs", "2")
SMALL = ("--max_epochs", "4", "--batch_size", "32", "--devices", "cpu", "--threads", "1")


def words(demo_data, folder, *more, method="Midas"):
    data = ("--data_dir", demo_data[1], "--dataset_root", demo_data[0])
    run = ("--dataset", "demo", "--method", method, "--seed", "1", "--output_dir", folder)
    return [str(w) for w in ("train.py", *run, *data, *SMALL, *more)]


def train(demo_data, folder, *more, method="Midas"):
    done = program(*words(demo_data, folder, *more, method=method))
    assert done.returncode == 0, done.stderr
    return RunFolder(folder)


@pytest.fixture(scope="module")
def finished(demo_data, tmp_path_factory):
    """A finished Midas run, trained without interruption."""
    return train(demo_data, tmp_path_factory.mktemp("runs") / "undisturbed").path


def test_a_run_writes_what_it_promises(finished):
    run, names = RunFolder(finished), {p.name for p in finished.iterdir()}
    assert run.state == "done" and "prev.pt" not in names
    assert names >= {"config.json", "env.json", "log.jsonl", "last.pt", "best.pt"}
    log, result = run.read_log(), run.read_json("result.json")
    assert [r["epoch"] for r in log] == [1, 2, 3, 4]
    assert log[-1]["train/n_valid"] > 0 and "train/L_mis" not in log[0]  # 1 epoch of warm-up
    keys = {"val/acc_mis", "val/conf_norm/audio", "val/acc_zero/video", "alpha/video"}
    keys |= {"val/acc_mis_release", "val/conf_release/audio", "train/alpha", "train/q/audio"}
    assert keys <= log[-1].keys()
    assert {r["train/n_items"] for r in log} == {result["count/n_train"]}  # no tail is dropped
    best = max(log, key=lambda r: (r["val/acc"], -r["epoch"]))
    assert (result["best_epoch"], result["val/acc"]) == (best["epoch"], best["val/acc"])
    rows = read_table(finished / "predictions.csv")
    hits = sum(r["label"] == r["prediction"] for r in rows) / len(rows)
    assert hits == pytest.approx(result["test/acc"]) and len(rows) == 60
    assert sum(result["test/shapley/" + m] for m in ("audio", "video")) == pytest.approx(hits)
    assert "optimizers" not in torch.load(finished / "last.pt", weights_only=True)


def test_a_finished_run_says_done_and_overwrite_starts_over(demo_data, tmp_path):
    run, command = RunFolder(tmp_path / "run"), words(demo_data, tmp_path / "run", *TWO)
    lines = program(*command).stdout.splitlines()
    assert [" left" in line for line in lines if line.startswith("epoch")] == [True, False]
    again = program(*command)
    assert again.returncode == 0 and again.stdout.startswith("done: ")
    assert len(run.read_json("env.json")["starts"]) == 1
    other = program(*words(demo_data, run.path, "--max_epochs", "3"))
    assert other.returncode == 2 and "belongs to another configuration" in other.stderr
    assert "settings.max_epochs is 2, requested 3" in other.stderr
    assert len(train(demo_data, run.path, "--max_epochs", "3", "--overwrite").read_log()) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("method", "workers"), [("Midas", "2"), ("LeMDA", "0")])  # two optimizers
def test_kills_change_no_bit(demo_data, tmp_path, method, workers):
    folders, more = [tmp_path / "whole", tmp_path / "killed"], ("--num_workers", workers)
    for _ in range(2):
        process = start(words(demo_data, folders[1], *more, method=method))
        process.stdout.readline()  # an epoch has finished, its checkpoint is being written
        process.kill()
        process.communicate()
    whole, killed = (train(demo_data, folder, *more, method=method) for folder in folders)
    assert not list(killed.path.glob(".*.tmp"))
    for name in ("last.pt", "best.pt"):
        states = [run.load(name)["method"] for run in (whole, killed)]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    for a, b in zip(whole.read_log(), killed.read_log(), strict=True):
        assert {k: v for k, v in a.items() if b[k] != v and not k.startswith("time/")} == {}


@pytest.mark.slow
def test_sigterm_stops_cleanly_and_a_second_process_is_refused(demo_data, tmp_path):
    command = words(demo_data, tmp_path / "run", "--max_epochs", "60")
    process = start(command)
    process.stdout.readline()  # the first epoch is done
    second = program(*command)
    assert second.returncode == 75 and "another process is using" in second.stderr
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "run the same command to resume" in errors
    assert RunFolder(tmp_path / "run").state == "partial"


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(demo_data, tmp_path):
    done = program(*words(demo_data, tmp_path / "run", "--lr", "1e30"))
    assert done.returncode == 2 and ", samples 0" in done.stderr
    assert "epoch 1, step" in done.stderr and RunFolder(tmp_path / "run").state == "failed"


def test_a_loss_that_is_not_finite_in_validation_or_test_names_the_samples():
    data, method = TinySet(), tiny_method(methods.load("Joint"))
    data.data["inputs"]["audio"][[3, 7]] = torch.nan
    ids, protocols = {"val": [f"id{k}" for k in range(40)]}, {"val": Protocol()}
    session = SimpleNamespace(method=method, protocols=protocols, ids=ids)
    session.features = lambda part: collect(method, data.batches())
    with pytest.raises(FloatingPointError, match="nan at epoch 2, val part, samples id3, id7:"):
        evaluate(session, "val", 2)


# --- evaluation and prediction --------------------------------------------------------------------


def test_evaluate_repeats_the_result_to_the_last_digit(demo_data, finished):
    words = ("--data_dir", demo_data[1], "--devices", "cpu", "--probe")
    done = program("evaluate.py", finished, *words)
    assert done.returncode == 0, done.stderr
    result = RunFolder(finished).read_json("result.json")
    shown = dict(line.split() for line in done.stdout.splitlines() if line.startswith("test/"))
    probes = {m: float(shown.pop(f"test/acc_probe/{m}")) for m in ("audio", "video")}
    assert all(0.1 < value <= 1 for value in probes.values())
    for name, value in shown.items():
        assert float(value) == pytest.approx(result[name], abs=6e-5)
    assert len(shown) > 12 and "confusion" in done.stdout


def predict(run, manifest, *more):
    return program("evaluate.py", run, "--devices", "cpu", "--predict", manifest, *more)


@pytest.mark.slow
def test_predictions_refuse_stand_ins_and_finished_runs_another_root(tmp_path):
    """CREMA-D keeps clips with one broken modality; a mistyped name is an error."""
    made = ("tests/write_tree.py", "--dataset", "cremad", "--per_class", "4")
    root, other = tmp_path / "raw", tmp_path / "other"
    assert program(*made, "--out", root).returncode == 0
    assert program(*made, "--out", other, "--seed", "5").returncode == 0
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    small = ("--encoder", "small", "--size", "32", "--max_epochs", "1", "--devices", "cpu")
    run = ("train.py", "--dataset", "cremad", "--method", "Joint", *places, *small)
    done = program(*run, "--dataset_root", root)
    assert done.returncode == 0, done.stderr
    folders = ("AudioWAV", "VideoFlash")
    sound, video = (next((root / name).iterdir()).relative_to(root) for name in folders)
    rows = [("right", sound, video), ("mute", "AudioWAV/typo.wav", video), ("dark", sound, "")]
    new, out = root / "new.csv", tmp_path / "out.csv"
    write_table(new, ("id", "audio", "video"), rows)
    predicted = predict(tmp_path / "run", new, "--out", out)
    assert predicted.returncode == 3, predicted.stderr
    assert [row["id"] for row in read_table(out)] == ["right"]
    assert all(f"not predicted: {name}: " in predicted.stderr for name in ("mute", "dark"))
    refused = predict(tmp_path / "run", new, "--out", new)
    assert refused.returncode == 2 and "is the --predict manifest itself" in refused.stderr

    assert program(*run, "--dataset_root", root).stdout.startswith("done: ")
    for place, text in ((other, "was trained on other files"), (tmp_path / "no", "not a folder")):
        again = program(*run, "--dataset_root", place)
        assert again.returncode == 2 and text in again.stderr


# --- the run's folder -----------------------------------------------------------------------------


def test_overwriting_checks_first_and_keeps_files_that_are_not_the_runs(tmp_path):
    """A note, TensorBoard's folder or leftovers of a killed writer do not spoil a folder."""
    folder, board = RunFolder(tmp_path / "run"), tmp_path / "run" / "tensorboard"
    folder.path.mkdir()
    for name in (".config.json.host.99.tmp", ".lock"):
        folder.file(name).write_text("x")
    folder.claim({"seed": 1}, overwrite=False)
    assert {p.name for p in folder.path.iterdir()} == {"config.json", ".lock"}
    board.mkdir()
    for name in ("result.json", "last.pt", "notes.txt", ".prev.pt.tmp"):
        folder.file(name).write_text("x")
    for name in ("events.out.tfevents.1", "notes.txt"):
        (board / name).write_text("x")
    folder.claim({"seed": 2}, overwrite=True)
    left = {"config.json", "notes.txt", "tensorboard", ".lock"}
    assert {p.name for p in folder.path.iterdir()} == left
    assert [p.name for p in board.iterdir()] == ["notes.txt"]
    assert folder.read_json("config.json") == {"seed": 2}
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.tex").write_text("years of work")
    for overwrite in (True, False):
        with pytest.raises(UsageError, match="contains thesis.tex but no config.json"):
            RunFolder(tmp_path / "strange").claim({"seed": 1}, overwrite)


def test_the_log_survives_a_half_written_line(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        folder.append_log({"epoch": epoch})
    with open(tmp_path / "log.jsonl", "a") as handle:
        handle.write('{"epoch": 3, "train/lo')
    assert [r["epoch"] for r in folder.read_log()] == [1, 2]
    folder.restore_log([{"epoch": 1}])
    assert folder.read_log() == [{"epoch": 1}]


def test_the_vocabulary_of_a_run_that_changed_is_refused(tmp_path):
    folder, path = RunFolder(tmp_path), tmp_path / "vocab.txt"
    path.write_text("[PAD]\nmeow\n")
    result = {"hashes": {"vocabulary": file_digest(path)}}
    assert folder.vocabulary(result) == path
    path.write_text("[PAD]\nmiow\n")
    with pytest.raises(UsageError, match="vocab.txt is missing or has changed since the run"):
        folder.vocabulary(result)


def test_equal_checkpoints_are_equal_bytes_and_the_previous_one_stays(tmp_path):
    for name, epoch in (("a", 1), ("b", 1), ("b", 2)):
        state = {"method": {"w": torch.arange(5.0)}, "epoch": epoch}
        RunFolder(tmp_path / name).save("last.pt", state, keep_previous=True)
    assert (tmp_path / "a/last.pt").read_bytes() == (tmp_path / "b/prev.pt").read_bytes()
    folder = RunFolder(tmp_path / "a")
    os.link(tmp_path / "a/last.pt", tmp_path / "a/prev.pt")  # as left by a kill during a save
    folder.save("last.pt", {"epoch": 2}, keep_previous=True)
    assert {p.name for p in folder.path.iterdir()} == {"last.pt", "prev.pt"}
    assert (folder.load("last.pt")["epoch"], folder.load("prev.pt")["epoch"]) == (2, 1)


def test_checkpoints_that_are_all_damaged_are_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("last.pt", "prev.pt"):
        folder.file(name).write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="no readable checkpoint in .*; start over with"):
        folder.load_last()


def test_leftovers_of_dead_writers_are_removed_by_the_next_write(tmp_path):
    dead = tmp_path / f".a.csv.{HOST}.999999999.tmp"
    other = tmp_path / ".a.csv.elsewhere.1.tmp"
    mine = tmp_path / f".a.csv.{HOST}.1.tmp"  # its writer is alive
    for path in (dead, other, mine):
        path.write_text("x")
    write_text(tmp_path / "a.csv", "new")
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", other.name, mine.name}
