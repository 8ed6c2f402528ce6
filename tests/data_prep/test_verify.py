"""`--verify` finds each damage done by hand and says where; `--stats` counts; Table 5's sizes."""

import json
import os
import random
import re
import shutil
from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from common.files import file_digest, read_object, read_table, write_json, write_table
from common.options import UsageError, option
from common.program import run as run_program
from data_prep import checksums, datasets
from data_prep.__main__ import differences, find_folder, main
from data_prep.finish import finish
from data_prep.modalities.stored import fault
from data_prep.modalities.transforms import frame_bytes
from data_prep.shards import Shard, ShardWriter, schema
from data_prep.spec import (
    Array,
    Audio,
    Candidate,
    Flow,
    Image,
    Rejection,
    Scan,
    Text,
    Video,
    spec_from_json,
    spec_hash,
    spec_json,
)
from data_prep.split import PARTS, paper_counts
from data_prep.stats import NOT_BY_RULE, TABLE_5, aligned, stats, text
from data_prep.store import CHECKSUMS, Prepared, read_meta
from data_prep.verify import verify
from data_prep.verify_tables import MOST, SPLIT_NAME, Found, check_pairs, check_split, few

FIRST, SECOND = "samples-00000.arrow", "samples-00001.arrow"  # of 256 and of 44 digits
SPLIT, PAIRS = "splits/paper-seed0.csv", "splits/paper-seed0.pairs-test.csv"


@pytest.fixture(scope="module")
def sound(demo_data, tmp_path_factory):
    """A prepared folder of 300 digits with its default split and the pairs of the test part."""
    source = next((demo_data[1] / "demo").iterdir())
    folder = tmp_path_factory.mktemp("sound") / "demo" / source.name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("splits", ".lock"))
    prepared = Prepared(folder)
    prepared.split("paper", 0)
    prepared.pairs("paper", 0, "test", prepared.modalities)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(sound, tmp_path / "demo" / sound.name)


def edit_meta(folder, **values):
    write_json(folder / "meta.json", read_meta(folder) | values)


