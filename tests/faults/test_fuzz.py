"""Readers with hostile or damaged input: structured inputs, random damage, and past findings.

The long version is `fuzz.py`, whose targets these tests share.
"""

import csv
import io
import json
import pickle
import re
import time
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pyarrow as pa
import pytest
from fuzz_stored import load_here, write_prepared
from fuzz_targets import plant
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.files import read_object, write_json
from common.options import UsageError
from data_prep.datasets import ave, food101
from data_prep.datasets.manifest import Manifest
from data_prep.datasets.tree import RawTree
from data_prep.modalities import unpickle
from data_prep.modalities.audio import Audio
from data_prep.store import Prepared, read_pool
from experiments.run.resolve import resolve, run_from_config

quiet = settings(derandomize=True, deadline=None, database=None, max_examples=120)
# What csv can represent: no lone surrogates, no NUL.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
WORDS = st.text(st.characters(categories=["Lu", "Ll", "Nd"]), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# --- structured inputs ----------------------------------------------------------------------------


def csv_bytes(rows: list[list[str]], separator: str = ",", end: str = "\n") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator=end).writerows(rows)
    return out.getvalue().encode()


def manifest(folder: Path, data: bytes) -> Manifest:
    (folder / "m.csv").write_bytes(data)
    return Manifest(folder / "m.csv")


@quiet
@given(
    rows=st.lists(st.tuples(WORDS, st.sampled_from("ab"), CELLS), min_size=2, max_size=6),
    separator=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n"]), mark=st.booleans(),
)  # fmt: skip
def test_a_manifest_is_read_back_cell_by_cell(folder, rows, separator, end, mark):
    rows = [(f"{k}{name}", label, cell) for k, (name, label, cell) in enumerate(rows)]
    assume({"a", "b"} == {label for _, label, _ in rows})
    assume(not any("\n" in cell or "\r" in cell for *_, cell in rows))  # see the next test
    data = csv_bytes([["id", "label", "text"], *map(list, rows)], separator, end)
    layout = manifest(folder, b"\xef\xbb\xbf" * mark + data)
    scan = layout.scan(folder, layout.Settings())
    found = {c.id: (scan.label_names[c.label], c.inline["text"]) for c in scan.candidates}
    assert found == {name: (label, cell) for name, label, cell in rows} and not scan.rejected


@quiet
@given(rows=st.lists(st.tuples(st.sampled_from("ab"), CELLS), min_size=2, max_size=6))
def test_a_text_over_several_lines_is_read_whole_or_the_file_refused(folder, rows):
    """A line of a text may look like a row: then the end of its quote cannot be determined."""
    rows = [(f"{k}", label, f"{cell}\n{cell}") for k, (label, cell) in enumerate(rows)]
    layout = manifest(folder, csv_bytes([["id", "label", "text"], *map(list, rows)]))
    try:
        scan = layout.scan(folder, layout.Settings())
    except UsageError as error:
        assert "quote" in str(error) or "label(s)" in str(error)
        return
    found = {(c.id, scan.label_names[c.label], c.inline["text"]) for c in scan.candidates}
    assert found == set(rows)


@quiet
@given(
    words=st.lists(WORDS, min_size=3, max_size=9), place=st.integers(0, 8),
    quoted=st.sampled_from(['"{}', ' "{}"', '"{}" x', '{}"', '"{}""']),
)  # fmt: skip
def test_an_open_quote_loses_or_relabels_no_other_row(folder, words, place, quoted):
    rows = [[f"s{k}", "ab"[k % 2], word] for k, word in enumerate(words)]
    lines = [",".join(row) for row in rows]
    spoilt = place % len(rows)
    lines[spoilt] = ",".join([*rows[spoilt][:2], quoted.format(words[spoilt])])
    layout = manifest(folder, ("id,label,text\n" + "\n".join(lines) + "\n").encode())
    try:
        scan = layout.scan(folder, layout.Settings())
    except UsageError as error:
        assert str(error).isprintable()
        return
    found = {c.id: [c.id, scan.label_names[c.label], c.inline["text"]] for c in scan.candidates}
    for row in rows[:spoilt] + rows[spoilt + 1 :]:
        assert found[row[0]] == row


@quiet
@given(titles=st.lists(CELLS, min_size=1, max_size=6), spoilt=st.integers(0, 5))
def test_a_list_of_titles_keeps_all_rows_except_the_damaged_one(folder, titles, spoilt):
    titles = [" ".join(title.split()) for title in titles]
    rows = [[f"{k}.jpg", title, food101.LABELS[k]] for k, title in enumerate(titles)]
    lines = [csv_bytes([row]).decode() for row in rows]
    number = spoilt % len(rows)
    lines[number] = f'{number}.jpg,"{titles[number].replace(chr(34), "")},{rows[number][2]}\n'
    (folder / "t.csv").write_bytes("".join(lines).encode())
    found = food101.read_titles(RawTree(folder), "t.csv", "train")
    kept = {(row.name, row.title, row.label) for row in found}
    assert {tuple(row) for row in rows[:number] + rows[number + 1 :]} <= kept


