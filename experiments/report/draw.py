"""Draws an evaluated figure, as PNG and PDF.

Each method has one colour in all figures, from Okabe and Ito's palette. Dashes and shades
distinguish the curves of one method; bars also have a hatch for each method, so that figures can be
read without colour. Equal numbers give equal bytes: the font is fixed, the user's settings of
matplotlib are ignored, and the files hold no dates or versions.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Drawing
from matplotlib.layout_engine import ConstrainedLayoutEngine
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
    png, pdf = io.BytesIO(), io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        drawing = compose(evaluated)
        # The canvases print for themselves, since `savefig` goes through the whole drawing twice.
        FigureCanvasAgg(drawing).print_png(png, metadata={"Software": None})
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
    width, parts = picture.width // count, [io.BytesIO() for _ in range(count)]
    for k, part in enumerate(parts):
        picture.crop((k * width, 0, (k + 1) * width, picture.height)).save(part, "PNG")
    return [part.getvalue() for part in parts]


def compose(evaluated: EvaluatedFigure) -> Drawing:
    """Panels side by side, each below its legend; those of one quantity have one scale."""
    figure, drawn = evaluated.figure, evaluated.drawn_panels
    layout = ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.07)
    drawing = Drawing(figsize=(PANEL[0] * len(drawn), PANEL[1]), layout=layout)
    all_axes: list[Axes] = []
    tops: dict[str, float] = {}
    for part, place in zip(drawing.subfigures(1, len(drawn), squeeze=False)[0], drawn):
        panel, axes = figure.panels[place], part.subplots()
        paint = paint_bars if figure.kind == "bars" else paint_curves
        painted = paint(axes, panel, [one for one in evaluated.points if one.panel == place])
        handles = {evaluated.label(place, s): handle for s, handle in painted.items()}
        if end := evaluated.warmup_ends[place]:
            handles[WARMUP] = axes.axvline(end + 0.5, color="#555555", dashes=(2, 2), linewidth=1.2)
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
        widest = max(0.5 + 0.075 * len(label) for label in handles)  # inches: a line, the letters
        columns = min(len(handles), max(1, int((PANEL[0] - 0.2) / widest)))
        part.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)
        all_axes.append(axes)
        tops[panel.y_label] = max(tops.get(panel.y_label, axes.get_ylim()[1]), axes.get_ylim()[1])
    for axes, place in zip(all_axes, drawn):
        axes.set_ylim(figure.panels[place].y_low, tops[figure.panels[place].y_label])
    return drawing


def paint_bars(axes: Axes, panel: Panel, points: Sequence[Point]) -> dict[int, Any]:
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
        look: Any = {"color": colour(panel.series[s]), "hatch": LOOKS[method(panel.series[s])][1]}
        handles[s] = axes.bar(x, height, wide * 0.92, edgecolor="black", linewidth=0.8, **look)
        if any(spread):
            axes.errorbar(x, height, spread, fmt="none", ecolor="black", capsize=4, elinewidth=1.3)
        for left, mean, std in zip(x, height, spread):
            text, at = f"{mean:.{1 if panel.percent else 2}f}", (left, mean + std)
            axes.annotate(text, at, (0, 4), textcoords="offset points", ha="center", fontsize=9)
    # Long names go over two lines, so that four stand side by side.
    names = [name.replace("-", "-\n", 1) if len(name) > 10 else name for name in groups]
    axes.set_xticks(range(len(groups)), names)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.margins(y=0.12)  # room for the numbers above
    return handles


def paint_curves(axes: Axes, panel: Panel, points: Sequence[Point]) -> dict[int, Any]:
    """Means as lines, standard deviations as bands; series -> its handle in the legend."""
    handles: dict[int, Any] = {}
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


def method(series: Series) -> str:
    """The method whose runs a series shows."""
    return series.values[0].runs.method


def colour(series: Series) -> tuple[float, ...]:
    """The method's colour in the series' shade."""
    shade, target = SHADES[series.shade], 1.0 if SHADES[series.shade] > 0 else 0.0
    return tuple(c + abs(shade) * (target - c) for c in to_rgb(LOOKS[method(series)][0]))
