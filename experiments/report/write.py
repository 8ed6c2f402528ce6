"""Writes evaluated tables and figures, and the report of them, into a folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from common.files import atomic, write_text
from experiments.report.evaluate import EvaluatedTable
from experiments.report.figures import EvaluatedFigure
from experiments.report.latex import latex, latex_figure
from experiments.report.reader import Reader
from experiments.report.render import (
    comparison_csv,
    figure_csv,
    markdown,
    markdown_figure,
    numbers_csv,
)

NOTES = Path(__file__).resolve().parents[2] / "docs" / "paper-notes.md"


def write_table(evaluated: EvaluatedTable, out: Path) -> str:
    """Writes a table, and prints it if it has a run; returns the line that reports it."""
    text, path = markdown(evaluated), out / "tables" / f"{evaluated.table.id}.md"
    write_text(path, text)
    write_text(path.with_suffix(".csv"), numbers_csv(evaluated))
    write_text(path.with_suffix(".tex"), latex(evaluated))
    if evaluated.comparisons:
        write_text(path.with_suffix(".paper.csv"), comparison_csv(evaluated))
    if evaluated.runs:
        print(text)
    return f"{evaluated.table.id}: {path}"


def write_figure(evaluated: EvaluatedFigure, out: Path) -> str:
    """Writes a figure; when all its runs are missing, removes an earlier one, which would mislead.

    A figure of which some runs are missing is drawn without them, and its caption says so.
    """
    from experiments.report.draw import draw  # matplotlib takes a second to import

    name = evaluated.figure.id
    path = out / "figures" / f"{name}.png"
    if evaluated.figure.panels and not evaluated.points:
        removed = " (an earlier one was removed)" if path.exists() else ""
        for suffix in (".png", ".pdf", ".csv", ".md", ".tex"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        return f"{name}: not drawn, its runs are missing{removed}"
    if evaluated.points:
        write_text(path.with_suffix(".csv"), figure_csv(evaluated))
    write_text(path.with_suffix(".md"), markdown_figure(evaluated))
    write_text(path.with_suffix(".tex"), latex_figure(evaluated))
    for suffix, content in draw(evaluated).items():
        with atomic(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(content)
    missing = evaluated.not_drawn
    return f"{name}: {path}" + (f" (without {missing})" if missing else "")


def write_report(
    tables: Sequence[EvaluatedTable],
    figures: Sequence[EvaluatedFigure],
    name: str,
    reader: Reader,
    out: Path,
) -> str:
    """Writes the report of what was made; returns the line that names it."""
    from experiments.report.draw import cut_panels
    from experiments.report.html import report

    pictures = {}
    for figure in figures:
        path = out / "figures" / f"{figure.figure.id}.png"
        if path.exists():
            pictures[figure.figure.id] = cut_panels(path.read_bytes(), figure)
    path = out / f"{name}.html"
    notes = Path(os.path.relpath(NOTES, out)).as_posix()
    write_text(path, report(tables, figures, pictures, reader, notes))
    return f"report: {path}"
