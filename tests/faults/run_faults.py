"""The long form: `make faults`. Every operation that changes a file fails in four ways.

Of a sweep, which takes long, only a sample of its operations does.

    python tests/faults/run_faults.py --jobs 2

Prints a table of the faults that were tried and survived. Exit status 1 if one was not.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product
from pathlib import Path

from flips import kinds, meet_flip, stopped
from harness import Bench
from scenarios import (
    FAULTS,
    Scenario,
    Verdict,
    demo_runs,
    meet,
    preparation,
    reference,
    sweep,
    tables,
    training,
)

SAMPLES = 60
FLIPS = 20  # in each kind of file
SWEEP_FAULTS = 40  # spread over its operations, one kind each in turn: it takes many seconds


def make_inputs(folder: Path) -> None:
    """The demo set's first samples, raw and prepared, and finished runs."""
    from data_prep.datasets.demo import Settings
    from data_prep.digits import write_digits
    from data_prep.prepare import prepare

    write_digits(folder / "raw", folder / "truth.csv", 3, workers=1, count=SAMPLES)
    prepare("demo", folder / "raw", folder / "data", Settings(), workers=1)
    demo_runs(folder / "results")


def all_scenarios(inputs: Path) -> list[Scenario]:
    """The four of them."""
    raw, data = inputs / "raw", inputs / "data"
    return [training(raw, data), preparation(raw), tables(inputs / "results"), sweep(raw, data)]


def points(scenario: Scenario, operations: int) -> Iterator[tuple[int, str]]:
    """(operation, kind of fault) of all faults of a scenario."""
    step = 1 if scenario.name != "sweep" else max(1, operations // SWEEP_FAULTS)
    for turn, at in enumerate(range(1, operations + 1, step)):
        modes = FAULTS if step == 1 else [FAULTS[turn % len(FAULTS)]]
        yield from ((at, mode) for mode in modes)


def work(inputs: Path, share: int, jobs: int, names: list[str]) -> list[Verdict]:
    """Every `jobs`-th fault, in one process; the first one tells how far it is."""
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for verdict in verdicts(bench, inputs, Path(folder), (share, jobs), names):
            found.append(verdict)
            if verdict.wrong:
                print(verdict, file=sys.stderr, flush=True)
            if not share and len(found) % 50 == 0:
                print(f"{verdict.scenario}: {jobs * len(found)} in all", file=sys.stderr)
        bench.close()
    return found


def verdicts(
    bench: Bench, inputs: Path, folder: Path, part: tuple[int, int], names: list[str]
) -> Iterator[Verdict]:
    """The faults of the scenarios in `names`, or of all; `part` = (which share, of how many)."""
    share, jobs = part
    for scenario in all_scenarios(inputs):
        if not names or scenario.name in names:
            operations, due = reference(bench, scenario, folder / f"due-{scenario.name}")
            faults = points(scenario, operations)
            for at, mode in islice(faults, share, None, jobs):
                yield meet(bench, scenario, folder / "place", at, mode, due)
    if not names or "flips" in names:
        scenario = training(inputs / "raw", inputs / "data")
        operations, due = reference(bench, scenario, folder / "due-flips")
        stopped(bench, scenario, folder / "whole", operations)
        for name, seed in islice(product(kinds(folder / "whole"), range(FLIPS)), share, None, jobs):
            yield meet_flip(bench, scenario, folder / "whole", folder / "place", name, seed, due)


def table(found: list[Verdict]) -> str:
    """The counts as Markdown."""
    lines = ["| what | fault | tried | survived, bit-identical |", "|---|---|---|---|"]
    for name in dict.fromkeys(v.scenario for v in found):
        for mode in dict.fromkeys(v.mode for v in found if v.scenario == name):
            own = [v for v in found if (v.scenario, v.mode) == (name, mode)]
            well = sum(not v.wrong for v in own)
            lines.append(f"| {name} | {mode} | {len(own)} | {well} |")
    well = sum(not v.wrong for v in found)
    return "\n".join([*lines, f"| all | | {len(found)} | {well} |"]) + "\n"


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--only", nargs="*", default=[], help="scenarios (default all)")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.jobs) as pool:
        make_inputs(Path(folder))
        shares = [
            pool.submit(work, Path(folder), share, args.jobs, args.only)
            for share in range(args.jobs)
        ]
        found = [verdict for share in shares for verdict in share.result()]
    print(table(found), end="")
    print(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    return 1 if any(verdict.wrong for verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
