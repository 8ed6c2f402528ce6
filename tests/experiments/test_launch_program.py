"""`python -m experiments`: what it lists, sums up, prints as a script and refuses."""

import os
import subprocess
import sys

import pytest
from conftest import program
from fake_runs import fake_run
from launch_stub import write_script

from common.program import run
from experiments.__main__ import main
from experiments.paper.illustration import JOINT, JOINT_UNI, MIDAS
from experiments.paper.kinds import RunSet
from experiments.paper.registry import ARTIFACTS, needed, select


def experiments(*words):
    return program("-m", "experiments", *words)


def timed(epoch):
    """A log's line of an epoch of two seconds."""
    return {"time/epoch_s": 2.0}


# --- list, status, show ---------------------------------------------------------------------------


def test_list_names_every_artifact_and_what_is_done(tmp_path):
    fake_run(tmp_path, JOINT, 1)
    fake_run(tmp_path, JOINT, 2, done=False)
    lines = experiments("list", "--results_dir", tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [artifact.id for artifact in select([])]
    (figure,) = (line for line in lines if line.startswith("demo-figure1"))
    assert " ".join(figure.split()[1:7]) == "figure 1 of 6 runs done"
    assert "the paper's Figure 1" in figure


def test_status_sums_up_and_lists_each_run(tmp_path):
    fake_run(tmp_path, MIDAS, 1, log=timed)
    fake_run(tmp_path, MIDAS, 2, done=False, log=timed).fail("the loss is nan\nmore")
    fake_run(tmp_path, MIDAS, 3, done=False, log=timed)
    fake_run(tmp_path, MIDAS, 4).file("result.json").write_text("{")
    fake_run(tmp_path, JOINT, 1, done=False).fail("Traceback (most recent ...):\n  x\nKeyError: 7")
    words = ("--results_dir", tmp_path, "--seeds", 1, 2, 3, 4, 5)
    shown = experiments("status", "demo-figure4", *words)
    assert shown.returncode == 0
    states = "1 done, 1 failed, 1 new, 1 partial, 1 unusable"
    assert shown.stdout.splitlines() == [
        f"demo-figure4  {states}; about 3.8 min left",  # 4 x 30 epochs but 6, 2 s each
        "",
        "done      demo/Midas/default/seed1",
        "failed    demo/Midas/default/seed2  (3 of 30 epochs, about 54 s left, the loss is nan)",
        "partial   demo/Midas/default/seed3  (3 of 30 epochs, about 54 s left)",
        "unusable  demo/Midas/default/seed4  (about 1.0 min left)",
        "new       demo/Midas/default/seed5  (about 1.0 min left)",
        f"{states}; one after another, about 3.8 min left",
    ]
    assert "result.json is damaged" in shown.stderr
    shown = experiments("status", "demo-figure1", "--results_dir", tmp_path, "--seeds", 1)
    assert "KeyError: 7)" in shown.stdout


def test_status_of_all_has_each_artifact_and_each_run_once(tmp_path, capsys):
    assert main(["status", "--results_dir", str(tmp_path)]) == 0
    above, _, below = capsys.readouterr().out.partition("\n\n")
    assert [line.split()[0] for line in above.splitlines()] == [a.id for a in ARTIFACTS]
    *runs, last = below.splitlines()
    assert len(runs) == len(set(runs)) == len(list(needed(ARTIFACTS)))
    assert last == f"{len(runs)} new; one after another, no estimate"


def test_show_prints_each_runs_command():
    shown = experiments("show", "demo-figure3", "--data_dir", "/my data")
    assert (
        "demo-figure3 (figure): The demo set's counterpart of the paper's Figure 3" in shown.stdout
    )
    start = "python train.py --dataset demo --method Midas --seed"
    assert shown.stdout.splitlines()[-6:] == [
        f"{start} {seed}{flag} --data_dir '/my data'"
        for flag in (" --weak_modality off", "")
        for seed in (1, 2, 3)
    ]


def test_other_settings_change_all_runs(tmp_path, capsys):
    given = ["--results_dir", str(tmp_path), "--set", "max_epochs=3", "lr=0.01"]

    def shown(*words):
        assert main([*words, *given]) == 0
        return capsys.readouterr().out

    start = "python train.py --dataset demo --method Midas --seed"
    flags = f"--lr 0.01 --max_epochs 3 --results_dir {tmp_path}"
    assert f"{start} 2 {flags}\n" in shown("show", "demo-figure4")
    script = shown("run", "demo-figure4", "--dry_run")
    assert script == f"set -e\nfor seed in 1 2 3; do {start} $seed {flags}; done\n"
    short = RunSet("demo", "Midas", (("lr", 0.01), ("max_epochs", 3)))
    fake_run(tmp_path, short, 1, epochs=3, log=timed)
    status = shown("status", "demo-figure4")
    assert "1 done, 2 new; about 12 s left\n" in status
    assert "done      demo/Midas/lr=0.01,max_epochs=3/seed1\n" in status


# --- run --dry_run --------------------------------------------------------------------------------


def test_a_dry_run_is_a_script_of_what_is_not_done(tmp_path):
    fake_run(tmp_path, JOINT, 1)
    fake_run(tmp_path, JOINT_UNI, 2).file("result.json").write_text("{")
    words = ("--dry_run", "--results_dir", tmp_path, "--devices", "0,1")
    shown = experiments("run", "demo-short", *words)
    start, rest = "python train.py --dataset demo --method", f"--results_dir {tmp_path} --devices"
    assert shown.stdout.splitlines() == [
        "set -e",
        f"for seed in 2 3; do {start} Joint --seed $seed {rest} 0; done",
        f"for seed in 1 3; do {start} JointUni --seed $seed {rest} 1; done",
        f"{start} JointUni --seed 2 {rest} 0 --overwrite",
        f"for seed in 1 2 3; do {start} Midas --seed $seed {rest} 1; done",
        f"for seed in 1 2 3; do {start} Midas --seed $seed --weak_modality off {rest} 0; done",
    ]
    assert shown.stderr.splitlines()[-1] == "1 of 12 runs are done"


def test_the_script_makes_the_runs_and_stops_at_the_first_failure(tmp_path):
    results, seeds = tmp_path / "my $results", (1, 2, 7, 3)
    words = ("--results_dir", results, "--devices", "cpu", "--seeds", *seeds)
    shown = experiments("run", "demo-figure1", "--dry_run", *words).stdout
    # The stub takes what every run of a launch is given.
    write_script(tmp_path).rename(tmp_path / "train.py")
    shown = shown.replace("--devices cpu", "--devices cpu --threads 1")
    (tmp_path / "python").symlink_to(sys.executable)  # a bare machine has python3 alone
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", shown], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1 and "error: the seven is refused" in done.stderr
    assert (results / "starts").read_text().split() == ["1", "2", "7"]
    assert (results / "runs/demo/Joint/default/seed2/result.json").exists()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        (("run", "demo-figur4"), "unknown table or figure 'demo-figur4'. Did you mean"),
        (("rnu", "demo"), "unknown command 'rnu'. Did you mean 'run'?"),
        (("run",), "python -m experiments run needs a NAME"),
        (("list", "demo"), "python -m experiments list takes no NAME"),
        (("status", "--jobs", "2"), "--jobs belongs to `run`, not to `status`"),
        (("list", "--set", "lr=1"), "--set belongs to `run`, `status`, `show`, not to `list`"),
        (("run", "demo-short", "--set", "lr"), "--set takes KEY=VALUE, each key once, not 'lr'"),
        (("run", "demo-short", "--jobs", "0"), "--jobs takes a whole number, 1 or more, not '0'"),
        (("run", "demo-short", "--seeds", "x"), "--seeds takes a whole number, 0 or more, not 'x'"),
        (("run", "demo-short", "--", "--lr", "3"), "unknown flag '--"),
        (("run", "demo-short", "--ray", "a:1", "--dry_run"), "--ray does not go with --dry_run"),
        (
            ("run", "demo-short", "--ray", "a:1", "--devices", "0"),
            "--ray does not go with --devices 0",
        ),
        (
            ("run", "demo-short", "--ray", "there"),
            "--ray takes HOST:PORT, auto or local, not 'there'",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, capsys):
    assert run(main, list(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
