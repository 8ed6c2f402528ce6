"""One module for each dataset: it knows the raw layout of that dataset and nothing else.

Such a module defines

* `LABELS`: the class names in the order of their ids;
* `Settings`: a frozen dataclass of `common.options.option` fields, the preparation flags;
* `spec(settings) -> {name: Modality}`: the modalities in order, how each is stored and becomes an
  input; it imports `data_prep/modalities/` itself, so that --help waits for no decoder;
* `scan(root, settings) -> Scan`: the raw tree as candidates; it reads names and lists, no media;
* `SPLIT_SECOND`: the share of the held-out samples that becomes the test part;
* `SOURCE`: where the download comes from, and what the root must hold, for error messages;
* optionally `detect(root)`, defaults of settings that follow from what the root holds;
  `SPLIT_RULE`, the rule by which training splits by default ("paper" without it); `RELEASE_CUT`,
  the `cut` of `split.split_release` ("test" without it).

A path that ends in .csv is a user's own manifest (`datasets/manifest.py`).
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from common.files import file_digest
from common.options import UsageError, match_name

# name -> (one line for --list, the paper's number of samples or None); modules load when used
DATASETS = {
    "demo": ("AV-Digits, embedded: 1,797 handwritten digits with class tones", None),
    "cremad": ("CREMA-D: emotional speech, audio + video, 6 classes", 7442),
    "kinetics": ("Kinetics-Sounds: actions with sound, audio + video, 31 classes", 24129),
    "ucf101": ("UCF-101: actions, optical flow + video, 101 classes", 13085),
    "food101": ("UPMC Food-101: web pages of dishes, title + picture, 101 classes", 90688),
    "mosi": ("CMU-MOSI: sentiment, text + audio + video features, 2 classes", 2199),
    "ave": ("AVE: audible and visible events, audio + video, 28 classes", None),
    "sarcasm": ("Sarcasm in tweets with a picture (Cai et al.), image + text, 2 classes", 24715),
    "twitter2015": ("Twitter2015: sentiment towards a target, image + text, 3 classes", 5338),
}


def is_manifest(name: str) -> bool:
    """Whether a `--dataset` value is the path of a user's own manifest."""
    return name.casefold().endswith(".csv")


def public_name(name: str) -> str:
    """The name of a dataset in folders and tables.

    A manifest's is its file's stem and eight digits of the SHA-256 of its content: with other rows
    it is another dataset. Raises `UsageError` where it cannot be read.
    """
    if not is_manifest(name):
        return match_name("data set", name, DATASETS)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).stem)
    try:
        return f"{stem}-{file_digest(Path(name))[:8]}"
    except OSError as error:
        raise UsageError(f"--dataset {name} cannot be read: {error.strerror}") from None


def detected(layout: Any, root: str | None) -> dict[str, Any]:
    """Settings that follow from what `root` holds and are not the defaults; none without a root."""
    found = layout.detect(Path(root)) if root and hasattr(layout, "detect") else {}
    return {k: value for k, value in found.items() if value != getattr(layout.Settings(), k)}


def tell_detected(root: str, found: dict[str, Any], given: dict[str, Any]) -> None:
    """Says which settings were taken from what the root holds, and not `given`."""
    for name, value in found.items():
        if name not in given:
            print(f"note: {root} holds the files of --{name} {value}: using them", file=sys.stderr)


def load(name: str, order: list[str] | None = None) -> Any:
    """The layout of a dataset, looked up without regard to case, or of a manifest by its path.

    `order` are a manifest's modalities where they are known and the file need not be read.
    """
    if is_manifest(name):
        from data_prep.datasets.manifest import Manifest

        return Manifest(Path(name), order)
    return importlib.import_module(f"data_prep.datasets.{match_name('data set', name, DATASETS)}")
