"""Tensor functions shared by several methods, usable in any training loop."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.classifier import Classifier, Features

Value = TypeVar("Value", float, Tensor)


def unimodal_accuracies(logits: Features, labels: Tensor) -> Tensor:
    """[M]: `accuracy` of each modality's logits [B, C]."""
    return torch.stack([accuracy(z, labels) for z in logits.values()])


def zero_padded_logits(model: Classifier, features: Features, frozen: bool = False) -> Features:
    """{m: W_m f^m + b}, [B, C] each: the fused output with all other features set to zero.

    If `frozen`, W and b get no gradient.
    """
    weight: Tensor = model.fusion.weight
    bias: Tensor = model.fusion.bias
    if frozen:
        weight, bias = weight.detach(), bias.detach()
    slices = model.modality_slices
    return {m: F.linear(f, weight[:, slices[m]], bias) for m, f in features.items()}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows of [B, C] whose argmax is the label; a scalar tensor, without a host read."""
    return (logits.detach().argmax(1) == labels).float().mean()


def label_shares(log_p: Tensor, labels: Tensor) -> Tensor:
    """How a prediction splits its probability among the labels of a sample's modalities.

    log_p [R, C] log-probabilities, labels [R, M] the label of each modality's source -> [R, M],
    rows sum to 1. For M = 2 with two labels this is the paper's normalised confidence of Sec. 3.4.
    Modalities with the same label split its probability equally (our choice).
    """
    carriers = (labels[:, :, None] == labels[:, None, :]).sum(2)
    return torch.softmax(log_p.gather(1, labels) - carriers.log(), dim=1)


def true_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """[B]: softmax probability of each row's label, for logits [B, C]."""
    return F.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of each row of two [..., C] log-probabilities, in [0, ln 2]."""
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    left = (log_p.exp() * (log_p - log_mean)).sum(-1)
    return 0.5 * (left + (log_q.exp() * (log_q - log_mean)).sum(-1))


def dirichlet(concentration: float, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws of `shape` from the symmetric Dirichlet over the last axis; size 2: Beta(a, a)."""
    # `torch.distributions` takes no generator; this calls its sampler with one.
    a = torch.full(tuple(shape), concentration, device=generator.device)
    gamma = torch._standard_gamma(a, generator=generator).clamp_min(torch.finfo(a.dtype).tiny)
    return gamma / gamma.sum(-1, keepdim=True)


def subsets(players: Sequence[str]) -> list[tuple[str, ...]]:
    """The 2^M - 1 non-empty coalitions, smallest first, each in the order of `players`."""
    sizes = range(1, len(players) + 1)
    return [s for size in sizes for s in itertools.combinations(players, size)]


def shapley(worth: Callable[[tuple[str, ...]], Value], players: Sequence[str]) -> dict[str, Value]:
    """Shapley value of each player: its mean marginal gain over all orders of joining.

    `worth` maps a coalition in the order of `players`, or the empty one, to a number, or to a
    tensor with one entry per game.
    """
    orders = list(itertools.permutations(players))
    total: dict[str, Any] = dict.fromkeys(players, 0)
    for order in orders:
        for place, m in enumerate(order):
            before = tuple(p for p in players if p in order[:place])
            after = tuple(p for p in players if p in order[: place + 1])
            total[m] = total[m] + (worth(after) - worth(before)) / len(orders)
    return total


def keep_only(features: Features, keep: Tensor) -> Features:
    """Features {m: [B, D_m]} with zero vectors where keep [B] names another modality."""
    return {
        m: torch.where(((keep == 0) | (keep == k))[:, None], f, 0.0)
        for k, (m, f) in enumerate(features.items(), start=1)
    }


# OPM and OGM --------------------------------------------------------------------------------------


@torch.no_grad()
def compare_modalities(logits: Features, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(S [M], rho [M]) of split logits {m: [B, C]}, with S^m = sum_i softmax(z_i^m)[y_i]."""
    score = torch.stack([true_probability(z, labels).sum() for z in logits.values()])
    return score, discrepancy_ratio(score)


def discrepancy_ratio(score: Tensor) -> Tensor:
    """rho^m = mean over l != m of S^m / S^l, [M] of scores [M] > 0; above 1 if m is ahead."""
    # The mean for M > 2 is second-hand (Eq. 7 of the TPAMI paper). Clamping is our choice: adding
    # 1e-5, as BalanceBenchmark does, breaks rho^1 rho^2 = 1.
    quotient = score[:, None] / score.clamp_min(1e-5)
    return quotient.fill_diagonal_(0.0).sum(1) / (len(score) - 1)


def gradient_factor(ratio: Tensor, alpha: float) -> Tensor:
    """OGM's k^m = 1 - tanh(alpha rho^m) if rho^m > 1, else 1; [M] in [0, 1] of ratios [M]."""
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), 1.0)


@torch.no_grad()
def scale_encoders_(model: Classifier, factors: Tensor) -> None:
    """Multiplies the gradients of each modality's encoder by its factor, [M]."""
    for m, factor in zip(model.modalities, factors):
        for p in model.encoder_parameters(m):
            if p.grad is not None:
                p.grad.mul_(factor)


@torch.no_grad()
def modulate_encoders_(model: Classifier, k: Tensor, generator: torch.Generator | None) -> None:
    """OGM-GE: grad <- k^m grad + e, e ~ N(0, std(grad)^2), of the encoders; k [M].

    Without a generator there is no noise. Vectors (batch norms and biases) are left alone, as in
    BalanceBenchmark; the official code takes only 4-D gradients: the same tensors in convolutional
    encoders, but none in a text encoder.
    """
    for m, k_m in zip(model.modalities, k):
        grads = [p.grad for p in model.encoder_parameters(m) if p.ndim != 1 and p.numel() > 1]
        for grad in (g for g in grads if g is not None):
            # Flatten in memory order: noise in another order than a channels-last gradient would
            # make this the slowest part of a step on a CPU.
            flat = grad.permute(sorted(range(grad.ndim), key=grad.stride, reverse=True)).view(-1)
            noise: Tensor | float = 0.0
            if generator is not None:  # `std` would read the mean back to the host on a CPU
                spread = torch.linalg.vector_norm(flat - flat.mean()) / (len(flat) - 1) ** 0.5
                noise = torch.empty_like(flat).normal_(generator=generator) * (spread + 1e-8)
            flat.mul_(k_m).add_(noise)


class CommonWidth(nn.Module):
    """Linear maps without bias from features {m: [B, D_m]} to the smallest D_m, if they differ."""

    def __init__(self, widths: dict[str, int]):
        super().__init__()
        self.maps, least = nn.ModuleDict(), min(widths.values())
        for m, width in widths.items() if len(set(widths.values())) > 1 else ():
            self.maps[m] = nn.Linear(width, least, bias=False)

    def forward(self, features: Features) -> Features:
        return {m: self.maps[m](f) if m in self.maps else f for m, f in features.items()}
