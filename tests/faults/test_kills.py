"""A sample of the long version (`make faults`): faults, bit flips, and some of the messages."""

import random
import shutil

import pytest
from harness import FAULTS, Bench, Job, compiler
from scenarios import all_scenarios, flip, make_inputs, meet, meet_flip, stopped

from experiments.run.folder import RunFolder

pytestmark = pytest.mark.skipif(not compiler(), reason="needs Linux and a C compiler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def bench(folder):
    made = Bench(folder / "bench")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("training", 10), ("preparation", 8), ("tables", 6)])
def test_nothing_is_lost_whichever_operation_fails(bench, folder, tmp_path, name, count):
    scenario = all_scenarios(folder)[name]
    operations, due = scenario.reference(bench, tmp_path / "due")
    assert operations > 2 * count  # the library sees them
    for k in range(count):
        at, mode = 1 + k * (operations - 1) // (count - 1), FAULTS[k % len(FAULTS)]
        verdict = meet(bench, scenario, tmp_path / "place", at, mode, due)
        assert not verdict.wrong, verdict


def test_a_fault_does_happen(bench, folder, tmp_path):
    scenario = all_scenarios(folder)["preparation"]
    for mode, words in (("full disk", "no space left"), ("I/O error", "I/O error")):
        outcome = bench.run(scenario.begin(tmp_path / mode), 40, mode)
        assert outcome.status == 74 and words in outcome.output
        (line,) = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
        assert line.endswith("are complete and kept: run the same command to continue")
    assert bench.run(scenario.begin(tmp_path / "kill"), 40, "kill").status == -9


# Damage in a stopped run --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case(bench, folder):
    """(scenario, folder of the stopped run, its files that matter, the expected result)."""
    scenario = all_scenarios(folder)["training"]
    operations, due = scenario.reference(bench, folder / "due")
    return scenario, folder / "whole", stopped(bench, scenario, folder / "whole", operations), due


@pytest.fixture
def place(case, tmp_path):
    return shutil.copytree(case[1], tmp_path / "run")


@pytest.mark.slow
def test_a_flip_in_any_file_is_reported_or_changes_nothing(bench, case, tmp_path):
    scenario, whole, paths, due = case
    names = {path.name for path in paths}
    assert {"last.pt", "prev.pt", "best.pt", "log.jsonl", "config.json", "meta.json"} <= names
    for path in paths:
        verdict = meet_flip(bench, scenario, whole, tmp_path / "run", path, 0, due)
        assert not verdict.wrong, verdict


def test_a_flipped_checkpoint_is_skipped_for_the_one_before(bench, case, place):
    last = place / "run" / "last.pt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 4  # where the weights are
    last.unlink()
    last.write_bytes(data)
    outcome = bench.run(case[0].job(place))
    assert "last.pt is damaged (the checksum of" in outcome.output
    assert "resuming from prev.pt" in outcome.output and case[0].content(place) == case[3]


@pytest.mark.parametrize("lines", [b"", None, b"null\n", b'{"epoch": 1e999}\n'])
def test_lost_lines_of_the_log_are_restored_from_the_checkpoint(bench, case, place, lines):
    log = place / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes()[:900] if lines is None else lines)
    outcome = bench.run(case[0].job(place))
    assert "restored from the checkpoint" in outcome.output, outcome.output
    assert case[0].content(place) == case[3]


@pytest.mark.parametrize(("old", "new", "words"), [
    (",train", ",test", "was started with other data: the SHA-256 of the split"),
    (",train", ",training", "line {}: part 'training' is not in train, val, test"),
    ("id,part", "id,teil", "has no column 'part'; it has id, teil"),
    (",train", ",train,", "line {}: 3 cells, but the header has 2"),
])  # fmt: skip
def test_a_split_that_changed_since_the_run_began_is_refused(bench, case, place, old, new, words):
    (split,) = (place / "data").rglob("paper-seed1.csv")
    lines = split.read_text().splitlines()
    at = next(k for k, line in enumerate(lines) if old in line)
    lines[at] = lines[at].replace(old, new)
    split.write_text("\n".join(lines) + "\n")
    outcome = bench.run(case[0].job(place))
    assert outcome.status == 2 and words.format(at + 1) in outcome.output, outcome.output
    if "started" in words:
        then, now = [word for word in outcome.output.split() if word.endswith("...")]
        assert then != now


def test_a_finished_run_is_not_evaluated_with_other_weights(bench, case, folder, tmp_path):
    run = shutil.copytree(folder / "due", tmp_path / "due") / "run"
    flip(run / "best.pt", random.Random(3))
    argv = (str(run / "best.pt"), "--devices", "cpu", "--data_dir", str(tmp_path / "due/data"))
    outcome = bench.run(Job("evaluate", argv, tmp_path / "due"))
    assert outcome.status == 2
    assert "best.pt changed after result.json was written" in outcome.output
    assert RunFolder(run).state == "done"
