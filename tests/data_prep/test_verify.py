"""`--verify` finds each damage done by hand and names the file; `--stats` counts."""

import json
import os
import shutil
from collections import Counter

import pytest

from common.files import read_table, write_json
from common.options import UsageError
from common.program import run as run_program
from data_prep import checksums, datasets
from data_prep.__main__ import main
from data_prep.datasets.manifest import Settings
from data_prep.prepare import prepare
from data_prep.split import PARTS, Split
from data_prep.stats import TABLE_5, stats, text
from data_prep.store import Prepared, read_meta
from data_prep.verify import MOST, few, verify

FIRST, SECOND = "samples-00000.arrow", "samples-00001.arrow"  # of 256 and of 44 samples
SPLIT, PAIRS = "splits/paper-seed0.csv", "splits/paper-seed0.pairs-test.csv"
PARTNERS, BUILT = "splits/release-seed2.release-pairs-val.csv", "splits/paper-seed0.vocab.txt"


@pytest.fixture
def folder(demo_data, tmp_path):
    """300 prepared digits with two splits and the pairs of their test and validation sets."""
    source = next((demo_data[1] / "demo").iterdir())
    folder, unwanted = tmp_path / "demo" / source.name, shutil.ignore_patterns("splits", ".lock")
    prepared = Prepared(shutil.copytree(source, folder, ignore=unwanted))
    prepared.pairs(Split("paper", 0), "test", prepared.modalities)
    prepared.pairs(Split("release", 2), "val", prepared.modalities, release=True)
    return folder


def flip(path, share=0.5):
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1
    path.write_bytes(data)


def edit(path, change):
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def meta(**values):
    return lambda f: write_json(f / "meta.json", read_meta(f) | values)


def changed(name, harm=flip, *more):
    return lambda f: harm(f / name), [f"{name}: changed since it was written", *more]


def lines_of(name, change, *findings):
    return lambda f: edit(f / name, change), list(findings)


def swap(lines):
    return [lines[0], lines[2], lines[1], *lines[3:]]


DAMAGE = {  # what is done -> (how it is done, how each finding begins)
    "shard": changed(SECOND),
    "cut shard": changed(SECOND, lambda p: os.truncate(p, 99), f"{{folder}}/{SECOND} is not a"),
    "manifest": changed("manifest.csv"), "rejected": changed("rejected.csv"),
    "pool": changed("pool.csv", lambda p: edit(p, swap), "{folder}/pool.csv changed since it"),
    "pairs": changed(PAIRS, lambda p: edit(p, swap)),
    "partners": changed(PARTNERS, lambda p: edit(p, lambda lines: lines[:-1])),
    "lost shard": (lambda f: (f / SECOND).unlink(),
                   [f"{SECOND}: missing", f"{{folder}}/{SECOND} is missing"]),
    "lost manifest": (lambda f: (f / "manifest.csv").unlink(), ["manifest.csv: missing"]),
    "stranger": (lambda f: shutil.copy(f / SECOND, f / "samples-00002.arrow"),
                 ["samples-00002.arrow: not a shard of this dataset"]),
    "split": lines_of(SPLIT, lambda lines: [*lines, "nobody,tst"],
                      "{folder}/" + SPLIT + ", line 302: part 'tst' is not in"),
    "its order": lines_of(SPLIT, swap, f"{SPLIT}: not what its rule draws"),
    "id twice": lines_of(SPLIT, lambda lines: [*lines, lines[1]],
                         "{folder}/" + SPLIT + " does not list each sample exactly once"),
    "no split": (lambda f: (f / "splits/paper-sed0.csv").write_text("id,part\n"),
                 ["splits/paper-sed0.csv: not a file of this dataset"]),
    "torn meta": (lambda f: (f / "meta.json").write_text("{"), ["{folder}/meta.json is damaged"]),
    "unfinished": (meta(complete=False), ["meta.json: the preparation is not finished"]),
    "data set": (meta(dataset="cremad"), ["meta.json: the dataset is 'cremad'"]),
    "version": (meta(version=0), ["meta.json: prepared by version 0"]),
    "no checksums": (meta(tables=None), ["meta.json: the checksums of shards"]),
    "hash": (meta(spec_hash="0123456789ab"), ["meta.json: the hash of its settings"]),
    "order": (meta(order=["video", "audio"]),
              ["meta.json: the hash of its", f"{FIRST}: prepared with", f"{SECOND}: prepared"]),
    "samples": (meta(samples=299), ["{folder} contains 300 samples, but meta.json says 299"]),
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
    assert len(few(findings * 99)) == MOST + 1
    if damage in ("split", "lost manifest", "unfinished"):
        with pytest.raises(UsageError, match="not a finished prepared folder|run --verify"):
            stats(folder)


def test_a_shard_is_hashed_only_if_it_may_have_changed(folder, monkeypatch):
    os.utime(folder / FIRST), os.utime(folder / SECOND)
    hashed, real = [], checksums.file_digest
    monkeypatch.setattr(checksums, "file_digest", lambda p: hashed.append(p.name) or real(p))
    for _ in range(2):
        Prepared(folder)
        assert sorted(hashed) == [FIRST, SECOND]
    flip(folder / FIRST)
    with pytest.raises(UsageError, match=f"{FIRST} changed since it was prepared"):
        Prepared(folder)
    assert hashed[2:] == [FIRST]


def run(capsys, *words):
    status, output = run_program(main, [str(word) for word in words]), capsys.readouterr()
    return status, output.out.splitlines(), output.err.splitlines()


def test_the_command_reports_what_is_valid_and_writes_nothing(capsys, folder):
    files = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}
    words = ("--dataset", "Demo", "--data_dir", folder.parent.parent, "--verify")
    status, out, err = run(capsys, *words, "--num_workers", 1)
    assert (status, out[-1], err) == (0, f"sound: {folder}", [])
    assert out[-2].split() == ["together", "300", "210", "30", "60"]
    assert files == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}
    flip(folder / "manifest.csv", 0.001)
    status, out, err = run(capsys, *words)
    assert status == 1 and err == [f"error: {line}" for line in verify(folder, "demo")] != []


