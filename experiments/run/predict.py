"""Predictions for new files: `evaluate.py RUN --predict manifest.csv`.

The manifest has a column `id` and one column per modality: paths relative to the manifest's folder
(or to --dataset_root), or the text itself. Text pairs (Twitter2015) need a second column, `target`;
precomputed flow needs the folders of u and v, joined by ";". Everything else comes from the run
folder: preparation spec, vocabulary, normalisation constants, class names.
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
from experiments.run.devices import single_device
from experiments.run.folder import RunFolder
from experiments.run.metrics import probabilities
from experiments.run.resolve import Run, run_from_config
from experiments.run.session import build_method, stream_of
from methods.base import Facts, Method
from models.classifier import Execution


def read_manifest(
    path: Path, spec: Spec, root: Path | None = None
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The manifest's rows as candidates, and (id, reason) for rows that cannot be used."""
    needed = ["id", *(column for m, kind in spec.items() for column in kind.columns(m))]
    rejected: list[Rejection] = []
    table = Table(path, "--predict", needed, Files(root or path.parent, root is not None), needed)
    candidates = []
    for line, row in table.rows(rejected):
        sources: dict[str, tuple[str, ...]] = {}
        inline: dict[str, Any] = {}
        for m, modality in spec.items():
            try:
                paths, content = modality.from_row(m, row)
            except ValueError as error:
                raise UsageError(f"--predict {path}: {m} of {row['id']!r} {error}") from None
            if content is not None:
                inline[m] = content
            if paths:  # a missing file is reported when the row is read
                sources[m] = tuple(table.find(line, each, True)[0] for each in paths)
        candidates.append(Candidate(row["id"], 0, sources, inline=inline))
    if not candidates and not rejected:
        raise UsageError(f"--predict {path} has no rows; it needs {', '.join(needed)}")
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    return candidates, [(r.source, f"{r.reason}: {r.detail}") for r in rejected]


def spec_of(run: Run, config: dict) -> Spec:
    """The modalities used by the run's method, from config.json, without placeholder values."""
    stored = spec_from_json(config["spec"])
    # Files that determine only what is stored may be gone.
    without = {"vocabulary": "build", "classes": ""}
    prep = replace(run.prep, **{k: v for k, v in without.items() if hasattr(run.prep, k)})
    seen = run.layout.spec(prep)
    used = methods.load(run.method).used_modalities(run.hparams, list(stored))
    return {m: stored[m].with_view_of(seen[m]).strict() for m in used}


def restore(
    folder: RunFolder, run: Run, spec: Spec, result: dict, device: torch.device
) -> tuple[Method, dict[str, int]]:
    """The run's method at its best epoch, and each modality's number of normalisation constants."""
    state = folder.load_best(result)
    streams, widths = {}, {}
    for m, modality in spec.items():
        # The constants are loaded with the weights; here only their number matters.
        mean = state.get(f"model.encoders.{m}.mean", state.get(f"model.encoders.{m}.inputs.mean"))
        widths[m] = 1 if mean is None else mean.numel()
        streams[m] = stream_of(modality, ([0.0] * widths[m], [1.0] * widths[m]))
    run = run.to_load()
    known = (run.seed, run.settings.max_epochs, result["count/n_train"])
    facts = Facts(*known, len(result["label_names"]))
    method = build_method(run, streams, facts, Execution(device))
    method.load_state_dict(state)
    return method.eval(), widths


def predict_files(folder: RunFolder, config: dict, manifest: Path, args: Namespace) -> int:
    """Writes the predictions; returns 3 if some files failed, and lists them on stderr."""
    run, result = run_from_config(config), folder.read_json("result.json")
    device, spec = single_device(args.devices), spec_of(run, config)
    root, out = (Path(p) if p else None for p in (args.dataset_root, args.out))
    if out and out.exists() and manifest.exists() and out.samefile(manifest):
        raise UsageError(f"--out {out} is the --predict manifest itself: use another file")
    candidates, bad = read_manifest(manifest, spec, root)
    (method, widths), names = restore(folder, run, spec, result, device), result["label_names"]
    rows, draw = [], Draw(run.settings.size, vocabulary=folder.vocabulary(result))
    workers = number("num_workers", args.num_workers or "1", int, 1)
    with make_pool(root or manifest.parent, spec, workers, 60.0, folder.path) as pool:
        for candidate, (state, row) in zip(candidates, pool.map(candidates)):
            try:
                inputs = inputs_of(state, row, spec, draw, widths)
                with torch.no_grad():
                    found = probabilities(method, method.model.encode(inputs))
                if not all(torch.isfinite(p).all() for p in found.values()):
                    raise Unfit("bad_values: the model's output is not finite")
            except Unfit as why:
                bad.append((candidate.id, str(why)))
                continue
            cells = [candidate.id]
            for (p,) in (p.tolist() for p in found.values()):
                cells += [names[p.index(max(p))], *(f"{value:.6g}" for value in p)]
            rows.append(cells)
    header = ["id"]
    for head in ("fused", *spec):
        header += [f"{head}/prediction", *(f"{head}/p/{name}" for name in names)]
    write_table(out, header, without_formulas(rows))
    for name, reason in bad:
        print(f"not predicted: {name}: {reason}", file=sys.stderr)
    return 3 if bad else 0


class Unfit(Exception):
    """The model cannot use a sample."""


def inputs_of(
    state: str, row: Any, spec: Spec, draw: Draw, widths: dict[str, int]
) -> dict[str, torch.Tensor]:
    """A prepared sample as a batch of size one; raises `Unfit` if the model cannot use it."""
    if state != DONE:
        raise Unfit(row)
    if isinstance(row, Rejection):
        raise Unfit(f"{row.reason}: {row.detail}")
    inputs = {}
    for m, modality in spec.items():
        value: np.ndarray = modality.trim(modality.to_input(row[m], draw)[None])
        width = modality.width(value)
        if width not in (None, widths[m]):
            raise Unfit(f"{m} has {width} features, the training data had {widths[m]}")
        inputs[m] = torch.from_numpy(value.copy())
    return inputs
