"""One module a data set: it knows that raw layout and nothing else.

A layout module defines

* `LABELS`: the class names in the order of their ids;
* `Settings`: a frozen dataclass of `common.options.option` fields, the preparation flags;
* `spec(settings) -> Spec`: the stored form of each modality, in the data set's order;
* `views(settings) -> {modality: AudioView | VideoView}`: how stored samples become inputs;
* `scan(root, settings) -> Scan`: the raw tree as candidates; it reads names and lists, no media;
* `normalise(settings)`: modality -> "imagenet", "train" (mean and standard deviation of the
  training part), "none", or the pair (mean, standard deviation);
* `SPLIT_SECOND`: the share of the held-out samples that becomes the test part;
* `SOURCE`: where the download comes from, and what the root must hold, for error messages.

This table is all that a name needs: the module is imported when it is used.
"""

import importlib
from types import ModuleType

from common.options import match_name

# name -> (one line for --list, the paper's number of samples or None)
DATASETS = {
    "demo": (
        "AV-Digits, embedded: 1,797 handwritten digits with class tones, written as .avi + .wav",
        None,
    ),
    "cremad": ("CREMA-D: emotional speech, audio + video, 6 classes", 7442),
    "kinetics": ("Kinetics-Sounds: actions with sound, audio + video, 31 classes", 24129),
}


def load(name: str) -> ModuleType:
    """The layout module of a data set, looked up without regard to case."""
    return importlib.import_module(f"data_prep.layouts.{match_name('data set', name, DATASETS)}")
