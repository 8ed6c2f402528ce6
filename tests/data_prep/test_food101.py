"""Food-101: the lists in every form, and rows and pictures that do not match."""

import hashlib
import json
import tracemalloc

import pytest
from raw import kept, plant, reasons, rejects, scan

from common.options import UsageError
from data_prep.datasets import food101
from data_prep.datasets.tree import RawTree
from data_prep.prepare import prepare
from fixtures.trees import write_tree

TRAIN, TEST = "texts/train_titles.csv", "texts/test_titles.csv"
PIE, SUSHI = "train/apple_pie/apple_pie_0.jpg", "train/sushi/sushi_0.jpg"
EXPECTED_TITLES = {PIE: 'Pie, the "best"', SUSHI: "Sushi 寿司"}
PLAIN = 'apple_pie_0.jpg,"Pie, the ""best""",apple_pie\nsushi_0.jpg,Sushi 寿司,sushi\n'


def found_in(root, train="", *pictures, test=""):
    """The scan of empty pictures (part/class/name) and the two lists."""
    plant(root, *(f"images/{picture}" for picture in pictures), lists={TRAIN: train, TEST: test})
    (root / "images").mkdir(exist_ok=True)
    return scan("food101", root)


def titles(found):
    return {candidate.id: candidate.inline["text"] for candidate in found.candidates}


# The lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mark", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("", "\r")])
@pytest.mark.parametrize("header", [
    "", "Image_path,text,label\n", "image_name,title,class\n", "\nIMG, Title ,class_name\n",
])  # fmt: skip
def test_lists_with_and_without_a_header(tmp_path, mark, end, header):
    found = found_in(tmp_path, mark + (header + PLAIN).replace("\n", end), PIE, SUSHI)
    assert titles(found) == EXPECTED_TITLES and found.rejected == []
    pie = found.candidates[0]
    assert (pie.label, pie.group, pie.sources) == (0, "", {"image": (f"images/{PIE}",)})


