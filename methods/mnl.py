"""MNL: multimodal negative learning ("Multimodal Negative Learning", Gong, Gao, Zhu, Hu, Cao;
NeurIPS 2025, arXiv 2510.20877).

Teaching a weak modality which class a sample is can suppress what only that modality sees. In MNL,
the modality dominant in a sample teaches the others only which classes the sample is not.

    outputs   `MNL.outputs`  z^m = g_m(f^m), o = mean over m of z^m (late fusion)
    rival     `rival`        j_i = the class other than y_i with the largest fused output o_i
    margin    `guidance`     xi_i^m = z_i^m[y_i] - z_i^m[j_i], the unimodal confidence margin
    dominant  `guidance`     d_i = the modality with the largest p_i^m[y_i], p^m = softmax(z^m); it
                             guides each modality m with p_i^d[y_i] > p_i^m[y_i] and xi_i^d > xi_i^m
    guidance  `negative`     N_i^m = - sum over c != y_i of p_i^d[c] ln p_i^m[c], no gradient into d
    warm-up   `MNL.forward`  L = CE(o, y) + sum_m CE(z^m, y)
    then                     L + lam mean_i sum over guided m of N_i^m

We could read the paper's abstract, a public summary that quotes its formulas ("second-hand"), and
the authors' code (BaoquanGong/Multimodal-Negative-Learning: train_latefusion.py,
src/models/latefusion.py), which differs from them in three ways. More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, Features, Logs, Method, choice, warmup
from methods.ops import accuracy

CODE, PAPER = "authors' code", "paper, second-hand"


def rival(o: Tensor, y: Tensor) -> Tensor:
    """j [B]: the class with the largest logit in o [B, C] except the label y [B]."""
    return o.detach().scatter(1, y[:, None], -torch.inf).argmax(1)


def guidance(z: Tensor, y: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """(d [B] int64, guided [M, B] bool) of logits z [M, B, C], labels y and rivals j [B]."""
    z = z.detach()
    own = y.expand(len(z), -1)[:, :, None]  # [M, B, 1]
    at_label = z.gather(2, own).squeeze(2)
    p = F.softmax(z, dim=2).gather(2, own).squeeze(2)
    margin = at_label - z.gather(2, j.expand(len(z), -1)[:, :, None]).squeeze(2)
    d = p.argmax(0)
    return d, (p.gather(0, d[None]) > p) & (margin.gather(0, d[None]) > margin)


def negative(z: Tensor, y: Tensor, d: Tensor) -> Tensor:
    """N [M, B] of logits z [M, B, C], labels y [B] and dominant modalities d [B]."""
    teacher = F.softmax(z.detach(), dim=2).gather(0, d[None, :, None].expand(1, *z.shape[1:]))
    teacher = teacher.scatter(2, y[None, :, None], 0.0)  # [1, B, C]
    return -(teacher * F.log_softmax(z, dim=2)).sum(2)


class MNL(Method):
    """Fused and unimodal cross-entropies; the dominant modality teaches the other classes."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            0.7, "weight of the guidance", low=0, source=CODE, search=(0.1, 3.0, "log")
        )
        warmup_epochs: int = warmup(
            10, help="epochs without guidance", source=f"a warm-up: {PAPER}; 10: ours; 0: {CODE}"
        )
        reduce: str = choice(
            "sum mean", "sum of the guidance over classes, or mean", f"{PAPER}; mean: {CODE}"
        )
        positive: bool = option(
            False,
            "guided modalities also get their label's cross-entropy once more, reduced likewise",
            source=CODE,
        )
        combine: str = choice(
            "late concat",
            "fused output: mean of the heads, or the shared layer on concatenated features",
            f"paper and {CODE}; concat: our choice",
        )

    def logits(self, features: Features) -> Tensor:
        """o [B, C]."""
        return self.outputs(features)[1]

    def outputs(self, features: Features) -> tuple[Tensor, Tensor]:
        """(z [M, B, C], o [B, C])."""
        z = torch.stack(list(self.model.unimodal(features).values()))
        return z, z.mean(0) if self.hparams.combine == "late" else self.model.fuse(features)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        z, o = self.outputs(self.model.encode(batch["inputs"]))
        l_align = self.cross_entropy(o, y)
        losses = torch.stack([self.cross_entropy(z_m, y) for z_m in z])
        acc_uni = torch.stack([accuracy(z_m, y) for z_m in z])
        logs = self.train_logs(acc=accuracy(o, y), L_align=l_align, L_uni=losses, acc_uni=acc_uni)
        logs |= self.train_logs(L_uni=losses.sum())
        if not self.active:
            return l_align + losses.sum(), logs
        d, guided = guidance(z, y, rival(o, y))
        taught = hp.lam * negative(z, y, d)
        if hp.positive:
            taught = taught + torch.stack([self.cross_entropy(m, y, reduction="none") for m in z])
        classes = self.model.num_classes if hp.reduce == "mean" else 1
        l_mnl = (guided * taught).sum(0).mean() / classes
        logs |= self.train_logs(L_mnl=l_mnl, guided=guided.float().mean(1))
        return l_align + losses.sum() + l_mnl, logs
