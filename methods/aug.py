"""AUG ("Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability
Disproportion"; Jiang, Huang, Yang; NeurIPS 2025, oral; arXiv 2502.20120).

Boosting for the weak modality: every few epochs, the modality that predicts worst gets one more
head, which learns what its earlier heads get wrong. Modalities make optimizer steps in turn, and
their heads end in one linear layer that all share.

    heads       `AUG.outputs`        z^m_k = W relu(E^m_k f^m + c^m_k) + b, k = 0, ..., n_m
    prediction  `AUG.logits`         z^m = sum_k z^m_k; z = mean over m of z^m
    residual    `boosting_loss`      with added heads: CE(z^m, y) + CE(z^m - z^m_n, y)
                                     + mean_i (1 - lam p_i) CE(z^m_n, y)_i with n = n_m and
                                     p = softmax(z^m - z^m_n)[y], no gradient; else CE(z^m, y)
    steps       `AUG.losses`         one optimizer step for each m
    ability     `AUG.losses`         S^m = sum over the epoch's samples of softmax(z^m)[y]
    assignment  `weakest`            argmin S^m gets a head, if it is clearly below the others;
                `AUG.start_epoch`    after the first epoch and after each `every` epochs

We read the paper's abstract and public code (njustkmg/NeurIPS25-AUG: train_CREMAD.py,
model/AudioVideo.py), not the paper's equations. **The added heads of the code never train**, since
its optimizer does not know them; ours do. More in docs/methods.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.options import option
from methods.base import Batch, EpochPlan, Features, Logs, Method, TrainingSet, choice
from methods.ops import accuracy, true_probability

CODE = "public code"


def boosting_loss(
    outputs: list[Tensor], labels: Tensor, lam: float, ce: Callable = F.cross_entropy
) -> Tensor:
    """The loss of one modality with outputs z_k [B, C] of its heads, in the order of addition."""
    if len(outputs) == 1:
        return ce(outputs[0], labels)
    old, new = torch.stack(outputs[:-1]).sum(0), outputs[-1]
    # The code's soft label y (1 - lam p) has one non-zero entry: a weight of the sample.
    residual = 1 - lam * true_probability(old.detach(), labels)
    l_new = (residual * ce(new, labels, reduction="none")).mean()
    return ce(old + new, labels) + ce(old, labels) + l_new


def weakest(score: Tensor, margin: float) -> int | None:
    """The position of the least score [M], if it is below 1 - margin times the others' mean."""
    # The code compares the ratio of two with 1 +- margin; the mean of the others is our choice.
    values = score.tolist()
    least = min(values)
    others = (sum(values) - least) / (len(values) - 1)
    return values.index(least) if least < (1 - margin) * others else None


class AUG(Method):
    """Steps of one modality each; the weak modality gets residual heads."""

    min_modalities = 2
    counts: Tensor
    score: Tensor

    @dataclass(frozen=True)
    class HParams:
        lam: float = option(
            0.5,
            "share of the label that earlier heads explain",
            low=0,
            high=1,
            source=CODE,
            search=(0.1, 0.9),
        )
        every: int = option(
            7, "epochs between additions", low=1, per_epochs=True, source=f"{CODE}: a tenth of all"
        )
        margin: float = option(
            0.01, "least relative gap of the weak modality", low=0, high=1, source=CODE
        )
        max_heads: int = option(10, "heads that a modality can be given", low=1)
        hidden: int = option(256, "width of the heads", low=1, source=CODE)
        heads: str = choice(
            "trained frozen", "whether added heads learn", f"abstract, an inference; frozen: {CODE}"
        )

    def __init__(self, model, hparams, facts):
        super().__init__(model, hparams, facts)
        self.embed = nn.ModuleDict()  # E^m_0, ..., E^m_max: all exist from the start, for resuming
        for m, width in model.widths.items():
            layers = [nn.Linear(width, hparams.hidden) for _ in range(hparams.max_heads + 1)]
            for layer in layers[1:]:
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
                layer.requires_grad_(hparams.heads == "trained")
            self.embed[m] = nn.ModuleList(layers)
        self.shared = nn.Linear(hparams.hidden, model.num_classes)
        counts = torch.zeros(len(model.widths), dtype=torch.int64, device=model.device)
        self.register_buffer("counts", counts)  # n_m
        self.register_buffer("score", torch.zeros(len(model.widths), device=model.device))

    def start_epoch(self, epoch: int, train: TrainingSet) -> EpochPlan | None:
        """Adds a head if it is time."""
        # The code adds after evaluating the previous epoch. Here, before this one: the same, and
        # no epoch is evaluated or kept as the best with a head that has not learned anything.
        done = epoch - 1
        if done == 1 or (done > 1 and done % self.hparams.every == 0):
            weak = weakest(self.score, self.hparams.margin)
            if weak is not None and self.counts[weak] < self.hparams.max_heads:
                self.counts[weak] += 1
        self.score.zero_()
        self.used = self.counts.tolist()  # read here, so that no step reads it
        return None

    def outputs(self, features: Features, used: list[int]) -> dict[str, list[Tensor]]:
        """{m: [z^m_0, ..., z^m_n]}, [B, C] each, with n from `used` [M]."""
        out = {}
        for (m, f), n in zip(features.items(), used, strict=True):
            out[m] = [self.shared(F.relu(embed(f))) for embed in self.embed[m][: n + 1]]
        return out

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, Logs]]:
        """Each modality's loss in turn; all are encoded before the first step, as in the code."""
        y, total = batch["label"], []
        f = self.model.encode(batch["inputs"])
        for k, m in enumerate(f):
            outputs = self.outputs({m: f[m]}, self.used[k : k + 1])[m]
            total.append(torch.stack(outputs).sum(0))
            loss = boosting_loss(outputs, y, self.hparams.lam, self.cross_entropy)
            self.score[k] += true_probability(total[k].detach(), y).sum()
            logs = {f"train/L_uni/{m}": loss.detach(), f"train/acc_uni/{m}": accuracy(total[k], y)}
            if k == len(f) - 1:
                # Of logits from before each modality's step, as the losses are.
                logs |= self.train_logs(acc=accuracy(torch.stack(total).mean(0), y))
            yield loss, logs

    def end_epoch(self) -> Logs:
        return self.train_logs(score=self.score / self.facts.train_size, heads=self.counts)

    def logits(self, features: Features) -> Tensor:
        """[B, C]: the mean of the modalities' sums; the model's fusion layer is never used."""
        # Equal weights are our choice. The code's are 0.4 for audio and 0.6 for video.
        out = self.outputs(features, self.counts.tolist())
        return torch.stack([torch.stack(z).sum(0) for z in out.values()]).mean(0)
