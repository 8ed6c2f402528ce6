"""Mean and sample standard deviation of a few runs, how a cell shows them, and Welch's test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "--"


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (n - 1; None for a single value) and count."""

    mean: float
    std: float | None
    n: int

    def scaled(self, factor: float) -> "Summary":
        """The summary in another unit."""
        return Summary(self.mean * factor, None if self.std is None else self.std * factor, self.n)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value; the order of the values cannot change a bit of it."""
    return math.fsum(values) / len(values)


def sample_std(values: Sequence[float]) -> float | None:
    """Square root of the summed squared deviations over n - 1; None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def summarise(values: Sequence[float]) -> Summary | None:
    """The summary of the values, None where there are none."""
    return Summary(mean(values), sample_std(values), len(values)) if values else None


def show(summary: Summary | None, percent: bool = True, digits: int = 1) -> str:
    """`90.2 ± 0.4 (3)`, `90.2 (1)` for a single run, `--` for none."""
    if summary is None:
        return MISSING
    s = summary.scaled(100.0) if percent else summary
    spread = "" if s.std is None else f" ± {s.std:.{digits}f}"
    return f"{s.mean:.{digits}f}{spread} ({s.n})"


@dataclass(frozen=True)
class Welch:
    """First minus second: the difference of means, its 95 % interval, the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def welch(first: Summary, second: Summary) -> Welch | None:
    """Welch's t-test from summaries; None where it cannot be made.

    It needs a standard deviation on both sides and one of them above 0 (a single run has none).
    """
    if first.std is None or second.std is None or not (first.std or second.std):
        return None
    from scipy import stats  # takes a second to import

    a, b = first.std**2 / first.n, second.std**2 / second.n
    freedom = (a + b) ** 2 / (a**2 / (first.n - 1) + b**2 / (second.n - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(a + b)
    of_both = (first.mean, first.std, first.n, second.mean, second.std, second.n)
    p = float(stats.ttest_ind_from_stats(*of_both, equal_var=False).pvalue)
    difference = first.mean - second.mean
    return Welch(difference, difference - half, difference + half, p)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family, in its order."""
    order = sorted(range(len(values)), key=lambda k: values[k])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[k]))
        adjusted[k] = largest
    return adjusted


def exact(value: float | None) -> str:
    """A number for a CSV file: ten digits, empty for None."""
    return "" if value is None else f"{value:.10g}"
