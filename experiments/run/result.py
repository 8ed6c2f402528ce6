"""Writes the files of a finished run: predictions.csv, vocab.txt and result.json."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

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
    """Writes the final files of a run; result.json comes last, since it marks the run as done."""
    p = probabilities(session.method, features)["fused"]
    names, guess = session.prepared.label_names, p.argmax(1)
    columns = session.ids["test"], labels.tolist(), guess.tolist(), p.tolist()
    rows = [
        (sample, y, k, names[y], names[k], *(f"{v:.6g}" for v in row))
        for sample, y, k, row in zip(*columns, strict=True)
    ]
    heads = ["id", "label", "prediction", "label_name", "prediction_name"]
    heads += [f"p/{name}" for name in names]
    write_table(folder.file("predictions.csv"), heads, without_formulas(rows))
    if session.vocabulary:
        shutil.copyfile(session.vocabulary, folder.file("vocab.txt"))
    if not keep_checkpoints:
        folder.drop_optimizer()
    counts, log = confusion(guess, labels, len(names)), folder.read_log()
    result: dict[str, Any] = {f"test/{name}": value for name, value in metrics.items()}
    result |= {f"count/n_{part}": len(ids) for part, ids in session.ids.items()}
    result |= {
        "best_epoch": best["epoch"],
        "val/acc": best["acc"],
        "label_names": names,
        "count/n_class": len(names),
        "count/seen_million": sum(line["train/n_items"] for line in log) / 1e6,
        "time/train_min": sum(line["time/epoch_s"] for line in log) / 60,
        "time/step_min": sum(line["time/step_s"] for line in log) / 60,
        "test/f1_per_class": dict(zip(names, per_class_f1(counts).tolist())),
        "test/confusion": counts.tolist(),
        "checkpoint": file_digest(folder.file("best.pt")),
        "log": file_digest(folder.file("log.jsonl")),
        "hashes": session.hashes,
    }
    folder.write_json("result.json", result)
