"""Draws an evaluated figure as PNG and PDF.

Each method has the same colour in all figures (Okabe-Ito palette). Dashes and shades distinguish
the curves of one method, and bars have a hatch per method, so figures are readable without colour.
Output is reproducible to the byte: the font is fixed, the user's matplotlib settings are ignored,
and files contain no dates or versions.
"""

import io
import zlib
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

from experiments.paper.kinds import Series
from experiments.report.figures import EvaluatedFigure, EvaluatedPanel

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parents[2]
PANEL = (4.7, 4.0)  # inches
WARMUP = "warm-up ends"
# method -> colour and hatch
LOOKS = {"Joint": ("#0072B2", ""), "Midas": ("#D55E00", "///"), "JointUni": ("#009E73", "...")}
OTHERS = ("#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999", "#7F5539")  # in own figures
DASHES = ("-", "--", "-.", ":")
SHADES = (0.0, 0.5, -0.45, -0.8)  # towards white; negative: towards black
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
    "legend.handlelength": 2.8,  # long enough to show a dash pattern
    "pdf.fonttype": 42,  # TrueType: text stays text, as journals require
}


def draw(evaluated: EvaluatedFigure) -> dict[str, bytes]:
    """Suffix (.png, .pdf) -> file content; a schematic is read from docs/."""
    if evaluated.figure.kind == "schematic":
        stem = ROOT / evaluated.figure.file
        return {end: stem.with_suffix(end).read_bytes() for end in (".png", ".pdf")}
    png, pdf = io.BytesIO(), io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        drawing = compose(evaluated)
        # Print with the canvases directly, since `savefig` would render the drawing twice.
        FigureCanvasAgg(drawing).print_png(png, metadata={"Software": None})
        drawing.set_layout_engine("none")  # keep the layout
        no_dates = {"Creator": None, "Producer": None, "CreationDate": None}
        FigureCanvasPdf(drawing).print_pdf(pdf, metadata=no_dates)
    return {".png": png.getvalue(), ".pdf": pdf.getvalue()}


def cut_panels(png: bytes, evaluated: EvaluatedFigure) -> list[bytes]:
    """One image per panel, so that a narrow page can stack them."""
    count = len(evaluated.drawn)
    if count < 2:
        return [png]
    picture = Image.open(io.BytesIO(png))
    width, parts = picture.width // count, [io.BytesIO() for _ in range(count)]
    for k, part in enumerate(parts):
        picture.crop((k * width, 0, (k + 1) * width, picture.height)).save(part, "PNG")
    return [part.getvalue() for part in parts]


def compose(evaluated: EvaluatedFigure) -> Drawing:
    """Panels side by side, each below its legend; panels with the same y label share a scale."""
    drawn = evaluated.drawn
    layout = ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.07)
    drawing = Drawing(figsize=(PANEL[0] * len(drawn), PANEL[1]), layout=layout)
    all_axes: list[Axes] = []
    tops: dict[str, float] = {}
    for part, one in zip(drawing.subfigures(1, len(drawn), squeeze=False)[0], drawn):
        panel, axes = one.panel, part.subplots()
        handles = paint_bars(axes, one) if panel.groups else paint_curves(axes, one)
        if end := one.warmup_end:
            handles[WARMUP] = axes.axvline(end + 0.5, color="#555555", dashes=(2, 2), linewidth=1.2)
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
        widest = max(0.5 + 0.075 * len(label) for label in handles)  # inches: line and text
        columns = min(len(handles), max(1, int((PANEL[0] - 0.2) / widest)))
        part.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)
        all_axes.append(axes)
        tops[panel.y_label] = max(tops.get(panel.y_label, axes.get_ylim()[1]), axes.get_ylim()[1])
    for axes, one in zip(all_axes, drawn):
        axes.set_ylim(one.panel.y_low, tops[one.panel.y_label])
    return drawing


def paint_bars(axes: Axes, evaluated: EvaluatedPanel) -> dict[str, Any]:
    """Draws bars, error bars and the means above them; returns label -> legend handle.

    Leaves no space for series and groups without bars.
    """
    drawn, handles = evaluated.drawn, {}
    groups = [group for group in evaluated.panel.groups if any(group in s.points for s in drawn)]
    wide, digits = 0.8 / len(drawn), 1 if evaluated.panel.percent else 2
    for place, one in enumerate(drawn):
        x = [groups.index(g) + (place - (len(drawn) - 1) / 2) * wide for g in one.points]
        height, spread = zip(*((y.mean, y.std or 0.0) for y in one.points.values()))
        look: Any = {"color": colour(one.series), "hatch": LOOKS[one.series.method][1]}
        bars = axes.bar(x, height, wide * 0.92, edgecolor="black", linewidth=0.8, **look)
        handles[one.label] = bars
        if any(spread):
            axes.errorbar(x, height, spread, fmt="none", ecolor="black", capsize=4, elinewidth=1.3)
        for left, mean, std in zip(x, height, spread):
            text, at = f"{mean:.{digits}f}", (left, mean + std)
            axes.annotate(text, at, (0, 4), textcoords="offset points", ha="center", fontsize=9)
    # Break long names into two lines, so that four fit side by side.
    names = [name.replace("-", "-\n", 1) if len(name) > 10 else name for name in groups]
    axes.set_xticks(range(len(groups)), names)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.margins(y=0.12)  # space for the numbers
    return handles


def paint_curves(axes: Axes, evaluated: EvaluatedPanel) -> dict[str, Any]:
    """Draws means as lines, standard deviations as bands; returns label -> legend handle."""
    handles: dict[str, Any] = {}
    for one in evaluated.drawn:
        x, look = list(one.points), colour(one.series)
        mean, spread = zip(*((y.mean, y.std or 0.0) for y in one.points.values()))
        if any(spread):
            low, high = ([m + sign * d for m, d in zip(mean, spread)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=look, alpha=0.18, linewidth=0)
        (handles[one.label],) = axes.plot(x, mean, color=look, linestyle=DASHES[one.series.dash])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0.5)
    return handles


def colour(series: Series) -> tuple[float, ...]:
    """The method's colour in the shade of the series."""
    shade, target = SHADES[series.shade], 1.0 if SHADES[series.shade] > 0 else 0.0
    other = OTHERS[zlib.crc32(series.method.encode()) % len(OTHERS)]
    base = to_rgb(LOOKS[series.method][0] if series.method in LOOKS else other)
    return tuple(c + abs(shade) * (target - c) for c in base)
