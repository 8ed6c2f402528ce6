"""Tables and figures of any finished runs, such as those on your own data.

    python make_tables.py results/runs/pets-1a2b3c4d

For each dataset: scores over seeds, a comparison of all rows with Joint (or the first row), F1 per
class, and validation accuracy by epoch. A row is a method with its settings.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common.files import read_object
from common.options import UsageError, format_value
from experiments.paper.kinds import (
    SEEDS,
    Artifact,
    Cell,
    Column,
    Figure,
    Panel,
    Row,
    RunSet,
    Series,
    Table,
    Value,
)  # fmt: skip
from experiments.report.reader import Finished, Reader
from experiments.report.statistics import holm, summarise, welch
from experiments.run.folder import RunFolder

SCORES = {"test/acc": "accuracy %", "test/f1_macro": "F1 %", "test/acc_mis": "misaligned %"}
TUNED = "extra-tuned"
TUNED_ABOUT = (
    "Tuned methods on {}, test split: the settings of the trial with the best validation accuracy."
    " Trials have another seed. The comparison is fair if the numbers of trials are equal."
)
PER_CLASS = "test/f1_per_class/"
MOST_CURVES = 8  # that can be told apart
TESTS = (
    "Difference of accuracy to the row {reference}, in points, with Welch's 95 % interval. p is"
    " Holm-corrected over the table. With a different split for each seed the test also counts the"
    " variation between test sets; with few seeds only large differences can be detected."
)


def results_of(folders: Sequence[Path]) -> Path:
    """The results folder that all `folders` belong to: what is above runs/."""
    above = set()
    for folder in folders:
        parts = folder.resolve().parts
        if "runs" not in parts:
            raise UsageError(f"{folder} is not inside the folder runs of a results folder")
        above.add(Path(*parts[: len(parts) - 1 - parts[::-1].index("runs")]))
    if len(above) > 1:
        raise UsageError(f"{folders[0]} and the others are of different results folders")
    return above.pop()


def runs_below(folders: Sequence[Path]) -> dict[RunSet, list[int]]:
    """The finished runs below some folders: each method with its settings, and its seeds."""
    found: dict[RunSet, list[int]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("config.json")):
            run = RunFolder(path.parent)
            if run.state != "done":
                continue
            config = run.read_json("config.json")
            differing = tuple(sorted(config["differing"].items()))
            source = config["manifest"]
            runs = RunSet(config["dataset"], config["method"], differing, source)
            if config["seed"] not in found.setdefault(runs, []):
                found[runs].append(config["seed"])
    if not found:
        raise UsageError(f"no finished run below {', '.join(map(str, folders))}")
    # Joint first; of one method, the runs with fewest settings.
    order = sorted(
        found, key=lambda r: (r.dataset, r.method != "Joint", r.method, len(r.overrides), r.name)
    )
    return {runs: sorted(found[runs]) for runs in order}


def own_artifacts(folders: Sequence[Path], reader: Reader) -> list[Artifact]:
    """The tables and the figure of each dataset."""
    found = runs_below(folders)
    made: list[Artifact] = []
    for dataset in dict.fromkeys(runs.dataset for runs in found):
        own = {runs: seeds for runs, seeds in found.items() if runs.dataset == dataset}
        shared = set.intersection(*(set(runs.overrides) for runs in own))
        rows = {label_of(runs, shared): (runs, seeds) for runs, seeds in own.items()}
        made += tables_of(dataset, rows, settings_in(sorted(shared)), reader)
    return made


def label_of(runs: RunSet, shared: set[tuple[str, Any]]) -> str:
    """The method, and its settings that not all rows share."""
    return ", ".join([runs.method, *settings_in(s for s in runs.overrides if s not in shared)])


def settings_in(overrides: Iterable[tuple[str, Any]]) -> list[str]:
    """Settings as words."""
    return [f"{key} {format_value(value)}" for key, value in overrides]


def tables_of(
    dataset: str, rows: dict[str, tuple[RunSet, list[int]]], shared: list[str], reader: Reader
) -> list[Artifact]:
    """The artifacts of one dataset; `rows` maps a label to its runs and their seeds.

    `shared`: settings of all rows, for the captions.
    """
    seeds = tuple(sorted({seed for _, own in rows.values() for seed in own}))
    runs = {label: one for label, (one, _) in rows.items()}
    finished = [run for one in runs.values() for run in reader.finished(one, seeds)]
    if not finished:
        raise UsageError(f"the runs on {dataset} are damaged")
    keys = {key: name for key, name in SCORES.items() if any(key in r.result for r in finished)}
    alone = [m for r in finished for m in r.config["spec"]["order"]]
    keys |= {f"test/acc_zero/{m}": f"{m} alone %" for m in dict.fromkeys(alone)}
    classes = {f"{PER_CLASS}{name}": name for name in finished[0].result["label_names"]}
    how = f"Own runs on {dataset}, test split"
    about = "Alone: the features of the others are set to zero."
    if shared:
        about += f" All rows: {', '.join(shared)}."
    made: list[Artifact] = [
        scores(f"own-{dataset}", f"{how}. {about}", runs, keys, reader, seeds),
        scores(
            f"own-{dataset}-classes", f"{how}: F1 (%) of each class.", runs, classes, reader, seeds
        ),
        Figure(
            f"own-{dataset}-curves",
            f"Own runs on {dataset}: validation accuracy by epoch"
            f"{f', of the first {MOST_CURVES} rows' if len(runs) > MOST_CURVES else ''}.",
            "curves",
            (curves(dataset, runs),),
            seeds=seeds,
        ),
    ]
    if len(runs) > 1:
        made.insert(1, comparison(dataset, runs, reader, seeds))
    return made


def curves(dataset: str, runs: dict[str, RunSet]) -> Panel:
    """Validation accuracy by epoch; rows of one method differ in their dashes."""
    series: list[Series] = []
    for label, one in list(runs.items())[:MOST_CURVES]:
        same = sum(other.method == one.method for other in series)
        series.append(Series(label, (Value(one, ("val/acc",)),), same % 4, same // 4))
    return Panel(dataset, "validation accuracy (%)", tuple(series), percent=True)


def tuned_artifacts(reader: Reader) -> list[Artifact]:
    """A table for each dataset with searches by `experiments tune`: the best trial of each method.

    Raises `UsageError` if there is none.
    """
    found: dict[str, dict[str, RunSet]] = {}
    for path in sorted((reader.results / "tune").glob("*.json")):
        about = read_object(path)
        settings = tuple(sorted(about["settings"].items()))
        runs = RunSet(about["dataset"], about["method"], settings, about["source"])
        fixed = "".join(f", {key} {value}" for key, value in sorted(about["fixed"].items()))
        trials = f"{about['trials']} trial{'s' * (about['trials'] != 1)}"
        label = f"{runs.method}{fixed} ({trials})"
        found.setdefault(runs.dataset, {})[label] = runs
    if not found:
        raise UsageError("no finished search: `python -m experiments tune DATASET METHOD`")
    return [
        scores(f"{TUNED}-{dataset}", TUNED_ABOUT.format(dataset), runs, SCORES, reader, SEEDS)
        for dataset, runs in found.items()
    ]


def scores(
    name: str,
    caption: str,
    runs: dict[str, RunSet],
    keys: dict[str, str],
    reader: Reader,
    seeds: tuple[int, ...],
) -> Table:
    """A row per method and a column per key that its runs have."""

    def cell(one: RunSet, key: str) -> Cell | None:
        there = reader.finished(one, seeds)
        return Cell(one, key) if not there or any(has(r, key) for r in there) else None

    columns = tuple(Column(header, digits=1) for header in keys.values())
    rows = tuple(Row(label, tuple(cell(one, k) for k in keys)) for label, one in runs.items())
    return Table(name, caption, columns, rows, seeds=seeds)


def has(run: Finished, key: str) -> bool:
    """Whether a run's result has a number of this name."""
    return key in run.result or key.startswith(PER_CLASS)


