"""Mean and sample standard deviation of a few runs, their formatting, and tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

MISSING = "--"


class Summary(NamedTuple):
    """Mean, sample standard deviation (n - 1; None for a single value) and count."""

    mean: float
    std: float | None
    n: int

    def scaled(self, factor: float) -> "Summary":
        """The summary in another unit."""
        return Summary(self.mean * factor, None if self.std is None else self.std * factor, self.n)

    def spread(self, digits: int) -> str:
        """`90.2 ± 0.4`, or `90.2` without a standard deviation."""
        std = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{std}"


def summarise(values: Sequence[float]) -> Summary | None:
    """The summary of the values, or None if there are none; independent of their order."""
    if not values:
        return None
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1)), n)


class Welch(NamedTuple):
    """The 95 % interval of a difference of two means, and its two-sided p-value."""

    low: float
    high: float
    p: float


def welch(first: Summary, second: Summary) -> Welch | None:
    """Welch's t-test of first minus second; None if a std is missing or both are 0."""
    if first.std is None or second.std is None or not (first.std or second.std):
        return None
    from scipy import stats  # takes a second to import

    a, b = first.std**2 / first.n, second.std**2 / second.n
    freedom = (a + b) ** 2 / (a**2 / (first.n - 1) + b**2 / (second.n - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(a + b)
    both = (first.mean, first.std, first.n, second.mean, second.std, second.n)
    p = float(stats.ttest_ind_from_stats(*both, equal_var=False).pvalue)
    difference = first.mean - second.mean
    return Welch(difference - half, difference + half, p)


def holm(values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values of a family, in the same order."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[k]))
        adjusted[k] = largest
    return adjusted


def exact(value: float | None) -> str:
    """A number for a CSV file: ten digits, or "" for None."""
    return "" if value is None else f"{value:.10g}"