def edit_lines(path, change):
    """Rewrites a file by a function of its lines, the header being line 0."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def edit_shard(folder, name, change):
    """Rewrites a shard: `change(rows)` gets its rows and returns those to be written."""
    shard, meta = Shard(folder / name), read_meta(folder)
    columns = schema("demo", spec_from_json(meta))
    rows = [row for batch in shard.batches for row in batch.to_pylist()]
    writer = ShardWriter(folder / name, columns)
    for row in change(rows):
        writer.append(row)
    writer.close(shard.rejected)
    edit_meta(folder, shards=meta["shards"] | {name: file_digest(folder / name)})


# The whole folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sound_folder_has_no_findings_and_is_not_touched(sound, workers):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sound.parent.rglob("*")}
    assert verify(sound, "demo", workers) == []
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sound.parent.rglob("*")}


def flip(path, at, bit=0):
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_bit_of_a_shard_is_found_when_it_is_opened_and_verified(folder, share):
    path = folder / SECOND
    flip(path, int(path.stat().st_size * share))
    with pytest.raises(UsageError, match=f"{SECOND} changed since it was prepared"):
        Prepared(folder)
    assert f"{SECOND}: changed since it was prepared: its SHA-256 is another" in verify(
        folder, "demo"
    )


def test_a_shard_is_hashed_when_it_may_have_changed_and_not_else(folder, monkeypatch):
    hashed = []
    real = checksums.file_digest
    monkeypatch.setattr(checksums, "file_digest", lambda p: hashed.append(p.name) or real(p))
    Prepared(folder)
    assert sorted(hashed) == [FIRST, SECOND]  # a copy: other inodes
    Prepared(folder)
    assert len(hashed) == 2
    os.utime(folder / FIRST)
    Prepared(folder)
    assert hashed[2:] == [FIRST]


def test_metadata_of_any_damage_end_in_an_error(folder, tmp_path):
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


def swap(lines, a, b):
    lines[a], lines[b] = lines[b], lines[a]
    return lines


def replace(lines, k, old, new):
    assert old in lines[k]
    lines[k] = lines[k].replace(old, new)
    return lines


def to_other_part(lines):
    """Moves the first test sample to the validation part."""
    k = next(k for k, line in enumerate(lines) if line.endswith(",test"))
    return replace(lines, k, ",test", ",val")


def set_value(name, value):
    def change(rows):
        rows[3][name] = value(rows[3][name]) if callable(value) else value
        return rows

    return change


def nan_in(stored):
    return np.full(2, np.nan, np.float16).tobytes() + stored[4:]


DAMAGE = {
    "a cut shard": (
        lambda f: os.truncate(f / SECOND, 5000),
        [f"^{SECOND}: does not open: .*not a readable shard", "manifest.* not checked"],
    ),
    "an empty shard": (lambda f: os.truncate(f / FIRST, 0), [f"^{FIRST}: does not open"]),
    "a shard without an end mark": (
        lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes()[:-3] + b"xxx"),
        [f"^{FIRST}: does not open"],
    ),
    "a lost shard": (lambda f: (f / SECOND).unlink(), [f"^{SECOND}: missing"]),
    "one shard more": (
        lambda f: shutil.copy(f / SECOND, f / "samples-00002.arrow"),
        ["^samples-00002.arrow: no shard of this set"],
    ),
    "a shard in another's place": (
        lambda f: shutil.copy(f / FIRST, f / SECOND),
        [f"^{SECOND}: 256 samples and rejects instead of 44", "^shards: the id .* twice"],
    ),
    "a sample less in a shard": (
        lambda f: edit_shard(f, SECOND, lambda rows: rows[1:]),
        [f"^{SECOND}: 43 samples", "^manifest.csv: 300 samples, .*299", "^meta.json: samples 300"],
    ),
    "another label in a shard": (
        lambda f: edit_shard(f, FIRST, set_value("label", lambda label: (label + 1) % 10)),
        ["^manifest.csv: line 5: label '", "^manifest.csv: line 5: label_name", "^meta.*per_class"],
    ),
    "a label of no class": (
        lambda f: edit_shard(f, FIRST, set_value("label", 10)),
        [r"^shards: labels \[10\] of 10 classes"],
    ),
    "sound that is not finite": (
        lambda f: edit_shard(f, FIRST, set_value("audio", nan_in)),
        [rf"^{FIRST}: audio of '.*': values that are not finite"],
    ),
    "a frame too short": (
        lambda f: edit_shard(f, FIRST, set_value("video", lambda v: [v[0], v[1][:-1], v[2]])),
        [rf"^{FIRST}: video of '.*': a frame of 3071 bytes that is not uint8 .32, 32, 3"],
    ),
    "a frame missing": (
        lambda f: edit_shard(f, FIRST, set_value("video", lambda v: v[:2])),
        [rf"^{FIRST}: video of '.*': 2 frames instead of 3 to 3"],
    ),
    "a value missing": (
        lambda f: edit_shard(f, FIRST, set_value("video", None)),
        [f"^{FIRST}: values are missing in video", "not checked: they need all shards"],
    ),
    "no meta.json": (lambda f: (f / "meta.json").unlink(), ["^meta.json is missing"]),
    "a torn meta.json": (
        lambda f: (f / "meta.json").write_text('{"version": 1,'),
        ["meta.json cannot be read: .* is damaged"],
    ),
    "an unfinished preparation": (
        lambda f: edit_meta(f, complete=False),
        ["^meta.json: the preparation is not finished"],
    ),
    "another hash in meta.json": (
        lambda f: edit_meta(f, spec_hash="0123456789ab"),
        ["^meta.json: spec_hash '0123456789ab' in the folder"],
    ),
    "another spec in meta.json": (
        lambda f: edit_meta(f, order=["video", "audio"]),
        ["^meta.json: its spec has the hash"],
    ),
    "another data set": (lambda f: edit_meta(f, dataset="cremad"), ["data set is 'cremad'"]),
    "another version": (lambda f: edit_meta(f, version=0), ["prepared by version 0"]),
    "another count": (
        lambda f: edit_meta(f, samples=299),
        [r"^meta.json: candidates, shard_size, samples and rejected are \[300, 256, 299, 0\]"],
    ),
    "other class counts": (
        lambda f: edit_meta(f, per_class=read_meta(f)["per_class"] | {"3": 0}),
        [r'^meta.json: per_class \{"3": 0\}, the shards have \{"3": \d\d\}'],
    ),
    "classes in another order": (
        lambda f: edit_meta(f, label_names=list("1023456789")),
        ["label_name '0', the shard has '1'", "^meta.json: per_class"],
    ),
    "a label changed in the manifest": (
        lambda f: edit_lines(f / "manifest.csv", lambda rows: replace(rows, 2, ",", ",7", )),
        ["^manifest.csv: line 3: label '7.+', the shard has '.'"],
    ),
    "two lines of the manifest swapped": (
        lambda f: edit_lines(f / "manifest.csv", lambda rows: swap(rows, 4, 5)),
        ["^manifest.csv: line 5: id '", "^manifest.csv: line 6: id '"],
    ),
    "a line of the manifest lost": (
        lambda f: edit_lines(f / "manifest.csv", lambda rows: rows[:-1]),
        ["^manifest.csv: 299 samples, the shards have 300"],
    ),
    "a line of the manifest torn": (
        lambda f: edit_lines(f / "manifest.csv", lambda rows: [*rows[:-1], rows[-1][:9]]),
        ["^manifest.csv: line 301 has not 9 fields"],
    ),
    "no manifest": (
        lambda f: (f / "manifest.csv").unlink(),
        ["^manifest.csv: cannot be read: .*No such file"],
    ),
    "a reason that does not exist": (
        lambda f: edit_lines(f / "rejected.csv", lambda rows: [*rows, "a,b,bad_luck,"]),
        ["^rejected.csv: the reason 'bad_luck' does not exist"],
    ),
    "an id twice in a split": (
        lambda f: edit_lines(f / SPLIT, lambda rows: [*rows, rows[1]]),
        ["^paper-seed0.csv: id '.*' stands there twice"],
    ),
    "an id in two parts": (
        lambda f: edit_lines(f / SPLIT, lambda rows: [*rows, rows[1].split(",")[0] + ",test"]),
        ["^paper-seed0.csv: id '.*' stands there twice"],
    ),
    "a sample missing in a split": (
        lambda f: edit_lines(f / SPLIT, lambda rows: rows[:-1]),
        ["^paper-seed0.csv: sample '.*' is missing"],
    ),
    "an id of no sample": (
        lambda f: edit_lines(f / SPLIT, lambda rows: [*rows, "nobody,test"]),
        ["^paper-seed0.csv: id 'nobody' is no sample"],
    ),
    "a part of no such name": (
        lambda f: edit_lines(f / SPLIT, lambda rows: [*rows[:-1], rows[-1].split(",")[0] + ",tst"]),
        ["^paper-seed0.csv: part 'tst' is none of train, val, test"],
    ),
    "a sample in another part": (
        lambda f: edit_lines(f / SPLIT, to_other_part),
        [r"^paper-seed0.csv: parts of \(210, 31, 59\) samples instead of \(210, 30, 60\)",
         "^paper-seed0.pairs-test.csv: line .* is no sample of this part"],
    ),
    "a pair lost": (
        lambda f: edit_lines(f / PAIRS, lambda rows: rows[:-1]),
        ["^paper-seed0.pairs-test.csv: 119 rows instead of 120", "in both directions"],
    ),
    "a file of no split": (
        lambda f: (f / "splits/paper-sed0.csv").write_text("id,part\n"),
        ["^splits/paper-sed0.csv: neither a split nor pairs"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_is_found(folder, damage):
    harm, expected = DAMAGE[damage]
    harm(folder)
    findings = verify(folder, "demo")
    assert findings and all("\n" not in finding for finding in findings)
    for words in expected:
        assert any(re.search(words, finding) for finding in findings), (words, findings)


def test_a_renamed_folder_is_told_of_all_specs(folder):
    moved = folder.rename(folder.with_name("0123456789ab"))
    findings = verify(moved, "demo")
    assert len([f for f in findings if "its spec has the hash" in f]) == 3  # meta and two shards
    assert "the samples are not checked" in findings[-1]


def test_a_sound_shard_is_checked_beside_a_broken_one(folder):
    os.truncate(folder / SECOND, 5000)
    edit_shard(folder, FIRST, set_value("audio", nan_in))
    findings = verify(folder, "demo")
    assert any(f.startswith(SECOND) for f in findings)
    assert any("not finite" in f for f in findings)


def test_a_lost_reject_is_found(folder):
    shard = Shard(folder / SECOND)
    rows = [row for batch in shard.batches for row in batch.to_pylist()]
    writer = ShardWriter(folder / SECOND, schema("demo", spec_from_json(read_meta(folder))))
    for row in rows[1:]:
        writer.append(row)
    writer.close([Rejection(rows[0]["id"], "clips/x.avi", "unreadable", "of\nno use")])
    findings = verify(folder, "demo")
    assert f"rejected.csv: lacks {rows[0]['id']!r}, unreadable, of the shards" in findings
    assert any(f.startswith("meta.json: rejected 0, the shards have 1") for f in findings)


def test_many_findings_of_one_kind_are_cut_short():
    lines = few(f"x: {k}" for k in range(100))
    assert len(lines) == MOST + 1 and lines[-1] == f"x: {100 - MOST} more findings of this kind"


# Splits and pairs ---------------------------------------------------------------------------------


def found(n=12, **columns):
    names = {"id": [f"s{k}" for k in range(n)], "label": [k % 3 for k in range(n)]}
    return Found(names | columns)


def splits_findings(tmp_path, rule, parts, facts):
    path = tmp_path / f"{rule}-seed0.csv"
    write_table(path, ("id", "part"), zip(facts.columns["id"], parts))
    return check_split(path, SPLIT_NAME.fullmatch(path.stem), facts, {"split_second": 2 / 3})[1]


def test_a_group_in_two_parts_is_found(tmp_path):
    parts = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    whole = found(group=[f"g{k // 3}" for k in range(12)])
    torn = found(group=[f"g{k // 4}" for k in range(12)])
    assert splits_findings(tmp_path, "group", parts, whole) == []
    assert splits_findings(tmp_path, "group", parts, torn) == [
        "group-seed0.csv: group 'g1' stands in several parts",
        "group-seed0.csv: group 'g2' stands in several parts",
    ]


def test_an_official_split_is_that_of_the_raw_data(tmp_path):
    declared = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    facts = found(part=declared)
    assert splits_findings(tmp_path, "official", declared, facts) == []
    assert splits_findings(tmp_path, "official", ["val", *declared[1:]], facts) == [
        "official-seed0.csv: 's0' is in val, the raw data say 'train'"
    ]


def test_an_empty_part_is_found(tmp_path):
    parts = ["train"] * 6 + ["val"] * 6
    assert splits_findings(tmp_path, "official", parts, found(part=parts)) == [
        "official-seed0.csv: the test part is empty"
    ]


@pytest.fixture
def released(folder):
    """The folder with the release's split and its pairs of the validation part."""
    prepared = Prepared(folder)
    prepared.split("release", 2)
    prepared.release_pairs("release", 2, "val", prepared.modalities)
    return folder


