"""UPMC Food-101: web pages of dishes, images/<part>/<class>/<name> + texts/<part>_titles.csv.

Not ETH's Food-101, which has the same classes and no texts. The lists are found in two forms:
without a header (name, title, class), as they were published, and with one that somebody added.
Names repeat between the parts, so the id of a sample is part/class/name.
"""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.files import is_ignored
from common.options import UsageError
from data_prep.datasets.csv_rows import read_records, refuse_line
from data_prep.datasets.options import max_tokens_option, text_clean_option, vocabulary_option
from data_prep.datasets.release_lists import release_scan
from data_prep.datasets.walk import count_warnings, walk
from data_prep.spec import Candidate, Listed, Rejection, Scan, Spec

# In the order of sorted folder names, which is that of the field's ids.
LABELS = (
    "apple_pie", "baby_back_ribs", "baklava", "beef_carpaccio", "beef_tartare", "beet_salad",
    "beignets", "bibimbap", "bread_pudding", "breakfast_burrito", "bruschetta", "caesar_salad",
    "cannoli", "caprese_salad", "carrot_cake", "ceviche", "cheese_plate", "cheesecake",
    "chicken_curry", "chicken_quesadilla", "chicken_wings", "chocolate_cake", "chocolate_mousse",
    "churros", "clam_chowder", "club_sandwich", "crab_cakes", "creme_brulee", "croque_madame",
    "cup_cakes", "deviled_eggs", "donuts", "dumplings", "edamame", "eggs_benedict", "escargots",
    "falafel", "filet_mignon", "fish_and_chips", "foie_gras", "french_fries", "french_onion_soup",
    "french_toast", "fried_calamari", "fried_rice", "frozen_yogurt", "garlic_bread", "gnocchi",
    "greek_salad", "grilled_cheese_sandwich", "grilled_salmon", "guacamole", "gyoza", "hamburger",
    "hot_and_sour_soup", "hot_dog", "huevos_rancheros", "hummus", "ice_cream", "lasagna",
    "lobster_bisque", "lobster_roll_sandwich", "macaroni_and_cheese", "macarons", "miso_soup",
    "mussels", "nachos", "omelette", "onion_rings", "oysters", "pad_thai", "paella", "pancakes",
    "panna_cotta", "peking_duck", "pho", "pizza", "pork_chop", "poutine", "prime_rib",
    "pulled_pork_sandwich", "ramen", "ravioli", "red_velvet_cake", "risotto", "samosa", "sashimi",
    "scallops", "seaweed_salad", "shrimp_and_grits", "spaghetti_bolognese", "spaghetti_carbonara",
    "spring_rolls", "steak", "strawberry_shortcake", "sushi", "tacos", "takoyaki", "tiramisu",
    "tuna_tartare", "waffles",
)  # fmt: skip
IDS = {name: index for index, name in enumerate(LABELS)}
SPLIT_SECOND = 2 / 3
RELEASE_CUT = "train"  # the release gives scikit-learn the share of train
PARTS = ("train", "test")
VAL_SHARE = 10  # one of so many training samples of a class is the official rule's val part
SOURCE = (
    "UPMC Food-101 has titles beside its pictures (ETH's Food-101 has none), a copy is at"
    " kaggle.com/datasets/gianmarco96/upmcfood101; the root must hold images/{train,test}/<class>/"
    " and texts/{train,test}_titles.csv."
    " A tree made for the official MIDAS code does as well."
)
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
TEXT = ".txt"  # in some published lists rows name a text file that stands for the picture
# The names that the three columns bear in lists with a header.
COLUMNS = {
    "image": ("image_path", "image_name", "image", "img", "filename", "file"),
    "text": ("text", "title"),
    "label": ("label", "class", "class_name", "category"),
}


@dataclass(frozen=True)
class Settings:
    """How Food-101 is prepared."""

    vocabulary: str = vocabulary_option()
    max_tokens: int = max_tokens_option(512, "official release")
    text_clean: str = text_clean_option("release")


def spec(settings: Settings) -> Spec:
    """The title's tokens, and the picture with a shorter side of at most 256 pixels.

    In training the picture is turned and flipped, as in the official release.
    """
    from data_prep.modalities.image import Image
    from data_prep.modalities.text import text_spec

    text = text_spec(settings.vocabulary, settings.max_tokens, cleaning=settings.text_clean)
    return {"text": text, "image": Image()}


class Row(NamedTuple):
    """A line of a list: `label` in the spelling of `canonical`, `source` relative to the root."""

    part: str
    name: str
    title: str
    label: str
    source: str
    line: int


# (part, file name) -> class folder -> the files of that picture, relative to the root
Pictures = dict[tuple[str, str], dict[str, tuple[str, ...]]]


