"""The report: tables, figures and their runs in one self-contained HTML file.

This module computes the values for the template `report.html.j2`. Output is reproducible to the
byte. The page is readable without its script, which only sorts the lists of cells.
"""

import base64
import re
import shlex
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from common.program import duration
from experiments.launch.estimate import Estimator, time_left
from experiments.paper.kinds import Artifact, Cell, RunSet, runs_in, suffix_of
from experiments.paper.registry import needed
from experiments.report import compare, evaluate, provenance
from experiments.report.evaluate import EvaluatedCell, EvaluatedTable
from experiments.report.figures import EvaluatedFigure
from experiments.report.reader import HINTS, Reader
from experiments.report.statistics import exact

STATES = {
    "new": "not started",
    "partial": "started but not finished",
    "failed": "failed",
    "unusable": "damaged or from another run",
}
MACHINE = ("device", "threads", "torch", "commit")
COMPARED = {"agrees": "in agreement", "higher": "higher", "lower": "lower"}


def report(
    tables: Sequence[EvaluatedTable],
    figures: Sequence[EvaluatedFigure],
    pictures: Mapping[str, Sequence[bytes]],
    reader: Reader,
    notes: str,
) -> str:
    """The page; `pictures` maps figure ids to the PNGs of their panels.

    `notes` is the path of docs/paper-notes.md relative to the page.
    """
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.loader, environment.autoescape = FileSystemLoader(Path(__file__).parent), True
    environment.filters.update(
        base64=lambda png: base64.b64encode(png).decode(),
        exact=exact,
        marked=lambda cell: Markup(cell.marked(escape(cell.text), "html")),
        prose=prose,
        size=lambda png: struct.unpack(">II", png[16:24]),  # of a PNG, from its header
    )
    environment.tests["number"] = lambda entry: isinstance(entry, EvaluatedCell)
    artifacts: list[Artifact] = [*(t.table for t in tables), *(f.figure for f in figures)]
    drawn = [figure for figure in figures if figure.drawn]
    small = (f for f in drawn if f.figure.kind == "bars" and len(f.drawn) == 1)
    return environment.get_template("report.html.j2").render(
        artifacts=artifacts,
        behind=RunsBehind(reader),
        compare=compare,
        compared=[cell for table in tables for cell in table.compared],
        evaluate=evaluate,
        figures=figures,
        finding=finding(tables),
        main_figure=next(small, drawn[0] if drawn else None),
        main_table=leading_table(tables),
        missing=reader.missing(artifacts),
        notes=notes,
        pictures=pictures,
        provenance=provenance,
        tables=tables,
    )


