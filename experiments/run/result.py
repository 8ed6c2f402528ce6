"""What a finished run writes: predictions.csv, result.json, and the vocabulary of its tokens."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from torch import Tensor

from common.files import file_digest, without_formulas, write_table
from experiments.run.folder import RunFolder
from experiments.run.metrics import Features, confusion, per_class_f1, probabilities

if TYPE_CHECKING:
    from experiments.run.session import Session


def write_result(
    session: Session,
    folder: RunFolder,
    best: dict,
    metrics: dict[str, float],
    features: Features,
    labels: Tensor,
    keep_checkpoints: bool,
) -> None:
    """Writes all files of a run whose test part was measured; result.json last: it means done."""
    p = probabilities(session.method, features)["fused"]
    write_predictions(session, folder, labels, p)
    names = session.prepared.label_names
    counts = confusion(p.argmax(1), labels, len(names))
    if session.vocabulary:
        shutil.copyfile(session.vocabulary, folder.file("vocab.txt"))
    if not keep_checkpoints:
        folder.drop_optimizer()
    result = {f"test/{name}": value for name, value in metrics.items()}
    result |= {
        "best_epoch": best["epoch"],
        "val/acc": best["acc"],
        "label_names": names,
        **costs(session, folder),
        "test/f1_per_class": dict(zip(names, per_class_f1(counts).tolist())),
        "test/confusion": counts.tolist(),
        "checkpoint": file_digest(folder.file("best.pt")),
        "log": file_digest(folder.file("log.jsonl")),
        "hashes": session.hashes,
    }
    folder.write_json("result.json", result)


def write_predictions(session: Session, folder: RunFolder, labels: Tensor, p: Tensor) -> None:
    """predictions.csv: each test sample with its class, the predicted one, and probabilities."""
    names, guess = session.prepared.label_names, p.argmax(1)
    rows = [
        (sample, y, k, names[y], names[k], *(f"{v:.6g}" for v in row))
        for sample, y, k, row in zip(
            session.ids["test"], labels.tolist(), guess.tolist(), p.tolist(), strict=True
        )
    ]
    header = ("id", "label", "prediction", "label_name", "prediction_name")
    heads = (*header, *(f"p/{n}" for n in names))
    write_table(folder.file("predictions.csv"), heads, without_formulas(rows))


def costs(session: Session, folder: RunFolder) -> dict[str, float]:
    """Sizes of the parts, samples seen in training, and minutes of training over all starts.

    Validation, and epochs that a kill threw away, do not count.
    """
    log = folder.read_log()
    sizes = {f"count/n_{part}": len(ids) for part, ids in session.ids.items()}
    return {
        **sizes,
        "count/n_class": len(session.prepared.label_names),
        "count/seen_million": sum(line["train/n_items"] for line in log) / 1e6,
        "time/train_min": sum(line["time/epoch_s"] for line in log) / 60,
        "time/step_min": sum(line["time/step_s"] for line in log) / 60,
    }
