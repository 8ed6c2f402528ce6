"""CMU-MOSI: one pickle with text, audio and video features of 2,199 clips, rated from -3 to 3.

`features.py` describes the pickle. MMSA's files have BERT vectors, those of MulT GloVe vectors.
The official parts (1,284, 229 and 686 clips) share no videos.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import option
from data_prep.datasets import features
from data_prep.datasets.features import FeatureFiles, Label, Variant
from data_prep.spec import Scan, Spec

LABELS = ("negative", "positive")
SPLIT_SECOND = 2 / 3  # for --split_rule paper; the paper uses the official parts
SPLIT_RULE = "official"
HIGHEST = 3.0  # maximum rating; ratings are means of several annotators, -3..3

# For the unaligned files, the sources give 375 rows for one of audio and video and 500 for the
# other, but disagree on which: 500 is enough for both.
FILES = FeatureFiles(
    "mosi",
    "CMU-MOSI",
    "github.com/thuiar/MMSA and github.com/yaohungt/Multimodal-Transformer",
    {
        "mmsa_aligned": Variant(("aligned_50.pkl",), "regression_labels", 50),
        "mmsa_unaligned": Variant(("unaligned_50.pkl",), "regression_labels", 500),
        "mult_aligned": Variant(("mosi_data.pkl",), "labels", 50),
        "mult_unaligned": Variant(("mosi_data_noalign.pkl",), "labels", 500),
    },
)
SOURCE = FILES.source
detect = FILES.detect


@dataclass(frozen=True)
class Settings:
    """How a dataset of rated clips is prepared."""

    feature_files: str = option("mmsa_aligned", "feature files", choices=tuple(FILES.variants))
    label_rule: str = option(
        "neg_nonneg",
        "classes by rating y: neg_nonneg: y < 0, y >= 0; pos_nonpos: y <= 0, y > 0; nonzero:"
        " y < 0, y > 0, without zeros",
        choices=("neg_nonneg", "nonzero", "pos_nonpos"),
        source="BalanceBenchmark; the paper's 2,199 clips are all clips, including zeros",
    )
    standardise: bool = option(
        True, "scale audio and video features to mean 0 and deviation 1 over the training part"
    )


def spec(settings: Settings) -> Spec:
    """See `features.spec`."""
    rows = FILES.variants[settings.feature_files].rows
    origin = f"{settings.feature_files} {settings.label_rule}"
    return features.spec(rows, origin, settings.standardise)


def scan(root: Path, settings: Settings, files: FeatureFiles = FILES) -> Scan:
    """The rows of the pickle as candidates; raises `UsageError` for a damaged or other file."""
    label_of = functools.partial(_label, rule=settings.label_rule)
    return files.scan(root, settings.feature_files, LABELS, label_of)


def _label(value: Any, rule: str) -> Label:
    """The label of a rating (a number or one-element array)."""
    try:
        rating = float(value if isinstance(value, (int, float)) else value.reshape(()))
    except (AttributeError, TypeError, ValueError):
        rating = math.nan
    if not -HIGHEST <= rating <= HIGHEST:  # also catches NaN
        return -1, f"the rating {rating:g} is not between -3 and 3"
    if rule == "nonzero" and rating == 0:
        return -1, "the rating is 0, which --label_rule nonzero leaves out"
    return int(rating > 0 if rule == "pos_nonpos" else rating >= 0), ""
