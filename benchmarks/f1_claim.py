"""Which F1 the paper prints: simulated predictions of its accuracies, scored in several ways.

    python benchmarks/f1_claim.py [--draws 4]

For each of the 28 accuracies of Table 1: predictions on as many test samples as Table 5 has, as
many of them right as printed, errors spread evenly over the other classes; classes of equal size,
shuffled. Their macro-F1 over the whole part, or the mean over batches weighted by their size,
beside the printed F1. Batches of 64 are what the authors' released test code has; this tells, from
the printed numbers alone, that the paper's F1 was computed so.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from common.options import Parser, number  # noqa: E402
from common.program import run as run_program  # noqa: E402
from experiments.report.compare import paper_results  # noqa: E402
from experiments.run.metrics import f1_batch, f1_macro  # noqa: E402

BATCHES = (16, 32, 48, 64, 80, 128, 256)


def predictions(samples: int, classes: int, right: float, rng: np.random.Generator) -> tuple:
    """(predicted, true) labels [samples]."""
    y = rng.permutation(np.arange(samples) % classes)
    guess = y.copy()
    wrong = rng.permutation(samples)[round(right * samples) :]
    guess[wrong] = (y[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return torch.from_numpy(guess), torch.from_numpy(y)


def scores(accuracy: float, samples: int, classes: int, draws: int) -> np.ndarray:
    """Mean F1 (%) of the whole part, then of batches of each size."""
    found = []
    for draw in range(draws):
        guess, y = predictions(samples, classes, accuracy / 100, np.random.default_rng(draw))
        batched = [f1_batch(guess, y, classes, size) for size in BATCHES]
        found.append([f1_macro(guess, y, classes), *batched])
    return 100 * np.mean(found, axis=0)


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", default="4", help="simulations of each accuracy (default 4)")
    draws = number("draws", parser.parse_strictly(argv).draws, int, 1)
    paper, errors = paper_results(), []
    for (table, dataset, method, variant, metric), accuracy in paper.items():
        if table != "table1" or metric != "acc":
            continue
        sizes = (int(paper["table5", dataset, "", "", f"n_{n}"].mean) for n in ("test", "class"))
        printed = paper[table, dataset, method, variant, "f1"].mean
        errors.append(scores(accuracy.mean, *sizes, draws) - printed)
    print(f"{len(errors)} cells, {draws} draws each; off the printed F1 by (points):")
    for name, column in zip(("whole", *map(str, BATCHES)), np.transpose(errors)):
        rms, mean, most = np.sqrt((column**2).mean()), column.mean(), np.abs(column).max()
        print(f"{name:>6}  root mean square {rms:5.2f}  mean {mean:+6.2f}  largest {most:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
