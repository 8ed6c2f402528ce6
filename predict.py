"""Predictions for new files with a finished run: `evaluate.py RUN --predict manifest.csv`.

The manifest has a column `id` and one a modality with paths relative to the manifest's folder. The
run's folder carries all that is needed: preparation spec, normalisation constants, class names.
"""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

import methods
from assemble import build_method, pick_device
from common.files import read_table, write_table
from common.options import UsageError, number
from data_prep import layouts
from data_prep.prepare import make_crew
from data_prep.spec import Audio, Candidate, Rejection, Spec, spec_from_json
from data_prep.transforms import clip, spectrogram
from data_prep.workers import DONE
from evaluate import probabilities
from experiments.resolve import Run, run_from_config
from experiments.run_folder import RunFolder


def read_manifest(path: Path, modalities: list[str]) -> list[Candidate]:
    """The manifest's rows; raises `UsageError` for a missing column or a path outside."""
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
    folder = path.parent.resolve()
    for row in rows:
        for name in modalities:
            if not (folder / (row[name] or "")).resolve().is_relative_to(folder):
                raise UsageError(f"--predict {path}: {row[name]!r} leaves the manifest's folder")
    return [Candidate(row["id"], 0, {m: (row[m] or "",) for m in modalities}) for row in rows]


def inputs_of(row: dict, spec: Spec, run: Run) -> dict[str, np.ndarray]:
    """The evaluation view of one extracted row."""
    views, out = layouts.load(run.dataset).views(run.prep), {}
    for m, kind in spec.items():
        if isinstance(kind, Audio):
            out[m] = spectrogram(row[m], kind, views[m], None)
        else:
            out[m] = clip(row[m], kind, views[m], run.settings.size, None)
    return out


def restore(folder: RunFolder, run: Run, spec: Spec, result: dict, device: torch.device):
    """The run's method at its best epoch; normalisation constants come with the weights."""
    placeholders = {
        m: (0.0, 1.0) if isinstance(kind, Audio) else ([0.0] * 3, [1.0] * 3)
        for m, kind in spec.items()
    }
    classes = len(result["label_names"])
    method = build_method(run, spec, placeholders, classes, result["train_size"], device)
    method.load_state_dict(folder.load("best.pt")["method"])
    return method.eval()


def predict_files(folder: RunFolder, config: dict, manifest: Path, args: Namespace) -> int:
    """Writes id, predicted class and probabilities, fused and of each modality alone.

    Exit status 3 when files could not be used; each is named on stderr with its reason.
    """
    run, result = run_from_config(config), folder.read_json("result.json")
    device = pick_device(args.devices)
    spec = spec_from_json(config["spec"])
    spec = {m: spec[m] for m in methods.load(run.method).used_modalities(run.hparams, list(spec))}
    candidates = read_manifest(manifest, list(spec))
    method, names = restore(folder, run, spec, result, device), result["label_names"]
    rows, bad = [], []
    workers = number("num_workers", args.num_workers or "1", int, 1)
    with make_crew(manifest.parent, spec, workers, 60.0) as crew:
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
