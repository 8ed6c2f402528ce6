"""A pool of worker processes in which a crash or hang only loses the item being processed.

The standard library's process pool breaks completely if one worker dies, which native decoders can
cause. Here one thread supervises each worker and sends one item at a time. Workers come from a fork
server, so they inherit no threads or file descriptors: if the parent is killed, their pipe closes
and they exit.
"""

import errno
import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

# The result of an item whose worker died, hung or raised: (CRASHED, what happened).
CRASHED = "crashed"
DONE = "done"
FULL = "full"  # (FULL, the exception): no space for temporary files, which is not the item's fault
Result = tuple[str, Any]


def attempt(work: Callable, item: Any) -> Result:
    """(DONE, result), (FULL, the exception), or (CRASHED, the exception and its location)."""
    try:
        return DONE, work(item)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FULL, error
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
        return CRASHED, f"{type(error).__name__}: {error} ({where})"


def _serve(connection: Any, work: Callable, prepare: Callable | None) -> None:
    """The worker loop: receives an item, sends the result, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    if prepare:
        prepare()
    connection.send(DONE)  # ready
    while True:
        try:
            connection.send(attempt(work, connection.recv()))
        except (EOFError, ConnectionError):  # the parent is gone
            return


def _answer(future: Future) -> Result:
    state, result = future.result()
    if state == FULL:
        raise result
    return state, result


class Pool:
    """`workers` supervised processes that apply `work` to items.

    `prepare` runs once in each new worker; `limit_s` is the time limit per item.
    """

    def __init__(
        self,
        work: Callable,
        workers: int,
        limit_s: float = 60.0,
        prepare: Callable | None = None,
        preload: Sequence[str] = (),
    ):
        self.work, self.size, self.limit_s, self.prepare = work, workers, limit_s, prepare
        forks = "forkserver" in multiprocessing.get_all_start_methods()  # Windows has none
        self.context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self.context.set_forkserver_preload(list(preload))
        self.processes: dict[Any, Any] = {}  # connection -> worker
        self.own, self.closed = threading.local(), False  # the connection of each thread
        self.lock = threading.Lock()  # an exit code can be read only once

    def __enter__(self) -> Self:
        self.threads = ThreadPoolExecutor(self.size)
        return self

    def __exit__(self, *problem: Any) -> None:
        self.closed = True
        self.threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self.processes.values()):
            process.kill()  # unblocks the thread that waits for it
        self.threads.shutdown()
        for connection in list(self.processes):
            self._dismiss(connection)

    def map(self, items: Sequence) -> Iterator[Result]:
        """(DONE, result) or (CRASHED, text) for each item, in order.

        Raises `OSError` if the disk is full: the items are not to blame, and can be tried again.
        """
        pending: deque[Future] = deque()
        for item in items:
            pending.append(self.threads.submit(self.call, item))
            if len(pending) >= 8 * self.size:  # bounds the results held in memory
                yield _answer(pending.popleft())
        while pending:
            yield _answer(pending.popleft())

    def call(self, item: Any) -> Result:
        """Runs the work on one item in the worker of the calling thread."""
        if getattr(self.own, "connection", None) is None:
            self.own.connection = self._start()
        connection = self.own.connection
        process = self.processes[connection]
        try:
            connection.send(item)
            if not self.closed and connection.poll(self.limit_s):
                return connection.recv()
            what = f"no answer within {self.limit_s:g} s"
        except (EOFError, OSError):
            with self.lock:
                process.join(5)
            what = f"the worker died (exit code {process.exitcode})"
        self._dismiss(connection)
        self.own.connection = None
        return CRASHED, what

    def _start(self) -> Any:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, self.work, self.prepare), daemon=True
        )
        with self.lock:
            process.start()
        theirs.close()
        try:
            ours.recv()
        except EOFError:
            process.join(5)
            raise RuntimeError(
                f"a worker process could not start (exit code {process.exitcode})"
            ) from None
        self.processes[ours] = process
        return ours

    def _dismiss(self, connection: Any) -> None:
        process = self.processes.pop(connection)
        connection.close()
        process.kill()
        with self.lock:
            process.join()
