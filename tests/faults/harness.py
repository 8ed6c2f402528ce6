"""Makes the n-th file-changing operation of a program fail: a kill, a full disk, EIO.

Each run of a program is a fork of one process that has imported everything, since importing torch
takes longer than the run itself. Run as a program, this file is that process: it reads one JSON
object per line from standard input, {"program": ..., "argv": [...], "output": PATH}, and answers
each with the exit status, or minus the signal that ended it.
"""

import importlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
MODES = {"count": 0, "kill": 1, "kill half-way": 2, "full disk": 3, "I/O error": 4}
FAULTS = [mode for mode in MODES if mode != "count"]
PLAN = struct.Struct("qqq4096s")  # as `struct plan` in fault.c
SMALL_SHARD = 20  # samples: several shards for a small dataset


class Job(NamedTuple):
    """A program's command line, and the folder in which file operations count."""

    program: str
    argv: tuple[str, ...]
    root: Path


class Outcome(NamedTuple):
    """How a job ended: its exit status, the number of operations, and what it printed."""

    status: int
    operations: int
    output: str


def compiler() -> str | None:
    """The C compiler of this machine, if it has one; faults are injected only on Linux."""
    return (shutil.which("cc") or shutil.which("gcc")) if sys.platform == "linux" else None


class Bench:
    """Runs jobs in sequence, each with at most one fault."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.output, self.plan, library = folder / "output", folder / "plan", folder / "fault.so"
        self.plan.write_bytes(bytes(PLAN.size))
        command = [compiler(), "-shared", "-fPIC", "-O1", "-o", library, HERE / "fault.c", "-ldl"]
        subprocess.run(command, check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), "FAULT_PLAN": str(self.plan)}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment, cwd=HERE.parents[1],
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def close(self) -> None:
        """Ends the process that the jobs are forked from."""
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, job: Job, at: int = 0, mode: str = "count") -> Outcome:
        """Runs the job; operation number `at` fails in the way given by `mode`."""
        self._arm(at, MODES[mode], str(job.root))
        line = {"program": job.program, "argv": job.argv, "output": str(self.output)}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        operations = PLAN.unpack(self.plan.read_bytes())[0]
        self._arm(0, 0, "")
        return Outcome(status, operations, self.output.read_text(errors="replace"))

    def _arm(self, at: int, mode: int, root: str) -> None:
        with open(self.plan, "r+b") as handle:  # in place: the library has the file mapped
            handle.write(PLAN.pack(0, at, mode, os.fsencode(root)))


# The process that is forked -----------------------------------------------------------------------


def child(job: dict) -> int:
    """Runs the program as if in a separate process; it extracts samples itself."""
    from common.program import run
    from data_prep import pool, prepare, sample

    class Here(pool.Pool):
        def map(self, items: Any) -> Iterator[pool.Result]:
            return ((pool.DONE, self.work(item)) for item in items)

    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    prepare.SHARD_SIZE, sample.Pool = SMALL_SHARD, Here
    status = run(importlib.import_module(job["program"]).main, job["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def serve() -> None:
    """Forks once per line until the input ends."""
    for name in ("evaluate", "train", "make_tables", "experiments.run.session", "data_prep.prepare",
                 "experiments.report.draw", "experiments.report.html"):  # fmt: skip
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            status = 70
            try:
                status = child(json.loads(line))
            except BaseException:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
            os._exit(status)
        _, ended = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    serve()
