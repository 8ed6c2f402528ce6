"""Every number of the paper for a finished run, and predictions for new files.

    python evaluate.py results/runs/demo/Midas/default/seed1
    python evaluate.py RUN --predict manifest.csv --out predictions.csv

The manifest has a column `id` and one a modality with paths relative to the manifest's folder. The
run's folder carries all that is needed: preparation spec, normalisation constants, class names.
"""

import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import methods
from assemble import Session, assemble, build_method, pick_device, stream_of
from common.files import file_digest, read_table, write_table
from common.options import Parser, UsageError, number
from common.program import run as run_program
from data_prep.layouts.manifest import inside
from data_prep.prepare import make_crew
from data_prep.spec import Candidate, Rejection, Spec, Text, spec_from_json
from data_prep.transforms import make_input
from data_prep.workers import DONE
from experiments.resolve import Run, run_from_config
from experiments.run_folder import RunFolder
from measure import collect, confusion, measure, per_class_f1, probabilities
from methods.base import Method


def finish(session: Session, folder: RunFolder, best: dict, keep_checkpoints: bool) -> int:
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
    if any(isinstance(kind, Text) for kind in session.prepared.spec.values()):
        shutil.copyfile(session.prepared.folder / "vocab.txt", folder.file("vocab.txt"))
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


def read_manifest(path: Path, spec: Spec) -> list[Candidate]:
    """The manifest's rows; raises `UsageError` for a missing column or a path outside."""
    modalities = list(spec)
    try:
        rows = read_table(path)
    except OSError as error:
        raise UsageError(f"--predict {path} cannot be read: {error.strerror}") from None
    missing = [name for name in ("id", *modalities) if rows and name not in rows[0]]
    if not rows or missing:
        raise UsageError(
            f"--predict {path} has no {'column ' + missing[0] if missing else 'rows'};"
            f" it needs the columns id, {', '.join(modalities)}"
        )
    files = [name for name in modalities if not isinstance(spec[name], Text)]
    for row in rows:
        for name in files:
            if not inside(path.parent, row[name] or ""):
                raise UsageError(f"--predict {path}: {row[name]!r} leaves the manifest's folder")
    return [
        Candidate(
            row["id"],
            0,
            {m: (row[m] or "",) for m in files},
            inline={m: row[m] or "" for m in modalities if m not in files},
        )
        for row in rows
    ]


def inputs_of(row: dict, spec: Spec, run: Run) -> dict[str, np.ndarray]:
    """The evaluation view of one extracted row."""
    views = run.layout.views(run.prep)
    return {m: make_input(row[m], k, views[m], run.settings.size, None) for m, k in spec.items()}


def restore(folder: RunFolder, run: Run, spec: Spec, result: dict, device: torch.device) -> Method:
    """The run's method at its best epoch; normalisation constants come with the weights."""
    state = folder.load("best.pt")["method"]
    streams = {}
    for m, kind in spec.items():
        # The constants come with the weights: here they only need the right number of entries.
        mean = state.get(f"model.encoders.{m}.mean", state.get(f"model.encoders.{m}.inputs.mean"))
        entries = 1 if mean is None else mean.numel()
        streams[m] = stream_of(kind, ([0.0] * entries, [1.0] * entries))
    run = replace(run, settings=replace(run.settings, weights="none"))  # those of the run follow
    classes = len(result["label_names"])
    method = build_method(run, streams, classes, result["train_size"], device)
    method.load_state_dict(state)
    return method.eval()


def predict_files(folder: RunFolder, config: dict, manifest: Path, args: Namespace) -> int:
    """Writes id, predicted class and probabilities, fused and of each modality alone.

    Exit status 3 when files could not be used; each is named on stderr with its reason.
    """
    run, result = run_from_config(config), folder.read_json("result.json")
    device = pick_device(args.devices)
    spec = spec_from_json(config["spec"])
    spec = {m: spec[m] for m in methods.load(run.method).used_modalities(run.hparams, list(spec))}
    candidates = read_manifest(manifest, spec)
    method, names = restore(folder, run, spec, result, device), result["label_names"]
    rows, bad = [], []
    workers = number("num_workers", args.num_workers or "1", int, 1)
    with make_crew(manifest.parent, spec, workers, 60.0, folder.path) as crew:
        for candidate, (state, row) in zip(candidates, crew.map(candidates)):
            if state != DONE or isinstance(row, Rejection):
                bad.append((candidate.id, row if state != DONE else f"{row.reason}: {row.detail}"))
                continue
            inputs = {
                m: torch.from_numpy(v.copy())[None] for m, v in inputs_of(row, spec, run).items()
            }
            with torch.no_grad():
                p = probabilities(method, method.model.encode(inputs))
            rows.append(
                (candidate.id, *(value for one in p.values() for value in _cells(one[0], names)))
            )
    heads = ["fused", *spec]
    header = [
        "id",
        *(c for h in heads for c in (f"{h}/prediction", *(f"{h}/p/{n}" for n in names))),
    ]
    write_table(Path(args.out) if args.out else None, header, rows)
    for name, why in bad:
        print(f"not predicted: {name}: {why}", file=sys.stderr)
    return 3 if bad else 0


def _cells(p: torch.Tensor, names: list[str]) -> list[str]:
    return [names[int(p.argmax())], *(f"{value:.6g}" for value in p.tolist())]


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
        return predict_files(folder, config, Path(args.predict), args)
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