@quiet
@given(value=st.dictionaries(WORDS, JSON, max_size=5))
def test_an_object_is_read_back(folder, value):
    assume("sha256" not in value)
    write_json(folder / "a.json", value)
    assert read_object(folder / "a.json") == value
    (folder / "a.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_object(folder / "a.json") == value


@quiet
@given(value=JSON, place=st.sampled_from(
    ["dataset", "manifest", "method", "seed", "settings", "prep", "hparams", "differing", "spec",
     "settings.lr", "prep.fps", "spec.order", "spec.modalities"]
))  # fmt: skip
def test_a_config_of_other_values_gives_a_run_or_is_refused(folder, value, place):
    (folder / "c.csv").write_text("id,label,audio,video\na,x,a.wav,a.mp4\n", encoding="utf-8")
    config = resolve(["--dataset", str(folder / "c.csv"), "--method", "Joint"], "")[0].config()
    *outer, key = place.split(".")
    (config[outer[0]] if outer else config)[key] = value
    try:
        run = run_from_config(config)
    except UsageError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
    else:
        assert run.config()["method"] == "Joint"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    | st.tuples(inner, inner),
    max_leaves=10,
)  # fmt: skip


@quiet
@given(value=PLAIN, protocol=st.sampled_from([0, 2, 3, 4, 5]))
def test_plain_pickles_are_read_back(folder, value, protocol):
    (folder / "a.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_here(folder / "a.pkl") == value


@quiet
@given(
    kind=st.sampled_from(["<f4", ">f8", "<i2", "u1", "b1", "<U3", "S2"]),
    shape=st.lists(st.integers(0, 3), max_size=3), protocol=st.sampled_from([0, 2, 4, 5]),
)  # fmt: skip
def test_pickled_arrays_are_read_back(folder, kind, shape, protocol):
    values = np.arange(np.prod(shape, dtype=int)).astype(kind).reshape(shape)
    (folder / "a.pkl").write_bytes(pickle.dumps([values, values], protocol=protocol))
    first, second = load_here(folder / "a.pkl")
    assert first.dtype == values.dtype and first.shape == values.shape and first is second
    assert np.array_equal(first, values)


# --- random damage --------------------------------------------------------------------------------


def outcome_of(folder: Path, name: str, data: bytes | None = None) -> tuple[str, str]:
    """The target's result for an input, or for its first seed."""
    for each in ("seeds", "reader"):
        (folder / each).mkdir()
    target = fuzz.TARGETS[name]
    return fuzz.outcome(target.reader(folder / "reader"), data or target.seeds(folder / "seeds")[0])


@pytest.fixture
def restored(monkeypatch):
    """Restores what a target replaces."""
    monkeypatch.setattr(unpickle, "load", unpickle.load)
    monkeypatch.setattr(fuzz.fuzz_stored.array, "load", unpickle.load)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_damage_ends_in_a_result_or_a_named_error(tmp_path, name, restored):
    (tmp_path / "seeds").mkdir()
    target, counts = fuzz.TARGETS[name], {"result": 0, "error": 0}
    seeds, read = target.seeds(tmp_path / "seeds"), target.reader(tmp_path)
    for number in range(10 if name == "pickle.load" else 25 if target.media else 200):
        data = fuzz.input_of(name, seeds, number, 0)
        what, words = fuzz.outcome(read, data)
        assert what in counts, (what, words, data[:200])
        counts[what] += 1
    assert counts["result"] >= 1, "no seed is read"


def test_the_long_version_counts_and_keeps_unnamed_errors(tmp_path, capsys):
    words = ("--only", "fragile", "--executions", "4", "--media", "0", "--keep", str(tmp_path))
    assert fuzz.main(words) == 1
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:5] == ["fragile", "4", "2", "0", "2"]
    assert sorted(path.read_bytes() for path in tmp_path.glob("*.bin")) == [b"abc", b"crash"]


# --- past findings --------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    inner = b'{"a":' * depth + b"1" + b"}" * depth
    return b'{"sha256":"x","b":' + inner + b"}"


