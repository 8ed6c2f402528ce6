"""Readers of hostile or damaged input: structured inputs, random damage, and what that has found.

The long form is `fuzz.py`, whose targets these tests share.
"""

import csv
import io
import json
import pickle
import time
from pathlib import Path

import fuzz
import numpy as np
import pyarrow as pa
import pytest
from fuzz_stored import SPEC, load_here, write_prepared
from fuzz_targets import TREES, plant
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.files import read_object, read_table, write_json
from common.options import UsageError
from data_prep import shards
from data_prep.datasets import ave, food101
from data_prep.datasets.lists import read_records
from data_prep.datasets.manifest import Manifest
from data_prep.datasets.tree import RawTree
from data_prep.modalities import unpickle
from data_prep.modalities.audio import Audio
from data_prep.modalities.text import Text
from data_prep.prepare import scan_root
from data_prep.shards import Shard
from data_prep.spec import spec_from_json, spec_json
from data_prep.store import Prepared, read_pool
from experiments.run.resolve import resolve, run_from_config

quiet = settings(derandomize=True, deadline=None, database=None, max_examples=120)
# What csv can hold: no half characters, no NUL.
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
    """A line of a text may look like a row of its own: then nothing tells where its quote ends."""
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
def test_a_list_of_titles_keeps_all_rows_but_the_spoilt_one(folder, titles, spoilt):
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
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2).filter(any), max_size=6))
def test_a_table_of_ours_is_read_back(folder, rows):
    (folder / "t.csv").write_bytes(csv_bytes([["a", "b"], *rows], end="\r\n"))
    assert [list(row.values()) for row in read_table(folder / "t.csv", ("a", "b"))] == rows


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


# --- damage at random -----------------------------------------------------------------------------

MEDIA = {name for name, target in fuzz.TARGETS.items() if target.media}


def executions(name: str) -> int:
    """Those of a target here: some hundred, of what takes long fewer."""
    if name == "pickle.load":
        return 10
    return {True: 25, False: 200}[name in MEDIA]


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_damage_ends_in_a_result_or_a_named_error(tmp_path, name, monkeypatch):
    monkeypatch.setattr(unpickle, "load", unpickle.load)  # what a target replaces comes back
    monkeypatch.setattr(fuzz.fuzz_stored.array, "load", unpickle.load)
    for each in ("seeds", "reader"):
        (tmp_path / each).mkdir()
    seeds = fuzz.TARGETS[name].seeds(tmp_path / "seeds")
    read, counts = fuzz.TARGETS[name].reader(tmp_path / "reader"), {"result": 0, "error": 0}
    for number in range(executions(name)):
        data = fuzz.input_of(name, seeds, number, 0)
        what, words = fuzz.outcome(read, data)
        assert what in counts, (what, words, data[:200])
        counts[what] += 1
    assert counts["result"] >= 1, "no seed is read"


def test_the_long_form_counts_and_keeps_what_has_no_name(tmp_path, monkeypatch, capsys):
    def fragile(folder):
        def feed(data):
            if b"b" in data:
                raise KeyError("b")
            if b"crash" in data:
                fuzz.os.kill(fuzz.os.getpid(), 9)

        return feed

    target = fuzz.fuzz_targets.Target(lambda folder: [b"aaa", b"abc", b"crash", b"ccc"], fragile)
    monkeypatch.setattr(fuzz, "TARGETS", {"fragile": target})
    monkeypatch.setattr(fuzz, "CHUNK_SHARE", 1)
    status = fuzz.main(["--executions", "4", "--media", "0", "--keep", str(tmp_path / "kept")])
    line = capsys.readouterr().out.splitlines()[1].split()
    assert status == 1 and line[:5] == ["fragile", "4", "2", "0", "2"]
    kept = [path.read_bytes() for path in (tmp_path / "kept").glob("*.bin")]
    assert sorted(kept) == [b"abc", b"crash"]


def test_the_mix_has_enough_of_each_target():
    counts = fuzz.shares(list(fuzz.TARGETS), 2_000_000, 50_000)
    fewer = {"run.checkpoint": 5_000, "run.state": 5_000, "pickle.load": 500}
    assert all(n >= fewer.get(t, 20_000) for t, n in counts.items() if t not in MEDIA)
    assert all(counts[name] >= 500 for name in MEDIA)


