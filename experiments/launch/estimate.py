"""How long missing runs will take, by the finished runs of the same results folder.

An epoch is taken to last as long as the median one of the data set's finished runs of the same
method, else of all methods. Settings and machines are not compared: the estimate is a rough one.
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
    """--max_epochs of a run."""
    default = DATASET_DEFAULTS.get(runs.dataset, {}).get("max_epochs", Settings.max_epochs)
    return dict(runs.overrides).get("max_epochs", default)


def logged_epochs(folder: RunFolder) -> list[dict]:
    """The whole lines of a run's log, also while it is at work; none where it cannot be read."""
    try:
        return folder.read_log()
    except OSError:
        return []


class Estimator:
    """Estimates for one results folder, whose runs are read once."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self._epoch_seconds = cache(self._read_epoch_seconds)
        self.epochs_behind = cache(self._count_epochs)

    def seconds(self, runs: RunSet, seed: int) -> float | None:
        """What is left of a run, 0 when it is done; None where no finished run is like it."""
        if self.reader.run(runs, seed)[1] == "done":
            return 0.0
        by_method = self._epoch_seconds(runs.dataset)
        alike = by_method.get(runs.method) or [s for each in by_method.values() for s in each]
        if not alike:
            return None
        return max(0, epochs_of(runs) - self.epochs_behind(runs, seed)) * median(alike)

    def _count_epochs(self, runs: RunSet, seed: int) -> int:
        """How many epochs a run has made; none count of one whose folder cannot be used."""
        usable = self.reader.run(runs, seed)[1] != "unusable"
        return len(logged_epochs(runs.folder(self.reader.results, seed))) if usable else 0

    def _read_epoch_seconds(self, dataset: str) -> dict[str, list[float]]:
        """Method -> the median epoch's seconds of each finished run of the data set."""
        found: dict[str, list[float]] = {}
        for path in sorted((self.reader.results / "runs" / dataset).glob("*/*/seed*/result.json")):
            log = logged_epochs(RunFolder(path.parent))
            values = [line.get("time/epoch_s") for line in log]
            seconds = [v for v in values if isinstance(v, (int, float)) and 0 < v < math.inf]
            if seconds:
                found.setdefault(path.parts[-4], []).append(median(seconds))
        return found


def time_left(estimates: Iterable[float | None]) -> str:
    """The sum of several estimates in words, and how many runs it leaves out; "" for none left."""
    values = list(estimates)
    known = [value for value in values if value is not None]
    unknown = len(values) - len(known)
    if unknown and not sum(known):
        return "no estimate"
    beside = f", without {unknown} that have no estimate" if unknown else ""
    return f"about {duration(sum(known))} left{beside}" if sum(known) else ""
