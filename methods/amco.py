"""AMCo: adaptive mask co-optimisation (Zhou, Liang, Zheng, Xuan, Kumada; ICASSP 2023).

The modality on which the prediction depends is made harder by masking a growing part of it; at the
same time each modality's own prediction goes on being trained, so that the masked one does not
degrade. W_m are the columns of the one fusion layer that belong to modality m, f_m its feature.

    split      `Classifier.split_logits`   z_m = W_m f_m + b / M, which sum to the fused logits
    ratio      `mask_ratio`     p = sin(pi / 2 * min(epsilon, l) / epsilon), l grows by batches
    mask       `dropped_places` floor(p K) of K places, drawn anew each batch, shared by its samples
    logit      `mask_logits`    z'_m = z_m with the places set to 0, K = C, each dependent modality
    feature    `mask_features`  f'_m = f_m likewise and scaled up, K = D_m, one dependent modality
    output     `AMCo.logits`    out = sum_m z'_m, or A (sum_m z'_m) + a with `--linear_star on`
    loss       `AMCo.forward`   CE(out, y) + lam * sum_m CE(z'_m, y)
    masses     `modality_masses`       softmax over the M C logits of all z', summed per modality
    dependent  `dependent_modalities`  mass_m > sigma: masked in the next batch of the epoch

The paper's text was not available to us, only its abstract, and we found no official code. All
numbers and formulas are read from public code, GeWu-Lab/BalanceBenchmark
(balancemm/trainer/AMCo_trainer.py, balancemm/models/avclassify_model.py) and its history:

* Two versions exist there. `logit` is the one of its published results, which MIDAS says it
  follows; `feature` is the older one, nearer to MIDAS's words "masking on the features". Taking
  `logit` as the default is an inference.
* `linear_star`, one more linear layer on the summed logits, is trained there only since February
  2025, after its results were published: off by default (an inference). That code evaluates without
  the layer that it trains through; here evaluation passes it too (our choice).
* l and the dependent modalities return to the start in every epoch (public code). So the first
  batch of an epoch is never masked, an epoch of a single batch not at all, and neither is the first
  epoch, since l advances by epoch / 10 a batch, epochs counted from 0. From the fourth epoch on p
  is 1 from the second batch. That ramp looks unintended; `--schedule epoch` takes
  l = epoch / 10 instead (our choice). l counts all epochs, also those of a warm-up.
* With p = 1 a masked modality has z' = 0 (`logit`): its own loss is the constant ln C, it gets no
  gradient, and its mass falls below that of another whose logits differ and have mean 0 (training
  keeps them near it). Two modalities are therefore masked in turns (tested with fixed weights).
  The gradient through `linear_star` does not keep that mean: there one may stay masked for long.
* `feature`: a modality stays masked there until the epoch ends. Here it is judged anew after every
  batch, as in `logit` (our choice). The first dependent one in the data set's order is masked.
* floor(p K) is taken as int(p K + 1e-9): sin(pi / 6) is just below 0.5 in double precision.
* The M + 1 losses are added and differentiated once; their separate gradients add up to the same.
* M > 2: formulas unchanged. A mass is then rarely above 0.5 (an inference), so `--sigma 0` takes
  1 / M, an equal share (our choice). A sigma below 1 / M is refused: all modalities could be
  masked at once, and with p = 1 the model would learn nothing until the epoch's end.
* Weights other than 1 of the unimodal losses (`--lam`) are our choice.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy, unimodal_losses

Features = dict[str, Tensor]
PUBLIC_CODE = "GeWu-Lab/BalanceBenchmark"


# The mask -----------------------------------------------------------------------------------------


def mask_ratio(epoch: int, batch: int, epsilon: float, schedule: str = "batch") -> float:
    """p in [0, 1], the share of places to mask; `epoch` and `batch` are counted from 0.

    l = epoch / 10 times the batch's number (public code), or with `schedule` "epoch" times 1.
    """
    ramp = epoch * (batch if schedule == "batch" else 1) / 10
    return math.sin(math.pi / 2 * min(epsilon, ramp) / epsilon)


def dropped_places(p: float, width: int, generator: torch.Generator) -> Tensor:
    """Which of `width` places are masked: bool [1, width] with exactly floor(p width) of them."""
    order = torch.randperm(width, generator=generator, device=generator.device)
    return (order < int(p * width + 1e-9))[None]


def mask_logits(logits: Features, dropped: Tensor, dependent: Tensor) -> Features:
    """z' of each modality: {m: [B, C]}, dropped [1, C], dependent bool [M] -> {m: [B, C]}."""
    pairs = zip(logits.items(), dependent.unbind())
    return {m: z.masked_fill(dropped & flag, 0.0) for (m, z), flag in pairs}


def feature_scale(p: float) -> float:
    """1 / (1 - p), which keeps a masked feature's expectation, but never above 10 (public code)."""
    return 1 / (1 - p) if 1 - p > 0.1 else 10.0


def mask_features(features: Features, dropped: Features, dependent: Tensor, p: float) -> Features:
    """f' of each modality: {m: [B, D_m]}, dropped {m: [1, D_m]}, dependent [M] -> {m: [B, D_m]}."""
    pairs = zip(features.items(), dependent.unbind())
    scale = feature_scale(p)
    return {
        m: torch.where(flag, f.masked_fill(dropped[m], 0.0) * scale, f) for (m, f), flag in pairs
    }


# The modality on which the model depends ----------------------------------------------------------


def modality_masses(logits: Features) -> Tensor:
    """[M] masses that sum to 1, from the masked split logits {m: [B, C]}; no gradient.

    One softmax over the M C logits of a sample, summed over each modality's classes, averaged over
    the batch.
    """
    z = torch.stack([z.detach() for z in logits.values()], dim=1)  # [B, M, C]
    return F.softmax(z.flatten(1), dim=1).view_as(z).sum(2).mean(0)


