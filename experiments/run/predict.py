"""Predictions for new files: `evaluate.py RUN --predict manifest.csv`.

The manifest has a column `id` and one a modality: paths relative to the manifest's folder (or to
--dataset_root), for text the text itself. A run whose texts are pairs (Twitter2015) wants a second
column, `target`; one of precomputed flow wants the two folders of u and v, joined by ";", as one of
a tree made for the official code may have them. The run's folder carries all that is needed:
preparation spec, vocabulary, normalisation constants, class names.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import methods
from common.files import without_formulas, write_table
from common.options import UsageError, number
from data_prep.datasets.own_files import Files, Table
from data_prep.modalities.base import Draw
from data_prep.pool import DONE
from data_prep.sample import make_pool
from data_prep.spec import Candidate, Rejection, Spec, spec_from_json
from experiments.run.folder import RunFolder
from experiments.run.metrics import probabilities
from experiments.run.resolve import Run, run_from_config
from experiments.run.session import build_method, pick_device, stream_of
from methods.base import Method


def read_manifest(
    path: Path, spec: Spec, root: Path | None = None
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The manifest's rows, and (id, why) of those that are none.

    `root`: where the files are, the manifest's folder without it. Raises `UsageError` for a missing
    column or a path outside.
    """
    needed = ["id", *(column for m, kind in spec.items() for column in kind.columns(m))]
    files, rejected = Files(root or path.parent, root is not None), []
    table = Table(path, "--predict", needed, needed, files)
    candidates = [candidate_of(row, line, table, spec) for line, row in table.rows(rejected)]
    if not candidates and not rejected:
        raise UsageError(f"--predict {path} has no rows; it needs {', '.join(needed)}")
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    return candidates, [(r.source, f"{r.reason}: {r.detail}") for r in rejected]


def candidate_of(row: dict[str, str], line: int, table: Table, spec: Spec) -> Candidate:
    """One row as a candidate without a label."""
    sources, inline = {}, {}
    for m, modality in spec.items():
        try:
            paths, content = modality.from_row(m, row)
        except ValueError as error:
            raise UsageError(f"--predict {table.path}: {m} of {row['id']!r} {error}") from None
        if content is not None:
            inline[m] = content
        # What is not there is named once the row is read.
        found = tuple(table.find(line, path)[0] for path in paths)
        sources |= {m: found} if found else {}
    return Candidate(row["id"], 0, sources, inline=inline)


def spec_of(run: Run, config: dict) -> Spec:
    """The modalities that the run's method uses, as it saw them, without stand-ins.

    The stored form is that of the run's config.json: a folder of a vocabulary may be gone.
    """
    stored = spec_from_json(config["spec"])
    prep = run.prep
    if hasattr(prep, "vocabulary"):
        prep = replace(prep, vocabulary="build")
    seen = run.layout.spec(prep)
    used = methods.load(run.method).used_modalities(run.hparams, list(stored))
    return {m: stored[m].with_view_of(seen[m]).strict() for m in used}


def restore(
    folder: RunFolder, run: Run, spec: Spec, result: dict, device: torch.device
) -> tuple[Method, dict[str, int]]:
    """The run's method at its best epoch, and the number of constants of each normalisation."""
    state = folder.load_best(result)
    streams, widths = {}, {}
    for m, modality in spec.items():
        # The constants come with the weights: here they only need the right number of entries.
        mean = state.get(f"model.encoders.{m}.mean", state.get(f"model.encoders.{m}.inputs.mean"))
        widths[m] = 1 if mean is None else mean.numel()
        streams[m] = stream_of(modality, ([0.0] * widths[m], [1.0] * widths[m]))
    run = replace(run, settings=replace(run.settings, weights="none"))  # those of the run follow
    classes = len(result["label_names"])
    method = build_method(run, streams, classes, result["count/n_train"], device)
    method.load_state_dict(state)
    return method.eval(), widths


def predict_files(folder: RunFolder, config: dict, manifest: Path, args: Namespace) -> int:
    """Writes id, predicted class and probabilities, fused and of each modality alone.

    Exit status 3 when files could not be used; each is named on stderr with its reason.
    """
    run, result = run_from_config(config), folder.read_json("result.json")
    device = pick_device(args.devices)
    spec = spec_of(run, config)
    root = Path(args.dataset_root) if args.dataset_root else None
    if args.out and Path(args.out).exists() and manifest.exists():
        if Path(args.out).samefile(manifest):
            raise UsageError(f"--out {args.out} is the file that --predict reads")
    candidates, bad = read_manifest(manifest, spec, root)
    (method, widths), names = restore(folder, run, spec, result, device), result["label_names"]
    rows, draw = [], Draw(run.settings.size, vocabulary=folder.vocabulary(result))
    workers = number("num_workers", args.num_workers or "1", int, 1)
    with make_pool(root or manifest.parent, spec, workers, 60.0, folder.path) as pool:
        for candidate, (state, row) in zip(candidates, pool.map(candidates)):
            inputs = {}
            if isinstance(row, dict):
                made = {m: modality.to_input(row[m], draw) for m, modality in spec.items()}
                inputs = {m: spec[m].trim(value[None]) for m, value in made.items()}
            why = _unfit(state, row, inputs, spec, widths)
            if why:
                bad.append((candidate.id, why))
                continue
            tensors = {m: torch.from_numpy(v.copy()) for m, v in inputs.items()}
            with torch.no_grad():
                p = probabilities(method, method.model.encode(tensors))
            if not all(torch.isfinite(one).all() for one in p.values()):
                bad.append((candidate.id, "bad_values: the model's output is not finite"))
                continue
            rows.append(
                (candidate.id, *(value for one in p.values() for value in _cells(one[0], names)))
            )
    heads = ["fused", *spec]
    header = [
        "id",
        *(c for h in heads for c in (f"{h}/prediction", *(f"{h}/p/{n}" for n in names))),
    ]
    write_table(Path(args.out) if args.out else None, header, without_formulas(rows))
    for name, why in bad:
        print(f"not predicted: {name}: {why}", file=sys.stderr)
    return 3 if bad else 0


def _unfit(
    state: str, row: Any, inputs: dict[str, np.ndarray], spec: Spec, widths: dict[str, int]
) -> str:
    """Why the model cannot read a sample, or ""."""
    if state != DONE:
        return row
    if isinstance(row, Rejection):
        return f"{row.reason}: {row.detail}"
    for m, modality in spec.items():
        width = modality.width(inputs[m])
        if width not in (None, widths[m]):
            return f"{m} has {width} values a vector, the run's data had {widths[m]}"
    return ""


def _cells(p: torch.Tensor, names: list[str]) -> list[str]:
    return [names[int(p.argmax())], *(f"{value:.6g}" for value in p.tolist())]
