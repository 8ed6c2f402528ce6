"""Evaluates a figure: its plotted numbers, labels and caption. `draw.py` only draws them."""

from dataclasses import dataclass
from typing import Any

from experiments.paper.kinds import Figure, Panel, RunSet, Series
from experiments.report.reader import Finished, Reader
from experiments.report.statistics import Summary, summarise


@dataclass(frozen=True)
class EvaluatedSeries:
    """A curve or the bars of a method: its legend label, and x (epoch or group) -> y."""

    series: Series
    label: str
    points: dict[Any, Summary]


@dataclass(frozen=True)
class EvaluatedPanel:
    """A panel in the unit of its axes; `warmup_end` is an epoch, or 0 for no mark."""

    panel: Panel
    series: list[EvaluatedSeries]
    warmup_end: int

    @property
    def drawn(self) -> list[EvaluatedSeries]:
        """The series that have a point."""
        return [one for one in self.series if one.points]

    @property
    def lacks(self) -> str:
        """The names of the series and bars without a point."""
        names = []
        for one in self.series:
            absent = " and ".join(group for group in self.panel.groups if group not in one.points)
            if not one.points:
                names.append(one.series.label)
            elif absent:
                names.append(f"{one.series.label} on {absent}")
        return ", ".join(names)


@dataclass(frozen=True)
class EvaluatedFigure:
    """A figure with its evaluated panels, its finished runs, and the runs that it still needs."""

    figure: Figure
    panels: list[EvaluatedPanel]
    runs: list[Finished]
    missing: list[tuple[RunSet, int]]

    @property
    def drawn(self) -> list[EvaluatedPanel]:
        """The panels that have a point; the others are not drawn."""
        return [one for one in self.panels if one.drawn]

    @property
    def not_drawn(self) -> str:
        """The names of panels, series and bars without a point, or ""."""
        if len({one.lacks for one in self.panels}) == 1:  # the same in every panel
            return self.panels[0].lacks
        lacking = [one for one in self.panels if one.lacks]
        return "; ".join(
            f"{one.panel.title}: {one.lacks}" if one.drawn else one.panel.title for one in lacking
        )

    @property
    def caption(self) -> str:
        """The registry's caption, plus the number of seeds and what is not drawn."""
        parts, series = (
            [self.figure.caption],
            [one for panel in self.panels for one in panel.series],
        )
        counts = sorted({y.n for one in series for y in one.points.values()})
        if counts == [1]:
            parts.append("One training seed.")
        elif counts:
            seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            shown = "error bars" if self.figure.kind == "bars" else "bands"
            parts.append(f"Mean ± sample standard deviation ({shown}) over {seeds} seeds.")
        if any(one.label != one.series.label for one in series):
            parts.append("In parentheses: the modality whose weight rises highest.")
        if counts and self.not_drawn:
            parts.append(f"Not drawn, because no run is finished: {self.not_drawn}.")
        return " ".join(parts)


def evaluate_figure(figure: Figure, reader: Reader) -> EvaluatedFigure:
    """Reads the figure's runs and computes everything that is drawn."""
    panels = []
    for panel in figure.panels:
        series = [evaluate_series(figure, panel, one, reader) for one in panel.series]
        warmed = reader.finished(panel.warmup, figure.seeds) if panel.warmup else []
        lengths = [run.config["hparams"].get("warmup_epochs", 0) for run in warmed]
        panels.append(EvaluatedPanel(panel, series, max(lengths, default=0)))
    return EvaluatedFigure(figure, panels, reader.behind(figure), reader.missing([figure]))


def evaluate_series(
    figure: Figure, panel: Panel, series: Series, reader: Reader
) -> EvaluatedSeries:
    """The mean over the runs for each group of bars, or for each epoch in ascending order.

    The label of a series of largest weights names the modality with the largest one of all epochs.
    """
    by_x: dict[Any, list[float]] = {}
    weak = set()
    for place, value in enumerate(series.values):
        for run in reader.finished(value.runs, figure.seeds):
            peaks: dict[str, float] = {}
            for line in [run.best] if panel.groups else run.log:
                read = {key: run.number(line[key], key) for key in value.keys if key in line}
                numbers = {key: y for key, y in read.items() if y is not None}
                if numbers:
                    x = panel.groups[place] if panel.groups else line["epoch"]
                    by_x.setdefault(x, []).append(max(numbers.values()))
                    peaks |= {key: max(y, peaks.get(key, y)) for key, y in numbers.items()}
            if len(set(peaks.values())) > 1:
                weak.add(max(peaks, key=peaks.__getitem__).rpartition("/")[2])
    scale = 100.0 if panel.percent else 1.0
    places = list(by_x) if panel.groups else sorted(by_x)
    points = {x: summarise(by_x[x]).scaled(scale) for x in places}
    label = f"{series.label} ({' or '.join(sorted(weak))})" if weak else series.label
    return EvaluatedSeries(series, label, points)
