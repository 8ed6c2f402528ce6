r"""An evaluated table as a LaTeX file that needs booktabs and graphicx alone.

    \usepackage{booktabs,graphicx}
    \input{results/tables/table1}

A table of more than three columns takes both columns of a two-column paper (table*, which is like
table on a page of one). One of more than six goes on below itself, block after block, under a new
heading: side by side its type would be too small to read. What is still too wide is scaled down.
"""

import re
from collections.abc import Iterator, Sequence

from experiments.paper.kinds import Column
from experiments.report.evaluate import NOT_THERE, Entry, EvaluatedCell, EvaluatedTable, blocks
from experiments.report.figures import EvaluatedFigure
from experiments.report.statistics import MISSING

WIDEST = 6  # columns side by side
NARROW = 3  # columns that fit half a page
ESCAPES = {character: "\\" + character for character in "{}$%&#_"} | {
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
# \width is the natural one: a table that fits is left as it is.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands: also two hyphens, which it would draw as one dash."""
    return re.sub("-(?=-)", "-{}", text.translate(str.maketrans(ESCAPES)))


def latex(evaluated: EvaluatedTable) -> str:
    """The table's file; its sources stand in comments at the top."""
    table = evaluated.table
    parts = panels(table.columns)
    wide = max(len(part) for part in parts)
    kind = "table*" if wide > NARROW else "table"
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        "% " + " ".join(evaluated.footer.split()),
        rf"\begin{{{kind}}}[tbp]",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{table.id}}}",
        r"\small",
        r"\setlength{\tabcolsep}{3pt}",
        r"\smallskip",
        FIT,
        rf"\begin{{tabular}}{{l{'c' * wide}}}",
        *(line for number, part in enumerate(parts) for line in panel(evaluated, part, number)),
        r"\end{tabular}}",
        r"\par\smallskip",
        r"{\footnotesize\raggedright",
        *map(escape, notes(evaluated)),
        r"\par}",
        rf"\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"


def panels(columns: tuple[Column, ...]) -> list[list[int]]:
    """The places of the columns that stand side by side: whole blocks, as many as fit."""
    found: list[list[int]] = [[]]
    place = 0
    for _, count in blocks(columns):
        if found[-1] and len(found[-1]) + count > WIDEST:
            found.append([])
        found[-1] += range(place, place + count)
        place += count
    return found


def panel(evaluated: EvaluatedTable, places: Sequence[int], number: int) -> list[str]:
    """Heading and rows of some columns; the paper's rows first, below a rule those it lacks."""
    table = evaluated.table
    columns = tuple(table.columns[place] for place in places)
    lines = [r"\midrule \addlinespace" if number else r"\toprule", *heading(table.first, columns)]
    for ours in (False, True):
        rows = list(evaluated.rows(ours))
        lines += [r"\midrule"] if rows else []
        for row, entries in rows:
            shown = [latex_entry(entries[place], len(table.seeds)) for place in places]
            lines.append(" & ".join([escape(row.label), *shown]) + r" \\")
    is_last = places[-1] == len(table.columns) - 1
    return [*lines, r"\bottomrule"] if is_last else lines


def heading(first: str, columns: tuple[Column, ...]) -> Iterator[str]:
    """The blocks' names over rules, if there are any, and the columns' names."""
    if any(column.block for column in columns):
        names, rules, place = [], [], 2
        for block, count in blocks(columns):
            names.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(block)}}}")
            rules += [rf"\cmidrule(lr){{{place}-{place + count - 1}}}"] if block else []
            place += count
        yield "& " + " & ".join(names) + r" \\"
        yield " ".join(rules)
    yield " & ".join([escape(first), *(escape(column.header) for column in columns)]) + r" \\"


def latex_entry(entry: Entry, seeds: int) -> str:
    """Mean, spread, and how many runs they are over where it is not every seed; or a text."""
    if not isinstance(entry, EvaluatedCell):
        return escape(entry or NOT_THERE)
    if entry.summary is None:
        return MISSING
    summary = entry.summary.scaled(100.0 if entry.column.percent else 1.0)
    text = entry.enclosed(f"{summary.mean:.{entry.column.digits}f}", "latex")
    if summary.std is not None:
        text += rf" $\pm$ {summary.std:.{entry.column.digits}f}"
    return text if summary.n == seeds else f"{text} ({summary.n})"


def notes(evaluated: EvaluatedTable) -> list[str]:
    """The small print below the table."""
    table, dash = evaluated.table, "A dash: no run yet."
    if len(table.seeds) == 1:
        found = ["One seed.", dash]
    else:
        found = [
            f"Mean ± sample standard deviation (n - 1) over {len(table.seeds)} seeds.",
            evaluated.plus_minus,
            f"Where fewer runs are there, their number stands in parentheses. {dash}",
        ]
    own_rows = any(row.ours for row in table.rows)
    found.append(evaluated.marks_note)
    found += ["The paper has no rows like those below the rule."] if own_rows else []
    return [note for note in (*found, *table.notes) if note]


def latex_figure(evaluated: EvaluatedFigure) -> str:
    """The figure's picture with its caption; several panels take both columns of a page."""
    name = evaluated.figure.id
    wide = len(evaluated.drawn_panels) != 1
    kind = "figure*" if wide else "figure"
    lines = [
        r"% \usepackage{graphicx}",
        r"% \graphicspath{{results/figures/}}",
        rf"\begin{{{kind}}}[tbp]",
        r"\centering",
        rf"\includegraphics[width=\linewidth]{{\detokenize{{{name}.pdf}}}}",
        rf"\caption{{{escape(evaluated.caption)}}}",
        rf"\label{{fig:{name}}}",
        rf"\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"
