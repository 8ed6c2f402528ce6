"""A table evaluated once: its numbers, the best of them, the paper's beside them, its sources.

Markdown and CSV (`render.py`), LaTeX (`latex.py`) and HTML (`html.py`) only format what is here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.report.compare import Comparison, compare
from experiments.report.provenance import PLUS_MINUS, SELECTION, plus_minus, provenance
from experiments.report.reader import Finished, Reader
from experiments.report.statistics import Summary, show, summarise

NOT_THERE = "n/a"  # the table has no such cell
# form -> mark -> what encloses a number that has the mark
MARKS = {
    "markdown": {"best": ("**", "**"), "second": ("<u>", "</u>"), "": ("", "")},
    "latex": {"best": (r"\textbf{", "}"), "second": (r"\underline{", "}"), "": ("", "")},
    "html": {"best": ("<b>", "</b>"), "second": ("<u>", "</u>"), "": ("", "")},
}


@dataclass
class EvaluatedCell:
    """A cell's number in the unit of result.json: each seed's value, and their summary.

    `place` is (row, column); `mark` is "best", "second" or ""; `comparison` is None where the paper
    has no such number.
    """

    place: tuple[int, int]
    cell: Cell
    column: Column
    values: dict[int, float]
    summary: Summary | None
    mark: str = ""
    comparison: Comparison | None = None

    @property
    def text(self) -> str:
        """The number as tables show it."""
        return show(self.summary, self.column.percent, self.column.digits)

    def enclosed(self, text: str, form: str) -> str:
        """The text with the cell's mark, in Markdown, LaTeX or HTML."""
        before, after = MARKS[form][self.mark]
        return f"{before}{text}{after}"


Entry = EvaluatedCell | str | None  # a number, a text, or nothing


@dataclass(frozen=True)
class EvaluatedTable:
    """A table with its numbers; `entries` has a row for each of the table's.

    `runs` are the finished runs behind it; `missing` are those that it still needs, and `to_fill`
    the commands that make them, each with a hint or "".
    """

    table: Table
    entries: list[list[Entry]]
    runs: list[Finished]
    missing: list[tuple[RunSet, int]]
    to_fill: list[tuple[str, str]]

    def rows(self, ours: bool | None = None) -> Iterator[tuple[Row, list[Entry]]]:
        """All rows, or those alone that the paper has or does not have."""
        for row, entries in zip(self.table.rows, self.entries, strict=True):
            if ours is None or row.ours == ours:
                yield row, entries

    def cells(self) -> Iterator[tuple[Row, EvaluatedCell]]:
        """All numbers, row by row."""
        for row, entries in self.rows():
            for entry in entries:
                if isinstance(entry, EvaluatedCell):
                    yield row, entry

    @property
    def comparisons(self) -> list[Comparison]:
        """What was compared with the paper."""
        return [cell.comparison for _, cell in self.cells() if cell.comparison]

    @property
    def marks_note(self) -> str:
        """What bold and underlined mean, as far as they occur."""
        marks = {cell.mark for _, cell in self.cells()}
        if "best" not in marks:
            return ""
        apart = self.table.repeats and any(row.ours for row in self.table.rows)
        best = "Bold: best mean" + (" of the paper's rows" if apart else " of the column")
        return f"{best}; underlined: second best." if "second" in marks else f"{best}."

    @property
    def plus_minus(self) -> str:
        """What ± includes for each data set; "" where no cell has several seeds."""
        return plus_minus(self.runs)

    @property
    def footer(self) -> str:
        """How the numbers were chosen and what the runs behind them have in common."""
        return " ".join([SELECTION, PLUS_MINUS, *provenance(self.runs)])


def evaluate(table: Table, reader: Reader) -> EvaluatedTable:
    """Reads the table's runs and computes everything that its forms show."""
    entries = [
        [
            evaluate_cell(table, (r, c), cell, reader) if isinstance(cell, Cell) else cell
            for c, cell in enumerate(row.cells)
        ]
        for r, row in enumerate(table.rows)
    ]
    mark_best(table, entries)
    runs = [run for one in table.runs() for run in reader.finished(one, table.seeds)]
    evaluated = EvaluatedTable(
        table, entries, runs, reader.missing([table]), reader.to_fill([table])
    )
    with_paper = [cell for _, cell in evaluated.cells() if cell.cell.paper]
    numbers = [(cell.cell, cell.column, cell.summary) for cell in with_paper]
    for cell, comparison in zip(with_paper, compare(table, numbers, reader), strict=True):
        cell.comparison = comparison
    return evaluated


def evaluate_cell(
    table: Table, place: tuple[int, int], cell: Cell, reader: Reader
) -> EvaluatedCell:
    """The number that the cell's finished runs give."""
    values, *others = (reader.values(runs, table.seeds, cell.key) for runs in cell.operands)
    for less in others:
        values = {seed: value - less[seed] for seed, value in values.items() if seed in less}
    column = table.columns[place[1]]
    return EvaluatedCell(place, cell, column, values, summarise(list(values.values())))


def mark_best(table: Table, entries: list[list[Entry]]) -> None:
    """Marks each column's best and second best mean, as they are shown; equals share a mark.

    In a table of the paper's, rows that it does not have take no part. Of fewer than three means
    there is no second: one of two is no distinction.
    """
    for place, column in enumerate(table.columns):
        if column.lower is None:
            continue
        rivals = [
            row_entries[place]
            for row, row_entries in zip(table.rows, entries, strict=True)
            if not (row.ours and table.repeats)
        ]
        means = {
            id(cell): round(cell.summary.mean * (100.0 if column.percent else 1.0), column.digits)
            for cell in rivals
            if isinstance(cell, EvaluatedCell) and cell.summary
        }
        order = sorted(set(means.values()), reverse=not column.lower)
        if len(order) < 2:  # all equal: no best
            continue
        for cell in rivals:
            if means.get(id(cell)) == order[0]:
                cell.mark = "best"
            elif means.get(id(cell)) == order[1] and len(means) > 2:
                cell.mark = "second"


def blocks(columns: tuple[Column, ...]) -> list[tuple[str, int]]:
    """(block, number of columns) from left to right."""
    return [(name, len(list(group))) for name, group in groupby(columns, lambda c: c.block)]
