"""Shared mathematics of the methods: pure functions of tensors, usable in any training loop."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
