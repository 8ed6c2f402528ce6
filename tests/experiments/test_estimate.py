"""How long missing runs are said to take, from made-up runs with known seconds an epoch."""

import pytest
from conftest import program
from fake_runs import fake_run

from experiments.launch.estimate import Estimator, duration, left
from experiments.paper.illustration import JOINT, MIDAS, MIDAS_UNWEIGHTED
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader
from experiments.run.folder import RunFolder


def timed_run(results, runs, seed, *epochs, max_epochs=0, **more):
    """A run whose epochs lasted so many seconds; `max_epochs` where its method made more."""

    def log(epoch):
        return {"time/epoch_s": float(epochs[epoch - 1])}

    count = len(epochs) + (0 if more.get("done", True) else 1)
    folder = fake_run(results, runs, seed, epochs=count, best=1, log=log, **more)
    config = folder.read_json("config.json")
    config["settings"] |= {"max_epochs": max_epochs} if max_epochs else {}
    folder.write_json("config.json", config)
    return folder


def test_the_median_epoch_of_the_same_runs_times_their_epochs(tmp_path):
    timed_run(tmp_path, MIDAS, 1, 9.0, 2.0, 2.0)
    timed_run(tmp_path, MIDAS, 2, 4.0, 4.0, 4.0)
    timed_run(tmp_path, JOINT, 1, 1.0)
    timed_run(tmp_path, MIDAS_UNWEIGHTED, 1, 1.0)
    assert Estimator(Reader(tmp_path)).seconds(MIDAS, 3) == 30 * 3.0  # 30 epochs, medians 2 and 4


def test_another_variant_stands_in_before_another_method(tmp_path):
    timed_run(tmp_path, MIDAS_UNWEIGHTED, 1, 5.0)
    timed_run(tmp_path, JOINT, 1, 1.0)
    assert Estimator(Reader(tmp_path)).seconds(MIDAS, 3) == 30 * 5.0


def test_what_is_done_or_behind_does_not_count(tmp_path):
    timed_run(tmp_path, JOINT, 1, 2.0, 2.0)
    timed_run(tmp_path, JOINT, 2, 4.0, 4.0, 4.0, done=False)
    timed_run(tmp_path, JOINT, 4, 9.0, 9.0).file("result.json").write_text("{")
    estimator = Estimator(Reader(tmp_path))
    assert estimator.seconds(JOINT, 1) == 0
    assert estimator.seconds(JOINT, 2) == (30 - 3) * 3.0
    assert estimator.seconds(JOINT, 4) == 30 * 3.0  # unusable: anew, and no measure for others


def test_a_run_that_has_begun_is_its_own_measure(tmp_path):
    timed_run(tmp_path, JOINT, 2, 4.0, done=False)
    assert Estimator(Reader(tmp_path)).seconds(JOINT, 2) == 29 * 4.0


def test_overrides_of_the_epochs_count(tmp_path):
    timed_run(tmp_path, JOINT, 1, 2.0)
    short = RunSet("demo", "Joint", (("max_epochs", 5),))
    assert Estimator(Reader(tmp_path)).seconds(short, 1) == 5 * 2.0
    timed_run(tmp_path, short, 2, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert Estimator(Reader(tmp_path)).seconds(JOINT, 2) == 30 * 1.5


def test_stages_of_a_methods_own_count(tmp_path):
    gmm = RunSet("demo", "GMM")
    timed_run(tmp_path, gmm, 1, *[2.0] * 10, max_epochs=8)
    assert Estimator(Reader(tmp_path)).seconds(gmm, 2) == (30 + 2) * 2.0
    assert Estimator(Reader(tmp_path)).seconds(JOINT, 2) == 30 * 2.0


def test_settings_that_cost_time_keep_runs_apart(tmp_path):
    timed_run(tmp_path, JOINT, 1, 2.0)
    assert Estimator(Reader(tmp_path)).seconds(RunSet("demo", "Joint", (("size", 64),)), 1) is None


def test_another_method_is_corrected_by_data_sets_with_both(tmp_path):
    for dataset, joint, midas in (("cremad", 1.0, 2.0), ("kinetics", 10.0, 40.0)):
        timed_run(tmp_path, RunSet(dataset, "Joint"), 1, joint)
        timed_run(tmp_path, RunSet(dataset, "Midas"), 1, midas)
    timed_run(tmp_path, JOINT, 1, 5.0)
    timed_run(
        tmp_path, RunSet("demo", "Mixup"), 1, 100.0
    )  # its cost relative to MIDAS is not known
    assert Estimator(Reader(tmp_path)).seconds(MIDAS, 1) == 30 * 5.0 * 3.0  # the median of 2 and 4


def test_another_method_stands_in_as_it_is_without_such_data_sets(tmp_path):
    timed_run(tmp_path, JOINT, 1, 5.0)
    timed_run(tmp_path, RunSet("demo", "Mixup"), 1, 7.0)
    assert Estimator(Reader(tmp_path)).seconds(MIDAS, 1) == 30 * 6.0


def test_nothing_is_said_without_a_run_of_the_data_set(tmp_path):
    assert Estimator(Reader(tmp_path)).seconds(JOINT, 1) is None
    timed_run(tmp_path, RunSet("cremad", "Joint"), 1, 5.0)
    assert Estimator(Reader(tmp_path)).seconds(JOINT, 1) is None


@pytest.mark.parametrize(
    "name, text",
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"dataset": "demo"}'),
        ("log.jsonl", '[1]\n{"epoch": 1}\n{"epoch": 2, "time/epoch_s": "x"}\n'),
        ("log.jsonl", "\udcff"),
        ("log.jsonl", '{"time/epoch_s": NaN}\n{"time/epoch_s": 0}\n{"time/ep'),
    ],
)
def test_damaged_folders_are_no_measure(tmp_path, name, text):
    folder = timed_run(tmp_path, JOINT, 1, 4.0, done=False)
    folder.file(name).write_text(text, encoding="utf-8", errors="surrogateescape")
    timed_run(tmp_path, JOINT, 2, 2.0, done=False)
    assert Estimator(Reader(tmp_path)).seconds(JOINT, 3) == 30 * 2.0


def test_each_log_is_read_once_for_all_estimates(tmp_path, monkeypatch):
    read, before = [], RunFolder.read_log
    monkeypatch.setattr(RunFolder, "read_log", lambda self: read.append(self.path) or before(self))
    for seed in (1, 2, 3):
        timed_run(tmp_path, JOINT, seed, 2.0, done=seed > 1)
    reader = Reader(tmp_path)
    estimator = Estimator(reader)
    for runs in (JOINT, MIDAS, MIDAS_UNWEIGHTED):
        for seed in range(1, 6):
            assert estimator.seconds(runs, seed) is not None
    assert len(read) == len(set(read)) == 3


def test_times_in_words():
    shown = {0.4: "0 s", 40: "40 s", 60: "1.0 min", 800: "13 min", 3590: "1.0 h", 9000: "2.5 h"}
    shown |= {40 * 3600: "40 h", 50 * 3600: "2.1 days", 30 * 86400: "30 days"}
    assert {value: duration(value) for value in shown} == shown


def test_a_sum_says_what_it_leaves_out():
    assert left([60.0, 0.0, 30.0]) == "about 1.5 min left"
    assert left([60.0, None, None]) == "about 1.0 min left, without 2 that have no estimate"
    assert left([None]) == left([0.0, None]) == "no estimate"
    assert left([0.0]) == left([]) == ""


def test_estimates_do_without_torch():
    code = "import sys, experiments.launch.estimate; assert 'torch' not in sys.modules"
    assert program("-c", code).returncode == 0