@pytest.mark.parametrize(("file", "change", "words"), [
    ("splits/release-seed2.csv", lambda rows: swap(rows, 1, 2),
     "release-seed2.csv: not what the release's rule draws"),
    ("pool.csv", lambda rows: swap(rows, 1, 11), "release-seed2.csv: not what the release"),
    ("pool.csv", lambda lines: [*lines[:-1], ",3,"], "pool.csv: line 301: ',3,'"),
    ("pool.csv", lambda lines: lines[:20], "release-seed2.csv: the draw cannot be repeated"),
    ("splits/release-seed2.release-pairs-val.csv", lambda rows: swap(rows, 1, 2),
     "release-seed2.release-pairs-val.csv: the first column is not the part in its order"),
    ("splits/release-seed2.release-pairs-val.csv", lambda lines: [*lines[:-1], lines[-1][:9] * 2],
     "release-seed2.release-pairs-val.csv"),
])  # fmt: skip
def test_the_release_s_draw_is_repeated(released, file, change, words):
    assert verify(released, "demo") == []
    edit_lines(released / file, change)
    assert any(finding.startswith(words) for finding in verify(released, "demo"))


def test_pairs_that_changed_as_a_whole_are_found(released):
    """They may be sound in themselves, and still others than the runs had."""
    path = released / "splits/release-seed2.release-pairs-val.csv"
    sums = read_object(path.with_name(CHECKSUMS))
    write_json(path.with_name(CHECKSUMS), sums | {path.name: "0" * 64})
    assert verify(released, "demo") == [f"splits/{path.name}: changed since it was written"]
    how = ("release", 2, "val", ["audio", "video"])
    with pytest.raises(UsageError, match="had the SHA-256 000000000000... then, and has"):
        Prepared(released).release_pairs(*how)
    path.unlink()
    Prepared(released).release_pairs(*how)
    assert verify(released, "demo") == []


