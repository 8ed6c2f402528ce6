"""A launch of two short runs, as `python -m experiments run` makes it: RAW DATA RESULTS."""

from pathlib import Path

from experiments.launch.local import launch
from experiments.launch.tasks import Task
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader

JOINT = RunSet("demo", "Joint", (("batch_size", 16), ("max_epochs", 1)))


def main(argv: list[str]) -> int:
    """Makes the runs of two seeds, one after the other."""
    raw, data, results = argv
    flags = ("--dataset_root", raw, "--data_dir", data, "--results_dir", results)
    tasks = [Task(JOINT, seed, flags) for seed in (1, 2)]
    return launch(Reader(Path(results)), tasks, ["cpu"])
