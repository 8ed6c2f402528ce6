"""Notes, rows and panels that several tables and figures share, for other runs each time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from experiments.paper.kinds import Cell, Column, Panel, Row, RunSet, Series, Table, Value
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
    "F1 is computed as in the authors' released test code: macro-F1 over the classes that occur in"
    " a batch of 64, averaged over the batches, weighted by their size. The batches are cut from a"
    " fixed shuffle of the part (under --split_rule release, from the order of the draw). 'F1,"
    " whole' is macro-F1 over the whole part, the sound measure; it is not compared with the paper."
)
LR_NOTE = (
    "MIDAS's learning rate falls after epoch 60 on Kinetics-Sounds, CREMA-D and UCF-101, since the"
    " authors' release counts only the epochs that follow the warm-up; the other methods' falls"
    " after epoch 50. extra-controls has Joint with the later decay."
)
ONE_RUN = "The paper prints no ± here, so nothing can be tested; ours has three seeds."
# key of result.json -> (the column's header, the paper's name of the metric)
SCORES = {
    "test/acc": ("Acc", "acc"),
    "test/f1_batch64": ("F1", "f1"),
    "test/f1_macro": ("F1, whole", ""),
}
# All methods but Unimodal, in the order in which tables have them.
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


@dataclass(frozen=True)
class Scores:
    """A row of a table of scores: the runs of each data set, None where it has none.

    `variant` is the paper's name of the row; the paper lacks a row of `ours`.
    """

    label: str
    runs: Callable[[str], RunSet | None]
    variant: str = ""
    ours: bool = False


def midas(dataset: str, **changed: object) -> RunSet:
    """MIDAS with settings that differ from its defaults on that data set."""
    defaults = METHOD_DEFAULTS.get((dataset, "Midas"), {})
    if changed.get("lam") == defaults.get("lam", 1.0):
        del changed["lam"]
    return RunSet(dataset, "Midas", tuple(sorted(changed.items())))


def method_scores(*methods: str) -> list[Scores]:
    """A row for each method with its defaults."""
    return [Scores(LABELS.get(m, m), partial(RunSet, method=m), ours=m in OURS) for m in methods]


def score_table(
    name: str,
    caption: str,
    datasets: Sequence[str],
    rows: Iterable[Scores],
    *notes: str,
    first: str = "method",
    repeats: bool = True,
) -> Table:
    """A table of accuracy and both F1 for each data set; `repeats`: the paper has these numbers."""
    columns = [Column(header, NAMES[d]) for d in datasets for header, _ in SCORES.values()]
    made = []
    for row in rows:
        cells: list[Cell | None] = []
        for dataset in datasets:
            runs = row.runs(dataset)
            for key, (_, metric) in SCORES.items():
                place = (name.replace("-", "_"), dataset, runs and runs.method, row.variant, metric)
                cells.append(runs and Cell(runs, key, place if repeats and metric else None))
        made.append(Row(row.label, tuple(cells), row.ours))
    return Table(name, caption, tuple(columns), tuple(made), (F1_NOTE, *notes), first)


def bars(methods: Mapping[str, RunSet], *keys: str) -> tuple[Series, ...]:
    """For each method its bars, one for each key."""
    return tuple(
        Series(label, tuple(Value(runs, (key,)) for key in keys)) for label, runs in methods.items()
    )


def bar_panels(methods: Mapping[str, RunSet], modalities: tuple[str, ...]) -> tuple[Panel, ...]:
    """Figure 1: accuracy on aligned and on misaligned samples, and each label's probability."""
    accuracy, confidence = (
        "(a) aligned and misaligned accuracy",
        "(b) confidence on misaligned pairs",
    )
    scores = bars(methods, "val/acc", "val/acc_mis")
    probabilities = bars(methods, *(f"val/conf_raw/{m}" for m in modalities))
    return (
        Panel(accuracy, "accuracy (%)", scores, ("aligned", "misaligned"), percent=True),
        Panel(confidence, "confidence", probabilities, modalities),
    )


def curves(
    label: str, runs: RunSet, key: str, letters: Mapping[str, str], shade: int = 0
) -> tuple[Series, ...]:
    """A curve for each modality, which `letters` abbreviates."""
    return tuple(
        Series(f"{label}-{letter}", (Value(runs, (f"{key}/{m}",)),), dash, shade)
        for dash, (m, letter) in enumerate(letters.items())
    )


def confidence_curves(
    title: str, joint: RunSet, midas: RunSet, letters: Mapping[str, str]
) -> Panel:
    """Figures 5 and 7: each label's mean probability on misaligned validation pairs, by epoch."""
    both = curves("Joint", joint, "val/conf_raw", letters)
    both += curves("Midas", midas, "val/conf_raw", letters)
    return Panel(title, "confidence", both, warmup=midas)


def share_panels(
    unweighted: RunSet, weighted: RunSet, letters: Mapping[str, str]
) -> tuple[Panel, ...]:
    """Figure 3: c of Eq. 2 (Uni) and r of Eq. 5 (Multi) on misaligned training pairs, by epoch."""
    titles = {"(a) without weak-modality weighting": unweighted, "(b) Midas": weighted}
    panels = []
    for title, midas in titles.items():
        both = curves("Uni", midas, "train/conf_uni", letters, shade=1)
        both += curves("Multi", midas, "train/conf_fused", letters)
        panels.append(Panel(title, "normalised confidence", both, warmup=midas))
    return tuple(panels)


def weight_panel(midas: Mapping[str, RunSet], modalities: Mapping[str, Iterable[str]]) -> Panel:
    """Figure 4: for each label of `midas` the largest of its modalities' weights, by epoch."""
    found = []
    for place, (label, runs) in enumerate(midas.items()):
        keys = tuple(f"alpha/{m}" for m in modalities[runs.dataset])
        found.append(Series(label, (Value(runs, keys),), place, place))
    warmup = next(iter(midas.values())) if len(midas) == 1 else None
    return Panel("weight of the weak modality", "alpha", tuple(found), y_low=None, warmup=warmup)
