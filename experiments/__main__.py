"""The runs behind the tables and figures: what there is, what is missing, and making it.

    python -m experiments list                    tables and figures, a line each
    python -m experiments status [NAME]           each run: new, partial, done, failed, unusable
    python -m experiments show demo               the runs and their commands
    python -m experiments run demo --devices cpu  makes what is not done yet
    python -m experiments run demo --dry_run      the commands as a shell script

NAME is a table, a figure, or a group of them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.options import Parser, UsageError, match_name, number
from common.program import run as run_program
from experiments.artifacts import Artifact
from experiments.launch import Task, cuda_devices, launch, pick_slots
from experiments.reader import Reader
from experiments.registry import ARTIFACTS, needed, select


def tasks_of(args: Any) -> list[Task]:
    """The runs that a command line asks for."""
    flags = []
    for flag, default in (("data_dir", "data"), ("results_dir", "results")):
        if getattr(args, flag) != default:
            flags += [f"--{flag}", getattr(args, flag)]
    seeds = None
    if args.seeds is not None:
        seeds = [number("seeds", text, int, 0) for text in args.seeds]
    names = [args.name] if args.name else []
    return [Task(runs, seed, tuple(flags)) for runs, seed in needed(select(names), seeds)]


def kind_of(artifact: Artifact) -> str:
    """table or figure."""
    return type(artifact).__name__.lower()


def show_list(args: Any) -> int:
    """Artifacts, a line each: name, kind, runs, and the caption's first sentence."""
    wide = max(len(artifact.id) for artifact in ARTIFACTS)
    for artifact in ARTIFACTS:
        count = len(list(needed([artifact])))
        first = artifact.caption.partition(". ")[0].rstrip(".")
        print(f"{artifact.id:{wide}}  {kind_of(artifact):6}  {count:3d} runs  {first}")
    return 0


def show_status(args: Any) -> int:
    """The state of each run, and how many epochs a stopped one has behind it."""
    reader, counts = Reader(Path(args.results_dir)), {}
    for task in tasks_of(args):
        state = reader.run(task.runs, task.seed)[1]
        counts[state] = counts.get(state, 0) + 1
        epochs = ""
        if state in ("partial", "failed"):
            epochs = f"  ({len(task.runs.folder(reader.results, task.seed).read_log())} epochs)"
        print(f"{state:8}  {task.name}{epochs}")
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 0


def show_runs(args: Any) -> int:
    """Each artifact's caption, then the runs and their commands, once."""
    for artifact in select([args.name]):
        print(f"{artifact.id} ({kind_of(artifact)}): {artifact.caption}")
        for runs in artifact.runs():
            print(f"    {runs.name}")
    print()
    for task in tasks_of(args):
        print(task.runs.command(task.seed, task.flags))
    return 0


def run(args: Any) -> int:
    """Makes the runs, or prints how."""
    tasks, reader = tasks_of(args), Reader(Path(args.results_dir))
    jobs = None if args.jobs is None else number("jobs", args.jobs, int, 1)
    if args.dry_run:
        return print_script(tasks, reader, pick_slots(args.devices, jobs) if args.devices else [])
    return launch(reader, tasks, pick_slots(args.devices or cuda_devices(), jobs))


def print_script(tasks: list[Task], reader: Reader, slots: list[str]) -> int:
    """The commands of the runs that are not done, dealt out to the devices in turn."""
    todo = [task for task in tasks if reader.run(task.runs, task.seed)[1] != "done"]
    print("set -e")
    for place, task in enumerate(todo):
        flags = list(task.flags)
        if slots:
            flags += ["--devices", slots[place % len(slots)]]
        if reader.run(task.runs, task.seed)[1] == "unusable":
            flags.append("--overwrite")
        print(task.runs.command(task.seed, flags))
    print(f"{len(tasks) - len(todo)} of {len(tasks)} runs are done", file=sys.stderr)
    return 0


# verb -> (program, whether it takes a NAME: "no", "may", "must")
VERBS: dict[str, tuple[Callable[[Any], int], str]] = {
    "list": (show_list, "no"),
    "status": (show_status, "may"),
    "show": (show_runs, "must"),
    "run": (run, "must"),
}


def add_flags(parser: Parser) -> None:
    """The flags; those of `run` are refused elsewhere."""
    parser.add_argument("--results_dir", default="results", metavar="DIR", help="root of all runs")
    parser.add_argument("--data_dir", default="data", metavar="DIR", help="prepared data")
    parser.add_argument("--seeds", nargs="+", metavar="K", help="instead of the artifact's own")
    group = parser.add_argument_group("run")
    group.add_argument("--jobs", metavar="N", help="runs at a time (default: one a device or core)")
    group.add_argument(
        "--devices", metavar="D", help="CUDA devices such as 0,1, or cpu (default: all there are)"
    )
    group.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(prog="python -m experiments", description=__doc__)
    parser.add_argument("verb", metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("name", nargs="?", metavar="NAME", help="a table, a figure or a group")
    add_flags(parser)
    args = parser.parse_strictly(argv)
    verb = match_name("command", args.verb, VERBS)
    program, takes_name = VERBS[verb]
    if (args.name and takes_name == "no") or (not args.name and takes_name == "must"):
        what = "takes no NAME" if takes_name == "no" else "needs a NAME: `list` shows them"
        raise UsageError(f"python -m experiments {verb} {what}")
    given = [f"--{flag}" for flag in ("jobs", "devices", "dry_run") if getattr(args, flag)]
    if given and verb != "run":
        raise UsageError(f"{given[0]} belongs to `run`, not to `{verb}`")
    return program(args)


if __name__ == "__main__":
    sys.exit(run_program(main))