def comparison(
    dataset: str, runs: dict[str, RunSet], reader: Reader, seeds: tuple[int, ...]
) -> Table:
    """Each row's accuracy minus that of the first, with a test."""
    reference, *others = runs
    scaled = {
        label: summarise(list(reader.values(one, seeds, "test/acc").values()))
        for label, one in runs.items()
    }
    points = {label: s.scaled(100) for label, s in scaled.items() if s}
    tests = {
        label: welch(points[label], points[reference])
        for label in others
        if label in points and reference in points
    }
    tested = [label for label, test in tests.items() if test]
    p = dict(zip(tested, holm([test.p for test in tests.values() if test])))
    rows = []
    for label in others:
        test = tests.get(label)
        shown: tuple[str, ...] = ("--", "--", "untestable: give it more seeds")
        if label in points and reference in points:
            difference = f"{points[label].mean - points[reference].mean:+.1f}"
            shown = (difference, *shown[1:])
            if test:
                verdict = "no difference found" if p[label] >= 0.05 else "differs"
                interval = f"{test.low:+.1f} to {test.high:+.1f}"
                shown = (difference, interval, f"{verdict} (p = {p[label]:.3g})")
        rows.append(Row(label, (Cell(runs[label], "test/acc"), *shown)))
    names = ("accuracy %", "difference", "95 % interval", "test")
    columns = tuple(Column(name, digits=1) for name in names)
    text = f"Own runs on {dataset}, test split: accuracy compared with {reference}."
    note = TESTS.format(reference=reference)
    return Table(f"own-{dataset}-tests", text, columns, tuple(rows), (note,), seeds=seeds)
