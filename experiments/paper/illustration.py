"""The tables and figures of the demo dataset."""

from collections.abc import Mapping

from experiments.paper import figures
from experiments.paper.kinds import Figure, Panel, RunSet, Table
from experiments.paper.rows import AFTER_NOTE, ALL_METHODS, MARKED, TAKEN_BACK, TOP_TWO, plain_table

JOINT, JOINT_UNI, MIDAS = THREE = [RunSet("demo", m) for m in ("Joint", "JointUni", "Midas")]
COLUMNS = {
    "accuracy %": "test/acc",
    "F1, batches %": "test/f1_batch64",
    "F1 %": "test/f1_macro",
    "misaligned %": "test/acc_mis",
    "audio alone %": "test/acc_zero/audio",
    "video alone %": "test/acc_zero/video",
}
# The four switches of the authors' release, which does not include the demo dataset.
RELEASE = {
    "alpha_rule": "ratio",
    "lr_from": "main",
    "pairing": "permutation",
    "uni_reduce": "mean",
}


def demo_table(
    name: str,
    caption: str,
    runs: Mapping[str, RunSet],
    *notes: str,
    keys: Mapping[str, str] = COLUMNS,
    lower: bool | None = False,
    first: str = "method",
) -> Table:
    """A table with a row per entry of `runs` and a column per key."""
    text = f"Demo dataset, test split{caption}"
    return plain_table(name, text, runs, keys, *notes, lower=lower, first=first)


def demo_figure(number: int, caption: str, kind: str, *panels: Panel) -> Figure:
    """The demo counterpart of one of the paper's figures."""
    text = f"Demo counterpart of the paper's Figure {number}: {caption}"
    return Figure(f"demo-figure{number}", text, kind, panels)


def switched(*back: str) -> RunSet:
    """MIDAS with the release's switches except those in `back`."""
    return RunSet("demo", "Midas", tuple(item for item in RELEASE.items() if item[0] not in back))


DEMO_TABLE = demo_table(
    "demo-table",
    ", in the form of the paper's Table 1. Accuracy; F1 as in the authors' release (mean over"
    f" batches of 64) and over the complete split; {TOP_TWO} on misaligned pairs; accuracy with one"
    " modality alone, the features of the other set to zero.",
    {runs.method: runs for runs in THREE},
    "The demo dataset is an illustration, not evidence for the method. JointUni is Joint plus the"
    " unimodal losses of MIDAS; it is not in the paper and shows the effect of these losses alone.",
)
ALL_THREE = figures.bars({runs.method: runs for runs in THREE}, "val/acc_mis")
CURVES = figures.confidence_panels({"confidence on misaligned pairs": "demo"})
ABOUT_6 = f"{figures.PAIRS}, best epoch: {TOP_TWO}. JointUni is ours."
SHORT = (
    DEMO_TABLE,
    demo_figure(1, figures.BARS, "bars", *figures.bar_panels("demo")),
    demo_figure(3, figures.SHARES, "curves", *figures.share_panels("demo")),
    demo_figure(4, figures.WEIGHTS, "curves", figures.weight_panel({"demo": "Midas"})),
    demo_figure(5, f"{figures.CONFIDENCES}.", "curves", *CURVES),
    demo_figure(6, ABOUT_6, "bars", figures.misaligned_panel(ALL_THREE, "demo")),
)
ALONE = {
    f"{m} alone": RunSet("demo", "Unimodal", (("modality", m),)) for m in figures.LETTERS["demo"]
}
DEMO_RECIPE = demo_table(
    "demo-recipe",
    ": MIDAS as in the paper, with the four switches of the authors' release"
    " (uni_reduce=mean, pairing=permutation, alpha_rule=ratio, lr_from=main), and with one of"
    " them reverted at a time. Columns as in the demo table.",
    {"the paper (defaults)": MIDAS, "the release's switches": switched()}
    | {f"the release's, but {name}": switched(key) for name, (key, _) in TAKEN_BACK.items()},
    "The demo dataset is an illustration, not evidence for or against a recipe. The release does"
    " not have it, so its switches are set one by one instead of with --recipe official; data,"
    " split and evaluation are the same in all rows.",
    lower=None,
    first="recipe",
)
DEMO_METHODS = demo_table(
    "demo-methods",
    ": all methods with their defaults and one recipe. Columns as in the demo table.",
    {MARKED.get(m, m): RunSet("demo", m) for m in ALL_METHODS},
    "The demo dataset is an illustration, not evidence for or against a method.",
    AFTER_NOTE,
)
ARTIFACTS = (
    *SHORT,
    demo_table(
        "demo-alone",
        ": each modality trained alone, with the same encoder and recipe.",
        ALONE,
        keys={"accuracy %": "test/acc", "F1 %": "test/f1_macro"},
    ),
    DEMO_METHODS,
    DEMO_RECIPE,
)
