"""Fuzzer targets: one per reader, here those of lists, tables and texts.

A target's `seeds` are valid inputs, made in a working folder. Its `reader` sets up a folder with
the other files that are needed, and returns a function that reads given bytes there. `fuzz_stored`
has the files of prepared folders and runs, `fuzz_media` pictures, sound and video.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.files import csv_text, read_object, read_table, write_text
from data_prep import datasets
from data_prep.datasets.lists import read_records
from data_prep.datasets.manifest import Manifest
from data_prep.digits import write_digits
from data_prep.modalities.text import Text, text_spec
from data_prep.modalities.vocabulary import place_vocabulary
from data_prep.prepare import scan_root
from data_prep.spec import Scan
from fixtures.release import write_release
from fixtures.trees import MANY_CLASSES, write_tree

MOST_WORDS = 1200  # characters of a message

Read = Callable[[bytes], Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader: its valid inputs, its set-up, and its share of all executions."""

    seeds: Callable[[Path], list[bytes]]
    reader: Callable[[Path], Read]
    weight: float = 4
    media: bool = False


class BadMessage(Exception):
    """An error message is not a printable line of reasonable length."""


def check_message(text: str) -> None:
    """Raises `BadMessage` if a text is not a short printable line."""
    if not text.isprintable() or len(text) >= MOST_WORDS:
        raise BadMessage(f"{len(text)} characters: {ascii(text)[:1500]}")


def one_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Read]:
    """Sets up a reader of a single file."""

    def reader(folder: Path) -> Read:
        def feed(data: bytes) -> Any:
            (folder / name).write_bytes(data)
            return read(folder / name)

        return feed

    return reader


def fixed(*seeds: str | bytes) -> Callable[[Path], list[bytes]]:
    """Fixed seeds."""
    return lambda folder: [s if isinstance(s, bytes) else s.encode() for s in seeds]


def fragile(folder: Path) -> Read:
    """A reader that crashes, to test the fuzzer."""

    def feed(data: bytes) -> None:
        if b"b" in data:
            raise KeyError("b")
        if b"crash" in data:
            os.kill(os.getpid(), 9)

    return feed


FRAGILE = Target(fixed("aaa", "abc", "crash", "ccc"), fragile)


def plant(root: Path, files: dict[str, str]) -> None:
    """A tree of small files."""
    for name, text in files.items():
        write_text(root / name, text)


def checked(scan: Scan) -> Scan:
    """The scan, after checking that a preparation could write all of it."""
    rows = [dataclasses.astuple(rejection) for rejection in scan.rejected]
    csv_text((), rows).encode()
    json.dumps([dataclasses.astuple(c) for c in scan.candidates], ensure_ascii=False).encode()
    csv_text((), [(row.id, row.key) for row in scan.pool or ()]).encode()
    for warning in scan.warnings:
        check_message(warning)
    assert all(0 <= c.label < len(scan.label_names) for c in scan.candidates)
    return scan


# Csv ----------------------------------------------------------------------------------------------

ROWS = (
    'id,label,split,audio,text\na,cat,train,a.wav,one\nb,dog,test,b.wav,"two, 2"\n',
    '\ufeffid;label;text\r\na;cat;eins\r\nb;dog;"zwei\r\nZeilen"\r\n',
    'id\tlabel\timage\tgroup\nc\tcat\tc.jpg\tg1\nd\tdog\td.jpg\tg"2\n',
)


def _csv_seeds(folder: Path) -> list[bytes]:
    return [text.encode() for text in ROWS] + [ROWS[0].encode("utf-16")]


def _records(path: Path) -> list:
    return list(read_records(path, lambda cells: "id" in cells, lambda cells: len(cells) == 3))


def _manifest(folder: Path) -> Read:
    plant(folder, dict.fromkeys(("a.wav", "b.wav", "c.jpg", "d.jpg"), ""))

    def feed(data: bytes) -> Scan:
        (folder / "m.csv").write_bytes(data)
        layout = Manifest(folder / "m.csv")
        datasets.public_name(str(layout.path))
        _ = layout.defaults, layout.spec(layout.Settings(vocabulary="build"))
        return checked(scan_root(layout, "m", folder, layout.Settings()))

    return feed


# Trees --------------------------------------------------------------------------------------------

