"""UMT: Uni-Modal Teacher (Du et al., "On Uni-Modal Feature Learning in Supervised Multi-Modal
Learning"; ICML 2023, arXiv 2305.01233).

A network that is trained jointly stops learning from a modality as soon as another suffices. UMT
first trains each encoder alone, to the end, and then trains a new network jointly, in which each
encoder must also reproduce the features that its teacher, the encoder trained alone, has for the
same input.

    teachers   `UMT.forward`        sum_m CE(g_m(f^m), y): no two modalities share a parameter, so
                                    this trains each encoder and head as if it were alone
    swap       `UMT.start_epoch`    the trained encoders become the teachers, and the model starts
                                    again from its initial weights
    distance   `distillation`       D_m = mean over the batch and the features of (f^m - t^m)^2,
                                    t^m the teacher's feature
    loss       `UMT.forward`        L = CE(z, y) + lambda sum_m D_m

We could read the abstract of the paper, not its equations. The formula is that of public code,
GeWu-Lab/BalanceBenchmark (balancemm/trainer/UMT_trainer.py); we found no code of the authors. More
in docs/methods.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Features, Logs, Method, Stage, TrainingSet
from methods.ops import accuracy, unimodal_accuracies

BENCH = "BalanceBenchmark"


def distillation(features: Features, targets: Features) -> Tensor:
    """D [M] of the model's and the teachers' features {m: [B, D_m]}."""
    return torch.stack([F.mse_loss(f, targets[m]) for m, f in features.items()])


class UMT(Method):
    """A stage that trains the teachers, then joint training with distillation."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            10.0,
            "weight lambda of the distillation; 0: no teachers, Joint",
            low=0,
            source=BENCH,
            search=(1.0, 100.0, "log"),
        )
        teacher_epochs: int = option(
            70,
            "epochs that train the teachers, before --max_epochs",
            low=1,
            per_epochs=True,
            source="our choice: as many as of the second stage",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        # Holds the initial weights during the first stage, and the teachers' from then on.
        self.teacher = model.frozen_copy() if hparams.lam else None

    def stages(self, epochs: int) -> list[Stage]:
        first = [Stage("teachers", self.hparams.teacher_epochs)] if self.teacher else []
        return [*first, Stage("train", epochs)]

    @property
    def distils(self) -> bool:
        """Whether this epoch belongs to the second stage and there are teachers."""
        return self.teacher is not None and self.epoch > self.hparams.teacher_epochs

    @torch.no_grad()
    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Before the second stage: exchanges the encoders of the model and of the teacher."""
        # A run that was killed in this epoch starts again from the checkpoint of the epoch before,
        # in which they are not exchanged yet. The heads stay with the model: they are not trained
        # further, and show how well an encoder has come to match its teacher.
        if self.teacher is not None and epoch == self.hparams.teacher_epochs + 1:
            trained, initial = self.model.encoders.state_dict(), self.teacher.encoders.state_dict()
            for name, value in trained.items():
                kept = value.clone()
                value.copy_(initial[name])
                initial[name].copy_(kept)
        return None

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        z_uni = self.model.unimodal(f)
        acc_uni = unimodal_accuracies(z_uni, y)
        logs = self.train_logs(acc_uni=acc_uni)
        if self.teacher is not None and not self.distils:
            losses = self.unimodal_losses(z_uni, y)
            return losses.sum(), logs | self.train_logs(L_uni=losses)
        z = self.model.fuse(f)
        loss = l_align = self.cross_entropy(z, y)
        logs |= self.train_logs(acc=accuracy(z, y), L_align=l_align)
        if self.teacher is None:
            return loss, logs
        with torch.no_grad():
            targets = self.teacher.encode(batch["inputs"])
        d = distillation(f, targets)
        return loss + self.hparams.lam * d.sum(), logs | self.train_logs(L_distill=d)
