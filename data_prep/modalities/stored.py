"""Whether stored values are what their spec says: of each kind of modality, one by one.

    fault(value, spec, words) -> "" or what is wrong

This is the reader's side of the contract, written apart from the encoders that it checks. What it
cannot see is a flipped bit inside of a picture that still decodes: nothing stores a checksum.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from data_prep.spec import Array, Audio, Flow, Image, Modality, Text, Video

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def fault(value: Any, spec: Modality, words: int = 0) -> str:
    """What is wrong with one stored value, or "".

    `value` is what `Shard.value` gives: a buffer of a spectrogram, else a list of buffers. `words`
    is the number of lines in the vocabulary of a text that is stored as tokens.
    """
    if isinstance(spec, Audio):
        return spectrogram_fault(value, spec)
    parts = [bytes(part) for part in value]
    if isinstance(spec, Video):
        return video_fault(parts, spec)
    if isinstance(spec, Image):
        return image_fault(parts, spec)
    if isinstance(spec, Flow):
        return flow_fault(parts, spec)
    if isinstance(spec, Text):
        return text_fault(parts, spec, words)
    assert isinstance(spec, Array), spec
    return array_fault(parts, spec)


def spectrogram_fault(value: Any, spec: Audio) -> str:
    """float16 [F, T], finite."""
    rows, columns = spec.shape
    if len(value) != 2 * rows * columns:
        return f"{len(value)} bytes instead of float16 [{rows}, {columns}]"
    values = np.frombuffer(value, dtype=np.float16)
    return "" if np.isfinite(values).all() else "values that are not finite"


def decoded(data: bytes, mode: int, ours: bool) -> np.ndarray | None:
    """The picture in OpenCV's `mode`, or None where it does not decode whole.

    OpenCV fills what a cut JPEG lacks with grey and says nothing, so its end is looked for: of
    those that are `ours`, for other encoders may write something after it.
    """
    if ours and data.startswith(JPEG_START) and not data.endswith(JPEG_END):
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), mode)
    except cv2.error:  # no bytes at all
        return None


def pictures_fault(
    parts: Sequence[bytes], mode: int, ours: bool = True
) -> tuple[str, tuple[int, ...]]:
    """What is wrong with the pictures, and their shape, which is that of all."""
    shapes = set()
    for number, data in enumerate(parts):
        image = decoded(data, mode, ours)
        if image is None:
            return f"picture {number} of {len(parts)} does not decode", ()
        shapes.add(image.shape)
    if len(shapes) > 1:
        return f"pictures of the shapes {sorted(shapes)}", ()
    return "", shapes.pop()


def colour_fault(parts: Sequence[bytes], short_side: int | None, square: int | None = None) -> str:
    """Whether the pictures are RGB, of one size, and no larger than they should be."""
    wrong, shape = pictures_fault(parts, cv2.IMREAD_UNCHANGED)
    if wrong:
        return wrong
    if len(shape) != 3 or shape[2] != 3:
        return f"pictures of {shape} instead of RGB"
    if square and shape[:2] != (square, square):
        return f"pictures of {shape} instead of {square} x {square}"
    if not square and short_side and min(shape[:2]) > short_side:
        return f"pictures of {shape}: the shorter side is above {short_side}"
    return ""


def video_fault(parts: Sequence[bytes], spec: Video) -> str:
    """`positions` or `first` frames, or `min_frames` to `max_frames`, of one allowed size.

    A folder of pictures may have given `of_folder` frames.
    """
    fixed = spec.positions or spec.first
    most = fixed or max(spec.max_frames, spec.of_folder)
    least = fixed or max(1, spec.min_frames)
    if not least <= len(parts) <= most:
        return f"{len(parts)} frames instead of {least} to {most}"
    if spec.codec == "raw":
        return _raw_fault(parts, spec)
    return colour_fault(parts, spec.short_side, spec.square)


def _raw_fault(parts: Sequence[bytes], spec: Video) -> str:
    """uint8 [H, W, 3] of one size: the spec's square, or H and W as uint32 before the values."""
    shapes = set()
    for data in parts:
        height, width = (spec.square,) * 2
        if not spec.square:
            height, width = np.frombuffer(data[:8].ljust(8, b"\0"), "<u4").tolist()
            data = data[8:]
        if not height * width or len(data) != 3 * height * width:
            return f"a frame of {len(data)} bytes that is not uint8 [{height}, {width}, 3]"
        shapes.add((height, width))
    if len(shapes) > 1:
        return f"frames of the shapes {sorted(shapes)}"
    side = spec.short_side if not spec.square else None
    (shape,) = shapes
    return (
        f"frames of {shape}: the shorter side is above {side}" if side and min(shape) > side else ""
    )


def image_fault(parts: Sequence[bytes], spec: Image) -> str:
    """One colour picture whose shorter side is at most `short_side`."""
    if len(parts) != 1:
        return f"{len(parts)} pictures instead of 1"
    return colour_fault(parts, spec.short_side)


def flow_fault(parts: Sequence[bytes], spec: Flow) -> str:
    """u and v of `stack` pairs at each of `positions`, of one size; read as grey.

    Folders of u and v in place of a video may have given up to `of_folder` positions.
    """
    channels = 2 * spec.stack
    positions, rest = divmod(len(parts), channels)
    if rest or positions != spec.positions and not 1 <= positions <= spec.of_folder:
        more = f", or a multiple of {channels}" if spec.of_folder else ""
        return f"{len(parts)} pictures instead of {channels * spec.positions}{more}"
    return pictures_fault(parts, cv2.IMREAD_GRAYSCALE, spec.algorithm != "precomputed")[0]


def text_fault(parts: Sequence[bytes], spec: Text, words: int) -> str:
    """uint16 ids [n] below `words`, uint8 segments [n]; n from 1 to `max_tokens`.

    Where the vocabulary is built: one or two texts in UTF-8.
    """
    if spec.built:
        return _utf8_fault(parts, 1 + spec.pair)
    if len(parts) != 2 or len(parts[0]) != 2 * len(parts[1]):
        return f"{[len(part) for part in parts]} bytes instead of two a token and one a segment"
    ids, segments = np.frombuffer(parts[0], np.uint16), np.frombuffer(parts[1], np.uint8)
    if not 1 <= len(ids) <= spec.max_tokens:
        return f"{len(ids)} tokens instead of 1 to {spec.max_tokens}"
    if ids.max() >= words:
        return f"token {ids.max()} of a vocabulary of {words}"
    return "" if segments.max() <= spec.pair else f"segment {segments.max()}"


def _utf8_fault(parts: Sequence[bytes], due: int) -> str:
    if len(parts) != due:
        return f"{len(parts)} texts instead of {due}"
    try:
        for part in parts:
            part.decode()
    except UnicodeDecodeError:
        return "a text that is not UTF-8"
    return ""


def array_fault(parts: Sequence[bytes], spec: Array) -> str:
    """int32 (L, D) and float32 [L, D], finite; L from 0 (all was padding) to `max_length`."""
    if len(parts) != 2 or len(parts[0]) != 8:
        return f"{[len(part) for part in parts]} bytes instead of a shape and its values"
    length, width = np.frombuffer(parts[0], np.int32).tolist()
    if not 0 <= length <= spec.max_length or width < 1:
        return f"the shape [{length}, {width}], at most {spec.max_length} vectors"
    if len(parts[1]) != 4 * length * width:
        return f"{len(parts[1])} bytes instead of float32 [{length}, {width}]"
    finite = np.isfinite(np.frombuffer(parts[1], np.float32)).all()
    return "" if finite else "values that are not finite"
