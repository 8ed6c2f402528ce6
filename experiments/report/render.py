r"""Evaluated tables and figures as Markdown, CSV and LaTeX.

    \usepackage{booktabs,graphicx}
    \input{results/tables/table1}

In LaTeX, a table with more than three columns spans both columns of a two-column paper. A table
with more than six columns is split into parts below each other, to keep the text readable.
"""

import re
from collections.abc import Sequence

from common.files import csv_text
from experiments.report.compare import FOOTNOTE, verdict_counts, why_not_comparable
from experiments.report.evaluate import NOT_THERE, Entry, EvaluatedCell, EvaluatedTable, blocks
from experiments.report.figures import EvaluatedFigure
from experiments.report.provenance import plus_minus
from experiments.report.statistics import MISSING, Summary, exact

WIDEST = 6  # columns side by side
NARROW = 3  # columns that fit half a page
ESCAPES = {c: "\\" + c for c in "{}$%&#_"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\`{}",
    '"': "''",
    "±": r"$\pm$",
}
TABLE = r"""% \usepackage{{booktabs,graphicx}}
% {sources}
\begin{{{kind}}}[tbp]
\centering
\caption{{{caption}}}
\label{{tab:{name}}}
\small
\setlength{{\tabcolsep}}{{3pt}}
\smallskip
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
\begin{{tabular}}{{{columns}}}
\toprule
{rows}
\bottomrule
\end{{tabular}}}}
\par\smallskip
{{\footnotesize\raggedright
{notes}
\par}}
\end{{{kind}}}
"""
FIGURE = r"""% \usepackage{{graphicx}}
% \graphicspath{{{{results/figures/}}}}
\begin{{{kind}}}[tbp]
\centering
\includegraphics[width=\linewidth]{{\detokenize{{{name}.pdf}}}}
\caption{{{caption}}}
\label{{fig:{name}}}
\end{{{kind}}}
"""


def markdown(evaluated: EvaluatedTable) -> str:
    """The table with its notes, missing runs and provenance."""
    table, compared = evaluated.table, evaluated.compared
    rows = [[table.first, *(column.name for column in table.columns)]]
    for row, entries in evaluated.rows():
        shown = (
            e.marked(e.text, "markdown") if isinstance(e, EvaluatedCell) else e or NOT_THERE
            for e in entries
        )
        rows.append([row.label, *shown])
    head, *body = [f"| {' | '.join(row)} |\n" for row in rows]
    grid = "".join([head, "|---" * len(rows[0]) + "|\n", *body])
    parts = [f"**{table.id}.** {table.caption}", grid.rstrip(), evaluated.marks_note, *table.notes]
    if compared:
        counts = ", ".join(f"{n} {verdict}" for verdict, n in verdict_counts(compared).items())
        why = why_not_comparable(compared)
        parts.append(f"Compared with the paper, cell by cell: {counts}. {why}{FOOTNOTE}")
    if evaluated.to_fill:
        hints = [(command, f" ({hint})" if hint else "") for command, hint in evaluated.to_fill]
        parts += ["Missing runs:", "\n".join(f"- `{command}`{hint}" for command, hint in hints)]
    return "\n\n".join(part for part in [*parts, evaluated.footer] if part) + "\n"


def markdown_figure(evaluated: EvaluatedFigure) -> str:
    """The image with its caption."""
    name = evaluated.figure.id
    return f"![{name}](<{name}.png>)\n\n**{name}.** {evaluated.caption}\n"


def numbers_csv(evaluated: EvaluatedTable) -> str:
    """One line per cell: a text, or the value of each seed in the unit of result.json."""
    header = ("row", "column", "runs", "metric", "mean", "std", "n", "seeds", "values")
    lines: list[tuple[str, ...]] = []
    for row, entries in evaluated.rows():
        for column, entry in zip(evaluated.table.columns, entries, strict=True):
            if isinstance(entry, EvaluatedCell):
                values = entry.values
                each = (" ".join(map(str, values)), " ".join(map(exact, values.values())))
                fields = (entry.cell.name, entry.cell.key, *summary_fields(entry.summary), *each)
                lines.append((row.label, column.name, *fields))
            elif entry:
                lines.append((row.label, column.name, *[""] * 6, entry))
    return csv_text(header, lines)


def summary_fields(summary: Summary | None) -> tuple[str, str, str]:
    """Mean, standard deviation and count for a CSV line."""
    return (exact(summary.mean), exact(summary.std), str(summary.n)) if summary else ("", "", "0")


def comparison_csv(evaluated: EvaluatedTable) -> str:
    """Our numbers and the paper's, one line per cell, in the paper's unit."""
    header = (
        "row", "column", "runs", "ours", "ours_std", "ours_n", "paper", "paper_std", "paper_n",
        "difference", "low", "high", "p", "p_holm", "verdict", "differs",
    )  # fmt: skip
    lines = []
    for row, cell in evaluated.cells():
        if cell.paper:
            sides = (*summary_fields(cell.shown), *summary_fields(cell.paper))
            tested = (cell.difference, *(cell.test or (None, None, None)), cell.p_holm)
            names = (row.label, cell.column.name, cell.cell.name)
            lines.append((*names, *sides, *map(exact, tested), cell.verdict, cell.differs))
    return csv_text(header, lines)


def figure_csv(evaluated: EvaluatedFigure) -> str:
    """The plotted numbers, in the unit of the axis."""
    header = ("panel", "series", "group" if evaluated.figure.kind == "bars" else "epoch", "y")
    lines = [
        (one.panel.title, s.series.label, str(x), one.panel.y_label, *summary_fields(y))
        for one in evaluated.panels
        for s in one.series
        for x, y in s.points.items()
    ]
    return csv_text((*header, "mean", "std", "n"), lines)


def escape(text: str) -> str:
    """Text escaped for LaTeX, including double hyphens, which it would draw as a dash."""
    return re.sub("-(?=-)", "-{}", text.translate({ord(c): new for c, new in ESCAPES.items()}))


def latex(evaluated: EvaluatedTable) -> str:
    """The table's .tex file, with its provenance in a comment at the top."""
    table, seeds, dash = evaluated.table, len(evaluated.table.seeds), "A dash means no run yet."
    parts = panels([count for _, count in blocks(table.columns)])
    wide = max(map(len, parts))
    over = [
        f"Mean ± sample standard deviation (n - 1) over {seeds} seeds.",
        plus_minus(evaluated.runs),
        f"If there are fewer runs, their number is in parentheses. {dash}",
    ]
    own_rows = any(row.ours for row in table.rows)
    below = "Rows below the rule are not in the paper." if own_rows else ""
    first = ["One seed.", dash] if seeds == 1 else over
    notes = [note for note in (*first, evaluated.marks_note, below, *table.notes) if note]
    return TABLE.format(
        sources=evaluated.footer,
        kind="table*" if wide > NARROW else "table",
        caption=escape(table.caption),
        name=table.id,
        columns="l" + "c" * wide,
        rows="\n\\midrule \\addlinespace\n".join(latex_rows(evaluated, part) for part in parts),
        notes="\n".join(map(escape, notes)),
    )


def panels(counts: Sequence[int]) -> list[list[int]]:
    """The column indices of each part of a wide table; blocks are not split."""
    found: list[list[int]] = [[]]
    for place, count in enumerate(counts):
        if found[-1] and len(found[-1]) + count > WIDEST:
            found.append([])
        before = sum(counts[:place])
        found[-1] += range(before, before + count)
    return found


def latex_rows(evaluated: EvaluatedTable, places: Sequence[int]) -> str:
    """Heading and rows of some columns; the paper's rows first, then a rule and the others."""
    table = evaluated.table
    columns = tuple(table.columns[place] for place in places)
    lines, names, rules, place = [], [""], [], 2
    for block, count in blocks(columns):
        names.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(block)}}}")
        rules += [rf"\cmidrule(lr){{{place}-{place + count - 1}}}"] if block else []
        place += count
    if rules:
        lines += [" & ".join(names).lstrip() + r" \\", " ".join(rules)]
    lines.append(" & ".join(map(escape, [table.first, *(c.header for c in columns)])) + r" \\")
    for ours in (False, True):
        rows = list(evaluated.rows(ours))
        lines += [r"\midrule"] * bool(rows)
        for row, entries in rows:
            shown = (latex_entry(entries[place], len(table.seeds)) for place in places)
            lines.append(" & ".join([escape(row.label), *shown]) + r" \\")
    return "\n".join(lines)


def latex_entry(entry: Entry, seeds: int) -> str:
    """Mean and deviation, with the number of runs if seeds are missing; or a text."""
    if not isinstance(entry, EvaluatedCell):
        return escape(entry or NOT_THERE)
    if entry.shown is None:
        return MISSING
    mean, *spread = entry.shown.spread(entry.column.digits).split(" ± ")
    text = r" $\pm$ ".join([entry.marked(mean, "latex"), *spread])
    return text if entry.shown.n == seeds else f"{text} ({entry.shown.n})"


def latex_figure(evaluated: EvaluatedFigure) -> str:
    """The figure environment; a figure with several panels spans both columns."""
    kind = "figure" if len(evaluated.drawn) == 1 else "figure*"
    return FIGURE.format(kind=kind, name=evaluated.figure.id, caption=escape(evaluated.caption))
