"""A new user's dataset: changed rows, missing files, few samples, wrong paths."""

import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, program

from common.files import read_table, write_table
from experiments.run.folder import RunFolder, find_runs

SMALL = ("--devices", "cpu", "--threads", "1", "--max_epochs", "2", "--vocabulary", "build")
TINY = ("--text_model", "tiny", "--batch_size", "8")


@pytest.fixture
def own(tmp_path):
    """A function that writes a csv of vectors and texts, `counts` samples of each class."""

    def write(counts, folder=tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        rows, rng = [], np.random.default_rng(0)
        for name, label in ((f"{c}{k}", c) for c, count in counts.items() for k in range(count)):
            np.save(folder / f"{name}.npy", rng.normal(0, 1, (3, 4)).astype("f4"))
            rows.append((name, label, f"{name}.npy", f"a {label} named {name}"))
        write_table(folder / "pets.csv", ("id", "label", "array", "text"), rows)
        return folder / "pets.csv"

    return write


def train(path, tmp_path, *more, method="Joint", status=0):
    places = ("--data_dir", tmp_path / "data", "--results_dir", tmp_path / "results")
    run = ("--dataset", path, "--method", method, *places, *SMALL, *TINY, *more)
    done = program("train.py", *run)
    assert done.returncode == status, done.stderr
    return done


def results(tmp_path):
    return [folder.read_json("result.json") for folder in find_runs(tmp_path / "results")]


@pytest.mark.slow
@pytest.mark.parametrize("counts", [{"cat": 20, "dog": 4}, {"cat": 6, "dog": 6}])
@pytest.mark.parametrize("method", ["Joint", "Midas"])
def test_few_and_uneven_samples_train_without_the_misaligned_metrics(own, tmp_path, counts, method):
    notes = train(own(counts), tmp_path, method=method).stderr
    (result,) = results(tmp_path)
    lacks = "no misaligned metrics for the test split" in notes
    assert lacks == ("test/conf_raw/text" not in result)
    assert lacks == ("the test part has no sample of class" in notes)
    assert "no misaligned metrics for the" in notes  # some split has only one class


def obey(message, words):
    """Runs the command that follows `words` in a message, as a user would paste it."""
    command = message.split(words)[1].splitlines()[0]
    assert "python -m data_prep" in command and "--vocabulary build" in command
    command = command.replace("python -m", f"{shlex.quote(sys.executable)} -m")
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_changed_files_and_shards_are_refused_with_the_command_that_helps(own, tmp_path):
    path = own({"cat": 12, "dog": 12})
    train(path, tmp_path)
    (shard,) = (tmp_path / "data").rglob("*.arrow")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:])
    refused = train(path, tmp_path, "--lr", "0.01", status=2)
    assert "changed since it was prepared" in refused.stderr
    obey(refused.stderr, "prepare again: ")
    assert shard.read_bytes() == content

    np.save(path.parent / "cat0.npy", np.zeros((9, 4), "f4"))
    changed = train(path, tmp_path, "--lr", "0.01", status=2)
    assert "was prepared from other files" in changed.stderr
    obey(changed.stderr, "prepare the dataset again: ")
    train(path, tmp_path, "--lr", "0.01")


@pytest.mark.parametrize("flag", ["--results_dir", "--output_dir", "--data_dir"])
@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_one_line(own, tmp_path, flag):
    (tmp_path / "file").write_text("")
    done = train(own({"cat": 12, "dog": 12}), tmp_path, flag, tmp_path / "file" / "x", status=74)
    assert "Traceback" not in done.stderr
    assert "expected a folder, found a file: use another path" in done.stderr


