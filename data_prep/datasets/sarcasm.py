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
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets.lines import (
    PICTURES,
    bases,
    index_pictures,
    read_lines,
    unlisted,
    well_formed,
)
from data_prep.datasets.options import max_tokens_option, vocabulary_option
from data_prep.datasets.walk import count_warnings
from data_prep.spec import Candidate, Rejection, Scan, Spec

LABELS = ("not sarcastic", "sarcastic")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "The lists are at github.com/headacheboy/data-of-multimodal-sarcasm-detection, which also says"
    " where the pictures are; the root must hold text/train.txt, text/valid2.txt, text/test2.txt"
    " (or the three without that folder) and dataset_image/<tweet id>.jpg."
)
LISTS = {"train.txt": "train", "valid2.txt": "val", "test2.txt": "test"}
IMAGES = "dataset_image"
IMAGE = re.compile(rf"(\d{{1,20}}){PICTURES}", re.ASCII | re.IGNORECASE)
FILTER = frozenset(
    "sarcasm sarcastic reposting <url> joke humour humor jokes irony ironic exgag".split()
)
# A list of two strings and one or two numbers: what fits holds no other syntax, however it is read.
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
    """A line that could be read: `where` names it for the list of rejects."""

    id: str
    text: str
    label: int
    part: str
    where: str


@dataclass
class _Findings:
    """What becomes of the lines, while they are gone through."""

    candidates: dict[str, Candidate] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # ids in any line that could be read


def scan(root: Path, settings: Settings) -> Scan:
    """The lines of the three lists with their pictures; raises `UsageError` for another tree."""
    folder, images = find_base(root)
    pictures, rejected = index_pictures(root, images, IMAGE)
    findings = _Findings(rejected=rejected)
    for name, part in LISTS.items():
        source = str(PurePosixPath(folder, name))
        for row in _read_list(root, source, part, findings.rejected):
            expected = pictures.get(row.id, (f"{images}/{row.id}.jpg",))
            _judge(row, expected, row.id in pictures, findings)
    findings.rejected += unlisted(pictures, findings.named)
    for path in sorted((root / folder).iterdir()):
        if not path.is_dir() and path.name not in LISTS and not is_ignored(path.name):
            source = str(PurePosixPath(folder, path.name))
            findings.rejected.append(Rejection(path.stem, source, "unknown_name"))
    candidates = [findings.candidates[key] for key in sorted(findings.candidates)]
    return Scan(LABELS, candidates, findings.rejected, count_warnings("sarcasm", len(candidates)))


def find_base(root: Path) -> tuple[str, str]:
    """The folders of the lists and of the pictures, relative to `root`.

    Both stand in the root or in a folder of it. The authors' repository also has a train.txt and a
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
    """(id, text, last element) of a line, or None where it is no list of two strings and numbers.

    The line is checked before Python's reader of literals sees it, which nested brackets could
    crash.
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


def _read_list(root: Path, source: str, part: str, rejected: list[Rejection]) -> Iterator[Row]:
    """The readable lines of a list; what is wrong with the others goes to `rejected`."""
    for number, line in read_lines(root / source):
        where = f"line {number}"
        if line is not None and not line.strip():
            continue
        parsed = parse_line(line) if line is not None else None
        if parsed is None or not IMAGE.fullmatch(f"{parsed[0]}.jpg"):
            rejected.append(Rejection(f"{part}-{number:05d}", source, "bad_line", where))
            continue
        yield Row(*parsed, part, f"{source} {where}")


def _judge(row: Row, paths: tuple[str, ...], is_there: bool, findings: _Findings) -> None:
    """Makes a line a candidate or finds why not, in the order of the authors' loader."""
    findings.named.add(row.id)
    words = sorted(FILTER.intersection(row.text.split()))
    reason, detail = "", row.where
    if words:
        reason, detail = "filtered", f"{row.where}: {' '.join(words)}"
    elif row.label not in (0, 1):
        reason, detail = "no_label", f"{row.where}: {row.label}"
    elif row.id in findings.candidates:
        reason = "duplicate"
    elif not is_there:
        reason = "missing_file"
    if reason:
        findings.rejected.append(Rejection(row.id, paths[0], reason, detail))
        return
    findings.candidates[row.id] = Candidate(
        row.id, row.label, {"image": paths}, part=row.part, inline={"text": row.text}
    )
