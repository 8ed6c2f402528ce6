"""OPM and OGM: on-the-fly modulation of the leading modality.

Y. Wei, D. Hu, H. Du, J.-R. Wen, "On-the-fly Modulation for Balanced Multimodal Learning", TPAMI
2024 (OPM, OGM); X. Peng, Y. Wei, A. Deng, D. Wang, D. Hu, "Balanced Multimodal Learning via
On-the-fly Gradient Modulation", CVPR 2022 (OGM-GE).

Each batch shows which modality's share of the fusion layer knows the right class better. OPM then
hides the leading modality's features in some of the samples, so that the others must explain them;
OGM leaves the prediction alone and shrinks the gradients of the leading modality's encoder. Both
start from one ratio, and `OPM` with `ogm` does both.

    1  `scores`              S^m = sum_i softmax(W_m f_i^m + b / M)[y_i], of whole features
    2  `ratios`              rho^m = mean over l != m of S^m / S^l
    OPM, before the fusion layer:
    3  `drop_probability`    q^m = clip(q_base (1 + lambda tanh(rho^m - 1)), 0, 1) if rho^m > 1,
                             else 0
    4  `draw_masks`          gate ~ Bernoulli(p_exe) of the batch, r_i^m ~ Bernoulli(1 - q^m)
    5  `dropped_width`       theta = sum_m d_m q^m / sum_m d_m
    6  `drop_features`       f~_i^m = r_i^m f_i^m / (1 - theta), for every modality
    7  `OPM.forward`         L = CE(fuse(f~), y); with a closed gate L = CE(fuse(f), y)
    OGM, after the backward pass:
    8  `gradient_factor`     k^m = max(0, 1 - tanh(alpha rho^m)) if rho^m > 1, else 1
    9  `modulate_gradient_`  grad <- k^m grad + e, e ~ N(0, std(grad)^2) ("GE"), on encoders only

Evaluation is Joint's. We read public code, not the papers: GeWu-Lab/OGM-GE_CVPR2022: main.py (steps
1, 2, 8, 9), GeWu-Lab/BML_TPAMI2024: code/main.py, code/models/Classifier.py (all steps) and
GeWu-Lab/BalanceBenchmark: balancemm/trainer/{OPM,OGM}_trainer.py. What else is said of the TPAMI
paper is second-hand: a public re-implementation that quotes it.

Deviations and inferences:

* S, rho, q, theta and k carry no gradient (our choice). In the public OPM codes q is differentiable
  with respect to the features; the official one even returns theta itself as theta's gradient.
* q comes from the current batch, as in both public codes. `lag` takes it from the step before, as
  the paper's algorithm is said to do (second-hand). The gradients' factor needs no lag, it is found
  after the forward pass: with both, `lag` moves q alone (an inference).
* More than two modalities: the mean of step 2 is second-hand (the paper's Eq. 7). BalanceBenchmark
  divides by the sum of the others (OPM) or by the smallest score (OGM).
* Denominators are clamped at 1e-5 (our choice). BalanceBenchmark adds 1e-5, which breaks
  rho^1 rho^2 = 1, and its OPM divides the scores in place, so that the second ratio is computed
  from a changed score; neither is reproduced. Nor is its 1e-5 in step 6: theta is below 1.
* The public codes take samples that lost all modalities out of the batch. None can lose them: the
  modality with the smallest S has S^m / S^l <= 1 for each l, hence a mean of at most 1 (rounding
  keeps the order), hence q = 0 and a mask of ones. So there is no such filter here; and theta < 1.
* Draws come from the method's generator; both public codes draw the gate from NumPy's global one.
* q_base 0.5: the official script and command line; BalanceBenchmark has 0.4. alpha 0.3:
  BalanceBenchmark; the official script of 2024 has 0.8, that of 2022 demands a value.
* Step 8 is the CVPR form, which the official code of 2024 still has; `form linear` is
  k = max(0, 1 - alpha tanh(rho - 1)), the TPAMI paper's form (second-hand).
* Step 9 changes all encoder tensors that are no vectors (BalanceBenchmark). The official code takes
  4-D gradients only (`tensors conv4d`). For convolutional encoders these are the same tensors; a
  text encoder would never be modulated by the official rule, so the broader one is the default.
* GE adds noise to the encoders with k = 1 as well (public code).
* OPM with `ogm` uses OPM's warm-up for both, as the official code does.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, format_value, option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy, true_probability

Features = dict[str, Tensor]


# The discrepancy ratio, which both methods start from ---------------------------------------------


def scores(logits: Features, labels: Tensor) -> Tensor:
    """Step 1: S [M] in (0, B], from the split logits {m: [B, C]} and labels [B]."""
    return torch.stack([true_probability(z, labels).sum() for z in logits.values()])


def ratios(score: Tensor) -> Tensor:
    """Step 2: rho [M] of scores [M], M >= 2; above 1 for a modality that is ahead."""
    quotient = score[:, None] / score.clamp_min(1e-5)
    return quotient.fill_diagonal_(0.0).sum(1) / (len(score) - 1)


# OPM: the forward pass ----------------------------------------------------------------------------


def drop_probability(ratio: Tensor, q_base: float, lam: float) -> Tensor:
    """Step 3: q [M] of ratios [M]; it jumps from 0 to q_base where the ratio passes 1."""
    q = q_base * (1 + lam * torch.tanh(ratio - 1))
    return torch.where(ratio > 1, q.clamp(0.0, 1.0), 0.0)


def draw_masks(
    q: Tensor, rows: int, p_exe: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Step 4: (gate [], keep [rows, M]), both boolean; a closed gate keeps everything.

    The gate stays a tensor: to branch on it would make the host wait for the device.
    """
    gate = torch.rand((), generator=generator, device=q.device) < p_exe
    kept = torch.rand(rows, len(q), generator=generator, device=q.device) >= q
    return gate, torch.where(gate, kept, True)


