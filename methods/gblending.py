"""G-Blending: gradient blending ("What Makes Training Multi-Modal Classification Networks Hard?",
Wang, Tran, Feiszli; CVPR 2020, arXiv 1905.12681), online.

Modalities overfit and generalise at different rates. So each modality's head and the fused output
have a loss of their own, weighted by how much its training generalises compared with how much it
overfits. The weights are estimated again before each super-epoch of n epochs: throw-away training
of n epochs from the current weights, for each of the losses alone.

    losses       L_k: CE(g_m(f^m), y) of each modality m, and of the fused logits; K = M + 1
    `measure`    L_k^T and L_k^V: mean losses on training and on held-out samples
    `Change`     dG_k = L_k^V(before) - L_k^V(after),  O_k = L_k^V - L_k^T,
                 dO_k = O_k(after) - O_k(before), by n epochs of training on L_k alone
    `blend`      w_k = (dG_k / dO_k^2) / Z, so that they sum to 1
    `forward`    L = sum_k w_k L_k; the prediction is the fused output

We could read the abstract and the introduction, not the equations. The formulas follow public code:
facebookresearch/VMZ (c2/tutorials/gradient_blending.md: the losses and weights found, no code that
finds them), pliang279/MultiBench (training_structures/gradient_blend.py) and
GeWu-Lab/BalanceBenchmark (balancemm/trainer/GBlending_trainer.py). More in docs/methods.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice
from methods.ops import accuracy

# Our choice: a fall of the held-out loss below 1e-3 counts as 1e-3, and overfitting below 0.01 as
# 0.01, both in nats. So no loss gets weight zero, and none gets all the weight by a division by 0.
LEAST_GAIN, LEAST_OVERFITTING = 1e-3, 1e-2


class Change(NamedTuple):
    """What throw-away training changed, [K] each: gain dG and overfitting dO."""

    gain: Tensor
    overfitting: Tensor

    @classmethod
    def between(cls, before: Tensor, after: Tensor) -> "Change":
        """From two results of `measure`, [2, K]: losses on training and on held-out samples."""
        grown = (after[1] - after[0]) - (before[1] - before[0])
        return cls(before[1] - after[1], grown)


def blend(change: Change, negative: str = "floor") -> Tensor:
    """w [K], sums to 1. With "abs" a loss whose held-out value rose counts as if it had fallen."""
    gain = change.gain.abs() if negative == "abs" else change.gain
    ratio = gain.clamp_min(LEAST_GAIN) / change.overfitting.abs().clamp_min(LEAST_OVERFITTING) ** 2
    return ratio / ratio.sum()


class GBlending(Method):
    """Fused and unimodal losses, weighted by generalisation over squared overfitting."""

    needs_unimodal_heads = True
    min_modalities = 2
    weights: Tensor
    found: Logs

    @dataclass(frozen=True)
    class HParams:
        super_epoch: int = option(
            10,
            "epochs between two estimates, and of the throw-away training in each",
            low=1,
            per_epochs=True,
            source="BalanceBenchmark; MultiBench: 20",
        )
        held_out: float = option(
            0.08,
            "share of the training samples that only measure generalisation",
            above=0,
            high=0.5,
            source="MultiBench",
        )
        negative: str = choice(
            "floor abs",
            "a loss whose held-out value rose gets nearly no weight, or as if it had fallen",
            "our choice; abs: MultiBench and BalanceBenchmark",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        count = len(model.modalities) + 1
        equal = torch.full((count,), 1 / count, dtype=torch.float64, device=model.device)
        self.register_buffer("weights", equal)
        held_out = max(2, round(hparams.held_out * facts.train_size))
        self.held_out, self.rest = self.set_aside(held_out)
        self.found = {}

    def optimizers(self, base: Callable) -> list[torch.optim.Optimizer]:
        """The default optimizer; it is remembered for the learning rate of the throw-away ones."""
        self.base, self.main = base, base(self.parameters())
        return [self.main]

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Estimates the weights before each super-epoch; held-out samples are never trained on."""
        self.found = {}
        if (epoch - 1) % self.hparams.super_epoch == 0:
            devices = [self.model.device] if self.model.device.type == "cuda" else []
            with torch.random.fork_rng(devices):  # dropout, which draws from the global generator
                change = self.estimate(train)
            self.weights.copy_(blend(change, self.hparams.negative))
            self.found = self.named("gain", change.gain)
            self.found |= self.named("overfitting", change.overfitting)
        return EpochPlan(self.rest)

    def estimate(self, train: TrainingSet) -> Change:
        """Trains on each loss alone from the present weights, which are restored afterwards."""
        # The model itself, not a copy: its gradients are complete if several processes train.
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        draws = self.generator
        orders = [
            self.rest[torch.randperm(len(self.rest), generator=draws, device=draws.device)].tolist()
            for _ in range(self.hparams.super_epoch)
        ]
        before = self.measure(train)
        after = torch.empty_like(before)
        # The modalities share no parameters, so training on the sum of their losses is training on
        # each of them alone, in one pass.
        for part in (slice(0, -1), slice(-1, None)):
            self.train_away(train, orders, part)
            after[:, part] = self.measure(train)[:, part]
            self.model.load_state_dict(state)
        return Change.between(before, after)

    def train_away(self, train: TrainingSet, orders: list[list[int]], part: slice) -> None:
        """Trains on the losses in `part`, with the settings and learning rate of the run."""
        optimizer = self.base(self.model.parameters())
        for group in optimizer.param_groups:
            group["lr"] = self.main.param_groups[0]["lr"]
        self.train()
        for order in orders:
            for batch in train.batches(order, transforms="train"):
                if len(batch["label"]) < 2:  # batch norm cannot train on one sample
                    continue
                loss = self.each(self.model.encode(batch["inputs"]), batch["label"])[part].sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def measure(self, train: TrainingSet) -> Tensor:
        """[2, K] float64: mean losses on the training samples and on the held-out ones."""
        self.eval()
        found = []
        for positions in (self.rest, self.held_out):
            total = torch.zeros_like(self.weights)
            for batch in train.batches(positions.tolist()):
                y = batch["label"]
                total += self.each(self.model.encode(batch["inputs"]), y).double() * len(y)
            found.append(total / len(positions))
        return torch.stack(found)

    def each(self, features: Features, labels: Tensor) -> Tensor:
        """[K]: the loss of each modality's head, then that of the fused logits."""
        logits = [*self.model.unimodal(features).values(), self.model.fuse(features)]
        return torch.stack([self.cross_entropy(z, labels) for z in logits])

    def named(self, name: str, values: Tensor) -> Logs:
        """Log entries of [K] values by modality, and "fused"."""
        return self.train_logs(**{name: values[:-1], f"{name}/fused": values[-1]})

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        f = self.model.encode(batch["inputs"])
        losses = self.each(f, y)
        logs = self.train_logs(acc=accuracy(self.model.fuse(f), y), L_align=losses[-1])
        logs |= self.train_logs(L_uni=losses[:-1])
        return (self.weights.to(losses.dtype) * losses).sum(), logs

    def end_epoch(self) -> Logs:
        """The weights; in the first epoch of a super-epoch also what they were computed from."""
        return self.found | self.named("weight", self.weights)
