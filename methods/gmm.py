"""GMM-guided adaptive loss: OUR FORMULATION of an idea whose equations we could not read.

After Liu, Yu, Liu, "Quantifying Multimodal Imbalance: A GMM-Guided Adaptive Loss for Audio-Visual
Learning" (arXiv 2510.21797; v3: "Adaptive Loss via Probabilistic Sample Separation"). We could read
the abstracts and introductions of its three versions, no equation and no hyper-parameter, and know
of no public code. No number made by this file is a reproduction of that paper.

A mixture of two Gaussians over the gaps between the modalities' confidences separates balanced from
imbalanced samples, whose posteriors weigh the losses; the model is then fine-tuned on the balanced
samples. The loss shall (a) make the gap small, (b) move imbalanced samples toward balanced ones,
(c) penalise the gap more for imbalanced samples and weigh the fusion loss more for balanced ones:
so the abstracts. The rest is an inference (reasons in docs/methods.md):

    `modality_gap`    delta_i = mean over the other modalities of max_m p_i^m - p_i^l, p^m the true
                      class's probability by g_m; no gradient into the maximum
    `fit_mixture`     f(x) = sum_c pi_c N(x; mu_c, v_c), c = balanced, imbalanced; `em_step`
    `imbalance`       r_i = pi_I N(delta_i; mu_I, v_I) / f(delta_i), no gradient
    `fusion_weights`  w_i = (2 - r_i) / mean_j (2 - r_j)                            aim (c)
    `shift_loss`      relu(sum_i r_i delta_i / sum_i r_i - mu_B)^2                  aim (b)
    `GMM.forward`     warm-up, fine-tuning: CE(o, y) + sum_m CE(g_m(f^m), y)
                      adaptive: mean_i w_i CE_i(o) + sum_m CE(g_m(f^m), y)
                      + lam_gap mean_i delta_i + lam_align shift_loss + lam_pen mean_i r_i delta_i
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Logs, Method, Stage, TrainingSet
from methods.ops import accuracy, true_probability, unimodal_losses

VARIANCE_FLOOR, WEIGHT_FLOOR = 1e-4, 1e-3


def true_probabilities(logits: dict[str, Tensor], y: Tensor) -> Tensor:
    """p [B, M]: each modality's probability of the true class, from {m: [B, C]}."""
    return torch.stack([true_probability(z, y) for z in logits.values()], dim=1)


def modality_gap(p: Tensor) -> Tensor:
    """delta [B] in [0, 1] of p [B, M]."""
    # Without the detached maximum the gap could also close by lowering the better modality.
    best = p.detach().amax(1, keepdim=True)
    return F.relu(best - p).sum(1) / (p.shape[1] - 1)


def log_joint(x: Tensor, pi: Tensor, mu: Tensor, v: Tensor) -> Tensor:
    """ln pi_c + ln N(x; mu_c, v_c), [N, 2] of x [N]."""
    return pi.log() - 0.5 * ((x[:, None] - mu).square() / v + (2 * math.pi * v).log())


