"""The multimodal classifier, and all that a method sees of it.

`encode` is the one boundary of everything technical: moving and casting inputs, autocast, memory
format, compilation (and, later, the distribution over devices) happen inside it and nowhere else.
It returns float32 features of the whole batch; fusion, heads and losses then run in float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Execution:
    """Where and how the encoders run."""

    device: torch.device = torch.device("cpu")
    precision: str = "float32"  # or "bf16": autocast of the encoders alone
    compile: bool = False


ON_CPU = Execution()


class Classifier(nn.Module):
    """Encoders, concatenation with one linear layer (g_f), and unimodal heads (g_m) if asked.

    `encoders` maps each modality, in the data set's order, to a module with an attribute `width`.
    """

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        num_classes: int,
        heads: bool,
        seed: int,
        execution: Execution = ON_CPU,
    ):
        super().__init__()
        self.modalities, self.num_classes, self.execution = list(encoders), num_classes, execution
        self.encoders = nn.ModuleDict(encoders)
        self.widths = {m: encoder.width for m, encoder in encoders.items()}
        with seeded(seed, "fusion"):
            self.fusion = nn.Linear(sum(self.widths.values()), num_classes)
        self.heads = nn.ModuleDict()
        for m, width in self.widths.items() if heads else ():
            with seeded(seed, f"head {m}"):
                self.heads[m] = nn.Linear(width, num_classes)
        self.to(execution.device, memory_format=torch.channels_last)
        self._run = {
            m: torch.compile(e) if execution.compile else e for m, e in self.encoders.items()
        }

    @property
    def device(self) -> torch.device:
        """Where features and logits are."""
        return self.execution.device

    @property
    def modality_slices(self) -> dict[str, slice]:
        """The columns of the fusion weight that belong to each modality."""
        slices, start = {}, 0
        for m, width in self.widths.items():
            slices[m] = slice(start, start + width)
            start += width
        return slices

    def encode(self, inputs: dict[str, Tensor]) -> Features:
        """{m: [B, D_m]} float32: pooled features before fusion."""
        bf16 = self.execution.precision == "bf16"
        features = {}
        for m in self.modalities:
            x = inputs[m].to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                features[m] = self._run[m](x)
        return {m: f.float() for m, f in features.items()}

    def fuse(self, features: Features) -> Tensor:
        """z = W [f^1; ...; f^M] + b, [B, C]."""
        return self.fusion(torch.cat([features[m] for m in self.modalities], dim=1))

    def fuse_subset(self, features: Features, keep: Sequence[str]) -> Tensor:
        """z with the features of all modalities outside `keep` replaced by zero vectors, [B, C]."""
        return self.fuse({m: f if m in keep else torch.zeros_like(f) for m, f in features.items()})

    def split_logits(self, features: Features) -> Features:
        """{m: W_m f^m + b / M}: they sum to `fuse(features)`."""
        weight, bias = self.fusion.weight, self.fusion.bias / len(self.modalities)
        return {m: features[m] @ weight[:, s].T + bias for m, s in self.modality_slices.items()}

    def unimodal(self, features: Features) -> Features:
        """{m: g_m(f^m)}, [B, C] each; the heads must have been asked for."""
        return {m: head(features[m]) for m, head in self.heads.items()}

    def encoder_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """The parameters of one modality's encoder."""
        return self.encoders[modality].parameters()


class seeded:
    """Initialises what stands in its block from (seed, name) alone, on the CPU.

    So a module's first weights depend on nothing that was built before it: equal seeds give every
    method equal encoders, also the one that trains a single modality.
    """

    def __init__(self, seed: int, name: str):
        self.words = [seed, *name.encode()]

    def __enter__(self) -> None:
        import numpy as np

        self.before = torch.get_rng_state()
        torch.manual_seed(int(np.random.SeedSequence(self.words).generate_state(1)[0]))

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.before)
