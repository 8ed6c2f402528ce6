"""The programs tested with faults, and what must be the same as without faults."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fake_runs import fill
from harness import Bench, Job, Outcome

from common.files import TEMPORARY, file_digest
from data_prep.datasets.demo import Settings
from data_prep.digits import write_digits
from data_prep.prepare import prepare
from experiments.launch.local import launch
from experiments.launch.tasks import Task
from experiments.paper import illustration as demo
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader
from experiments.run.folder import RunFolder, find_runs

SMALL = ("--devices", "cpu", "--threads", "1", "--max_epochs", "3", "--batch_size", "16")
SAMPLES = 60
# Files in which a bit flip may go unnoticed: they affect no result, at most a message.
SILENT = ("error.txt", ".local.json", ".lock", "manifest.csv", "rejected.csv")
Content = dict[str, str]


class Scenario(NamedTuple):
    """A program in a separate folder: `fill` creates its inputs, `job` is its command.

    `content` returns what it made.
    """

    name: str
    job: Callable[[Path], Job]
    content: Callable[[Path], Content]
    fill: Callable[[Path], object] = lambda place: place.mkdir(parents=True, exist_ok=True)

    def begin(self, place: Path) -> Job:
        """The command, after its folder has been recreated and filled."""
        shutil.rmtree(place, ignore_errors=True)
        self.fill(place)
        return self.job(place)

    def reference(self, bench: Bench, place: Path) -> tuple[int, Content]:
        """The number of operations without a fault, and their result."""
        outcome = bench.run(self.begin(place))
        assert outcome.status == 0, outcome.output
        return outcome.operations, self.content(place)


def make_inputs(folder: Path) -> None:
    """The first samples of the demo dataset, raw and prepared, and made-up runs for the tables."""
    write_digits(folder / "raw", folder / "truth.csv", 3, workers=1, count=SAMPLES)
    prepare("demo", folder / "raw", folder / "data", Settings(), workers=1)
    fill(folder / "results", [a for a in demo.ARTIFACTS if a.id in ("demo-table", "demo-figure1")])


def files(place: Path) -> Content:
    """Digest of each non-hidden file, by path."""
    found = (p for p in sorted(place.rglob("[!.]*")) if p.is_file())
    return {str(path.relative_to(place)): file_digest(path) for path in found}


def run_content(folder: RunFolder) -> Content:
    """What a run must produce bit by bit: weights, predictions, the log except for its times."""

    def digest(state: dict[str, Any]) -> str:
        text = hashlib.sha256()
        for key, value in sorted(state.items()):
            is_tensor = isinstance(value, torch.Tensor)
            text.update(key.encode())
            text.update(value.numpy().tobytes() if is_tensor else repr(value).encode())
        return text.hexdigest()

    log = [{k: v for k, v in line.items() if k[:5] != "time/"} for line in folder.read_log()]
    return {
        **{name: digest(folder.load(name)["method"]) for name in ("best.pt", "last.pt")},
        "log.jsonl": json.dumps(log, sort_keys=True),
        "predictions.csv": file_digest(folder.file("predictions.csv")),
        "state": folder.state,
    }


def all_scenarios(inputs: Path) -> dict[str, Scenario]:
    """The four scenarios, on the output of `make_inputs`."""
    raw, data, results = inputs / "raw", inputs / "data", inputs / "results"

    def job(program: str, *words: object) -> Callable[[Path], Job]:
        def made(place: Path) -> Job:
            argv = [str(word).replace("@", str(place)) for word in words]
            return Job(program, tuple(argv), place)

        return made

    def with_data(place: Path) -> object:
        return shutil.copytree(data, place / "data", ignore=shutil.ignore_patterns("splits"))

    def of_training(place: Path) -> Content:
        splits = next((place / "data").rglob("splits"))
        return run_content(RunFolder(place / "run")) | files(splits)

    def of_sweep(place: Path) -> Content:
        runs = find_runs(place)
        assert len(runs) == 2
        return {f"{r.path.name}/{k}": v for r in runs for k, v in run_content(r).items()}

    places = ("--data_dir", "@/data", "--output_dir", "@/run")
    midas = job("train", "--dataset_root", raw, *places, "--method", "Midas", *SMALL)
    digits = ("--dataset", "demo", "--dataset_root", raw, "--data_dir", "@/data")
    made = ("demo-table", "demo-figure1", "--results_dir", results, "--out", "@")
    listed = (
        Scenario("training", midas, of_training, with_data),  # its split is drawn in the process
        Scenario("preparation", job("data_prep.__main__", *digits), files),
        Scenario("tables", job("make_tables", *made), files),
        Scenario("sweep", job("faults.scenarios", raw, data, "@"), of_sweep),
    )
    return {scenario.name: scenario for scenario in listed}


def main(argv: list[str]) -> int:
    """A launch of two short runs, as by `python -m experiments run`: RAW DATA RESULTS."""
    raw, data, results = argv
    flags = ("--dataset_root", raw, "--data_dir", data, "--results_dir", results)
    joint = RunSet("demo", "Joint", (("batch_size", 16), ("max_epochs", 1)))
    return launch(Reader(Path(results)), [Task(joint, seed, flags) for seed in (1, 2)], ["cpu"])


# Faults and flips ---------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """The outcome of one fault; `wrong` is empty if nothing was lost."""

    scenario: str
    mode: str
    at: int
    wrong: str


def judge(first: Outcome, mode: str) -> str:
    """What is wrong with a program's reaction to a fault."""
    ended = f"status {first.status}: {first.output[-300:]}"
    if mode.startswith("kill"):
        return "" if first.status in (-9, 0, 1) else ended
    if "Traceback" in first.output:
        return f"a traceback: {first.output[-300:]}"
    words = {"full disk": "no space left", "I/O error": "I/O error"}[mode]
    # With status 0, only a note for later has failed.
    return "" if first.status == 0 or words in first.output else f"not told, {ended}"


