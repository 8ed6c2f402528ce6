"""Raw trees of CREMA-D and Kinetics-Sounds in miniature, in the layouts found in the wild.

    python -m data_prep.demo --dataset cremad --out DIR --profile tiny --corrupt 1

Names, folders and lists are those of the real sets, hostile ones included; the content comes from
`scenes`, the damage from `corrupt`. Beside the root stands the truth, one line a sample: id, label,
whether each modality's cue was drawn (before any damage), the damage and what must become of it.
The id is the clip's name for CREMA-D, the 11-character YouTube id for Kinetics, and the file's stem
where the name fits neither.
"""

import csv
import functools
import io
import string
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.files import write_table, write_text
from common.options import UsageError, unknown
from data_prep.generate import corrupt
from data_prep.generate.media import run_jobs, whole_folder, write_wav
from data_prep.generate.scenes import RATE, Look, Scene, render

TRUTH = ("id", "label", "m1_cue", "m2_cue", "corruption", "expected_reason")

# What the two trees hold unless told otherwise: about the real lengths, at a small size.
CREMAD_LOOK = Look(fps=15, seconds=(1.3, 3.0))  # three frames at 2 a second need 1.25 s
KINETICS_LOOK = Look(fps=10, seconds=(10.0, 10.0))

SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
LEVELS = ("LO", "MD", "HI")  # of the sentence IEO; all others, and neutral speech, have XX
FIRST_ACTOR, QUIRK_ACTOR, DAMAGED_ACTOR, LAST_ACTOR = 1001, 1040, 1060, 1091

