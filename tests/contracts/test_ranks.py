"""Several processes that train together do what one does, and end together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from conftest import ROOT, program
from ranked import CASES

pytestmark = pytest.mark.slow
MIDAS = "train.py --dataset demo --warmup_epochs 1 --threads 1 --data_dir".split()


def together(command, size):
    """The exit statuses of `size` processes of a command, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for rank in range(size):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        words = [sys.executable, *map(str, command)]
        processes.append(subprocess.Popen(words, cwd=ROOT, env=os.environ | place | ranks))
    return [process.wait(timeout=280) for process in processes]


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-5)])
def test_two_processes_train_every_method_as_one_does(dtype, bound, tmp_path):
    for size in (1, 2):
        assert together(["tests/ranked.py", dtype, tmp_path / f"{size}.pt"], size) == [0] * size
    one, two = (torch.load(tmp_path / f"{size}.pt") for size in (1, 2))
    assert len(one) == len(two) == len(CASES)
    for (name, values), a, b in zip(CASES, one, two, strict=True):
        steps = slice(None) if dtype == "float64" else slice(20)
        differ = [abs(x - y) / max(1, abs(x)) for x, y in zip(a["losses"][steps], b["losses"])]
        assert len(differ) >= 20 and max(differ) < bound, (name, values)
        if dtype == "float64":  # single precision may decide a close choice otherwise
            for key, value in a["state"].items():
                close = torch.allclose(value, b["state"][key], rtol=0, atol=bound, equal_nan=True)
                assert close, (name, values, key)


def start(*words):
    """A training of the demo set on two processes, after its first epoch; its output's lines."""
    command = [sys.executable, *words, "--devices", "cpu,cpu", "--max_epochs", "30"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if re.match(r"epoch +1/", line):
            return process
    raise AssertionError(process.wait())


def test_a_process_that_dies_ends_the_run_in_one_line_and_one_process_goes_on(demo_data, tmp_path):
    words = [*MIDAS, str(demo_data[1]), "--results_dir", str(tmp_path)]
    run = start(*words)
    *_, last = sorted(psutil.Process(run.pid).children(), key=lambda child: child.create_time())
    begun = time.monotonic()
    last.kill()
    lines = run.communicate(timeout=60)[0].splitlines()
    assert run.returncode == 74 and time.monotonic() - begun < 60
    errors = [line for line in lines if not line.startswith("epoch ")]
    assert len(errors) == 1 and "device cpu (rank 1) ended with signal 9" in errors[0]
    done = program(*words, "--devices", "cpu", "--max_epochs", "30")
    assert done.returncode == 0 and re.search(r"resuming after epoch \d", done.stderr)


def test_a_signal_stops_all_processes(demo_data, tmp_path):
    run = start(*MIDAS, str(demo_data[1]), "--results_dir", str(tmp_path))
    children = psutil.Process(run.pid).children()
    run.send_signal(signal.SIGTERM)
    output = run.communicate(timeout=60)[0]
    assert run.returncode == 143 and output.strip().endswith("resume after the last epoch")
    assert not any(child.is_running() for child in children)


def test_torchrun_starts_the_processes_as_well(demo_data, tmp_path):
    words = [*MIDAS, demo_data[1], "--max_epochs", "2", "--devices", "cpu"]
    run = program("-m", "torch.distributed.run", "--nproc_per_node", "2",
                  *words, "--results_dir", tmp_path / "two")  # fmt: skip
    assert run.returncode == 0 and len(re.findall("^done: ", run.stdout, re.M)) == 1
    alone = program(*words, "--results_dir", tmp_path / "one")
    losses = [re.findall(r"loss +([\d.]+)", out.stdout) for out in (run, alone)]
    assert [float(x) for x in losses[0]] == pytest.approx([float(x) for x in losses[1]], rel=1e-3)
