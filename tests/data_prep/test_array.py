"""Feature sequences: pickles read as data, .npy files, padding, values that are not finite."""

import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from clips import extract, refused
from conftest import ROOT
from memory import forget_peak, peak

from common.options import UsageError
from data_prep.modalities import array, unpickle
from data_prep.modalities.array import Array
from data_prep.modalities.base import Draw
from data_prep.modalities.unpickle import load
from fixtures.pickles import BAD_PICKLES, python2_pickle, write_bad_pickle

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(20, 5, 30)).astype(np.float32),
    "float64": RNG.normal(size=(20, 3)),
    "float16": np.arange(4, dtype=np.float16),
    "big_endian": np.arange(5, dtype=">i4"),
    "fortran": np.asfortranarray(RNG.normal(size=(4, 5))),
    "bool": np.array([True, False]),
    "bytes": np.array([[b"x", b"yy"], [b"z", b""]]),
    "text": np.array(["ä", "bcd"]),
    "scalar": np.array(4.0),
    "nothing": np.zeros((0, 5)),
}
PLAIN = {
    "list": [1, -5, 2**40, 0.1, -0.0, None, True, False],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "text": ["", "ä€😀", "a" * 1000],
    "bytes": [b"", b"\xff\x00'\n", b"x" * 255],
    "dict": {"a": {1: "x", b"k": []}},
}
SCALARS = [np.float32(3.5), np.float64(0.1), np.int64(-3), np.str_("hé"), np.bytes_(b"q\xff")]
OBJECTS = np.array([["a", b"b", None], [1, 2.5, "é"]], dtype=object)


def write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def put(path, content):
    path.write_bytes(content)
    return path


def same(found, wanted):
    return [name for name, a in wanted.items() if not (
        (a.dtype, a.shape) == (found[name].dtype, found[name].shape)
        and np.array_equal(a, found[name])
    )] == []  # fmt: skip


# --- pickles as data ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_builtins_of_every_protocol(tmp_path, protocol):
    twice = ARRAYS["float32"]
    value = [ARRAYS, PLAIN, SCALARS, OBJECTS, [twice, twice]]
    arrays, plain, scalars, objects, (first, second) = load(write(tmp_path / "a", value, protocol))
    assert same(arrays, ARRAYS)
    assert repr(plain) == repr(PLAIN)  # -0.0, True and 1 are told apart
    assert scalars == [v.item() for v in SCALARS] and objects == OBJECTS.tolist()
    assert first is second


def test_what_python_2_wrote(tmp_path):
    content = python2_pickle({"train": ARRAYS, "ids": [b"v_1"]})
    assert b"numpy.core" in content and b"numpy._core" not in content
    found = load(put(tmp_path / "a.pkl", content))
    assert same(found["train"], ARRAYS) and found["ids"] == ["v_1"]


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_bad_pickles_are_refused_and_nothing_happens(tmp_path, kind):
    marker = tmp_path / "marker"
    write_bad_pickle(tmp_path / "a.pkl", kind, marker)
    with pytest.raises(UsageError) as error:
        load(tmp_path / "a.pkl")
    assert BAD_PICKLES[kind][1] in str(error.value) and str(error.value).isprintable()
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["system_0", "system_4", "eval", "exec", "getattr", "nested"])
def test_the_bad_pickles_are_bad(tmp_path, kind):
    """An ordinary unpickler does what they say, so that the test above could fail."""
    write_bad_pickle(tmp_path / "a.pkl", kind, tmp_path / "marker")
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.pkl"], check=False)
    assert (tmp_path / "marker").exists()


TEXT = pickle.dumps(np.array(["abcd"]), protocol=4)
AT = TEXT.index("abcd".encode("utf-32-le"))
LINES = pickle.dumps({"a": ARRAYS["float32"], "b": [b"x\ny"]}, protocol=0)


