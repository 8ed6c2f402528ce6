"""The registry: every entry resolves, every number of the paper has its cell."""

import pytest

from common.options import UsageError
from experiments import extra_tables, paper_figures, paper_tables
from experiments.adapt import adapted, read_settings
from experiments.artifacts import Runs, Table
from experiments.compare import cells_of_the_paper, paper_results
from experiments.paper_tables import midas
from experiments.registry import ARTIFACTS, find, needed
from experiments.resolve import resolve

ALL_RUNS = sorted({runs for runs, _ in needed(ARTIFACTS)}, key=lambda runs: runs.name)
TABLES = [a for a in ARTIFACTS if isinstance(a, Table)]
# Not cells of a table: what Figure 1 shows, and differences that Sec. 4.2 states.
ELSEWHERE = {"fig1a", "text_4.2"}


def test_every_run_is_what_train_would_call_it():
    """A setting at its default would name another folder than train.py's."""
    for runs in ALL_RUNS:
        run, _ = resolve(runs.arguments(1), "")
        assert (run.dataset, run.method, run.differing) == (
            runs.dataset, runs.method, dict(runs.overrides),
        )  # fmt: skip


def test_the_tables_and_figures_of_the_paper_are_all_there():
    names = [a.id for a in ARTIFACTS]
    assert names[:8] == [f"table{k}" for k in range(1, 9)]
    assert [n for n in names if n.startswith("figure")] == [f"figure{k}" for k in range(1, 8)]
    assert len(set(names)) == len(names)
    for artifact in ARTIFACTS:
        assert artifact in find(artifact.id)


def test_each_number_of_the_paper_has_its_cell_and_each_cell_its_number():
    used = list(cells_of_the_paper(TABLES))
    wanted = {place for place in paper_results() if place[0] not in ELSEWHERE}
    assert set(used) == wanted
    assert len(used) == len(set(used))


def test_a_cell_stands_beside_the_papers_number_of_the_same_thing():
    for table in TABLES:
        for row, column, cell in table.cells():
            if not cell.paper:
                continue
            _, dataset, method, variant, metric = cell.paper
            assert dataset == cell.runs.dataset, (table.id, row.label, column.header)
            assert method in ("", cell.runs.method)
            if metric in ("acc", "f1"):
                assert metric == ("acc" if "acc" in cell.key else "f1")
                assert cell.key != "test/f1_macro"
            if variant.startswith(("similarity=", "lambda=", "level=")):
                key, value = variant.replace("lambda", "lam").split("=")
                own = dict(cell.runs.overrides).get(key)
                run, _ = resolve(cell.runs.arguments(1), "")
                assert str(getattr(run.hparams, key)).removesuffix(".0") == value
                assert own is None or str(own).removesuffix(".0") == value
            if variant.startswith("W"):
                run, _ = resolve(cell.runs.arguments(1), "")
                h = run.hparams
                on = (h.warmup_epochs > 0, h.weak_modality, h.hard_sample)
                assert variant == "W{:d}_WM{:d}_HS{:d}".format(*on)


def test_runs_are_shared_between_tables():
    table1, table2 = (find(name)[0] for name in ("table1", "table2"))
    assert set(table2.rows[-1].cells[k].runs for k in range(0, 12, 3)) == {
        Runs(d, "Midas") for d in paper_tables.FOUR
    }
    assert {c.runs for c in table2.rows[-1].cells} == {c.runs for c in table1.rows[-1].cells}


def test_a_default_lambda_names_the_default_runs():
    assert midas("kinetics", lam=5.0) == Runs("kinetics", "Midas")
    assert midas("cremad", lam=1.0) == Runs("cremad", "Midas")
    assert midas("kinetics", lam=1.0) == Runs("kinetics", "Midas", (("lam", 1.0),))


def test_all_runs_take_other_settings_where_they_have_them():
    chosen = [a for a in ARTIFACTS if a.id in ("table1", "figure4", "figure2")]
    given = {"max_epochs": "3", "size": "32", "vocabulary": "build", "weights": "none"}
    changed = adapted(chosen, given)
    names = {runs.name for runs, _ in needed(changed)}
    assert "kinetics/Midas/max_epochs=3,size=32" in names
    assert "food101/SMV/max_epochs=3,size=32,vocabulary=build,weights=none" in names
    assert [a.id for a in changed] == [a.id for a in chosen]
    assert adapted(chosen, {}) == chosen
    assert set(needed([changed[1]])) < set(needed([changed[0]]))  # still shared


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("table6", {"lam": "2"}, "--set lam: the entry varies it itself"),
        ("table1", {"colour": "red"}, "--set colour: no run of these"),
        ("table1", {"max_epochs": "none"}, "--max_epochs"),
    ],
)
def test_settings_that_cannot_be_set_are_refused(name, given, words):
    with pytest.raises(UsageError, match=words):
        adapted(find(name), given)


@pytest.mark.parametrize("words", [["size"], ["=3"], ["size=3", "size=4"]])
def test_settings_of_another_form_are_refused(words):
    with pytest.raises(UsageError, match="--set takes KEY=VALUE"):
        read_settings(words)


def test_settings_are_read_with_their_values_as_they_stand():
    assert read_settings(["--size=32", "weights=/a=b"]) == {"size": "32", "weights": "/a=b"}


def test_no_entry_beside_the_papers_compares_with_it():
    others = [*extra_tables.ARTIFACTS, *find("demo")]
    assert list(cells_of_the_paper([t for t in others if isinstance(t, Table)])) == []
    assert all(not figure.seeds == () for figure in paper_figures.ARTIFACTS)
