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
from data_prep.datasets.manifest import find, read_table
from data_prep.datasets.own_files import Files
from data_prep.modalities.extracted import strict
from data_prep.modalities.transforms import make_input, without_padding
from data_prep.pool import DONE
from data_prep.rows import make_crew
from data_prep.spec import Array, Candidate, Flow, Rejection, Spec, Text, spec_from_json
from experiments.run.folder import RunFolder
from experiments.run.metrics import probabilities
from experiments.run.resolve import Run, run_from_config
from experiments.run.session import build_method, pick_device, stream_of
from methods.base import Method

TARGET = "target"  # the second text of a pair


def read_manifest(
    path: Path, spec: Spec, root: Path | None = None
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """The manifest's rows, and (id, why) of those that are none.

    `root`: where the files are, the manifest's folder without it. Raises `UsageError` for a missing
    column or a path outside.
    """
    pair = any(isinstance(kind, Text) and kind.pair for kind in spec.values())
    needed = ["id", *spec, *([TARGET] if pair else [])]
    files, rejected = Files(root or path.parent, root is not None), []
    table = read_table(path, "--predict", needed, needed, rejected, files)
    candidates = [candidate_of(row, line, path, spec, files) for line, row in table.rows]
    if not candidates and not rejected:
        raise UsageError(f"--predict {path} has no rows; it needs {', '.join(needed)}")
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    return candidates, [(r.source, f"{r.reason}: {r.detail}") for r in rejected]


def candidate_of(
    row: dict[str, str], line: int, table: Path, spec: Spec, files: Files
) -> Candidate:
    """One row as a candidate without a label."""
    sources, inline = {}, {}
    for m, kind in spec.items():
        if isinstance(kind, Text):
            inline[m] = [row[m], row[TARGET]] if kind.pair else row[m]
            continue
        folders = isinstance(kind, Flow) and bool(kind.of_folder) and ";" in row[m]
        two = folders or isinstance(kind, Flow) and kind.algorithm == "precomputed"
        names = row[m].split(";") if two else [row[m]]
        if two and len(names) != 2:
            raise UsageError(f"--predict {table}: {m} of {row['id']!r} is not two folders, u;v")
        # What is not there is named once the row is read.
        sources[m] = tuple(find(files, table, line, name)[0] for name in names)
    return Candidate(row["id"], 0, sources, inline=inline)


def inputs_of(row: dict, spec: Spec, run: Run, vocabulary: Path) -> dict[str, np.ndarray]:
    """The evaluation view of one extracted row, as a batch of one."""
    views, size = run.layout.views(run.prep), run.settings.size
    made = {
        m: make_input(row[m], k, views[m], size, None, False, vocabulary) for m, k in spec.items()
    }
    return {m: without_padding(value[None], spec[m]) for m, value in made.items()}


def restore(
    folder: RunFolder, run: Run, spec: Spec, result: dict, device: torch.device
) -> tuple[Method, dict[str, int]]:
    """The run's method at its best epoch, and the width D of the vectors of each array.

    Normalisation constants come with the weights.
    """
    state = folder.load_best(result)
    streams, widths = {}, {}
    for m, kind in spec.items():
        # The constants come with the weights: here they only need the right number of entries.
        mean = state.get(f"model.encoders.{m}.mean", state.get(f"model.encoders.{m}.inputs.mean"))
        entries = 1 if mean is None else mean.numel()
        if isinstance(kind, Array):
            widths[m] = entries
        streams[m] = stream_of(kind, ([0.0] * entries, [1.0] * entries))
    run = replace(run, settings=replace(run.settings, weights="none"))  # those of the run follow
    classes = len(result["label_names"])
    method = build_method(run, streams, classes, result["count/n_train"], device)
    method.load_state_dict(state)
    return method.eval(), widths


def predict_files(folder: RunFolder, config: dict, manifest: Path, args: Namespace) -> int:
    """Writes id, predicted class and probabilities, fused and of each modality alone.

    Exit status 3 when files could not be used; each is named on stderr with its reason.
    """
    run, result = run_from_config(config), folder.read_result()
    device = pick_device(args.devices)
    spec = spec_from_json(config["spec"])
    used = methods.load(run.method).used_modalities(run.hparams, list(spec))
    spec = {m: strict(spec[m]) for m in used}  # a prediction needs the file, and no stand-in
    root = Path(args.dataset_root) if args.dataset_root else None
    if args.out and Path(args.out).exists() and manifest.exists():
        if Path(args.out).samefile(manifest):
            raise UsageError(f"--out {args.out} is the file that --predict reads")
    candidates, bad = read_manifest(manifest, spec, root)
    (method, widths), names = restore(folder, run, spec, result, device), result["label_names"]
    rows, vocabulary = [], folder.vocabulary(result)
    workers = number("num_workers", args.num_workers or "1", int, 1)
    with make_crew(root or manifest.parent, spec, workers, 60.0, folder.path) as crew:
        for candidate, (state, row) in zip(candidates, crew.map(candidates)):
            inputs = inputs_of(row, spec, run, vocabulary) if isinstance(row, dict) else {}
            why = _unfit(state, row, inputs, widths)
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


def _unfit(state: str, row: Any, inputs: dict[str, np.ndarray], widths: dict[str, int]) -> str:
    """Why the model cannot read a sample, or ""."""
    if state != DONE:
        return row
    if isinstance(row, Rejection):
        return f"{row.reason}: {row.detail}"
    for m, width in widths.items():
        if inputs[m].shape[-1] != width:
            return f"{m} has {inputs[m].shape[-1]} values a vector, the run's data had {width}"
    return ""


def _cells(p: torch.Tensor, names: list[str]) -> list[str]:
    return [names[int(p.argmax())], *(f"{value:.6g}" for value in p.tolist())]