def em_step(x: Tensor, pi: Tensor, mu: Tensor, v: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """One step of expectation-maximisation on x [N]: (new (pi, mu, v), log-likelihood []).

    The log-likelihood is the mean over x under the parameters given, not the new ones.
    """
    joint = log_joint(x, pi, mu, v)
    total = joint.logsumexp(1, keepdim=True)
    r = (joint - total).exp()  # [N, 2]
    n = r.sum(0)
    mu = (r * x[:, None]).sum(0) / n
    v = ((r * (x[:, None] - mu).square()).sum(0) / n).clamp_min(VARIANCE_FLOOR)
    pi = (n / len(x)).clamp_min(WEIGHT_FLOOR)
    return (pi / pi.sum(), mu, v), total.mean()


def fit_mixture(delta: Tensor) -> Tensor:
    """(pi, mu, v) [3, 2] of delta [N] by expectation-maximisation in float64, balanced first.

    Begins at the quartiles with equal weights and the sample variance; ends when a step gains less
    than 1e-6 of mean log-likelihood, or after 200. Raises `FloatingPointError` for gaps that are
    not finite.
    """
    x = delta.detach().double()
    if not x.isfinite().all():
        raise FloatingPointError(f"the modality gaps of {len(x)} samples are not all finite")
    mu = torch.quantile(x, x.new_tensor([0.25, 0.75]))
    v = x.var(correction=0).clamp_min(VARIANCE_FLOOR).expand(2)
    found, before = (torch.full_like(mu, 0.5), mu, v), -math.inf
    for _ in range(200):
        better, likelihood = em_step(x, *found)
        reached = likelihood.item()  # a host read, but not in a training step
        if reached - before < 1e-6:
            break
        found, before = better, reached
    order = found[1].argsort(stable=True)  # balanced is the component with the smaller mean
    return torch.stack(found)[:, order]


def degenerate(mixture: Tensor) -> Tensor:
    """[] bool: whether the components of (pi, mu, v) [3, 2] separate nothing."""
    pi, mu, _ = mixture
    return (mu[1] - mu[0] < 0.05) | (pi.min() < 0.02)


def imbalance(delta: Tensor, mixture: Tensor) -> Tensor:
    """r [B]: posterior of the imbalanced component at delta [B]; delta itself if degenerate."""
    delta, mu = delta.detach(), mixture[1]
    # Of two components the wider one wins in both tails. Held at its values at the means, the
    # posterior never falls as the gap grows.
    joint = log_joint(delta.clamp(mu[0], mu[1]), *mixture)
    return torch.where(degenerate(mixture), delta, torch.sigmoid(joint[:, 1] - joint[:, 0]))


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
        lam_gap: float = option(0.1, "weight of the mean gap (aim a)", low=0)
        lam_align: float = option(0.5, "weight of the shift to the balanced mean (aim b)", low=0)
        lam_pen: float = option(0.5, "weight of the gap of imbalanced samples (aim c)", low=0)
        tau: float = option(0.5, "fine-tuning: least posterior of being balanced", low=0, high=1)
        finetune_epochs: int = option(10, "epochs of fine-tuning; 0: none", low=0, per_epochs=True)
        lr_finetune: float = option(0.1, "learning rate of fine-tuning, times --lr", above=0)

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        unknown = torch.tensor([math.nan], device=model.device)
        self.register_buffer("mixture", unknown.repeat(3, 2))  # pi, mu, v
        self.register_buffer("gaps", unknown.repeat(facts.train_size))
        self.register_buffer("kept", torch.zeros_like(self.gaps, dtype=torch.bool))

    def stages(self, epochs: int) -> list[Stage]:
        """Training, then fine-tuning from the best epoch."""
        hp, stages = self.hparams, [Stage("train", epochs)]
        if hp.finetune_epochs:
            stages.append(Stage("finetune", hp.finetune_epochs, hp.lr_finetune, start="best"))
        return stages

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Fits before each adaptive epoch; before fine-tuning fits once and chooses the samples."""
        finetuning = epoch - self.facts.epochs  # from 1; before it at most 0
        self.adaptive = self.in_window(epoch) and finetuning <= 0
        if self.adaptive or finetuning == 1:
            self._fit(train)
        if finetuning <= 0:
            return None
        if finetuning == 1:  # by the best epoch's weights, which have just been loaded
            self.kept.copy_(1 - imbalance(self.gaps, self.mixture) >= self.hparams.tau)
        indices = self.kept.nonzero().squeeze(1)
        # With too few samples, fine-tuning runs on all: train/n_kept below train/n_items shows it.
        few = len(indices) < max(2, len(self.model.modalities))
        return None if few else EpochPlan(indices)

    @torch.no_grad()
    def _fit(self, train: TrainingSet) -> None:
        """Fits the gaps of all training samples, without augmentation, in evaluation mode."""
        self.eval()
        for batch in train.batches():
            z_uni = self.model.unimodal(self.model.encode(batch["inputs"]))
            self.gaps[batch["index"]] = modality_gap(true_probabilities(z_uni, batch["label"]))
        self.mixture.copy_(fit_mixture(self.gaps))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The adaptive loss, or in warm-up and fine-tuning the fused and unimodal losses."""
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        z, z_uni = self.model.fuse(f), self.model.unimodal(f)
        l_align, l_uni = F.cross_entropy(z, y), unimodal_losses(z_uni, y)
        p = true_probabilities(z_uni, y)
        delta = modality_gap(p)
        logs = {
            "train/acc": accuracy(z, y),
            "train/L_align": l_align.detach(),
            "train/L_uni": l_uni.detach(),
            "train/gap": delta.detach().mean(),
            **self.by_modality("train/p_true", p.detach().mean(0)),
        }
        if not self.adaptive:
            return l_align + l_uni, logs
        r = imbalance(delta, self.mixture)
        l_fusion = (fusion_weights(r) * F.cross_entropy(z, y, reduction="none")).mean()
        l_shift, l_pen = shift_loss(delta, r, self.mixture[1, 0]), (r * delta).mean()
        logs["train/r_imbalanced"] = r.mean()
        logs["train/L_fusion"] = l_fusion.detach()
        logs["train/L_shift"], logs["train/L_pen"] = l_shift.detach(), l_pen.detach()
        gaps = hp.lam_gap * delta.mean() + hp.lam_align * l_shift + hp.lam_pen * l_pen
        return l_fusion + l_uni + gaps, logs

    def end_epoch(self) -> Logs:
        """The mixture in use, and in fine-tuning the number of balanced samples."""
        if not self.in_window(self.epoch):
            return {}
        logs = {"gmm/degenerate": degenerate(self.mixture).float()}
        for name, (balanced, imbalanced) in zip(("pi", "mu", "v"), self.mixture):
            logs |= {f"gmm/{name}/balanced": balanced, f"gmm/{name}/imbalanced": imbalanced}
        if self.epoch > self.facts.epochs:
            logs["train/n_kept"] = self.kept.sum()
        return logs
