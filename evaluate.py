"""Every number of the paper for a finished run, and predictions for new files.

    python evaluate.py results/runs/demo/Midas/default/seed1
    python evaluate.py RUN --predict manifest.csv --out predictions.csv

The metrics are pure functions of features, labels and logits (names and definitions: README,
"What the numbers mean"). One encoder pass over a part serves all of them: in evaluation mode,
recombining features is the same as recombining inputs.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.files import file_digest, write_table
from common.options import Parser, UsageError
from common.program import run as run_program
from experiments.run_folder import RunFolder
from methods.ops import label_shares

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


def f1_batch(predicted: Tensor, labels: Tensor, classes: int, batch: int = 64) -> float:
    """Mean over batches of macro-F1 on the labels that occur in the batch, true or predicted.

    By all evidence this is what the paper's F1 column holds (an inference: README). The rows, in id
    order, are permuted by `numpy.random.default_rng(0)`; a short last batch counts like the others.
    """
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    values = []
    for rows in order.split(batch):
        counts = confusion(predicted[rows], labels[rows], classes)
        present = (counts.sum(0) + counts.sum(1)) > 0
        values.append(per_class_f1(counts)[present].mean())
    return torch.stack(values).mean().item()


def misaligned_metrics(logits: Tensor, k: Tensor, modalities: list[str]) -> dict[str, float]:
    """Accuracy and confidences on misaligned samples: logits [R, C], k [R, M] the sources' labels.

    `acc_mis`: share of samples whose distinct source labels are just its likeliest classes (ties:
    lower class first). `conf_raw/<m>`: mean probability of modality m's label; `conf_norm/<m>`: its
    mean share among the source labels.
    """
    log_p = F.log_softmax(logits, dim=1)
    wanted = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, k, True)
    order = log_p.sort(dim=1, descending=True, stable=True).indices
    within = torch.arange(log_p.shape[1])[None] < wanted.sum(1, keepdim=True)  # the top-k places
    hit = (wanted.gather(1, order) == within).all(1)
    raw, norm = log_p.gather(1, k).exp().mean(0), label_shares(log_p, k).mean(0)
    out = {"acc_mis": hit.double().mean().item()}
    for column, m in enumerate(modalities):
        out[f"conf_raw/{m}"], out[f"conf_norm/{m}"] = raw[column].item(), norm[column].item()
    return out


def subsets(modalities: list[str]) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset, small ones first."""
    for size in range(1, len(modalities) + 1):
        yield from itertools.combinations(modalities, size)


def zero_vector_accuracy(features: Features, labels: Tensor, logits: Logits) -> dict[str, float]:
    """Accuracy of each subset, the other *features* replaced by zeros (paper Sec. A.4)."""
    out = {}
    for kept in subsets(list(features)):
        masked = {m: f if m in kept else torch.zeros_like(f) for m, f in features.items()}
        out["+".join(kept)] = (logits(masked).argmax(1) == labels).double().mean().item()
    return out


def shapley(value: dict[str, float], modalities: list[str]) -> dict[str, float]:
    """Shapley value of each modality in the game of zero-vector accuracies; nothing is worth 0."""

    def worth(coalition: tuple[str, ...]) -> float:
        return value["+".join(m for m in modalities if m in coalition)] if coalition else 0.0

    orders = list(itertools.permutations(modalities))
    total = dict.fromkeys(modalities, 0.0)
    for order in orders:
        for place, m in enumerate(order):
            gain = worth(order[: place + 1]) - worth(order[:place])
            total[m] += gain / len(orders)
    return total


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
def measure(
    method, features: Features, labels: Tensor, sources: np.ndarray | None
) -> dict[str, float]:
    """All metrics of a part. `sources` [R, M] are the places of the misaligned samples' sources."""
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
        "f1_batch64": f1_batch(predicted, labels, classes),
    }
    if sources is not None:
        rows = torch.from_numpy(sources)
        mixed = {m: features[m][rows[:, column]] for column, m in enumerate(modalities)}
        out |= misaligned_metrics(logits(mixed), labels[rows], modalities)
    zeroed = zero_vector_accuracy(features, labels, logits)
    out |= {f"acc_zero/{kept}": value for kept, value in zeroed.items()}
    out |= {f"shapley/{m}": value for m, value in shapley(zeroed, modalities).items()}
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
    alone = method.model.unimodal(on_device) or {
        m: method.model.fuse_subset(on_device, [m]) for m in features
    }
    return {name: F.softmax(z.float(), 1).cpu() for name, z in (out | alone).items()}


