"""The first layer of each encoder: stored values become normalised float images.

Loader workers hand over uint8 frames and float16 spectrograms; casting and normalising happen here,
on the model's device. The constants are buffers, so that a checkpoint carries them to new files.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class SpectrogramInput(nn.Module):
    """[B, 1, F, T] -> ([B, 1, F', T'] float32, 1): (x - mean) / std, then average pooling.

    `zscore` instead normalises each clip by its own mean and standard deviation.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, pool: int = 1, zscore: bool = False):
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))
        self.pool, self.zscore = pool, zscore

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        x = x.float()
        if self.zscore:
            std, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
            x = (x - mean) / std.clamp_min(1e-6)
        else:
            x = (x - self.mean) / self.std
        return (F.avg_pool2d(x, self.pool) if self.pool > 1 else x), 1


class FramesInput(nn.Module):
    """uint8 [B, T, 3, H, W] -> ([B * T, 3, H, W] float32, T): scaled to [0, 1], then normalised."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return (x.flatten(0, 1).float() / 255 - self.mean) / self.std, x.shape[1]


class PooledEncoder(nn.Module):
    """An input layer, a convolutional trunk, and the mean over time and positions: [B, width].

    Frames pass the trunk as independent images, as in the field's frame-wise ResNet-18. With
    `project`, a trained linear layer brings the mean to that width, as the official release does
    with pictures.
    """

    def __init__(self, inputs: nn.Module, trunk: nn.Module, project: int = 0):
        super().__init__()
        self.inputs, self.trunk, self.width = inputs, trunk, project or trunk.width
        self.project = nn.Linear(trunk.width, project) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        images, times = self.inputs(x)
        images = images.contiguous(memory_format=torch.channels_last)
        pooled = self.trunk(images).float().mean((2, 3))  # [B * T, D]
        return self.project(pooled.unflatten(0, (-1, times)).mean(1))
