"""Figures from finished runs: the plotted numbers, and files that are drawn from them alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from common.files import csv_text
from experiments.paper.kinds import Figure, Panel, Value
from experiments.report import schematic
from experiments.report.reader import Finished, Reader, number
from experiments.report.statistics import Summary, exact, summarise
from experiments.report.style import DASHES, HATCHES, OKABE_ITO, empty_drawing, encoded, style

WARMUP = "end of warm-up"
LEGEND_ROW = 15.5  # points that a row of a legend takes


@dataclass(frozen=True)
class Point:
    """One plotted value: panel and series by their place, x an epoch or a group's name."""

    panel: int
    series: int
    x: int | str
    y: Summary


def epoch_value(run: Finished, line: dict, value: Value) -> float | None:
    """The largest of the value's keys in a log line, or None where it has none of them."""
    present = [line[key] for key in value.keys if key in line]
    found = [number(x, run.runs, run.seed, "/".join(value.keys)) for x in present]
    return max((x for x in found if x is not None), default=None)


def bar_points(value: Value, runs: Sequence[Finished], group: str) -> list[tuple[str, Summary]]:
    """The group's bar, if any run has the value at its best epoch."""
    found = [epoch_value(run, run.best, value) for run in runs]
    summary = summarise([x for x in found if x is not None])
    return [(group, summary)] if summary else []


def curve_points(value: Value, runs: Sequence[Finished]) -> list[tuple[int, Summary]]:
    """Epoch -> summary over the runs that have a value there."""
    by_epoch: dict[int, list[float]] = {}
    for run in runs:
        for line in run.log:
            x = epoch_value(run, line, value)
            if x is not None:
                by_epoch.setdefault(line["epoch"], []).append(x)
    return [(epoch, summarise(values)) for epoch, values in sorted(by_epoch.items())]


def figure_points(figure: Figure, reader: Reader) -> list[Point]:
    """All values that the finished runs have for the figure, in its unit."""
    points = []
    for p, panel in enumerate(figure.panels):
        scale = 100.0 if panel.percent else 1.0
        for s, series in enumerate(panel.series):
            for place, value in enumerate(series.values):
                runs = reader.finished(value.runs, figure.seeds)
                if figure.kind == "bars":
                    found = bar_points(value, runs, panel.groups[place])
                else:
                    found = curve_points(value, runs)
                points += [Point(p, s, x, summary.scaled(scale)) for x, summary in found]
    return points


def figure_csv(figure: Figure, points: Sequence[Point]) -> str:
    """The plotted numbers, in the unit of the axis."""
    x = "group" if figure.kind == "bars" else "epoch"
    rows = []
    for point in points:
        panel = figure.panels[point.panel]
        y = point.y
        labels = (panel.title, panel.series[point.series].label, str(point.x), panel.y_label)
        rows.append((*labels, exact(y.mean), exact(y.std), str(y.n)))
    return csv_text(("panel", "series", x, "y", "mean", "std", "n"), rows)


def warmup_epochs(panel: Panel, figure: Figure, reader: Reader) -> float | None:
    """Where the panel's warm-up ends, the largest of its runs'; None: nothing is to be marked."""
    runs = reader.finished(panel.warmup, figure.seeds) if panel.warmup else []
    return max((run.config["hparams"].get("warmup_epochs", 0) for run in runs), default=0) or None


def not_drawn(figure: Figure, points: Sequence[Point]) -> str:
    """The panels, series and bars without a point, by their names in the figure; "" for none."""
    there = {(point.panel, point.series, point.x) for point in points}
    found = []
    for p, panel in enumerate(figure.panels):
        names = []
        for s, series in enumerate(panel.series):
            groups = [group for group in panel.groups if (p, s, group) not in there]
            if not any(place[:2] == (p, s) for place in there):
                names.append(series.label)
            elif groups:
                names.append(f"{series.label} on {' and '.join(groups)}")
        if not any(place[0] == p for place in there):
            found.append((panel.title, ""))
        elif names:
            found.append((panel.title, ", ".join(names)))
    if len(found) == len(figure.panels) and len({names for _, names in found}) == 1:
        return found[0][1]
    return "; ".join(f"{title}: {names}" if names else title for title, names in found)


def full_caption(figure: Figure, points: Sequence[Point]) -> str:
    """The registry's caption, how many seeds the means are over, and what is not drawn."""
    counts = sorted({point.y.n for point in points})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    shown = "error bars" if figure.kind == "bars" else "bands"
    over = f"Mean ± sample standard deviation ({shown}) over {seeds} seeds."
    missing = not_drawn(figure, points)
    lacks = f"\nNot drawn, as no finished run has them: {missing}." if missing else ""
    return f"{figure.caption} {'One training seed.' if counts == [1] else over}{lacks}"


# Drawing -----------------------------------------------------------------------------------------


def draw(figure: Figure, points: Sequence[Point], reader: Reader) -> dict[str, bytes]:
    """Suffix (.png, .pdf) -> the figure as a file's bytes; `points` must not be empty.

    A schematic has no points, and needs none.
    """
    with style():
        if figure.kind == "schematic":
            return encoded(schematic.compose(figure.caption))
        return encoded(compose(figure, points, reader))


