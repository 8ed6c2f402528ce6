"""Fusion: from the features of all modalities, side by side [B, sum of D_m], to logits [B, C].

concat   one linear layer: z = sum_m W_m f^m + b
sum      a linear layer for each modality, added up: the same function, with other initial weights
film     the first modality scales and shifts the others, channel by channel, then a linear layer
gated    the first modality opens and closes the channels of the others, then a linear layer

FiLM and gate follow GeWu-Lab/OGM-GE_CVPR2022 (models/fusion_modules.py), at the width of the second
modality; of three or more, all but the first are treated as one (our choice).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def concat(widths: Sequence[int], classes: int) -> nn.Module:
    """One linear layer."""
    return nn.Linear(sum(widths), classes)


@torch.no_grad()
def summed(widths: Sequence[int], classes: int) -> nn.Module:
    """One linear layer with the initial weights of one for each modality, and their biases' sum.

    The biases of separate layers would all get the same gradient; here they are one.
    """
    layers = [nn.Linear(width, classes) for width in widths]
    fusion = nn.Linear(sum(widths), classes)
    fusion.weight.copy_(torch.cat([layer.weight for layer in layers], dim=1))
    fusion.bias.copy_(torch.stack([layer.bias for layer in layers]).sum(0))
    return fusion


class Conditioned(nn.Module):
    """What FiLM and gate share: the first modality acts on the channels of the others."""

    parts = 1  # values that the first modality gives to each channel

    def __init__(self, widths: Sequence[int], classes: int):
        super().__init__()
        self.widths = list(widths)
        self.condition = nn.Linear(widths[0], self.parts * sum(widths[1:]))
        self.out = nn.Linear(sum(widths[1:]), classes)

    def forward(self, x: Tensor) -> Tensor:
        first, others = x.split([self.widths[0], sum(self.widths[1:])], dim=1)
        return self.out(self.changed(others, self.condition(first)))

    def changed(self, others: Tensor, given: Tensor) -> Tensor:
        """[B, D] of the others' features [B, D], given [B, parts * D]."""
        raise NotImplementedError


class Film(Conditioned):
    """gamma * f + beta."""

    parts = 2

    def changed(self, others: Tensor, given: Tensor) -> Tensor:
        gamma, beta = given.chunk(2, dim=1)
        return gamma * others + beta


class Gated(Conditioned):
    """sigmoid(g) * h(f), with a linear layer h that keeps the width."""

    def __init__(self, widths: Sequence[int], classes: int):
        super().__init__(widths, classes)
        self.hidden = nn.Linear(sum(widths[1:]), sum(widths[1:]))

    def changed(self, others: Tensor, given: Tensor) -> Tensor:
        return torch.sigmoid(given) * self.hidden(others)


FUSIONS = {"concat": concat, "sum": summed, "film": Film, "gated": Gated}
LINEAR = ("concat", "sum")  # whose logits are a sum of one part for each modality
