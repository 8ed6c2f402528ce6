"""Pictures of one run's predictions: `evaluate.py RUN --plots DIR`."""

from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from experiments.report.draw import STYLE
from experiments.run.metrics import confusion
from methods.base import Features

BINS = 10
MOST_NAMES = 40  # classes whose names fit beside a matrix


def write_plots(
    folder: Path, p: Tensor, labels: Tensor, names: list[str], features: Features
) -> list[Path]:
    """confusion.png, reliability.png and tsne-<modality>.png; returns their paths.

    p [N, C] fused probabilities, labels [N], features {m: [N, D_m]}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.style.context(["default", STYLE]):
        made = {"confusion": confusion_matrix(p, labels, names)}
        made |= {"reliability": reliability(p, labels)}
        made |= {f"tsne-{m}": scatter(f, labels, names, m) for m, f in features.items()}
        for name, drawing in made.items():
            paths.append(folder / f"{name}.png")
            FigureCanvasAgg(drawing)
            drawing.savefig(paths[-1], metadata={"Software": None})
    return paths


def blank(width: float, height: float) -> Drawing:
    return Drawing(figsize=(width, height), layout="constrained")


def confusion_matrix(p: Tensor, labels: Tensor, names: list[str]) -> Drawing:
    """Rows: true classes, with shares of their samples by predicted class."""
    counts = confusion(p.argmax(1), labels, len(names)).double()
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = 3.0 + 0.28 * min(len(names), MOST_NAMES)
    drawing = blank(side + 0.8, side)
    axes = drawing.add_subplot()
    axes.grid(False)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    if len(names) <= MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    drawing.colorbar(image, label="share of the true class", shrink=0.8)
    return drawing


def calibration(p: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(samples, mean confidence, accuracy) of each of ten equal bins, and the expected error."""
    confidence, guess = p.double().max(1)
    hits = (guess == labels).double()
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    count, sums, right = (
        torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, values)
        for values in (torch.ones_like(hits), confidence, hits)
    )
    error = ((right - sums).abs().sum() / len(labels)).item()
    some = count.clamp_min(1)
    return count.numpy(), (sums / some).numpy(), (right / some).numpy(), error


def reliability(p: Tensor, labels: Tensor) -> Drawing:
    """Accuracy by confidence; on the diagonal, confidences are right."""
    count, confidence, accuracy, error = calibration(p, labels)
    drawing = blank(4.7, 4.3)
    axes = drawing.add_subplot()
    axes.plot((0, 1), (0, 1), color="#999999", linestyle="--", linewidth=1)
    there = count > 0
    axes.plot(confidence[there], accuracy[there], marker="o", color="#D55E00")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"expected calibration error {error:.3f}")
    return drawing


def scatter(features: Tensor, labels: Tensor, names: list[str], modality: str) -> Drawing:
    """t-SNE of a modality's features, coloured by class."""
    from sklearn.manifold import TSNE

    drawing = blank(5.6, 4.3)
    few = len(features) < 3 or features.shape[1] < 2
    if few or (features == features[0]).all():  # scikit-learn raises an error, or even crashes
        why = "too few for t-SNE" if few else "all features are equal"
        drawing.add_subplot().set(xticks=(), yticks=(), title=f"{modality}: {why}")
        return drawing
    near = min(30, max(2, (len(features) - 1) // 3))
    places = TSNE(perplexity=near, init="pca", random_state=0).fit_transform(features.numpy())
    axes = drawing.add_subplot()
    axes.grid(False)
    colours = matplotlib.colormaps["tab20"]
    for k, name in enumerate(names):
        rows = (labels == k).numpy()
        across, up = places[rows].T
        axes.scatter(across, up, s=8, color=colours(k % 20), label=name)
    axes.set(xticks=(), yticks=(), title=f"{modality}: t-SNE of its features")
    if len(names) <= 20:
        axes.legend(fontsize=7, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawing
