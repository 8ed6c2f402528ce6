"""The registry: every entry resolves, and every number of the paper has a cell."""

import pytest
from conftest import ROOT, program

from common.options import UsageError
from experiments.paper import extras, tables
from experiments.paper.adapt import RELEASE_PAIRS, adapted, read_settings
from experiments.paper.illustration import DEMO_RECIPE
from experiments.paper.kinds import RunSet, Table
from experiments.paper.registry import ARTIFACTS, needed, select
from experiments.paper.rows import TAKEN_BACK
from experiments.run import recipe
from experiments.run.resolve import resolve, run_from_config

TABLES = [a for a in ARTIFACTS if isinstance(a, Table)]


def resolved(runs):
    return resolve(runs.arguments(1), "")[0]


def named(*names):
    return [artifact for name in names for artifact in select([name])]


def test_every_run_has_the_name_that_train_would_give_it():
    """A setting at its default value would give a different folder than train.py's."""
    for runs in {runs for runs, _ in needed(ARTIFACTS)}:
        run = resolved(runs)
        assert (run.dataset, run.method) == (runs.dataset, runs.method)
        assert run.differing == dict(runs.overrides)


def test_the_tables_and_figures_of_the_paper_are_all_there():
    names = [a.id for a in ARTIFACTS]
    assert names[:8] == [f"table{k}" for k in range(1, 9)]
    assert [n for n in names if n.startswith("figure")] == [f"figure{k}" for k in range(1, 8)]
    assert len(set(names)) == len(names)
    for artifact in ARTIFACTS:
        assert select([artifact.id.upper()]) == [artifact]
        for panel in getattr(artifact, "panels", ()):
            wanted = len(panel.groups) if artifact.kind == "bars" else 1
            assert all(len(series.values) == wanted for series in panel.series)
    demo = [n for n in names if n == "figure2" or n[:5] == "demo-"]
    assert [a.id for a in select(["Demo"])] == demo
    assert [a.id for a in select(["demo-figure6", "table1"])] == ["table1", "demo-figure6"]


def test_overrides_become_flags_and_a_folder(tmp_path):
    runs = RunSet("demo", "Midas", (("weak_modality", False), ("lam", 5.0)))
    assert runs.command(2) == (
        "python train.py --dataset demo --method Midas --seed 2 --weak_modality off --lam 5"
    )
    folder = runs.folder(tmp_path, 2).path.relative_to(tmp_path)
    assert str(folder) == "runs/demo/Midas/lam=5,weak_modality=off/seed2"


def test_a_cell_is_beside_the_papers_number_of_the_same_thing():
    for cell in [cell for table in TABLES for _, _, cell in table.cells() if cell.paper]:
        _, dataset, method, variant, metric = cell.paper
        assert dataset == cell.runs.dataset and method in ("", cell.runs.method)
        if metric in ("acc", "f1"):
            assert metric == ("acc" if "acc" in cell.key else "f1")
            assert cell.key != "test/f1_macro"
        if variant.startswith(("similarity=", "lambda=", "level=")):
            key, value = variant.replace("lambda", "lam").split("=")
            assert str(getattr(resolved(cell.runs).hparams, key)).removesuffix(".0") == value
        if variant.startswith("W"):
            h = resolved(cell.runs).hparams
            on = (h.warmup_epochs > 0, h.weak_modality, h.hard_sample)
            assert variant == "W{:d}_WM{:d}_HS{:d}".format(*on)


def test_runs_are_shared_between_tables():
    table1, table2 = named("table1", "table2")
    assert {c.runs for c in table2.rows[-1].cells} == {c.runs for c in table1.rows[-1].cells}


def test_the_late_control_decays_where_midas_does():
    for row in extras.CONTROLS.rows:
        for cell in filter(None, row.cells):
            run = resolved(cell.runs)
            warmup = run.hparams.warmup_epochs if row.label == "MIDAS" else 0
            first = 15 if cell.runs.dataset == "food101" else 50
            late = row.label in ("MIDAS", "Joint, lr_step 60") and first == 50
            assert run.settings.lr_step + warmup * late == (60 if late else first)


def test_the_recipe_table_reverts_one_difference_per_row():
    paper, release, *backs = extras.RECIPE.rows
    for place, default in enumerate(paper.cells):
        wants, has = (resolved(c.runs).hparams for c in (default, release.cells[place]))
        for (key, value), row in zip(TAKEN_BACK.values(), backs, strict=True):
            if row.cells[place] is None:
                assert getattr(has, key) == value and default.runs.dataset == "food101"
                continue
            own = resolved(row.cells[place].runs).hparams
            changed = {k for k, v in vars(own).items() if v != getattr(has, k)}
            assert changed - {"alpha_cap"} == {key} and getattr(own, key) == value
            assert key == "lr_from" or getattr(wants, key) == value


