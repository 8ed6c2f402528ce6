"""Runs a program again and again, each time in a fork of one process that has imported it all.

Reads a JSON object a line on standard input, {"program": ..., "argv": [...], "output": PATH}, and
answers each with the exit status; minus the signal that ended it. Importing torch takes longer than
the run that a fault ends.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import evaluate  # noqa: E402, F401
import experiments.run.session  # noqa: E402, F401
import make_tables  # noqa: E402, F401
import train  # noqa: E402, F401
from common.program import run  # noqa: E402
from data_prep import pool, prepare, sample  # noqa: E402
from experiments.report import draw, html  # noqa: E402, F401

SMALL_SHARD = 20  # samples: several shards of a small set


class InProcessPool:
    """Stands for the pool of worker processes: the same rows, made in this process."""

    def __init__(self, root: Path, spec: Any, folder: Path):
        self.rest = root, spec, folder

    def __enter__(self) -> "InProcessPool":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def map(self, candidates: list) -> Any:
        for candidate in candidates:
            yield pool.DONE, sample.extract_row(*self.rest, candidate)


def child(job: dict) -> int:
    """The program, as in a process of its own."""
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    prepare.SHARD_SIZE = SMALL_SHARD
    prepare.make_pool = lambda root, spec, count, limit, folder, ray="": InProcessPool(
        root, spec, folder
    )
    main = importlib.import_module(job["program"]).main
    status = run(main, job["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def serve() -> None:
    """One fork a line, until the input ends."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            status = 70
            try:
                status = child(job)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
            os._exit(status)
        _, ended = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    print("ready", flush=True)
    serve()
