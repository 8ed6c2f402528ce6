"""Estimates the time for missing runs from the finished runs in the same results folder.

The time per epoch is the median over the dataset's finished runs of the same method, or else of all
methods. Settings and machines are not compared, so the estimate is rough.
"""

import math
from collections.abc import Iterable
from functools import cache
from statistics import median

from common.program import duration
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader
from experiments.run.folder import RunFolder
from experiments.run.settings import DATASET_DEFAULTS, Settings


def epochs_of(runs: RunSet) -> int:
    """The value of --max_epochs for these runs."""
    default = DATASET_DEFAULTS.get(runs.dataset, {}).get("max_epochs", Settings.max_epochs)
    return dict(runs.overrides).get("max_epochs", default)


class Estimator:
    """Estimates for one results folder; each run is read once."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.epoch_seconds = cache(self._epoch_seconds)

    def seconds(self, runs: RunSet, seed: int) -> float | None:
        """Seconds left for a run, 0 if it is done; None if no similar run is finished."""
        if self.reader.run(runs, seed)[1] == "done":
            return 0.0
        by_method = self.epoch_seconds(runs.dataset)
        alike = by_method.get(runs.method) or [s for each in by_method.values() for s in each]
        if not alike:
            return None
        return max(0, epochs_of(runs) - self.epochs_behind(runs, seed)) * median(alike)

    def epochs_behind(self, runs: RunSet, seed: int) -> int:
        """The number of finished epochs of a run; 0 if its folder is unusable."""
        usable = self.reader.run(runs, seed)[1] != "unusable"
        return len(runs.folder(self.reader.results, seed).read_log()) if usable else 0

    def _epoch_seconds(self, dataset: str) -> dict[str, list[float]]:
        """Method -> median seconds per epoch of each finished run on the dataset."""
        found: dict[str, list[float]] = {}
        for path in sorted((self.reader.results / "runs" / dataset).glob("*/*/seed*/result.json")):
            values = [line.get("time/epoch_s") for line in RunFolder(path.parent).read_log()]
            seconds = [v for v in values if isinstance(v, (int, float)) and 0 < v < math.inf]
            if seconds:
                found.setdefault(path.parts[-4], []).append(median(seconds))
        return found


def time_left(estimates: Iterable[float | None]) -> str:
    """The total of several estimates, noting runs without one; "" if no time is left."""
    values = list(estimates)
    known, unknown = sum(value or 0 for value in values), values.count(None)
    if not known:
        return "no estimate" if unknown else ""
    beside = f", excluding {unknown} without an estimate" if unknown else ""
    return f"about {duration(known)} left{beside}"
