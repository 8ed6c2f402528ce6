"""The demo set's tables and figures, as data."""

from experiments.artifacts import Column, Figure, Panel, Runs, Series, Table, Value

JOINT = Runs("demo", "Joint")
JOINT_UNI = Runs("demo", "JointUni")
MIDAS = Runs("demo", "Midas")
MIDAS_UNWEIGHTED = Runs("demo", "Midas", (("weak_modality", False),))

TWO = {"Joint": JOINT, "Midas": MIDAS}
THREE = {"Joint": JOINT, "JointUni": JOINT_UNI, "Midas": MIDAS}
LOOKS = ("Joint", "Midas", "JointUni")  # a method looks the same in every figure of bars
MODALITIES = ("audio", "video")
PAIRS = "misaligned pairs of the validation part"
TOP_TWO = "share whose two labels are the two likeliest"


def bars(methods: dict[str, Runs], *keys: str) -> tuple[Series, ...]:
    """For each method bars of one look, one for each key."""
    return tuple(
        Series(label, tuple(Value(runs, (key,)) for key in keys), LOOKS.index(label))
        for label, runs in methods.items()
    )


def curves(runs: Runs, keys: dict[str, str]) -> tuple[Series, ...]:
    """For each label and key a curve for each modality, marked by its first letter."""
    return tuple(
        Series(f"{label}-{m[0].upper()}", (Value(runs, (f"{key}/{m}",)),))
        for label, key in keys.items()
        for m in MODALITIES
    )


DEMO_TABLE = Table(
    "demo",
    "demo",
    "The demo set, test part, in the form of the paper's Table 1. Accuracy; F1 as the paper seems"
    " to have it (mean over batches of 64) and over the whole part; of misaligned pairs, the"
    f" {TOP_TWO}; accuracy with one modality alone, the other's features zero.",
    rows=tuple(THREE.items()),
    columns=(
        Column("accuracy %", "test/acc"),
        Column("F1, batches %", "test/f1_batch64"),
        Column("F1 %", "test/f1_macro"),
        Column("misaligned %", "test/acc_mis"),
        Column("audio alone %", "test/acc_zero/audio"),
        Column("video alone %", "test/acc_zero/video"),
    ),
    note="The demo set illustrates; it is no evidence for the method. JointUni is Joint plus the"
    " unimodal losses that MIDAS has too: it is not in the paper, and shows what they do alone.",
)

ACCURACIES = Panel(
    "(a) aligned and misaligned accuracy",
    "accuracy (%)",
    bars(TWO, "val/acc", "val/acc_mis"),
    groups=("aligned", "misaligned"),
    percent=True,
)
KEYS = tuple(f"val/conf_raw/{m}" for m in MODALITIES)
CONFIDENCES = Panel(
    "(b) confidence on misaligned pairs", "confidence", bars(TWO, *KEYS), groups=MODALITIES
)
SHARES = {"Uni": "train/conf_uni", "Multi": "train/conf_fused"}  # c of Eq. 2 and r of Eq. 5
UNWEIGHTED = Panel(
    "(a) without weak-modality weighting",
    "normalised confidence",
    curves(MIDAS_UNWEIGHTED, SHARES),
    warmup=MIDAS_UNWEIGHTED,
)
WEIGHTED = Panel("(b) Midas", "normalised confidence", curves(MIDAS, SHARES), warmup=MIDAS)
ALPHA = Panel(
    "weight of the weak modality",
    "alpha",
    (
        Series(
            "Midas",
            (Value(MIDAS, tuple(f"alpha_mean/{m}" for m in MODALITIES), absent=1.0),),
            LOOKS.index("Midas"),
        ),
    ),
    y_low=None,
    warmup=MIDAS,
)
CURVES = Panel(
    "confidence on misaligned pairs",
    "confidence",
    curves(JOINT, {"Joint": "val/conf_raw"}) + curves(MIDAS, {"Midas": "val/conf_raw"}),
    warmup=MIDAS,
)
MISALIGNED = Panel(
    "misaligned accuracy", "accuracy (%)", bars(THREE, "val/acc_mis"), ("demo",), percent=True
)


def demo_figure(number: int, caption: str, kind: str, *panels: Panel) -> Figure:
    """The demo set's counterpart of one of the paper's figures."""
    text = f"The demo set's counterpart of the paper's Figure {number}: {caption}"
    return Figure(f"demo-figure{number}", "demo", text, kind, panels)


DEMO = (
    DEMO_TABLE,
    demo_figure(
        1,
        "validation part, best epoch. (a) Accuracy, and of misaligned pairs the "
        f"{TOP_TWO}. (b) Mean probability of each modality's own label on misaligned pairs.",
        "bars",
        ACCURACIES,
        CONFIDENCES,
    ),
    demo_figure(
        3,
        "training part, misaligned samples, epoch means. Share of each modality's own label in the"
        " unimodal heads (Uni) and in the fused output (Multi); A audio, V video.",
        "curves",
        UNWEIGHTED,
        WEIGHTED,
    ),
    demo_figure(
        4,
        "training part, epoch means. The weight alpha of the weak modality, 1 during the warm-up.",
        "curves",
        ALPHA,
    ),
    demo_figure(
        5,
        f"{PAIRS}. Mean probability of each modality's own label; A audio, V video.",
        "curves",
        CURVES,
    ),
    demo_figure(
        6, f"{PAIRS}, best epoch. Of these, the {TOP_TWO}; JointUni is ours.", "bars", MISALIGNED
    ),
)

ALONE = {m: Runs("demo", "Unimodal", (("modality", m),)) for m in MODALITIES}
DEMO_ALONE = Table(
    "demo-alone",
    "demo-alone",
    "The demo set, test part: each modality trained alone, with the same encoder and recipe.",
    rows=tuple((f"{m} alone", runs) for m, runs in ALONE.items()),
    columns=(Column("accuracy %", "test/acc"), Column("F1 %", "test/f1_macro")),
)

# Every method -------------------------------------------------------------------------------------

BASELINES = ("SMV", "OPM", "OGM", "AMCo", "LFM", "MCR", "Mixup", "PowMix", "LeMDA", "ARL", "GMM")
LABELS = {"PowMix": "PowMix(R)", "GMM": "GMM (our formulation)"}
DEMO_METHODS = Table(
    "demo-methods",
    "demo-methods",
    "The demo set, test part: every method with its defaults, under one recipe. Columns as in the"
    " demo table.",
    rows=(
        ("Joint", JOINT),
        ("JointUni", JOINT_UNI),
        *((LABELS.get(name, name), Runs("demo", name)) for name in BASELINES),
        ("Midas", MIDAS),
    ),
    columns=DEMO_TABLE.columns,
    note="The demo set illustrates; it is no evidence for or against a method. PowMix is a"
    " reconstruction from its abstract, GMM our own formulation of what its paper's abstract says;"
    " AMCo follows public code, since its paper could not be read in full.",
)

ARTIFACTS = (*DEMO, DEMO_ALONE, DEMO_METHODS)
