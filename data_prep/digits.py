"""AV-Digits, the built-in demo dataset: videos of handwritten digits with tones for each class.

    python -m data_prep --dataset demo

The images are the 1,797 digits of 8 x 8 pixels that ship with scikit-learn (UCI "optical
recognition of handwritten digits"). Sound is easy to learn but ambiguous, video is slower to learn:
the imbalance that multimodal methods address. The cue in each modality is dropped with a known
probability and never replaced by that of another class, so the best possible accuracies are known
(`ceilings`). All constants are our choice, tuned to show the effect within minutes on a CPU.
"""

import contextlib
import functools
import multiprocessing
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import soundfile
from tqdm import tqdm

from common.files import locked, read_table, sync_folder, write_table
from common.options import UsageError
from common.program import cores

CLASSES = 10
# The seed used by `make demo` and README. The constants below were tuned on seeds 0 to 3 and frozen
# before the data of this seed were generated.
DATA_SEED = 4
CHUNK = 8  # clips sent to a worker at once, to wait less on the pipe
TRUTH = ("id", "label", "tone1_kept", "tone2_kept", "digit_kept")

# Sound. Pitches form a geometric series, so on a linear frequency axis each class has a different
# *spacing* of tones: a local pattern that a network with global average pooling can detect.
RATE = 16000  # Hz
SECONDS = 1.2
LOWEST, RATIO = 500.0, 1.28  # tone k is at 500 * 1.28^k Hz, k = 0..9: up to 4,612 Hz
TONE_SECONDS = (0.8, 1.1)  # duration of a tone
AMPLITUDE = (0.5, 1.0)
DETUNE = 0.003  # standard deviation of the logarithm of the pitch
EDGE_SECONDS = 0.02  # linear fade in and out
NOISE = 0.5 * 10 ** (-6 / 20)  # std of white noise: 6 dB below the RMS of a tone of amplitude 0.7
GAIN = 0.1  # applied to the mix of tones and noise; avoids clipping in practice
TONE_ERASED = 0.2  # probability of dropping a tone, for each of the two

# Video.
SIZE, FRAMES, FPS = 64, 12, 10
QUANTISER = 3  # quantiser of the encoder: 1 is the finest
GLYPH = (44, 52)  # side of the digit in pixels, integer, inclusive
SPEED = (0.3, 1.5)  # pixels per frame
BLUR = 2.0  # standard deviation in pixels of the Gaussian that turns noise into texture
# On the scale 0..1. A fainter digit under more noise is learned more slowly, so a jointly trained
# model relies on the sound. If it were fainter still, video could not be learned even alone.
GREY, TEXTURE, CONTRAST, PIXEL_NOISE = 0.4, 0.1, 0.55, 0.15
DIGIT_ERASED = 0.15  # probability of dropping the digit


class Clip(NamedTuple):
    """One sample before encoding: wave float [19200], frames uint8 [12, 64, 64, 3] RGB."""

    wave: np.ndarray
    frames: np.ndarray
    tones_kept: tuple[bool, bool]
    digit_kept: bool


def render(label: int, digit: np.ndarray, seed: int, index: int) -> Clip:
    """Render sample `index` of class `label`; `digit` is [8, 8], 0..16.

    The random stream depends only on (seed, index), not on the order or number of processes.
    """
    rng = np.random.default_rng([seed, index])
    tones_kept = (bool(rng.random() >= TONE_ERASED), bool(rng.random() >= TONE_ERASED))
    digit_kept = bool(rng.random() >= DIGIT_ERASED)
    wave = _sound(label, tones_kept, rng)
    return Clip(wave, _video(digit * (digit_kept / 16.0), rng), tones_kept, digit_kept)


def _sound(label: int, kept: tuple[bool, bool], rng: np.random.Generator) -> np.ndarray:
    """Class y has the tones y and y + 1 (mod 10), so neighbouring classes share one tone."""
    time = np.arange(int(SECONDS * RATE)) / RATE  # [n] in seconds
    wave = NOISE * rng.standard_normal(len(time))
    for tone, is_kept in zip((label, (label + 1) % CLASSES), kept):
        length = rng.uniform(*TONE_SECONDS)
        onset = rng.uniform(0, SECONDS - length)
        amplitude = rng.uniform(*AMPLITUDE)
        pitch = LOWEST * RATIO**tone * np.exp(DETUNE * rng.standard_normal())
        phase = rng.uniform(0, 2 * np.pi)
        to_edge = np.minimum(time - onset, onset + length - time)
        envelope = np.clip(to_edge / EDGE_SECONDS, 0.0, 1.0)
        if is_kept:  # random values are drawn either way, so the rest of the clip is the same
            wave += amplitude * envelope * np.sin(2 * np.pi * pitch * time + phase)
    return np.clip(GAIN * wave, -1.0, 1.0)


