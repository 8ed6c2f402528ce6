"""Small raw trees of all datasets with few classes, so that a few epochs learn something."""

from pathlib import Path

from data_prep import datasets
from data_prep.prepare import prepare
from fixtures.scenes import Look
from fixtures.trees import MANY_CLASSES, write_tree

CLIPS, PICTURES = Look(32, 24, 5, (1.0, 1.0)), Look(24, 24, fps=2)
# dataset -> (samples of each class, how they look)
SMALL_TREES = {
    "kinetics": (24, CLIPS),
    "cremad": (24, CLIPS),
    "ucf101": (36, Look(48, 36, 10, (0.7, 0.7))),
    "food101": (48, PICTURES),
    "avmnist": (36, Look(28, 28, seconds=(0.3, 0.5))),
    "mosi": (100, None),
    "sarcasm": (80, PICTURES),
    "twitter2015": (60, PICTURES),
}


def prepared(folder: Path, dataset: str, **settings: object) -> Path:
    """Writes the tree under `folder` and prepares it; returns the folder of prepared data."""
    count, look = SMALL_TREES[dataset]
    root, data = folder / "raw" / dataset, folder / "data"
    classes = 6 if dataset in MANY_CLASSES else None
    truth = folder / f"{dataset}.csv"
    write_tree(dataset, root, count, truth_path=truth, classes=classes, look=look, workers=1)
    chosen = datasets.load(dataset).Settings(**settings)
    prepare(dataset, root, data, chosen, workers=1, allow_missing_classes=True)
    return data
