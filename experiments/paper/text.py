"""The numbers of the paper's text and of Figure 1a, as tables."""

from functools import partial

from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.paper.rows import (
    LR_NOTE,
    NAMES,
    ONE_RUN,
    TOP_TWO,
    Scores,
    method_scores,
    midas,
    score_table,
)

TEXT_MOSI = score_table(
    "text-mosi",
    "CMU-MOSI, three modalities (Sec. 4.5), test part.",
    ("mosi",),
    method_scores("Joint", "Midas"),
    ONE_RUN,
)

TEXT_CONFUSION = score_table(
    "text-confusion",
    "CREMA-D: partners drawn at random, and among each sample's two likeliest classes (Sec. A.4),"
    " test part.",
    ("cremad",),
    [
        Scores("Confusion-based", partial(midas, pairing="confusion"), "pair=confusion_top2"),
        Scores("Random", midas, "pair=random"),
    ],
    ONE_RUN,
    "The paper does not say which partner is taken where several qualify, or none does: ours"
    " draws among them, and where none qualifies among all of another class.",
    first="pairing",
)


def zero_row(label: str, method: str) -> Row:
    """Both modalities, then each alone, the other's features zero; then Shapley values."""
    runs = RunSet("cremad", method)
    table = "text_zero_vector"
    cells = [Cell(runs, "test/acc", (table, "cremad", method, "overall", "acc"))]
    for m in ("audio", "video"):
        place = (table, "cremad", method, f"zero_vector:{m}_only", "acc")
        cells.append(Cell(runs, f"test/acc_zero/{m}", place))
    cells += [Cell(runs, f"test/shapley/{m}") for m in ("audio", "video")]
    return Row(label, tuple(cells))


def alone_row() -> Row:
    """Models of one modality, each trained alone."""
    cells = [None]
    for m in ("audio", "video"):
        runs = RunSet("cremad", "Unimodal", (("modality", m),))
        cells.append(Cell(runs, "test/acc", ("text_zero_vector", "cremad", "Unimodal", m, "acc")))
    return Row("Unimodal", (*cells, None, None))


TEXT_ZERO = Table(
    "text-zero",
    "CREMA-D: accuracy with both modalities and with each alone, the other's features zero, and"
    " Shapley values of these accuracies (Sec. A.4), test part.",
    (
        Column("both", "accuracy", digits=1),
        Column("audio alone", "accuracy", digits=1),
        Column("video alone", "accuracy", digits=1),
        Column("audio", "Shapley value", digits=1, lower=None),
        Column("video", "Shapley value", digits=1, lower=None),
    ),
    (alone_row(), zero_row("Joint training", "Joint"), zero_row("MIDAS", "Midas")),
    (
        ONE_RUN,
        LR_NOTE,
        "Unimodal is a model of one modality trained alone (an inference). The paper's overall"
        " accuracy of MIDAS is 73.7 here and 74.99 in Table 1.",
    ),
)


def figure1_row(label: str, runs: RunSet, *names: str) -> Row:
    """Both accuracies of the validation part; `names` are the paper's of those that it states."""
    places = [("fig1a", runs.dataset, runs.method, name, "acc") for name in names] or [None] * 2
    keys = ("val/acc", "val/acc_mis")
    return Row(label, tuple(Cell(runs, key, place) for key, place in zip(keys, places)))


TEXT_FIGURE_1 = Table(
    "text-figure1",
    "Kinetics-Sounds, validation part, best epoch: accuracy, and of misaligned pairs the"
    f" {TOP_TWO} (Sec. 1, Figure 1a).",
    (Column("aligned", "accuracy", digits=1), Column("misaligned", "accuracy", digits=1)),
    (
        figure1_row(
            "Joint training",
            RunSet("kinetics", "Joint"),
            "val_aligned_top1",
            "val_misaligned_top2both",
        ),
        figure1_row("MIDAS", midas("kinetics")),
    ),
    (ONE_RUN, LR_NOTE, "MIDAS's bars of Figure 1a have no number in the paper."),
)

GAINED = ("kinetics", "cremad")
TEXT_GAINS = Table(
    "text-gains",
    "What MIDAS gains in accuracy over MCR, the best baseline of Table 1, in points (Sec. 4.2),"
    " test part.",
    tuple(Column(NAMES[d], "gain") for d in GAINED),
    (
        Row(
            "MIDAS minus MCR",
            tuple(
                Cell(
                    midas(d),
                    "test/acc",
                    ("text_4.2", d, "Midas", "gain_over_best_baseline", "acc_points"),
                    minus=RunSet(d, "MCR"),
                )
                for d in GAINED
            ),
        ),
    ),
    (
        "Differences are taken seed by seed, so that both runs of a seed have one split, and ± is"
        " their standard deviation.",
        ONE_RUN,
        LR_NOTE,
    ),
    first="difference",
)

ARTIFACTS = (TEXT_MOSI, TEXT_CONFUSION, TEXT_ZERO, TEXT_FIGURE_1, TEXT_GAINS)
