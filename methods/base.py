"""The base class of training methods: a method owns the model, gets batches and returns the loss.

The training loop handles devices, precision, ranks, files and logging. Keep all state that must
survive a kill in parameters, buffers or extra state: resuming then needs no code in the method.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import UsageError, format_value, option
from models.classifier import Classifier, Features

Batch = dict[str, Any]  # "index" and "label" [B], "inputs" {modality: [B, ...]}, a plan's columns
Logs = dict[str, Tensor]

# Options shared by several methods; see `Method.active`.
warmup = partial(option, help="initial epochs of joint training", low=0, per_epochs=True)
last_epoch = partial(option, 0, "last epoch of the method, then joint training (0: no end)", low=0)


def choice(values: str, help: str, source: str) -> Any:
    """An option limited to these space-separated values; the first is the default."""
    choices = tuple(values.split())
    return option(choices[0], help, choices=choices, source=source)


@dataclass(frozen=True)
class Facts:
    """What a method knows about its run."""

    seed: int
    epochs: int
    train_size: int
    num_classes: int
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None  # [C]


@dataclass
class EpochPlan:
    """Replaces the list of samples of one epoch."""

    indices: Tensor  # [K] int64, positions in the training set; repeats allowed
    columns: dict[str, Tensor] = field(default_factory=dict)  # [K, ...], added to the batches
    batch_key: Tensor | None = None  # [K] int64: each batch has a single one of these values


@dataclass(frozen=True)
class Stage:
    """One stage of training; most methods have only one."""

    name: str
    epochs: int
    lr_scale: float = 1.0
    start: str = "last"  # or "best": start from the weights of the best epoch so far


class TrainingSet(Protocol):
    """The training set in fixed order, as passed to `start_epoch`."""

    def __len__(self) -> int: ...

    def batches(
        self, indices: Any = None, transforms: str = "eval", batch_size: int | None = None
    ) -> Iterator[Batch]: ...


class Method(nn.Module):
    """Base class of all methods; a subclass defines `forward` (or `losses`), and may add hooks."""

    HParams: type = dataclass(frozen=True)(type("HParams", (), {}))
    needs_unimodal_heads = False
    min_modalities = 1
    needs_linear_fusion = False  # uses the logits of each modality's slice of the fusion layer
    needs: dict[str, tuple[str, Any]] = {}  # option -> (other option, value) it requires

    def __init__(self, model: Classifier, hparams: Any, facts: Facts):
        super().__init__()
        self.model, self.hparams, self.facts = model, hparams, facts
        self.epoch = 0
        self._generator: torch.Generator | None = None

    @classmethod
    def used_modalities(cls, hparams: Any, available: list[str]) -> list[str]:
        """The modalities that the model is built for, in the dataset's order."""
        return available

    @classmethod
    def has_unimodal_heads(cls, hparams: Any) -> bool:
        """Whether the model is built with unimodal heads."""
        return cls.needs_unimodal_heads

    @classmethod
    def check(cls, hparams: Any, epochs: int, modalities: list[str]) -> None:
        """Raises `UsageError` if settings contradict each other; overrides call `super` first."""
        name, count = cls.__name__, cls.min_modalities
        if len(modalities) < count:
            seen = ", ".join(modalities)
            raise UsageError(f"--method {name} needs {count} or more modalities; got {seen}")
        start, end = getattr(hparams, "warmup_epochs", 0), getattr(hparams, "end_epoch", 0)
        if start >= epochs:
            raise UsageError(
                f"--warmup_epochs {start} leaves no epoch of --max_epochs {epochs} for {name};"
                f" give --warmup_epochs {epochs - 1} at most, or a larger --max_epochs"
            )
        if 0 < end <= start:
            window = f"--end_epoch {end} leaves no epoch after --warmup_epochs {start} for {name}"
            raise UsageError(f"{window}; give a larger --end_epoch, or 0 for no end")
        for option_name, (other, wanted) in cls.needs.items():
            value = getattr(hparams, option_name)
            if getattr(hparams, other) != wanted and value != getattr(cls.HParams(), option_name):
                raise UsageError(
                    f"--{option_name} {format_value(value)} does nothing without"
                    f" --{other} {format_value(wanted)}"
                )

    @property
    def active(self) -> bool:
        """Whether this epoch is past `warmup_epochs` and not past `end_epoch`, if defined."""
        end = getattr(self.hparams, "end_epoch", 0) or self.epoch
        return getattr(self.hparams, "warmup_epochs", 0) < self.epoch <= end

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch, and detached scalars for the log by name.

        The log averages them over the epoch's steps, skipping NaN; it sums those named ".../n_...".
        """
        raise NotImplementedError(type(self).__name__)

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, Logs]]:
        """One or more results as `forward` gives; each is stepped before the next is computed.

        A step leaves parameters alone that its loss does not depend on.
        """
        yield self(batch)

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Called before each epoch; epochs count from 1 across all stages."""
        return None

    def after_backward(self) -> None:
        """Called when gradients are complete, before the optimizer step."""

    def end_epoch(self) -> Logs:
        """Scalars to log at the end of the epoch."""
        return {}

    def optimizers(self, base: Callable) -> list[torch.optim.Optimizer]:
        """The optimizers that step after each backward; `base(parameters)` makes the default."""
        return [base(self.parameters())]

    def stages(self, epochs: int) -> list[Stage]:
        """The stages of training; `epochs` is the user's --max_epochs."""
        return [Stage("train", epochs)]

    def counts_for_decay(self, epoch: int) -> bool:
        """Whether the learning-rate decay (--lr_step) counts this epoch."""
        return True

    def logits(self, features: Features) -> Tensor:
        """Logits [B, C] for evaluation."""
        return self.model.fuse(features)

    def cross_entropy(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of [B, C] logits, with the run's --label_smoothing and --class_weights."""
        facts = self.facts
        how: dict[str, Any] = {"reduction": reduction, "label_smoothing": facts.label_smoothing}
        return F.cross_entropy(logits, labels, facts.class_weights, **how)

    def unimodal_losses(self, logits: Features, labels: Tensor) -> Tensor:
        """[M]: the cross-entropy of each modality's logits [B, C] (paper Eq. 9: their sum)."""
        return torch.stack([self.cross_entropy(z, labels) for z in logits.values()])

    def begin_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Called by the training loop: resets the random generator, then calls `start_epoch`."""
        self.epoch = epoch
        self._generator = None
        return self.start_epoch(epoch, train)

    def set_aside(self, count: int) -> tuple[Tensor, Tensor]:
        """(held out [count], the rest) int64: positions in the training set; the same in all calls.

        For methods that need samples which they do not train on: the validation part is not theirs.
        """
        # Drawn on the CPU: the same on every device.
        draw = torch.Generator().manual_seed(self.facts.seed)
        order = torch.randperm(self.facts.train_size, generator=draw).to(self.model.device)
        return order[:count], order[count:].sort().values

    def train_logs(self, **values: Tensor) -> Logs:
        """Log entries: "train/<name>" for scalars, "train/<name>/<modality>" for values [M]."""
        logs: Logs = {}
        for name, value in values.items():
            if value.ndim:
                of = zip(self.model.modalities, value.detach())
                logs |= {f"train/{name}/{m}": v for m, v in of}
            else:
                logs[f"train/{name}"] = value.detach()
        return logs

    @property
    def generator(self) -> torch.Generator:
        """The method's random generator, reseeded in each epoch from (seed, epoch)."""
        if self._generator is None:
            words = np.random.SeedSequence([self.facts.seed, self.epoch])
            seed = int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))
            self._generator = torch.Generator(device=self.model.device).manual_seed(seed)
        return self._generator
