"""Preparation: workers, changed or damaged files, refusals; and the loader.

Tests for every dataset (damage, equal bytes, kills) are in tests/contracts/test_datasets.py.
"""

import errno
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from conftest import program

from common.files import write_json, write_table
from common.options import UsageError
from data_prep import datasets
from data_prep import prepare as preparation
from data_prep.loader import Loader
from data_prep.pool import CRASHED, DONE, Pool
from data_prep.prepare import check_source, prepare
from data_prep.split import Split
from data_prep.store import Prepared
from fixtures.trees import write_cremad, write_kinetics
from methods.base import EpochPlan

CPU = torch.device("cpu")
DEMO = datasets.load("demo").Settings()


@pytest.fixture
def folder(demo_data, tmp_path):
    """A copy of the prepared demo dataset."""
    source = next((demo_data[1] / "demo").iterdir())
    return shutil.copytree(source, tmp_path / source.name)


# Workers ------------------------------------------------------------------------------------------


def misbehave(item: str) -> str:
    """The work of a worker process in these tests."""
    if item == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "hang":
        time.sleep(60)
    if item == "raise":
        raise KeyError("a defect")
    if item == "full disk":
        raise OSError(errno.ENOSPC, "no space", "/tmp")
    return item.upper()


def test_a_worker_that_dies_hangs_or_raises_loses_only_its_item():
    items = ["a", "die", "b", "hang", "raise", *"cdefghijklmnop"]
    with Pool(misbehave, 2, limit_s=2.0) as pool:
        results = dict(zip(items, pool.map(items)))
    assert all(results[i] == (DONE, i.upper()) for i in items if len(i) == 1)
    for item, words in (("die", "exit code -11"), ("hang", "within 2 s"), ("raise", "KeyError")):
        state, text = results[item]
        assert state == CRASHED and words in text


def test_a_full_disk_stops_a_pool_instead_of_losing_an_item():
    with Pool(misbehave, 1) as pool, pytest.raises(OSError) as error:
        list(pool.map(["a", "full disk", "b"]))
    assert error.value.errno == errno.ENOSPC and error.value.filename == "/tmp"


def test_a_pool_that_is_closed_early_does_not_wait_for_answers():
    with Pool(misbehave, 2, limit_s=600.0) as pool:
        assert next(pool.map(["a", "hang", "hang", *"bcde"])) == (DONE, "A")
        begun = time.monotonic()
    assert time.monotonic() - begun < 50 and not pool.processes  # "hang" takes 60


# What stops a preparation -------------------------------------------------------------------------


