"""What the data sets share: walking a tree, lists of lines, and csv files that cannot be read."""

import pytest
from raw import plant

from common.options import UsageError
from data_prep.datasets.lists import MAX_LINE_BYTES, read_lines, read_records
from data_prep.datasets.tree import walk


def test_walk_ignores_leftovers_and_sorts(tmp_path):
    plant(tmp_path, "b/x.txt", "a/-y.txt", ".DS_Store", "a/Thumbs.db", "__MACOSX/a/x.txt", ".git/z")
    plant(tmp_path, "ä ö/z 1.txt")
    assert walk(tmp_path) == ["a/-y.txt", "b/x.txt", "ä ö/z 1.txt"]


def test_walk_follows_links_once(tmp_path):
    root = plant(tmp_path / "raw", "real/x.txt")
    (root / "again").symlink_to(root / "real")
    (root / "real/loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "out").symlink_to(plant(tmp_path / "outside", "y.txt"))
    assert walk(root) == ["out/y.txt", "real/x.txt", "self"]


def test_lines_with_mark_crlf_and_no_last_end(tmp_path):
    plant(tmp_path, lists={"l": "\ufeffa b\r\n\r\nc\u2028d\x85e\x0bf\n é"})
    lines = [(1, "a b"), (2, ""), (3, "c\u2028d\x85e\x0bf"), (4, " é")]
    assert list(read_lines(tmp_path / "l")) == lines


def test_lines_that_are_too_long_or_not_utf8_are_none(tmp_path):
    long = b"x" * MAX_LINE_BYTES
    content = b"a\n" + long * 3 + b"\nb\n\xff\nc\n" + long[1:] + b"\n" + long
    found = list(read_lines(plant(tmp_path, lists={"l": content}) / "l"))
    assert [number for number, _ in found] == list(range(1, 8))
    assert [text and text[:2] for _, text in found] == ["a", None, "b", None, "c", "xx", None]


@pytest.mark.parametrize("read", [read_lines, lambda path: read_records(path, bool, bool)])
def test_a_list_of_gigabytes_is_refused_unread(tmp_path, read):
    with open(tmp_path / "huge.csv", "wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(UsageError, match="huge.csv has more than"):
        next(iter(read(tmp_path / "huge.csv")))