def finish(session, folder: RunFolder, best: dict, keep_checkpoints: bool) -> int:
    """Ends a run: loads the best epoch, reads the test part once, writes predictions and result."""
    method, names = session.method, session.prepared.label_names
    method.load_state_dict(folder.load("best.pt")["method"])
    features, labels = collect(method, session.loaders["test"].batches())
    metrics = measure(method, features, labels, session.sources.get("test"))
    p = probabilities(method, features)["fused"]
    guess = p.argmax(1)
    rows = [
        (sample, y, k, names[y], names[k], *(f"{v:.6g}" for v in row))
        for sample, y, k, row in zip(
            session.ids["test"], labels.tolist(), guess.tolist(), p.tolist(), strict=True
        )
    ]
    header = ("id", "label", "prediction", "label_name", "prediction_name")
    write_table(folder.file("predictions.csv"), (*header, *(f"p/{n}" for n in names)), rows)
    counts = confusion(guess, labels, len(names))
    if not keep_checkpoints:
        folder.drop_optimizer()
    result = {f"test/{name}": value for name, value in metrics.items()}
    result |= {
        "best_epoch": best["epoch"],
        "val/acc": best["acc"],
        "label_names": names,
        "train_size": len(session.loaders["train"]),
        "test/f1_per_class": dict(zip(names, per_class_f1(counts).tolist())),
        "test/confusion": counts.tolist(),
        "checkpoint": file_digest(folder.file("best.pt")),
        "hashes": session.hashes,
    }
    folder.write_json("result.json", result)
    keys = ("acc", "f1_macro", "f1_batch64", "acc_mis")
    figures = "  ".join(f"test/{k} {metrics[k]:.4f}" for k in keys if k in metrics)
    print(f"done: {folder.path}  best epoch {best['epoch']}  {figures}")
    return 0


def show(metrics: dict[str, float], label_names: list[str], counts: Tensor) -> str:
    """The metrics, per-class F1 and the confusion matrix as text."""
    width = max(map(len, metrics))
    lines = [f"{name:{width}}  {value:.4f}" for name, value in metrics.items()]
    names = [name[:18] for name in label_names]
    wide = max(len(name) for name in names)
    lines += ["", "F1 of each class, and confusion (rows true, columns predicted)"]
    for name, f1, row in zip(names, per_class_f1(counts).tolist(), counts.tolist()):
        lines.append(f"{name:{wide}}  {f1:.4f}  " + " ".join(f"{n:4d}" for n in row))
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The program."""
    parser = Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a finished run's folder")
    parser.add_argument(
        "--part", default="test", choices=("val", "test"), help="which part (default test)"
    )
    parser.add_argument(
        "--predict", metavar="CSV", help="new files: id and a column of paths a modality"
    )
    parser.add_argument(
        "--out", metavar="CSV", help="where --predict writes (default: standard output)"
    )
    parser.add_argument("--data_dir", default="data", help="prepared data (default data)")
    parser.add_argument("--dataset_root", help="raw data, if it must be prepared first")
    parser.add_argument("--devices", default="0", help="a CUDA device's number, or cpu")
    parser.add_argument("--threads", help="CPU threads")
    parser.add_argument("--num_workers", help="loader processes")
    parser.add_argument(
        "--max_bad", default="0.05", help="share of rejected files that preparation allows"
    )
    args = parser.parse_args(argv)
    folder = RunFolder(Path(args.run))
    config = folder.read_json("config.json")
    if folder.state != "done":
        raise UsageError(
            f"{folder.path} is {folder.state}, not done: run its train.py command again first"
        )
    if args.predict:
        from predict import predict_files

        return predict_files(folder, config, Path(args.predict), args)
    from assemble import assemble
    from experiments.resolve import run_from_config

    session = assemble(run_from_config(config), args)
    session.method.load_state_dict(folder.load("best.pt")["method"])
    features, labels = collect(session.method, session.loaders[args.part].batches())
    metrics = measure(session.method, features, labels, session.sources.get(args.part))
    best = probabilities(session.method, features)["fused"].argmax(1)
    counts = confusion(best, labels, len(session.prepared.label_names))
    print(
        show(
            {f"{args.part}/{k}": v for k, v in metrics.items()},
            session.prepared.label_names,
            counts,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
