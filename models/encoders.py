"""Encoders of spectrograms and frames: an input layer, a convolutional trunk, mean pooling.

The input layer turns uint8 frames and float16 spectrograms into normalised float images on the
model's device. Its constants are buffers, so that checkpoints keep them for use on other files.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class SpectrogramInput(nn.Module):
    """[B, 1, F, T] -> ([B, 1, F', T'] float32, 1): (x - mean) / std, then average pooling.

    `zscore` instead normalises each clip by its own mean and standard deviation.
    """

    mean: Tensor
    std: Tensor

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
    """[B, T, C, H, W] -> ([B * T, C, H, W] float32, T): divided by `scale`, then normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float], scale: int = 255):
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return (x.flatten(0, 1).float() / self.scale - self.mean) / self.std, x.shape[1]


class SmallCNN(nn.Sequential):
    """Three 3x3 convolutions of stride 2 with batch norm and ReLU, for the demo dataset."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (12, 24, 48)):
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)
        self.width = widths[-1]


class ResNet(nn.Module):
    """torchvision's ResNet up to its last stage, initialised as in the official release."""

    def __init__(self, channels: int, name: str):
        super().__init__()
        from torchvision.models import get_model  # takes 1.5 s: imported only on use

        net: Any = get_model(name, weights=None)
        self.width = net.fc.in_features
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.Sequential(stem, net.layer1, net.layer2, net.layer3, net.layer4)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Loads torchvision's weights except the classifier's; all other tensors must match."""
        stem = {"conv1": "stages.0.0", "bn1": "stages.0.1"}
        named = {}
        for key, value in state.items():
            head, _, rest = key.partition(".")
            if head != "fc":
                place = stem.get(head) or f"stages.{head.removeprefix('layer')}"
                named[f"{place}.{rest}"] = value
        # Files from old versions of PyTorch lack the batch counters.
        counters = {k: v for k, v in self.state_dict().items() if k.endswith("batches_tracked")}
        self.load_state_dict(counters | named)

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)


class PooledEncoder(nn.Module):
    """An input layer, a convolutional trunk, and the mean over time and positions: [B, width].

    The trunk treats frames as independent images. With `project`, a trained linear layer maps the
    mean to that width, as in the official release for images.
    """

    def __init__(self, inputs: nn.Module, trunk: Any, project: int = 0):
        super().__init__()
        self.inputs, self.trunk, self.width = inputs, trunk, project or trunk.width
        self.project = nn.Linear(trunk.width, project) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        images, times = self.inputs(x)
        images = images.contiguous(memory_format=torch.channels_last)
        pooled = self.trunk(images).float().mean((2, 3))  # [B * T, D]
        return self.project(pooled.unflatten(0, (-1, times)).mean(1))
