"""Every kind of run that the tables and figures name trains, and fills its cells.

At the smallest size and for two epochs: what is shown is that nothing is missing between a raw tree
and the last cell, not what the numbers are. Runs of a data set and method that differ in the value
of a flag alone count as one; that all values resolve is tested in `test_registry.py`.
"""

import csv
from dataclasses import fields

import pytest
from conftest import program
from small_trees import SMALL_TREES, prepared

import train
from common.program import run as run_program
from data_prep import datasets
from data_prep.prepare import prepare
from experiments.paper import extras as extra_tables
from experiments.paper import figures as paper_figures
from experiments.paper import tables as paper_tables
from experiments.paper.adapt import adapted
from experiments.paper.kinds import Table, suffix_of
from experiments.paper.registry import needed
from experiments.run.recipe import SHARED

CHOSEN = [
    *paper_tables.ARTIFACTS,
    *paper_figures.ARTIFACTS,
    extra_tables.CONTROLS,
    extra_tables.EXTRA_SPLITS,
    extra_tables.COST,
    extra_tables.RECIPE,
]
SMALL = {
    "max_epochs": "3", "lr": "0.03",
    "size": "16", "encoder": "small", "spec_pool": "8", "audio_norm": "zscore", "batch_size": "16",
    "weights": "none", "text_model": "tiny", "vocabulary": "build",
}  # fmt: skip
SHORTEST = SMALL | {"max_epochs": "2"}  # one epoch leaves none after a warm-up


def prepared_for_all(folder, dataset):
    """Writes the tree and prepares it for both recipes; returns the folder of prepared data."""
    text = {"vocabulary": "build"} if dataset in ("food101", "sarcasm", "twitter2015") else {}
    data, layout = prepared(folder, dataset, **text), datasets.load(dataset)
    names = {field.name for field in fields(layout.Settings)}
    official = {k: v for k, v in SHARED.get(dataset, {}).items() if k in names} | text
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
    data, results = prepared_for_all(tmp_path, dataset), tmp_path / "results"
    places = ["--data_dir", str(data), "--results_dir", str(results), "--devices", "cpu"]
    for runs in kinds.values():
        status = run_program(train.main, [*runs.arguments(1), *places, "--threads", "1"])
        assert status == 0, (runs.name, capsys.readouterr().err)
    settings = [f"{key}={value}" for key, value in SHORTEST.items()]
    names = [artifact.id for artifact in CHOSEN]
    made = program("make_tables.py", *names, "--results_dir", results, "--out", results,
                   "--set", *settings)  # fmt: skip
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    trained, filled = {runs.name for runs in kinds.values()}, set()
    for artifact in [a for a in CHOSEN if isinstance(a, Table)]:
        path = results / "tables" / f"{artifact.id}{suffix_of(SHORTEST)}.csv"
        with open(path, encoding="utf-8") as handle:
            cells = [line for line in csv.DictReader(handle) if line["runs"] in trained]
        assert all(cell["n"] == "1" for cell in cells), path
        filled |= {cell["runs"] for cell in cells}
    assert filled == trained
