"""Encoders of token ids (from scratch or with pretrained weights) and of feature sequences."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """int32 [B, 3, L] (ids, segments, mask) -> [B, width]: the last layer's vector at token 0.

    As in the official release, there is no pooler, and the mask hides the padding. `body` is a
    transformers model.

    If its config has `readout="largest"` (`--text_model tiny`), the result is the maximum of each
    feature over the tokens instead. This is our choice for random weights: at a deviation of 0.02,
    another word hardly changes the first token's vector, and SGD stays at chance.
    """

    def __init__(self, body: Any):
        super().__init__()
        self.body, self.width = body, body.config.hidden_size
        self.largest = getattr(body.config, "readout", "first") == "largest"

    def forward(self, x: Tensor) -> Tensor:
        ids, segments, mask = x.long().unbind(1)
        out = self.body(input_ids=ids, token_type_ids=segments, attention_mask=mask)
        hidden = out.last_hidden_state  # [B, L, width]
        if self.largest:
            return hidden.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(1).float()
        return hidden[:, 0].float()


class SequenceEncoder(nn.Module):
    """float32 [B, L, D] -> [B, width]: a small Transformer, averaged over the rows.

    All-zero rows are padding. Two layers of four heads are as in BalanceBenchmark for sentiment;
    width, sinusoidal positions and averaging are our choice.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float], width: int = 64, dropout: float = 0.1):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.width = width
        self.enter = nn.Linear(len(mean), width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, 2, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, x: Tensor) -> Tensor:
        there = (x != 0).any(2)  # [B, L]
        # A sample with only padding attends to its zeros: attention needs an unmasked position.
        there = there | ~there.any(1, keepdim=True)
        place = torch.arange(x.shape[1], device=x.device)[:, None]
        rate = torch.arange(0, self.width, 2, device=x.device) * (-math.log(10000.0) / self.width)
        angle = place * torch.exp(rate)
        codes = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)  # [L, width]
        hidden = self.enter((x - self.mean) / self.std) + codes
        hidden = self.layers(hidden, src_key_padding_mask=~there)
        weight = there[:, :, None].to(hidden.dtype)
        return ((hidden * weight).sum(1) / weight.sum(1)).float()