def test_a_partner_from_outside_the_batch_is_found(released):
    path = released / "splits/release-seed2.release-pairs-val.csv"
    path.with_name(CHECKSUMS).unlink()
    rows = [line.split(",") for line in path.read_text().splitlines()]
    rows[1][1] = rows[1][0] if rows[1][1] != rows[1][0] else rows[2][0]
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    assert verify(released, "demo") == [f"{path.name}: line 2 on: not a permutation of these 64"
                                        " samples"]  # fmt: skip


def test_a_missing_pool_is_found_and_refused(folder):
    (folder / "pool.csv").unlink()
    assert any(finding.startswith("pool.csv: cannot be read") for finding in verify(folder, "demo"))
    with pytest.raises(UsageError, match="pool.csv is missing"):
        Prepared(folder).split("release", 0)


GOOD = ("s0", "s1", "s2")


@pytest.mark.parametrize(("rows", "words"), [
    ([GOOD] * 5, []),
    ([GOOD] * 4, ["4 rows instead of 5"]),
    ([GOOD] * 4 + [("s0", "s0", "s1")], ["line 6: one sample twice"]),
    ([GOOD] * 4 + [("s0", "s3", "s6")], ["line 6: samples of one class alone"]),
    ([GOOD] * 4 + [("s0", "s1", "s9")], ["line 6: 's9' is no sample of this part"]),
])  # fmt: skip
def test_pairs_of_three_modalities(tmp_path, rows, words):
    path = tmp_path / "paper-seed0.pairs-val.csv"
    write_table(path, "abc", rows)
    findings = check_pairs(path, {"s0", "s1", "s2", "s3", "s6"}, found(), list("abc"))
    assert findings == [f"{path.name}: {finding}" for finding in words]


