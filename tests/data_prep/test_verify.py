"""`--verify` finds each damage done by hand and names the file; `--stats` counts."""

import json
import math
import os
import random
import shutil
from collections import Counter

import numpy as np
import pytest

from common.files import file_digest, read_table, write_json, write_table
from common.options import UsageError
from common.program import run as run_program
from data_prep import checksums, datasets
from data_prep.__main__ import main
from data_prep.datasets.manifest import Settings
from data_prep.modalities.array import Array
from data_prep.modalities.audio import Audio
from data_prep.prepare import prepare
from data_prep.shards import Shard, ShardWriter, schema
from data_prep.split import PARTS
from data_prep.stats import TABLE_5, aligned, stats, text
from data_prep.store import Prepared, read_meta
from data_prep.verify import MOST, few, verify

FIRST, SECOND = "samples-00000.arrow", "samples-00001.arrow"  # of 256 and of 44 samples
SPLIT, PAIRS = "splits/paper-seed0.csv", "splits/paper-seed0.pairs-test.csv"
PARTNERS, BUILT = "splits/release-seed2.release-pairs-val.csv", "splits/paper-seed0.vocab.txt"


@pytest.fixture(scope="module")
def digits(demo_data, tmp_path_factory):
    """300 prepared digits with two splits and the pairs of their test and validation parts."""
    source = next((demo_data[1] / "demo").iterdir())
    folder = tmp_path_factory.mktemp("sound") / "demo" / source.name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("splits", ".lock"))
    prepared = Prepared(folder)
    prepared.pairs("paper", 0, "test", prepared.modalities)
    prepared.release_pairs("release", 2, "val", prepared.modalities)
    return folder


