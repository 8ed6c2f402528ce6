"""The same units of work on the machines of a Ray cluster: `--ray ADDRESS`.

Each sample is one task. The raw root and this project must stand under the same paths on all
machines (a shared file system), the environment of Python too; only the machine that started the
preparation writes shards, so their bytes do not depend on where samples were extracted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from common.cluster import connected
from data_prep.pool import CRASHED, attempt

TRIES = 2  # a lost machine must not cost a sample: what crashes is tried once more, elsewhere
START_S = 60.0  # a new worker imports decoders first; added to the time of its first samples

_ready: set[str] = set()  # per process: the preparations that were done


def run_task(work: Callable, prepare: Callable | None, item: Any) -> tuple[str, Any]:
    """One sample, on whatever machine; `prepare` runs once a process."""
    if prepare and prepare.__qualname__ not in _ready:
        prepare()
        _ready.add(prepare.__qualname__)
    return attempt(work, item)


class RayPool:
    """Like `workers.Pool`, over the CPUs of a Ray cluster; raises `UsageError` without Ray."""

    def __init__(
        self, work: Callable, address: str, limit_s: float, prepare: Callable | None = None
    ):
        self.work, self.prepare, self.limit_s = work, prepare, limit_s
        self.connection = connected(address)

    def __enter__(self) -> "RayPool":
        self.ray = self.connection.__enter__()
        self.task = self.ray.remote(num_cpus=1, max_retries=0)(run_task)
        self.cpus = max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        return self

    def __exit__(self, *problem: Any) -> None:
        self.connection.__exit__(*problem)

    def map(self, items: Sequence) -> Iterator[tuple[str, Any]]:
        """(DONE, result) or (CRASHED, text) for each item, in the items' order."""
        ready: dict[int, tuple[str, Any]] = {}
        todo, tries, emitted = deque(range(len(items))), [0] * len(items), 0
        running: dict[Any, tuple[int, float]] = {}
        while emitted < len(items):
            # No more than the cluster's CPUs at a time: what is not queued cannot run late.
            while todo and len(running) < self.cpus and todo[0] < emitted + 8 * self.cpus:
                item = todo.popleft()
                tries[item] += 1
                ref = self.task.remote(self.work, self.prepare, items[item])
                running[ref] = item, time.monotonic() + self.limit_s + START_S
            for item, result in self._collect(running):
                if result[0] == CRASHED and result[1] is None and tries[item] < TRIES:
                    todo.appendleft(item)
                else:
                    ready[item] = result if result[1] is not None else (CRASHED, "its worker died")
            while emitted in ready:
                yield ready.pop(emitted)
                emitted += 1

    def _collect(self, running: dict) -> Iterator[tuple[int, tuple[str, Any]]]:
        """What has ended; (CRASHED, None) where the worker or its machine died."""
        patience = max(0.0, min(deadline for _, deadline in running.values()) - time.monotonic())
        done, _ = self.ray.wait(list(running), num_returns=1, timeout=patience)
        for ref in done:
            item, _ = running.pop(ref)
            try:
                yield item, self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as error:  # the task itself could not begin
                yield item, (CRASHED, str(error).strip().splitlines()[-1])
            except self.ray.exceptions.RayError:
                yield item, (CRASHED, None)
        late = [ref for ref, (_, deadline) in running.items() if time.monotonic() > deadline]
        if late:  # an answer may have come meanwhile
            _, late = self.ray.wait(late, num_returns=len(late), timeout=0)
        for ref in late:
            item, _ = running.pop(ref)
            self.ray.cancel(ref, force=True)
            yield item, (CRASHED, f"no answer within {self.limit_s:g} s")
