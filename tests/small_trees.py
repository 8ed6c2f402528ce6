"""Raw trees of all data sets, as small as training allows: every class in every part."""

from functools import partial
from pathlib import Path

from data_prep import layouts
from data_prep.generate.food_tree import Look as FoodLook
from data_prep.generate.food_tree import write_food101
from data_prep.generate.mosi_tree import write_mosi
from data_prep.generate.scenes import Look
from data_prep.generate.trees import write_cremad, write_kinetics
from data_prep.generate.tweets import TweetLook
from data_prep.generate.tweets_tree import write_sarcasm, write_twitter2015
from data_prep.generate.ucf_scenes import Look as UcfLook
from data_prep.generate.ucf_tree import write_ucf101
from data_prep.prepare import prepare

SCENES = {"look": Look(32, 24, 5, (1.0, 1.0)), "workers": 1}
TWEETS = {"look": TweetLook(24, 24), "workers": 1}
# data set -> (its writer, samples of each class)
WRITERS = {
    "kinetics": (partial(write_kinetics, **SCENES), 4),
    "cremad": (partial(write_cremad, **SCENES), 12),
    "ucf101": (partial(write_ucf101, look=UcfLook(48, 36, 10, (0.5, 0.5)), workers=1), 4),
    "food101": (partial(write_food101, look=FoodLook(24, 24), workers=1), 4),
    "mosi": (write_mosi, 30),
    "sarcasm": (partial(write_sarcasm, **TWEETS), 40),
    "twitter2015": (partial(write_twitter2015, **TWEETS), 30),
}


def prepared(folder: Path, dataset: str, **settings: object) -> Path:
    """Writes the tree under `folder` and prepares it; returns the folder of prepared data."""
    writer, count = WRITERS[dataset]
    writer(folder / "raw" / dataset, count, truth_path=folder / f"{dataset}.csv")
    chosen = layouts.load(dataset).Settings(**settings)
    prepare(dataset, folder / "raw" / dataset, folder / "data", chosen, workers=1)
    return folder / "data"
