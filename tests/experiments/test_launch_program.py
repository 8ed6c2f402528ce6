"""`python -m experiments`: lists, status, scripts and refusals."""

import os
import subprocess
import sys

import pytest
from fake_runs import fake_run
from launch_stub import write_script

from common.program import run
from experiments.__main__ import main
from experiments.paper.illustration import JOINT, JOINT_UNI, MIDAS
from experiments.paper.kinds import RunSet
from experiments.paper.registry import ARTIFACTS, needed, select


@pytest.fixture
def experiments(tmp_path, capsys):
    """Runs the program on the results in `tmp_path`; returns its output and its messages."""

    def call(*words):
        assert run(main, [*map(str, words), "--results_dir", str(tmp_path)]) == 0
        return capsys.readouterr()

    return call


def timed(epoch):
    """A log line of an epoch that took two seconds."""
    return {"time/epoch_s": 2.0}


def test_list_names_every_artifact_and_what_is_done(tmp_path, experiments):
    fake_run(tmp_path, JOINT, 1)
    fake_run(tmp_path, JOINT, 2, done=False)
    lines = experiments("list").out.splitlines()
    assert [line.split()[0] for line in lines] == [artifact.id for artifact in select([])]
    (figure,) = (line for line in lines if line.startswith("demo-figure1"))
    assert " ".join(figure.split()[1:7]) == "figure 1 of 6 runs done"
    assert "the paper's Figure 1" in figure


def test_status_sums_up_and_lists_each_run(tmp_path, experiments):
    fake_run(tmp_path, MIDAS, 1, log=timed)
    fake_run(tmp_path, MIDAS, 2, done=False, log=timed).fail("the loss is nan\nmore")
    fake_run(tmp_path, MIDAS, 3, done=False, log=timed)
    fake_run(tmp_path, MIDAS, 4).file("result.json").write_text("{")
    fake_run(tmp_path, JOINT, 1, done=False).fail("Traceback (most recent ...):\n  x\nKeyError: 7")
    out, error = experiments("status", "demo-figure4", "--seeds", 1, 2, 3, 4, 5)
    states = "1 done, 1 failed, 1 new, 1 partial, 1 unusable"
    assert out.splitlines() == [
        f"demo-figure4  {states}; about 3.8 min left",  # 4 x 30 epochs but 6, 2 s each
        "",
        "done      demo/Midas/default/seed1",
        "failed    demo/Midas/default/seed2  (3 of 30 epochs, about 54 s left, the loss is nan)",
        "partial   demo/Midas/default/seed3  (3 of 30 epochs, about 54 s left)",
        "unusable  demo/Midas/default/seed4  (about 1.0 min left)",
        "new       demo/Midas/default/seed5  (about 1.0 min left)",
        f"{states}; one after another, about 3.8 min left",
    ]
    assert "result.json is damaged" in error
    assert "KeyError: 7)" in experiments("status", "demo-figure1", "--seeds", 1).out


def test_status_of_all_has_each_artifact_and_each_run_once(experiments):
    above, _, below = experiments("status").out.partition("\n\n")
    assert [line.split()[0] for line in above.splitlines()] == [a.id for a in ARTIFACTS]
    *runs, last = below.splitlines()
    assert len(runs) == len(set(runs)) == len(list(needed(ARTIFACTS)))
    assert last == f"{len(runs)} new; one after another, no estimate"


START = "python train.py --dataset demo --method"


def test_show_prints_each_runs_command(tmp_path, experiments):
    out = experiments("show", "demo-figure3", "--data_dir", "/my data").out
    assert "demo-figure3 (figure): Demo counterpart of the paper's Figure 3" in out
    assert out.splitlines()[-6:] == [
        f"{START} Midas --seed {seed}{flag} --data_dir '/my data' --results_dir {tmp_path}"
        for flag in (" --weak_modality off", "")
        for seed in (1, 2, 3)
    ]