def test_the_demos_recipe_is_the_releases_except_what_differs_between_datasets():
    own = dict(DEMO_RECIPE.rows[1].cells[0].runs.overrides)
    assert own == {key: recipe.MIDAS["cremad"][key] for key, _ in TAKEN_BACK.values()}
    taken = [row.cells[0].runs.overrides for row in DEMO_RECIPE.rows[2:]]
    assert [set(own) - set(dict(one)) for one in taken] == [{k} for k, _ in TAKEN_BACK.values()]


def test_all_runs_take_other_settings_if_they_have_them():
    chosen = named("table1", "figure2", "figure4")
    changed = adapted(
        chosen, {"max_epochs": "3", "size": "32", "vocabulary": "build", "weights": "none"}
    )
    names = {runs.name for runs, _ in needed(changed)}
    assert "kinetics/Midas/max_epochs=3,size=32" in names
    assert "food101/SMV/max_epochs=3,size=32,vocabulary=build,weights=none" in names
    # Files and captions name the settings, so tables without them are kept.
    settings = "max_epochs=3,size=32,vocabulary=build,weights=none"
    assert [a.id for a in changed] == [f"{a.id}-{settings}" for a in chosen]
    assert all(a.caption.endswith(f"{settings.replace(',', ', ')}.") for a in changed)
    assert adapted(chosen, {}) == chosen
    assert set(needed([changed[2]])) < set(needed([changed[0]]))  # still shared


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("table6", {"lam": "2"}, "--set lam: this table or figure varies it"),
        ("table1", {"colour": "red"}, "--set colour: no run of these"),
        ("table1", {"max_epochs": "none"}, "--max_epochs"),
        ("table7", {"recipe": "official"}, "has this setting; the authors' release has cremad, k"),
    ],
)
def test_settings_that_cannot_be_set_are_refused(name, given, words):
    with pytest.raises(UsageError, match=words):
        adapted(named(name), given)


@pytest.mark.parametrize("words", [["size"], ["=3"], ["size=3", "size=4"]])
def test_malformed_settings_are_refused(words):
    with pytest.raises(UsageError, match="--set takes KEY=VALUE"):
        read_settings(words)
    assert read_settings(["--size=32", "weights=/a=b"]) == {"size": "32", "weights": "/a=b"}


def test_the_official_recipe_applies_only_to_datasets_of_the_release():
    counts, accuracy, others = named("table5", "text-figure1", "table7")
    given = {"recipe": "official", "max_epochs": "3"}
    table5, figure1, table7 = adapted([counts, accuracy, others], given)
    names = {cell.runs.name for _, _, cell in table5.cells()}
    assert {"cremad/Joint/max_epochs=3,recipe=official", "mosi/Joint/max_epochs=3"} < names
    assert "no mosi, sarcasm, twitter2015" in table5.notes[-1]
    assert "no sarcasm, twitter2015" in table7.notes[-1]
    assert figure1.rows[0].cells[1].key == "val/acc_mis_release"
    assert figure1.notes == (*accuracy.notes, RELEASE_PAIRS)
    assert adapted([accuracy], {"max_epochs": "3"})[0].notes == accuracy.notes


def test_an_entry_that_varies_a_setting_is_left_out_if_others_take_it(capsys):
    kept = adapted([tables.TABLE_1, extras.RECIPE], {"recipe": "official"})
    assert [artifact.id for artifact in kept] == ["table1-recipe=official"]
    assert "note: extra-recipe is skipped: --set recipe" in capsys.readouterr().err


def test_the_page_of_both_recipes_is_what_the_command_prints():
    made = program("-m", "experiments", "recipe")
    assert (made.returncode, made.stderr) == (0, "")
    assert (ROOT / "docs" / "recipe.md").read_text("utf-8") == made.stdout
    assert "| **`alpha_cap`** | **0** | **10** |" in made.stdout


def test_a_run_of_an_older_version_is_not_evaluated_under_todays_defaults():
    config = resolve(["--dataset", "cremad"], "")[0].config()
    assert run_from_config(config).config() == config
    for part, name in (("settings", "last_batch"), ("prep", "crop"), ("hparams", "alpha_rule")):
        older = config | {part: {k: v for k, v in config[part].items() if k != name}}
        with pytest.raises(UsageError, match=f"an older version without the setting {name}"):
            run_from_config(older)
