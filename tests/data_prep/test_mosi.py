"""CMU-MOSI: both families of pickles, ratings, ids and parts, and what the model sees."""

import pickle

import numpy as np
import pytest
from raw import rejects, scan

from common.options import UsageError
from data_prep.datasets import mosi
from data_prep.datasets.mosi import FILES, Settings
from data_prep.prepare import prepare
from data_prep.store import Prepared
from experiments.run.resolve import resolve
from fixtures.trees import write_tree

RATINGS = [-3.0, -0.2, -0.0, 0.0, 0.2, 3.0]
MODALITIES = ("text", "audio", "video")


def part(names, ratings=None, mmsa=True):
    """The fields of one part, with six vectors of ones for each name."""
    ratings = np.asarray([1.0] * len(names) if ratings is None else ratings, np.float32)
    widths = zip(("text", "audio", "vision"), (4, 2, 3))
    fields = {key: np.ones((len(names), 6, d)) for key, d in widths}
    if mmsa:
        return {**fields, "id": list(names), "regression_labels": ratings}
    rows = np.asarray([[name.encode(), b"0.0", b"1.5"] for name in names])
    return {**fields, "id": rows, "labels": ratings.reshape(-1, 1, 1)}


def parts_of(mmsa=True, **changes):
    joint = "$_$" if mmsa else "_"
    names = {"train": ("a", "b"), "valid": ("c", "d"), "test": ("e", "f")}
    parts = {p: part([f"vid-{n}{joint}1" for n in some], mmsa=mmsa) for p, some in names.items()}
    return {p: parts[p] | changes.get(p, {}) for p in parts}


def write(root, parts, name="aligned_50.pkl"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(pickle.dumps(parts, protocol=4))
    return root


def scan_mult(root, parts):
    return scan("mosi", write(root, parts, "mosi_data.pkl"), feature_files="mult_aligned")


# Labels, ids, parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule,labels", [
    ("neg_nonneg", [0, 0, 1, 1, 1, 1]), ("pos_nonpos", [0, 0, 0, 0, 1, 1]),
    ("nonzero", [0, 0, 1, 1]),
])  # fmt: skip
def test_classes_of_a_rating(tmp_path, rule, labels):
    train = part([f"v$_${k}" for k in range(6)], RATINGS)
    found = scan("mosi", write(tmp_path, parts_of(train=train)), label_rule=rule)
    assert [c.label for c in found.candidates if c.part == "train"] == labels
    left_out = [r.id for r in found.rejected]
    assert left_out == (["v$_$2", "v$_$3"] if rule == "nonzero" else [])
    assert all(r.reason == "no_label" and "--label_rule" in r.detail for r in found.rejected)


# changes of the train part -> the rejects; the other sample is kept
FLAWS = [
    *((part(["x$_$1", "y$_$2"], [rating, 1]), ("x$_$1", "no_label"))
      for rating in (np.nan, -np.inf, 3.2)),
    *(({"regression_labels": ratings}, ("vid-a$_$1", "no_label"))
      for ratings in (["a", 1.0], [None, 1.0], [np.ones(2), 1.0])),
    *((part(["a", "b"]) | {"id": [bad, "b$_$1"]}, ("train/0", "unknown_name"))
      for bad in ("  ", b"\xff", None, (), {})),
]  # fmt: skip


@pytest.mark.parametrize(("train", "due"), FLAWS)
def test_a_clip_with_a_flaw_affects_no_others(tmp_path, train, due):
    found = scan("mosi", write(tmp_path, parts_of(train=train)))
    ((name, source, reason),) = rejects(found)
    assert (name, reason) == due and source == "aligned_50.pkl" and len(found.candidates) == 5
    assert "train/" in found.rejected[0].detail


def test_parts_groups_and_rows(tmp_path):
    found = scan("mosi", write(tmp_path, parts_of()))
    first, last = found.candidates[0], found.candidates[-1]
    assert (first.id, first.part, first.group) == ("vid-a$_$1", "train", "vid-a")
    assert first.inline == {
        "text": "train/text/0", "audio": "train/audio/0", "video": "train/vision/0",
    }  # fmt: skip
    assert first.sources == dict.fromkeys(MODALITIES, ("aligned_50.pkl",))
    assert (last.part, last.inline["video"]) == ("test", "test/vision/1")
    assert {c.part for c in found.candidates} == {"train", "val", "test"}


def test_the_video_of_an_id(tmp_path):
    videos = {"-_--$_$7": "-_--", "a_$_$_1$_$12": "a_$_$_1", "_a__b--c_12$_$1": "_a__b--c_12"}
    found = scan("mosi", write(tmp_path / "mmsa", parts_of(test=part(list(videos)))))
    assert {c.id: c.group for c in found.candidates if c.part == "test"} == videos
    videos = {"-_--_7": "-_--", "_a__b--c_12_1": "_a__b--c_12"}
    found = scan_mult(tmp_path / "mult", parts_of(False, test=part(list(videos), mmsa=False)))
    assert {c.id: c.group for c in found.candidates if c.part == "test"} == videos