def test_a_root_of_lfs_pointers_stops_before_decoding(tmp_path):
    root = tmp_path / "raw"
    write_cremad(root, 2, truth_path=tmp_path / "truth.csv")
    for path in root.rglob("*.wav"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        prepare("cremad", root, tmp_path / "data", datasets.load("cremad").Settings())
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_root_that_changed_is_refused_and_not_mixed_in(tmp_path, demo_data):
    root, copy, data = demo_data[0], tmp_path / "raw", tmp_path / "data"
    made = prepare("demo", root, data, DEMO, workers=2)
    copy.mkdir()
    lines = (root / "labels.csv").read_text().splitlines()
    (copy / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")
    (copy / "clips").symlink_to(root / "clips")
    with pytest.raises(UsageError, match="was prepared from other files: .* python -m data_prep"):
        prepare("demo", copy, data, DEMO, workers=1)
    assert Prepared(made).meta["samples"] == 300


def test_files_of_the_same_names_and_sizes_are_told_apart_by_their_content(tmp_path, demo_data):
    root = shutil.copytree(demo_data[0], tmp_path / "raw")
    made = prepare("demo", root, tmp_path / "data", DEMO, workers=1)
    clip = sorted((root / "clips").glob("*.wav"))[0]
    content, status = bytearray(clip.read_bytes()), clip.stat()
    clip.touch()
    check_source(Prepared(made), "demo", root, DEMO)  # the same content, only a different age
    content[len(content) // 2] ^= 1
    clip.write_bytes(content)
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(UsageError, match="was prepared from other files"):
        check_source(Prepared(made), "demo", root, DEMO)


@pytest.mark.parametrize("complete", [True, False])
def test_a_manifest_is_read_again_only_if_a_file_changed_or_is_missing(
    complete, tmp_path, monkeypatch
):
    for k in range(8):
        np.save(tmp_path / f"{k}.npy", np.full((2, 3), k, np.float32))
    own, rows = tmp_path / "own.csv", [(k, f"class {k % 2}", f"{k}.npy") for k in range(8)]
    write_table(own, ("id", "label", "array"), rows + [(9, "class 0", "9.npy")] * (not complete))
    settings = datasets.load(str(own)).Settings()
    made = Prepared(prepare(str(own), None, tmp_path / "data", settings, workers=1, max_bad=0.5))
    scans, scan = [], preparation.scan_root
    monkeypatch.setattr(preparation, "scan_root", lambda *a: scans.append(1) or scan(*a))
    for _ in range(3):
        check_source(made, str(own), None, settings)
    assert len(scans) == (1 if complete else 3)
    (tmp_path / "3.npy").touch()
    check_source(made, str(own), None, settings)
    assert len(scans) == (2 if complete else 4)
    np.save(tmp_path / "3.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match="was prepared from other files"):
        check_source(made, str(own), None, settings)


def test_too_many_rejects_leave_the_set_unfinished_and_status_3(tmp_path):
    root = tmp_path / "raw"
    write_kinetics(root, 2, truth_path=tmp_path / "truth.csv")
    for path in sorted(root.rglob("*.mp4"))[::10]:
        path.write_bytes(b"")
    words = ("--dataset", "kinetics", "--dataset_root", root, "--data_dir", tmp_path / "data")
    done = program("-m", "data_prep", *words)
    assert done.returncode == 3 and "--max_bad" in done.stderr and "unreadable" in done.stderr
    refused = program("train.py", "--dataset", "kinetics", "--data_dir", tmp_path / "data")
    assert refused.returncode == 2 and "no prepared kinetics" in refused.stderr
    again = program("-m", "data_prep", *words, "--max_bad", "0.2")
    assert again.returncode == 0, again.stderr


# A prepared folder that was changed ---------------------------------------------------------------


@pytest.mark.parametrize(("harm", "words"), [
    (lambda f: write_json(f / "meta.json", {"complete": False}), "not a finished"),
    (lambda f: (f / "meta.json").write_text("{"), "damaged"),
    (lambda f: (f / "samples-00001.arrow").unlink(), "00001.arrow is missing; prepare again"),
    (lambda f: os.truncate(f / "samples-00000.arrow", 5000), "changed since it was"),
])  # fmt: skip
def test_an_unfinished_or_damaged_folder_is_refused(folder, harm, words):
    with pytest.raises(UsageError, match="contains spec .* prepare again"):
        Prepared(folder, "0123456789ab")
    harm(folder)
    with pytest.raises(UsageError, match=words):
        Prepared(folder)


def test_incomplete_pairs_are_refused(folder):
    how = (Split("paper", 0), "test", ["audio", "video"])
    sources, _ = Prepared(folder).pairs(*how)
    path = folder / "splits" / "paper-seed0.pairs-test.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    with pytest.raises(
        UsageError, match="pairs-test.csv changed since it was written: its SHA-256 was"
    ):
        Prepared(folder).pairs(*how)
    path.unlink()
    assert np.array_equal(Prepared(folder).pairs(*how)[0], sources)


def test_a_split_that_is_not_disjoint_is_refused(folder):
    parts = Prepared(folder).split("paper", 0)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(300))
    path = folder / "splits" / "paper-seed0.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1].split(",")[0] + ",test"]) + "\n")
    with pytest.raises(UsageError, match="exactly once"):
        Prepared(folder).split("paper", 0)


# The loader ---------------------------------------------------------------------------------------


def make_loader(demo_data, workers=0, batch=64, keep_last=True):
    prepared = Prepared(next((demo_data[1] / "demo").iterdir()))
    positions, spec = prepared.split("paper", 0)["train"], datasets.load("demo").spec(DEMO)
    return Loader(prepared, positions, spec, 32, batch, 1, workers, CPU, keep_last)


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
    assert [i for index, *_ in flat(here.batches()) for i in index] == list(range(210))


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
    loader = make_loader(demo_data, batch=batch, keep_last=keep)
    batches = [b["index"].tolist() for b in loader.epoch(1)]
    assert [len(b) for b in batches] == sizes and loader.steps() == len(sizes)
    seen = [k for b in batches for k in b]
    assert len(set(seen)) == len(seen) and seen != sorted(seen)


def test_a_plan_replaces_the_list_and_its_columns_follow(demo_data):
    loader = make_loader(demo_data)
    plan = EpochPlan(torch.arange(129) % 5, {"keep": torch.arange(129) % 5 * 10})
    batches = list(loader.epoch(1, plan))
    assert [len(b["index"]) for b in batches] == [64, 65] and loader.steps(plan) == 2
    for batch in batches:
        assert (batch["keep"] == batch["index"] * 10).all() and batch["index"].max() == 4


def test_batches_of_a_plan_hold_one_key_each_and_come_in_random_order(demo_data):
    loader = make_loader(demo_data)
    key = torch.tensor([0] * 129 + [1] * 70 + [2])
    plan = EpochPlan(torch.arange(200) % 7, {"kind": key}, key)
    batches = list(loader.epoch(1, plan))
    kinds = [batch["kind"].unique().tolist() for batch in batches]
    assert sorted(kinds) == [[0], [0], [1], [1]] and loader.steps(plan) == 4  # a single 2: left out
    assert sorted(len(batch["index"]) for batch in batches) == [6, 64, 64, 65]
    orders = {tuple(b["kind"][0].item() for b in loader.epoch(e, plan)) for e in range(1, 7)}
    assert len(orders) > 1


def test_augmentation_depends_only_on_seed_epoch_and_position(tmp_path):
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
    assert not same(first[0], flat(loaders[0].epoch(3)))
