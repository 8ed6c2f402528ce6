"""IPRM: instantaneous probe-and-rebalance multimodal learning (Yang, Wu, Jiang; "Towards
Equilibrium", IJCAI 2025).

The features of two modalities are fused on the arc between their directions (geodesic mixup). A
first fusion, with weights averaged over earlier steps, only probes how far each modality's own
prediction is from the fused one. The fusion that is trained then takes its weights from the probe.

    fusion      `slerp`          mix(w) = sin(w t) / sin t u + sin((1 - w) t) / sin t v, u and v the
                                 unit features of modalities a and b, t the angle between them
    probe       `IPRM.probe`     KL_m = mean_i KL(softmax g_m(f_i^m) || softmax h(mix(lam)_i))
    weights     `rebalanced`     w = KL_b / (KL_a + KL_b): the weight of a
    loss        `IPRM.forward`   CE(h(mix(w)), y) + sum_m CE(g_m(f^m), y)
    average     `IPRM.forward`   lam <- alpha lam + (1 - alpha) w, from 1/2
    prediction  `IPRM.combine`   sum_m g_m(f^m) + h(mix(lam))

For M > 2, every pair of modalities has its own lam and linear layer h. Their losses are summed, and
the prediction has the mean of their logits. The model's own fusion layer is not used.

We read the paper's abstract and the authors' code (njustkmg/IJCAI25-IPRM, commit 0bb457f:
main_av.py, main_trimodal.py), not the paper's equations. More in docs/methods.md.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import option
from methods.base import Batch, Features, Logs, Method
from methods.ops import CommonWidth, accuracy

CODE = "the authors' code"


def slerp(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """[B, D]: the point between the directions of x and y [B, D]; at x for weight 1, at y for 0."""
    # Shorter vectors do not get unit length, or their gradients would have no bound.
    u, v = (F.normalize(f, dim=1, eps=1e-3) for f in (x, y))
    # The bounds are our choice: at an angle of 0 the code gives the zero vector, and no finite
    # gradient.
    angle = torch.acos((u * v).sum(1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6))  # [B, 1]
    sides = torch.sin(weight * angle) * u + torch.sin((1 - weight) * angle) * v
    return sides / torch.sin(angle)


def divergence(z: Tensor, fused: Tensor) -> Tensor:
    """Scalar: the batch mean of KL(softmax z || softmax fused), both [B, C] logits."""
    log_p, log_q = F.log_softmax(z, dim=1), F.log_softmax(fused, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def rebalanced(one: Tensor, other: Tensor) -> Tensor:
    """The weight of the modality whose divergence is `one`; 1/2 if both scalars are 0."""
    # As in the code: the modality whose prediction is nearer to the fused one gets more weight.
    both = one + other
    return torch.where(both > 0, other / both.clamp_min(torch.finfo(both.dtype).tiny), 0.5)


class IPRM(Method):
    """Geodesic fusion of pairs of modalities, with weights probed in the same step."""

    needs_unimodal_heads = True
    min_modalities = 2
    lam: Tensor

    @dataclass(frozen=True)
    class HParams:
        alpha: float = option(
            0.8, "inertia of lam", low=0, high=1, source=f"{CODE}'s example", search=(0.5, 0.95)
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.common = CommonWidth(model.widths)
        self.pairs = list(itertools.combinations(model.modalities, 2))
        width = min(model.widths.values())
        self.mixed = nn.ModuleList(nn.Linear(width, model.num_classes) for _ in self.pairs)
        # [P]: the weight of each pair's first modality in the probe, and in evaluation
        self.register_buffer("lam", torch.full((len(self.pairs),), 0.5, device=model.device))

    def fusions(self, features: Features, weights: Tensor) -> list[Tensor]:
        """h(mix(w)) [B, C] of each pair, for its weight in `weights` [P]."""
        f = self.common(features)
        parts = zip(self.pairs, self.mixed, weights, strict=True)
        return [h(slerp(f[a], f[b], w)) for (a, b), h, w in parts]

    def combine(self, z_uni: Features, z_mixed: list[Tensor]) -> Tensor:
        """[B, C]: the sum of the unimodal logits plus the mean of the fused ones."""
        return sum(z_uni.values()) + torch.stack(z_mixed).mean(0)

    def logits(self, features: Features) -> Tensor:
        return self.combine(self.model.unimodal(features), self.fusions(features, self.lam))

    @torch.no_grad()
    def probe(self, features: Features, z_uni: Features) -> tuple[Tensor, Tensor]:
        """(divergences [P, 2] of each pair's two modalities, the weights [P] of the first)."""
        found = []
        for (a, b), fused in zip(self.pairs, self.fusions(features, self.lam), strict=True):
            found.append(torch.stack([divergence(z_uni[m], fused) for m in (a, b)]))
        kl = torch.stack(found)
        return kl, rebalanced(kl[:, 0], kl[:, 1])

    def by_modality(self, first: Tensor, second: Tensor) -> Tensor:
        """[M]: means over each modality's pairs, of values [P] of their two modalities."""
        found: dict[str, list[Tensor]] = {m: [] for m in self.model.modalities}
        for (a, b), of_a, of_b in zip(self.pairs, first, second, strict=True):
            found[a].append(of_a)
            found[b].append(of_b)
        return torch.stack([torch.stack(values).mean() for values in found.values()])

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        z_uni = self.model.unimodal(f)
        kl, w = self.probe(f, z_uni)
        z_mixed = self.fusions(f, w)
        l_align = torch.stack([self.cross_entropy(z, y) for z in z_mixed]).sum()
        l_uni = self.unimodal_losses(z_uni, y)
        logs = self.train_logs(acc=accuracy(self.combine(z_uni, z_mixed), y), L_align=l_align)
        logs |= self.train_logs(L_uni=l_uni)
        logs |= self.train_logs(KL=self.by_modality(kl[:, 0], kl[:, 1]))
        logs |= self.train_logs(weight=self.by_modality(w, 1 - w))
        logs |= self.train_logs(lam=self.by_modality(self.lam, 1 - self.lam))
        # The code averages before the next probe instead, so its evaluation lacks the last w.
        self.lam.lerp_(w, 1 - self.hparams.alpha)
        return l_align + l_uni.sum(), logs
