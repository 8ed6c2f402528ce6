"""A run from end to end: kill and resume, locks, damaged checkpoints, evaluation, prediction."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, program

from common.files import file_digest, read_table, write_table
from common.options import UsageError
from experiments.run.folder import RunFolder

SMALL = ("--max_epochs", "4", "--batch_size", "32", "--devices", "cpu", "--threads", "1")


LONGER = ("--max_epochs", "14")


def words(demo_data, folder, *more, method="Midas"):
    data = ("--data_dir", demo_data[1], "--dataset_root", demo_data[0])
    run = ("--dataset", "demo", "--method", method, "--seed", "1", "--output_dir", folder)
    return [str(w) for w in ("train.py", *run, *data, *SMALL, *more)]


def weights(folder, name="last.pt"):
    return RunFolder(folder).load(name)["method"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def finished(demo_data, tmp_path_factory):
    """A finished Midas run, trained without disturbance."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = program(*words(demo_data, folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def longer(demo_data, tmp_path_factory):
    """A finished run of more epochs: there is always one left to be killed in."""
    folder = tmp_path_factory.mktemp("longer") / "undisturbed"
    done = program(*words(demo_data, folder, *LONGER))
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_what_it_promises(finished):
    run = RunFolder(finished)
    assert run.state == "done"
    names = {p.name for p in finished.iterdir()}
    assert names >= {"config.json", "env.json", "log.jsonl", "last.pt", "best.pt"}
    assert names >= {"predictions.csv", "result.json"} and "prev.pt" not in names
    log, result = run.read_log(), run.read_json("result.json")
    assert [r["epoch"] for r in log] == [1, 2, 3, 4]
    assert log[-1]["train/n_valid"] > 0 and "train/L_mis" not in log[0]  # 1 epoch of warm-up
    for key in ("val/acc_mis", "val/conf_norm/audio", "val/acc_zero/video", "alpha/video"):
        assert key in log[-1]
    for key in ("val/acc_mis_release", "val/conf_release/audio", "train/alpha", "train/q/audio"):
        assert key in log[-1]
    assert {r["train/n_items"] for r in log} == {result["count/n_train"]}  # no tail is dropped
    best = max(log, key=lambda r: (r["val/acc"], -r["epoch"]))
    assert result["best_epoch"] == best["epoch"] and result["val/acc"] == best["val/acc"]
    rows = read_table(finished / "predictions.csv")
    hits = sum(r["label"] == r["prediction"] for r in rows) / len(rows)
    assert hits == pytest.approx(result["test/acc"]) and len(rows) == 60
    assert sum(result["test/shapley/" + m] for m in ("audio", "video")) == pytest.approx(hits)
    state = torch.load(finished / "last.pt", weights_only=True)
    assert "optimizers" not in state


@pytest.mark.parametrize(
    ("counted", "rates"), [("main", [1, 1, 1, 0.1]), ("start", [1, 0.1, 0.01, 1e-3])]
)
def test_the_decay_counts_the_epochs_that_it_is_told_to(demo_data, tmp_path, counted, rates):
    how = ("--lr_from", counted, "--warmup_epochs", "2", "--lr_step", "1", "--lr", "0.01")
    done = program(*words(demo_data, tmp_path / "run", *how))
    assert done.returncode == 0, done.stderr
    log = RunFolder(tmp_path / "run").read_log()
    assert [r["lr"] for r in log] == pytest.approx([0.01 * rate for rate in rates])
    assert ["train/L_mis" in r for r in log] == [False, False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_three_kills_change_no_bit(demo_data, longer, tmp_path, workers):
    folder = tmp_path / "killed"
    command = [sys.executable, *words(demo_data, folder, *LONGER, "--num_workers", workers)]
    draw, kills = random.Random(workers), 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(draw.randint(0, 2)):  # some epochs, then a random moment of the next one
            process.stdout.readline()
        if RunFolder(folder).state == "new":
            while not (folder / "env.json").exists() and process.poll() is None:
                time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.5))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert kills == 3 and not list(folder.glob(".*.tmp"))
    assert equal(weights(folder), weights(longer))
    assert equal(weights(folder, "best.pt"), weights(longer, "best.pt"))
    keys = [k for k in RunFolder(longer).read_log()[-1] if not k.startswith("time/")]
    for a, b in zip(RunFolder(folder).read_log(), RunFolder(longer).read_log(), strict=True):
        assert [a.get(k) for k in keys] == [b.get(k) for k in keys]