@pytest.mark.parametrize(("words", "message"), [
    ("--verify", "no prepared demo in "), ("--stats", "no prepared demo in "),
    ("--verify --stats", "--verify and --stats are separate commands"),
    ("--verify --dataset_root x", "--dataset_root does not apply to --verify"),
    ("--stats --max_bad 1", "--max_bad does not apply to --stats"),
    ("--json", "--json does not apply to a preparation"),
    ("--verify --num_workers 0", "--num_workers takes a whole number"),
    ("--verify --frame_codec raw", "unknown flag '--frame_codec'"),
])  # fmt: skip
def test_refusals_are_one_line_and_leave_nothing(capsys, tmp_path, words, message):
    status, out, err = run(capsys, "--data_dir", tmp_path / "data", *words.split())
    assert status == 2 and out == [] and len(err) == 1 and message in err[0]
    assert not list(tmp_path.iterdir())


def test_vocabularies_and_the_folder_that_settings_select(capsys, tmp_path):
    own, data, names = tmp_path / "own.csv", tmp_path / "data", ("vocab.txt", BUILT)
    lines = [f"s{k},{'ab'[k % 2]},plum pie{k}" for k in range(20)]
    own.write_text("\n".join(["id,label,text", *lines]))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\npie\nplum\n")
    words, made = ("--dataset", own, "--data_dir", data), []
    for vocabulary, name in zip((str(tmp_path), "build"), names):
        made.append(prepare(str(own), None, data, Settings(vocabulary=vocabulary), workers=1))
        Prepared(made[-1]).vocabulary("paper", 0)
        status, out, _ = run(capsys, *words, "--vocabulary", vocabulary, "--verify")
        assert (status, out[-1]) == (0, f"sound: {made[-1]}")
        assert stats(made[-1])["disk"]["vocabulary"] == (made[-1] / name).stat().st_size
    status, _, (error,) = run(capsys, *words, "--vocabulary", "build", "--max_tokens", 9, "--stats")
    assert status == 2 and all(f"{f.name} (text.max_tokens=64" in error for f in made)
    for folder, name in zip(made, names):
        flip(folder / name)
        (finding,) = verify(folder, folder.parent.name)
        assert finding.startswith(f"{name}: changed since it was written")
    shutil.rmtree(made[0])
    status, _, err = run(capsys, *words, "--verify")
    assert status == 1 and any("with non-default settings" in line for line in err)


def test_statistics_match_the_tables_next_to_the_papers(capsys, folder):
    edit(folder / "rejected.csv", lambda lines: [*lines, "a,a,silent,", "b,b,silent,"])
    edit(folder / "manifest.csv", lambda lines: [*lines[:-1], lines[-1] + "silent;truncated"])
    figures, manifest = stats(folder), read_table(folder / "manifest.csv")
    assert figures["classes"] == Counter(row["label_name"] for row in manifest)
    parts = Counter(row["part"] for row in read_table(folder / SPLIT))
    split = figures["splits"]["paper-seed0"]
    assert {p: sum(c[p] for c in split.values()) for p in PARTS} == parts
    times = sorted(float(row["duration_s"]) for row in manifest)
    assert figures["duration_s"] == [times[0], (times[149] + times[150]) / 2, times[-1]]
    shards = sum((folder / name).stat().st_size for name in (FIRST, SECOND))
    assert figures["disk"]["samples"] == shards
    assert (figures["rejects"], figures["flags"]) == ({"silent": 2}, {"silent": 1, "truncated": 1})
    words = ("--dataset", "demo", "--data_dir", folder.parent.parent, "--stats")
    status, out, err = run(capsys, *words, "--json")
    assert (status, json.loads("\n".join(out)), err) == (0, figures, [])
    assert run(capsys, *words)[1] == text(figures).splitlines()
    lines = text(figures | {"paper": dict(zip(PARTS, TABLE_5["cremad"]))}).splitlines()
    assert "paper, Table 5 7,442 5,209 744 1,489".split() in [line.split() for line in lines]
    assert "no split" in text(figures | {"splits": {}, "duration_s": []})
    for name in TABLE_5.keys() & datasets.DATASETS.keys():
        assert sum(TABLE_5[name]) == datasets.DATASETS[name][1]
