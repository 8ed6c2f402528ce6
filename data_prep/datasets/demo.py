"""AV-Digits, the embedded demo set: labels.csv and clips/<id>.avi + clips/<id>.wav."""

from dataclasses import dataclass
from pathlib import Path

from common.files import is_ignored, read_table
from common.options import UsageError
from data_prep.spec import Candidate, Rejection, Scan, Spec

LABELS = tuple("0123456789")
SPLIT_SECOND = 2 / 3
WRITE = "python -m data_prep --dataset demo"
SOURCE = f"AV-Digits is generated, not downloaded: `{WRITE}` writes labels.csv and clips/ (140 MB)."
ENDINGS = {"audio": ".wav", "video": ".avi"}


@dataclass(frozen=True)
class Settings:
    """AV-Digits is prepared in one way only: there is nothing to set."""


def spec(settings: Settings) -> Spec:
    """Audio [129, 31], video 3 frames of [32, 32, 3], not augmented; all numbers are our choice.

    The hop of 40 ms is longer than the window of 16 ms: samples are skipped on purpose, since the
    tones last long and the demo must be small. Both are normalised by the training part.
    """
    from data_prep.modalities.audio import Audio
    from data_prep.modalities.video import Video

    sound = {"sample_rate": 16000, "seconds": 1.2, "n_fft": 256, "hop": 640}
    frames = {"positions": 3, "max_frames": 3, "min_frames": 3, "short_side": None, "square": 32}
    return {
        "audio": Audio("stft", **sound, normalise="train"),
        "video": Video(**frames, codec="raw", frames=3, augment="none", normalise="train"),
    }


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of labels.csv in the order of their ids; raises `UsageError` where it is missing."""
    table = root / "labels.csv"
    if not table.is_file():
        raise UsageError(f"{root} is not AV-Digits: it has no labels.csv. `{WRITE}` writes the set")
    listed = read_table(table, ("id", "label"))
    rows = [(row["id"].strip(), row["label"].strip()) for row in listed]
    names = {path.name for path in (root / "clips").glob("*") if not is_ignored(path.name)}
    candidates, rejected = {}, []
    for name, label in rows:
        sources = {modality: f"clips/{name}{ending}" for modality, ending in ENDINGS.items()}
        missing = [path for path in sources.values() if path.removeprefix("clips/") not in names]
        if name in candidates:
            rejected.append(Rejection(name, "labels.csv", "duplicate", f"label {label!r}"))
        elif label not in LABELS:
            rejected.append(Rejection(name, "labels.csv", "no_label", f"{label!r} is no digit"))
        elif missing:
            rejected.append(Rejection(name, " ".join(missing), "missing_file"))
        else:
            files = {modality: (path,) for modality, path in sources.items()}
            candidates[name] = Candidate(name, LABELS.index(label), files)
    rejected += _unlisted(names, {name for name, _ in rows})
    return Scan(LABELS, [candidates[name] for name in sorted(candidates)], rejected)


def _unlisted(names: set[str], listed: set[str]) -> list[Rejection]:
    """The files in clips/ that labels.csv does not name."""
    rejected = []
    for name in sorted(names):
        stem, ending = Path(name).stem, Path(name).suffix
        if ending not in ENDINGS.values():
            rejected.append(Rejection(stem, f"clips/{name}", "unknown_name"))
        elif stem not in listed:
            rejected.append(Rejection(stem, f"clips/{name}", "no_label", "not in labels.csv"))
    return rejected