@pytest.mark.parametrize("content,words", [
    *[(f"c{module}\nfromfile\n.".encode(), f"{module}.fromfile")
      for module in ("numpy", "_codecs", "builtins", "numpy._core.multiarray")],
    (b"\x80\x04\x8c\x04a\nb\x1b\x8c\x01c\x93.", "which is no data"),
    (TEXT[:AT] + b"\xff" * 16 + TEXT[AT + 16 :], "invalid character"),
    (LINES.replace(b"\n", b"\r\n"), "line ends were converted, as by a transfer in text"),
    (pickle.dumps("a" * 5000), "more than the 4000"),
])  # fmt: skip
def test_refusals_say_why_on_one_line(tmp_path, content, words, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_BYTES", 4000 if b"aaaa" in content else 1 << 30)
    with pytest.raises(UsageError) as error:
        load(put(tmp_path / "a.pkl", content))
    assert words in str(error.value) and str(error.value).isprintable()


def test_claims_cost_no_memory(tmp_path):
    kinds = ("claims_more", "long_bytes")
    for kind in kinds:
        write_bad_pickle(tmp_path / kind, kind, tmp_path / "marker")
    forget_peak()
    before = peak()
    for kind in kinds:
        with pytest.raises(UsageError):
            load(tmp_path / kind)
    assert peak() - before < 20


def test_a_large_array_stays_in_the_file(tmp_path):
    write(tmp_path / "a.pkl", {"x": np.zeros((64, 1 << 20), np.float32)})  # 256 MiB
    code = (
        "import sys; from pathlib import Path; from data_prep.modalities.unpickle import load\n"
        "from tests.memory import peak\n"
        "before = peak(); value = load(Path(sys.argv[1]))['x']; value[63].sum()\n"
        "print(*value.shape, peak() - before)"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.pkl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows, columns, grown = map(float, done.stdout.split())
    assert (rows, columns) == (64, 1 << 20) and grown < 30  # MiB


def test_text_is_not_copied_again_and_again(tmp_path):
    """A few bytes for each new copy of a long text would fill any memory."""
    long = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    call = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    content = b"\x80\x02" + long + b"q\x00" + call * 20_000 + b"."
    assert load(put(tmp_path / "often", content)) == b"x" * 100_000


# --- sequences ------------------------------------------------------------------------------------


def npy(folder, values, **more):
    np.save(folder / "a.npy", values, **more)
    return folder / "a.npy"


def values_of(path, spec=None, row=None):
    spec = spec or Array()
    return spec.unpack(extract(spec, path, inline=row).payload)


PAD, ROWS = np.zeros((4, 3), np.float32), RNG.normal(size=(6, 3)).astype(np.float32)
ROWS[2] = 0  # within the sequence: it stays


@pytest.mark.parametrize("values,wanted", [
    *[(np.array([[1, 0, 1], [0, 1, 1]]).astype(kind), [[1, 0, 1], [0, 1, 1]])
      for kind in (np.float64, np.float32, np.float16, np.int64, np.uint8, bool)],
    (np.arange(1.0, 4.0), [[1, 2, 3]]), (np.asfortranarray(ROWS), ROWS),
    (np.concatenate([PAD, ROWS]), ROWS), (np.concatenate([ROWS, PAD]), ROWS),
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


def test_values_that_are_not_finite_are_zeros_where_asked(tmp_path):
    values = np.array([[np.nan, np.nan], [1, -np.inf], [np.inf, 2], [1e300, 3], [np.nan, 0]])
    path, clean = npy(tmp_path, values), Array(clean=True)
    assert values_of(path, clean).tolist() == [[1, 0], [0, 2], [0, 3]]
    assert extract(clean, path).flags == ("cleaned",) and refused(Array(), path) == "bad_values"


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 3, 4)), np.float64(3), np.ones((4, 0)), np.array([["a"]]),
        np.ones((2, 2), complex), np.ones(2, "f4,i4"), np.array([[1, None]], dtype=object),
        np.ones((1, (64 << 20) // 4 + 1), np.int8), np.array([[1.0, 1e300]]),
    ],
    ids=["3d", "0d", "no_width", "text", "complex", "record", "object", "wide", "float32"],
)  # fmt: skip
def test_what_is_no_sequence_of_numbers(tmp_path, values):
    assert refused(Array(), npy(tmp_path, values, allow_pickle=True)) == "bad_values"


def test_a_stored_sequence_is_bounded_and_all_have_one_width(tmp_path, monkeypatch):
    path = npy(tmp_path, np.ones((9, 4), np.float32))
    monkeypatch.setattr(array, "MAX_STORED", 100)
    assert extract(Array(6), path).flags == ("cut",)
    assert refused(Array(7), path) == "bad_values"
    samples = [(f"s{k}", Array().pack(np.zeros((2, 5 - k // 19), np.float32))) for k in range(20)]
    Array().check_together("words", samples[:19])
    with pytest.raises(UsageError, match="several widths .4 in 1 samples, the first 's19"):
        Array().check_together("words", samples)


def claiming(shape) -> bytes:
    """A .npy file of 40 bytes of zeros whose header claims a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + b"\0" * 40


@pytest.mark.parametrize("shape", [(5, 2), "(5L, 2L)"])
def test_a_header_that_fits_is_read_also_that_of_python_2(tmp_path, shape):
    assert values_of(put(tmp_path / "a.npy", claiming(shape))).shape == (0, 2)


@pytest.mark.parametrize(
    "content",
    [
        *map(claiming, [(6, 2), (10**12, 10**12), (-5, -2), (5, 2.0), [5, 2]]), b"", b"\x93NUMPY",
        b"<html>", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", pickle.dumps([1]), b"PK\3\4" + bytes(99),
    ],
    ids=["more", "huge", "negative", "float", "list", "empty", "short", "html", "long", "pickle",
         "npz"],
)  # fmt: skip
def test_what_is_no_npy_file(tmp_path, content):
    assert refused(Array(), put(tmp_path / "a.npy", content)) == "unreadable"


# --- rows of a pickle -----------------------------------------------------------------------------


def test_a_row_by_its_keys_and_number(tmp_path):
    values = RNG.normal(size=(3, 4, 2)).astype(np.float32)
    path = write(tmp_path / "a.pkl", {"train": {"text": values}})
    for k in range(3):
        assert np.array_equal(values_of(path, row=f"train/text/{k}"), values[k])
    for row in ("train/text/3", "train/audio/0", "test/text/0", "train/0"):
        assert refused(Array(), path, inline=row) == "unreadable"
    assert refused(Array(), tmp_path / "b.pkl", inline=row) == "missing_file"
    assert refused(Array(), tmp_path / "b.npy") == "missing_file"
    write_bad_pickle(tmp_path / "c.pkl", "system_4", tmp_path / "marker")
    assert refused(Array(), tmp_path / "c.pkl", inline=row) == "unreadable"


def test_the_file_is_opened_once_and_again_when_it_changed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(array, "load", lambda path: seen.append(path) or load(path))
    path = write(tmp_path / "a.pkl", {"x": np.ones((9, 2, 2))})
    for k in range(9):
        extract(Array(), path, inline=f"x/{k}")
    assert len(seen) == 1
    write(path, {"x": np.full((9, 3, 2), 2.0)})
    assert values_of(path, row="x/0").tolist() == [[2, 2]] * 3
    assert len(seen) == 2
