"""Twitter2015 (Yu and Jiang 2019): tweets with an image, and the sentiment towards one target.

A tweet with several targets is listed once for each, with "$T$" in place of the target. We store
the pair (tweet with $T$, target), as in jefferyYu/TomBERT; how the paper joins them is unknown.

A .tsv has five columns (index, label 0..2, image, text, target), although the header of test.tsv
has four; nothing is quoted. A .txt has four lines per sample (text, target, polarity -1..1, image).
If both exist, the .tsv is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from common.options import UsageError, option
from data_prep.datasets import options
from data_prep.datasets.lists import UNREADABLE, read_lines
from data_prep.datasets.tree import RawTree, bases, by_name
from data_prep.spec import Candidate, Scan, Spec

LABELS = ("negative", "neutral", "positive")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "The lists are at github.com/jefferyYu/TomBERT (absa_data/twitter2015), whose README links to"
    " the images; the root must contain train, dev and test as .tsv or .txt (directly, in"
    " twitter2015 or in absa_data/twitter2015) and twitter2015_images/<image>."
)
SUFFIXES = (".txt", ".tsv")  # the last one has priority
PARTS = {"train": "train", "dev": "val", "test": "test"}
FOLDERS = ("absa_data/twitter2015", "twitter2015", "")
IMAGES = "twitter2015_images"
IMAGE = re.compile(r"([A-Za-z0-9_-]{1,100}\.(?:jpg|jpeg|png))", re.ASCII | re.IGNORECASE)
TSV_LABELS = {"0": 0, "1": 1, "2": 2}
TXT_LABELS = {"-1": 0, "0": 1, "1": 2}


@dataclass(frozen=True)
class Settings(options.TextSettings):
    """How Twitter2015 is prepared."""

    drop_missing: bool = option(
        False,
        "leave out samples with a missing or broken image (off: use a grey image)",
        source="the paper's 5,338 samples are all lines",
    )


def spec(settings: Settings) -> Spec:
    """One image, and the pair of tweet and target."""
    image = options.picture("reject" if settings.drop_missing else "fill")
    return {"image": image, "text": options.tokens(settings, pair=True)}


def scan(root: Path, settings: Settings) -> Scan:
    """The samples of the three lists; raises `UsageError` if it is another tree."""
    lists, images = _find(root)
    tree = RawTree(root)
    pictures = tree.index(tree.walk(images), by_name(IMAGE))
    named = set()
    for name, source in lists.items():
        read = _read_tsv if source.endswith(".tsv") else _read_txt
        for sample, label, image, *texts in read(tree, source, name):
            named.add(image)
            paths = pictures.get(image, (f"{images}/{image}",))
            missing = settings.drop_missing and image not in pictures
            tree.take(
                Candidate(sample, label, {"image": paths}, image, PARTS[name], {"text": texts}),
                paths[0],
                (label < 0, "no_label", f"its label in {source} is not a polarity"),
                (missing, "missing_file", source),
            )
    tree.reject_unlisted(pictures, named)
    folder = str(PurePosixPath(lists["train"]).parent)
    tree.reject_beside(folder, [part + suffix for part in PARTS for suffix in SUFFIXES])
    return tree.scan(LABELS, "twitter2015")


def _find(root: Path) -> tuple[dict[str, str], str]:
    """The list of each part and the image folder; raises `UsageError` if there are none."""
    for base in bases(root):
        for folder in (PurePosixPath(base, name) for name in FOLDERS):
            lists = {}
            for part, suffix in product(PARTS, SUFFIXES):
                if (root / folder / f"{part}{suffix}").is_file():
                    lists[part] = str(folder / f"{part}{suffix}")
            for place in (folder, *folder.parents):
                if len(lists) == len(PARTS) and (root / place / IMAGES).is_dir():
                    return lists, str(place / IMAGES)
    raise UsageError(
        f"neither {root} nor a folder in it has train, dev and test as .tsv or .txt with a folder"
        f" {IMAGES} next to or above them. {SOURCE}"
    )


Row = tuple[str, int, str, str, str]  # sample, label (-1: unknown), image, text, target


def _read_tsv(tree: RawTree, source: str, name: str) -> Iterator[Row]:
    """The samples of a .tsv, numbered by line; columns are identified by position."""
    for number, line in tree.lines(source):
        if number == 1 and line.startswith("index\t"):
            continue
        sample, cells = f"{name}-{number - 1:05d}", [cell.strip() for cell in line.split("\t")]
        if len(cells) != 5 or not IMAGE.fullmatch(cells[2]):
            tree.reject(sample, source, "bad_line", f"line {number}")
        else:
            yield sample, TSV_LABELS.get(cells[1], -1), cells[2], cells[3], cells[4]


def _read_txt(tree: RawTree, source: str, name: str) -> Iterator[Row]:
    """The samples of a .txt; raises `UsageError` if a missing or extra line shifts the others."""
    lines = [line.strip() for line in read_lines(tree.root / source)]
    while lines and not lines[-1]:
        lines.pop()
    for k in range(0, len(lines), 4):
        sample, block = f"{name}-{k // 4 + 1:05d}", lines[k : k + 4]
        text, target, polarity, image = block + [""] * (4 - len(block))
        if not re.fullmatch(r"-?\d", polarity) or not IMAGE.fullmatch(image):
            raise UsageError(
                f"{tree.root / source}: the four lines of a sample from line {k + 1} on are not"
                " text, target, polarity and image; the file is damaged there, so all following"
                " lines are misaligned"
            )
        if UNREADABLE in block:
            tree.reject(sample, source, "bad_line", f"line {k + 1}")
        else:
            yield sample, TXT_LABELS.get(polarity, -1), image, text, target
