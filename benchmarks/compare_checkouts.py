"""Checks that two checkouts of this project give identical results.

    git worktree add ../before main~5
    python benchmarks/compare_checkouts.py ../before .

Both use the same inputs: a small raw version of each dataset, written by the second checkout. Both
prepare it, train every method for two epochs on the demo dataset and MIDAS on the others, and make
tables and figures. Compares shards, tables and splits, all numbers in logs, results and
predictions, all tensors in checkpoints, the output of make_tables.py, and the golden losses and
stored tables under tests/, but not times, versions, folders and commits. Only programs are called,
so modules may have moved. Takes about ten minutes on two cores; the exit status is 1 if anything
differs.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pyarrow
import torch

# dataset -> extra flags for tests/write_tree.py, and for preparation
SETS: dict[str, tuple[list[str], list[str]]] = {
    "cremad": ([], []),
    "kinetics": (["--classes", "4"], []),
    "ucf101": (["--classes", "4"], []),
    "ave": (["--classes", "4"], []),
    "food101": (["--classes", "4"], ["--vocabulary", "build"]),
    "mosi": ([], []),
    "sarcasm": ([], ["--vocabulary", "build"]),
    "twitter2015": ([], ["--vocabulary", "build"]),
}
# Prefixes of keys that depend on the machine, the time or the commit.
PASSING = (
    "time/", "seconds", "commit", "tools", "starts", "env", "checkpoint", "log", "sha256", "tables",
    "pool",
)  # fmt: skip
SMALL = "--max_epochs 2 --size 32 --encoder small --threads 1 --weights none".split()
TINY_TEXT = ("--text_model", "tiny")


def run(checkout: Path, *words: object) -> str:
    """Runs a program of a checkout; returns its output, raises `RuntimeError` if it fails."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {' '.join(map(str, words))}\n{done.stderr[-2000:]}")
    return done.stdout


def commit_of(checkout: Path) -> str:
    words = ("git", "rev-parse", "HEAD")
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def lasting(value: Any) -> Any:
    """A JSON value or checkpoint without the keys in `PASSING`; tensors and arrays as bytes."""
    if isinstance(value, dict):
        return {k: lasting(v) for k, v in value.items() if not str(k).startswith(PASSING)}
    if isinstance(value, (list, tuple)):
        return [lasting(v) for v in value]
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = torch.as_tensor(value).nan_to_num()
        return value.dtype, value.shape, value.numpy().tobytes()
    return repr(value)


def content(path: Path, own: list[str]) -> Any:
    """The content of a file that must be the same; `own`: the side's names of folder and commit."""
    match path.suffix:
        case ".json":
            return lasting(json.loads(path.read_text()))
        case ".jsonl":
            return [lasting(json.loads(line)) for line in path.read_text().splitlines() if line]
        case ".pt":
            return lasting(torch.load(path, weights_only=True, map_location="cpu"))
        case ".arrow":  # without the rejected samples, whose messages are not data
            table = pyarrow.ipc.open_file(path.read_bytes()).read_all()
            return table.schema.metadata, table.to_pydict()
        case ".png":
            return lasting(matplotlib.image.imread(path))
    data = path.read_bytes()
    for name in own if path.suffix in TEXT else []:
        data = data.replace(name.encode(), b"OWN")
    return data


TEXT = (".md", ".csv", ".tex", ".html", ".txt")
LEFT_OUT = (".lock", ".pdf", ".log")


def differences(sides: dict[Path, str]) -> list[str]:
    """The files that differ between two folders {folder: commit}, or are in only one of them."""
    found, (a, b) = [], sides
    for folder in sides:
        names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        found.append({n for n in names if n.suffix not in LEFT_OUT and n.name[0] != "."})
    wrong = [f"{name}: only in one" for name in sorted(found[0] ^ found[1])]
    for name in sorted(found[0] & found[1]):
        if content(a / name, [str(a), sides[a]]) != content(b / name, [str(b), sides[b]]):
            wrong.append(f"{name}: differs")
    return wrong


def work(checkout: Path, raw: Path, out: Path) -> None:
    """Creates everything to be compared with one checkout, under `out`."""
    data = out / "data"
    listed = run(checkout, "train.py", "--list").split("data sets:")[0].splitlines()[1:]
    methods = [line.split()[0] for line in listed if line.strip()]
    flags = ("--data_dir", data, "--results_dir", out / "results", "--devices", "cpu", *SMALL)
    for dataset, (_, preparation) in SETS.items():
        classes = ("--allow_missing_classes", "--max_bad", "1")
        places = ("--dataset_root", raw / dataset, "--data_dir", data)
        run(checkout, "-m", "data_prep", "--dataset", dataset, *places, *preparation, *classes)
        text = TINY_TEXT if preparation else ()
        run(checkout, "train.py", "--dataset", dataset, *preparation, *text, *flags)
    for method in methods:
        alone = ("--modality", "audio") if method == "Unimodal" else ()
        run(checkout, "train.py", "--dataset", "demo", "--method", method, *alone, *flags)
    names = ["table1", "table2", "demo-short", "figure4"]
    given = ("--results_dir", out / "results", "--out", out / "made")
    run(checkout, "make_tables.py", *names, *given, "--set", "max_epochs=2", "size=32")
    for kept in (*checkout.glob("tests/golden*.json"), checkout / "tests" / "stored" / "made"):
        copy = shutil.copytree if kept.is_dir() else shutil.copy
        copy(kept, out / f"kept-{kept.name}")


def main(before: str, after: str) -> int:
    """Compares two checkouts and prints the differences."""
    checkouts = {"before": Path(before).resolve(), "after": Path(after).resolve()}
    place = Path(tempfile.mkdtemp())
    for dataset, (flags, _) in SETS.items():
        small = ("--out", place / "raw" / dataset, "--per_class", "12", "--corrupt", "1", *flags)
        run(checkouts["after"], "tests/write_tree.py", "--dataset", dataset, *small)
    run(checkouts["after"], "-m", "data_prep", "--dataset", "demo", "--data_dir", place / "demo")
    for name in checkouts:
        shutil.copytree(place / "demo" / "raw", place / name / "data" / "raw")
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(work, path, place / "raw", place / name) for name, path in checkouts.items()
        ]
        for job in jobs:
            job.result()
    wrong = differences({place / name: commit_of(path) for name, path in checkouts.items()})
    print("\n".join(wrong) or "no difference")
    print(f"compared: {sum(p.is_file() for p in (place / 'after').rglob('*'))} files in {place}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
