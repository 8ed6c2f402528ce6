"""AV-Digits with a third modality: the clip's first frame, as a picture of 16 pixels."""

from dataclasses import replace

from data_prep.datasets import demo
from data_prep.datasets.demo import LABELS, SOURCE, SPLIT_SECOND, Settings  # noqa: F401
from data_prep.modalities.video import Video


def spec(settings):
    stored = {"positions": 1, "max_frames": 1, "short_side": None, "square": 16, "codec": "raw"}
    still = Video(**stored, frames=1, augment="none", normalise="train")
    return demo.spec(settings) | {"still": still}


def scan(root, settings):
    found = demo.scan(root, settings)
    more = [replace(c, sources=c.sources | {"still": c.sources["video"]}) for c in found.candidates]
    return replace(found, candidates=more)
