"""Feature sequences: pickles read as data, .npy files, padding, values that are not finite."""

import ast
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from memory import forget_peak, peak

from common.options import UsageError
from data_prep.modalities import array, unpickle
from data_prep.modalities.array import extract
from data_prep.modalities.transforms import make_input
from data_prep.modalities.unpickle import load
from data_prep.reasons import Reject
from data_prep.spec import Array, PlainView
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
    "number": 7,
    "dict": {"a": {1: "x", b"k": []}},
}


def write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def same(array, other):
    return (array.dtype, array.shape) == (other.dtype, other.shape) and np.array_equal(array, other)


# --- the restricted unpickler ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path, protocol):
    found = load(write(tmp_path / "a.pkl", ARRAYS, protocol))
    assert [name for name in ARRAYS if not same(ARRAYS[name], found[name])] == []


@pytest.mark.parametrize("protocol", range(6))
def test_builtins_of_every_protocol(tmp_path, protocol):
    found = load(write(tmp_path / "a.pkl", PLAIN, protocol))
    assert found == PLAIN and repr(found) == repr(PLAIN)  # -0.0, True and 1 are told apart


@pytest.mark.parametrize("protocol", range(6))
def test_scalars_of_numpy(tmp_path, protocol):
    values = [np.float32(3.5), np.float64(0.1), np.int64(-3), np.str_("hé"), np.bytes_(b"q\xff")]
    assert load(write(tmp_path / "a.pkl", values, protocol)) == [v.item() for v in values]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_become_lists(tmp_path, protocol):
    values = np.array([["a", b"b", None], [1, 2.5, "é"]], dtype=object)
    assert load(write(tmp_path / "a.pkl", values, protocol)) == values.tolist()


def test_an_array_of_objects_that_cost_a_byte_each(tmp_path):
    values = np.full((50, 20), None, dtype=object)
    path = write(tmp_path / "a.pkl", values)
    assert path.stat().st_size < 1200 and load(path) == values.tolist()


def test_what_python_2_wrote(tmp_path):
    (tmp_path / "a.pkl").write_bytes(content := python2_pickle({"train": ARRAYS, "ids": [b"v_1"]}))
    assert b"numpy.core" in content and b"numpy._core" not in content
    found = load(tmp_path / "a.pkl")
    assert [n for n, a in ARRAYS.items() if not same(a, found["train"][n])] == []
    assert found["ids"] == ["v_1"]


@pytest.mark.parametrize("protocol", [0, 2])
def test_converted_line_ends_are_told(tmp_path, protocol):
    text = pickle.dumps({"a": ARRAYS["float32"], "b": [b"x\ny"]}, protocol=protocol)
    (tmp_path / "a.pkl").write_bytes(text.replace(b"\n", b"\r\n"))
    with pytest.raises(UsageError, match="line ends were converted, as by a transfer in text"):
        load(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [2, 4])
def test_both_places_of_numpys_functions(tmp_path, protocol):
    content = pickle.dumps(ARRAYS["float32"], protocol=protocol)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    if protocol == 4:  # the names carry their lengths, and so does the frame around them
        old, new = (b"\x8c" + bytes([len(name)]) + name for name in (old, new))
        at = content.index(b"\x95") + 1
        length = struct.unpack("<Q", content[at : at + 8])[0]
        content = content[:at] + struct.pack("<Q", length - 1) + content[at + 8 :]
    assert new in content
    (tmp_path / "a.pkl").write_bytes(content.replace(new, old))
    assert same(load(tmp_path / "a.pkl"), ARRAYS["float32"])


def test_an_array_that_stands_twice_is_one(tmp_path):
    values = ARRAYS["float32"]
    first, second = load(write(tmp_path / "a.pkl", [values, values]))
    assert first is second and same(first, values)


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_bad_pickles_are_refused_and_nothing_happens(tmp_path, kind):
    marker = tmp_path / "marker"
    write_bad_pickle(tmp_path / "a.pkl", kind, marker)
    with pytest.raises(UsageError) as error:
        load(tmp_path / "a.pkl")
    assert BAD_PICKLES[kind][1] in str(error.value) and "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["system_0", "system_4", "eval", "exec", "getattr", "nested"])
def test_the_bad_pickles_are_bad(tmp_path, kind):
    """An ordinary unpickler does what they say, so that the test above could fail."""
    write_bad_pickle(tmp_path / "a.pkl", kind, tmp_path / "marker")
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.pkl"], check=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("module", ["numpy", "_codecs", "builtins", "numpy._core.multiarray"])
def test_no_other_name_of_an_allowed_module(tmp_path, module):
    (tmp_path / "a.pkl").write_bytes(f"c{module}\nfromfile\n.".encode())
    with pytest.raises(UsageError, match=f"{module}.fromfile"):
        load(tmp_path / "a.pkl")


