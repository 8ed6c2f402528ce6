"""Figures from finished runs: the plotted numbers, and a PNG that is drawn from them alone.

Colours are Okabe and Ito's, and each look also has its own dash or hatch, so that a figure reads
without colour. Equal numbers give equal bytes: fixed font, matplotlib's own defaults whatever the
user's settings say, no metadata.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from common.files import csv_text
from experiments.artifacts import Figure, Panel, Value
from experiments.reader import Finished, Reader, number
from experiments.statistics import Summary, exact, summarise

matplotlib.use("Agg")

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 3)))
HATCHES = ("", "///", "...", "xx", "\\\\\\", "--", "++")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 2.8,  # long enough to show a dash's pattern
}
WARMUP = "end of warm-up"


@dataclass(frozen=True)
class Point:
    """One plotted value: panel and series by their place, x an epoch or a group's name."""

    panel: int
    series: int
    x: int | str
    y: Summary


def epoch_value(run: Finished, line: dict, value: Value) -> float | None:
    """The largest of the value's keys in a log line, what stands for their absence, or None."""
    present = [line[key] for key in value.keys if key in line]
    if not present:
        return value.absent
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


def figure_points(figure: Figure, reader: Reader) -> list[Point] | None:
    """Everything that the figure plots, in its unit; None where a series has no finished run."""
    points = []
    for p, panel in enumerate(figure.panels):
        for s, series in enumerate(panel.series):
            for place, value in enumerate(series.values):
                runs = reader.finished(value.runs, figure.seeds)
                if figure.kind == "bars":
                    found = bar_points(value, runs, panel.groups[place])
                else:
                    found = curve_points(value, runs)
                if not found:
                    return None
                scale = 100.0 if panel.percent else 1.0
                points += [Point(p, s, x, summary.scaled(scale)) for x, summary in found]
    return points


def figure_csv(figure: Figure, points: Sequence[Point]) -> str:
    """The plotted numbers, in the unit of the axis."""
    header = (
        "panel",
        "series",
        "group" if figure.kind == "bars" else "epoch",
        "y",
        "mean",
        "std",
        "n",
    )
    rows = []
    for point in points:
        panel = figure.panels[point.panel]
        y = point.y
        labels = (panel.title, panel.series[point.series].label, str(point.x), panel.y_label)
        rows.append((*labels, exact(y.mean), exact(y.std), str(y.n)))
    return csv_text(header, rows)


def warmup_epochs(panel: Panel, figure: Figure, reader: Reader) -> float | None:
    """Where the panel's warm-up ends, the largest of its runs'; None: nothing is to be marked."""
    runs = reader.finished(panel.warmup, figure.seeds) if panel.warmup else []
    return max((run.config["hparams"].get("warmup_epochs", 0) for run in runs), default=0) or None


def full_caption(figure: Figure, points: Sequence[Point]) -> str:
    """The registry's caption and how many seeds the means are over."""
    counts = sorted({point.y.n for point in points})
    if counts == [1]:
        return f"{figure.caption} One training seed."
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    shown = "error bars" if figure.kind == "bars" else "bands"
    return f"{figure.caption} Mean ± sample standard deviation ({shown}) over {seeds} seeds."


# Drawing -----------------------------------------------------------------------------------------


def draw(figure: Figure, points: Sequence[Point], reader: Reader) -> bytes:
    """The figure as a PNG file's bytes."""
    with matplotlib.style.context(["default", STYLE]):
        target = io.BytesIO()
        drawing = compose(figure, points, reader)
        drawing.savefig(target, format="png", dpi=150, metadata={"Software": None})
    return target.getvalue()


def compose(figure: Figure, points: Sequence[Point], reader: Reader) -> Drawing:
    """Panels side by side, one legend above them, the caption below; to be called in `STYLE`."""
    width = 8.6 if len(figure.panels) > 1 else 6.4
    drawing = Drawing(figsize=(width, 4.2), layout="constrained")
    FigureCanvasAgg(drawing)
    all_axes = drawing.subplots(1, len(figure.panels), squeeze=False)[0]
    labels = list(dict.fromkeys(s.label for panel in figure.panels for s in panel.series))
    handles: dict[str, object] = {}
    for place, (axes, panel) in enumerate(zip(all_axes, figure.panels)):
        for s, series in enumerate(panel.series):
            own = [point for point in points if (point.panel, point.series) == (place, s)]
            look = labels.index(series.label) if series.look is None else series.look
            paint = paint_bars if figure.kind == "bars" else paint_curve
            handles[series.label] = paint(axes, panel, own, s, look % len(OKABE_ITO))
        (finish_bars if figure.kind == "bars" else finish_curves)(axes, panel)
        end = warmup_epochs(panel, figure, reader)
        if end:
            handles[WARMUP] = axes.axvline(end + 0.5, color="#555555", dashes=(2, 2), linewidth=1.2)
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
        if panel.y_low is not None:
            axes.set_ylim(bottom=panel.y_low)
    if len(handles) > 1:
        order = sorted(handles, key=[*labels, WARMUP].index)
        drawn = [handles[label] for label in order]
        inches = sum(0.75 + 0.085 * len(label) for label in order)  # a sample, its letters
        columns = math.ceil(len(order) / math.ceil(inches / width))
        drawing.legend(drawn, order, loc="outside upper center", ncols=columns)
    caption = textwrap.fill(full_caption(figure, points), int(width * 14.5))
    drawing.supxlabel(caption, fontsize=8.5, x=0.01, ha="left", color="#333333")
    return drawing


def paint_bars(axes: Axes, panel: Panel, points: list[Point], place: int, look: int) -> object:
    """The bars of one series, their error bars and the mean above; returns the legend's handle."""
    wide, count = 0.8 / len(panel.series), len(panel.series)
    x = [panel.groups.index(p.x) + (place - (count - 1) / 2) * wide for p in points]
    height, spread = [p.y.mean for p in points], [p.y.std or 0.0 for p in points]
    kind = {"color": OKABE_ITO[look], "hatch": HATCHES[look], "edgecolor": "black"}
    handle = axes.bar(x, height, wide * 0.92, linewidth=0.8, **kind)
    if any(spread):
        axes.errorbar(x, height, spread, fmt="none", ecolor="black", capsize=4, elinewidth=1.3)
    for left, mean, std in zip(x, height, spread):
        text, at = f"{mean:.{1 if panel.percent else 2}f}", (left, mean + std)
        axes.annotate(text, at, (0, 4), textcoords="offset points", ha="center", fontsize=10)
    return handle


def finish_bars(axes: Axes, panel: Panel) -> None:
    """Names the groups and leaves room for the numbers above the bars."""
    axes.set_xticks(range(len(panel.groups)), panel.groups)
    axes.set_xlim(-0.6, len(panel.groups) - 0.4)
    axes.margins(y=0.12)


def paint_curve(axes: Axes, _: Panel, points: list[Point], place: int, look: int) -> object:
    """The means as a line, the standard deviations as a band; returns the legend's handle."""
    x, mean = [p.x for p in points], [p.y.mean for p in points]
    spread = [p.y.std or 0.0 for p in points]
    if any(spread):
        low, high = ([m + sign * s for m, s in zip(mean, spread)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=OKABE_ITO[look], alpha=0.18, linewidth=0)
    return axes.plot(x, mean, color=OKABE_ITO[look], linestyle=DASHES[look])[0]


def finish_curves(axes: Axes, _: Panel) -> None:
    """Whole epochs on the axis."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0.5)
