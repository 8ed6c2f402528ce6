"""ARL: asymmetric representation learning ("Improving Multimodal Learning via Imbalanced
Learning", ICCV 2025, arXiv 2507.10203).

A weighted sum of unimodal predictions has the least variance if each weight is inversely
proportional to that modality's variance. ARL measures how much the fused output relies on each
modality and how uncertain each is, and scales up the gradients of encoders that are relied on too
little. Cross-entropies of unimodal logits, from the fusion layer itself, reduce each one's bias.

    `zero_padded_logits`  s^m = W_m f^m + b: the fused output with the other features set to zero
    `reliance`            d_m = sum_c mean_i |s^m_ic|
    `entropy`             H_m = mean_i entropy(softmax s^m_i), used in place of the variance
    `target`              q_m = 1 / max(H_m / sum_j H_j, floor), divided by its sum
    `coefficients`        k = softmax_m(T * mean of the other modalities' d shares * q_m)
    `ARL.forward`         L = CE(o, y) + gamma sum_m CE(s^m, y); gamma = 1 in warm-up
    `ARL.after_backward`  encoder m's gradients times 1 + k_m after warm-up, then clipping

We could only read the abstract and summaries by others, not the equations. The formulas follow the
public code (shicaiwei123/ICCV2025-ARL: main_arl_variance.py, models/fusion_modules.py,
models/backbone.py), whose two versions differ in whether k is used; see docs/methods.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, Features, Logs, Method, choice, warmup
from methods.ops import (
    accuracy,
    scale_encoders_,
    unimodal_accuracies,
    zero_padded_logits,
)

CODE = "public code"


def reliance(logits: Features) -> Tensor:
    """d [M]: batch mean of |s| summed over classes, for unimodal logits s {m: [B, C]}."""
    return torch.stack([z.detach().abs().mean(0).sum() for z in logits.values()])


def entropy(logits: Features) -> Tensor:
    """H [M]: batch mean of the entropy in nats of softmax {m: [B, C]}."""
    p = [F.softmax(z.detach(), dim=1) for z in logits.values()]
    return torch.stack([-(q * (q + 1e-16).log()).sum(1).mean() for q in p])


def shares(x: Tensor) -> Tensor:
    """x [M] >= 0 divided by its sum; 1 / M each if the sum is 0 (the code divides 0 by 0)."""
    return torch.where(x.sum() > 0, x / x.sum(), 1 / len(x))


def target(h: Tensor, floor: float) -> Tensor:
    """q [M], sums to 1: inverse of the entropies h [M], shares clamped to at least 2 floor / M."""
    # The code's floor of 0.3 is 0.6 times the equal share of two; for M we take 0.6 times 1 / M.
    return shares(1 / shares(h).clamp_min(2 * floor / len(h)))


def coefficients(d_share: Tensor, q: Tensor, temperature: float) -> Tensor:
    """k [M], sums to 1: larger if the reliance share is low relative to its target q; both [M]."""
    # For M = 2 this takes the other modality's share, as in the code; else the mean (our choice).
    return torch.softmax(temperature * q * (1 - d_share) / (len(q) - 1), dim=0)


class ARL(Method):
    """Warm-up on fused plus unimodal losses, then scaled encoder gradients."""

    min_modalities = 2
    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        gamma: float = option(
            4.0,
            "weight of the unimodal losses after warm-up",
            low=0,
            source="paper, second-hand; public scripts: 4 CREMA-D, 5 AVE, 3 Kinetics-Sounds",
            search=(0.5, 8.0, "log"),
        )
        temperature: float = option(
            4.0,
            "T of the coefficients",
            low=0,
            source="paper, second-hand; 8 for CREMA-D",
            search=(1.0, 10.0),
        )
        # The code also waits until its unimodal test accuracies are above 0; we never read the
        # test set.
        warmup_epochs: int = warmup(6, help="epochs before gamma and k act", source=CODE)
        floor: float = option(0.3, "least entropy share, times 2 / M", above=0, high=1, source=CODE)
        clip: float = option(40.0, "gradient clipping norm; 0: off", low=0, source=CODE)
        mode: str = choice(
            "paper constant_half off",
            "scale encoder gradients by 1 + k, by 1.5 (one public version), or not at all",
            f"{CODE}, two versions",
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        s = zero_padded_logits(self.model, f)
        l_align = self.cross_entropy(z, y)
        losses = self.unimodal_losses(s, y)
        d_share, h = shares(reliance(s)), entropy(s)
        q = target(h, hp.floor)
        k = coefficients(d_share, q, hp.temperature)
        # Applied in this step; the version of the code that uses k applies it one step later.
        self.factors = torch.ones_like(k)
        if self.active and hp.mode != "off":
            self.factors += k if hp.mode == "paper" else 0.5
        acc_uni = unimodal_accuracies(s, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=losses, acc_uni=acc_uni)
        logs |= self.train_logs(reliance=d_share, entropy=h, target=q, k=k)
        logs |= self.train_logs(L_uni=losses.sum(), grad_factor=self.factors)
        return l_align + (hp.gamma if self.active else 1.0) * losses.sum(), logs

    def after_backward(self) -> None:
        # The code scales the gradient at an encoder's last feature map. Backward is linear in it,
        # so scaling the gradients of the encoder's parameters is equivalent.
        if self.active and self.hparams.mode != "off":
            scale_encoders_(self.model, self.factors)
        if self.hparams.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.hparams.clip)
