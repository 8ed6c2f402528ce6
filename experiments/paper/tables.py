"""The paper's Tables 1 to 8, as data."""

from functools import partial
from itertools import product

from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.paper.rows import (
    FOUR,
    LR_NOTE,
    NAMES,
    ONE_RUN,
    THREE,
    Scores,
    method_scores,
    midas,
    score_table,
)

SPLIT_NOTE = (
    "Splits have the paper's shares, and its sizes where all of its samples and no others are"
    " there. Each seed has its own split, as in the authors' release. By default the draw is ours;"
    " --split_rule release, which --recipe official sets, draws as the release does (scikit-learn,"
    " stratified by class, with the run's seed). Both let one actor or one long video stand in"
    " several parts (see extra-splits)."
)
POWMIX_NOTE = "PowMix(R) is a reconstruction: its paper could not be read in full."
AMCO_NOTE = "AMCo follows public code: its paper could not be read in full."


TABLE_1 = score_table(
    "table1",
    "Accuracy and F1 (%) of MIDAS and related baselines on four data sets, test part.",
    FOUR,
    method_scores("Joint", "SMV", "OPM", "AMCo", "LFM", "MCR", "Midas"),
    SPLIT_NOTE,
    LR_NOTE,
    "The paper's gains of 3.13 and 4.08 points are over MCR, which uses misaligned features itself;"
    " over the best baseline without them they are 7.53 (OPM, Kinetics-Sounds) and 5.08 (AMCo,"
    " CREMA-D).",
    AMCO_NOTE,
)

PARTS = ("W", "WM", "HS")
SWITCHED_OFF = {"warmup_epochs": 0, "weak_modality": False, "hard_sample": False}


def ablation(on: tuple[bool, ...]) -> Scores:
    """A row of Table 2: which of warm-up, weak-modality and hard-sample weighting are on."""
    changed = {key: off for (key, off), use in zip(SWITCHED_OFF.items(), on) if not use}
    label = " + ".join(name for name, use in zip(PARTS, on) if use) or "none of them"
    variant = "_".join(f"{name}{use:d}" for name, use in zip(PARTS, on))
    return Scores(label, partial(midas, **changed), variant)


TABLE_2 = score_table(
    "table2",
    "MIDAS with and without warm-up (W), weak-modality weighting (WM) and hard-sample weighting"
    " (HS), test part.",
    FOUR,
    map(ablation, sorted(product((True, False), repeat=3), key=sum)),  # none of them first
    f"{LR_NOTE} Without W it falls after epoch 50, too.",
    "Labels are mixed in all rows, so the first row is not Joint: extra-controls has what the"
    " unimodal losses do alone.",
    "The paper's CREMA-D accuracy of the first row (72.32 ± 0.52) equals its Kinetics-Sounds"
    " accuracy of W alone, and its Food-101 WM + HS (74.41 ± 16.4) holds a diverged run:"
    " compare both loosely.",
    first="parts",
)

TABLE_3 = score_table(
    "table3",
    "MIDAS and general data augmentation, test part.",
    ("cremad", "food101"),
    method_scores("Joint", "Mixup", "PowMix", "LeMDA", "Midas"),
    LR_NOTE,
    POWMIX_NOTE,
    "For MIDAS on Food-101 the paper has 93.46 in Tables 1 and 2, 93.11 here, 93.82 in Tables 4"
    " and 6.",
)

TABLE_4 = score_table(
    "table4",
    "Similarity of hard-sample weighting: L2 distance and cosine, test part.",
    THREE,
    [
        Scores("L2 distance", partial(midas, similarity="l2"), "similarity=l2"),
        Scores("Cosine similarity", midas, "similarity=cosine"),
    ],
    ONE_RUN,
    "The paper gives no formula for L2; ours is 1 + 1/(1 + d) (an inference).",
    first="similarity",
)

