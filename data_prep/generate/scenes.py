"""Scenes with a known class cue in sound and in picture: the content of the test fixtures.

Sound is a source-filter voice whose two formants tell the class; video is a moving glyph whose
shape and stripes tell it. In each modality, independently, the cue is left out with a set
probability and never replaced by another class's. With probabilities q_s and q_v and C classes, the
best accuracies are 1 - q_s (C-1)/C from sound, 1 - q_v (C-1)/C from video and 1 - q_s q_v (C-1)/C
from both. The signal model and its numbers are our choice.
"""

from dataclasses import dataclass

import numpy as np

RATE = 16000  # Hz of the rendered sound
MAX_CLASSES = 36

# Formants in Hz for up to six classes; more take cells of a grid, evenly spaced in mel.
FEW_FORMANTS = ((300, 2300), (420, 900), (560, 1700), (700, 1200), (850, 2600), (1000, 1500))
FIRST_FORMANT, SECOND_FORMANT = (280.0, 900.0), (1100.0, 3400.0)
WIDTHS = (90.0, 130.0)  # Hz, standard deviations of the two resonances
FLOOR = 0.01  # amplitude of a harmonic far from both
PEAK = 0.2  # of the finished wave
TABLE = 4096  # samples of one stored period

GLYPHS = ("disc", "square", "cross", "ring", "triangle", "star")


@dataclass(frozen=True)
class Look:
    """Size, length and difficulty of the rendered scenes."""

    width: int = 96
    height: int = 72
    fps: int = 15
    seconds: tuple[float, float] = (1.1, 3.0)  # drawn uniformly for each scene
    sound_erased: float = 0.3  # probability that the voice has no formants
    video_erased: float = 0.3  # probability that no glyph is drawn
    snr_db: float = 6.0  # voice over white noise
    contrast: float = 0.9  # of the glyph over the background, 0..1


@dataclass(frozen=True)
class Scene:
    """wave float32 [n] at 16 kHz, frames uint8 [T, H, W, 3] RGB, and whether each cue is there."""

    wave: np.ndarray
    frames: np.ndarray
    sound_cue: bool
    video_cue: bool


def render(label: int, classes: int, look: Look, rng: np.random.Generator) -> Scene:
    """A scene of class `label` out of `classes` (at most 36)."""
    if not 0 <= label < classes <= MAX_CLASSES:
        raise ValueError(f"class {label} of {classes}: at most {MAX_CLASSES} can be told apart")
    sound_cue = bool(rng.random() >= look.sound_erased)
    video_cue = bool(rng.random() >= look.video_erased)
    seconds = rng.uniform(*look.seconds)
    wave = render_voice(formants(classes)[label] if sound_cue else None, seconds, look.snr_db, rng)
    count = max(1, round(seconds * look.fps))
    frames = render_glyph(label if video_cue else None, count, look, rng)
    return Scene(wave, frames, sound_cue, video_cue)


