"""Figure 2: how MIDAS makes, labels and weighs a misaligned sample, with the paper's equations.

Drawn in inches of a sheet of `SIZE`; blue and solid is sample i, vermilion and dashed is sample j.
The numbers are the example of the paper's Sec. 3.3 and 3.4 with a made-up fused prediction.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import FancyBboxPatch, Rectangle

from experiments.report.style import OKABE_ITO, empty_drawing

SIZE = (11.4, 7.1)
BLUE, VERMILION, GREEN, PINK = OKABE_ITO[:4]
LOOKS = {"i": (BLUE, "-"), "j": (VERMILION, (0, (4, 1.5)))}
GREY, INK = "#777777", "#222222"
# A row of boxes: (sample, modality) -> height. The two features of modality 2 face each other.
ROWS = {("i", 1): 5.75, ("i", 2): 5.0, ("j", 2): 2.75, ("j", 1): 2.0}
CLASSES = {"i": "dog", "j": "cat"}
MODALITIES = {1: "audio", 2: "video"}
Place = tuple[float, float]


def compose(caption: str) -> Drawing:
    """The drawing with its caption; to be called in `looks.style()`."""
    drawing = empty_drawing(SIZE[0], SIZE[1] + 0.5, caption)
    axes = drawing.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, SIZE[0])
    axes.set_ylim(0, SIZE[1])
    draw_samples(axes)
    draw_swap(axes)
    draw_label(axes)
    draw_prediction(axes)
    draw_weights(axes)
    draw_loss(axes)
    return drawing


# Pieces ------------------------------------------------------------------------------------------


def write(axes: Axes, x: float, y: float, text: str, size: float = 10, **more: object) -> None:
    """Text, centred unless `ha` says otherwise."""
    axes.text(x, y, text, **({"ha": "center", "va": "center", "size": size, "color": INK} | more))


def head(axes: Axes, x: float, y: float, number: int, text: str, colour: str = INK) -> None:
    """The heading of a step, from x to the right, its first line at height y."""
    disc = {"boxstyle": "circle,pad=0.18", "facecolor": colour, "edgecolor": "none"}
    write(axes, x + 0.12, y, str(number), 9, color="white", weight="bold", bbox=disc)
    write(axes, x + 0.32, y + 0.09, text, ha="left", va="top", weight="bold")


def box(
    axes: Axes, middle: Place, size: Place, text: str = "", colour: str = GREY, **more: object
) -> None:
    """A rounded box around a text."""
    corner = (middle[0] - size[0] / 2, middle[1] - size[1] / 2)
    shape = "round,pad=0,rounding_size=0.08"
    looks = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.5} | more
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=shape, **looks))
    if text:
        write(axes, *middle, text, 11)


def cell(axes: Axes, x: float, y: float, sample: str, text: str) -> None:
    """One modality of a sample, as input or feature."""
    colour, dash = LOOKS[sample]
    box(axes, (x, y), (0.78, 0.5), text, colour, facecolor=f"{colour}22", linestyle=dash)


def line(
    axes: Axes, places: Sequence[Place], colour: str = GREY, arrow: str = "->", dash: object = "-"
) -> None:
    """A line through the places with an arrow at its end."""
    x, y = zip(*places)
    axes.plot(x[:-1], y[:-1], color=colour, linewidth=1.5, linestyle=dash)
    looks = {"arrowstyle": arrow, "color": colour, "linewidth": 1.5, "linestyle": dash}
    axes.annotate("", places[-1], places[-2], arrowprops=looks | {"shrinkA": 0, "shrinkB": 0})


def shares(axes: Axes, corner: Place, values: Sequence[tuple[str, float, str, str]]) -> None:
    """Probabilities as bars: (class, value, colour, what stands beside it), the first on top."""
    width = 0.9
    for k, (name, value, colour, text) in enumerate(values):
        x, y = corner[0], corner[1] - 0.34 * k
        dash = LOOKS["j"][1] if colour == VERMILION else "-"
        bar = {"facecolor": f"{colour}66", "edgecolor": colour, "linewidth": 1.2}
        axes.add_patch(Rectangle((x, y - 0.12), width * value, 0.24, linestyle=dash, **bar))
        write(axes, x - 0.07, y, name, ha="right")
        write(axes, x + width * value + 0.07, y, text, ha="left")


# Steps -------------------------------------------------------------------------------------------


def draw_samples(axes: Axes) -> None:
    """Two samples, the encoders that they share, their features."""
    head(axes, 0.3, 6.85, 1, "two samples,\ntwo classes")
    head(axes, 2.15, 6.85, 2, "encoders,\nfeatures")
    for sample, name in CLASSES.items():
        low, high = sorted(y for (of, _), y in ROWS.items() if of == sample)
        colour, dash = LOOKS[sample]
        box(axes, (1.07, (low + high) / 2), (1.58, 1.42), "", colour, linestyle=dash)
        y = high + 0.52 if sample == "i" else low - 0.52
        write(axes, 1.07, y, f"sample {sample}: “{name}”", color=colour)
    for (sample, m), y in ROWS.items():
        write(axes, 0.62, y, MODALITIES[m], 9)
        cell(axes, 1.35, y, sample, f"$x_{sample}^{m}$")
        line(axes, [(1.86, y), (2.2, y)])
        box(axes, (2.45, y), (0.5, 0.5), rf"$\varphi_{m}$")
        line(axes, [(2.7, y), (3.0, y)])
        cell(axes, 3.39, y, sample, f"$f_{sample}^{m}$")


def draw_swap(axes: Axes) -> None:
    """Both misaligned samples of the pair."""
    head(axes, 4.1, 6.85, 3, "swap modality 2:\nmisaligned (Eq. 1)")
    for (sample, m), y in ROWS.items():
        target = y if m == 1 else ROWS["j" if sample == "i" else "i", m]
        colour, dash = LOOKS[sample]
        line(axes, [(3.78, y), (4.86, target)], colour, dash=dash)
        cell(axes, 5.25, target, sample, f"$f_{sample}^{m}$")
    for y in (5.375, 2.375):
        box(axes, (5.25, y), (1.0, 1.42), facecolor="none")
    write(axes, 5.25, 6.27, r"$\tilde{x}_i$", 11)
    write(axes, 5.25, 1.48, "treated alike", 9)


def draw_label(axes: Axes) -> None:
    """The unimodal classifiers' confidence becomes the soft label."""
    head(axes, 6.3, 6.85, 4, "soft label: how sure each modality is alone\n(Eq. 2, 3)")
    write(axes, 7.48, 5.375, "unimodal classifiers:\nown label's probability", 9)
    for y, sample, m, value in ((5.75, "i", 1, 0.9), (5.0, "j", 2, 0.3)):
        line(axes, [(5.75, y), (6.2, y)])
        box(axes, (6.45, y), (0.5, 0.5), f"$g_{m}$")
        line(axes, [(6.7, y), (7.0, y)])
        write(axes, 7.58, y, rf"$(p_{sample}^{m})_{{y_{sample}}} = {value}$")
        line(axes, [(8.16, y), (8.58, 5.375 + 0.3 * (y - 5.375))])
    box(axes, (9.85, 5.45), (2.5, 1.5))
    write(axes, 9.85, 5.93, r"soft label $\tilde{y}_i = \tilde{c}_i^1 y_i + \tilde{c}_i^2 y_j$")
    bars = [
        ("dog", 0.75, BLUE, "0.75 = 0.9 / 1.2"),
        ("cat", 0.25, VERMILION, "0.25 = 0.3 / 1.2"),
    ]
    shares(axes, (9.05, 5.47), bars)


def draw_prediction(axes: Axes) -> None:
    """What the fused classifier makes of the misaligned sample."""
    head(axes, 6.3, 4.42, 5, r"prediction $\tilde{p}_i$ of both together")
    line(axes, [(5.45, 4.66), (5.45, 3.7), (6.2, 3.7)])
    box(axes, (6.45, 3.7), (0.5, 0.5), "$g_f$")
    line(axes, [(6.7, 3.7), (8.58, 3.7)])
    write(axes, 7.6, 3.86, "fused classifier", 9)
    box(axes, (9.85, 3.7), (2.5, 1.1))
    bars = [("dog", 0.6, BLUE), ("cat", 0.1, VERMILION), ("others", 0.3, GREY)]
    shares(axes, (9.3, 4.04), [(*bar, f"{bar[1]:.2f}") for bar in bars])


def draw_weights(axes: Axes) -> None:
    """alpha of the weak modality, s of the hard sample."""
    head(axes, 6.3, 2.82, 6, "weak-modality weight (Eq. 5 to 7)", PINK)
    box(axes, (8.65, 2.05), (4.9, 0.96), colour=PINK)
    text = (
        "modality 2 is the less confident one; its share, averaged over a batch,\n"
        r"is 0.25 in the label and $0.1\,/\,(0.6 + 0.1) = 0.14$ in the prediction:"
        "\n"
        r"too little, so $\alpha_2$ grows by $\eta$ (else it falls, never below 1)"
    )
    write(axes, 8.65, 2.05, text, 9, linespacing=1.4)
    line(axes, [(3.39, 4.74), (3.39, 3.01)], GREEN, "<->")
    line(axes, [(3.39, 3.87), (2.82, 3.87)], GREEN)
    head(axes, 0.3, 4.4, 7, "hard-sample weight (Eq. 8)", GREEN)
    box(axes, (1.55, 3.87), (2.5, 0.6), colour=GREEN)
    text = "$\\tilde{s}_i = \\cos(f_i^2, f_j^2)$: the more alike\nthe two, the harder to tell"
    write(axes, 1.55, 3.87, text, 9, linespacing=1.4)


