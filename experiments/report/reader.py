"""Reads the runs that tables and figures use: finished, undamaged, with the right configuration.

Folders that are damaged, incomplete or from another run are reported on stderr, as missing runs.
"""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from common.files import shown
from common.options import UsageError
from experiments.paper.kinds import Artifact, RunSet
from experiments.paper.registry import needed
from experiments.run.folder import RunFolder

HUGE = 1e100  # sums of larger numbers may overflow
HINTS = {
    "partial": "started: it will resume",
    "failed": "it failed: see error.txt in its folder",
    "unusable": "its folder is damaged or belongs to another run, and will be overwritten",
}


@dataclass(frozen=True)
class Finished:
    """The files of a finished run."""

    runs: RunSet
    seed: int
    config: dict[str, Any]
    starts: list[dict[str, Any]]
    result: dict[str, Any]
    folder: RunFolder

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """One record per epoch, read on demand."""
        return self.folder.read_log()

    @property
    def best(self) -> dict[str, Any]:
        """The log record of the best epoch."""
        return self.log[self.result["best_epoch"] - 1]

    def number(self, value: Any, key: str) -> float | None:
        """A value as a float; None, with a warning on stderr, if it is not a number."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        print(f"WARNING: {self.runs.name}/seed{self.seed} has no value {key}", file=sys.stderr)
        return None


class Reader:
    """Reads each run of a results folder once."""

    def __init__(self, results: Path):
        self.results = Path(results)
        self.run = cache(self._run)
        self._value = cache(self._read_value)

    def _run(self, runs: RunSet, seed: int) -> tuple[Finished | None, str]:
        """The run if it can be used, and its state: new, partial, failed, done or unusable."""
        folder = runs.folder(self.results, seed)
        try:
            state = folder.state
            config = {} if state == "new" else read_config(folder, runs, seed)
            return read_finished(folder, runs, seed, config) if state == "done" else None, state
        except (UsageError, OSError, UnicodeDecodeError) as error:
            print(f"WARNING: {folder.path} is not used: {error}", file=sys.stderr)
            return None, "unusable"

    def finished(self, runs: RunSet, seeds: Iterable[int]) -> list[Finished]:
        """The usable runs of these seeds, in order."""
        found = (self.run(runs, seed)[0] for seed in seeds)
        return [run for run in found if run is not None]

    def behind(self, artifact: Artifact) -> list[Finished]:
        """The usable runs of the artifact."""
        return [run for runs in artifact.runs() for run in self.finished(runs, artifact.seeds)]

    def values(self, runs: RunSet, seeds: Iterable[int], key: str) -> dict[int, float]:
        """Seed -> number from result.json; runs without it are reported once on stderr.

        Keys that start with val/ are read from the log at the best epoch.
        """
        found = {seed: self._value(runs, seed, key) for seed in seeds}
        return {seed: value for seed, value in found.items() if value is not None}

    def _read_value(self, runs: RunSet, seed: int, key: str) -> float | None:
        run, _ = self.run(runs, seed)
        if run is None:
            return None
        found = run.best if key.startswith("val/") else run.result
        group, _, name = key.rpartition("/")
        if isinstance(found.get(group), dict):  # test/f1_per_class/<class>
            found, key = {key: found[group].get(name)}, key
        return run.number(found.get(key), key)

    def missing(self, artifacts: Iterable[Artifact]) -> list[tuple[RunSet, int]]:
        """The (runs, seed) pairs of the artifacts that are not done."""
        return [(r, s) for r, s in needed(artifacts) if self.run(r, s)[1] != "done"]

    def to_fill(self, artifacts: Iterable[Artifact]) -> list[tuple[str, str]]:
        """(command, hint or "") for the missing runs.

        Runs in the same state that differ only in their seed share a command.
        """
        groups: dict[tuple[RunSet, str], list[int]] = {}
        for runs, seed in self.missing(artifacts):
            groups.setdefault((runs, self.run(runs, seed)[1]), []).append(seed)
        return [(self.commands(r, seeds), HINTS.get(s, "")) for (r, s), seeds in groups.items()]

    def commands(self, runs: RunSet, seeds: Sequence[int]) -> str:
        """A shell one-liner that makes the runs of these seeds, which are all in the same state.

        Includes `--overwrite` if their folders are unusable.
        """
        extra = [] if self.results == Path("results") else ["--results_dir", str(self.results)]
        if self.run(runs, seeds[0])[1] == "unusable":
            extra.append("--overwrite")
        return runs.commands(seeds, extra)


def read_config(folder: RunFolder, runs: RunSet, seed: int) -> dict[str, Any]:
    """The run's configuration; raises `UsageError` if it is damaged or from another run."""
    if not folder.file("config.json").exists():
        raise UsageError("it has a result but no config.json: move the folder away")
    config = folder.read_json("config.json")
    asked = {"dataset": runs.dataset, "method": runs.method, "seed": seed}
    for key, value in (asked | {"differing": dict(runs.overrides)}).items():
        if config.get(key) != value:
            there = shown(repr(config.get(key)))
            raise UsageError(f"config.json is from another run: {key} is {there}, not {value!r}")
    for key in ("settings", "prep", "hparams"):
        if not isinstance(config.get(key), dict):
            raise UsageError(f"config.json is damaged: {key} is not an object")
    return config


def read_finished(folder: RunFolder, runs: RunSet, seed: int, config: dict[str, Any]) -> Finished:
    """The files of a finished run; raises `UsageError` if one of them is damaged."""
    starts = folder.read_json("env.json").get("starts")
    if not (starts and isinstance(starts, list) and all(isinstance(s, dict) for s in starts)):
        raise UsageError("env.json is damaged: it has no list of starts")
    result = folder.read_json("result.json")
    best, epochs = result.get("best_epoch"), config["settings"].get("max_epochs", 1)
    for name, value in (("best_epoch", best), ("max_epochs", epochs)):
        if not isinstance(value, int) or not 1 <= value < 10**9:
            raise UsageError(f"damaged: {name} is {str(value)[:40]}")
    check_finite(result)
    check_log(folder, result.get("log"), max(best, epochs))
    return Finished(runs, seed, config, starts, result, folder)


def check_log(folder: RunFolder, known: str | None, epochs: int) -> None:
    """Raises `UsageError` if the log is incomplete or damaged.

    `known` is its digest from result.json: a file that matches need not be parsed, unless it
    contains non-finite numbers (written as NaN and Infinity).
    """
    text = folder.file("log.jsonl").read_bytes() if folder.file("log.jsonl").exists() else b""
    damaged = bool(known) and known != hashlib.sha256(text).hexdigest()
    plain = b"NaN" not in text and b"Infinity" not in text
    if known and not damaged and plain and text.count(b"\n") >= epochs:
        return
    log = folder.read_log()
    numbers = [line.get("epoch") for line in log]
    if damaged or numbers != list(range(1, len(log) + 1)) or len(log) < epochs:
        raise UsageError(f"log.jsonl is damaged: {len(log)} valid lines, expected {epochs} epochs")
    for line in log:
        check_finite(line)


def check_finite(line: dict[str, Any]) -> None:
    """Raises `UsageError` if a number is not finite or is huge."""
    for key, value in line.items():
        if isinstance(value, int | float) and not abs(value) < HUGE:
            raise UsageError(f"damaged: {key} is {str(value)[:40]}")
