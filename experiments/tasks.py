"""One run to be made, as the launcher and a cluster's machines see it: its child, its log, its end.

A child is the plain `train.py` command that anybody could type. Its output goes to
<results>/launch/<dataset>-<method>-<variant>-seed<k>.log, on which it holds a lock until it has
ended: whoever wants to make the same run meanwhile waits for it instead of failing on it.

When the process that started it dies without a word (SIGKILL), the child must not train on unseen:
on Linux the kernel sends it SIGTERM then, which `train.py` obeys between two steps.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from experiments.artifacts import Runs
from experiments.run_folder import RunFolder

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
TAIL_LINES = 5

# Becomes the command after it has asked for SIGTERM at its parent's death. A program of its own and
# not a `preexec_fn`: that one may hang in a process with several threads, as Ray's workers are. The
# parent may have died before the question: hence the second look. 1: PR_SET_PDEATHSIG.
GUARD = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
if os.getppid() != int(parent):
    os.kill(os.getpid(), signal.SIGTERM)
os.execv(command[0], command)
"""


@dataclass(frozen=True)
class Task:
    """One run to be made; `flags` are further flags of its command: places, not settings."""

    runs: Runs
    seed: int
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """<dataset>/<method>/<variant>/seed<k>."""
        return f"{self.runs.name}/seed{self.seed}"

    def log_path(self, results: Path) -> Path:
        """Where the child's output goes: not into the run's folder, which is train.py's alone."""
        return results / "launch" / (self.name.replace("/", "-") + ".log")

    def words(self, device: str, threads: int) -> list[str]:
        """The flags of the child that makes the run."""
        places = ["--devices", device, "--threads", str(threads)]
        return [*self.runs.arguments(self.seed), *self.flags, *places]


@dataclass(frozen=True)
class Ended:
    """How a child ended: what counts is its result, which is written last.

    `why` is empty for exit status 0; `seconds` is how long it worked.
    """

    done: bool
    why: str
    seconds: float
    tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A task that did not end well, and what is known of it."""

    task: Task
    why: str
    details: tuple[str, ...] = ()

    def text(self) -> str:
        """For the end of the launch."""
        return "\n".join(
            [f"FAILED {self.task.name}: {self.why}", *(f"    {d}" for d in self.details)]
        )


def open_log(path: Path) -> IO[bytes] | None:
    """The emptied log, locked; None while another process that writes it is alive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    handle.truncate(0)
    return handle


def start_child(
    script: Path, words: Sequence[str], log: IO[bytes], folder: Path
) -> subprocess.Popen:
    """Starts `script` with the flags `words` in `folder`, its output going to `log`.

    It has a process group of its own: Ctrl-C reaches it once, through us.
    """
    command = [sys.executable, str(script), *words]
    if sys.platform.startswith("linux"):
        guard = [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid())]
        command = [*guard, *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
        process_group=0,
    )


def look(folder: RunFolder, log: Path, why: str, seconds: float) -> Ended:
    """What there is of a run whose child has ended."""
    done = folder.state == "done"
    return Ended(done, why, seconds, () if done else tail(log))


def tail(path: Path) -> tuple[str, ...]:
    """The log's last lines, and where to find the rest."""
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return (*lines[-TAIL_LINES:], f"(log: {path})")