def test_clips_of_one_video_differ_in_their_times(tmp_path):
    def of_videos(*rows):
        fields = part(["x"] * len(rows), mmsa=False)
        return fields | {"id": np.asarray([[str(v).encode() for v in row] for row in rows])}

    rows = (("a_-b", 0.5, 2.0), ("a_-b", 2.0, 3.25), ("c", 0.0, 1.0), ("c", 0.0, 1.0))
    valid = of_videos(("d", 1, 2), ("d", 3, 4))
    found = scan_mult(tmp_path, parts_of(False, train=of_videos(*rows), valid=valid))
    assert {c.id: c.group for c in found.candidates if c.part != "test"} == {
        "a_-b_0.5_2": "a_-b", "a_-b_2_3.25": "a_-b", "c_0_1": "c", "d_1_2": "d", "d_3_4": "d",
    }  # fmt: skip
    assert [(r.id, r.reason) for r in found.rejected] == [("c_0_1", "duplicate")]


# The root -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["", "Processed", "MOSI/Processed", "CMU-MOSI", "cmu_mosi/Processed"]
)
def test_locations_of_the_file(tmp_path, place):
    write(tmp_path / place, parts_of())
    write(tmp_path / "MOSEI/Processed", parts_of(train=part(["other$_$1"])))
    found = scan("mosi", tmp_path)
    source = f"{place}/aligned_50.pkl".lstrip("/")
    assert {c.sources["text"] for c in found.candidates} == {(source,)}
    assert len(found.candidates) == 6


def test_other_files_next_to_the_file_and_in_the_root(tmp_path):
    write(tmp_path, parts_of(False), "mosi_data.pkl")
    with pytest.raises(UsageError, match="it has files for --feature_files mult_aligned"):
        scan("mosi", tmp_path)
    write(tmp_path, parts_of())
    for name in ("label.csv", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    found = scan("mosi", tmp_path)
    assert rejects(found) == [("label", "label.csv", "unknown_name")]


def test_the_only_variant_present_is_used_and_reported(tmp_path, capsys):
    write(tmp_path, parts_of(False), "mosi_data_noalign.pkl")
    assert mosi.detect(tmp_path) == {"feature_files": "mult_unaligned"}
    words = ["--dataset", "mosi", "--method", "Joint", "--dataset_root", str(tmp_path)]
    run, _ = resolve(words, "")
    assert run.prep.feature_files == "mult_unaligned" and not run.differing
    assert "--feature_files mult_unaligned: using them" in capsys.readouterr().err
    run, _ = resolve([*words, "--feature_files", "mmsa_aligned"], "")
    assert run.prep.feature_files == "mmsa_aligned"
    write(tmp_path, parts_of(), "aligned_50.pkl")
    assert mosi.detect(tmp_path) == {}


@pytest.mark.parametrize(
    "parts",
    [
        [], {"train": {}}, parts_of(False), {k: parts_of()[k] for k in ("train", "test")},
        parts_of(train={"audio": np.ones((2, 6))}), parts_of(train={"audio": np.ones((3, 6, 2))}),
        parts_of(test={"audio": np.ones((2, 6, 5))}), parts_of(train={"vision": [[1.0]] * 2}),
        parts_of(train={"text": np.array([[["a"]]] * 2)}), parts_of(valid={"id": ["a$_$1"]}),
        parts_of(valid={"regression_labels": 3}), parts_of(valid={"id": np.array("a")}),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_pickle_of_something_else_is_refused(tmp_path, parts):
    with pytest.raises(UsageError, match="aligned_50.pkl") as error:
        scan("mosi", write(tmp_path, parts))
    assert "\n" not in str(error.value)


# Prepared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES.variants)
def test_what_is_stored_is_what_was_generated(tmp_path, name):
    """No padding from either family, float32, zeros instead of non-finite values."""
    root, settings = tmp_path / "raw", Settings(feature_files=name)
    write_tree("mosi", root, 10, truth_path=tmp_path / "t.csv", layout=name, corrupt_each=2)
    data = Prepared(prepare("mosi", root, tmp_path / "data", settings, workers=1, max_bad=1))
    content = pickle.loads(next(root.rglob("*.pkl")).read_bytes(), encoding="latin1")  # our own
    found = scan("mosi", root, feature_files=name)
    rows = {c.id: c.inline for c in found.candidates}
    for position, sample in enumerate(data.ids):
        for m in MODALITIES:
            where, key, row = rows[sample][m].split("/")
            values = content[where][key][int(row)].astype(np.float32)
            values[~np.isfinite(values)] = 0
            alive = np.flatnonzero(values.any(1))
            values = values[alive[0] : alive[-1] + 1] if len(alive) else values[:0]
            shape, stored = data.value(position, m)
            stored = np.frombuffer(stored, np.float32).reshape(np.frombuffer(shape, np.int32))
            assert np.array_equal(stored, values), (sample, m)
