"""Fuzzing of every reader of files: each input ends in a result or in an error that has a name.

    python tests/faults/fuzz.py --executions 2000000 --media 50000 --jobs 2

Errors with a name are `UsageError`, `Reject` and the pickle reader's `Refused`, with a message of
one short printable line. Anything else is a finding: another exception, a crash, more than
`MOST_MEMORY` beyond what is loaded, or more than `MOST_SECONDS`. Its input is kept in the folder
--keep, and the exit status is 1. Input n of a target depends only on its seeds, n and --seed.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fuzz_media  # noqa: E402
import fuzz_stored  # noqa: E402
import fuzz_targets  # noqa: E402
from fuzz_mutate import mutate  # noqa: E402

from common.options import UsageError  # noqa: E402
from data_prep.modalities.unpickle_child import Refused  # noqa: E402
from data_prep.reasons import Reject  # noqa: E402

TARGETS = fuzz_targets.TARGETS | fuzz_stored.TARGETS | fuzz_media.TARGETS
NAMED = (UsageError, Reject, Refused)
MOST_MEMORY = 1 << 30  # bytes
MOST_SECONDS = 10.0  # of CPU time, for one input
PATIENCE = 60.0  # seconds of the clock after which a process is ended
CHUNK_SHARE = 8  # parts into which a target's executions are divided
# Places in the numbers that a process shares with the one that watches it.
AT, SINCE, RESULTS, ERRORS, UNNAMED, SLOWEST, PEAK = range(7)


@dataclass
class Tally:
    """What came of a target's executions."""

    results: int = 0
    errors: int = 0
    unnamed: int = 0
    slowest: float = 0.0
    peak: float = 0.0
    kinds: set[str] = field(default_factory=set)

    def add(self, shared: Sequence[float]) -> None:
        """Adds the numbers of a process that has ended."""
        self.results += int(shared[RESULTS])
        self.errors += int(shared[ERRORS])
        self.unnamed += int(shared[UNNAMED])
        self.slowest = max(self.slowest, shared[SLOWEST])
        self.peak = max(self.peak, shared[PEAK])


def input_of(target: str, seeds: list[bytes], number: int, seed: int) -> bytes:
    """Input `number` of a target: its seeds themselves come first."""
    return seeds[number] if number < len(seeds) else mutate(seeds, f"{seed}/{target}/{number}")


def outcome(read: fuzz_targets.Read, data: bytes) -> tuple[str, str]:
    """("result", ""), ("error", its text), or the name of what has none and its traceback."""
    try:
        read(data)
        return "result", ""
    except NAMED as error:
        text = error.detail if isinstance(error, Reject) else str(error)
        try:
            fuzz_targets.check_message(text)
        except fuzz_targets.BadMessage as bad:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return f"BadMessage {last.filename}:{last.lineno}", f"{bad}\n{traceback.format_exc()}"
        return "error", text
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if str(ROOT) in f.filename and ".venv" not in f.filename]
        place = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else ""
        return f"{type(error).__name__} {place}", traceback.format_exc()


# One process --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A run of a target's inputs, from number `start` to before `stop`."""

    target: str
    start: int
    stop: int


def keep(folder: Path, name: str, what: str, data: bytes, text: str) -> None:
    """Keeps an offending input, one of each kind."""
    kind = hashlib.sha256(f"{name} {what}".encode()).hexdigest()[:8]
    path = folder / f"{name}-{kind}"
    if not path.with_suffix(f"{path.suffix}.bin").exists():
        Path(f"{path}.txt").write_text(f"{what}\n{text}", encoding="utf-8", errors="replace")
        Path(f"{path}.bin").write_bytes(data)


def limit_memory(media: bool) -> None:
    """No more address space than `MOST_MEMORY` above what is mapped, twice that for decoders.

    Decoders ask for room that they do not fill; what they do fill is measured.
    """
    with open("/proc/self/statm", encoding="ascii") as handle:
        mapped = int(handle.read().split()[0]) * resource.getpagesize()
    limit = mapped + MOST_MEMORY * (2 if media else 1)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(task: Task, seeds: list[bytes], seed: int, shared: Any, places: tuple[Path, Path]) -> None:
    """The life of a process: reads one input after the other, and counts in `shared`."""
    folder, kept = places
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    fuzz_media.single_threaded()
    target = TARGETS[task.target]
    read = target.reader(folder)
    limit_memory(target.media)
    first = before = peak()
    for number in range(task.start, task.stop):
        data = input_of(task.target, seeds, number, seed)
        shared[AT], shared[SINCE] = number, time.monotonic()
        begun = time.process_time()
        what, text = outcome(read, data)
        taken, now = time.process_time() - begun, peak()
        if taken > MOST_SECONDS:
            what, text = "Slow", f"{taken:.1f} s"
        if now - before > MOST_MEMORY:
            what, text = "Memory", f"{(now - before) >> 20} MiB"
        before = now
        shared[SLOWEST] = max(shared[SLOWEST], taken)
        shared[PEAK] = (now - first) / 1e6
        shared[{"result": RESULTS, "error": ERRORS}.get(what, UNNAMED)] += 1
        if what not in ("result", "error"):
            keep(kept, task.target, what, data, f"input {number}, seed {seed}\n{text}")


# All of them --------------------------------------------------------------------------------------


