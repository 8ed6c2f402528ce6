"""UPMC Food-101: web pages of dishes, images/<part>/<class>/<name> + texts/<part>_titles.csv.

This is not ETH's Food-101, which has the same classes but no texts. The lists exist in two forms:
without a header (name, title, class), as published, and with a header that was added later. Names
repeat between the parts, so the id of a sample is part/class/name.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.options import UsageError, option
from data_prep.datasets import options
from data_prep.datasets.lists import read_records
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.tree import Index, RawTree, find_base, walk
from data_prep.spec import Candidate, Listed, Scan, Spec

LABELS = options.classes("food101")  # sorted folder names, in the order of published ids
IDS = {name: index for index, name in enumerate(LABELS)}
NUMBERS = {str(number): number for number in range(len(LABELS))}
SPLIT_SECOND = 2 / 3
RELEASE_CUT = "train"  # the release passes the train fraction to scikit-learn
PARTS = ("train", "test")
LISTS = {part: f"texts/{part}_titles.csv" for part in PARTS}
SOURCE = (
    "UPMC Food-101 has images with titles (ETH's Food-101 has no titles); a copy is at"
    " kaggle.com/datasets/gianmarco96/upmcfood101; the root must have images/{train,test}/<class>/"
    " and texts/{train,test}_titles.csv. A tree made for the official MIDAS code works as well."
)
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
# Part, class and name of an image below images/. Names that are not UTF-8 cannot be written.
PICTURE = (
    r"/(train|test)/([^/\udc80-\udcff]+)/([^/\udc80-\udcff]+(?i:\.(?:jpe?g|png|gif|webp|bmp)))"
)
TEXT = ".txt"  # in some published lists, rows name a text file instead of the image
# Known names of the three columns in lists with a header.
COLUMNS = {
    "image": ("image_path", "image_name", "image", "img", "filename", "file"),
    "text": ("text", "title"),
    "label": ("label", "class", "class_name", "category"),
}


@dataclass(frozen=True)
class Settings(options.TextSettings):
    """How Food-101 is prepared."""

    text_clean: str = option(
        "release",
        "text cleaning: the rule of the official release, or ours",
        choices=("release", "plain"),
        source="official release; plain: our choice",
    )


def spec(settings: Settings) -> Spec:
    """The title and the image."""
    text = options.tokens(settings, cleaning=settings.text_clean)
    return {"text": text, "image": options.picture()}


class Row(NamedTuple):
    """A row of a list: `label` in the spelling of `canonical`, `source` relative to the root."""

    part: str
    name: str
    title: str
    label: str
    source: str
    line: int


def canonical(name: str) -> str:
    """A class name in the spelling of `LABELS`: lower case, one "_" between words."""
    return "_".join(re.split(r"[\s_-]+", name.strip().casefold()))


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the lists with their images; raises `UsageError` if it is another tree."""
    if release := find_release(root, "food101", LABELS):
        return scan_release(release)
    tree = RawTree(root, find_base(root, SOURCE, ("images", *LISTS.values()))[0])
    lists = {part: tree.path(name) for part, name in LISTS.items()}
    pattern = re.compile(re.escape(tree.path("images")) + PICTURE)

    def key(path: PurePosixPath) -> str | None:
        match = pattern.fullmatch(str(path))
        return f"{match[1]}/{canonical(match[2])}/{match[3]}" if match else None

    pictures = tree.index((path for path in walk(root) if path not in lists.values()), key)
    rows = [row for part, source in lists.items() for row in read_titles(tree, source, part)]
    pool = _match(tree, rows, pictures)
    tree.add_val()
    if bad := sum("\ufffd" in row.title for row in rows):
        tree.warnings.append(f"{bad} titles contain bytes that are not UTF-8: replaced by U+FFFD")
    return tree.scan(LABELS, "food101", pool)


def read_titles(tree: RawTree, source: str, part: str) -> list[Row]:
    """The rows of a list in either form, even if titles contain unquoted commas.

    Bytes that are not UTF-8 become U+FFFD. Raises `UsageError` if it is another file.
    """
    rows: list[Row] = []
    places: list[int] = []  # the columns of image, title and class
    width = 3

    def is_row(cells: list[str]) -> bool:
        return any(_is_picture(cell) for cell in cells)

    def is_first(cells: list[str]) -> bool:
        return len(cells) >= 3 and (_is_picture(cells[0]) or len(_places(cells)) == 3)

    for record in read_records(tree.root / source, is_first, is_row, replace=True):
        cells, fault = record.cells, record.fault
        if cells and not places:
            if not _is_picture(cells[0]):
                places, width = list(_places(cells).values()), len(cells)
                if missing := [name for name in COLUMNS if name not in _places(cells)]:
                    raise UsageError(
                        f"{tree.root / source} begins neither with an image name nor with a"
                        f" header that has the {missing[0]} ({', '.join(COLUMNS[missing[0]])}),"
                        f" but with {','.join(cells)[:200]!r}"
                    )
                continue
            places = [0, 1, 2]  # as published
        if cells and len(cells) < width:
            counts = f"{len(cells)} cells, but {width} are expected"
            cells, fault = [], f"{counts}; {fault}" if fault else counts
        if cells:  # surplus cells belong to the title
            text, end = places[1], places[1] + len(cells) - width + 1
            three = [*cells[:text], ",".join(cells[text:end]), *cells[end:]]
            name, title, label = (three[place] for place in places)
            # Some lists contain full paths, of any operating system.
            name = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
            rows.append(Row(part, name, title, canonical(label), source, record.line))
        if fault:
            place, reason = f"line {record.line}", "open_quote" if cells else "bad_line"
            tree.reject(f"{part}, {place}", source, reason, f"{place}: {fault}")
    return rows


