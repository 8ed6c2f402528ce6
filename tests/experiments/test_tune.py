"""`python -m experiments tune`: what is searched, and that a killed search loses no trial."""

import json

import optuna
import pytest
from conftest import program, start
from fake_runs import fake_run

import methods
from common.files import locked
from common.options import UsageError
from experiments.launch.tune import Search, open_study, rounded, space, suggest, tune
from experiments.paper.kinds import SEEDS, Table
from experiments.report.evaluate import evaluate
from experiments.report.own import tuned_artifacts
from experiments.report.reader import Reader

FIXED = {"max_epochs": "2"}


class Launcher:
    """Makes runs whose accuracy is best at lr 0.1, or stops before the one at `stop`."""

    def __init__(self, results, stop=None):
        self.results, self.stop, self.made = results, stop, []

    def __call__(self, tasks):
        for task in tasks:
            if len(self.made) == self.stop:
                return 1
            lr = dict(task.runs.overrides).get("lr", 0.045)
            fake_run(self.results, task.runs, task.seed, acc=1 - abs(lr - 0.1), samples=10)
            self.made.append(task)
        return 0


def search_of(trials=6, method="Midas", fixed=FIXED):
    return Search("demo", method, trials, fixed)


@pytest.mark.parametrize("method", [name for name in methods.METHODS if name != "Unimodal"])
def test_searched_values_are_valid_and_cover_the_default(method):
    """The bounds of each setting hold, and its default is inside what is searched."""
    searched = space("demo", method)
    for ends in (0, 1):
        values = {}
        for name, how in searched.items():
            values[name] = how[1 + ends] if how[0] == "of" else how[ends]
        assert set(dict(search_of(method=method).runs(values).overrides)) >= {"lr"}
    defaults = {"lr": 0.045} | {name: getattr(methods.load(method).HParams(), name)
                                for name in searched if name != "lr"}  # fmt: skip
    for name, how in searched.items():
        inside = defaults[name] in how[1:] if how[0] == "of" else how[0] <= defaults[name] <= how[1]
        # LFM's -1 stands for its published rule; a search tries fixed values.
        assert inside or (method, name) == ("LFM", "alpha_match"), (name, defaults[name])


def test_trials_are_chosen_by_validation_and_end_in_a_table(tmp_path, capsys):
    folder = tmp_path / "tune"
    launch = Launcher(folder)
    assert tune(search_of(), Reader(folder), launch, 2) == 0
    assert len(launch.made) == 6 and {task.seed for task in launch.made} == {0}
    rates = [dict(task.runs.overrides)["lr"] for task in launch.made]
    assert len(set(rates)) == 6 and all(float(f"{x:.4g}") == x for x in rates)
    best = min(rates, key=lambda lr: abs(lr - 0.1))
    out = capsys.readouterr().out
    assert f"best of 6 trials: val/acc {1 - abs(best - 0.1):.4f}" in out
    assert (
        f" --lr {best} --max_epochs 2 --results_dir {tmp_path}; done" in out
        and "for seed in 1 2 3" in out
    )
    assert tune(search_of(), Reader(folder), launch, 2) == 0 and len(launch.made) == 6
    assert tune(search_of(8), Reader(folder), launch, 2) == 0 and len(launch.made) == 8
    (table,) = tuned_artifacts(Reader(tmp_path))
    assert isinstance(table, Table) and table.id == "extra-tuned-demo"
    (runs,) = {cell.runs for _, _, cell in table.cells()}
    for seed in SEEDS:
        fake_run(tmp_path, runs, seed, acc=0.9, samples=10)
    assert table.rows[0].label == "Midas, max_epochs 2 (8 trials)"
    assert evaluate(table, Reader(tmp_path)).missing == []


