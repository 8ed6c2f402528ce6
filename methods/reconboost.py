"""ReconBoost: boosting can achieve modality reconcilement (Hua, Xu, Bao, Yang, Huang; ICML 2024,
arXiv 2405.09321).

The modalities are the learners of a boosted ensemble. A stage trains one of them, with the others
as they are: samples that the others already predict count less, so it learns what they miss. Then
all of them are trained together for some epochs. Only the newest state of each learner is kept.

    learners     phi^m = g_m(f^m); Phi = sum_m phi^m is the prediction, p^m = softmax phi^m
    `phase`      stage t trains modality k = t mod M for `stage_epochs`, then comes a rectification
    stage        L = L_boost + alpha L_agree, with gradients to the encoder and the head of k only
    `boosting`   L_boost = -1/C mean_i (w_label - w_rest q_i[y_i]) log p_i^k[y_i],
                 q = softmax of the sum of the other learners, without gradient
    `agreement`  L_agree = mean over samples and classes of (p^k - p^l)^2, l the modality of the
                 stage before; not in the first stage
    rectify      L = CE(Phi, y), all parameters, for `rectify_epochs`

We could read the abstract (alternating stages, a reconcilement regularization "by choosing a
KL-based" one, memory consolidation, global rectification), not the equations, which follow the
public code: huacong/ReconBoost (train.py, train_MSA.py, models/dynamic_net.py, schedule.py) and
GeWu-Lab/BalanceBenchmark (balancemm/trainer/ReconBoost_trainer.py). More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice
from methods.ops import accuracy, unimodal_accuracies

CODE = "public code"


def phase(epoch: int, stage_epochs: int, rectify_epochs: int) -> tuple[int, bool]:
    """(stage from 0, whether it is still training its one modality); `epoch` counts from 1."""
    stage, place = divmod(epoch - 1, stage_epochs + rectify_epochs)
    return stage, place < stage_epochs


def boosting(
    own: Tensor, rest: Tensor, labels: Tensor, w_label: float, w_rest: float, form: str = "label"
) -> Tensor:
    """L_boost of a learner's logits `own` [B, C], given the sum `rest` [B, C] of the others.

    "label" lowers the weight of the label, "kl" subtracts w_rest times the cross-entropy to q over
    all classes, which is the divergence KL(q || p) up to a constant.
    """
    log_p = F.log_softmax(own, dim=1)
    q = F.softmax(rest.detach(), dim=1)
    one_hot = torch.zeros_like(own).scatter(1, labels[:, None], 1.0)  # F.one_hot reads values back
    target = w_label * one_hot - w_rest * (q * one_hot if form == "label" else q)
    return -(target * log_p).mean()  # both public codes average over classes as well


def agreement(own: Tensor, other: Tensor) -> Tensor:
    """L_agree of two learners' logits [B, C]; no gradient flows into `other`."""
    return F.mse_loss(F.softmax(own, dim=1), F.softmax(other.detach(), dim=1))


class ReconBoost(Method):
    """Alternates between training one modality against the others and training all of them."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        w_label: float = option(
            5.0,
            "weight of the label",
            above=0,
            source="official script; 4 for AVE, ModelNet40",
            search=(2.0, 8.0),
        )
        w_rest: float = option(
            1.0, "weight of what the other modalities predict", low=0, source="official scripts"
        )
        # Both public codes detach both sides of L_agree, so that it has no gradient: alpha 0.
        alpha: float = option(
            0.5, "weight of L_agree; 0: as the public codes train", low=0, source=CODE
        )
        reconcile: str = choice(
            "label kl",
            "the others lower the weight of the label, or a KL term over all classes",
            f"{CODE}; kl: an inference from the abstract, not bounded below",
        )
        stage_epochs: int = option(
            1,
            "epochs of one modality",
            low=1,
            per_epochs=True,
            source="BalanceBenchmark; official scripts: 4, in runs of several hundred epochs",
        )
        rectify_epochs: int = option(
            1,
            "epochs of all modalities after each stage",
            low=0,
            per_epochs=True,
            source="as stage_epochs",
        )

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        if hparams.w_rest > hparams.w_label:  # the loss falls without end as p[y] goes to 0
            raise UsageError(
                f"--w_rest {hparams.w_rest:g} makes well predicted samples count negatively;"
                f" give --w_label's {hparams.w_label:g} at most"
            )

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Chooses the modality of this epoch, or None for all, and the one of the stage before."""
        hp, modalities = self.hparams, self.model.modalities
        stage, alternating = phase(epoch, hp.stage_epochs, hp.rectify_epochs)
        self.learner = modalities[stage % len(modalities)] if alternating else None
        self.before = modalities[(stage - 1) % len(modalities)] if stage else None
        return None

    def logits(self, features: Features) -> Tensor:
        """Phi [B, C]: the sum of the learners; the fusion layer is not used."""
        return torch.stack(list(self.model.unimodal(features).values())).sum(0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """While one modality trains, the others are encoded in training mode, as in the code."""
        y, hp = batch["label"], self.hparams
        phi = self.model.unimodal(self.model.encode(batch["inputs"]))
        joint = torch.stack(list(phi.values())).sum(0)
        l_align = self.cross_entropy(joint, y)
        acc_uni = unimodal_accuracies(phi, y)
        logs = self.train_logs(acc=accuracy(joint, y), L_align=l_align, acc_uni=acc_uni)
        if self.learner is None:
            return l_align, logs
        own = phi[self.learner]
        rest = torch.stack([z for m, z in phi.items() if m != self.learner]).sum(0)
        loss = l_boost = boosting(own, rest, y, hp.w_label, hp.w_rest, hp.reconcile)
        if self.before:
            l_agree = agreement(own, phi[self.before])
            loss = l_boost + hp.alpha * l_agree
            logs |= self.train_logs(L_agree=l_agree)
        return loss, logs | self.train_logs(L_boost=l_boost)
