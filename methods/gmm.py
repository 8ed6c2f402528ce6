"""GMM-guided adaptive loss: OUR FORMULATION of an idea whose equations we could not read.

After Liu, Yu, Liu, "Quantifying Multimodal Imbalance: A GMM-Guided Adaptive Loss for Audio-Visual
Learning" (arXiv 2510.21797; v3: "Adaptive Loss via Probabilistic Sample Separation"). Abstracts and
introductions of its three versions were readable, no equation and no hyper-parameter, and we know
of no public code. No number made by this file is a reproduction of that paper.

The gap between the modalities' confidences in the true class is measured for every training sample
and modelled by a mixture of two Gaussians, read as balanced and imbalanced samples. Each sample's
posterior then weighs its losses. Last, the model is fine-tuned on the balanced samples.

From the abstracts: the gap is a difference of softmax scores of the correct class; two components;
posteriors by Bayes' rule, soft; a warm-up, then adaptive training; a loss that (a) makes the gap
small, (b) moves imbalanced samples toward balanced ones, (c) penalises the gap more for imbalanced
samples and weighs the fusion loss more for balanced ones; fine-tuning on the samples that the
mixture finds balanced, which helps without the adaptive loss too. All else is an inference:

    `modality_gap`    delta_i = max_m p_i^m - min_m p_i^m, p^m the true class's probability by g_m
    `fit_mixture`     f(x) = sum_c pi_c N(x; mu_c, v_c), c = balanced, imbalanced; `em_step`
    `imbalance`       r_i = pi_I N(delta_i; mu_I, v_I) / f(delta_i), no gradient
    `fusion_weights`  w_i = (1 + 1 - r_i) / mean_j (1 + 1 - r_j)                   aim (c)
    `shift_loss`      relu(sum_i r_i delta_i / sum_i r_i - mu_B)^2                  aim (b)
    `GMM.forward`     warm-up, fine-tuning: CE(o, y) + beta sum_m CE(g_m(f^m), y)
                      adaptive: mean_i w_i CE_i(o) + beta sum_m CE(g_m(f^m), y)
                      + lam_gap mean_i delta_i + lam_align shift_loss + lam_pen mean_i r_i delta_i
    `GMM.start_epoch` fits anew before each adaptive epoch; chooses the fine-tuning samples

Our choices and their reasons:

* The gap is absolute: a signed gap can have two imbalanced tails and would need three components.
  The mean of each p^m is logged, so that the signed mean can be drawn.
* A gap can also close by lowering the better modality. So no gradient flows into the largest score
  (`--gap_onesided`); with M > 2 the gap is then the mean shortfall of the others, and this one gap
  serves mixture, posterior and loss alike.
* Of two components with unequal variances the wider one wins in both tails; the posterior is held
  at its values at mu_B below mu_B and at mu_I above mu_I, so it never falls as the gap grows.
* A fit whose means are closer than 0.05, or that has a weight below 0.02, separates nothing: then
  r_i = delta_i (logged as gmm/degenerate). Aim (b) keeps the fitted mu_B.
* The fit reads one pass over the training set, without augmentation, in evaluation mode.
  `--gap_source running` reads the gaps that training last saw instead; a sample not yet seen takes
  no part in the fit. The choice of fine-tuning samples always makes the pass.
* A sample that every modality misses has a small gap too and counts as balanced: the abstracts
  give nothing to tell it apart. train/acc in fine-tuning shows how many such samples are kept.
* Fine-tuning starts from the best epoch by validation and refits there, once. Should it find fewer
  samples than two, or than modalities, it runs on all: train/n_kept below train/n_items tells.
* All weights, lengths and thresholds.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Logs, Method, Stage, TrainingSet
from methods.ops import accuracy, true_probability, unimodal_losses

VARIANCE_FLOOR, WEIGHT_FLOOR = 1e-4, 1e-3
COMPONENTS = ("balanced", "imbalanced")


def modality_gap(p: Tensor, onesided: bool) -> Tensor:
    """delta [B] in [0, 1] from the true class's probability by each modality, p [B, M].

    `onesided`: mean shortfall of the other modalities from the largest score, which gets no
    gradient. Otherwise the largest minus the smallest. At M = 2 both have the same value.
    """
    if not onesided:
        return p.amax(1) - p.amin(1)
    best = p.detach().amax(1, keepdim=True)
    # The best modality's own shortfall is 0, where relu passes no gradient.
    return F.relu(best - p).sum(1) / (p.shape[1] - 1)


# The mixture --------------------------------------------------------------------------------------


class Mixture(NamedTuple):
    """Two Gaussians on the line, the one with the smaller mean (balanced) first."""

    pi: Tensor  # [2] weights
    mu: Tensor  # [2] means
    v: Tensor  # [2] variances
    degenerate: Tensor  # [] bool: the two do not separate anything


def log_joint(x: Tensor, pi: Tensor, mu: Tensor, v: Tensor) -> Tensor:
    """[N, 2]: ln pi_c + ln N(x; mu_c, v_c) of x [N]."""
    return pi.log() - 0.5 * ((x[:, None] - mu).square() / v + (2 * math.pi * v).log())


def em_step(x: Tensor, pi: Tensor, mu: Tensor, v: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """One step of expectation-maximisation on x [N]: ((pi, mu, v) anew, log-likelihood before).

    The log-likelihood [] is the mean over x under the parameters given, not the new ones.
    """
    joint = log_joint(x, pi, mu, v)
    total = joint.logsumexp(1, keepdim=True)
    r = (joint - total).exp()  # [N, 2]
    n = r.sum(0)
    mu = (r * x[:, None]).sum(0) / n
    v = ((r * (x[:, None] - mu).square()).sum(0) / n).clamp_min(VARIANCE_FLOOR)
    pi = (n / len(x)).clamp_min(WEIGHT_FLOOR)
    return (pi / pi.sum(), mu, v), total.mean()


def fit_mixture(delta: Tensor, gain: float = 1e-6, steps: int = 200) -> Mixture:
    """The mixture of delta [N] by expectation-maximisation in float64, on delta's device.

    Begins at the quartiles with equal weights and the sample variance; ends when a step gains less
    than `gain` of mean log-likelihood, with the parameters that this likelihood belongs to, or
    after `steps`. Reads the likelihood on the host at each step: not for a training step. Raises
    `FloatingPointError` where delta is empty or not finite.
    """
    x = delta.detach().double()
    if not len(x) or not x.isfinite().all():
        raise FloatingPointError(f"the modality gaps of {len(x)} samples are not all finite")
    mu = torch.quantile(x, x.new_tensor([0.25, 0.75]))
    v = x.var(correction=0).clamp_min(VARIANCE_FLOOR).expand(2)
    found, before = (torch.full_like(mu, 0.5), mu, v), -math.inf
    for _ in range(steps):
        better, likelihood = em_step(x, *found)
        reached = likelihood.item()
        if reached - before < gain:
            break
        found, before = better, reached
    order = found[1].argsort(stable=True)
    pi, mu, v = (values[order] for values in found)
    return Mixture(pi, mu, v, (mu[1] - mu[0] < 0.05) | (pi.min() < 0.02))


def imbalance(delta: Tensor, mixture: Mixture) -> Tensor:
    """r [B]: posterior of the imbalanced component at delta [B]; no gradient, never falling.

    delta itself where the mixture is degenerate.
    """
    delta = delta.detach()
    held = delta.clamp(mixture.mu[0], mixture.mu[1])
    joint = log_joint(held, *mixture[:3])
    return torch.where(mixture.degenerate, delta, torch.sigmoid(joint[:, 1] - joint[:, 0]))


# The adaptive loss --------------------------------------------------------------------------------


def fusion_weights(r: Tensor) -> Tensor:
    """[B] with mean 1: balanced samples, of small r [B], weigh up to twice the imbalanced ones."""
    w = 2 - r
    return w / w.mean()


def shift_loss(delta: Tensor, r: Tensor, mu_balanced: Tensor) -> Tensor:
    """Squared excess of the imbalanced samples' mean gap over mu_B []; delta, r [B] -> []."""
    mean = (r * delta).sum() / (r.sum() + 1e-8)
    return F.relu(mean - mu_balanced).square()


