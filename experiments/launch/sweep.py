"""Makes many runs, wherever their processes work: skipping, progress, failures, signals.

Finished runs are skipped and stopped ones resumed, so the same launch again does what is left.
Children work in a pool: `local.LocalPool` has this machine's devices, `on_ray.RayPool` a cluster's.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

from common.program import duration
from experiments.launch.estimate import Estimator, epochs_of, logged_epochs
from experiments.launch.tasks import Ended, Task
from experiments.report.reader import Reader

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.1
REFRESH_S = 1.0  # between two readings of the logs of runs at work
RETRY_S = 0.5  # before a run that another process makes is tried again


class Pool(Protocol):
    """Where children work."""

    about: str  # in words
    running: dict  # a handle of the pool's own -> the task at work

    def has_room(self) -> bool:
        """Whether one more task can be started."""

    def start(self, task: Task) -> None:
        """Starts the child of a task."""

    def ended(self) -> Iterator[tuple[Task, Ended | str]]:
        """The tasks that ended since the last call; a text says why one has to wait."""

    def stop(self, number: int) -> None:
        """Passes a signal on to every child."""


class Progress:
    """Epochs made and planned, by the logs of the runs."""

    def __init__(self, reader: Reader, tasks: Sequence[Task]):
        self.results, estimator = reader.results, Estimator(reader)
        self.made = {task: estimator.epochs_behind(task.runs, task.seed) for task in tasks}
        self.planned = {task: epochs_of(task.runs) for task in tasks}
        self.first, self.begun = self.count, time.monotonic()

    def update(self, task: Task) -> None:
        """Counts the epochs of a run at work."""
        self.made[task] = len(logged_epochs(task.folder(self.results)))

    def end(self, task: Task, done: bool) -> None:
        """Takes what is left of a task off the work ahead: it is made, or it failed."""
        self.update(task)
        if done:
            self.made[task] = max(self.made[task], self.planned[task])
        else:
            self.planned[task] = self.made[task]

    @property
    def count(self) -> int:
        """Epochs made."""
        return sum(self.made.values())

    @property
    def total(self) -> int:
        """Epochs in all; a method with stages of its own may make more than --max_epochs."""
        return sum(max(self.made[task], epochs) for task, epochs in self.planned.items())

    def remaining(self) -> float | None:
        """Seconds to go at the pace so far; None before the first epoch."""
        new, spent = self.count - self.first, time.monotonic() - self.begun
        return spent / new * (self.total - self.count) if new > 0 else None


class Sweep:
    """The state of one launch: what waits, what was done, what failed."""

    def __init__(self, reader: Reader, tasks: Sequence[Task], pool: Pool):
        self.pool, self.progress = pool, Progress(reader, tasks)
        self.waiting = dict.fromkeys(tasks, 0.0)  # task -> not to be tried before then
        self.failures: list[str] = []
        self.done, self.total = 0, len(tasks)
        self.signals: list[int] = []  # received and not yet passed on
        self.stopped_by = 0
        self.noted: set[Task] = set()

    def note_signal(self, number: int, _: object) -> None:
        """The signal handler: the loop passes the signal on."""
        self.signals.append(number)
        self.stopped_by = self.stopped_by or number

    def work(self) -> None:
        """Until nothing waits or runs; after a signal nothing new is started."""
        tqdm.monitor_interval = 0  # no second thread: we refresh the bar ourselves
        with tqdm(
            total=self.progress.total, initial=self.progress.count, desc=f"0 of {self.total} runs",
            unit="epoch", disable=None, smoothing=0,
        ) as bar:  # fmt: skip
            refreshed = 0.0
            while self.pool.running or (self.waiting and not self.stopped_by):
                if not self.stopped_by:
                    self.start_waiting()
                while self.signals:  # children stop between two steps
                    print_above(f"stopping {len(self.pool.running)} runs ...", sys.stderr)
                    self.pool.stop(self.signals.pop(0))
                for task, ended in self.pool.ended():
                    self.note_end(task, ended)
                if time.monotonic() - refreshed >= REFRESH_S:
                    refreshed = time.monotonic()
                    self.refresh(bar)
                time.sleep(POLL_S)
            self.refresh(bar)

    def start_waiting(self) -> None:
        """Starts what waits, as far as there is room."""
        now = time.monotonic()
        for task in [task for task, at in self.waiting.items() if at <= now]:
            if not self.pool.has_room():
                return
            del self.waiting[task]
            self.pool.start(task)

    def note_end(self, task: Task, ended: Ended | str) -> None:
        """Notes how a child ended, or that its run has to wait."""
        if isinstance(ended, str):
            self.waiting[task] = time.monotonic() + RETRY_S
            if task not in self.noted:
                self.noted.add(task)
                print_above(f"note: {task.name} waits: {ended}", sys.stderr)
            return
        if self.stopped_by and ended.why and not ended.done:
            print_above(f"stopped {task.name}")
            return
        self.progress.end(task, ended.done)
        if ended.done:
            self.done += 1
            late = f", then {ended.why}" if ended.why else ""
            print_above(f"done {task.name} ({ended.seconds:.0f} s{late}){self.outlook()}")
        else:
            why = ended.why or "exit status 0, and no result.json"
            self.failures.append(failure_text(task, why, ended.tail))
            print_above(f"FAILED {task.name} ({why}){self.outlook()}")

    def outlook(self) -> str:
        """How many runs have ended, and how long the others will take."""
        seconds = self.progress.remaining()
        ahead = f", about {duration(seconds)} left" if seconds else ""
        return f"  {self.done + len(self.failures)} of {self.total}{ahead}"

    def refresh(self, bar: tqdm) -> None:
        """Brings the bar up to date; its clock goes on while nothing ends."""
        if bar.disable:
            return
        for task in self.pool.running.values():
            self.progress.update(task)
        bar.total, bar.n = self.progress.total, self.progress.count
        bar.set_description(f"{self.done} of {self.total} runs", refresh=False)
        bar.refresh()


def print_above(text: str, file: object = None) -> None:
    """A line above the progress bar, at once even into a file."""
    file = file or sys.stdout
    tqdm.write(text, file=file)
    file.flush()


def failure_text(task: Task, why: str, details: Sequence[str]) -> str:
    """What is known of a task that did not end well, for the end of the launch."""
    return "\n".join([f"FAILED {task.name}: {why}", *(f"    {line}" for line in details)])


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handles SIGINT and SIGTERM by `handler`, and puts back what was there."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def sweep(reader: Reader, tasks: Sequence[Task], pool: Pool) -> int:
    """Makes the runs that are not done; returns 0, 1 if any failed, 128 + n after signal n."""
    states = {task: reader.run(task.runs, task.seed)[1] for task in tasks}
    todo = [task for task, state in states.items() if state not in ("done", "unusable")]
    unusable = [task for task, state in states.items() if state == "unusable"]
    skipped = len(tasks) - len(todo) - len(unusable)
    print(f"{len(todo)} runs to make, {skipped} done; {pool.about}", flush=True)
    state = Sweep(reader, todo, pool)
    with handling(state.note_signal):
        state.work()
    failures = []
    for task in unusable:
        command = task.runs.command(task.seed, (*task.flags, "--overwrite"))
        why = "its folder cannot be used; this gives it up and starts anew:"
        failures.append(failure_text(task, why, [command]))
    failures += state.failures
    for failure in failures:
        print(failure, file=sys.stderr)
    left = len(todo) - state.done - len(state.failures)
    print(f"{state.done} done, {len(failures)} failed" + (f", {left} left" if left else ""))
    if state.stopped_by:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 128 + state.stopped_by
    return 1 if failures else 0
