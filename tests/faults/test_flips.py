"""A sample of the bit flips of the long form, in each kind of file; and what is told of some."""

import random
import shutil

import pytest
from flips import flip, kinds, meet_flip, stopped
from harness import Bench, compiler
from run_faults import make_inputs
from scenarios import reference, training

from experiments.run.folder import RunFolder

pytestmark = pytest.mark.skipif(not compiler(), reason="needs Linux and a C compiler")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(bench, scenario, folder that holds a stopped run in `whole`, what it must end with)."""
    folder = tmp_path_factory.mktemp("flips")
    make_inputs(folder)
    (folder / "bench").mkdir()
    bench, scenario = Bench(folder / "bench"), training(folder / "raw", folder / "data")
    operations, due = reference(bench, scenario, folder / "due")
    stopped(bench, scenario, folder / "whole", operations)
    yield bench, scenario, folder, due
    bench.close()


@pytest.mark.slow
def test_a_flip_in_any_file_is_told_or_changes_nothing(case, tmp_path):
    bench, scenario, folder, due = case
    names = kinds(folder / "whole")
    assert {"last.pt", "prev.pt", "best.pt", "log.jsonl", "config.json", "meta.json"} <= {
        name.name for name in names
    }
    for name in names:
        verdict = meet_flip(bench, scenario, folder / "whole", tmp_path / "run", name, 0, due)
        assert not verdict.wrong, verdict


def again(case, place):
    bench, scenario, folder, due = case
    outcome = bench.run(scenario.job(place))
    return outcome, scenario.content(place) if outcome.status == 0 else {}


@pytest.fixture
def place(case, tmp_path):
    return shutil.copytree(case[2] / "whole", tmp_path / "run")


def test_a_flipped_checkpoint_is_left_for_the_one_before(case, place):
    last = place / "run" / "last.pt"
    data = last.read_bytes()
    flip_weight(last, data)
    outcome, found = again(case, place)
    assert "last.pt is damaged (the checksum of" in outcome.output
    assert "going on from prev.pt" in outcome.output and found == case[3]


def flip_weight(path, data):
    """A bit in the middle of the file, where the weights are."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= 4
    path.unlink()
    path.write_bytes(changed)


def test_lost_lines_of_the_log_come_back_from_the_checkpoint(case, place):
    log = place / "run" / "log.jsonl"
    for content in (b"", log.read_bytes()[:900], b"null\n", b'{"epoch": 1e999}\n'):
        here = shutil.copytree(place, place.with_name(f"log{len(content)}"))
        (here / "run" / "log.jsonl").write_bytes(content)
        outcome, found = again(case, here)
        assert "the checkpoint has its lines" in outcome.output, outcome.output
        assert found == case[3]


def test_a_split_that_changed_since_the_run_began_is_refused(case, place):
    (split,) = (place / "data").rglob("paper-seed1.csv")
    lines = split.read_text().splitlines()
    moved = next(k for k, line in enumerate(lines) if line.endswith(",train"))
    lines[moved] = lines[moved].replace(",train", ",test")
    split.write_text("\n".join(lines) + "\n")
    outcome, _ = again(case, place)
    assert (
        outcome.status == 2
        and "was begun with other data: the SHA-256 of the split" in outcome.output
    )
    then, now = [word for word in outcome.output.split() if word.endswith("...")]
    assert then != now


@pytest.mark.parametrize(("old", "new", "words"), [
    (",train", ",training", "line {}: part 'training' is none of train, val, test"),
    ("id,part", "id,teil", "has no column 'part', but id, teil"),
    (",train", ",train,", "line {}: 3 cells where the header has 2"),
])  # fmt: skip
def test_a_split_of_another_form_is_an_error_with_the_line(case, place, old, new, words):
    (split,) = (place / "data").rglob("paper-seed1.csv")
    lines = split.read_text().splitlines()
    at = next(k for k, line in enumerate(lines) if old in line)
    lines[at] = lines[at].replace(old, new)
    split.write_text("\n".join(lines) + "\n")
    outcome, _ = again(case, place)
    assert outcome.status == 2 and words.format(at + 1) in outcome.output, outcome.output


def test_a_finished_run_is_not_evaluated_with_other_weights(case, tmp_path):
    bench, scenario, folder, _ = case
    place = shutil.copytree(folder / "due", tmp_path / "run")
    run = place / "run"
    flip(run / "best.pt", random.Random(3))
    from harness import Job

    argv = (str(run / "best.pt"), "--devices", "cpu", "--data_dir", str(place / "data"))
    outcome = bench.run(Job("evaluate", argv, place))
    assert outcome.status == 2
    assert "best.pt is not the file that result.json was written with" in outcome.output
    assert RunFolder(run).state == "done"
