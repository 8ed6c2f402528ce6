"""AV-Digits with a third modality: the clip's first frame alone, as a picture of 16 pixels."""

from dataclasses import replace

from data_prep.datasets import demo
from data_prep.datasets.demo import LABELS, SOURCE, SPLIT_SECOND, Settings  # noqa: F401
from data_prep.spec import Video, VideoView


def spec(settings):
    still = Video(
        fps=None, positions=1, max_frames=1, min_frames=1, short_side=None, square=16, codec="raw"
    )
    return demo.spec(settings) | {"still": still}


def views(settings):
    return demo.views(settings) | {"still": VideoView(frames=1, augment="none")}


def normalise(settings):
    return demo.normalise(settings) | {"still": "train"}


def scan(root, settings):
    found = demo.scan(root, settings)
    more = [replace(c, sources=c.sources | {"still": c.sources["video"]}) for c in found.candidates]
    return replace(found, candidates=more)
