"""Makes the n-th operation of a program that changes files fail: a kill, a full disk, EIO."""

import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MODES = {"count": 0, "kill": 1, "kill half-way": 2, "full disk": 3, "I/O error": 4}
PLAN = struct.Struct("qqq4096s")  # as `struct plan` in fault.c


@dataclass(frozen=True)
class Job:
    """A program's command line, and the folder whose file operations count."""

    program: str
    argv: tuple[str, ...]
    root: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its exit status, the number of operations, and what it said."""

    status: int
    operations: int
    output: str


def compiler() -> str | None:
    """The C compiler of this machine, if it has one; faults are injected on Linux alone."""
    return (shutil.which("cc") or shutil.which("gcc")) if sys.platform == "linux" else None


class Bench:
    """Runs jobs one after another, each with at most one fault."""

    def __init__(self, folder: Path):
        self.folder, self.plan = folder, folder / "plan"
        self.plan.write_bytes(bytes(PLAN.size))
        library = folder / "fault.so"
        command = [compiler(), "-shared", "-fPIC", "-O1", "-o", library, HERE / "fault.c", "-ldl"]
        subprocess.run(command, check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), "FAULT_PLAN": str(self.plan)}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "zygote.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment, cwd=HERE.parents[1],
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def close(self) -> None:
        """Ends the process that the jobs are forked from."""
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, job: Job, at: int = 0, mode: str = "count") -> Outcome:
        """Runs the job; the operation numbered `at` fails as `mode` says."""
        output = self.folder / "output"
        self._arm(at, MODES[mode], str(job.root))
        line = {"program": job.program, "argv": list(job.argv), "output": str(output)}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        operations = PLAN.unpack(self.plan.read_bytes())[0]
        self._arm(0, 0, "")
        return Outcome(status, operations, output.read_text(errors="replace"))

    def _arm(self, at: int, mode: int, root: str) -> None:
        with open(self.plan, "r+b") as handle:  # in place: the library has the file mapped
            handle.write(PLAN.pack(0, at, mode, os.fsencode(root)))
