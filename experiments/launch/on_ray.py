"""Makes runs on a Ray cluster: `python -m experiments run NAME --ray ADDRESS`.

Each run is one Ray task, which starts the same child process as the local launcher, in this working
directory and with this Python. Data, results and project must have the same paths on all machines.
Ray does not retry runs; repeating the command resumes stopped runs.
"""

import math
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.cluster import connected
from experiments.launch.sweep import POLL_S, sweep
from experiments.launch.tasks import BUSY, TRAIN, Ended, Task, ending, how_it_ended, start_child
from experiments.report.reader import Reader
from experiments.run.folder import RunFolder

PATIENCE_S = 60.0  # for a child to stop, which it does between two steps


def make_run(script: str, words: list[str], here: str, folder: str, log: str) -> Ended | str:
    """Makes a run on any machine of the cluster; returns how it ended, or why it must wait.

    The result is checked here, since the launcher's machine may see new files on a shared file
    system late. `ray.cancel` arrives as a KeyboardInterrupt. If the launcher ends, this process
    gets SIGTERM, or the kernel sends it to the child.
    """
    run, begun = RunFolder(Path(folder)), time.monotonic()
    child = start_child(Path(script), words, Path(here), run, Path(log))
    if child is None:
        return BUSY
    try:
        while child.poll() is None:
            time.sleep(POLL_S)  # not `wait()`, which `ray.cancel` does not interrupt
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    return how_it_ended(run, Path(log), child.returncode, time.monotonic() - begun)


class RayPool:
    """A Ray cluster; `jobs` is the number of runs submitted at a time (None: all).

    With GPUs, each run gets one (or a share, if there are more jobs than GPUs) and a proportional
    number of CPUs. Without GPUs, the CPUs are divided among the jobs, by default one per job.
    """

    def __init__(self, ray: Any, results: Path, cpu: bool, jobs: int | None, script: Path = TRAIN):
        self.ray, self.results, self.jobs, self.script = ray, results.resolve(), jobs, script
        self.running: dict[Any, Task] = {}
        self.begun: dict[Any, float] = {}
        self.stopping = False
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = 0.0 if cpu else sum(node.get("GPU", 0) for node in nodes)
        share, cpus = split(nodes, gpus, jobs)
        self.device, self.threads = "0" if gpus else "cpu", max(1, cpus)
        self.task = ray.remote(num_cpus=cpus, num_gpus=share, max_retries=0)(make_run)
        has = f"{sum(node.get('CPU', 0) for node in nodes):.0f} CPUs"
        each = f"{self.threads} CPU threads each"
        if gpus:
            has, each = f"{has} and {gpus:.0f} GPUs", f"{share:.2g} GPU and {each}"
        self.about = f"a cluster of {len(nodes)} machines with {has}, {each}"

    def has_room(self) -> bool:
        """Whether to submit another run; the cluster queues runs that do not fit."""
        return self.jobs is None or len(self.running) < self.jobs

    def start(self, task: Task) -> None:
        words, folder = task.words(self.device, self.threads), task.folder(self.results).path
        places = (Path.cwd(), folder, task.log_path(self.results))
        ref = self.task.remote(str(self.script), words, *map(str, places))
        self.running[ref], self.begun[ref] = task, time.monotonic()

    def ended(self) -> Iterator[tuple[Task, Ended | str]]:
        """Yields the tasks that returned, were cancelled, or were lost with their machine."""
        refs = list(self.running)
        ready = self.ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        errors = self.ray.exceptions
        for ref in ready:
            task, seconds = self.running.pop(ref), time.monotonic() - self.begun.pop(ref)
            try:
                yield task, self.ray.get(ref)
                continue
            except errors.TaskCancelledError:
                why = "cancelled"
            except errors.RayTaskError as error:
                why = str(error).strip().splitlines()[-1]
            except errors.RayError as error:
                why = f"its worker died ({type(error).__name__})"
            yield task, ending(task.folder(self.results), task.log_path(self.results), why, seconds)

    def stop(self, number: int) -> None:
        """Cancels all tasks, queued ones first; a second call kills those still running."""
        for ref in reversed(self.running):
            self.ray.cancel(ref, force=self.stopping)
        self.stopping = True


def split(nodes: Sequence[dict], gpus: float, jobs: int | None) -> tuple[float, int]:
    """(GPUs, CPUs) per run; without GPUs, the most CPUs that let all jobs run in parallel."""
    if gpus:
        share = 1 / max(1, math.ceil((jobs or 1) / gpus))
        beside = [node.get("CPU", 0) / node["GPU"] for node in nodes if node.get("GPU", 0)]
        return share, int(min(beside) * share)
    sizes = [int(node.get("CPU", 0)) for node in nodes]
    wanted = jobs or sum(sizes)
    fitting = (c for c in range(max(sizes), 0, -1) if sum(n // c for n in sizes) >= wanted)
    return 0, next(fitting, 1)


def launch(
    reader: Reader,
    tasks: Sequence[Task],
    address: str,
    cpu: bool = False,
    jobs: int | None = None,
    script: Path = TRAIN,
) -> int:
    """Like `local.launch`, on the cluster at `address`; `cpu` ignores its GPUs."""
    with connected(address) as ray:
        return sweep(reader, tasks, RayPool(ray, reader.results, cpu, jobs, script))
