"""A stub for train.py in the launcher tests, and a launcher in a separate process."""

import os
import subprocess
import sys
import time
from collections import Counter

import psutil
from conftest import ROOT

from experiments.launch import local, on_ray
from experiments.launch.tasks import Task
from experiments.paper.illustration import JOINT
from experiments.report.reader import Reader

EPOCHS = 4

# Holds the run's lock, runs EPOCHS epochs, resumes where its log ends, and stops on SIGTERM between
# two epochs. Seed 6 fails after writing its result, 7 fails, 8 leaves no result, 9 runs until it is
# stopped, 11 and 12 wait until both have started, 20 and above are slow and pause before their
# third epoch as long as a file hold<seed> exists among the results, so that a test can act in the
# middle of a run.
SCRIPT = """
import os, pathlib, signal, sys, time

sys.path.insert(0, ROOT)
from common.files import Busy, write_text
from common.stop import follow_launcher
from experiments.run.folder import RunFolder, run_path

follow_launcher()
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
results, seed, stopped = pathlib.Path(flags["--results_dir"]), int(flags["--seed"]), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: stopped.append(number))
run = RunFolder(run_path(results, flags["--dataset"], flags["--method"], {}, seed))
lock = run.lock()
try:
    lock.__enter__()
except Busy as error:
    sys.exit(error.exit_status)
with open(results / "starts", "a") as starts:
    starts.write(f"{seed}\\n")
write_text(results / f"pid{seed}", str(os.getpid()))
print("hello from seed", seed, "on", flags["--devices"], "with", flags["--threads"], flush=True)
if seed == 7:
    sys.exit("error: the seven is refused")
while seed == 9:
    time.sleep(0.02)
    if stopped:
        (results / "stopped").write_text(str(stopped[0]))
        sys.exit(128 + stopped[0])
while seed in (11, 12) and not (results / f"pid{23 - seed}").exists():
    time.sleep(0.02)
if seed != 8:
    config = {"dataset": flags["--dataset"], "method": flags["--method"], "seed": seed}
    config |= {"settings": {"max_epochs": EPOCHS}, "prep": {}, "hparams": {}, "differing": {}}
    run.claim(config, overwrite=False)
    run.note_start({})
    for epoch in range(len(run.read_log()) + 1, EPOCHS + 1):
        time.sleep(0.1 if seed >= 20 else 0.01)
        while epoch == 3 and (results / f"hold{seed}").exists() and not stopped:
            time.sleep(0.02)
        if stopped:
            sys.exit(128 + stopped[0])
        run.append_log({"epoch": epoch, "time/epoch_s": 0.1})
    run.write_json("result.json", {"best_epoch": 1})
sys.exit(seed == 6)
""".replace("EPOCHS", str(EPOCHS)).replace("ROOT", repr(str(ROOT)))

# Launches Joint with the given seeds, in a separate process.
LAUNCHER = """
import sys
from pathlib import Path
from launch_stub import make

results, script, address, *seeds = sys.argv[1:]
sys.exit(make(Path(results), Path(script), address, *map(int, seeds)))
"""


def make(results, script, address, *seeds):
    """Launches the runs in two slots on this machine, or on the cluster at `address`."""
    tasks = tasks_for(results, *seeds)
    if address:
        return on_ray.launch(Reader(results), tasks, address, script=script)
    return local.launch(Reader(results), tasks, ["cpu", "cpu"], script)


def tasks_for(results, *seeds):
    return [Task(JOINT, seed, ("--results_dir", str(results))) for seed in seeds]


def write_script(folder):
    path = folder / "train_stub.py"
    path.write_text(SCRIPT)
    return path


def start_launcher(results, script, *seeds, address="", **streams):
    """A launcher running in a separate process."""
    words = ["-c", LAUNCHER, str(results), str(script), address, *map(str, seeds)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | streams
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, **streams)


def hold(results, *seeds):
    """The runs of these seeds pause before their third epoch until `let_go`."""
    results.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (results / f"hold{seed}").touch()


def let_go(results):
    for file in results.glob("hold*"):
        file.unlink()


def in_the_middle(results, seed):
    """Waits until a held run has finished its two epochs."""
    wait_for(lambda: epochs(results, seed) == [1, 2])


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def alive(pid):
    """Whether the process is running; an uncollected zombie is not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def started(results, seed=9):
    """The pid of the child of a seed, once it is running."""
    wait_for((results / f"pid{seed}").exists)
    return int((results / f"pid{seed}").read_text())


def state(results, seed):
    return JOINT.folder(results, seed).state


def starts(results):
    """How often the child of each seed was started."""
    return Counter(int(line) for line in (results / "starts").read_text().split())


def epochs(results, seed):
    return [line["epoch"] for line in JOINT.folder(results, seed).read_log()]


def check_sweep(results, seeds, done_before):
    """Each run is done, each epoch ran once, and earlier results are untouched."""
    for seed in seeds:
        assert state(results, seed) == "done"
        assert epochs(results, seed) == list(range(1, EPOCHS + 1))
    assert all(starts(results)[seed] == 1 for seed in done_before)