def draw_loss(axes: Axes) -> None:
    """How label, prediction and weights meet."""
    head(axes, 0.3, 0.9, 8, "loss\n(Eq. 10)")
    write(axes, 1.75, 0.8, r"$L_\mathrm{mis} =$", 11)
    box(axes, (3.0, 0.8), (1.6, 0.55), r"$1 + (\tilde{s}_i + 1)\,/\,2$", GREEN)
    write(axes, 4.0, 0.8, r"$\times$", 11)
    text = (
        r"$-\,\alpha_1 \tilde{c}_i^1\, \log\, (\tilde{p}_i)_{y_i}"
        r" - \alpha_2 \tilde{c}_i^2\, \log\, (\tilde{p}_i)_{y_j}$"
    )
    box(axes, (6.1, 0.8), (3.8, 0.55), text, PINK)
    line(axes, [(0.3, 3.87), (0.12, 3.87), (0.12, 1.24), (3.0, 1.24), (3.0, 1.08)], GREEN)
    line(axes, [(6.9, 1.57), (6.9, 1.08)], PINK)
    axes.plot([11.1, 11.28], [3.7, 3.7], color=GREY, linewidth=1.5)
    line(axes, [(11.1, 5.45), (11.28, 5.45), (11.28, 0.8), (8.0, 0.8)])
    line(axes, [(11.28, 2.05), (11.1, 2.05)])
    write(axes, 9.6, 0.98, r"$\tilde{y}_i$ and $\tilde{p}_i$", 9)
    text = (
        r"In all $L_\mathrm{align} + L_\mathrm{uni} + \lambda L_\mathrm{mis}$ (Eq. 9, 11): the"
        r" cross-entropies of $g_f$ (align) and of $g_1, g_2$ (uni) on samples i and j as they are."
        " Warm-up: uni alone."
    )
    write(axes, 0.62, 0.22, text, 9, ha="left")
