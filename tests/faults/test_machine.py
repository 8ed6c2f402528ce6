"""Machine faults: signals during a long step, lost launchers and loaders, out of memory."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT
from launch_stub import alive, wait_for

from common.program import MEMORY, explain
from experiments.run.folder import RunFolder

SMALL = ("--devices", "cpu", "--threads", "1", "--max_epochs", "4", "--batch_size", "32")

# A step that signals do not interrupt: Python runs the handler only after it.
LONG_STEP = f"""
import hashlib, sys
sys.path.insert(0, {str(ROOT)!r})
from common import stop
stop.GRACE_S = 1.0
stop.follow_launcher()
kept = stop.Stop()
print("at work", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""


def command(demo_data, folder, *more):
    places = ("--data_dir", demo_data[1], "--dataset_root", demo_data[0], "--output_dir", folder)
    words = ("train.py", "--method", "Joint", *places, *SMALL, *more)
    return [sys.executable, *map(str, words)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_step_that_takes_minutes(number):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "at work\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors == (
        "stopped during a step; run the same command to resume after the last epoch\n"
    )


def test_a_run_does_not_outlive_its_launcher_even_within_a_long_step(tmp_path):
    launcher = f"""
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", {LONG_STEP!r}], env=os.environ | {{"LAUNCHED_BY": str(os.getpid())}}
)
print(child.pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", launcher],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines = sorted(process.stdout.readline() for _ in range(2))  # the child's pid and message
    child = int(lines[0])
    assert lines[1] == "at work\n" and alive(child)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(child))


@pytest.mark.slow
def test_a_dead_loader_process_gives_one_line_and_loses_no_epoch(demo_data, tmp_path):
    words = command(demo_data, tmp_path / "run", "--num_workers", "1", "--max_epochs", "40")
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    wait_for(lambda: loaders(process.pid))
    os.kill(loaders(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 74
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "a loader worker died" in line and "use fewer --num_workers" in line
    assert line.endswith("are complete and kept: run the same command to continue")
    assert "Traceback" not in errors and RunFolder(tmp_path / "run").state == "failed"
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "resuming after epoch" in again.stderr, again.stderr


def loaders(pid):
    """The loader processes of a run."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.slow
def test_out_of_memory_is_one_line_with_advice(demo_data, tmp_path):
    code = """
import resource, sys, train
from common.program import run
import experiments.run.session, evaluate
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20),) * 2)
sys.exit(run(train.main))
"""
    words = command(demo_data, tmp_path / "run", "--size", "224", "--batch_size", "128")
    done = subprocess.run(
        [sys.executable, "-c", code, *words[2:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 74, done.stderr[-500:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "out of memory: use fewer --num_workers or, in training, --cache off, a higher" in line


@pytest.mark.parametrize("words", MEMORY)
def test_out_of_memory_messages_of_libraries_are_recognised(words):
    assert "use fewer --num_workers" in explain(RuntimeError(f"CUDA: {words.upper()} (2 GiB)"))


def test_errors_that_are_no_fault_of_the_machine_are_unchanged():
    assert explain(RuntimeError("shapes do not match")) is None
    assert explain(KeyError("x")) is None


def test_a_cause_within_another_error_is_found():
    try:
        try:
            raise OSError(28, "No space left on device", "/x/y.pt")
        except OSError as error:
            raise RuntimeError("the writer failed") from error
    except RuntimeError as error:
        assert explain(error) == "/x/y.pt: no space left on the disk: free some space"


@pytest.mark.slow
def test_of_two_equal_commands_one_works_and_the_other_reports_it(demo_data, tmp_path):
    words = command(demo_data, tmp_path / "run", "--max_epochs", "20")
    both = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=240) for process in both]
    statuses = sorted(process.returncode for process in both)
    assert statuses == [0, 75], told
    assert sum("another process is using" in errors for _, errors in told) == 1
    run = RunFolder(tmp_path / "run")
    assert run.state == "done" and [line["epoch"] for line in run.read_log()] == list(range(1, 21))
