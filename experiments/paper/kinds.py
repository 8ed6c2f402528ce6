"""What a table or figure is made of: the kinds of entry that the experiments are written in.

    RunSet    a data set, a method and the settings that are not the defaults; a seed makes it a run
    Table     rows x columns of cells: runs and a key of result.json, or a text
    Figure    panels of bars at the best epoch, or of curves over epochs (keys of log.jsonl)

Nothing is read, drawn or trained here.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files import digest
from common.options import format_value
from experiments.run.folder import RunFolder, run_path, variant_name

SEEDS = (1, 2, 3)
Change = Callable[["RunSet", str], tuple["RunSet", str]]  # runs and a key -> others


@dataclass(frozen=True)
class RunSet:
    """Runs that differ in their seed only.

    `overrides` are (flag, value) pairs of settings that differ from their defaults. A setting at
    its default must not be among them: its folder would not be the one that `train.py` uses.
    """

    dataset: str
    method: str
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """<dataset>/<method>/<variant>, as in the folder's path."""
        return f"{self.dataset}/{self.method}/{variant_name(dict(self.overrides))}"

    def folder(self, results: Path, seed: int) -> RunFolder:
        """The run's folder under the root of all runs."""
        return RunFolder(
            run_path(Path(results), self.dataset, self.method, dict(self.overrides), seed)
        )

    def arguments(self, seed: int) -> list[str]:
        """The flags of `train.py` that choose the run."""
        flags = ["--dataset", self.dataset, "--method", self.method, "--seed", str(seed)]
        for key, value in self.overrides:
            flags += [f"--{key}", format_value(value)]
        return flags

    def command(self, seed: int, extra: Iterable[str] = ()) -> str:
        """The plain command line of a run; `extra` are further flags, for places and devices."""
        return self.commands([seed], extra)

    def commands(self, seeds: Sequence[int], extra: Iterable[str] = ()) -> str:
        """One line of shell for the runs of several seeds: a loop, where there is more than one."""
        words = [shlex.quote(w) for w in ("python", "train.py", *self.arguments(seeds[0]), *extra)]
        if len(seeds) == 1:
            return " ".join(words)
        words[words.index("--seed") + 1] = "$seed"
        return f"for seed in {' '.join(map(str, seeds))}; do {' '.join(words)}; done"


@dataclass(frozen=True)
class Cell:
    """A number of runs: `key` of result.json, and which number of the paper it repeats.

    A key that begins with val/ is read from the log, at the epoch that was chosen. The number of
    other runs, `minus`, is subtracted seed by seed. `paper` is (table, dataset, method, variant,
    metric) of paper_results.csv; it names a cell and not a run, because the paper gives one run
    several numbers.
    """

    runs: RunSet
    key: str
    paper: tuple[str, str, str, str, str] | None = None
    minus: RunSet | None = None

    @property
    def operands(self) -> tuple[RunSet, ...]:
        """All runs that the number needs."""
        return (self.runs, self.minus) if self.minus else (self.runs,)

    @property
    def name(self) -> str:
        """The runs' names."""
        return " minus ".join(runs.name for runs in self.operands)


@dataclass(frozen=True)
class Column:
    """A table's column; neighbours of one `block` share a heading.

    `lower`: the smaller number is the better one; None: neither is, and nothing is marked.
    `counts`: whole numbers, which equal the paper's or do not.
    """

    header: str
    block: str = ""
    percent: bool = True
    digits: int = 2
    lower: bool | None = False
    counts: bool = False

    @property
    def name(self) -> str:
        """The header with its block's."""
        return f"{self.block}: {self.header}" if self.block else self.header


@dataclass(frozen=True)
class Row:
    """A row: a cell, a text or None for each column; `ours` marks one that the paper lacks."""

    label: str
    cells: tuple[Cell | str | None, ...]
    ours: bool = False