MODALITIES = {
    "kinetics": ("Audio", "Video"),
    "cremad": ("Audio", "Video"),
    "ucf101": ("Optical Flow", "RGB frame"),
    "food101": ("Text", "Image"),
    "mosi": ("Text", "Audio, Video"),
    "sarcasm": ("Text", "Image"),
    "twitter2015": ("Text", "Image"),
}
COUNTS = {"n_train": "#train", "n_val": "#val", "n_test": "#test", "n_class": "#classes"}


def counts_row(dataset: str, *modalities: str) -> Row:
    """A row of Table 5."""
    table = "table5" if dataset in FOUR else "text_splits"
    cells = [
        Cell(
            RunSet(dataset, "Joint"),
            f"count/{key}",
            (table, dataset, "", "", key) if dataset in FOUR or key != "n_class" else None,
        )
        for key in COUNTS
    ]
    return Row(NAMES[dataset], (*cells, *modalities))


TABLE_5 = Table(
    "table5",
    "Samples of each part and classes, as the runs' data had them.",
    (
        *(Column(h, percent=False, digits=0, lower=None, counts=True) for h in COUNTS.values()),
        *(Column(f"Modality {k}", lower=None) for k in (1, 2)),
    ),
    tuple(counts_row(d, *modalities) for d, modalities in MODALITIES.items()),
    (
        "Each seed's split has these sizes. On Kinetics-Sounds the authors' release would give"
        " 16,890, 2,413 and 4,826 samples, since it cuts the held-out ones at 2/3; the paper's"
        " sizes come from 0.66 alone, which our --split_rule release takes too.",
        "The last three rows are of the paper's text (Sec. 4.5 and A.4). The Sarcasm sizes follow"
        " from no rule of two cuts: the released lists give 24,635 samples after the authors'"
        " filter, 80 fewer than the paper's.",
    ),
    first="data set",
)


def weighted(dataset: str, lam: float) -> RunSet | None:
    """MIDAS with a weight of Table 6."""
    return None if dataset == "food101" and lam > 5 else midas(dataset, lam=lam)


TABLE_6 = score_table(
    "table6",
    "MIDAS with other weights lambda of the misaligned loss, test part.",
    THREE,
    [
        Scores(f"{lam:g}", partial(weighted, lam=lam), f"lambda={lam:g}")
        for lam in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    ],
    ONE_RUN,
    "The paper has n/a for Food-101 at 10 and 20: these are not run.",
    first="lambda",
)

TABLE_7 = score_table(
    "table7",
    "Sarcasm and Twitter2015, test part.",
    ("sarcasm", "twitter2015"),
    method_scores("Joint", "AMCo", "MCR", "Midas"),
    ONE_RUN,
    "The paper states no recipe for these sets; ours is Food-101's (an inference).",
    AMCO_NOTE,
)

LEVELS = {"feature": "Feature-level", "input": "Input-level"}


def time_row(dataset: str) -> Row:
    """A row of Table 8: minutes of both levels, with the loader and without."""
    cells = []
    for key in ("time/train_min", "time/step_min"):
        for level in LEVELS:
            runs = midas(dataset, **({} if level == "feature" else {"level": level}))
            place = ("table8", dataset, "Midas", f"level={level}", "train_minutes")
            cells.append(Cell(runs, key, place if key == "time/train_min" else None))
    return Row(NAMES[dataset], tuple(cells))


TABLE_8 = Table(
    "table8",
    "Training time in minutes, feature-level and input-level swapping.",
    tuple(
        Column(header, block, percent=False, digits=1, lower=True)
        for block in ("whole epochs", "steps alone, without waiting for data")
        for header in LEVELS.values()
    ),
    tuple(time_row(d) for d in ("cremad", "kinetics", "food101")),
    (
        "Minutes depend on the machine: only the ratio of the two levels means anything across"
        " machines, and the right half, where the loader does not count. Validation after each"
        " epoch is left out of both.",
        ONE_RUN,
    ),
    first="data set",
)

ARTIFACTS = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8)
