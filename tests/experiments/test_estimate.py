"""The estimated time of missing runs, from made-up runs with known seconds per epoch."""

import pytest
from fake_runs import fake_run

from common.program import duration
from experiments.launch.estimate import Estimator, time_left
from experiments.paper.illustration import JOINT, MIDAS
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader


def timed_run(results, runs, seed, *seconds, done=True):
    """A run whose epochs took these seconds."""
    epochs = len(seconds) if done else len(seconds) + 1
    lines = dict(enumerate(({"time/epoch_s": value} for value in seconds), 1))
    return fake_run(results, runs, seed, epochs=epochs, best=1, log=lines.get, done=done)


def seconds(results, runs, seed):
    return Estimator(Reader(results)).seconds(runs, seed)


def test_the_same_method_is_preferred_and_other_datasets_are_never_used(tmp_path):
    timed_run(tmp_path, RunSet("cremad", "Joint"), 1, 5.0)
    assert seconds(tmp_path, MIDAS, 3) is None
    timed_run(tmp_path, JOINT, 1, 1.0)
    assert seconds(tmp_path, MIDAS, 3) == 30 * 1.0
    timed_run(tmp_path, MIDAS, 1, 9.0, 2.0, 2.0)
    timed_run(tmp_path, MIDAS, 2, 4.0, 4.0, 4.0)
    assert seconds(tmp_path, MIDAS, 3) == 30 * 3.0  # 30 epochs, medians 2 and 4
    assert seconds(tmp_path, RunSet("demo", "Midas", (("max_epochs", 5),)), 1) == 5 * 3.0


def test_finished_runs_and_epochs_do_not_count(tmp_path):
    timed_run(tmp_path, JOINT, 1, 2.0, 2.0)
    timed_run(tmp_path, JOINT, 2, 4.0, 4.0, 4.0, done=False)
    assert seconds(tmp_path, JOINT, 1) == 0
    assert seconds(tmp_path, JOINT, 2) == (30 - 3) * 2.0
    fake_run(tmp_path, JOINT, 4).file("result.json").write_text("{")
    assert seconds(tmp_path, JOINT, 4) == 30 * 2.0  # its folder is unusable: start over


@pytest.mark.parametrize("log", ["[1]\n", "\udcff", '{"time/epoch_s": NaN}\n{"time'])
def test_damaged_logs_are_ignored(tmp_path, log):
    folder = timed_run(tmp_path, JOINT, 1, 4.0)
    folder.file("log.jsonl").write_text(log, encoding="utf-8", errors="surrogateescape")
    timed_run(tmp_path, JOINT, 2, 2.0)
    assert seconds(tmp_path, JOINT, 3) == 30 * 2.0


def test_times_in_words():
    shown = {0.4: "0 s", 40: "40 s", 60: "1.0 min", 800: "13 min", 3590: "1.0 h", 9000: "2.5 h"}
    shown |= {40 * 3600: "40 h", 50 * 3600: "2.1 days", 30 * 86400: "30 days"}
    assert {value: duration(value) for value in shown} == shown
    assert time_left([60.0, None, 30.0]) == "about 1.5 min left, excluding 1 without an estimate"
    assert time_left([None]) == time_left([0.0, None]) == "no estimate"
    assert time_left([0.0]) == time_left([]) == ""
