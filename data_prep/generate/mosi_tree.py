"""CMU-MOSI in miniature: pickles of both families of files, with ratings, padding and flaws.

Each clip has a rating y of -3 to 3 in steps of 0.2, exact zeros among them, and in each modality a
sequence of Gaussian vectors whose mean along one direction is y times the modality's strength, or,
where the cue is left out, zero. Text is easy and the other two are hard to learn from: all numbers
are our choice. Sequences end at different rows, padded behind (MMSA) or in front (MulT); audio has
-inf and video NaN here and there, as the real files do.

MMSA's files are written as Python 3 writes them, MulT's as Python 2 did. Beside the root stands the
truth, as for the trees of clips. Files that must be refused as a whole are `pickles`'.
"""

import pickle
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_table
from data_prep.generate import corrupt
from data_prep.generate.media import whole_folder
from data_prep.generate.pickles import python2_pickle
from data_prep.layouts.mosi import ARRAYS, LABELS, PARTS, VARIANTS

TRUTH = ("id", "label", "m1_cue", "m2_cue", "m3_cue", "corruption", "expected_reason")

# What must become of a clip: a reason, "flag:<name>", or "" as in `generate.corrupt`.
EXPECTED = {
    "zero_rating": "",  # y = 0 is of class 1 under the default rule
    "inf_audio": "flag:cleaned",
    "nan_video": "flag:cleaned",
    "nan_text": "bad_values",
    "no_face": "flag:empty",  # zeros in all rows of the video
    "no_rows": "unreadable",  # in all rows of everything
    "nan_rating": "no_label",
    "rating_7": "no_label",
    "no_id": "unknown_name",
    "duplicate": "duplicate",
}
# What stands beside the file, where no other file belongs.
BESIDE = {kind: "unknown_name" for kind in ("unknown_file", "pipe", "broken_link", "not_utf8")}

CLIPS = 4  # of a video; the first two of a class each
PART_CYCLE = ("train", "valid", "test", "train", "train")  # of the videos: parts share none
ID_LETTERS = string.ascii_letters + string.digits + "_-"
FLAWS = 3  # values of a sequence that are not finite


@dataclass(frozen=True)
class Signal:
    """How clips look. One entry a modality: text, audio, video."""

    widths: tuple[int, int, int] = (24, 5, 20)  # the real files: 768 or 300, 5, 20
    strengths: tuple[float, float, float] = (0.5, 0.15, 0.15)  # of the mean, a unit of rating
    erased: tuple[float, float, float] = (0.2, 0.3, 0.3)  # probability that the cue is left out
    aligned: tuple[int, int, int] = (12, 12, 12)  # rows of the arrays; the real files: 50
    unaligned: tuple[int, int, int] = (12, 30, 40)  # the real files: 50, and 375 and 500
    shortest: int = 4  # rows that a sequence has at least
    flawed: float = 0.2  # probability of values that are not finite, in audio and in video


SIGNAL = Signal()


@dataclass(frozen=True)
class Clip:
    """One row of a pickle: `name` is its id ("" where it has none), `sequences` are not padded."""

    name: str
    part: str
    rating: float
    sequences: list[np.ndarray]
    cues: tuple[int, int, int]
    kind: str = ""


def write_mosi(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    files: str = "mmsa_aligned",
    seed: int = 0,
    signal: Signal = SIGNAL,
    corrupt_each: int = 0,
) -> None:
    """The file of `files` under its usual name: `per_class` sound clips of either class, rounded up
    to whole videos, and `corrupt_each` more of each kind of damage.

    10 of a class and more fill all official parts. MMSA's stands in MOSI/Processed, MulT's in the
    root itself. Raises `UsageError` when `root` is in use.
    """
    variant, mmsa = VARIANTS[files], files.startswith("mmsa")
    rows = signal.aligned if files.endswith("_aligned") else signal.unaligned
    clips = _clips(per_class, corrupt_each, seed, signal, rows, "$_$" if mmsa else "_")
    with whole_folder(root, truth_path) as folder:
        home = folder / "MOSI" / "Processed" if mmsa else folder
        home.mkdir(parents=True, exist_ok=True)
        corrupt.write_hidden(home, (".DS_Store", "._notes.csv", "Thumbs.db", "__MACOSX/._x"))
        beside = [_write_beside(home, kind, k) for kind in BESIDE for k in range(corrupt_each)]
        parts = {
            part: _part([clip for clip in clips if clip.part == part], rows, mmsa) for part in PARTS
        }
        content = pickle.dumps(parts, protocol=4) if mmsa else python2_pickle(parts)
        (home / variant.file).write_bytes(content)
        write_table(truth_path, TRUTH, sorted([*map(_truth_line, clips), *beside]))


def _truth_line(clip: Clip) -> tuple:
    label = LABELS[int(clip.rating >= 0)]
    return clip.name, label, *clip.cues, clip.kind, EXPECTED[clip.kind] if clip.kind else ""


def _write_beside(folder: Path, kind: str, number: int) -> tuple:
    """Writes what is no file of features, and returns its line of the truth."""
    path = folder / f"notes {kind} {number}.csv"
    path.write_bytes(b"")
    corrupt.damage_file(kind, path)
    return corrupt.told_stem(kind, path.stem), "", 0, 0, 0, kind, BESIDE[kind]


