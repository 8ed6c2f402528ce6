"""The raw tree of UPMC Food-101 in miniature: pages of dishes, a picture and a title each.

Names, folders and lists are those of the real set, the hostile ones included. In each modality the
class cue (a dish of set shape and colour on a plate; the class's words in the title) is left out
with a set probability and never replaced by another class's. Beside the root stands the truth, one
line a sample: id, label, whether each cue was drawn (before any damage), the damage and what must
become of it. The signal model and its numbers are our choice.
"""

import csv
import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import write_table
from common.options import UsageError, unknown
from data_prep.generate import corrupt, pictures
from data_prep.generate.media import run_jobs, whole_folder

# The test of pictures takes it from here.
from data_prep.generate.pictures import zero_png as zero_png
from data_prep.generate.scenes import GLYPHS, glyph
from data_prep.generate.trees import TRUTH, first_classes

FORMS = ("plain", "header")
PART_CYCLE = ("train", "train", "train", "test")
FIRST_DAMAGED = 900  # number in the names of damaged samples; sound ones stay below
# What must become of each damage, in the words of `data_prep.generate.corrupt`.
EXPECTED = {
    "zero_byte": "unreadable",
    "html": "unreadable",
    "lfs_pointer": "lfs_pointer",
    "cut_jpg": "bad_image",
    "bomb_png": "bad_image",  # 144 million pixels in 18 kB
    **dict.fromkeys(pictures.FORMS, ""),
    "row_without_file": "missing_file",
    "file_without_row": "no_text",
    "endless_title": "no_text",  # 200,000 characters
    "long_title": "",
    "empty_title": "flag:empty_text",
    "latin1_title": "",
    "duplicate_row": "duplicate",
    "label_conflict": "label_conflict",
    "unknown_class": "no_label",
    "unknown_name": "unknown_name",
    "hostile_name": "",
    "pipe": "unreadable",
    "folder": "missing_file",
    "broken_link": "missing_file",
    "not_utf8": "unknown_name",
}
WITHOUT_ROW = ("file_without_row", "unknown_name", "not_utf8")
HIDDEN = (
    "images/.DS_Store", "images/train/apple_pie/._apple_pie_0.jpg", "images/test/pizza/Thumbs.db",
    "__MACOSX/images/._train",
)  # fmt: skip
LONG, ENDLESS = 300, 200_000  # words, characters
HUES, TINTS, PLATE_TINT = 6, 3, 0.15  # of dishes and of plates; the latter's strength, of 0..1

