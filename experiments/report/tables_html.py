"""A table of the report: as the paper has it, and cell by cell beside the paper."""

from collections.abc import Iterator, Sequence

from experiments.paper.kinds import Cell, Column, Table
from experiments.report.compare import Comparison, counts, differing
from experiments.report.grid import Filled, Grid, grid, marks, spans
from experiments.report.html import Html, markup, prose, scroller, tag
from experiments.report.reader import Reader
from experiments.report.runs_html import Times, runs_behind
from experiments.report.statistics import Summary, show
from experiments.report.tables import NOT_THERE, marked_note

WRAPS = {"best": "b", "second": "u"}
NO_NUMBER = "ours only"
OWN_ROWS = "Rows below the line are ours; the paper does not have them."
HEADS = ("row", "column", "ours ± std (n)")
BESIDE = ("paper ± std", "difference", "95 % interval", "p", "p (Holm)", "verdict")
COMMENT = "The rows can be sorted by each heading; each opens to the runs behind it."


def table_body(
    table: Table, comparisons: Sequence[Comparison], reader: Reader, times: Times
) -> Iterator[Html]:
    """The table, its notes, the verdicts, and all its cells with the runs behind them."""
    cells = grid(table, reader)
    marked = marks(table, cells)
    yield tag("p", prose(table.caption))
    yield scroller(grid_table(table, cells, marked), f"{table.id}, table")
    if marked:
        yield tag("p", marked_note(table, marked), class_="small")
    if any(row.ours for row in table.rows):
        yield tag("p", OWN_ROWS, class_="small")
    for note in table.notes:
        yield tag("p", prose(note), class_="small")
    yield tag("h4", "Cell by cell")
    if comparisons:
        why = differing(comparisons)
        yield tag("p", "Against the paper: ", verdict_counts(comparisons), f". {why}", COMMENT)
    else:
        yield tag("p", "The paper has none of these numbers. ", COMMENT)
    yield scroller(
        cells_table(table, cells, comparisons, reader, times), f"{table.id}, cell by cell", "tall"
    )


def verdict_counts(comparisons: Sequence[Comparison]) -> Html:
    """How many cells have each verdict."""
    parts = [
        markup(f"{n} ", tag("span", verdict, class_=css_classes(verdict)))
        for verdict, n in counts(list(comparisons)).items()
    ]
    return markup(*(part if k == 0 else markup(", ", part) for k, part in enumerate(parts)))


def cell_id(table: Table, row: int, column: int) -> str:
    """Where the cell's runs stand."""
    return f"{table.id}-{row}-{column}"


def grid_table(table: Table, cells: Grid, marked: dict[tuple[int, int], str]) -> Html:
    """Rows and columns; each number leads to its runs."""
    blocks = spans(table.columns)
    starts = {sum(n for _, n in blocks[:k]) for k in range(1, len(blocks))}
    bodies = []
    for own in (False, True):
        lines = []
        for r, row in enumerate(table.rows):
            if row.ours == own:
                shown = [
                    grid_cell(table, cells[r][c], (r, c), marked.get((r, c), ""), c in starts)
                    for c in range(len(table.columns))
                ]
                lines.append(tag("tr", tag("th", row.label, scope="row"), *shown))
        if lines:
            bodies.append(tag("tbody", *lines))
    return tag("table", grid_head(table, blocks, starts), *bodies, class_="grid")


def grid_head(table: Table, blocks: list[tuple[str, int]], starts: set[int]) -> Html:
    """The columns' names, below those of their blocks if there are any."""
    names = [tag("th", column.header, scope="col") for column in table.columns]
    for place in starts:
        names[place] = tag("th", table.columns[place].header, scope="col", class_="first")
    if not any(block for block, _ in blocks):
        return tag("thead", tag("tr", tag("th", table.first, scope="col"), *names))
    over = [
        tag("th", block, colspan=str(n), scope="colgroup", **({"class_": "first"} if k else {}))
        for k, (block, n) in enumerate(blocks)
    ]
    first = tag("th", table.first, scope="col", rowspan="2")
    return tag("thead", tag("tr", first, *over), tag("tr", *names))


