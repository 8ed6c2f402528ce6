"""Worker processes of which each may crash or hang without taking more than its own item along.

The standard library's process pool breaks as a whole when one worker dies, and a media decoder is
native code that can do so. Here every worker is supervised by itself: it gets one item at a time,
and when it dies or exceeds the time limit the item is reported as crashed and a new worker starts.
Workers come from a fork server, so they inherit no threads and no descriptors of the parent: when
the parent is killed, they see their pipe close and end.
"""

import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

# The result of an item whose worker died, hung or raised: (CRASHED, what happened).
CRASHED = "crashed"
DONE = "done"


def attempt(work: Callable, item: Any) -> tuple[str, Any]:
    """(DONE, result), or (CRASHED, what was raised and where)."""
    try:
        return DONE, work(item)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
        return CRASHED, f"{type(error).__name__}: {error} ({where})"


def _serve(connection: Connection, work: Callable, prepare: Callable | None) -> None:
    """A worker's life: receive an item, do it, send the result, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if prepare:
        prepare()
    connection.send(DONE)  # ready
    while True:
        try:
            item = connection.recv()
        except (EOFError, ConnectionResetError):  # the parent is gone
            return
        try:
            connection.send(attempt(work, item))
        except BrokenPipeError:
            return


@dataclass
class _Worker:
    process: Any
    connection: Connection
    item: int | None = None
    deadline: float = 0.0


class Pool:
    """`workers` supervised processes that apply `work` to items.

    `prepare` runs once in each new worker; `limit_s` is the time that one item may take.
    """

    def __init__(
        self,
        work: Callable,
        workers: int,
        limit_s: float = 60.0,
        prepare: Callable | None = None,
        preload: Sequence[str] = (),
    ):
        self.work, self.prepare, self.limit_s = work, prepare, limit_s
        forks = "forkserver" in multiprocessing.get_all_start_methods()  # Windows has none
        self.context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self.context.set_forkserver_preload(list(preload))
        self.size = max(1, workers)
        self.workers: list[_Worker] = []

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, self.work, self.prepare), daemon=True
        )
        process.start()
        theirs.close()
        try:
            ours.recv()
        except EOFError:
            process.join(5)
            raise RuntimeError(
                f"a worker process could not start (exit code {process.exitcode})"
            ) from None
        return _Worker(process, ours)

    def _dismiss(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.join()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.workers:
            self._dismiss(worker)
        self.workers = []

    def map(self, items: Sequence) -> Iterator[tuple[str, Any]]:
        """(DONE, result) or (CRASHED, text) for each item, in the items' order."""
        while len(self.workers) < min(self.size, len(items)):
            self.workers.append(self._start())
        ready: dict[int, tuple[str, Any]] = {}
        todo, emitted = deque(range(len(items))), 0
        while emitted < len(items):
            # A bounded window: results that wait for a slow one before them stay few.
            for worker in self.workers:
                if worker.item is None and todo and todo[0] < emitted + 8 * self.size:
                    self._give(worker, todo.popleft(), items)
            self._collect(ready)
            while emitted in ready:
                yield ready.pop(emitted)
                emitted += 1

    def _give(self, worker: _Worker, item: int, items: Sequence) -> None:
        worker.item, worker.deadline = item, time.monotonic() + self.limit_s
        try:
            worker.connection.send(items[item])
        except (BrokenPipeError, OSError):
            pass  # it died while idle: `_collect` sees the closed pipe and reports this item

    def _collect(self, ready: dict[int, tuple[str, Any]]) -> None:
        """Waits until a worker answers, dies or runs out of time, and files what came."""
        busy = {w.connection: w for w in self.workers if w.item is not None}
        patience = min(w.deadline for w in busy.values()) - time.monotonic()
        for connection in wait(list(busy), timeout=max(0.0, patience)):
            worker = busy[connection]
            try:
                ready[worker.item] = connection.recv()
                worker.item = None
            except (EOFError, ConnectionResetError):
                worker.process.join(5)
                self._replace(
                    worker, ready, f"the worker died (exit code {worker.process.exitcode})"
                )
        for worker in self.workers:
            late = worker.item is not None and time.monotonic() > worker.deadline
            if late and not worker.connection.poll():  # an answer may have come since `wait`
                self._replace(worker, ready, f"no answer within {self.limit_s:g} s")

    def _replace(self, worker: _Worker, ready: dict, what: str) -> None:
        ready[worker.item] = (CRASHED, what)
        self._dismiss(worker)
        self.workers[self.workers.index(worker)] = self._start()
