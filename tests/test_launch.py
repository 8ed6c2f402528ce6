"""Statistics, the registry, `python -m experiments`, and how its children start and end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, program
from test_tables import fake_run

from common.options import UsageError
from experiments.artifacts import Runs
from experiments.demo import JOINT, MIDAS
from experiments.launch import Task, cores, launch, open_log, pick_slots
from experiments.registry import ARTIFACTS, find, needed, select
from experiments.resolve import resolve
from experiments.statistics import mean, sample_std, show, summarise
from experiments.reader import Reader

# Stands for train.py. Seed 6 ends badly after its result, 7 fails, 8 leaves no result, 9 works
# until it is told to stop.
SCRIPT = """
import json, os, pathlib, signal, sys, time

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
results, seed = pathlib.Path(flags["--results_dir"]), flags["--seed"]
print("hello from seed", seed, "on", flags["--devices"], "with", flags["--threads"])
if seed == "7":
    sys.exit("error: the seven is refused")
if seed == "9":
    def stop(number, _):
        (results / "stopped").write_text(str(number))
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    (results / "pid.part").write_text(str(os.getpid()))
    os.rename(results / "pid.part", results / "pid")
    time.sleep(60)
if seed != "8":
    folder = results / "runs" / flags["--dataset"] / flags["--method"] / "default" / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "result.json").write_text("{}")
sys.exit(seed == "6")
"""

# Launches Joint with the seeds given, from a process of its own.
LAUNCHER = """
import sys
from pathlib import Path
from experiments.launch import Task, launch
from experiments.demo import JOINT
from experiments.statistics import mean, sample_std, show, summarise
from experiments.reader import Reader
results, script, seeds = Path(sys.argv[1]), Path(sys.argv[2]), map(int, sys.argv[3:])
tasks = [Task(JOINT, seed, ("--results_dir", str(results))) for seed in seeds]
sys.exit(launch(Reader(results), tasks, ["cpu"], script))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train_stub.py"
    path.write_text(SCRIPT)
    return path


def tasks_for(results, *seeds):
    return [Task(JOINT, seed, ("--results_dir", str(results))) for seed in seeds]


def start_launcher(results, script, *seeds):
    words = ["-c", LAUNCHER, str(results), str(script), *map(str, seeds)]
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def alive(pid):
    """Whether the process runs (a zombie that nobody collects does not)."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in open(f"/proc/{pid}/status").read()
    except (ProcessLookupError, FileNotFoundError):
        return False


def started(results):
    """The pid of the child of seed 9, once it is at work."""
    wait_for((results / "pid").exists)
    return int((results / "pid").read_text())


# --- statistics -----------------------------------------------------------------------------------


def test_mean_and_sample_std_by_hand():
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert sample_std([1.0, 2.0, 6.0]) == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert sample_std([5.0]) is None
    assert summarise([]) is None


@pytest.mark.parametrize(
    "values, text",
    [
        ([0.9, 0.91, 0.92], "91.0 ± 1.0 (3)"),
        ([0.902], "90.2 (1)"),
        ([0.5, 0.5], "50.0 ± 0.0 (2)"),
        ([], "--"),
    ],
)
def test_a_cells_text(values, text):
    assert show(summarise(values)) == text


# --- registry -------------------------------------------------------------------------------------


def test_every_run_resolves_to_the_folder_that_the_registry_names():
    for runs, seed in needed(ARTIFACTS):
        run, args = resolve(runs.arguments(seed), "")
        expected = runs.folder(args.results_dir, seed).path
        assert run.default_folder(Path(args.results_dir)) == expected


def test_artifacts_are_consistent():
    assert len({artifact.id for artifact in ARTIFACTS}) == len(ARTIFACTS)
    for figure in ARTIFACTS:
        for panel in getattr(figure, "panels", ()):
            wanted = len(panel.groups) if figure.kind == "bars" else 1
            assert all(len(series.values) == wanted for series in panel.series)


def test_a_group_and_an_id_are_found_whatever_their_case():
    assert [a.id for a in find("Demo")] == [a.id for a in ARTIFACTS if a.group == "demo"]
    assert [a.id for a in select(["demo-figure6", "DEMO-figure1"])] == [
        "demo-figure1",
        "demo-figure6",
    ]


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UsageError, match="'demo-figur3'. Did you mean 'demo-figure3'?"):
        find("demo-figur3")


def test_overrides_become_flags_and_a_folder(tmp_path):
    runs = Runs("demo", "Midas", (("weak_modality", False), ("lam", 5.0)))
    assert runs.command(2) == (
        "python train.py --dataset demo --method Midas --seed 2 --weak_modality off --lam 5"
    )
    folder = runs.folder(tmp_path, 2).path.relative_to(tmp_path)
    assert str(folder) == "runs/demo/Midas/lam=5,weak_modality=off/seed2"


# --- launching ------------------------------------------------------------------------------------


def test_runs_are_made_and_their_output_is_kept(tmp_path, script, capsys):
    results = tmp_path / "results"
    assert launch(Reader(results), tasks_for(results, 1, 2), ["cpu", "cpu"], script) == 0
    out = capsys.readouterr().out
    threads = max(1, cores() // 2)
    assert f"2 runs to make, 0 done; devices cpu, 2 at a time, {threads} CPU threads each" in out
    assert "done demo/Joint/default/seed1 (" in out and "2 done, 0 failed\n" in out
    log = (results / "launch/demo-Joint-default-seed2.log").read_text()
    assert log == f"hello from seed 2 on cpu with {threads}\n"


def test_a_failing_child_is_reported_and_the_others_go_on(tmp_path, script, capsys):
    results = tmp_path / "results"
    assert launch(Reader(results), tasks_for(results, 7, 8, 1), ["cpu"], script) == 1
    out, error = capsys.readouterr()
    assert "FAILED demo/Joint/default/seed7: exit status 1\n" in error
    assert "    error: the seven is refused\n" in error
    assert f"    (log: {results / 'launch/demo-Joint-default-seed7.log'})" in error
    assert "FAILED demo/Joint/default/seed8: exit status 0, and no result.json\n" in error
    assert "1 done, 2 failed\n" in out


def test_a_result_counts_whatever_came_after_it(tmp_path, script, capsys):
    assert launch(Reader(tmp_path), tasks_for(tmp_path, 6), ["cpu"], script) == 0
    assert "s, then exit status 1)" in capsys.readouterr().out


def test_done_runs_are_skipped(tmp_path, script, capsys):
    fake_run(tmp_path, JOINT, 1)
    assert launch(Reader(tmp_path), tasks_for(tmp_path, 1), ["cpu"], script) == 0
    assert "0 runs to make, 1 done" in capsys.readouterr().out
    assert not (tmp_path / "launch").exists()


def test_an_unusable_folder_is_left_alone_and_reported(tmp_path, script, capsys):
    fake_run(tmp_path, JOINT, 1).file("result.json").write_text("{")
    assert launch(Reader(tmp_path), tasks_for(tmp_path, 1), ["cpu"], script) == 1
    error = capsys.readouterr().err
    command = JOINT.command(1, ["--results_dir", str(tmp_path), "--overwrite"])
    assert f"cannot be used; this gives it up and starts anew:\n    {command}\n" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_new_is_started(tmp_path, script, number):
    process = start_launcher(tmp_path, script, 9, 1)
    child = started(tmp_path)
    process.send_signal(number)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert (tmp_path / "stopped").read_text() == str(int(number))
    assert not alive(child)
    assert "stopped demo/Joint/default/seed9" in out and "0 done, 0 failed, 2 left" in out
    assert "the same command goes on from there" in error
    assert not JOINT.folder(tmp_path, 1).path.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_children_end_when_the_launcher_is_killed(tmp_path, script):
    process = start_launcher(tmp_path, script, 9)
    child = started(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    wait_for(lambda: not alive(child))
    assert (tmp_path / "stopped").read_text() == str(int(signal.SIGTERM))


def test_a_run_that_another_launcher_is_at_is_waited_for(tmp_path, script):
    other = open_log(tasks_for(tmp_path, 1)[0].log_path(tmp_path))
    process = start_launcher(tmp_path, script, 1, 2)
    wait_for(lambda: JOINT.folder(tmp_path, 2).state == "done")  # the rest is not held up
    assert process.poll() is None and JOINT.folder(tmp_path, 1).state == "new"
    other.close()
    out, error = process.communicate(timeout=20)
    assert process.returncode == 0
    assert error.count("another process is at demo/Joint/default/seed1; waiting") == 1
    assert "2 done, 0 failed" in out


def test_slots():
    assert pick_slots("cpu", 3) == ["cpu"] * 3
    assert pick_slots("cpu", None) == ["cpu"] * cores()
    assert pick_slots("0,1", None) == ["0", "1"]
    assert pick_slots("0,1", 3) == ["0", "1", "0"]
    for bad in ("gpu", "0,", "1,1", "cpu,0"):
        with pytest.raises(UsageError, match="--devices .*: give CUDA devices by number"):
            pick_slots(bad, None)


# --- the program ----------------------------------------------------------------------------------


def experiments(*words):
    return program("-m", "experiments", *words)


def test_list_names_every_artifact():
    lines = experiments("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [artifact.id for artifact in select([])]
    assert lines[0].split()[1:4] == ["table", "9", "runs"]
    assert "the paper's Figure 1" in lines[1]


def test_status_counts_the_states(tmp_path):
    fake_run(tmp_path, MIDAS, 1)
    fake_run(tmp_path, MIDAS, 2, done=False).fail("out of luck")
    fake_run(tmp_path, MIDAS, 3, done=False)
    fake_run(tmp_path, MIDAS, 4).file("result.json").write_text("{")
    words = ("--results_dir", tmp_path, "--seeds", 1, 2, 3, 4, 5)
    shown = experiments("status", "demo-figure4", *words)
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == [
        "done      demo/Midas/default/seed1",
        "failed    demo/Midas/default/seed2  (3 epochs)",
        "partial   demo/Midas/default/seed3  (3 epochs)",
        "unusable  demo/Midas/default/seed4",
        "new       demo/Midas/default/seed5",
        "1 done, 1 failed, 1 new, 1 partial, 1 unusable",
    ]
    assert "result.json is damaged" in shown.stderr


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


def test_a_dry_run_is_a_script_of_what_is_not_done(tmp_path):
    fake_run(tmp_path, JOINT, 1)
    shown = experiments(
        "run", "demo-figure1", "--dry_run", "--results_dir", tmp_path, "--devices", "0,1"
    )
    pairs = [(runs, seed) for runs, seed in needed(select(["demo-figure1"]))][1:]
    assert shown.stdout.splitlines() == [
        "set -e",
        *(
            runs.command(seed, ["--results_dir", str(tmp_path), "--devices", str(place % 2)])
            for place, (runs, seed) in enumerate(pairs)
        ),
    ]
    assert shown.stderr == "1 of 6 runs are done\n"


@pytest.mark.parametrize(
    "words, message",
    [
        (("run", "demo-figur4"), "unknown table or figure 'demo-figur4'. Did you mean"),
        (("rnu", "demo"), "unknown command 'rnu'. Did you mean 'run'?"),
        (("run",), "python -m experiments run needs a NAME"),
        (("list", "demo"), "python -m experiments list takes no NAME"),
        (("status", "--jobs", "2"), "--jobs belongs to `run`, not to `status`"),
        (("run", "demo", "--jobs", "0"), "--jobs takes a whole number, 1 or more, not '0'"),
        (("run", "demo", "--seeds", "x"), "--seeds takes a whole number, 0 or more, not 'x'"),
        (("run", "demo", "--", "--lr", "3"), "unknown flag '--"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, capsys):
    from common.program import run
    from experiments.__main__ import main

    assert run(main, list(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_the_launcher_does_without_torch():
    code = "import sys, experiments.__main__; assert 'torch' not in sys.modules"
    assert program("-c", code).returncode == 0
