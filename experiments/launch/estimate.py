"""How long the runs that are missing will take, going by the runs that exist.

An epoch of a run is taken to last as long as those of the runs most like it: the same data set, the
same settings of what costs time, and then the same method and variant; else the same method; else
the other methods, corrected by what both cost on data sets that have runs of both. Which machine
those runs were made on is not asked.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from statistics import median
from typing import Any

from common.options import UsageError
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader
from experiments.run.folder import RunFolder
from experiments.run.settings import DATASET_DEFAULTS, Settings

DEFAULTS = {field.name: field.default for field in fields(Settings)}
# Settings that change what a step costs: runs that differ in one tell nothing of each other.
COSTLY = ("batch_size", "size", "encoder", "text_model", "spec_pool", "precision", "compile")
UNITS = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


@dataclass(frozen=True)
class Pace:
    """What a run that exists tells of others.

    `variant` are its overrides that are no common settings; `extra` is how many epochs its method
    made beside --max_epochs (fine-tuning, pretraining), None where that is not known yet.
    """

    method: str
    variant: dict[str, Any]
    cost: tuple
    epoch_s: float
    extra: int | None


class Estimator:
    """Estimates for one results folder, each of whose logs is read once."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self._log = cache(self._read_log)
        self._paces = cache(self._read_paces)
        self._ratio = cache(self._read_ratio)
        self._expected = cache(self._expect)

    def seconds(self, runs: RunSet, seed: int) -> float | None:
        """What is left of a run, 0 when it is done; None without any run to go by."""
        if self.reader.run(runs, seed)[1] == "done":
            return 0.0
        expected = self._expected(runs)
        if expected is None:
            return None
        epochs, epoch_s = expected
        return max(0, epochs - self.behind(runs, seed)) * epoch_s

    def epochs(self, runs: RunSet) -> int:
        """--max_epochs of a run."""
        return settings_of(runs)["max_epochs"]

    def behind(self, runs: RunSet, seed: int) -> int:
        """How many epochs a run has behind it; one that is given up for damaged has none."""
        return len(self._log(runs, seed))

    def _read_log(self, runs: RunSet, seed: int) -> list[dict]:
        """A run's log as far as it goes; nothing of one that cannot be used."""
        finished, state = self.reader.run(runs, seed)
        if finished:
            return finished.log
        begun = state in ("partial", "failed")
        return whole_lines(runs.folder(self.reader.results, seed)) if begun else []

    def _expect(self, runs: RunSet) -> tuple[int, float] | None:
        """(epochs in all, seconds of one) of a run from its beginning."""
        cost, epochs = cost_of(settings_of(runs)), self.epochs(runs)
        alike = [pace for pace in self._paces(runs.dataset) if pace.cost == cost]
        method = [pace for pace in alike if pace.method == runs.method]
        variant = [pace for pace in method if pace.variant == variant_of(runs.overrides)]
        known = variant or method
        if not known:
            return (epochs, self._converted(runs.method, alike)) if alike else None
        extras = [pace.extra for pace in known if pace.extra is not None]
        extra = round(median(extras)) if extras else 0
        return epochs + extra, median(pace.epoch_s for pace in known)

    def _converted(self, method: str, others: list[Pace]) -> float:
        """Seconds an epoch of `method`, from other methods' on the same data set.

        Those whose cost relative to it no other data set tells count only if there are no more.
        """
        ratios = {name: self._ratio(method, name) for name in {p.method for p in others}}
        converted = [p.epoch_s * ratios[p.method] for p in others if ratios[p.method] is not None]
        return median(converted or [pace.epoch_s for pace in others])

    def _read_ratio(self, method: str, other: str) -> float | None:
        """The cost of an epoch of `method` relative to `other`, from data sets that have both."""
        ratios = []
        for folder in sorted(self.reader.results.glob("runs/*/")):
            groups: dict[tuple, dict[str, list[float]]] = {}
            for pace in self._paces(folder.name):
                if pace.method in (method, other):
                    group = groups.setdefault(pace.cost, {method: [], other: []})
                    group[pace.method].append(pace.epoch_s)
            pairs = [group for group in groups.values() if group[method] and group[other]]
            ratios += [median(group[method]) / median(group[other]) for group in pairs]
        return median(ratios) if ratios else None

    def _read_paces(self, dataset: str) -> list[Pace]:
        """One pace for each run of a data set that has an epoch behind it."""
        folders = (self.reader.results / "runs" / dataset).glob("*/*/seed*/config.json")
        paces = (self._pace(RunFolder(path.parent)) for path in sorted(folders))
        return [pace for pace in paces if pace]

    def _pace(self, folder: RunFolder) -> Pace | None:
        """The pace of one run; None where there is nothing that can be used."""
        found = read_runs(folder)
        if not found:
            return None
        runs, seed, settings = found
        if runs.folder(self.reader.results, seed).path != folder.path:
            return None
        log, (finished, _) = self._log(runs, seed), self.reader.run(runs, seed)
        spent = epoch_seconds(log)
        if not spent:
            return None
        extra = max(0, len(log) - settings["max_epochs"]) if finished else None
        variant = variant_of(runs.overrides)
        return Pace(runs.method, variant, cost_of(settings), median(spent), extra)