def test_a_name_with_a_line_feed_is_told_on_one_line(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8c\x04a\nb\x1b\x8c\x01c\x93.")
    with pytest.raises(UsageError) as error:
        load(tmp_path / "a.pkl")
    assert str(error.value).isprintable()


def test_claims_cost_no_memory(tmp_path):
    for kind in ("claims_more", "long_bytes"):
        write_bad_pickle(tmp_path / kind, kind, tmp_path / "marker")
    forget_peak()
    before = peak()
    for kind in ("claims_more", "long_bytes"):
        with pytest.raises(UsageError):
            load(tmp_path / kind)
    assert peak() - before < 20


def test_a_large_array_stays_in_the_file(tmp_path):
    write(tmp_path / "a.pkl", {"x": np.zeros((64, 1 << 20), np.float32)})  # 256 MiB
    code = (
        "import sys; from pathlib import Path; from data_prep.modalities.unpickle import load\n"
        "from tests.memory import peak\n"
        "before = peak()\n"
        "value = load(Path(sys.argv[1]))['x']; value[63].sum()\n"
        "print(value.shape, peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.pkl"], cwd=ROOT, capture_output=True, text=True
    )
    shape, grown = done.stdout.rsplit(" ", 1)
    assert ast.literal_eval(shape) == (64, 1 << 20) and float(grown) < 30  # MiB


def test_a_file_above_the_bound_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.pkl", "a" * 1000)
    monkeypatch.setattr(unpickle, "MAX_BYTES", 1000)
    with pytest.raises(UsageError, match="more than the 1000"):
        load(tmp_path / "a.pkl")


def test_text_is_not_copied_again_and_again(tmp_path):
    """A few bytes for each new copy of a long text would fill any memory."""
    long = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    call = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    (tmp_path / "once").write_bytes(b"\x80\x02" + long + b"q\x00" + call + b".")
    assert load(tmp_path / "once") == b"x" * 100_000
    (tmp_path / "often").write_bytes(b"\x80\x02" + long + b"q\x00" + call * 20_000 + b".")
    assert load(tmp_path / "often") == b"x" * 100_000


def test_text_that_is_no_text_is_refused(tmp_path):
    content = pickle.dumps(np.array(["abcd"]), protocol=4)
    at = content.index("abcd".encode("utf-32-le"))
    (tmp_path / "a.pkl").write_bytes(content[:at] + b"\xff" * 16 + content[at + 16 :])
    with pytest.raises(UsageError, match="invalid character"):
        load(tmp_path / "a.pkl")


def test_any_damage_is_a_usage_error(tmp_path):
    content = [pickle.dumps([ARRAYS, PLAIN], protocol=p) for p in range(6)]
    content.append(python2_pickle({"train": {"x": np.ones((2, 40)), "id": np.array([b"a"])}}))
    rng, refused = np.random.default_rng(3), 0
    for turn in range(600):
        damaged = bytearray(content[turn % len(content)])
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(damaged)))
            if turn % 3:
                damaged[at] = rng.integers(256)
            else:
                del damaged[at : at + int(rng.integers(1, 9))]
        (tmp_path / "a.pkl").write_bytes(bytes(damaged))
        try:
            load(tmp_path / "a.pkl")
        except UsageError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused > 100


# --- sequences ------------------------------------------------------------------------------------


def npy(path, values):
    np.save(path, values)
    return path


def values_of(extracted):
    shape, values = extracted.payload
    return np.frombuffer(values, np.float32).reshape(np.frombuffer(shape, np.int32))


def rejected(path, spec=None, row=None):
    with pytest.raises(Reject) as reject:
        extract([path], spec or Array(), row)
    return reject.value.reason


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.uint8, bool])
def test_numbers_become_float32(tmp_path, kind):
    values = np.array([[1, 0, 1], [0, 1, 1]]).astype(kind)
    found = extract([npy(tmp_path / "a.npy", values)], Array(), None)
    assert np.array_equal(values_of(found), values) and found.n_frames == 2
    assert (found.flags, found.duration_s) == ((), 0.0)


def test_a_vector_is_a_sequence_of_one(tmp_path):
    found = extract([npy(tmp_path / "a.npy", np.arange(1.0, 4.0))], Array(), None)
    assert values_of(found).tolist() == [[1, 2, 3]]


def test_fortran_order(tmp_path):
    values = np.asfortranarray(RNG.normal(size=(7, 3)).astype(np.float32))
    found = extract([npy(tmp_path / "a.npy", values)], Array(), None)
    assert np.array_equal(values_of(found), values)


@pytest.mark.parametrize("front", [True, False])
def test_padding_is_not_stored(tmp_path, front):
    values = RNG.normal(size=(6, 3)).astype(np.float32)
    values[2] = 0  # within the sequence: it stays
    pad = np.zeros((4, 3), np.float32)
    path = npy(tmp_path / "a.npy", np.concatenate([pad, values] if front else [values, pad]))
    assert np.array_equal(values_of(extract([path], Array(), None)), values)


def test_padding_in_blocks(tmp_path, monkeypatch):
    values = np.zeros((50, 3), np.float32)
    values[13:38] = RNG.normal(size=(25, 3))
    path = npy(tmp_path / "a.npy", values)
    monkeypatch.setattr(array, "BLOCK", 21)
    found = extract([path], Array(), None)
    assert np.array_equal(values_of(found), values[13:38]) and found.n_frames == 25


def test_longer_ones_are_cut_and_flagged(tmp_path):
    values = RNG.normal(size=(9, 3)).astype(np.float32)
    path = npy(tmp_path / "a.npy", np.concatenate([np.zeros((5, 3), np.float32), values]))
    found = extract([path], Array(max_length=4), None)
    assert np.array_equal(values_of(found), values[:4])
    assert (found.flags, found.n_frames) == (("cut",), 9)
    assert extract([path], Array(max_length=9), None).flags == ()


@pytest.mark.parametrize("values", [np.zeros((5, 3)), np.zeros((0, 3))])
def test_only_padding_is_empty(tmp_path, values):
    found = extract([npy(tmp_path / "a.npy", values)], Array(6), None)
    assert (found.flags, found.n_frames) == (("empty",), 0)
    assert (
        make_input(found.payload, Array(6), PlainView(), 0, None).tolist()
        == np.zeros((6, 3)).tolist()
    )


def test_what_becomes_of_values_that_are_not_finite(tmp_path):
    values = np.array([[np.nan, np.nan], [1, -np.inf], [np.inf, 2], [1e300, 3], [np.nan, 0]])
    path = npy(tmp_path / "a.npy", values)
    found = extract([path], Array(clean=True), None)
    assert values_of(found).tolist() == [[1, 0], [0, 2], [0, 3]] and found.flags == ("cleaned",)
    assert rejected(path) == "bad_values"


def test_a_value_that_float32_cannot_hold_is_not_finite(tmp_path):
    assert rejected(npy(tmp_path / "a.npy", np.array([[1.0, 1e300]]))) == "bad_values"


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 3, 4)), np.float64(3), np.ones((4, 0)), np.array([["a"]]),
        np.ones((2, 2), complex), np.ones(2, "f4,i4"), np.array([[1, None]], dtype=object),
        np.ones((1, (64 << 20) // 4 + 1), np.int8),
    ],
    ids=["3d", "0d", "no_width", "text", "complex", "record", "object", "wide"],
)  # fmt: skip
def test_what_is_no_sequence_of_numbers(tmp_path, values):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    assert rejected(tmp_path / "a.npy") == "bad_values"


def test_a_stored_sequence_is_bounded(tmp_path, monkeypatch):
    path = npy(tmp_path / "a.npy", np.ones((9, 4), np.float32))
    monkeypatch.setattr(array, "MAX_STORED", 100)
    assert extract([path], Array(6), None).flags == ("cut",)
    assert rejected(path, Array(7)) == "bad_values"


def claiming(path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + b"\0" * 40)
    return path


def test_a_header_is_held_against_the_size_of_the_file(tmp_path):
    assert values_of(extract([claiming(tmp_path / "a.npy", (5, 2))], Array(), None)).shape == (0, 2)
    for shape in ((6, 2), (10**12, 10**12), (-5, -2), (5, 2.0), [5, 2]):
        assert rejected(claiming(tmp_path / "a.npy", shape)) == "unreadable", shape


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"<html>", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", pickle.dumps([1])],
    ids=["empty", "short", "html", "long_header", "pickle"],
)
def test_what_is_no_npy_file(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    assert rejected(tmp_path / "a.npy") == "unreadable"


def test_an_archive_is_no_npy_file(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((2, 2)))
    assert rejected(tmp_path / "a.npz") == "unreadable"


def test_a_missing_file(tmp_path):
    assert rejected(tmp_path / "a.npy") == "missing_file"
    assert rejected(tmp_path / "a.pkl", row="train/text/0") == "missing_file"


def test_the_header_of_python_2(tmp_path):
    path = claiming(tmp_path / "a.npy", "(5L, 2L)")
    assert extract([path], Array(), None).flags == ("empty",)


# --- rows of a pickle -----------------------------------------------------------------------------


def test_a_row_by_its_keys_and_number(tmp_path):
    values = RNG.normal(size=(3, 4, 2)).astype(np.float32)
    path = write(tmp_path / "a.pkl", {"train": {"text": values}})
    for k in range(3):
        assert np.array_equal(values_of(extract([path], Array(), f"train/text/{k}")), values[k])
    for row in ("train/text/3", "train/audio/0", "test/text/0", "train/0"):
        assert rejected(path, row=row) == "unreadable"


def test_a_bad_pickle_costs_its_samples_alone(tmp_path):
    write_bad_pickle(tmp_path / "a.pkl", "system_4", tmp_path / "marker")
    assert rejected(tmp_path / "a.pkl", row="train/text/0") == "unreadable"


def test_the_file_is_opened_once_and_again_when_it_changed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(array, "load", lambda path: seen.append(path) or load(path))
    path = write(tmp_path / "a.pkl", {"x": np.ones((9, 2, 2))})
    for k in range(9):
        extract([path], Array(), f"x/{k}")
    assert len(seen) == 1
    write(path, {"x": np.full((9, 3, 2), 2.0)})
    assert values_of(extract([path], Array(), "x/0")).tolist() == [[2, 2]] * 3
    assert len(seen) == 2
