"""Ours against the paper, cell by cell: difference, interval, Welch's test, verdict.

The paper's numbers come from paper_results.csv, by table and cell. Its ± is over three runs (Sec.
4); whether it divides by n or n - 1 is not said, which is a factor of 1.22 at n = 3: we read n - 1.
Where each seed has its own split, our ± includes the spread between test parts. So does the paper's
if its runs used the authors' release, and then Welch's test compares like with like.
Two-sided tests at level 0.05, corrected by Holm over the family: all testable cells of one metric
in one table. Where a deviation is missing, or both are 0, a cell is untestable, not "agreeing".
Runs with other settings than the paper's, or of more than 2 % more or fewer samples, are not
comparable (our choice: UCF-101's download has 13,320 clips, the paper counts 13,085).
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.files import read_table
from common.options import UsageError
from data_prep.datasets import DATASETS
from experiments.paper.kinds import Cell, Column, Row, Table
from experiments.report.grid import Filled, fill
from experiments.report.reader import Reader
from experiments.report.statistics import Summary, Welch, holm, welch

PAPER_FILE = Path(__file__).parent.with_name("paper") / "paper_results.csv"
PAPER_SEEDS = 3
LEVEL = 0.05
TOLERANCE = 0.02  # of the paper's number of samples
OFFICIAL = ("recipe", "official")  # not a difference: the authors' own code
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

    Cells that the paper leaves out ("n/a") are not there.
    """
    found = {}
    for line, row in enumerate(read_table(path), 2):
        *place, mean, std = (row[name] for name in (
            "table", "dataset", "method", "variant", "metric", "mean", "std",
        ))  # fmt: skip
        if mean == "n/a":
            continue
        if tuple(place) in found:
            raise UsageError(f"{path.name}, line {line}: {place} stands there twice")
        found[tuple(place)] = Summary(
            float(mean), float(std) if std else None, PAPER_SEEDS if std else 1
        )
    return found


@dataclass(frozen=True)
class Comparison:
    """One cell beside the paper's; numbers in the paper's unit (percent where it has percent).

    `verdict`: agrees, higher, lower, untestable, not comparable, or missing where no run is there.
    `p_holm` is None where nothing was tested; `differs` says what makes it not comparable.
    """

    row: Row
    column: Column
    cell: Cell
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


def differences(table: Table, reader: Reader, cell: Cell) -> str:
    """How a cell's runs differ from the paper's: settings, number of samples; "" if they do not."""
    told = [f"{key}={value}" for key, value in table.changed if (key, value) != OFFICIAL]
    for runs in cell.operands:
        due = DATASETS[runs.dataset][1]
        for run in reader.finished(runs, table.seeds):
            seen = [run.result.get(f"count/n_{part}") for part in ("train", "val", "test")]
            total = sum(n for n in seen if isinstance(n, int))
            if due and abs(total - due) > TOLERANCE * due:
                told.append(f"{total:,} of {due:,} samples of {runs.dataset}")
    return ", ".join(dict.fromkeys(told))


def first_look(row: Row, column: Column, cell: Cell, filled: Filled, differs: str) -> Comparison:
    """The cell's two numbers and its test, before the family is corrected."""
    paper = paper_results()[cell.paper]
    ours = filled.summary and filled.summary.scaled(100.0 if column.percent else 1.0)
    if ours is None:
        return Comparison(row, column, cell, None, paper)
    if column.counts:
        words = {0: "agrees", 1: "higher", -1: "lower"}
        sign = (ours.mean > paper.mean) - (ours.mean < paper.mean)
        return Comparison(row, column, cell, ours, paper, verdict=words[sign])
    if differs:
        return Comparison(row, column, cell, ours, paper, verdict="not comparable", differs=differs)
    return Comparison(row, column, cell, ours, paper, welch(ours, paper), verdict="untestable")


def compare(table: Table, reader: Reader) -> list[Comparison]:
    """All cells of the table for which the paper has a number."""
    found = [
        first_look(row, column, cell, fill(table, reader, cell), differences(table, reader, cell))
        for row, column, cell in table.cells()
        if cell.paper
    ]
    families: dict[str, list[int]] = {}
    for k, comparison in enumerate(found):
        if comparison.test:
            families.setdefault(comparison.cell.paper[-1], []).append(k)
    for members in families.values():
        adjusted = holm([found[k].test.p for k in members])
        for k, p in zip(members, adjusted):
            found[k] = replace(found[k], p_holm=p, verdict=_verdict(found[k], p))
    return found


def _verdict(comparison: Comparison, p: float) -> str:
    if p >= LEVEL:
        return "agrees"
    return "higher" if comparison.difference > 0 else "lower"


def counts(comparisons: list[Comparison]) -> dict[str, int]:
    """How many cells have each verdict."""
    order = ("agrees", "higher", "lower", "untestable", "not comparable", "missing")
    return {v: n for v in order if (n := sum(c.verdict == v for c in comparisons))}


def differing(comparisons: list[Comparison]) -> str:
    """What makes cells not comparable, as a sentence followed by a space; "" for none."""
    told = dict.fromkeys(word for c in comparisons if c.differs for word in c.differs.split(", "))
    return f"What makes cells not comparable: {', '.join(told)}. " if told else ""


def cells_of_the_paper(tables: list[Table]) -> Iterator[tuple[str, ...]]:
    """The places in paper_results.csv that the tables compare with."""
    for table in tables:
        for _, _, cell in table.cells():
            if cell.paper:
                yield cell.paper
