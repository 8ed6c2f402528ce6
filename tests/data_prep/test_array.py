"""Feature sequences: pickles read as data, .npy files, padding, values that are not finite."""

import contextlib
import pickle
import struct
import tempfile
from functools import partial

import numpy as np
import pytest
from clips import extract, refused
from conftest import program
from memory import forget_peak, peak

from common.options import UsageError
from common.program import explain
from data_prep.modalities import array
from data_prep.modalities.array import Array
from data_prep.modalities.base import Draw
from data_prep.modalities.unpickle import load
from data_prep.modalities.unpickle_child import MAX_TREE
from fixtures.pickles import BAD_PICKLES, python2_pickle, write_bad_pickle, write_sparse

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(20, 5, 30)).astype(np.float32),
    "float64": RNG.normal(size=(20, 3)),
    "big_endian": np.arange(5, dtype=">i4"),
    "fortran": np.asfortranarray(RNG.normal(size=(4, 5))),
    "bool": np.array([True, False]),
    "bytes": np.array([[b"x", b"yy"], [b"z", b""]]),
    "text": np.array(["ä", "bcd"]),
    "nothing": np.zeros((0, 5)),
}
PLAIN = {
    "list": [1, 2**40, -0.0, None, True],
    "tuples": [(), (1, 2)],
    "ä": b"\xff\n",
    "set": {"v"},
    b"k": {1: ""},
}
SCALARS = [np.float32(3.5), np.float64(0.1), np.int64(-3), np.str_("hé"), np.bytes_(b"q\xff")]
OBJECTS = np.array([["a", b"b", None], [1, 2.5, "é"]], dtype=object)


def put(path, content):
    path.write_bytes(content)
    return path


def same(found, wanted):
    return all(
        (a.dtype, a.shape) == (found[name].dtype, found[name].shape)
        and np.array_equal(a, found[name])
        for name, a in wanted.items()
    )


# --- pickles as data ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_builtins_of_every_protocol(tmp_path, protocol):
    twice = ARRAYS["float32"]
    content = pickle.dumps([ARRAYS, PLAIN, SCALARS, OBJECTS, [twice, twice]], protocol=protocol)
    arrays, plain, scalars, objects, (first, second) = load(put(tmp_path / "a", content))
    assert same(arrays, ARRAYS)
    assert repr(plain) == repr(PLAIN)  # distinguishes -0.0, True and 1
    assert scalars == [v.item() for v in SCALARS] and objects == OBJECTS.tolist()
    assert first is second


def test_what_python_2_wrote(tmp_path):
    content = python2_pickle({"train": ARRAYS, "ids": [b"v_1"]})
    assert b"numpy.core" in content and b"numpy._core" not in content
    found = load(put(tmp_path / "a.pkl", content))
    assert same(found["train"], ARRAYS) and found["ids"] == ["v_1"]


TEXT = pickle.dumps(np.array(["abcd"]), protocol=4)
LINES = pickle.dumps({"a": ARRAYS["float32"], "b": [b"x\ny"]}, protocol=0)
# Nested tuples, each containing the previous one twice: too large for any memory as text.
BOMB = b"X\x01\0\0\0aq\0" + b"h\0\x86q\0" * 40
# One string of 0.9 MB, made into an array a hundred times.
COPIES = (
    b"\x80\x03cnumpy\ndtype\nX\x07\0\0\0S900000\x85Rq\0B" + struct.pack("<I", 900_000)
    + b"A" * 900_000 + b"q\x01cnumpy._core.multiarray\nscalar\nq\x02"
    + b"h\x02h\0h\x01\x86R" * 100 + b"."
)  # fmt: skip


@pytest.mark.parametrize("content,words", [
    *[(kind, words) for kind, (_, words) in BAD_PICKLES.items()],
    *[(f"c{module}\nfromfile\n.".encode(), f"{module}.fromfile")
      for module in ("numpy", "_codecs", "builtins", "numpy._core.multiarray")],
    (b"\x80\x04\x8c\x04a\nb\x1b\x8c\x01c\x93.", "which is not data"),
    (b"\x80\x02cnumpy\ndtype\n" + BOMB + b"\x85R.", "it is damaged"),
    (b"\x80\x02cnumpy\ndtype\nX\x02\0\0\0f4\x85R}\x86b.", "it is damaged"),
    (TEXT.replace("abcd".encode("utf-32-le"), b"\xff" * 16), "it is damaged"),
    (LINES.replace(b"\n", b"\r\n"), "line breaks were converted, as in a text-mode"),
    (COPIES, "it repeats its content"),
])  # fmt: skip
def test_pickles_with_more_than_data_are_refused_on_one_line_and_not_run(tmp_path, content, words):
    path, marker = tmp_path / "a.pkl", tmp_path / "marker"
    if isinstance(content, str):
        write_bad_pickle(path, content, marker)
    else:
        path.write_bytes(content)
    forget_peak()
    before = peak()
    with pytest.raises(UsageError) as error:
        load(path)
    assert words in str(error.value) and str(error.value).isprintable()
    assert not marker.exists() and peak() - before < 40  # MiB


