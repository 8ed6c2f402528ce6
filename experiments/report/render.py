"""Evaluated tables and figures as Markdown, and their exact numbers as CSV."""

from common.files import csv_text
from experiments.report.compare import FOOTNOTE, verdict_counts, why_not_comparable
from experiments.report.evaluate import NOT_THERE, Entry, EvaluatedCell, EvaluatedTable
from experiments.report.figures import EvaluatedFigure
from experiments.report.statistics import exact


def markdown(evaluated: EvaluatedTable) -> str:
    """The table with its notes, what is missing, and where the numbers come from."""
    table = evaluated.table
    body = [
        " | ".join([f"| {row.label}", *map(markdown_entry, entries)]) + " |"
        for row, entries in evaluated.rows()
    ]
    commands = [
        f"- `{command}`" + (f" ({hint})" if hint else "") for command, hint in evaluated.to_fill
    ]
    lines = [
        f"**{table.id}.** {table.caption}",
        "",
        " | ".join([f"| {table.first}", *(column.name for column in table.columns)]) + " |",
        "|---" * (len(table.columns) + 1) + "|",
        *body,
        "",
        *([evaluated.marks_note, ""] if evaluated.marks_note else []),
        *(line for note in table.notes for line in (note, "")),
        *beside_the_paper(evaluated),
        *(["To fill:", "", *commands, ""] if commands else []),
        evaluated.footer,
    ]
    return "\n".join(lines) + "\n"


def markdown_entry(entry: Entry) -> str:
    """A number with its mark, a text, or that the table has no such cell."""
    if isinstance(entry, EvaluatedCell):
        return entry.enclosed(entry.text, "markdown")
    return entry or NOT_THERE


def beside_the_paper(evaluated: EvaluatedTable) -> list[str]:
    """A line of verdicts, and how to read them; nothing for a table that the paper lacks."""
    comparisons = evaluated.comparisons
    if not comparisons:
        return []
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdict_counts(comparisons).items())
    why = why_not_comparable(comparisons)
    return [f"Against the paper, cell by cell: {counts}. {why}{FOOTNOTE}", ""]


def numbers_csv(evaluated: EvaluatedTable) -> str:
    """One line a cell: a text, or in the unit of result.json each seed's own value."""
    header = ("row", "column", "runs", "metric", "mean", "std", "n", "seeds", "values")
    lines = []
    for row, entries in evaluated.rows():
        for column, entry in zip(evaluated.table.columns, entries, strict=True):
            if isinstance(entry, EvaluatedCell):
                lines.append((row.label, column.name, *number_fields(entry)))
            elif entry:
                lines.append((row.label, column.name, *[""] * 6, entry))
    return csv_text(header, lines)


def number_fields(cell: EvaluatedCell) -> tuple[str, ...]:
    """runs, metric, mean, std, n, seeds and values of a CSV line."""
    summary, values = cell.summary, cell.values
    return (
        cell.cell.name,
        cell.cell.key,
        exact(summary and summary.mean),
        exact(summary and summary.std),
        str(len(values)),
        " ".join(map(str, values)),
        " ".join(map(exact, values.values())),
    )


def comparison_csv(evaluated: EvaluatedTable) -> str:
    """Ours beside the paper's, one line a cell, in the paper's unit."""
    header = (
        "row", "column", "runs", "ours", "ours_std", "ours_n", "paper", "paper_std", "paper_n",
        "difference", "low", "high", "p", "p_holm", "verdict", "differs",
    )  # fmt: skip
    lines = []
    for row, cell in evaluated.cells():
        if not cell.comparison:
            continue
        found, paper = cell.comparison, cell.comparison.paper
        ours, test = found.ours, found.test
        low, high, p = (test.low, test.high, test.p) if test else (None, None, None)
        sides = [
            *(exact(ours and ours.mean), exact(ours and ours.std), str(ours.n if ours else 0)),
            *(exact(paper.mean), exact(paper.std), str(paper.n)),
        ]
        tested = map(exact, (found.difference, low, high, p, found.p_holm))
        names = (row.label, cell.column.name, cell.cell.name)
        lines.append((*names, *sides, *tested, found.verdict, found.differs))
    return csv_text(header, lines)


def figure_csv(evaluated: EvaluatedFigure) -> str:
    """The plotted numbers, in the unit of the axis."""
    figure = evaluated.figure
    x = "group" if figure.kind == "bars" else "epoch"
    lines = []
    for point in evaluated.points:
        panel, y = figure.panels[point.panel], point.y
        names = (panel.title, panel.series[point.series].label, str(point.x), panel.y_label)
        lines.append((*names, exact(y.mean), exact(y.std), str(y.n)))
    return csv_text(("panel", "series", x, "y", "mean", "std", "n"), lines)


def markdown_figure(evaluated: EvaluatedFigure) -> str:
    """The picture with its caption."""
    name = evaluated.figure.id
    return f"![{name}](<{name}.png>)\n\n**{name}.** {evaluated.caption}\n"
