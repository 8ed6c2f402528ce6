"""Data Remixing ("Improving Multimodal Learning Balance and Sufficiency through Data Remixing"; Ma,
Chen, Deng; ICML 2025; arXiv 2506.11550).

After a warm-up on whole samples, each epoch gives every training sample to a single modality: the
one whose prediction is least certain. The others are hidden, and each batch holds samples of one
modality, so that within a batch no gradient of another modality interferes.

    warm-up     `Remix.warm_up`      L = CE(z, y) + w_warm sum_m CE(g_m(f^m), y)
    certainty   `certainty`          KL_i^m = KL(softmax g_m(f_i^m) || uniform), before each epoch
    decoupling  `assign`             m_i = the modality with the least KL_i^m
    remixing    `Remix.start_epoch`  a batch is drawn from the samples of one modality
    hiding      `keep_only`          features of the other modalities are zero vectors
    training    `Remix.forward`      L = CE(z, y) + gamma CE(g_(m_i)(f^(m_i)), y)

Evaluation is Joint's, with all modalities. We read the paper's abstract and its public code
(MatthewMaxy/Remix_ICML2025: train.py, models/models.py, datasets/dataloader.py), not the paper's
equations. More in docs/methods.md.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, warmup
from methods.ops import accuracy, keep_only

CODE = "public code"


def certainty(logits: Tensor) -> Tensor:
    """KL(softmax(z) || uniform) in nats, [N] of logits [N, C]; from 0 to ln C."""
    # The code computes it in bits, which changes no comparison.
    return math.log(logits.shape[1]) - torch.special.entr(F.softmax(logits, dim=1)).sum(1)


def assign(kl: Tensor) -> Tensor:
    """[N] int64: the position of the modality with the least kl [N, M]; the first of equal ones."""
    # The code compares two modalities; the least of M is our choice.
    return kl.argmin(1)


class Remix(Method):
    """Joint training with unimodal losses, then batches of one modality each."""

    needs_unimodal_heads = True
    min_modalities = 2
    found: Logs

    @dataclass(frozen=True)
    class HParams:
        warmup_epochs: int = warmup(
            12, help="initial epochs on whole samples", source=f"{CODE}: 10 of 60"
        )
        w_warm: float = option(0.5, "weight of the unimodal losses in warm-up", low=0, source=CODE)
        gamma: float = option(
            1.0,
            "weight of the unimodal loss after warm-up",
            low=0,
            source=CODE,
            search=(0.3, 3.0, "log"),
        )
        reassemble: bool = option(
            True, "batches of one modality; off: decoupled samples in any batch", source=CODE
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.found = {}  # logs of this epoch's assignment

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """After the warm-up: gives each training sample to one modality."""
        self.found = {}
        if not self.active:
            return None
        kl = self.certainties(train)
        modality = assign(kl)
        chosen = modality[:, None] == torch.arange(kl.shape[1], device=kl.device)
        self.found = self.train_logs(share=chosen.double().mean(0), certainty=kl.mean(0))
        key = modality if self.hparams.reassemble else None
        # The code trains on all batches of the last modality, then on those of the first. Our
        # batches come in random order, as those of every method here.
        return EpochPlan(torch.arange(len(kl)), {"modality": modality}, key)

    @torch.no_grad()
    def certainties(self, train: TrainingSet) -> Tensor:
        """KL [N, M] of all training samples, without augmentation and in evaluation mode."""
        self.eval()
        rows = []
        for batch in train.batches(transforms="eval"):
            z = self.model.unimodal(self.model.encode(batch["inputs"]))
            rows.append(torch.stack([certainty(z_m) for z_m in z.values()], dim=1))
        return torch.cat(rows)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """After the warm-up, `train/acc` is that of samples with a single modality."""
        y, f = batch["label"], self.model.encode(batch["inputs"])
        if "modality" not in batch:
            return self.warm_up(f, y)
        modality = batch["modality"]
        # As in the code, hidden modalities are encoded and count in the batch statistics.
        z = self.model.fuse(keep_only(f, modality + 1))
        heads = self.model.unimodal(f).values()
        each = torch.stack([self.cross_entropy(z_m, y, reduction="none") for z_m in heads], dim=1)
        l_align, l_uni = self.cross_entropy(z, y), each.gather(1, modality[:, None]).mean()
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni)
        return l_align + self.hparams.gamma * l_uni, logs

    def warm_up(self, f: Features, y: Tensor) -> tuple[Tensor, Logs]:
        """Loss and logs of whole samples: features {m: [B, D_m]}, labels [B]."""
        z = self.model.fuse(f)
        l_align, l_uni = (
            self.cross_entropy(z, y),
            self.unimodal_losses(self.model.unimodal(f), y).sum(),
        )
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni)
        return l_align + self.hparams.w_warm * l_uni, logs

    def end_epoch(self) -> Logs:
        return self.found
