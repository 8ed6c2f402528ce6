"""A table's cells filled from runs, and which of a column are the best two."""

from dataclasses import dataclass

from experiments.paper.kinds import Cell, Column, Table
from experiments.report.reader import Reader
from experiments.report.statistics import Summary, summarise


@dataclass(frozen=True)
class Filled:
    """What the runs give for a cell: seed -> value in the unit of result.json, and the summary."""

    values: dict[int, float]
    summary: Summary | None


Grid = list[list[Filled | str | None]]


def fill(table: Table, reader: Reader, cell: Cell) -> Filled:
    """The values of the cell's finished runs."""
    values, *others = (reader.values(runs, table.seeds, cell.key) for runs in cell.operands)
    for less in others:
        values = {seed: value - less[seed] for seed, value in values.items() if seed in less}
    return Filled(values, summarise(list(values.values())))


def grid(table: Table, reader: Reader) -> Grid:
    """Rows of filled cells and texts, None where the table has no cell."""
    return [
        [fill(table, reader, cell) if isinstance(cell, Cell) else cell for cell in row.cells]
        for row in table.rows
    ]


def marks(table: Table, cells: Grid) -> dict[tuple[int, int], str]:
    """(row, column) -> "best" or "second", by the mean as it is shown; equals share a mark.

    In a table of the paper's, rows that it does not have take no part. Of fewer than three means
    there is no second: one of two is no distinction.
    """
    found = {}
    for c, column in enumerate(table.columns):
        if column.lower is None:
            continue
        means = {
            r: round(cells[r][c].summary.mean * (100.0 if column.percent else 1.0), column.digits)
            for r, row in enumerate(table.rows)
            if not (row.ours and table.repeats) and cells[r][c] and cells[r][c].summary
        }
        order = sorted(set(means.values()), reverse=not column.lower)
        names = ("best", "second") if len(means) > 2 else ("best",)
        for name, value in zip(names, order if len(order) > 1 else ()):  # all equal: no best
            found |= {(r, c): name for r, mean in means.items() if mean == value}
    return found


def spans(columns: tuple[Column, ...]) -> list[tuple[str, int]]:
    """(block, number of columns) from left to right."""
    found: list[tuple[str, int]] = []
    for column in columns:
        if found and found[-1][0] == column.block:
            found[-1] = (column.block, found[-1][1] + 1)
        else:
            found.append((column.block, 1))
    return found
