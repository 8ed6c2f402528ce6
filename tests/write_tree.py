"""Writes a small raw tree in the layout of a real data set, for tests and to look at.

    python tests/write_tree.py --dataset cremad --out DIR --profile tiny --corrupt 1

The truth (labels, which cues are there, what must become of damaged files) goes to DIR-truth.csv
beside the folder, where no loader looks.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.options import Parser, UsageError, add_flags, check, collect, option, unknown
from common.program import run as run_program

# data set -> (module, function, samples of each class for tiny, small and claim, layouts)
TREES: dict[str, tuple[str, str, tuple[int, int, int], tuple[str, ...]]] = {
    "cremad": ("trees", "write_cremad", (4, 30, 300), ()),
    "kinetics": ("trees", "write_kinetics", (4, 30, 300), ("A", "B", "C")),
    "ucf101": ("ucf_tree", "write_ucf101", (4, 30, 300), ()),
    "ave": ("ave_tree", "write_ave", (4, 30, 300), ()),
    "food101": ("food_tree", "write_food101", (4, 10, 40), ("plain", "header")),
    "sarcasm": ("tweets_tree", "write_sarcasm", (10, 60, 600), ()),
    "twitter2015": ("tweets_tree", "write_twitter2015", (10, 60, 600), ("both", "tsv", "txt")),
    "mosi": (
        "mosi_tree",
        "write_mosi",
        (10, 60, 600),
        ("mmsa_aligned", "mmsa_unaligned", "mult_aligned", "mult_unaligned"),
    ),
}
PROFILES = ("tiny", "small", "claim")
SIZES = {"tiny": (64, 48), "small": (96, 72), "claim": (96, 72)}  # width, height of pictures
SECONDS = {
    "cremad": ((1.0, 1.6), (1.1, 3.0), (1.1, 3.0)),
    "kinetics": ((3.2, 3.6), (10.0, 10.0), (10.0, 10.0)),
    "ave": ((10.0, 10.0),) * 3,  # shorter clips would end before their events
    "ucf101": ((1.0, 1.5), (2.0, 7.0), (2.0, 7.0)),
}
FPS = {"cremad": 15, "kinetics": 10, "ave": 10, "ucf101": 25}
MANY_CLASSES = ("kinetics", "ave", "ucf101", "food101")  # that --classes can make fewer
# The parameter that a data set's --layout goes to.
LAYOUT_PARAMETER = {
    "kinetics": "layout", "food101": "form", "twitter2015": "lists", "mosi": "files"
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The flags of this command."""

    dataset: str = option("cremad", "which tree to write", choices=tuple(TREES))
    out: str = option("", "the new folder; a folder that holds anything is refused")
    seed: int = option(0, "seed of the content", low=0)
    workers: int = option(0, "processes; 0 means one a core", low=0)
    profile: str = option("small", "size of a fixture", choices=PROFILES)
    per_class: int = option(0, "sound samples of each class; 0 means the profile's number", low=0)
    classes: int = option(
        0, "the first so many classes alone: kinetics, ave, ucf101, food101; 0 means all", low=0
    )
    corrupt: int = option(0, "damaged samples of each kind, on top", low=0)
    layout: str = option(
        "",
        "form of the tree: kinetics A, B, C; food101 plain, header; twitter2015 both, tsv, txt;"
        " mosi mmsa_aligned, mmsa_unaligned, mult_aligned, mult_unaligned; the first if not given",
    )
    strong_noise: float = option(
        0.3, "probability that the strong modality (sound, flow, text) has no cue", low=0, high=1
    )
    weak_noise: float = option(
        0.3, "probability that the weak one (video, picture) has no cue", low=0, high=1
    )
    group_nuisance: bool = option(
        True, "ucf101: clips of one group share background, colour and place"
    )


def parse(argv: Sequence[str]) -> Settings:
    """The settings of a command line; raises `UsageError`, also for flags without an effect."""
    parser = Parser(prog="python tests/write_tree.py", description=__doc__)
    add_flags(parser, "settings", Settings, {"out": "none: it must be given"})
    given = collect(parser.parse_strictly(argv), Settings)
    settings = Settings(**given)
    check(settings)
    if not settings.out:
        raise UsageError("--out is missing: name the folder to write, for example --out raw/cremad")
    if settings.classes and settings.dataset not in MANY_CLASSES:
        raise UsageError(f"--classes does not apply to {settings.dataset}: all its classes are few")
    if not settings.group_nuisance and settings.dataset != "ucf101":
        raise UsageError(f"--group_nuisance does not apply to {settings.dataset}: only to ucf101")
    if settings.layout:
        forms = TREES[settings.dataset][3]
        if not forms:
            raise UsageError(f"--layout does not apply to {settings.dataset}: it has one form")
        if settings.layout not in forms:
            raise unknown("layout", settings.layout, forms)
    return settings


def look_of(settings: Settings) -> dict[str, Any]:
    """How the samples of a fixture look: the argument of its writer, by its name."""
    place = PROFILES.index(settings.profile)
    width, height = SIZES[settings.profile]
    strong, weak = settings.strong_noise, settings.weak_noise
    if settings.dataset == "mosi":
        from fixtures.mosi_tree import SIGNAL

        return {"signal": replace(SIGNAL, erased=(strong, weak, weak))}
    if settings.dataset == "food101":
        from fixtures.food_tree import Look as FoodLook

        return {"look": FoodLook(width, height, text_erased=strong, image_erased=weak)}
    if settings.dataset in ("sarcasm", "twitter2015"):
        from fixtures.tweets import TweetLook

        return {"look": TweetLook(width, height, image_erased=weak, text_erased=strong)}
    if settings.dataset == "ucf101":
        from fixtures.ucf_scenes import Look as UcfLook

        seconds, fps = SECONDS["ucf101"][place], FPS["ucf101"]
        nuisance = {"group_nuisance": settings.group_nuisance}
        return {"look": UcfLook(width, height, fps, seconds, strong, weak, **nuisance)}
    from fixtures.scenes import Look

    seconds, fps = SECONDS[settings.dataset][place], FPS[settings.dataset]
    return {"look": Look(width, height, fps, seconds, sound_erased=strong, video_erased=weak)}


def write(settings: Settings) -> tuple[Path, Path]:
    """Writes the tree and returns (root, truth file)."""
    root = Path(settings.out).absolute()
    truth_path = root.with_name(f"{root.name}-truth.csv")
    common: dict[str, Any] = {"workers": settings.workers or None}
    module, name, counts, forms = TREES[settings.dataset]
    writer = getattr(importlib.import_module(f"fixtures.{module}"), name)
    if forms:
        common[LAYOUT_PARAMETER[settings.dataset]] = settings.layout or forms[0]
    if settings.classes:
        common["classes"] = settings.classes
    if settings.dataset == "mosi":  # one file, written at once
        del common["workers"]
    writer(
        root,
        settings.per_class or counts[PROFILES.index(settings.profile)],
        truth_path=truth_path,
        seed=settings.seed,
        corrupt_each=settings.corrupt,
        **look_of(settings),
        **common,
    )
    return root, truth_path


def main(argv: Sequence[str]) -> int:
    """The program."""
    root, truth_path = write(parse(argv))
    print(f"{root} is written; the truth about it is {truth_path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
