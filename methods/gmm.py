"""GMM-guided adaptive loss: OUR FORMULATION of an idea whose equations we could not read.

After Liu, Yu, Liu, "Quantifying Multimodal Imbalance: A GMM-Guided Adaptive Loss for Audio-Visual
Learning" (arXiv 2510.21797). We could only read abstracts and introductions, no equations or
hyper-parameters, and know of no public code: no result of this file reproduces that paper.

Two Gaussians fitted to the gaps between the modalities' confidences separate balanced from
imbalanced samples, and their posteriors weight the losses; then the model is fine-tuned on balanced
samples. The loss should (a) reduce the gap, (b) move imbalanced samples towards balanced ones, (c)
penalise the gap more for imbalanced samples and weight the fusion loss more for balanced ones.
The rest is an inference (reasons in docs/methods.md):

    `modality_gap`  delta_i = mean over the other modalities of max_m p_i^m - p_i^l, p^m the true
                    class's probability by g_m; no gradient into the maximum
    `fit_mixture`   f(x) = sum_c pi_c N(x; mu_c, v_c), c = balanced (B), imbalanced (I)
    `imbalance`     r_i = pi_I N(delta_i; mu_I, v_I) / f(delta_i), no gradient
    `GMM.forward`   L_uni = sum_m CE(g_m(f^m), y); warm-up and fine-tuning: CE(o, y) + L_uni;
                    adaptive: mean_i w_i CE_i(o) + L_uni + lam_gap mean_i delta_i           aim (a)
                    + lam_align relu(sum_i r_i delta_i / sum_i r_i - mu_B)^2                aim (b)
                    + lam_pen mean_i r_i delta_i,  w_i = (2 - r_i) / mean_j (2 - r_j)       aim (c)
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Logs, Method, Stage, TrainingSet, warmup
from methods.ops import accuracy, true_probability

VARIANCE_FLOOR, WEIGHT_FLOOR = 1e-4, 1e-3
TAU = 0.5  # fine-tuning keeps samples with at least this probability of being balanced
LR_FINETUNE = 0.1  # times --lr


def modality_gap(p: Tensor) -> Tensor:
    """delta [B] in [0, 1] from p [B, M], each modality's probability of the true class."""
    # If the maximum were not detached, lowering the better modality could also close the gap.
    best = p.detach().amax(1, keepdim=True)
    return F.relu(best - p).sum(1) / (p.shape[1] - 1)


def log_joint(x: Tensor, pi: Tensor, mu: Tensor, v: Tensor) -> Tensor:
    """ln pi_c + ln N(x; mu_c, v_c), [N, 2] for x [N]."""
    return pi.log() - 0.5 * ((x[:, None] - mu).square() / v + (2 * math.pi * v).log())


def fit_mixture(delta: Tensor) -> Tensor:
    """(pi, mu, v) [3, 2], fitted to delta [N] by EM in float64; the balanced component is first.

    Raises `FloatingPointError` if a gap is not finite.
    """
    x = delta.detach().double()
    if not x.isfinite().all():
        raise FloatingPointError(f"the modality gaps of {len(x)} samples are not all finite")
    mu = torch.quantile(x, x.new_tensor([0.25, 0.75]))
    v = x.var(correction=0).clamp_min(VARIANCE_FLOOR).expand(2)
    pi, before = torch.full_like(mu, 0.5), -math.inf
    for _ in range(200):
        joint = log_joint(x, pi, mu, v)
        total = joint.logsumexp(1, keepdim=True)
        likelihood = total.mean().item()  # a host read, but not in a training step
        if likelihood - before < 1e-6:
            break
        before = likelihood
        r = (joint - total).exp()  # [N, 2]
        n = r.sum(0)
        mu = (r * x[:, None]).sum(0) / n
        v = ((r * (x[:, None] - mu).square()).sum(0) / n).clamp_min(VARIANCE_FLOOR)
        pi = (n / len(x)).clamp_min(WEIGHT_FLOOR)
        pi = pi / pi.sum()
    # The balanced component has the smaller mean.
    return torch.stack([pi, mu, v])[:, mu.argsort(stable=True)]


def degenerate(mixture: Tensor) -> Tensor:
    """[] bool: whether the components of (pi, mu, v) [3, 2] fail to separate samples."""
    pi, mu, _ = mixture
    return (mu[1] - mu[0] < 0.05) | (pi.min() < 0.02)


def imbalance(delta: Tensor, mixture: Tensor) -> Tensor:
    """r [B]: posterior of the imbalanced component at delta [B]; delta itself if degenerate."""
    delta, mu = delta.detach(), mixture[1]
    # The wider of two components wins in both tails. With delta clamped to the range between the
    # means, the posterior never falls as the gap grows.
    joint = log_joint(delta.clamp(mu[0], mu[1]), *mixture)
    return torch.where(degenerate(mixture), delta, torch.sigmoid(joint[:, 1] - joint[:, 0]))


