"""What the fuzzer feeds: each reader as a target, here those of lists, tables and texts.

A target's `seeds` are sound inputs, made with a folder to work in. Its `reader` builds in a folder
of a process what must stand around a file, and returns the function that reads given bytes there.
`fuzz_stored` has the files of prepared folders and runs, `fuzz_media` pictures, sound and video.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.files import csv_text, read_object, read_table, write_text
from data_prep import datasets
from data_prep.datasets.lists import read_records
from data_prep.datasets.manifest import Manifest
from data_prep.modalities.text import Text, text_spec
from data_prep.modalities.vocabulary import place_vocabulary
from data_prep.prepare import scan_root
from data_prep.spec import Scan

MOST_WORDS = 1000  # characters of a message

Read = Callable[[bytes], Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader: its sound inputs, how it is set up, and its share of all executions."""

    seeds: Callable[[Path], list[bytes]]
    reader: Callable[[Path], Read]
    weight: float = 4
    media: bool = False


class BadMessage(Exception):
    """An error's text is no printable line of reasonable length."""


def check_message(text: str) -> None:
    """Raises `BadMessage` for a text that is no short printable line."""
    if not text.isprintable() or len(text) >= MOST_WORDS:
        raise BadMessage(f"{len(text)} characters: {ascii(text)[:1500]}")


def one_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Read]:
    """The set-up of a reader of one file by itself."""

    def reader(folder: Path) -> Read:
        def feed(data: bytes) -> Any:
            (folder / name).write_bytes(data)
            return read(folder / name)

        return feed

    return reader


def fixed(*seeds: str | bytes) -> Callable[[Path], list[bytes]]:
    """Seeds that are written down."""
    return lambda folder: [s if isinstance(s, bytes) else s.encode() for s in seeds]


def plant(root: Path, files: dict[str, str]) -> None:
    """A tree of small files."""
    for name, text in files.items():
        write_text(root / name, text)


def told(scan: Scan) -> Scan:
    """The scan, once all of it can be written to the files that a preparation writes."""
    rows = [dataclasses.astuple(rejection) for rejection in scan.rejected]
    csv_text((), rows).encode()
    json.dumps([dataclasses.astuple(c) for c in scan.candidates], ensure_ascii=False).encode()
    csv_text((), [(row.id, row.key) for row in scan.pool or ()]).encode()
    for warning in scan.warnings:
        check_message(warning)
    assert all(0 <= c.label < len(scan.label_names) for c in scan.candidates)
    return scan


def in_tree(dataset: str, fuzzed: str, files: dict[str, str]) -> Callable[[Path], Read]:
    """The set-up of a scan of a tree in which one list is fuzzed."""

    def reader(folder: Path) -> Read:
        plant(folder, files)
        (folder / fuzzed).parent.mkdir(parents=True, exist_ok=True)
        layout = datasets.load(dataset)
        settings = layout.Settings()

        def feed(data: bytes) -> Scan:
            (folder / fuzzed).write_bytes(data)
            return told(scan_root(layout, dataset, folder, settings, allow_missing_classes=True))

        return feed

    return reader


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
        return told(scan_root(layout, "m", folder, layout.Settings()))

    return feed


# Trees --------------------------------------------------------------------------------------------

