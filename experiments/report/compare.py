"""Compares table cells with the paper: difference, interval, Welch's test, verdict.

The paper's ± is over three runs (Sec. 4); we assume division by n - 1. Tests are two-sided at level
0.05, with Holm correction over a family: all testable cells of one metric in one table. Runs whose
settings differ from the paper's, or whose number of samples differs by more than 2 %, are not
comparable (our choice: the UCF-101 download has 13,320 clips, the paper counts 13,085).
"""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import read_table
from common.options import UsageError
from data_prep.datasets import DATASETS
from experiments.paper.kinds import Cell, Column, Place, Table, runs_in
from experiments.report.reader import Reader
from experiments.report.statistics import MISSING, Summary, Welch, holm, welch

PAPER_FILE = Path(__file__).parent.with_name("paper") / "paper_results.csv"
PAPER_SEEDS = 3
LEVEL = 0.05
TOLERANCE = 0.02  # of the paper's number of samples
OFFICIAL = ("recipe", "official")  # not a difference: these are the authors' settings
VERDICTS = ("agrees", "higher", "lower", "untestable", "not comparable", "missing")
FOOTNOTE = (
    "Difference is ours minus the paper's, with Welch's 95 % interval; verdicts are Holm-corrected"
    " at level 0.05 over the table's cells of one metric. The paper does not say whether its ±"
    " divides by n or n - 1 (a factor of 1.22 at n = 3), nor whether it includes the variation"
    " between test sets. Ours does if each seed has a different split; the paper's does if its runs"
    " used the authors' release, which draws one split per seed (an inference). With three runs on"
    " each side only large differences can be detected: `agrees` means that none was detected."
)
# format -> mark -> template for a number with that mark
MARKS = {
    "markdown": {"best": "**{}**", "second": "<u>{}</u>", "": "{}"},
    "latex": {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"},
    "html": {"best": "<b>{}</b>", "second": "<u>{}</u>", "": "{}"},
}


@dataclass
class EvaluatedCell:
    """A cell with the value of each seed and their summary, in the unit of result.json.

    `place` is (row, column); `mark` is "best", "second" or "". If the paper has the number, `paper`
    is in the column's unit and `verdict` is one of `VERDICTS`. `test` and `p_holm` are None if no
    test was made; `differs` says why the cell is not comparable.
    """

    place: tuple[int, int]
    cell: Cell
    column: Column
    values: dict[int, float]
    summary: Summary | None
    mark: str = ""
    paper: Summary | None = None
    test: Welch | None = None
    p_holm: float | None = None
    verdict: str = ""
    differs: str = ""

    @property
    def shown(self) -> Summary | None:
        """The summary in the unit of the column."""
        return self.summary and self.summary.scaled(self.column.scale)

    @property
    def text(self) -> str:
        """`90.2 ± 0.4 (3)`, `90.2 (1)` for a single run, `--` without runs."""
        shown = self.shown
        return f"{shown.spread(self.column.digits)} ({shown.n})" if shown else MISSING

    def marked(self, text: str, form: str) -> str:
        """The text with the cell's mark, in Markdown, LaTeX or HTML."""
        return MARKS[form][self.mark].format(text)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return self.shown.mean - self.paper.mean if self.shown and self.paper else None

    @property
    def side(self) -> str:
        """The verdict if the difference is significant."""
        return "higher" if self.difference > 0 else "lower" if self.difference < 0 else "agrees"


@functools.cache
def paper_results(path: Path = PAPER_FILE) -> dict[Place, Summary]:
    """The paper's numbers in its units, without cells that it reports as "n/a"."""
    found: dict[Place, Summary] = {}
    for line, row in enumerate(read_table(path), 2):
        place = (row["table"], row["dataset"], row["method"], row["variant"], row["metric"])
        if place in found:
            raise UsageError(f"{path.name}, line {line}: {list(place)} occurs twice")
        std = float(row["std"]) if row["std"] else None
        if row["mean"] != "n/a":
            found[place] = Summary(float(row["mean"]), std, 1 if std is None else PAPER_SEEDS)
    return found


def compare(table: Table, cells: Iterable[EvaluatedCell], reader: Reader) -> None:
    """Adds the paper's number, a test and a verdict to each cell that the paper reports."""
    families: dict[str, list[EvaluatedCell]] = {}  # metric -> its tested cells
    for cell in cells:
        if not cell.cell.paper:
            continue
        cell.paper = paper_results()[cell.cell.paper]
        if not cell.shown:
            cell.verdict = "missing"
        elif cell.column.counts:
            cell.verdict = cell.side
        elif differs := differences(table, cell.cell, reader):
            cell.verdict, cell.differs = "not comparable", differs
        else:
            cell.verdict, cell.test = "untestable", welch(cell.shown, cell.paper)
            if cell.test:
                families.setdefault(cell.cell.paper[-1], []).append(cell)
    for family in families.values():
        for cell, p in zip(family, holm([cell.test.p for cell in family])):
            cell.p_holm, cell.verdict = p, "agrees" if p >= LEVEL else cell.side


def differences(table: Table, cell: Cell, reader: Reader) -> str:
    """How a cell's runs differ from the paper's in settings or number of samples, or ""."""
    found = [f"{key}={value}" for key, value in table.changed if (key, value) != OFFICIAL]
    for runs in runs_in(cell):
        due = DATASETS[runs.dataset][1]
        for run in reader.finished(runs, table.seeds):
            counts = [run.result.get(f"count/n_{part}") for part in ("train", "val", "test")]
            total = sum(n for n in counts if isinstance(n, int))
            if due and abs(total - due) > TOLERANCE * due:
                found.append(f"{total:,} of {due:,} samples of {runs.dataset}")
    return ", ".join(dict.fromkeys(found))


def verdict_counts(compared: Iterable[EvaluatedCell]) -> dict[str, int]:
    """The number of cells per verdict, without zeros."""
    given = Counter(cell.verdict for cell in compared)
    return {verdict: given[verdict] for verdict in VERDICTS if given[verdict]}


def why_not_comparable(compared: Sequence[EvaluatedCell]) -> str:
    """Why cells are not comparable, as a sentence followed by a space, or ""."""
    words = dict.fromkeys(word for c in compared if c.differs for word in c.differs.split(", "))
    return f"Not comparable because of: {', '.join(words)}. " if words else ""
