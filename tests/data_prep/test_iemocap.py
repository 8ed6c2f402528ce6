"""IEMOCAP and CMU-MOSEI: labels, names of files, dialogues. `test_mosi` tests what they share."""

import pickle

import numpy as np
import pytest
from raw import rejects, scan
from test_mosi import MODALITIES, parts_of, write

from common.options import UsageError
from data_prep import datasets
from data_prep.datasets import mosei
from data_prep.datasets.iemocap import SIX, Settings
from data_prep.prepare import prepare
from data_prep.store import Prepared, read_meta
from fixtures.pickles import python2_pickle

NO, YES = (1, 0), (0, 1)
LABELS = [
    (YES, NO, NO, NO), (NO, YES, NO, NO), (NO, NO, YES, NO), (NO, NO, NO, YES),
    (NO, NO, NO, NO), (NO, YES, NO, YES), (NO, (0.5, 0.5), NO, NO), (NO, (0, np.nan), YES, NO),
]  # fmt: skip


def part(labels, **more):
    widths = zip(("text", "audio", "vision"), (4, 2, 3))
    arrays = {key: np.ones((len(labels), 6, width)) for key, width in widths}
    return {**arrays, "labels": np.asarray(labels, np.float32), **more}


def put(root, content, name):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    return root


def scan_mult(root, *labels):
    parts = dict(zip(("train", "valid", "test"), map(part, labels)))
    return scan("iemocap", put(root, pickle.dumps(parts), "iemocap_data.pkl"))


def test_an_utterance_has_exactly_one_emotion(tmp_path):
    """Without ids: named after part and row, and without groups."""
    found = scan_mult(tmp_path, LABELS, LABELS[:1], LABELS[1:2])
    assert found.label_names == ("neutral", "happy", "sad", "angry")
    assert {c.id: (c.label, c.part, c.group) for c in found.candidates} == {
        **{f"train/{k}": (k, "train", "") for k in range(4)},
        "valid/0": (0, "val", ""), "test/0": (1, "test", ""),
    }  # fmt: skip
    details = {r.id: r.detail for r in found.rejected}
    assert {r.reason for r in found.rejected} == {"no_label"} and len(details) == 4
    assert details["train/4"].endswith("but has none")
    assert details["train/5"].endswith("but has happy and angry")
    assert "not four pairs" in details["train/6"] and "not four pairs" in details["train/7"]


def test_ratings_in_place_of_emotions_are_no_labels(tmp_path):
    write(tmp_path, parts_of(False), "iemocap_data.pkl")
    found = scan("iemocap", tmp_path)
    assert not found.candidates and {r.reason for r in found.rejected} == {"no_label"}


@pytest.mark.parametrize("name", [n for v in ("mult_aligned", "mult_unaligned")
                                  for n in mosei.FILES.variants[v].names])  # fmt: skip
def test_both_names_of_mosei_files(tmp_path, name):
    write(tmp_path, parts_of(False), "mosi_data.pkl")
    with pytest.raises(UsageError, match="contains no aligned_50.pkl.*with MOSEI in its name"):
        scan("mosei", tmp_path)
    write(tmp_path / "CMU-MOSEI", parts_of(False), name)
    found = scan("mosei", tmp_path, **mosei.detect(tmp_path))
    assert {c.sources["text"] for c in found.candidates} == {(f"CMU-MOSEI/{name}",)}
    assert len(found.candidates) == 6 and not found.warnings


def test_a_second_file_of_the_same_content_is_named(tmp_path):
    write(tmp_path, parts_of(False), "mosei_data.pkl")
    write(tmp_path, parts_of(False), "mosei_senti_data.pkl")
    found = scan("mosei", tmp_path, feature_files="mult_aligned")
    assert found.warnings == ["mosei_senti_data.pkl is read, and not mosei_data.pkl"]
    assert not found.rejected


# Dialogues ----------------------------------------------------------------------------------------


