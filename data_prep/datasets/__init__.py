"""One module per dataset, which only knows the raw layout of that dataset.

Each module defines

* `LABELS`: the class names in the order of their ids;
* `Settings`: a frozen dataclass of `common.options.option` fields, the preparation flags;
* `spec(settings) -> {name: Modality}`: the modalities in order, with their storage and input
  settings; it imports `data_prep/modalities/` itself, so that --help does not load decoders;
* `scan(root, settings) -> Scan`: the raw tree as candidates; reads names and lists, but no media;
* `SPLIT_SECOND`: the share of the held-out samples that goes to the test part;
* `SOURCE`: for error messages: the source of the download, and what the root must contain;
* optionally `detect(root)`, which derives defaults of settings from the content of the root;
  `SPLIT_RULE`, the split that preparation shows (default "paper"), which must be training's default
  in `experiments/run/settings.py`; `RELEASE_CUT`, the `cut` of `split.split_release` (default
  "test").

A path that ends in .csv is a user's own manifest (`datasets/manifest.py`).
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from common.files import file_digest
from common.options import UsageError, match_name

# name -> (line for --list, number of samples in the paper or None); modules are imported on use
DATASETS = {
    "demo": ("AV-Digits, built-in: 1,797 handwritten digits with class tones", None),
    "cremad": ("CREMA-D: emotional speech, audio + video, 6 classes", 7442),
    "kinetics": ("Kinetics-Sounds: actions with sound, audio + video, 31 classes", 24129),
    "ucf101": ("UCF-101: actions, optical flow + video, 101 classes", 13085),
    "food101": ("UPMC Food-101: web pages of dishes, title + image, 101 classes", 90688),
    "mosi": ("CMU-MOSI: sentiment, text + audio + video features, 2 classes", 2199),
    "mosei": ("CMU-MOSEI: sentiment, text + audio + video features, 2 classes", None),
    "iemocap": ("IEMOCAP: emotions, text + audio + video features, 4 or 6 classes", None),
    "avmnist": ("AV-MNIST: spoken + handwritten digits, audio + image, 10 classes", None),
    "ave": ("AVE: audible and visible events, audio + video, 28 classes", None),
    "vggsound": ("VGG-Sound: visible sources of sound, audio + video, 309 classes", None),
    "sarcasm": ("Sarcasm in tweets with an image (Cai et al.), image + text, 2 classes", 24715),
    "twitter2015": ("Twitter2015: sentiment towards a target, image + text, 3 classes", 5338),
    "mvsa": ("MVSA-Single: sentiment of tweets with an image, image + text, 3 classes", None),
    "mvsa_multiple": ("MVSA-Multiple: the same, by three annotators", None),
}


def is_manifest(name: str) -> bool:
    """Whether a `--dataset` value is the path of a user's own manifest."""
    return name.casefold().endswith(".csv")


def public_name(name: str) -> str:
    """The name of a dataset in folders and tables.

    For a manifest, the file stem and eight digits of the SHA-256 of its content: other rows make
    another dataset. Raises `UsageError` if the manifest cannot be read.
    """
    if not is_manifest(name):
        return match_name("dataset", name, DATASETS)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).stem)
    try:
        return f"{stem}-{file_digest(Path(name))[:8]}"
    except OSError as error:
        raise UsageError(f"--dataset {name} cannot be read: {error.strerror}") from None


def detected(layout: Any, root: str | None) -> dict[str, Any]:
    """Non-default settings derived from the content of `root`; none without a root."""
    found = layout.detect(Path(root)) if root and hasattr(layout, "detect") else {}
    return {k: value for k, value in found.items() if value != getattr(layout.Settings(), k)}


def tell_detected(root: str, found: dict[str, Any], given: dict[str, Any]) -> None:
    """Reports settings derived from the content of the root, except those `given`."""
    for name, value in found.items():
        if name not in given:
            print(f"note: {root} has the files of --{name} {value}: using them", file=sys.stderr)


def load(name: str, kinds: dict[str, str] | None = None) -> Any:
    """The layout of a dataset by its (case-insensitive) name, or of a manifest by its path.

    `kinds`: the modalities of a manifest and their kinds if known, so that it need not be read.
    """
    if is_manifest(name):
        from data_prep.datasets.manifest import Manifest

        return Manifest(Path(name), kinds)
    return importlib.import_module(f"data_prep.datasets.{match_name('dataset', name, DATASETS)}")
