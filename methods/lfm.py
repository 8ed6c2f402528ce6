"""LFM: facilitating multimodal classification via dynamically learning the modality gap
(NeurIPS 2024).

LFM adds a label-free loss that matches the modalities' predictions, and shifts the weight between
it and the classification loss from epoch to epoch.

    L_cls     CE(o, y), o the fused logits
    L_match   `matching_loss`   divergence between the modalities' predictions, mean over pairs
    loss      `LFM.forward`     factor * (alpha_cls L_cls + alpha_match L_match)
    weights   alpha_cls + alpha_match = 1, set before each epoch:
              fixed             constant
              heuristic         alpha_match = 1 - exp(-1 / t) in epoch t = 1, 2, ...
              fitted            `fitted_alpha_cls`, a polynomial of the epoch
              hvp               `hessian_vector_mean` on a few held-out samples, then a step

We could only read the abstract and public summaries. Public code: njustkmg/NeurIPS24-LFM
(Crema_epoch.py, Crema_epoch_learnable.py; "official") and GeWu-Lab/BalanceBenchmark
(balancemm/trainer/LFM_trainer.py; "balancebench", the default). The abstract calls L_match
contrastive; neither code has negatives. More in docs/methods.md.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice
from methods.ops import accuracy, jensen_shannon

# (alpha_mode, initial alpha_match) of each code; they start at opposite ends. The logits are from
# the fusion layer's slices, or in "official" from heads, whose mean is o.
VARIANTS = {"balancebench": ("hvp", 0.05), "official": ("fitted", 0.95)}
# Crema_epoch.py: alpha_cls in epoch e (from 0) is sum_k FITTED[k] e^k, for 200 epochs.
FITTED = (2.04623704e-1, 3.35472727e-3, 1.22989557e-4, -2.92947416e-6, 2.23835486e-8,
          -5.39717505e-11)  # fmt: skip
FITTED_EPOCHS = 200
BOUNDS, HALVE_EVERY = (0.05, 0.95), 20  # of the learnt alpha_match and, in epochs, its step size
CODE = "public code"


def mixture_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[KL(M || P) + KL(M || Q)] / 2 per row of two [..., C] log-probabilities, M their mean."""
    # As in both public codes. They call it the Jensen-Shannon divergence, which has the arguments
    # of KL the other way round.
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_mean.exp() * (log_mean - (log_p + log_q) / 2)).sum(-1)


def matching_loss(logits: Features, kind: str = "kl_code") -> Tensor:
    """L_match of logits {m: [B, C]}: the mean over samples and over unordered pairs."""
    divergence = {"kl_code": mixture_divergence, "js": jensen_shannon}[kind]
    log_p = [F.log_softmax(z, dim=1) for z in logits.values()]
    pairs = itertools.combinations(log_p, 2)
    return torch.stack([divergence(p, q).mean() for p, q in pairs]).mean()


def mixed(l_cls: Tensor, l_match: Tensor, alpha_match: Tensor) -> Tensor:
    """alpha_cls L_cls + alpha_match L_match with alpha_cls = 1 - alpha_match."""
    alpha_cls = 1 - alpha_match
    return alpha_cls.to(l_cls.dtype) * l_cls + alpha_match.to(l_cls.dtype) * l_match


def fitted_alpha_cls(epoch: int, epochs: int) -> float:
    """The official polynomial, stretched from 200 epochs to `epochs`; `epoch` counts from 1."""
    # Stretching it, and capping it at 1 (exceeded in epochs 177 to 188), are our choice.
    e = (epoch - 1) * (FITTED_EPOCHS - 1) / max(epochs - 1, 1)
    return min(sum(c * e**k for k, c in enumerate(FITTED)), 1.0)


def hessian_vector_mean(
    l_cls: Tensor, l_match: Tensor, alpha_match: Tensor, parameters: Sequence[Tensor]
) -> Tensor:
    """Scalar mean of H v, with v = grad L_cls, over the entries of the first parameter.

    H is the Hessian of the mixed loss in all `parameters`. This is the published rule, not the
    bilevel gradient; at its step size alpha hardly moves, so the start value decides.
    """

    def gradients(loss: Tensor, of: Sequence[Tensor], **how: Any) -> tuple[Tensor, ...]:
        # zeros for tensors that the loss does not depend on
        return torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True, **how)

    v = gradients(l_cls, parameters, retain_graph=True)
    slope = gradients(mixed(l_cls, l_match, alpha_match), parameters, create_graph=True)
    # Compute only the needed entries of H v, as the gradient of <grad L, v>.
    product = torch.stack([(g * w).sum() for g, w in zip(slope, v, strict=True)]).sum()
    return gradients(product, parameters[:1])[0].mean()