def dropped_width(q: Tensor, widths: dict[str, int]) -> Tensor:
    """Step 5: theta [], the share of the concatenated features expected to be hidden."""
    hidden = sum(width * q_m for width, q_m in zip(widths.values(), q))
    return hidden / sum(widths.values())


def drop_features(features: Features, keep: Tensor, theta: Tensor) -> Features:
    """Step 6: {m: [B, D_m]}; keep [B, M] in the order of `features`, theta [].

    With nothing dropped and theta 0 these are multiplications and divisions by 1: the values and
    the gradients of `features` to the last bit.
    """
    return {m: f * keep[:, n, None] / (1 - theta) for n, (m, f) in enumerate(features.items())}


# OGM: the backward pass ---------------------------------------------------------------------------


def gradient_factor(ratio: Tensor, alpha: float, form: str = "tanh") -> Tensor:
    """Step 8: k [M] in [0, 1] of ratios [M].

    "tanh" takes the ratio itself, so k jumps from 1 to 1 - tanh(alpha) where the ratio passes 1;
    "linear", 1 - alpha tanh(rho - 1), does not.
    """
    loss = torch.tanh(alpha * ratio) if form == "tanh" else alpha * torch.tanh(ratio - 1)
    return torch.where(ratio > 1, (1 - loss).clamp_min(0.0), 1.0)


def modulate_gradient_(grad: Tensor, k: Tensor, generator: torch.Generator | None) -> None:
    """Step 9, in place: grad of any shape with two or more elements, k []; no generator, no noise.

    The noise has the (unbiased) standard deviation of the gradient as it came, plus 1e-8.
    """
    # One dimension in the order of memory: noise in another order than a channels-last gradient's
    # would make this the slowest part of a step on a CPU.
    flat = grad.permute(sorted(range(grad.ndim), key=grad.stride, reverse=True)).view(-1)
    if generator is None:
        flat.mul_(k)
        return
    # Not `std`, which reads the mean back to the host on a CPU.
    spread = torch.linalg.vector_norm(flat - flat.mean()) / (len(flat) - 1) ** 0.5 + 1e-8
    noise = torch.randn(len(flat), generator=generator, device=grad.device, dtype=grad.dtype)
    flat.mul_(k).add_(noise.mul_(spread))


# The methods --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SharedOptions:
    """The window's end, and the options of OGM, which OPM needs for `ogm`."""

    end_epoch: int = option(
        0,
        "last epoch of the modulation, counted from 1; 0: it never ends",
        low=0,
        source="BalanceBenchmark: 80, beyond the 70 epochs",
    )
    alpha: float = option(
        0.3, "strength of the gradients' modulation", low=0, source="BalanceBenchmark"
    )
    noise: bool = option(
        True, "Gaussian noise on the modulated gradients (GE)", source="official code's default"
    )
    tensors: str = option(
        "matrices",
        "modulated encoder tensors: all but vectors, or 4-D ones alone",
        choices=("matrices", "conv4d"),
        source="BalanceBenchmark; conv4d: official code",
    )
    form: str = option(
        "tanh",
        "factor 1 - tanh(alpha rho), or 1 - alpha tanh(rho - 1)",
        choices=("tanh", "linear"),
        source="official code; linear: second-hand of the TPAMI paper",
    )