def grid_cell(
    table: Table, filled: Filled | str | None, place: tuple[int, int], mark: str, is_first: bool
) -> Html:
    """A number and its mark, a text, or that there is none."""
    looks = {"class_": "first"} if is_first else {}
    if not isinstance(filled, Filled):
        return tag("td", filled or tag("span", NOT_THERE, class_="none"), **looks)
    column = table.columns[place[1]]
    text = show(filled.summary, column.percent, column.digits)
    shown = tag(WRAPS[mark], text) if mark else text
    return tag("td", tag("a", shown, href=f"#{cell_id(table, *place)}"), **looks)


def cells_table(
    table: Table,
    cells: Grid,
    comparisons: Sequence[Comparison],
    reader: Reader,
    times: Times,
) -> Html:
    """A body of two rows for each cell: the numbers, and the runs behind them."""
    heads = HEADS + (BESIDE if comparisons else ())
    compared = iter(comparisons)
    bodies = []
    for r, row in enumerate(table.rows):
        for c, cell in enumerate(row.cells):
            if not isinstance(cell, Cell):
                continue
            column, filled = table.columns[c], cells[r][c]
            numbers = [tag("th", row.label, scope="row", data_v=str(r))]
            numbers += [tag("td", column.name, class_="text", data_v=str(c))]
            numbers.append(summary_cell(filled, column))
            if comparisons:
                numbers += beside(next(compared) if cell.paper else None, column)
            behind = runs_behind(table.seeds, column, cell, reader, times)
            under = tag("td", behind, class_="runs", colspan=str(len(heads)))
            rows = (tag("tr", *numbers), tag("tr", under))
            bodies.append(tag("tbody", *rows, id=cell_id(table, r, c)))
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads)))
    look = "cells" if comparisons else "cells few"
    return tag("table", head, "\n", *(markup(b, "\n") for b in bodies), class_=look)


def summary_cell(filled: Filled, column: Column) -> Html:
    """Our number, which sorts by its mean."""
    summary = filled.summary
    text = show(summary, column.percent, column.digits)
    return value_cell(text, summary and summary.mean)


def value_cell(text: str, value: float | None) -> Html:
    """A cell that sorts by a number; None comes last."""
    return tag("td", text, data_v="" if value is None else f"{value:.10g}")


def beside(comparison: Comparison | None, column: Column) -> list[Html]:
    """The paper's number, and what the comparison with it gave."""
    if comparison is None:
        empty = [value_cell("", None)] * (len(BESIDE) - 1)
        return [*empty, tag("td", NO_NUMBER, class_="text none")]
    digits, test, gap = column.digits, comparison.test, comparison.difference
    interval = f"[{test.low:.{digits}f}, {test.high:.{digits}f}]" if test else ""
    return [
        value_cell(plain(comparison.paper, digits), comparison.paper.mean),
        value_cell("" if gap is None else f"{gap:+.{digits}f}", gap),
        value_cell(interval, test and test.low),
        value_cell(probability(test and test.p), test and test.p),
        value_cell(probability(comparison.p_holm), comparison.p_holm),
        tag(
            "td",
            comparison.verdict,
            class_=css_classes(comparison.verdict),
            title=comparison.differs,
        ),
    ]


def css_classes(verdict: str) -> str:
    """The CSS classes of a verdict."""
    return f"text verdict {verdict.replace(' ', '-')}"


def plain(summary: Summary, digits: int) -> str:
    """The paper's number; over how many runs stands once, in the head."""
    spread = "" if summary.std is None else f" ± {summary.std:.{digits}f}"
    return f"{summary.mean:.{digits}f}{spread}"


def probability(p: float | None) -> str:
    """A p-value of three decimals."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
