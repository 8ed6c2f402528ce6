"""Where the numbers come from: what the runs behind an artifact have in common and what not."""

from collections.abc import Iterable, Iterator, Sequence

from common.options import format_value
from experiments.artifacts import Artifact, Runs
from experiments.reader import HINTS, Finished, Reader

PLUS_MINUS = "± is the sample standard deviation (n - 1) over the n training seeds in parentheses."
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
    apart = dict(run.runs.overrides)
    both = run.config["settings"] | run.config["prep"]
    return {f"{run.runs.dataset}.{key}": value for key, value in both.items() if key not in apart}


def provenance(runs: Sequence[Finished]) -> list[str]:
    """Sentences on what the runs share and what they do not."""
    if not runs:
        return ["No finished run yet."]
    starts = [start for run in runs for start in run.starts]
    lines = []
    for dataset in dict.fromkeys(run.runs.dataset for run in runs):
        of_set = [run for run in runs if run.runs.dataset == dataset]
        found: dict[str, set] = {}
        for run in of_set:
            for start in run.starts:
                hashes = start.get("hashes")
                hashes = hashes if isinstance(hashes, dict) else {}
                found.setdefault("spec", set()).add(str(start.get("spec_hash", "unknown"))[:12])
                for key, value in hashes.items():
                    found.setdefault(key, set()).add(str(value)[:12])
        parts = [f"{key} {' and '.join(sorted(values))}" for key, values in sorted(found.items())]
        lines.append(f"Hashes of {dataset}: {', '.join(parts)}.")
    lines.append(
        "Commit: " + ", ".join(sorted({str(s.get("commit", "unknown")) for s in starts})) + "."
    )
    apart = ("commit", "spec_hash", "hashes")
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
    groups: dict[tuple[Runs, str], list[int]] = {}
    for runs, seed in reader.missing(artifacts):
        groups.setdefault((runs, reader.run(runs, seed)[1]), []).append(seed)
    return [
        (reader.commands(runs, seeds), HINTS.get(state, ""))
        for (runs, state), seeds in groups.items()
    ]