def test_a_search_that_was_stopped_goes_on_with_its_unfinished_trials(tmp_path):
    first, second = Launcher(tmp_path, stop=3), Launcher(tmp_path)
    assert tune(search_of(), Reader(tmp_path), first, 2) == 1
    study = open_study(tmp_path, search_of().name)
    asked = [rounded(t.params) for t in study.trials]
    assert len(asked) == 4  # the fourth was begun
    half = study.ask()
    half.suggest_float("lr", 0.0045, 0.45, log=True)  # killed while its values were drawn
    assert tune(search_of(), Reader(tmp_path), second, 2) == 0
    assert dict(second.made[0].runs.overrides)["lr"] == asked[3]["lr"]
    made = {dict(task.runs.overrides)["lr"] for task in first.made + second.made}
    assert len(first.made) + len(second.made) == len(made) == 6
    states = [t.state.name for t in open_study(tmp_path, search_of().name).trials]
    assert states.count("COMPLETE") == 6 and states.count("FAIL") == 1


def test_other_fixed_settings_are_another_search_and_are_not_searched(tmp_path):
    fixed = FIXED | {"lr": "0.1", "eta": "0.05"}
    launch = Launcher(tmp_path)
    assert tune(search_of(2, fixed=fixed), Reader(tmp_path), launch, 1) == 0
    assert {dict(task.runs.overrides)["lr"] for task in launch.made} == {0.1}
    assert search_of(fixed=fixed).name != search_of().name
    with pytest.raises(UsageError, match="nothing to search for Joint: --set fixes all of it"):
        tune(search_of(2, "Joint", {"lr": "0.1"}), Reader(tmp_path), launch, 1)


def test_settings_that_are_unknown_or_do_not_fit_are_refused_before_the_search(tmp_path):
    for fixed, message in (
        ({"seed": "3"}, "unknown setting 'seed'"),
        ({"fusion": "film"}, "--fusion film does not work with OGM"),
    ):
        with pytest.raises(UsageError, match=message):
            tune(search_of(2, "OGM", fixed), Reader(tmp_path), Launcher(tmp_path), 1)
    assert not list(tmp_path.iterdir())


def test_one_search_is_made_by_one_process(tmp_path):
    with locked(tmp_path / f".{search_of().name}.lock", "busy"):
        with pytest.raises(UsageError, match="another process is searching demo-Midas"):
            tune(search_of(), Reader(tmp_path), Launcher(tmp_path), 1)


def test_categories_are_suggested():
    study = optuna.create_study()
    found = {suggest(study.ask(), {"a": ("of", 1, 2)})["a"] for _ in range(20)}
    assert found == {1, 2}


def test_without_a_search_there_is_no_table(tmp_path):
    with pytest.raises(UsageError, match="no finished search"):
        tuned_artifacts(Reader(tmp_path))


@pytest.mark.slow
def test_a_killed_tuner_loses_no_trial(demo_data, tmp_path):
    """Killed in the middle of its second trial, with real runs; the run it made is not repeated."""
    fixed = ("max_epochs=1", "batch_size=64")
    places = ("--data_dir", demo_data[1], "--results_dir", tmp_path, "--devices", "cpu")
    line = ("-m", "experiments", "tune", "demo", "Joint", "--trials", "3", *places)
    line = [str(word) for word in (*line, "--jobs", "1", "--set", *fixed)]
    process = start(line)
    while not process.stdout.readline().startswith("done"):
        assert process.poll() is None
    process.kill()
    process.communicate()
    (one,) = (tmp_path / "tune").glob("runs/demo/Joint/*/seed0/result.json")
    before = one.stat().st_mtime_ns
    done = program(*line)
    assert done.returncode == 0, done.stderr
    made = list((tmp_path / "tune").glob("runs/demo/Joint/*/seed0/result.json"))
    assert one in made and one.stat().st_mtime_ns == before and len(made) == 3
    (about,) = (tmp_path / "tune").glob("*.json")
    best = max(json.loads(path.read_bytes())["val/acc"] for path in made)
    assert json.loads(about.read_bytes())["val/acc"] == best
    refused = program(*line[:4], "nope", *line[5:])
    assert refused.returncode == 2 and "unknown method 'nope'" in refused.stderr