def prose(text: str) -> Markup:
    """Text as HTML, with `backticks` as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def leading_table(tables: Sequence[EvaluatedTable]) -> EvaluatedTable | None:
    """The first table that has a run, or else the first table."""
    return next((t for t in tables if t.runs), tables[0] if tables else None)


def finding(tables: Sequence[EvaluatedTable]) -> str:
    """One sentence: the best row of the leading table, and the agreement with the paper."""
    table = leading_table(tables)
    if table is None or not table.runs:
        return "No finished run yet, so there is nothing to report."
    compared = [cell for table in tables for cell in table.compared]
    counts = compare.verdict_counts(compared)
    if COMPARED.keys() & counts.keys():
        words = ", ".join(f"{counts.get(v, 0)} {phrase}" for v, phrase in COMPARED.items())
        agreement = f"compared with the paper, cell by cell: {words}"
    elif any(cell.shown for cell in compared):
        agreement = "none of the numbers could be compared with the paper"
    else:
        agreement = "the paper does not report these numbers"
    return f"{leader(table)}; {agreement}."


def leader(evaluated: EvaluatedTable) -> str:
    """The best row in the first column that has one, compared with the first other row."""
    cells = [(row.label, cell) for row, cell in evaluated.cells() if cell.summary]
    for place, column in enumerate(evaluated.table.columns):
        numbers = {label: cell for label, cell in cells if cell.place[1] == place}
        best = [label for label, cell in numbers.items() if cell.mark == "best"]
        if best:
            other = next(label for label in numbers if label not in best)
            few = f" (among the {len(numbers)} rows that have runs)"
            return (
                f"In {evaluated.table.id}, {' and '.join(best)} {'is' if len(best) == 1 else 'are'}"
                f" best in “{column.name}” with {numbers[best[0]].text}, against"
                f" {numbers[other].text} for {other}"
                f"{few if len(numbers) < len(evaluated.table.rows) else ''}"
            )
    return f"No row of {evaluated.table.id} is best yet"


class RunsBehind:
    """What the page shows about runs: commands, folders, environments, missing runs."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.seconds = cache(Estimator(reader).seconds)

    def counted(self, artifacts: Sequence[Artifact]) -> str:
        """The number of finished runs, and the states of the others."""
        states = Counter(self.reader.run(*pair)[1] for pair in needed(artifacts))
        rest = [f"{states[state]} {words}" for state, words in STATES.items() if states[state]]
        return "; ".join([f"{states['done']} of {states.total()} are done", *rest])

    def cost(self, wanted: Sequence[tuple[RunSet, int]]) -> str:
        """The number of runs, and the time they take one after another."""
        count = "1 run" if len(wanted) == 1 else f"{len(wanted)} runs"
        rest = time_left(self.seconds(runs, seed) for runs, seed in wanted)
        return f"{count}, {rest}" if rest else count

    def run(self, runs: RunSet, seed: int, cell: EvaluatedCell | None = None) -> dict[str, Any]:
        """A run's command, with its folder and its value for `cell`, or why it is missing."""
        found: dict[str, Any] = {"seed": seed, "command": self.reader.commands(runs, [seed])}
        state, seconds = self.reader.run(runs, seed)[1], self.seconds(runs, seed)
        if state == "done" and cell:
            value = self.reader.values(runs, [seed], cell.cell.key).get(seed)
            shown = "no value" if value is None else exact(value * cell.column.scale)
            return found | {"value": shown, "folder": runs.folder(Path(), seed).path.as_posix()}
        time = "no estimate" if seconds is None else f"about {duration(seconds)} left"
        return found | {"why": f"{HINTS.get(state, STATES.get(state))}; {time}"}

    def of_cell(self, seeds: Sequence[int], cell: EvaluatedCell) -> list[dict[str, Any]]:
        return [self.run(runs, seed, cell) for runs in runs_in(cell.cell) for seed in seeds]

    def environments(self, seeds: Sequence[int], cell: Cell) -> list[str]:
        """One line per environment in which the runs were started, with its seeds."""
        found: dict[str, list[int]] = {}
        for run in [run for runs in runs_in(cell) for run in self.reader.finished(runs, seeds)]:
            for start in run.starts:
                hashes = dict(sorted(provenance.hashes_in(start).items()))
                named = {k: start.get(k, "unknown") for k in MACHINE} | hashes
                text = ", ".join(f"{key} {value}" for key, value in named.items())
                if run.seed not in found.setdefault(text, []):
                    found[text].append(run.seed)
        return [
            f"Seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {text}."
            for text, own in found.items()
        ]

    def damaged(self, wanted: Sequence[tuple[RunSet, int]]) -> bool:
        """Whether a folder must be overwritten, which the launcher does not do by itself."""
        return any(self.reader.run(runs, seed)[1] == "unusable" for runs, seed in wanted)

    def launch_command(self, artifact: Artifact) -> str:
        """The command that makes all missing runs of the artifact."""
        name = artifact.id.removesuffix(suffix_of(dict(artifact.changed)))
        words = ["python", "-m", "experiments", "run", name]
        if artifact.changed:
            words += ["--set", *(f"{key}={value}" for key, value in artifact.changed)]
        if self.reader.results != Path("results"):
            words += ["--results_dir", str(self.reader.results)]
        return shlex.join(words)
