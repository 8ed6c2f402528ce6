"""UPMC Food-101: web pages of dishes, images/<part>/<class>/<name> with a text for each.

This is not ETH's Food-101, which has the same classes but no texts. The texts are, by priority, in

* train.jsonl, dev.jsonl, test.jsonl, as MMBT's script writes them (see `jsonl`);
* train.jsonl and test.jsonl, as for the official MIDAS code (see `release`);
* texts/<part>_titles.csv (see `titles`);
* texts_txt/<class>/<stem of the image>.txt, from which facebookresearch/mmbt, scripts/food_101.py,
  makes its lists. Images without a text are left out, as there.

Names repeat between the parts, so the id of a sample is part/class/name.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.options import option
from data_prep.datasets import options
from data_prep.datasets.jsonl import COLUMNS, mmbt, read_object
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.titles import SUFFIXES, TEXT, Row, canonical, read_titles
from data_prep.datasets.tree import Index, RawTree, find_base, walk
from data_prep.spec import Candidate, Listed, Scan, Spec

LABELS = options.classes("food101")  # sorted folder names, in the order of published ids
IDS = {name: index for index, name in enumerate(LABELS)}
NUMBERS = {str(number): number for number in range(len(LABELS))}
SPLIT_SECOND = 2 / 3
RELEASE_CUT = "train"  # the release passes the train fraction to scikit-learn
PARTS = ("train", "test")
LISTS = {part: f"texts/{part}_titles.csv" for part in PARTS}
TEXTS = "texts_txt"
MMBT = mmbt(("images/train", "images/test"), "texts", TEXTS)
SOURCE = (
    "UPMC Food-101 has images with titles (ETH's Food-101 has no titles); a copy is at"
    " kaggle.com/datasets/gianmarco96/upmcfood101; the root must have images/{train,test}/<class>/"
    " and texts/{train,test}_titles.csv, or texts_txt/<class>/*.txt, or train.jsonl, dev.jsonl and"
    " test.jsonl in MMBT's layout. A tree made for the official MIDAS code works as well."
)
# Part, class and name of an image below images/. Names that are not UTF-8 cannot be written.
PICTURE = (
    r"/(train|test)/([^/\udc80-\udcff]+)/([^/\udc80-\udcff]+(?i:\.(?:jpe?g|png|gif|webp|bmp)))"
)


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


def scan(root: Path, settings: Settings) -> Scan:
    """The texts with their images; raises `UsageError` if it is another tree."""
    if lists := find_release(root, "food101", LABELS, MMBT):
        return scan_jsonl(lists, lambda part: "")
    if release := find_release(root, "food101", LABELS):
        return scan_jsonl(release, lambda part: f"images/{part}/")
    needed = (("images", *LISTS.values()), ("images", TEXTS))
    base, k = find_base(root, SOURCE, *needed)
    return (scan_titles, scan_texts)[k](RawTree(root, base))


def scan_titles(tree: RawTree) -> Scan:
    """The rows of the title lists with their images."""
    lists, texts = {part: tree.path(name) for part, name in LISTS.items()}, tree.path(TEXTS)
    found = walk(tree.root, skip=(texts,))
    pictures = _index(tree, (path for path in found if path not in lists.values()))
    rows = [row for part, source in lists.items() for row in read_titles(tree, source, part)]
    pool = _match(tree, rows, pictures)
    tree.add_val()
    if bad := sum("\ufffd" in row.title for row in rows):
        tree.warnings.append(f"{bad} titles contain bytes that are not UTF-8: replaced by U+FFFD")
    if (tree.root / texts).is_dir():
        tree.warnings.append(f"{texts} is not read: {', '.join(lists.values())} have the texts")
    return tree.scan(LABELS, "food101", pool)


def _index(tree: RawTree, paths: Iterable[str]) -> Index:
    """The images among the paths by part/class/name; other files are rejected."""
    pattern = re.compile(re.escape(tree.path("images")) + PICTURE)

    def key(path: PurePosixPath) -> str | None:
        match = pattern.fullmatch(str(path))
        return f"{match[1]}/{canonical(match[2])}/{match[3]}" if match else None

    return tree.index(paths, key)


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


def scan_texts(tree: RawTree) -> Scan:
    """Each image with the text of its class and stem."""
    pattern = re.compile(
        re.escape(tree.path(TEXTS)) + r"/([^/\udc80-\udcff]+)/([^/\udc80-\udcff]+)\.txt"
    )
    found = walk(tree.root)
    page_of = {path: match for path in found if (match := pattern.fullmatch(path))}

    def key(path: PurePosixPath) -> str:
        match = page_of[str(path)]
        return f"{canonical(match[1])}/{match[2]}"

    pages, used = tree.index(page_of, key), set()
    for picture, paths in _index(tree, (path for path in found if path not in page_of)).items():
        part, folder, name = picture.split("/")
        page = f"{folder}/{PurePosixPath(name).stem}"
        used.add(page)
        sources = {"text": pages.get(page, ()), "image": paths}
        tree.take(
            Candidate(picture, IDS.get(folder, -1), sources, "", part),
            paths[0],
            (folder not in IDS, "no_label", f"folder: {folder}"),
            (page not in pages, "no_text", f"no {TEXTS}/{page}.txt"),
        )
    for page, paths in pages.items():
        if page not in used:
            tree.reject(page, paths[0], "missing_file", "no image of that class and stem")
    tree.add_val()
    return tree.scan(LABELS, "food101")


def scan_jsonl(tree: ReleaseTree, before: Callable[[str], str]) -> Scan:
    """The lines of the lists with their images; labels are ids or names.

    `before`: what a list of a part leaves out before its `img`, relative to the base.
    """
    used: set[str] = set()
    for row in tree.rows(read_object, COLUMNS):
        name, text, label = row.fields
        number = NUMBERS.get(label, IDS.get(canonical(label), -1))
        place, folder = before(row.part) + name, canonical(PurePosixPath(name).parent.name)
        path, sample = tree.path(place), place.removeprefix("images/")
        used.add(path)
        conflict = f"folder: {folder}" if number >= 0 and IDS.get(folder, number) != number else ""
        candidate = Candidate(sample, number, {"image": (path,)}, "", row.part, {"text": text})
        tree.add(row, candidate, name=name, word=label, conflict=conflict)
    for part in PARTS:
        for path in tree.walk(f"images/{part}"):
            if path not in used:
                is_picture = path.lower().endswith(SUFFIXES)
                reason = "no_text" if is_picture else "unknown_name"
                tree.reject(PurePosixPath(path).stem, path, reason, "no list names it")
    tree.reject_others("images", PARTS)
    if not any(candidate.part == "val" for candidate in tree.candidates.values()):
        tree.add_val()
    return tree.result()
