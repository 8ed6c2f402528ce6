"""The tables and figures of AV-MNIST: real recordings that anybody can download in a minute."""

from dataclasses import replace

from experiments.paper.figures import OWN_LABELS, curve_panel
from experiments.paper.kinds import Cell, Column, Figure, RunSet, Table
from experiments.paper.rows import AFTER_NOTE, ALL_METHODS, MARKED, TOP_TWO, plain_table

NEW_SPEAKERS = (("split_rule", "group"),)
COLUMNS = {
    "accuracy %": "test/acc",
    "F1 %": "test/f1_macro",
    "misaligned %": "test/acc_mis",
    "audio alone %": "test/acc_zero/audio",
    "image alone %": "test/acc_zero/image",
}
COLUMNS_OF_BOTH = {"test/acc_mis", "test/acc_zero/audio", "test/acc_zero/image"}
NOTES = (
    "Each seed has its own split, so ± includes the variation between test sets. The last two"
    " columns are differences in accuracy on the same split: to Joint, and to the image alone. All"
    " methods have their defaults and one recipe; nothing was tuned.",
    AFTER_NOTE,
)


def methods_table(name: str, caption: str, split: tuple[tuple[str, str], ...]) -> Table:
    """Both modalities trained alone, then all methods, with one split rule."""
    alone = {
        f"{m} alone": RunSet("avmnist", "Unimodal", (("modality", m), *split))
        for m in ("audio", "image")
    }
    runs = alone | {MARKED.get(m, m): RunSet("avmnist", m, split) for m in ALL_METHODS}
    about = f"Accuracy; macro-F1; {TOP_TWO} on misaligned pairs; accuracy with one modality alone,"
    text = f"AV-MNIST, test split, {caption}. {about} the features of the other set to zero."
    table = plain_table(name, text, runs, COLUMNS, *NOTES)
    # With a split for each seed, differences within a seed say more than two means.
    rivals = {"minus Joint": runs["Joint"], "minus image": runs["image alone"]}
    rows = []
    for row in table.rows:
        own = [None if isinstance(cell, Cell) and lacks(cell) else cell for cell in row.cells]
        apart = [minus(runs[row.label], rival) for rival in rivals.values()]
        rows.append(replace(row, cells=(*own, *apart)))
    columns = (*table.columns, *(Column(header, digits=1) for header in rivals))
    return replace(table, columns=columns, rows=tuple(rows))


def lacks(cell: Cell) -> bool:
    """Whether runs of a single modality have no such number."""
    alone = dict(cell.runs.overrides).get("modality")
    return bool(alone) and cell.key in COLUMNS_OF_BOTH - {f"test/acc_zero/{alone}"}


def minus(runs: RunSet, rival: RunSet) -> Cell | None:
    """Accuracy minus that of the rival, seed by seed; None for the rival itself."""
    return None if runs == rival else Cell(runs, "test/acc", minus=rival)


PANELS = {"(a) random split": (), "(b) new speakers": NEW_SPEAKERS}
ARTIFACTS = (
    methods_table("avmnist-random", "70/10/20 at random", ()),
    methods_table(
        "avmnist-speakers", "no speaker in two of training, validation and test", NEW_SPEAKERS
    ),
    Figure(
        "avmnist-figure5",
        f"AV-MNIST counterpart of the paper's Figure 5: {OWN_LABELS}; A audio, I image.",
        "curves",
        tuple(
            curve_panel(
                title,
                "confidence",
                *(
                    (m, RunSet("avmnist", m, split), "val/conf_raw", 0)
                    for m in ("Joint", "JointUni", "Midas")
                ),
            )
            for title, split in PANELS.items()
        ),
    ),
)