def dependent_modalities(masses: Tensor, sigma: float, first_only: bool = False) -> Tensor:
    """bool [M]: masses above sigma (0: above 1 / M); with `first_only` the first of them alone."""
    flags = masses > (sigma or 1 / len(masses))
    return flags & (flags.cumsum(0) == 1) if first_only else flags


class AMCo(Method):
    """The method; outside its window of epochs it is joint training."""

    min_modalities = 2

    @dataclass(frozen=True)
    class HParams:
        """Defaults of the public code, and our choices where they are named so."""

        variant: str = option(
            "logit",
            "mask the split logits or the features of the dependent modality",
            choices=("logit", "feature"),
            source=f"{PUBLIC_CODE}, its later and its earlier version",
        )
        sigma: float = option(
            0.5,
            "share of the joint prediction above which a modality is dependent (0: 1 / M)",
            low=0,
            high=1,
            source=PUBLIC_CODE,
        )
        epsilon: float = option(
            0.3, "where the ramp of the mask ratio ends: all is masked", above=0, source=PUBLIC_CODE
        )
        schedule: str = option(
            "batch",
            "the mask ratio grows with the batches of an epoch, or with the epochs alone",
            choices=("batch", "epoch"),
            source=f"batch: {PUBLIC_CODE}; epoch: our choice",
        )
        lam: float = option(1.0, "weight of the unimodal losses", low=0, source=PUBLIC_CODE)
        linear_star: bool = option(
            False,
            "one more linear layer on the summed logits (variant logit only)",
            source=f"{PUBLIC_CODE}; off: an inference",
        )
        warmup_epochs: int = option(
            0, "epochs of joint training first", low=0, per_epochs=True, source=PUBLIC_CODE
        )
        end_epoch: int = option(
            0,
            "last epoch of the method, joint training after it (0: none)",
            low=0,
            source=f"{PUBLIC_CODE}: beyond the last epoch",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        classes = model.num_classes
        self.linear_star = nn.Linear(classes, classes) if hparams.linear_star else None
        flags = torch.zeros(len(model.modalities), dtype=torch.bool, device=model.device)
        # Not stored in checkpoints: it starts anew with every epoch.
        self.register_buffer("dependent", flags, persistent=False)

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` for an empty window, a sigma too small, a layer without a place."""
        super().check(hparams, epochs, modalities)
        if 0 < hparams.sigma < 1 / len(modalities):
            raise UsageError(
                f"--sigma {hparams.sigma:g} is below an equal share, so that all modalities could"
                f" be masked at once; give 0 for 1/{len(modalities)}, or more than that"
            )
        if hparams.linear_star and hparams.variant == "feature":
            raise UsageError("--linear_star on is defined for --variant logit only")

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """The ramp and the dependent modalities start anew."""
        self.acting = self.in_window(epoch)
        self.batches_done = 0
        self.dependent = torch.zeros_like(self.dependent)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """CE of the output plus those of the masked modalities; outside the window the first alone.

        `train/acc` is of the output in training, `train/dependent/<m>` tells which modality this
        step masked, `train/mass/<m>` decides on the next one.
        """
        y, hp = batch["label"], self.hparams
        f = self.model.encode(batch["inputs"])
        if not self.acting:
            total = self.model.fuse(f)
            out = self._output(total)
            loss = F.cross_entropy(out, y)
            return loss, self._accuracies(out, total, y) | {"train/L_align": loss.detach()}
        p = mask_ratio(self.epoch - 1, self.batches_done, hp.epsilon, hp.schedule)
        self.batches_done += 1
        masked, total = self._mask(f, p)
        out = self._output(total)
        l_align, l_uni = F.cross_entropy(out, y), unimodal_losses(masked, y)
        masses = modality_masses(masked)
        logs = self._accuracies(out, total, y) | {
            "train/L_align": l_align.detach(),
            "train/L_uni": l_uni.detach(),
            "train/mask_ratio": torch.full((), p, device=out.device),
        }
        for k, m in enumerate(self.model.modalities):
            logs[f"train/mass/{m}"] = masses[k]
            logs[f"train/dependent/{m}"] = self.dependent[k].float()
        self.dependent = dependent_modalities(masses, hp.sigma, hp.variant == "feature")
        return l_align + hp.lam * l_uni, logs

    def _mask(self, f: Features, p: float) -> tuple[Features, Tensor]:
        """(z' {m: [B, C]}, their sum [B, C]).

        Where features are masked, each modality gets places of its own, although only one is used:
        which one that is stands on the device.
        """
        if self.hparams.variant == "feature":
            dropped = {m: dropped_places(p, v.shape[1], self.generator) for m, v in f.items()}
            f = mask_features(f, dropped, self.dependent, p)
            return self.model.split_logits(f), self.model.fuse(f)
        dropped = dropped_places(p, self.model.num_classes, self.generator)
        masked = mask_logits(self.model.split_logits(f), dropped, self.dependent)
        return masked, torch.stack(list(masked.values())).sum(0)

    def _output(self, total: Tensor) -> Tensor:
        """[B, C] from the sum of the split logits."""
        return total if self.linear_star is None else self.linear_star(total)

    def _accuracies(self, out: Tensor, total: Tensor, y: Tensor) -> Logs:
        logs = {"train/acc": accuracy(out, y)}
        if self.linear_star is not None:
            logs["train/acc_sum"] = accuracy(total, y)
        return logs

    def logits(self, features: Features) -> Tensor:
        """Unmasked; the fused logits are the sum of the split ones."""
        return self._output(self.model.fuse(features))
