"""What a table or figure is made of: the kinds of entry that the experiments are written in.

    Runs      a data set, a method and the settings that are not the defaults; a seed makes it a run
    Table     rows (label, runs) x columns (header, key of result.json), on the test part
    Figure    panels of bars at the best epoch, or of curves over epochs (keys of log.jsonl)

Nothing is read, drawn or trained here.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import format_value
from experiments.run_folder import RunFolder, run_path, variant_name

SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Runs:
    """Runs that differ in their seed only.

    `overrides` are (flag, value) pairs and must be what `train.py` would call differing: a setting
    at its default would name another folder (a test resolves every entry of the registry).
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
        return shlex.join(["python", "train.py", *self.arguments(seed), *extra])


@dataclass(frozen=True)
class Column:
    """A table's column: a key of result.json."""

    header: str
    key: str
    percent: bool = True
    digits: int = 1


@dataclass(frozen=True)
class Table:
    """A table; a cell is mean ± sample standard deviation over `seeds`."""

    id: str
    group: str
    caption: str
    rows: tuple[tuple[str, Runs], ...]
    columns: tuple[Column, ...]
    note: str = ""
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> list[Runs]:
        """Each set of runs that the table needs, once."""
        return list(dict.fromkeys(runs for _, runs in self.rows))


@dataclass(frozen=True)
class Value:
    """What is plotted of a run: the largest of the log's `keys`.

    `absent` stands for epochs without them; None leaves those epochs out.
    """

    runs: Runs
    keys: tuple[str, ...]
    absent: float | None = None


@dataclass(frozen=True)
class Series:
    """A curve (one value), or bars of one look (one value for each of the panel's groups).

    `look` chooses colour, dash and hatch; None: the label's place in the figure.
    """

    label: str
    values: tuple[Value, ...]
    look: int | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `groups` label the bars; `warmup` are the runs whose warm-up is marked."""

    title: str
    y_label: str
    series: tuple[Series, ...]
    groups: tuple[str, ...] = ()
    percent: bool = False
    y_low: float | None = 0.0
    warmup: Runs | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of "bars" (each run's best epoch) or "curves" (all epochs), over `seeds`."""

    id: str
    group: str
    caption: str
    kind: str
    panels: tuple[Panel, ...]
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> list[Runs]:
        """Each set of runs that the figure needs, once."""
        found = [v.runs for panel in self.panels for series in panel.series for v in series.values]
        return list(dict.fromkeys(found + [p.warmup for p in self.panels if p.warmup]))


Artifact = Table | Figure
