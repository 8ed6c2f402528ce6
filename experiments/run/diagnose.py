"""What any model listens to, from its features: the metrics of docs/metrics.md.

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
    f, y = tensors(features), class_numbers(labels)
    for m, values in f.items():
        if values.ndim != 2 or len(values) != len(y):
            raise UsageError(f"{m} has the shape {tuple(values.shape)}, expected [{len(y)}, D]")
    first = logits(f)
    if not isinstance(first, Tensor):
        raise UsageError(f"logits gave a {type(first).__name__}, expected a tensor [{len(y)}, C]")
    shape = first.shape
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
        seen = tensors(train[0]), class_numbers(train[1])
        found |= linear_probes(seen, (f, y))
    return found


def class_numbers(labels: Any) -> Tensor:
    """int64 [N]; raises `UsageError` for anything but whole numbers from 0."""
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y) or y.min() < 0:
        raise UsageError("labels must be whole numbers from 0, one for each sample")
    return torch.as_tensor(y.astype(np.int64))


def tensors(features: Mapping[str, Any]) -> Features:
    """float32 tensors on the CPU."""
    return {m: torch.as_tensor(np.asarray(values)).float() for m, values in features.items()}
