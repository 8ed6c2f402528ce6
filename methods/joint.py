"""Joint training and its two controls.

Joint: encode each modality, concatenate, one linear layer, one cross-entropy (the paper's baseline;
Eq. 9, first half). All encoders get their gradient through the same error vector, so the modality
that is learnt first can leave little for the others to learn.

JointUni: Joint plus the cross-entropies of unimodal heads (all of Eq. 9). It is not in the paper
and shows how much of MIDAS's gain comes from misaligned samples.

Unimodal: Joint on a single modality, with the same encoder and recipe.
"""

from dataclasses import dataclass

from torch import Tensor

from common.options import UsageError, option, unknown
from methods.base import Batch, Logs, Method
from methods.ops import accuracy


class Joint(Method):
    """L = CE(g_f([f^1; ...; f^M]), y)."""

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        z = self.model.fuse(self.model.encode(batch["inputs"]))
        loss = self.cross_entropy(z, y)
        return loss, self.train_logs(acc=accuracy(z, y), L_align=loss)


class JointUni(Method):
    """L = CE(g_f([f^1; ...; f^M]), y) + sum_m CE(g_m(f^m), y)."""

    needs_unimodal_heads = True

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        l_align, l_uni = (
            self.cross_entropy(z, y),
            self.unimodal_losses(self.model.unimodal(f), y).sum(),
        )
        return l_align + l_uni, self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni)


class Unimodal(Joint):
    """CE(Linear(f^m), y) for one modality m."""

    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        modality: str = option("", "the modality to train on, as the dataset names it")

    @classmethod
    def used_modalities(cls, hparams: HParams, available: list[str]) -> list[str]:
        """The chosen modality; raises `UsageError` if the dataset does not have it."""
        if not hparams.modality:
            raise UsageError(f"--method Unimodal needs --modality; allowed: {', '.join(available)}")
        if hparams.modality not in available:  # exact case: it names the run folder
            raise unknown("modality", hparams.modality, available)
        return [hparams.modality]
