"""MLB: multi-loss balanced training ("Improving Multimodal Learning with Multi-Loss Gradient
Modulation", Kontras, Chatzichristos, Blaschko, De Vos; BMVC 2024, arXiv 2405.07930).

Unimodal heads have their own losses, and their confidences show which modality is ahead. The
gradients of all losses together are scaled down for it, and up for the other modalities. When
the modalities are equally good, all factors are 1: the balancing ends by itself.

    `MLB.forward`         L = CE(z, y) + w_uni sum_m CE(g_m(f^m), y)
    score                 S^m = mean_i softmax(g_m(f_i^m))[y_i]
    `others_ratio`        r^m = mean over l != m of S^l, divided by S^m; above 1 if m is behind
    `balancing_factor`    k^m = 1 + (beta - 1) tanh(alpha (r^m - 1)) if r^m > 1,
                          else 1 + tanh(alpha (r^m - 1))
    `MLB.after_backward`  gradients of encoder m, of g_m and of the fusion layer's W_m times k^m

We read the abstract and public code (kkontras/MLB, commit 357b5ce: agents/general_agent/helpers/
Bias_Infusion.py and Trainer.py, models/OGM_Model.py, configs/), not the paper's equations. More in
docs/methods.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, Logs, Method
from methods.ops import (
    accuracy,
    scale_encoders_,
    true_probability,
    unimodal_accuracies,
)

CODE = "official code"


def others_ratio(score: Tensor) -> Tensor:
    """r [M] from scores [M] >= 0: the mean score of the other modalities over one's own."""
    score = score.clamp_min(1e-5)  # our choice: the code can divide by 0
    return (score.sum() - score) / (len(score) - 1) / score


def balancing_factor(ratio: Tensor, alpha: float, beta: float) -> Tensor:
    """k [M] in [0, beta) from r [M]: above 1 where r > 1, below 1 where r < 1."""
    change = torch.tanh(alpha * (ratio - 1))
    return 1 + torch.where(ratio > 1, (beta - 1) * change, change)


class MLB(Method):
    """Joint and unimodal losses, with gradients scaled down or up for each modality."""

    needs_unimodal_heads = True
    min_modalities = 2
    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        alpha: float = option(
            0.8,
            "modulation strength",
            low=0,
            source=f"{CODE}; UCF-101: 1",
            search=(0.2, 2.0, "log"),
        )
        beta: float = option(
            2.0, "upper bound of a factor; 1: only slow down", low=1, source=f"{CODE}'s default"
        )
        w_uni: float = option(1.0, "weight of the unimodal losses", low=0, source=CODE)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z, z_uni = self.model.fuse(f), self.model.unimodal(f)
        l_align = self.cross_entropy(z, y)
        l_uni = self.unimodal_losses(z_uni, y)
        score = torch.stack([true_probability(z_m.detach(), y).mean() for z_m in z_uni.values()])
        ratio = others_ratio(score)
        self.k = balancing_factor(ratio, hp.alpha, hp.beta)  # read by `after_backward`
        acc_uni = unimodal_accuracies(z_uni, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni, acc_uni=acc_uni)
        logs |= self.train_logs(score=score, ratio=ratio, k=self.k)
        return l_align + hp.w_uni * l_uni.sum(), logs | self.train_logs(L_uni=l_uni.sum())

    @torch.no_grad()
    def after_backward(self) -> None:
        # The code selects parameters by name, with the same result: the bias of the fusion layer
        # belongs to no modality and is left alone.
        scale_encoders_(self.model, self.k)
        fusion = self.model.fusion.weight.grad
        for (m, columns), k_m in zip(self.model.modality_slices.items(), self.k):
            for grad in (fusion[:, columns], *(p.grad for p in self.model.heads[m].parameters())):
                grad.mul_(k_m)
