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

from common.options import UsageError
from data_prep.datasets.lists import read_records, refuse_line
from data_prep.datasets.options import max_tokens_option, text_clean_option, vocabulary_option
from data_prep.datasets.release import ReleaseTree, find_release
from data_prep.datasets.release import Row as ReleaseRow
from data_prep.datasets.tree import RawTree, find_base, walk
from data_prep.spec import Candidate, Listed, Rejection, Scan, Spec

# In the order of sorted folder names, which is that of the ids in published lists.
LABELS = tuple(
    """
apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets bibimbap
bread_pudding breakfast_burrito bruschetta caesar_salad cannoli caprese_salad carrot_cake ceviche
cheese_plate cheesecake chicken_curry chicken_quesadilla chicken_wings chocolate_cake
chocolate_mousse churros clam_chowder club_sandwich crab_cakes creme_brulee croque_madame cup_cakes
deviled_eggs donuts dumplings edamame eggs_benedict escargots falafel filet_mignon fish_and_chips
foie_gras french_fries french_onion_soup french_toast fried_calamari fried_rice frozen_yogurt
garlic_bread gnocchi greek_salad grilled_cheese_sandwich grilled_salmon guacamole gyoza hamburger
hot_and_sour_soup hot_dog huevos_rancheros hummus ice_cream lasagna lobster_bisque
lobster_roll_sandwich macaroni_and_cheese macarons miso_soup mussels nachos omelette onion_rings
oysters pad_thai paella pancakes panna_cotta peking_duck pho pizza pork_chop poutine prime_rib
pulled_pork_sandwich ramen ravioli red_velvet_cake risotto samosa sashimi scallops seaweed_salad
shrimp_and_grits spaghetti_bolognese spaghetti_carbonara spring_rolls steak strawberry_shortcake
sushi tacos takoyaki tiramisu tuna_tartare waffles
    """.split()
)
IDS = {name: index for index, name in enumerate(LABELS)}
NUMBERS = {str(number) for number in range(len(LABELS))}
SPLIT_SECOND = 2 / 3
RELEASE_CUT = "train"  # the release gives scikit-learn the share of train
PARTS = ("train", "test")
LISTS = {part: f"texts/{part}_titles.csv" for part in PARTS}
VAL_SHARE = 10  # one of so many training samples of a class is the official rule's val part
SOURCE = (
    "UPMC Food-101 has titles beside its pictures (ETH's Food-101 has none), a copy is at"
    " kaggle.com/datasets/gianmarco96/upmcfood101; the root must hold images/{train,test}/<class>/"
    " and texts/{train,test}_titles.csv."
    " A tree made for the official MIDAS code does as well."
)
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
# Part, class and name of a picture below images. Names that are not UTF-8 cannot be written.
PICTURE = (
    r"/(train|test)/([^/\udc80-\udcff]+)/([^/\udc80-\udcff]+(?i:\.(?:jpe?g|png|gif|webp|bmp)))"
)
TEXT = ".txt"  # in some published lists rows name a text file instead of the picture
PUBLISHED = (0, 1, 2)  # the columns of picture, title and class in the lists as published
# The names of the three columns in lists with a header.
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
    """A row of a list: `label` in the spelling of `canonical`, `source` relative to the root."""

    part: str
    name: str
    title: str
    label: str
    source: str
    line: int


Pictures = dict[str, tuple[str, ...]]  # part/class folder/name -> the files of that picture


def canonical(name: str) -> str:
    """A class name in the spelling of `LABELS`: lower case, one "_" between words."""
    return "_".join(re.split(r"[\s_-]+", name.strip().casefold()))