class GMM(Method):
    """Warm-up, adaptive training, then fine-tuning on balanced samples."""

    needs_unimodal_heads = True
    min_modalities = 2
    mixture: Tensor
    gaps: Tensor
    kept: Tensor

    @dataclass(frozen=True)
    class HParams:
        warmup_epochs: int = warmup(10, help="epochs before the adaptive loss")
        lam_gap: float = option(
            0.1, "weight of the mean gap (aim a)", low=0, search=(0.01, 1.0, "log")
        )
        lam_align: float = option(0.5, "weight of the shift to the balanced mean (aim b)", low=0)
        lam_pen: float = option(
            0.5, "weight of the gap of imbalanced samples (aim c)", low=0, search=(0.05, 5.0, "log")
        )
        finetune_epochs: int = option(10, "epochs of fine-tuning; 0: none", low=0, per_epochs=True)

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        unknown = torch.tensor([math.nan], device=model.device)
        self.register_buffer("mixture", unknown.repeat(3, 2))  # pi, mu, v
        self.register_buffer("gaps", unknown.repeat(facts.train_size))
        self.register_buffer("kept", torch.zeros_like(self.gaps, dtype=torch.bool))

    def stages(self, epochs: int) -> list[Stage]:
        finetune = Stage("finetune", self.hparams.finetune_epochs, LR_FINETUNE, start="best")
        return [Stage("train", epochs)] + ([finetune] if finetune.epochs else [])

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Fits the mixture before each adaptive epoch, and once before fine-tuning."""
        finetuning = epoch - self.facts.epochs  # counts from 1; before fine-tuning at most 0
        self.adaptive = self.active and finetuning <= 0
        if self.adaptive or finetuning == 1:
            self.fit(train)
        if finetuning <= 0:
            return None
        if finetuning == 1:  # the best epoch's weights have just been loaded
            self.kept.copy_(1 - imbalance(self.gaps, self.mixture) >= TAU)
        indices = self.kept.nonzero().squeeze(1)
        # If too few are kept, fine-tune on all samples; train/n_kept < train/n_items shows this.
        few = len(indices) < max(2, len(self.model.modalities))
        return None if few else EpochPlan(indices)

    @torch.no_grad()
    def fit(self, train: TrainingSet) -> None:
        self.eval()
        for batch in train.batches():
            z = self.model.unimodal(self.model.encode(batch["inputs"])).values()
            p = torch.stack([true_probability(z_m, batch["label"]) for z_m in z], dim=1)
            self.gaps[batch["index"]] = modality_gap(p)
        self.mixture.copy_(fit_mixture(self.gaps))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z, z_uni = self.model.fuse(f), self.model.unimodal(f)
        l_align, l_uni = self.cross_entropy(z, y), self.unimodal_losses(z_uni, y).sum()
        p = torch.stack([true_probability(z_m, y) for z_m in z_uni.values()], dim=1)
        delta = modality_gap(p)
        logs = self.train_logs(acc=accuracy(z, y), L_align=l_align, L_uni=l_uni)
        logs |= self.train_logs(gap=delta.mean(), p_true=p.mean(0))
        if not self.adaptive:
            return l_align + l_uni, logs
        r = imbalance(delta, self.mixture)
        w = (2 - r) / (2 - r).mean()
        l_fusion = (w * self.cross_entropy(z, y, reduction="none")).mean()
        mean_gap = (r * delta).sum() / (r.sum() + 1e-8)  # of the imbalanced samples
        l_shift = F.relu(mean_gap - self.mixture[1, 0]).square()
        l_pen = (r * delta).mean()
        gaps = hp.lam_gap * delta.mean() + hp.lam_align * l_shift + hp.lam_pen * l_pen
        logs |= self.train_logs(r_imbalanced=r.mean(), L_fusion=l_fusion)
        return l_fusion + l_uni + gaps, logs | self.train_logs(L_shift=l_shift, L_pen=l_pen)

    def end_epoch(self) -> Logs:
        if not self.active:
            return {}
        logs = {"gmm/degenerate": degenerate(self.mixture).float()}
        for name, (balanced, imbalanced) in zip(("pi", "mu", "v"), self.mixture):
            logs |= {f"gmm/{name}/balanced": balanced, f"gmm/{name}/imbalanced": imbalanced}
        if self.epoch > self.facts.epochs:
            logs["train/n_kept"] = self.kept.sum()
        return logs