ARRAY = pickle.dumps(np.zeros(2), protocol=2)
STORED = {"kind": "audio", **Audio().stored_settings()}
META = [
    ({"label_names": 3}, "no label_names"), ({"label_names": [1]}, "no label_names"),
    ({"samples": "12"}, "no samples"), ({"split_second": None}, "no split_second"),
    ({"shards": {"../x\0": ""}}, "no shards"), ({"order": [1]}, "the spec of"),
    ({"order": 5}, "the spec of"), ({"modalities": {}}, "the spec of"),
    ({"order": ["audio"], "modalities": {"audio": STORED | {"hop": "1"}}}, "hop of audio"),
    ({"order": ["audio"], "modalities": {"audio": {"kind": "audio"}}}, "settings of audio"),
    ({"order": ["sound"], "modalities": {"sound": STORED}}, "lacks a modality"),
]  # fmt: skip
FOUND: list[tuple[str, Any, str]] = [  # target, input (changes to a valid object), words
    ("csv.manifest", b'id,label,text\na,x,"one\ntwo\xff"\nb,y,three\n', "line 2: it is not UTF-8"),
    ("csv.manifest", b"\x1b[31m,x\n", "m.csv has"),
    ("csv.table", b"\x1b[31m,x\n", "no column 'id'"),
    ("csv.manifest", "label,\u202e\n".encode(), "m.csv has"),
    ("csv.manifest", b"id,id,label" + b",id" * 20_000, "m.csv has"),
    ("csv.manifest", b"id,label,image\na,%b,no.jpg\nb,y,c.jpg\n" % (b"9" * 5000), "no file under"),
    ("food101", b"a.jpg,t,waffles\n" + b'x"y,"z\n' * 20_000, "as do many lines above"),
    *(("json.object", nested(depth), "is damaged") for depth in range(940, 1010, 5)),
    ("text.placed", b"[PAD]\n[CLS]\na\n", "no line [UNK]"),
    ("pickle.load", b"\x80\x02}" + ARRAY[2:-1] + b"K\x01s.", "unhashable"),
    ("run.state", b"\x80\x02cos\nsystem\n.", "last.pt is damaged"),
    ("run.config", {"method": "M" * 3000}, "is from another run"),
    ("run.resolved", {"differing": {"half \ud800": 8}}, "is damaged"),
    *(("prepared.meta", changes, words) for changes, words in META),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "words"), FOUND)
def test_past_findings_are_refused_in_one_printable_line(tmp_path, name, data, words):
    if isinstance(data, dict):
        (tmp_path / "made").mkdir()
        seeds = fuzz.TARGETS[name].seeds(tmp_path / "made")
        plain = next(json.loads(seed) for seed in seeds if b'"sha256"' not in seed)
        data = json.dumps(plain | data).encode()
    begun = time.process_time()
    kind, text = outcome_of(tmp_path, name, data)
    assert kind == "error" and words in text, text
    assert time.process_time() - begun < 20


def test_many_classes_and_many_events_are_fast(tmp_path):
    rows = "".join(f"{k},{k}x,{k}\n" for k in range(20_000))
    layout = manifest(tmp_path, f"id,label,text\n{rows}".encode())
    begun = time.process_time()
    assert len(layout.scan(tmp_path, layout.Settings()).label_names) == 20_000
    plant(tmp_path, {"AVE/aaaaaaaaaaa.mp4": ""})
    lines = "".join(f"Bus&aaaaaaaaaaa&good&0&{k}\n" for k in range(1, 20_000))
    (tmp_path / "Annotations.txt").write_text(lines, encoding="utf-8")
    assert len(ave.scan(tmp_path, ave.Settings(every_event=True)).candidates) == 19_999
    assert time.process_time() - begun < 10


def test_a_class_of_thousands_of_digits_is_not_a_number(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text(f"id,key,lost\na,{'9' * 5000},\nb,3,\n", encoding="utf-8")
    assert [row.key for row in read_pool(path)] == ["9" * 5000, "3"]


@pytest.mark.parametrize("memory", ['{"checked": []}', '{"\\ud800": 1}', '{"a": NaN}'])
def test_an_invalid_checksum_cache_is_rebuilt(tmp_path, memory):
    folder = write_prepared(tmp_path / "p")
    (folder / ".local.json").write_text(memory, encoding="utf-8")
    assert len(Prepared(folder)) == 12
    assert read_object(folder / ".local.json")["checked"].keys() == {"samples-00000.arrow"}


@pytest.mark.parametrize("change,words", [
    (lambda t: t.drop_columns("audio"), "audio"), (lambda t: t.rename_columns({"id": "x"}), "id"),
    (lambda t: t.set_column(8, "audio", pa.array(range(12))), "not contain bytes"),
    (lambda t: t.replace_schema_metadata({"spec": "[" * 9000}), "not a readable shard"),
    (lambda t: t.replace_schema_metadata({"spec": "[]"}), "not a readable shard"),
    (lambda t: t.set_column(0, "id", pa.array(["s", *[None] * 11])), "missing values in id"),
    (lambda t: t.set_column(9, "image", pa.array([[b"a"], *[[None]] * 11])), "missing values"),
])  # fmt: skip
def test_a_shard_of_other_columns_or_without_values_is_refused(tmp_path, change, words):
    folder = write_prepared(tmp_path / "p")
    path = folder / "samples-00000.arrow"
    table = change(pa.ipc.open_file(path.read_bytes()).read_all())
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
        empty = pa.RecordBatch.from_pylist([], table.schema)
        writer.write_batch(empty, custom_metadata={"rejected": "[]"})
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        Prepared(folder, check=False)
    assert str(caught.value).isprintable()
