"""Generates docs/recipe.md: every MIDAS setting, by default and with `--recipe official`."""

from dataclasses import fields

from common.options import format_value
from experiments.run.recipe import SHARED
from experiments.run.resolve import resolve
from experiments.run.settings import DECLARED

INTRO = """\
# Both recipes, setting by setting

By default a run follows the paper. Where the paper gives no value, it follows the authors' release
(commit d25b225, which we read and ran), except for how the split is drawn, how frames are chosen on
kinetics and ucf101, and horizontal flips on ucf101. `--recipe official` follows the release in
these as well, and wherever it differs from the paper. Explicit flags override the recipe;
`--print_config` shows the result:

    python train.py --dataset cremad --dataset_root DIR --method Midas
    python train.py --dataset cremad --dataset_root DIR --method Midas --recipe official

For other methods the recipe sets what they share with MIDAS: inputs, encoders, schedule, split and
last batch. Neither recipe uses three settings of the release, because they cannot have produced the
printed results: the warm-up of 0 on ucf101 (Table 2 has 93.95 without warm-up and 95.20 with it;
Table 1 prints the latter), the second cut of the kinetics split at 2/3 (Table 5's sizes come from
0.66), and the 400 classes of its kinetics configuration (the paper has 31). The release reads
kinetics frames in file-system order; here they are sorted.

The release does not say how its frames and wav files were extracted; a folder prepared for it is
read unchanged, with two differences. Audio is resampled to 16 kHz and its channels are averaged
(the release keeps the rate and uses the first channel). For clips with more than 30 frames, 30
evenly spaced ones are stored before frames are chosen (in training on kinetics, the release never
uses frames after the tenth). From raw downloads we extract 2 frames per second on cremad, 1 on
kinetics, and flow by `--flow_algo` on ucf101; `--keep_all` keeps cremad clips that it excludes.

The tables list every setting, preparation flag and hyperparameter of MIDAS; rows that differ are
bold. `python -m experiments recipe` generates this page.
"""


def page() -> str:
    """The page's text."""
    return INTRO + "".join(f"\n## {dataset}\n\n{table(dataset)}" for dataset in SHARED)


def table(dataset: str) -> str:
    """One row per setting, in the order of the help texts: name, default, official, source."""
    lines = ["| setting | default | official | source |", "|---|---|---|---|"]
    words, declared = ["--dataset", dataset, "--method", "Midas", "--recipe"], DECLARED[dataset]
    paper, official = (resolve([*words, name], "")[0] for name in ("paper", "official"))
    for part in ("settings", "prep", "hparams"):
        for field in fields(getattr(paper, part)):
            value, source = declared.get(field.name, (0, field.metadata["source"]))
            runs = (getattr(paper, part), getattr(official, part))
            ours, theirs = (format_value(getattr(settings, field.name)) for settings in runs)
            if value is None:
                ours = theirs = "the run's --seed"
            cells = [f"`{field.name}`", ours, theirs]
            if ours != theirs:
                cells = [f"**{cell}**" for cell in cells]
                source += "" if "release" in source else "; official release"
            if field.name != "recipe":
                lines.append(f"| {' | '.join([*cells, source])} |")
    return "\n".join(lines) + "\n"
