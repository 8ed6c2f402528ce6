"""CML: calibrating multimodal learning (Ma, Zhang, Zhang, Wu, Fu, Zhou, Hu; ICML 2023, arXiv
2306.01265).

A prediction should not become more confident when a modality is removed; models that lean on one
modality often break this rule. CML removes modalities one after another and penalises every rise in
confidence.

    `removal_ranks`   a random order in which each sample loses its modalities
    `chain_logits`    z_n, n = 0 .. M - 1: the fused output with the features of the first n set
                      to zero; z_0 is the output of all modalities
    `confidence`      conf(z) = max_c softmax(z)_c
    `penalty`         R_n = sum_i max(0, conf(z_n+1,i) - conf(z_n,i)), n = 0 .. M - 2
    `CML.forward`     L = (1 / M) sum_n CE(z_n, y) + lam sum_n R_n

Evaluation is Joint's. We could read the paper's abstract and a public review of it, which has the
definitions of conf and R but not the training algorithm ("second-hand"). The algorithm follows the
authors' code (QingyangZhang/CML: cpm/CPM_Nets.py, cpm/util/get_sn.py, miwae/train.py), which covers
only tabular views, and GeWu-Lab/BalanceBenchmark (balancemm/trainer/CML_trainer.py), whose penalty
differs. More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice
from methods.ops import accuracy
from models.classifier import Classifier

CODE, BENCH = "authors' code", "BalanceBenchmark"


def removal_ranks(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """[rows, count] int64: each row a random permutation; the modality of rank 0 goes first."""
    return torch.rand(rows, count, generator=generator, device=generator.device).argsort(1)


def chain_logits(model: Classifier, features: Features, ranks: Tensor) -> Tensor:
    """z [M, B, C] of features {m: [B, D_m]} and ranks [B, M] or [1, M]."""
    shown = [
        {m: f * (ranks[:, k, None] >= n) for k, (m, f) in enumerate(features.items())}
        for n in range(len(features))
    ]
    return torch.stack([model.fuse(f) for f in shown])


def confidence(z: Tensor) -> Tensor:
    """[..., B] of logits [..., B, C]."""
    return F.softmax(z, dim=-1).amax(-1)


def penalty(rise: Tensor, hinge: str = "sample") -> Tensor:
    """[]: the positive part of rise [M - 1, B], summed; "batch": of its sum over the samples."""
    return F.relu(rise if hinge == "sample" else rise.sum(1)).sum()


class CML(Method):
    """Cross-entropies of the outputs along the chain, and the penalty for rising confidence."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            0.1,
            "weight of the penalty",
            low=0,
            source=f"{BENCH}, and an example of the {CODE}",
            search=(0.01, 1.0, "log"),
        )
        reduce: str = choice(
            "sum mean", "the penalty is summed over the batch, or averaged", f"{CODE}; mean: ours"
        )
        hinge: str = choice(
            "sample batch",
            "penalise each sample's rise in confidence, or only that of the batch's sum",
            f"paper, second-hand; batch: {BENCH}",
        )
        order: str = choice(
            "sample epoch",
            "each sample loses its modalities in its own order, or all in the epoch's",
            f"{CODE}; epoch: {BENCH}",
        )
        exempt: bool = option(
            False, "no penalty where only the smaller set of modalities is right", source=CODE
        )
        ce: str = choice(
            "chain full",
            "cross-entropy of all outputs of the chain, or only of that of all modalities",
            f"{CODE}; full: our choice",
        )

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        self.epoch_ranks = removal_ranks(1, len(self.model.modalities), self.generator)
        return None

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        ranks = self.epoch_ranks
        if hp.order == "sample":
            ranks = removal_ranks(len(y), len(f), self.generator)
        z = chain_logits(self.model, f, ranks)
        conf, right = confidence(z), z.argmax(-1) == y
        rise = conf[1:] - conf[:-1]
        vrr = (rise > 0).float().mean()  # the paper's violation ranking rate, along the chain
        if hp.exempt:
            rise = rise * ~(right[1:] & ~right[:-1])
        l_reg = penalty(rise, hp.hinge) / (len(y) if hp.reduce == "mean" else 1)
        losses = torch.stack([self.cross_entropy(z_n, y) for z_n in z])
        l_cls = losses.mean() if hp.ce == "chain" else losses[0]
        logs = self.train_logs(acc=accuracy(z[0], y), L_align=losses[0], L_last=losses[-1])
        logs |= self.train_logs(L_reg=l_reg, conf=conf[0].mean(), conf_last=conf[-1].mean())
        return l_cls + hp.lam * l_reg, logs | self.train_logs(vrr=vrr)
