"""CMU-MOSEI: one pickle with text, audio and video features of clips, rated from -3 to 3.

Files, ratings and settings are those of CMU-MOSI, except for names: MulT's files are named
mosei_senti_data.pkl and mosei_senti_data_noalign.pkl, and some later readers omit "senti".
"""

from pathlib import Path

from data_prep.datasets import mosi
from data_prep.datasets.features import FeatureFiles
from data_prep.spec import Scan

LABELS, SPLIT_SECOND, SPLIT_RULE = mosi.LABELS, mosi.SPLIT_SECOND, mosi.SPLIT_RULE
Settings, spec = mosi.Settings, mosi.spec
_NAMES = {
    "mult_aligned": ("mosei_senti_data.pkl", "mosei_data.pkl"),
    "mult_unaligned": ("mosei_senti_data_noalign.pkl", "mosei_data_noalign.pkl"),
}
FILES = FeatureFiles(
    "mosei",
    "CMU-MOSEI",
    mosi.FILES.origin,
    {
        key: variant._replace(names=_NAMES.get(key, variant.names))
        for key, variant in mosi.FILES.variants.items()
    },
)
SOURCE = FILES.source
detect = FILES.detect


def scan(root: Path, settings: mosi.Settings) -> Scan:
    """As for CMU-MOSI."""
    return mosi.scan(root, settings, FILES)
