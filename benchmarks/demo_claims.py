"""Whether the demo set shows what README says of it, on the runs that are there.

    make demo                                     trains Joint, JointUni and Midas, then calls this
    python -m experiments run demo-alone          each modality alone, for the last two claims
    python benchmarks/demo_claims.py

Each claim is a mean over three training seeds on the test part. Exit status 1 if one is not met.
"""

import sys
from collections.abc import Iterator
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


def all_seeds(reader: Reader, runs: RunSet) -> list[Finished]:
    """The finished runs of all seeds, or none."""
    found = reader.finished(runs, SEEDS)
    return found if len(found) == len(SEEDS) else []


def value(runs: list[Finished], key: str) -> float:
    """The mean of a result in percent."""
    return 100 * mean(run.result[key] for run in runs)


def against_joint(reader: Reader) -> Iterator[tuple[str, float, float]]:
    """(claim, measured, at least) of Midas against Joint."""
    joint, midas = all_seeds(reader, JOINT), all_seeds(reader, MIDAS)
    if not joint or not midas:
        raise UsageError(f"no finished Joint and Midas runs of all seeds in {reader.results}")
    gain = value(midas, "test/acc") - value(joint, "test/acc")
    yield "accuracy, Midas above Joint, points", gain, 3.0
    ratio = value(midas, "test/acc_mis") / value(joint, "test/acc_mis")
    yield "misaligned accuracy, Midas / Joint", ratio, 2.0
    video = value(midas, "test/acc_zero/video") - value(joint, "test/acc_zero/video")
    yield "video alone, Midas above Joint, points", video, 25.0


def learnable(reader: Reader, truth: Path) -> Iterator[tuple[str, float, float]]:
    """(claim, measured, at least) of each modality trained alone, where those runs are there.

    The ceiling is that of the test part itself: its samples' cues as they were drawn.
    """
    for runs in ALONE.values():
        m = dict(runs.overrides)["modality"]
        found = all_seeds(reader, runs)
        if found:
            rows = read_table(
                found[0].runs.folder(reader.results, SEEDS[0]).file("predictions.csv")
            )
            ceiling = 100 * ceilings(truth, {row["id"] for row in rows})[m]
            alone = value(found, "test/acc")
            yield (
                f"{m} trained alone, {alone:.1f} % of at most {ceiling:.1f} %",
                alone / ceiling,
                0.8,
            )


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="data", help="prepared data")
    parser.add_argument("--results_dir", default="results", help="root of all runs")
    args = parser.parse_strictly(argv)
    reader = Reader(Path(args.results_dir))
    truth = Path(args.data_dir) / "raw" / "demo-truth.csv"
    claims = [*against_joint(reader), *learnable(reader, truth)]
    for text, measured, least in claims:
        print(
            f"{'met' if measured >= least else 'NOT MET':8} {measured:6.2f} >= {least:<5g} {text}"
        )
    return int(any(measured < least for _, measured, least in claims))


if __name__ == "__main__":
    sys.exit(run_program(main))