TREES = {  # target -> (dataset, its layout or "release", the fuzzed list)
    "kinetics": ("kinetics", "A", "annotations/train.csv"),
    "food101": ("food101", "plain", "texts/train_titles.csv"),
    "food101.header": ("food101", "header", "texts/train_titles.csv"),
    "sarcasm": ("sarcasm", "", "text/train.txt"),
    "twitter2015.tsv": ("twitter2015", "tsv", "absa_data/twitter2015/train.tsv"),
    "twitter2015.txt": ("twitter2015", "txt", "absa_data/twitter2015/train.txt"),
    "mvsa": ("mvsa", "download", "labelResultAll.txt"),
    "mvsa.mmbt": ("mvsa", "mmbt", "train.jsonl"),
    "ave": ("ave", "", "Annotations.txt"),
    "vggsound": ("vggsound", "video", "vggsound.csv"),
    "ucf101": ("ucf101", "clips", "ucfTrainTestlist/trainlist01.txt"),
    "release.cremad": ("cremad", "release", "train_split.csv"),
    "release.ucf101": ("ucf101", "release", "trainlist01_new.txt"),
    "release.food101": ("food101", "release", "train.jsonl"),
    "release.kinetics": ("kinetics", "release", "videos/train.txt"),
    "demo": ("demo", "", "labels.csv"),
}


def tree(folder: Path, dataset: str, layout: str) -> Path:
    """A small raw tree."""
    root, truth = folder / "raw", folder / "truth.csv"
    if dataset == "demo":
        write_digits(root, truth, 0, workers=1, count=3)
    elif layout == "release":
        write_release(dataset, root, 3, 2)
    else:
        classes = 2 if dataset in MANY_CLASSES else None
        options: dict[str, Any] = {"layout": layout, "classes": classes, "workers": 1}
        write_tree(dataset, root, 2, truth_path=truth, **options)
    return root


def tree_target(dataset: str, layout: str, fuzzed: str) -> Target:
    """A scan of a tree with one fuzzed list."""

    def seeds(folder: Path) -> list[bytes]:
        return [(tree(folder, dataset, layout) / fuzzed).read_bytes()]

    def reader(folder: Path) -> Read:
        root, module = tree(folder, dataset, layout), datasets.load(dataset)
        settings = module.Settings()

        def feed(data: bytes) -> Scan:
            (root / fuzzed).write_bytes(data)
            return checked(scan_root(module, dataset, root, settings, allow_missing_classes=True))

        return feed

    return Target(seeds, reader)


# Texts --------------------------------------------------------------------------------------------

VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nthe\n!\n"


def _vocabulary(folder: Path) -> Read:
    placed = folder / "placed"
    placed.mkdir()

    def feed(data: bytes) -> Any:
        (folder / "vocab.txt").write_bytes(data)
        spec = text_spec(str(folder), 12, pair=True)
        (placed / "vocab.txt").unlink(missing_ok=True)
        place_vocabulary(placed / "vocab.txt", str(folder))
        return spec.extract([], ["The abba !", "[PAD] a"], placed)

    return feed


def _placed_vocabulary(folder: Path) -> Read:
    spec = Text("0" * 12, 9, 12)

    def feed(data: bytes) -> Any:
        (folder / "vocab.txt").write_bytes(data)
        return spec.extract([], "The abba !", folder)

    return feed


def _texts(folder: Path) -> Read:
    write_text(folder / "vocab.txt", VOCABULARY)
    rules = [Text("build", 99, 12, cleaning=rule) for rule in ("plain", "release")]
    rules.append(Text("0" * 12, 9, 12))

    def feed(data: bytes) -> Any:
        text = data.decode("utf-8", "replace")
        return [spec.extract([], text, folder) for spec in rules]

    return feed


def _object_seeds(folder: Path) -> list[bytes]:
    return [b'{"a": [1, 2.5, null, true], "b": {"c": "d\\u00e9"}}', b"{}", b'{"\xc3\xa4": -1e5}']


TARGETS = {
    "csv.records": Target(_csv_seeds, one_file("a.csv", _records), 12),
    "csv.manifest": Target(_csv_seeds, _manifest, 12),
    "csv.table": Target(
        fixed("id,part\na,train\nb,\"te\"\"st\"\n", "\ufeffid,part\r\na,val\r\n"),
        one_file("a.csv", lambda path: read_table(path, ("id", "part"))), 12,
    ),
    "json.object": Target(_object_seeds, one_file("a.json", read_object), 12),
    "text.vocabulary": Target(fixed(VOCABULARY), _vocabulary),
    "text.placed": Target(fixed(VOCABULARY), _placed_vocabulary),
    "text.words": Target(
        fixed("RT A title &amp; more https://x.y/z #tag", "\u00c9t\u00e9 \u4e2d\u6587 e\u0301"),
        _texts,
    ),
    **{name: tree_target(*how) for name, how in TREES.items()},
}  # fmt: skip
