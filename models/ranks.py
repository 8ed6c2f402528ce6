"""Several processes train one model together: all that a rank does differently.

All of it happens inside `Classifier.encode`. Rank r encodes its rows of the batch; the features of
all rows are then gathered, so heads, pairing, losses and draws are the same computation on every
rank, and the loss's gradient is complete everywhere but in the encoders. There it is the sum over
the ranks, and batch norm takes its statistics over all rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function

T = TypeVar("T")


class Rows(dict):
    """{modality: this rank's rows} of a batch of `total` samples."""

    def __init__(self, inputs: dict[str, Tensor], total: int):
        super().__init__(inputs)
        self.total = total


def share(total: int, rank: int, size: int) -> slice:
    """The rows of rank `rank` of `size` in a batch of `total`; the first ranks have one more."""
    each, more = divmod(total, size)
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


def summed(x: Tensor) -> Tensor:
    """The sum of every rank's `x`."""
    x = x.clone()
    dist.all_reduce(x)
    return x


class _Gather(Function):
    """Rows of all ranks. Each rank computes the whole loss, so its rows' gradient is complete."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, sizes)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return grad.split(ctx.sizes)[ctx.rank], None, None


class _Shared(Function):
    """A sum over ranks that each uses for its own rows: the gradients of all uses add up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return summed(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Shared.apply(grad.contiguous())


class _Complete(Function):
    """A gradient summed over ranks; what is computed from the sum is the same on each of them."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return summed(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class RankedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the rows of all ranks (torch's own refuses tensors of the CPU)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        rank, axes, c = dist.get_rank(), (0, 2, 3), x.shape[1]
        count = x.numel() // c
        mean = x.sum(axes) / max(count, 1)
        squares = (x - mean[:, None, None]).square().sum(axes)
        mine = torch.cat([mean, squares, mean.new_full((1,), count)])
        # One row each: the sums of squares are combined around a common mean, without cancellation.
        others = mine.new_zeros(dist.get_world_size(), len(mine))
        row = torch.tensor([rank], device=x.device)
        table = _Shared.apply(others.index_copy(0, row, mine[None]))
        means, squares, counts = table[:, :c], table[:, c : 2 * c], table[:, 2 * c :]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (squares + counts * (means - mean).square()).sum(0) / total
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            unbiased = var * total / (total - 1)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class Ranks:
    """This process's place among those that train together.

    Raises what torch raises if the others cannot be reached (torchrun's environment variables).
    """

    def __init__(self, device: torch.device):
        # Rank 0 may prepare the data for hours before the others hear of it.
        meeting = dist.rendezvous("env://", timeout=timedelta(days=7))
        self.store, self.rank, self.size = next(meeting)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.size)

    def in_turn(self, work: Callable[[], T]) -> T:
        """Does `work` on rank 0 before it is done on the others, who find its files then."""
        if self.rank:
            self.store.wait(["done"])
        result = work()
        if not self.rank:
            self.store.set("done", "1")
        return result

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, on every rank."""
        box: list[Any] = [work() if self.rank == 0 else None]
        dist.broadcast_object_list(box)
        return box[0]

    def prepare(self, encoders: nn.Module) -> None:
        """Makes the gradients and batch statistics of encoders those of the complete batch."""
        for module in encoders.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = RankedBatchNorm
        for parameter in encoders.parameters():
            parameter.register_hook(_Complete.apply)

    def share(self, total: int) -> slice:
        """This rank's rows of a batch of `total`."""
        return share(total, self.rank, self.size)

    def rows(self, inputs: dict[str, Tensor], total: int) -> Rows:
        """This rank's inputs, marked as a part of a batch of `total`."""
        return Rows(inputs, total)

    def gather(self, features: Tensor, total: int) -> Tensor:
        """[total, D] of the rows [b, D] that each rank has."""
        rows = [share(total, rank, self.size) for rank in range(self.size)]
        return _Gather.apply(features, [r.stop - r.start for r in rows], self.rank)

    @contextmanager
    def own_draws(self) -> Iterator[None]:
        """Draws of torch's generator that differ between ranks; afterwards they agree again."""
        seed = int(torch.randint(2**62, ())) + self.rank
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
