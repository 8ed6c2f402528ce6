"""Checks README's claims about the demo dataset on the finished runs.

    make demo                                     trains Joint, JointUni and Midas, then runs this
    python -m experiments run demo-alone          each modality alone, for the last two claims
    python benchmarks/demo_claims.py

Each claim is a mean over three training seeds on the test split. Exit status 1 if one is not met.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.files import read_table  # noqa: E402
from common.options import Parser, UsageError  # noqa: E402
from common.program import run as run_program  # noqa: E402
from data_prep.digits import ceilings  # noqa: E402
from experiments.paper.illustration import ALONE, JOINT, MIDAS  # noqa: E402
from experiments.paper.kinds import SEEDS, RunSet  # noqa: E402
from experiments.report.reader import Finished, Reader  # noqa: E402


def finished(reader: Reader, runs: RunSet) -> list[Finished]:
    """The runs of all seeds, or an empty list if one is not finished."""
    found = reader.finished(runs, SEEDS)
    return found if len(found) == len(SEEDS) else []


def claims(reader: Reader, truth: Path) -> Iterator[tuple[str, float, float]]:
    """(claim, measured, minimum): Midas against Joint, then each modality trained alone.

    The latter only if these runs are finished, relative to the ceiling for the test samples.
    """
    joint, midas = finished(reader, JOINT), finished(reader, MIDAS)
    if not joint or not midas:
        raise UsageError(f"{reader.results} lacks finished Joint or Midas runs: run `make demo`")

    def percent(runs: list[Finished], key: str) -> float:
        return 100 * mean(run.result[key] for run in runs)

    acc, mis, video = "test/acc", "test/acc_mis", "test/acc_zero/video"
    gain = percent(midas, acc) - percent(joint, acc)
    yield "accuracy, Midas above Joint, points", gain, 3.0
    yield "misaligned accuracy, Midas / Joint", percent(midas, mis) / percent(joint, mis), 2.0
    gain = percent(midas, video) - percent(joint, video)
    yield "video alone, Midas above Joint, points", gain, 25.0
    for runs in ALONE.values():
        m, found = str(dict(runs.overrides)["modality"]), finished(reader, runs)
        if found:
            folder = found[0].runs.folder(reader.results, SEEDS[0])
            ids = {row["id"] for row in read_table(folder.file("predictions.csv"))}
            ceiling, alone = 100 * ceilings(truth, ids)[m], percent(found, acc)
            words = f"{m} trained alone, {alone:.1f} % of at most {ceiling:.1f} %"
            yield words, alone / ceiling, 0.8


def main(argv: Sequence[str]) -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="data", help="prepared data")
    parser.add_argument("--results_dir", default="results", help="folder of all runs")
    args = parser.parse_strictly(list(argv))
    reader = Reader(Path(args.results_dir))
    truth = Path(args.data_dir) / "raw" / "demo-truth.csv"
    missed = 0
    for text, measured, least in claims(reader, truth):
        missed += measured < least
        print(f"{'met' if measured >= least else 'NOT MET':8}{measured:7.2f} >= {least:<5g} {text}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(run_program(main))
