"""The runs behind the tables and figures: what there is, what is missing, and making it.

    python -m experiments list                    tables and figures, a line each
    python -m experiments status [NAME]           what is done, failed, stopped, and left to do
    python -m experiments show demo               the runs and their commands
    python -m experiments run demo --devices cpu  makes what is not done yet
    python -m experiments run demo --dry_run      the commands as a shell script
    python -m experiments recipe                  docs/recipe.md: paper and release side by side

NAME is a table, a figure, or a group of them.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.options import Parser, UsageError, match_name, number
from common.program import duration
from common.program import run as run_program
from experiments.launch import local, on_ray
from experiments.launch.estimate import Estimator, epochs_of, time_left
from experiments.launch.tasks import Task
from experiments.paper.adapt import adapted, read_settings
from experiments.paper.kinds import Artifact
from experiments.paper.registry import ARTIFACTS, needed, select
from experiments.report.reader import Reader


def selected(args: Any) -> list[Artifact]:
    """The tables and figures that a command line names, with its settings."""
    return adapted(select([args.name] if args.name else []), read_settings(args.set or []))


def tasks_of(artifacts: Sequence[Artifact], args: Any) -> list[Task]:
    """The runs that the artifacts need, each once; the seeds are each artifact's own or --seeds."""
    places = (("data_dir", "data"), ("results_dir", "results"))
    changed = [flag for flag, default in places if getattr(args, flag) != default]
    flags = tuple(word for flag in changed for word in (f"--{flag}", getattr(args, flag)))
    seeds = None if args.seeds is None else [number("seeds", k, int, 0) for k in args.seeds]
    return [Task(runs, seed, flags) for runs, seed in needed(artifacts, seeds)]


def state_of(task: Task, reader: Reader) -> str:
    return reader.run(task.runs, task.seed)[1]


def list_artifacts(args: Any) -> int:
    """Artifacts, a line each: name, kind, how many runs are done, the caption's first sentence."""
    wide, reader = max(len(artifact.id) for artifact in ARTIFACTS), Reader(Path(args.results_dir))
    for artifact in ARTIFACTS:
        states = [state_of(task, reader) for task in tasks_of([artifact], args)]
        done = f"{states.count('done'):3d} of {len(states):3d} runs done"
        first = artifact.caption.partition(". ")[0].rstrip(".")
        print(f"{artifact.id:{wide}}  {type(artifact).__name__.lower():6}  {done}  {first}")
    return 0


def print_status(args: Any) -> int:
    """The states of each artifact's runs, then each run's, and how long the rest will take."""
    artifacts, estimator = selected(args), Estimator(Reader(Path(args.results_dir)))

    def summary(tasks: list[Task], between: str, nothing: str = "") -> str:
        states = sorted(Counter(state_of(task, estimator.reader) for task in tasks).items())
        counts = ", ".join(f"{count} {state}" for state, count in states) or nothing
        rest = time_left(estimator.seconds(task.runs, task.seed) for task in tasks)
        return counts + (f"; {between}{rest}" if rest else "")

    wide = max(len(artifact.id) for artifact in artifacts)
    for artifact in artifacts:
        print(f"{artifact.id:{wide}}  {summary(tasks_of([artifact], args), '', 'no runs needed')}")
    print()
    tasks = tasks_of(artifacts, args)
    for task in tasks:
        about = describe(task, estimator)
        print(f"{state_of(task, estimator.reader):8}  {task.name}" + (f"  ({about})" * bool(about)))
    print(summary(tasks, "one after another, "))
    return 0


def describe(task: Task, estimator: Estimator) -> str:
    """What is known of a run that is not done: epochs, time left, why it failed; else ""."""
    state, parts = state_of(task, estimator.reader), []
    if state in ("partial", "failed"):
        behind = estimator.epochs_behind(task.runs, task.seed)
        parts.append(f"{behind} of {epochs_of(task.runs)} epochs")
    seconds = estimator.seconds(task.runs, task.seed)
    if seconds is not None and state != "done":
        parts.append(f"about {duration(seconds)} left")
    if state == "failed":  # the first line of error.txt, or the last one of a traceback
        path = task.folder(estimator.reader.results).file("error.txt")
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        is_traceback = bool(lines) and lines[0].startswith("Traceback")
        parts.append((lines or ["no reason"])[-1 if is_traceback else 0])
    return ", ".join(parts)


