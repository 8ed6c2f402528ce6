"""A sample of the long form (`make faults`): faults spread over each scenario's operations."""

import pytest
from harness import Bench, compiler
from run_faults import make_inputs
from scenarios import FAULTS, meet, preparation, reference, tables, training

pytestmark = pytest.mark.skipif(not compiler(), reason="needs Linux and a C compiler")
POINTS = {"training": 10, "preparation": 8, "tables": 6}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_nothing_is_lost_whichever_operation_fails(bench, inputs, tmp_path, name):
    raw = inputs / "raw"
    scenario = {
        "training": training(raw, inputs / "data"),
        "preparation": preparation(raw),
        "tables": tables(inputs / "results"),
    }[name]
    operations, due = reference(bench, scenario, tmp_path / "due")
    count = POINTS[name]
    assert operations > 2 * count  # the library sees them
    for k in range(count):
        at, mode = 1 + k * (operations - 1) // (count - 1), FAULTS[k % len(FAULTS)]
        verdict = meet(bench, scenario, tmp_path / "place", at, mode, due)
        assert not verdict.wrong, verdict


def test_a_fault_does_happen(bench, inputs, tmp_path):
    scenario = preparation(inputs / "raw")
    for mode, words in (("full disk", "no space is left"), ("I/O error", "I/O error")):
        outcome = bench.run(scenario.begin(tmp_path / mode), 40, mode)
        assert outcome.status == 74 and words in outcome.output
        (line,) = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        assert line.endswith("are whole and stay: the same command goes on from there")
    assert bench.run(scenario.begin(tmp_path / "kill"), 40, "kill").status == -9
