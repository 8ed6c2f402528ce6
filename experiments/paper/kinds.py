"""The building blocks of tables and figures; nothing is read, drawn or trained here.

RunSet    a dataset, a method and non-default settings; together with a seed, a run
Table     rows x columns of cells: runs and a key of result.json, or a text
Figure    panels of bars at the best epoch, or of curves over epochs (keys of log.jsonl)
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from common.files import digest
from common.options import format_value
from experiments.run.folder import RunFolder, run_path, variant_name

SEEDS = (1, 2, 3)
Place = tuple[str, str, str, str, str]  # table, dataset, method, variant, metric: a paper's number


@dataclass(frozen=True)
class RunSet:
    """Runs that differ only in their seed.

    `overrides` are (flag, value) pairs of non-default settings. A setting at its default must not
    be included: the folder would differ from the one that `train.py` uses.
    """

    dataset: str
    method: str
    overrides: tuple[tuple[str, Any], ...] = ()
    source: str = field(default="", compare=False)  # the manifest of a dataset of one's own

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.method}/{variant_name(dict(self.overrides))}"

    def folder(self, results: Path, seed: int) -> RunFolder:
        """The run folder under the results root."""
        overrides = dict(self.overrides)
        return RunFolder(run_path(Path(results), self.dataset, self.method, overrides, seed))

    def arguments(self, seed: int) -> list[str]:
        """The `train.py` flags that select the run."""
        flags = [
            "--dataset",
            self.source or self.dataset,
            "--method",
            self.method,
            "--seed",
            str(seed),
        ]
        for key, value in self.overrides:
            flags += [f"--{key}", format_value(value)]
        return flags

    def command(self, seed: int, extra: Iterable[str] = ()) -> str:
        """The command line of a run; `extra` are additional flags, such as devices and folders."""
        return self.commands([seed], extra)

    def commands(self, seeds: Sequence[int], extra: Iterable[str] = ()) -> str:
        """A shell one-liner for the runs of these seeds: a loop if there are several."""
        words = [shlex.quote(w) for w in ("python", "train.py", *self.arguments(seeds[0]), *extra)]
        if len(seeds) == 1:
            return " ".join(words)
        words[words.index("--seed") + 1] = "$seed"
        return f"for seed in {' '.join(map(str, seeds))}; do {' '.join(words)}; done"


@dataclass(frozen=True)
class Cell:
    """A number: `key` of result.json of some runs, and the number of the paper it reproduces.

    Keys that start with val/ are read from the log at the best epoch. The value of the runs
    `minus` is subtracted seed by seed.
    """

    runs: RunSet
    key: str
    paper: Place | None = None
    minus: RunSet | None = None

    @property
    def name(self) -> str:
        return " minus ".join(runs.name for runs in runs_in(self))


@dataclass(frozen=True)
class Column:
    """A column of a table; adjacent columns of the same `block` share a heading.

    `lower`: smaller is better; None: no ranking, nothing is marked. `counts`: integers, which are
    only compared for equality with the paper's.
    """

    header: str
    block: str = ""
    percent: bool = True
    digits: int = 2
    lower: bool | None = False
    counts: bool = False

    @property
    def name(self) -> str:
        return f"{self.block}: {self.header}" if self.block else self.header

    @property
    def scale(self) -> float:
        """The factor from result.json to the displayed number."""
        return 100.0 if self.percent else 1.0


@dataclass(frozen=True)
class Row:
    """A cell, a text or None for each column; `ours` marks a row that is not in the paper."""

    label: str
    cells: tuple[Cell | str | None, ...]
    ours: bool = False


@dataclass(frozen=True)
class Artifact:
    """A table or a figure; `changed` are the settings changed in all its runs."""

    id: str
    caption: str
    seeds: tuple[int, ...] = field(default=SEEDS, kw_only=True)
    changed: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    def runs(self) -> list[RunSet]:
        """The run sets that it needs, without duplicates."""
        return list(dict.fromkeys(runs_in(self)))


@dataclass(frozen=True)
class Table(Artifact):
    """Means ± sample standard deviations over `seeds`; `first` is the heading of the row labels."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    first: str = "method"

    def cells(self) -> Iterator[tuple[Row, Column, Cell]]:
        """All cells that need runs, row by row."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if isinstance(cell, Cell):
                    yield row, column, cell

    @property
    def repeats(self) -> bool:
        """Whether it reproduces numbers of the paper; rows not in the paper are then separated."""
        return any(cell.paper for _, _, cell in self.cells())


@dataclass(frozen=True)
class Value:
    """A plotted value of a run: the largest of the log's `keys` at each epoch that has one."""

    runs: RunSet
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """A curve (one value), or the bars of a method (one value per group of the panel).

    The method determines the colour; `dash` and `shade` distinguish curves of one method.
    """

    label: str
    values: tuple[Value, ...]
    dash: int = 0
    shade: int = 0

    @property
    def method(self) -> str:
        return self.values[0].runs.method


@dataclass(frozen=True)
class Panel:
    """One set of axes; `groups` label the bars; marks the warm-up of the runs `warmup`."""

    title: str
    y_label: str
    series: tuple[Series, ...]
    groups: tuple[str, ...] = ()
    percent: bool = False
    y_low: float | None = 0.0
    warmup: RunSet | None = None


@dataclass(frozen=True)
class Figure(Artifact):
    """A figure of "bars" (each run's best epoch), "curves" (all epochs), or a "schematic".

    A schematic has no panels and needs no runs: `file` is the path of its drawing without suffix.
    """

    kind: str
    panels: tuple[Panel, ...] = ()
    file: str = ""


def runs_in(part: Any) -> Iterator[RunSet]:
    """The runs of a table, a figure or a part of it, in order."""
    if isinstance(part, RunSet):
        yield part
    elif is_dataclass(part):
        yield from runs_in(tuple(getattr(part, f.name) for f in fields(part)))
    elif isinstance(part, tuple):
        for inner in part:
            yield from runs_in(inner)


def suffix_of(given: Mapping[str, str]) -> str:
    """The suffix of an artifact's name for runs with other settings."""
    words = [f"{key}={value}" for key, value in sorted(given.items())]
    safe = re.sub(r"[^A-Za-z0-9_=.,+-]+", "-", ",".join(words))
    if len(safe) > 80:  # it becomes part of a file name
        safe = f"{safe[:64]}~{digest(words)}"
    return f"-{safe}" if safe else ""
