"""Preparation: every raw file accounted for, equal bytes, resume, workers, the loader."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, program

from common.files import file_digest, read_table, write_json
from common.options import UsageError
from data_prep import datasets
from data_prep.finish import TooManyRejects
from data_prep.loader import Loader
from data_prep.pool import CRASHED, DONE, Pool
from data_prep.prepare import check_source, prepare
from data_prep.reasons import KEPT_REASONS
from data_prep.store import Prepared
from fixtures.trees import write_cremad, write_kinetics

CPU = torch.device("cpu")


def misbehave(item: str) -> str:
    """Work that a worker process does in the tests of crews."""
    if item == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "hang":
        time.sleep(60)
    if item == "rest":
        time.sleep(0.2)
    if item == "raise":
        raise KeyError("a defect")
    return item.upper()


def begin_slowly() -> None:
    """What a worker does first: longer than its items may take."""
    time.sleep(1.5)


def test_a_worker_that_dies_hangs_or_raises_costs_its_own_item_alone():
    items = ["a", "die", "b", "hang", "raise", *"cdefghijklmnop"]
    with Pool(misbehave, 2, limit_s=2.0) as pool:
        results = list(pool.map(items))
    assert [r for s, r in results if s == DONE] == [i.upper() for i in items if len(i) == 1]
    states = {item: state for item, (state, _) in zip(items, results)}
    assert [states[k] for k in ("die", "hang", "raise")] == [CRASHED] * 3
    text = dict(zip(items, (r for _, r in results)))
    assert "exit code -11" in text["die"] and "within 2 s" in text["hang"]
    assert "KeyError" in text["raise"]


def test_an_answer_that_comes_while_another_worker_starts_is_not_late():
    with Pool(misbehave, 2, limit_s=1.0, prepare=begin_slowly) as pool:
        (state, _), rested = pool.map(["die", "rest"])
    assert state == CRASHED and rested == (DONE, "REST")


@pytest.mark.parametrize("layout", ["cremad", "A", "B", "C"])
def test_every_kind_of_damage_ends_as_the_truth_says(tmp_path, layout):
    root, truth = tmp_path / "raw", tmp_path / "truth.csv"
    dataset = layout if layout == "cremad" else "kinetics"
    if dataset == "cremad":
        write_cremad(root, 2, truth_path=truth, corrupt_each=2)
    else:
        write_kinetics(root, 2, truth_path=truth, layout=layout, corrupt_each=1)
    settings = datasets.load(dataset).Settings()
    folder = prepare(dataset, root, tmp_path / "data", settings, max_bad=1.0)
    kept = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    rejected = read_table(folder / "rejected.csv")
    clips = read_table(truth)
    assert any(clip["corruption"] for clip in clips)
    for clip in clips:
        reason = clip["expected_reason"]
        lines = [r for r in rejected if r["id"].startswith(clip["id"]) and r["reason"] == reason]
        is_kept = any(name.startswith(clip["id"]) for name in kept)
        if not reason:
            assert is_kept, clip
            assert clip["id"] not in kept or not kept[clip["id"]]["flags"], (clip, kept[clip["id"]])
        elif reason.startswith("flag:"):
            assert reason[5:] in kept[clip["id"]]["flags"].split(";"), (clip, kept.get(clip["id"]))
        else:
            assert lines, clip
            # The first of two duplicates is a sample all the same.
            assert is_kept == (reason in (*KEPT_REASONS, "duplicate")), clip


def test_shards_are_byte_identical_with_one_and_two_workers(tmp_path, demo_data):
    root, data = demo_data  # prepared with one worker
    settings = datasets.load("demo").Settings()
    two = prepare("demo", root, tmp_path, settings, workers=2)
    one = data / "demo" / two.name
    names = sorted(p.relative_to(one) for p in one.rglob("*.*") if not p.name.startswith("."))
    assert any(n.suffix == ".arrow" for n in names)
    for name in names:
        if "splits" not in name.parts:
            assert file_digest(one / name) == file_digest(two / name), name


@pytest.mark.slow
def test_a_preparation_killed_three_times_ends_with_the_same_bytes(
    tmp_path, demo_data, monkeypatch
):
    root, data = demo_data
    words = ["-m", "data_prep", "--dataset", "demo", "--dataset_root", root, "--data_dir", tmp_path]
    command = [sys.executable, "-c", SMALL_SHARDS, *map(str, words[2:])]
    draw = random.Random(0)
    for count in (1, 4, 9):  # finished shards, then a random moment in the next ones
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while len(list(tmp_path.rglob("*.arrow"))) < count and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.3))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(tmp_path.rglob("manifest.csv"))
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    undisturbed = tmp_path / "undisturbed"
    command[command.index(str(tmp_path))] = str(undisturbed)
    subprocess.run(
        [*command, "--num_workers", "1"], cwd=ROOT, check=True, stderr=subprocess.DEVNULL
    )
    shards = sorted(undisturbed.rglob("*.arrow"))
    assert len(shards) == 30
    for shard in shards:
        other = tmp_path / shard.relative_to(undisturbed)
        assert file_digest(shard) == file_digest(other)


# The program with shards of 10 candidates, so that a kill leaves some finished and some not.
SMALL_SHARDS = """
import sys
import data_prep.prepare
data_prep.prepare.SHARD_SIZE = 10
if __name__ == "__main__":
    from data_prep.__main__ import main
    sys.exit(main(sys.argv[1:]))
