"""Keeps the samples of a part on a device, and makes batches of model input there.

The draws are those of `to_input`, in the same order. Cropping, mirroring and audio windows are the
same; resizing differs by at most two of 255 levels (Pillow rounds its weights), and a few
pixels of a rotated image may come from a neighbour.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.program import cores
from data_prep.modalities.base import Draw, Modality
from data_prep.modalities.views import Visual, regions


class Whole:
    """Inputs [N, ...] that no draw changes, or only the choice of `window` last columns.

    `sizes` [N, ...]: the extent of each sample without padding (see `Modality.trim`).
    """

    modality: Any = None  # with a window: draws its start
    window = 0

    def __init__(self, values: Tensor, sizes: np.ndarray):
        self.values, self.sizes = values, sizes

    def nbytes(self) -> int:
        return self.values.nbytes

    def drawn(self, row: int, draw: Draw) -> tuple[int, int]:
        """(row, first column) of a sample's input."""
        return row, self.modality.start(draw) if self.window else 0

    def inputs(self, drawn: Sequence[tuple[int, int]], size: int) -> Tensor:
        """The input of a batch."""
        rows, starts = to_device(np.array(drawn).T, self.values.device)
        found = self.values[rows]
        if self.window:
            columns = starts[:, None] + torch.arange(self.window, device=starts.device)
            shape = (*found.shape[:-1], self.window)
            return found.gather(-1, columns.view(-1, 1, 1, self.window).expand(shape))
        longest = self.sizes[[row for row, _ in drawn]].max(0)
        return found[(slice(None), *map(slice, longest.tolist()))]


def whole(modality: Modality, stored: Iterable, draw: Draw, device: torch.device) -> Whole:
    """Keeps the inputs of all samples on `device`."""
    made = [modality.to_input(value, draw) for value in stored]
    sizes = np.array([modality.trim(values[None]).shape[1:] for values in made])
    return Whole(torch.from_numpy(np.stack(made)).to(device), sizes)


class Images:
    """Decoded images [K, C, H, W], padded to a common size; sample n has those from `starts[n]`."""

    def __init__(self, images: Tensor, sizes: np.ndarray, starts: np.ndarray, modality: Visual):
        self.images, self.sizes, self.starts, self.modality = images, sizes, starts, modality

    def nbytes(self) -> int:
        return self.images.nbytes

    def drawn(self, row: int, draw: Draw) -> list[tuple]:
        """(image, degrees, negated, *region) of each image in a sample's input."""
        first, end = self.starts[row : row + 2]
        sizes = [(int(h), int(w)) for h, w in self.sizes[first:end]]
        places = self.modality.chosen(len(sizes), draw.rng)
        chosen = [sizes[k] for k in places]
        degrees, found = regions(chosen, self.modality.augment, draw.rng, draw.flip)
        negated = self.modality.negated(len(places), draw.rng is not None and draw.flip)
        shots = zip(places, negated, found, strict=True)
        return [(int(first) + k, degrees, changes, *region) for k, changes, region in shots]

    def inputs(self, drawn: Sequence[list[tuple]], size: int) -> Tensor:
        """uint8 [B, T, C, size, size]."""
        table = np.array([shot for shots in drawn for shot in shots])
        where = table[:, 0].astype(np.int64)
        device = self.images.device
        values = to_device(table.T[1:].astype(np.float32), device)
        degrees, negated, top, left, height, width, mirrored = values
        images = self.images[to_device(where, device)]
        if table[:, 1].any():
            images = rotated(images, to_device(self.sizes[where], device), degrees)
        out = resampled(images, (top, height), (left, width), mirrored, size)
        out = torch.where(negated[:, None, None, None] > 0, 255 - out, out).to(torch.uint8)
        return out.view(len(drawn), -1, self.modality.stream()["channels"], size, size)


def images(modality: Visual, stored: Iterable, device: torch.device) -> Images:
    """Decodes the images of all samples and keeps them on `device`."""
    with ThreadPoolExecutor(cores()) as pool:
        samples = list(pool.map(modality.decode, stored))
    flat = [image for sample in samples for image in sample]
    sizes = np.array([image.shape[:2] for image in flat])
    depth = flat[0].shape[2:] or (1,)
    kept = torch.zeros(
        (len(flat), *depth, *sizes.max(0).tolist()), dtype=torch.uint8, device=device
    )
    for k, image in enumerate(flat):
        pixels = torch.tensor(np.atleast_3d(image)).permute(2, 0, 1)
        kept[k, :, : image.shape[0], : image.shape[1]] = pixels
    starts = np.cumsum([0, *map(len, samples)])
    return Images(kept, sizes, starts, modality)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """A copy that the host does not wait for."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def resampled(
    images: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
    mirrored: Tensor,
    size: int,
) -> Tensor:
    """Regions of images [K, C, H, W] as [K, C, size, size]: Pillow's antialiased bilinear filter.

    `rows` and `columns`: the first one and the number of each region, [K] each.
    """
    across = weights(*columns, images.shape[3], size)
    across = torch.where(mirrored[:, None, None] > 0, across.flip(1), across)
    down = weights(*rows, images.shape[2], size)
    out = torch.einsum("kchw,kxw->kchx", images.float(), across).round()  # as Pillow, which rounds
    return torch.einsum("kyh,kchx->kcyx", down, out).round()


def weights(first: Tensor, count: Tensor, length: int, size: int) -> Tensor:
    """[K, size, length]: how much each of `length` pixels adds to each of `size` new ones."""
    scale, end = count / size, (first + count)[:, None, None]
    places = torch.arange(size, device=first.device) + 0.5
    centres = first[:, None] + places * scale[:, None]  # [K, size]
    pixels = torch.arange(length, device=first.device) + 0.5
    distance = (pixels - centres[:, :, None]).abs() / scale.clamp_min(1)[:, None, None]
    inside = (pixels > first[:, None, None]) & (pixels < end)
    found = (1 - distance).clamp_min(0) * inside
    return found / found.sum(2, keepdim=True)


def rotated(images: Tensor, sizes: Tensor, degrees: Tensor) -> Tensor:
    """Images [K, C, H, W] of `sizes` [K, 2] turned about their centres as in `views.rotate`."""
    count, channels, height, width = images.shape
    high, wide = (sizes[:, k, None, None].float() for k in (0, 1))
    middle_y, middle_x = (high - 1) / 2, (wide - 1) / 2
    angle = degrees.deg2rad()[:, None, None]
    y = torch.arange(height, device=images.device)[:, None] - middle_y
    x = torch.arange(width, device=images.device) - middle_x
    from_x = (angle.cos() * x - angle.sin() * y + middle_x).round()
    from_y = (angle.sin() * x + angle.cos() * y + middle_y).round()
    inside = (from_x >= 0) & (from_x < wide) & (from_y >= 0) & (from_y < high)
    where = (from_y.clamp(0, height - 1) * width + from_x.clamp(0, width - 1)).long()
    flat = where.view(count, 1, -1).expand(-1, channels, -1)
    found = images.flatten(2).gather(2, flat).view_as(images)
    return torch.where(inside[:, None], found, 0)
