"""The metrics of a split (docs/metrics.md), and the means of a training epoch.

All metrics share one encoder pass over the split: in evaluation mode, recombining features is
equivalent to recombining inputs.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Features, Method
from methods.ops import label_shares, shapley, subsets

SHOWN = 8  # samples named in a message
CHECK_EVERY = 50  # steps between checks of the loss; each check synchronizes with the device


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The [C, C] confusion matrix: rows true, columns predicted classes."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def per_class_f1(counts: Tensor) -> Tensor:
    """[C] F1 per class, 0 if undefined."""
    hits = counts.diagonal().double()
    return 2 * hits / (counts.sum(0) + counts.sum(1)).clamp_min(1)


def f1_macro(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """Macro-F1 over the complete split."""
    return per_class_f1(confusion(predicted, labels, classes)).mean().item()


def f1_batch(
    predicted: Tensor, labels: Tensor, classes: int, batch: int = 64, in_order: bool = False
) -> float:
    """Mean over batches of macro-F1 over the classes (true or predicted) of each batch.

    The official release computes the paper's F1 column this way, weighting batches by size. Rows
    are first permuted by `numpy.random.default_rng(0)`, unless `in_order`.
    """
    permuted = np.random.default_rng(0).permutation(len(labels))
    order = torch.arange(len(labels)) if in_order else torch.from_numpy(permuted)
    total = 0.0
    for rows in order.split(batch):
        counts = confusion(predicted[rows], labels[rows], classes)
        present = (counts.sum(0) + counts.sum(1)) > 0
        total += per_class_f1(counts)[present].mean().item() * len(rows)
    return total / len(labels)


def misaligned_metrics(logits: Tensor, k: Tensor, modalities: list[str]) -> dict[str, float]:
    """Accuracy and confidences on misaligned samples: logits [R, C], source labels k [R, M].

    `acc_mis`: share of samples whose distinct source labels are exactly the top classes (ties: the
    lower class first); omitted for two-class datasets, where every sample would be a hit.
    `conf_raw/<m>`: mean probability of modality m's label; `conf_norm/<m>`: its mean share among
    the source labels.
    """
    log_p = F.log_softmax(logits, dim=1)
    out = {"acc_mis": likeliest(log_p, k).double().mean().item()} if log_p.shape[1] > 2 else {}
    raw, norm = log_p.gather(1, k).exp().mean(0), label_shares(log_p, k).mean(0)
    for column, m in enumerate(modalities):
        out[f"conf_raw/{m}"], out[f"conf_norm/{m}"] = raw[column].item(), norm[column].item()
    return out


def likeliest(log_p: Tensor, k: Tensor) -> Tensor:
    """[R] whether the distinct labels in k [R, M] are exactly the top classes of log_p."""
    wanted = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, k, True)
    order = log_p.sort(dim=1, descending=True, stable=True).indices
    within = torch.arange(log_p.shape[1])[None] < wanted.sum(1, keepdim=True)  # the top-k places
    return (wanted.gather(1, order) == within).all(1)


def release_metrics(logits: Tensor, k: Tensor, modalities: list[str]) -> dict[str, float]:
    """Accuracy and confidences on misaligned samples as the official release measures them.

    Logits [N, C] for the first modality of each sample combined with the second modality of its
    partner, and their labels k [N, 2]. Pairs with equal labels count as misses and stay in all
    means: `acc_mis_release`, `conf_release/<m>` (mean probability of modality m's own label).
    """
    log_p = F.log_softmax(logits, dim=1)
    hit = likeliest(log_p, k) & (k[:, 0] != k[:, 1])
    out = {"acc_mis_release": hit.double().mean().item()} if log_p.shape[1] > 2 else {}
    raw = log_p.gather(1, k).exp().mean(0)
    return out | {f"conf_release/{m}": raw[c].item() for c, m in enumerate(modalities)}


class Protocol(NamedTuple):
    """What the metrics of a split need besides its samples.

    `sources` [R, M] and `release` [N, 2]: source indices of the misaligned samples, ours and the
    release's, or None; `in_order`: do not shuffle before cutting the batches for F1.
    """

    sources: np.ndarray | None = None
    release: np.ndarray | None = None
    in_order: bool = False


@torch.no_grad()
def collect(method: Method, batches: Iterable[Batch]) -> tuple[Features, Tensor]:
    """Features {m: [N, D_m]} and labels [N] of a split, on the CPU, in evaluation mode."""
    method.eval()
    parts, labels = [], []
    for batch in batches:
        parts.append({m: f.cpu() for m, f in method.model.encode(batch["inputs"]).items()})
        labels.append(batch["label"].cpu())
    return {m: torch.cat([p[m] for p in parts]) for m in parts[0]}, torch.cat(labels)


@torch.no_grad()
def measure(
    method: Method, features: Features, labels: Tensor, protocol: Protocol
) -> dict[str, float]:
    """All metrics of a split."""
    model, classes, modalities = method.model, method.model.num_classes, list(features)

    def logits(f: Features) -> Tensor:
        return method.logits(_on(model.device, f)).float().cpu()

    def accuracy(z: Tensor) -> float:
        return (z.argmax(1).cpu() == labels).double().mean().item()

    z = logits(features)
    predicted = z.argmax(1)
    out = {
        "loss": F.cross_entropy(z, labels).item(),
        "acc": accuracy(z),
        "f1_macro": f1_macro(predicted, labels, classes),
        "f1_batch64": f1_batch(predicted, labels, classes, in_order=protocol.in_order),
    }
    pairs = (protocol.sources, misaligned_metrics), (protocol.release, release_metrics)
    for sources, metrics in pairs:
        if sources is not None:
            rows = torch.from_numpy(sources)
            mixed = {m: features[m][rows[:, column]] for column, m in enumerate(modalities)}
            out |= metrics(logits(mixed), labels[rows], modalities)
    # Accuracy of each subset of modalities, with the other *features* set to zero (paper Sec. A.4),
    # and the Shapley values of that game; the empty subset has value 0.
    zeros = {m: torch.zeros_like(f) for m, f in features.items()}
    zeroed: dict[tuple[str, ...], float] = {(): 0.0}
    for kept in subsets(modalities):
        zeroed[kept] = accuracy(logits(zeros | {m: features[m] for m in kept}))
        out[f"acc_zero/{'+'.join(kept)}"] = zeroed[kept]
    worth = shapley(lambda kept: zeroed[tuple(kept)], modalities)
    out |= {f"shapley/{m}": value for m, value in worth.items()}
    on_device = _on(model.device, features)
    kinds = {"acc_head": model.unimodal(on_device)}
    if model.linear and torch.equal(
        z, model.fuse(on_device).float().cpu()
    ):  # else its slices predict nothing
        kinds["acc_split"] = model.split_logits(on_device)
    for kind, by_modality in kinds.items():
        out |= {f"{kind}/{m}": accuracy(values) for m, values in by_modality.items()}
    return out


@torch.no_grad()
def probabilities(method: Method, features: Features) -> dict[str, Tensor]:
    """[N, C] softmax: "fused", and per modality (its head, or the other features set to zero)."""
    on_device = _on(method.model.device, features)
    out = {"fused": method.logits(on_device)}
    zeros = {m: torch.zeros_like(f) for m, f in on_device.items()}
    alone = method.model.unimodal(on_device) or {
        m: method.logits(zeros | {m: f}) for m, f in on_device.items()
    }
    return {name: F.softmax(z.float(), 1).cpu() for name, z in (out | alone).items()}


def linear_probes(
    train: tuple[Features, Tensor], tested: tuple[Features, Tensor]
) -> dict[str, float]:
    """`acc_probe/<m>`: accuracy of a new linear classifier on each modality's frozen features.

    Logistic regression on the standardised features of the training part, without augmentation,
    with scikit-learn's default penalty (our choice: it has one optimum, so nothing is drawn; papers
    train the classifier by SGD). Both arguments are (features, labels) as from `collect`.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (features, labels), (others, true) = train, tested
    out = {}
    for m, f in features.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(f.double().numpy(), labels.numpy())
        out[f"acc_probe/{m}"] = float(model.score(others[m].double().numpy(), true.numpy()))
    return out


def _on(device: torch.device, features: Features) -> Features:
    return {m: f.to(device) for m, f in features.items()}


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
