"""The paper's Figures 1 to 7, as data. Figure 2 is a drawing of the method."""

from experiments.paper.kinds import Figure, Panel, RunSet, Series, Value
from experiments.paper.rows import (
    TOP_TWO,
    accuracy_bars,
    alpha_curve,
    confidence_bars,
    confidence_curves,
    share_curves,
)
from experiments.paper.tables import FOUR, NAMES, midas

# data set -> modality -> the paper's abbreviation
LETTERS = {
    "kinetics": {"audio": "A", "video": "V"},
    "cremad": {"audio": "A", "video": "V"},
    "ucf101": {"flow": "OF", "video": "RF"},
    "food101": {"text": "T", "image": "I"},
}
SPELLED = "A audio, V video, OF optical flow, RF RGB frames, T text, I image"
PAIRS = "misaligned pairs of the validation part"


def two(dataset: str) -> dict[str, RunSet]:
    """Joint and MIDAS on a data set."""
    return {"Joint": RunSet(dataset, "Joint"), "Midas": midas(dataset)}


def figure(number: int, caption: str, kind: str, *panels: Panel) -> Figure:
    """One of the paper's figures."""
    return Figure(f"figure{number}", caption, kind, panels)


def confidences(number: int, *datasets: str) -> Figure:
    """Figures 5 and 7."""
    panels = [
        confidence_curves(f"({letter}) {NAMES[d]}", RunSet(d, "Joint"), midas(d), LETTERS[d])
        for letter, d in zip("ab", datasets)
    ]
    caption = f"{PAIRS[0].upper()}{PAIRS[1:]}. Mean probability of each modality's own label;"
    return figure(number, f"{caption} {SPELLED}.", "curves", *panels)


FIGURE_1 = figure(
    1,
    "Kinetics-Sounds, validation part, best epoch. (a) Accuracy, and of misaligned pairs the"
    f" {TOP_TWO}. (b) Mean probability of each modality's own label on misaligned pairs.",
    "bars",
    accuracy_bars("(a) aligned and misaligned accuracy", two("kinetics")),
    confidence_bars("(b) confidence on misaligned pairs", two("kinetics"), ("audio", "video")),
)
FIGURE_2 = Figure(
    "figure2",
    "MIDAS, schematically: a misaligned sample is made of two samples' features, labelled by the"
    " unimodal classifiers' confidence, and weighted (Sec. 3).",
    "schematic",
    file="docs/figure2",
)
FIGURE_3 = figure(
    3,
    "CREMA-D, training part, misaligned samples, epoch means. Share of each modality's own label in"
    " the unimodal heads (Uni) and in the fused output (Multi); A audio, V video. Normalised,"
    " as the paper's caption says; its authors' release records raw means, Uni on aligned samples"
    " and Multi in one direction alone. Our logs have raw means as train/q and train/p.",
    "curves",
    share_curves(
        "(a) without weak-modality weighting",
        midas("cremad", weak_modality=False),
        LETTERS["cremad"],
    ),
    share_curves("(b) Midas", midas("cremad"), LETTERS["cremad"]),
)
FIGURE_4 = figure(
    4,
    "Training part. The weight alpha of the weak modality at the end of each epoch, the largest of"
    " the modalities'; 1 during the warm-up.",
    "curves",
    Panel(
        "weight of the weak modality",
        "alpha",
        tuple(alpha_curve(NAMES[d], midas(d), tuple(LETTERS[d]), k) for k, d in enumerate(FOUR)),
        y_low=None,
    ),
)
FIGURE_5 = confidences(5, "cremad", "ucf101")
FIGURE_6 = figure(
    6,
    f"{PAIRS[0].upper()}{PAIRS[1:]}, best epoch: of these, the {TOP_TWO}.",
    "bars",
    Panel(
        "misaligned accuracy",
        "accuracy (%)",
        tuple(
            Series(m, tuple(Value(two(d)[m], ("val/acc_mis",)) for d in FOUR))
            for m in ("Joint", "Midas")
        ),
        groups=tuple(NAMES[d] for d in FOUR),
        percent=True,
    ),
)
FIGURE_7 = confidences(7, "kinetics", "food101")

ARTIFACTS = (FIGURE_1, FIGURE_2, FIGURE_3, FIGURE_4, FIGURE_5, FIGURE_6, FIGURE_7)
