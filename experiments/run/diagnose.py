"""What a model that is not ours listens to, from its features: the metrics of docs/metrics.md.

from experiments import diagnose

diagnose(features, labels, logits)     {"acc": ..., "acc_zero/audio": ..., "acc_mis": ...}
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.options import UsageError
from data_prep.split import NoPairs, misaligned_sources
from experiments.run.metrics import Protocol, linear_probes, measure
from methods.base import Features


class Foreign:
    """Another model, as `measure` sees a method."""

    linear, device = False, torch.device("cpu")

    def __init__(self, logits: Callable[[Features], Tensor], num_classes: int):
        self.logits, self.num_classes, self.model = logits, num_classes, self

    def unimodal(self, features: Features) -> Features:
        return {}


@torch.no_grad()
def diagnose(
    features: Mapping[str, Any],
    labels: Any,
    logits: Callable[[Features], Tensor],
    train: tuple[Mapping[str, Any], Any] | None = None,
) -> dict[str, float]:
    """Accuracy, that of each modality alone, Shapley values, and confidence on misaligned pairs.

    features {modality: [N, D_m]} and labels [N]: arrays or tensors of a test set; `logits` maps
    such features of any samples to [n, C] tensors, as the model's fusion does. With `train`, the
    (features, labels) of its training set, also linear probes. A modality is hidden by zeros.
    Raises `UsageError` if the shapes do not fit.
    """
    f, y = tensors(features), torch.as_tensor(np.asarray(labels)).long()
    for m, values in f.items():
        if values.ndim != 2 or len(values) != len(y):
            raise UsageError(f"{m} has the shape {tuple(values.shape)}, expected [{len(y)}, D]")
    shape = logits(f).shape
    if len(shape) != 2 or shape[0] != len(y) or y.max() >= shape[1]:
        what = f"{tuple(shape)} for {len(y)} samples with labels up to {int(y.max())}"
        raise UsageError(f"logits gave the shape {what}")
    try:
        sources = misaligned_sources(y.numpy(), len(f)) if len(f) > 1 else None
    except NoPairs:
        sources = None
    method: Any = Foreign(logits, shape[1])
    found = measure(method, f, y, Protocol(sources))
    if train:
        seen = tensors(train[0]), torch.as_tensor(np.asarray(train[1])).long()
        found |= linear_probes(seen, (f, y))
    return found


def tensors(features: Mapping[str, Any]) -> Features:
    """float32 tensors on the CPU."""
    return {m: torch.as_tensor(np.asarray(values)).float() for m, values in features.items()}
