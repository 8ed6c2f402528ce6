"""Where the numbers come from: what the runs behind an artifact have in common and what not."""

from collections.abc import Iterable, Iterator, Sequence

from common.options import format_value
from experiments.paper.kinds import Artifact, RunSet
from experiments.report.reader import HINTS, Finished, Reader
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


def flatten(value: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of each leaf."""
    for key, inner in sorted(value.items()):
        if isinstance(inner, dict):
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, format_value(inner)


def one_or_mixed(what: str, sets: Iterable[dict]) -> str:
    """`environments: one`, or `mixed` with the values of each key that is not the same in all."""
    seen: dict[str, list[str]] = {}
    for one in sets:
        for key, text in flatten(one):
            seen.setdefault(key, []).append(text)
    mixed = [
        f"{key}: {', '.join(sorted(set(v)))}" for key, v in sorted(seen.items()) if len(set(v)) > 1
    ]
    return f"{what}: mixed ({'; '.join(mixed)})" if mixed else f"{what}: one"


def settings_of(run: Finished) -> dict:
    """Settings and preparation that should be the same in all runs of a data set."""
    dataset, apart = run.runs.dataset, dict(run.runs.overrides)
    both = run.config["settings"] | run.config["prep"]
    follows = DATASET_DEFAULTS.get(dataset, {}).get("split_seed", 0) is None
    if follows and both.get("split_seed") == run.seed:
        both["split_seed"] = "the run's seed"
    return {f"{dataset}.{key}": value for key, value in both.items() if key not in apart}


def split_of(run: Finished) -> tuple:
    """What decides a run's split; a declared one has no seed."""
    rule, *drawn = map(run.config["settings"].get, ("split_rule", "split_seed", "stratify"))
    return (rule,) if str(rule).startswith("official") else (rule, *drawn)


def by_dataset(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """The runs of each data set."""
    found: dict[str, list[Finished]] = {}
    for run in runs:
        found.setdefault(run.runs.dataset, []).append(run)
    return found


def spread(runs: Sequence[Finished]) -> str:
    """What ± holds, for each data set of which a cell has several seeds; "" for none."""
    held: dict[str, list[str]] = {}
    for dataset, own in by_dataset(runs).items():
        cells: dict[RunSet, list[tuple]] = {}
        for run in own:
            cells.setdefault(run.runs, []).append(split_of(run))
        kinds = {len(set(splits)) > 1 for splits in cells.values() if len(splits) > 1}
        if kinds:
            held.setdefault(HOLDS[tuple(sorted(kinds))], []).append(dataset)
    told = [f"of {', '.join(datasets)} holds {what}" for what, datasets in held.items()]
    return f"± {'; that '.join(told)}." if told else ""


def hashes_of(dataset: str, runs: Sequence[Finished]) -> str:
    """The hashes of a data set's runs; those that each split has for itself are counted."""
    found: dict[str, dict[tuple, set[str]]] = {}
    for run in runs:
        for start in run.starts:
            spec, named = str(start.get("spec_hash", "unknown"))[:12], start.get("hashes")
            found.setdefault("spec", {}).setdefault((), set()).add(spec)
            for key, value in (named if isinstance(named, dict) else {}).items():
                # The samples are the same whatever the split.
                of = (spec,) if key == "data" else split_of(run)
                found.setdefault(key, {}).setdefault(of, set()).add(str(value)[:12])
    parts, each = [], []
    for key, by_group in sorted(found.items()):
        values = sorted(set().union(*by_group.values()))
        alone = all(len(own) == 1 for own in by_group.values())
        if alone and len(values) > 1 and key != "data":
            each.append(key)
        else:
            mixed = " (MIXED: not all runs saw the same samples)" * (key == "data" and not alone)
            parts.append(f"{key} {' and '.join(values)}{mixed}")
    varied = f"; for each of {len(found[each[0]])} splits its own {', '.join(each)}" if each else ""
    return f"Hashes of {dataset}: {', '.join(parts)}{varied}."


def provenance(runs: Sequence[Finished]) -> list[str]:
    """Sentences on what ± holds, what the runs share and what they do not.

    The hashes are whole in each run's env.json.
    """
    if not runs:
        return ["No finished run yet."]
    starts = [start for run in runs for start in run.starts]
    lines = [spread(runs)] if spread(runs) else []
    lines += [hashes_of(dataset, own) for dataset, own in by_dataset(runs).items()]
    lines.append(
        "Commit: " + ", ".join(sorted({str(s.get("commit", "unknown")) for s in starts})) + "."
    )
    apart = ("commit", "spec_hash", "hashes", "raw")
    machines = [{k: v for k, v in start.items() if k not in apart} for start in starts]
    methods = [{run.runs.name: run.config["hparams"]} for run in runs]
    settings = [settings_of(run) | more for run, more in zip(runs, methods)]
    return [
        *lines,
        one_or_mixed("Environments", machines) + ".",
        one_or_mixed("Settings", settings) + ".",
    ]


def footer(artifact: Artifact, reader: Reader) -> str:
    """How the numbers were chosen and what the runs behind them have in common."""
    used = [run for runs in artifact.runs() for run in reader.finished(runs, artifact.seeds)]
    return " ".join([SELECTION, PLUS_MINUS, *provenance(used)])


def to_fill(artifacts: Sequence[Artifact], reader: Reader) -> list[tuple[str, str]]:
    """(command, why the runs do not count yet or "") for the missing runs.

    Runs that differ in their seed alone, and are in the same state, are one command.
    """
    groups: dict[tuple[RunSet, str], list[int]] = {}
    for runs, seed in reader.missing(artifacts):
        groups.setdefault((runs, reader.run(runs, seed)[1]), []).append(seed)
    return [
        (reader.commands(runs, seeds), HINTS.get(state, ""))
        for (runs, state), seeds in groups.items()
    ]
