"""Names, notes and rows that several tables share."""

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
TOP_TWO = "share whose two labels are the two likeliest"
F1_NOTE = (
    "F1 is the mean of macro-F1 over batches of 64, weighted by their size, as in the authors'"
    " released test code. Batches come from a fixed shuffle (under --split_rule release, from the"
    " order of the draw). 'F1, whole' is macro-F1 over the whole part, the sound measure; it is not"
    " compared with the paper."
)
LR_NOTE = (
    "MIDAS's learning rate falls after epoch 60 on Kinetics-Sounds, CREMA-D and UCF-101, since the"
    " authors' release counts from the end of the warm-up; the other methods' falls after epoch 50."
    " extra-controls has Joint with the later decay."
)
ONE_RUN = "The paper prints no ± here, so nothing can be tested; ours has three seeds."
DOUBTS = "docs/paper-notes.md says which of the paper's numbers here contradict one another."
# key of result.json -> (the column's header, the paper's name of the metric)
SCORES = {
    "test/acc": ("Acc", "acc"),
    "test/f1_batch64": ("F1", "f1"),
    "test/f1_macro": ("F1, whole", ""),
}
# All methods but Unimodal, in the order of the tables.
METHODS = (
    "Joint", "JointUni", "SMV", "OPM", "OGM", "AMCo", "LFM", "MCR", "Mixup", "PowMix", "LeMDA",
    "ARL", "GMM", "Midas",
)  # fmt: skip
OURS = ("JointUni", "OGM", "ARL", "GMM")  # methods that the paper does not have
# The release's switches, each taken back alone: name -> (switch, the other value). The value is the
# paper's, but for lr_from, of which the paper says nothing.
TAKEN_BACK = {
    "the sum of the unimodal losses": ("uni_reduce", "sum"),
    "partners of another class": ("pairing", "uniform"),
    "alpha by shares": ("alpha_rule", "share"),
    "decay counted from the start": ("lr_from", "start"),
}
NO_PAPER_READ = {"PowMix": "PowMix(R)", "GMM": "GMM (our formulation)"}
LABELS = NO_PAPER_READ | {"Joint": "Joint training", "Midas": "MIDAS"}
# Defaults of MIDAS where METHOD_DEFAULTS have no other.
MIDAS = {"lam": 1.0, "level": "feature", "similarity": "cosine", "warmup_epochs": 10}


def midas(dataset: str, **changed: Any) -> RunSet:
    """MIDAS with these settings; those that are its defaults on the dataset are dropped."""
    defaults = MIDAS | METHOD_DEFAULTS.get((dataset, "Midas"), {})
    kept = {key: value for key, value in changed.items() if value != defaults.get(key)}
    return RunSet(dataset, "Midas", tuple(sorted(kept.items())))


@dataclass(frozen=True)
class Scores:
    """A row whose runs each column chooses (by a dataset); None where there is no run.

    `variant` is the paper's name of the row; `ours` marks a row that the paper lacks.
    """

    label: str
    runs: Callable[[Any], RunSet | None]
    variant: str = ""
    ours: bool = False


def method_scores(*methods: str, runs: Callable[..., RunSet] = RunSet) -> list[Scores]:
    """A row for each method."""
    return [Scores(LABELS.get(m, m), partial(runs, method=m), ours=m in OURS) for m in methods]


def grid(
    name: str,
    caption: str,
    columns: Mapping[Column, tuple[Any, str, str]],
    rows: Iterable[Scores],
    *notes: str,
    first: str = "method",
) -> Table:
    """A table by rows and columns.

    `columns` has what each column chooses runs by, the key of result.json, and the paper's name of
    the metric ("": the paper has no such number).
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


def score_table(
    name: str,
    caption: str,
    datasets: Sequence[str],
    rows: Iterable[Scores],
    *notes: str,
    first: str = "method",
    repeats: bool = True,
) -> Table:
    """A table of accuracy and both F1 for each dataset; `repeats`: the paper has these numbers."""
    columns = {
        Column(header, NAMES[d]): (d, key, metric if repeats else "")
        for d in datasets
        for key, (header, metric) in SCORES.items()
    }
    return grid(name, caption, columns, rows, F1_NOTE, *notes, first=first)
