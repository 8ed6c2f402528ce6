"""Provenance of the numbers: what their runs have in common, and what differs."""

from collections.abc import Iterable, Sequence
from typing import Any

from common.options import format_value
from experiments.report.reader import Finished
from experiments.run.settings import DATASET_DEFAULTS

PLUS_MINUS = "± is the sample standard deviation (n - 1) over the n seeds in parentheses."
# whether the seeds of a cell have different splits -> what its ± includes
INCLUDED = {
    (True,): "the variation between test sets as well as between trainings (one split per seed)",
    (False,): "only the variation between trainings (one split for all seeds)",
    (False, True): "the variation between test sets only in columns with one split per seed",
}
SELECTION = (
    "The epoch of each run is selected by validation accuracy only (ties: the first); the complete"
    " test split is evaluated once, at the end."
)
HASH_DIGITS = 12  # shown digits of a hash; env.json has all of them
NO_MACHINE = ("commit", "spec_hash", "hashes", "raw")  # keys of env.json reported separately
Split = tuple[Any, ...]


def provenance(runs: Sequence[Finished]) -> list[str]:
    """Sentences on what ± includes, what the runs have in common, and how they differ."""
    if not runs:
        return ["No finished run yet."]
    starts = [start for run in runs for start in run.starts]
    commits = sorted({str(start.get("commit", "unknown")) for start in starts})
    machines = [{k: v for k, v in start.items() if k not in NO_MACHINE} for start in starts]
    settings = [shared_settings(run) | {run.runs.name: run.config["hparams"]} for run in runs]
    found = [
        plus_minus(runs),
        *(hashes_of(dataset, own) for dataset, own in by_dataset(runs).items()),
        f"Commit: {', '.join(commits)}.",
        one_or_mixed("Environments", machines),
        one_or_mixed("Settings", settings),
    ]
    return [sentence for sentence in found if sentence]


def by_dataset(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """The runs of each dataset."""
    datasets = dict.fromkeys(run.runs.dataset for run in runs)
    return {d: [run for run in runs if run.runs.dataset == d] for d in datasets}


def split_of(run: Finished) -> Split:
    """What determines a run's split; official splits have no seed."""
    rule, *drawn = map(run.config["settings"].get, ("split_rule", "split_seed", "stratify"))
    return (rule,) if str(rule).startswith("official") else (rule, *drawn)


def plus_minus(runs: Sequence[Finished]) -> str:
    """What ± includes, for each dataset with several seeds in a cell, or ""."""
    datasets: dict[str, list[str]] = {}
    for dataset, own in by_dataset(runs).items():
        splits: dict[object, list[Split]] = {}
        for run in own:
            splits.setdefault(run.runs, []).append(split_of(run))
        kinds = {len(set(one)) > 1 for one in splits.values() if len(one) > 1}
        if kinds:
            datasets.setdefault(INCLUDED[tuple(sorted(kinds))], []).append(dataset)
    parts = [f"± for {', '.join(names)} includes {what}" for what, names in datasets.items()]
    return f"{'; '.join(parts)}." if parts else ""


def hashes_of(dataset: str, runs: Sequence[Finished]) -> str:
    """The hashes of a dataset's runs; hashes that vary with the split are only counted."""
    seen: set[tuple[str, Split, str]] = set()  # name, group of runs, hash
    for run, hashes in [(one, hashes_in(start)) for one in runs for start in one.starts]:
        # Regardless of the split, the preparation should be the same, and so should its samples.
        common = {"spec": (), "data": (hashes["spec"],)}
        seen |= {(name, common.get(name, split_of(run)), value) for name, value in hashes.items()}
    parts: list[str] = []
    each: dict[str, int] = {}  # name of a hash that is different for each split -> number of splits
    for name in sorted({name for name, _, _ in seen}):
        groups = [group for other, group, _ in seen if other == name]
        values = sorted({value for other, _, value in seen if other == name})
        mixed = len(groups) > len(set(groups))
        if len(values) > 1 and not mixed and name != "data":
            each[name] = len(groups)
        else:
            warning = " (MIXED: not all runs saw the same samples)" * (mixed and name == "data")
            parts.append(f"{name} {' and '.join(values)}{warning}")
    count = next(iter(each.values()), 0)
    varied = f"; different for each of {count} splits: {', '.join(each)}" if each else ""
    return f"Hashes of {dataset}: {', '.join(parts)}{varied}."


def hashes_in(start: dict[str, Any]) -> dict[str, str]:
    """The shortened hashes of one start of a run, by name."""
    named, spec = start.get("hashes"), {"spec": start.get("spec_hash", "unknown")}
    all_of_them = spec | named if isinstance(named, dict) else spec
    return {name: str(value)[:HASH_DIGITS] for name, value in all_of_them.items()}


def shared_settings(run: Finished) -> dict[str, Any]:
    """Settings and preparation that should be the same in all runs on a dataset."""
    dataset, varied = run.runs.dataset, dict(run.runs.overrides)
    settings = run.config["settings"] | run.config["prep"]
    split_follows_seed = DATASET_DEFAULTS.get(dataset, {}).get("split_seed", 0) is None
    if split_follows_seed and settings.get("split_seed") == run.seed:
        settings["split_seed"] = "the run's seed"
    return {f"{dataset}.{key}": value for key, value in settings.items() if key not in varied}


def one_or_mixed(what: str, several: Iterable[dict[str, Any]]) -> str:
    """`Environments: one.`, or `mixed` with the values of each key that differs."""
    found: dict[str, set[str]] = {}
    for one in several:
        for key, value in leaves(one).items():
            found.setdefault(key, set()).add(format_value(value))
    mixed = [f"{k}: {', '.join(sorted(v))}" for k, v in sorted(found.items()) if len(v) > 1]
    return f"{what}: mixed ({'; '.join(mixed)})." if mixed else f"{what}: one."


def leaves(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of each leaf."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        is_dict = isinstance(inner, dict)
        found |= leaves(inner, f"{prefix}{key}.") if is_dict else {prefix + key: inner}
    return found
