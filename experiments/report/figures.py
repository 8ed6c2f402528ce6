"""A figure evaluated once: its plotted numbers, its names, its caption. `draw.py` adds nothing."""

from dataclasses import dataclass
from typing import Any

from experiments.paper.kinds import Figure, RunSet, Series
from experiments.report.reader import Finished, Reader
from experiments.report.statistics import Summary, summarise


@dataclass(frozen=True)
class Point:
    """One plotted value: panel and series by their place, x an epoch or a group's name."""

    panel: int
    series: int
    x: Any
    y: Summary


@dataclass(frozen=True)
class EvaluatedFigure:
    """A figure with all that is drawn of it, in the unit of its axes.

    `runs` are the finished runs behind it, `missing` those that it still needs. `warmup_ends` has
    for each panel the last epoch of the warm-up, 0 where none is marked; `weak` has for a (panel,
    series) of largest weights the modality that has it at the end.
    """

    figure: Figure
    runs: list[Finished]
    missing: list[tuple[RunSet, int]]
    points: list[Point]
    warmup_ends: list[int]
    weak: dict[tuple[int, int], str]

    def label(self, panel: int, series: int) -> str:
        """What the legend calls a series."""
        name, weak = self.figure.panels[panel].series[series].label, self.weak.get((panel, series))
        return f"{name} ({weak})" if weak else name

    @property
    def drawn_panels(self) -> list[int]:
        """The places of the panels that have a point: the others are left out."""
        return sorted({point.panel for point in self.points})

    @property
    def not_drawn(self) -> str:
        """The panels, series and bars without a point, by their names; "" for none."""
        lacking = []
        for p, panel in enumerate(self.figure.panels):
            names = []
            for s, series in enumerate(panel.series):
                drawn = {point.x for point in self.points if (point.panel, point.series) == (p, s)}
                absent = " and ".join(group for group in panel.groups if group not in drawn)
                if not drawn:
                    names.append(series.label)
                elif absent:
                    names.append(f"{series.label} on {absent}")
            lacking.append(", ".join(names))
        if len(set(lacking)) == 1:  # the same in every panel
            return lacking[0]
        titles = [panel.title for panel in self.figure.panels]
        return "; ".join(
            f"{title}: {names}" if p in self.drawn_panels else title
            for p, (title, names) in enumerate(zip(titles, lacking))
            if names
        )

    @property
    def caption(self) -> str:
        """The registry's caption, how many seeds the means are over, and what is not drawn."""
        parts, counts = [self.figure.caption], sorted({point.y.n for point in self.points})
        if counts == [1]:
            parts.append("One training seed.")
        elif counts:
            seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            shown = "error bars" if self.figure.kind == "bars" else "bands"
            parts.append(f"Mean ± sample standard deviation ({shown}) over {seeds} seeds.")
        if any(self.weak.values()):
            parts.append("In parentheses: the modality that is the weak one at the end.")
        if self.points and self.not_drawn:
            parts.append(f"Not drawn, as no finished run has them: {self.not_drawn}.")
        return " ".join(parts)


def evaluate_figure(figure: Figure, reader: Reader) -> EvaluatedFigure:
    """Reads the figure's runs and computes everything that is drawn."""
    points, weak, ends = [], {}, []
    for p, panel in enumerate(figure.panels):
        for s, series in enumerate(panel.series):
            by_x = values_by_x(figure, panel.groups, series, reader)
            for x, values in by_x.items():
                summary = summarise(values).scaled(100.0 if panel.percent else 1.0)
                points.append(Point(p, s, x, summary))
            if len(series.values[0].keys) > 1:
                weak[p, s] = weak_modality(figure, series, reader)
        warmed = reader.finished(panel.warmup, figure.seeds) if panel.warmup else []
        lengths = [run.config["hparams"].get("warmup_epochs", 0) for run in warmed]
        ends.append(max(lengths, default=0))
    runs, missing = reader.behind(figure), reader.missing([figure])
    return EvaluatedFigure(figure, runs, missing, points, ends, weak)


def values_by_x(
    figure: Figure, groups: tuple[str, ...], series: Series, reader: Reader
) -> dict[Any, list[float]]:
    """x -> the value of each run that has one; x is a bar's group, or an epoch in rising order."""
    found: dict[Any, list[float]] = {}
    for place, value in enumerate(series.values):
        for run in reader.finished(value.runs, figure.seeds):
            for line in [run.best] if groups else run.log:
                present = [line[key] for key in value.keys if key in line]
                numbers = [run.number(y, "/".join(value.keys)) for y in present]
                largest = max((y for y in numbers if y is not None), default=None)
                if largest is not None:
                    found.setdefault(groups[place] if groups else line["epoch"], []).append(largest)
    return found if groups else {epoch: found[epoch] for epoch in sorted(found)}


def weak_modality(figure: Figure, series: Series, reader: Reader) -> str:
    """The modality whose weight is the largest at the end of the runs; "" where all are equal."""
    (value,), names = series.values, set()
    for run in reader.finished(value.runs, figure.seeds):
        last = {key: run.log[-1][key] for key in value.keys if key in run.log[-1]}
        if len(set(last.values())) > 1:
            names.add(max(last, key=last.__getitem__).rpartition("/")[2])
    return " or ".join(sorted(names))
