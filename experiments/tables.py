"""Tables from finished runs: Markdown and CSV text, a pure function of the registry and results/.

`Reader` decides which runs count, for tables, figures and the launcher alike: a run is used when it
is done, whole, and what the registry asked for. A folder that is damaged, half-written or another
run's is named on stderr, treated as missing, and the rest goes on.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import csv_text
from common.options import UsageError, format_value
from experiments.artifacts import Artifact, Column, Runs, Table
from experiments.registry import needed
from experiments.run_folder import RunFolder
from experiments.statistics import Summary, exact, show, summarise

PLUS_MINUS = "± is the sample standard deviation (n - 1) over the n training seeds in parentheses."
SELECTION = (
    "Each run's epoch is chosen on validation accuracy alone (the first of equals); the test part"
    " is read once, at the end, whole."
)
HINTS = {
    "partial": "begun: it goes on where it stopped",
    "failed": "it stopped with an error: see error.txt in its folder",
    "unusable": "its folder is damaged or another run's, and is given up for it",
}


@dataclass(frozen=True)
class Finished:
    """What a done run left."""

    runs: Runs
    seed: int
    config: dict
    starts: list[dict]
    log: list[dict]
    result: dict

    @property
    def best(self) -> dict:
        """The log's line of the epoch that validation accuracy chose."""
        return self.log[self.result["best_epoch"] - 1]


class Reader:
    """Reads each run of a results folder once."""

    def __init__(self, results: Path):
        self.results = Path(results)
        self._read: dict[tuple[Runs, int], tuple[Finished | None, str]] = {}

    def run(self, runs: Runs, seed: int) -> tuple[Finished | None, str]:
        """The run if it can be used, and its state: new, partial, failed, done or unusable."""
        if (runs, seed) not in self._read:
            folder = runs.folder(self.results, seed)
            try:
                state = folder.state
                config = None if state == "new" else read_config(folder, runs, seed)
                finished = read_finished(folder, runs, seed, config) if state == "done" else None
            except (UsageError, OSError, UnicodeDecodeError) as error:
                print(f"WARNING: {folder.path} is not used: {error}", file=sys.stderr)
                finished, state = None, "unusable"
            self._read[runs, seed] = finished, state
        return self._read[runs, seed]

    def finished(self, runs: Runs, seeds: Iterable[int]) -> list[Finished]:
        """The usable runs among the seeds, in their order."""
        found = (self.run(runs, seed)[0] for seed in seeds)
        return [run for run in found if run is not None]

    def missing(self, artifacts: Iterable[Artifact]) -> list[tuple[Runs, int]]:
        """The (runs, seed) that the artifacts need and that cannot be used yet."""
        return [(r, s) for r, s in needed(artifacts) if self.run(r, s)[1] != "done"]

    def command(self, runs: Runs, seed: int) -> str:
        """The exact command that makes the run; an unusable folder must be given up for it."""
        extra = [] if self.results == Path("results") else ["--results_dir", str(self.results)]
        if self.run(runs, seed)[1] == "unusable":
            extra.append("--overwrite")
        return runs.command(seed, extra)


def read_config(folder: RunFolder, runs: Runs, seed: int) -> dict:
    """The run's configuration; raises `UsageError` when it is another run's or not whole."""
    if not folder.file("config.json").exists():
        raise UsageError("it holds a result and no config.json: move the folder away")
    config = as_dict(folder.read_json("config.json"), "config.json")
    asked = {
        "dataset": runs.dataset,
        "method": runs.method,
        "seed": seed,
        "differing": dict(runs.overrides),
    }
    for key, value in asked.items():
        if config.get(key) != value:
            raise UsageError(
                f"config.json is another run's: {key} is {config.get(key)!r}, not {value!r}"
            )
    for key in ("settings", "prep", "hparams"):
        as_dict(config.get(key), f"{key} of config.json")
    return config


def read_finished(folder: RunFolder, runs: Runs, seed: int, config: dict) -> Finished:
    """A done run's files; raises `UsageError` when one of them is not whole."""
    starts = as_dict(folder.read_json("env.json"), "env.json").get("starts")
    if not starts or not isinstance(starts, list):
        raise UsageError("env.json is damaged: it has no list of starts")
    result, log = as_dict(folder.read_json("result.json"), "result.json"), folder.read_log()
    best, epochs = result.get("best_epoch"), config["settings"].get("max_epochs", 1)
    for name, value in (("best_epoch", best), ("max_epochs", epochs)):
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"damaged: {name} is {value!r}")
    numbers = [line.get("epoch") if isinstance(line, dict) else None for line in log]
    if numbers != list(range(1, len(log) + 1)) or len(log) < max(best, epochs):
        raise UsageError(
            f"log.jsonl is damaged: {max(best, epochs)} epochs expected, {len(log)} whole lines"
        )
    for line in (result, *log):
        for key, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{key} is {value}")
    return Finished(runs, seed, config, [as_dict(s, "env.json") for s in starts], log, result)


def as_dict(value: Any, what: str) -> dict:
    """The value, if it is a dictionary; raises `UsageError` otherwise."""
    if not isinstance(value, dict):
        raise UsageError(f"{what} is damaged: an object was expected, not {type(value).__name__}")
    return value


# Where the numbers come from ---------------------------------------------------------------------


