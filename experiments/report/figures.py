"""A figure evaluated once: its plotted numbers, its names, its caption. `draw.py` adds nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.paper.kinds import Figure, Panel, RunSet, Series, Value
from experiments.report.reader import Finished, Reader, number
from experiments.report.statistics import Summary, summarise


@dataclass(frozen=True)
class Point:
    """One plotted value: panel and series by their place, x an epoch or a group's name."""

    panel: int
    series: int
    x: int | str
    y: Summary


@dataclass(frozen=True)
class EvaluatedFigure:
    """A figure with all that is drawn of it, in the unit of its axes.

    `runs` are the finished runs behind it, `missing` those that it still needs. `warmup_ends` has
    for each panel the last epoch of the warm-up, None where none is marked; `weak` names for
    (panel, series) of a largest weight the modality that has it at the end.
    """

    figure: Figure
    runs: list[Finished]
    missing: list[tuple[RunSet, int]]
    points: list[Point]
    warmup_ends: list[int | None]
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
        panels = self.figure.panels
        lacking = [self.lacks(place) for place in range(len(panels))]
        if len(set(lacking)) == 1:  # the same in every panel
            return lacking[0]
        parts = []
        for place, names in enumerate(lacking):
            title = panels[place].title
            if names:
                parts.append(f"{title}: {names}" if place in self.drawn_panels else title)
        return "; ".join(parts)

    def lacks(self, place: int) -> str:
        """The names of a panel's series and bars without a point."""
        panel, names = self.figure.panels[place], []
        for s, series in enumerate(panel.series):
            drawn = {point.x for point in self.points if (point.panel, point.series) == (place, s)}
            absent = [group for group in panel.groups if group not in drawn]
            if not drawn:
                names.append(series.label)
            elif absent:
                names.append(f"{series.label} on {' and '.join(absent)}")
        return ", ".join(names)

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
    points, weak = [], {}
    for p, panel in enumerate(figure.panels):
        for s, series in enumerate(panel.series):
            for x, summary in series_points(figure, panel, series, reader):
                points.append(Point(p, s, x, summary.scaled(100.0 if panel.percent else 1.0)))
            if len(series.values[0].keys) > 1:
                runs = reader.finished(series.values[0].runs, figure.seeds)
                weak[p, s] = weak_modality(series.values[0], runs)
    ends = [warmup_end(panel, figure, reader) for panel in figure.panels]
    runs = [run for one in figure.runs() for run in reader.finished(one, figure.seeds)]
    return EvaluatedFigure(figure, runs, reader.missing([figure]), points, ends, weak)


def series_points(
    figure: Figure, panel: Panel, series: Series, reader: Reader
) -> list[tuple[int | str, Summary]]:
    """(x, summary over the runs) of a series: a bar for each group, or a point for each epoch."""
    by_x: dict[int | str, list[float]] = {}
    for place, value in enumerate(series.values):
        for run in reader.finished(value.runs, figure.seeds):
            for line in [run.best] if figure.kind == "bars" else run.log:
                y = epoch_value(run, line, value)
                if y is not None:
                    x = panel.groups[place] if figure.kind == "bars" else line["epoch"]
                    by_x.setdefault(x, []).append(y)
    ordered = by_x if figure.kind == "bars" else sorted(by_x)
    return [(x, summarise(by_x[x])) for x in ordered]


def epoch_value(run: Finished, line: dict, value: Value) -> float | None:
    """The largest of the value's keys in a log line, or None where it has none of them."""
    present = [line[key] for key in value.keys if key in line]
    found = [number(x, run.runs, run.seed, "/".join(value.keys)) for x in present]
    return max((x for x in found if x is not None), default=None)


def weak_modality(value: Value, runs: Sequence[Finished]) -> str:
    """The modality whose weight is the largest at the end of the runs; "" where all are equal."""
    names = set()
    for run in runs:
        last = {key: run.log[-1][key] for key in value.keys if key in run.log[-1]}
        if len(set(last.values())) > 1:
            names.add(max(last, key=last.get).rpartition("/")[2])
    return " or ".join(sorted(names))


def warmup_end(panel: Panel, figure: Figure, reader: Reader) -> int | None:
    """The last epoch of the panel's warm-up, the largest of its runs'; None: none is marked."""
    runs = reader.finished(panel.warmup, figure.seeds) if panel.warmup else []
    return max((run.config["hparams"].get("warmup_epochs", 0) for run in runs), default=0) or None
