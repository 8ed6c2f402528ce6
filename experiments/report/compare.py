"""Ours against the paper, cell by cell: difference, interval, Welch's test, verdict.

The paper's numbers come from paper_results.csv, by table and cell. Its ± is over three runs (Sec.
4). The paper does not say whether it divides by n or n - 1, a factor of 1.22 at n = 3: we read
n - 1. Where each seed has its own split, our ± includes the spread between test parts. So does the
paper's if its runs used the authors' release, and then Welch's test compares like with like.

Tests are two-sided at level 0.05 and corrected by Holm over a family: all testable cells of one
metric in one table. A cell without a deviation, or with 0 on both sides, is untestable, which is
not the same as agreeing. Runs whose settings differ from the paper's, or whose number of samples
differs by more than 2 %, are not comparable (our choice: the UCF-101 download has 13,320 clips, the
paper counts 13,085).
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.files import read_table
from common.options import UsageError
from data_prep.datasets import DATASETS
from experiments.paper.kinds import Cell, Column, Table
from experiments.report.reader import Reader
from experiments.report.statistics import Summary, Welch, holm, welch

PAPER_FILE = Path(__file__).parent.with_name("paper") / "paper_results.csv"
PAPER_SEEDS = 3
LEVEL = 0.05
TOLERANCE = 0.02  # of the paper's number of samples
OFFICIAL = ("recipe", "official")  # not a difference: the authors' own code
VERDICTS = ("agrees", "higher", "lower", "untestable", "not comparable", "missing")
FOOTNOTE = (
    "Difference is ours minus the paper's, with Welch's 95 % interval; verdicts are Holm-corrected"
    " over the table's cells of one metric at level 0.05. The paper does not say whether its ± is"
    " over n or n - 1 (a factor of 1.22 at n = 3), nor whether it includes the spread between test"
    " parts. Ours does where each seed has its own split; the paper's does if its runs used the"
    " authors' release, which draws one split per seed (an inference). With three runs a side only"
    " large differences can be told: `agrees` means that none was shown, not that there is none."
)


@functools.cache
def paper_results(path: Path = PAPER_FILE) -> dict[tuple[str, ...], Summary]:
    """(table, dataset, method, variant, metric) -> the paper's number, in its own unit.

    Cells that the paper leaves out ("n/a") are absent.
    """
    found = {}
    for line, row in enumerate(read_table(path), 2):
        place = tuple(row[name] for name in ("table", "dataset", "method", "variant", "metric"))
        if row["mean"] == "n/a":
            continue
        if place in found:
            raise UsageError(f"{path.name}, line {line}: {list(place)} stands there twice")
        std = float(row["std"]) if row["std"] else None
        found[place] = Summary(float(row["mean"]), std, 1 if std is None else PAPER_SEEDS)
    return found


@dataclass(frozen=True)
class Comparison:
    """A number beside the paper's, both in the paper's unit (percent where it prints percent).

    `verdict` is one of `VERDICTS`; "missing" means that no run is there. `p_holm` is None where
    nothing was tested; `differs` says what makes the cell not comparable.
    """

    ours: Summary | None
    paper: Summary
    test: Welch | None = None
    p_holm: float | None = None
    verdict: str = "missing"
    differs: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None else self.ours.mean - self.paper.mean


def compare(
    table: Table, numbers: Iterable[tuple[Cell, Column, Summary | None]], reader: Reader
) -> list[Comparison]:
    """The comparisons of all cells for which the paper has a number, Holm-corrected."""
    found, families = [], {}
    for place, (cell, column, ours) in enumerate(numbers):
        comparison = uncorrected(cell, column, ours, differences(table, cell, reader))
        found.append(comparison)
        if comparison.test:
            families.setdefault(cell.paper[-1], []).append(place)
    for places in families.values():
        adjusted = holm([found[place].test.p for place in places])
        for place, p in zip(places, adjusted):
            side = "higher" if found[place].difference > 0 else "lower"
            verdict = "agrees" if p >= LEVEL else side
            found[place] = replace(found[place], p_holm=p, verdict=verdict)
    return found


def uncorrected(cell: Cell, column: Column, ours: Summary | None, differs: str) -> Comparison:
    """One cell's two numbers and its test, before the family is corrected."""
    paper = paper_results()[cell.paper]
    if ours is None:
        return Comparison(None, paper)
    ours = ours.scaled(100.0 if column.percent else 1.0)
    if column.counts:
        words = {0: "agrees", 1: "higher", -1: "lower"}
        sign = (ours.mean > paper.mean) - (ours.mean < paper.mean)
        return Comparison(ours, paper, verdict=words[sign])
    if differs:
        return Comparison(ours, paper, verdict="not comparable", differs=differs)
    return Comparison(ours, paper, welch(ours, paper), verdict="untestable")


def differences(table: Table, cell: Cell, reader: Reader) -> str:
    """How a cell's runs differ from the paper's: settings, number of samples; "" if they do not."""
    found = [f"{key}={value}" for key, value in table.changed if (key, value) != OFFICIAL]
    for runs in cell.operands:
        due = DATASETS[runs.dataset][1]
        for run in reader.finished(runs, table.seeds):
            counts = [run.result.get(f"count/n_{part}") for part in ("train", "val", "test")]
            total = sum(n for n in counts if isinstance(n, int))
            if due and abs(total - due) > TOLERANCE * due:
                found.append(f"{total:,} of {due:,} samples of {runs.dataset}")
    return ", ".join(dict.fromkeys(found))


def verdict_counts(comparisons: Iterable[Comparison]) -> dict[str, int]:
    """How many cells have each verdict; those that none has are left out."""
    given = [comparison.verdict for comparison in comparisons]
    return {verdict: given.count(verdict) for verdict in VERDICTS if verdict in given}


def why_not_comparable(comparisons: Sequence[Comparison]) -> str:
    """What makes cells not comparable, as a sentence followed by a space; "" for none."""
    words = dict.fromkeys(word for c in comparisons if c.differs for word in c.differs.split(", "))
    return f"What makes cells not comparable: {', '.join(words)}. " if words else ""
