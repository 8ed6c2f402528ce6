"""MBSD: self-distillation from the dominant to the weaker modality, after "Multimodal Pre-Training
with Self-Distillation for Product Understanding in E-Commerce" (Liu, Li, Song, Yang, Zeng; WSDM
2023): OUR FORMULATION of its loss.

For each sample, the modality that is surer of the true class teaches the other one: by a squared
error between their logits and a KL divergence between their class distributions. A sample counts
more, the further apart the two are, and not at all if both are wrong.

    logits         model            z^m = W_m f^m + b / M, p^m = softmax(z^m)
    teacher        `roles`          of a pair: s, with the larger p^s[y], and w, the weaker one
    weight         `roles`          g_i = p_i^s[y_i] - p_i^w[y_i] if s or w predicts y_i, else 0
    regression     `distillation`   L_RS = mean_i g_i mean_c (z_ic^w - z_ic^s)^2
    distillation   `distillation`   L_KL = mean_i g_i KL(p_i^s || p_i^w)
    loss           `MBSD.forward`   L = CE(z, y) + w_uni sum_m CE(z^m, y) + w_rs L_RS + w_kl L_KL,
                                    L_RS and L_KL are means over the pairs of modalities

We read the paper's abstract, and one public code, a port: GeWu-Lab/BalanceBenchmark (balancemm/
trainer/MBSD_trainer.py). The paper pre-trains a language and vision model; the port applies its
losses to classification. Teacher, weight and L_RS are the port's. Its KL term is not a divergence,
so L_KL follows the abstract, which has knowledge go from the dominant to the weaker modality. That
the teacher gets no gradient is an inference from the same words. More in docs/methods.md.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, Logs, Method, choice
from methods.ops import accuracy, true_probability

PORT = "BalanceBenchmark"


def roles(one: Tensor, other: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(weight g [B] in [0, 1], ahead [B] bool: `one` is the teacher) of two [B, C] logits."""
    gap = true_probability(one, labels) - true_probability(other, labels)
    right = (one.argmax(1) == labels) | (other.argmax(1) == labels)
    return torch.where(right, gap.abs(), 0.0), gap > 0


def distillation(
    one: Tensor, other: Tensor, labels: Tensor, learner: str = "weaker", space: str = "logits"
) -> tuple[Tensor, Tensor, Tensor]:
    """(L_RS, L_KL, mean weight), scalars, of the logits [B, C] of a pair of modalities.

    With learner "weaker" the teacher and the weight get no gradient.
    """
    weight, ahead = roles(one, other, labels)
    teacher = torch.where(ahead[:, None], one, other)
    student = torch.where(ahead[:, None], other, one)
    if learner == "weaker":
        weight, teacher = weight.detach(), teacher.detach()
    log_s, log_w = F.log_softmax(teacher, dim=1), F.log_softmax(student, dim=1)
    error = student - teacher if space == "logits" else log_w.exp() - log_s.exp()
    kl = (log_s.exp() * (log_s - log_w)).sum(1)
    return (weight * error.square().mean(1)).mean(), (weight * kl).mean(), weight.mean()


class MBSD(Method):
    """Joint and unimodal losses, and distillation between the modalities."""

    min_modalities = 2
    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        w_uni: float = option(1.0, "weight of the unimodal losses", low=0, source=PORT)
        w_rs: float = option(1.0, "weight of L_RS", low=0, source=PORT, search=(0.1, 3.0, "log"))
        w_kl: float = option(1.0, "weight of L_KL", low=0, source=PORT, search=(0.1, 3.0, "log"))
        learner: str = choice(
            "weaker both",
            "who learns from L_RS and L_KL: the weaker modality, or both, also through the weight",
            f"an inference; {PORT}: both",
        )
        space: str = choice(
            "logits probabilities",
            "what L_RS compares",
            f"{PORT}; for three modalities it has probabilities",
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z, split = self.model.fuse(f), self.model.split_logits(f)
        l_align, l_uni = self.cross_entropy(z, y), self.unimodal_losses(split, y).sum()
        pairs = itertools.combinations(split.values(), 2)
        terms = [torch.stack(distillation(*pair, y, hp.learner, hp.space)) for pair in pairs]
        l_rs, l_kl, weight = torch.stack(terms).mean(0)
        p = torch.stack([true_probability(z_m.detach(), y).mean() for z_m in split.values()])
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni, p_true=p)
        logs |= self.train_logs(L_RS=l_rs, L_KL=l_kl, weight=weight)
        return l_align + hp.w_uni * l_uni + hp.w_rs * l_rs + hp.w_kl * l_kl, logs
