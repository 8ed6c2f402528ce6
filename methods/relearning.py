"""Diagnosing & Re-learning (Wei, Li, Feng, Hu; ECCV 2024, arXiv 2407.09705).

An encoder that separates the classes well among the samples that it trains on, and worse among
others, has begun to memorise. Several times during training, each encoder is diagnosed by this gap
and moved back towards its initial weights: the further, the larger the gap. So the modality that
was learnt first is not trained too far, and the others learn against a weaker one.

    separability   `purity`        P = 1/n sum over clusters of the count of its most frequent
                                   class; the clusters are those of k-means, k the number of classes
    diagnosis      `strength`      alpha_m = tanh(lambda |P_m(training) - P_m(held-out)|)
    re-learning    `move_back_`    theta_m <- alpha_m theta_m^initial + (1 - alpha_m) theta_m
    training       `forward`       L = CE(z, y), Joint's

We read the abstract of the paper and a public summary that quotes these equations, and the authors'
code (GeWu-Lab/Diagnosing_Relearning_ECCV2024, code/ours.py), which agree. More in docs/methods.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from sklearn.metrics.cluster import contingency_matrix
from sklearn.preprocessing import minmax_scale
from threadpoolctl import threadpool_limits
from torch import Tensor

from common.options import UsageError, option
from methods.base import Batch, EpochPlan, Logs, Method, TrainingSet
from methods.ops import accuracy
from models.classifier import Classifier

CODE = "the authors' code"
LEAST = 2  # held-out samples per class: with one, every cluster is pure


def purity(features: Tensor, labels: Tensor, classes: int) -> float:
    """P in (0, 1] of features [N, D] with labels [N], clustered in min(N, classes) clusters."""
    # Each feature is scaled to [-1, 1] over the samples, and k-means always starts from the same
    # draws (code). With one thread, sums have one order: resumed runs and all ranks agree.
    x = minmax_scale(features.double().cpu().numpy(), (-1, 1))
    with threadpool_limits(1):
        clusters = KMeans(min(classes, len(x)), random_state=0).fit_predict(x)
    return contingency_matrix(labels.cpu().numpy(), clusters).max(axis=0).sum() / len(x)


def strength(train: Tensor, held_out: Tensor, lam: float) -> Tensor:
    """alpha [M] in [0, 1) of the purities [M] of training and held-out samples."""
    return torch.tanh(lam * (train - held_out).abs())


@torch.no_grad()
def move_back_(model: Classifier, initial: Classifier, alpha: Sequence[float]) -> None:
    """Moves each encoder's parameters towards the initial ones, by the shares alpha [M]."""
    # As in the code, the running statistics of batch norm and the optimizer's momentum stay.
    for m, share in zip(model.modalities, alpha):
        for now, start in zip(model.encoder_parameters(m), initial.encoder_parameters(m)):
            now.lerp_(start, share)


class ReLearning(Method):
    """Joint training, interrupted by diagnoses after which the encoders learn again."""

    min_modalities = 2
    held_out: Tensor
    found: Logs

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            3.0, "lambda of the strength; 0: Joint", low=0, source=CODE, search=(1.0, 6.0)
        )
        every: int = option(
            16, "epochs between diagnoses", low=1, per_epochs=True, source=f"{CODE}: 20 of 90"
        )
        times: int = option(3, "number of diagnoses; 0: Joint", low=0, source=CODE)
        held_out: float = option(
            0.11,
            "share of the training samples kept for the diagnosis",
            above=0,
            high=0.5,
            source=f"{CODE}: 744 of 6698",
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.found = {}  # logs of this epoch's diagnosis
        self.initial = None
        if not hparams.lam or not hparams.times:
            return
        self.initial = model.frozen_copy()
        size, classes = facts.train_size, facts.num_classes
        count = max(LEAST * classes, round(hparams.held_out * size))
        if count > size - max(2, len(model.modalities)):
            seen = f"{size} training samples of {classes} classes"
            raise UsageError(f"ReLearning holds out {count} samples: too many of {seen}")
        # From the training set: the code clusters the validation set, which here selects the epoch.
        self.register_buffer("held_out", self.set_aside(count)[0])

    @classmethod
    def check(cls, hparams: HParams, epochs: int, modalities: list[str]) -> None:
        super().check(hparams, epochs, modalities)
        if hparams.lam and hparams.times and hparams.every >= epochs:
            raise UsageError(
                f"--every {hparams.every} leaves no epoch of --max_epochs {epochs} after a"
                " diagnosis; give a smaller --every or a larger --max_epochs"
            )

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Diagnoses the encoders and moves them back, if it is time; skips the held-out samples."""
        if self.initial is None:
            return None
        rest = self.set_aside(len(self.held_out))[1]
        done, late = divmod(epoch - 1, self.hparams.every)
        alpha, self.found = torch.zeros(len(self.model.modalities)), {}
        if late == 0 and 1 <= done <= self.hparams.times:
            inner, outer = self.purities(train, rest), self.purities(train, self.held_out)
            alpha = strength(inner, outer, self.hparams.lam)
            move_back_(self.model, self.initial, alpha.tolist())
            self.found = self.train_logs(purity=inner, purity_held_out=outer)
        self.found |= self.train_logs(moved_back=alpha)
        return EpochPlan(rest)

    @torch.no_grad()
    def purities(self, train: TrainingSet, indices: Tensor) -> Tensor:
        """P [M] float64 of these samples, from one pass in evaluation mode."""
        # On the evaluation view (our choice); the code's training samples are augmented.
        self.eval()
        passes = [
            (self.model.encode(batch["inputs"]), batch["label"])
            for batch in train.batches(indices.tolist())
        ]
        labels = torch.cat([y for _, y in passes])
        found = []
        for m in self.model.modalities:
            features = torch.cat([f[m] for f, _ in passes])
            found.append(purity(features, labels, self.facts.num_classes))
        return torch.tensor(found, dtype=torch.float64)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        y = batch["label"]
        z = self.model.fuse(self.model.encode(batch["inputs"]))
        loss = self.cross_entropy(z, y)
        return loss, self.train_logs(acc=accuracy(z, y), L_align=loss)

    def end_epoch(self) -> Logs:
        return self.found