# Of recipe sites, and none that is part of a class's name.
WORDS = """
a about absolutely after again album all almost amazing another anniversary any april around aroma
article at august aunt autumn away baker baking basic basket beautiful became best big birthday bite
blend blogger board book bottle boy bright bring brown budget busy butter by calories camera can
candle card careful carefully celebrate children christmas city classic clever coconut cold
collection comfort comment company contest cookbook cooking corner cosy country crisp crowd cuisine
dairy daughter dear delight dessert diary diet directions dish diy drink early easter easy eat
edition elegant enjoy entertaining every everyday fabulous family fancy fast favorite feast fifteen
first five flavor foodie for forever forks fresh friday friends from fun gallery garden gathering
glass gluten gold golden gourmet grandma great green guide half handmade happy healthy hearty heat
help here holiday home homemade host hour house how idea ideas images in inspired instant is it
january joy juicy june just kids kind knife know last late learn left less life like little local
long low lunch made magazine make making market maybe meat menu minutes moist more morning mother my
near new news next night no not notes now nutrition nuts october oil old on one only organic
original our page pan paper party pepper perfect photo photos picture pinch pinterest place plan
platter pleasure popular potluck press pretty quick quiet rainy ready recipe recipes restaurant
review roast rustic salt saturday savory season secret serve seven sharing simple simply slow small
smoky snack soft some special spice spoon star step stock street style sugar summer supper sweet
table tasty test thanksgiving the these three time tips to tomato top tradition traditional treat
try tuesday twenty ultimate uncle updated usual vegetarian version very video warm wednesday week
weekend what when white whole winter with wonderful world yellow your yum
""".split()
# How a title ends, in turn: as plain words, and with what trips naive readers of lists.
ENDINGS = (
    "", " | Tasty, Quick & Easy", ' - the "best" ever', " &amp; more &#8211; Photos", "",
    " http://www.example.com/p?id=7,8#top", " crème fraîche – 日本 🍰", " ...", "\tby me", " (#1)",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Size and difficulty of the pages."""

    width: int = 96
    height: int = 72
    text_erased: float = 0.3  # probability that the title does not name the dish
    image_erased: float = 0.3  # probability that the plate is empty
    contrast: float = 0.6  # of the dish over the plate, 0..1


@dataclass(frozen=True)
class Page:
    """One sample to render: `stream` numbers its random stream, `kind` is its damage."""

    part: str
    label: int
    number: int
    stream: int
    kind: str = ""


@dataclass(frozen=True)
class Written:
    """What a page became: its rows (part, name, title, class) and its line of the truth."""

    rows: list[tuple[str, str, str, str]]
    truth: tuple


def write_food101(
    root: Path,
    per_class: int,
    *,
    truth_path: Path,
    form: str = "plain",
    classes: int | None = None,
    seed: int = 0,
    look: Look = Look(),
    corrupt_each: int = 0,
    workers: int | None = None,
) -> None:
    """`per_class` sound pages of each of the first `classes` of 101 classes (None: of all), and
    `corrupt_each` of each damage.

    `form` of the lists: "plain", as published (no header), or "header" (byte order mark, CRLF, all
    quoted). Raises `UsageError` when `root` is in use.
    """
    from data_prep.layouts.food101 import LABELS, PARTS

    if form not in FORMS:
        raise unknown("form", form, FORMS)
    labels = first_classes(LABELS, classes)
    pages = _pages(len(labels), per_class, corrupt_each)
    with whole_folder(root, truth_path) as folder:
        for part in PARTS:
            for label in labels:
                (folder / "images" / part / label).mkdir(parents=True)
        corrupt.write_hidden(folder, HIDDEN)
        work = functools.partial(_write_page, folder, labels, look, seed)
        written = run_jobs(work, pages, workers, "write Food-101 fixture")
        for part in PARTS:
            rows = [row[1:] for page in written for row in page.rows if row[0] == part]
            _write_list(folder / "texts" / f"{part}_titles.csv", rows, form)
        write_table(truth_path, TRUTH, sorted(page.truth for page in written))


def _pages(classes: int, per_class: int, each: int) -> list[Page]:
    limit = FIRST_DAMAGED * len(PART_CYCLE) // 3  # three of a cycle's four are training samples
    if per_class > limit:
        raise UsageError(f"--per_class {per_class} is refused: there are names for {limit} at most")
    pages, used = [], {}
    for k in range(per_class * classes):
        turn, label = divmod(k, classes)
        part = PART_CYCLE[(turn + label) % len(PART_CYCLE)]
        number = used[part, label] = used.get((part, label), -1) + 1
        pages.append(Page(part, label, number, k))
    kinds = [kind for kind in EXPECTED for _ in range(each)]
    sound = len(pages)
    for k, kind in enumerate(kinds, sound):
        part = PART_CYCLE[k % len(PART_CYCLE)]
        pages.append(Page(part, k % classes, FIRST_DAMAGED + k - sound, k, kind))
    return pages


def _write_page(
    folder: Path, labels: tuple[str, ...], look: Look, seed: int, page: Page
) -> Written:
    """Writes a page's picture; returns its rows and its truth. Runs in a worker process."""
    rng, kind = np.random.default_rng([seed, page.stream]), page.kind
    text_cue, image_cue = rng.random(2) >= (look.text_erased, look.image_erased)
    label = labels[page.label]
    name = f"{label}_{page.number}.jpg"
    if kind == "hostile_name":
        name = f'-{label}, "ü; 1" .{page.number}.JPEG'
    elif kind == "unknown_name":
        name = f"{label}_{page.number}.txt"
    count = LONG if kind == "long_title" else 0
    title = render_title(label if text_cue else None, page.stream, rng, count)
    place = label
    if kind == "label_conflict":
        place = labels[(page.label + 1) % len(labels)]
    elif kind == "unknown_class":
        place = label = "leftovers"
    path = folder / "images" / page.part / place / name
    if kind != "row_without_file":
        path.parent.mkdir(exist_ok=True)
        pictures.write_picture(
            path, render_picture(page.label if image_cue else None, look, rng), kind
        )
    titles = {"endless_title": "x" * ENDLESS, "empty_title": "", "latin1_title": f"\udce9 {title}"}
    row = (page.part, name, titles.get(kind, title), label)
    copies = {"duplicate_row": 2, **dict.fromkeys(WITHOUT_ROW, 0)}.get(kind, 1)
    sample = f"{page.part}/{place}/{name}"
    if kind in ("unknown_name", "not_utf8"):
        sample = corrupt.told_stem(kind, path.stem)
    cues = int(text_cue), int(image_cue)
    expected = EXPECTED[kind] if kind else ""
    return Written([row] * copies, (sample, label, *cues, kind, expected))


# Titles -------------------------------------------------------------------------------------------


def render_title(label: str | None, turn: int, rng: np.random.Generator, count: int = 0) -> str:
    """A title of `count` words (0: about eight, now and then 80), one of them the dish's name.

    Where there is a dish it stands among the first six words: a cut title still names it.
    """
    count = count or (80 if turn % 17 == 5 else int(rng.integers(5, 11)))
    words = [str(word) for word in rng.choice(WORDS, count)]
    place = int(rng.integers(0, 6))
    if label is not None:
        words[place:place] = label.split("_")
    return " ".join(words).capitalize() + ENDINGS[turn % len(ENDINGS)]


def _write_list(path: Path, rows: list[tuple[str, str, str]], form: str) -> None:
    """A list in one of the two forms; an escaped byte of a title is written as that byte."""
    text = io.StringIO()
    if form == "header":
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        text.write("\ufeff")
        writer.writerow(("Image_path", "text", "label"))
    else:
        writer = csv.writer(text, lineterminator="\n")
    writer.writerows(rows)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


# Pictures -----------------------------------------------------------------------------------------


def render_picture(label: int | None, look: Look, rng: np.random.Generator) -> np.ndarray:
    """A dish on a plate on a checkered cloth, or an empty plate (None); uint8 [H, W, 3] RGB.

    A class has one of six shapes, of six hues and of three tints of the plate, 108 in all: cues
    that a flip or a rotation by 30 degrees does not turn into another class's.
    """
    height, width = look.height, look.width
    blocks = rng.uniform(0.1, 0.7, (6, 6, 3))
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    image = blocks[rows][:, columns]  # [H, W, 3]
    side = int(rng.uniform(0.75, 0.95) * min(height, width))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    v, u = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    shape, hue, tint = np.unravel_index(label or 0, (len(GLYPHS), HUES, TINTS), order="F")
    brightness, shift = rng.uniform(0.75, 0.95), rng.uniform(-0.03, 0.03)
    plate = np.full(3, brightness)
    inner = round(0.7 * side)
    edge = (side - inner) // 2
    patch = image[top : top + side, left : left + side]
    if label is not None:
        plate -= PLATE_TINT * (np.arange(TINTS) != tint)  # reddish, greenish or bluish
    patch[np.hypot(u, v) <= 1] = plate
    if label is not None:
        colour = 0.5 + 0.5 * np.cos(2 * np.pi * (hue / HUES + shift + np.arange(3) / 3))
        dish = patch[edge : edge + inner, edge : edge + inner]
        dish += look.contrast * glyph(int(shape), inner)[:, :, None] * (colour - dish)
    image += 0.03 * rng.standard_normal((height, width, 1))
    return (np.clip(image, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
