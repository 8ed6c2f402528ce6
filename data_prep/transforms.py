"""Stored samples become inputs: choice of frames, crop, flip, window. NumPy and OpenCV only.

What crosses from a loader worker to the training process stays small: uint8 images, float16
spectrograms, int32 tokens. The encoder's first layer casts and normalises on the device. Training
draws come from `rng`; with `rng=None` the result is the deterministic evaluation view.
"""

from typing import Any

import cv2
import numpy as np

from data_prep.spec import (
    Array,
    Audio,
    AudioView,
    Flow,
    Image,
    Modality,
    Text,
    Video,
    VideoView,
    View,
)

# torchvision's RandomResizedCrop and RandomRotation, which the field's loaders use with these.
CROP_AREA, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
ROTATION = 30.0  # degrees to either side


def toss(rng: np.random.Generator | None) -> bool:
    """The coin of a sample's flip; never heads in evaluation."""
    return rng is not None and bool(rng.random() < 0.5)


def make_input(
    stored: Any,
    spec: Modality,
    view: View,
    size: int,
    rng: np.random.Generator | None,
    flip: bool = False,
) -> np.ndarray:
    """The input that a stored modality becomes: see the function of its kind."""
    if isinstance(spec, Audio):
        return spectrogram(stored, spec, view, rng)
    if isinstance(spec, Text):
        return tokens(stored, spec)
    if isinstance(spec, Array):
        return sequence(stored, spec)
    if isinstance(spec, Flow):
        return flow(stored, spec, view, size, rng, flip)
    return clip(stored, spec, view, size, rng, flip)


def spectrogram(
    stored: bytes, spec: Audio, view: AudioView, rng: np.random.Generator | None
) -> np.ndarray:
    """float16 [1, F, T]: the whole spectrogram, or `view.window` columns of it."""
    values = np.frombuffer(stored, dtype=np.float16).reshape(1, *spec.shape)
    if view.window is None or view.window >= values.shape[2]:
        return values
    spare = values.shape[2] - view.window
    start = int(rng.integers(spare + 1)) if rng else spare // 2
    return values[:, :, start : start + view.window]


def tokens(stored: list[bytes], spec: Text) -> np.ndarray:
    """int32 [3, max_tokens]: ids, segments, and a mask that is 1 on tokens and 0 on padding."""
    ids = np.frombuffer(stored[0], dtype=np.uint16)
    out = np.zeros((3, spec.max_tokens), dtype=np.int32)
    out[0, : len(ids)], out[2, : len(ids)] = ids, 1
    out[1, : len(ids)] = np.frombuffer(stored[1], dtype=np.uint8)
    return out


def sequence(stored: list[bytes], spec: Array) -> np.ndarray:
    """float32 [max_length, D]: the vectors, then rows of zeros, which are padding."""
    length, width = np.frombuffer(stored[0], dtype=np.int32).tolist()
    out = np.zeros((spec.max_length, width), dtype=np.float32)
    out[:length] = np.frombuffer(stored[1], dtype=np.float32).reshape(length, width)
    return out


# Frames, pictures, flow ---------------------------------------------------------------------------


def choose_frames(stored: int, wanted: int, rng: np.random.Generator | None) -> list[int]:
    """One index from each of `wanted` equal segments: random in training, else the middle."""
    if rng is None:
        return [int((j + 0.5) * stored / wanted) for j in range(wanted)]
    chosen = []
    for j in range(wanted):
        first = j * stored // wanted
        last = max(first, -(-(j + 1) * stored // wanted) - 1)
        chosen.append(int(rng.integers(first, last + 1)))
    return chosen


def crop_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop of random area and aspect ratio."""
    for _ in range(10):
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = float(np.exp(rng.uniform(*np.log(CROP_RATIO))))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """The image turned about its centre, same size, black where nothing was."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)


def frame_bytes(image: np.ndarray, spec: Video) -> bytes:
    """A raw frame as stored: uint8 [H, W, 3], after H and W as uint32 unless all are squares."""
    size = b"" if spec.square else np.asarray(image.shape[:2], dtype="<u4").tobytes()
    return size + np.ascontiguousarray(image).tobytes()


def decode_frame(stored: bytes, spec: Video | Image) -> np.ndarray:
    """uint8 [H, W, 3] RGB of one stored frame."""
    raw = np.frombuffer(stored, dtype=np.uint8)
    if isinstance(spec, Video) and spec.codec == "raw":
        if spec.square:
            return raw.reshape(spec.square, spec.square, 3)
        return raw[8:].reshape(*raw[:8].view("<u4").tolist(), 3)
    return cv2.cvtColor(cv2.imdecode(raw, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """The image as [size, size, ...], its aspect not kept."""
    if image.shape[:2] == (size, size):
        return image
    smaller = image.shape[0] * image.shape[1] > size * size
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=how)


def augment(
    images: list[np.ndarray], view: VideoView, rng: np.random.Generator | None, flip: bool
) -> list[np.ndarray]:
    """The images of a clip under one shared crop or rotation, and the sample's flip."""
    if rng is None or view.augment == "none":
        return images
    if view.augment == "crop_flip":
        top, left, height, width = crop_box(*images[0].shape[:2], rng)
        images = [image[top : top + height, left : left + width] for image in images]
    elif view.augment == "rotate_flip":
        degrees = float(rng.uniform(-ROTATION, ROTATION))
        images = [rotate(image, degrees) for image in images]
    return [image[:, ::-1] for image in images] if flip else images


def clip(
    stored: list[bytes],
    spec: Video | Image,
    view: VideoView,
    size: int,
    rng: np.random.Generator | None,
    flip: bool = False,
) -> np.ndarray:
    """uint8 [T, 3, size, size]: the chosen frames."""
    frames = [decode_frame(stored[k], spec) for k in choose_frames(len(stored), view.frames, rng)]
    out = np.empty((len(frames), 3, size, size), dtype=np.uint8)
    for k, frame in enumerate(augment(frames, view, rng, flip)):
        out[k] = resize(np.ascontiguousarray(frame), size).transpose(2, 0, 1)
    return out


def flow(
    stored: list[bytes],
    spec: Flow,
    view: VideoView,
    size: int,
    rng: np.random.Generator | None,
    flip: bool = False,
) -> np.ndarray:
    """uint8 [T, 2 * stack, size, size]: u and v at the chosen positions, u1, v1, u2, v2, ...

    A flipped picture moves the other way: u becomes 255 - u.
    """
    channels = 2 * spec.stack
    chosen = choose_frames(len(stored) // channels, view.frames, rng)
    maps = [
        cv2.imdecode(np.frombuffer(stored[k * channels + c], np.uint8), cv2.IMREAD_GRAYSCALE)
        for k in chosen
        for c in range(channels)
    ]
    turned = augment(maps, view, rng, flip)
    out = np.empty((len(maps), size, size), dtype=np.uint8)
    for k, image in enumerate(turned):
        out[k] = resize(np.ascontiguousarray(image), size)
    if rng is not None and flip and view.augment != "none":
        out[0::2] = 255 - out[0::2]
    return out.reshape(len(chosen), channels, size, size)