def settings_of(runs: RunSet) -> dict[str, Any]:
    """The common settings of a run that the registry names."""
    return DEFAULTS | DATASET_DEFAULTS.get(runs.dataset, {}) | dict(runs.overrides)


def variant_of(overrides: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The overrides that are the method's or the preparation's own."""
    return {key: value for key, value in overrides if key not in DEFAULTS}


def cost_of(settings: dict[str, Any]) -> tuple:
    """The values of the settings that change what a step costs."""
    return tuple(settings[key] for key in COSTLY)


def read_runs(folder: RunFolder) -> tuple[RunSet, int, dict[str, Any]] | None:
    """(runs, seed, settings) by a folder's config.json; None if it is not whole."""
    try:
        config = folder.read_json("config.json")
        overrides = tuple(sorted(dict(config["differing"]).items()))
        runs = RunSet(config["dataset"], config["method"], overrides)
        settings = settings_of(runs) | dict(config["settings"])
        hash((runs, cost_of(settings)))  # plain values only
        return runs, int(config["seed"]), settings | {"max_epochs": int(settings["max_epochs"])}
    except (UsageError, OSError, LookupError, TypeError, ValueError):
        return None


def whole_lines(folder: RunFolder) -> list[dict]:
    """The log of a run that may be at work; nothing where it cannot be read."""
    try:
        return folder.read_log()
    except (OSError, UnicodeDecodeError):
        return []


def epoch_seconds(log: Iterable[Any]) -> list[float]:
    """How long each epoch of a log lasted; lines that do not tell are passed over."""
    values = (line.get("time/epoch_s") for line in log if isinstance(line, dict))
    return [v for v in values if isinstance(v, (int, float)) and 0 < v < math.inf]


def duration(seconds: float) -> str:
    """A length of time in words: "40 s", "3.5 h", "12 days"."""
    for unit, size in UNITS:
        amount = seconds / size
        if amount >= (1.995 if unit == "days" else 0.995) or unit == "s":
            digits = 1 if amount < 9.95 and unit != "s" else 0
            return f"{amount:.{digits}f} {unit}"
    raise AssertionError("the last unit takes all")


def left(estimates: Iterable[float | None]) -> str:
    """The sum of several estimates in words, and how many runs it leaves out; "" for none left."""
    values = list(estimates)
    known = [value for value in values if value is not None]
    blind = len(values) - len(known)
    if blind and not sum(known):
        return "no estimate"
    beside = f", without {blind} that have no estimate" if blind else ""
    return f"about {duration(sum(known))} left{beside}" if sum(known) else ""
