"""Video: selected frames of a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from data_prep.modalities.base import Extracted, the_file, view
from data_prep.modalities.decoding import ENOUGH, choose, read_clip, scale
from data_prep.modalities.folders import read_folder
from data_prep.modalities.pictures import from_jpeg, looks, to_jpeg
from data_prep.modalities.views import Visual, choose_frames
from data_prep.reasons import Reject

BLACK = (360, 480, 3)  # CREMA-D's frame size, for clips without decodable frames


@dataclass(frozen=True)
class Video(Visual):
    """Stored RGB frames, selected by presentation time, each a JPEG or raw uint8 [H, W, 3].

    `fps`: the frames shown at (k + 0.5) / fps seconds, at most `max_frames`. `positions`: the
    frames shown at (j + 0.5) / positions of the duration. `first`: that many frames from the start.
    The frame shown at a time is the latest one that is not after it.

    The model sees `frames` of them, selected by `choice` (see `views.choose_frames`) and augmented
    by `augment` (see `views.regions`).
    """

    folders: ClassVar[bool] = True
    fps: float | None = None
    positions: int | None = None
    first: int | None = None
    max_frames: int = 10
    min_frames: int = 1  # if fewer are stored, the last one is repeated
    min_decoded: int = 3  # fewer frames in the file are rejected as few_frames
    short_side: int | None = 256  # larger frames are scaled down to it, keeping the aspect ratio
    square: int | None = None  # alternatively, area-resized to square x square
    codec: str = "jpeg"
    quality: int = 95
    missing: str = "reject"  # or "fill": repeated frames, black if none decodes, and a flag
    of_folder: int = 0  # maximum frames from a folder of images; 0: folders are not read
    frames: int = view(3)
    augment: str = view("crop_flip")
    choice: str = view("segments")
    normalise: str | tuple[list[float], list[float]] = view("imagenet")

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The frames of one file or folder; `inline`: the [start, end] of an event, or None.

        Flags: "truncated" (only a part decodes, but at least 3 s or half of the nominal duration),
        "repeated_frames" (the last one, up to `min_frames`), "black", "still" (all frames are
        equal), "cut" (longer than `max_frames` cover), "no_video" (black frames replace a missing
        track).
        Raises `Reject`: "unreadable", "truncated", "no_video", "few_frames", "missing_file".
        """
        duration = 0.0
        try:
            if self.of_folder and paths and paths[0].is_dir():
                stored, flags, found = read_folder(paths[0], self)
            else:
                path = the_file(paths, "no_video")
                stored, flags, found, duration = self._read_file(path, inline)
        except Reject as reject:
            if self.missing != "fill" or reject.reason == "lfs_pointer":
                raise
            black = scale(np.zeros(BLACK, np.uint8), self)
            stored, flags, found = [self.pack(black)], ("no_video",), 0
        if len(stored) < self.min_frames:
            stored = stored + [stored[-1]] * (self.min_frames - len(stored))
            flags += ("repeated_frames",) * (found > 0)
        return Extracted(stored, flags, duration, found, found > 0)

    def _read_file(
        self, path: Path, window: Any
    ) -> tuple[list[bytes], tuple[str, ...], int, float]:
        """The stored frames of a file, their flags, and the frame count and seconds of the clip."""
        choice = partial(choose, self, window)
        limit = float("inf") if self.positions else max(self.max_frames / (self.fps or 1), ENOUGH)
        clip = read_clip(path, choice, self, limit)
        images = [clip.images[n] for n in clip.wanted]
        flags = clip.flags + looks(images)
        at_a_rate = not (self.first or self.positions or window)
        if at_a_rate and clip.duration > (self.max_frames + 0.5) / self.fps:
            flags += ("cut",)
        size = images[0].shape[1::-1]  # for all frames: a stream may change its size
        images = [cv2.resize(i, size) if i.shape[1::-1] != size else i for i in images]
        return [self.pack(image) for image in images], flags, clip.found, clip.duration

    def pack(self, image: np.ndarray) -> bytes:
        """The stored bytes of a frame, uint8 [H, W, 3]: a JPEG, or the raw values.

        Raw frames begin with H and W as uint32, unless `square` is set.
        """
        if self.codec == "jpeg":
            return to_jpeg(image, self.quality)
        size = b"" if self.square else np.asarray(image.shape[:2], dtype="<u4").tobytes()
        return size + np.ascontiguousarray(image).tobytes()

    def unpack(self, stored: Any) -> np.ndarray:
        if self.codec == "jpeg":
            return from_jpeg(stored)
        values = np.frombuffer(stored, dtype=np.uint8)
        if self.square:
            return values.reshape(self.square, self.square, 3)
        return values[8:].reshape(*values[:8].view("<u4").tolist(), 3)

    def chosen(self, stored: int, rng: np.random.Generator | None) -> list[int]:
        return choose_frames(stored, self.frames, rng, self.choice)