# --- what was found -------------------------------------------------------------------------------


def refusal(read, *arguments) -> str:
    with pytest.raises(UsageError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    return message


def test_bytes_that_are_no_utf8_within_a_quoted_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,label,text\na,x,"one\ntwo\xff"\nb,y,three\n')
    records = list(read_records(path, lambda cells: "id" in cells, lambda cells: False))
    assert [(r.line, r.fault) for r in records] == [(1, ""), (2, "it is not UTF-8"), (4, "")]
    layout = Manifest(path)
    assert "line 2: it is not UTF-8" in refusal(layout.scan, tmp_path, layout.Settings())


def test_a_list_of_nothing_but_open_quotes_is_given_up(tmp_path):
    (tmp_path / "t.csv").write_text("a.jpg,t,waffles\n" + 'x"y,"z\n' * 20_000, encoding="utf-8")
    begun = time.process_time()
    words = refusal(food101.read_titles, RawTree(tmp_path), "t.csv", "train")
    assert "as do many lines above" in words
    assert time.process_time() - begun < 20


def test_many_classes_and_many_events_take_no_time(tmp_path):
    rows = "".join(f"{k},{k}x,{k}\n" for k in range(20_000))
    layout = manifest(tmp_path, f"id,label,text\n{rows}".encode())
    begun = time.process_time()
    assert len(layout.scan(tmp_path, layout.Settings()).label_names) == 20_000
    plant(tmp_path, {"AVE/aaaaaaaaaaa.mp4": ""})
    lines = "".join(f"Bus&aaaaaaaaaaa&good&0&{k}\n" for k in range(1, 20_000))
    (tmp_path / "Annotations.txt").write_text(lines, encoding="utf-8")
    assert len(ave.scan(tmp_path, ave.Settings(every_event=True)).candidates) == 19_999
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("header", ["\x1b[31m,x", "label,\u202e", "id,id,label" + ",id" * 20_000])
def test_strange_headers_are_shown_on_one_printable_line(tmp_path, header):
    layout = manifest(tmp_path, f"{header}\n".encode())
    assert "m.csv has" in refusal(layout.scan, tmp_path, layout.Settings())
    assert "has no column 'none'" in refusal(read_table, layout.path, ("none",))


def test_a_tree_without_samples_is_told_of_in_one_line(tmp_path):
    dataset, fuzzed, files, _ = TREES["release.food101"]
    plant(tmp_path, files | {fuzzed: "\x1b" * 3000 + "\n" + "x" * 3000 + "\n"})
    arguments = (food101, dataset, tmp_path, food101.Settings(), True)
    assert "no sample of food101" in refusal(scan_root, *arguments)


def test_a_checksum_of_what_is_nested_too_deep_to_be_written(tmp_path):
    for depth in range(940, 1010):
        nested = '{"a":' * depth + "1" + "}" * depth
        (tmp_path / "a.json").write_text(f'{{"sha256":"x","b":{nested}}}', encoding="utf-8")
        assert "is damaged" in refusal(read_object, tmp_path / "a.json")


def test_a_class_of_thousands_of_digits_is_no_number(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text(f"id,key,lost\na,{'9' * 5000},\nb,3,\n", encoding="utf-8")
    assert [row.key for row in read_pool(path)] == ["9" * 5000, "3"]


STORED = {"kind": "audio", **Audio().stored_settings()}


@pytest.mark.parametrize("changes,told", [
    ({"label_names": 3}, "no label_names"), ({"label_names": [1]}, "no label_names"),
    ({"samples": "12"}, "no samples"), ({"split_second": None}, "no split_second"),
    ({"shards": {"../x\0": ""}}, "no shards"), ({"order": [1]}, "stored form"),
    ({"order": 5}, "stored form"), ({"modalities": {}}, "stored form"),
    ({"order": ["audio"], "modalities": {"audio": STORED | {"hop": "1"}}}, "hop of audio"),
    ({"order": ["audio"], "modalities": {"audio": {"kind": "audio"}}}, "settings of audio"),
    ({"order": ["sound"], "modalities": {"sound": STORED}}, "lacks a modality"),
])  # fmt: skip
def test_a_damaged_meta_json_is_refused(tmp_path, changes, told):
    folder = write_prepared(tmp_path / "p")
    write_json(folder / "meta.json", read_object(folder / "meta.json") | changes)
    assert told in refusal(Prepared, folder)


def test_the_form_of_samples_is_read_back_whatever_may_be_none():
    assert spec_from_json(json.loads(json.dumps(spec_json("demo", SPEC)))) == SPEC


@pytest.mark.parametrize("memory", ['{"checked": []}', '{"\\ud800": 1}', '{"a": NaN}'])
def test_a_memory_of_checksums_that_is_none_is_made_anew(tmp_path, memory):
    folder = write_prepared(tmp_path / "p")
    (folder / ".local.json").write_text(memory, encoding="utf-8")
    assert len(Prepared(folder)) == 12
    assert read_object(folder / ".local.json")["checked"].keys() == {"samples-00000.arrow"}


def test_a_class_with_a_name_of_thousands_of_characters(tmp_path):
    layout = manifest(tmp_path, f"id,label,image\na,{'9' * 5000},no.jpg\nb,y,b.jpg\n".encode())
    plant(tmp_path, {"b.jpg": ""})
    assert "has no file under" in refusal(scan_root, layout, "m", tmp_path, layout.Settings())


@pytest.mark.parametrize("change,told", [
    (lambda t: t.drop_columns("audio"), "audio"), (lambda t: t.rename_columns({"id": "x"}), "id"),
    (lambda t: t.set_column(8, "audio", pa.array(range(12))), "no bytes"),
    (lambda t: t.replace_schema_metadata({"spec": "[" * 9000}), "not a readable shard"),
    (lambda t: t.replace_schema_metadata({"spec": "[]"}), "not a readable shard"),
])  # fmt: skip
def test_a_shard_of_other_columns_is_refused(tmp_path, change, told):
    path = write_prepared(tmp_path / "p") / "samples-00000.arrow"
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    table = change(reader.read_all())
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as out:
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
            empty = table.slice(0, 0).to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
            writer.write_batch(empty[0], custom_metadata={"rejected": "[]"})
    assert told in refusal(Shard, tmp_path / "b.arrow")


@pytest.mark.parametrize("name", ["id", "image"])
def test_a_prepared_folder_whose_values_are_missing_is_refused(tmp_path, name, monkeypatch):
    folder = write_prepared(tmp_path / "p")
    monkeypatch.setattr(Shard, "gaps", lambda shard: [name])
    assert f"lacks values of {name}" in refusal(Prepared, folder)
    monkeypatch.undo()
    column = pa.array([[b"a"], [None]] if name == "image" else ["a", None])
    assert shards._has_gaps(column) and not shards._has_gaps(column[:1])


def test_a_vocabulary_of_a_prepared_folder_that_is_damaged(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n[CLS]\na\n")
    spec = Text("0" * 12, 3, 12)
    assert "no line [UNK]" in refusal(spec.extract, [], "a", tmp_path)


def test_an_array_as_the_key_of_a_dictionary_is_refused(tmp_path):
    array = pickle.dumps(np.zeros(2), protocol=2)
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}" + array[2:-1] + b"K\x01s.")
    assert "unhashable" in refusal(unpickle.load, tmp_path / "a.pkl")


def test_the_words_of_torch_hold_no_escapes(tmp_path):
    read = fuzz.TARGETS["run.state"].reader(tmp_path)
    assert "last.pt is damaged" in refusal(read, b"\x80\x02cos\nsystem\n.")


@pytest.mark.parametrize(("target", "change"), [
    ("run.config", {"method": "M" * 3000}),
    ("run.resolved", {"differing": {"half \ud800": 8}}),
])  # fmt: skip
def test_a_configuration_of_strange_texts_is_refused_in_a_line(tmp_path, target, change):
    found = fuzz.TARGETS[target]
    places = [tmp_path / name for name in ("seeds", "out")]
    for place in places:
        place.mkdir()
    seed = next(s for s in found.seeds(places[0]) if b'"sha256"' not in s)
    data = json.dumps(json.loads(seed) | change).encode()
    kind, text = fuzz.outcome(found.reader(places[1]), data)
    assert kind == "error" and ("is another run's" in text or "is damaged" in text)
