"""Draws an evaluated figure, as PNG and PDF.

Each method has one colour in all figures, from Okabe and Ito's palette. Dashes and shades
distinguish the curves of one method, such as its modalities; bars also have a hatch for each
method, so that figures can be read without colour. Equal numbers give equal bytes: the font is
fixed, the user's settings of matplotlib are ignored, and the files hold no dates or versions.
"""

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator
from PIL import Image

from experiments.paper.kinds import Panel, Series
from experiments.report.figures import EvaluatedFigure, Point

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parents[2]
PANEL = (4.7, 4.0)  # inches
WARMUP = "warm-up ends"
# method -> colour and hatch
LOOKS = {"Joint": ("#0072B2", ""), "Midas": ("#D55E00", "///"), "JointUni": ("#009E73", "...")}
DASHES = ("-", "--", "-.", ":")
SHADES = (0.0, 0.5, -0.45, -0.8)  # towards white, or below 0 towards black
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "figure.dpi": 150,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.8,  # long enough to show a dash's pattern
    "pdf.fonttype": 42,  # TrueType: text stays text, and journals take it
}


def draw(evaluated: EvaluatedFigure) -> dict[str, bytes]:
    """Suffix (.png, .pdf) -> the figure as a file's bytes; a schematic's file is in docs/."""
    if evaluated.figure.kind == "schematic":
        stem = ROOT / evaluated.figure.file
        return {end: stem.with_suffix(end).read_bytes() for end in (".png", ".pdf")}
    with style():
        return encoded(compose(evaluated))


def style() -> AbstractContextManager:
    """A context in which everything is drawn alike, whatever the user's settings say."""
    return matplotlib.style.context(["default", STYLE])


def encoded(drawing: Drawing) -> dict[str, bytes]:
    """Suffix -> the drawing as a file's bytes; to be called once for each drawing, in `style()`.

    The canvases print for themselves, since `savefig` goes through the whole drawing twice.
    """
    png, pdf = io.BytesIO(), io.BytesIO()
    drawing.canvas.print_png(png, metadata={"Software": None})
    drawing.set_layout_engine("none")  # the layout stays as it is
    no_dates = {"Creator": None, "Producer": None, "CreationDate": None}
    FigureCanvasPdf(drawing).print_pdf(pdf, metadata=no_dates)
    return {".png": png.getvalue(), ".pdf": pdf.getvalue()}


def cut_panels(png: bytes, evaluated: EvaluatedFigure) -> list[bytes]:
    """The picture of each panel: a page may put them below each other."""
    count = len(evaluated.drawn_panels)
    if count < 2:
        return [png]
    picture = Image.open(io.BytesIO(png))
    width, parts = picture.width // count, []
    for place in range(count):
        part = io.BytesIO()
        picture.crop((place * width, 0, (place + 1) * width, picture.height)).save(part, "PNG")
        parts.append(part.getvalue())
    return parts


def compose(evaluated: EvaluatedFigure) -> Drawing:
    """Panels of equal width side by side, each below its legend; to be called in `style()`."""
    figure, drawn = evaluated.figure, evaluated.drawn_panels
    drawing = Drawing(figsize=(PANEL[0] * len(drawn), PANEL[1]), layout="constrained")
    drawing.get_layout_engine().set(h_pad=0.07, w_pad=0.07)
    FigureCanvasAgg(drawing)
    all_axes = []
    for part, place in zip(drawing.subfigures(1, len(drawn), squeeze=False)[0], drawn):
        panel, axes = figure.panels[place], part.subplots()
        points = [point for point in evaluated.points if point.panel == place]
        paint = paint_bars if figure.kind == "bars" else paint_curves
        handles = {evaluated.label(place, s): h for s, h in paint(axes, panel, points).items()}
        end = evaluated.warmup_ends[place]
        if end:
            handles[WARMUP] = axes.axvline(end + 0.5, color="#555555", dashes=(2, 2), linewidth=1.2)
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
        columns = legend_columns(list(handles))
        part.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)
        all_axes.append(axes)
    level(all_axes, [figure.panels[place] for place in drawn])
    return drawing


def legend_columns(labels: Sequence[str]) -> int:
    """How many labels stand side by side within a panel's width."""
    widest = max(0.5 + 0.075 * len(label) for label in labels)  # inches: a sample, its letters
    return min(len(labels), max(1, int((PANEL[0] - 0.2) / widest)))


def level(all_axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Gives panels of one quantity one scale, and each its lower end."""
    tops: dict[str, float] = {}
    for axes, panel in zip(all_axes, panels):
        tops[panel.y_label] = max(tops.get(panel.y_label, -math.inf), axes.get_ylim()[1])
    for axes, panel in zip(all_axes, panels):
        axes.set_ylim(panel.y_low, tops[panel.y_label])


def paint_bars(axes: Axes, panel: Panel, points: Sequence[Point]) -> dict[int, object]:
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
        look = {"color": colour(panel.series[s]), "hatch": LOOKS[method(panel.series[s])][1]}
        handles[s] = axes.bar(x, height, wide * 0.92, edgecolor="black", linewidth=0.8, **look)
        if any(spread):
            axes.errorbar(x, height, spread, fmt="none", ecolor="black", capsize=4, elinewidth=1.3)
        for left, mean, std in zip(x, height, spread):
            text, at = f"{mean:.{1 if panel.percent else 2}f}", (left, mean + std)
            axes.annotate(text, at, (0, 4), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xticks(range(len(groups)), list(map(two_lines, groups)))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.margins(y=0.12)  # room for the numbers above
    return handles


def paint_curves(axes: Axes, panel: Panel, points: Sequence[Point]) -> dict[int, object]:
    """Means as lines, standard deviations as bands; series -> its handle in the legend."""
    handles = {}
    for s in sorted({point.series for point in points}):
        own = [point for point in points if point.series == s]
        x, mean, spread = zip(*((p.x, p.y.mean, p.y.std or 0.0) for p in own))
        look, dash = colour(panel.series[s]), DASHES[panel.series[s].dash]
        if any(spread):
            low, high = ([m + sign * d for m, d in zip(mean, spread)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=look, alpha=0.18, linewidth=0)
        (handles[s],) = axes.plot(x, mean, color=look, linestyle=dash)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0.5)
    return handles


def two_lines(name: str) -> str:
    """A long name over two lines, so that four stand side by side."""
    return name.replace("-", "-\n", 1) if len(name) > 10 else name


def method(series: Series) -> str:
    """The method whose runs a series shows."""
    return series.values[0].runs.method


def colour(series: Series) -> tuple[float, ...]:
    """The method's colour in the series' shade."""
    shade, target = SHADES[series.shade], 1.0 if SHADES[series.shade] > 0 else 0.0
    return tuple(c + abs(shade) * (target - c) for c in to_rgb(LOOKS[method(series)][0]))
