"""Stored samples become inputs: choice of frames, crop, flip, window. NumPy and OpenCV only.

What crosses from a loader worker to the training process stays small: uint8 frames and float16
spectrograms. The encoder's first layer casts and normalises on the device. Training draws come
from `rng`; with `rng=None` the result is the deterministic evaluation view.
"""

import cv2
import numpy as np

from data_prep.spec import Audio, AudioView, Video, VideoView

# torchvision's RandomResizedCrop, which the field's loaders use with these defaults.
CROP_AREA, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


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


def frame_bytes(image: np.ndarray, spec: Video) -> bytes:
    """A raw frame as stored: uint8 [H, W, 3], after H and W as uint32 unless all are squares."""
    size = b"" if spec.square else np.asarray(image.shape[:2], dtype="<u4").tobytes()
    return size + np.ascontiguousarray(image).tobytes()


def decode_frame(stored: bytes, spec: Video) -> np.ndarray:
    """uint8 [H, W, 3] RGB of one stored frame."""
    raw = np.frombuffer(stored, dtype=np.uint8)
    if spec.codec == "raw" and spec.square:
        return raw.reshape(spec.square, spec.square, 3)
    if spec.codec == "raw":
        return raw[8:].reshape(*raw[:8].view("<u4").tolist(), 3)
    return cv2.cvtColor(cv2.imdecode(raw, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def clip(
    stored: list[bytes], spec: Video, view: VideoView, size: int, rng: np.random.Generator | None
) -> np.ndarray:
    """uint8 [T, 3, size, size]: the chosen frames under one shared crop and one coin for a flip."""
    frames = [decode_frame(stored[k], spec) for k in choose_frames(len(stored), view.frames, rng)]
    if rng is not None and view.augment == "crop_flip":
        top, left, height, width = crop_box(*frames[0].shape[:2], rng)
        frames = [frame[top : top + height, left : left + width] for frame in frames]
        if rng.random() < 0.5:
            frames = [frame[:, ::-1] for frame in frames]
    out = np.empty((len(frames), 3, size, size), dtype=np.uint8)
    for k, frame in enumerate(frames):
        if frame.shape[:2] != (size, size):
            smaller = frame.shape[0] * frame.shape[1] > size * size
            how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            frame = cv2.resize(frame, (size, size), interpolation=how)
        out[k] = frame.transpose(2, 0, 1)
    return out
