"""Shared mathematics of the methods: functions of tensors, usable in any training loop."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Value = TypeVar("Value", float, Tensor)


def unimodal_losses(logits: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Sum over modalities of the mean cross-entropy of [B, C] logits (paper Eq. 9, second half)."""
    return torch.stack([F.cross_entropy(z, labels) for z in logits.values()]).sum()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows of [B, C] whose largest logit is the label's; a scalar without a host read."""
    return (logits.detach().argmax(1) == labels).float().mean()


def label_shares(log_p: Tensor, labels: Tensor) -> Tensor:
    """How a prediction divides its mass among the labels that a sample's modalities carry.

    log_p [R, C] log-probabilities, labels [R, M] the label of each modality's source -> [R, M]
    shares that sum to 1 over the modalities. The mass of a label that several modalities carry is
    split equally among them, so that shares stay comparable with unimodal ones (our choice; for
    M = 2 with two labels it is the paper's normalised confidence of Sec. 3.4 exactly).
    """
    carriers = (labels[:, :, None] == labels[:, None, :]).sum(2)
    return torch.softmax(log_p.gather(1, labels) - carriers.log(), dim=1)


def true_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] probability of each row's own label under softmax of [B, C] logits."""
    return F.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of each row of two [..., C] log-probabilities, in [0, ln 2]."""
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    left = (log_p.exp() * (log_p - log_mean)).sum(-1)
    return 0.5 * (left + (log_q.exp() * (log_q - log_mean)).sum(-1))


def dirichlet(concentration: float, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws of `shape` from the symmetric Dirichlet over the last axis: rows sum to 1.

    Two columns are Beta(a, a) and its complement. `torch.distributions` takes no generator; this is
    its own sampler with one.
    """
    a = torch.full(tuple(shape), concentration, device=generator.device)
    gamma = torch._standard_gamma(a, generator=generator).clamp_min(torch.finfo(a.dtype).tiny)
    return gamma / gamma.sum(-1, keepdim=True)


def subsets(players: Sequence[str]) -> list[tuple[str, ...]]:
    """The 2^M - 1 non-empty coalitions, small ones first, each in the order of `players`."""
    sizes = range(1, len(players) + 1)
    return [s for size in sizes for s in itertools.combinations(players, size)]


def shapley(worth: Callable[[tuple[str, ...]], Value], players: Sequence[str]) -> dict[str, Value]:
    """Shapley value of each player: its mean gain over all orders in which players may join.

    `worth` takes a coalition in the order of `players`, the empty one included, and returns a
    number or a tensor of many games at once.
    """
    orders = list(itertools.permutations(players))
    total = {}
    for order in orders:
        for place, m in enumerate(order):
            before = tuple(p for p in players if p in order[:place])
            after = tuple(p for p in players if p in order[: place + 1])
            total[m] = total.get(m, 0) + (worth(after) - worth(before)) / len(orders)
    return {m: total[m] for m in players}


class CommonWidth(nn.Module):
    """Brings features {m: [B, D_m]} to one width, so that they can be compared.

    Equal widths pass unchanged; otherwise each modality gets a linear map without bias to the
    smallest width (our choice).
    """

    def __init__(self, widths: dict[str, int]):
        super().__init__()
        narrow = min(widths.values())
        unequal = len(set(widths.values())) > 1
        self.maps = nn.ModuleDict(
            {m: nn.Linear(w, narrow, bias=False) for m, w in widths.items() if unequal}
        )

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{m: [B, D]} in the order of `features`."""
        return {m: self.maps[m](f) if m in self.maps else f for m, f in features.items()}
