"""Shapes that several tables and figures share: the same rows and curves of other runs."""

from collections.abc import Mapping, Sequence

from experiments.paper.kinds import Cell, Column, Panel, Row, RunSet, Series, Value

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
LABELS = {"PowMix": "PowMix(R)", "GMM": "GMM (our formulation)"}


def score_columns(blocks: Mapping[str, str]) -> tuple[Column, ...]:
    """Accuracy and both F1 for each data set; `blocks` maps its name to its heading."""
    return tuple(
        Column(header, block) for block in blocks.values() for header, _ in SCORES.values()
    )


def score_row(
    label: str,
    runs: Mapping[str, RunSet | None],
    paper: str = "",
    variant: str = "",
    ours: bool = False,
) -> Row:
    """The scores of one method on several data sets.

    `paper` is the table of paper_results.csv that has these numbers, "" for none; `variant` is its
    name of the row.
    """
    cells: list[Cell | None] = []
    for dataset, one in runs.items():
        for key, (_, metric) in SCORES.items():
            place = (
                (paper, dataset, one.method, variant, metric) if one and paper and metric else None
            )
            cells.append(Cell(one, key, place) if one else None)
    return Row(label, tuple(cells), ours)


def bars(methods: Mapping[str, RunSet], *keys: str) -> tuple[Series, ...]:
    """For each method its bars, one for each key."""
    return tuple(
        Series(label, tuple(Value(runs, (key,)) for key in keys)) for label, runs in methods.items()
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
    """Mean probability of each modality's own label on misaligned validation pairs, by epoch."""
    return Panel(
        title,
        "confidence",
        curves("Joint", joint, "val/conf_raw", letters)
        + curves("Midas", midas, "val/conf_raw", letters),
        warmup=midas,
    )


def share_curves(title: str, midas: RunSet, letters: Mapping[str, str]) -> Panel:
    """c of Eq. 2 (Uni) and r of Eq. 5 (Multi) on misaligned training pairs, by epoch."""
    both = curves("Uni", midas, "train/conf_uni", letters, shade=1)
    both += curves("Multi", midas, "train/conf_fused", letters)
    return Panel(title, "normalised confidence", both, warmup=midas)


def alpha_curve(label: str, midas: RunSet, modalities: Sequence[str], place: int = 0) -> Series:
    """The largest of the modalities' weights at the end of each epoch."""
    return Series(label, (Value(midas, tuple(f"alpha/{m}" for m in modalities)),), place, place)


def accuracy_bars(title: str, methods: Mapping[str, RunSet]) -> Panel:
    """Accuracy on aligned and on misaligned samples, validation part."""
    return Panel(
        title,
        "accuracy (%)",
        bars(methods, "val/acc", "val/acc_mis"),
        groups=("aligned", "misaligned"),
        percent=True,
    )


def confidence_bars(title: str, methods: Mapping[str, RunSet], modalities: Sequence[str]) -> Panel:
    """Mean probability of each modality's own label on misaligned pairs, validation part."""
    keys = [f"val/conf_raw/{m}" for m in modalities]
    return Panel(title, "confidence", bars(methods, *keys), groups=tuple(modalities))