# Stored values ------------------------------------------------------------------------------------


def jpeg(height, width, channels=3):
    image = np.random.default_rng(0).integers(0, 255, (height, width, channels), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


WIDE = jpeg(30, 40)
GREY = jpeg(30, 40, 1)
RAW = frame_bytes(np.zeros((5, 6, 3), np.uint8), Video(fps=1.0, codec="raw"))
SIDEWAYS = frame_bytes(np.zeros((6, 5, 3), np.uint8), Video(fps=1.0, codec="raw"))
IDS = np.asarray([2, 9, 3], np.uint16).tobytes()
VECTORS = np.ones((4, 5), np.float32).tobytes()
SHAPE = np.asarray([4, 5], np.int32).tobytes()


@pytest.mark.parametrize(("value", "spec", "words"), [
    (bytes(2 * 129 * 1251), Audio(sample_rate=16000, seconds=10.0, n_fft=256, hop=128), ""),
    (bytes(7), Audio(), "7 bytes instead of float16 [257, 188]"),
    ([WIDE] * 10, Video(fps=1.0), ""),
    ([WIDE] * 11, Video(fps=1.0), "11 frames instead of 1 to 10"),
    ([], Video(fps=1.0), "0 frames instead of 1 to 10"),
    ([WIDE], Video(fps=1.0, min_frames=2), "1 frames instead of 2 to 10"),
    ([WIDE, WIDE[:-200]], Video(fps=1.0), "picture 1 of 2 does not decode"),
    ([WIDE, b""], Video(fps=1.0), "picture 1 of 2 does not decode"),
    ([b"<html>404</html>"], Video(fps=1.0), "picture 0 of 1 does not decode"),
    ([GREY], Video(fps=1.0), "pictures of (30, 40) instead of RGB"),
    ([WIDE, jpeg(40, 30)], Video(fps=1.0), "pictures of the shapes [(30, 40, 3), (40, 30, 3)]"),
    ([WIDE], Video(fps=1.0, short_side=20), "pictures of (30, 40, 3): the shorter side is"),
    ([WIDE], Video(positions=1, square=32), "pictures of (30, 40, 3) instead of 32 x 32"),
    ([RAW, RAW], Video(fps=1.0, codec="raw"), ""),
    ([RAW, RAW[:-1]], Video(fps=1.0, codec="raw"), "a frame of 89 bytes that is not uint8 [5,"),
    ([b"x"], Video(fps=1.0, codec="raw"), "a frame of 0 bytes that is not uint8 [120, 0, 3]"),
    ([RAW, SIDEWAYS], Video(fps=1.0, codec="raw"), "frames of the shapes [(5, 6), (6, 5)]"),
    ([RAW], Video(fps=1.0, codec="raw", short_side=4), "frames of (5, 6): the shorter side is ab"),
    ([WIDE], Image(), ""),
    ([WIDE] * 2, Image(), "2 pictures instead of 1"),
    ([WIDE[:-9]], Image(), "picture 0 of 1 does not decode"),
    ([WIDE], Image(short_side=29), "pictures of (30, 40, 3): the shorter side is above 29"),
    ([GREY] * 12, Flow(positions=3, stack=2), ""),
    ([GREY] * 11, Flow(positions=3, stack=2), "11 pictures instead of 12"),
    ([GREY] * 11 + [jpeg(30, 44, 1)], Flow(positions=3, stack=2), "pictures of the shapes [(30, 4"),
    ([GREY[:-9]] * 12, Flow(positions=3, stack=2), "picture 0 of 12 does not decode"),
    ([GREY + b"maker's note"] * 12, Flow("precomputed", positions=3, stack=2), ""),
    ([IDS, bytes(3)], Text(), ""),
    ([IDS, bytes([0, 1, 1])], Text(pair=True), ""),
    ([IDS, bytes([0, 1, 1])], Text(), "segment 1"),
    ([IDS, bytes(2)], Text(), "[6, 2] bytes instead of two a token and one a segment"),
    ([IDS], Text(), "[6] bytes instead of two a token and one a segment"),
    ([b"", b""], Text(), "0 tokens instead of 1 to 40"),
    ([IDS, bytes(3)], Text(max_tokens=2), "3 tokens instead of 1 to 2"),
    ([b"\xff\x00", b"\0"], Text(), "token 255 of a vocabulary of 10"),
    ([b"pie", "é".encode()], Text("build", pair=True), ""),
    ([b""], Text("build"), ""),
    ([b"pie", b"best"], Text("build"), "2 texts instead of 1"),
    ([IDS, bytes(3)], Text("build"), "2 texts instead of 1"),
    (["é".encode()[:1]], Text("build"), "a text that is not UTF-8"),
    ([SHAPE, VECTORS], Array(), ""),
    ([SHAPE, VECTORS], Array(max_length=3), "the shape [4, 5], at most 3 vectors"),
    ([SHAPE, VECTORS[4:]], Array(), "76 bytes instead of float32 [4, 5]"),
    ([SHAPE[:4], VECTORS], Array(), "[4, 80] bytes instead of a shape and its values"),
    ([bytes(8), b""], Array(), "the shape [0, 0], at most 512 vectors"),
    ([np.asarray([0, 5], np.int32).tobytes(), b""], Array(), ""),
    ([SHAPE, VECTORS[:-4] + b"\0\0\xc0\x7f"], Array(), "values that are not finite"),
])  # fmt: skip
def test_a_value_that_is_not_what_its_spec_says(value, spec, words):
    wrong = fault(value, spec, 10)
    assert wrong.startswith(words) and bool(wrong) == bool(words)


def folder_of(tmp_path, spec, values):
    """A prepared folder of given values, one sample each, by the same steps as `prepare`."""
    folder = tmp_path / "texts" / spec_hash("texts", spec)
    rows = [
        {"id": f"s{k:02d}", "label": k % 2, "group": "", "part": "", "sources": "a.csv",
         "duration_s": 0.0, "n_frames": 1, "flags": "", **dict(zip(spec, value))}
        for k, value in enumerate(values)
    ]  # fmt: skip
    writer = ShardWriter(folder / FIRST, schema("texts", spec))
    for row in rows:
        writer.append(row)
    writer.close([])
    scan = Scan(("no", "yes"), [Candidate(row["id"], row["label"], {}) for row in rows])
    meta = spec_json("texts", spec) | {
        "spec_hash": folder.name, "complete": False, "label_names": ["no", "yes"],
        "candidates": len(rows), "candidates_hash": "", "split_second": 2 / 3,
        "release_cut": "test", "shard_size": 256, "tools": {},
        "shards": {FIRST: file_digest(folder / FIRST)},
    }  # fmt: skip
    finish(folder, scan, spec, meta, 0.0, count_filled=True)
    return folder


def test_texts_need_their_vocabulary(tmp_path):
    spec = {"text": Text("0123456789ab", 10, 40), "more": Array()}
    folder = folder_of(tmp_path, spec, [([IDS, bytes(3)], [SHAPE, VECTORS])] * 20)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join("abcdefghij") + "\n")
    assert verify(folder, "texts") == []
    vocabulary.write_text("\n".join("abcdefghi") + "\n")
    assert f"{FIRST}: text of 's00': token 9 of a vocabulary of 9" in verify(folder, "texts")
    vocabulary.write_text("\n".join("abcdefghijk") + "\n")
    assert verify(folder, "texts") == ["vocab.txt: 11 lines, the spec of text has 10"]
    vocabulary.unlink()
    assert verify(folder, "texts")[0] == "vocab.txt: 0 lines, the spec of text has 10"
    vocabulary.write_text("\n".join("abcdefghij") + "\n")
    Prepared(folder).split("paper", 0)
    shutil.copy(vocabulary, folder / "splits" / "paper-seed0.vocab.txt")
    told = ["splits/paper-seed0.vocab.txt: no vocabulary is built of these samples"]
    assert verify(folder, "texts") == told


def test_built_vocabularies_are_made_again_from_the_stored_texts(tmp_path):
    spec = {"text": Text("build", 100, 40, pair=True), "more": Array()}
    values = [([f"plum{k} pie".encode(), b"best"], [SHAPE, VECTORS]) for k in range(20)]
    folder = folder_of(tmp_path, spec, values)
    assert verify(folder, "texts") == []
    vocabulary = Prepared(folder).vocabulary("paper", 0)
    vocabulary.with_name(CHECKSUMS).unlink()
    content = vocabulary.read_bytes()
    assert verify(folder, "texts") == [] and stats(folder)["disk"]["vocabulary"] == len(content)
    for damaged in (content[:-3], content.replace(b"pie\n", b""), b"", b"\xff" + content):
        vocabulary.write_bytes(damaged)
        told = f"{vocabulary.name}: not what the texts of the train part give"
        assert damaged != content and verify(folder, "texts") == [told]
    vocabulary.rename(vocabulary.with_name("paper-seed1.vocab.txt"))
    told = "splits/paper-seed1.vocab.txt: neither a split nor pairs of one that is here"
    assert verify(folder, "texts") == [told]


def test_vectors_of_several_widths_end_no_preparation_and_are_found(tmp_path):
    other = [np.asarray([5, 4], np.int32).tobytes(), VECTORS]
    values = [([SHAPE, VECTORS],)] * 19 + [(other,)]
    told = r"of words have several widths \(4 in 1 samples, the first 's19'; 5 in 19 samples"
    with pytest.raises(UsageError, match=told):
        folder_of(tmp_path, {"words": Array()}, values)
    (folder,) = (tmp_path / "texts").iterdir()
    meta = read_meta(folder)
    assert not meta["complete"]
    write_json(folder / "meta.json", {**meta, "complete": True})
    (folder / "splits").mkdir()
    assert verify(folder, "texts") == ["words: vectors of the widths [4, 5]"]