def dialogues(kind=set, count=20, utterances=3):
    """A file with `count` training dialogues and two test dialogues, as lists."""
    train = [f"Ses0{1 + k % 4}F_impro{k:02}" for k in range(count)]
    test = ["Ses05F_impro01", "Ses05M_script01_1"]
    fields, number = [{} for _ in range(7)], 0
    for name in train + test:
        numbers = [(number + k) % len(SIX) for k in range(utterances)]
        vectors = [np.full(2, number + k, np.float32) for k in range(utterances)]
        values = ([f"{name}_F{k:03}" for k in range(utterances)], ["F"] * utterances, numbers,
                  vectors, vectors, np.stack(vectors), ["Yes."] * utterances)  # fmt: skip
        for field, value in zip(fields, values):
            field[name] = value
        number += utterances
    return [*fields, kind(train), kind(test)]


def put_dialogues(root, content, name="IEMOCAP_features.pkl"):
    return put(root, python2_pickle(content), name)


@pytest.mark.parametrize("kind", [set, list])
def test_parts_groups_and_vectors_of_dialogues(tmp_path, kind):
    root = put_dialogues(tmp_path / "raw", dialogues(kind), "IEMOCAP_features_raw.pkl")
    layout = datasets.load("iemocap")
    assert layout.detect(root) == {"feature_files": "dialogues"}
    found = scan("iemocap", root, feature_files="dialogues")
    parts = {c.id: c.part for c in found.candidates}
    assert len(parts) == 66 and not found.rejected
    # the tenth and the twentieth of the sorted training dialogues
    val = {name.rpartition("_")[0] for name, part in parts.items() if part == "val"}
    assert val == {"Ses02F_impro17", "Ses04F_impro19"}
    assert {c.group for c in found.candidates if c.part == "test"} == {"Ses05"}
    settings = Settings(feature_files="dialogues")
    data = Prepared(prepare("iemocap", root, tmp_path / "data", settings, workers=1))
    assert read_meta(data.folder)["label_names"] == list(SIX)
    for position, (sample, label) in enumerate(zip(data.ids, data.labels)):
        dialogue, _, turn = sample.rpartition("_F")
        value = 3 * list(dialogues()[0]).index(dialogue) + int(turn)
        assert label == value % len(SIX)
        for m in MODALITIES:
            shape, stored = data.value(position, m)
            assert np.frombuffer(shape, np.int32).tolist() == [value > 0, 2]
            assert set(np.frombuffer(stored, np.float32)) <= {value}


def test_an_utterance_with_a_flaw_affects_no_others(tmp_path):
    content = dialogues()
    first = min(content[7])
    content[0][first][0], content[2][first][1] = "", 6
    content[0][first][2] = content[0][max(content[7])][0]
    found = scan("iemocap", put_dialogues(tmp_path, content), feature_files="dialogues")
    source = "IEMOCAP_features.pkl"
    assert rejects(found) == [
        (f"{first}/0", source, "unknown_name"), (f"{first}_F001", source, "no_label"),
        (f"{max(content[7])}_F000", source, "duplicate"),
    ]  # fmt: skip
    assert len(found.candidates) == 63


def changed(place, value, dialogue="Ses05F_impro01"):
    content = dialogues()
    if dialogue:
        content[place][dialogue] = value
    else:
        content[place] = value
    return content


@pytest.mark.parametrize(("content", "words"), [
    ([], "not a file of dialogues"), (parts_of(False), "not a file of dialogues"),
    (dialogues()[:8], "not a file of dialogues"), (changed(3, [], ""), "not a file of dialogues"),
    (changed(7, ["Ses01F_impro00"], ""), "dialogues of train and test"),
    (changed(8, ["Ses01F_impro00"], ""), "dialogues of train and test"),
    (changed(8, [["Ses05F_impro01"], None], ""), "dialogues of train and test"),
    (changed(4, [], "other"), "dialogues of train and test"),
    (changed(2, [0, 1]), "'Ses05F_impro01' has"), (changed(5, np.ones((2, 4))), "has .3, 3, 3, 3"),
    (changed(3, None), "'Ses05F_impro01' has"),
    ([{"a": None}] * 7 + [["a"], []], "'a' has .-1, -1"),
], ids=range(12))  # fmt: skip
def test_a_pickle_of_something_else_is_refused(tmp_path, content, words):
    with pytest.raises(UsageError, match=words) as error:
        scan("iemocap", put_dialogues(tmp_path, content), feature_files="dialogues")
    assert "IEMOCAP_features.pkl" in str(error.value) and "\n" not in str(error.value)
