"""One run to be made, as the launcher and a cluster's machines see it: its child, its log, its end.

A child is the plain `train.py` command that anybody could type. Its output goes to
<results>/launch/<dataset>-<method>-<variant>-seed<k>.log. The run's folder is locked while the
child works, and another launcher waits for it. If its launcher is killed, the child stops as at
SIGTERM.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import Busy
from common.stop import PARENT
from experiments.paper.kinds import RunSet
from experiments.run.folder import RunFolder

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
TAIL_LINES = 5
BUSY = "another process is working on it"


@dataclass(frozen=True)
class Task:
    """One run to be made; `flags` are further flags of its command: places, not settings."""

    runs: RunSet
    seed: int
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """<dataset>/<method>/<variant>/seed<k>."""
        return f"{self.runs.name}/seed{self.seed}"

    def folder(self, results: Path) -> RunFolder:
        return self.runs.folder(results, self.seed)

    def log_path(self, results: Path) -> Path:
        """Where the child's output goes: not into the run's folder, which is train.py's alone."""
        return results / "launch" / (self.name.replace("/", "-") + ".log")

    def words(self, device: str, threads: int) -> list[str]:
        """The flags of the child that makes the run."""
        places = ["--devices", device, "--threads", str(threads)]
        return [*self.runs.arguments(self.seed), *self.flags, *places]


@dataclass(frozen=True)
class Ended:
    """How a child ended; what counts is its result, which is written last.

    `why` is empty for exit status 0; `seconds` is how long it worked; `tail` ends its log.
    """

    done: bool
    why: str
    seconds: float
    tail: tuple[str, ...] = ()


def start_child(
    script: Path, words: Sequence[str], here: Path, run: RunFolder, log: Path
) -> subprocess.Popen | None:
    """Starts `script`, its output going to `log`; None while another process works on the run."""
    if run.busy():
        return None
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as handle:
        return subprocess.Popen(
            [sys.executable, str(script), *words],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            cwd=here,
            env=os.environ | {PARENT: str(os.getpid())},
            process_group=0,  # so that Ctrl-C reaches it once, through us
        )


def how_it_ended(run: RunFolder, log: Path, status: int, seconds: float) -> Ended | str:
    """The end of a run's child; `BUSY` where another process works on the run."""
    if status == Busy.exit_status:
        return BUSY
    why = f"exit status {status}" if status else ""
    if status == -9:
        why += ": killed, most often by the system for want of memory; fewer --jobs need less"
    return ending(run, log, why, seconds)


def ending(run: RunFolder, log: Path, why: str, seconds: float) -> Ended:
    """The end of a run by what it left, with the log's last lines if it is not done."""
    if run.state == "done" or not log.exists():
        return Ended(run.state == "done", why, seconds)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return Ended(False, why, seconds, (*lines[-TAIL_LINES:], f"(log: {log})"))
