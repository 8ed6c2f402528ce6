"""Raw trees of all data sets, small, with few classes: in a few epochs something is learnt."""

from functools import partial
from pathlib import Path

from data_prep import datasets
from data_prep.prepare import prepare
from fixtures.food_tree import Look as FoodLook
from fixtures.food_tree import write_food101
from fixtures.mosi_tree import write_mosi
from fixtures.scenes import Look
from fixtures.trees import write_cremad, write_kinetics
from fixtures.tweets import TweetLook
from fixtures.tweets_tree import write_sarcasm, write_twitter2015
from fixtures.ucf_scenes import Look as UcfLook
from fixtures.ucf_tree import write_ucf101

SCENES = {"look": Look(32, 24, 5, (1.0, 1.0)), "workers": 1}
TWEETS = {"look": TweetLook(24, 24), "workers": 1}
# data set -> (its writer, samples of each class)
WRITERS = {
    "kinetics": (partial(write_kinetics, classes=6, **SCENES), 24),
    "cremad": (partial(write_cremad, **SCENES), 24),
    "ucf101": (
        partial(write_ucf101, classes=6, look=UcfLook(48, 36, 10, (0.7, 0.7)), workers=1),
        36,
    ),
    "food101": (partial(write_food101, classes=6, look=FoodLook(24, 24), workers=1), 48),
    "mosi": (write_mosi, 100),
    "sarcasm": (partial(write_sarcasm, **TWEETS), 80),
    "twitter2015": (partial(write_twitter2015, **TWEETS), 60),
}


def prepared(folder: Path, dataset: str, **settings: object) -> Path:
    """Writes the tree under `folder` and prepares it; returns the folder of prepared data."""
    writer, count = WRITERS[dataset]
    writer(folder / "raw" / dataset, count, truth_path=folder / f"{dataset}.csv")
    chosen = datasets.load(dataset).Settings(**settings)
    root, data = folder / "raw" / dataset, folder / "data"
    prepare(dataset, root, data, chosen, workers=1, allow_missing_classes=True)
    return data
