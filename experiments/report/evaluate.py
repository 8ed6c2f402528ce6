"""Evaluates a table: its numbers, best values, comparison with the paper, and provenance.

Markdown, CSV and LaTeX (`render.py`) and HTML (`html.py`) only format the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from experiments.paper.kinds import Cell, Column, Row, RunSet, Table, runs_in
from experiments.report.compare import EvaluatedCell, compare
from experiments.report.provenance import PLUS_MINUS, SELECTION, provenance
from experiments.report.reader import Finished, Reader
from experiments.report.statistics import summarise

NOT_THERE = "n/a"  # the table has no such cell
Entry = EvaluatedCell | str | None  # a number, a text, or nothing


@dataclass(frozen=True)
class EvaluatedTable:
    """A table with its numbers; `entries` has one row per row of the table.

    `runs` are its finished runs, `missing` the runs that it still needs, and `to_fill` the commands
    for these, each with a hint or "".
    """

    table: Table
    entries: list[list[Entry]]
    runs: list[Finished]
    missing: list[tuple[RunSet, int]]
    to_fill: list[tuple[str, str]]

    def rows(self, ours: bool | None = None) -> Iterator[tuple[Row, list[Entry]]]:
        """All rows, or only those that are (not) in the paper."""
        for row, entries in zip(self.table.rows, self.entries, strict=True):
            if ours is None or row.ours == ours:
                yield row, entries

    def cells(self) -> Iterator[tuple[Row, EvaluatedCell]]:
        """All cells with numbers, row by row."""
        for row, entries in self.rows():
            yield from ((row, entry) for entry in entries if isinstance(entry, EvaluatedCell))

    @property
    def compared(self) -> list[EvaluatedCell]:
        """The cells for which the paper has a number."""
        return [cell for _, cell in self.cells() if cell.paper]

    @property
    def marks_note(self) -> str:
        """The legend for bold and underlined numbers, as far as they occur."""
        marks = {cell.mark for _, cell in self.cells()}
        if "best" not in marks:
            return ""
        apart = self.table.repeats and any(row.ours for row in self.table.rows)
        best = "Bold: best mean" + (" of the paper's rows" if apart else " of the column")
        return f"{best}; underlined: second best." if "second" in marks else f"{best}."

    @property
    def footer(self) -> str:
        """How the numbers were selected, and the provenance of the runs."""
        return " ".join([SELECTION, PLUS_MINUS, *provenance(self.runs)])


def evaluate(table: Table, reader: Reader) -> EvaluatedTable:
    """Reads the table's runs and computes everything that is rendered."""
    entries = [
        [evaluate_entry(table, r, c, entry, reader) for c, entry in enumerate(row.cells)]
        for r, row in enumerate(table.rows)
    ]
    mark_best(table, entries)
    missing, to_fill = reader.missing([table]), reader.to_fill([table])
    evaluated = EvaluatedTable(table, entries, reader.behind(table), missing, to_fill)
    compare(table, (cell for _, cell in evaluated.cells()), reader)
    return evaluated


def evaluate_entry(
    table: Table, row: int, column: int, entry: Cell | str | None, reader: Reader
) -> Entry:
    """The number from the cell's finished runs; a text is returned unchanged."""
    if not isinstance(entry, Cell):
        return entry
    values, *others = (reader.values(runs, table.seeds, entry.key) for runs in runs_in(entry))
    for less in others:
        values = {seed: values[seed] - less[seed] for seed in values if seed in less}
    summary = summarise(list(values.values()))
    return EvaluatedCell((row, column), entry, table.columns[column], values, summary)


def mark_best(table: Table, entries: list[list[Entry]]) -> None:
    """Marks each column's best and second-best mean after rounding; ties share a mark.

    In a table of the paper, rows that are not in the paper are ignored. With fewer than three means
    there is no second best.
    """
    rivals = [own for row, own in zip(table.rows, entries) if not (row.ours and table.repeats)]
    for place, column in enumerate(table.columns):
        means = [
            (cell, round(cell.shown.mean, column.digits))
            for cell in (row[place] for row in rivals)
            if isinstance(cell, EvaluatedCell) and cell.shown
        ]
        order = sorted({mean for _, mean in means}, reverse=not column.lower)
        if column.lower is None or len(order) < 2:  # all equal: no best
            continue
        for cell, mean in means:
            if mean == order[0]:
                cell.mark = "best"
            elif mean == order[1] and len(means) > 2:
                cell.mark = "second"


def blocks(columns: tuple[Column, ...]) -> list[tuple[str, int]]:
    """(block, number of columns) from left to right."""
    return [(name, len(list(group))) for name, group in groupby(columns, lambda c: c.block)]
