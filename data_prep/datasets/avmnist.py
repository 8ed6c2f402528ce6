"""AV-MNIST: spoken digits of the Free Spoken Digit Dataset, each with a handwritten one of MNIST.

The pairs are not in any download: each recording gets a picture of its class, and no picture is
used twice. The pictures of a class are ordered by a hash of their place in the file, since MNIST's
first ones are the neater ones, and the recordings by speaker and number.

`--split_rule official` follows the rule of the recordings: those numbered 0 to 4 are the test part;
5 to 9 are our validation part. `group` keeps the speakers apart. Published versions of AV-MNIST
pair the same two sources, but are not available, and their generators differ.
"""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.options import UsageError, option
from data_prep.datasets.tree import RawTree, find_base, walk
from data_prep.reasons import Reject
from data_prep.spec import Candidate, Scan, Spec

LABELS = tuple("0123456789")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "The root must contain the folder recordings of github.com/Jakobovski/free-spoken-digit-dataset"
    " and MNIST's files of pictures and labels, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,"
    " compressed (.gz) or not."
)
NAME = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]+)\.wav", re.ASCII)  # digit, speaker, number
IDX = re.compile(r"(t10k|train)-(images|labels)[.-]idx[13]-ubyte(?:\.gz)?", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """How AV-MNIST is prepared."""

    pictures: str = option(
        "t10k",
        "MNIST's part from which the pictures come: 10,000 or 60,000",
        choices=("t10k", "train"),
        source="our choice: 3,000 are needed",
    )
    flip: bool = option(
        False, "mirror pictures in training", source="our choice: a mirrored digit is none"
    )


def spec(settings: Settings) -> Spec:
    """Audio [129, 63]: one second of 8 kHz. Pictures [28, 28], not augmented. Our choice."""
    from data_prep.modalities.audio import Audio
    from data_prep.modalities.image import Image

    sound = Audio("stft", 8000, seconds=1.0, n_fft=256, hop=128, normalise="train")
    augment = "flip" if settings.flip else "none"
    return {"audio": sound, "image": Image(augment=augment, normalise="train")}


def detect(root: Path) -> dict[str, Any]:
    """`pictures`: train if the root has only that part."""
    there = {part for part, _ in _idx_files(root)}
    return {"pictures": "train"} if there == {"train"} else {}


def scan(root: Path, settings: Settings) -> Scan:
    """The recordings with their pictures; raises `UsageError` if a file of MNIST cannot be used."""
    tree = RawTree(root, find_base(root, SOURCE, ("recordings",))[0])
    files = _idx_files(root)
    places = [files.get((settings.pictures, what)) for what in ("images", "labels")]
    if None in places:
        lacks = " or ".join(w for w, p in zip(("pictures", "labels"), places) if p is None)
        raise UsageError(f"{root} has no {settings.pictures} file of {lacks}. {SOURCE}")
    pictures, labels = _read(root, *places)
    recordings = defaultdict(list)
    for path in tree.walk("recordings"):
        if match := NAME.fullmatch(Path(path).name):
            digit, speaker, number = match.groups()
            recordings[int(digit)].append((speaker, int(number), path))
        else:
            tree.reject_unknown(path)
    for digit, found in sorted(recordings.items()):
        rows = sorted((labels == digit).nonzero()[0].tolist(), key=_rank)
        for place, (speaker, number, path) in enumerate(sorted(found)):
            sources = {"audio": (path,), "image": (pictures,)}
            part = "test" if number < 5 else "val" if number < 10 else "train"
            left = place < len(rows)
            row = {"image": rows[place]} if left else {}
            tree.take(
                Candidate(Path(path).stem, digit, sources, speaker, part, row),
                path,
                (not left, "missing_file", f"{pictures} has no further picture of class {digit}"),
            )
    return tree.scan(LABELS, "avmnist")


def _rank(row: int) -> bytes:
    return hashlib.sha256(f"avmnist:{row}".encode()).digest()


def _idx_files(root: Path) -> dict[tuple[str, str], str]:
    """(part, images or labels) -> MNIST's file, relative to the root; the first one if several."""
    found: dict[tuple[str, str], str] = {}
    for path in walk(root) if root.is_dir() else ():
        if match := IDX.fullmatch(Path(path).name):
            found.setdefault((match[1], match[2]), path)
    return found


def _read(root: Path, pictures: str, labels: str) -> tuple[str, Any]:
    """The path of the pictures, and their labels [N]; checks that the files belong together."""
    # Imported here to keep --help fast: numpy takes a while.
    from data_prep.modalities.idx import read_idx

    try:
        shape = read_idx(root / pictures, 3).shape
        values = read_idx(root / labels, 1)
    except Reject as reject:
        raise UsageError(f"{root}: {reject.detail}. Download it again. {SOURCE}") from None
    if len(values) != shape[0] or values.max(initial=0) > 9:
        what = f"{shape[0]} pictures and {len(values)} labels up to {values.max(initial=0)}"
        raise UsageError(f"{root / labels} does not belong to {pictures}: {what}")
    return pictures, values
