"""Measures how long programs take before they work, and how that grows with the data.

    python benchmarks/startup.py [--rows 1000000] [--runs 1000]

Prints the median of some starts of each program, the time of `experiments status` with that many
runs, and the time and memory (on Linux) to open a manifest of that many rows for training: the
check of its files, the samples, the split and the misaligned pairs. Preparing it takes a minute or
two.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from data_prep import prepare as preparation  # noqa: E402
from data_prep.datasets.manifest import Settings  # noqa: E402
from data_prep.pool import DONE  # noqa: E402

OPEN = """
import re, sys, time
sys.path.insert(0, {root!r})
begun = time.perf_counter()
from experiments.run.resolve import resolve
run, args = resolve({words!r}.split(), "")
from experiments.run.session import find_data, protocol
ready = time.perf_counter()
prepared = find_data(run, args)
parts, hashes = prepared.split("paper", 0), {{}}
for part in ("val", "test"):
    protocol(prepared, run.settings, part, prepared.modalities, hashes)
# Not getrusage: its maximum includes the parent's memory at the time of the fork.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6
print(time.perf_counter() - ready, ready - begun, peak)
"""


def seconds(command: Sequence[object], repeats: int = 5) -> float:
    """The median time of a command."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


class Ready(AbstractContextManager):
    """A pool whose samples need no extraction: a sequence of vectors and the row's text."""

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, candidates: Sequence[Any]) -> Iterator[tuple]:
        steps = np.ones((2, 4), np.float32)
        array = [np.array(steps.shape, np.int32).tobytes(), steps.tobytes()]
        facts = {"group": "", "part": "", "duration_s": 0.0, "n_frames": 2, "flags": ""}
        for c in candidates:
            row = {"id": c.id, "label": c.label, "sources": c.sources["array"][0], **facts}
            yield DONE, row | {"array": array, "text": [c.inline["text"].encode()]}


def manifest(place: Path, rows: int) -> Path:
    """A prepared manifest; each hundred rows share a file."""
    path = place / "big.csv"
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "array", "text"])
        for k in range(rows):
            name = f"{k // 100:07d}.npy"
            if k % 100 == 0:
                np.save(place / name, np.ones((2, 4), np.float32))
            table.writerow([f"s{k:07d}", f"class {k % 100}", name, f"the text of sample {k}"])
    with mock.patch.object(preparation, "make_pool", lambda *_: Ready()):
        settings = Settings(vocabulary="build")
        preparation.prepare(str(path), None, place / "data", settings)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=1000)
    args = parser.parse_args()
    python = sys.executable
    for words in ("train.py --help", "train.py --method Midas --help", "evaluate.py --help",
                  "make_tables.py --help", "-m data_prep --help"):  # fmt: skip
        print(f"{words:36}{seconds([python, *words.split()]):8.3f} s")
    print(f"{'python -c pass':36}{seconds([python, '-c', 'pass']):8.3f} s")
    with tempfile.TemporaryDirectory() as place:
        from fake_runs import fill

        from experiments.paper.registry import ARTIFACTS, needed

        seeds = range(1, 1 + -(-args.runs // len(list(needed(ARTIFACTS, [1])))))
        fill(Path(place), ARTIFACTS, seeds)
        runs = len(list(needed(ARTIFACTS, seeds)))
        chosen = [python, "-m", "experiments", "status", "--results_dir", place, "--seeds", *seeds]
        print(f"{f'experiments status, {runs} runs':36}{seconds(chosen):8.3f} s")
    with tempfile.TemporaryDirectory() as place:
        path = manifest(Path(place), args.rows)
        words = f"--dataset {path} --data_dir {place}/data --vocabulary build --text_model tiny"
        script = OPEN.format(root=str(ROOT), words=words)
        for name in ("first", "second"):
            command = [python, "-c", script]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            took, imports, peak = map(json.loads, done.stdout.split())
            what = f"{name} opening of {args.rows} rows"
            print(f"{what:36}{took:8.2f} s, {peak:.2f} GB (imports {imports:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
