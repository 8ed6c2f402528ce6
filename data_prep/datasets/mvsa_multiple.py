"""MVSA-Multiple (Niu et al. 2016): as MVSA-Single (see `mvsa`), with three annotators."""

from pathlib import Path

from data_prep.datasets import mvsa
from data_prep.spec import Scan

LABELS, SPLIT_SECOND, SOURCE = mvsa.LABELS, mvsa.SPLIT_SECOND, mvsa.SOURCE
Settings, spec = mvsa.Settings, mvsa.spec


def scan(root: Path, settings: mvsa.Settings) -> Scan:
    """The samples of the list; raises `UsageError` if it is another tree."""
    return mvsa.scan_download(root, 3)
