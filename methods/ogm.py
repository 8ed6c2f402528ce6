"""OGM-GE: on-the-fly gradient modulation with generalization enhancement (Peng, Wei, Deng, Wang,
Hu; CVPR 2022).

OGM shrinks the gradients of the encoder whose modality better predicts the true class in the
current batch; GE adds noise to the gradients of all encoders.

    1  `compare_modalities`  S^m = sum_i softmax(W_m f_i^m + b / M)[y_i]
    2  `discrepancy_ratio`   rho^m = mean over l != m of S^m / S^l
    3  `gradient_factor`     k^m = 1 - tanh(alpha rho^m) if rho^m > 1, else 1
    4  `modulate_encoders_`  grad <- k^m grad + e, e ~ N(0, std(grad)^2), on encoders only

Loss and evaluation are Joint's. We read public code, not the papers:
GeWu-Lab/OGM-GE_CVPR2022 (main.py), GeWu-Lab/BML_TPAMI2024 (code/main.py) and
GeWu-Lab/BalanceBenchmark (balancemm/trainer/OGM_trainer.py). More in docs/methods.md.
"""

from dataclasses import dataclass

from torch import Tensor

from common.options import option
from methods.base import Batch, Logs, Method, last_epoch, warmup
from methods.ops import accuracy, compare_modalities, gradient_factor, modulate_encoders_

BENCH = "BalanceBenchmark"


class OGM(Method):
    """Joint training in which the leading modality's encoder learns more slowly."""

    min_modalities = 2
    needs_linear_fusion = True

    @dataclass(frozen=True)
    class HParams:
        alpha: float = option(0.3, "modulation strength", low=0, source=BENCH, search=(0.05, 1.0))
        noise: bool = option(True, "Gaussian noise (GE)", source="official code's default")
        warmup_epochs: int = warmup(10, source=BENCH)
        end_epoch: int = last_epoch(source=f"{BENCH}: 80")

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        loss = self.cross_entropy(z, y)
        score, ratio = compare_modalities(self.model.split_logits(f), y)
        self.k = gradient_factor(ratio, self.hparams.alpha)  # read by `after_backward`
        logs = self.train_logs(acc=accuracy(z, y), L_align=loss, score=score / len(y), ratio=ratio)
        return loss, logs | (self.train_logs(k=self.k) if self.active else {})

    def after_backward(self) -> None:
        if self.active:  # noise even if k = 1, as in the public code
            modulate_encoders_(self.model, self.k, self.generator if self.hparams.noise else None)