def _clips(
    per_class: int, each: int, seed: int, signal: Signal, rows: tuple[int, int, int], mark: str
) -> list[Clip]:
    """The sound clips, then the damaged ones, in videos of their own; `mark` joins an id."""
    sound = -(-2 * per_class // CLIPS) * CLIPS
    kinds = [""] * sound + [kind for kind in EXPECTED for _ in range(each)]
    # Two numbers, as for clips, but never a clip's.
    rng = np.random.default_rng([seed, len(kinds)])
    directions = [rng.standard_normal(width) for width in signal.widths]
    directions = [direction / np.linalg.norm(direction) for direction in directions]
    videos = [_video_id(k, rng) for k in range(-(-len(kinds) // CLIPS))]
    clips: list[Clip] = []
    for k, kind in enumerate(kinds):
        video, turn = divmod(k, CLIPS)
        draw = np.random.default_rng([seed, k])
        rating = _rating(draw, k % 2, kind)
        sequences, cues = _sequences(draw, rating, signal, rows, directions)
        part = PART_CYCLE[video % len(PART_CYCLE)]
        clip = Clip(f"{videos[video]}{mark}{turn + 1}", part, rating, sequences, cues, kind)
        clips.append(_damaged(clip, clips))
    return clips


def _video_id(turn: int, rng: np.random.Generator) -> str:
    """A YouTube id; some begin with a dash, or hold underscores where a clip's number is sought."""
    letters = "".join(rng.choice(list(ID_LETTERS), 11))
    return {0: f"-{letters[1:]}", 1: f"_{letters[1:5]}--{letters[7:]}", 2: f"{letters[:8]}_12"}.get(
        turn % 4, letters
    )


def _rating(rng: np.random.Generator, label: int, kind: str) -> float:
    """-3 to -0.2, or 0 to 3, in steps of 0.2."""
    steps = int(rng.integers(0, 16)) if label else -int(rng.integers(1, 16))
    special = {"zero_rating": 0.0, "nan_rating": np.nan, "rating_7": 7.0}
    return special.get(kind, round(0.2 * steps, 1))


def _sequences(
    rng: np.random.Generator,
    rating: float,
    signal: Signal,
    rows: tuple[int, int, int],
    directions: list[np.ndarray],
) -> tuple[list[np.ndarray], tuple]:
    """(float32 [L, D] of each modality, whether its cue was drawn)."""
    sequences, cues = [], []
    for m, direction in enumerate(directions):
        kept = bool(rng.random() >= signal.erased[m])
        length = int(rng.integers(signal.shortest, rows[m] + 1))
        values = rng.standard_normal((length, len(direction)))
        values += kept * signal.strengths[m] * np.nan_to_num(rating) * direction
        if m and rng.random() < signal.flawed:
            _flaw(values, -np.inf if m == 1 else np.nan, rng)
        sequences.append(values.astype(np.float32))
        cues.append(int(kept))
    return sequences, tuple(cues)


def _flaw(values: np.ndarray, bad: float, rng: np.random.Generator) -> None:
    """Single values that are not finite, in place; never a whole row of them."""
    rows, columns = values.shape
    for _ in range(FLAWS):
        values[rng.integers(rows), rng.integers(1, columns)] = bad


def _damaged(clip: Clip, before: list[Clip]) -> Clip:
    """The clip with the damage of its kind."""
    text, audio, video = (values.copy() for values in clip.sequences)
    name = clip.name
    if clip.kind == "nan_text":
        text[0, 0] = np.nan
    elif clip.kind == "inf_audio":
        audio[0, 0] = -np.inf
    elif clip.kind == "nan_video":
        video[-1, 0] = np.nan
    elif clip.kind == "no_face":
        video[:] = 0
    elif clip.kind == "no_rows":
        text[:], audio[:], video[:] = 0, 0, 0
    elif clip.kind == "no_id":
        name = ""
    elif clip.kind == "duplicate":  # of a sound clip, which its own part has already
        sound = [other for other in before if not other.kind and other.part == "train"]
        name = sound[sum(other.kind == "duplicate" for other in before)].name
        return Clip(name, "test", clip.rating, [text, audio, video], clip.cues, clip.kind)
    return Clip(name, clip.part, clip.rating, [text, audio, video], clip.cues, clip.kind)


def _part(clips: list[Clip], rows: tuple[int, int, int], mmsa: bool) -> dict[str, Any]:
    """One part of the pickle, with the fields and the forms of its family."""
    arrays = {}
    for m, key in enumerate(ARRAYS.values()):
        padded = [_padded(clip.sequences[m], rows[m], front=not mmsa) for clip in clips]
        arrays[key] = np.stack(padded)
    ratings = np.asarray([clip.rating for clip in clips], dtype=np.float32)
    if not mmsa:
        ids = [[clip.name.encode(), b"0.0", b"2.5"] for clip in clips]
        arrays["vision"] = arrays["vision"].astype(np.float64)
        return {**arrays, "labels": ratings.reshape(-1, 1, 1), "id": np.asarray(ids)}
    lengths = {
        f"{key}_lengths": [len(clip.sequences[m]) for clip in clips]
        for m, key in enumerate(ARRAYS.values())
        if m
    }
    return {
        "raw_text": [f"A sentence, rated {clip.rating:.1f}." for clip in clips],
        **arrays,
        **lengths,
        "id": [clip.name for clip in clips],
        "annotations": np.asarray(["Negative" if y < 0 else "Positive" for y in ratings], object),
        "regression_labels": ratings,
    }


def _padded(values: np.ndarray, rows: int, front: bool) -> np.ndarray:
    pad = np.zeros((rows - len(values), values.shape[1]), dtype=values.dtype)
    return np.concatenate([pad, values] if front else [values, pad])
