"""IEMOCAP: one pickle with text, audio and video features of utterances with four emotions.

MulT's files (see `features.py`) have an array [N, 4, 2] under "labels": for each of neutral, happy,
sad and angry, in this order, (1, 0) if the utterance does not have the emotion and (0, 1) if it
does (src/dataset.py takes the argmax, src/eval_metrics.py has the order). MulT trains four binary
classifiers. Here, the class is the only emotion of the utterance; an utterance with none or several
has none. The files may lack "id".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import option
from data_prep.datasets import features
from data_prep.datasets.features import FeatureFiles, Label, Variant
from data_prep.spec import Scan, Spec

LABELS = ("neutral", "happy", "sad", "angry")
SPLIT_SECOND = 2 / 3
SPLIT_RULE = "official"
# Readers of MulT's aligned file report 20 rows, but CMU's folder of it is named seq_length_50.
FILES = FeatureFiles(
    "iemocap",
    "IEMOCAP",
    "github.com/yaohungt/Multimodal-Transformer",
    {
        "mult_aligned": Variant(("iemocap_data.pkl",), "labels", 50),
        "mult_unaligned": Variant(("iemocap_data_noalign.pkl",), "labels", 500),
    },
    needs_ids=False,
)
SOURCE = FILES.source
detect = FILES.detect


@dataclass(frozen=True)
class Settings:
    """How IEMOCAP is prepared."""

    feature_files: str = option("mult_aligned", "feature files", choices=tuple(FILES.variants))
    standardise: bool = option(
        True, "scale audio and video features to mean 0 and deviation 1 over the training part"
    )


def spec(settings: Settings) -> Spec:
    """See `features.spec`."""
    rows = FILES.variants[settings.feature_files].rows
    return features.spec(rows, settings.feature_files, settings.standardise)


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the pickle as candidates; raises `UsageError` for a damaged or other file."""
    return FILES.scan(root, settings.feature_files, LABELS, _label)


def _label(value: Any) -> Label:
    """The label of an array [4, 2] of zeros and ones."""
    pairs = value.tolist() if getattr(value, "shape", ()) == (len(LABELS), 2) else []
    if not pairs or any(pair not in ([0, 1], [1, 0]) for pair in pairs):
        return -1, "its labels are not four pairs of 0 and 1"
    there = [k for k, pair in enumerate(pairs) if pair == [0, 1]]
    if len(there) != 1:
        names = " and ".join(LABELS[k] for k in there) or "none"
        return -1, f"it must have one emotion, but has {names}"
    return there[0], ""
