"""OPM: on-the-fly prediction modulation (Wei, Hu, Du, Wen; TPAMI 2024).

In some samples of a batch, OPM drops the features of the modality that better predicts the true
class (by slices of the fusion layer), so that the model must rely on the others.

    1  `compare_modalities`  S^m = sum_i softmax(W_m f_i^m + b / M)[y_i], on unmasked features
    2  `discrepancy_ratio`   rho^m = mean over l != m of S^m / S^l
    3  `drop_probability`    q^m = clip(q_base (1 + lambda tanh(rho^m - 1)), 0, 1) if rho^m > 1,
                             else 0
    4  `draw_masks`          gate ~ Bernoulli(p_exe) per batch, r_i^m ~ Bernoulli(1 - q^m)
    5  `dropped_width`       theta = sum_m d_m q^m / sum_m d_m
    6  `drop_features`       f~_i^m = r_i^m f_i^m / (1 - theta), for every modality
    7  `OPM.forward`         L = CE(fuse(f~), y); with a closed gate L = CE(fuse(f), y)

`--ogm on` also slows the leading modality's encoder (`methods/ogm.py`), by the same ratio and in
the same epochs. Evaluation is Joint's. We could not read the paper; the steps follow
GeWu-Lab/BML_TPAMI2024 (code/main.py, code/models/Classifier.py), GeWu-Lab/BalanceBenchmark
(balancemm/trainer/OPM_trainer.py), and a public re-implementation that quotes the paper
("second-hand"). More in docs/methods.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, Features, Logs, Method, last_epoch, warmup
from methods.ops import accuracy, compare_modalities, gradient_factor, modulate_encoders_

SCRIPT, CODE = "official script", "official code"


def drop_probability(ratio: Tensor, q_base: float, lam: float) -> Tensor:
    """Step 3: q [M] of ratios [M]."""
    q = q_base * (1 + lam * torch.tanh(ratio - 1))
    return torch.where(ratio > 1, q.clamp(0.0, 1.0), 0.0)


def draw_masks(
    q: Tensor, rows: int, p_exe: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Step 4: bool (gate [], keep [rows, M]); a closed gate keeps everything.

    No sample loses all modalities: the one with the smallest S has S^m / S^l <= 1 for all l, hence
    a ratio of at most 1, q = 0 and a mask of ones. So theta < 1, and we do not need the public
    codes' filter for such samples.
    """
    # The gate stays a tensor: branching on it would make the host wait for the device.
    gate = torch.rand((), generator=generator, device=q.device) < p_exe
    kept = torch.rand(rows, len(q), generator=generator, device=q.device) >= q
    return gate, torch.where(gate, kept, True)


def dropped_width(q: Tensor, widths: dict[str, int]) -> Tensor:
    """Step 5: theta [], the expected share of the concatenated features that is dropped."""
    hidden = torch.stack([width * q_m for width, q_m in zip(widths.values(), q)]).sum()
    return hidden / sum(widths.values())


def drop_features(features: Features, keep: Tensor, theta: Tensor) -> Features:
    """Step 6: {m: [B, D_m]}; keep [B, M] in the order of `features`, theta []."""
    return {m: f * keep[:, n, None] / (1 - theta) for n, (m, f) in enumerate(features.items())}


class OPM(Method):
    """Joint training with randomly dropped features of the leading modality."""

    min_modalities = 2
    needs_linear_fusion = True
    needs = {"alpha": ("ogm", True), "noise": ("ogm", True)}

    @dataclass(frozen=True)
    class HParams:
        q_base: float = option(
            0.5, "drop rate just above ratio 1", low=0, high=1, source=SCRIPT, search=(0.2, 0.8)
        )
        lam: float = option(
            0.5, "lambda: growth of the drop rate", low=0, source=SCRIPT, search=(0.1, 1.0)
        )
        p_exe: float = option(0.7, "share of modulated batches", low=0, high=1, source=SCRIPT)
        warmup_epochs: int = warmup(6, source=CODE)
        end_epoch: int = last_epoch(source=CODE)
        ogm: bool = option(False, "modulate gradients too, by the same ratio", source=CODE)
        alpha: float = option(0.3, "OGM: strength", low=0, source="BalanceBenchmark")
        noise: bool = option(True, "OGM: Gaussian noise (GE)", source="official code's default")

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        # S, rho, q, theta and k carry no gradient (our choice). In the public codes q is
        # differentiable in the features, and the official one returns theta as theta's gradient.
        score, ratio = compare_modalities(self.model.split_logits(f), y)
        logs = self.train_logs(score=score / len(y), ratio=ratio)
        if self.active:
            # From this batch's ratio, as in both public codes; the paper's algorithm is said to
            # use the previous step's (second-hand).
            q = drop_probability(ratio, hp.q_base, hp.lam)
            gate, keep = draw_masks(q, len(y), hp.p_exe, self.generator)
            theta = dropped_width(q, self.model.widths)
            f = drop_features(f, keep, torch.where(gate, theta, 0.0))
            dropped = 1 - keep.float().mean(0)
            logs |= self.train_logs(theta=theta, gate=gate.float(), drop=q, dropped=dropped)
            if hp.ogm:
                self.k = gradient_factor(ratio, hp.alpha)  # read by `after_backward`
                logs |= self.train_logs(k=self.k)
        z = self.model.fuse(f)
        loss = self.cross_entropy(z, y)
        return loss, logs | self.train_logs(acc=accuracy(z, y), L_align=loss)

    def after_backward(self) -> None:
        if self.active and self.hparams.ogm:
            modulate_encoders_(self.model, self.k, self.generator if self.hparams.noise else None)
