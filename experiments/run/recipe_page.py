"""docs/recipe.md: every setting of MIDAS by default and by `--recipe official`, side by side."""

from dataclasses import fields

from common.options import format_value
from experiments.run.recipe import SHARED
from experiments.run.resolve import resolve
from experiments.run.settings import DECLARED

INTRO = """\
# Both recipes, setting by setting

By default a run follows the paper. Where the paper is silent it follows the authors' release
(commit d25b225, which was read and run), except for the draw of the split, the choice of frames on
kinetics and ucf101, and mirroring on ucf101. `--recipe official` follows the release in these
too, and wherever it differs from the paper. A flag given beside it wins; `--print_config` shows the
result:

    python train.py --dataset cremad --dataset_root DIR --method Midas
    python train.py --dataset cremad --dataset_root DIR --method Midas --recipe official

For other methods the recipe sets what they share with MIDAS: inputs, encoders, schedule, split and
last batch. Neither recipe has three settings of the release, since the printed results cannot have
been made with them: the warm-up of 0 on ucf101 (Table 2 has 93.95 without and 95.20 with one, and
Table 1 prints the latter), the second cut of the kinetics split at 2/3 (Table 5's sizes come from
0.66), and the 400 classes of its kinetics configuration (the paper has 31). The release reads
kinetics frames in the order in which the file system lists them; here they are sorted.

The release does not say how its frames and wav files were extracted; a tree prepared for it is read
as it is. Two differences remain: sound is resampled to 16 kHz and its channels are averaged (the
release keeps the rate and takes the first channel), and of a clip with more than 30 frames, 30
evenly spaced ones are stored before frames are chosen (in training on kinetics the release takes
none after the tenth). From a download we extract 2 frames a second on cremad, 1 on kinetics, and
flow by `--flow_algo` on ucf101; `--keep_all` keeps clips of cremad that the release leaves out.

The tables have every setting, preparation flag and hyperparameter of MIDAS; rows that differ are
bold. `python -m experiments recipe` makes this page.
"""


def page() -> str:
    """The page's text."""
    return INTRO + "".join(f"\n## {dataset}\n\n{table(dataset)}" for dataset in SHARED)


def table(dataset: str) -> str:
    """A row a setting, in the order of the help texts: name, default, official, source."""
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
