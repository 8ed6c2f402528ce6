"""The demo set's tables and figures, as data."""

from experiments.paper.kinds import Cell, Column, Figure, Panel, Row, RunSet, Table
from experiments.paper.rows import (
    LABELS,
    METHODS,
    OURS,
    TAKEN_BACK,
    TOP_TWO,
    accuracy_bars,
    alpha_curve,
    bars,
    confidence_bars,
    confidence_curves,
    share_curves,
)

JOINT = RunSet("demo", "Joint")
JOINT_UNI = RunSet("demo", "JointUni")
MIDAS = RunSet("demo", "Midas")
MIDAS_UNWEIGHTED = RunSet("demo", "Midas", (("weak_modality", False),))

TWO = {"Joint": JOINT, "Midas": MIDAS}
THREE = {"Joint": JOINT, "JointUni": JOINT_UNI, "Midas": MIDAS}
LETTERS = {"audio": "A", "video": "V"}
PAIRS = "misaligned pairs of the validation part"
COLUMNS = {
    "accuracy %": "test/acc",
    "F1, batches %": "test/f1_batch64",
    "F1 %": "test/f1_macro",
    "misaligned %": "test/acc_mis",
    "audio alone %": "test/acc_zero/audio",
    "video alone %": "test/acc_zero/video",
}


def rows(runs: dict[str, RunSet], columns: dict[str, str]) -> tuple[Row, ...]:
    """For each label a row of the columns' keys."""
    return tuple(
        Row(label, tuple(Cell(one, key) for key in columns.values()), one.method in OURS)
        for label, one in runs.items()
    )


def columns(headers: dict[str, str], lower: bool | None = False) -> tuple[Column, ...]:
    """Columns of one decimal."""
    return tuple(Column(header, digits=1, lower=lower) for header in headers)


DEMO_TABLE = Table(
    "demo-table",
    "The demo set, test part, in the form of the paper's Table 1. Accuracy; F1 as the authors'"
    " release has it (mean over batches of 64) and over the whole part; of misaligned pairs, the"
    f" {TOP_TWO}; accuracy with one modality alone, the other's features zero.",
    columns(COLUMNS),
    rows(THREE, COLUMNS),
    (
        "The demo set illustrates; it is no evidence for the method. JointUni is Joint plus the"
        " unimodal losses that MIDAS has too: it is not in the paper, and shows what they do"
        " alone.",
    ),
)

MISALIGNED = Panel(
    "misaligned accuracy", "accuracy (%)", bars(THREE, "val/acc_mis"), ("demo",), percent=True
)
ALPHA = Panel(
    "weight of the weak modality",
    "alpha",
    (alpha_curve("Midas", MIDAS, tuple(LETTERS)),),
    y_low=None,
    warmup=MIDAS,
)


def demo_figure(number: int, caption: str, kind: str, *panels: Panel) -> Figure:
    """The demo set's counterpart of one of the paper's figures."""
    text = f"The demo set's counterpart of the paper's Figure {number}: {caption}"
    return Figure(f"demo-figure{number}", text, kind, panels)


SHORT = (
    DEMO_TABLE,
    demo_figure(
        1,
        "validation part, best epoch. (a) Accuracy, and of misaligned pairs the "
        f"{TOP_TWO}. (b) Mean probability of each modality's own label on misaligned pairs.",
        "bars",
        accuracy_bars("(a) aligned and misaligned accuracy", TWO),
        confidence_bars("(b) confidence on misaligned pairs", TWO, tuple(LETTERS)),
    ),
    demo_figure(
        3,
        "training part, misaligned samples, epoch means. Share of each modality's own label in the"
        " unimodal heads (Uni) and in the fused output (Multi); A audio, V video.",
        "curves",
        share_curves("(a) without weak-modality weighting", MIDAS_UNWEIGHTED, LETTERS),
        share_curves("(b) Midas", MIDAS, LETTERS),
    ),
    demo_figure(
        4,
        "training part. The weight alpha of the weak modality at the end of each epoch, the largest"
        " of the modalities'; 1 during the warm-up.",
        "curves",
        ALPHA,
    ),
    demo_figure(
        5,
        f"{PAIRS}. Mean probability of each modality's own label; A audio, V video.",
        "curves",
        confidence_curves("confidence on misaligned pairs", JOINT, MIDAS, LETTERS),
    ),
    demo_figure(
        6, f"{PAIRS}, best epoch. Of these, the {TOP_TWO}; JointUni is ours.", "bars", MISALIGNED
    ),
)

ALONE = {f"{m} alone": RunSet("demo", "Unimodal", (("modality", m),)) for m in LETTERS}
ALONE_COLUMNS = {"accuracy %": "test/acc", "F1 %": "test/f1_macro"}
DEMO_ALONE = Table(
    "demo-alone",
    "The demo set, test part: each modality trained alone, with the same encoder and recipe.",
    columns(ALONE_COLUMNS),
    rows(ALONE, ALONE_COLUMNS),
)

# Every method -------------------------------------------------------------------------------------

DEMO_METHODS = Table(
    "demo-methods",
    "The demo set, test part: every method with its defaults, under one recipe. Columns as in the"
    " demo table.",
    columns(COLUMNS),
    rows({LABELS.get(m, m): RunSet("demo", m) for m in METHODS}, COLUMNS),
    (
        "The demo set illustrates; it is no evidence for or against a method. PowMix is a"
        " reconstruction from its abstract, GMM our own formulation of what its paper's abstract"
        " says; AMCo follows public code, since its paper could not be read in full.",
    ),
)

# Paper and release --------------------------------------------------------------------------------

RELEASE = {
    "alpha_rule": "ratio",
    "lr_from": "main",
    "pairing": "permutation",
    "uni_reduce": "mean",
}


def switched(*back: str) -> RunSet:
    """MIDAS with the release's switches but those taken back."""
    return RunSet("demo", "Midas", tuple(item for item in RELEASE.items() if item[0] not in back))


DEMO_RECIPE = Table(
    "demo-recipe",
    "The demo set, test part: MIDAS by the paper's letter, with the four switches of the authors'"
    " release (uni_reduce=mean, pairing=permutation, alpha_rule=ratio, lr_from=main), and with one"
    " of them taken back at a time. Columns as in the demo table.",
    columns(COLUMNS, lower=None),
    rows(
        {"the paper (defaults)": MIDAS, "the release's switches": switched()}
        | {f"the release's, but {name}": switched(key) for name, (key, _) in TAKEN_BACK.items()},
        COLUMNS,
    ),
    (
        "The demo set illustrates; it is no evidence for or against a recipe. The release has no"
        " demo set, so --recipe official is refused here and its switches are spelled out; data,"
        " split and evaluation are the same in all rows.",
    ),
    first="recipe",
)

ARTIFACTS = (*SHORT, DEMO_ALONE, DEMO_METHODS, DEMO_RECIPE)
