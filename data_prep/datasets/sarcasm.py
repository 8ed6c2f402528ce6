"""Multimodal sarcasm detection of tweets (Cai et al. 2019): text/*.txt and dataset_image/<id>.jpg.

A line of train.txt is a Python list ['<tweet id>', 'text', label]; in valid2.txt and test2.txt a
label by a human annotator follows, and in all three the last element counts. Lines whose text holds
a word of `FILTER` are left out, as the authors' own loader does
(headacheboy/data-of-multimodal-sarcasm-detection, codes/loadData.py). That leaves 24,635 samples
where the paper has 24,715; the cause is not known. The text stays as it is, with its hashtags and
emoji codes.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError
from data_prep.datasets.lists import read_lines
from data_prep.datasets.options import max_tokens_option, vocabulary_option
from data_prep.datasets.tree import RawTree, bases, key_by_name
from data_prep.spec import Candidate, Scan, Spec

LABELS = ("not sarcastic", "sarcastic")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "The lists are at github.com/headacheboy/data-of-multimodal-sarcasm-detection, which also says"
    " where the pictures are; the root must hold text/train.txt, text/valid2.txt, text/test2.txt"
    " (or the three without that folder) and dataset_image/<tweet id>.jpg."
)
LISTS = {"train.txt": "train", "valid2.txt": "val", "test2.txt": "test"}
IMAGES = "dataset_image"
IMAGE = re.compile(r"(\d{1,20})\.(?:jpg|jpeg|png)", re.ASCII | re.IGNORECASE)
FILTER = frozenset(
    "sarcasm sarcastic reposting <url> joke humour humor jokes irony ironic exgag".split()
)
# A list of two strings and one or two numbers. Nothing else can be in a line that matches.
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
LINE = re.compile(
    rf"\s*\[\s*{_STRING}\s*,\s*{_STRING}\s*(?:,\s*-?\d{{1,9}}\s*){{1,2}}\]\s*", re.ASCII
)


@dataclass(frozen=True)
class Settings:
    """How the sarcasm set is prepared."""

    vocabulary: str = vocabulary_option()
    max_tokens: int = max_tokens_option(512, "an inference: Food-101's")


def spec(settings: Settings) -> Spec:
    """One picture and one text.

    In training the picture is turned and flipped, as for Food-101 (an inference).
    """
    from data_prep.modalities.image import Image
    from data_prep.modalities.text import text_spec

    return {
        "image": Image(missing="reject"),
        "text": text_spec(settings.vocabulary, settings.max_tokens),
    }


class Row(NamedTuple):
    """A line that could be read; `place` is its list and number."""

    id: str
    text: str
    label: int
    part: str
    place: str


def scan(root: Path, settings: Settings) -> Scan:
    """The lines of the three lists with their pictures; raises `UsageError` for another tree."""
    folder, images = find_folders(root)
    tree = RawTree(root)
    pictures = tree.index(tree.walk(images), key_by_name(IMAGE))
    candidates: dict[str, Candidate] = {}
    named = set()
    for name, part in LISTS.items():
        for row in _read_list(tree, f"{folder}/{name}", part):
            named.add(row.id)
            paths = pictures.get(row.id, (f"{images}/{row.id}.jpg",))
            reason, detail = _fault(row, row.id in candidates, row.id in pictures)
            if reason:
                tree.reject(row.id, paths[0], reason, detail)
            else:
                inline, sources = {"text": row.text}, {"image": paths}
                candidates[row.id] = Candidate(
                    row.id, row.label, sources, part=row.part, inline=inline
                )
    tree.reject_unlisted(pictures, named)
    tree.reject_beside(folder, lambda path: path.name in LISTS)
    tree.warn_of_count("sarcasm", len(candidates))
    return tree.scan(LABELS, candidates.values())


def find_folders(root: Path) -> tuple[str, str]:
    """The folders of the lists and of the pictures, relative to `root`.

    Both are in the root or in a folder of it. The authors' repository also has a train.txt and a
    test.txt of another form at its top: only the three names together are the lists.
    """
    for base in bases(root):
        for folder in (PurePosixPath(base, "text"), PurePosixPath(base)):
            lists = all((root / folder / name).is_file() for name in LISTS)
            if lists and (root / base / IMAGES).is_dir():
                return str(folder), str(PurePosixPath(base, IMAGES))
    raise UsageError(
        f"{root} holds no {', '.join(LISTS)} with a folder {IMAGES} beside them, nor does a folder"
        f" in it. {SOURCE}"
    )


def parse_line(line: str) -> tuple[str, str, int] | None:
    """(id, text, last element) of a line, or None if it is no list of two strings and numbers.

    Only lines that match `LINE` are passed to Python's parser of literals: nested brackets could
    crash it.
    """
    if not LINE.fullmatch(line):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes like "\d", which Python keeps as they are
            name, text, *labels = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError):  # a bad escape, or a number with leading zeros
        return None
    return well_formed(name), well_formed(text), labels[-1]


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates as U+FFFD, so that it is UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read_list(tree: RawTree, source: str, part: str) -> Iterator[Row]:
    """The readable lines of a list; the others are rejected."""
    for number, line in read_lines(tree.root / source):
        if line is not None and not line.strip():
            continue
        parsed = parse_line(line) if line is not None else None
        if parsed is None or not IMAGE.fullmatch(f"{parsed[0]}.jpg"):
            tree.reject(f"{part}-{number:05d}", source, "bad_line", f"line {number}")
        else:
            yield Row(*parsed, part, f"{source} line {number}")


def _fault(row: Row, is_known: bool, has_picture: bool) -> tuple[str, str]:
    """(reason, detail) if the row is no sample, in the order of the authors' loader."""
    words = sorted(FILTER.intersection(row.text.split()))
    if words:
        return "filtered", f"{row.place}: {' '.join(words)}"
    if row.label not in (0, 1):
        return "no_label", f"{row.place}: {row.label}"
    if is_known:
        return "duplicate", row.place
    return ("", "") if has_picture else ("missing_file", row.place)
