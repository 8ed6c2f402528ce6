"""Writes evaluated tables, figures and the report to a folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.files import atomic, write_text
from experiments.report import render
from experiments.report.evaluate import EvaluatedTable
from experiments.report.figures import EvaluatedFigure
from experiments.report.reader import Reader

NOTES = Path(__file__).resolve().parents[2] / "docs" / "paper-notes.md"


def write_files(stem: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes one file per suffix."""
    for suffix, content in files.items():
        with atomic(stem.with_name(stem.name + suffix)) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_table(evaluated: EvaluatedTable, out: Path) -> str:
    """Writes a table, and prints it if it has runs; returns a status line."""
    text, stem = render.markdown(evaluated), out / "tables" / evaluated.table.id
    files = {".md": text, ".csv": render.numbers_csv(evaluated), ".tex": render.latex(evaluated)}
    if evaluated.compared:
        files[".paper.csv"] = render.comparison_csv(evaluated)
    write_files(stem, files)
    if evaluated.runs:
        print(text)
    return f"{stem.name}: {stem}.md"


def write_figure(evaluated: EvaluatedFigure, out: Path) -> str:
    """Writes a figure; if all its runs are missing, removes an outdated one.

    If only some runs are missing, the figure is drawn without them, and its caption says so.
    """
    from experiments.report.draw import draw  # matplotlib takes a second to import

    stem = out / "figures" / evaluated.figure.id
    if evaluated.figure.panels and not evaluated.drawn:
        removed = " (an earlier one was removed)" if Path(f"{stem}.png").exists() else ""
        for suffix in (".png", ".pdf", ".csv", ".md", ".tex"):
            Path(f"{stem}{suffix}").unlink(missing_ok=True)
        return f"{stem.name}: not drawn, its runs are missing{removed}"
    texts = {".md": render.markdown_figure(evaluated), ".tex": render.latex_figure(evaluated)}
    if evaluated.drawn:
        texts[".csv"] = render.figure_csv(evaluated)
    write_files(stem, {**texts, **draw(evaluated)})
    missing = f" (without {evaluated.not_drawn})" if evaluated.not_drawn else ""
    return f"{stem.name}: {stem}.png{missing}"


def write_report(
    tables: Sequence[EvaluatedTable],
    figures: Sequence[EvaluatedFigure],
    name: str,
    reader: Reader,
    out: Path,
) -> str:
    """Writes the HTML report; returns a status line."""
    from experiments.report.draw import cut_panels
    from experiments.report.html import report

    paths = {f.figure.id: out / "figures" / f"{f.figure.id}.png" for f in figures}
    pictures = {
        f.figure.id: cut_panels(paths[f.figure.id].read_bytes(), f)
        for f in figures
        if paths[f.figure.id].exists()
    }
    notes = Path(os.path.relpath(NOTES, out)).as_posix()
    write_text(out / f"{name}.html", report(tables, figures, pictures, reader, notes))
    return f"report: {out / name}.html"
