"""The paper's Figures 1 to 7, and panels shared with the figures of the demo dataset."""

from collections.abc import Mapping

from experiments.paper.kinds import Figure, Panel, RunSet, Series, Value
from experiments.paper.rows import FOUR, NAMES, TOP_TWO, midas

# dataset -> modality -> the paper's abbreviation
LETTERS = {
    "kinetics": {"audio": "A", "video": "V"},
    "cremad": {"audio": "A", "video": "V"},
    "ucf101": {"flow": "OF", "video": "RF"},
    "food101": {"text": "T", "image": "I"},
    "demo": {"audio": "A", "video": "V"},
    "avmnist": {"audio": "A", "image": "I"},
}
PAIRS = "Misaligned pairs of the validation split"
# Captions shared by several datasets.
BARS = (
    f"validation split, best epoch. (a) Accuracy, and for misaligned pairs the {TOP_TWO}. (b) Mean"
    " probability of each modality's own label on misaligned pairs."
)
SHARES = (
    "training split, misaligned samples, epoch means. Share of each modality's own label in the"
    " unimodal heads (Uni) and in the fused output (Multi); A audio, V video."
)
WEIGHTS = (
    "Training split. The weight alpha of the weak modality (the largest alpha of all modalities) at"
    " the end of each epoch; 1 during the warm-up."
)
OWN_LABELS = f"{PAIRS}. Mean probability of each modality's own label"
CONFIDENCES = f"{OWN_LABELS}; A audio, V video"


def joint_and_midas(dataset: str) -> dict[str, RunSet]:
    """The two methods compared in most figures."""
    return {"Joint": RunSet(dataset, "Joint"), "Midas": midas(dataset)}


def bars(methods: Mapping[str, RunSet], *keys: str) -> tuple[Series, ...]:
    """A series of bars for each method: one bar per key, from the log's best epoch."""
    return tuple(
        Series(label, tuple(Value(runs, (key,)) for key in keys)) for label, runs in methods.items()
    )


def misaligned_panel(series: tuple[Series, ...], *groups: str) -> Panel:
    """Figure 6: accuracy on misaligned pairs."""
    return Panel("misaligned accuracy", "accuracy (%)", series, groups, percent=True)


def bar_panels(dataset: str) -> tuple[Panel, ...]:
    """Figure 1: accuracy on aligned and on misaligned samples, and each label's probability."""
    titles = ("(a) aligned and misaligned accuracy", "(b) confidence on misaligned pairs")
    both, modalities = joint_and_midas(dataset), tuple(LETTERS[dataset])
    scores = bars(both, "val/acc", "val/acc_mis")
    probabilities = bars(both, *(f"val/conf_raw/{m}" for m in modalities))
    return (
        Panel(titles[0], "accuracy (%)", scores, ("aligned", "misaligned"), percent=True),
        Panel(titles[1], "confidence", probabilities, modalities),
    )


def curve_panel(title: str, y_label: str, *lines: tuple[str, RunSet, str, int]) -> Panel:
    """Curves over epochs, one per (label, runs, key, shade) and modality.

    Marks the warm-up of the last line's runs.
    """
    series = [
        Series(f"{label}-{letter}", (Value(runs, (f"{key}/{m}",)),), dash, shade)
        for label, runs, key, shade in lines
        for dash, (m, letter) in enumerate(LETTERS[runs.dataset].items())
    ]
    return Panel(title, y_label, tuple(series), warmup=lines[-1][1])


def confidence_panels(datasets: Mapping[str, str]) -> tuple[Panel, ...]:
    """Figures 5 and 7: mean probability of each label on misaligned pairs, a panel per title."""
    lines = {
        title: [(label, runs, "val/conf_raw", 0) for label, runs in joint_and_midas(d).items()]
        for title, d in datasets.items()
    }
    return tuple(curve_panel(title, "confidence", *own) for title, own in lines.items())


def share_panels(dataset: str) -> tuple[Panel, ...]:
    """Figure 3: c of Eq. 2 (Uni) and r of Eq. 5 (Multi) on misaligned training pairs."""
    runs = {
        "(a) without weak-modality weighting": midas(dataset, weak_modality=False),
        "(b) Midas": midas(dataset),
    }
    return tuple(
        curve_panel(
            title,
            "normalised confidence",
            ("Uni", one, "train/conf_uni", 1),
            ("Multi", one, "train/conf_fused", 0),
        )
        for title, one in runs.items()
    )


def weight_panel(labels: Mapping[str, str]) -> Panel:
    """Figure 4: the largest weight of all modalities, one curve per dataset -> label."""
    series = [
        Series(label, (Value(midas(d), tuple(f"alpha/{m}" for m in LETTERS[d])),), place, place)
        for place, (d, label) in enumerate(labels.items())
    ]
    warmup = midas(*labels) if len(labels) == 1 else None
    title = "weight of the weak modality"
    return Panel(title, "alpha", tuple(series), y_low=None, warmup=warmup)


FIGURE_2 = Figure(
    "figure2",
    "Schematic of MIDAS: a misaligned sample combines the features of two samples; it is labelled"
    " by the confidence of the unimodal classifiers and weighted (Sec. 3).",
    "schematic",
    file="docs/figure2",
)
ON_FOUR = tuple(
    Series(m, tuple(Value(joint_and_midas(d)[m], ("val/acc_mis",)) for d in FOUR))
    for m in ("Joint", "Midas")
)
LEGEND = f"{CONFIDENCES}, OF optical flow, RF RGB frames, T text, I image."
FIGURE_5 = {"(a) CREMA-D": "cremad", "(b) UCF-101": "ucf101"}
FIGURE_7 = {"(a) Kinetics-Sounds": "kinetics", "(b) Food-101": "food101"}
ARTIFACTS = (
    Figure("figure1", f"Kinetics-Sounds, {BARS}", "bars", bar_panels("kinetics")),
    FIGURE_2,
    Figure(
        "figure3",
        f"CREMA-D, {SHARES} Normalised, as the paper's caption says; the authors' release records"
        " raw means, which our logs contain as train/q and train/p.",
        "curves",
        share_panels("cremad"),
    ),
    Figure("figure4", WEIGHTS, "curves", (weight_panel({d: NAMES[d] for d in FOUR}),)),
    Figure("figure5", LEGEND, "curves", confidence_panels(FIGURE_5)),
    Figure(
        "figure6",
        f"{PAIRS}, best epoch: {TOP_TWO}.",
        "bars",
        (misaligned_panel(ON_FOUR, *(NAMES[d] for d in FOUR)),),
    ),
    Figure("figure7", LEGEND, "curves", confidence_panels(FIGURE_7)),
)