@dataclass(frozen=True)
class Table:
    """A table; a cell is mean ± sample standard deviation over `seeds`.

    `first` heads the rows' labels; `notes` are footnotes; `changed` are the settings in which all
    runs differ from the paper's.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    first: str = "method"
    seeds: tuple[int, ...] = SEEDS
    changed: tuple[tuple[str, str], ...] = ()

    def cells(self) -> Iterator[tuple[Row, Column, Cell]]:
        """All cells that need runs, row by row."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if isinstance(cell, Cell):
                    yield row, column, cell

    def runs(self) -> list[RunSet]:
        """Each set of runs that the table needs, once."""
        return list(dict.fromkeys(runs for _, _, cell in self.cells() for runs in cell.operands))

    @property
    def repeats(self) -> bool:
        """Whether it repeats numbers of the paper, so that rows which the paper lacks stand out."""
        return any(cell.paper for _, _, cell in self.cells())

    def noted(self, *notes: str) -> "Table":
        """The table with further notes."""
        return replace(self, notes=self.notes + notes)

    def mapped(self, change: Change) -> "Table":
        """The table of other runs and keys."""

        def other(cell: Cell | str | None) -> Cell | str | None:
            if not isinstance(cell, Cell):
                return cell
            runs, key = change(cell.runs, cell.key)
            return replace(cell, runs=runs, key=key, minus=cell.minus and change(cell.minus, "")[0])

        rows = [replace(row, cells=tuple(map(other, row.cells))) for row in self.rows]
        return replace(self, rows=tuple(rows))


@dataclass(frozen=True)
class Value:
    """A plotted value of a run: the largest of the log's `keys`, at each epoch that has any."""

    runs: RunSet
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """A curve (one value), or a method's bars (one value for each of the panel's groups).

    The method decides the colour; `dash` and `shade` distinguish curves of one method.
    """

    label: str
    values: tuple[Value, ...]
    dash: int = 0
    shade: int = 0


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `groups` label the bars; `warmup` are the runs whose warm-up is marked."""

    title: str
    y_label: str
    series: tuple[Series, ...]
    groups: tuple[str, ...] = ()
    percent: bool = False
    y_low: float | None = 0.0
    warmup: RunSet | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of "bars" (each run's best epoch), "curves" (all epochs), or a "schematic".

    A schematic has no panels and needs no run: `file` is its drawing, without the ending.
    """

    id: str
    caption: str
    kind: str
    panels: tuple[Panel, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    changed: tuple[tuple[str, str], ...] = ()
    file: str = ""

    def runs(self) -> list[RunSet]:
        """Each set of runs that the figure needs, once."""
        found = [v.runs for panel in self.panels for series in panel.series for v in series.values]
        return list(dict.fromkeys(found + [p.warmup for p in self.panels if p.warmup]))

    def noted(self, *notes: str) -> "Figure":
        """The figure with further sentences in its caption."""
        return replace(self, caption=" ".join([self.caption, *notes]))

    def mapped(self, change: Change) -> "Figure":
        """The figure of other runs and keys."""

        def other(value: Value) -> Value:
            keys = tuple(change(value.runs, key)[1] for key in value.keys)
            return Value(change(value.runs, "")[0], keys)

        panels = []
        for panel in self.panels:
            series = [replace(s, values=tuple(map(other, s.values))) for s in panel.series]
            warmup = panel.warmup and change(panel.warmup, "")[0]
            panels.append(replace(panel, series=tuple(series), warmup=warmup))
        return replace(self, panels=tuple(panels))


Artifact = Table | Figure


def with_settings(artifact: Artifact, given: Mapping[str, str]) -> Artifact:
    """The table or figure of runs with these settings, under a name of its own."""
    changed = tuple(sorted(given.items()))
    caption = f"{artifact.caption} All runs with {', '.join(f'{k}={v}' for k, v in changed)}."
    return replace(artifact, id=artifact.id + suffix_of(given), caption=caption, changed=changed)


def suffix_of(given: Mapping[str, str]) -> str:
    """The ending of an artifact's name that spells out the settings of its runs."""
    words = [f"{key}={value}" for key, value in sorted(given.items())]
    safe = re.sub(r"[^A-Za-z0-9_=.,+-]+", "-", ",".join(words))
    if len(safe) > 80:  # as a part of a file's name
        safe = f"{safe[:64]}~{digest(words)}"
    return f"-{safe}" if safe else ""
