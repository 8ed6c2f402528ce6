"""From a prepared CREMA-D: one split per seed, table cells, the official recipe."""

import pytest
import torch
from conftest import program
from small_trees import prepared

from common.files import read_table
from experiments.run.folder import find_runs
from experiments.run.metrics import f1_batch

SMALL = {"encoder": "small", "size": "16", "spec_pool": "8", "max_epochs": "2", "batch_size": "25"}


def small_run(data, results, *more):
    flags = [word for key, value in SMALL.items() for word in (f"--{key}", value)]
    places = ("--data_dir", data, "--results_dir", results, "--devices", "cpu")
    done = program("train.py", "--dataset", "cremad", *flags, *places, *more)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_loop_over_seeds_has_one_split_each_and_fills_the_tables_cell(tmp_path):
    data, results = prepared(tmp_path, "cremad"), tmp_path / "results"
    for seed in (1, 2, 3):
        small_run(data, results, "--method", "Joint", "--seed", seed)
    splits = [next(data.rglob(f"paper-seed{seed}.csv")).read_bytes() for seed in (1, 2, 3)]
    assert len(set(splits)) == 3
    hashes = [folder.read_json("result.json")["hashes"] for folder in find_runs(results)]
    for name in ("split", "pairs_val", "pairs_test", "release_pairs_val", "release_pairs_test"):
        assert len({found[name] for found in hashes}) == 3, name
    same = ("--set", *(f"{key}={value}" for key, value in SMALL.items()))
    made = program("make_tables.py", "table1", "--results_dir", results, "--out", tmp_path, *same)
    assert made.returncode == 0, made.stderr
    tables = (tmp_path / "tables").glob("table1-*.csv")
    (table,) = (path for path in tables if ".paper." not in path.name)
    lines = {(r["row"], r["column"]): r for r in read_table(table)}
    cell = lines["Joint training", "CREMA-D: Acc"]
    assert (cell["n"], cell["seeds"]) == ("3", "1 2 3")


@pytest.mark.slow
def test_the_official_recipe_trains_on_its_own_split_and_cuts_f1_in_its_order(tmp_path):
    data, results = prepared(tmp_path, "cremad"), tmp_path / "results"
    small_run(data, results, "--recipe", "official", "--method", "Midas", "--seed", "5")
    (run,) = find_runs(results)
    assert run.path.parent.name.startswith("batch_size=25,encoder=small,max_epochs=2,recipe=")
    rows, result = read_table(run.file("predictions.csv")), run.read_json("result.json")
    drawn = read_table(next(data.rglob("splits/release-seed5.csv")))
    part = [row["id"] for row in drawn if row["part"] == "test"]
    assert [row["id"] for row in rows] == part != sorted(part)
    guess, y = (torch.tensor([int(r[k]) for r in rows]) for k in ("prediction", "label"))
    in_order = f1_batch(guess, y, 6, in_order=True)
    assert result["test/f1_batch64"] == pytest.approx(in_order)
    assert {"test/acc_mis_release", "test/conf_release/video"} <= result.keys()
    log = run.read_log()
    assert log[1]["train/n_valid"] == 2 * result["count/n_train"] and "train/rho" in log[1]
    assert log[1]["train/n_items"] == result["count/n_train"]
