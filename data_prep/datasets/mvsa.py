"""MVSA-Single (Niu et al. 2016): tweets with an image, data/<id>.jpg and data/<id>.txt.

A line of labelResultAll.txt is `ID<tab>text,image`: the sentiments of the text alone and of the
image alone, by one annotator, or by three in MVSA-Multiple (see `mvsa_multiple`). They become one
class by the rule of MultiSentiNet (Xu and Mao 2017; the table in the README of
xunan0812/MultiSentiNet): of three annotators, two must agree on the text, and two on the image.
Equal sentiments are the class, and a neutral one gives way to the other. A positive with a negative
one is left out.

The texts are in UTF-8 or GB18030. In the lists that QingyangZhang/QMF made of them, 576 texts have
bytes beyond ASCII that were read as Latin-1; all of them are valid GB18030, with the quotation
marks and accents that are missing otherwise.

A tree with QMF's train.jsonl, dev.jsonl and test.jsonl (see `jsonl`) is read by these, with their
texts as they are. They have only samples with equal sentiments.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.options import UsageError
from data_prep.datasets import options
from data_prep.datasets.jsonl import COLUMNS, mmbt, read_object
from data_prep.datasets.lists import read_lines
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import RawTree, bases, by_name
from data_prep.spec import Candidate, Scan, Spec

LABELS = ("negative", "neutral", "positive")
SPLIT_SECOND = 2 / 3
LIST, FILES = "labelResultAll.txt", "data"
SOURCE = (
    "The MVSA sets are at mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data;"
    f" the root must contain data/<id>.jpg with data/<id>.txt and {LIST}, or for --dataset mvsa"
    " with train.jsonl, dev.jsonl and test.jsonl in MMBT's layout."
)
IMAGE = re.compile(r"(\d{1,20})\.(?:jpg|jpeg|png)", re.ASCII | re.IGNORECASE)
TEXT = re.compile(r"(\d{1,20})\.txt", re.ASCII)
MMBT = mmbt((FILES,), LIST)


@dataclass(frozen=True)
class Settings(options.TextSettings):
    """How MVSA is prepared."""


def spec(settings: Settings) -> Spec:
    """One image and one text."""
    return {"image": options.picture(), "text": options.tokens(settings)}


def scan(root: Path, settings: Settings) -> Scan:
    """The samples of MVSA-Single; raises `UsageError` if it is another tree."""
    if lists := find_release(root, "mvsa", LABELS, MMBT):
        return _scan_jsonl(lists)
    return scan_download(root, 1)


def scan_download(root: Path, annotators: int) -> Scan:
    """The samples of the list with so many annotators; raises `UsageError` if there is none."""
    tree = RawTree(root, _find_base(root, annotators))
    source, files = tree.path(LIST), tree.walk(FILES)
    texts = {path for path in files if TEXT.fullmatch(PurePosixPath(path).name)}
    text_of = tree.index(sorted(texts), by_name(TEXT))
    image_of = tree.index((path for path in files if path not in texts), by_name(IMAGE))
    named = set()
    for number, line in tree.lines(source):
        sample, *votes = (cell.strip() for cell in line.split("\t"))
        if sample == "ID":
            continue
        pairs = [tuple(vote.replace(" ", "").casefold().split(",")) for vote in votes]
        if not TEXT.fullmatch(f"{sample}.txt") or {len(pair) for pair in pairs} != {2}:
            tree.reject(f"line {number}", source, "bad_line", line[:80])
            continue
        named.add(sample)
        place, (label, reason) = f"{source}, line {number}", merge(pairs)
        paths = {"image": image_of.get(sample, ()), "text": text_of.get(sample, ())}
        lacking = [name for name in paths if not paths[name]]
        tree.take(
            Candidate(sample, label, paths, inline={"text": "gb18030"}),
            (*paths["image"], *paths["text"], source)[0],
            (reason, reason, f"{place}: {' '.join(votes)}"[:200]),
            (sample in tree.candidates, "duplicate", place),
            (lacking, "missing_file", f"{place}: no {' and no '.join(lacking)}"),
        )
    tree.reject_unlisted(image_of, named)
    tree.reject_unlisted({k: v for k, v in text_of.items() if k not in image_of}, named)
    tree.reject_beside(tree.base, [LIST])
    return tree.scan(LABELS)


def _find_base(root: Path, annotators: int) -> str:
    """The folder whose list has so many annotators: both sets may be below `root`."""
    others = []
    for base in bases(root):
        place = root / base / LIST
        if place.is_file() and (root / base / FILES).is_dir():
            found = next(read_lines(place), "").count("\t")
            if found == annotators:
                return base
            others.append(
                f"{place} has sentiments by {found} annotators instead of {annotators}"
                " (--dataset mvsa needs one, and mvsa_multiple three)"
            )
    lacking = f"neither {root} nor a folder in it has {LIST} and {FILES}"
    raise UsageError(f"{others[0] if others else lacking}. {SOURCE}")


def merge(pairs: Sequence[tuple[str, ...]]) -> tuple[int, str]:
    """(class, "") of the annotators' (text, image), or (-1, the reason why there is none)."""
    if not all(word in LABELS for pair in pairs for word in pair):
        return -1, "no_label"
    votes = [Counter(words).most_common(1)[0] for words in zip(*pairs)]
    if any(2 * count <= len(pairs) for _, count in votes):
        return -1, "filtered"
    said = {word for word, _ in votes}
    if said == {"positive", "negative"}:
        return -1, "filtered"
    return LABELS.index(said.pop() if len(said) == 1 else (said - {"neutral"}).pop()), ""


def _scan_jsonl(tree: ReleaseTree) -> Scan:
    """The lines of the lists with their images; the parts are those of the lists."""
    used: set[str] = set()
    for row in tree.rows(read_object, COLUMNS):
        name, text, label = row.fields
        path, number = tree.path(name), LABELS.index(label) if label in LABELS else -1
        used.add(path)
        sources = {"image": (path,)}
        candidate = Candidate(
            PurePosixPath(name).stem, number, sources, "", row.part, {"text": text}
        )
        tree.add(row, candidate, name=name, word=label)
    for path in tree.walk(FILES):
        name = PurePosixPath(path).name
        if path not in used and not TEXT.fullmatch(name):  # the lists have the texts
            reason = "no_label" if IMAGE.fullmatch(name) else "unknown_name"
            tree.reject(PurePosixPath(path).stem, path, reason, "no list names it")
    return tree.result()
