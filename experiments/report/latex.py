"""A table as a LaTeX file: one table environment that needs booktabs and graphicx alone.

    \\usepackage{booktabs,graphicx}
    \\input{results/tables/table1}

A table of more than six columns goes on below itself, block after block, under a new heading: side
by side its type would be too small to read. What is still wider than the text is scaled down to it.
"""

import re
from collections.abc import Iterator, Sequence

from experiments.paper.kinds import Column, Table
from experiments.report.grid import Filled, Grid, grid, marks, spans
from experiments.report.provenance import footer, spread
from experiments.report.reader import Reader
from experiments.report.statistics import MISSING, Summary
from experiments.report.tables import NOT_THERE, marked_note

WIDEST = 6  # columns side by side
NO_RUN = "A dash: no run yet."
ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\`{}",
        '"': "''",
        "±": r"$\pm$",
    }
)
WRAPS = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
# \width is the natural one: a table that fits is left as it is.
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands: also two hyphens, which it would draw as one dash."""
    return re.sub("-(?=-)", "-{}", text.translate(ESCAPES))


def latex(table: Table, reader: Reader) -> str:
    """The table's file; its sources stand in comments at the top."""
    cells = grid(table, reader)
    marked = marks(table, cells)
    parts = panels(table.columns)
    wide = max(len(part) for part in parts)
    body = [line for k, part in enumerate(parts) for line in panel(table, cells, marked, part, k)]
    notes = [
        *spread_notes(table, reader),
        *([marked_note(table, marked)] if marked else []),
        *own_rows_note(table),
        *table.notes,
    ]
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        "% " + " ".join(footer(table, reader).split()),
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{table.id}}}",
        r"\small",
        r"\setlength{\tabcolsep}{3pt}",
        r"\smallskip",
        FIT,
        rf"\begin{{tabular}}{{l{'c' * wide}}}",
        *body,
        r"\end{tabular}}",
        *small_print(notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def panels(columns: tuple[Column, ...]) -> list[list[int]]:
    """The places of the columns that stand side by side: whole blocks, as many as fit."""
    found: list[list[int]] = [[]]
    place = 0
    for _, count in spans(columns):
        if found[-1] and len(found[-1]) + count > WIDEST:
            found.append([])
        found[-1] += range(place, place + count)
        place += count
    return found


def panel(
    table: Table,
    cells: Grid,
    marked: dict[tuple[int, int], str],
    places: Sequence[int],
    number: int,
) -> list[str]:
    """Heading and rows of some columns; the paper's rows first, below a rule those it lacks."""
    columns = tuple(table.columns[place] for place in places)
    lines = [r"\midrule \addlinespace" if number else r"\toprule", *heading(table.first, columns)]
    for own in (False, True):
        rows = [(r, row) for r, row in enumerate(table.rows) if row.ours == own]
        lines += [r"\midrule"] if rows else []
        for r, row in rows:
            shown = [
                cell(cells[r][c], table.columns[c], marked.get((r, c), ""), len(table.seeds))
                for c in places
            ]
            lines.append(" & ".join([escape(row.label), *shown]) + r" \\")
    is_last = places[-1] == len(table.columns) - 1
    return [*lines, r"\bottomrule"] if is_last else lines


def heading(first: str, columns: tuple[Column, ...]) -> Iterator[str]:
    """The blocks' names over rules, if there are any, and the columns' names."""
    blocks = spans(columns)
    if any(block for block, _ in blocks):
        names, rules, place = [""], [], 2
        for block, count in blocks:
            names.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(block)}}}")
            rules += [rf"\cmidrule(lr){{{place}-{place + count - 1}}}"] if block else []
            place += count
        yield " & ".join(names).lstrip() + r" \\"
        yield " ".join(rules)
    yield " & ".join([escape(first), *(escape(column.header) for column in columns)]) + r" \\"


def cell(filled: Filled | str | None, column: Column, mark: str, seeds: int) -> str:
    """Mean, spread, and how many runs they are over where it is not every seed; or a text."""
    if not isinstance(filled, Filled):
        return escape(filled or NOT_THERE)
    if filled.summary is None:
        return MISSING
    summary: Summary = filled.summary.scaled(100.0 if column.percent else 1.0)
    text = WRAPS[mark] % f"{summary.mean:.{column.digits}f}"
    if summary.std is not None:
        text += rf" $\pm$ {summary.std:.{column.digits}f}"
    return text if summary.n == seeds else f"{text} ({summary.n})"


def spread_notes(table: Table, reader: Reader) -> list[str]:
    """What the cells show."""
    if len(table.seeds) == 1:
        return ["One seed.", NO_RUN]
    many = f"Mean ± sample standard deviation (n - 1) over {len(table.seeds)} seeds."
    held = spread([run for runs in table.runs() for run in reader.finished(runs, table.seeds)])
    fewer = f"Where fewer runs are there, their number stands in parentheses. {NO_RUN}"
    return [many, *([held] if held else []), fewer]


def own_rows_note(table: Table) -> list[str]:
    """Tells the extra rows, if there are any."""
    own = any(row.ours for row in table.rows)
    return ["The paper has no rows like those below the rule."] if own else []


def small_print(notes: Sequence[str]) -> list[str]:
    """The notes as one small paragraph below the table."""
    text = [escape(note) for note in notes]
    return [r"\par\smallskip", r"{\footnotesize\raggedright", *text, r"\par}"]
