"""Many runs to be made, wherever their children work: skipping, progress, failures, signals.

Runs that are done are skipped and stopped ones go on, so the same launch again does what is left.
Where the children work is a pool's business: `launch.LocalPool` has this machine's devices,
`cluster.RayPool` those of a cluster.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

from experiments.launch.estimate import Estimator, duration, whole_lines
from experiments.launch.tasks import Ended, Failure, Task
from experiments.report.reader import Reader

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.1
LOOK_S = 1.0  # between two looks at the logs of runs at work
RETRY_S = 0.5  # before another process's run is tried again


class Pool(Protocol):
    """Where children work."""

    about: str  # in words
    running: dict  # a handle of the pool's own -> the task at work

    def has_room(self) -> bool:
        """Whether one more task can be started."""

    def start(self, task: Task) -> None:
        """Starts the child of a task."""

    def ended(self) -> Iterator[tuple[Task, Ended | str]]:
        """What ended since the last call; a text: why the run has to wait."""

    def stop(self, number: int) -> None:
        """Passes a signal on to every child."""


class Progress:
    """Epochs behind and ahead of a sweep, by the logs of its runs.

    A log is read again when it has another size: once an epoch.
    """

    def __init__(self, reader: Reader, tasks: Sequence[Task]):
        self.results, estimator = reader.results, Estimator(reader)
        self.epochs = {task: estimator.epochs(task.runs) for task in tasks}
        self.behind = {task: estimator.behind(task.runs, task.seed) for task in tasks}
        self.sizes: dict[Task, int] = {}
        self.first, self.begun = sum(self.behind.values()), time.monotonic()

    def look(self, task: Task) -> None:
        """Counts the epochs of a run at work."""
        folder = task.runs.folder(self.results, task.seed)
        try:
            size = folder.file("log.jsonl").stat().st_size
        except FileNotFoundError:
            return
        if size != self.sizes.get(task):
            self.sizes[task], self.behind[task] = size, len(whole_lines(folder))

    def end(self, task: Task, done: bool) -> None:
        """Takes what is left of a task off the work ahead: it is made, or it failed."""
        if done:
            self.look(task)
            self.behind[task] = max(self.behind[task], self.epochs[task])
        else:
            self.epochs[task] = self.behind[task]

    @property
    def count(self) -> int:
        """Epochs behind."""
        return sum(self.behind.values())

    @property
    def total(self) -> int:
        """Epochs in all; a method with stages of its own may make more than --max_epochs."""
        return sum(max(self.behind[task], epochs) for task, epochs in self.epochs.items())

    def remaining(self) -> float | None:
        """Seconds to go at the pace so far; None before the first epoch."""
        made = self.count - self.first
        spent = time.monotonic() - self.begun
        return spent / made * (self.total - self.count) if made > 0 else None


class Sweep:
    """The state of one launch: what waits, what was done, what failed."""

    def __init__(self, reader: Reader, tasks: Sequence[Task], pool: Pool):
        self.pool, self.progress = pool, Progress(reader, tasks)
        self.waiting = dict.fromkeys(tasks, 0.0)  # task -> not to be tried before then
        self.failures: list[Failure] = []
        self.done, self.total = 0, len(tasks)
        self.signals: list[int] = []  # received and not yet passed on
        self.stopped_by = 0
        self.noted: set[Task] = set()

    def note_signal(self, number: int, _: object) -> None:
        """The signal handler: the loop passes the signal on."""
        self.signals.append(number)
        self.stopped_by = self.stopped_by or number

    def pass_signals_on(self) -> None:
        """Gives each received signal to the children: they stop between two steps."""
        while self.signals:
            number = self.signals.pop(0)
            tqdm.write(f"stopping {len(self.pool.running)} runs ...", file=sys.stderr)
            self.pool.stop(number)

    def start_waiting(self) -> None:
        """Starts what waits, as far as there is room."""
        now = time.monotonic()
        for task in [task for task, at in self.waiting.items() if at <= now]:
            if not self.pool.has_room():
                return
            del self.waiting[task]
            self.pool.start(task)

    def judge(self, task: Task, ended: Ended | str) -> None:
        """Notes how a child ended."""
        if isinstance(ended, str):
            self.waiting[task] = time.monotonic() + RETRY_S
            if task not in self.noted:
                self.noted.add(task)
                tqdm.write(f"note: {task.name} waits: {ended}", file=sys.stderr)
            return
        stopped = self.stopped_by and ended.why and not ended.done
        if not stopped:
            self.progress.end(task, ended.done)
        if ended.done:
            self.done += 1
            late = f", then {ended.why}" if ended.why else ""
            say(f"done {task.name} ({ended.seconds:.0f} s{late}){self.outlook()}")
        elif stopped:
            say(f"stopped {task.name}")
        else:
            why = ended.why or "exit status 0, and no result.json"
            self.failures.append(Failure(task, why, ended.tail))
            say(f"FAILED {task.name} ({why}){self.outlook()}")

    def outlook(self) -> str:
        """How many runs are behind us, and how long the others will take."""
        seconds = self.progress.remaining()
        ahead = f", about {duration(seconds)} left" if seconds else ""
        return f"  {self.done + len(self.failures)} of {self.total}{ahead}"

    def work(self) -> None:
        """Until nothing waits or runs; after a signal nothing new is started."""
        tqdm.monitor_interval = 0  # no second thread: we refresh the bar ourselves
        with tqdm(
            total=self.progress.total, initial=self.progress.count, desc=f"0 of {self.total} runs",
            unit="epoch", disable=None, smoothing=0,
        ) as bar:  # fmt: skip
            looked = 0.0
            while self.pool.running or (self.waiting and not self.stopped_by):
                if not self.stopped_by:
                    self.start_waiting()
                self.pass_signals_on()
                for task, ended in self.pool.ended():
                    self.judge(task, ended)
                if time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    self.show(bar)
                time.sleep(POLL_S)
            self.show(bar)

    def show(self, bar: tqdm) -> None:
        """Brings the bar up to date; its clock goes on while nothing ends."""
        if bar.disable:
            return
        for task in self.pool.running.values():
            self.progress.look(task)
        bar.total, bar.n = self.progress.total, self.progress.count
        bar.set_description(f"{self.done} of {self.total} runs", refresh=False)
        bar.refresh()


def say(text: str) -> None:
    """A line on standard output, above the progress bar, at once even into a file."""
    tqdm.write(text)
    sys.stdout.flush()


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handles SIGINT and SIGTERM by `handler`, and puts back what was there."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def sort_out(reader: Reader, tasks: Sequence[Task]) -> tuple[list[Task], list[Failure]]:
    """The tasks that are to be made, and those whose folder cannot be used."""
    todo, broken = [], []
    for task in tasks:
        state = reader.run(task.runs, task.seed)[1]
        if state == "unusable":
            command = task.runs.command(task.seed, (*task.flags, "--overwrite"))
            why = "its folder cannot be used; this gives it up and starts anew:"
            broken.append(Failure(task, why, (command,)))
        elif state != "done":
            todo.append(task)
    return todo, broken


def sweep(reader: Reader, tasks: Sequence[Task], pool: Pool) -> int:
    """Makes the runs that are not done; returns 0, 1 if any failed, 128 + n after signal n."""
    todo, broken = sort_out(reader, tasks)
    skipped = len(tasks) - len(todo) - len(broken)
    print(f"{len(todo)} runs to make, {skipped} done; {pool.about}", flush=True)
    state = Sweep(reader, todo, pool)
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