def _video(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The digit, [8, 8] in 0..1, moving over a moving texture; uint8 [12, 64, 64, 3]."""
    side = int(rng.integers(GLYPH[0], GLYPH[1] + 1))
    glyph = cv2.resize(digit.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    # The digit moves at constant speed in a random direction and bounces off the edges.
    room, start = SIZE - side, rng.uniform(0, SIZE - side, 2)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*SPEED)
    velocity = speed * np.array([np.sin(angle), np.cos(angle)])
    folded = np.mod(start + velocity * np.arange(FRAMES)[:, None], 2 * room)  # [12, 2]
    corners = np.minimum(folded, 2 * room - folded)
    texture = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32), (0, 0), BLUR)
    texture *= TEXTURE / texture.std()
    step = rng.integers(-1, 2, 2)
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (rng.uniform() + np.arange(3) / 3))
    colour = (CONTRAST * colour / colour.mean()).astype(np.float32)
    # Pixel noise is grey (the same in all three channels) and independent for each frame.
    noise = PIXEL_NOISE * rng.standard_normal((FRAMES, SIZE, SIZE, 1), dtype=np.float32)
    frames = GREY + np.stack([np.roll(texture, k * step, (0, 1)) for k in range(FRAMES)]) + noise
    for frame, (top, left) in zip(frames, np.rint(corners).astype(int)):
        frame[top : top + side, left : left + side] += glyph[:, :, None] * colour
    return (np.clip(frames, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _write_clip(folder: Path, seed: int, job: tuple[int, int, np.ndarray]) -> tuple:
    """Writes one clip and returns its ground-truth row. Runs in a worker process."""
    index, label, digit = job
    clip = render(label, digit, seed, index)
    write_video(folder / f"{index:04d}.avi", clip.frames, FPS)
    write_wav(folder / f"{index:04d}.wav", clip.wave, RATE)
    return f"{index:04d}", label, *map(int, clip.tones_kept), int(clip.digit_kept)


def write_digits(
    root: Path, truth_path: Path, seed: int, *, workers: int | None = None, count: int | None = None
) -> None:
    """Writes root/labels.csv and root/clips/NNNN.{avi,wav}; the ground truth goes outside the root.

    `count` limits the number of samples; sample i does not depend on it. All samples take about
    140 MB and ten seconds on two cores.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    samples = zip(range(len(digits.target)), digits.target.tolist(), digits.images)
    jobs = list(samples)[:count]
    with whole_folder(root, truth_path) as folder:
        (folder / "clips").mkdir()
        work = functools.partial(_write_clip, folder / "clips", seed)
        truth = run_jobs(work, jobs, workers, "write AV-Digits")
        write_table(folder / "labels.csv", ("id", "label"), [row[:2] for row in truth])
        write_table(truth_path, TRUTH, truth)


def ensure_digits(data_dir: Path) -> Path:
    """<data_dir>/raw/demo, generated if absent; concurrent processes wait for the first."""
    root = data_dir / "raw" / "demo"
    busy = "another process is writing the demo's files"
    with locked(root.with_name(".demo.lock"), busy, wait=True):
        if not root.exists():
            write_digits(root, root.with_name("demo-truth.csv"), DATA_SEED)
    return root


def ceilings(truth_path: Path, ids: Collection[str] | None = None) -> dict[str, float]:
    """The best possible accuracies on the generated data, or on its samples `ids`.

    "audio": two tones identify the class, one leaves two candidates, none leaves all ten. "video":
    the digit identifies the class, without it all ten remain. "both": the digit if present, else
    the sound.
    """
    by_tones = {2: 1.0, 1: 1 / 2, 0: 1 / CLASSES}
    rows = [row for row in read_table(truth_path) if ids is None or row["id"] in ids]
    sound = [by_tones[int(row["tone1_kept"]) + int(row["tone2_kept"])] for row in rows]
    seen = [row["digit_kept"] == "1" for row in rows]
    return {
        "audio": float(np.mean(sound)),
        "video": float(np.mean([1.0 if kept else 1 / CLASSES for kept in seen])),
        "both": float(np.mean([1.0 if kept else known for kept, known in zip(seen, sound)])),
    }


# Files --------------------------------------------------------------------------------------------


def write_wav(path: Path, wave: np.ndarray, rate: int) -> None:
    """Writes mono 16-bit PCM; `wave` is float [n], clipped to [-1, 1]."""
    soundfile.write(path, np.clip(wave, -1.0, 1.0), rate, subtype="PCM_16")


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Writes `frames`, uint8 [T, H, W, 3] RGB with even H and W, as MPEG-4 video in an .avi file.

    With one thread and a fixed quantiser, equal frames give equal files, and no rate control
    degrades the later frames of a clip, as the default encoder settings would.
    """
    options = {"fflags": "+bitexact"}  # no random ids in the header
    with av.open(str(path), "w", format="avi", options=options) as out:
        stream = out.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        coder = stream.codec_context
        coder.thread_count, coder.qmin, coder.qmax = 1, QUANTISER, QUANTISER
        for k, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


@contextlib.contextmanager
def whole_folder(root: Path, truth_path: Path) -> Iterator[Path]:
    """Yields a hidden folder next to `root` to write into; it becomes `root` on success.

    So an interrupted run never looks finished. Raises `UsageError` if `root` is not empty or would
    contain `truth_path`, and `common.files.Busy` while another process generates it.
    """
    root, truth_path = root.absolute(), truth_path.absolute()
    if truth_path.is_relative_to(root):
        raise UsageError(f"the ground truth {truth_path} must be outside the raw root {root}")
    part = root.with_name(f".{root.name}.part")
    with locked(part.with_name(f"{part.name}.lock"), f"another process is writing {root}"):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UsageError(f"{root} exists and is not empty: give a new folder, or remove it")
        shutil.rmtree(part, ignore_errors=True)  # leftovers of a killed run; we hold the lock
        part.mkdir()
        try:
            yield part
            os.replace(part, root)
            sync_folder(root.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def run_jobs(work: Callable, jobs: Sequence, workers: int | None, what: str) -> list:
    """`[work(job) for job in jobs]` in `workers` processes (None: one per core), with progress."""
    bar = functools.partial(tqdm, total=len(jobs), desc=what, unit="clip")
    if workers == 1:
        return list(bar(map(work, jobs)))
    context = multiprocessing.get_context("spawn")
    # Parallelism comes from the processes: one core each.
    with ProcessPoolExecutor(workers or cores(), context, cv2.setNumThreads, (0,)) as pool:
        return list(bar(pool.map(work, jobs, chunksize=CHUNK)))
