"""Names, notes and rows shared by several tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.run.settings import METHOD_DEFAULTS

NAMES = {
    "kinetics": "Kinetics-Sounds",
    "cremad": "CREMA-D",
    "ucf101": "UCF-101",
    "food101": "Food-101",
    "mosi": "CMU-MOSI",
    "sarcasm": "Sarcasm",
    "twitter2015": "Twitter2015",
}
FOUR = ("kinetics", "cremad", "ucf101", "food101")
THREE = ("kinetics", "cremad", "food101")
TOP_TWO = "share whose two labels are the top-2 predictions"
F1_NOTE = (
    "F1 is the mean of macro-F1 over batches of 64, weighted by batch size, as in the authors'"
    " released test code. Batches come from a fixed shuffle (with --split_rule release, from the"
    " order of the split). 'F1, whole' is macro-F1 over the complete split, the standard metric; it"
    " is not compared with the paper."
)
LR_NOTE = (
    "MIDAS's learning rate decays after epoch 60 on Kinetics-Sounds, CREMA-D and UCF-101, because"
    " the authors' release counts from the end of the warm-up; for other methods it decays after"
    " epoch 50. extra-controls has Joint with the later decay."
)
ONE_RUN = "The paper prints no ± here, so no test is possible; our numbers are over three seeds."
DOUBTS = "docs/paper-notes.md lists contradictions between the paper's numbers in this table."
# key of result.json -> (the column's header, the paper's name of the metric)
SCORES = {
    "test/acc": ("Acc", "acc"),
    "test/f1_batch64": ("F1", "f1"),
    "test/f1_macro": ("F1, whole", ""),
}
# All methods except Unimodal, in table order.
METHODS = (
    "Joint", "JointUni", "SMV", "OPM", "OGM", "AMCo", "LFM", "MCR", "Mixup", "PowMix", "LeMDA",
    "ARL", "GMM", "Midas",
)  # fmt: skip
ALL_METHODS = (
    *METHODS[:-1], "GBlending", "MMCosine", "PMR", "MBSD", "AGM", "UMT", "CML", "MLA", "MMPareto",
    "ReconBoost", "MLB", "ReLearning", "InfoReg", "Remix", "DGL", "IPRM", "MNL", "AUG", "Midas",
)  # fmt: skip
# Methods whose equations we could not read in the paper, and what they follow instead.
AFTER_THEIR_CODE = (
    "SMV", "OPM", "OGM", "LFM", "LeMDA", "ARL", "MMCosine", "PMR", "AGM", "CML", "MLA", "MMPareto",
    "ReconBoost", "MLB", "ReLearning", "InfoReg", "Remix", "DGL", "IPRM", "MNL", "AUG",
)  # fmt: skip
AFTER_OTHERS_CODE = ("AMCo", "GBlending", "UMT", "MBSD")
AFTER_NOTE = (
    "†: the paper's equations could not be read; the method follows its authors' code. ‡: it"
    " follows other people's code. PowMix(R) is a reconstruction from its abstract, GMM our"
    " formulation of its paper's abstract: their rows say nothing about those papers."
)
OURS = ("JointUni", "OGM", "ARL", "GMM")  # methods that are not in the paper
# The release's switches, reverted one at a time: name -> (switch, other value). The value is the
# paper's, except for lr_from, which the paper does not mention.
TAKEN_BACK = {
    "the sum of the unimodal losses": ("uni_reduce", "sum"),
    "partners of another class": ("pairing", "uniform"),
    "alpha by shares": ("alpha_rule", "share"),
    "decay counted from the start": ("lr_from", "start"),
}
NO_PAPER_READ = {"PowMix": "PowMix(R)", "GMM": "GMM (our formulation)"}
MARKED = (
    {m: f"{m} †" for m in AFTER_THEIR_CODE}
    | {m: f"{m} ‡" for m in AFTER_OTHERS_CODE}
    | NO_PAPER_READ
)
LABELS = NO_PAPER_READ | {"Joint": "Joint training", "Midas": "MIDAS"}
# Defaults of MIDAS unless METHOD_DEFAULTS overrides them.
MIDAS = {"lam": 1.0, "level": "feature", "similarity": "cosine", "warmup_epochs": 10}


def midas(dataset: str, **changed: Any) -> RunSet:
    """MIDAS with these settings, dropping those that are its defaults on the dataset."""
    defaults = MIDAS | METHOD_DEFAULTS.get((dataset, "Midas"), {})
    kept = {key: value for key, value in changed.items() if value != defaults.get(key)}
    return RunSet(dataset, "Midas", tuple(sorted(kept.items())))


@dataclass(frozen=True)
class Scores:
    """A row; `runs` maps a column's key (a dataset) to its runs, or None for an empty cell.

    `variant` is the row's name in the paper's numbers; `ours` marks a row not in the paper.
    """

    label: str
    runs: Callable[[Any], RunSet | None]
    variant: str = ""
    ours: bool = False


def method_scores(*methods: str, runs: Callable[..., RunSet] = RunSet) -> list[Scores]:
    """One row per method."""
    return [Scores(LABELS.get(m, m), partial(runs, method=m), ours=m in OURS) for m in methods]


def grid(
    name: str,
    caption: str,
    columns: Mapping[Column, tuple[Any, str, str]],
    rows: Iterable[Scores],
    *notes: str,
    first: str = "method",
) -> Table:
    """A table from rows and columns.

    `columns` maps each column to the argument of `Scores.runs`, the key of result.json, and the
    paper's name of the metric ("" if the paper has no such number).
    """
    made = []
    for row in rows:
        cells: list[Cell | None] = []
        for choice, key, metric in columns.values():
            if runs := row.runs(choice):
                place = (name.replace("-", "_"), runs.dataset, runs.method, row.variant, metric)
                cells.append(Cell(runs, key, place if metric else None))
            else:
                cells.append(None)
        made.append(Row(row.label, tuple(cells), row.ours))
    return Table(name, caption, tuple(columns), tuple(made), notes, first)


def plain_table(
    name: str,
    caption: str,
    runs: Mapping[str, RunSet],
    keys: Mapping[str, str],
    *notes: str,
    lower: bool | None = False,
    first: str = "method",
) -> Table:
    """A table that is not in the paper: a row per entry of `runs`, one decimal per key."""
    columns = tuple(Column(header, digits=1, lower=lower) for header in keys)
    rows = tuple(
        Row(label, tuple(Cell(one, key) for key in keys.values()), one.method in OURS)
        for label, one in runs.items()
    )
    return Table(name, caption, columns, rows, notes, first)


def score_table(
    name: str,
    caption: str,
    datasets: Sequence[str],
    rows: Iterable[Scores],
    *notes: str,
    first: str = "method",
    repeats: bool = True,
) -> Table:
    """Accuracy and both F1 scores for each dataset; `repeats`: the paper has these numbers."""
    columns = {
        Column(header, NAMES.get(d, d)): (d, key, metric if repeats else "")
        for d in datasets
        for key, (header, metric) in SCORES.items()
    }
    return grid(name, caption, columns, rows, F1_NOTE, *notes, first=first)
