"""The title lists of UPMC Food-101, texts/<part>_titles.csv.

They exist in two forms: without a header (name, title, class), as published, and with a header that
was added later.
"""

import re
from typing import NamedTuple

from common.options import UsageError
from data_prep.datasets.lists import read_records
from data_prep.datasets.tree import RawTree

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
TEXT = ".txt"  # in some published lists, rows name a text file instead of the image
# Known names of the three columns in lists with a header.
COLUMNS = {
    "image": ("image_path", "image_name", "image", "img", "filename", "file"),
    "text": ("text", "title"),
    "label": ("label", "class", "class_name", "category"),
}


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
