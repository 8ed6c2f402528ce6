"""Welch's test, Holm's correction and verdicts, against numbers worked by hand."""

import math

import pytest
from fake_runs import fake_run
from scipy import stats

from experiments.paper import registry
from experiments.paper.adapt import with_settings
from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.report import compare as module
from experiments.report.compare import paper_results, verdict_counts, why_not_comparable
from experiments.report.evaluate import evaluate
from experiments.report.reader import Reader
from experiments.report.statistics import Summary, holm, summarise, welch

JOINT, MIDAS = RunSet("cremad", "Joint"), RunSet("cremad", "Midas")
ACC = Column("Acc")


def test_welch_of_two_summaries_by_hand():
    """a = 1/3, b = 4/3: se 1.29099, df 2.94118; t = 3.87298, integrated numerically."""
    found = welch(Summary(75.0, 1.0, 3), Summary(70.0, 2.0, 3))
    assert found.p == pytest.approx(0.031562, abs=1e-6)
    half = 3.218759 * math.sqrt(5 / 3)  # t(0.975; 2.94118)
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half), abs=1e-5)


def test_welch_agrees_with_the_same_test_on_samples():
    a, b = [1.0, 2.0, 4.0], [3.0, 3.5, 6.0, 9.0]
    found, oracle = welch(summarise(a), summarise(b)), stats.ttest_ind(a, b, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert tuple(found) == pytest.approx((interval.low, interval.high, oracle.pvalue))


def test_what_has_no_spread_is_untestable():
    single, exact, spread = Summary(1.0, None, 1), Summary(1.0, 0.0, 3), Summary(2.0, 1.0, 3)
    assert welch(single, spread) is welch(spread, single) is welch(exact, exact) is None
    assert welch(exact, spread).p < 1  # one deviation is enough


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def table(*places, column=ACC):
    """A row for each (runs, metric), next to the paper's number for that metric."""
    rows = tuple(
        Row(runs.method, (Cell(runs, "test/acc", ("t", "cremad", runs.method, "", metric)),))
        for runs, metric in places or ((JOINT, "acc"), (MIDAS, "acc"))
    )
    return Table("t", "T.", (column,), rows)


def three_runs(results, runs, **more):
    for seed, acc in ((1, 0.74), (2, 0.75), (3, 0.76)):
        fake_run(results, runs, seed, acc=acc, **more)


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """The compared cells of a table, given these lines of the paper's numbers."""

    def compared(table, *lines):
        path = tmp_path / "paper.csv"
        path.write_text("\n".join(["table,dataset,method,variant,metric,mean,std", *lines]) + "\n")
        paper_results.cache_clear()
        monkeypatch.setattr(module, "paper_results", lambda: paper_results(path))
        return evaluate(table, Reader(tmp_path)).compared

    return compared


def verdicts(cells):
    return [cell.verdict for cell in cells]


def test_verdicts_are_corrected_over_the_family(tmp_path, compared):
    """p = 0.031562 for each: significant alone, but not as one of two."""
    three_runs(tmp_path, JOINT)
    three_runs(tmp_path, MIDAS)
    found = compared(table(), "t,cremad,Joint,,acc,70.0,2.0", "t,cremad,Midas,,acc,80.0,2.0")
    assert verdicts(found) == ["agrees", "agrees"]
    assert (found[0].test.p, found[0].p_holm) == pytest.approx((0.031562, 0.063124), abs=2e-6)
    assert [cell.difference for cell in found] == pytest.approx([5.0, -5.0])
    found = compared(table(), "t,cremad,Joint,,acc,70.0,1.0", "t,cremad,Midas,,acc,80.0,1.0")
    assert verdicts(found) == ["higher", "lower"]


def test_each_metric_is_a_family(tmp_path, compared):
    three_runs(tmp_path, JOINT)
    both = table((JOINT, "acc"), (JOINT, "f1"))
    found = compared(both, "t,cremad,Joint,,acc,70.0,2.0", "t,cremad,Joint,,f1,70.0,2.0")
    assert verdicts(found) == ["higher", "higher"]


def test_one_run_is_untestable_and_none_is_missing(tmp_path, compared):
    fake_run(tmp_path, JOINT, 1, acc=0.7)
    found = compared(table(), "t,cremad,Joint,,acc,70.0,2.0", "t,cremad,Midas,,acc,80.0,")
    assert verdict_counts(found) == {"untestable": 1, "missing": 1}
    assert found[0].difference == pytest.approx(0.0) and found[1].difference is None


def test_counts_agree_or_do_not(tmp_path, compared):
    fake_run(tmp_path, JOINT, 1, acc=5209)
    fake_run(tmp_path, MIDAS, 1, acc=5208)
    counts = table(column=Column("#train", percent=False, digits=0, counts=True))
    lines = ("t,cremad,Joint,,acc,5209,", "t,cremad,Midas,,acc,5209,")
    assert verdicts(compared(counts, *lines)) == ["agrees", "lower"]


def test_runs_of_few_samples_or_other_settings_are_not_comparable(tmp_path, compared):
    """No verdict from 24 of 7,442 samples or from three epochs."""
    three_runs(tmp_path, JOINT, samples=24)
    three_runs(tmp_path, MIDAS, samples=7400)
    lines = ("t,cremad,Joint,,acc,70.0,1.0", "t,cremad,Midas,,acc,80.0,1.0")
    first, second = compared(table(), *lines)
    assert (first.verdict, first.differs) == ("not comparable", "24 of 7,442 samples of cremad")
    assert first.test is None and first.difference == pytest.approx(5.0)
    assert (second.verdict, second.differs) == ("lower", "")
    found = compared(with_settings(table(), {"max_epochs": "3"}), *lines)
    assert verdicts(found) == ["not comparable"] * 2
    assert "max_epochs=3, 24 of 7,442" in why_not_comparable(found)
    assert compared(with_settings(table(), {"recipe": "official"}), *lines)[1].verdict == "lower"


def test_the_papers_file_is_read_with_its_gaps_and_each_place_once(tmp_path):
    found = paper_results()
    assert found["table1", "kinetics", "Joint", "", "acc"] == Summary(63.92, 0.23, 3)
    assert found["table6", "cremad", "Midas", "lambda=2", "f1"] == Summary(73.31, None, 1)
    assert ("table6", "food101", "Midas", "lambda=10", "acc") not in found  # n/a
    path = tmp_path / "p.csv"
    path.write_text("table,dataset,method,variant,metric,mean,std\n" + "t,d,m,,acc,1,\n" * 2)
    with pytest.raises(Exception, match="line 3: .* occurs twice"):
        paper_results(path)


def test_each_number_of_the_paper_belongs_to_one_cell_of_the_papers_tables():
    tables = [a for a in registry.ARTIFACTS if isinstance(a, Table)]
    used = [cell.paper for one in tables for _, _, cell in one.cells() if cell.paper]
    assert len(used) == len(set(used)) and set(used) == set(paper_results())
    others = [*registry.GROUPS["extra"], *registry.GROUPS["demo"]]
    assert not any(one.repeats for one in others if isinstance(one, Table))


def test_what_the_notes_on_the_paper_compute_is_right():
    """The gains over other baselines, and the bound on F1 that classes of equal size allow."""
    paper = paper_results()
    gains = {("kinetics", "MCR"): 3.13, ("cremad", "MCR"): 4.08}
    gains |= {("kinetics", "OPM"): 7.53, ("cremad", "AMCo"): 5.08}
    for (dataset, method), gain in gains.items():
        first, second = (paper["table1", dataset, m, "", "acc"].mean for m in ("Midas", method))
        assert first - second == pytest.approx(gain)
    for (table, dataset, method, variant, metric), one in paper.items():
        if (table, metric) == ("table1", "acc") and dataset in ("ucf101", "food101"):
            bound = 100 * 2 * (one.mean / 100) ** 2 / (1 + one.mean / 100)
            assert paper[table, dataset, method, variant, "f1"].mean < bound