@pytest.fixture
def folder(digits, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(digits, tmp_path / "demo" / digits.name)


def flip(path, share=0.5):
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1
    path.write_bytes(data)


def edit(path, change):
    """Rewrites a table by a function of its lines, the header being line 0."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def edit_meta(folder, **values):
    write_json(folder / "meta.json", read_meta(folder) | values)


def swap(lines):
    return [lines[0], lines[2], lines[1], *lines[3:]]


def of_other_settings(folder):
    """A shard whose checksum is right, and which was prepared with another spec."""
    audio = Audio(seconds=9.0)
    spec = Prepared(folder, check=False).spec | {"audio": audio}
    writer = ShardWriter(folder / SECOND, schema("demo", spec))
    for k in range(44):
        text = dict.fromkeys(("group", "part", "sources", "flags"), "")
        stored = bytes(2 * math.prod(audio.shape))
        rows = {"audio": stored, "video": [], "duration_s": 0.0, "n_frames": 0}
        writer.append({"id": f"x{k}", "label": 0, **text, **rows})
    writer.close([])
    edit_meta(folder, shards=read_meta(folder)["shards"] | {SECOND: file_digest(folder / SECOND)})


def changed(name, harm=flip, others=()):
    return lambda f: harm(f / name), [f"{name}: changed since it was written", *others]


DAMAGE = {  # how it is done -> (the deed, how each finding begins)
    "shard": changed(SECOND),
    "end of a shard": changed(FIRST, lambda p: flip(p, 0.9999), [f"{{folder}}/{FIRST} is not a"]),
    "cut shard": changed(SECOND, lambda p: os.truncate(p, 5000), [f"{{folder}}/{SECOND} is not a"]),
    "manifest": changed("manifest.csv"),
    "rejected": changed("rejected.csv", lambda p: edit(p, lambda rows: [*rows, "a,b,silent,"])),
    "pool": changed("pool.csv", lambda p: edit(p, swap), ["{folder}/pool.csv changed since it"]),
    "pairs": changed(PAIRS, lambda p: edit(p, swap)),
    "partners": changed(PARTNERS, lambda p: edit(p, lambda rows: rows[:-1])),
    "lost shard": (lambda f: (f / SECOND).unlink(),
                   [f"{SECOND}: missing", f"{{folder}}/{SECOND} is missing"]),
    "lost manifest": (lambda f: (f / "manifest.csv").unlink(), ["manifest.csv: missing"]),
    "stranger": (lambda f: shutil.copy(f / SECOND, f / "samples-00002.arrow"),
                 ["samples-00002.arrow: not a shard of this set"]),
    "other settings": (of_other_settings,
                       [f"{SECOND}: prepared with other settings",
                        "{folder}/" + SPLIT, "{folder}/splits/release-seed2.csv"]),
    "split": (lambda f: edit(f / SPLIT, lambda rows: [rows[0], rows[1].split(",")[0] + ",test",
                                                      rows[2].split(",")[0] + ",val", *rows[3:]]),
              ["splits/paper-seed0.csv: not what its rule draws"]),
    "id twice": (lambda f: edit(f / SPLIT, lambda rows: [*rows, rows[1]]),
                 ["{folder}/" + SPLIT + " does not list each sample exactly once"]),
    "part of no such name": (lambda f: edit(f / SPLIT, lambda rows: [*rows[:-1], rows[-1] + "x"]),
                             ["{folder}/" + SPLIT + ", line 301: part "]),
    "file of no split": (lambda f: (f / "splits/paper-sed0.csv").write_text("id,part\n"),
                         ["splits/paper-sed0.csv: nothing of this set"]),
    "no meta.json": (lambda f: (f / "meta.json").unlink(), ["meta.json: the preparation is not"]),
    "torn meta.json": (lambda f: (f / "meta.json").write_text('{"version": 1,'),
                       ["{folder}/meta.json is damaged"]),
    "unfinished": (lambda f: edit_meta(f, complete=False), ["meta.json: the preparation is not"]),
    "data set": (lambda f: edit_meta(f, dataset="cremad"), ["meta.json: the data set is 'cremad'"]),
    "version": (lambda f: edit_meta(f, version=0), ["meta.json: prepared by version 0"]),
    "no checksums": (lambda f: edit_meta(f, tables=None), ["meta.json: it holds no checksums"]),
    "hash": (lambda f: edit_meta(f, spec_hash="0123456789ab"), ["meta.json: its settings have"]),
    "order": (lambda f: edit_meta(f, order=["video", "audio"]),
              ["meta.json: its settings have", f"{FIRST}: prepared with", f"{SECOND}: prepared"]),
    "samples": (lambda f: edit_meta(f, samples=299), ["{folder} holds 300 samples and its meta"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_is_a_finding_that_names_the_file(folder, damage):
    harm, expected = DAMAGE[damage]
    harm(folder)
    findings = verify(folder, "demo")
    assert all(finding.isprintable() for finding in findings)
    assert len(findings) == len(expected), findings
    for finding, begin in zip(findings, expected):
        assert finding.startswith(begin.format(folder=folder)), findings


def test_a_sound_folder_has_no_findings_and_is_not_touched(digits):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in digits.parent.rglob("*")}
    assert verify(digits, "demo", 2) == []
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in digits.parent.rglob("*")}


def test_a_shard_is_hashed_when_it_may_have_changed_and_not_else(folder, monkeypatch):
    hashed, real = [], checksums.file_digest
    monkeypatch.setattr(checksums, "file_digest", lambda p: hashed.append(p.name) or real(p))
    Prepared(folder)
    assert sorted(hashed) == [FIRST, SECOND]  # a copy: other inodes
    Prepared(folder)
    assert len(hashed) == 2
    flip(folder / FIRST)
    with pytest.raises(UsageError, match=f"{FIRST} changed since it was prepared"):
        Prepared(folder)
    assert hashed[2:] == [FIRST]


def test_offsets_that_lead_astray_end_in_an_error(folder, tmp_path):
    """Arrow follows offsets wherever they point to, so they are checked first."""
    data = (folder / SECOND).read_bytes()
    draw, refused = random.Random(1), 0
    at = len(data) - int.from_bytes(data[-10:-6], "little") - 10  # the footer, the schema in it
    for turn in range(400):
        place = draw.randrange(at, len(data)) if turn % 2 else draw.randrange(5000)
        damaged = bytearray(data)
        damaged[place] ^= 1 << draw.randrange(8)
        (tmp_path / "s.arrow").write_bytes(damaged)
        try:
            shard = Shard(tmp_path / "s.arrow")
            for name in ("id", "label", "flags"):
                shard.column(name)
        except UsageError as error:
            refused += "is not a readable shard" in str(error)
    assert refused > 100


def test_vocabularies_are_held_against_their_checksums(tmp_path):
    words = "".join(f"{w}\n" for w in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "pie", "plum"))
    (tmp_path / "vocab.txt").write_text(words)
    rows = [f"s{k},{'ab'[k % 2]},plum pie{k}" for k in range(20)]
    (tmp_path / "own.csv").write_text("\n".join(["id,label,text", *rows]))
    for vocabulary, name in ((str(tmp_path), "vocab.txt"), ("build", BUILT)):
        settings = Settings(vocabulary=vocabulary)
        folder = prepare(str(tmp_path / "own.csv"), None, tmp_path / "data", settings, workers=1)
        Prepared(folder).vocabulary("paper", 0)
        dataset = folder.parent.name
        assert verify(folder, dataset) == []
        assert stats(folder)["disk"]["vocabulary"] == (folder / name).stat().st_size
        flip(folder / name)
        (finding,) = verify(folder, dataset)
        assert finding.startswith(f"{name}: changed since it was written")


def test_vectors_of_several_widths_do_not_fit_together():
    pack = Array().pack
    samples = [(f"s{k}", pack(np.zeros((2, 5 - k // 19), np.float32))) for k in range(20)]
    Array().check_together("words", samples[:19])
    with pytest.raises(
        UsageError, match="words have several widths .4 in 1 samples, the first 's19"
    ):
        Array().check_together("words", samples)


def test_many_findings_of_one_kind_are_cut_short():
    lines = few([f"x: {k}" for k in range(100)])
    assert len(lines) == MOST + 1 and lines[-1] == f"{100 - MOST} more findings of this kind"


# The command --------------------------------------------------------------------------------------


def run(capsys, *words):
    status = run_program(main, [str(word) for word in words])
    output = capsys.readouterr()
    return status, output.out.splitlines(), output.err.splitlines()


def test_the_command_says_what_is_sound_and_what_is_not(capsys, folder):
    words = ("--dataset", "Demo", "--data_dir", folder.parent.parent, "--verify")
    status, out, err = run(capsys, *words)
    assert (status, out[-1], err) == (0, f"sound: {folder}", [])
    assert out[-2].split() == ["together", "300", "210", "30", "60"]
    flip(folder / "manifest.csv", 0.001)
    findings = verify(folder, "demo")
    status, out, err = run(capsys, *words)
    assert status == 1 and err == [f"error: {finding}" for finding in findings] != []


@pytest.mark.parametrize(("words", "message"), [
    (["--verify"], "no prepared demo in "), (["--stats"], "no prepared demo in "),
    (["--verify", "--stats"], "--verify and --stats are two commands"),
    (["--verify", "--dataset_root", "x"], "--dataset_root does not apply to --verify"),
    (["--stats", "--max_bad", "1"], "--max_bad does not apply to --stats"),
    (["--json"], "--json does not apply to a preparation"),
    (["--verify", "--num_workers", "0"], "--num_workers takes a whole number"),
    (["--verify", "--frame_codec", "raw"], "unknown flag '--frame_codec'"),
])  # fmt: skip
def test_refusals_are_one_line_and_leave_nothing(capsys, tmp_path, words, message):
    status, out, err = run(capsys, "--dataset", "demo", "--data_dir", tmp_path / "data", *words)
    assert status == 2 and out == [] and len(err) == 1 and message in err[0]
    assert not list(tmp_path.iterdir())


def test_settings_select_the_folder_and_the_only_one_is_taken_unasked(capsys, tmp_path):
    rows = [f"s{k},{'ab'[k % 2]},plum pie{k}" for k in range(20)]
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["id,label,text", *rows]))
    words = ("--dataset", own, "--data_dir", tmp_path / "data", "--vocabulary", "build")
    made = [prepare(str(own), None, tmp_path / "data", Settings(vocabulary="build", max_tokens=n),
                    workers=1) for n in (9, 10)]  # fmt: skip
    status, out, _ = run(capsys, *words, "--max_tokens", 9, "--verify")
    assert (status, out[-1]) == (0, f"sound: {made[0]}")
    status, _, (error,) = run(capsys, *words, "--verify")
    assert status == 2 and all(f"{f.name} (text.max_tokens=" in error for f in made)
    shutil.rmtree(made[0])
    status, out, err = run(capsys, *words[:4], "--verify")
    assert (status, out[-1]) == (0, f"sound: {made[1]}")
    assert any("other settings than the defaults" in line for line in err)


# --stats ------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_tables(capsys, digits):
    figures, manifest = stats(digits), read_table(digits / "manifest.csv")
    assert figures["classes"] == Counter(row["label_name"] for row in manifest)
    parts = Counter(row["part"] for row in read_table(digits / SPLIT))
    split = figures["splits"]["paper-seed0"]
    assert {p: sum(c[p] for c in split.values()) for p in PARTS} == parts
    times = sorted(float(row["duration_s"]) for row in manifest)
    assert figures["duration_s"] == [times[0], (times[149] + times[150]) / 2, times[-1]]
    shards = sum((digits / name).stat().st_size for name in (FIRST, SECOND))
    assert figures["disk"]["samples"] == shards and figures["disk"]["vocabulary"] == 0
    words = ("--dataset", "demo", "--data_dir", digits.parent.parent, "--stats")
    status, out, err = run(capsys, *words, "--json")
    assert (status, json.loads("\n".join(out)), err) == (0, figures, [])
    assert run(capsys, *words)[1] == text(figures).splitlines()


def test_rejects_and_flags_are_counted_by_kind(folder):
    write_table(folder / "rejected.csv", ("id", "source", "reason", "detail"), [
        ("a", "a", "silent", ""), ("b", "b", "unreadable", ""), ("c", "c", "silent", ""),
    ])  # fmt: skip
    edit(folder / "manifest.csv", lambda rows: [*rows[:-1], rows[-1] + "silent;truncated"])
    figures = stats(folder)
    assert figures["rejects"] == {"silent": 2, "unreadable": 1}
    assert figures["flags"] == {"silent": 1, "truncated": 1}


def test_the_text_stands_beside_the_papers_sizes(digits):
    figures = stats(digits) | {"paper": dict(zip(PARTS, TABLE_5["cremad"]))}
    lines = [line.split() for line in text(figures).splitlines()]
    assert ["paper,", "Table", "5", "7,442", "5,209", "744", "1,489"] in lines
    assert ["paper-seed0", "all", "train", "val", "test"] in lines and ["none", "0"] in lines
    without = text(figures | {"splits": {}, "duration_s": []})
    assert "no split" in without and "7,442" in without and "median" not in without
    assert aligned([("a", "n"), ("bcd", 1234)]) == "a        n\nbcd  1,234"
    for name in TABLE_5.keys() & datasets.DATASETS.keys():
        assert sum(TABLE_5[name]) == datasets.DATASETS[name][1]


@pytest.mark.parametrize("harm", [
    lambda f: edit_meta(f, complete=False),
    lambda f: (f / "manifest.csv").unlink(),
    lambda f: edit(f / "manifest.csv", lambda rows: [*rows, "torn"]),
    lambda f: edit(f / SPLIT, lambda rows: [*rows, "nobody,test"]),
])  # fmt: skip
def test_no_figures_of_a_damaged_folder(folder, harm):
    harm(folder)
    with pytest.raises(UsageError, match="not a finished prepared folder|--verify tells more"):
        stats(folder)
