"""One run to be made: its child process, its log, and how it ended.

A child is a plain `train.py` command. Its output goes to
<results>/launch/<dataset>-<method>-<variant>-seed<k>.log. The run folder is locked while the child
is running, and other launchers wait for it. If its launcher is killed, the child stops as on
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
BUSY = "another process is using it"


@dataclass(frozen=True)
class Task:
    """One run to be made; `flags` are additional flags for folders, not for settings."""

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
        """The file for the child's output, outside the run folder, which only train.py writes."""
        return results / "launch" / (self.name.replace("/", "-") + ".log")

    def words(self, device: str, threads: int) -> list[str]:
        """The flags of the child process."""
        places = ["--devices", device, "--threads", str(threads)]
        return [*self.runs.arguments(self.seed), *self.flags, *places]


@dataclass(frozen=True)
class Ended:
    """How a child ended; `done` means that result.json exists.

    `why` is empty for exit status 0; `seconds` is its run time; `tail` the last lines of its log.
    """

    done: bool
    why: str
    seconds: float
    tail: tuple[str, ...] = ()


def start_child(
    script: Path, words: Sequence[str], here: Path, run: RunFolder, log: Path
) -> subprocess.Popen | None:
    """Starts `script` with its output in `log`; returns None if another process uses the run."""
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
            process_group=0,  # Ctrl-C reaches it only through the launcher
        )


def how_it_ended(run: RunFolder, log: Path, status: int, seconds: float) -> Ended | str:
    """How a run's child ended; `BUSY` if another process is using the run."""
    if status == Busy.exit_status:
        return BUSY
    why = f"exit status {status}" if status else ""
    if status == -9:
        why += ": killed, most often because memory ran out; use fewer --jobs"
    return ending(run, log, why, seconds)


def ending(run: RunFolder, log: Path, why: str, seconds: float) -> Ended:
    """How a run ended, judged by its files; with the last lines of its log if it is not done."""
    if run.state == "done" or not log.exists():
        return Ended(run.state == "done", why, seconds)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return Ended(False, why, seconds, (*lines[-TAIL_LINES:], f"(log: {log})"))