def scan(root: Path, settings: Settings) -> Scan:
    """The rows of the lists with their pictures; raises `UsageError` for another tree."""
    if release := find_release(root, "food101", LABELS):
        return scan_release(release)
    what = "images/ with " + " and ".join(LISTS.values())
    tree = RawTree(root, find_base(root, what, _is_base, SOURCE))
    lists = {part: tree.path(name) for part, name in LISTS.items()}
    others = (path for path in walk(root) if path not in lists.values())
    pattern = re.compile(re.escape(tree.path("images")) + PICTURE)
    pictures = tree.index(others, lambda path: _picture(path, pattern))
    rows = [row for part, source in lists.items() for row in read_titles(tree, source, part)]
    rows = _with_pictures(rows, pictures)
    candidates, pool = _match(tree, rows, pictures)
    for picture, paths in pictures.items():
        if picture not in candidates:
            part = picture.split("/")[0]
            tree.reject(picture, paths[0], "no_text", f"not in {lists[part]}")
    candidates = _with_val([candidate for candidate in candidates.values() if candidate])
    tree.warn_of_count("food101", len(candidates))
    if marred := sum("\ufffd" in row.title for row in rows):
        tree.warnings.append(
            f"{marred} titles hold bytes that are not UTF-8: U+FFFD in their place"
        )
    return tree.scan(LABELS, candidates, pool)


def _is_base(folder: Path) -> bool:
    lists = [folder / name for name in LISTS.values()]
    return (folder / "images").is_dir() and all(path.is_file() for path in lists)


def _picture(path: PurePosixPath, pattern: re.Pattern) -> str | None:
    """part/class/name of a picture at its place; None for another file."""
    match = pattern.fullmatch(str(path))
    return f"{match[1]}/{canonical(match[2])}/{match[3]}" if match else None


# The lists ----------------------------------------------------------------------------------------


def read_titles(tree: RawTree, source: str, part: str) -> list[Row]:
    """The rows of a list in either form.

    Commas of a title that nobody quoted are understood; bytes that are not UTF-8 become U+FFFD.
    Raises `UsageError` for a file that is no such list.
    """
    rows: list[Row] = []
    rejected: list[Rejection] = []
    places, width = None, 3

    def is_row(cells: list[str]) -> bool:
        return any(_is_picture(cell) for cell in cells)

    def is_first(cells: list[str]) -> bool:
        return len(cells) >= width and (_is_picture(cells[0]) or None not in _places(cells))

    for record in read_records(tree.root / source, is_first, is_row, replace=True):
        cells, fault = record.cells, record.fault
        if places is None and cells:
            if not _is_picture(cells[0]):
                places, width = _columns(cells, tree.root / source), len(cells)
                continue
            places = PUBLISHED
        if cells and len(cells) < width:
            counts = f"{len(cells)} cells where {width} are due"
            cells, fault = [], f"{counts}; {fault}" if fault else counts
        if cells:
            name, title, label = _three(cells, places, width)
            # Some lists hold whole paths, of whatever system.
            name = name.replace("\\", "/").rsplit("/", 1)[-1].strip()
            rows.append(Row(part, name, title, canonical(label), source, record.line))
        if fault:
            place, reason = f"line {record.line}", "open_quote" if cells else "bad_line"
            line = Rejection(f"{part}, {place}", source, reason, f"{place}: {fault}")
            refuse_line(rejected, line)
    tree.rejected += rejected
    return rows


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
    """`_places` of a header; raises `UsageError` if it lacks one."""
    places = _places(header)
    if None in places:
        column = list(COLUMNS)[places.index(None)]
        raise UsageError(
            f"{path} begins neither with a picture's name nor with a header that names the"
            f" {column} ({', '.join(COLUMNS[column])}), but with {','.join(header)[:200]!r}"
        )
    return tuple(places)


def _three(cells: list[str], places: tuple[int, ...], width: int) -> tuple[str, ...]:
    """(picture, title, class) of a row; more cells than columns belong to the title."""
    text, end = places[1], places[1] + len(cells) - width + 1
    cells = [*cells[:text], ",".join(cells[text:end]), *cells[end:]]
    return tuple(cells[place] for place in places)


# Rows and pictures --------------------------------------------------------------------------------


def _with_pictures(rows: list[Row], pictures: Pictures) -> list[Row]:
    """The rows; one that names a .txt gets the only picture of that stem instead."""
    stems = defaultdict(set)
    for picture in pictures:
        part, _, name = picture.split("/")
        stems[part, PurePosixPath(name).stem].add(name)
    named = []
    for row in rows:
        same = stems.get((row.part, PurePosixPath(row.name).stem), ())
        is_text = row.name.lower().endswith(TEXT)
        named.append(row._replace(name=min(same)) if is_text and len(same) == 1 else row)
    return named


