"""MLA: multimodal learning with alternating unimodal adaptation (Zhang, Yoon, Bansal, Yao;
"Multimodal Representation Learning by Alternating Unimodal Adaptation"; CVPR 2024).

The modalities never share a loss: for each batch, every modality in turn makes its own optimizer
step, with its own encoder and one head that all modalities share. So that the head does not forget
what it learned from the others, its gradient is projected away from the features that it has seen.
At test time, the modalities' predictions are weighted by their certainty.

    logits      `MLA.losses`         z^m = W h^m + b, h^m the features at a common width
    loss        `MLA.losses`         CE(z^m, y), then one step, for m = 1, ..., M
    projection  `MLA.after_backward` grad W <- grad W P
    memory      `absorb`             P <- P - P r r^T P / (alpha + r^T P r), r = mean_i h_i^m; then
                                     divided by its Frobenius norm; P = I at the start of training
    alpha       `MLA.alpha`          a^(1 + t), t from 0 to 1 in the course of an epoch
    fusion      `certainty_weights`  z_i = sum_m w_i^m z_i^m with
                                     w_i = softmax_m(-entropy(softmax z_i^m))

We read the paper's abstract and public code (Cecile-hi/Multimodal-Learning-with-Alternating-
Unimodal-Adaptation: main.py, utils/utils.py; GeWu-Lab/BalanceBenchmark:
balancemm/trainer/MLA_trainer.py), not the paper's equations. **The authors' code never applies the
projection**, and both codes deviate from the recursion above; see docs/methods.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import UsageError, format_value, option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice
from methods.ops import CommonWidth, accuracy

CODE = "public codes"


def absorb(p: Tensor, r: Tensor, alpha: float, normalise: bool) -> Tensor:
    """P [D, D] after the mean feature r [D]: P r shrinks to alpha / (alpha + r^T P r) of itself."""
    # The codes divide P r r^T P by alpha + (P r) r^T, elementwise: [D, D] in place of a number. In
    # recursive least squares, from which this is taken, it is the number.
    k = p @ r
    p = p - torch.outer(k, k) / (alpha + r @ k)
    return p / torch.linalg.matrix_norm(p) if normalise else p


def certainty_weights(logits: Tensor) -> Tensor:
    """w [M, B], sums to 1 over modalities: softmax of the negative entropy of logits [M, B, C]."""
    # The authors' code takes the softmax over the samples of a batch and one weight for all of
    # them. Ours is BalanceBenchmark's: a prediction depends on its own sample only.
    return torch.softmax(-torch.special.entr(F.softmax(logits, dim=2)).sum(2), dim=0)


class MLA(Method):
    """Steps of one modality each, through a shared head whose gradient is projected."""

    min_modalities = 2
    P: Tensor

    @dataclass(frozen=True)
    class HParams:
        projection: str = choice(
            "previous current off",
            "of the head's gradient: by the features of earlier steps, also by this step's, or not",
            f"abstract, an inference; current: {CODE}' order; off: what the authors' code does",
        )
        alpha: float = option(
            0.1, "a: a smaller one removes seen features more fully", above=0, high=1, source=CODE
        )
        normalise: bool = option(True, "divide P by its norm in each step", source=CODE)
        combine: str = choice(
            "entropy mean", "weights at test time: by certainty, or equal", f"{CODE}; mean: ours"
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        # The codes' encoders all have one width, which is the head's.
        self.common = CommonWidth(model.widths)
        width = min(model.widths.values())
        self.head = nn.Linear(width, model.num_classes)
        self.register_buffer("P", torch.eye(width, device=model.device))

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        for name in ("alpha", "normalise") if hparams.projection == "off" else ():
            value = getattr(hparams, name)
            if value != getattr(cls.HParams(), name):
                given = f"--{name} {format_value(value)}"
                raise UsageError(f"{given} does nothing with --projection off")

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        self.seen, self.steps = 0, 0  # samples and batches of this epoch
        self.kept = {m: torch.zeros_like(self.P[0, 0]) for m in self.model.modalities}
        return None

    @property
    def alpha(self) -> float:
        """a^(1 + t): 0.1 at the start of an epoch, 0.01 at its end, by default."""
        t = min(self.seen / self.facts.train_size, 1.0)
        return self.hparams.alpha ** (1 + t)

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, Logs]]:
        """Each modality's loss in turn; all are encoded before the first step, as in the code."""
        y, z = batch["label"], []
        features = self.common(self.model.encode(batch["inputs"]))
        for m, h in features.items():
            self.now, self.r = m, h.detach().mean(0)  # read by `after_backward`
            z.append(self.head(h))
            loss = self.cross_entropy(z[-1], y)
            logs = {f"train/L_uni/{m}": loss.detach(), f"train/acc_uni/{m}": accuracy(z[-1], y)}
            if len(z) == len(features):
                # Of logits from before each modality's step, as the losses are.
                logs |= self.train_logs(acc=accuracy(self.fused(torch.stack(z)), y))
            yield loss, logs
        self.seen, self.steps = self.seen + len(y), self.steps + 1

    @torch.no_grad()
    def after_backward(self) -> None:
        """Projects the gradient of the head's weight, and lets P absorb this step's features."""
        hp, grad = self.hparams, self.head.weight.grad
        if hp.projection == "off" or grad is None:
            return
        before = grad.norm()
        # To keep what the head learned from the other modalities, the features of this one must not
        # be removed from its own gradient (abstract). The codes absorb first ("current"), and leave
        # out the first step of training; "previous" does so by its order, since P is still I.
        if hp.projection == "current":
            self.absorb_now()
        grad.copy_(grad @ self.P)
        self.kept[self.now] += grad.norm() / before.clamp_min(1e-12)
        if hp.projection == "previous":
            self.absorb_now()

    def absorb_now(self) -> None:
        self.P.copy_(absorb(self.P, self.r, self.alpha, self.hparams.normalise))

    def end_epoch(self) -> Logs:
        """kept: norm of the projected gradient of the head, relative to that before; mean."""
        if self.hparams.projection == "off":
            return {}
        return self.train_logs(kept=torch.stack(list(self.kept.values())) / max(self.steps, 1))

    def fused(self, z: Tensor) -> Tensor:
        """[B, C] from unimodal logits [M, B, C]."""
        if self.hparams.combine == "mean":
            return z.mean(0)
        return (certainty_weights(z)[:, :, None] * z).sum(0)

    def logits(self, features: Features) -> Tensor:
        """[B, C] from the shared head; the model's fusion layer is never used."""
        return self.fused(torch.stack([self.head(h) for h in self.common(features).values()]))
