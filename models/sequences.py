"""Encoders of token ids and of feature sequences, both from scratch or with pretrained weights."""

import math

import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """int32 [B, 3, L] (ids, segments, mask) -> [B, width]: the last layer's vector at token 0.

    As in the official release, there is no pooler (ELECTRA has none), and the mask, which is that
    of the true length, hides the padding: L may be any length that holds the longest text. `body`
    is a transformers model; its dropout acts in training only.

    A body whose configuration says `readout="largest"` (that of `--text_model tiny`) is read as the
    largest value of each feature over the tokens instead, our choice for random weights. At their
    deviation of 0.02, another word moves the first token's vector 0.002 times as far as its own,
    and SGD stays at chance. The largest value takes up each word's own vector, and unlike the mean
    it does not fade as texts grow longer.
    """

    def __init__(self, body: nn.Module):
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
    """float32 [B, L, D] -> [B, width]: a small Transformer, mean over the positions there are.

    Rows of zeros are padding, wherever they stand. Two layers of four heads as BalanceBenchmark has
    for sentiment sets; width, sinusoidal positions and the mean are our choice.
    """

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
        # A sample without any vector attends to its zeros: no row may be masked whole.
        there = there | ~there.any(1, keepdim=True)
        hidden = self.enter((x - self.mean) / self.std) + positions(
            x.shape[1], self.width, x.device
        )
        hidden = self.layers(hidden, src_key_padding_mask=~there)
        weight = there[:, :, None].to(hidden.dtype)
        return ((hidden * weight).sum(1) / weight.sum(1)).float()


def positions(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal position codes [L, width]."""
    place = torch.arange(length, device=device)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    return torch.stack([(place * rate).sin(), (place * rate).cos()], dim=2).flatten(1)