def compose(figure: Figure, points: Sequence[Point], reader: Reader) -> Drawing:
    """Panels side by side, legends above, the caption below; to be called in `looks.style()`.

    Panels without a point are left out.
    """
    panels = [figure.panels[p] for p in sorted({point.panel for point in points})]
    width = 9.4 if len(panels) > 1 else 6.4
    drawing = empty_drawing(width, 4.5, full_caption(figure, points))
    all_axes = drawing.subplots(1, len(panels), squeeze=False)[0]
    all_handles = []
    for axes, panel in zip(all_axes, panels):
        own = [point for point in points if figure.panels[point.panel] is panel]
        handles = (paint_bars if figure.kind == "bars" else paint_curves)(axes, panel, own)
        end = warmup_epochs(panel, figure, reader)
        if end:
            handles[WARMUP] = axes.axvline(end + 0.5, color="#555555", dashes=(2, 2), linewidth=1.2)
        all_handles.append(handles)
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
    level(all_axes, panels)
    if len({tuple(series.label for series in panel.series) for panel in panels}) == 1:
        common = {label: handle for handles in all_handles for label, handle in handles.items()}
        order = [series.label for series in panels[0].series] + [WARMUP]
        legend(drawing, {x: common[x] for x in order if x in common}, panels[0], width)
    else:
        for axes, panel, handles in zip(all_axes, panels, all_handles):
            legend(axes, handles, panel, width / len(panels) - 0.3)
    return drawing


def legend(of: Drawing | Axes, handles: dict[str, object], panel: Panel, width: float) -> None:
    """One above the whole drawing, or between a panel's title and its axes; none for one series."""
    if len(panel.series) == 1 and len(handles) == 1:
        return
    inches = sum(0.6 + 0.085 * len(label) for label in handles)  # a sample, its letters
    rows = math.ceil(inches / width)
    look = {"ncols": math.ceil(len(handles) / rows), "columnspacing": 1.2}
    if isinstance(of, Axes):
        look |= {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": 0.2}
        of.set_title(panel.title, pad=rows * LEGEND_ROW + 10)
    else:
        look["loc"] = "outside upper center"
    of.legend(handles.values(), handles.keys(), **look)


def level(all_axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Gives panels of one quantity one scale, and each its lower end."""
    tops: dict[str, float] = {}
    for axes, panel in zip(all_axes, panels):
        tops[panel.y_label] = max(tops.get(panel.y_label, -math.inf), axes.get_ylim()[1])
    for axes, panel in zip(all_axes, panels):
        axes.set_ylim(panel.y_low, tops[panel.y_label])


def paint_bars(axes: Axes, panel: Panel, points: Sequence[Point]) -> dict[str, object]:
    """Bars, error bars and the means above; series -> its handle in the legend.

    Series and groups without any bar take no room.
    """
    groups = [group for group in panel.groups if any(point.x == group for point in points)]
    drawn = sorted({point.series for point in points})
    wide, handles = 0.8 / len(drawn), {}
    for place, s in enumerate(drawn):
        own = [point for point in points if point.series == s]
        x = [groups.index(p.x) + (place - (len(drawn) - 1) / 2) * wide for p in own]
        height, spread = [p.y.mean for p in own], [p.y.std or 0.0 for p in own]
        look = look_of(panel, s)
        kind = {"color": OKABE_ITO[look], "hatch": HATCHES[look], "edgecolor": "black"}
        label = panel.series[s].label
        handles[label] = axes.bar(x, height, wide * 0.92, linewidth=0.8, **kind)
        if any(spread):
            axes.errorbar(x, height, spread, fmt="none", ecolor="black", capsize=4, elinewidth=1.3)
        for left, mean, std in zip(x, height, spread):
            text, at = f"{mean:.{1 if panel.percent else 2}f}", (left, mean + std)
            axes.annotate(text, at, (0, 4), textcoords="offset points", ha="center", fontsize=10)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.margins(y=0.12)  # room for the numbers above
    return handles


def paint_curves(axes: Axes, panel: Panel, points: Sequence[Point]) -> dict[str, object]:
    """Means as lines, standard deviations as bands; series -> its handle in the legend."""
    handles = {}
    for s in sorted({point.series for point in points}):
        own = [point for point in points if point.series == s]
        x, mean, spread = zip(*((p.x, p.y.mean, p.y.std or 0.0) for p in own))
        look = look_of(panel, s)
        if any(spread):
            low, high = ([m + sign * d for m, d in zip(mean, spread)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=OKABE_ITO[look], alpha=0.18, linewidth=0)
        (line,) = axes.plot(x, mean, color=OKABE_ITO[look], linestyle=DASHES[look])
        handles[panel.series[s].label] = line
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0.5)
    return handles


def look_of(panel: Panel, series: int) -> int:
    """Which colour, dash and hatch: the series' own, or its place in the panel."""
    own = panel.series[series].look
    return (series if own is None else own) % len(OKABE_ITO)
