"""The paper's Tables 1 to 8, as data."""

from experiments.paper import rows as shapes
from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.paper.rows import F1_NOTE, LR_NOTE, score_columns, score_row
from experiments.run.settings import METHOD_DEFAULTS

NAMES = {
    "kinetics": "Kinetics-Sounds",
    "cremad": "CREMA-D",
    "ucf101": "UCF-101",
    "food101": "Food-101",
    "mosi": "CMU-MOSI",
    "sarcasm": "Sarcasm",
    "twitter2015": "Twitter2015",
    "ave": "AVE",
}
FOUR = ("kinetics", "cremad", "ucf101", "food101")
THREE = ("kinetics", "cremad", "food101")
LABELS = shapes.LABELS | {"Joint": "Joint training", "Midas": "MIDAS"}
SPLIT_NOTE = (
    "Splits have the paper's shares, and its sizes where all of its samples and no others are"
    " there. Each seed has its own split, as in the authors' release. By default the draw is ours;"
    " --split_rule release, which --recipe official sets, draws as the release does (scikit-learn,"
    " stratified by class, with the run's seed). Both let one actor or one long video stand in"
    " several parts (see extra-splits)."
)
ONE_RUN = "The paper prints no ± here, so nothing can be tested; ours has three seeds."
POWMIX_NOTE = "PowMix(R) is a reconstruction: its paper could not be read in full."
AMCO_NOTE = "AMCo follows public code: its paper could not be read in full."


def midas(dataset: str, **changed: object) -> RunSet:
    """MIDAS with settings that differ from its defaults on that data set."""
    defaults = METHOD_DEFAULTS.get((dataset, "Midas"), {})
    lam = changed.get("lam")
    if lam == defaults.get("lam", 1.0):
        del changed["lam"]
    return RunSet(dataset, "Midas", tuple(sorted(changed.items())))


def blocks(datasets: tuple[str, ...]) -> dict[str, str]:
    """Data set -> heading."""
    return {dataset: NAMES[dataset] for dataset in datasets}


def methods_table(
    name: str, caption: str, datasets: tuple[str, ...], methods: tuple[str, ...], *notes: str
) -> Table:
    """A table of methods with their defaults."""
    rows = [
        score_row(LABELS.get(m, m), {d: RunSet(d, m) for d in datasets}, name.replace("-", "_"))
        for m in methods
    ]
    return Table(name, caption, score_columns(blocks(datasets)), tuple(rows), (F1_NOTE, *notes))


TABLE_1 = methods_table(
    "table1",
    "Accuracy and F1 (%) of MIDAS and related baselines on four data sets, test part.",
    FOUR,
    ("Joint", "SMV", "OPM", "AMCo", "LFM", "MCR", "Midas"),
    SPLIT_NOTE,
    LR_NOTE,
    "The paper's gains of 3.13 and 4.08 points are over MCR, which uses misaligned features itself;"
    " over the best baseline without them they are 7.53 (OPM, Kinetics-Sounds) and 5.08 (AMCo,"
    " CREMA-D).",
    AMCO_NOTE,
)

PARTS = ("W", "WM", "HS")


def ablation_row(on: tuple[bool, bool, bool]) -> Row:
    """A row of Table 2: which of warm-up, weak-modality and hard-sample weighting are on."""
    changed: dict[str, object] = {}
    if not on[0]:
        changed["warmup_epochs"] = 0
    if not on[1]:
        changed["weak_modality"] = False
    if not on[2]:
        changed["hard_sample"] = False
    label = " + ".join(name for name, use in zip(PARTS, on) if use) or "none of them"
    variant = "_".join(f"{name}{int(use)}" for name, use in zip(PARTS, on))
    return score_row(label, {d: midas(d, **changed) for d in FOUR}, "table2", variant)


TABLE_2 = Table(
    "table2",
    "MIDAS with and without warm-up (W), weak-modality weighting (WM) and hard-sample weighting"
    " (HS), test part.",
    score_columns(blocks(FOUR)),
    tuple(
        ablation_row(on)
        for on in (
            (False, False, False),
            (True, False, False),
            (False, True, False),
            (False, False, True),
            (True, True, False),
            (True, False, True),
            (False, True, True),
            (True, True, True),
        )
    ),
    (
        F1_NOTE,
        f"{LR_NOTE} Without W it falls after epoch 50, too.",
        "Labels are mixed in all rows, so the first row is not Joint: extra-controls has what the"
        " unimodal losses do alone.",
        "The paper's CREMA-D accuracy of the first row (72.32 ± 0.52) equals its Kinetics-Sounds"
        " accuracy of W alone, and its Food-101 WM + HS (74.41 ± 16.4) holds a diverged run:"
        " compare both loosely.",
    ),
    first="parts",
)

TABLE_3 = methods_table(
    "table3",
    "MIDAS and general data augmentation, test part.",
    ("cremad", "food101"),
    ("Joint", "Mixup", "PowMix", "LeMDA", "Midas"),
    LR_NOTE,
    POWMIX_NOTE,
    "For MIDAS on Food-101 the paper has 93.46 in Tables 1 and 2, 93.11 here, 93.82 in Tables 4"
    " and 6.",
)

TABLE_4 = Table(
    "table4",
    "Similarity of hard-sample weighting: L2 distance and cosine, test part.",
    score_columns(blocks(THREE)),
    (
        score_row(
            "L2 distance", {d: midas(d, similarity="l2") for d in THREE}, "table4", "similarity=l2"
        ),
        score_row("Cosine similarity", {d: midas(d) for d in THREE}, "table4", "similarity=cosine"),
    ),
    (F1_NOTE, ONE_RUN, "The paper gives no formula for L2; ours is 1 + 1/(1 + d) (an inference)."),
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

LAMBDAS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
TABLE_6 = Table(
    "table6",
    "MIDAS with other weights lambda of the misaligned loss, test part.",
    score_columns(blocks(THREE)),
    tuple(
        score_row(
            f"{lam:g}",
            {d: None if d == "food101" and lam > 5 else midas(d, lam=lam) for d in THREE},
            "table6",
            f"lambda={lam:g}",
        )
        for lam in LAMBDAS
    ),
    (F1_NOTE, ONE_RUN, "The paper has n/a for Food-101 at 10 and 20: these are not run."),
    first="lambda",
)

TABLE_7 = methods_table(
    "table7",
    "Sarcasm and Twitter2015, test part.",
    ("sarcasm", "twitter2015"),
    ("Joint", "AMCo", "MCR", "Midas"),
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