def meet(
    bench: Bench, scenario: Scenario, place: Path, at: int, mode: str, due: Content
) -> Verdict:
    """Makes one operation fail, then repeats the command: the result must not depend on it."""
    job = scenario.begin(place)
    wrong = judge(bench.run(job, at, mode), mode)
    again = bench.run(job)
    if not wrong and again.status:
        wrong = f"the same command again: status {again.status}: {again.output[-300:]}"
    if not wrong:
        found = scenario.content(place)
        differ = sorted(k for k in due.keys() | found.keys() if due.get(k) != found.get(k))
        left = sorted(str(p.relative_to(place)) for p in place.rglob(TEMPORARY))
        wrong = f"not the same: {differ}" if differ else f"left behind: {left}" if left else ""
    return Verdict(scenario.name, mode, at, wrong)


def stopped(bench: Bench, scenario: Scenario, place: Path, operations: int) -> list[Path]:
    """Kills a run after three quarters of its work; returns one file of each name that matters."""
    outcome = bench.run(scenario.begin(place), 3 * operations // 4, "kill")
    assert outcome.status == -9, outcome.output
    found = {p.name: p.relative_to(place) for p in sorted(place.rglob("*")) if p.is_file()}
    return [path for name, path in found.items() if name not in SILENT and ".tmp" not in name]


def flip(path: Path, draw: random.Random) -> int:
    """Flips one bit of a file; returns its offset."""
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)
    path.unlink()  # a separate file: prev.pt may be a hard link to last.pt
    path.write_bytes(data)
    return at


def meet_flip(
    bench: Bench, scenario: Scenario, whole: Path, place: Path, name: Path, seed: int, due: Content
) -> Verdict:
    """Flips a bit in the file `name` of a copy of the stopped run `whole`.

    The same command must give the undisturbed result bit by bit, or refuse in one line.
    """
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    at = flip(place / name, random.Random(f"{name} {seed}"))
    outcome, wrong = bench.run(scenario.job(place)), ""
    if outcome.status:
        lines = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        if len(lines) != 1 or "Traceback" in outcome.output:
            wrong = f"status {outcome.status}: {outcome.output[-300:]}"
    else:
        found = scenario.content(place)
        differ = [key for key in due if due[key] != found.get(key)]
        wrong = f"silently another {differ}" if differ else ""
    return Verdict("flips", f"bit flip in {name.name}", at, wrong)
