"""Bit flips in the files of a run and of its data: each is reported, or changes no result.

A run is stopped after some epochs, one bit of one of its files (or of its data's) changes, and the
same command goes on. It must end as undisturbed, bit by bit, or refuse in one line.
"""

import random
import shutil
from pathlib import Path

from harness import Bench
from scenarios import Scenario, Verdict

# Files in which a flip may go unnoticed: they affect no result, at most a message.
SILENT = ("error.txt", ".local.json", ".lock", "manifest.csv", "rejected.csv")


def stopped(bench: Bench, scenario: Scenario, place: Path, operations: int) -> None:
    """A run that was killed when three quarters of its work were done."""
    shutil.rmtree(place, ignore_errors=True)
    outcome = bench.run(scenario.begin(place), 3 * operations // 4, "kill")
    assert outcome.status == -9, outcome.output


def kinds(place: Path) -> list[Path]:
    """One file of each name under `place` that decides something, relative to it."""
    found = {p.name: p.relative_to(place) for p in sorted(place.rglob("*")) if p.is_file()}
    return [path for name, path in found.items() if name not in SILENT and ".tmp" not in name]


def flip(path: Path, draw: random.Random) -> int:
    """Changes one bit of a file; returns its offset."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)
    # A file of its own: prev.pt may be a second name of last.pt.
    path.unlink()
    path.write_bytes(data)
    return at


def meet_flip(
    bench: Bench, scenario: Scenario, whole: Path, place: Path, name: Path, seed: int, due: dict
) -> Verdict:
    """One flip in the file `name` of a copy of the stopped run `whole`."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    at = flip(place / name, random.Random(f"{name} {seed}"))
    outcome = bench.run(scenario.job(place))
    what = f"bit flip in {name.name}"
    if outcome.status:
        lines = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        good = len(lines) == 1 and "Traceback" not in outcome.output
        wrong = "" if good else f"status {outcome.status}: {outcome.output[-300:]}"
        return Verdict("flips", what, at, wrong)
    found = scenario.content(place)
    differ = [key for key in due if due[key] != found.get(key)]
    return Verdict("flips", what, at, f"silently another {differ}" if differ else "")
