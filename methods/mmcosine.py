"""MMCosine: multi-modal cosine loss ("MMCosine: Multi-Modal Cosine Loss Towards Balanced
Audio-Visual Fine-Grained Learning", Xu, Feng, Zhang, Hu; ICASSP 2023, arXiv 2303.05338).

In a linear fusion layer, the modality whose features and weights have the larger norms decides the
output. MMCosine normalises both, modality by modality, so that only angles count and every modality
contributes at most s to a logit.

    `cosines`           cos^m_c = <W_m,c , f^m> / (|W_m,c| |f^m|), W_m,c the columns of modality m
                        in row c of the fusion layer's weight
    `MMCosine.logits`   z_c = s sum_m cos^m_c, without a bias; in training and in evaluation
    `MMCosine.forward`  L = CE(z, y)

We could read the paper's abstract and introduction, not its equations. The formulas follow the
public code (GeWu-Lab/MMCosine_ICASSP23: main_CD.py); GeWu-Lab/BalanceBenchmark
(balancemm/trainer/MMCosine_trainer.py) and kkontras/MLB (models/OGM_Model.py) have the same. More
in docs/methods.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, Features, Logs, Method
from methods.ops import accuracy, unimodal_accuracies

SMALLEST = 1e-12  # norms up to this count as zero; the code divides by at least this


def direction(x: Tensor) -> Tensor:
    """Rows of x [R, D] divided by their norm; a zero row stays zero, and gets no gradient."""
    # Dividing zeros by 1e-12, as in the code, would multiply their gradient by 1e12.
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.where(norm > SMALLEST, x / norm.clamp_min(SMALLEST), 0.0)


def cosines(features: Features, weight: Tensor, slices: dict[str, slice]) -> Features:
    """{m: [B, C]} in [-1, 1]: cosine of each sample's feature and each class's weight.

    features {m: [B, D_m]}, weight [C, sum of D_m], of which `slices` names each modality's columns.
    """
    return {m: direction(f) @ direction(weight[:, slices[m]]).T for m, f in features.items()}


class MMCosine(Method):
    """Joint training with the sum of the modalities' cosines as logits."""

    min_modalities = 2
    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        scale: float = option(
            10.0,
            "s, the factor of the cosines",
            above=0,
            source="public code and its CREMA-D command, and MLB; BalanceBenchmark: 15",
            search=(3.0, 30.0, "log"),
        )

    def cosines(self, features: Features) -> Features:
        """{m: [B, C]} with the fusion layer's weight; its bias is not used."""
        return cosines(features, self.model.fusion.weight, self.model.modality_slices)

    def logits(self, features: Features) -> Tensor:
        """z [B, C]."""
        return self.fused(self.cosines(features))

    def fused(self, cos: Features) -> Tensor:
        """z [B, C] of cosines {m: [B, C]}."""
        return self.hparams.scale * torch.stack(list(cos.values())).sum(0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        cos = self.cosines(self.model.encode(batch["inputs"]))
        z = self.fused(cos)
        loss = self.cross_entropy(z, y)
        own = torch.stack([c.gather(1, y[:, None]).mean() for c in cos.values()])
        acc_uni = unimodal_accuracies(cos, y)
        logs = self.train_logs(acc=accuracy(z, y), L_align=loss, cos_true=own, acc_uni=acc_uni)
        return loss, logs
