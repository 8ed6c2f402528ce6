"""Stored samples become inputs: choice of frames, crop, flip, window.

What crosses from a loader worker to the training process stays small: uint8 images, float16
spectrograms, int32 tokens. The encoder's first layer casts and normalises on the device. Training
draws come from `rng`; with `rng=None` the result is the deterministic evaluation view.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from data_prep.modalities.text import tokenise
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
    vocabulary: Path | None = None,
) -> np.ndarray:
    """The input that a stored modality becomes: see the function of its kind."""
    if isinstance(spec, Audio):
        return spectrogram(stored, spec, view, rng)
    if isinstance(spec, Text):
        return tokens(stored, spec, vocabulary)
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


def without_padding(batch: np.ndarray, spec: Modality) -> np.ndarray:
    """Texts [B, 3, L] or vectors [B, L, D] cut to the longest of the batch; others as they are.

    Padding changes no result and costs much: a title of 20 tokens would pay for 512, and the price
    of attention grows with the length squared.
    """
    if isinstance(spec, Text):
        return batch[:, :, : _last(batch[:, 2].any(0))]
    if isinstance(spec, Array):
        return batch[:, : _last((batch != 0).any((0, 2)))]
    return batch


def _last(used: np.ndarray) -> int:
    """One more than the last place that is used, and no less than 1."""
    places = np.flatnonzero(used)
    return int(places[-1]) + 1 if len(places) else 1


def tokens(stored: list[bytes], spec: Text, vocabulary: Path | None = None) -> np.ndarray:
    """int32 [3, max_tokens]: ids, segments, and a mask that is 1 on tokens and 0 on padding.

    `vocabulary` is the vocab.txt by which texts that are stored themselves become tokens.
    """
    if spec.built:
        assert vocabulary, "texts are stored: a vocabulary must be given"
        stored, _ = tokenise([bytes(text).decode() for text in stored], spec, vocabulary)
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


def choose_frames(
    stored: int, wanted: int, rng: np.random.Generator | None, rule: str = "segments"
) -> list[int]:
    """One index from each of `wanted` segments: random in training, else the middle.

    "segments": equal ones over all frames. The other rules are those of the official release's
    loaders. Their segments have max(1, stored // wanted) frames, so that frames at the end may
    never be used: "cremad"; "kinetics", whose segments begin with frame 1 (counted from 0), which
    takes no frame beyond 9 in training, and always frame 1 of 6 frames or fewer; "ucf101"; and
    "ucf101_flow", which never uses the last picture. An index beyond the last frame becomes the
    last one (the release raises an error there).
    """
    if rule == "segments":
        return _equal_segments(stored, wanted, rng)
    if rule == "kinetics" and stored <= 6:
        return [min(1, stored - 1)] * wanted
    length = max(1, stored // wanted)
    begin, middle = {
        "cremad": (0, length // 2),
        "kinetics": (1, max(1, length // 2)),
        "ucf101": (0, max(1, length // 2) - 1),
        "ucf101_flow": (0, max(1, length // 2) - 1),
    }[rule]
    last = stored - 1
    if rule == "ucf101_flow":
        last = max(0, stored - 2)
    elif rule == "kinetics" and rng:
        last = min(9, last)
    places = [begin + int(rng.integers(length)) if rng else middle for _ in range(wanted)]
    return [min(j * length + place, last) for j, place in enumerate(places)]


def _equal_segments(stored: int, wanted: int, rng: np.random.Generator | None) -> list[int]:
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
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_NEAREST)


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
    """The image as [size, size, ...], its aspect not kept: Pillow's bilinear with antialiasing.

    The field's transforms resize so; OpenCV's filters differ from it by up to 8 of 255 levels.
    """
    if image.shape[:2] == (size, size):
        return image
    picture = PIL.Image.fromarray(image)
    return np.asarray(picture.resize((size, size), PIL.Image.Resampling.BILINEAR))


def crop(images: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same random part of images of one size."""
    top, left, height, width = crop_box(*images[0].shape[:2], rng)
    return [image[top : top + height, left : left + width] for image in images]


def augment(
    images: list[np.ndarray], view: VideoView, rng: np.random.Generator | None, flip: bool
) -> list[np.ndarray]:
    """The images of a clip under one shared crop or rotation, and the sample's flip.

    Where the view says "apart", each image has a crop and a coin of its own.
    """
    if rng is None or view.augment == "none":
        return images
    if view.augment.endswith("_apart"):
        if view.augment == "crop_flip_apart":
            images = [crop([image], rng)[0] for image in images]
        return [image[:, ::-1] if toss(rng) else image for image in images]
    if view.augment == "crop_flip":
        images = crop(images, rng)
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
    chosen = choose_frames(len(stored), view.frames, rng, view.choice)
    frames = [decode_frame(stored[k], spec) for k in chosen]
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

    A flipped picture moves the other way: u becomes 255 - u, but where pictures are flipped apart
    (as in the official release).
    """
    channels = 2 * spec.stack
    chosen = choose_frames(len(stored) // channels, view.frames, rng, view.choice)
    maps = [
        cv2.imdecode(np.frombuffer(stored[k * channels + c], np.uint8), cv2.IMREAD_GRAYSCALE)
        for k in chosen
        for c in range(channels)
    ]
    turned = augment(maps, view, rng, flip)
    out = np.empty((len(maps), size, size), dtype=np.uint8)
    for k, image in enumerate(turned):
        out[k] = resize(np.ascontiguousarray(image), size)
    shared = view.augment != "none" and not view.augment.endswith("_apart")
    if rng is not None and flip and shared:
        out[0::2] = 255 - out[0::2]
    return out.reshape(len(chosen), channels, size, size)
