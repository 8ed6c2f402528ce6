"""The lists of the two MVSA datasets."""

import json

import numpy as np
import pytest
from raw import kept, plant, reasons, rejects, scan

from common.options import UsageError
from data_prep.datasets import mvsa
from data_prep.datasets.lists import MAX_LINE
from data_prep.prepare import prepare
from data_prep.store import Prepared
from fixtures.pictures import write_picture

SINGLE, MULTIPLE = "ID\ttext,image\n", "ID\ttext,image\ttext,image\ttext,image\n"
NEG, NEU, POS = mvsa.LABELS


def tree(root, lines, count=9, header=SINGLE):
    """A list and `count` pairs of empty files."""
    files = (f"data/{k}.{suffix}" for k in range(1, count + 1) for suffix in ("jpg", "txt"))
    content = header + "".join(f"{line}\n" for line in lines)
    return plant(root, *files, lists={"labelResultAll.txt": content})


@pytest.mark.parametrize(("pairs", "due"), [
    ([(POS, POS)], POS), ([(NEU, NEU)], NEU), ([(NEG, NEG)], NEG), ([(POS, NEU)], POS),
    ([(NEU, NEG)], NEG), ([(POS, NEG)], "filtered"), ([(NEG, POS)], "filtered"),
    ([("", POS)], "no_label"),
    ([(POS, NEU), (NEU, NEU), (POS, NEG)], POS), ([(POS, POS), (NEG, POS), (NEU, POS)], "filtered"),
    ([(NEU, POS), (NEU, NEG), (NEU, NEU)], "filtered"),
    ([(NEG, POS), (NEG, POS), (POS, NEG)], "filtered"),
    ([(NEU, NEG), (NEU, POS), (POS, NEG)], NEG), ([(POS, POS), (POS, POS), ("?", POS)], "no_label"),
])  # fmt: skip
def test_the_class_of_a_sample_follows_the_rule_of_multisentinet(pairs, due):
    reason = (-1, due) if due not in mvsa.LABELS else (mvsa.LABELS.index(due), "")
    assert mvsa.merge(pairs) == reason


def test_lines_and_files_that_are_not_samples(tmp_path):
    lines = [
        "1\tpositive,positive", " 2 \t Neutral, negative \r", "1\tneutral,neutral",
        "3\tpositive,negative", "4\tsad,positive", "5\tpositive", "x\tpositive,positive", "6", "",
        f"7\t{'x' * MAX_LINE},positive", "8\tpositive,positive,positive", "10\tneutral,neutral",
        "11\tneutral,neutral", "12\tneutral,neutral",
    ]  # fmt: skip
    others = ["10.jpg", "11.txt", "13.txt", "a.jpg", "b.txt", ".DS_Store", "../x.pdf"]
    plant(tmp_path / "data", *others)
    found = scan("mvsa", tree(tmp_path, lines))
    assert kept(found) == {"1": (POS, ""), "2": (NEG, "")}
    assert found.candidates[0].sources == {"image": ("data/1.jpg",), "text": ("data/1.txt",)}
    bad = [(f"line {k}", "labelResultAll.txt", "bad_line") for k in (7, 8, 9, 11, 12)]
    unlisted = [(str(k), f"data/{k}.jpg", "no_label") for k in range(5, 10)]
    assert rejects(found) == sorted([
        ("1", "data/1.jpg", "duplicate"), ("3", "data/3.jpg", "filtered"),
        ("4", "data/4.jpg", "no_label"), ("10", "data/10.jpg", "missing_file"),
        ("11", "data/11.txt", "missing_file"), ("12", "labelResultAll.txt", "missing_file"),
        ("13", "data/13.txt", "no_label"), ("a", "data/a.jpg", "unknown_name"),
        ("b", "data/b.txt", "unknown_name"), ("x", "x.pdf", "unknown_name"), *bad, *unlisted,
    ])  # fmt: skip


def test_each_dataset_takes_its_own_list_of_two_in_a_root(tmp_path):
    tree(tmp_path / "MVSA-multiple", ["1\t" + "\t".join(["neutral,negative"] * 3)], header=MULTIPLE)
    tree(tmp_path / "MVSA_Single", ["1\tpositive,positive"])
    for dataset, folder, label in (
        ("mvsa", "MVSA_Single", POS), ("mvsa_multiple", "MVSA-multiple", NEG),
    ):  # fmt: skip
        (sample,) = scan(dataset, tmp_path).candidates
        assert (sample.sources["image"], mvsa.LABELS[sample.label]) == (
            (f"{folder}/data/1.jpg",), label,
        )  # fmt: skip
    with pytest.raises(UsageError, match="by 1 annotators instead of 3 .*mvsa_multiple three"):
        scan("mvsa_multiple", tmp_path / "MVSA_Single")


def test_no_text_is_lost_to_its_encoding(tmp_path):
    texts = {  # file -> text, flag
        "Über “uns” 😀".encode(): ("Über “uns” 😀", ""),
        "\ufeffhello".encode(): ("hello", ""),
        "RT: Beyoncé … “hi”".encode("gb18030"): ("RT: Beyoncé … “hi”", "encoding=gb18030"),
        "café au lait".encode("latin-1"): ("café au lait", "encoding=latin-1"),
        b"": ("", "empty_text"),
    }  # fmt: skip
    root = tree(tmp_path / "raw", [f"{k}\tpositive,neutral" for k in range(1, 6)], count=0)
    for k, data in enumerate(texts, 1):
        plant(root, lists={f"data/{k}.txt": data})
        write_picture(root / f"data/{k}.jpg", np.full((24, 24, 3), k, np.uint8))
    settings = mvsa.Settings(vocabulary="build")
    folder = prepare("mvsa", root, tmp_path / "data", settings, workers=1, max_bad=0,
                     allow_missing_classes=True)  # fmt: skip
    prepared = Prepared(folder)
    assert list(prepared.texts(range(5), "text")) == [text for text, _ in texts.values()]
    rows = (folder / "manifest.csv").read_text().splitlines()[1:]
    assert all(flag in row for row, (_, flag) in zip(rows, texts.values()))


def test_mmbts_lists_give_classes_texts_and_parts(tmp_path):
    lines = {
        part: json.dumps({"id": k, "label": label, "text": f"{label}!", "img": f"data/{k}.jpg"})
        for k, (part, label) in enumerate(zip(("train", "dev", "test"), mvsa.LABELS), 1)
    }
    plant(tmp_path, "test_hard_gt.jsonl", "notes.md", "data/a.wav", lists={
        f"{part}.jsonl": f"{line}\n" for part, line in lines.items()
    })  # fmt: skip
    found = scan("mvsa", tree(tmp_path, ["1\tpositive,positive"], count=4))
    assert kept(found) == {"1": (NEG, "train"), "2": (NEU, "val"), "3": (POS, "test")}
    assert [c.inline["text"] for c in found.candidates] == [f"{label}!" for label in mvsa.LABELS]
    assert reasons(found) == {
        "data/4.jpg": "no_label", "data/a.wav": "unknown_name", "notes.md": "unknown_name",
    }  # fmt: skip
    assert any("MMBT's layout" in warning for warning in found.warnings)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(UsageError, match="has dev.jsonl, like .* lacks train.jsonl"):
        scan("mvsa", tmp_path)