LAYOUTS = ("A", "B", "C")
PARTS = ("train", "val", "test")
PART_CYCLE = ("train", "val", "test", "train", "train")
ID_LENGTH, ID_LETTERS = 11, string.ascii_letters + string.digits + "_-"
CLIP_SECONDS = 10  # between the two times of a Kinetics name
LISTED = ("label", "youtube_id", "time_start", "time_end", "split")
KINETICS_HIDDEN = (
    "train/.DS_Store", "train/._abcdefghijk_000000_000010.mp4", "val/Thumbs.db", "__MACOSX/._x.mp4",
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One sample to render: `stream` numbers its random stream, `file` is relative to the root."""

    id: str
    label: int
    stream: int
    file: str
    kind: str = ""


def render_clip(clip: Clip, classes: int, look: Look, cut_seconds: float, seed: int) -> Scene:
    """The scene of a clip; what will be cut has the length that its expected outcome needs."""
    if clip.kind.startswith("cut"):
        look = replace(look, seconds=(cut_seconds, cut_seconds))
    elif clip.kind == "long":
        look = replace(look, seconds=(corrupt.LONG_SECONDS, corrupt.LONG_SECONDS))
    return render(clip.label, classes, look, np.random.default_rng([seed, clip.stream]))


def truth_line(clip: Clip, label: str, scene: Scene, expected: dict[str, str]) -> tuple:
    """A clip's line of the truth; `expected` has the outcome of each kind of damage."""
    reason = expected[clip.kind] if clip.kind else ""
    return clip.id, label, int(scene.sound_cue), int(scene.video_cue), clip.kind, reason


def first_classes(labels: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    """The first `count` classes of a data set, all for None; `UsageError` where it has fewer."""
    if count is not None and not 2 <= count <= len(labels):
        raise UsageError(f"--classes {count} is refused: the data set has 2 to {len(labels)}")
    return labels[:count]


# --- CREMA-D --------------------------------------------------------------------------------------


def write_cremad(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    seed: int = 0,
    look: Look = CREMAD_LOOK,
    corrupt_each: int = 0,
    workers: int | None = None,
) -> None:
    """AudioWAV/<clip>.wav and VideoFlash/<clip>.flv: `per_class` sound clips of each emotion, and
    `corrupt_each` more of each kind of damage. Raises `UsageError` when `root` is in use."""
    from data_prep.layouts.cremad import LABELS

    clips = _cremad_clips(LABELS, per_class, corrupt_each)
    with whole_folder(root, truth_path) as folder:
        for name in ("AudioWAV", "VideoFlash"):
            (folder / name).mkdir()
            hidden = (".DS_Store", "._1001_DFA_ANG_XX.wav", "Thumbs.db")
            corrupt.write_hidden(folder / name, hidden)
        numbered = list(enumerate(SENTENCES, 1))
        write_table(folder / "SentenceFilenames.csv", ("Stimulus_Number", "Filename"), numbered)
        work = functools.partial(_write_cremad_clip, folder, LABELS, look, seed)
        truth = run_jobs(work, clips, workers, "write CREMA-D fixture")
        write_table(truth_path, TRUTH, sorted(truth))


def _cremad_name(actor: int, sentence: str, emotion: str, turn: int) -> str:
    graded = sentence == "IEO" and emotion != "NEU"
    return f"{actor}_{sentence}_{emotion}_{LEVELS[turn % 3] if graded else 'XX'}"


def _cremad_clips(labels: tuple[str, ...], per_class: int, each: int) -> list[Clip]:
    """Sound clips of at least three actors, then the damaged ones, of actors of their own."""
    actors = max(3, -(-per_class // len(SENTENCES)))
    if actors > QUIRK_ACTOR - FIRST_ACTOR:
        limit = (QUIRK_ACTOR - FIRST_ACTOR) * len(SENTENCES)
        raise UsageError(f"--per_class {per_class} is refused: there are names for {limit} at most")
    names = [
        (_cremad_name(FIRST_ACTOR + k % actors, SENTENCES[k // actors], emotion, k), label, "")
        for label, emotion in enumerate(labels)
        for k in range(per_class)
    ]
    kinds = [kind for kind in corrupt.EXPECTED["cremad"] for _ in range(each)]
    for k, kind in enumerate(kinds):
        turn, label = divmod(k, len(labels))
        actor = DAMAGED_ACTOR + turn // len(SENTENCES)
        if actor > LAST_ACTOR or each > DAMAGED_ACTOR - QUIRK_ACTOR:
            raise UsageError(f"--corrupt {each} is refused: there are names for 20 of a kind")
        name = _cremad_name(actor, SENTENCES[turn % len(SENTENCES)], labels[label], k)
        if kind in ("name_quirk", "duplicate"):
            label = labels.index("SAD")
            sentence = "ITH" if kind == "name_quirk" else "TSI"
            name = f"{QUIRK_ACTOR + k - kinds.index(kind)}_{sentence}_SAD_XX"
        elif kind == "unknown_name":
            name = f"{actor}_outtake_{k}"
        names.append((name, label, kind))
    return [
        Clip(corrupt.told_stem(kind, name), label, k, name, kind)
        for k, (name, label, kind) in enumerate(names)
    ]


def _write_cremad_clip(
    folder: Path, labels: tuple[str, ...], look: Look, seed: int, clip: Clip
) -> tuple:
    """Writes a clip's two files and returns its line of the truth. Runs in a worker process."""
    kind = clip.kind
    scene = render_clip(clip, len(labels), look, corrupt.CUT_FLV_SECONDS, seed)
    wav = folder / "AudioWAV" / f"{clip.file[:-1] if kind == 'name_quirk' else clip.file}.wav"
    wave = corrupt.damaged_wave(kind, scene.wave)
    if wave is not None and kind != "wav_missing":
        write_wav(wav, wave, RATE)
    if kind == "duplicate":
        write_wav(wav.with_name(f"{clip.file[:-1]}.wav"), wave, RATE)
    if kind in ("wav_zero_byte", "wav_html", "lfs_pointer", "not_utf8"):
        corrupt.damage_file(kind, wav)
    elif kind == "both_broken":
        corrupt.damage_file("zero_byte", wav)
    if kind not in ("unknown_name", "not_utf8"):
        corrupt.write_flv(folder / "VideoFlash" / f"{clip.file}.flv", scene, look.fps, kind)
    return truth_line(clip, labels[clip.label], scene, corrupt.EXPECTED["cremad"])


# --- Kinetics-Sounds ------------------------------------------------------------------------------


def write_kinetics(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    layout: str = "A",
    classes: int | None = None,
    seed: int = 0,
    look: Look = KINETICS_LOOK,
    corrupt_each: int = 0,
    workers: int | None = None,
) -> None:
    """`per_class` sound clips of each of the first `classes` of 31 classes (None: of all).

    Layout "A": {train,val,test}/ID_SSSSSS_EEEEEE.mp4 and annotations/; "B": {train,val}/CLASS NAME/
    ID_SSSSSS_EEEEEE.mp4, with spaces in train and underscores in val; "C": as A, named ID.mp4 or
    ID_START.mp4. Raises `UsageError` when `root` is in use.
    """
    from data_prep.layouts.kinetics import LABELS

    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    labels = first_classes(LABELS, classes)
    clips, rows = _kinetics_clips(labels, per_class, layout, corrupt_each, seed)
    with whole_folder(root, truth_path) as folder:
        for file in {clip.file for clip in clips if clip.file}:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        corrupt.write_hidden(folder, KINETICS_HIDDEN)
        _write_lists(folder, rows)
        work = functools.partial(_write_kinetics_clip, folder, labels, look, seed)
        truth = run_jobs(work, clips, workers, "write Kinetics fixture")
        write_table(truth_path, TRUTH, sorted(truth))


def hostile_id(turn: int, rng: np.random.Generator) -> str:
    """An id that trips naive parsers: a leading dash or underscore, dashes inside, a false time."""
    letters = "".join(rng.choice(list(ID_LETTERS), ID_LENGTH))
    shapes = {
        0: f"-{letters[1:]}",
        1: f"_{letters[1:5]}--{letters[7:]}",
        3: f"{letters[:4]}_000010",
    }
    return shapes.get(turn % 5, letters)


def _kinetics_clips(
    labels: tuple[str, ...], per_class: int, layout: str, each: int, seed: int
) -> tuple[list[Clip], list[tuple]]:
    """The clips to write and the rows (label, id, start, part) of the lists that name them."""
    kinds = [kind for kind in corrupt.EXPECTED["kinetics"] for _ in range(each)]
    if layout != "B":  # flat folders tell no class that a list could contradict
        kinds = [kind for kind in kinds if kind != "label_conflict"]
    plan = [(k % len(labels), k // len(labels), "") for k in range(per_class * len(labels))]
    plan += [(k % len(labels), k, kind) for k, kind in enumerate(kinds)]
    rng = np.random.default_rng([seed, len(plan)])  # two numbers, as for clips, but never a clip's
    clips, rows, listed, seen = [], [], layout != "B" or each > 0, set()
    for k, (label, turn, kind) in enumerate(plan):
        while (name := hostile_id(k, rng)) in seen:
            pass
        seen.add(name)
        start = int(rng.integers(0, 600))
        part = "train" if kind == "duplicate" else PART_CYCLE[turn % len(PART_CYCLE)]
        part = "val" if (layout, part) == ("B", "test") else part
        file = _kinetics_file(layout, labels, label, name, start, part, kind)
        clip = Clip(name, label, k, file, kind)
        if kind in ("unknown_name", "not_utf8"):
            clip = replace(clip, id=corrupt.told_stem(kind, Path(clip.file).stem))
        elif listed and not (kind == "no_label" and (layout == "B" or k % 2)):
            rows.append(("" if kind == "no_label" else labels[label], name, start, part))
        if kind == "duplicate":
            second = _kinetics_file(layout, labels, label, name, start, "val", kind)
            clips.append(replace(clip, kind=""))
            clip = replace(clip, file=second)
            rows += [(labels[label], name, start, "val")] if listed else []
        clips.append(clip)
    return clips, rows


def _kinetics_file(
    layout: str, labels: tuple[str, ...], label: int, name: str, start: int, part: str, kind: str
) -> str:
    """Where a clip stands, relative to the root; "" for a row without a file."""
    if kind == "row_without_file":
        return ""
    stem = f"{name}_{start:06d}_{start + CLIP_SECONDS:06d}"
    if layout == "C":
        stem = name if start % 2 else f"{name}_{start}"
    if kind == "unknown_name":
        stem = f"my holiday {name}"
    ending = {"wrong_extension": "avi", "fps_1000": "mkv"}.get(kind, "mp4")
    if layout != "B" or kind == "no_label":
        return f"{part}/{stem}.{ending}"
    if kind == "label_conflict":
        label = (label + 1) % len(labels)  # the list keeps the true class
    folder = labels[label] if part == "train" else labels[label].replace(" ", "_")
    return f"{part}/{folder}/{stem}.{ending}"


def _write_lists(folder: Path, rows: list[tuple]) -> None:
    """annotations/<part>.csv, each in another dialect that the real lists come in."""
    for part in PARTS:
        lines = [(*row[:2], row[2], row[2] + CLIP_SECONDS, part) for row in rows if row[3] == part]
        if not lines:
            continue
        header, mark, quoting, end = LISTED, "", csv.QUOTE_MINIMAL, "\n"
        if part == "train":  # a sixth column, and rows of the other Kinetics-400 classes
            lines = [(*line, 0) for line in [*lines, ("abseiling", "abcdefghijk", 0, 10, part)]]
            header = (*LISTED, "is_cc")
        elif part == "val":  # quoted labels, as a spreadsheet saves them
            mark, quoting, end = "\ufeff", csv.QUOTE_NONNUMERIC, "\r\n"
        text = io.StringIO()
        writer = csv.writer(text, quoting=quoting, lineterminator=end)
        writer.writerow(header)
        writer.writerows(lines)
        write_text(folder / "annotations" / f"{part}.csv", mark + text.getvalue())


def _write_kinetics_clip(
    folder: Path, labels: tuple[str, ...], look: Look, seed: int, clip: Clip
) -> tuple:
    """Writes a clip's file and returns its line of the truth. Runs in a worker process."""
    scene = render_clip(clip, len(labels), look, corrupt.CUT_MP4_SECONDS, seed)
    if clip.file:
        corrupt.write_mp4(folder / clip.file, scene, look.fps, clip.kind)
    return truth_line(clip, labels[clip.label], scene, corrupt.EXPECTED["kinetics"])
