"""Where the numbers come from: what the runs behind them have in common, and what not."""

from collections.abc import Iterable, Iterator, Sequence

from common.options import format_value
from experiments.report.reader import Finished
from experiments.run.settings import DATASET_DEFAULTS

PLUS_MINUS = "± is the sample standard deviation (n - 1) over the n seeds in parentheses."
# whether the seeds of a cell have splits of their own -> what its ± holds
HOLDS = {
    (True,): "the spread between test parts as well as between trainings (a split a seed)",
    (False,): "the spread between trainings alone (one split for all seeds)",
    (False, True): "the spread between test parts in those columns alone where each seed has its"
    " own split",
}
SELECTION = (
    "Each run's epoch is chosen on validation accuracy alone (the first of equals); the test part"
    " is read once, at the end, whole."
)
HASH_DIGITS = 12  # of a hash that is shown; env.json has all of them
NO_MACHINE = ("commit", "spec_hash", "hashes", "raw")  # entries of env.json that are reported apart


def provenance(runs: Sequence[Finished]) -> list[str]:
    """Sentences on what ± holds, what the runs share, and what differs between them."""
    if not runs:
        return ["No finished run yet."]
    starts = [start for run in runs for start in run.starts]
    spread = plus_minus(runs)
    commits = sorted({str(start.get("commit", "unknown")) for start in starts})
    machines = [{k: v for k, v in start.items() if k not in NO_MACHINE} for start in starts]
    settings = [shared_settings(run) | {run.runs.name: run.config["hparams"]} for run in runs]
    return [
        *([spread] if spread else []),
        *(hashes_of(dataset, own) for dataset, own in by_dataset(runs).items()),
        f"Commit: {', '.join(commits)}.",
        one_or_mixed("Environments", machines),
        one_or_mixed("Settings", settings),
    ]


def by_dataset(runs: Iterable[Finished]) -> dict[str, list[Finished]]:
    """The runs of each data set."""
    found: dict[str, list[Finished]] = {}
    for run in runs:
        found.setdefault(run.runs.dataset, []).append(run)
    return found


def split_of(run: Finished) -> tuple:
    """What decides a run's split; a declared one has no seed."""
    rule, *drawn = map(run.config["settings"].get, ("split_rule", "split_seed", "stratify"))
    return (rule,) if str(rule).startswith("official") else (rule, *drawn)


def plus_minus(runs: Sequence[Finished]) -> str:
    """What ± holds, for each data set of which a cell has several seeds; "" for none."""
    datasets: dict[str, list[str]] = {}
    for dataset, own in by_dataset(runs).items():
        splits: dict[object, list[tuple]] = {}
        for run in own:
            splits.setdefault(run.runs, []).append(split_of(run))
        kinds = {len(set(one)) > 1 for one in splits.values() if len(one) > 1}
        if kinds:
            datasets.setdefault(HOLDS[tuple(sorted(kinds))], []).append(dataset)
    parts = [f"of {', '.join(names)} holds {what}" for what, names in datasets.items()]
    return f"± {'; that '.join(parts)}." if parts else ""


def hashes_of(dataset: str, runs: Sequence[Finished]) -> str:
    """The hashes of a data set's runs; those that each split has for itself are counted."""
    found: dict[str, dict[tuple, set[str]]] = {}  # name -> group of runs -> hashes
    for run in runs:
        for start in run.starts:
            spec = str(start.get("spec_hash", "unknown"))[:HASH_DIGITS]
            found.setdefault("spec", {}).setdefault((), set()).add(spec)
            for name, value in hashes_in(start).items():
                # The samples are the same whatever the split.
                group = (spec,) if name == "data" else split_of(run)
                found.setdefault(name, {}).setdefault(group, set()).add(value)
    parts, each = [], []
    for name, by_group in sorted(found.items()):
        values = sorted(set().union(*by_group.values()))
        alone = all(len(own) == 1 for own in by_group.values())
        if alone and len(values) > 1 and name != "data":
            each.append(name)
        else:
            mixed = name == "data" and not alone
            warning = " (MIXED: not all runs saw the same samples)" if mixed else ""
            parts.append(f"{name} {' and '.join(values)}{warning}")
    varied = f"; for each of {len(found[each[0]])} splits its own {', '.join(each)}" if each else ""
    return f"Hashes of {dataset}: {', '.join(parts)}{varied}."


def hashes_in(start: dict) -> dict[str, str]:
    """The named hashes of one start of a run, shortened."""
    named = start.get("hashes")
    if not isinstance(named, dict):
        return {}
    return {name: str(value)[:HASH_DIGITS] for name, value in named.items()}


def shared_settings(run: Finished) -> dict:
    """Settings and preparation that should be the same in all runs of a data set."""
    dataset, varied = run.runs.dataset, dict(run.runs.overrides)
    settings = run.config["settings"] | run.config["prep"]
    split_follows_seed = DATASET_DEFAULTS.get(dataset, {}).get("split_seed", 0) is None
    if split_follows_seed and settings.get("split_seed") == run.seed:
        settings["split_seed"] = "the run's seed"
    return {f"{dataset}.{key}": value for key, value in settings.items() if key not in varied}


def one_or_mixed(what: str, several: Iterable[dict]) -> str:
    """`Environments: one.`, or `mixed` with the values of each key that differs."""
    found: dict[str, set[str]] = {}
    for one in several:
        for key, text in flatten(one):
            found.setdefault(key, set()).add(text)
    mixed = [f"{k}: {', '.join(sorted(v))}" for k, v in sorted(found.items()) if len(v) > 1]
    return f"{what}: mixed ({'; '.join(mixed)})." if mixed else f"{what}: one."


def flatten(value: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of each leaf."""
    for key, inner in sorted(value.items()):
        if isinstance(inner, dict):
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, format_value(inner)
