"""AV-MNIST's pairs, parts and idx files, on a small tree and on the real recordings."""

import gzip
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from common.options import UsageError
from data_prep.datasets import avmnist
from data_prep.modalities.base import Draw
from data_prep.modalities.idx import read_idx
from data_prep.prepare import prepare
from data_prep.reasons import Reject
from data_prep.store import Prepared
from fixtures.avmnist import idx_file, write_idx
from fixtures.trees import write_tree

REAL = ROOT.parent / "shared" / "real" / "avmnist"


def tree_of(folder, layout="gzip", **more):
    write_tree("avmnist", folder / "raw", 6, truth_path=folder / "truth.csv", layout=layout, **more)
    return folder / "raw"


@pytest.mark.parametrize("layout", ["gzip", "plain"])
def test_each_recording_gets_a_picture_of_its_class_that_no_other_has(tmp_path, layout):
    root = tree_of(tmp_path, layout)
    scan = avmnist.scan(root, avmnist.Settings())
    labels = read_idx(idx_file(root, layout, "labels"), 1)
    rows = [candidate.inline["image"] for candidate in scan.candidates]
    assert len(set(rows)) == len(rows) == 60
    for candidate, row in zip(scan.candidates, rows):
        assert labels[row] == candidate.label == int(candidate.id[0])
    # The first speaker's first recording gets the picture of the smallest hash.
    order = sorted(np.flatnonzero(labels == 3), key=lambda k: hashlib.sha256(
        f"avmnist:{k}".encode()).digest())  # fmt: skip
    by_speaker = sorted((c for c in scan.candidates if c.label == 3), key=lambda c: (
        c.group, int(c.id.split("_")[2])))  # fmt: skip
    assert [c.inline["image"] for c in by_speaker] == order[:6]


def test_prepared_pictures_are_those_of_the_file_to_the_bit(tmp_path):
    root = tree_of(tmp_path)
    pictures = read_idx(idx_file(root, "gzip", "images"), 3)
    rows = {c.id: c.inline["image"] for c in avmnist.scan(root, avmnist.Settings()).candidates}
    folder = prepare("avmnist", root, tmp_path / "data", avmnist.Settings(), workers=1)
    prepared, kind = Prepared(folder), avmnist.spec(avmnist.Settings())["image"]
    assert len(prepared.ids) == 60
    for place, name in enumerate(prepared.ids):
        made = kind.to_input(prepared.value(place, "image"), Draw(28, np.random.default_rng(0)))
        assert (made[0] == pictures[rows[name]]).all() and made.shape == (1, 3, 28, 28)


def test_the_official_parts_follow_the_number_and_groups_are_speakers(tmp_path):
    write_tree("avmnist", tmp_path / "raw", 36, truth_path=tmp_path / "truth.csv")
    scan = avmnist.scan(tmp_path / "raw", avmnist.Settings())
    for candidate in scan.candidates:
        _, speaker, number = candidate.id.split("_")
        assert candidate.group == speaker
        part = "test" if int(number) < 5 else "val" if int(number) < 10 else "train"
        assert candidate.part == part
    assert Counter(c.part for c in scan.candidates) == {"test": 150, "val": 150, "train": 60}


def test_the_training_pictures_serve_where_only_they_are(tmp_path):
    root = tree_of(tmp_path)
    for what in ("images", "labels"):
        path = idx_file(root, "gzip", what)
        path.rename(path.with_name(path.name.replace("t10k", "train")))
    assert avmnist.detect(root) == {"pictures": "train"}
    scan = avmnist.scan(root, avmnist.Settings(pictures="train"))
    assert {c.sources["image"] for c in scan.candidates} == {("train-images-idx3-ubyte.gz",)}
    with pytest.raises(UsageError, match="has no t10k file of pictures or labels. The root must"):
        avmnist.scan(root, avmnist.Settings())


def test_recordings_beyond_the_pictures_are_rejected(tmp_path):
    root = tree_of(tmp_path)
    labels = read_idx(idx_file(root, "gzip", "labels"), 1).copy()
    labels[labels == 7] = 8
    labels[np.flatnonzero(labels == 8)[:2]] = 7
    write_idx(idx_file(root, "gzip", "labels"), labels)
    scan = avmnist.scan(root, avmnist.Settings())
    assert [r.reason for r in scan.rejected] == ["missing_file"] * 4
    assert "no further picture of class 7" in scan.rejected[0].detail


BAD = {
    "cut": (lambda data: data[:-3], "values, but its header announces"),
    "longer": (lambda data: data + b"x", "values, but its header announces"),
    "other kind": (lambda data: b"\0\0\x0d" + data[3:], "not an idx file of bytes with 1 dim"),
    "page": (lambda data: b"<html>", "not an idx file of bytes"),
    "empty": (lambda data: b"", "not an idx file of bytes"),
    "broken gzip": (lambda data: gzip.compress(data)[:-9], "labels-idx1-ubyte"),
    "pointer": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid", "idx1-ubyte.gz"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_idx_file_is_one_clear_error(tmp_path, kind):
    root = tree_of(tmp_path)
    path = idx_file(root, "gzip", "labels")
    change, words = BAD[kind]
    path.write_bytes(change(gzip.decompress(path.read_bytes())))
    with pytest.raises(UsageError, match=words) as error:
        avmnist.scan(root, avmnist.Settings())
    assert "Download it again" in str(error.value)


def test_labels_of_other_pictures_are_refused_and_a_changed_file_rejects_its_samples(tmp_path):
    root = tree_of(tmp_path)
    images, labels = (idx_file(root, "gzip", what) for what in ("images", "labels"))
    write_idx(labels, read_idx(labels, 1)[:-1])
    with pytest.raises(UsageError, match="does not belong to t10k-images.*600 pictures and 599"):
        avmnist.scan(root, avmnist.Settings())
    kind = avmnist.spec(avmnist.Settings())["image"]
    with pytest.raises(Reject, match="has no picture 600"):
        kind.extract([images], 600, None)
    images.unlink()
    with pytest.raises(Reject) as error:
        kind.extract([images], 0, None)
    assert error.value.reason == "missing_file"


@pytest.mark.skipif(not REAL.is_dir(), reason="the recordings and MNIST's files are not here")
def test_the_real_download_is_whole():
    scan = avmnist.scan(Path(REAL), avmnist.Settings())
    assert not scan.rejected and len(scan.candidates) == 3000
    assert set(Counter(c.label for c in scan.candidates).values()) == {300}
    assert set(Counter(c.group for c in scan.candidates).values()) == {500}
    assert Counter(c.part for c in scan.candidates) == {"test": 300, "val": 300, "train": 2400}
    rows = {c.inline["image"] for c in scan.candidates}
    assert len(rows) == 3000
