"""The report: tables, figures and the runs behind them in one HTML file that loads nothing.

`report.html.j2` is the page; here is what it is filled with. Equal runs give equal bytes. The page
is readable without its script, which only sorts the lists of cells.
"""

import base64
import re
import shlex
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from common.program import duration
from experiments.launch.estimate import Estimator, time_left
from experiments.paper.kinds import Artifact, Cell, RunSet, suffix_of
from experiments.paper.registry import needed
from experiments.report.compare import FOOTNOTE, verdict_counts, why_not_comparable
from experiments.report.evaluate import NOT_THERE, EvaluatedCell, EvaluatedTable, blocks
from experiments.report.figures import EvaluatedFigure
from experiments.report.finding import finding, leading_table
from experiments.report.provenance import HASH_DIGITS, PLUS_MINUS, SELECTION, hashes_in, provenance
from experiments.report.reader import HINTS, Reader
from experiments.report.statistics import Summary, exact

STATES = {
    "new": "not begun",
    "partial": "begun and not finished",
    "failed": "stopped with an error",
    "unusable": "damaged or another run's",
}
Wanted = Sequence[tuple[RunSet, int]]


def report(
    tables: Sequence[EvaluatedTable],
    figures: Sequence[EvaluatedFigure],
    pictures: Mapping[str, Sequence[bytes]],
    reader: Reader,
    notes: str,
) -> str:
    """The page; `pictures` has the PNG of each panel of each drawn figure, by the figure's id.

    `notes` is the path of docs/paper-notes.md as seen from the page.
    """
    artifacts = [*(t.table for t in tables), *(f.figure for f in figures)]
    behind = RunsBehind(reader)
    return template().render(
        finding=finding(tables),
        main_table=leading_table(tables),
        main_figure=main_figure(figures),
        tables=tables,
        figures=figures,
        pictures=pictures,
        comparisons=[comparison for table in tables for comparison in table.comparisons],
        behind=behind,
        counted=behind.counted(artifacts),
        missing=reader.missing(artifacts),
        notes=notes,
        selection=SELECTION,
        plus_minus=PLUS_MINUS,
        footnote=FOOTNOTE,
        not_there=NOT_THERE,
    )


def template() -> Template:
    """The page with the functions that it formats with."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "blocks": blocks,
        "counts": verdict_counts,
        "data_uri": data_uri,
        "exact": exact,
        "marked": lambda cell: Markup(cell.enclosed(escape(cell.text), "html")),
        "probability": probability,
        "prose": prose,
        "provenance": provenance,
        "size": png_size,
        "spread": plain_spread,
        "why": why_not_comparable,
    }
    environment.tests["number"] = lambda entry: isinstance(entry, EvaluatedCell)
    return environment.get_template("report.html.j2")


def main_figure(figures: Sequence[EvaluatedFigure]) -> EvaluatedFigure | None:
    """The first figure of one panel of bars, else the first that is drawn: it heads the page."""
    drawn = [figure for figure in figures if figure.points]
    small = (f for f in drawn if f.figure.kind == "bars" and len(f.drawn_panels) == 1)
    return next(small, drawn[0] if drawn else None)


class RunsBehind:
    """What the page shows of runs: commands, folders, environments, and what is missing."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.seconds = cache(Estimator(reader).seconds)

    def counted(self, artifacts: Sequence[Artifact]) -> str:
        """How many of all runs there are, and in what state the others are."""
        wanted = list(needed(artifacts))
        states = Counter(self.reader.run(runs, seed)[1] for runs, seed in wanted)
        rest = [f"{states[state]} {words}" for state, words in STATES.items() if states[state]]
        return "; ".join([f"{states['done']} of {len(wanted)} are there", *rest])

    def cost(self, wanted: Wanted) -> str:
        """How many runs, and how long they take one after another."""
        count = "1 run" if len(wanted) == 1 else f"{len(wanted)} runs"
        rest = time_left(self.seconds(runs, seed) for runs, seed in wanted)
        return f"{count}, {rest}" if rest else count

    def of_cell(self, seeds: Sequence[int], cell: EvaluatedCell) -> Iterator[dict[str, Any]]:
        """For each run of a cell its value, command and folder, or why it is missing."""
        scale = 100.0 if cell.column.percent else 1.0
        for runs, seed in product(cell.cell.operands, seeds):
            if self.reader.run(runs, seed)[1] != "done":
                yield self.missing_run(runs, seed)
                continue
            value = self.reader.values(runs, [seed], cell.cell.key).get(seed)
            yield {
                "seed": seed,
                "value": "no such number" if value is None else exact(value * scale),
                "command": self.reader.commands(runs, [seed]),
                "folder": runs.folder(Path(), seed).path.as_posix(),
            }

    def missing_run(self, runs: RunSet, seed: int) -> dict[str, Any]:
        """The command that makes a run, why it is not there, and how long it will take."""
        state, seconds = self.reader.run(runs, seed)[1], self.seconds(runs, seed)
        time = "no estimate" if seconds is None else f"about {duration(seconds)} left"
        why = f"{HINTS.get(state, STATES[state])}; {time}"
        return {"seed": seed, "command": self.reader.commands(runs, [seed]), "why": why}

    def environments(self, seeds: Sequence[int], cell: Cell) -> list[str]:
        """A line for each environment among the runs' starts, with the seeds that had it."""
        found: dict[str, list[int]] = {}
        for runs in cell.operands:
            for run in self.reader.finished(runs, seeds):
                for text in map(environment_text, run.starts):
                    if run.seed not in found.setdefault(text, []):
                        found[text].append(run.seed)
        return [
            f"Seed{'s' * (len(own) > 1)} {', '.join(map(str, own))}: {text}."
            for text, own in found.items()
        ]

    def damaged(self, wanted: Wanted) -> bool:
        """Whether a folder must be given up, which the launcher does not do by itself."""
        return any(self.reader.run(runs, seed)[1] == "unusable" for runs, seed in wanted)

    def launch_command(self, artifact: Artifact) -> str:
        """What makes all that the artifact lacks."""
        name = artifact.id.removesuffix(suffix_of(dict(artifact.changed)))
        words = ["python", "-m", "experiments", "run", name]
        if artifact.changed:
            words += ["--set", *(f"{key}={value}" for key, value in artifact.changed)]
        if self.reader.results != Path("results"):
            words += ["--results_dir", str(self.reader.results)]
        return shlex.join(words)


def environment_text(start: dict) -> str:
    """Machine, version and hashes of a start."""
    parts = [f"{k} {start.get(k, 'unknown')}" for k in ("device", "threads", "torch", "commit")]
    hashes = {"spec": str(start.get("spec_hash", "unknown"))[:HASH_DIGITS]} | hashes_in(start)
    return ", ".join(parts + [f"{key} {value}" for key, value in sorted(hashes.items())])


def prose(text: str) -> Markup:
    """A sentence of ours, in which `backticks` mark code."""
    parts = re.split(r"`([^`]*)`", text)
    marked = (Markup("<code>{}</code>").format(p) if k % 2 else p for k, p in enumerate(parts))
    return Markup("").join(map(escape, marked))


def data_uri(png: bytes) -> str:
    """The picture as a data address, so that the page loads nothing."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header that comes first in a PNG."""
    return struct.unpack(">II", png[16:24])


def plain_spread(summary: Summary, digits: int) -> str:
    """The paper's number; over how many runs is said once, among the definitions."""
    spread = "" if summary.std is None else f" ± {summary.std:.{digits}f}"
    return f"{summary.mean:.{digits}f}{spread}"


def probability(p: float | None) -> str:
    """A p-value of three decimals."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
