"""Whether each modality of each fixture is learnt alone, by the project's own code.

    python tests/learnable.py                  all data sets
    python tests/learnable.py --dataset mosi

For each data set: its raw tree as `write_tree` writes it, its preparation, and
`train.py --method Unimodal` for each modality. One line a modality: accuracy on the test part, the
best that the cues of these very samples allow (`ceilings`), and their ratio, which must reach 0.8.
Exit status 1 where one does not.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from math import erf, sqrt
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import write_tree as demo  # noqa: E402

from common.files import read_table, write_table  # noqa: E402
from common.options import Parser, UsageError, number, unknown  # noqa: E402
from common.program import cores  # noqa: E402
from common.program import run as run_program  # noqa: E402
from data_prep import datasets  # noqa: E402
from data_prep.prepare import prepare  # noqa: E402
from experiments.run.folder import RunFolder  # noqa: E402

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
LEAST = 0.8  # of the ceiling
Flags = dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """How a data set is checked: samples a class, and train.py's flags, common and of a modality.

    `tree` holds other flags of the generator, `prep` those of the preparation. A network this small
    tells six glyphs apart after hundreds of samples of each, a hundred of them only after far more
    than are rendered in minutes: hence `SIX`. All numbers are our choice.
    """

    per_class: int
    flags: Flags
    own: dict[str, Flags]
    tree: dict[str, int | bool] = field(default_factory=dict)
    prep: dict[str, str | int] = field(default_factory=dict)


_SMALL = {"encoder": "small", "size": "32", "weights": "none", "batch_size": "16", "lr": "0.03"}
_TEXT = {"text_model": "tiny", "batch_size": "32", "lr": "0.01", "max_epochs": "10"}
# The decay matters: before it, accuracy on pictures still swings by a tenth between epochs.
_LONG = {"max_epochs": "30", "lr_step": "21"}
_FLOW = {"max_epochs": "90", "lr_step": "70", "lr": "0.1"}
_SOUND = {"spec_pool": "4", "max_epochs": "10", "lr": "0.05"}
_TWEETS = {"vocabulary": "build", "max_tokens": 48}  # the longest text that is written has 48
SIX = {"classes": 6}
RECIPES = {
    "cremad": Recipe(400, _SMALL, {"audio": _SOUND, "video": _LONG}),
    "kinetics": Recipe(400, _SMALL, {"audio": _SOUND, "video": _LONG}, SIX),
    "ave": Recipe(400, _SMALL | {"split_rule": "paper"}, {"audio": _SOUND, "video": _LONG}, SIX),
    # Clips of a group that look alike would tell each other's class without a cue.
    "ucf101": Recipe(144, _SMALL, {"flow": _FLOW, "video": _LONG}, SIX | {"group_nuisance": False}),
    "food101": Recipe(
        400,
        _SMALL,
        {"text": _TEXT | {"max_epochs": "8", "lr": "0.02"}, "image": _LONG},
        SIX,
        prep={"vocabulary": "build"},
    ),
    "sarcasm": Recipe(1200, _SMALL, {"image": _LONG, "text": _TEXT}, prep=_TWEETS),
    "twitter2015": Recipe(600, _SMALL, {"image": _LONG, "text": _TEXT}, prep=_TWEETS),
    "mosi": Recipe(
        600,
        {"max_epochs": "10", "lr": "0.01", "batch_size": "32"},
        {"text": {}, "audio": {}, "video": {}},
    ),
}


@dataclass(frozen=True)
class Row:
    """One modality's outcome; `chance` is one over the number of classes, `seconds` CPU time."""

    dataset: str
    modality: str
    accuracy: float
    ceiling: float
    chance: float
    tested: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Accuracy as a share of the ceiling."""
        return self.accuracy / self.ceiling

    @property
    def passed(self) -> bool:
        """Whether enough is learnt."""
        return self.ratio >= LEAST

    def line(self) -> str:
        """The outcome as a line of text."""
        return (
            f"{'PASS' if self.passed else 'FAIL'}  {self.dataset:12} {self.modality:6}"
            f" accuracy {self.accuracy:.3f}  ceiling {self.ceiling:.3f}  ratio {self.ratio:.2f}"
            f"  chance {self.chance:.3f}  {self.tested} tested  {self.seconds:.0f} s CPU"
        )


def run_check(
    dataset: str,
    folder: Path,
    *,
    modalities: Collection[str] = (),
    per_class: int = 0,
    erased: float | None = None,
    workers: int | None = None,
    threads: int = 1,
) -> Iterator[Row]:
    """Writes, prepares and trains in `folder` (new or empty); a row for each modality.

    `modalities`: none means all. `per_class` replaces the recipe's number, `erased` the share of
    samples without their cue: with 1 nothing can be learnt, and accuracies must be those of chance.
    """
    recipe = RECIPES[dataset]
    noise = {} if erased is None else {"strong_noise": erased, "weak_noise": erased}
    size = per_class or recipe.per_class
    root, truth_path = demo.write(
        demo.Settings(
            dataset=dataset,
            out=str(folder / "raw"),
            profile="tiny",
            per_class=size,
            workers=workers or 0,
            **noise,
            **recipe.tree,
        )
    )
    settings = datasets.load(dataset).Settings(**recipe.prep)
    prepare(
        dataset,
        root,
        folder / "data",
        settings,
        workers=workers,
        allow_missing_classes="classes" in recipe.tree,
    )
    truth = {row["id"]: row for row in read_table(truth_path)}
    for modality in modalities or datasets.load(dataset).spec(settings):
        source = dataset
        if (dataset, modality) == ("sarcasm", "image"):
            source = feelings(root, truth)
        begun = children_seconds()
        run = train(source, modality, folder, recipe, threads)
        result = run.read_json("result.json")
        tested = [row["id"] for row in read_table(run.file("predictions.csv"))]
        known = certainties(dataset, modality, root, truth, len(result["label_names"]))
        best = sum(known[sample] for sample in tested) / len(tested)
        yield Row(
            dataset,
            modality,
            result["test/acc"],
            best,
            1 / len(result["label_names"]),
            len(tested),
            children_seconds() - begun,
        )


def children_seconds() -> float:
    """CPU time of finished child processes: other programs on the machine do not change it."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def train(
    source: str | Path, modality: str, folder: Path, recipe: Recipe, threads: int
) -> RunFolder:
    """A finished `train.py --method Unimodal`; raises `UsageError` with its words if it fails."""
    out = folder / "runs" / modality
    flags = recipe.prep | recipe.flags | recipe.own[modality]
    words = ["--dataset", source, "--method", "Unimodal", "--modality", modality]
    words += ["--data_dir", folder / "data", "--output_dir", out]
    words += ["--devices", "cpu", "--threads", threads]
    words += [word for name, value in flags.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, TRAIN, *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UsageError(f"training {modality} of {source} failed: {done.stderr[-2000:]}")
    return RunFolder(out)


# What the cues allow ------------------------------------------------------------------------------


def certainties(
    dataset: str, modality: str, root: Path, truth: dict[str, dict], classes: int
) -> dict[str, float]:
    """For each sample the probability that the best guess from this modality alone is right.

    One where its cue is there, 1 / C where it was left out. Two sets differ. In sarcasm a text
    tells its class by a marker only; the feeling of the others needs the picture. In CMU-MOSI the
    cue itself is uncertain: see `rated`.
    """
    if dataset == "mosi":
        return rated(modality, root, truth)
    place = list(datasets.load(dataset).spec(datasets.load(dataset).Settings())).index(modality)
    cues = {sample: row[f"m{place + 1}_cue"] == "1" for sample, row in truth.items()}
    if (dataset, modality) == ("sarcasm", "text"):
        from fixtures.tweets import MARKERS

        words = [word for pair in MARKERS for word in pair]
        texts = sarcasm_texts(root)
        cues = {sample: any(word in texts.get(sample, "") for word in words) for sample in truth}
    return {sample: 1.0 if cue else 1 / classes for sample, cue in cues.items()}


def rated(modality: str, root: Path, truth: dict[str, dict]) -> dict[str, float]:
    """CMU-MOSI: a clip of rating y has n vectors whose mean along one direction is y * strength.

    The sum of n values of deviation 1 has the rating's sign with probability
    Phi(strength * |y| * sqrt(n)), and no other rule does better.
    """
    import numpy as np

    from data_prep.datasets.mosi import ARRAYS, VARIANTS, Settings
    from data_prep.modalities.unpickle import load
    from fixtures.mosi_tree import SIGNAL

    variant = VARIANTS[Settings().feature_files]
    place, known = list(ARRAYS).index(modality), {}
    for part in load(next(root.rglob(variant.file))).values():
        lengths = (np.asarray(part[ARRAYS[modality]]) != 0).any(2).sum(1)
        ratings = np.asarray(part[variant.ratings], dtype=float).reshape(-1)
        for name, rating, length in zip(part["id"], ratings, lengths):
            away = SIGNAL.strengths[place] * abs(rating) * sqrt(length)
            right = 0.5 + 0.5 * erf(away / sqrt(2))
            known[name] = right if truth[name][f"m{place + 1}_cue"] == "1" else 0.5
    return known


def sarcasm_texts(root: Path) -> dict[str, str]:
    """The text of each tweet."""
    layout = datasets.load("sarcasm")
    return {c.id: c.inline["text"] for c in layout.scan(root, layout.Settings()).candidates}


def feelings(root: Path, truth: dict[str, dict]) -> Path:
    """A manifest of the sarcasm set's pictures under what they show; returns its path.

    Alone, they tell nothing about sarcasm: a disc stands for a good feeling and a cross for a bad
    one, and only beside the feeling of the text they tell something. So the label to be learnt is
    the picture's own feeling: the text's where the tweet is meant, the other where it is sarcastic.
    It is known of tweets whose text holds a word of feeling.
    """
    from fixtures.tweets import FEELINGS

    rows = []
    for sample, text in sorted(sarcasm_texts(root).items()):
        said = [k for k, words in enumerate(FEELINGS) if any(word in text for word in words)]
        if said:
            meant = said[0] ^ (truth[sample]["label"] == "sarcastic")
            rows.append((sample, ("bad", "good")[meant], f"dataset_image/{sample}.jpg"))
    write_table(root / "feelings.csv", ("id", "label", "image"), rows)
    return root / "feelings.csv"


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="", help=f"one of {', '.join(RECIPES)}; default: all")
    parser.add_argument("--per_class", default="0", help="samples of each class; 0: the recipe's")
    parser.add_argument("--workers", default=str(cores()), help="processes that write and prepare")
    parser.add_argument("--threads", default="1", help="threads of a training")
    args = parser.parse_strictly(argv)
    if args.dataset and args.dataset not in RECIPES:
        raise unknown("data set", args.dataset, RECIPES)
    options = {
        "per_class": number("per_class", args.per_class, int, 0),
        "workers": number("workers", args.workers, int, 1),
        "threads": number("threads", args.threads, int, 1),
    }
    failed = 0
    for dataset in [args.dataset] if args.dataset else RECIPES:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            for row in run_check(dataset, Path(folder), **options):
                failed += not row.passed
                print(row.line(), flush=True)
        print(f"      {dataset}: {time.perf_counter() - begun:.0f} s in all", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(run_program(main))
