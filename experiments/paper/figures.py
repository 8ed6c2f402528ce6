"""The paper's Figures 1 to 7, as data. Figure 2 is a drawing of the method."""

from experiments.paper.kinds import Figure, Panel, RunSet, Series, Value
from experiments.paper.rows import (
    FOUR,
    NAMES,
    TOP_TWO,
    bar_panels,
    confidence_curves,
    midas,
    share_panels,
    weight_panel,
)

# data set -> modality -> the paper's abbreviation
LETTERS = {
    "kinetics": {"audio": "A", "video": "V"},
    "cremad": {"audio": "A", "video": "V"},
    "ucf101": {"flow": "OF", "video": "RF"},
    "food101": {"text": "T", "image": "I"},
}
PAIRS = "Misaligned pairs of the validation part"
# What figures show, on whatever data set.
BARS = (
    f"validation part, best epoch. (a) Accuracy, and of misaligned pairs the {TOP_TWO}. (b) Mean"
    " probability of each modality's own label on misaligned pairs."
)
SHARES = (
    "training part, misaligned samples, epoch means. Share of each modality's own label in the"
    " unimodal heads (Uni) and in the fused output (Multi); A audio, V video."
)
WEIGHTS = (
    "Training part. The weight alpha of the weak modality at the end of each epoch, the largest of"
    " the modalities'; 1 during the warm-up."
)
CONFIDENCES = f"{PAIRS}. Mean probability of each modality's own label; A audio, V video"


def two(dataset: str) -> dict[str, RunSet]:
    """Joint and MIDAS on a data set."""
    return {"Joint": RunSet(dataset, "Joint"), "Midas": midas(dataset)}


def confidences(number: int, *datasets: str) -> Figure:
    """Figures 5 and 7."""
    panels = [
        confidence_curves(f"({letter}) {NAMES[d]}", *two(d).values(), LETTERS[d])
        for letter, d in zip("ab", datasets)
    ]
    caption = f"{CONFIDENCES}, OF optical flow, RF RGB frames, T text, I image."
    return Figure(f"figure{number}", caption, "curves", tuple(panels))


ARTIFACTS = (
    Figure(
        "figure1",
        f"Kinetics-Sounds, {BARS}",
        "bars",
        bar_panels(two("kinetics"), ("audio", "video")),
    ),
    Figure(
        "figure2",
        "MIDAS, schematically: a misaligned sample is made of two samples' features, labelled by"
        " the unimodal classifiers' confidence, and weighted (Sec. 3).",
        "schematic",
        file="docs/figure2",
    ),
    Figure(
        "figure3",
        f"CREMA-D, {SHARES} Normalised, as the paper's caption says; its authors' release records"
        " raw means, Uni on aligned samples and Multi in one direction alone. Our logs have raw"
        " means as train/q and train/p.",
        "curves",
        share_panels(midas("cremad", weak_modality=False), midas("cremad"), LETTERS["cremad"]),
    ),
    Figure(
        "figure4",
        WEIGHTS,
        "curves",
        (weight_panel({NAMES[d]: midas(d) for d in FOUR}, LETTERS),),
    ),
    confidences(5, "cremad", "ucf101"),
    Figure(
        "figure6",
        f"{PAIRS}, best epoch: of these, the {TOP_TWO}.",
        "bars",
        (
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
        ),
    ),
    confidences(7, "kinetics", "food101"),
)
FIGURE_2 = ARTIFACTS[1]
