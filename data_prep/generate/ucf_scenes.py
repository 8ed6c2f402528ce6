"""Clips with a known class cue in the picture and in the motion: the content of UCF-101's fixture.

Both come from one file. The picture's cue is a glyph that stands still in one half of the frame,
the motion's cue is the direction and speed of a texture within a window of the other half. Each is
left out by itself with a set probability and never replaced by another class's: no glyph is drawn,
or the texture stands still. A single frame does not show the motion, and the glyph does not move,
since its outline would be seen in the flow: neither cue is in the other modality. With
probabilities q_f and q_v and C classes the best accuracies are 1 - q_f (C-1)/C from flow,
1 - q_v (C-1)/C from frames and 1 - q_f q_v (C-1)/C from both.

Clips of one group share background, colour and place, as clips cut from one long video do. Groups
belong to one class, so a split that tears them apart lets a model recognise the video instead of
the class. The signal model and its numbers are our choice.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.generate import scenes

DIRECTIONS, SPEEDS = 17, (1.0, 1.5, 2.1, 2.8, 3.6, 4.5)  # 102 motions; pixels a frame
SHAPES, TURNS, STRIPES = 6, 8, (3, 6)  # 6 outlines, plain or with 3 or 6 stripes at 8 angles
STILL, MOVING, NOISE = 0.08, 0.2, 0.02  # of the range 0..1: two textures, noise of each pixel


@dataclass(frozen=True)
class Look:
    """Size, length and difficulty of the clips."""

    width: int = 96
    height: int = 72
    fps: int = 25
    seconds: tuple[float, float] = (1.1, 2.0)  # drawn uniformly for each clip
    flow_erased: float = 0.3  # probability that the texture stands still
    video_erased: float = 0.3  # probability that no glyph is drawn
    contrast: float = 0.6  # of the glyph over the background, 0..1
    shake: float = 0.2  # pixels, standard deviation of the camera's place
    group_nuisance: bool = True  # clips of a group look alike; else each has its own look


class Scene(NamedTuple):
    """frames uint8 [T, H, W, 3] RGB, flow float32 [T - 1, H, W, 2] in pixels, the two cues."""

    frames: np.ndarray
    flow: np.ndarray
    flow_cue: bool
    video_cue: bool


def motion(label: int) -> np.ndarray:
    """The class's motion, [2] pixels a frame to the right and downwards."""
    angle = 2 * np.pi * (label % DIRECTIONS) / DIRECTIONS
    return SPEEDS[label // DIRECTIONS] * np.array([np.cos(angle), np.sin(angle)])


def glyph(label: int, side: int) -> np.ndarray:
    """The shape of a class, [side, side] in 0..1."""
    outline = scenes.glyph(label % SHAPES, side)
    kind = label // SHAPES - 1
    if kind < 0:
        return outline
    # Within a quarter turn: mirrored, as training does, no class becomes another one.
    axis, turn = np.linspace(-1, 1, side), np.pi / 2 * (kind % TURNS) / (TURNS - 1)
    across = axis[None, :] * np.cos(turn) + axis[:, None] * np.sin(turn)
    wave = 0.5 + 0.5 * np.sin(np.pi * STRIPES[kind // TURNS] * across)
    return outline * (0.15 + 0.85 * wave)


class Texture:
    """A periodic grey texture of fine and coarse grain that moves by fractions of a pixel."""

    def __init__(self, height: int, width: int, rng: np.random.Generator):
        self.rows, self.columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        radius = np.hypot(self.rows, self.columns)
        grain = np.exp(-0.5 * (radius / 0.12) ** 2) + 3 * np.exp(-0.5 * (radius / 0.03) ** 2)
        grain[0, 0] = 0.0
        self.shape = (height, width)
        self.spectrum = np.fft.rfft2(rng.standard_normal(self.shape)) * grain
        self.spectrum /= self.moved(np.zeros(2)).std()

    def moved(self, by: np.ndarray) -> np.ndarray:
        """[H, W] of deviation 1, moved by [2] pixels to the right and downwards."""
        phase = np.exp(-2j * np.pi * (self.columns * by[0] + self.rows * by[1]))
        return np.fft.irfft2(self.spectrum * phase, self.shape).astype(np.float32)


def _stage(
    shape: np.ndarray, look: Look, rng: np.random.Generator, place: np.random.Generator
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The still picture, [H, W, 3], with a glyph [side, side] in one half; the window of motion."""
    height, width, half = look.height, look.width, look.width // 2
    blocks = place.uniform(0.35, 0.65, (6, 6, 3)).astype(np.float32)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    grain = Texture(height, width, place).moved(np.zeros(2))[:, :, None]
    picture = blocks[rows][:, columns] + STILL * grain
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (place.uniform() + np.arange(3) / 3))
    glyph_right = bool(place.random() < 0.5)
    side = len(shape)
    top, left = rng.integers(0, (height - side + 1, half - side + 1))
    left += half * glyph_right
    patch = picture[top : top + side, left : left + side]
    patch += look.contrast * shape[:, :, None] * (colour - patch)
    first = 0 if glyph_right else half
    across = slice(first + width // 20, first + half - width // 20)
    return picture, (slice(height // 10, height - height // 10), across)


def render(label: int, look: Look, rng: np.random.Generator, place: np.random.Generator) -> Scene:
    """A clip of a class; `place` draws what the clips of a group share, `rng` all the rest."""
    flow_cue = bool(rng.random() >= look.flow_erased)
    video_cue = bool(rng.random() >= look.video_erased)
    height, width = look.height, look.width
    count = max(2, round(rng.uniform(*look.seconds) * look.fps))
    side = int(rng.uniform(0.85, 0.95) * min(height, width // 2))
    picture, window = _stage(glyph(label, side) * video_cue, look, rng, place)
    texture = Texture(*picture[window].shape[:2], rng)
    start, speed = rng.uniform(0, 100, 2), motion(label) * flow_cue
    shake = look.shake * rng.standard_normal((count, 2))
    frames = np.empty((count, height, width, 3), np.float32)
    for k in range(count):
        picture[window] = 0.5 + MOVING * texture.moved(start + k * speed)[:, :, None]
        camera = np.array([[1, 0, shake[k, 0]], [0, 1, shake[k, 1]]])
        frames[k] = cv2.warpAffine(picture, camera, (width, height), borderMode=cv2.BORDER_REFLECT)
    frames += NOISE * rng.standard_normal((count, height, width, 1), dtype=np.float32)
    flow = np.zeros((count - 1, height, width, 2), np.float32)
    flow += np.diff(shake, axis=0)[:, None, None]
    flow[:, *window] += speed
    pixels = (np.clip(frames, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
    return Scene(pixels, flow, flow_cue, video_cue)
