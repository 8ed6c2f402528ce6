"""Every kind of run named by the tables and figures trains and fills its cells.

At the smallest size and for two epochs: this tests that nothing is missing between a raw tree and
the last cell, not the numbers. Runs of a dataset and method that differ only in the value of a flag
count as one; `test_registry.py` tests that all values resolve.
"""

from dataclasses import fields

import pytest
from conftest import program
from small_trees import SMALL_TREES, prepared

import train
from common.files import read_table
from common.program import run as run_program
from data_prep import datasets
from data_prep.prepare import prepare
from experiments.paper import extras, figures, real, tables
from experiments.paper.adapt import adapted
from experiments.paper.kinds import Table, suffix_of
from experiments.paper.registry import needed
from experiments.run.recipe import SHARED

CHOSEN = [*tables.ARTIFACTS, *figures.ARTIFACTS]
CHOSEN += [extras.CONTROLS, extras.EXTRA_SPLITS, extras.COST, extras.RECIPE, *real.ARTIFACTS]
SHORTEST = {  # one epoch would leave none after warm-up
    "max_epochs": "2", "lr": "0.03", "batch_size": "16", "weights": "none", "text_model": "tiny",
    "size": "16", "encoder": "small", "spec_pool": "8", "audio_norm": "zscore",
    "vocabulary": "build",
}  # fmt: skip


def prepared_for_both_recipes(folder, dataset):
    """Writes the tree and prepares it; returns the folder of prepared data."""
    built = {"vocabulary": "build"} if dataset in ("food101", "sarcasm", "twitter2015") else {}
    data, layout = prepared(folder, dataset, **built), datasets.load(dataset)
    names = {field.name for field in fields(layout.Settings)}
    official = {k: v for k, v in SHARED.get(dataset, {}).items() if k in names} | built
    root = folder / "raw" / dataset
    prepare(dataset, root, data, layout.Settings(**official), workers=1, allow_missing_classes=True)
    return data


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SMALL_TREES)
def test_every_kind_of_run_trains_and_fills_its_cells(dataset, tmp_path, capsys):
    kinds = {}
    for runs, _ in needed(adapted(CHOSEN, SHORTEST), [1]):
        if runs.dataset == dataset:
            kinds.setdefault((runs.method, frozenset(dict(runs.overrides))), runs)
    data, results = prepared_for_both_recipes(tmp_path, dataset), tmp_path / "results"
    places = ["--data_dir", str(data), "--results_dir", str(results), "--devices", "cpu"]
    for runs in kinds.values():
        status = run_program(train.main, [*runs.arguments(1), *places, "--threads", "1"])
        assert status == 0, (runs.name, capsys.readouterr().err)
    names = [artifact.id for artifact in CHOSEN]
    words = ["--out", results, "--set", *(f"{key}={value}" for key, value in SHORTEST.items())]
    made = program("make_tables.py", *names, "--results_dir", results, *words)
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    trained, filled = {runs.name for runs in kinds.values()}, set()
    for artifact in (a for a in CHOSEN if isinstance(a, Table)):
        rows = read_table(results / "tables" / f"{artifact.id}{suffix_of(SHORTEST)}.csv")
        cells = [row for row in rows if row["runs"] in trained]
        assert all(cell["n"] == "1" for cell in cells), artifact.id
        filled |= {cell["runs"] for cell in cells}
    assert filled == trained