"""


def test_a_wrong_root_names_what_was_looked_for(tmp_path):
    for dataset in ("demo", "cremad", "kinetics"):
        with pytest.raises(UsageError):
            prepare(dataset, tmp_path / "absent", tmp_path, datasets.load(dataset).Settings())
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UsageError) as error:
            prepare(dataset, tmp_path / "empty", tmp_path, datasets.load(dataset).Settings())
        assert str(tmp_path / "empty") in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.rglob("meta.json"))


def test_a_root_of_lfs_pointers_stops_before_decoding(tmp_path):
    root = tmp_path / "raw"
    write_cremad(root, 2, truth_path=tmp_path / "truth.csv")
    for path in root.rglob("*.wav"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        prepare("cremad", root, tmp_path / "data", datasets.load("cremad").Settings())
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_root_that_changed_is_told_and_not_mixed_in(tmp_path, demo_data):
    root, data = demo_data
    settings = datasets.load("demo").Settings()
    folder = prepare("demo", root, tmp_path / "data", settings, workers=1)
    copy = tmp_path / "raw"
    copy.mkdir()
    lines = (root / "labels.csv").read_text().splitlines()
    (copy / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")
    (copy / "clips").symlink_to(root / "clips")
    with pytest.raises(UsageError, match="was prepared from other files: .* python -m data_prep"):
        prepare("demo", copy, tmp_path / "data", settings, workers=1)
    assert Prepared(folder).meta["samples"] == 300


def test_files_of_the_same_names_and_sizes_are_told_apart_by_their_content(tmp_path, demo_data):
    root, settings = tmp_path / "raw", datasets.load("demo").Settings()
    shutil.copytree(demo_data[0], root)
    folder = prepare("demo", root, tmp_path / "data", settings, workers=1)
    clip = sorted((root / "clips").glob("*.wav"))[0]
    content, status = bytearray(clip.read_bytes()), clip.stat()
    clip.touch()
    check_source(folder, "demo", root, settings)  # the same content, however old
    content[len(content) // 2] ^= 1
    clip.write_bytes(content)
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(UsageError, match="was prepared from other files"):
        check_source(folder, "demo", root, settings)


def test_too_many_rejects_leave_the_set_unfinished_and_status_3(tmp_path):
    root = tmp_path / "raw"
    write_kinetics(root, 2, truth_path=tmp_path / "truth.csv")
    clips = sorted(root.rglob("*.mp4"))
    for path in clips[::10]:
        path.write_bytes(b"")
    words = ("--dataset", "kinetics", "--dataset_root", root, "--data_dir", tmp_path / "data")
    done = program("-m", "data_prep", *words)
    assert done.returncode == 3 and "--max_bad" in done.stderr and "unreadable" in done.stderr
    refused = program("train.py", "--dataset", "kinetics", "--data_dir", tmp_path / "data")
    assert refused.returncode == 2 and "no prepared kinetics" in refused.stderr
    again = program("-m", "data_prep", *words, "--max_bad", "0.2")
    assert again.returncode == 0, again.stderr


def test_too_many_rejects_is_its_own_error():
    assert TooManyRejects("x").exit_status == 3 and isinstance(TooManyRejects("x"), UsageError)


def test_a_folder_of_another_spec_is_refused(demo_data):
    folder = next((demo_data[1] / "demo").iterdir())
    assert len(Prepared(folder)) == 300
    with pytest.raises(UsageError, match="prepare again"):
        Prepared(folder, "0123456789ab")


def test_an_unfinished_or_damaged_folder_is_refused(tmp_path, demo_data):
    import shutil

    source = next((demo_data[1] / "demo").iterdir())
    for harm, words in (
        (lambda f: write_json(f / "meta.json", {"complete": False}), "not a finished"),
        (lambda f: (f / "meta.json").write_text("{"), "damaged"),
        (
            lambda f: (f / "samples-00001.arrow").unlink(),
            "00001.arrow is missing; prepare again",
        ),
        (lambda f: os.truncate(f / "samples-00000.arrow", 5000), "changed since it was"),
    ):
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        harm(folder)
        with pytest.raises(UsageError, match=words):
            Prepared(folder)
        shutil.rmtree(folder)


def test_pairs_of_which_some_are_lost_are_refused(tmp_path, demo_data):
    source = next((demo_data[1] / "demo").iterdir())
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    how = ("paper", 0, "test", ["audio", "video"])
    sources, _ = Prepared(folder).pairs(*how)
    path = folder / "splits" / "paper-seed0.pairs-test.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    with pytest.raises(UsageError, match="pairs-test.csv changed since it was written: it had"):
        Prepared(folder).pairs(*how)
    path.unlink()
    assert np.array_equal(Prepared(folder).pairs(*how)[0], sources)


def test_a_split_that_is_not_disjoint_is_refused(tmp_path, demo_data):
    import shutil

    source = next((demo_data[1] / "demo").iterdir())
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    parts = Prepared(folder).split("paper", 0)
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(300))
    path = folder / "splits" / "paper-seed0.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1].split(",")[0] + ",test"]) + "\n")
    with pytest.raises(UsageError, match="exactly once"):
        Prepared(folder).split("paper", 0)


def make_loader(demo_data, workers, part="train", seed=1, batch=64, keep_last=True):
    prepared = Prepared(next((demo_data[1] / "demo").iterdir()))
    layout = datasets.load("demo")
    positions = prepared.split("paper", 0)[part]
    spec = layout.spec(layout.Settings())
    return Loader(prepared, positions, spec, 32, batch, seed, workers, CPU, keep_last)


def flat(batches):
    return [
        (b["index"].tolist(), b["label"].tolist(), {m: x.clone() for m, x in b["inputs"].items()})
        for b in batches
    ]


def same(a, b):
    return all(
        i == j and y == z and all(torch.equal(p[m], q[m]) for m in p)
        for (i, y, p), (j, z, q) in zip(a, b, strict=True)
    )


def test_batches_are_equal_with_and_without_workers(demo_data):
    here, there = make_loader(demo_data, 0), make_loader(demo_data, 2)
    assert same(flat(here.epoch(3)), flat(there.epoch(3)))
    assert same(flat(here.batches()), flat(there.batches()))
    assert not same(flat(here.epoch(3)), flat(here.epoch(4)))


def test_evaluation_reads_everything_in_order(demo_data):
    loader = make_loader(demo_data, 0)
    seen = [i for indices, *_ in flat(loader.batches()) for i in indices]
    assert seen == list(range(210))


@pytest.mark.parametrize(
    ("batch", "keep", "sizes"),
    [
        (64, True, [64, 64, 64, 18]),
        (64, False, [64, 64, 64]),
        (105, False, [105, 105]),
        (19, True, [19] * 10 + [20]),  # a tail of one joins the batch before it
        (19, False, [19] * 11),
        (209, True, [210]),
        (300, True, [210]),
        (300, False, [210]),
    ],
)
def test_the_tail_of_an_epoch_is_kept_or_dropped(demo_data, batch, keep, sizes):
    loader = make_loader(demo_data, 0, batch=batch, keep_last=keep)
    batches = [b["index"].tolist() for b in loader.epoch(1)]
    assert [len(b) for b in batches] == sizes and loader.steps() == len(sizes)
    seen = [k for b in batches for k in b]
    assert len(set(seen)) == len(seen) and seen != sorted(seen)


def test_the_tail_of_a_plan_is_kept_too(demo_data):
    from methods.base import EpochPlan

    loader, plan = make_loader(demo_data, 0), EpochPlan(torch.arange(129) % 5, {})
    assert [len(b["index"]) for b in loader.epoch(1, plan)] == [64, 65]
    assert loader.steps(plan) == 2


def test_a_plan_replaces_the_list_and_its_columns_follow(demo_data):
    from methods.base import EpochPlan

    loader = make_loader(demo_data, 0)
    plan = EpochPlan(torch.arange(64) % 5, {"keep": torch.arange(64) % 5 * 10})
    (batch,) = loader.epoch(1, plan)
    assert (batch["keep"] == batch["index"] * 10).all() and batch["index"].max() == 4


def test_augmentation_depends_on_seed_epoch_and_place_alone(tmp_path):
    root = tmp_path / "raw"
    write_cremad(root, 3, truth_path=tmp_path / "truth.csv")
    layout = datasets.load("cremad")
    prepared = Prepared(prepare("cremad", root, tmp_path / "data", layout.Settings()))
    spec = layout.spec(layout.Settings())
    loaders = [Loader(prepared, np.arange(18), spec, 64, 8, 1, n, CPU) for n in (0, 2)]
    first = [flat(loader.epoch(2)) for loader in loaders]
    assert same(*first)
    shapes = {m: tuple(x.shape) for m, x in first[0][0][2].items()}
    assert shapes == {"audio": (8, 1, 128, 1024), "video": (8, 3, 3, 64, 64)}
    again = flat(loaders[0].epoch(3))
    assert not same(first[0], again)


def test_nothing_of_a_preparation_is_written_into_the_raw_root(demo_data):
    root = Path(demo_data[0])
    assert sorted(p.name for p in root.iterdir()) == ["clips", "labels.csv"]
