"""PMR: prototypical modal rebalance (Fan, Xu, Wang, Wang, Guo; CVPR 2023, arXiv 2211.07089).

Each modality's features are classified by their distances to class prototypes, without any trained
classifier. This shows which modality learns more slowly; a second loss pulls its features towards
the prototypes of their classes. The other modality's encoder is left to the joint loss.

    prototypes    `class_sums`       c_k^m = mean of f_i^m over drawn training samples with y_i = k
                  `PMR.start_epoch`  c <- (1 - momentum) c_new + momentum c, before each epoch
    classifier    `similarity`       s_ik^m = -||f_i^m - c_k^m||,  p_i^m = softmax(s_i^m)
    imbalance     ops                S^m = sum_i p_i^m[y_i],  rho^m = mean over l != m of S^m / S^l
    coefficient   `lag`              w^m = 1 if rho^m < 1, else 0; or clip(1 / rho^m - 1, 0, 1)
    loss          `PMR.forward`      L = CE(z, y) + alpha sum_m w^m CE(s^m, y)
    entropy       `PMR.forward`      - mu sum_m lag(1 / rho^m) mean_i H(p_i^m), in the first epochs

We read the paper's abstract, not its equations, and public code: fanyunfeng-bit/Modal-Imbalance-PMR
(main_Prototype_grad.py, bash.sh; "official"), GeWu-Lab/BalanceBenchmark (balancemm/trainer/
PMR_trainer.py) and kkontras/MLB (Bias_Infusion.py). The abstract has an entropy term for the early
epochs, but no code has it: its weight is 0 by default. More in docs/methods.md.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet, choice
from methods.ops import accuracy, compare_modalities

CODE = "official code"


def class_sums(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """[C, D + 1]: the sums of the features [B, D] of each class, and its number of samples."""
    members = F.one_hot(labels, classes).to(features.dtype)
    return members.T @ torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


def similarity(features: Tensor, prototypes: Tensor) -> Tensor:
    """s [B, C]: minus the Euclidean distances of features [B, D] to prototypes [C, D]."""
    # The gradient of `cdist` at 0 is 0. The code's square root has an infinite one, so a feature
    # that equals a prototype makes all weights NaN. The mode is the exact one.
    return -torch.cdist(features, prototypes, compute_mode="donot_use_mm_for_euclid_dist")


def lag(ratio: Tensor, form: str) -> Tensor:
    """w [M] in [0, 1]: how far each modality is behind, from rho [M]; 0 if it is not."""
    return (ratio < 1).to(ratio.dtype) if form == "step" else (1 / ratio - 1).clamp(0, 1)


class PMR(Method):
    """Joint training plus a cross-entropy over prototypes for the slower modality."""

    min_modalities = 2
    prototypes: Tensor

    @dataclass(frozen=True)
    class HParams:
        alpha: float = option(
            1.0,
            "weight of the prototype loss",
            low=0,
            source=f"{CODE}; its scripts mostly 2, BalanceBenchmark 0.6",
            search=(0.2, 3.0, "log"),
        )
        coefficient: str = choice(
            "step clip",
            "w of the slower modality: 1, or clip(1 / rho - 1, 0, 1)",
            f"{CODE}; clip: believed to be the paper's, not checked",
        )
        proto_momentum: float = option(
            0.2,
            "share of the old prototypes that is kept",
            low=0,
            high=1,
            source=f"{CODE}; its scripts mostly 0, BalanceBenchmark 0.5",
        )
        share: float = option(
            0.1, "share of training samples that give the prototypes", above=0, high=1, source=CODE
        )
        end_epoch: int = option(
            47,
            "last epoch of the method, then joint training (0: no end)",
            low=0,
            per_epochs=True,
            source=f"{CODE}: 101 of 150; its scripts mostly 71 of 130",
        )
        entropy: float = option(
            0.0, "mu: weight of the leading modality's entropy", low=0, source="no code has it"
        )
        entropy_epochs: int = option(10, "initial epochs with the entropy", low=1, per_epochs=True)

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        widths, device = sum(model.widths.values()), model.device
        # All modalities side by side, as in the fusion weight.
        self.register_buffer("prototypes", torch.zeros(facts.num_classes, widths, device=device))

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Moves the prototypes to the mean features of some training samples."""
        if not self.active:
            return None
        count, indices = math.ceil(self.hparams.share * len(train)), None
        if epoch > 1:  # all samples at first, so that each class has a prototype (as in MLB's code)
            order = torch.randperm(len(train), generator=self.generator, device=self.model.device)
            indices = order[:count].tolist()
        sums = self.sums(train, indices)
        n, old = sums[:, -1:], self.prototypes
        new = sums[:, :-1] / n.clamp_min(1)
        if epoch > 1:
            new = torch.lerp(new, old, self.hparams.proto_momentum)
        # Classes that were not drawn keep their prototype; the codes divide 0 by 0.
        self.prototypes.copy_(torch.where(n > 0, new, old))
        return None

    @torch.no_grad()
    def sums(self, train: TrainingSet, indices: list[int] | None) -> Tensor:
        """`class_sums` over these training samples, in evaluation mode, [C, sum of D_m + 1]."""
        self.eval()
        parts = []
        for batch in train.batches(indices):
            f = torch.cat(list(self.model.encode(batch["inputs"]).values()), dim=1)
            parts.append(class_sums(f, batch["label"], self.facts.num_classes))
        return torch.stack(parts).sum(0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        l_align = self.cross_entropy(z, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align)
        if not self.active:
            return l_align, logs
        slices = self.model.modality_slices
        s = {m: similarity(f[m], self.prototypes[:, columns]) for m, columns in slices.items()}
        score, ratio = compare_modalities(s, y)
        slow = lag(ratio, hp.coefficient)
        l_proto = self.unimodal_losses(s, y)
        loss = l_align + hp.alpha * (slow * l_proto).sum()
        logs |= self.train_logs(L_proto=l_proto, score=score / len(y), ratio=ratio, slow=slow)
        if hp.entropy and self.epoch <= hp.entropy_epochs:
            log_p = [F.log_softmax(s_m, dim=1) for s_m in s.values()]
            entropy = torch.stack([-(q.exp() * q).sum(1).mean() for q in log_p])
            loss = loss - hp.entropy * (lag(1 / ratio, hp.coefficient) * entropy).sum()
            logs |= self.train_logs(entropy=entropy)
        return loss, logs