def show_runs(args: Any) -> int:
    """Each artifact's caption, then the runs and their commands, once."""
    artifacts = selected(args)
    for artifact in artifacts:
        print(f"{artifact.id} ({type(artifact).__name__.lower()}): {artifact.caption}")
        for runs in artifact.runs():
            print(f"    {runs.name}")
    print()
    for task in tasks_of(artifacts, args):
        print(task.runs.command(task.seed, task.flags))
    return 0


def make_runs(args: Any) -> int:
    reader, tasks = Reader(Path(args.results_dir)), tasks_of(selected(args), args)
    jobs = None if args.jobs is None else number("jobs", args.jobs, int, 1)
    if args.ray:
        if args.dry_run or args.devices not in (None, "cpu"):
            wrong = "--dry_run" if args.dry_run else f"--devices {args.devices}"
            raise UsageError(f"--ray does not go with {wrong}: the cluster gives out its devices")
        return on_ray.launch(reader, tasks, args.ray, args.devices == "cpu", jobs)
    if args.dry_run:
        slots = local.pick_slots(args.devices, jobs) if args.devices else []
        return print_script(tasks, reader, slots)
    slots = local.pick_slots(args.devices or local.cuda_devices(), jobs)
    return local.launch(reader, tasks, slots)


def print_script(tasks: list[Task], reader: Reader, slots: list[str]) -> int:
    """A script of the runs that are not done, a line for those that differ only in their seed."""
    groups: dict[tuple, list[int]] = {}
    for task in tasks:
        state = state_of(task, reader)
        if state != "done":
            groups.setdefault((task.runs, task.flags, state == "unusable"), []).append(task.seed)
    print("set -e")
    for place, ((runs, flags, given_up), seeds) in enumerate(groups.items()):
        device = ["--devices", slots[place % len(slots)]] if slots else []
        print(runs.commands(seeds, [*flags, *device, *["--overwrite"] * given_up]))
    done = len(tasks) - sum(map(len, groups.values()))
    print(f"{done} of {len(tasks)} runs are done", file=sys.stderr)
    return 0


def show_recipe(_: Any) -> int:
    from experiments.run.recipe_page import page  # loads a method, and with it torch

    print(page(), end="")
    return 0


# verb -> (program, whether it takes a NAME, flags that not every verb takes)
RUN_ONLY = ("jobs", "devices", "dry_run", "ray")
VERBS = {
    "list": (list_artifacts, "no", ()),
    "status": (print_status, "may", ("set",)),
    "show": (show_runs, "must", ("set",)),
    "run": (make_runs, "must", ("set", *RUN_ONLY)),
    "recipe": (show_recipe, "no", ()),
}


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(prog="python -m experiments", description=__doc__)
    parser.add_argument("verb", metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("name", nargs="?", metavar="NAME", help="a table, a figure or a group")
    add = parser.add_argument
    add("--results_dir", default="results", metavar="DIR", help="root of all runs")
    add("--data_dir", default="data", metavar="DIR", help="prepared data")
    add("--seeds", nargs="+", metavar="K", help="instead of the artifact's own")
    words = "settings of all runs, such as max_epochs=3 (not for list)"
    add("--set", nargs="+", metavar="KEY=VALUE", help=words)
    add = parser.add_argument_group("run").add_argument
    add("--jobs", metavar="N", help="runs at a time (default: one a device or core)")
    add("--devices", metavar="D", help="CUDA devices such as 0,1, or cpu (default: all there are)")
    add("--ray", metavar="ADDRESS", help="make the runs on a Ray cluster: HOST:PORT, auto or local")
    add("--dry_run", action="store_true", help="print the commands, run nothing")
    args = parser.parse_strictly(argv)
    verb = match_name("command", args.verb, VERBS)
    program, takes_name, takes = VERBS[verb]
    if (args.name and takes_name == "no") or (not args.name and takes_name == "must"):
        what = "takes no NAME" if takes_name == "no" else "needs a NAME: `list` shows them"
        raise UsageError(f"python -m experiments {verb} {what}")
    for flag in ("set", *RUN_ONLY):
        if getattr(args, flag) and flag not in takes:
            takers = ", ".join(f"`{name}`" for name, entry in VERBS.items() if flag in entry[2])
            raise UsageError(f"--{flag} belongs to {takers}, not to `{verb}`")
    return program(args)


if __name__ == "__main__":
    sys.exit(run_program(main))
