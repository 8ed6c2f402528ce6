"""OGM-GE: on-the-fly gradient modulation with generalization enhancement (Peng, Wei, Deng, Wang,
Hu; CVPR 2022).

Each batch shows which modality predicts the right class better. OGM leaves the prediction alone and
shrinks the gradients of that modality's encoder; GE adds noise to the gradients of all encoders.

    1  `compare_modalities`    S^m = sum_i softmax(W_m f_i^m + b / M)[y_i]
    2  `discrepancy_ratio`     rho^m = mean over l != m of S^m / S^l
    3  `gradient_factor`       k^m = 1 - tanh(alpha rho^m) if rho^m > 1, else 1
    4  `modulate_gradients_`   grad <- k^m grad + e, e ~ N(0, std(grad)^2), on encoders only

The loss and the evaluation are Joint's. We read public code, not the papers:
GeWu-Lab/OGM-GE_CVPR2022 (main.py), GeWu-Lab/BML_TPAMI2024 (code/main.py) and
GeWu-Lab/BalanceBenchmark (balancemm/trainer/OGM_trainer.py). More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy, compare_modalities, gradient_factor, modulate_gradients_


class OGM(Method):
    """Joint training in which the leading modality's encoder learns more slowly."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """Defaults of BalanceBenchmark; the official scripts have alpha 0.8 (2024) or none."""

        alpha: float = option(0.3, "strength", low=0, source="BalanceBenchmark")
        noise: bool = option(True, "Gaussian noise (GE)", source="official code's default")
        warmup_epochs: int = option(
            10, "epochs of joint training first", low=0, per_epochs=True, source="BalanceBenchmark"
        )
        end_epoch: int = option(
            0, "last epoch of the modulation (0: no end)", low=0, source="BalanceBenchmark: 80"
        )

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        self.active = self.in_window(epoch)
        self.factors: dict[str, Tensor] = {}  # k of each modality, from forward to after_backward

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """Joint's loss; inside the window it also sets the factors for `after_backward`."""
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        loss = F.cross_entropy(z, y)
        score, ratio = compare_modalities(self.model.split_logits(f), y)
        logs = self.by_modality("train/score", score / len(y))
        logs |= self.by_modality("train/ratio", ratio)
        if self.active:
            k = gradient_factor(ratio, self.hparams.alpha)
            self.factors = dict(zip(f, k))
            logs |= self.by_modality("train/k", k)
        return loss, logs | {"train/acc": accuracy(z, y), "train/L_align": loss.detach()}

    @torch.no_grad()
    def after_backward(self) -> None:
        """Step 4, never on the fusion layer, batch norms or biases."""
        generator = self.generator if self.hparams.noise else None
        for m, k in self.factors.items():  # the noise also where k = 1, as in the public code
            modulate_gradients_(self.model.encoder_parameters(m), k, generator)
