"""Makes many runs in a pool of child processes, with progress, failures and signals.

Finished runs are skipped and stopped ones are resumed, so repeating a launch makes the remaining
runs. The pool is a `local.LocalPool` on this machine or an `on_ray.RayPool` on a cluster.
"""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Protocol

from tqdm import tqdm

from common.program import duration
from experiments.launch.estimate import Estimator, epochs_of
from experiments.launch.tasks import Ended, Task
from experiments.report.reader import Reader

POLL_S = 0.1
REFRESH_S = 1.0  # between reads of the logs of active runs
RETRY_S = 0.5  # before retrying a run that is in use by another process


class Pool(Protocol):
    """A pool of child processes: its description, and handle -> task of the running children.

    `ended` yields the tasks that ended since the last call, or a text saying why one must wait.
    """

    about: str
    running: dict

    def has_room(self) -> bool: ...
    def start(self, task: Task) -> None: ...
    def ended(self) -> Iterator[tuple[Task, Ended | str]]: ...
    def stop(self, number: int) -> None: ...


class Progress:
    """Finished and planned epochs, from the logs of the runs."""

    def __init__(self, reader: Reader, tasks: Sequence[Task]):
        self.results, estimator = reader.results, Estimator(reader)
        self.made = {task: estimator.epochs_behind(task.runs, task.seed) for task in tasks}
        self.planned = {task: epochs_of(task.runs) for task in tasks}
        self.first, self.begun = self.count, time.monotonic()

    def update(self, task: Task, done: bool | None = None) -> None:
        """Updates a task's epochs; no epochs remain if it is `done` (True) or failed (False)."""
        self.made[task] = len(task.folder(self.results).read_log())
        if done:
            self.made[task] = max(self.made[task], self.planned[task])
        elif done is False:
            self.planned[task] = self.made[task]

    @property
    def count(self) -> int:
        return sum(self.made.values())

    @property
    def total(self) -> int:
        """All epochs; a method with stages may need more than --max_epochs."""
        return sum(max(self.made[task], epochs) for task, epochs in self.planned.items())

    def remaining(self) -> float | None:
        """Seconds left at the current pace; None before the first epoch."""
        new, spent = self.count - self.first, time.monotonic() - self.begun
        return spent / new * (self.total - self.count) if new > 0 else None


class Sweep:
    """The state of one launch: waiting, finished and failed runs."""

    def __init__(self, reader: Reader, tasks: Sequence[Task], pool: Pool):
        self.pool, self.progress = pool, Progress(reader, tasks)
        self.waiting = dict.fromkeys(tasks, 0.0)  # task -> earliest time to start it
        self.failures: list[str] = []
        self.done, self.total = 0, len(tasks)
        self.signals: list[int] = []  # received; the first decides the exit status
        self.noted: set[Task] = set()

    def work(self) -> None:
        """Loops until no run is waiting or running; starts no new run after a signal."""
        tqdm.monitor_interval = 0  # no monitor thread: we refresh the bar ourselves
        with tqdm(
            total=self.progress.total, initial=self.progress.count, desc=f"0 of {self.total} runs",
            unit="epoch", disable=None, smoothing=0,
        ) as bar:  # fmt: skip
            refreshed, passed_on = 0.0, 0
            while self.pool.running or (self.waiting and not self.signals):
                now = time.monotonic()
                for task in [task for task, at in self.waiting.items() if at <= now]:
                    if not self.signals and self.pool.has_room():
                        del self.waiting[task]
                        self.pool.start(task)
                for number in self.signals[passed_on:]:  # children stop between two steps
                    passed_on += 1
                    print_above(f"stopping {len(self.pool.running)} runs ...", sys.stderr)
                    self.pool.stop(number)
                for task, ended in self.pool.ended():
                    self.note_end(task, ended)
                if time.monotonic() - refreshed >= REFRESH_S:
                    refreshed = time.monotonic()
                    self.refresh(bar)
                time.sleep(POLL_S)
            self.refresh(bar)

    def note_end(self, task: Task, ended: Ended | str) -> None:
        """Records how a child ended, or that its run must wait."""
        if isinstance(ended, str):
            self.waiting[task] = time.monotonic() + RETRY_S
            if task not in self.noted:
                self.noted.add(task)
                print_above(f"note: {task.name} waits: {ended}", sys.stderr)
            return
        if self.signals and ended.why and not ended.done:
            print_above(f"stopped {task.name}")
            return
        self.progress.update(task, ended.done)
        why = ended.why or "exit status 0, but no result.json"
        if ended.done:
            self.done += 1
            late = f", then {ended.why}" if ended.why else ""
            text = f"done {task.name} ({ended.seconds:.0f} s{late})"
        else:
            self.failures.append("\n    ".join([f"FAILED {task.name}: {why}", *ended.tail]))
            text = f"FAILED {task.name} ({why})"
        seconds = self.progress.remaining()
        ahead = f", about {duration(seconds)} left" if seconds else ""
        print_above(f"{text}  {self.done + len(self.failures)} of {self.total}{ahead}")

    def refresh(self, bar: tqdm) -> None:
        """Updates the progress bar."""
        if bar.disable:
            return
        for task in self.pool.running.values():
            self.progress.update(task)
        bar.total, bar.n = self.progress.total, self.progress.count
        bar.set_description(f"{self.done} of {self.total} runs", refresh=False)
        bar.refresh()


def print_above(text: str, file: IO[str] | None = None) -> None:
    """Prints a line above the progress bar and flushes it."""
    file = file or sys.stdout
    tqdm.write(text, file=file)
    file.flush()


def sweep(reader: Reader, tasks: Sequence[Task], pool: Pool) -> int:
    """Makes the runs that are not done; returns 0, 1 if any failed, 128 + n after signal n."""
    states = {task: reader.run(task.runs, task.seed)[1] for task in tasks}
    todo = [task for task, state in states.items() if state not in ("done", "unusable")]
    failures = []
    for task in (task for task, state in states.items() if state == "unusable"):
        command = task.runs.command(task.seed, (*task.flags, "--overwrite"))
        why = "its folder is unusable; this command replaces it:"
        failures.append(f"FAILED {task.name}: {why}\n    {command}")
    skipped = len(tasks) - len(todo) - len(failures)
    print(f"{len(todo)} runs to make, {skipped} done; {pool.about}", flush=True)
    state = Sweep(reader, todo, pool)

    def note(number: int, _: object) -> None:  # the loop forwards the signal
        state.signals.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        state.work()
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    failures += state.failures
    for failure in failures:
        print(failure, file=sys.stderr)
    left = len(todo) - state.done - len(state.failures)
    print(f"{state.done} done, {len(failures)} failed" + (f", {left} left" if left else ""))
    if state.signals:
        print("stopped; run the same command to continue", file=sys.stderr)
        return 128 + state.signals[0]
    return 1 if failures else 0
