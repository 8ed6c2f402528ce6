"""The long version: `make faults`. Every operation that changes a file fails in four ways.

In a sweep, which takes long, only some of its operations do.

    python tests/faults/run_faults.py --jobs 2

Prints a table of the faults tried and survived. The exit status is 1 if one was not survived.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, product
from pathlib import Path

from harness import FAULTS, Bench
from scenarios import Scenario, Verdict, all_scenarios, make_inputs, meet, meet_flip, stopped

FLIPS = 20  # in each kind of file
SWEEP_FAULTS = 40  # spread over its operations, alternating kinds, since it takes many seconds


def points(scenario: Scenario, operations: int) -> Iterator[tuple[int, str]]:
    """(operation, kind of fault) of all faults of a scenario."""
    if scenario.name != "sweep":
        yield from product(range(1, operations + 1), FAULTS)
        return
    for turn, at in enumerate(range(1, operations + 1, max(1, operations // SWEEP_FAULTS))):
        yield at, FAULTS[turn % len(FAULTS)]


def work(inputs: Path, share: int, jobs: int, names: list[str]) -> list[Verdict]:
    """Every `jobs`-th fault, in one process; the first process prints progress."""
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
    """The faults of the scenarios in `names`, or of all; `part` = (index of the share, shares)."""
    share, jobs = part
    scenarios = all_scenarios(inputs)
    for name, scenario in scenarios.items():
        if not names or name in names:
            operations, due = scenario.reference(bench, folder / f"due-{name}")
            for at, mode in islice(points(scenario, operations), share, None, jobs):
                yield meet(bench, scenario, folder / "place", at, mode, due)
    if not names or "flips" in names:
        scenario, whole = scenarios["training"], folder / "whole"
        operations, due = scenario.reference(bench, folder / "due-flips")
        kinds = stopped(bench, scenario, whole, operations)
        for path, seed in islice(product(kinds, range(FLIPS)), share, None, jobs):
            yield meet_flip(bench, scenario, whole, folder / "place", path, seed, due)


def table(found: list[Verdict]) -> str:
    """The counts as Markdown."""
    lines = ["| what | fault | tried | survived, bit-identical |", "|---|---|---|---|"]
    for name, mode in dict.fromkeys((v.scenario, v.mode) for v in found):
        own = [not v.wrong for v in found if (v.scenario, v.mode) == (name, mode)]
        lines.append(f"| {name} | {mode} | {len(own)} | {sum(own)} |")
    return "\n".join([*lines, f"| all | | {len(found)} | {sum(not v.wrong for v in found)} |"])


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--only", nargs="*", default=[], help="scenarios (default all)")
    args = parser.parse_args()
    begun, jobs = time.monotonic(), range(args.jobs)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.jobs) as pool:
        make_inputs(Path(folder))
        shares = [pool.submit(work, Path(folder), k, args.jobs, args.only) for k in jobs]
        found = [verdict for share in shares for verdict in share.result()]
    print(table(found))
    print(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    return 1 if any(verdict.wrong for verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