def test_a_finished_run_says_done_and_overwrite_starts_anew(demo_data, tmp_path):
    folder = tmp_path / "run"
    first = program(*words(demo_data, folder, "--max_epochs", "2"))
    assert first.returncode == 0, first.stderr
    again = program(*words(demo_data, folder, "--max_epochs", "2"))
    assert again.returncode == 0 and again.stdout.startswith("done: ")
    assert len(json.loads((folder / "env.json").read_text())["starts"]) == 1
    other = program(*words(demo_data, folder, "--max_epochs", "3"))
    assert other.returncode == 2 and "belongs to another configuration" in other.stderr
    assert "settings.max_epochs 2 there, 3 asked" in other.stderr
    anew = program(*words(demo_data, folder, "--max_epochs", "3", "--overwrite"))
    assert anew.returncode == 0 and len(RunFolder(folder).read_log()) == 3


def test_sigterm_stops_cleanly_and_a_second_process_is_refused(demo_data, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, *words(demo_data, folder, "--max_epochs", "60")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()  # the first epoch is done
    second = program(*words(demo_data, folder, "--max_epochs", "60"))
    assert second.returncode == 75 and "another process works on" in second.stderr
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same command goes on" in errors
    assert RunFolder(folder).state == "partial"


def test_a_truncated_checkpoint_falls_back_loudly(demo_data, longer, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, *words(demo_data, folder, *LONGER)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        process.stdout.readline()
    process.kill()
    process.wait()
    # A file of its own: a kill inside save() leaves prev.pt as a second name of last.pt.
    (folder / "short").write_bytes((folder / "last.pt").read_bytes()[:1000])
    os.replace(folder / "short", folder / "last.pt")
    done = program(*words(demo_data, folder, *LONGER))
    assert done.returncode == 0, done.stderr
    assert "last.pt is damaged" in done.stderr and "going on from prev.pt" in done.stderr
    assert equal(weights(folder), weights(longer))


KILLED_BEFORE_BEST = """
import os, signal, sys, train
from common.program import run
from experiments.run.folder import RunFolder

save = RunFolder.save

def save_or_die(self, name, *rest, **more):
    if name == "best.pt":
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, name, *rest, **more)

RunFolder.save = save_or_die
sys.exit(run(train.main))
"""


def test_a_kill_before_the_best_weights_are_written_loses_nothing(demo_data, longer, tmp_path):
    folder = tmp_path / "run"
    command = words(demo_data, folder, *LONGER)
    killed = program("-c", KILLED_BEFORE_BEST, *command[1:])
    assert killed.returncode == -signal.SIGKILL
    state = RunFolder(folder).load_last()
    assert state["best"]["epoch"] == state["epoch"] == 1 and not (folder / "best.pt").exists()
    done = program(*command)
    assert done.returncode == 0, done.stderr
    assert equal(weights(folder, "best.pt"), weights(longer, "best.pt"))


def test_checkpoints_that_are_all_damaged_are_an_error(demo_data, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, *words(demo_data, folder, "--max_epochs", "60")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        process.stdout.readline()
    process.kill()
    process.wait()
    for name in ("last.pt", "prev.pt"):
        (folder / name).write_bytes(b"no checkpoint")
    done = program(*words(demo_data, folder, "--max_epochs", "60"))
    assert done.returncode == 2 and "--overwrite starts anew" in done.stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(demo_data, tmp_path):
    folder = tmp_path / "run"
    done = program(*words(demo_data, folder, "--lr", "1e30"))
    assert done.returncode == 2 and ", of the samples 0" in done.stderr
    assert "epoch 1, step" in done.stderr and RunFolder(folder).state == "failed"


def test_evaluate_repeats_the_result_to_the_last_digit(demo_data, finished):
    done = program("evaluate.py", finished, "--data_dir", demo_data[1], "--devices", "cpu")
    assert done.returncode == 0, done.stderr
    result = RunFolder(finished).read_json("result.json")
    shown = dict(line.split() for line in done.stdout.splitlines() if line.startswith("test/"))
    for name, value in shown.items():
        assert float(value) == pytest.approx(result[name], abs=6e-5)
    assert len(shown) > 12 and "confusion" in done.stdout


def test_predictions_for_new_files(demo_data, finished, tmp_path):
    raw = demo_data[0]
    (tmp_path / "clips").symlink_to(raw / "clips")
    rows = read_table(finished / "predictions.csv")[:5]
    # Links would lead out of the manifest's folder: new files stand beside it.
    import shutil

    (tmp_path / "clips").unlink()
    (tmp_path / "clips").mkdir()
    for row in rows:
        for ending in ("avi", "wav"):
            shutil.copy(raw / "clips" / f"{row['id']}.{ending}", tmp_path / "clips")
    lines = [f"{r['id']},clips/{r['id']}.wav,clips/{r['id']}.avi" for r in rows]
    (tmp_path / "new.csv").write_text("\n".join(["id,audio,video", *lines]) + "\n")
    out = tmp_path / "out.csv"
    words = ("evaluate.py", finished, "--devices", "cpu", "--predict", tmp_path / "new.csv")
    done = program(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    for new, old in zip(read_table(out), rows, strict=True):
        assert new["id"] == old["id"] and new["fused/prediction"] == old["prediction_name"]
        for name in "0123456789":
            assert float(new[f"fused/p/{name}"]) == pytest.approx(float(old[f"p/{name}"]), abs=1e-4)
            assert 0 <= float(new[f"video/p/{name}"]) <= 1


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("id,audio\na,b.wav\n", 2, "no column video"),
        ("id,audio,video\na,../x.wav,x.avi\n", 2, "leaves the folder"),
        ("id,audio,video\na,x.wav,x.avi\n", 3, "missing_file"),
    ],
)
def test_bad_manifests(finished, tmp_path, text, status, expected):
    (tmp_path / "new.csv").write_text(text)
    done = program("evaluate.py", finished, "--devices", "cpu", "--predict", tmp_path / "new.csv")
    assert done.returncode == status and expected in done.stderr


@pytest.mark.slow
def test_every_hook_of_a_method_runs_and_survives_kills_between_stages(demo_data, tmp_path):
    def command(folder):
        rest = words(demo_data, folder, "--max_epochs", "3", method="Probe")[1:]
        return [sys.executable, str(ROOT / "tests" / "probe.py"), *rest]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(command(whole), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = RunFolder(whole).read_log()
    assert [round(r["lr"], 6) for r in log] == [0.045, 0.045, 0.0045, 0.0045]
    assert [r["train/n_items"] for r in log] == [96] * 4
    assert [r["state/seen"] for r in log] == [96, 192, log[2]["state/seen"], log[3]["state/seen"]]
    for stop_after in (1, 2, 3):  # within the first stage, at its end, within the second
        process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        while len(RunFolder(killed).read_log()) < stop_after and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
    done = subprocess.run(command(killed), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert equal(weights(killed), weights(whole))


@pytest.mark.parametrize("method", ["Joint", "JointUni", "Unimodal"])
def test_the_other_methods_train(demo_data, tmp_path, method):
    more = ("--modality", "video") if method == "Unimodal" else ()
    folder = tmp_path / "run"
    more = (*more, "--max_epochs", "2")
    done = program(*words(demo_data, folder, *more, method=method))
    assert done.returncode == 0, done.stderr
    result = RunFolder(folder).read_json("result.json")
    assert ("test/acc_mis" in result) == (method != "Unimodal")
    assert (
        RunFolder(folder).read_log()[-1]["train/loss"]
        < RunFolder(folder).read_log()[0]["train/loss"]
    )


def test_overwriting_decides_first_and_leaves_what_is_not_the_runs(tmp_path):
    """A note, TensorBoard's folder, and what a killed writer left: none makes a folder unusable."""
    folder = RunFolder(tmp_path / "run")
    folder.claim({"seed": 1}, overwrite=False)
    for name in ("result.json", "last.pt", "notes.txt", ".last.pt.host.123.tmp", ".prev.pt.tmp"):
        folder.file(name).write_text("x")
    board = folder.file("tensorboard")
    board.mkdir()
    (board / "events.out.tfevents.1").write_text("x")
    (board / "notes.txt").write_text("x")
    folder.check(None)
    folder.claim({"seed": 2}, overwrite=True)
    left = {"config.json", "notes.txt", "tensorboard"}
    assert {p.name for p in folder.path.iterdir()} == left
    assert [p.name for p in board.iterdir()] == ["notes.txt"]
    (board / "notes.txt").unlink()
    folder.claim({"seed": 2}, overwrite=True)
    assert not board.exists()
    assert folder.read_json("config.json") == {"seed": 2}
    folder.claim({"seed": 2}, overwrite=False)
    strange = RunFolder(tmp_path / "strange")
    strange.path.mkdir()
    (strange.path / "thesis.tex").write_text("years of work")
    for overwrite in (True, False):
        with pytest.raises(UsageError, match="holds thesis.tex and no config.json"):
            strange.claim({"seed": 1}, overwrite)
    assert (strange.path / "thesis.tex").exists()


def test_the_vocabulary_of_a_run_that_changed_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\nmeow\n")
    result = {"hashes": {"vocabulary": file_digest(tmp_path / "vocab.txt")}}
    assert folder.vocabulary(result) == tmp_path / "vocab.txt"
    (tmp_path / "vocab.txt").write_text("[PAD]\nmiow\n")
    with pytest.raises(UsageError, match="vocab.txt is missing or not the file of the run"):
        folder.vocabulary(result)


@pytest.mark.slow
def test_a_prediction_takes_no_stand_in_and_a_finished_run_no_other_root(tmp_path):
    """CREMA-D keeps clips with one broken modality; a mistyped name is not one of them."""
    made = ("tests/write_tree.py", "--dataset", "cremad", "--per_class", "4")
    root, other = tmp_path / "raw", tmp_path / "other"
    assert program(*made, "--out", root).returncode == 0
    assert program(*made, "--out", other, "--seed", "5").returncode == 0
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    small = ("--encoder", "small", "--size", "32", "--max_epochs", "1", "--devices", "cpu")
    run = ("train.py", "--dataset", "cremad", "--method", "Joint", *places, *small)
    done = program(*run, "--dataset_root", root)
    assert done.returncode == 0, done.stderr
    sound, video = (
        next((root / folder).iterdir()).relative_to(root) for folder in ("AudioWAV", "VideoFlash")
    )
    rows = [("right", sound, video), ("mute", "AudioWAV/typo.wav", video), ("dark", sound, "")]
    new, out = root / "new.csv", tmp_path / "out.csv"
    write_table(new, ("id", "audio", "video"), rows)
    told = ("evaluate.py", tmp_path / "run", "--predict", new, "--devices", "cpu", "--out")
    predicted = program(*told, out)
    assert predicted.returncode == 3, predicted.stderr
    assert [row["id"] for row in read_table(out)] == ["right"]
    for name in ("mute", "dark"):
        assert f"not predicted: {name}: " in predicted.stderr
    refused = program(*told, new)
    assert refused.returncode == 2 and "is the file that --predict reads" in refused.stderr
    assert len(read_table(new)) == 3

    assert program(*run, "--dataset_root", root).stdout.startswith("done: ")
    for place, words in ((other, "was trained on other files"), (tmp_path / "no", "not a folder")):
        again = program(*run, "--dataset_root", place)
        assert again.returncode == 2 and words in again.stderr


def test_a_folder_in_which_only_a_temporary_file_was_begun_is_usable(tmp_path):
    (tmp_path / ".config.json.host.99.tmp").write_text('{"se')
    (tmp_path / ".lock").write_text("")
    folder = RunFolder(tmp_path)
    folder.check({"seed": 1})
    folder.claim({"seed": 1}, overwrite=False)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", ".lock"}


def test_equal_checkpoints_are_equal_bytes(tmp_path):
    state = {"method": {"w": torch.arange(5.0)}, "epoch": 1}
    code = (
        "import sys, torch; from experiments.run.folder import RunFolder\n"
        "from pathlib import Path\n"
        "state = {'method': {'w': torch.arange(5.0)}, 'epoch': 1}\n"
        "RunFolder(Path(sys.argv[1])).save('best.pt', state)"
    )
    for name in ("a", "b"):
        assert program("-c", code, tmp_path / name).returncode == 0
    assert (tmp_path / "a/best.pt").read_bytes() == (tmp_path / "b/best.pt").read_bytes()
    RunFolder(tmp_path / "c").save("best.pt", state)
    assert RunFolder(tmp_path / "c").load("best.pt")["epoch"] == 1


def test_a_save_over_two_names_of_one_file_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save("last.pt", {"epoch": 1})
    os.link(tmp_path / "last.pt", tmp_path / "prev.pt")  # as a kill within a save leaves them
    folder.save("last.pt", {"epoch": 2}, keep_previous=True)
    assert {p.name for p in tmp_path.iterdir()} == {"last.pt", "prev.pt"}
    assert (folder.load("last.pt")["epoch"], folder.load("prev.pt")["epoch"]) == (2, 1)


def test_leftovers_of_writers_that_died_go_with_the_next_writing(tmp_path):
    from common.files import HOST, write_text

    dead = tmp_path / f".a.csv.{HOST}.999999999.tmp"
    other = tmp_path / ".a.csv.elsewhere.1.tmp"
    mine = tmp_path / f".a.csv.{HOST}.1.tmp"  # its writer lives
    for path in (dead, other, mine):
        path.write_text("x")
    write_text(tmp_path / "a.csv", "new")
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", other.name, mine.name}
