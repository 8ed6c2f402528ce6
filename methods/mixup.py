"""Mixup for multimodal embeddings: the baseline row of the MIDAS paper's Sec. 4.4.

mixup (Zhang, Cisse, Dauphin, Lopez-Paz; ICLR 2018) after the encoders: "each modality's embedding"
is interpolated "independently"; the label is the weighted average of the two original labels.

    1  factors   `dirichlet`      lam ~ Beta(a, a), drawn once per batch
    2  partners  `Mixup.forward`  j = a random permutation (equal labels and j = i are allowed)
    3  features  `mix_features`   fhat_i^m = lam f_i^m + (1 - lam) f_j^m, for each modality m
    4  loss      `pair_loss`      mean_i [ lam CE(zhat_i, y_i) + (1 - lam) CE(zhat_i, y_j) ],
                                  zhat = g_f([fhat^1; ...; fhat^M])

The paper states neither a nor whether lam is shared, and its code has no Mixup. We share lam and
the partner, so that the label's weight is lam, as in mixup. More in docs/methods.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, Features, Logs, Method, choice
from methods.ops import accuracy, dirichlet


def mix_features(features: Features, j: Tensor, lam: Tensor) -> Features:
    """{m: lam f_i^m + (1 - lam) f_j^m}, [B, D_m] each; partners j [B], lam [1] or [M]."""
    weights = lam.expand(len(features))
    return {m: w * f + (1 - w) * f[j] for (m, f), w in zip(features.items(), weights)}


def pair_loss(
    z: Tensor, y: Tensor, y_partner: Tensor, weight: Tensor, ce: Callable = F.cross_entropy
) -> Tensor:
    """mean_i [ w CE(z_i, y_i) + (1 - w) CE(z_i, y_partner_i) ] of logits z [B, C], weight w []."""
    return weight * ce(z, y) + (1 - weight) * ce(z, y_partner)


class Mixup(Method):
    """Joint training on interpolated pairs of samples instead of clean samples."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        concentration: float = option(
            0.2,
            "a of lam ~ Beta(a, a); 0.4 and 1.0 are other usual values",
            above=0,
            source="DomainBed; the paper gives no value",
            search=(0.1, 2.0, "log"),
        )
        lam_mode: str = choice(
            "shared per_modality",
            "one lam for all modalities, or one each; the label uses their mean",
            "two readings of Sec. 4.4",
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        columns = len(f) if hp.lam_mode == "per_modality" else 1
        lam = dirichlet(hp.concentration, (columns, 2), self.generator)[:, 0]
        j = torch.randperm(len(y), generator=self.generator, device=y.device)
        z_mix = self.model.fuse(mix_features(f, j, lam))
        l_mix = pair_loss(z_mix, y, y[j], lam.mean(), self.cross_entropy)
        with torch.no_grad():  # the clean batch is only for the log
            z = self.model.fuse(f)
            l_align = self.cross_entropy(z, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_mix=l_mix, lam=lam.mean())
        return l_mix, logs
