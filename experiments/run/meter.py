"""An epoch's scalars, and the check of every loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

SHOWN = 8  # samples in a message
CHECK_EVERY = 50  # steps between two checks of the loss: each waits for the device


class Meter:
    """Sums of the steps' scalars, kept on the device and read once an epoch."""

    def __init__(self, epoch: int, ids: Sequence[str]) -> None:
        self.epoch, self.steps, self.ids = epoch, 0, ids  # ids of the training part
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.unchecked: list[tuple[int, Tensor, Tensor]] = []

    def add(self, loss: Tensor, scalars: dict[str, Tensor], index: Tensor) -> None:
        """Adds one step; raises `FloatingPointError` at most 50 steps after a bad loss."""
        self.steps += 1
        for name, value in (scalars | {"train/loss": loss.detach()}).items():
            value = value.double()
            self.sums[name] = self.sums.get(name, 0) + value.nan_to_num(0.0)
            self.counts[name] = self.counts.get(name, 0) + ~value.isnan()
        self.unchecked.append((self.steps, loss.detach(), index))
        if len(self.unchecked) == CHECK_EVERY:
            self.check_losses()

    def check_losses(self) -> None:
        """Raises `FloatingPointError` naming epoch, step and samples of the first bad loss."""
        losses = torch.stack([loss for _, loss, _ in self.unchecked])  # one wait for all
        finite = losses.isfinite().tolist()
        if not all(finite):
            step, loss, index = self.unchecked[finite.index(False)]
            names, more = [self.ids[k] for k in index.tolist()[:SHOWN]], len(index) - SHOWN
            samples = f"{', '.join(names)}{f' and {more} more' if more > 0 else ''}"
            raise FloatingPointError(
                f"loss {loss.item()} at epoch {self.epoch}, step {step}, of the samples {samples}:"
                " look at their files, or lower --lr; the last good checkpoint is kept"
            )
        self.unchecked = []

    def read(self) -> dict[str, float]:
        """The epoch's means; sums where the last part of a name begins with n_."""
        if self.unchecked:
            self.check_losses()
        out = {}
        for name, total in self.sums.items():
            count = 1 if name.split("/")[-1].startswith("n_") else int(self.counts[name])
            if count:
                out[name] = float(total) / count
        return out
