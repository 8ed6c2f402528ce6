"""Lists, checks and launches the runs behind the tables and figures.

    python -m experiments list                    all tables and figures
    python -m experiments status [NAME]           the state of each run, and the time left
    python -m experiments show demo               the runs and their commands
    python -m experiments run demo --devices cpu  make all runs that are not done
    python -m experiments run demo --dry_run      print their commands as a shell script
    python -m experiments recipe                  print docs/recipe.md: paper and release compared
    python -m experiments tune demo Midas --trials 20    search hyperparameters with Optuna

NAME is a table, a figure, or a group of them; for tune, a dataset and a method.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
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
from experiments.report.own import TUNED, tuned_artifacts
from experiments.report.reader import Reader
from methods import METHODS


def selected(args: Any) -> list[Artifact]:
    """The tables and figures named on the command line, with the settings of --set."""
    if args.name == TUNED and not args.set:
        return tuned_artifacts(Reader(Path(args.results_dir)))
    return adapted(select([args.name] if args.name else []), read_settings(args.set or []))


def folder_flags(args: Any) -> tuple[str, ...]:
    """The flags of train.py for folders other than the default ones."""
    places = (("data_dir", "data"), ("results_dir", "results"))
    changed = [flag for flag, default in places if getattr(args, flag) != default]
    return tuple(word for flag in changed for word in (f"--{flag}", getattr(args, flag)))


def tasks_of(artifacts: Sequence[Artifact], args: Any) -> list[Task]:
    """The runs that the artifacts need, without duplicates; --seeds overrides their seeds."""
    flags = folder_flags(args)
    seeds = None if args.seeds is None else [number("seeds", k, int, 0) for k in args.seeds]
    return [Task(runs, seed, flags) for runs, seed in needed(artifacts, seeds)]


def state_of(task: Task, reader: Reader) -> str:
    return reader.run(task.runs, task.seed)[1]


def list_artifacts(args: Any) -> int:
    """Prints one line per artifact: name, kind, runs done, the caption's first sentence."""
    wide, reader = max(len(artifact.id) for artifact in ARTIFACTS), Reader(Path(args.results_dir))
    for artifact in ARTIFACTS:
        states = [state_of(task, reader) for task in tasks_of([artifact], args)]
        done = f"{states.count('done'):3d} of {len(states):3d} runs done"
        first = artifact.caption.partition(". ")[0].rstrip(".")
        print(f"{artifact.id:{wide}}  {type(artifact).__name__.lower():6}  {done}  {first}")
    return 0


def print_status(args: Any) -> int:
    """Prints a summary of each artifact's runs, then the state of each run and the time left."""
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
    """The progress of an unfinished run: epochs, time left, why it failed; "" if unknown."""
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
        parts.append((lines or ["unknown error"])[-1 if is_traceback else 0])
    return ", ".join(parts)


def show_runs(args: Any) -> int:
    """Prints each artifact's caption and run names, then the commands without duplicates."""
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
            raise UsageError(f"--ray cannot be used with {wrong}: the cluster assigns devices")
        return on_ray.launch(reader, tasks, args.ray, args.devices == "cpu", jobs)
    if args.dry_run:
        slots = local.pick_slots(args.devices, jobs) if args.devices else []
        return print_script(tasks, reader, slots)
    slots = local.pick_slots(args.devices or local.cuda_devices(), jobs)
    return local.launch(reader, tasks, slots)


def tune_methods(args: Any) -> int:
    """Searches the hyperparameters of one method, or of all, on one dataset."""
    from experiments.launch.tune import FOLDER, Search, tune

    if not args.method:
        raise UsageError("tune needs a dataset and a method: `tune demo Midas --trials 20`")
    names = [name for name in METHODS if name != "Unimodal"]
    if args.method != "all":
        names = [match_name("method", args.method, METHODS)]
    trials = number("trials", args.trials or "", int, 1)
    args.results_dir = str(Path(args.results_dir) / FOLDER)
    reader, flags = Reader(Path(args.results_dir)), folder_flags(args)
    jobs = None if args.jobs is None else number("jobs", args.jobs, int, 1)
    if args.ray:
        how = {"address": args.ray, "cpu": args.devices == "cpu", "jobs": jobs}
        launch, width = partial(on_ray.launch, reader, **how), jobs or 1
    else:
        slots = local.pick_slots(args.devices or local.cuda_devices(), jobs)
        launch, width = partial(local.launch, reader, slots=slots), len(slots)
    for name in names:
        print(f"tune {args.name} {name}", flush=True)
        search = Search(args.name, name, trials, read_settings(args.set or []), flags)
        if status := tune(search, reader, launch, width):
            return status
    return 0


def print_script(tasks: list[Task], reader: Reader, slots: list[str]) -> int:
    """Prints a shell script of the unfinished runs; runs that differ only in seed share a line."""
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
    from experiments.run.recipe_page import page  # imports torch

    print(page(), end="")
    return 0


# verb -> (function, whether it takes a NAME, its optional flags)
RUN_ONLY = ("jobs", "devices", "dry_run", "ray")
TUNE_ONLY = ("trials", "method")
VERBS = {
    "list": (list_artifacts, "no", ()),
    "status": (print_status, "may", ("set",)),
    "show": (show_runs, "must", ("set",)),
    "run": (make_runs, "must", ("set", *RUN_ONLY)),
    "recipe": (show_recipe, "no", ()),
    "tune": (tune_methods, "must", ("set", "jobs", "devices", "ray", *TUNE_ONLY)),
}


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m experiments", description=__doc__)
    parser.add_argument("verb", metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("name", nargs="?", metavar="NAME", help="a table, a figure or a group")
    parser.add_argument("method", nargs="?", metavar="METHOD", help="for tune")
    add = parser.add_argument
    add("--trials", metavar="N", help="for tune: finished trials in all")
    add("--results_dir", default="results", metavar="DIR", help="folder of all runs")
    add("--data_dir", default="data", metavar="DIR", help="prepared data")
    add("--seeds", nargs="+", metavar="K", help="override the seeds of the tables and figures")
    words = "settings for all runs, such as max_epochs=3 (not for list)"
    add("--set", nargs="+", metavar="KEY=VALUE", help=words)
    add = parser.add_argument_group("run").add_argument
    add("--jobs", metavar="N", help="parallel runs (default: one per device or core)")
    add("--devices", metavar="D", help="CUDA devices such as 0,1, or cpu (default: all devices)")
    add("--ray", metavar="ADDRESS", help="use a Ray cluster: HOST:PORT, auto or local")
    add("--dry_run", action="store_true", help="print the commands without running them")
    args = parser.parse_strictly(argv)
    verb = match_name("command", args.verb, VERBS)
    program, takes_name, takes = VERBS[verb]
    if (args.name and takes_name == "no") or (not args.name and takes_name == "must"):
        what = "takes no NAME" if takes_name == "no" else "needs a NAME: `list` prints them"
        raise UsageError(f"python -m experiments {verb} {what}")
    if args.seeds and verb in ("tune", "recipe"):
        raise UsageError(f"--seeds does not work with `{verb}`")
    for flag in ("set", *RUN_ONLY, *TUNE_ONLY):
        if getattr(args, flag) and flag not in takes:
            takers = ", ".join(f"`{name}`" for name, entry in VERBS.items() if flag in entry[2])
            raise UsageError(f"--{flag} can be used with {takers}, not with `{verb}`")
    return program(args)


if __name__ == "__main__":
    sys.exit(run_program(main))