CLIP = "-_abcdefghi"
KINETICS = {
    f"train/{CLIP}_000001_000011.mp4": "", f"test/{CLIP[::-1]}.mp4": "",
    "train/bowling/bbbbbbbbbbb.mkv": "",
}  # fmt: skip
KINETICS_LIST = (
    f'label,youtube_id,time_start,time_end,split\n"bowling",{CLIP},1,11,train\n'
    f"tap dancing,{CLIP[::-1]},0.0,10.0,validate\n,bbbbbbbbbbb,,,test\n"
)
FOOD = {
    "images/train/apple_pie/a.jpg": "", "images/test/baklava/b.jpg": "",
    "images/train/baklava/a.jpg": "", "texts/test_titles.csv": "b.jpg,a title,baklava\n",
}  # fmt: skip
FOOD_LISTS = (
    'a.jpg,"A pie, with ""apples""",apple_pie\na.jpg,Nuts, honey,baklava\nc.png,x,waffles\n',
    "image_path,text,label\nimages\\a.jpg,pie,apple_pie\na.txt,nuts,baklava\n",
)
SARCASM = {f"dataset_image/{k}.jpg": "" for k in range(5)}
SARCASM |= {"text/valid2.txt": "['1', 'v', 0, 1]\n", "text/test2.txt": "['2', 't', 1, 0]\n"}
TWEETS = {f"twitter2015_images/{k}.jpg": "" for k in range(5)}
TWEETS |= {"dev.txt": "a $T$\nb\n-1\n1.jpg\n", "test.tsv": "1\t0\t2.jpg\tx $T$\ty\n"}
AVE = {f"AVE/{CLIP}.mp4": "", "AVE/bbbbbbbbbbb.mp4": "", "trainSet.txt": f"Bus&{CLIP}&good&0&5\n"}
UCF = {
    "UCF-101/Archery/v_Archery_g01_c01.avi": "", "UCF-101/Archery/v_Archery_g25_c02.avi": "",
    "UCF-101/Bowling/v_Bowling_g02_c01.avi": "",
    "ucfTrainTestlist/testlist01.txt": "Bowling/v_Bowling_g02_c01.avi\n",
}  # fmt: skip
CREMAD_R = {"AudioWAV/1001_IEO_ANG_XX.wav": "", "val.csv": "c,label\n", "test.csv": "c,label\n"}
CREMAD_R |= {f"visual_frames/1001_IEO_ANG_XX/{k}.jpg": "" for k in range(3)}
UCF_R = {f"{f}/v_Archery_g01_c01/frame00001.jpg": "" for f in ("frames_rgb", "flows_u", "flows_v")}
UCF_R |= {"testlist01_new.txt": "path label\n"}
FOOD_R = {"images/train/apple_pie/a.jpg": "", "images/test/baklava/b.jpg": "", "test.jsonl": ""}
KINETICS_R = {f"audios/{CLIP}.wav": "", f"videos/{CLIP}/0.jpg": "", "videos/val.txt": ""}
FOOD_LINE = {"id": 0, "img": "apple_pie/a.jpg", "text": "a pie", "label": 0}
FOOD_R_LIST = f"{json.dumps(FOOD_LINE)}\n{json.dumps(FOOD_LINE | {'label': 'baklava'})}\n"

TREES = {
    "kinetics": ("kinetics", "annotations/train.csv", KINETICS, (KINETICS_LIST,)),
    "food101": ("food101", "texts/train_titles.csv", FOOD, FOOD_LISTS),
    "sarcasm": (
        "sarcasm", "text/train.txt", SARCASM,
        ("['3', 'it is # fun', 1]\n[\"4\", \"don\\'t\", 0, 1]\n['3', 'a \\ud83d\\ude00', 1]\n",),
    ),
    "twitter2015.tsv": (
        "twitter2015", "train.tsv", TWEETS,
        ("index\t#1 Label\t#2 ImageID\t#3 String\t#3 String\n1\t2\t3.jpg\tI saw $T$\tBob\n",),
    ),
    "twitter2015.txt": (
        "twitter2015", "train.txt", TWEETS, ("I saw $T$\nBob\n1\n3.jpg\n$T$ !\nX\n0\n4.jpg\n",),
    ),
    "ave": (
        "ave", "Annotations.txt", AVE,
        (f"Category&VideoID&Quality&StartTime&EndTime\nBus&{CLIP}&good&0&5\n"
         "Frying (food)&bbbbbbbbbbb&good&1.5&10\n",),
    ),
    "ucf101": (
        "ucf101", "ucfTrainTestlist/trainlist01.txt", UCF,
        ("Archery/v_Archery_g01_c01.avi 3\r\nArchery/v_Archery_g25_c02.avi 3\r\n",),
    ),
    "release.cremad": (
        "cremad", "train_split.csv", CREMAD_R,
        ("name,emotion,label\n1001_IEO_ANG_XX,ANG,1\n\"1001_IEO_ANG_X\",SAD,1\n",),
    ),
    "release.ucf101": (
        "ucf101", "trainlist01_new.txt", UCF_R,
        ("path label\nArchery/v_Archery_g01_c01.avi 3\nBowling/v_Archery_g01_c02.avi 16\n",),
    ),
    "release.food101": ("food101", "train.jsonl", FOOD_R, (FOOD_R_LIST,)),
    "release.kinetics": (
        "kinetics", "videos/train.txt", KINETICS_R, (f"{CLIP} 0 10 3\nbbbbbbbbbbb 1 11 30\n",),
    ),
    "demo": ("demo", "labels.csv", {"clips/a.avi": "", "clips/a.wav": ""}, ("id,label\na,3\n",)),
}  # fmt: skip


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
    **{
        name: Target(fixed(*seeds), in_tree(dataset, fuzzed, files))
        for name, (dataset, fuzzed, files, seeds) in TREES.items()
    },
}  # fmt: skip