# The command --------------------------------------------------------------------------------------


def run(capsys, *words):
    status = run_program(main, [str(word) for word in words])
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if line and "verify demo" not in line]
    return status, output.out, lines


def test_the_command_says_that_all_is_well(capsys, sound):
    places = ("--dataset", "demo", "--data_dir", sound.parent.parent)
    status, out, err = run(capsys, *places, "--verify", "--num_workers", 1)
    assert status == 0 and err == []
    assert out.splitlines()[-1] == f"sound: {sound}"
    assert [line.split() for line in out.splitlines()][-2] == ["together", "300", "210", "30", "60"]


def test_the_command_gives_one_line_a_finding_and_status_1(capsys, folder):
    edit_lines(folder / "manifest.csv", lambda rows: swap(rows, 4, 5))
    edit_lines(folder / SPLIT, lambda rows: [*rows, "nobody,test"])
    places = ("--dataset", "Demo", "--data_dir", folder.parent.parent)
    status, _, err = run(capsys, *places, "--verify", "--num_workers", 1)
    findings = verify(folder, "demo")
    assert status == 1 and err == [f"error: {finding}" for finding in findings]


def test_the_command_reports_a_folder_without_tables(capsys, folder):
    (folder / "meta.json").unlink()
    places = ("--dataset", "demo", "--data_dir", folder.parent.parent)
    assert run(capsys, *places, "--verify") == (1, "", ["error: meta.json is missing or empty"])


@pytest.mark.parametrize(("words", "message"), [
    (["--verify"], "no prepared demo in "),
    (["--stats"], "no prepared demo in "),
    (["--verify", "--stats"], "--verify and --stats are two commands"),
    (["--verify", "--dataset_root", "x"], "--dataset_root does not apply to --verify"),
    (["--stats", "--max_bad", "1"], "--max_bad does not apply to --stats"),
    (["--json"], "--json does not apply to a preparation"),
    (["--verify", "--num_workers", "0"], "--num_workers takes a whole number"),
    (["--verify", "--frame_codec", "raw"], "unknown flag '--frame_codec'"),
])  # fmt: skip
def test_refusals_are_one_line_and_leave_nothing(capsys, tmp_path, words, message):
    status, out, err = run(capsys, "--dataset", "demo", "--data_dir", tmp_path / "data", *words)
    assert status == 2 and out == "" and len(err) == 1 and message in err[0]
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Choice:
    length: int = option(5, "vectors")


class Arrays:
    """A layout of which only the settings and the spec are asked."""

    Settings = Choice

    @staticmethod
    def spec(settings):
        return {"words": Array(settings.length)}


def test_settings_select_the_folder_and_the_only_one_is_taken_unasked(tmp_path, capsys):
    made = {n: folder_of(tmp_path, {"words": Array(n)}, [([SHAPE, VECTORS],)] * 20) for n in (4, 5)}
    find = [tmp_path, "texts", Arrays]
    assert find_folder(*find, Choice(), False) == made[5]
    assert find_folder(*find, Choice(4), True) == made[4]
    shutil.rmtree(made[5])
    assert find_folder(*find, Choice(), False) == made[4]
    assert "other settings than the defaults" in capsys.readouterr().err
    with pytest.raises(UsageError, match=f"{made[4].name} .words.max_length=4.") as error:
        find_folder(*find, Choice(3), True)
    assert "\n" not in str(error.value)


