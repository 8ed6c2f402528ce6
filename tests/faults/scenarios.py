"""What is put through faults, and what must be the same after them as without any."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, MODES, Bench, Job, Outcome

sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from common.files import TEMPORARY, file_digest  # noqa: E402
from experiments.paper import illustration as demo  # noqa: E402
from experiments.run.folder import RunFolder, find_runs  # noqa: E402

SMALL = ("--devices", "cpu", "--threads", "1", "--max_epochs", "3", "--batch_size", "16")


@dataclass(frozen=True)
class Scenario:
    """A program in a folder of its own: `fill` puts into it what it needs, `job` is its command.

    `content` tells what it made.
    """

    name: str
    job: Callable[[Path], Job]
    content: Callable[[Path], dict[str, str]]
    fill: Callable[[Path], object] = lambda place: place.mkdir(parents=True, exist_ok=True)

    def begin(self, place: Path) -> Job:
        """The command, once its folder is filled."""
        self.fill(place)
        return self.job(place)


def files(place: Path) -> dict[str, str]:
    """Digest of each file that is not hidden, by its path."""
    found = (p for p in sorted(place.rglob("[!.]*")) if p.is_file())
    return {str(path.relative_to(place)): file_digest(path) for path in found}


def run_content(folder: RunFolder) -> dict[str, str]:
    """What a run must have made, bit by bit: weights, predictions, the log but for its times."""
    import torch

    state = {}
    for name in ("best.pt", "last.pt"):
        text = hashlib.sha256()
        for key, value in sorted(folder.load(name)["method"].items()):
            raw = (
                value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
            )
            text.update(key.encode() + raw)
        state[name] = text.hexdigest()
    lines = [
        {key: value for key, value in line.items() if not key.startswith("time/")}
        for line in folder.read_log()
    ]
    state["log.jsonl"] = json.dumps(lines, sort_keys=True)
    state["predictions.csv"] = file_digest(folder.file("predictions.csv"))
    state["state"] = folder.state
    return state


def training(raw: Path, data: Path) -> Scenario:
    """MIDAS for three epochs on the demo set, whose split is drawn on the way."""

    def fill(place: Path) -> object:
        ignored = shutil.ignore_patterns("splits", ".lock")
        return shutil.copytree(data, place / "data", ignore=ignored)

    def job(place: Path) -> Job:
        places = (
            "--dataset_root",
            raw,
            "--data_dir",
            place / "data",
            "--output_dir",
            place / "run",
        )
        return Job("train", tuple(map(str, (*places, "--method", "Midas", *SMALL))), place)

    def content(place: Path) -> dict[str, str]:
        splits = next((place / "data").rglob("splits"))
        return run_content(RunFolder(place / "run")) | files(splits)

    return Scenario("training", job, content, fill)


def preparation(raw: Path) -> Scenario:
    """The demo set's files become shards of twenty samples."""

    def job(place: Path) -> Job:
        words = ("--dataset", "demo", "--dataset_root", raw, "--data_dir", place / "data")
        return Job("data_prep.__main__", tuple(map(str, words)), place)

    return Scenario("preparation", job, files)


def tables(results: Path) -> Scenario:
    """A table, a figure and the report of finished runs."""

    def job(place: Path) -> Job:
        words = ("demo-table", "demo-figure1", "--results_dir", results, "--out", place)
        return Job("make_tables", tuple(map(str, words)), place)

    return Scenario("tables", job, files)


def sweep(raw: Path, data: Path) -> Scenario:
    """Two runs of Joint by the launcher, each a process of its own."""

    def job(place: Path) -> Job:
        return Job("faults.sweep_job", tuple(map(str, (raw, data, place))), place)

    def content(place: Path) -> dict[str, str]:
        runs = find_runs(place)
        assert len(runs) == 2
        return {f"{r.path.name}/{k}": v for r in runs for k, v in run_content(r).items()}

    return Scenario("sweep", job, content)


@dataclass(frozen=True)
class Verdict:
    """What became of one fault; `wrong` is empty where nothing was lost."""

    scenario: str
    mode: str
    at: int
    wrong: str


def judge(scenario: Scenario, first: Outcome, mode: str) -> str:
    """What is wrong with how a program met a fault."""
    if mode.startswith("kill"):
        return "" if first.status in (-9, 0, 1) else f"status {first.status}: {first.output[-300:]}"
    if "Traceback" in first.output:
        return f"a traceback: {first.output[-300:]}"
    if first.status == 0:
        return ""  # what failed was only a note for later
    words = {"full disk": "no space is left", "I/O error": "I/O error"}[mode]
    told = [line for line in first.output.splitlines() if words in line]
    return "" if told else f"status {first.status} without a line on it: {first.output[-300:]}"


def meet(
    bench: Bench, scenario: Scenario, place: Path, at: int, mode: str, due: dict[str, str]
) -> Verdict:
    """Makes one operation fail, then repeats the command: it must end as without the fault."""
    shutil.rmtree(place, ignore_errors=True)
    job = scenario.begin(place)
    wrong = judge(scenario, bench.run(job, at, mode), mode)
    again = bench.run(job)
    if not wrong and again.status:
        wrong = f"the same command again: status {again.status}: {again.output[-300:]}"
    if not wrong:
        found = scenario.content(place)
        differ = sorted(k for k in due.keys() | found.keys() if due.get(k) != found.get(k))
        left = sorted(str(p.relative_to(place)) for p in place.rglob(TEMPORARY))
        wrong = f"not the same: {differ}" if differ else f"left behind: {left}" if left else ""
    return Verdict(scenario.name, mode, at, wrong)


def reference(bench: Bench, scenario: Scenario, place: Path) -> tuple[int, dict[str, str]]:
    """The number of operations without a fault, and what they make."""
    job = scenario.begin(place)
    outcome = bench.run(job)
    assert outcome.status == 0, outcome.output
    return outcome.operations, scenario.content(place)


def demo_runs(results: Path) -> None:
    """Finished runs for the tables: made up, for nothing is trained here."""
    from fake_runs import fill

    fill(results, [a for a in demo.ARTIFACTS if a.id in ("demo-table", "demo-figure1")])


FAULTS = [mode for mode in MODES if mode != "count"]
