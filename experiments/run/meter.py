"""Epoch means of the logged scalars, and the check for non-finite losses."""

from collections.abc import Sequence

import torch
from torch import Tensor

SHOWN = 8  # samples named in a message
CHECK_EVERY = 50  # steps between checks of the loss; each check synchronizes with the device


def not_finite(loss: float, where: str, ids: Sequence[str]) -> FloatingPointError:
    """The error for a loss that is not finite; `ids` are the samples concerned."""
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return FloatingPointError(
        f"loss {loss} at {where}, samples {', '.join(ids[:SHOWN])}{more}:"
        " check their files, or lower --lr; the last good checkpoint is kept"
    )


class Meter:
    """Accumulates scalars on the device; they are read once per epoch."""

    def __init__(self, epoch: int, ids: Sequence[str]) -> None:
        self.epoch, self.steps, self.ids = epoch, 0, ids  # ids of the training split
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.unchecked: list[tuple[int, Tensor, Tensor]] = []

    def add(self, loss: Tensor, scalars: dict[str, Tensor], index: Tensor) -> None:
        """Adds one step; raises `FloatingPointError` at most 50 steps after a non-finite loss."""
        self.steps += 1
        for name, value in (scalars | {"train/loss": loss.detach()}).items():
            value = value.double()
            self.sums[name] = self.sums.get(name, 0) + value.nan_to_num(0.0)
            self.counts[name] = self.counts.get(name, 0) + ~value.isnan()
        self.unchecked.append((self.steps, loss.detach(), index))
        if len(self.unchecked) == CHECK_EVERY:
            self.check_losses()

    def check_losses(self) -> None:
        """Raises `FloatingPointError` naming epoch, step and samples of a non-finite loss."""
        losses = torch.stack([loss for _, loss, _ in self.unchecked])  # one synchronization
        finite = losses.isfinite().tolist()
        if not all(finite):
            step, loss, index = self.unchecked[finite.index(False)]
            where = f"epoch {self.epoch}, step {step}"
            raise not_finite(loss.item(), where, [self.ids[k] for k in index.tolist()])
        self.unchecked = []

    def read(self) -> dict[str, float]:
        """The epoch's means; sums for names whose last part starts with n_."""
        if self.unchecked:
            self.check_losses()
        out = {}
        for name, total in self.sums.items():
            count = 1 if name.split("/")[-1].startswith("n_") else int(self.counts[name])
            if count:
                out[name] = float(total) / count
        return out
