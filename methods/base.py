"""What a training method is: it owns the model, gets batches, and returns the loss.

A method knows nothing of devices, precision, ranks, files or logging. It sees the model through
its contract only (`models/classifier.py`): `encode(inputs) -> {modality: [B, D_m]}`,
`fuse(features) -> [B, C]`, `split_logits`, `fuse_subset`, `unimodal`. Everything that must outlive
a kill is a parameter, a buffer or extra state; resume then needs no code of the method's own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.classifier import Classifier

Batch = dict
Logs = dict[str, Tensor]


@dataclass(frozen=True)
class Facts:
    """What a method may know about its run."""

    seed: int
    epochs: int
    train_size: int
    num_classes: int


@dataclass
class EpochPlan:
    """What may replace an epoch's list of samples.

    `indices` [K] int64 are places in the training part (repeats allowed); `columns` are tensors of
    length K that join the batches under their names.
    """

    indices: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One pass of training: most methods have a single one."""

    name: str
    epochs: int
    lr_scale: float = 1.0
    start: str = "last"  # or "best": begin from the weights of the best epoch so far


class TrainingSet(Protocol):
    """What `start_epoch` may read: the training part in fixed order."""

    def __len__(self) -> int: ...

    def batches(self, indices: object = None, transforms: str = "eval") -> Iterator[Batch]: ...


class Method(nn.Module):
    """Base of all methods; only `forward` must be written."""

    HParams: type = dataclass(frozen=True)(type("HParams", (), {}))
    needs_unimodal_heads = False
    modalities: str | int = "any"  # or the number of modalities that the method is defined for

    def __init__(self, model: Classifier, hparams: object, facts: Facts):
        super().__init__()
        self.model, self.hparams, self.facts = model, hparams, facts
        self.epoch = 0
        self._generator: torch.Generator | None = None

    @classmethod
    def used_modalities(cls, hparams: object, available: list[str]) -> list[str]:
        """The modalities that the model gets, in the data set's order."""
        return available

    @classmethod
    def check(cls, hparams: object, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` for settings that cannot work together."""

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch and detached scalars for the log, under the log's full names.

        A scalar is averaged over the epoch's steps (NaN: this step has none); one whose last part
        begins with "n_" is summed.
        """
        raise NotImplementedError(type(self).__name__)

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Called before each epoch, counted from 1 over all stages."""

    def after_backward(self) -> None:
        """Called when gradients are complete, before the optimizer's step."""

    def end_epoch(self) -> Logs:
        """Scalars of the state at the epoch's end, for the log."""
        return {}

    def optimizers(self, base: Callable) -> list[torch.optim.Optimizer]:
        """The optimizers that step after each backward; `base(parameters)` makes the shared one."""
        return [base(self.parameters())]

    def stages(self, epochs: int) -> list[Stage]:
        """The passes of training, of which `epochs` is the user's --max_epochs."""
        return [Stage("train", epochs)]

    def logits(self, features: dict[str, Tensor]) -> Tensor:
        """[B, C] for evaluation."""
        return self.model.fuse(features)

    def begin_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """For the training loop: seeds this epoch's draws, then calls `start_epoch`."""
        self.epoch = epoch
        self._generator = None
        return self.start_epoch(epoch, train)

    @property
    def generator(self) -> torch.Generator:
        """The source of a method's random draws, seeded anew from (seed, epoch)."""
        if self._generator is None:
            state = np.random.SeedSequence([self.facts.seed, self.epoch]).generate_state(
                1, np.uint64
            )
            self._generator = torch.Generator(device=self.model.device)
            self._generator.manual_seed(int(state[0] >> np.uint64(1)))
        return self._generator
