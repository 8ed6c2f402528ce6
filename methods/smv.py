"""SMV: re-sampling by sample-level modality valuation (Wei, Feng, Wang, Hu; CVPR 2024).

A modality's contribution to the prediction of a sample is its Shapley value in a game whose players
are the modalities. If it is low, the epoch gets copies of the sample that show only that modality,
to train its encoder.

    hits       `SMV.hits`       hit_S = 1[argmax of the fused logits = y], features outside S zero
    worth      `contributions`  v(S) = |S| hit_S ("size") or hit_S ("unit"), v of nothing = 0
    valuation  `contributions`  phi^m = the Shapley value of m in v; one game per sample
    frequency  `copies`         0 if phi >= 1; 1 if phi >= 0.4; 2 if phi >= -0.1; else 3
    epoch      `sample_plan`    all N samples whole, then the copies; shuffled by the loader
               `modality_plan`  --level modality: copies of random samples, for one modality
    training   `keep_only`      hidden features are zero vectors between pooling and fusion
               `SMV.forward`    L = CE(z, y) over whole samples and copies

We could read the paper's abstract and the authors' code (GeWu-Lab/Valuate-and-Enhance-Multimodal-
Cooperation: code/sample_level.py, modality_level.py, datasets/dataloader.py, models/models.py);
GeWu-Lab/BalanceBenchmark re-implements it (balancemm/trainer/Sample_trainer.py). More in
docs/methods.md.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.options import option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice, warmup
from methods.ops import accuracy, keep_only, shapley, subsets

CODE = "the authors' code"
Hits = dict[tuple[str, ...], Tensor]


def contributions(hits: Hits, modalities: Sequence[str], value: str = "size") -> Features:
    """phi {m: [N]} float64 from the hits [N] (bool or 0/1) of every coalition.

    With "unit", a sample that every coalition gets right still gets copies: for M = 2 the list has
    N (5 - 2a) entries, where a is the fused accuracy.
    """
    worth = {s: hit.double() * (len(s) if value == "size" else 1) for s, hit in hits.items()}
    worth[()] = torch.zeros_like(worth[tuple(modalities)])
    phi = shapley(worth.__getitem__, modalities)
    # Rounded: sums of thirds and twelfths must not miss a threshold of `copies` by a last digit.
    return {m: torch.round(values, decimals=9) for m, values in phi.items()}


def copies(phi: Tensor) -> Tensor:
    """The number of copies for each contribution, [N] int64 in 0..3."""
    # Using the same thresholds for M > 2 is an inference. The bound 1 is BalanceBenchmark's; 0.9 in
    # the authors' code makes a difference from M = 4 on. Both codes give no copies at exactly 0.4
    # and -0.1, which do not occur for M <= 4.
    return (phi < 1).long() + (phi < 0.4).long() + (phi < -0.1).long()


def sample_plan(phi: Features) -> tuple[Tensor, Tensor]:
    """(indices [K], keep [K]) int64 from phi {m: [N]}: N whole samples, then all copies.

    keep is 0 for a whole sample and k, from 1, for a copy that shows only the k-th modality.
    """
    some = next(iter(phi.values()))
    places = torch.arange(len(some), device=some.device)
    indices = [places] + [places.repeat_interleave(copies(values)) for values in phi.values()]
    keep = [torch.full_like(rows, k) for k, rows in enumerate(indices)]
    return torch.cat(indices), torch.cat(keep)


def modality_gap(means: Sequence[float], strength: float, form: str) -> float:
    """The share of samples to copy, from the mean contributions of the M modalities.

    g is the mean distance of two contributions, times 2/3 (the authors' constant). With strength a,
    "linear" is a g, "tanh" tanh(a g), "power" a g^1.5 (the authors' "square").
    """
    pairs = list(itertools.combinations(means, 2))
    g = sum(abs(one - other) for one, other in pairs) / len(pairs) * 2 / 3
    if form == "power":
        return strength * g**1.5
    return math.tanh(strength * g) if form == "tanh" else strength * g


def modality_plan(
    phi: Features, draws: torch.Generator, part_ratio: float, strength: float, form: str
) -> tuple[Tensor, Tensor]:
    """(indices [K], keep [K]) int64 as in `sample_plan`, with copies for one modality only.

    Contributions are averaged over part_ratio N samples, at least one. A share `modality_gap` of
    all samples gets a copy with the least contributing modality. Both draw with replacement.
    """
    stacked = torch.stack(list(phi.values()))  # [M, N]
    size, device = stacked.shape[1], stacked.device

    def draw(share: float, least: int) -> Tensor:
        # Rounded first: 0.29 * 100 must give 29 draws, not 28.
        count = max(least, int(round(share * size, 9)))
        return torch.randint(size, (count,), generator=draws, device=device)

    means = stacked[:, draw(part_ratio, 1)].mean(1).tolist()
    extra = draw(modality_gap(means, strength, form), 0)
    weakest = 1 + means.index(min(means))
    whole = torch.arange(size, device=device)
    keep = torch.cat([torch.zeros_like(whole), torch.full_like(extra, weakest)])
    return torch.cat([whole, extra]), keep


class SMV(Method):
    """Joint training; after the warm-up, each epoch uses the sample list from its valuation."""

    min_modalities = 2
    needs = dict.fromkeys(("part_ratio", "strength", "gap_form"), ("level", "modality"))
    found: Logs

    @dataclass(frozen=True)
    class HParams:
        value: str = choice(
            "size unit",
            "worth of a coalition that predicts correctly: its size, or 1",
            f"{CODE}; unit: BalanceBenchmark",
        )
        warmup_epochs: int = warmup(
            5, source=f"{CODE}; MIDAS's release: ucf101 10, food101 2 of 30"
        )
        level: str = choice(
            "sample modality",
            "copies per sample by its contributions, or one share for the training set",
            f"the two variants of {CODE}",
        )
        part_ratio: float = option(
            0.2, "modality level: share of samples averaged", above=0, high=1, source=CODE
        )
        strength: float = option(1.0, "modality level: factor of the gap", low=0, source=CODE)
        gap_form: str = choice("linear tanh power", "modality level: share from the gap", CODE)

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.found = {}  # logs of this epoch's valuation

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """After the warm-up: values all training samples and builds this epoch's list."""
        self.found = {}
        if not self.active:
            return None
        hp, modalities = self.hparams, self.model.modalities
        hits = self.hits(train)
        phi = contributions(hits, modalities, hp.value)
        if hp.level == "sample":
            indices, keep = sample_plan(phi)
        else:
            how = (hp.part_ratio, hp.strength, hp.gap_form)
            indices, keep = modality_plan(phi, self.generator, *how)
        modality = torch.arange(len(modalities) + 1, device=keep.device)  # 0: all of them
        entries = (keep[:, None] == modality).double().sum(0) / len(train)
        means = torch.stack([values.mean() for values in phi.values()])
        self.found = self.train_logs(expansion=entries.sum(), copies=entries[1:], shapley=means)
        for s, hit in hits.items():
            self.found[f"train/hit/{'+'.join(s)}"] = hit.double().mean()
        return EpochPlan(indices, {"keep": keep})

    @torch.no_grad()
    def hits(self, train: TrainingSet) -> Hits:
        """hit_S [N] bool of every coalition, from one encoder pass in evaluation mode."""
        # The authors' code values samples after the epoch, on augmented inputs. Before the next one
        # the weights are the same, and the valuation should not depend on a crop (our choice).
        self.eval()
        parts: dict[tuple[str, ...], list[Tensor]] = {s: [] for s in subsets(self.model.modalities)}
        for batch in train.batches(transforms="eval"):
            f = self.model.encode(batch["inputs"])
            for s, hits in parts.items():
                hits.append(self.model.fuse_subset(f, s).argmax(1) == batch["label"])
        return {s: torch.cat(hits) for s, hits in parts.items()}

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """`train/acc` counts only whole samples, since copies are harder; NaN if there are none."""
        y, keep = batch["label"], batch.get("keep")  # no such column during warm-up
        # As in the authors' code, hidden modalities are encoded and count in the batch statistics.
        f = self.model.encode(batch["inputs"])
        z = self.model.fuse(f if keep is None else keep_only(f, keep))
        loss = self.cross_entropy(z, y)
        if keep is None:
            return loss, self.train_logs(acc=accuracy(z, y), L_align=loss)
        whole = keep == 0
        acc = ((z.argmax(1) == y) & whole).sum() / whole.sum()
        return loss, self.train_logs(acc=acc, L_align=loss, masked=(~whole).float().mean())

    def end_epoch(self) -> Logs:
        return self.found