def _is_picture(cell: str) -> bool:
    return cell.strip().lower().endswith((*SUFFIXES, TEXT))


def _places(header: list[str]) -> dict[str, int]:
    """The columns of the image, the title and the class in a header."""
    names = [name.strip().casefold() for name in header]
    found = {}
    for column, spellings in COLUMNS.items():
        if known := [name for name in spellings if name in names]:
            found[column] = names.index(known[0])
    return found


def _match(tree: RawTree, rows: list[Row], pictures: Index) -> list[Listed]:
    """Adds the rows that have an image; returns the pool. The class from the list is used.

    If the image is not in the folder of its class, it is taken from another folder, provided that
    exactly one has an unused image of that name. A .txt name stands for the only image with that
    stem.
    """
    names, folders = defaultdict(set), defaultdict(list)
    for picture in pictures:
        part, folder, name = picture.split("/")
        names[part, PurePosixPath(name).stem].add(name)
        folders[part, name].append(folder)
    for k, row in enumerate(rows):
        same = names.get((row.part, PurePosixPath(row.name).stem), ())
        if row.name.lower().endswith(TEXT) and len(same) == 1:
            rows[k] = row._replace(name=min(same))
    taken: set[str] = set()
    folder_of = {row: row.label for row in rows}
    for row in sorted(rows, key=lambda row: f"{row.part}/{row.label}/{row.name}" not in pictures):
        sample = f"{row.part}/{row.label}/{row.name}"
        if sample not in pictures:
            places = folders.get((row.part, row.name), [])
            free = [place for place in places if f"{row.part}/{place}/{row.name}" not in taken]
            if len(free) != 1:
                tree.reject(sample, row.source, "missing_file", f"line {row.line}")
                continue
            folder_of[row], sample = free[0], f"{row.part}/{free[0]}/{row.name}"
        folder, paths = folder_of[row], pictures[sample]
        label, classes = row.label or folder, f"list: {row.label or 'none'}, folder: {folder}"
        if label in IDS and label != folder and sample not in taken:
            tree.reject(sample, paths[0], "label_conflict", classes)
        inline, sources = {"text": row.title}, {"image": paths}
        tree.take(
            Candidate(sample, IDS.get(label, -1), sources, "", row.part, inline),
            paths[0],
            (sample in taken, "duplicate", f"{row.source}, line {row.line}"),
            (label not in IDS, "no_label", classes),
        )
        taken.add(sample)
    for picture, paths in pictures.items():
        if picture not in taken:
            tree.reject(picture, paths[0], "no_text", "no line of the lists names it")
    return [
        Listed(f"{row.part}/{folder}/{row.name}", IDS[row.label or folder])
        for row, folder in folder_of.items()
        if (row.label or folder) in IDS
    ]


def scan_release(tree: ReleaseTree) -> Scan:
    """images/<part>/<img> with the text of each line in <part>.jsonl; labels are ids or names."""
    used: dict[str, set[str]] = {part: set() for part in PARTS}
    for row in tree.rows(_page, ("img", "text", "label")):
        name, text, label = row.fields
        used[row.part].add(name)
        number = NUMBERS.get(label, IDS.get(canonical(label), -1))
        path, folder = (
            tree.path("images", row.part, name),
            canonical(PurePosixPath(name).parent.name),
        )
        sample, inline = f"{row.part}/{name}", {"text": text}
        conflict = f"folder: {folder}" if number >= 0 and IDS.get(folder, number) != number else ""
        candidate = Candidate(sample, number, {"image": (path,)}, "", row.part, inline)
        tree.add(row, candidate, name=name, word=label, conflict=conflict)
    for part in PARTS:
        for path in tree.walk(f"images/{part}"):
            place = PurePosixPath(path).relative_to(tree.path("images", part))
            if str(place) not in used[part]:
                reason = "no_text" if place.suffix.lower() in SUFFIXES else "unknown_name"
                tree.reject(place.stem, path, reason, f"not in {part}.jsonl")
    tree.reject_others("images", PARTS)
    tree.add_val()
    return tree.result()


def _page(line: str) -> list[str]:
    """[img, text, label] of a JSON line; empty if it is not an object with these keys."""
    try:
        page = json.loads(line)
        words = [page[key] for key in ("img", "text", "label")]
    except (ValueError, RecursionError, TypeError, KeyError):
        return []
    if type(words[2]) is int:
        words[2] = str(words[2])
    if not all(isinstance(word, str) for word in words):
        return []
    # JSON can contain lone surrogates, which UTF-8 cannot encode.
    return [re.sub("[\ud800-\udfff]", "\ufffd", word) for word in words]
