"""Transforms stored images into model input: frame selection, crop, rotation, flip, resizing.

Shared by image, video and flow. Training uses a random generator per sample; without one, the
result is the deterministic evaluation transform.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image

from data_prep.modalities.base import Draw, Modality

# Parameters of torchvision's RandomResizedCrop and RandomRotation in public loaders.
CROP_AREA, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
ROTATION = 30.0  # degrees in both directions


def choose_frames(
    stored: int, wanted: int, rng: np.random.Generator | None, rule: str = "segments"
) -> list[int]:
    """One index from each of `wanted` segments: random in training, else the middle.

    "segments": equal segments over all frames. The other rules are those of the loaders in the
    official release. Their segments have max(1, stored // wanted) frames, so frames at the end may
    never be used: "cremad"; "kinetics", whose segments begin with frame 1 (counted from 0), which
    uses no frame after 9 in training, and always frame 1 if there are at most 6; "ucf101"; and
    "ucf101_flow", which never uses the last image. An index beyond the last frame becomes the last
    one (the release raises an error).
    """
    if rule == "segments":
        if rng is None:
            return [int((j + 0.5) * stored / wanted) for j in range(wanted)]
        bounds = [(j * stored // wanted, -(-(j + 1) * stored // wanted)) for j in range(wanted)]
        return [int(rng.integers(first, max(first + 1, end))) for first, end in bounds]
    last = stored - 1
    if rule == "kinetics" and stored <= 6:
        return [min(1, last)] * wanted
    length = max(1, stored // wanted)
    begin, middle = {
        "cremad": (0, length // 2),
        "kinetics": (1, max(1, length // 2)),
        "ucf101": (0, max(1, length // 2) - 1),
        "ucf101_flow": (0, max(1, length // 2) - 1),
    }[rule]
    if rule == "ucf101_flow":
        last = max(0, stored - 2)
    elif rule == "kinetics" and rng:
        last = min(9, last)
    places = [begin + int(rng.integers(length)) if rng else middle for _ in range(wanted)]
    return [min(j * length + place, last) for j, place in enumerate(places)]


class Region(NamedTuple):
    """A part of an image, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


def crop(size: tuple[int, int], rng: np.random.Generator) -> Region:
    """A region of random area and aspect ratio of an image of `size` (H, W)."""
    height, width = size
    for _ in range(10):
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = float(np.exp(rng.uniform(*np.log(CROP_RATIO))))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return Region(top, left, h, w)
    side = min(height, width)
    return Region((height - side) // 2, (width - side) // 2, side, side)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates an image about its centre, keeping its size; uncovered areas are black."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_NEAREST)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to [size, size, ...], ignoring the aspect ratio: Pillow's antialiased bilinear.

    torchvision's transforms do the same; OpenCV's filters differ by up to 8 of 255 levels.
    """
    if image.shape[:2] == (size, size):
        return image
    picture = PIL.Image.fromarray(image)
    return np.asarray(picture.resize((size, size), PIL.Image.Resampling.BILINEAR))


def flipped(rng: np.random.Generator | None) -> bool:
    """Draws whether to mirror a sample; never in evaluation."""
    return rng is not None and bool(rng.random() < 0.5)


def regions(
    sizes: Sequence[tuple[int, int]], how: str, rng: np.random.Generator | None, flip: bool
) -> tuple[float, list[Region]]:
    """Draws the augmentation of a sample's images: degrees of rotation, then a region of each.

    `how`: "crop_flip" is one random crop for all images and the sample's flip; "flip" only the
    flip; "rotate_flip" a rotation by up to 30 degrees, then the flip; "none" changes nothing. The
    flip is shared by the modalities of a sample, so flow and frames stay consistent.
    "crop_flip_apart" and "flip_apart" draw independently for each image.
    """
    found = [Region(0, 0, *size) for size in sizes]
    if rng is None or how == "none":
        return 0.0, found
    degrees = float(rng.uniform(-ROTATION, ROTATION)) if how == "rotate_flip" else 0.0
    if how == "crop_flip":
        found = [crop(sizes[0], rng)] * len(sizes)
    elif how == "crop_flip_apart":
        found = [crop(size, rng) for size in sizes]
    apart = how.endswith("_apart")
    return degrees, [r._replace(mirrored=flipped(rng) if apart else flip) for r in found]


def augmented(
    images: list[np.ndarray], how: str, rng: np.random.Generator | None, flip: bool
) -> list[np.ndarray]:
    """Augments the images of a sample, see `regions`."""
    sizes: list[Any] = [image.shape[:2] for image in images]
    degrees, found = regions(sizes, how, rng, flip)
    if degrees:
        images = [rotate(image, degrees) for image in images]
    return [
        image[r.top : r.top + r.height, r.left : r.left + r.width][:, :: -1 if r.mirrored else 1]
        for image, r in zip(images, found)
    ]


class Visual(Modality):
    """A modality whose stored form is a list of images."""

    augment: str  # a field of each subclass, see `regions`

    def unpack(self, stored: Any) -> np.ndarray:
        """A stored image as uint8 [H, W, 3] or [H, W]."""
        raise NotImplementedError

    def chosen(self, stored: int, rng: np.random.Generator | None) -> list[int]:
        """The indices of the images that the model sees, of `stored` ones."""
        raise NotImplementedError

    def negated(self, images: int, mirrored: bool) -> list[bool]:
        """Which of the chosen images become 255 minus their values if the sample is mirrored."""
        return [False] * images

    def decode(self, stored: Any) -> list[np.ndarray]:
        return [self.unpack(image) for image in stored]

    def on_device(self, stored: Iterable, draw: Draw, device: Any) -> Any:
        from data_prep.modalities.on_device import images

        return images(self, stored, device)

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """uint8 [T, C, size, size]."""
        places = self.chosen(len(stored), draw.rng)
        images = [stored[k] if draw.decoded else self.unpack(stored[k]) for k in places]
        images = augmented(images, self.augment, draw.rng, draw.flip)
        depth = 1 if images[0].ndim == 2 else images[0].shape[2]
        out = np.empty((len(images), depth, draw.size, draw.size), dtype=np.uint8)
        for k, image in enumerate(images):
            small = resize(np.ascontiguousarray(image), draw.size)
            out[k] = small if small.ndim == 2 else small.transpose(2, 0, 1)
        for k, negated in enumerate(self.negated(len(images), draw.rng is not None and draw.flip)):
            if negated:
                out[k] = 255 - out[k]
        return out.reshape(-1, self.stream()["channels"], draw.size, draw.size)
