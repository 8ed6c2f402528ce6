"""Runs `train.py` processes in parallel on this machine: one per device, or several on the CPU."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.options import UsageError
from common.program import cores, free_memory
from experiments.launch.sweep import sweep
from experiments.launch.tasks import BUSY, TRAIN, Ended, Task, how_it_ended, start_child
from experiments.report.reader import Reader

SPARE = 1 << 30  # bytes of memory kept free while several runs are active; our choice


@dataclass(eq=False)
class Child:
    """A running child process in one of the slots."""

    process: subprocess.Popen
    slot: int
    begun: float = field(default_factory=time.monotonic)
    put_off: bool = False  # stopped because memory was low


class LocalPool:
    """A pool of slots on this machine; `slots` are their devices.

    Threads per child depend on the number of slots, not of runs: a run that is resumed by a later
    launch uses the same number of threads, which keeps its results identical to the last digit.
    """

    def __init__(self, results: Path, slots: Sequence[str], script: Path = TRAIN):
        self.results, self.slots, self.script = results, list(slots), script
        self.threads = max(1, cores() // len(slots))
        self.running: dict[Child, Task] = {}
        self.busy: list[Task] = []  # runs in use by another process
        self.most = len(slots)  # lowered when memory runs low
        devices = ",".join(sorted(set(slots)))
        self.about = f"devices {devices}, {len(slots)} at a time, {self.threads} CPU threads each"

    def has_room(self) -> bool:
        return len(self.running) < self.most

    def start(self, task: Task) -> None:
        """Starts a child in a free slot, unless another process is using that run."""
        slot = min(set(range(len(self.slots))) - {child.slot for child in self.running})
        words, log = task.words(self.slots[slot], self.threads), task.log_path(self.results)
        if self.slots[slot] != "cpu" and self.slots.count(self.slots[slot]) > 1:
            words += ["--cache", "off"]  # together they could claim more memory than the GPU has
        process = start_child(self.script, words, Path.cwd(), task.folder(self.results), log)
        if process:
            self.running[Child(process, slot)] = task
        else:
            self.busy.append(task)

    def ended(self) -> Iterator[tuple[Task, Ended | str]]:
        self.spare_memory()
        while self.busy:
            yield self.busy.pop(), BUSY
        for child in [c for c in self.running if c.process.poll() is not None]:
            task, status = self.running.pop(child), child.process.returncode
            log, seconds = task.log_path(self.results), time.monotonic() - child.begun
            found = how_it_ended(task.folder(self.results), log, status, seconds)
            if child.put_off and isinstance(found, Ended) and not found.done:
                found = f"memory is low, so at most {self.most} at a time from now on"
            yield task, found

    def spare_memory(self) -> None:
        """Stops the newest of several children before the system runs out of memory."""
        short = len(self.running) > 1 and free_memory() < SPARE
        if short and not any(child.put_off for child in self.running):  # one is already stopping
            youngest = max(self.running, key=lambda child: child.begun)
            youngest.put_off, self.most = True, len(self.running) - 1
            youngest.process.send_signal(signal.SIGTERM)

    def stop(self, number: int) -> None:
        for child in self.running:
            child.process.send_signal(number)


def pick_slots(devices: str, jobs: int | None) -> list[str]:
    """The device of each slot: one slot per GPU or core, or `jobs` in total."""
    if devices == "cpu":
        return ["cpu"] * (jobs or cores())
    names = devices.split(",")
    if not all(name.isdigit() for name in names) or len(set(names)) < len(names):
        raise UsageError(f"--devices {devices!r}: give CUDA device numbers, such as 0,1, or cpu")
    return [names[i % len(names)] for i in range(jobs or len(names))]


def cuda_devices() -> str:
    """The default of `--devices`: all CUDA devices of this machine, or cpu."""
    import torch  # not needed if --devices is given

    return ",".join(map(str, range(torch.cuda.device_count()))) or "cpu"


def launch(
    reader: Reader, tasks: Sequence[Task], slots: Sequence[str], script: Path = TRAIN
) -> int:
    """Like `sweep`, in a `LocalPool`."""
    return sweep(reader, tasks, LocalPool(reader.results, slots, script))
