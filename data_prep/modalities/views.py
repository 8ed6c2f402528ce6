"""Transforms stored images into model input: frame selection, crop, rotation, flip, resizing.

Shared by image, video and flow. Training uses a random generator per sample; without one, the
result is the deterministic evaluation transform.
"""

import cv2
import numpy as np
import PIL.Image

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


def crop(images: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Crops images of one size to the same region of random area and aspect ratio."""
    height, width = images[0].shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*CROP_AREA)
        ratio = float(np.exp(rng.uniform(*np.log(CROP_RATIO))))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            break
    else:
        w = h = min(height, width)
        top, left = (height - h) // 2, (width - w) // 2
    return [image[top : top + h, left : left + w] for image in images]


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


def augmented(
    images: list[np.ndarray], how: str, rng: np.random.Generator | None, flip: bool
) -> list[np.ndarray]:
    """Augments the images of a sample.

    `how`: "crop_flip" is one random crop for all images and the sample's flip; "flip" only the
    flip; "rotate_flip" a rotation by up to 30 degrees, then the flip; "none" changes nothing. The
    flip is shared by the modalities of a sample, so flow and frames stay consistent.
    "crop_flip_apart" and "flip_apart" draw independently for each image.
    """
    if rng is None or how == "none":
        return images
    if how.endswith("_apart"):
        if how == "crop_flip_apart":
            images = [crop([image], rng)[0] for image in images]
        return [image[:, ::-1] if flipped(rng) else image for image in images]
    if how == "crop_flip":
        images = crop(images, rng)
    elif how == "rotate_flip":
        degrees = float(rng.uniform(-ROTATION, ROTATION))
        images = [rotate(image, degrees) for image in images]
    return [image[:, ::-1] for image in images] if flip else images


def clip_input(
    frames: list[np.ndarray], how: str, size: int, rng: np.random.Generator | None, flip: bool
) -> np.ndarray:
    """Augments and resizes RGB frames [H, W, 3] to uint8 [T, 3, size, size]."""
    out = np.empty((len(frames), 3, size, size), dtype=np.uint8)
    for k, frame in enumerate(augmented(frames, how, rng, flip)):
        out[k] = resize(np.ascontiguousarray(frame), size).transpose(2, 0, 1)
    return out