@pytest.mark.slow
def test_from_a_folder_of_files_to_predictions_for_new_ones(demo_data, tmp_path):
    """Sound, video, text and feature vectors; for new files, the run folder is enough."""
    root, own = demo_data[0], tmp_path / "own"
    own.mkdir()
    rng, rows = np.random.default_rng(0), []
    for row in read_table(root / "labels.csv")[:120]:
        name = row["id"]
        for end in ("wav", "avi"):
            shutil.copy(root / "clips" / f"{name}.{end}", own)
        vectors = rng.standard_normal((int(rng.integers(2, 6)), 4)).astype(np.float32)
        np.save(own / f"{name}.npy", vectors)
        text = f"a {'round' if row['label'] in '0689' else 'straight'} digit"
        text += " indeed" * (len(rows) % 4)
        rows.append([name, row["label"], f"{name}.wav", f"{name}.avi", text, f"{name}.npy"])
    path, header = own / "digits.csv", ("id", "label", "audio", "video", "text", "array")
    write_table(path, header, rows)
    small = ("--encoder", "small", "--size", "32", "--text_model", "tiny", "--vocabulary", "build")
    cut = ("--seconds", "1.2", "--fps", "3", "--max_length", "4", "--max_epochs", "2")
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    run = ("--dataset", path, "--method", "Midas", "--devices", "cpu", "--threads", "1")
    done = program("train.py", *run, *places, *small, *cut, "--batch_size", "16")
    assert done.returncode == 0, done.stderr
    log = RunFolder(tmp_path / "run").read_log()
    assert log[-1]["train/n_valid"] > 0 and "val/acc_zero/array" in log[-1]

    tested = {row["id"]: row for row in read_table(tmp_path / "run" / "predictions.csv")}
    rows = [row for row in rows if row[0] in tested]
    shutil.rmtree(tmp_path / "data")
    np.save(own / "wide.npy", np.ones((3, 5), np.float32))
    wide = ["wide", *rows[0][2:5], "wide.npy"]
    new = own / "new.csv"
    write_table(new, (header[0], *header[2:]), [*(r[:1] + r[2:] for r in rows[:3]), wide])
    path.unlink()
    out = tmp_path / "out.csv"
    told = program(
        "evaluate.py", tmp_path / "run", "--predict", new, "--out", out, "--devices", "cpu"
    )
    assert told.returncode == 3, told.stderr
    assert "wide: array has 5 features, the training data had 4" in told.stderr
    assert [row["id"] for row in read_table(out)] == [row[0] for row in rows[:3]]
    assert "text/prediction" in read_table(out)[0]
    for row in read_table(out):  # unpadded single samples equal the test batches
        for name in "0123456789":
            expected = float(tested[row["id"]][f"p/{name}"])
            assert abs(float(row[f"fused/p/{name}"]) - expected) < 1e-5


@pytest.mark.slow
def test_runs_of_two_methods_on_an_own_csv_end_in_one_table_by_one_command(own, tmp_path):
    path, out = own({"cat": 20, "dog": 20, "a, b": 20}), tmp_path / "out"
    for method in ("Joint", "Midas"):
        said = train(path, tmp_path, "--seeds", "1", "2", "3", method=method).stdout
        assert [line[:6] for line in said.splitlines()].count("done: ") == 3
    (runs,) = (tmp_path / "results" / "runs").iterdir()
    done = program("make_tables.py", runs, "--out", out)
    assert (done.returncode, done.stderr) == (0, "") and "missing" not in done.stdout
    text = {kind: (out / f"tables/own-{runs.name}{kind}.md").read_text() for kind in
            ("", "-tests", "-classes")}  # fmt: skip
    accuracies = [r["test/acc"] for r in results(tmp_path)]
    assert len(accuracies) == 6
    for method, own_acc in (("Joint", accuracies[:3]), ("Midas", accuracies[3:])):
        shown = f"{100 * np.mean(own_acc):.1f} ± {100 * np.std(own_acc, ddof=1):.1f} (3)"
        (row,) = [line for line in text[""].splitlines() if line.startswith(f"| {method} |")]
        assert row.split(" | ")[1].strip("*<u>/") == shown
    assert "array alone %" in text[""] and text["-tests"].count("| Midas |") == 1
    assert "a, b" in text["-classes"] and "(p = " in text["-tests"]
    assert (out / f"figures/own-{runs.name}-curves.png").exists()
    assert (out / f"report-{runs.name}.html").exists()

    shutil.rmtree(next(runs.glob("Midas/*/seed3")))
    done = program("make_tables.py", runs, "--out", out, "--missing")
    assert f"--dataset {path} --method Midas --seed 3" in done.stdout
    for words, message in (
        ([tmp_path], "is not inside the folder runs of a results folder"),
        ([runs, "table1"], "go without names of tables"),
        ([runs, "--set", "lr=1"], "go without names of tables and without --set"),
    ):
        refused = program("make_tables.py", *words, "--out", out)
        assert refused.returncode == 2 and message in refused.stderr