def canonical(name: str) -> str:
    """A class name in the spelling of `LABELS`: lower case, one "_" between words."""
    return "_".join(re.split(r"[\s_-]+", name.strip().casefold()))


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the lists with their pictures; raises `UsageError` for another tree."""
    if (found := release_scan(root, "food101")) is not None:
        return replace(found, candidates=_with_val(found.candidates))
    base = _find_base(root)
    lists = {part: str(PurePosixPath(base, _list_name(part))) for part in PARTS}
    pictures, rejected = _read_tree(root, base, set(lists.values()))
    rows: list[Row] = []
    for part, source in lists.items():
        listed, unread = read_titles(root, source, part)
        rows += listed
        rejected += unread
    candidates, unmatched, samples = _match(rows, pictures, lists)
    candidates = _with_val(sorted(candidates, key=lambda candidate: candidate.id))
    warnings = count_warnings("food101", len(candidates))
    if marred := sum("\ufffd" in row.title for row in rows):
        warnings.append(f"{marred} titles hold bytes that are not UTF-8: U+FFFD in their place")
    pool = [Listed(sample, IDS[label]) for sample, label in samples if label in IDS]
    return Scan(LABELS, candidates, rejected + unmatched, warnings, pool)


def _list_name(part: str) -> str:
    return f"texts/{part}_titles.csv"


def _find_base(root: Path) -> str:
    """The Food-101 folder relative to `root`: itself, or the first folder in it that is one."""
    inside = [path.name for path in root.glob("*") if path.is_dir() and not is_ignored(path.name)]
    for base in ["", *sorted(inside)]:
        lists = [root / base / _list_name(part) for part in PARTS]
        if (root / base / "images").is_dir() and all(path.is_file() for path in lists):
            return base
    names = " and ".join(_list_name(part) for part in PARTS)
    raise UsageError(f"{root} holds no images/ with {names}, nor does a folder in it. {SOURCE}")


def _read_tree(root: Path, base: str, lists: set[str]) -> tuple[Pictures, list[Rejection]]:
    """The pictures, and what is neither a picture at its place nor a list."""
    pictures: Pictures = {}
    rejected = []
    for path in walk(root):
        # A name that is not UTF-8 cannot stand in the files that are written.
        readable = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        file = PurePosixPath(path)
        *place, part, folder = ("", "", *file.parts)[:-1]
        at_home = PurePosixPath(*place) == PurePosixPath(base, "images") and part in PARTS
        if at_home and file.suffix.lower() in SUFFIXES and readable == path:
            same, label = pictures.setdefault((part, file.name), {}), canonical(folder)
            if label in same:
                sample = f"{part}/{label}/{file.name}"
                rejected.append(Rejection(sample, path, "second_file", same[label][0]))
            same[label] = (*same.get(label, ()), path)
        elif path not in lists:
            rejected.append(Rejection(PurePosixPath(readable).stem, readable, "unknown_name"))
    return pictures, rejected


# The lists ----------------------------------------------------------------------------------------


def read_titles(root: Path, source: str, part: str) -> tuple[list[Row], list[Rejection]]:
    """The rows of the list root/source in either form, and what is wrong with its lines.

    Commas of a title that nobody quoted are understood; bytes that are not UTF-8 become U+FFFD.
    Raises `UsageError` for a file that is no such list.
    """
    rows, rejected, places, width = [], [], None, 3
    published = 0, 1, 2

    def is_row(cells: list[str]) -> bool:
        return any(_is_picture(cell) for cell in cells)

    def is_first(cells: list[str]) -> bool:
        return len(cells) >= width and (_is_picture(cells[0]) or None not in _places(cells))

    for record in read_records(root / source, is_first, is_row, replace=True):
        cells, fault = record.cells, record.fault
        if places is None and cells:
            places = published
            if not _is_picture(cells[0]):
                places, width = _columns(cells, root / source), len(cells)
                continue
        if cells and len(cells) < width:
            counts = f"{len(cells)} cells where {width} are due"
            fault = f"{counts}; {fault}" if fault else counts
            cells = []
        if cells:
            name, title, label = _three(cells, places, width)
            # Some lists hold whole paths, of whatever system.
            name = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
            rows.append(Row(part, name, title, canonical(label), source, record.line))
        if fault:
            sample, detail = f"{part}, line {record.line}", f"line {record.line}: {fault}"
            reason = "open_quote" if cells else "bad_line"
            refuse_line(rejected, Rejection(sample, source, reason, detail))
    return rows, rejected


def _is_picture(cell: str) -> bool:
    return cell.strip().lower().endswith((*SUFFIXES, TEXT))


def _places(header: list[str]) -> list[int | None]:
    """Where a header has the picture, the title and the class; None for one that it lacks."""
    names = [name.strip().casefold() for name in header]
    return [
        next((names.index(name) for name in spellings if name in names), None)
        for spellings in COLUMNS.values()
    ]


def _columns(header: list[str], path: Path) -> tuple[int, ...]:
    """`_places` of a header; raises `UsageError` where it lacks one."""
    places = _places(header)
    if None in places:
        column = list(COLUMNS)[places.index(None)]
        raise UsageError(
            f"{path} begins neither with a picture's name nor with a header that names the"
            f" {column} ({', '.join(COLUMNS[column])}), but with {','.join(header)[:200]!r}"
        )
    return tuple(places)


def _three(fields: list[str], places: tuple[int, ...], width: int) -> tuple[str, ...]:
    """(picture, title, class) of a record; more fields than columns belong to the title."""
    text, more = places[1], len(fields) - width
    title = ",".join(fields[text : text + more + 1])
    fields = [*fields[:text], title, *fields[text + more + 1 :]]
    return tuple(fields[place] for place in places)


# Rows and pictures --------------------------------------------------------------------------------


def _match(
    rows: list[Row], pictures: Pictures, lists: dict[str, str]
) -> tuple[list[Candidate], list[Rejection], list[tuple[str, str]]]:
    """The samples, the rows and pictures that make none, and (sample, class) of each row in order.

    A row whose picture is not in its class's folder has it in another one, if exactly one holds
    that name and no other row has taken it.
    """
    taken: dict[tuple[str, ...], Candidate | None] = {}
    rejected, astray = [], []
    rows = _with_pictures(rows, pictures)
    folders_of = {}  # row -> the folder of its picture, where that is another than the row says
    for row in rows:
        found = pictures.get((row.part, row.name), {})
        if row.label in found:
            _take(row, row.label, found[row.label], taken, rejected)
        else:
            astray.append(row)
    for row in astray:
        found = pictures.get((row.part, row.name), {})
        free = [folder for folder, paths in found.items() if paths not in taken]
        if len(free) == 1:
            folders_of[row] = free[0]
            _take(row, free[0], found[free[0]], taken, rejected)
        else:
            sample, line = f"{row.part}/{row.label}/{row.name}", f"line {row.line}"
            rejected.append(Rejection(sample, row.source, "missing_file", line))
    for (part, name), folders in pictures.items():
        for folder, paths in folders.items():
            if paths not in taken:
                sample, detail = f"{part}/{folder}/{name}", f"not in {lists[part]}"
                rejected.append(Rejection(sample, paths[0], "no_text", detail))
    samples = []
    for row in rows:
        folder = folders_of.get(row, row.label)
        samples.append((f"{row.part}/{folder}/{row.name}", row.label or folder))
    return [candidate for candidate in taken.values() if candidate], rejected, samples


def _with_pictures(rows: list[Row], pictures: Pictures) -> list[Row]:
    """The rows, those that name a .txt with the one picture of that stem in its place."""
    if not any(row.name.lower().endswith(TEXT) for row in rows):
        return rows
    stems = defaultdict(set)
    for part, name in pictures:
        stems[part, PurePosixPath(name).stem].add(name)
    named = []
    for row in rows:
        same = stems.get((row.part, PurePosixPath(row.name).stem), ())
        is_text = row.name.lower().endswith(TEXT)
        named.append(row._replace(name=min(same)) if is_text and len(same) == 1 else row)
    return named


def _take(
    row: Row,
    folder: str,
    paths: tuple[str, ...],
    taken: dict[tuple[str, ...], Candidate | None],
    rejected: list[Rejection],
) -> None:
    """Makes a row and its picture a sample, or finds why not. The list's class goes first."""
    sample, label = f"{row.part}/{folder}/{row.name}", row.label or folder
    if paths in taken:
        rejected.append(Rejection(sample, paths[0], "duplicate", f"{row.source}, line {row.line}"))
        return
    taken[paths] = None
    told = f"list: {row.label or 'none'}, folder: {folder}"
    if label not in IDS:
        rejected.append(Rejection(sample, paths[0], "no_label", told))
        return
    if label != folder:
        rejected.append(Rejection(sample, paths[0], "label_conflict", told))
    inline = {"text": row.title}
    taken[paths] = Candidate(sample, IDS[label], {"image": paths}, "", row.part, inline)


def _with_val(candidates: list[Candidate]) -> list[Candidate]:
    """The samples with a val part, which the raw data lack: a tenth of each class's train part.

    Those whose ids have the smallest SHA-256, at least one of two. Our choice: without it the
    official test part, on which the field compares, could not be used.
    """
    classes = defaultdict(list)
    for candidate in candidates:
        if candidate.part == "train":
            classes[candidate.label].append(candidate.id)
    val = set()
    for ids in classes.values():
        ids.sort(key=lambda sample: hashlib.sha256(sample.encode()).hexdigest())
        val.update(ids[: -(-len(ids) // VAL_SHARE)] if len(ids) > 1 else ())
    return [replace(c, part="val") if c.id in val else c for c in candidates]
