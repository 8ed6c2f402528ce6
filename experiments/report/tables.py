"""A table as Markdown, its exact numbers as CSV: a pure function of registry and results."""

from common.files import csv_text
from experiments.paper.kinds import Cell, Column, Table
from experiments.report.compare import FOOTNOTE, Comparison, compare, counts, differing
from experiments.report.grid import Filled, fill, grid, marks
from experiments.report.provenance import footer, to_fill
from experiments.report.reader import Reader
from experiments.report.statistics import exact, show

NOT_THERE = "n/a"  # the table has no such cell
WRAPS = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}


def markdown(table: Table, reader: Reader) -> str:
    """The table with its notes, what is missing, and where the numbers come from."""
    cells = grid(table, reader)
    marked = marks(table, cells)
    headers = [column.name for column in table.columns]
    body = []
    for r, row in enumerate(table.rows):
        shown = []
        for c, column in enumerate(table.columns):
            filled = cells[r][c]
            shown.append(WRAPS[marked.get((r, c), "")].format(in_words(filled, column)))
        body.append(" | ".join([f"| {row.label}", *shown]) + " |")
    missing = [
        f"- `{command}`" + (f" ({hint})" if hint else "")
        for command, hint in to_fill([table], reader)
    ]
    lines = [
        f"**{table.id}.** {table.caption}",
        "",
        " | ".join([f"| {table.first}", *headers]) + " |",
        "|---" * (len(headers) + 1) + "|",
        *body,
        "",
        *([marked_note(table, marked), ""] if marked else []),
        *(line for note in table.notes for line in (note, "")),
        *beside_the_paper(compare(table, reader)),
        *(["To fill:", "", *missing, ""] if missing else []),
        footer(table, reader),
    ]
    return "\n".join(lines) + "\n"


def in_words(filled: Filled | str | None, column: Column) -> str:
    """A cell's number as it is shown, its text, or that there is none."""
    if isinstance(filled, Filled):
        return show(filled.summary, column.percent, column.digits)
    return filled or NOT_THERE


def marked_note(table: Table, marked: dict[tuple[int, int], str]) -> str:
    """What bold and underlined mean, as far as they occur."""
    apart = table.repeats and any(row.ours for row in table.rows)
    best = "Bold: best mean" + (" of the paper's rows" if apart else " of the column")
    return f"{best}; underlined: second best." if "second" in marked.values() else f"{best}."


def beside_the_paper(comparisons: list[Comparison]) -> list[str]:
    """A line of verdicts, and how to read them; nothing for a table that the paper lacks."""
    if not comparisons:
        return []
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts(comparisons).items())
    return [f"Against the paper, cell by cell: {told}. {differing(comparisons)}{FOOTNOTE}", ""]


def numbers_csv(table: Table, reader: Reader) -> str:
    """One line a cell: a text, or in the unit of result.json each seed's own value."""
    header = ("row", "column", "runs", "metric", "mean", "std", "n", "seeds", "values")
    rows = []
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if isinstance(cell, Cell):
                own = (cell.name, cell.key, *fields(fill(table, reader, cell)))
                rows.append((row.label, column.name, *own))
            elif cell:
                rows.append((row.label, column.name, *[""] * 6, cell))
    return csv_text(header, rows)


def fields(filled: Filled) -> tuple[str, ...]:
    """mean, std, n, seeds and values of a CSV line."""
    mean, values = filled.summary, filled.values
    seeds, each = " ".join(map(str, values)), " ".join(map(exact, values.values()))
    return exact(mean and mean.mean), exact(mean and mean.std), str(len(values)), seeds, each


def comparison_csv(table: Table, reader: Reader) -> str:
    """Ours beside the paper's, one line a cell, in the paper's unit."""
    header = (
        "row", "column", "runs", "ours", "ours_std", "ours_n", "paper", "paper_std", "paper_n",
        "difference", "low", "high", "p", "p_holm", "verdict", "differs",
    )  # fmt: skip
    rows = []
    for c in compare(table, reader):
        ours, test = c.ours, c.test
        rows.append(
            (
                c.row.label,
                c.column.name,
                c.cell.name,
                exact(ours and ours.mean),
                exact(ours and ours.std),
                str(ours.n if ours else 0),
                exact(c.paper.mean),
                exact(c.paper.std),
                str(c.paper.n),
                exact(c.difference),
                exact(test and test.low),
                exact(test and test.high),
                exact(test and test.p),
                exact(c.p_holm),
                c.verdict,
                c.differs,
            )  # fmt: skip
        )
    return csv_text(header, rows)
