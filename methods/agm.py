"""AGM: adaptive gradient modulation (Li, Li, Hu, Lei, Li, Zhou; "Boosting Multi-modal Model
Performance with Adaptive Gradient Modulation", ICCV 2023, arXiv 2308.07686).

The fused logits are split into one response for each modality, its Shapley value in a game whose
worth is the fused output with the other modalities hidden. A modality that is further ahead of the
others than it was on average so far is slowed down; one that has fallen behind is sped up.

    response    z^m = W_m f^m + b / M: the Shapley value, since the fusion layer is linear
    score       s^m = mean_i -ln max(softmax(z_i^m)[y_i], 1e-8)                  `scores`
    ratio       r^m = exp(mean over l != m of s^l - s^m); above 1 if m is ahead  `ratios`
    target      r*^m = the same of the means of s over all earlier steps         `AGM.running`
    factor      k^m = exp(alpha min(r*^m - r^m, cap))                            `factors`
    gradients   k^m times what reaches z^m: encoder m, W_m and b / M             `modulate_`
                then clipped to norm `clip`, if an entry of grad W exceeds it    `clip_`

Loss and evaluation are Joint's. We read the abstract and public code, not the paper's equations:
lihong2303/AGM_ICCV2023 (the authors', commit 5a65542: run/CREMAD_main.py, run/URFunny_main.py,
model/CREMAD_net.py), kkontras/MLB (Bias_Infusion.py) and GeWu-Lab/BalanceBenchmark
(balancemm/trainer/AGM_trainer.py). More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, Features, Logs, Method, choice, last_epoch, warmup
from methods.ops import accuracy, scale_encoders_, true_probability
from models.classifier import Classifier

CODE = "the authors' code"


@torch.no_grad()
def scores(responses: Features, labels: Tensor) -> Tensor:
    """s [M]: mean cross-entropy of the responses {m: [B, C]}, at most -ln 1e-8 per sample."""
    p = torch.stack([true_probability(z, labels) for z in responses.values()])
    return -p.clamp_min(1e-8).log().mean(1)


def ratios(s: Tensor) -> Tensor:
    """r [M] = exp(mean over l != m of s^l - s^m) of scores s [M]."""
    return torch.exp((s.mean() - s) * len(s) / (len(s) - 1))


def factors(s: Tensor, running: Tensor, alpha: float, cap: float) -> Tensor:
    """k [M] of the scores of a step and their means over the earlier ones, both [M]."""
    return torch.exp(alpha * (ratios(running) - ratios(s)).clamp_max(cap))


@torch.no_grad()
def modulate_(model: Classifier, k: Tensor, scope: str) -> None:
    """Multiplies the gradients of each modality's encoder and part of the fusion layer by k."""
    scale_encoders_(model, k)
    weight, bias = model.fusion.weight.grad, model.fusion.bias.grad
    if scope == "encoders" or weight is None or bias is None:
        return
    for factor, columns in zip(k, model.modality_slices.values()):
        weight[:, columns] *= factor
    bias *= k.mean()  # each response holds b / M


@torch.no_grad()
def clip_(model: Classifier, bound: float) -> None:
    """Scales all gradients to norm `bound` if an entry of the fusion weight's exceeds it."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm()
    above = model.fusion.weight.grad.abs().max() > bound  # type: ignore[union-attr]
    factor = torch.where(above, (bound / (norm + 1e-6)).clamp_max(1.0), 1.0)
    for gradient in gradients:
        gradient *= factor


class AGM(Method):
    """Joint training that slows a modality whose lead over the others has grown."""

    min_modalities = 2
    needs_linear_fusion = True
    running: Tensor
    steps: Tensor

    @dataclass(frozen=True)
    class HParams:
        alpha: float = option(
            1.0,
            "modulation strength",
            low=0,
            source=f"{CODE}'s default; AV-MNIST 2.5",
            search=(0.1, 3.0, "log"),
        )
        cap: float = option(
            10.0, "largest r* - r", above=0, source=f"{CODE}: 10 CREMA-D, 7 UR-Funny"
        )
        clip: float = option(
            1.0, "gradient clipping; 0: off", low=0, source=f"{CODE}: 1 CREMA-D, 5 UR-Funny"
        )
        scope: str = choice(
            "responses encoders",
            "modulate all that feeds a response, or the encoders only",
            f"{CODE}; encoders: BalanceBenchmark",
        )
        warmup_epochs: int = warmup(0, help="epochs before modulation", source=CODE)
        end_epoch: int = last_epoch(source=f"our choice; BalanceBenchmark: 80; {CODE}: 20")

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        zeros = torch.zeros(len(model.modalities), device=model.device)
        self.register_buffer("running", zeros)  # mean of s over all steps so far
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=model.device))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        loss = self.cross_entropy(z, y)
        s = scores(self.model.split_logits(f), y)
        self.k = factors(s, self.running, hp.alpha, hp.cap)  # read by `after_backward`
        logs = self.train_logs(acc=accuracy(z, y), L_align=loss, score=s, ratio=ratios(s))
        if self.active:
            logs |= self.train_logs(target=ratios(self.running), k=self.k)
        self.steps += 1  # after the factor: the target is of earlier steps only
        self.running += (s - self.running) / self.steps
        return loss, logs

    def after_backward(self) -> None:
        if self.active:
            modulate_(self.model, self.k, self.hparams.scope)
        if self.hparams.clip:  # in every epoch, as in the code
            clip_(self.model, self.hparams.clip)
