"""Multimodal sarcasm detection in tweets (Cai et al. 2019): text/*.txt and dataset_image/<id>.jpg.

A line of train.txt is a Python list ['<tweet id>', 'text', label]; in valid2.txt and test2.txt, a
label by a human annotator follows and is used. Lines with a word of `FILTER` in their text are left
out, as by the authors (headacheboy/data-of-multimodal-sarcasm-detection, codes/loadData.py). This
leaves 24,635 samples, but the paper has 24,715; the cause is unknown.
"""

import ast
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from data_prep.datasets import options
from data_prep.datasets.tree import RawTree, by_name, find_base
from data_prep.spec import Candidate, Scan, Spec

LABELS = ("not sarcastic", "sarcastic")
SPLIT_SECOND = 2 / 3
SOURCE = (
    "The lists are at github.com/headacheboy/data-of-multimodal-sarcasm-detection, which also links"
    " to the images; the root must contain text/train.txt, text/valid2.txt, text/test2.txt"
    " (or these without the folder text) and dataset_image/<tweet id>.jpg."
)
LISTS = {"train.txt": "train", "valid2.txt": "val", "test2.txt": "test"}
IMAGES = "dataset_image"
IMAGE = re.compile(r"(\d{1,20})\.(?:jpg|jpeg|png)", re.ASCII | re.IGNORECASE)
FILTER = frozenset(
    "sarcasm sarcastic reposting <url> joke humour humor jokes irony ironic exgag".split()
)
# A list of two strings and one or two numbers, and nothing else.
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
LINE = re.compile(
    rf"\s*\[\s*{_STRING}\s*,\s*{_STRING}\s*(?:,\s*-?\d{{1,9}}\s*){{1,2}}\]\s*", re.ASCII
)


@dataclass(frozen=True)
class Settings(options.TextSettings):
    """How the sarcasm dataset is prepared."""


def spec(settings: Settings) -> Spec:
    """One image and one text."""
    return {"image": options.picture(), "text": options.tokens(settings)}


def scan(root: Path, settings: Settings) -> Scan:
    """The lines of the three lists with their images; raises `UsageError` if it is another tree.

    The authors' repository also has a train.txt and a test.txt with another format at the top.
    """
    in_text = [f"text/{name}" for name in LISTS]
    base, k = find_base(root, SOURCE, (*in_text, IMAGES), (*LISTS, IMAGES))
    tree = RawTree(root, base)
    folder = tree.path(("text", "")[k])
    pictures = tree.index(tree.walk(IMAGES), by_name(IMAGE))
    named = set()
    for list_name, part in LISTS.items():
        source = f"{folder}/{list_name}"
        for number, line in tree.lines(source):
            parsed = parse_line(line)
            if parsed is None or not IMAGE.fullmatch(f"{parsed[0]}.jpg"):
                tree.reject(f"{part}-{number:05d}", source, "bad_line", f"line {number}")
                continue
            sample, text, label = parsed
            named.add(sample)
            paths = pictures.get(sample, (tree.path(IMAGES, f"{sample}.jpg"),))
            place, words = f"{source} line {number}", FILTER.intersection(text.split())
            tree.take(
                Candidate(sample, label, {"image": paths}, "", part, {"text": text}),
                paths[0],
                (words, "filtered", f"{place}: {' '.join(sorted(words))}"),
                (label not in (0, 1), "no_label", f"{place}: {label}"),
                (sample in tree.candidates, "duplicate", place),
                (sample not in pictures, "missing_file", place),
            )
    tree.reject_unlisted(pictures, named)
    tree.reject_beside(folder, LISTS)
    return tree.scan(LABELS, "sarcasm")


def parse_line(line: str) -> tuple[str, str, int] | None:
    """(id, text, last element) of a line, or None if it is not a list of two strings and numbers.

    Only lines that match `LINE` are passed to Python's literal parser: nesting could crash it.
    """
    if not LINE.fullmatch(line):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes like "\d", which Python keeps
            name, text, *labels = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError):  # an invalid escape or a number with leading zeros
        return None
    return well_formed(name), well_formed(text), labels[-1]


def well_formed(text: str) -> str:
    """Joins surrogate pairs and replaces lone surrogates by U+FFFD, so the text is valid UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
