"""CMU-MOSI: from pickles of both families to a trained run, and the encoder of sequences."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import program

from common.files import file_digest, read_table
from common.options import UsageError, check
from data_prep import datasets
from data_prep.datasets import mosi
from data_prep.datasets.mosi import VARIANTS, Settings
from data_prep.finish import TooManyRejects
from data_prep.loader import Loader, train_statistics
from data_prep.prepare import prepare
from data_prep.reasons import REASONS
from data_prep.store import Prepared
from experiments.run.folder import RunFolder
from experiments.run.resolve import resolve
from experiments.run.settings import DATASET_DEFAULTS
from fixtures.mosi_tree import BESIDE, EXPECTED, SIGNAL, write_mosi
from fixtures.pickles import BAD_PICKLES, write_bad_pickle
from models.build import Choice, Stream, build_classifier
from models.sequences import SequenceEncoder

RATINGS = [-3.0, -0.2, -0.0, 0.0, 0.2, 3.0]


def part(names, ratings=None, mmsa=True, rows=6):
    """The fields of one part, with a vector of ones for each row."""
    ratings = np.asarray([1.0] * len(names) if ratings is None else ratings, np.float32)
    fields = {
        key: np.ones((len(names), rows, d))
        for key, d in zip(("text", "audio", "vision"), (4, 2, 3))
    }
    if mmsa:
        return {**fields, "id": list(names), "regression_labels": ratings}
    rows_of = np.asarray([[name.encode(), b"0.0", b"1.5"] for name in names])
    return {**fields, "id": rows_of, "labels": ratings.reshape(-1, 1, 1)}


def write(root, parts, name="aligned_50.pkl"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(pickle.dumps(parts, protocol=4))
    return root


def parts_of(mmsa=True, **changes):
    joint = "$_$" if mmsa else "_"
    names = {"train": ("a", "b"), "valid": ("c", "d"), "test": ("e", "f")}
    parts = {p: part([f"vid-{n}{joint}1" for n in some], mmsa=mmsa) for p, some in names.items()}
    return {p: parts[p] | changes.get(p, {}) for p in parts}


def scan(root, **settings):
    found = mosi.scan(root, Settings(**settings))
    assert all(rejection.reason in REASONS for rejection in found.rejected)
    return found


# --- labels, ids, parts ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule,labels", [
    ("neg_nonneg", [0, 0, 1, 1, 1, 1]),
    ("pos_nonpos", [0, 0, 0, 0, 1, 1]),
    ("nonzero", [0, 0, 1, 1]),
])  # fmt: skip
def test_classes_of_a_rating(tmp_path, rule, labels):
    train = part([f"v$_${k}" for k in range(6)], RATINGS)
    root = write(tmp_path, parts_of(train=train))
    found = scan(root, label_rule=rule)
    assert [c.label for c in found.candidates if c.part == "train"] == labels
    left_out = [r.id for r in found.rejected]
    assert left_out == (["v$_$2", "v$_$3"] if rule == "nonzero" else [])
    assert all(r.reason == "no_label" and "--label_rule" in r.detail for r in found.rejected)


@pytest.mark.parametrize("rating", [np.nan, np.inf, -np.inf, 3.2, -3.2])
def test_a_rating_outside_of_the_scale_is_none(tmp_path, rating):
    root = write(tmp_path, parts_of(valid=part(["x$_$1", "y$_$2"], [rating, 1])))
    (rejection,) = scan(root).rejected
    assert (rejection.id, rejection.reason) == ("x$_$1", "no_label")
    assert "valid/0" in rejection.detail and rejection.source == "aligned_50.pkl"


def test_parts_groups_and_rows(tmp_path):
    (first, *_, last) = scan(write(tmp_path, parts_of())).candidates
    assert (first.id, first.part, first.group) == ("vid-a$_$1", "train", "vid-a")
    assert first.inline == {
        "text": "train/text/0",
        "audio": "train/audio/0",
        "video": "train/vision/0",
    }
    assert first.sources == dict.fromkeys(("text", "audio", "video"), ("aligned_50.pkl",))
    assert (last.part, last.inline["video"]) == ("test", "test/vision/1")
    assert {c.part for c in scan(tmp_path).candidates} == {"train", "val", "test"}


@pytest.mark.parametrize("name,video", [
    ("-_--$_$7", "-_--"), ("a_$_$_1$_$12", "a_$_$_1"), ("_a__b--c_12$_$1", "_a__b--c_12"),
])  # fmt: skip
def test_the_video_of_an_mmsa_id(tmp_path, name, video):
    root = write(tmp_path, parts_of(test=part([name])))
    assert {c.id: c.group for c in scan(root).candidates}[name] == video


@pytest.mark.parametrize("name,video", [("-_--_7", "-_--"), ("_a__b--c_12_1", "_a__b--c_12")])
def test_the_video_of_a_mult_id(tmp_path, name, video):
    root = write(tmp_path, parts_of(False, test=part([name], mmsa=False)), "mosi_data.pkl")
    assert {c.id: c.group for c in scan(root, feature_files="mult_aligned").candidates}[
        name
    ] == video


def of_videos(*rows):
    """The fields of a part whose ids are the videos alone, as (video, start, end)."""
    fields = part(["x"] * len(rows), mmsa=False)
    return fields | {"id": np.asarray([[str(v).encode() for v in row] for row in rows])}


def test_clips_of_one_video_are_told_apart_by_their_times(tmp_path):
    rows = (("a_-b", 0.5, 2.0), ("a_-b", 2.0, 3.25), ("c", 0.0, 1.0), ("c", 0.0, 1.0))
    parts = parts_of(False, train=of_videos(*rows), valid=of_videos(("d", 1, 2), ("d", 3, 4)))
    found = scan(write(tmp_path, parts, "mosi_data.pkl"), feature_files="mult_aligned")
    ids = {c.id: c.group for c in found.candidates if c.part != "test"}
    assert ids == {
        "a_-b_0.5_2": "a_-b", "a_-b_2_3.25": "a_-b", "c_0_1": "c", "d_1_2": "d", "d_3_4": "d",
    }  # fmt: skip
    assert [(r.id, r.reason) for r in found.rejected] == [("c_0_1", "duplicate")]


def test_the_only_variant_there_is_is_taken_and_said(tmp_path, capsys):
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


def test_the_preparation_draws_the_split_that_training_takes():
    for name in ("mosi", "ave"):
        rule = DATASET_DEFAULTS[name]["split_rule"]
        assert datasets.load(name).SPLIT_RULE == rule == "official"
    others = DATASET_DEFAULTS.keys() - {"mosi", "ave"}
    assert not any(hasattr(datasets.load(name), "SPLIT_RULE") for name in others)


@pytest.mark.parametrize("kind", ["S", object, "U"])
def test_ids_of_any_form(tmp_path, kind):
    rows = np.asarray([[b"vid_1", b"0.0", b"1.5"]]).astype(kind)
    root = write(
        tmp_path, parts_of(False, test=part(["x"], mmsa=False) | {"id": rows}), "mosi_data.pkl"
    )
    assert "vid_1" in {c.id for c in scan(root, feature_files="mult_aligned").candidates}


@pytest.mark.parametrize("bad", ["", "  ", b"\xff", None, 7, ()])
def test_a_clip_without_an_id(tmp_path, bad):
    root = write(tmp_path, parts_of(test=part(["a", "b"]) | {"id": [bad, "b$_$1"]}))
    (rejection,) = scan(root).rejected
    assert (rejection.id, rejection.reason) == ("test/0", "unknown_name")


def test_an_id_in_two_parts_is_kept_once(tmp_path):
    found = scan(write(tmp_path, parts_of(test=part(["vid-a$_$1", "z$_$1"]))))
    assert [(r.id, r.reason) for r in found.rejected] == [("vid-a$_$1", "duplicate")]
    assert [c.part for c in found.candidates if c.id == "vid-a$_$1"] == ["train"]


# --- the root -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["", "Processed", "MOSI/Processed", "CMU-MOSI", "cmu_mosi/Processed"]
)
def test_places_of_the_file(tmp_path, place):
    write(tmp_path / place, parts_of())
    write(tmp_path / "MOSEI/Processed", parts_of(train=part(["other$_$1"])))
    found = scan(tmp_path)
    source = f"{place}/aligned_50.pkl".lstrip("/")
    assert {c.sources["text"] for c in found.candidates} == {(source,)}
    assert len(found.candidates) == 6 and any("2199" in line for line in found.warnings)


def test_what_stands_beside_the_file(tmp_path):
    write(tmp_path, parts_of())
    write(tmp_path, parts_of(False), "mosi_data.pkl")
    for name in ("label.csv", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    found = scan(tmp_path)
    assert [(r.source, r.reason) for r in found.rejected] == [("label.csv", "unknown_name")]
    assert any("--feature_files mult_aligned" in line for line in found.warnings)


def test_a_wrong_root_says_what_it_must_hold(tmp_path):
    with pytest.raises(UsageError, match="unaligned_50.pkl") as error:
        scan(tmp_path)
    assert "\n" not in str(error.value)
    write(tmp_path, parts_of(False), "mosi_data.pkl")
    with pytest.raises(UsageError, match="it holds is for --feature_files mult_aligned"):
        scan(tmp_path)


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_a_file_that_is_no_data_is_refused(tmp_path, kind):
    write_bad_pickle(tmp_path / "aligned_50.pkl", kind, tmp_path / "marker")
    with pytest.raises(UsageError):
        prepare("mosi", tmp_path, tmp_path / "data", Settings(), workers=1)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "parts",
    [
        [], {}, {"train": {}}, parts_of(False), {k: parts_of()[k] for k in ("train", "test")},
        parts_of(train={"audio": np.ones((2, 6))}), parts_of(train={"audio": np.ones((3, 6, 2))}),
        parts_of(test={"audio": np.ones((2, 6, 5))}), parts_of(train={"vision": [[1.0]] * 2}),
        parts_of(train={"text": np.array([[["a"]]] * 2)}), parts_of(valid={"id": ["a$_$1"]}),
        parts_of(valid={"regression_labels": 3}), parts_of(valid={"id": np.array("a")}),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_pickle_of_something_else_is_refused(tmp_path, parts):
    with pytest.raises(UsageError, match="aligned_50.pkl") as error:
        scan(write(tmp_path, parts))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ratings", [[1.0, -1.0], ["a", "b"], [None, None], np.ones((2, 2))])
def test_ratings_of_any_form(tmp_path, ratings):
    found = scan(write(tmp_path, parts_of(train={"regression_labels": ratings})))
    if isinstance(ratings[0], float):
        assert [c.label for c in found.candidates if c.part == "train"] == [1, 0]
    else:
        assert [r.reason for r in found.rejected] == ["no_label"] * 2


def test_settings():
    for name in VARIANTS:
        form = mosi.spec(Settings(feature_files=name))
        assert list(form) == ["text", "audio", "video"] == list(mosi.views(Settings()))
        assert [m.clean for m in form.values()] == [False, True, True]
        assert form["video"].max_length == (50 if "_aligned" in name else 500)
    assert mosi.normalise(Settings()) == {"text": "none", "audio": "train", "video": "train"}
    assert set(mosi.normalise(Settings(standardise=False)).values()) == {"none"}
    with pytest.raises(UsageError):
        check(Settings(feature_files="mmsa"))


def test_the_layout_is_imported_without_numpy():
    code = "import sys, data_prep.datasets.mosi; sys.exit('numpy' in sys.modules)"
    assert program("-c", code).returncode == 0


# --- prepared -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """{variant: (folder, truth)} of generated trees, 2 clips of each kind of damage."""
    made = {}
    for name in VARIANTS:
        root = tmp_path_factory.mktemp(name)
        write_mosi(root / "raw", 10, truth_path=root / "truth.csv", files=name, corrupt_each=2)
        settings = Settings(feature_files=name)
        folder = prepare("mosi", root / "raw", root / "data", settings, workers=1, max_bad=1.0)
        made[name] = folder, root / "truth.csv"
    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_damage_ends_as_the_truth_says(prepared, name):
    folder, truth = prepared[name]
    kept = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    rejected = read_table(folder / "rejected.csv")
    clips, seen = read_table(truth), set()
    assert {clip["corruption"] for clip in clips} == {"", *EXPECTED, *BESIDE}
    for clip in clips:
        reason, row = clip["expected_reason"], kept.get(clip["id"])
        if reason == "" or reason.startswith("flag:"):
            assert row and row["label_name"] == clip["label"], clip
            assert reason[5:] in ("", *row["flags"].split(";")), (clip, row)
            seen.add(clip["id"])
        elif clip["id"]:
            assert [r for r in rejected if (r["id"], r["reason"]) == (clip["id"], reason)], clip
    assert seen == set(kept)
    assert sum(r["reason"] == "unknown_name" for r in rejected) == 2 * (1 + len(BESIDE))
    assert len(clips) == len(kept) + len(rejected)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_stored_is_what_was_generated(prepared, name):
    """No padding of either family, float32, zeros for what is not finite."""
    folder, _ = prepared[name]
    raw = next((folder.parents[2] / "raw").rglob("*.pkl"))
    with open(raw, "rb") as handle:  # of our own making
        content = pickle.load(handle, encoding="latin1")
    data = Prepared(folder)
    rows = {c.id: c.inline for c in scan(folder.parents[2] / "raw", feature_files=name).candidates}
    for position, sample in enumerate(data.ids):
        for m in ("text", "audio", "video"):
            where, key, row = rows[sample][m].split("/")
            values = content[where][key][int(row)].astype(np.float32)
            values[~np.isfinite(values)] = 0
            alive = np.flatnonzero(values.any(1))
            values = values[alive[0] : alive[-1] + 1] if len(alive) else values[:0]
            shape, stored = data.value(position, m)
            stored = np.frombuffer(stored, np.float32).reshape(np.frombuffer(shape, np.int32))
            assert np.array_equal(stored, values), (sample, m)


def test_the_families_hold_the_same_sequences(prepared):
    first, second = (Prepared(prepared[name][0]) for name in ("mmsa_aligned", "mult_aligned"))
    assert [i.replace("$_$", "_") for i in first.ids] == second.ids
    for m in ("text", "audio", "video"):
        for k in range(len(first)):
            assert [bytes(b) for b in first.value(k, m)] == [bytes(b) for b in second.value(k, m)]


def test_official_parts_and_whole_videos(prepared):
    data = Prepared(prepared["mmsa_aligned"][0])
    split = data.split("official", 0)
    videos = {p: {data.ids[k].split("$_$")[0] for k in split[p]} for p in split}
    assert all(len(positions) >= 3 for positions in split.values())
    assert not videos["train"] & videos["test"] and not videos["train"] & videos["val"]
    grouped = data.split("group", 0)
    held = {data.ids[k].split("$_$")[0] for p in ("val", "test") for k in grouped[p]}
    assert not held & {data.ids[k].split("$_$")[0] for k in grouped["train"]}


def test_the_same_bytes_with_two_workers(prepared, tmp_path):
    one, _ = prepared["mult_unaligned"]
    settings = Settings(feature_files="mult_unaligned")
    two = prepare("mosi", one.parents[2] / "raw", tmp_path, settings, workers=2, max_bad=1.0)
    for name in ("samples-00000.arrow", "manifest.csv", "rejected.csv", "meta.json"):
        assert file_digest(one / name) == file_digest(two / name), name


def test_the_same_tree_twice(tmp_path):
    for name in ("a", "b"):
        write_mosi(tmp_path / name, 4, truth_path=tmp_path / f"{name}.csv", corrupt_each=1, seed=5)
    files = [sorted((tmp_path / name).rglob("*.pkl")) for name in ("a", "b")]
    assert file_digest(files[0][0]) == file_digest(files[1][0])
    assert file_digest(tmp_path / "a.csv") == file_digest(tmp_path / "b.csv")


def test_too_many_bad_clips(tmp_path):
    write_mosi(tmp_path / "raw", 10, truth_path=tmp_path / "t.csv", corrupt_each=2)
    with pytest.raises(TooManyRejects):
        prepare("mosi", tmp_path / "raw", tmp_path / "data", Settings(), workers=1)


def test_another_rule_of_labels_is_not_mixed_in(tmp_path):
    write_mosi(tmp_path / "raw", 10, truth_path=tmp_path / "t.csv")
    first = prepare("mosi", tmp_path / "raw", tmp_path / "data", Settings(), workers=1)
    labels = Prepared(first).labels.copy()
    try:
        settings = Settings(label_rule="nonzero")
        second = prepare("mosi", tmp_path / "raw", tmp_path / "data", settings, workers=1)
    except UsageError:
        second = None  # told, where both have one folder
    assert second != first and np.array_equal(Prepared(first).labels, labels)


# --- the encoder ----------------------------------------------------------------------------------


def loader(data, positions):
    views = mosi.views(Settings())
    return Loader(data, positions, views, 32, 8, 0, 0, torch.device("cpu"))


def test_statistics_do_not_count_padding(prepared):
    data = Prepared(prepared["mmsa_unaligned"][0])
    train = loader(data, np.arange(len(data)))
    mean, std = train_statistics(train.batches, "video")
    rows = np.concatenate(
        [
            np.frombuffer(data.value(k, "video")[1], np.float32).reshape(-1, 20)
            for k in range(len(data))
        ]
    )
    assert mean == pytest.approx(rows.mean(0), abs=1e-4)
    assert std == pytest.approx(rows.std(0), rel=1e-4)


def encoder(width=6):
    torch.manual_seed(1)
    return SequenceEncoder(mean=[0.5] * width, std=[2.0] * width).eval()


def padded(x, rows):
    return torch.cat([x, torch.zeros(len(x), rows, x.shape[2])], dim=1)


@pytest.mark.parametrize("grad", [True, False])  # without gradients torch takes another path
def test_padding_does_not_change_the_features(grad):
    x = torch.randn(4, 9, 6)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(encoder()(x), encoder()(padded(x, 31)), atol=1e-5, rtol=1e-5)


def test_other_samples_of_the_batch_do_not_change_the_features():
    short, long = torch.randn(1, 3, 6), torch.randn(1, 40, 6)
    both = encoder()(torch.cat([padded(short, 37), long]))
    torch.testing.assert_close(both[:1], encoder()(short), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_a_sample_of_padding_alone_stays_finite(train):
    model = encoder().train(train)
    x = torch.randn(3, 8, 6)
    x[1] = 0
    features = model(x)
    features.square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_order_of_the_vectors_counts():
    x = torch.randn(2, 9, 6)
    assert (encoder()(x) - encoder()(x.flip(1))).abs().max() > 1e-3


def test_three_encoders_of_a_prepared_set(prepared):
    data = Prepared(prepared["mmsa_unaligned"][0])
    batch = next(iter(loader(data, np.arange(len(data))).batches(range(8))))
    shapes = {m: tuple(x.shape[1:]) for m, x in batch["inputs"].items()}
    longest = {  # of the batch; rows of padding alone cost time
        m: max(int(np.frombuffer(data.value(k, m)[0], np.int32)[0]) for k in range(8))
        for m in shapes
    }
    widths = {"text": 24, "audio": 5, "video": 20}
    assert shapes == {m: (longest[m], d) for m, d in widths.items()}
    streams = {m: Stream("array", ([0.0] * d, [1.0] * d)) for m, (_, d) in shapes.items()}
    model = build_classifier(streams, 2, Choice(), heads=True)
    features = model.encode(batch["inputs"])
    assert all(f.shape == (8, model.widths[m]) and f.isfinite().all() for m, f in features.items())
    assert model.fuse(features).shape == (8, 2)


# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmsa_aligned", "mult_aligned"])
def test_midas_learns_from_three_modalities(tmp_path, name):
    signal = replace(SIGNAL, strengths=(1.5, 0.5, 0.5))
    truth = tmp_path / "truth.csv"
    write_mosi(tmp_path / "raw", 60, truth_path=truth, files=name, signal=signal)
    done = program(
        *("train.py", "--dataset", "mosi", "--dataset_root", tmp_path / "raw", "--method", "Midas"),
        *("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run", "--devices", "cpu"),
        *("--feature_files", name, "--split_rule", "official", "--max_epochs", "3"),
        *("--batch_size", "16", "--lr", "0.01", "--warmup_epochs", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert "120 of 120 samples prepared" in done.stderr
    run = RunFolder(tmp_path / "run")
    log = run.read_log()
    result = run.read_json("result.json")
    assert result["count/n_train"] == 72 and 0 <= result["test/acc"] <= 1
    assert log[-1]["train/L_uni"] < 0.95 * log[0]["train/L_uni"] and log[-1]["train/n_valid"] > 0
