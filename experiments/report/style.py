"""How every figure looks, and how a drawing becomes the bytes of its files.

Colours are Okabe and Ito's, and each look also has its own dash or hatch, so that a figure reads
without colour. Equal drawings give equal bytes: fixed font, matplotlib's own defaults whatever the
user's settings say, no dates or versions in the files.
"""

import io
import textwrap
from contextlib import AbstractContextManager

import matplotlib
import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure as Drawing

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
    "figure.dpi": 150,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 2.8,  # long enough to show a dash's pattern
    "pdf.fonttype": 42,  # TrueType: text stays text, and journals take it
}


def style() -> AbstractContextManager:
    """A context in which everything is drawn alike, whatever the user's settings say."""
    return matplotlib.style.context(["default", STYLE])


def empty_drawing(width: float, height: float, caption: str) -> Drawing:
    """A drawing of that many inches with its caption at the foot; to be called in `style()`."""
    drawing = Drawing(figsize=(width, height), layout="constrained")
    drawing.get_layout_engine().set(h_pad=0.07, w_pad=0.07, wspace=0.03)
    FigureCanvasAgg(drawing)
    wrapped = "\n".join(textwrap.fill(x, int(width * 14.5)) for x in caption.splitlines())
    drawing.supxlabel(wrapped, fontsize=8.5, x=0.01, ha="left", color="#333333")
    return drawing


def encoded(drawing: Drawing) -> dict[str, bytes]:
    """Suffix -> the drawing as a file's bytes; to be called once a drawing, in `style()`.

    The canvases print for themselves, since `savefig` goes through the whole drawing twice.
    """
    png, pdf = io.BytesIO(), io.BytesIO()
    drawing.canvas.print_png(png, metadata={"Software": None})
    drawing.set_layout_engine("none")  # the layout stays as it is
    no_dates = {"Creator": None, "Producer": None, "CreationDate": None}
    FigureCanvasPdf(drawing).print_pdf(pdf, metadata=no_dates)
    return {".png": png.getvalue(), ".pdf": pdf.getvalue()}
