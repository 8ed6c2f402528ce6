"""The optimizer of a stage, and the learning rate of each of its epochs."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, StepLR

from experiments.run.settings import Settings

OPTIMIZERS: dict[str, Callable] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def base_optimizer(s: Settings, lr_scale: float, fused: bool) -> Callable:
    """What makes the optimizer of some parameters, in a stage with this factor of --lr."""
    how: dict[str, Any] = {"lr": s.lr * lr_scale, "weight_decay": s.weight_decay, "fused": fused}
    if s.optimizer == "sgd":
        how["momentum"] = s.momentum
    return partial(OPTIMIZERS[s.optimizer], **how)


def lr_factor(s: Settings, epochs: int, done: int) -> float:
    """The factor of --lr after `done` of `epochs` counted epochs (see `counts_for_decay`)."""
    if done < s.lr_warmup:
        return (done + 1) / (s.lr_warmup + 1)
    if s.schedule == "cosine":
        share = (done - s.lr_warmup) / max(1, epochs - s.lr_warmup)
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return s.lr_gamma ** (done // s.lr_step) if s.schedule == "step" else 1.0


def make_schedulers(optimizers: Iterable, s: Settings, epochs: int) -> list[Any]:
    """A scheduler for each optimizer of a stage with so many counted epochs."""
    if s.schedule == "step" and not s.lr_warmup:
        return [StepLR(one, s.lr_step, s.lr_gamma) for one in optimizers]
    return [LambdaLR(one, partial(lr_factor, s, epochs)) for one in optimizers]
