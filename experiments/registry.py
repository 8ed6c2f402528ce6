"""Which runs make which table or figure: the experiments as data.

    Runs      a data set, a method and the settings that are not the defaults; a seed makes it a run
    Table     rows (label, runs) x columns (header, key of result.json), on the test part
    Figure    panels of bars at the best epoch, or of curves over epochs (keys of log.jsonl)

An entry here is all that `make_tables.py` and `python -m experiments` know of an artifact, and two
artifacts that name the same runs share them. Nothing is read, drawn or trained here.
"""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import format_value, match_name
from experiments.run_folder import RunFolder, run_path, variant_name

SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Runs:
    """Runs that differ in their seed only.

    `overrides` are (flag, value) pairs and must be what `train.py` would call differing: a setting
    at its default would name another folder (a test resolves every entry of the registry).
    """

    dataset: str
    method: str
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """<dataset>/<method>/<variant>, as in the folder's path."""
        return f"{self.dataset}/{self.method}/{variant_name(dict(self.overrides))}"

    def folder(self, results: Path, seed: int) -> RunFolder:
        """The run's folder under the root of all runs."""
        return RunFolder(
            run_path(Path(results), self.dataset, self.method, dict(self.overrides), seed)
        )

    def arguments(self, seed: int) -> list[str]:
        """The flags of `train.py` that choose the run."""
        flags = ["--dataset", self.dataset, "--method", self.method, "--seed", str(seed)]
        for key, value in self.overrides:
            flags += [f"--{key}", format_value(value)]
        return flags

    def command(self, seed: int, extra: Iterable[str] = ()) -> str:
        """The plain command line of a run; `extra` are further flags, for places and devices."""
        return shlex.join(["python", "train.py", *self.arguments(seed), *extra])


@dataclass(frozen=True)
class Column:
    """A table's column: a key of result.json."""

    header: str
    key: str
    percent: bool = True
    digits: int = 1


@dataclass(frozen=True)
class Table:
    """A table; a cell is mean ± sample standard deviation over `seeds`."""

    id: str
    group: str
    caption: str
    rows: tuple[tuple[str, Runs], ...]
    columns: tuple[Column, ...]
    note: str = ""
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> list[Runs]:
        """Each set of runs that the table needs, once."""
        return list(dict.fromkeys(runs for _, runs in self.rows))


@dataclass(frozen=True)
class Value:
    """What is plotted of a run: the largest of the log's `keys`.

    `absent` stands for epochs without them; None leaves those epochs out.
    """

    runs: Runs
    keys: tuple[str, ...]
    absent: float | None = None


@dataclass(frozen=True)
class Series:
    """A curve (one value), or bars of one look (one value for each of the panel's groups).

    `look` chooses colour, dash and hatch; None: the label's place in the figure.
    """

    label: str
    values: tuple[Value, ...]
    look: int | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `groups` label the bars; `warmup` are the runs whose warm-up is marked."""

    title: str
    y_label: str
    series: tuple[Series, ...]
    groups: tuple[str, ...] = ()
    percent: bool = False
    y_low: float | None = 0.0
    warmup: Runs | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of "bars" (each run's best epoch) or "curves" (all epochs), over `seeds`."""

    id: str
    group: str
    caption: str
    kind: str
    panels: tuple[Panel, ...]
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> list[Runs]:
        """Each set of runs that the figure needs, once."""
        found = [v.runs for panel in self.panels for series in panel.series for v in series.values]
        return list(dict.fromkeys(found + [p.warmup for p in self.panels if p.warmup]))


Artifact = Table | Figure


# The demo set ------------------------------------------------------------------------------------

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

ARTIFACTS: list[Artifact] = [*DEMO, DEMO_ALONE]


def find(name: str) -> list[Artifact]:
    """The artifacts of that id or group, a group's name standing for all of it.

    Raises `UsageError` for an unknown name, with the closest one.
    """
    names = dict.fromkeys([a.group for a in ARTIFACTS] + [a.id for a in ARTIFACTS])
    match = match_name("table or figure", name, names)
    return [artifact for artifact in ARTIFACTS if match in (artifact.id, artifact.group)]


def select(names: Iterable[str]) -> list[Artifact]:
    """The artifacts of several names, in the registry's order; all of them for no name."""
    chosen = {artifact.id for name in names for artifact in find(name)}
    return [a for a in ARTIFACTS if a.id in chosen or not chosen]


def needed(
    artifacts: Iterable[Artifact], seeds: Iterable[int] | None = None
) -> Iterator[tuple[Runs, int]]:
    """Each (runs, seed) that the artifacts need, once; `seeds` replaces their own."""
    given = None if seeds is None else tuple(seeds)
    pairs = (
        (r, s) for a in artifacts for r in a.runs() for s in (a.seeds if given is None else given)
    )
    return iter(dict.fromkeys(pairs))