def flatten(value: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of each leaf."""
    for key, inner in sorted(value.items()):
        if isinstance(inner, dict):
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, format_value(inner)


def one_or_mixed(what: str, sets: Iterable[dict]) -> str:
    """`environments: one`, or `mixed` with the values of each key that is not the same in all."""
    seen: dict[str, list[str]] = {}
    for one in sets:
        for key, text in flatten(one):
            seen.setdefault(key, []).append(text)
    mixed = [
        f"{key}: {', '.join(sorted(set(v)))}" for key, v in sorted(seen.items()) if len(set(v)) > 1
    ]
    return f"{what}: mixed ({'; '.join(mixed)})" if mixed else f"{what}: one"


def settings_of(run: Finished) -> dict:
    """Settings and preparation that should be the same in all runs of a data set."""
    apart = dict(run.runs.overrides)
    both = run.config["settings"] | run.config["prep"]
    return {f"{run.runs.dataset}.{key}": value for key, value in both.items() if key not in apart}


def provenance(runs: Sequence[Finished]) -> list[str]:
    """Sentences on what the runs share and what they do not."""
    if not runs:
        return ["No finished run yet."]
    starts = [start for run in runs for start in run.starts]
    lines = []
    for dataset in dict.fromkeys(run.runs.dataset for run in runs):
        of_set = [run for run in runs if run.runs.dataset == dataset]
        found: dict[str, set] = {}
        for run in of_set:
            for start in run.starts:
                hashes = start.get("hashes")
                hashes = hashes if isinstance(hashes, dict) else {}
                found.setdefault("spec", set()).add(str(start.get("spec_hash", "unknown"))[:12])
                for key, value in hashes.items():
                    found.setdefault(key, set()).add(str(value)[:12])
        parts = [f"{key} {' and '.join(sorted(values))}" for key, values in sorted(found.items())]
        lines.append(f"Hashes of {dataset}: {', '.join(parts)}.")
    lines.append(
        "Commit: " + ", ".join(sorted({str(s.get("commit", "unknown")) for s in starts})) + "."
    )
    apart = ("commit", "spec_hash", "hashes")
    machines = [{k: v for k, v in start.items() if k not in apart} for start in starts]
    methods = [{run.runs.name: run.config["hparams"]} for run in runs]
    settings = [settings_of(run) | more for run, more in zip(runs, methods)]
    return [
        *lines,
        one_or_mixed("Environments", machines) + ".",
        one_or_mixed("Settings", settings) + ".",
    ]


# Rendering ---------------------------------------------------------------------------------------


def number(value: Any, runs: Runs, seed: int, key: str) -> float | None:
    """A measured value as a float; None, and a line on stderr, when the run has no such number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    print(f"WARNING: {runs.name}/seed{seed} has no value {key}", file=sys.stderr)
    return None


def cell_values(table: Table, reader: Reader, runs: Runs, column: Column) -> dict[int, float]:
    """Seed -> value of a cell's runs."""
    pairs = (
        (run.seed, number(run.result.get(column.key), runs, run.seed, column.key))
        for run in reader.finished(runs, table.seeds)
    )
    return {seed: value for seed, value in pairs if value is not None}


def table_texts(table: Table, reader: Reader) -> tuple[str, str]:
    """(Markdown, CSV) of a table.

    The CSV has one line a cell, in the unit of result.json, with each seed's own value.
    """
    body, rows = [], []
    for label, runs in table.rows:
        shown = []
        for column in table.columns:
            values = cell_values(table, reader, runs, column)
            cell = summarise(list(values.values()))
            shown.append(show(cell, column.percent, column.digits))
            rows.append((label, runs.name, column.key, *cell_fields(cell, values)))
        body.append(" | ".join([f"| {label}", *shown]) + " |")
    lines = [
        f"**{table.id}.** {table.caption}",
        "",
        " | ".join(["| method", *(column.header for column in table.columns)]) + " |",
        "|---" * (len(table.columns) + 1) + "|",
        *body,
        "",
        *([table.note, ""] if table.note else []),
        *to_fill(table, reader),
        footer(table, reader),
    ]
    header = ("row", "runs", "metric", "mean", "std", "n", "seeds", "values")
    return "\n".join(lines) + "\n", csv_text(header, rows)


def cell_fields(cell: Summary | None, values: dict[int, float]) -> tuple[str, ...]:
    """mean, std, n, seeds and values of a CSV line."""
    seeds, each = " ".join(map(str, values)), " ".join(map(exact, values.values()))
    return exact(cell and cell.mean), exact(cell and cell.std), str(len(values)), seeds, each


def to_fill(artifact: Artifact, reader: Reader) -> list[str]:
    """Markdown lines with the command of each missing run, and why it does not count yet."""
    missing = reader.missing([artifact])
    if not missing:
        return []
    lines = []
    for runs, seed in missing:
        hint = HINTS.get(reader.run(runs, seed)[1])
        lines.append(f"- `{reader.command(runs, seed)}`" + (f" ({hint})" if hint else ""))
    return ["To fill:", "", *lines, ""]


def footer(artifact: Artifact, reader: Reader) -> str:
    """How the numbers were chosen and what the runs behind them have in common."""
    used = [run for runs in artifact.runs() for run in reader.finished(runs, artifact.seeds)]
    return " ".join([SELECTION, PLUS_MINUS, *provenance(used)])
