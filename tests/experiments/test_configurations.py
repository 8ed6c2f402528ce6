"""Every run that the tables and figures name trains, and all of them are made from it.

At the smallest size and in three epochs (21 where the warm-up is varied): what is shown is that
nothing is missing between a raw tree and the last cell, not what the numbers are.
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
from experiments.paper import text as text_tables
from experiments.paper.adapt import adapted
from experiments.paper.kinds import Table, told_settings
from experiments.paper.registry import needed
from experiments.report.grid import fill
from experiments.report.reader import Reader
from experiments.run.recipe import SHARED

CHOSEN = [
    *paper_tables.ARTIFACTS,
    *text_tables.ARTIFACTS,
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
# The longest warm-up has 20 epochs; no set of that table has texts.
LONG = {k: v for k, v in SMALL.items() if k not in ("text_model", "vocabulary")}
LONG |= {"max_epochs": "21"}


def prepared_for_all(folder, dataset):
    """Writes the tree and prepares it for both recipes; returns the folder of prepared data."""
    text = {"vocabulary": "build"} if dataset in ("food101", "sarcasm", "twitter2015") else {}
    data, layout = prepared(folder, dataset, **text), datasets.load(dataset)
    names = {field.name for field in fields(layout.Settings)}
    official = {k: v for k, v in SHARED.get(dataset, {}).items() if k in names} | text
    root = folder / "raw" / dataset
    prepare(dataset, root, data, layout.Settings(**official), workers=1, allow_missing_classes=True)
    return data


@pytest.fixture(scope="module")
def artifacts():
    return adapted(CHOSEN, SMALL) + adapted([extra_tables.WARMUP], LONG)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SMALL_TREES)
def test_every_configuration_trains_and_every_cell_and_curve_is_filled(
    dataset, artifacts, tmp_path, capsys
):
    data = prepared_for_all(tmp_path, dataset)
    results = tmp_path / "results"
    places = ["--data_dir", str(data), "--results_dir", str(results), "--devices", "cpu"]
    runs = [r for r, _ in needed(artifacts, [1]) if r.dataset == dataset]
    for one in runs:
        status = run_program(train.main, [*one.arguments(1), *places, "--threads", "1"])
        assert status == 0, (one.name, capsys.readouterr().err)
    reader = Reader(results)
    assert all(reader.run(one, 1)[1] == "done" for one in runs)
    for table in [a for a in artifacts if isinstance(a, Table)]:
        for row, column, cell in table.cells():
            if cell.runs.dataset == dataset:
                assert fill(table, reader, cell).values, (table.id, row.label, column)
    check_made(results, dataset, CHOSEN, SMALL)
    check_made(results, dataset, [extra_tables.WARMUP], LONG)


def check_made(results, dataset, chosen, settings):
    """make_tables.py fills each cell of the data set from these runs."""
    names, out = [a.id for a in chosen], results / f"made-{len(chosen)}"
    made = program("make_tables.py", *names, "--results_dir", results, "--out", out,
                   "--set", *[f"{key}={value}" for key, value in settings.items()])  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "WARNING" not in made.stderr
    suffix, _ = told_settings("", settings)
    paths = [out / "tables" / f"{a.id}{suffix}.csv" for a in chosen if isinstance(a, Table)]
    for path in paths:
        with open(path, encoding="utf-8") as handle:
            rows = [r for r in csv.DictReader(handle) if r["runs"].startswith(f"{dataset}/")]
        assert all(r["n"] == "1" for r in rows), path