class Modulation(Method):
    """What OPM and OGM share: the batch's ratio, the window of epochs, OGM's hand on gradients."""

    min_modalities = 2

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Opens and closes the window."""
        self.active = self.in_window(epoch)
        self.factors: dict[str, Tensor] = {}  # k of each modality, from forward to after_backward

    @torch.no_grad()
    def _compare(self, features: Features, labels: Tensor) -> tuple[Tensor, Logs]:
        """Steps 1 and 2: (rho [M], its log) from features {m: [B, D_m]} before any masking."""
        score = scores(self.model.split_logits(features), labels)
        ratio = ratios(score)
        mean = score / len(labels)
        return ratio, self._named("score", mean) | self._named("ratio", ratio)

    def _set_factors(self, ratio: Tensor) -> Logs:
        """Step 8: sets the factors that this step's gradients get; returns their log."""
        k = gradient_factor(ratio, self.hparams.alpha, self.hparams.form)
        self.factors = dict(zip(self.model.modalities, k))
        return self._named("k", k)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Step 9, where `_set_factors` was called; never on fusion layer, batch norms or biases."""
        four = self.hparams.tensors == "conv4d"
        generator = self.generator if self.hparams.noise else None
        for m, k in self.factors.items():
            for p in self.model.encoder_parameters(m):
                chosen = p.ndim == 4 if four else p.ndim != 1
                if chosen and p.grad is not None and p.numel() > 1:
                    modulate_gradient_(p.grad, k, generator)

    def _named(self, series: str, values: Tensor) -> Logs:
        """[M] values under "train/<series>/<modality>"."""
        return {f"train/{series}/{m}": v for m, v in zip(self.model.modalities, values)}


class OPM(Modulation):
    """Hides the leading modality's features in some samples; with `ogm` slows its encoder too."""

    @dataclass(frozen=True)
    class HParams(SharedOptions):
        """Defaults of the official script."""

        q_base: float = option(
            0.5, "drop probability just above ratio 1", low=0, high=1, source="official script"
        )
        lam: float = option(
            0.5,
            "lambda: how far the drop probability grows with the ratio",
            low=0,
            source="official script",
        )
        p_exe: float = option(
            0.7, "probability that a batch is modulated", low=0, high=1, source="official script"
        )
        warmup_epochs: int = option(
            6,
            "epochs of joint training first",
            low=0,
            per_epochs=True,
            source="official code",
        )
        lag: bool = option(
            False,
            "drop probabilities from the previous step's ratio",
            source="official code; on: second-hand of the paper",
        )
        ogm: bool = option(
            False, "modulate gradients too, by the same ratio (OPM+OGM)", source="official code"
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        if hparams.lag:  # ratio 1, nobody leads, stands before the first step: it drops nothing
            ones = torch.ones(len(model.modalities), device=model.device)
            self.register_buffer("last_ratio", ones)

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` for an empty window, or an option of OGM's that would do nothing."""
        super().check(hparams, epochs, modalities)
        defaults = cls.HParams()
        for name in () if hparams.ogm else ("alpha", "noise", "tensors", "form"):
            value = getattr(hparams, name)
            if value != getattr(defaults, name):
                raise UsageError(
                    f"--{name} {format_value(value)} does nothing without --ogm on for OPM"
                )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """Cross-entropy of the fused logits of partly hidden features; outside the window Joint's.

        `train/drop` and `train/theta` are what an open gate applies, `train/dropped` is the share
        of hidden rows that came of it (0 where the gate is closed).
        """
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        ratio, logs = self._compare(f, y)
        of_drop = ratio
        if self.hparams.lag:
            of_drop = self.last_ratio.clone()
            self.last_ratio.copy_(ratio)
        if self.active:
            f, drop_logs = self._hide(f, of_drop)
            logs |= drop_logs
            if self.hparams.ogm:
                logs |= self._set_factors(ratio)
        z = self.model.fuse(f)
        loss = F.cross_entropy(z, y)
        return loss, logs | {"train/acc": accuracy(z, y), "train/L_align": loss.detach()}

    def _hide(self, features: Features, ratio: Tensor) -> tuple[Features, Logs]:
        """Steps 3 - 6 by the ratio [M]."""
        hp, rows = self.hparams, len(next(iter(features.values())))
        q = drop_probability(ratio, hp.q_base, hp.lam)
        gate, keep = draw_masks(q, rows, hp.p_exe, self.generator)
        theta = dropped_width(q, self.model.widths)
        logs = {"train/theta": theta, "train/gate": gate.float()}
        logs |= self._named("drop", q) | self._named("dropped", 1 - keep.float().mean(0))
        return drop_features(features, keep, torch.where(gate, theta, 0.0)), logs


class OGM(Modulation):
    """Joint training in which the leading modality's encoder learns more slowly (OGM-GE)."""

    @dataclass(frozen=True)
    class HParams(SharedOptions):
        """Defaults of BalanceBenchmark."""

        warmup_epochs: int = option(
            10,
            "epochs of joint training first",
            low=0,
            per_epochs=True,
            source="BalanceBenchmark",
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """Joint's loss; inside the window the factors for `after_backward` are set."""
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f)
        loss = F.cross_entropy(z, y)
        ratio, logs = self._compare(f, y)
        if self.active:
            logs |= self._set_factors(ratio)
        return loss, logs | {"train/acc": accuracy(z, y), "train/L_align": loss.detach()}