class GMM(Method):
    """The method: warm-up, adaptive training, fine-tuning on balanced samples."""

    needs_unimodal_heads = True
    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """All are our choices: the paper's values could not be read."""

        warmup_epochs: int = option(10, "epochs without adaptive loss", low=0, per_epochs=True)
        beta: float = option(1.0, "weight of the unimodal losses", low=0)
        lam_gap: float = option(0.1, "weight of the mean gap (aim a)", low=0)
        lam_align: float = option(0.5, "weight of the shift to the balanced mean (aim b)", low=0)
        lam_pen: float = option(0.5, "weight of the gap of imbalanced samples (aim c)", low=0)
        gap_onesided: bool = option(True, "no gradient into the largest of the scores")
        gap_source: str = option(
            "pass",
            "gaps for the fit: a pass over the training set, or as training last saw them",
            choices=("pass", "running"),
        )
        tau: float = option(
            0.5, "least posterior of being balanced, for fine-tuning", low=0, high=1
        )
        finetune_epochs: int = option(10, "epochs of fine-tuning; 0: none", low=0, per_epochs=True)
        lr_finetune: float = option(0.1, "learning rate of fine-tuning, times --lr", above=0)
        finetune_adaptive: bool = option(False, "keep the adaptive loss in fine-tuning")

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        unknown = torch.full((2,), math.nan, device=model.device)
        self.register_buffer("pi", unknown.clone())
        self.register_buffer("mu", unknown.clone())
        self.register_buffer("v", unknown.clone())
        self.register_buffer("degenerate", torch.tensor(True, device=model.device))
        # Each training sample's gap when it was last measured; NaN: not yet.
        self.register_buffer("gaps", unknown[:1].repeat(facts.train_size))
        self.register_buffer("kept", torch.zeros_like(self.gaps, dtype=torch.bool))

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` also where the first fit would have no gap to read."""
        super().check(hparams, epochs, modalities)
        if hparams.gap_source == "running" and hparams.warmup_epochs == 0:
            raise UsageError("--gap_source running needs --warmup_epochs 1 or more")

    def stages(self, epochs: int) -> list[Stage]:
        """Training, then fine-tuning from the best epoch."""
        hp, stages = self.hparams, [Stage("train", epochs)]
        if hp.finetune_epochs:
            stages.append(Stage("finetune", hp.finetune_epochs, hp.lr_finetune, start="best"))
        return stages

    @property
    def mixture(self) -> Mixture:
        """The last fit; before the first one NaN, and degenerate."""
        return Mixture(self.pi, self.mu, self.v, self.degenerate)

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Fits the mixture where this epoch needs a new one; in fine-tuning the chosen samples."""
        hp, past = self.hparams, epoch - self.facts.epochs  # past > 0: fine-tuning
        warming_up = not self.in_window(epoch)
        self.adaptive = not warming_up and (past <= 0 or hp.finetune_adaptive)
        if warming_up:
            return None
        if past <= 0:
            if hp.gap_source == "pass":
                self._measure(train)
                self._fit(self.gaps)
            else:
                self._fit(self.gaps[~self.gaps.isnan()])
            return None
        if past == 1:  # the best epoch's weights have just been loaded, its buffers with them
            self._measure(train)
            self._fit(self.gaps)
            self.kept.copy_(1 - imbalance(self.gaps, self.mixture) >= hp.tau)
        indices = self.kept.nonzero().squeeze(1)
        if len(indices) < max(2, len(self.model.modalities)):
            return None
        return EpochPlan(indices)

    @torch.no_grad()
    def _measure(self, train: TrainingSet) -> None:
        """Every training sample's gap, without augmentation, by the model as it stands."""
        self.eval()
        for batch in train.batches():
            z_uni = self.model.unimodal(self.model.encode(batch["inputs"]))
            self.gaps[batch["index"]] = self._gap(z_uni, batch["label"])[0]

    def _fit(self, gaps: Tensor) -> None:
        """Stores the mixture of gaps [N]."""
        for mine, found in zip(self.mixture, fit_mixture(gaps)):
            mine.copy_(found)

    def _gap(self, z_uni: dict[str, Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        """(delta [B], p [B, M]) of the unimodal logits {m: [B, C]}."""
        p = torch.stack([true_probability(z, y) for z in z_uni.values()], dim=1)
        return modality_gap(p, self.hparams.gap_onesided), p

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The adaptive loss, or in warm-up and fine-tuning the fused and unimodal losses."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z, z_uni = self.model.fuse(f), self.model.unimodal(f)
        l_align, l_uni = F.cross_entropy(z, y), unimodal_losses(z_uni, y)
        delta, p = self._gap(z_uni, y)
        if hp.gap_source == "running":
            self.gaps[batch["index"]] = delta.detach()
        logs = {
            "train/acc": accuracy(z, y),
            "train/L_align": l_align.detach(),
            "train/L_uni": l_uni.detach(),
            "train/gap": delta.detach().mean(),
        }
        logs |= {f"train/p_true/{m}": p[:, n].detach().mean() for n, m in enumerate(f)}
        if not self.adaptive:
            return l_align + hp.beta * l_uni, logs
        r = imbalance(delta, self.mixture)
        l_fusion = (fusion_weights(r) * F.cross_entropy(z, y, reduction="none")).mean()
        l_shift, l_pen = shift_loss(delta, r, self.mu[0]), (r * delta).mean()
        logs["train/r_imbalanced"] = r.mean()
        logs["train/L_fusion"] = l_fusion.detach()
        logs["train/L_shift"], logs["train/L_pen"] = l_shift.detach(), l_pen.detach()
        gaps = hp.lam_gap * delta.mean() + hp.lam_align * l_shift + hp.lam_pen * l_pen
        return l_fusion + hp.beta * l_uni + gaps, logs

    def end_epoch(self) -> Logs:
        """The mixture in use, and in fine-tuning the number of samples found balanced."""
        if not self.in_window(self.epoch):
            return {}
        logs = {"gmm/degenerate": self.degenerate.float()}
        for c, name in enumerate(COMPONENTS):
            logs[f"gmm/pi/{name}"], logs[f"gmm/mu/{name}"] = self.pi[c], self.mu[c]
            logs[f"gmm/v/{name}"] = self.v[c]
        if self.epoch > self.facts.epochs:
            logs["train/n_kept"] = self.kept.sum()
        return logs