ODD = " Caf\u00e9&nbsp;&amp; \t #1 cafe\u0301 \u200b\u0007 "
LONG = " ".join(["word"] * 300)
# the train list -> the titles of PIE and SUSHI; nothing is rejected
DIALECTS = {
    "other columns in another order": (
        ",label,Image_path,text\n0,sushi,train/sushi/sushi_0.jpg,Sushi 寿司\n"
        '1,apple_pie,"C:\\data\\apple_pie_0.jpg","Pie, the ""best"""\n',
        *EXPECTED_TITLES.values(),
    ),
    "commas that nobody quoted": (
        "apple_pie_0.jpg,One, two, three,apple_pie\nsushi_0.jpg,a,sushi\n", "One, two, three", "a"
    ),
    "quoted line ends": (
        'apple_pie_0.jpg,"One\ntwo\r\nthree",apple_pie\nsushi_0.jpg,a,sushi', "One\ntwo\r\nthree",
        "a",
    ),
    "empty and long titles": (
        f"apple_pie_0.jpg,,apple_pie\nsushi_0.jpg,{LONG},sushi\n", "", LONG,
    ),
    "titles stay as they are": (
        f'apple_pie_0.jpg,"{ODD}",apple_pie\nsushi_0.jpg,27" wide "pho" bowl,sushi', ODD,
        '27" wide "pho" bowl',
    ),
    "semicolons": ("apple_pie_0.jpg;Pie;apple_pie\nsushi_0.jpg;a, b;sushi\n", "Pie", "a, b"),
    "tabs": ("apple_pie_0.jpg\tPie\tapple_pie\nsushi_0.jpg\ta, b\tsushi\n", "Pie", "a, b"),
    "rows that name a text file": (
        PLAIN.replace("apple_pie_0.jpg", "apple_pie_0.txt"), *EXPECTED_TITLES.values()
    ),
    "a class without case, blanks and dashes": (
        'apple_pie_0.jpg,Pie," Apple - pie "\nsushi_0.jpg,a,SUSHI', "Pie", "a"
    ),
    "a row without a class: the folder's": ("apple_pie_0.jpg,Pie,\nsushi_0.jpg,,\n", "Pie", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS)
def test_dialects_of_the_lists(tmp_path, case):
    content, *due = DIALECTS[case]
    found = found_in(tmp_path, content, PIE, SUSHI)
    assert titles(found) == dict(zip((PIE, SUSHI), due)) and found.rejected == []
    assert [c.label for c in found.candidates] == [0, 95]


def test_bytes_that_are_not_utf8_lose_only_themselves_and_are_noted(tmp_path):
    found = found_in(tmp_path, b"apple_pie_0.jpg,Cr\xe8me p\xeetissi\xe8re,apple_pie\n", PIE)
    assert titles(found) == {PIE: "Cr\ufffdme p\ufffdtissi\ufffdre"}
    assert any(warning.startswith("1 titles contain bytes") for warning in found.warnings)


@pytest.mark.parametrize("shape", ["{}", '"{}"', '"{}', '{}"', "{},"])
@pytest.mark.parametrize("filler", ["x", '"",'])
def test_a_field_of_ten_million_characters_loses_only_its_row_and_no_memory(
    tmp_path, shape, filler
):
    endless = shape.format(filler * (10_000_000 // len(filler)))
    first, second = PLAIN.splitlines()
    plant(tmp_path, lists={TRAIN: f"{first}\nbaklava_0.jpg,{endless},baklava\n{second}\n"})
    tree = RawTree(tmp_path)
    tracemalloc.start()
    rows = food101.read_titles(tree, TRAIN, "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.title for row in rows] == list(EXPECTED_TITLES.values()) and peak < 2_000_000
    (line,) = tree.rejected
    assert (line.id, line.source, line.reason) == ("train, line 2", TRAIN, "bad_line")
    assert len(line.detail) < 200


@pytest.mark.parametrize("closed_later", [True, False])
def test_an_open_quote_ends_with_its_line_and_is_noted(tmp_path, closed_later):
    rows = [f"pizza_{k}.jpg,Pizza number {k},pizza" for k in range(40)]
    rows[10] = 'pizza_10.jpg,"Pizza, number 10,pizza'
    if closed_later:
        rows[20] = 'pizza_20.jpg,"Pizza number 20",pizza'
    pictures = [f"train/pizza/pizza_{k}.jpg" for k in range(40)]
    found = found_in(tmp_path, "\n".join(rows), *pictures)
    expected = {picture: f"Pizza number {k}" for k, picture in enumerate(pictures)}
    assert titles(found) == expected | {pictures[10]: "Pizza, number 10"}
    assert [(r.id, r.reason) for r in found.rejected] == [("train, line 11", "open_quote")]


@pytest.mark.parametrize("content,seen", [
    ("<!DOCTYPE html>\n<html>", "DOCTYPE"), ("version https://git-lfs.github.com/spec/v1\n", "lfs"),
    ("apple_pie_0.jpg|Pie|apple_pie\n", "Pie"), ("name,words,kind\n", "has the image"),
    ("img,title\n", "label"), ("x" * 500_000 + ",y\n" + "name,text\n", "name,text"),
])  # fmt: skip
def test_what_is_no_list_is_refused_in_one_line(tmp_path, content, seen):
    with pytest.raises(UsageError, match=seen) as error:
        found_in(tmp_path, content, PIE)
    assert "train_titles.csv" in str(error.value) and "\n" not in str(error.value)


# Rows and pictures --------------------------------------------------------------------------------

OTHER_CASE = "train/Apple-Pie/apple_pie_0.jpg"
# the train list, pictures -> titles, rejects (sample, source, reason)
MATCHES = {
    "a row of the other part": (
        PLAIN, [PIE.replace("train", "test"), SUSHI], {SUSHI: "Sushi 寿司"},
        [(PIE, TRAIN, "missing_file"),
         (PIE.replace("train", "test"), "images/test/apple_pie/apple_pie_0.jpg", "no_text")],
    ),
    "a name in two classes": (
        "1.jpg,A,apple_pie\n1.jpg,B,sushi\n1.jpg,C,tacos\n",
        ["train/sushi/1.jpg", "train/apple_pie/1.jpg"],
        {"train/apple_pie/1.jpg": "A", "train/sushi/1.jpg": "B"},
        [("train/tacos/1.jpg", TRAIN, "missing_file")],
    ),
    "a row that fits two folders takes neither": (
        "1.jpg,C,tacos\n", ["train/sushi/1.jpg", "train/pho/1.jpg"], {},
        [("train/tacos/1.jpg", TRAIN, "missing_file"),
         ("train/sushi/1.jpg", "images/train/sushi/1.jpg", "no_text"),
         ("train/pho/1.jpg", "images/train/pho/1.jpg", "no_text")],
    ),
    "two folders of one class and one name": (
        PLAIN, [OTHER_CASE, PIE, SUSHI], EXPECTED_TITLES, [(PIE, f"images/{PIE}", "second_file")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MATCHES)
def test_rows_and_pictures(tmp_path, case):
    content, pictures, samples, due = MATCHES[case]
    found = found_in(tmp_path, content, *pictures)
    assert titles(found) == samples and rejects(found) == sorted(due)


def test_files_at_other_places_are_unknown_and_leftovers_ignored(tmp_path):
    others = [
        "images/train/apple_pie/notes.txt", "images/train/loose.jpg", "images/apple_pie/a.jpg",
        "images/val/apple_pie/a.jpg", "images/train/apple_pie/more/a.jpg", "texts/notes.csv",
        "a.jpg", "class_idx.json", "images/train/sushi/caf\udce9.jpg",
    ]  # fmt: skip
    plant(tmp_path, *others, "__MACOSX/images/train/sushi/._sushi_0.jpg")
    found = found_in(tmp_path, PLAIN, PIE, SUSHI, "train/apple_pie/.DS_Store", "train/Thumbs.db")
    assert titles(found) == EXPECTED_TITLES
    assert reasons(found) == dict.fromkeys(others, "unknown_name")


def test_the_set_may_be_in_a_folder_of_the_root(tmp_path):
    found_in(tmp_path / "upmc", PLAIN + "a.jpg,T,tacos\n", PIE, SUSHI)
    found = scan("food101", plant(tmp_path, "upmc.zip"))
    assert found.candidates[0].sources["image"] == (f"upmc/images/{PIE}",)
    assert reasons(found) == {"upmc.zip": "unknown_name", f"upmc/{TRAIN}": "missing_file"}


# The parts, and what is stored --------------------------------------------------------------------


def test_the_official_val_part_is_a_tenth_of_each_class_of_train(tmp_path):
    counts = {"pho": 40, "sushi": 1, "pizza": 2}
    pictures = [f"train/{c}/{k}.jpg" for c, n in counts.items() for k in range(n)]
    rows = [f"{name},T,{label}\n" for _, label, name in (p.split("/") for p in pictures)]
    found = found_in(tmp_path, "".join(rows), *pictures, "test/pho/0.jpg", test="0.jpg,T,pho\n")
    parts = {}
    for candidate in found.candidates:
        parts.setdefault((candidate.id.split("/")[1], candidate.part), []).append(candidate.id)
    assert {key: len(ids) for key, ids in parts.items()} == {
        ("pho", "train"): 36, ("pho", "val"): 4, ("pho", "test"): 1, ("sushi", "train"): 1,
        ("pizza", "train"): 1, ("pizza", "val"): 1,
    }  # fmt: skip
    ranked = sorted(pictures[:40], key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert sorted(parts["pho", "val"]) == sorted(ranked[:4])


def test_both_forms_of_the_lists_give_equal_shards(tmp_path):
    folders = []
    for layout in ("plain", "header"):
        place = tmp_path / layout
        write_tree("food101", place / "raw", 8, truth_path=tmp_path / f"{layout}.csv",
                   layout=layout, classes=2, workers=1)  # fmt: skip
        settings = food101.Settings(vocabulary="build", max_tokens=8)
        folders.append(prepare("food101", place / "raw", place / "data", settings, workers=1,
                               allow_missing_classes=True))  # fmt: skip
    for name in ("manifest.csv", "samples-00000.arrow", "pool.csv"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name


# Other layouts ------------------------------------------------------------------------------------


def test_texts_in_files_belong_to_the_images_of_their_class_and_stem(tmp_path):
    plant(tmp_path, *(f"images/{picture}" for picture in (
        "train/apple_pie/apple_pie_0.jpg", "train/apple_pie/apple_pie_0.png",
        "test/Apple-Pie/apple_pie_0.jpg", "train/sushi/sushi_0.jpg", "train/soup/soup_0.jpg",
    )), *(f"texts_txt/{text}.txt" for text in (
        "apple_pie/apple_pie_0", "sushi/sushi_1", "apple_pie/sushi_0", "soup/soup_0", "more/a/b",
    )), "texts_txt/sushi/sushi_0.html")  # fmt: skip
    found = scan("food101", tmp_path)
    assert {c.id: (c.label, c.sources["text"]) for c in found.candidates} == {
        f"{part}/apple_pie/apple_pie_0.{suffix}": (0, ("texts_txt/apple_pie/apple_pie_0.txt",))
        for part, suffix in (("train", "jpg"), ("train", "png"), ("test", "jpg"))
    }
    assert reasons(found) == {
        "images/train/sushi/sushi_0.jpg": "no_text", "images/train/soup/soup_0.jpg": "no_label",
        "texts_txt/apple_pie/sushi_0.txt": "missing_file", "texts_txt/more/a/b.txt": "unknown_name",
        "texts_txt/sushi/sushi_1.txt": "missing_file",
        "texts_txt/sushi/sushi_0.html": "unknown_name",
    }  # fmt: skip


def mmbt_lists(*pictures):
    """Lists of these pictures: every part has one, the class is that of the folder."""
    lines = ({"id": p, "img": f"images/{p}", "text": f"Of {p}", "label": p.split("/")[1]}
             for p in pictures)  # fmt: skip
    return dict(zip(("train.jsonl", "dev.jsonl", "test.jsonl"), map(json.dumps, lines)))


def test_mmbts_lists_are_read_before_all_others_and_have_the_parts(tmp_path):
    pictures = [PIE, SUSHI, "test/pho/pho_7.jpg"]
    found_in(tmp_path, PLAIN, *pictures, "train/pho/pho_8.jpg", "train/pho/notes.txt")
    plant(tmp_path, "texts_txt/pho/pho_7.txt", "test_hard_gt.jsonl", "stat_food.txt")
    found = scan("food101", plant(tmp_path, lists=mmbt_lists(*pictures)))
    assert kept(found) == {
        PIE: ("apple_pie", "train"), SUSHI: ("sushi", "val"), pictures[2]: ("pho", "test"),
    }  # fmt: skip
    assert titles(found) == {picture: f"Of {picture}" for picture in pictures}
    assert reasons(found) == {
        "images/train/pho/pho_8.jpg": "no_text", "images/train/pho/notes.txt": "unknown_name",
        "stat_food.txt": "unknown_name",
    }  # fmt: skip
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UsageError, match="in MMBT's layout, but lacks test.jsonl"):
        scan("food101", tmp_path)


def test_title_lists_win_over_text_files_and_that_is_said(tmp_path):
    plant(tmp_path, "texts_txt/pho/pho_0.txt")
    found = found_in(tmp_path, PLAIN, PIE, SUSHI)
    assert titles(found) == EXPECTED_TITLES and not found.rejected
    assert any(warning.startswith("texts_txt is not read") for warning in found.warnings)