class Pool:
    """Processes that work on tasks; one that crashes or hangs costs the input that it was at."""

    def __init__(self, folder: Path, kept: Path, seed: int, jobs: int):
        self.folder, self.kept, self.seed, self.jobs = folder, kept, seed, jobs
        # A fork has all modules loaded; nothing has run in this process that starts threads.
        self.context = multiprocessing.get_context("fork")
        self.seeds: dict[str, list[bytes]] = {}
        self.tallies: dict[str, Tally] = {}
        self.running: list[tuple[Any, Task, Any]] = []

    def make_seeds(self, names: Sequence[str]) -> None:
        """The sound inputs of the targets, made by a process of their own."""
        process = self.context.Process(target=self._write_seeds, args=(names,))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit("the sound inputs could not be made")
        for name in names:
            files = sorted((self.folder / "seeds" / name).iterdir())
            self.seeds[name] = [path.read_bytes() for path in files]

    def _write_seeds(self, names: Sequence[str]) -> None:
        fuzz_media.single_threaded()
        for name in names:
            place, made = self.folder / "making" / name, self.folder / "seeds" / name
            place.mkdir(parents=True)
            made.mkdir(parents=True)
            for k, data in enumerate(TARGETS[name].seeds(place)):
                (made / f"{k:03d}").write_bytes(data)

    def run(self, tasks: Sequence[Task]) -> None:
        """All tasks, `jobs` at a time."""
        waiting, done, total = deque(tasks), 0, sum(t.stop - t.start for t in tasks)
        told = begun = time.monotonic()
        while waiting or self.running:
            while waiting and len(self.running) < self.jobs:
                self._start(waiting.popleft())
            time.sleep(0.02)
            for entry in [e for e in self.running if self._ended(*e)]:
                self.running.remove(entry)
                rest = self._account(*entry)
                done += entry[1].stop - entry[1].start
                if rest:
                    done -= rest.stop - rest.start
                    waiting.appendleft(rest)
            if time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{done} of {total} after {told - begun:.0f} s", file=sys.stderr)

    def _start(self, task: Task) -> None:
        shared = self.context.RawArray("d", 7)
        shared[AT], shared[SINCE] = task.start - 1, time.monotonic()
        place = Path(tempfile.mkdtemp(prefix=f"{task.target}-", dir=self.folder))
        arguments = (task, self.seeds[task.target], self.seed, shared, (place, self.kept))
        process = self.context.Process(target=work, args=arguments)
        process.start()
        process.place = place
        self.running.append((process, task, shared))

    def _ended(self, process: Any, task: Task, shared: Any) -> bool:
        if process.is_alive() and time.monotonic() - shared[SINCE] > PATIENCE:
            process.kill()
        return not process.is_alive()

    def _account(self, process: Any, task: Task, shared: Any) -> Task | None:
        """Counts what a process did; the task that is left where it crashed."""
        process.join()
        shutil.rmtree(process.place, ignore_errors=True)
        self.tallies.setdefault(task.target, Tally()).add(shared)
        if process.exitcode == 0:
            return None
        number = int(shared[AT])
        if number < task.start:
            raise SystemExit(f"{task.target} could not be set up (status {process.exitcode})")
        self.tallies[task.target].unnamed += 1
        data = input_of(task.target, self.seeds[task.target], number, self.seed)
        what = f"Crash or hang, status {process.exitcode}"
        keep(self.kept, task.target, what, data, f"input {number}, seed {self.seed}\n")
        return Task(task.target, number + 1, task.stop) if number + 1 < task.stop else None


def shares(names: Sequence[str], executions: int, media: int) -> dict[str, int]:
    """The executions of each target, by its weight among those of its kind."""
    found = {}
    for name in names:
        kind = TARGETS[name].media
        whole = sum(TARGETS[n].weight for n in names if TARGETS[n].media == kind)
        found[name] = round((media if kind else executions) * TARGETS[name].weight / whole)
    return found


def tasks_of(counts: dict[str, int]) -> list[Task]:
    """The tasks, those of a target apart from each other, so that all are met early."""
    tasks = []
    for part in range(CHUNK_SHARE):
        for name, count in counts.items():
            start, stop = (count * k // CHUNK_SHARE for k in (part, part + 1))
            tasks += [Task(name, start, stop)] if stop > start else []
    return tasks


def table(tallies: dict[str, Tally]) -> str:
    """The results, a line a target."""
    lines = [f"{'target':18}executions   results    errors  unnamed  slowest s  peak MB"]
    for name, t in tallies.items():
        total = t.results + t.errors + t.unnamed
        lines.append(
            f"{name:18}{total:10}{t.results:10}{t.errors:10}{t.unnamed:9}"
            f"{t.slowest:11.2f}{t.peak:9.0f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the fuzzer; the exit status is 1 where something without a name happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=200_000, help="of all but media")
    parser.add_argument("--media", type=int, default=5_000, help="executions of decoders")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="this target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "fuzz-kept"))
    args = parser.parse_args(argv)
    memory = Path("/dev/shm")
    args.keep.mkdir(parents=True, exist_ok=True)
    names = args.only or list(TARGETS)
    counts = shares(names, args.executions, args.media)
    names = [name for name in names if counts[name]]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        pool = Pool(Path(folder), args.keep, args.seed, args.jobs)
        pool.make_seeds(names)
        pool.run(tasks_of(counts))
    print(table({name: pool.tallies[name] for name in names}))
    unnamed = sum(tally.unnamed for tally in pool.tallies.values())
    print(
        f"{time.monotonic() - begun:.0f} s; {unnamed} unnamed{f', see {args.keep}' * bool(unnamed)}"
    )
    return 1 if unnamed else 0


if __name__ == "__main__":
    sys.exit(main())