@pytest.mark.parametrize("kind", ["system_0", "system_4", "eval", "exec", "getattr", "nested"])
def test_the_bad_pickles_are_bad(tmp_path, kind):
    """An ordinary unpickler executes them, so the test above is able to fail."""
    write_bad_pickle(tmp_path / "a.pkl", kind, tmp_path / "marker")
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    program("-c", code, tmp_path / "a.pkl")
    assert (tmp_path / "marker").exists()


def test_a_full_disk_is_not_blamed_on_the_pickle(tmp_path, monkeypatch):
    path = put(tmp_path / "a.pkl", pickle.dumps(ARRAYS))
    (tmp_path / "data").symlink_to("/dev/full")
    folder = contextlib.nullcontext(str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda: folder)
    with pytest.raises(OSError) as error:
        load(path)
    assert (
        explain(error.value)
        == f"{tempfile.gettempdir()}: no space left on the disk: free some space"
    )


def test_a_large_array_stays_in_the_file(tmp_path):
    write_sparse(tmp_path / "a.pkl", (2, 1 << 30))  # 8 GiB, more than the reader may use
    code = (
        "import sys; from pathlib import Path; from data_prep.modalities.unpickle import load\n"
        "from tests.memory import peak\n"
        "before = peak(); value = load(Path(sys.argv[1]))\n"
        "print(*value.shape, value[1, -2:].sum(), peak() - before)"
    )
    done = program("-c", code, tmp_path / "a.pkl")
    *found, grown = map(float, done.stdout.split())
    assert found == [2, 1 << 30, 1] and grown < 30  # MiB