def test_other_settings_change_all_runs(tmp_path, experiments):
    given, flags = ("--set", "max_epochs=3", "lr=0.01"), "--lr 0.01 --max_epochs 3"
    flags = f"{flags} --results_dir {tmp_path}"
    assert f"{START} Midas --seed 2 {flags}\n" in experiments("show", "demo-figure4", *given).out
    script = experiments("run", "demo-figure4", "--dry_run", *given).out
    assert script == f"set -e\nfor seed in 1 2 3; do {START} Midas --seed $seed {flags}; done\n"
    short = RunSet("demo", "Midas", (("lr", 0.01), ("max_epochs", 3)))
    fake_run(tmp_path, short, 1, epochs=3, log=timed)
    status = experiments("status", "demo-figure4", *given).out
    assert "1 done, 2 new; about 12 s left\n" in status
    assert "done      demo/Midas/lr=0.01,max_epochs=3/seed1\n" in status


def test_a_dry_run_is_a_script_of_what_is_not_done(tmp_path, experiments):
    fake_run(tmp_path, JOINT, 1)
    fake_run(tmp_path, JOINT_UNI, 2).file("result.json").write_text("{")
    out, error = experiments("run", "demo-short", "--dry_run", "--devices", "0,1")
    rest = f"--results_dir {tmp_path} --devices"
    assert out.splitlines() == [
        "set -e",
        f"for seed in 2 3; do {START} Joint --seed $seed {rest} 0; done",
        f"for seed in 1 3; do {START} JointUni --seed $seed {rest} 1; done",
        f"{START} JointUni --seed 2 {rest} 0 --overwrite",
        f"for seed in 1 2 3; do {START} Midas --seed $seed {rest} 1; done",
        f"for seed in 1 2 3; do {START} Midas --seed $seed --weak_modality off {rest} 0; done",
    ]
    assert error.splitlines()[-1] == "1 of 12 runs are done"


def test_the_script_makes_the_runs_and_stops_at_the_first_failure(tmp_path, capsys):
    results = tmp_path / "my $results"
    words = ["demo-figure1", "--dry_run", "--results_dir", str(results), "--devices", "cpu"]
    assert main(["run", *words, "--seeds", "1", "2", "7", "3"]) == 0
    # The stub accepts the flags of every run of a launch.
    script = capsys.readouterr().out.replace("--devices cpu", "--devices cpu --threads 1")
    write_script(tmp_path).rename(tmp_path / "train.py")
    (tmp_path / "python").symlink_to(sys.executable)  # a bare machine has only python3
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=os.environ | paths
    )
    assert done.returncode == 1 and "error: the seven is refused" in done.stderr
    assert (results / "starts").read_text().split() == ["1", "2", "7"]
    assert (results / "runs/demo/Joint/default/seed2/result.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    {
        "run demo-figur4": "unknown table or figure 'demo-figur4'. Did you mean",
        "rnu demo": "unknown command 'rnu'. Did you mean 'run'?",
        "run": "python -m experiments run needs a NAME",
        "list demo": "python -m experiments list takes no NAME",
        "status --jobs 2": "--jobs can be used with `run`, `tune`, not with `status`",
        "list --set lr=1": "--set can be used with `status`, `show`, `run`, `tune`, not with",
        "run demo-short --set lr": "--set takes KEY=VALUE, each key once, not 'lr'",
        "run demo-short --jobs 0": "--jobs takes a whole number, 1 or more, not '0'",
        "run demo-short --seeds x": "--seeds takes a whole number, 0 or more, not 'x'",
        "run demo-short --lr 3": "unknown flag '--lr'",
        "run demo-short --ray a:1 --dry_run": "--ray cannot be used with --dry_run",
        "run demo-short --ray a:1 --devices 0": "--ray cannot be used with --devices 0",
        "run demo-short --ray there": "--ray takes HOST:PORT, auto or local, not 'there'",
        "run demo-short --ray 127.0.0.1:1": "--ray 127.0.0.1:1: no cluster answers",
    }.items(),
)
def test_a_wrong_command_line_is_one_line(words, message, capsys):
    assert run(main, words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
