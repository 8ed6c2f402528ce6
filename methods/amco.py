"""AMCo: adaptive mask co-optimisation (Zhou, Liang, Zheng, Xuan, Kumada; ICASSP 2023).

AMCo masks a growing part of the modality that the prediction depends on, and keeps training each
modality's own prediction. W_m are the columns of the fusion layer for modality m.

    split      `Classifier.split_logits`   z_m = W_m f_m + b / M, which sum to the fused logits
    ratio      `mask_ratio`     p = sin(pi / 2 * min(epsilon, l) / epsilon), l grows with each batch
    mask       `dropped_places` floor(p K) of K places, drawn per batch and shared by its samples
    logit      `mask`           z'_m = z_m with these places 0, K = C, all dependent modalities
    feature    `mask`           f'_m = f_m likewise but scaled up, K = D_m, one dependent modality
    output     `AMCo.output`    out = sum_m z'_m, or A (sum_m z'_m) + a with `--linear_star on`
    loss       `AMCo.forward`   CE(out, y) + sum_m CE(z'_m, y)
    masses     `modality_masses`       softmax over the M C logits of all z', summed per modality
    dependent  `dependent_modalities`  mass_m > sigma: masked in the next batch of the epoch

We could only read the paper's abstract and found no official code. All of this follows
GeWu-Lab/BalanceBenchmark (balancemm/trainer/AMCo_trainer.py, balancemm/models/avclassify_model.py):
`logit` is the version of its published results, `feature` an older one. More in docs/methods.md.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import UsageError, option
from methods.base import Batch, Features, Logs, Method, choice, last_epoch, warmup
from methods.ops import accuracy

CODE = "GeWu-Lab/BalanceBenchmark"


def mask_ratio(epoch: int, batch: int, epsilon: float) -> float:
    """p in [0, 1], the share of places to mask; `epoch` and `batch` count from 0.

    l grows by epoch / 10 per batch and restarts in each epoch (public code). So the first batch of
    an epoch is never masked, and from the fourth epoch on, the second is masked completely.
    """
    return math.sin(math.pi / 2 * min(epsilon, epoch * batch / 10) / epsilon)


def dropped_places(p: float, width: int, generator: torch.Generator) -> Tensor:
    """The masked places: bool [1, width], of which exactly floor(p width) are True."""
    order = torch.randperm(width, generator=generator, device=generator.device)
    # 1e-9, since sin(pi / 6) is just below 0.5 in double precision.
    return (order < int(p * width + 1e-9))[None]


def mask(values: Features, places: Features, dependent: Tensor, scale: float = 1.0) -> Features:
    """{m: [B, K_m]} with `places` {m: [1, K_m]} of dependent modalities (bool [M]) set to 0."""
    flags = zip(values.items(), dependent.unbind())
    return {
        m: torch.where(flag, v.masked_fill(places[m], 0.0) * scale, v) for (m, v), flag in flags
    }


def modality_masses(logits: Features) -> Tensor:
    """[M], sums to 1: mean softmax mass of the masked split logits {m: [B, C]}; no gradient."""
    z = torch.stack([z.detach() for z in logits.values()], dim=1)  # [B, M, C]
    return F.softmax(z.flatten(1), dim=1).view_as(z).sum(2).mean(0)


def dependent_modalities(masses: Tensor, sigma: float, first_only: bool = False) -> Tensor:
    """bool [M]: masses above sigma; with `first_only`, only the first of them."""
    flags = masses > sigma
    return flags & (flags.cumsum(0) == 1) if first_only else flags


class AMCo(Method):
    """Outside its window of epochs, the method is joint training."""

    min_modalities = 2
    needs_linear_fusion = True
    needs = {"linear_star": ("variant", "logit")}
    dependent: Tensor

    @dataclass(frozen=True)
    class HParams:
        variant: str = choice("logit feature", "what is masked", f"{CODE}, two versions")
        sigma: float = option(
            0.5, "mass above which a modality is dependent", above=0, high=1, source=CODE
        )
        epsilon: float = option(
            0.3, "where the mask ratio's ramp ends", above=0, source=CODE, search=(0.01, 0.5, "log")
        )
        linear_star: bool = option(
            False,
            "extra linear layer on the summed logits (variant logit only)",
            source=f"{CODE}, since its results were published; off: an inference",
        )
        warmup_epochs: int = warmup(0, source=CODE)
        end_epoch: int = last_epoch(source=CODE)

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        classes = model.num_classes
        self.linear_star = nn.Linear(classes, classes) if hparams.linear_star else None
        flags = torch.zeros(len(model.modalities), dtype=torch.bool, device=model.device)
        # Not stored in checkpoints: every epoch starts with no dependent modality (public code).
        self.register_buffer("dependent", flags, persistent=False)

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        if hparams.sigma < 1 / len(modalities):
            raise UsageError(
                f"--sigma {hparams.sigma:g} is below an equal share: all modalities could be"
                f" masked at once; give 1/{len(modalities)} or more"
            )

    def start_epoch(self, epoch: int, train: object) -> None:
        self.batches_done = 0
        self.dependent = torch.zeros_like(self.dependent)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        p = mask_ratio(self.epoch - 1, self.batches_done, hp.epsilon)  # counts warm-up epochs too
        self.batches_done += 1
        if not self.active:
            total = self.model.fuse(f)
        elif hp.variant == "feature":
            # Draw masks for all modalities: looking up the dependent one would be a host read.
            places = {m: dropped_places(p, v.shape[1], self.generator) for m, v in f.items()}
            # 1 / (1 - p) keeps the expectation of a masked feature; the public code caps it at 10.
            f = mask(f, places, self.dependent, 1 / (1 - p) if 1 - p > 0.1 else 10.0)
            masked, total = self.model.split_logits(f), self.model.fuse(f)
        else:
            places = dict.fromkeys(f, dropped_places(p, self.model.num_classes, self.generator))
            masked = mask(self.model.split_logits(f), places, self.dependent)
            total = torch.stack(list(masked.values())).sum(0)
        out = self.output(total)
        l_align = self.cross_entropy(out, y)
        logs = self.train_logs(acc=accuracy(out, y), L_align=l_align)
        if self.linear_star is not None:
            logs["train/acc_sum"] = accuracy(total, y)
        if not self.active:
            return l_align, logs
        l_uni, masses = self.unimodal_losses(masked, y).sum(), modality_masses(masked)
        ratio, dependent = torch.full((), p, device=out.device), self.dependent.float()
        logs |= self.train_logs(L_uni=l_uni, mask_ratio=ratio, mass=masses, dependent=dependent)
        # In the public code, `feature` keeps a modality masked until the epoch ends. We decide
        # again after every batch, as in `logit` (our choice).
        self.dependent = dependent_modalities(masses, hp.sigma, hp.variant == "feature")
        return l_align + l_uni, logs

    def output(self, total: Tensor) -> Tensor:
        return total if self.linear_star is None else self.linear_star(total)

    def logits(self, features: Features) -> Tensor:
        # The public code trains through `linear_star` and evaluates without it (our choice: with).
        return self.output(self.model.fuse(features))
