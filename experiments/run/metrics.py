"""The metrics, as pure functions of features, labels and logits, and measuring a whole part.

Names and definitions are README's ("What the numbers mean"). One encoder pass over a part serves
all of them: in evaluation mode, recombining features is the same as recombining inputs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.ops import label_shares, shapley, subsets

Features = dict[str, Tensor]
Logits = Callable[[Features], Tensor]


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """[C, C] counts, rows true classes, columns predicted ones."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def per_class_f1(counts: Tensor) -> Tensor:
    """[C] F1 of each class, 0 where it is undefined."""
    hits = counts.diagonal().double()
    return 2 * hits / (counts.sum(0) + counts.sum(1)).clamp_min(1)


def f1_macro(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """Unweighted mean of the F1 of all C classes over the whole part: the sound one."""
    return per_class_f1(confusion(predicted, labels, classes)).mean().item()


def f1_batch(
    predicted: Tensor, labels: Tensor, classes: int, batch: int = 64, in_order: bool = False
) -> float:
    """Mean over batches of macro-F1 on the labels that occur in a batch, true or predicted.

    What the paper's F1 column holds: so the official release computes it, each batch weighted by
    its size. `in_order`: the rows as they come, else permuted by `numpy.random.default_rng(0)`.
    """
    order = torch.arange(len(labels))
    if not in_order:
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    total = 0.0
    for rows in order.split(batch):
        counts = confusion(predicted[rows], labels[rows], classes)
        present = (counts.sum(0) + counts.sum(1)) > 0
        total += per_class_f1(counts)[present].mean().item() * len(rows)
    return total / len(labels)


def misaligned_metrics(logits: Tensor, k: Tensor, modalities: list[str]) -> dict[str, float]:
    """Accuracy and confidences on misaligned samples: logits [R, C], k [R, M] the sources' labels.

    `acc_mis`: share of samples whose distinct source labels are just its likeliest classes (ties:
    lower class first); with two classes in all every sample is a hit, and it is left out.
    `conf_raw/<m>`: mean probability of modality m's label; `conf_norm/<m>`: its mean share among
    the source labels.
    """
    log_p = F.log_softmax(logits, dim=1)
    hit = likeliest(log_p, k)
    raw, norm = log_p.gather(1, k).exp().mean(0), label_shares(log_p, k).mean(0)
    out = {"acc_mis": hit.double().mean().item()} if log_p.shape[1] > 2 else {}
    for column, m in enumerate(modalities):
        out[f"conf_raw/{m}"], out[f"conf_norm/{m}"] = raw[column].item(), norm[column].item()
    return out


def likeliest(log_p: Tensor, k: Tensor) -> Tensor:
    """[R] whether a row's distinct labels k [R, M] are just the likeliest classes of log_p [R, C].

    Of classes of one probability the lower number goes first.
    """
    wanted = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, k, True)
    order = log_p.sort(dim=1, descending=True, stable=True).indices
    within = torch.arange(log_p.shape[1])[None] < wanted.sum(1, keepdim=True)  # the top-k places
    return (wanted.gather(1, order) == within).all(1)


def release_metrics(logits: Tensor, k: Tensor, modalities: list[str]) -> dict[str, float]:
    """Accuracy and confidences on misaligned samples as the official release measures them.

    Logits [N, C] of the first modality of each sample with the second of its partner, k [N, 2]
    their labels. A pair of one label is never a hit, and stays in all means: `acc_mis_release`,
    `conf_release/<m>` (mean probability of modality m's own label).
    """
    log_p = F.log_softmax(logits, dim=1)
    hit = likeliest(log_p, k) & (k[:, 0] != k[:, 1])
    out = {"acc_mis_release": hit.double().mean().item()} if log_p.shape[1] > 2 else {}
    raw = log_p.gather(1, k).exp().mean(0)
    return out | {f"conf_release/{m}": raw[c].item() for c, m in enumerate(modalities)}


class Protocol(NamedTuple):
    """What the metrics of a part need beside its samples.

    `sources` [R, M] and `release` [N, 2]: places of the misaligned samples' sources, ours and the
    release's, None where there are none; `in_order`: F1's batches are cut from the part as it is.
    """

    sources: np.ndarray | None = None
    release: np.ndarray | None = None
    in_order: bool = False


def zero_vector_accuracy(features: Features, labels: Tensor, logits: Logits) -> dict[str, float]:
    """Accuracy of each subset, the other *features* replaced by zeros (paper Sec. A.4)."""
    out = {}
    for kept in subsets(list(features)):
        masked = {m: f if m in kept else torch.zeros_like(f) for m, f in features.items()}
        out["+".join(kept)] = (logits(masked).argmax(1) == labels).double().mean().item()
    return out


@torch.no_grad()
def collect(method, batches) -> tuple[Features, Tensor]:
    """Features {m: [N, D_m]} and labels [N] of a whole part, on the CPU, in evaluation mode."""
    method.eval()
    parts, labels = [], []
    for batch in batches:
        parts.append({m: f.cpu() for m, f in method.model.encode(batch["inputs"]).items()})
        labels.append(batch["label"].cpu())
    return {m: torch.cat([p[m] for p in parts]) for m in parts[0]}, torch.cat(labels)


@torch.no_grad()
def measure(method, features: Features, labels: Tensor, protocol: Protocol) -> dict[str, float]:
    """All metrics of a part."""
    model, device = method.model, method.model.device

    def logits(f: Features) -> Tensor:
        return method.logits({m: v.to(device) for m, v in f.items()}).float().cpu()

    on_device = {m: f.to(device) for m, f in features.items()}
    z, classes, modalities = logits(features), model.num_classes, list(features)
    predicted = z.argmax(1)
    out = {
        "loss": F.cross_entropy(z, labels).item(),
        "acc": (predicted == labels).double().mean().item(),
        "f1_macro": f1_macro(predicted, labels, classes),
        "f1_batch64": f1_batch(predicted, labels, classes, in_order=protocol.in_order),
    }
    for sources, metrics in (
        (protocol.sources, misaligned_metrics),
        (protocol.release, release_metrics),
    ):
        if sources is not None:
            rows = torch.from_numpy(sources)
            mixed = {m: features[m][rows[:, column]] for column, m in enumerate(modalities)}
            out |= metrics(logits(mixed), labels[rows], modalities)
    zeroed = zero_vector_accuracy(features, labels, logits)
    out |= {f"acc_zero/{kept}": value for kept, value in zeroed.items()}
    # The game of zero-vector accuracies, in which nothing is worth 0.
    worth = shapley(lambda kept: zeroed["+".join(kept)] if kept else 0.0, modalities)
    out |= {f"shapley/{m}": value for m, value in worth.items()}
    kinds = {"acc_split": model.split_logits(on_device), "acc_head": model.unimodal(on_device)}
    for kind, by_modality in kinds.items():
        for m, values in by_modality.items():
            out[f"{kind}/{m}"] = (values.argmax(1).cpu() == labels).double().mean().item()
    return out


@torch.no_grad()
def probabilities(method, features: Features) -> dict[str, Tensor]:
    """[N, C] softmax: "fused", and each modality alone (own head, else zeros for the rest)."""
    device = method.model.device
    on_device = {m: f.to(device) for m, f in features.items()}
    out = {"fused": method.logits(on_device)}
    zeros = {m: torch.zeros_like(f) for m, f in on_device.items()}
    alone = method.model.unimodal(on_device) or {
        m: method.logits(zeros | {m: f}) for m, f in on_device.items()
    }
    return {name: F.softmax(z.float(), 1).cpu() for name, z in (out | alone).items()}