class LFM(Method):
    """L_cls and L_match, with weights that change from epoch to epoch."""

    min_modalities = 2
    needs_linear_fusion = True
    alpha_match: Tensor
    alpha_lr: Tensor
    held_out: Tensor

    @dataclass(frozen=True)
    class HParams:
        variant: str = choice("balancebench official", "logits, defaults of alpha", "an inference")
        alpha_mode: str = choice(
            "auto fixed heuristic fitted hvp",
            "how alpha changes (auto: hvp, or fitted for official)",
            "public codes; heuristic: the paper, second-hand; fixed: our choice",
        )
        alpha_match: float = option(
            -1.0,
            "initial weight of L_match (-1: the variant's)",
            low=-1,
            high=1,
            source=CODE,
            search=(0.05, 0.95),
        )
        lr_alpha: float = option(1e-4, "step size of alpha (hvp)", above=0, source=CODE)
        match: str = choice("kl_code js", "L_match", f"{CODE}; js: what it names")
        factor: float = option(2.0, "factor on the total loss", above=0, source=CODE)
        held_out: int = option(16, "samples held out for hvp", low=2, source="official code")

        def schedule(self) -> tuple[str, float]:
            """(mode, initial alpha_match)."""
            mode, start = VARIANTS[self.variant]
            mode = mode if self.alpha_mode == "auto" else self.alpha_mode
            return mode, start if self.alpha_match == -1 else self.alpha_match

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.mode, start = hparams.schedule()
        # float64: hvp's steps are too small for float32 near 0.95.
        scalar = {"dtype": torch.float64, "device": model.device}
        self.register_buffer("alpha_match", torch.tensor(start, **scalar))
        if self.mode != "hvp":
            return
        if hparams.held_out > facts.train_size - 2:
            size = f"{facts.train_size} training samples"
            raise UsageError(f"--held_out {hparams.held_out} leaves too few of {size}; give fewer")
        self.register_buffer("alpha_lr", torch.tensor(hparams.lr_alpha, **scalar))
        # From the training set, as in the official code (which uses 8 of its 16); BalanceBenchmark
        # takes a quarter of a validation batch.
        self.register_buffer("held_out", self.set_aside(hparams.held_out)[0])

    @classmethod
    def has_unimodal_heads(cls, hparams: HParams) -> bool:
        """The official variant has heads; its fusion layer exists but is never used."""
        return hparams.variant == "official"

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        mode, given = hparams.schedule()[0], hparams.alpha_match
        if -1 < given < 0:
            raise UsageError(
                f"--alpha_match {given:g} is refused: it takes 0 to 1, or -1 for the variant's"
            )
        if given >= 0 and mode in ("heuristic", "fitted"):
            raise UsageError(f"--alpha_match does nothing with --alpha_mode {mode}, which sets it")

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Sets alpha; if alpha is learnt, the epoch skips the samples held out for it."""
        if self.mode == "heuristic":  # the formula, and that it weights L_match, are second-hand
            self.alpha_match.fill_(-math.expm1(-1 / epoch))
        elif self.mode == "fitted":
            self.alpha_match.fill_(1 - fitted_alpha_cls(epoch, self.facts.epochs))
        if self.mode != "hvp":
            return None
        if epoch > 1 and (epoch - 1) % HALVE_EVERY == 0:
            self.alpha_lr.mul_(0.5)
        # Evaluation mode, so that batch norm's running statistics do not absorb the held-out
        # samples (our choice; BalanceBenchmark stays in training mode).
        self.eval()
        parameters = [p for p in self.parameters() if p.requires_grad]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices),  # the data loader draws from the global generator
            torch.compiler.set_stance("force_eager"),  # compiled encoders and fused attention
            sdpa_kernel(SDPBackend.MATH),  # have no second derivatives
        ):
            held_out = self.held_out.tolist()
            (batch,) = train.batches(held_out, batch_size=len(held_out))
            _, l_cls, l_match = self.terms(batch)
            g = hessian_vector_mean(l_cls, l_match, self.alpha_match, parameters)
        self.alpha_grad = g
        self.alpha_match.sub_(self.alpha_lr * g).clamp_(*BOUNDS)
        return EpochPlan(self.set_aside(self.hparams.held_out)[1])

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(o [B, C], L_cls, L_match) of a batch."""
        f = self.model.encode(batch["inputs"])
        official = self.hparams.variant == "official"
        z = self.model.unimodal(f) if official else self.model.split_logits(f)
        o = self.logits(f)
        return o, self.cross_entropy(o, batch["label"]), matching_loss(z, self.hparams.match)

    def logits(self, features: Features) -> Tensor:
        """[B, C] from the fusion layer, or in the official variant the mean over the heads."""
        if self.hparams.variant == "balancebench":
            return self.model.fuse(features)
        return torch.stack(list(self.model.unimodal(features).values())).mean(0)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        o, l_cls, l_match = self.terms(batch)
        loss = self.hparams.factor * mixed(l_cls, l_match, self.alpha_match)
        acc = accuracy(o, batch["label"])
        return loss, self.train_logs(acc=acc, L_align=l_cls, L_match=l_match)

    def end_epoch(self) -> Logs:
        """The weights of the epoch; if they are learnt, also g and the step size."""
        logs = self.train_logs(alpha_cls=1 - self.alpha_match, alpha_match=self.alpha_match)
        if self.mode == "hvp":
            logs |= self.train_logs(alpha_grad=self.alpha_grad, alpha_lr=self.alpha_lr)
        return logs
