"""AV-Digits, the built-in demo dataset: labels.csv and clips/<id>.avi + clips/<id>.wav."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import read_table
from common.options import UsageError
from data_prep.datasets.tree import RawTree, names_in
from data_prep.spec import Candidate, Scan, Spec

LABELS = tuple("0123456789")
SPLIT_SECOND = 2 / 3
WRITE = "python -m data_prep --dataset demo"
SOURCE = f"AV-Digits is generated, not downloaded: `{WRITE}` writes labels.csv and clips/ (140 MB)."
ENDINGS = {"audio": ".wav", "video": ".avi"}


@dataclass(frozen=True)
class Settings:
    """AV-Digits has no settings."""


def spec(settings: Settings) -> Spec:
    """Audio [129, 31], 3 frames [32, 32, 3], not augmented; all numbers are our choice.

    The hop of 40 ms exceeds the window of 16 ms to keep the data small; the tones last longer.
    """
    from data_prep.modalities.audio import Audio
    from data_prep.modalities.video import Video

    sound = Audio("stft", 16000, seconds=1.2, n_fft=256, hop=640, normalise="train")
    still: dict[str, Any] = {"positions": 3, "max_frames": 3, "min_frames": 3, "frames": 3}
    small: dict[str, Any] = {"short_side": None, "square": 32, "codec": "raw"}
    return {"audio": sound, "video": Video(**still, **small, augment="none", normalise="train")}


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of labels.csv; raises `UsageError` if it is missing."""
    table = root / "labels.csv"
    if not table.is_file():
        raise UsageError(f"{root} is not AV-Digits: it has no labels.csv. `{WRITE}` generates it")
    rows = read_table(table, ("id", "label"))
    listed = [(r["id"].strip(), r["label"].strip()) for r in rows]
    there = set(names_in(root / "clips") if (root / "clips").is_dir() else ())
    tree = RawTree(root)
    for name, label in listed:
        files = {modality: (f"clips/{name}{ending}",) for modality, ending in ENDINGS.items()}
        missing = " ".join(path for (path,) in files.values() if path[6:] not in there)
        tree.take(
            Candidate(name, LABELS.index(label) if label in LABELS else -1, files),
            missing or "labels.csv",
            (name in tree.candidates, "duplicate", f"label {label!r}"),
            (label not in LABELS, "no_label", f"{label!r} is not a digit"),
            (missing, "missing_file", ""),
        )
    names = {name for name, _ in listed}
    for file in sorted(there):
        path = Path(file)
        if path.suffix not in ENDINGS.values():
            tree.reject_unknown(f"clips/{file}")
        elif path.stem not in names:
            tree.reject(path.stem, f"clips/{file}", "no_label", "not in labels.csv")
    return tree.scan(LABELS, "demo")
