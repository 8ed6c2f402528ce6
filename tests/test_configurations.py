"""Every run that the paper's tables and figures name trains, and all of them are made from it.

At the smallest size and in three epochs: what is shown is that nothing is missing between a raw
tree and the last cell, not what the numbers are.
"""

import csv

import pytest
from conftest import program
from small_trees import WRITERS, prepared

import train
from common.program import run as run_program
from experiments import extra_tables, paper_figures, paper_tables
from experiments.adapt import adapted
from experiments.artifacts import Table
from experiments.reader import Reader
from experiments.registry import needed

# Of the tables that the paper lacks: long warm-ups need more epochs, whole groups more samples.
CHOSEN = [
    *paper_tables.ARTIFACTS,
    *paper_figures.ARTIFACTS,
    extra_tables.CONTROLS,
    extra_tables.COST,
]
SMALL = {
    "max_epochs": "3", "lr": "0.05",
    "size": "16", "encoder": "small", "spec_pool": "8", "batch_size": "32",
    "weights": "none", "text_model": "tiny", "vocabulary": "build",
}  # fmt: skip
SET = [f"{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(scope="module")
def artifacts():
    return adapted(CHOSEN, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", WRITERS)
def test_every_configuration_trains_and_every_cell_and_curve_is_filled(
    dataset, artifacts, tmp_path, capsys
):
    text = dataset in ("food101", "sarcasm", "twitter2015")
    data = prepared(tmp_path, dataset, **({"vocabulary": "build"} if text else {}))
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
                assert reader.values(cell.runs, [1], cell.key), (table.id, row.label, column)
    check_made(results, dataset)


def check_made(results, dataset):
    """make_tables.py fills each cell of the data set from these runs."""
    made = program("make_tables.py", "table1", "table2", "table3", "table4", "table5", "table6",
                   "table7", "table8", *[a.id for a in paper_figures.ARTIFACTS],
                   "--results_dir", results, "--out", results, "--set", *SET)  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "WARNING" not in made.stderr
    for path in (results / "tables").glob("table?.csv"):
        with open(path, encoding="utf-8") as handle:
            rows = [r for r in csv.DictReader(handle) if r["runs"].startswith(f"{dataset}/")]
        assert all(r["n"] == "1" for r in rows), path