def _match(
    tree: RawTree, rows: list[Row], pictures: Pictures
) -> tuple[dict[str, Candidate | None], list[Listed]]:
    """The pictures that rows took, with their samples (None: it cannot be one), and the pool.

    A row whose picture is not in the folder of its class has it in another one, if exactly one
    holds that name and no other row has taken it.
    """
    taken: dict[str, Candidate | None] = {}
    folders_of: dict[Row, str] = {}  # the folder of a row's picture, if not the one it names
    folders_with = defaultdict(list)
    for picture in pictures:
        part, folder, name = picture.split("/")
        folders_with[part, name].append(folder)
    astray = []
    for row in rows:
        if f"{row.part}/{row.label}/{row.name}" in pictures:
            _take(tree, row, row.label, pictures, taken)
        else:
            astray.append(row)
    for row in astray:
        folders = folders_with.get((row.part, row.name), [])
        free = [folder for folder in folders if f"{row.part}/{folder}/{row.name}" not in taken]
        if len(free) == 1:
            folders_of[row] = free[0]
            _take(tree, row, free[0], pictures, taken)
        else:
            sample = f"{row.part}/{row.label}/{row.name}"
            tree.reject(sample, row.source, "missing_file", f"line {row.line}")
    pool = []
    for row in rows:
        folder = folders_of.get(row, row.label)
        if (label := IDS.get(row.label or folder)) is not None:
            pool.append(Listed(f"{row.part}/{folder}/{row.name}", label))
    return taken, pool


def _take(
    tree: RawTree,
    row: Row,
    folder: str,
    pictures: Pictures,
    taken: dict[str, Candidate | None],
) -> None:
    """Makes a row and its picture a sample, or finds why not. The list's class counts."""
    sample, label = f"{row.part}/{folder}/{row.name}", row.label or folder
    paths, classes = pictures[sample], f"list: {row.label or 'none'}, folder: {folder}"
    if sample in taken:
        tree.reject(sample, paths[0], "duplicate", f"{row.source}, line {row.line}")
        return
    taken[sample] = None
    if label not in IDS:
        tree.reject(sample, paths[0], "no_label", classes)
        return
    if label != folder:
        tree.reject(sample, paths[0], "label_conflict", classes)
    inline = {"text": row.title}
    taken[sample] = Candidate(sample, IDS[label], {"image": paths}, "", row.part, inline)


def _with_val(candidates: list[Candidate]) -> list[Candidate]:
    """The samples with a val part, which the raw data lack: a tenth of each class's train part.

    It has those whose ids have the smallest SHA-256, at least one of two. Our choice: without it
    the official test part, on which results are compared, could not be used.
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


def scan_release(tree: ReleaseTree) -> Scan:
    """images/<part>/<img> with the text of each line of <part>.jsonl.

    A label is a class's number in our order, which is that of the sorted names, or its name.
    """
    for part in PARTS:
        used = set()
        for row in tree.objects(f"{part}.jsonl"):
            used.add(row.fields[0])
            _add_release(tree, row, part)
        for path in tree.walk(f"images/{part}"):
            name = PurePosixPath(path).relative_to(tree.path("images", part))
            if str(name) not in used:
                reason = "no_text" if name.suffix.lower() in SUFFIXES else "unknown_name"
                tree.reject(name.stem, path, reason, f"not in {part}.jsonl")
    tree.reject_others("images", PARTS)
    found = tree.result()
    return replace(found, candidates=_with_val(found.candidates))


def _add_release(tree: ReleaseTree, row: ReleaseRow, part: str) -> None:
    name, text = row.fields
    number = int(row.key) if row.key in NUMBERS else IDS.get(canonical(row.key))
    path, folder = tree.path("images", part, name), canonical(PurePosixPath(name).parent.name)
    is_other = number is not None and folder in IDS and IDS[folder] != number
    inline, sources = {"text": text}, {"image": (path,)}
    tree.add(
        row,
        Candidate(f"{part}/{name}", -1 if number is None else number, sources, "", part, inline),
        name=name,
        unknown_class=row.key if number is None else "",
        files=[path],
        conflict=f"list: {LABELS[number]}, folder: {folder}" if is_other else "",
    )
