"""Runs many `train.py` side by side: one for each device, or several on the CPU.

Each child is the plain command that anybody could type; its output goes to
<results>/launch/<dataset>-<method>-<variant>-seed<k>.log. Runs that are done are skipped and
stopped ones go on, so the same launch again does what is left.

When the launcher dies without a word (SIGKILL), its children must not train on unseen. On Linux
the kernel sends them SIGTERM then, which `train.py` obeys between two steps. In any case a child
inherits the lock on its log and holds it until it has ended: a launcher that is started again, or
beside another, waits for such a run instead of failing on it.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tqdm import tqdm

from common.options import UsageError
from common.program import cores
from experiments.artifacts import Runs
from experiments.reader import Reader

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.1
TAIL_LINES = 5
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


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


@dataclass
class Child:
    """A task at work in one of the slots."""

    task: Task
    slot: int
    process: subprocess.Popen
    begun: float = field(default_factory=time.monotonic)


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


def dying_with_parent() -> Callable[[], None] | None:
    """What a new child calls so that the kernel ends it with its parent; None where it cannot.

    The parent may have died before the child asked: hence the second look.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


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


def say(text: str) -> None:
    """A line on standard output, above the progress bar, at once even into a file."""
    tqdm.write(text)
    sys.stdout.flush()


def tail(path: Path) -> tuple[str, ...]:
    """The log's last lines, and where to find the rest."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return (*lines[-TAIL_LINES:], f"(log: {path})")


class Launch:
    """The state of one launch: what waits, what runs, how it went.

    A child's threads depend on the number of slots and not of runs: a run that a later launch goes
    on with then has the threads it had, and its last digits stay the same.
    """

    def __init__(self, reader: Reader, tasks: Sequence[Task], slots: Sequence[str], script: Path):
        self.reader, self.slots, self.script = reader, list(slots), script
        self.threads = max(1, cores() // len(slots))
        self.waiting, self.children = list(tasks), []
        self.failures: list[Failure] = []
        self.done = 0
        self.signals: list[int] = []  # received and not yet passed on
        self.stopped_by = 0
        self.noted: set[Task] = set()
        self.ask = dying_with_parent()

    def note_signal(self, number: int, _: object) -> None:
        """The signal handler: the loop passes the signal on."""
        self.signals.append(number)
        self.stopped_by = self.stopped_by or number

    def pass_signals_on(self) -> None:
        """Gives each received signal to every child: they stop between two steps."""
        while self.signals:
            number = self.signals.pop(0)
            tqdm.write(f"stopping {len(self.children)} runs ...", file=sys.stderr)
            for child in self.children:
                child.process.send_signal(number)

    def start_waiting(self) -> None:
        """Fills the free slots with tasks that no other process is at."""
        free = [s for s in range(len(self.slots)) if s not in {c.slot for c in self.children}]
        for task in list(self.waiting):
            if not free:
                return
            log = open_log(task.log_path(self.reader.results))
            if log is None:
                if task not in self.noted:
                    self.noted.add(task)
                    tqdm.write(f"note: another process is at {task.name}; waiting", file=sys.stderr)
                continue
            self.waiting.remove(task)
            with log:
                self.children.append(self.start(task, free.pop(0), log))

    def start(self, task: Task, slot: int, log: IO[bytes]) -> Child:
        """Starts a child, in a process group of its own: Ctrl-C reaches it once, through us."""
        command = [sys.executable, str(self.script), *task.runs.arguments(task.seed), *task.flags]
        command += ["--devices", self.slots[slot], "--threads", str(self.threads)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=self.ask,
        )
        return Child(task, slot, process)

    def collect_ended(self) -> None:
        """Takes the ended children out of their slots and judges them."""
        for child in [c for c in self.children if c.process.poll() is not None]:
            self.children.remove(child)
            self.judge(child, child.process.returncode)

    def judge(self, child: Child, status: int) -> None:
        """Notes how a child ended: what counts is its result, which is written last."""
        task, log = child.task, child.task.log_path(self.reader.results)
        if task.runs.folder(self.reader.results, task.seed).state == "done":
            self.done += 1
            late = f", then exit status {status}" if status else ""
            say(f"done {task.name} ({time.monotonic() - child.begun:.0f} s{late})")
        elif self.stopped_by and status:
            say(f"stopped {task.name}")
        else:
            why = f"exit status {status}" if status else "exit status 0, and no result.json"
            self.failures.append(Failure(task, why, tail(log)))
            say(f"FAILED {task.name} ({why})")

    def work(self) -> None:
        """Until nothing waits or runs; after a signal nothing new is started."""
        total = len(self.waiting)
        tqdm.monitor_interval = 0  # no second thread beside `preexec_fn`; we refresh it ourselves
        with tqdm(total=total, desc="runs", unit="run", disable=None, smoothing=0) as bar:
            while self.children or (self.waiting and not self.stopped_by):
                if not self.stopped_by:
                    self.start_waiting()
                self.pass_signals_on()
                self.collect_ended()
                bar.update(self.done + len(self.failures) - bar.n)
                bar.refresh()  # the clock goes on while nothing ends
                time.sleep(POLL_S)


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handles SIGINT and SIGTERM by `handler`, and puts back what was there."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def pick_slots(devices: str, jobs: int | None) -> list[str]:
    """The device of each child that runs at the same time.

    "cpu": `jobs` of them, by default one a core. CUDA devices "0,1": one each, or `jobs` spread
    over them.
    """
    if devices == "cpu":
        return ["cpu"] * (jobs or cores())
    names = devices.split(",")
    if not all(name.isdigit() for name in names) or len(set(names)) < len(names):
        raise UsageError(f"--devices {devices!r}: give CUDA devices by number, such as 0,1, or cpu")
    return [names[i % len(names)] for i in range(jobs or len(names))]


def cuda_devices() -> str:
    """The `--devices` value of this machine: all its CUDA devices, or cpu.

    Asked of torch, the one that will use them, in a process of its own: this one stays without it.
    """
    code = "import torch; print(torch.cuda.device_count())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise UsageError(
            f"torch cannot be imported ({answer.stderr.strip().splitlines()[-1]});"
            " install it: pip install -r requirements.txt"
        )
    count = int(answer.stdout)
    return ",".join(map(str, range(count))) if count else "cpu"


def launch(
    reader: Reader, tasks: Sequence[Task], slots: Sequence[str], script: Path = TRAIN
) -> int:
    """Makes the runs that are not done; returns 0, 1 if any failed, 128 + n after signal n."""
    todo, broken = [], []
    for task in tasks:
        state = reader.run(task.runs, task.seed)[1]
        if state == "unusable":
            command = task.runs.command(task.seed, (*task.flags, "--overwrite"))
            why = "its folder cannot be used; this gives it up and starts anew:"
            broken.append(Failure(task, why, (command,)))
        elif state != "done":
            todo.append(task)
    state = Launch(reader, todo, slots, script)
    skipped = len(tasks) - len(todo) - len(broken)
    print(
        f"{len(todo)} runs to make, {skipped} done; devices {','.join(sorted(set(slots)))},"
        f" {len(slots)} at a time, {state.threads} CPU threads each",
        flush=True,
    )
    with handling(state.note_signal):
        state.work()
    failures = broken + state.failures
    for failure in failures:
        print(failure.text(), file=sys.stderr)
    left = len(todo) - state.done - len(state.failures)
    print(f"{state.done} done, {len(failures)} failed" + (f", {left} left" if left else ""))
    if state.stopped_by:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 128 + state.stopped_by
    return 1 if failures else 0
