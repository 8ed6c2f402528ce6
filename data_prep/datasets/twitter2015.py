"""Twitter2015 (Yu and Jiang 2019): tweets with a picture, and the sentiment towards one target.

{train,dev,test}.tsv or .txt, and twitter2015_images/<image>, as in jefferyYu/TomBERT. A tweet with
several targets is there once for each, with "$T$" in the target's place: the text is stored as the
pair (tweet with $T$, target), since otherwise those samples would be the same (how the paper joins
them is not known; TomBERT does it like this).

A .tsv has five columns (index, label 0..2, image, text, target), although the header of test.tsv
names four; nothing in it is quoted. A .txt has four lines a sample (text, target, polarity -1..1,
image). If both are there, the .tsv is read and the .txt compared with it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets.lists import read_lines
from data_prep.datasets.options import max_tokens_option, vocabulary_option
from data_prep.datasets.tree import RawTree, bases, key_by_name
from data_prep.spec import Candidate, Rejection, Scan, Spec

LABELS = ("negative", "neutral", "positive")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "The lists are at github.com/jefferyYu/TomBERT (absa_data/twitter2015), whose README says where"
    " the pictures are; the root must hold train, dev and test as .tsv or .txt (in it, in"
    " twitter2015 or in absa_data/twitter2015) and twitter2015_images/<image>."
)
PARTS = {"train": "train", "dev": "val", "test": "test"}
FOLDERS = ("absa_data/twitter2015", "twitter2015", "")
IMAGES = "twitter2015_images"
IMAGE = re.compile(r"([A-Za-z0-9_-]{1,100}\.(?:jpg|jpeg|png))", re.ASCII | re.IGNORECASE)
SUFFIXES = (".tsv", ".txt")
TSV_LABELS = {"0": 0, "1": 1, "2": 2}
TXT_LABELS = {"-1": 0, "0": 1, "1": 2}


@dataclass(frozen=True)
class Settings:
    """How Twitter2015 is prepared."""

    vocabulary: str = vocabulary_option()
    max_tokens: int = max_tokens_option(512, "an inference: Food-101's")
    drop_missing: bool = option(
        False, "leave out samples whose picture is missing or broken (off: a grey one instead)",
        source="the paper's 5,338 samples are all lines there are",
    )  # fmt: skip


def spec(settings: Settings) -> Spec:
    """One picture, and the pair of tweet and target.

    In training the picture is turned and flipped, as for Food-101 (an inference).
    """
    from data_prep.modalities.image import Image
    from data_prep.modalities.text import text_spec

    return {
        "image": Image(missing="reject" if settings.drop_missing else "fill"),
        "text": text_spec(settings.vocabulary, settings.max_tokens, pair=True),
    }


class Row(NamedTuple):
    """A sample of a list; `label` is None if it is no polarity."""

    id: str
    text: str
    target: str
    label: int | None
    image: str


def scan(root: Path, settings: Settings) -> Scan:
    """The samples of the three lists; raises `UsageError` for another tree."""
    folder, images = find_folders(root)
    tree = RawTree(root)
    pictures = tree.index(tree.walk(images), key_by_name(IMAGE))
    candidates, named = [], set()
    for name, part in PARTS.items():
        source, rows = _read_part(tree, folder, name)
        for row in rows:
            named.add(row.image)
            paths = pictures.get(row.image, (f"{images}/{row.image}",))
            if row.label is None:
                detail = f"its label in {source} is no polarity"
                tree.reject(row.id, paths[0], "no_label", detail)
            elif settings.drop_missing and row.image not in pictures:
                tree.reject(row.id, paths[0], "missing_file", source)
            else:
                inline, sources = {"text": [row.text, row.target]}, {"image": paths}
                candidates.append(Candidate(row.id, row.label, sources, row.image, part, inline))
    tree.reject_unlisted(pictures, named)
    tree.reject_beside(folder, lambda path: path.is_file() and _is_list(path))
    tree.warn_of_count("twitter2015", len(candidates))
    return tree.scan(LABELS, candidates)


def find_folders(root: Path) -> tuple[str, str]:
    """The folders of the lists and of the pictures, relative to `root`.

    The pictures are beside the lists or in a folder above them, up to the root. All may be in a
    folder of the root.
    """
    for base in bases(root):
        for folder in (PurePosixPath(base, name) for name in FOLDERS):
            if not all(_lists(root, folder, name) for name in PARTS):
                continue
            for place in (folder, *folder.parents):
                if (root / place / IMAGES).is_dir():
                    return str(folder), str(place / IMAGES)
    raise UsageError(
        f"{root} holds no train, dev and test as .tsv or .txt with a folder {IMAGES} beside or"
        f" above them, nor does a folder in it. {SOURCE}"
    )


def _is_list(path: Path) -> bool:
    return path.stem in PARTS and path.suffix in SUFFIXES


def _lists(root: Path, folder: PurePosixPath | str, name: str) -> list[str]:
    """The list of a part in its one or two forms, relative to the root, the one to read first."""
    paths = [str(PurePosixPath(folder, name + suffix)) for suffix in SUFFIXES]
    return [path for path in paths if (root / path).is_file()]


def _read_part(tree: RawTree, folder: str, name: str) -> tuple[str, list[Row]]:
    """The list that was read, and its samples; warns if it has another form that differs."""
    source, *second = _lists(tree.root, folder, name)
    read = _read_tsv if source.endswith(".tsv") else _read_txt
    rows = list(read(tree.root, source, name, tree.rejected))
    if not second:
        return source, rows
    try:
        others = list(_read_txt(tree.root, second[0], name, []))
    except UsageError as error:
        tree.warnings.append(f"{error}; {source} was taken")
        return source, rows
    if Counter(row[1:] for row in rows) != Counter(row[1:] for row in others):
        counts = f"({len(rows)} and {len(others)})"
        tree.warnings.append(
            f"{source} and {second[0]} hold different samples {counts}; the first was taken"
        )
    return source, rows


def _read_tsv(root: Path, source: str, name: str, rejected: list[Rejection]) -> Iterator[Row]:
    """The samples of a .tsv, numbered by line; columns go by place, whatever the header says."""
    for number, line in read_lines(root / source):
        if line is not None and (not line.strip() or (number == 1 and line.startswith("index\t"))):
            continue
        sample = f"{name}-{number - 1:05d}"
        cells = [cell.strip() for cell in line.split("\t")] if line is not None else []
        if len(cells) != 5 or not IMAGE.fullmatch(cells[2]):
            rejected.append(Rejection(sample, source, "bad_line", f"line {number}"))
            continue
        _, label, image, text, target = cells
        yield Row(sample, text, target, TSV_LABELS.get(label), image)


def _read_txt(root: Path, source: str, name: str, rejected: list[Rejection]) -> Iterator[Row]:
    """The samples of a .txt; raises `UsageError` where it is out of step.

    A line more or less shifts all that follow, so nothing behind it can be trusted.
    """
    lines = list(read_lines(root / source))
    while lines and lines[-1][1] is not None and not lines[-1][1].strip():
        lines.pop()
    for k in range(0, len(lines), 4):
        block = [line for _, line in lines[k : k + 4]]
        sample, number = f"{name}-{k // 4 + 1:05d}", lines[k][0]
        polarity, image = [(line or "").strip() for line in (*block, "", "", "", "")][2:4]
        if not re.fullmatch(r"-?\d", polarity) or not IMAGE.fullmatch(image):
            raise UsageError(
                f"{root / source}: the four lines of a sample from line {number} on are not text,"
                " target, polarity and image; the file is damaged there, and all behind it is out"
                " of step"
            )
        if None in block:
            rejected.append(Rejection(sample, source, "bad_line", f"line {number}"))
            continue
        text, target = (line.strip() for line in block[:2])
        yield Row(sample, text, target, TXT_LABELS.get(polarity), image)
