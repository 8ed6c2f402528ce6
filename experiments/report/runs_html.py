"""The runs behind a number of the report: commands, folders, environments, and what is missing."""

import shlex
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from experiments.launch.estimate import duration, left
from experiments.paper.kinds import Artifact, Cell, Column, RunSet, told_settings
from experiments.report.html import Html, listing, markup, tag
from experiments.report.reader import HINTS, Finished, Reader
from experiments.report.statistics import exact

STATES = {
    "new": "not begun",
    "partial": "begun and not finished",
    "failed": "stopped with an error",
    "unusable": "damaged or another run's",
}
SHORT = 12  # digits of a hash; env.json has all of them
Times = Callable[[RunSet, int], float | None]  # seconds that a run will take, None: not known


def runs_behind(
    seeds: Sequence[int], column: Column, cell: Cell, reader: Reader, times: Times
) -> Html:
    """What opens below a cell: for each run its value, command and folder; then environments."""
    scale = 100.0 if column.percent else 1.0
    items = []
    for runs, seed in product(cell.operands, seeds):
        state = reader.run(runs, seed)[1]
        if state != "done":
            items.append(missing_run(runs, seed, reader, times))
            continue
        value = reader.values(runs, [seed], cell.key).get(seed)
        shown = "no such number" if value is None else exact(value * scale)
        items.append(
            markup(
                f"seed {seed}: ",
                tag("strong", shown),
                ", ",
                tag("code", reader.command(runs, seed)),
                ", in ",
                tag("code", folder_of(runs, seed)),
            )
        )
    done = [run for runs in cell.operands for run in reader.finished(runs, seeds)]
    head = f"{cell.name}, {cell.key}: {len(done)} of {len(items)} runs"
    return tag("details", tag("summary", head), listing(items), *environments(done))


def folder_of(runs: RunSet, seed: int) -> str:
    """The run's folder, from the results folder."""
    return runs.folder(Path(), seed).path.as_posix()


def missing_run(runs: RunSet, seed: int, reader: Reader, times: Times) -> Html:
    """The command that makes a run, why it is not there, and how long it will take."""
    state = reader.run(runs, seed)[1]
    why, seconds = HINTS.get(state, STATES[state]), times(runs, seed)
    time = "no estimate" if seconds is None else f"about {duration(seconds)} left"
    return markup(
        tag("span", "missing", class_="missing"),
        f", seed {seed}: ",
        tag("code", reader.command(runs, seed)),
        f" ({why}; {time})",
    )


def cost(wanted: Sequence[tuple[RunSet, int]], times: Times) -> str:
    """How many runs, and how long they take one after another."""
    count = "1 run" if len(wanted) == 1 else f"{len(wanted)} runs"
    rest = left(times(runs, seed) for runs, seed in wanted)
    return f"{count}, {rest}" if rest else count


def environments(runs: Sequence[Finished]) -> list[Html]:
    """A line for each environment among the runs' starts, with the seeds that had it."""
    seen: dict[str, dict[int, None]] = {}
    for run in runs:
        for start in run.starts:
            seen.setdefault(environment(start), {})[run.seed] = None
    return [
        tag(
            "p",
            f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {text}.",
            class_="small",
        )
        for text, seeds in seen.items()
    ]


def environment(start: dict) -> str:
    """Machine, version and hashes of a start."""
    keys = ("device", "threads", "torch", "commit")
    parts = [f"{key} {start.get(key, 'unknown')}" for key in keys]
    hashes = start.get("hashes")
    named = {"spec": start.get("spec_hash", "unknown")}
    named |= hashes if isinstance(hashes, dict) else {}
    parts += [f"{key} {str(value)[:SHORT]}" for key, value in sorted(named.items())]
    return ", ".join(parts)


def to_fill(artifact: Artifact, reader: Reader, times: Times) -> list[Html]:
    """The commands of what the artifact lacks, closed; nothing where it lacks nothing."""
    wanted = reader.missing([artifact])
    if not wanted:
        return []
    items = [missing_run(runs, seed, reader, times) for runs, seed in wanted]
    head = f"To fill: {cost(wanted, times)}"
    # The launcher gives up no folder by itself.
    damaged = any(reader.run(runs, seed)[1] == "unusable" for runs, seed in wanted)
    most = "All at once, but those with --overwrite: " if damaged else "All at once: "
    together = tag("p", most, tag("code", launch_command(artifact, reader)))
    return [tag("details", tag("summary", head), together, listing(items, class_="plain"))]


def launch_command(artifact: Artifact, reader: Reader) -> str:
    """What makes all that the artifact lacks."""
    settings = [f"{key}={value}" for key, value in artifact.changed]
    suffix = told_settings("", dict(artifact.changed))[0] if settings else ""
    words = ["python", "-m", "experiments", "run", artifact.id.removesuffix(suffix)]
    words += ["--set", *settings] if settings else []
    if reader.results != Path("results"):
        words += ["--results_dir", str(reader.results)]
    return shlex.join(words)
