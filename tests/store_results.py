"""Trains all runs of the tables and figures at the smallest size, and stores the results.

    python tests/store_results.py     about 180 runs, minutes on two cores

Writes tests/stored/results.jsonl.gz, one line per run, and next to it the tables and plotted
numbers that `make_tables.py` makes from them; `test_stored_results.py` compares later ones with
these. The numbers come from three epochs on some hundred generated samples and mean nothing.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small_trees import SMALL_TREES  # noqa: E402
from test_configurations import CHOSEN, SHORTEST, prepared_for_both_recipes  # noqa: E402

import train  # noqa: E402
from common.program import run as run_program  # noqa: E402
from experiments.paper.adapt import adapted  # noqa: E402
from experiments.paper.kinds import RunSet, suffix_of  # noqa: E402
from experiments.paper.registry import needed  # noqa: E402
from experiments.run.folder import RunFolder  # noqa: E402

STORED = ROOT / "tests" / "stored"
SMALL = SHORTEST | {"max_epochs": "3"}
SUFFIX = suffix_of(SMALL)  # of the names of tables and figures made with these settings
# Three seeds if the paper has a deviation to test against, on the smallest datasets; else one.
MANY = ("cremad", "mosi")
LEFT_OUT = ("test/confusion", "test/f1_per_class")  # large and not read by any table


def line_of(runs: RunSet, seed: int, folder: RunFolder) -> str:
    """A finished run as one line of JSON."""
    result = folder.read_json("result.json")
    content = {
        "runs": [runs.dataset, runs.method, list(map(list, runs.overrides))],
        "seed": seed,
        "config": folder.read_json("config.json"),
        "starts": folder.read_json("env.json")["starts"],
        "log": folder.read_log(),
        "result": {k: v for k, v in result.items() if k not in LEFT_OUT},
    }
    return json.dumps(content, sort_keys=True) + "\n"


def restore(results: Path) -> None:
    """Writes the stored runs' folders under `results`."""
    with gzip.open(STORED / "results.jsonl.gz", "rt", encoding="utf-8") as lines:
        for run in map(json.loads, lines):
            dataset, method, overrides = run["runs"]
            runs = RunSet(dataset, method, tuple(map(tuple, overrides)))
            folder = runs.folder(results, run["seed"])
            folder.path.mkdir(parents=True)
            files = {"config": run["config"], "result": run["result"]}
            for name, content in (files | {"env": {"starts": run["starts"]}}).items():
                folder.file(f"{name}.json").write_text(json.dumps(content))
            text = "".join(json.dumps(record) + "\n" for record in run["log"])
            folder.file("log.jsonl").write_text(text)


def make(results: Path) -> None:
    """Makes all tables and figures of the stored runs, in the folder `made` next to them."""
    small = [f"{key}={value}" for key, value in SMALL.items()]
    names = [artifact.id for artifact in CHOSEN]
    places = ["--results_dir", "results", "--out", "made"]
    command = [sys.executable, ROOT / "make_tables.py", *names, *places, "--set", *small]
    subprocess.run(command, cwd=results.parent, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Trains, stores, and makes the tables and plotted numbers."""
    with tempfile.TemporaryDirectory() as place:
        results, lines = Path(place) / "results", []
        for dataset in SMALL_TREES:
            data = prepared_for_both_recipes(Path(place), dataset)
            flags = ["--data_dir", str(data), "--results_dir", str(results), "--devices", "cpu"]
            for runs, seed in needed(adapted(CHOSEN, SMALL), (1, 2, 3)):
                if runs.dataset != dataset or (seed > 1 and dataset not in MANY):
                    continue
                status = run_program(train.main, [*runs.arguments(seed), *flags, "--threads", "1"])
                assert status == 0, runs.name
                lines.append(line_of(runs, seed, runs.folder(results, seed)))
        STORED.mkdir(exist_ok=True)
        packed = gzip.compress("".join(lines).encode(), mtime=0)
        (STORED / "results.jsonl.gz").write_bytes(packed)
    store_made()
    return 0


def store_made() -> None:
    """Rebuilds tables and figures from the stored runs, and stores texts and plotted numbers."""
    with tempfile.TemporaryDirectory() as place:
        restore(Path(place) / "results")
        make(Path(place) / "results")
        shutil.rmtree(STORED / "made", ignore_errors=True)
        for path in sorted((Path(place) / "made").glob("*/*")):
            if path.suffix in (".md", ".csv", ".tex"):
                target = STORED / "made" / path.parent.name / path.name.replace(SUFFIX, "")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


if __name__ == "__main__":
    sys.exit(main())
