"""Helpers shared by datasets: walking a tree, lists of lines, unreadable csv files."""

import pytest
from raw import plant

from common.options import UsageError
from data_prep.datasets.lists import MAX_LINE, read_lines, read_records
from data_prep.datasets.tree import RawTree, walk
from data_prep.spec import Candidate


def test_walk_ignores_leftovers_and_follows_links_once(tmp_path):
    root = plant(tmp_path / "raw", "real/x.txt", "a/-y.txt", ".DS_Store", "a/Thumbs.db", ".git/z")
    plant(root, "__MACOSX/a/x.txt", "ä ö/z 1.txt", "skipped/x")
    (root / "again").symlink_to(root / "real")
    (root / "real/loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "out").symlink_to(plant(tmp_path / "outside", "y.txt"))
    files = ["a/-y.txt", "out/y.txt", "real/x.txt", "self", "ä ö/z 1.txt"]
    assert walk(root, skip=["skipped"]) == files


def test_a_second_sample_with_the_same_id_is_rejected(tmp_path):
    tree = RawTree(tmp_path)
    for label, path in enumerate(("cat/1.mp4", "dog/1.mp4")):
        tree.take(Candidate("1", label, {"video": (path,)}), path)
    found = tree.scan(("cat", "dog"))
    assert [candidate.label for candidate in found.candidates] == [0]
    assert [(r.source, r.reason) for r in found.rejected] == [("dog/1.mp4", "duplicate")]


def test_lines_lose_their_mark_and_end_and_unreadable_bytes_are_replaced(tmp_path):
    plant(tmp_path, lists={"l": "\ufeffa b\r\n\r\nc\u2028d\x85e\x0bf\n é"})
    assert list(read_lines(tmp_path / "l")) == ["a b", "", "c\u2028d\x85e\x0bf", " é"]
    long = b"x" * MAX_LINE
    content = b"a\n" + long * 3 + b"\nb\n\xff\nc\n" + long[1:] + b"\n" + long
    found = list(read_lines(plant(tmp_path, lists={"l": content}) / "l"))
    assert [line[:2] for line in found] == ["a", "\ufffd", "b", "\ufffd", "c", "xx", "\ufffd"]


@pytest.mark.parametrize("read", [read_lines, lambda path: read_records(path, bool, bool)])
def test_a_list_of_gigabytes_is_refused_unread(tmp_path, read):
    with open(tmp_path / "huge.csv", "wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(UsageError, match="huge.csv has more than"):
        next(iter(read(tmp_path / "huge.csv")))
