"""Writes a small raw tree: the demo set AV-Digits, or a fixture in the layout of a real data set.

    python -m data_prep.demo --dataset demo --out DIR
    python -m data_prep.demo --dataset cremad --out DIR --profile tiny --corrupt 1

The truth (labels, which cues are there, what must become of damaged files) goes to DIR-truth.csv
beside the folder, where no loader looks.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.options import Parser, UsageError, add_flags, check, collect, option
from common.program import run as run_program

DATASETS = ("demo", "cremad", "kinetics")


@dataclass(frozen=True)
class Settings:
    """The flags of this command."""

    dataset: str = option("demo", "which tree to write", choices=DATASETS)
    out: str = option("", "the new folder; a folder that holds anything is refused")
    seed: int = option(0, "seed of the content", low=0)
    workers: int = option(0, "processes; 0 means one a core", low=0)
    profile: str = option("small", "size of a fixture", choices=("tiny", "small", "claim"))
    per_class: int = option(0, "sound clips of each class; 0 means the profile's number", low=0)
    corrupt: int = option(0, "damaged clips of each kind, on top", low=0)
    layout: str = option("A", "of kinetics: flat, class folders, untimed", choices=("A", "B", "C"))
    strong_noise: float = option(0.3, "probability that a clip's sound has no cue", low=0, high=1)
    weak_noise: float = option(0.3, "probability that a clip's video has no cue", low=0, high=1)


# profile -> (clips of each class, width, height, seconds for cremad, seconds for kinetics)
PROFILES = {
    "tiny": (4, 64, 48, (1.0, 1.6), (3.2, 3.6)),
    "small": (30, 96, 72, (1.1, 3.0), (10.0, 10.0)),
    "claim": (300, 96, 72, (1.1, 3.0), (10.0, 10.0)),
}
FPS = {"cremad": 15, "kinetics": 10}
# Flags that mean nothing elsewhere: given there, they are refused and not ignored.
GENERAL = ("dataset", "out", "seed", "workers")
ONLY_FOR = {"layout": ("kinetics",)}


def refuse_useless(dataset: str, given: dict) -> None:
    """Raises `UsageError` for a flag that has no effect on this data set."""
    for name in given:
        allowed = DATASETS if name in GENERAL else ONLY_FOR.get(name, DATASETS[1:])
        if dataset not in allowed:
            where = " and ".join(allowed)
            raise UsageError(f"--{name} does not apply to {dataset}, only to {where}")


def parse(argv: Sequence[str]) -> Settings:
    """The settings of a command line; raises `UsageError`."""
    parser = Parser(prog="python -m data_prep.demo", description=__doc__)
    add_flags(parser, "settings", Settings, {"out": "none: it must be given"})
    given = collect(parser.parse_strictly(argv), Settings)
    settings = Settings(**given)
    check(settings)
    if not settings.out:
        raise UsageError("--out is missing: name the folder to write, for example --out raw/demo")
    refuse_useless(settings.dataset, given)
    return settings


def write(settings: Settings) -> tuple[Path, Path]:
    """Writes the tree and returns (root, truth file)."""
    root = Path(settings.out).absolute()
    truth_path = root.with_name(f"{root.name}-truth.csv")
    workers = settings.workers or None
    if settings.dataset == "demo":
        from data_prep.generate.digits import write_digits

        write_digits(root, truth_path, settings.seed, workers=workers)
        return root, truth_path
    from data_prep.generate.scenes import Look
    from data_prep.generate.trees import write_cremad, write_kinetics

    count, width, height, *seconds = PROFILES[settings.profile]
    look = Look(
        width,
        height,
        FPS[settings.dataset],
        seconds[settings.dataset == "kinetics"],
        sound_erased=settings.strong_noise,
        video_erased=settings.weak_noise,
    )
    common = {
        "truth_path": truth_path,
        "seed": settings.seed,
        "look": look,
        "corrupt_each": settings.corrupt,
        "workers": workers,
    }
    per_class = settings.per_class or count
    if settings.dataset == "cremad":
        write_cremad(root, per_class, **common)
    else:
        write_kinetics(root, per_class, layout=settings.layout, **common)
    return root, truth_path


def main(argv: Sequence[str]) -> int:
    """The program."""
    root, truth_path = write(parse(argv))
    print(f"{root} is written; the truth about it is {truth_path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
