"""Mean and sample standard deviation of a few runs, and how a cell shows them."""

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


def exact(value: float | None) -> str:
    """A number for a CSV file: ten digits, empty for None."""
    return "" if value is None else f"{value:.10g}"
