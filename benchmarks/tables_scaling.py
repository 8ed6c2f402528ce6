"""Measures how make_tables.py grows with the number of runs.

    python benchmarks/tables_scaling.py

Makes up finished runs of 70 epochs for one table, for those of the paper, and for all.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fake_runs import fake_run, full_log  # noqa: E402

from experiments.paper.figures import LETTERS  # noqa: E402
from experiments.paper.registry import needed, select  # noqa: E402


def main() -> int:
    for names in (["table1"], ["paper"], []):
        with tempfile.TemporaryDirectory() as place:
            runs = list(needed(select(names)))
            for each, seed in runs:
                log = full_log(seed, each.dataset) if each.dataset in LETTERS else None
                results = Path(place) / "results"
                fake_run(results, each, seed, epochs=70, best=60, log=log, known_log=True)
            places = ["--results_dir", f"{place}/results", "--out", f"{place}/made"]
            command = [sys.executable, "make_tables.py", *names, *places]
            begun = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            took = time.perf_counter() - begun
            what = " ".join(names) or "all"
            print(
                f"{what:10}{len(runs):6d} runs{took:8.1f} s, {1e3 * took / len(runs):.1f} ms a run"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
