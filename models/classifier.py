"""The multimodal classifier, as methods see it.

Only `encode` deals with moving and casting inputs, autocast, memory format and compilation. It
returns float32 features of the whole batch; fusion, heads and losses then run in float32.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.fusion import FUSIONS, LINEAR
from models.ranks import Ranks, Rows

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Execution:
    """Where and how the encoders run."""

    device: torch.device = torch.device("cpu")
    precision: str = "float32"  # or "tf32", or "bf16": autocast of the encoders only
    compile: bool = False
    ranks: Ranks | None = None  # if several processes train together
    parts: int = 1  # in which a training batch is encoded, to save memory


ON_CPU = Execution()


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Makes the modules built in its block depend on (seed, name) only; draws on the CPU.

    So with equal seeds, all methods start with equal encoders, even with a single modality.
    """
    before = torch.get_rng_state()
    words = np.random.SeedSequence([seed, *name.encode()])
    torch.manual_seed(int(words.generate_state(1)[0]))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def encoded(encoder: Any, x: Tensor, parts: int) -> Tensor:
    """Features [B, D]; in training, the `parts` of a batch are encoded one after another.

    The backward pass then encodes each part again, so that only one part's activations are in
    memory. A part has at least two samples, as batch norm needs them.
    """
    parts = min(parts, len(x) // 2)
    if parts < 2 or not torch.is_grad_enabled():
        return encoder(x)
    how: dict[str, Any] = {"use_reentrant": False}
    how["context_fn"] = lambda: (nullcontext(), Unrecorded(encoder))
    return torch.cat([checkpoint(encoder, part, **how) for part in x.chunk(parts)])


class Unrecorded:
    """A context in which batch norm does not count a repeated pass in its running statistics.

    It can be entered again: a second derivative (LFM) repeats the pass once more.
    """

    def __init__(self, encoder: nn.Module):
        self.norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


class Classifier(nn.Module):
    """Encoders, a fusion of their features (g_f), and optional unimodal heads (g_m).

    `encoders` maps each modality, in the dataset's order, to a module with an attribute `width`;
    `fusion` is a name in `models.fusion`. `linear`: whether the fused logits are a sum over the
    modalities, so that `split_logits`, `modality_slices` and `fusion.weight` have a meaning.
    """

    def __init__(
        self,
        encoders: dict[str, Any],
        num_classes: int,
        heads: bool,
        seed: int,
        execution: Execution = ON_CPU,
        fusion: str = "concat",
    ):
        super().__init__()
        self.modalities, self.num_classes, self.execution = list(encoders), num_classes, execution
        self.device = execution.device  # of features and logits
        self.encoders = nn.ModuleDict(encoders)
        self.widths: dict[str, int] = {m: encoder.width for m, encoder in encoders.items()}
        self.modality_slices: dict[str, slice] = {}  # each modality's columns of the fusion weight
        end = 0
        for m, width in self.widths.items():
            self.modality_slices[m] = slice(end, end + width)
            end += width
        with seeded(seed, "fusion"):
            self.fusion: Any = FUSIONS[fusion](list(self.widths.values()), num_classes)
        self.linear = fusion in LINEAR
        self.heads = nn.ModuleDict()
        for m, width in self.widths.items() if heads else ():
            with seeded(seed, f"head {m}"):
                self.heads[m] = nn.Linear(width, num_classes)
        self.to(execution.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if execution.ranks:
            execution.ranks.prepare(self.encoders)
        self.draws = any(isinstance(m, nn.Dropout) for m in self.encoders.modules())
        self._compile()

    def _compile(self) -> None:
        compiled = torch.compile if self.execution.compile else lambda encoder: encoder
        self._run = {m: compiled(encoder) for m, encoder in self.encoders.items()}

    def frozen_copy(self) -> "Classifier":
        """A copy that does not train and stays in evaluation mode: a teacher, or earlier weights.

        As a method's submodule it is part of the checkpoint.
        """
        self._run = {}
        twin = copy.deepcopy(self, {id(self.execution): self.execution})
        twin.__class__ = _Frozen
        for one in (self, twin):
            one._compile()
        return twin.requires_grad_(False).eval()

    def encode(self, inputs: dict[str, Tensor]) -> Features:
        """{m: [B, D_m]} float32: pooled features before fusion.

        With several ranks, `inputs` are this rank's `Rows` and the features those of all rows.
        """
        bf16, ranks = self.execution.precision == "bf16", self.execution.ranks
        features = {}
        with ranks.own_draws() if ranks and self.draws else nullcontext():
            for m in self.modalities:
                x = inputs[m].to(self.device, non_blocking=True)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                    features[m] = encoded(self._run[m], x, self.execution.parts)
        features = {m: f.float() for m, f in features.items()}
        if ranks and isinstance(inputs, Rows):
            features = {m: ranks.gather(f, inputs.total) for m, f in features.items()}
        return features

    def fuse(self, features: Features) -> Tensor:
        """z = W [f^1; ...; f^M] + b, [B, C], or that of another `fusion`."""
        return self.fusion(torch.cat([features[m] for m in self.modalities], dim=1))

    def fuse_subset(self, features: Features, keep: Sequence[str]) -> Tensor:
        """z with the features of all modalities outside `keep` replaced by zero vectors, [B, C]."""
        return self.fuse({m: f if m in keep else torch.zeros_like(f) for m, f in features.items()})

    def split_logits(self, features: Features) -> Features:
        """{m: W_m f^m + b / M}: they sum to `fuse(features)`, which must be `linear`."""
        weight, bias = self.fusion.weight, self.fusion.bias / len(self.modalities)
        return {m: features[m] @ weight[:, s].T + bias for m, s in self.modality_slices.items()}

    def unimodal(self, features: Features) -> Features:
        """{m: g_m(f^m)}, [B, C] each; needs a model built with heads."""
        return {m: head(features[m]) for m, head in self.heads.items()}

    def encoder_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        return self.encoders[modality].parameters()


class _Frozen(Classifier):
    """See `frozen_copy`."""

    def train(self, mode: bool = True) -> "_Frozen":
        return super().train(False)
