"""Mixup for multimodal embeddings: the baseline row of the MIDAS paper's Sec. 4.4.

mixup (Zhang, Cisse, Dauphin, Lopez-Paz; ICLR 2018) trains on interpolated pairs. The MIDAS paper
moves it behind the encoders: each modality's embedding is interpolated by itself, and the label is
the weighted average of the two original labels. Evaluation is Joint's.

    1  factors   `draw_lam`       lam ~ Beta(a, a)
    2  partners  `Mixup.forward`  j = a random permutation of the batch (equal labels, j = i too)
    3  features  `mix_features`   fhat_i^m = lam f_i^m + (1 - lam) f_j^m, for each modality m
    4  loss      `pair_loss`      mean_i [ lam CE(zhat_i, y_i) + (1 - lam) CE(zhat_i, y_j) ],
                                  zhat = g_f([fhat^1; ...; fhat^M])

From the MIDAS paper: the interpolation of "each modality's embedding independently" and the
label's weighted average. It gives neither a, nor whether lam is shared, nor when it is drawn; its
code was not available to us. The following are our choices (inferences):

* "Independently" is read as: each embedding by itself, with one lam and one partner for all
  modalities. The label's weight is then lam, as in mixup. The other reading, an own lam_m for each
  modality, is `--lam_mode per_modality`; its label weight is mean_m lam_m.
* One lam a batch, as in mixup's usual code; `--lam_level sample` draws one for each sample.
* a = 0.2 (facebookresearch/DomainBed: domainbed/hparams_registry.py). 0.4 and 1.0 are other usual
  values; lzcemma/LeMDA has 0.8 for its image mixup.
* The mixed loss replaces the clean one, and there is no unimodal loss.

The clean batch is fused once more without gradient, for the log alone: train/acc and train/L_align
are those of unmixed samples, as for the other methods. L_align is no part of the loss.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, Logs, Method
from methods.ops import accuracy, dirichlet

Features = dict[str, Tensor]


def draw_lam(concentration: float, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """lam [R, K] in [0, 1], each an independent draw from Beta(a, a), a = `concentration`.

    R is 1 (one for the batch) or B, K is 1 (one for all modalities) or M.
    """
    return dirichlet(concentration, (rows, columns, 2), generator)[..., 0]


def mix_features(features: Features, j: Tensor, lam: Tensor) -> Features:
    """{m: lam f_i^m + (1 - lam) f_j^m}, [B, D_m] each.

    features {m: [B, D_m]}, partners j [B], lam [R, K] as from `draw_lam`.
    """
    columns = lam.expand(-1, len(features)).split(1, dim=1)  # M times [R, 1]
    return {m: w * f + (1 - w) * f[j] for (m, f), w in zip(features.items(), columns)}


def pair_loss(z: Tensor, y: Tensor, y_partner: Tensor, weight: Tensor) -> Tensor:
    """mean_i [ w_i CE(z_i, y_i) + (1 - w_i) CE(z_i, y_partner_i) ].

    Logits z [B, C], labels [B] each, weight [1] or [B]. One weight for all stands outside of the
    mean, so that weight 1 is the plain cross-entropy to the last bit.
    """
    reduction = "mean" if len(weight) == 1 else "none"
    own = F.cross_entropy(z, y, reduction=reduction)
    other = F.cross_entropy(z, y_partner, reduction=reduction)
    return (weight * own + (1 - weight) * other).mean()


class Mixup(Method):
    """Joint on interpolated pairs of samples."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """The paper names no value: all are our choices."""

        concentration: float = option(
            0.2,
            "a of lam ~ Beta(a, a); 0.4 and 1.0 are other usual values",
            above=0,
            source="DomainBed; the paper gives no value",
        )
        lam_mode: str = option(
            "shared",
            "one lam for all modalities, or an own one for each",
            choices=("shared", "per_modality"),
            source="our reading of Sec. 4.4",
        )
        lam_level: str = option(
            "batch",
            "one lam a batch, or one for each sample",
            choices=("batch", "sample"),
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of mixed samples; the clean batch is fused for the log only."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        rows = len(y) if hp.lam_level == "sample" else 1
        columns = len(f) if hp.lam_mode == "per_modality" else 1
        lam = draw_lam(hp.concentration, rows, columns, self.generator)
        j = torch.randperm(len(y), generator=self.generator, device=y.device)
        z_mix = self.model.fuse(mix_features(f, j, lam))
        loss = pair_loss(z_mix, y, y[j], lam.mean(1))  # the label's weight: mean_m lam_m
        with torch.no_grad():
            z = self.model.fuse(f)
            l_align = F.cross_entropy(z, y)
        return loss, {
            "train/acc": accuracy(z, y),
            "train/L_align": l_align,
            "train/L_mix": loss.detach(),
            "train/lam": lam.mean(),
        }