def test_several_folders_are_named_where_no_flag_selects_one(tmp_path):
    made = [folder_of(tmp_path, {"words": Array(n)}, [([SHAPE, VECTORS],)] * 20) for n in (7, 8)]
    (made[0] / "meta.json").write_text("{")
    with pytest.raises(UsageError) as error:
        find_folder(tmp_path, "texts", Arrays, Choice(), False)
    assert f"{made[0].name} (without a readable meta.json)" in str(error.value)
    assert f"{made[1].name} (words.max_length=8)" in str(error.value)
    same = spec_json("texts", {"words": Array(8)})["modalities"]
    assert differences(made[1], same) == "of another version of this program"


# --stats ------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_tables(sound):
    figures = stats(sound)
    manifest = read_table(sound / "manifest.csv")
    assert figures["classes"] == Counter(row["label_name"] for row in manifest)
    parts = Counter(row["part"] for row in read_table(sound / SPLIT))
    split = figures["splits"]["paper-seed0"]
    assert {p: sum(c[p] for c in split.values()) for p in PARTS} == parts
    times = sorted(float(row["duration_s"]) for row in manifest)
    assert figures["duration_s"] == [times[0], (times[149] + times[150]) / 2, times[-1]]
    shards = sum((sound / name).stat().st_size for name in (FIRST, SECOND))
    assert figures["disk"]["samples"] == shards and figures["disk"]["vocabulary"] == 0
    assert figures["paper"] == {} and figures["rejects"] == {}


def test_rejects_and_flags_are_counted_by_kind(folder):
    write_table(folder / "rejected.csv", ("id", "source", "reason", "detail"), [
        ("a", "a", "silent", ""), ("b", "b", "unreadable", ""), ("c", "c", "silent", ""),
    ])  # fmt: skip
    edit_lines(folder / "manifest.csv", lambda rows: [*rows[:-1], rows[-1] + "silent;truncated"])
    figures = stats(folder)
    assert figures["rejects"] == {"silent": 2, "unreadable": 1}
    assert figures["flags"] == {"silent": 1, "truncated": 1}


def test_the_text_stands_beside_the_papers_sizes(sound):
    figures = stats(sound) | {"paper": dict(zip(PARTS, TABLE_5["cremad"]))}
    lines = [line.split() for line in text(figures).splitlines()]
    assert ["paper,", "Table", "5", "7,442", "5,209", "744", "1,489"] in lines
    assert ["paper-seed0", "all", "train", "val", "test"] in lines
    assert ["none", "0"] in lines and lines[0][2:] == "300 samples of 300 candidates".split()
    without = text(figures | {"splits": {}, "duration_s": []})
    assert "no split" in without and "7,442" in without and "median" not in without


def test_columns_are_aligned():
    assert aligned([("a", "n"), ("bcd", 1234)]) == "a        n\nbcd  1,234"


def test_figures_as_json(capsys, sound):
    places = ("--dataset", "demo", "--data_dir", sound.parent.parent)
    status, out, err = run(capsys, *places, "--stats", "--json")
    assert status == 0 and err == [] and json.loads(out) == stats(sound)
    status, out, _ = run(capsys, *places, "--stats")
    assert status == 0 and out == text(stats(sound)) + "\n"


@pytest.mark.parametrize("harm", [
    lambda f: edit_meta(f, complete=False),
    lambda f: (f / "manifest.csv").unlink(),
    lambda f: edit_lines(f / "manifest.csv", lambda rows: [*rows, "torn"]),
    lambda f: edit_lines(f / SPLIT, lambda rows: [*rows, "nobody,test"]),
])  # fmt: skip
def test_no_figures_of_a_damaged_folder(folder, harm):
    harm(folder)
    with pytest.raises(UsageError, match="not a finished prepared folder|--verify tells more"):
        stats(folder)


# Table 5 ------------------------------------------------------------------------------------------


def second_cut(name):
    return datasets.load(name).SPLIT_SECOND if name in datasets.DATASETS else 2 / 3


def test_the_totals_are_those_of_the_registry():
    for name, sizes in TABLE_5.items():
        assert sum(sizes) == datasets.DATASETS.get(name, ("", sum(sizes)))[1]


@pytest.mark.parametrize("name", [name for name in TABLE_5 if name not in NOT_BY_RULE])
def test_the_split_rule_gives_the_papers_sizes(name):
    assert paper_counts(sum(TABLE_5[name]), second_cut(name)) == TABLE_5[name]


@pytest.mark.parametrize("name", NOT_BY_RULE)
def test_two_rows_no_second_cut_reproduces(name):
    """CMU-MOSI has its official parts, Sarcasm a train part that 70 % of its total does not give.

    The train part comes from the first cut alone, so no choice of the second one could help.
    """
    total = sum(TABLE_5[name])
    trains = {paper_counts(total, share / 100)[0] for share in range(1, 100)}
    assert trains == {7 * total // 10} and TABLE_5[name][0] not in trains