def formants(classes: int) -> np.ndarray:
    """The two formants of each class in Hz, [C, 2]."""
    if classes <= len(FEW_FORMANTS):
        return np.array(FEW_FORMANTS[:classes], dtype=float)
    first, second = (_mel_spaced(*span, 6) for span in (FIRST_FORMANT, SECOND_FORMANT))
    cells = np.arange(classes) * MAX_CLASSES // classes  # spread over the whole grid
    return np.stack([first[cells // 6], second[cells % 6]], axis=1)


def _mel_spaced(low: float, high: float, count: int) -> np.ndarray:
    mel = np.linspace(np.log1p(low / 700), np.log1p(high / 700), count)
    return 700 * np.expm1(mel)


def render_voice(
    peaks: np.ndarray | None, seconds: float, snr_db: float, rng: np.random.Generator
) -> np.ndarray:
    """A voice with resonances at `peaks` [2] Hz, or with flat harmonics (None); float32 [n]."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = rng.uniform(110, 240) * 2 ** rng.uniform(-1 / 6, 1 / 6)  # a third of an octave in all
    harmonics = np.arange(1, int(0.5 * RATE / pitch))
    shift = rng.uniform(0.95, 1.05, 2)
    if peaks is None:
        amplitude = np.ones(len(harmonics))
    else:
        away = (harmonics[:, None] * pitch - peaks * shift) / WIDTHS  # [h, 2]
        amplitude = FLOOR + np.exp(-0.5 * away**2).sum(1)
    amplitude /= np.sqrt(0.5 * (amplitude**2).sum())  # RMS 1
    # One period by inverse FFT, read at the pitch: far cheaper than a sine a harmonic.
    spectrum = np.zeros(TABLE // 2 + 1, dtype=complex)
    phases = np.exp(2j * np.pi * rng.uniform(size=len(harmonics)))
    spectrum[harmonics] = amplitude * phases * TABLE / 2
    period = np.fft.irfft(spectrum)
    voice = period[np.mod(pitch * time * TABLE, TABLE).astype(int)]
    tremolo = 1 + 0.3 * np.sin(2 * np.pi * (rng.uniform(2, 5) * time + rng.uniform()))
    noise = 10 ** (-snr_db / 20) * rng.standard_normal(len(time))
    wave = tremolo * voice + noise
    return (PEAK * wave / np.abs(wave).max()).astype(np.float32)


def render_glyph(label: int | None, count: int, look: Look, rng: np.random.Generator) -> np.ndarray:
    """`count` frames of a drifting glyph on colour blocks, or of the blocks alone (None); uint8."""
    height, width = look.height, look.width
    blocks = rng.uniform(0.35, 0.65, (6, 6, 3)).astype(np.float32)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    background = blocks[rows][:, columns]  # [H, W, 3]
    noise = rng.standard_normal((count, height, width, 1), dtype=np.float32)
    frames = background + 0.05 * noise
    side = int(rng.uniform(0.6, 0.8) * height)  # smaller glyphs are not learned in a few epochs
    room = np.array([height - side, width - side])
    start, angle = rng.uniform(0, room), rng.uniform(0, 2 * np.pi)
    drift = rng.uniform(0.3, 1.5) * np.array([np.sin(angle), np.cos(angle)])
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (rng.uniform() + np.arange(3) / 3))
    if label is not None:
        alpha = (look.contrast * glyph(label, side))[:, :, None].astype(np.float32)  # [s, s, 1]
        for k, frame in enumerate(frames):
            top, left = np.clip(np.rint(start + k * drift), 0, room).astype(int)
            patch = frame[top : top + side, left : left + side]
            patch += alpha * (colour - patch)
    return (np.clip(frames, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def glyph(label: int, side: int) -> np.ndarray:
    """The shape of a class, [side, side] in 0..1: six outlines, plain or in five stripings."""
    axis = np.linspace(-1, 1, side)
    v, u = np.meshgrid(axis, axis, indexing="ij")  # down, right
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    outline = {
        "disc": radius <= 0.9,
        "square": np.maximum(np.abs(u), np.abs(v)) <= 0.8,
        "cross": np.minimum(np.abs(u), np.abs(v)) <= 0.3,
        "ring": np.abs(radius - 0.75) <= 0.2,
        "triangle": (np.abs(u) <= 0.55 * (v + 0.9)) & (v <= 0.8),
        "star": radius <= 0.55 + 0.4 * np.cos(5 * angle),
    }[GLYPHS[label % len(GLYPHS)]]
    striping = label // len(GLYPHS)
    if striping == 0:
        return outline.astype(float)
    # Within a quarter turn: mirrored, as training does, no class becomes another one.
    direction = np.pi * (striping - 1) / 8
    stripes = 0.5 + 0.5 * np.sin(3 * np.pi * (u * np.cos(direction) + v * np.sin(direction)))
    return outline * (0.15 + 0.85 * stripes)