MANY = MAX_TREE + 4  # bytes


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_large_arrays_of_every_protocol(tmp_path, protocol):
    wanted = {"x": np.arange(MANY // 4, dtype=np.float32), "y": np.ones(3), "z": b"q"}
    wanted |= {"fortran": np.asfortranarray(wanted["x"][:-1].reshape(2, -1))}
    write = python2_pickle if protocol == 2 else partial(pickle.dumps, protocol=protocol)
    found = load(put(tmp_path / "a.pkl", write(wanted)))
    assert found.pop("z") in (b"q", "q") and same(found, {k: wanted[k] for k in found})


@pytest.mark.parametrize(("write", "words"), [
    (lambda path: write_sparse(path, (MANY,), 2 * MANY), "truncated"),
    (lambda path: put(path, pickle.dumps({"x": b"x" * MANY})), "bytes of it are not arrays"),
    (lambda path: put(path, python2_pickle("x" * MANY)), "bytes of it are not arrays"),
    (lambda path: put(path, pickle.dumps(np.zeros(9000, "U999"))), "a text array"),
], ids=range(4))  # fmt: skip
def test_large_content_that_is_cut_or_no_array_of_numbers_is_refused(tmp_path, write, words):
    write(tmp_path / "a.pkl")
    with pytest.raises(UsageError, match=words):
        load(tmp_path / "a.pkl")


# --- sequences ------------------------------------------------------------------------------------


def npy(folder, values, **more):
    np.save(folder / "a.npy", values, **more)
    return folder / "a.npy"


def values_of(path, spec=Array(), row=None):  # noqa: B008
    return spec.unpack(extract(spec, path, inline=row).payload)


PAD, ROWS = np.zeros((4, 3), np.float32), RNG.normal(size=(6, 3)).astype(np.float32)
ROWS[2] = 0  # within the sequence: it stays


@pytest.mark.parametrize("values,wanted", [
    *[(np.array([[1, 0, 1], [0, 1, 1]]).astype(kind), [[1, 0, 1], [0, 1, 1]])
      for kind in (np.float64, np.float32, np.float16, np.int64, np.uint8, bool)],
    (np.arange(1.0, 4.0), [[1, 2, 3]]), (np.asfortranarray(ROWS), ROWS),
    (np.concatenate([PAD, ROWS]), ROWS), (np.concatenate([ROWS, PAD]), ROWS),
    (np.concatenate([PAD, ROWS]).reshape(10, 3, 1, 1), ROWS),
    (np.asfortranarray(np.arange(1.0, 13.0).reshape(2, 3, 2)), np.arange(1, 13).reshape(2, 6)),
])  # fmt: skip
def test_numbers_become_float32_without_their_padding(tmp_path, values, wanted, monkeypatch):
    monkeypatch.setattr(array, "BLOCK", 10)  # several of them
    path = npy(tmp_path, values)
    found = extract(Array(), path)
    assert np.array_equal(values_of(path), wanted) and found.n_frames == len(wanted)
    assert (found.flags, found.duration_s) == ((), 0.0)


@pytest.mark.parametrize("most,values,flags,count", [
    (4, np.concatenate([PAD, ROWS]), ("cut",), 6), (6, np.concatenate([PAD, ROWS]), (), 6),
    (6, np.zeros((5, 3)), ("empty",), 0), (6, np.zeros((0, 3)), ("empty",), 0),
])  # fmt: skip
def test_longer_ones_are_cut_and_all_are_padded_to_the_same_length(
    tmp_path, most, values, flags, count
):
    found = extract(Array(most), npy(tmp_path, values))
    assert (found.flags, found.n_frames) == (flags, count)
    wanted = ROWS[:most] if count else np.zeros((most, 3))
    assert np.array_equal(Array(most).to_input(found.payload, Draw()), wanted)


def test_values_that_are_not_finite_become_zeros_if_requested(tmp_path):
    values = np.array([[np.nan, np.nan], [1, -np.inf], [np.inf, 2], [1e300, 3], [np.nan, 0]])
    path, clean = npy(tmp_path, values), Array(clean=True)
    assert values_of(path, clean).tolist() == [[1, 0], [0, 2], [0, 3]]
    assert extract(clean, path).flags == ("cleaned",) and refused(Array(), path) == "bad_values"


def test_a_stored_sequence_is_bounded_and_all_have_the_same_width(tmp_path, monkeypatch):
    path = npy(tmp_path, np.ones((9, 4), np.float32))
    monkeypatch.setattr(array, "MAX_STORED", 100)
    assert extract(Array(6), path).flags == ("cut",)
    assert refused(Array(7), path) == "bad_values"
    samples = [(f"s{k}", Array().pack(np.zeros((2, 5 - k // 19), np.float32))) for k in range(20)]
    Array().check_together("words", samples[:19])
    with pytest.raises(UsageError, match="several widths .4 in 1 samples, the first 's19"):
        Array().check_together("words", samples)


def claiming(shape) -> bytes:
    """A .npy file with 40 zero bytes whose header claims a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + b"\0" * 40


@pytest.mark.parametrize("content,reason", [
    (claiming((5, 2)), ""), (claiming("(5L, 2L)"), ""),  # the latter of Python 2
    *[(claiming(shape), "unreadable")
      for shape in [(6, 2), (10**12, 10**12), (-5, -2), (5, 2.0), [5, 2], "(" * 100]],
    *[(content, "unreadable") for content in (
        b"", b"\x93NUMPY", b"<html>", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", b"PK\3\4" + bytes(99),
        pickle.dumps([1]))],
    *[(values, "bad_values") for values in (
        np.float64(3), np.ones((4, 0)), np.ones((4, 2, 0)), np.array([["a"]]),
        np.ones((2, 2), complex), np.ones(2, "f4,i4"), np.array([[1, None]], dtype=object),
        np.ones((1, (64 << 20) // 4 + 1), np.int8), np.array([[1.0, 1e300]]))],
])  # fmt: skip
def test_invalid_npy_files_and_sequences_that_are_not_numbers(tmp_path, content, reason):
    whole = isinstance(content, bytes)
    path = put(tmp_path / "a", content) if whole else npy(tmp_path, content, allow_pickle=True)
    if reason:
        assert refused(Array(), path) == reason
    else:
        assert values_of(path).shape == (0, 2)


# --- rows of a pickle -----------------------------------------------------------------------------


def test_a_row_is_found_by_keys_and_number_and_its_file_opened_once(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(array, "load", lambda path: seen.append(path) or load(path))
    values = RNG.normal(size=(3, 4, 2)).astype(np.float32)
    path = put(tmp_path / "a.pkl", pickle.dumps({"train": {"text": values}}))
    for k in range(3):
        assert np.array_equal(values_of(path, row=f"train/text/{k}"), values[k])
    for row in ("train/text/3", "train/audio/0", "test/text/0", "train/0", "train/text/x"):
        assert refused(Array(), path, inline=row) == "unreadable"
    assert len(seen) == 1
    put(path, pickle.dumps({"x": np.full((9, 3, 2), 2.0)}))  # it has changed
    assert values_of(path, row="x/0").tolist() == [[2, 2]] * 3
    put(path, pickle.dumps(({}, {"a_1": [np.ones(2), np.zeros(2), 0.5]})))  # lists in a tuple
    assert values_of(path, row="1/a_1/0").tolist() == [[1, 1]]
    for row in ("1/a_1/2", "1/a_1/3", "2/a_1/0", "a/a_1/0"):
        assert refused(Array(), path, inline=row) == "unreadable"
    assert refused(Array(), tmp_path / "b.pkl", inline=row) == "missing_file"
    assert refused(Array(), tmp_path / "b.npy") == "missing_file"
    write_bad_pickle(tmp_path / "c.pkl", "system_4", tmp_path / "marker")
    assert refused(Array(), tmp_path / "c.pkl", inline=row) == "unreadable"
