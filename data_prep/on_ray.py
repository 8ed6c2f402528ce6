"""Preparation on a Ray cluster: `--ray ADDRESS`.

Each sample is one task. The raw root, this project and the Python environment must have the same
paths on all machines (a shared file system). Only the machine that started the preparation writes
shards, so their bytes do not depend on where samples were extracted.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, Self

from common.cluster import connected
from data_prep.pool import CRASHED, Pool, Result, attempt

TRIES = 2  # a crashed task is retried once elsewhere, so a lost machine does not lose a sample
START_S = 60.0  # added to each sample's time limit: a new worker first imports the decoders


@functools.cache
def once(prepare: Callable) -> None:
    """Calls `prepare` once per process."""
    prepare()


def run_task(work: Callable, prepare: Callable | None, item: Any) -> Result:
    """Processes one sample on any machine; `prepare` runs once per process."""
    if prepare:
        once(prepare)
    return attempt(work, item)


class RayPool(Pool):
    """A pool over the CPUs of a Ray cluster; raises `UsageError` if Ray is not installed."""

    def __init__(
        self, work: Callable, address: str, limit_s: float, prepare: Callable | None = None
    ):
        super().__init__(work, 1, limit_s, prepare)
        self.connection = connected(address)

    def __enter__(self) -> Self:
        self.ray = self.connection.__enter__()
        self.task = self.ray.remote(num_cpus=1, max_retries=0)(run_task)
        # Submit no more tasks than CPUs: time in a queue would count towards the time limit.
        self.size = max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self.connection.__exit__(*problem)

    def call(self, item: Any) -> Result:
        """Runs the work on one item as a Ray task."""
        for _ in range(TRIES):
            ref = self.task.remote(self.work, self.prepare, item)
            deadline = time.monotonic() + self.limit_s + START_S
            while not self.ray.wait([ref], timeout=1.0)[0]:
                if self.closed or time.monotonic() > deadline:
                    self.ray.cancel(ref, force=True)
                    return CRASHED, f"no answer within {self.limit_s:g} s"
            try:
                return self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as error:  # the task could not start
                return CRASHED, str(error).strip().splitlines()[-1]
            except self.ray.exceptions.RayError:
                continue
        return CRASHED, "its worker died"
