"""Food-101: the lists in every form, rows and pictures that do not meet, and the fixture."""

import csv
import hashlib
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accounts import hidden, raw_files, told_in
from conftest import program
from test_layouts import plant, reasons

from common.files import file_digest, read_table
from common.options import UsageError
from data_prep.datasets import food101
from data_prep.loader import Loader
from data_prep.modalities.text import extract
from data_prep.modalities.transforms import tokens
from data_prep.prepare import prepare
from data_prep.reasons import KEPT_REASONS
from data_prep.spec import PlainView, Text, VideoView
from data_prep.store import Prepared
from experiments.run.folder import RunFolder
from fixtures.food_tree import ENDINGS, EXPECTED, WORDS, Look, write_food101

SETTINGS = food101.Settings(vocabulary="build", max_tokens=40)
TRAIN, TEST = "texts/train_titles.csv", "texts/test_titles.csv"


def scan(root: Path):
    return food101.scan(root, SETTINGS)


def tree(root: Path, train: bytes | str = "", *pictures: str, test: bytes | str = "") -> Path:
    """A tree of empty pictures (part/class/name) and the two lists."""
    plant(root, *(f"images/{picture}" for picture in pictures), TRAIN, TEST)
    (root / "images").mkdir(exist_ok=True)
    for name, content in ((TRAIN, train), (TEST, test)):
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def titles(found) -> dict[str, str]:
    return {candidate.id: candidate.inline["text"] for candidate in found.candidates}


PIE, SUSHI = "train/apple_pie/apple_pie_0.jpg", "train/sushi/sushi_0.jpg"
EXPECTED_TITLES = {PIE: 'Pie, the "best"', SUSHI: "Sushi 寿司"}
PLAIN = 'apple_pie_0.jpg,"Pie, the ""best""",apple_pie\nsushi_0.jpg,Sushi 寿司,sushi\n'


# --- the lists ------------------------------------------------------------------------------------


def test_classes_are_the_sorted_folder_names():
    assert len(food101.LABELS) == 101 and list(food101.LABELS) == sorted(food101.LABELS)
    assert (food101.LABELS[0], food101.LABELS[100]) == ("apple_pie", "waffles")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", [
    "", "Image_path,text,label\n", "image_name,title,class\n", "\nIMG, Title ,class_name\n",
])  # fmt: skip
def test_lists_with_and_without_a_header(tmp_path, mark, end, header):
    content = mark + (header + PLAIN).replace("\n", end).encode()
    found = scan(tree(tmp_path, content, PIE, SUSHI))
    assert titles(found) == EXPECTED_TITLES and found.rejected == []
    pie = found.candidates[0]
    assert (pie.label, pie.group, pie.sources) == (0, "", {"image": (f"images/{PIE}",)})


def test_columns_in_another_order_and_more_of_them(tmp_path):
    content = ",label,Image_path,text\n0,sushi,train/sushi/sushi_0.jpg,Sushi 寿司\n"
    content += '1,apple_pie,"C:\\data\\apple_pie_0.jpg","Pie, the ""best"""\n'
    assert titles(scan(tree(tmp_path, content, PIE, SUSHI))) == EXPECTED_TITLES


@pytest.mark.parametrize("header", ["", "label,Image_path,text,more\n"])
def test_commas_that_nobody_quoted_belong_to_the_title(tmp_path, header):
    row = (
        "apple_pie,apple_pie_0.jpg,One, two, three,0"
        if header
        else "apple_pie_0.jpg,One, two, three,apple_pie"
    )
    found = scan(tree(tmp_path, f"{header}{row}\n", PIE))
    assert titles(found) == {PIE: "One, two, three"} and found.rejected == []


def test_titles_stay_as_they_are_and_are_cleaned_when_they_are_stored(tmp_path):
    title = " Caf\u00e9&nbsp;&amp; Co\t #1 | http://a.com/pie?a=1 caf\u0065\u0301 \u200b\u0007 "
    found = scan(tree(tmp_path, f'apple_pie_0.jpg,"{title}",apple_pie\n', PIE))
    assert titles(found) == {PIE: title}
    for rule, stored in (
        ("release", " Café&nbsp;&amp; Co\t 1 | "),
        ("plain", "Café & Co #1 | café"),
    ):
        kind = food101.spec(food101.Settings("build", text_clean=rule))["text"]
        assert extract(title, kind, tmp_path).payload == [stored.encode()]


def test_a_quoted_title_may_hold_line_ends(tmp_path):
    content = 'apple_pie_0.jpg,"One\ntwo\r\nthree",apple_pie\n' + PLAIN.splitlines()[1]
    assert titles(scan(tree(tmp_path, content, PIE, SUSHI)))[PIE] == "One\ntwo\r\nthree"


def test_empty_and_long_titles_are_kept(tmp_path):
    long = " ".join(["word"] * 300)
    content = f"apple_pie_0.jpg,,apple_pie\nsushi_0.jpg,{long},sushi\n"
    assert titles(scan(tree(tmp_path, content, PIE, SUSHI))) == {PIE: "", SUSHI: long}


def test_bytes_that_are_not_utf8_cost_themselves_alone_and_are_told(tmp_path):
    found = scan(tree(tmp_path, b"apple_pie_0.jpg,Cr\xe8me p\xeetissi\xe8re,apple_pie\n", PIE))
    assert titles(found) == {PIE: "Cr\ufffdme p\ufffdtissi\ufffdre"}
    assert any(warning.startswith("1 titles hold bytes") for warning in found.warnings)
    sound = scan(tree(tmp_path / "sound", PLAIN, PIE, SUSHI))
    assert not any("bytes" in warning for warning in sound.warnings)


@pytest.mark.parametrize("shape", ["{}", '"{}"', '"{}', '{}"', "{},"])
@pytest.mark.parametrize("filler", ["x", "é ", "a,", '"",'])
def test_a_field_of_ten_million_characters_costs_its_row_alone(tmp_path, shape, filler):
    endless = shape.format(filler * (10_000_000 // len(filler)))
    first, second = PLAIN.splitlines()
    content = f"{first}\nbaklava_0.jpg,{endless},baklava\n{second}\n"
    found = scan(tree(tmp_path, content, PIE, SUSHI, "train/baklava/baklava_0.jpg"))
    assert titles(found) == EXPECTED_TITLES
    assert [(r.id, r.source, r.reason) for r in found.rejected] == [
        ("train, line 2", TRAIN, "bad_line"),
        ("train/baklava/baklava_0.jpg", "images/train/baklava/baklava_0.jpg", "no_text"),
    ]
    assert max(len(r.detail) for r in found.rejected) < 200


def test_a_record_that_is_too_long_over_many_lines_and_fields_is_refused(tmp_path):
    fields = ['"' + "many words\n" * 5000 + '"'] * 3
    content = f"apple_pie_0.jpg,{','.join(fields)},apple_pie\n{PLAIN.splitlines()[1]}"
    found = scan(tree(tmp_path, content, PIE, SUSHI))
    assert list(titles(found)) == [SUSHI]
    told = [r.id for r in found.rejected if r.reason == "bad_line"]
    assert told[0] == "train, line 1" and len(told) == 15001


def test_a_long_line_is_not_held_in_memory(tmp_path):
    tree(tmp_path, PLAIN + "pizza_0.jpg," + "x" * 40_000_000 + ",pizza\n")
    tracemalloc.start()
    rows, rejected = food101.read_titles(tmp_path, TRAIN, "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(rows), len(rejected)) == (2, 1) and peak < 2_000_000


@pytest.mark.parametrize("closed_later", [True, False])
def test_an_open_quote_ends_with_its_line_and_is_told(tmp_path, closed_later):
    rows = [f"pizza_{k}.jpg,Pizza number {k},pizza" for k in range(40)]
    rows[10] = 'pizza_10.jpg,"Pizza, number 10,pizza'
    if closed_later:
        rows[20] = 'pizza_20.jpg,"Pizza, number 20",pizza'
    pictures = [f"train/pizza/pizza_{k}.jpg" for k in range(40)]
    found = scan(tree(tmp_path, "\n".join(rows), *pictures))
    expected = {f"train/pizza/pizza_{k}.jpg": f"Pizza number {k}" for k in range(40)}
    expected |= {pictures[10]: "Pizza, number 10"}
    expected |= {pictures[20]: "Pizza, number 20"} if closed_later else {}
    assert titles(found) == expected
    assert [(r.id, r.reason) for r in found.rejected] == [("train, line 11", "open_quote")]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_found_by_the_first_row(tmp_path, separator):
    content = "apple_pie_0.jpg,'Pie, the best',apple_pie\nsushi_0.jpg,Sushi 寿司,sushi\n"
    content = content.replace("'Pie, the best'", "Pie").replace(",", separator)
    found = scan(tree(tmp_path, content, PIE, SUSHI))
    assert titles(found) == {PIE: "Pie", SUSHI: "Sushi 寿司"} and not found.rejected


def test_rows_with_too_few_cells_are_refused_with_both_counts(tmp_path):
    found = scan(tree(tmp_path, PLAIN + "pizza_0.jpg,Pizza\n", PIE, SUSHI))
    assert titles(found) == EXPECTED_TITLES
    assert [(r.reason, r.detail) for r in found.rejected] == [
        ("bad_line", "line 3: 2 cells where 3 are due")
    ]


def test_rows_that_name_a_text_file_find_its_picture(tmp_path):
    content = PLAIN.replace("apple_pie_0.jpg", "apple_pie_0.txt")
    found = scan(tree(tmp_path, content, PIE, SUSHI))
    assert titles(found) == EXPECTED_TITLES and not found.rejected


@pytest.mark.parametrize("content,seen", [
    ("<!DOCTYPE html>\n<html>", "DOCTYPE"), ("version https://git-lfs.github.com/spec/v1\n", "lfs"),
    ("apple_pie_0.jpg|Pie|apple_pie\n", "Pie"), ("name,words,kind\n", "picture"),
    ("img,title\n", "label"),
    ("x" * 500_000 + ",y\n" + "name,text\n", "name,text"),
])  # fmt: skip
def test_what_is_no_list_is_refused_in_one_line(tmp_path, content, seen):
    with pytest.raises(UsageError, match=seen) as error:
        scan(tree(tmp_path, content, PIE))
    assert "train_titles.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_list_of_gigabytes_is_not_read(tmp_path):
    tree(tmp_path, PLAIN, PIE)
    with open(tmp_path / TRAIN, "r+b") as handle:
        handle.truncate(3 << 30)
    with pytest.raises(UsageError, match="no list of samples"):
        scan(tmp_path)


# --- rows and pictures ----------------------------------------------------------------------------


def test_names_repeat_between_the_parts(tmp_path):
    row = "apple_pie_0.jpg,{},apple_pie\n"
    pictures = PIE, PIE.replace("train", "test")
    found = scan(tree(tmp_path, row.format("A"), *pictures, test=row.format("B")))
    assert titles(found) == {pictures[1]: "B", pictures[0]: "A"}
    assert [candidate.part for candidate in found.candidates] == ["test", "train"]


def test_rows_and_files_without_partner(tmp_path):
    found = scan(tree(tmp_path, PLAIN, PIE, "train/waffles/waffles_7.jpg"))
    assert list(titles(found)) == [PIE]
    assert {(r.id, r.source): r.reason for r in found.rejected} == {
        (SUSHI, TRAIN): "missing_file",
        ("train/waffles/waffles_7.jpg", "images/train/waffles/waffles_7.jpg"): "no_text",
    }


def test_a_row_of_the_other_part_does_not_count(tmp_path):
    found = scan(tree(tmp_path, "", PIE, test=PLAIN))
    assert found.candidates == []
    assert sorted(r.reason for r in found.rejected) == ["missing_file", "missing_file", "no_text"]


def test_a_second_row_of_a_picture_is_a_duplicate(tmp_path):
    found = scan(tree(tmp_path, PLAIN + "apple_pie_0.jpg,Another,apple_pie\n", PIE, SUSHI))
    assert titles(found) == EXPECTED_TITLES
    assert [(r.id, r.reason) for r in found.rejected] == [(PIE, "duplicate")]


def test_a_list_that_contradicts_the_folder_wins_and_is_told(tmp_path):
    place = "train/tacos/apple_pie_0.jpg"
    found = scan(tree(tmp_path, PLAIN, place, SUSHI))
    assert [(c.id, food101.LABELS[c.label]) for c in found.candidates] == [
        (SUSHI, "sushi"), (place, "apple_pie"),
    ]  # fmt: skip
    assert reasons(found) == {f"images/{place}": "label_conflict"}


def test_a_name_in_two_classes_is_matched_by_its_class(tmp_path):
    content = "1.jpg,A,apple_pie\n1.jpg,B,sushi\n1.jpg,C,tacos\n"
    found = scan(tree(tmp_path, content, "train/sushi/1.jpg", "train/apple_pie/1.jpg"))
    assert titles(found) == {"train/apple_pie/1.jpg": "A", "train/sushi/1.jpg": "B"}
    assert [(r.id, r.reason) for r in found.rejected] == [("train/tacos/1.jpg", "missing_file")]


def test_a_row_that_fits_two_folders_takes_neither(tmp_path):
    found = scan(tree(tmp_path, "1.jpg,C,tacos\n", "train/sushi/1.jpg", "train/pho/1.jpg"))
    assert found.candidates == []
    assert [r.reason for r in found.rejected] == ["missing_file", "no_text", "no_text"]


def test_the_folder_tells_the_class_where_the_row_does_not(tmp_path):
    found = scan(tree(tmp_path, "apple_pie_0.jpg,Pie,\nsushi_0.jpg,,\n", PIE, SUSHI))
    assert [(c.label, c.inline["text"]) for c in found.candidates] == [(0, "Pie"), (95, "")]
    assert found.rejected == []


def test_class_names_are_compared_without_case_blanks_and_dashes(tmp_path):
    place = "train/Apple-Pie/apple_pie_0.jpg"
    found = scan(tree(tmp_path, 'apple_pie_0.jpg,Pie," Apple  pie "\n', place))
    assert [(c.id, c.label) for c in found.candidates] == [(PIE, 0)]
    assert found.candidates[0].sources["image"] == (f"images/{place}",)


def test_two_folders_of_one_class_and_one_name(tmp_path):
    found = scan(tree(tmp_path, PLAIN, "train/Apple_Pie/apple_pie_0.jpg", PIE, SUSHI))
    assert list(titles(found)) == [PIE, SUSHI]
    assert reasons(found) == {f"images/{PIE}": "second_file"}
    assert found.candidates[0].sources == {
        "image": ("images/train/Apple_Pie/apple_pie_0.jpg", f"images/{PIE}")
    }


def test_a_class_outside_of_the_101_has_no_label(tmp_path):
    content = PLAIN + "a.jpg,Leftovers,leftovers\nb.jpg,Leftovers,leftovers\nc.jpg,Leftovers,\n"
    pictures = ("train/leftovers/a.jpg", "train/tacos/b.jpg", "train/leftovers/c.jpg")
    found = scan(tree(tmp_path, content, PIE, SUSHI, *pictures))
    assert titles(found) == EXPECTED_TITLES
    assert reasons(found) == {f"images/{picture}": "no_label" for picture in pictures}


def test_files_at_other_places_are_unknown_and_leftovers_ignored(tmp_path):
    others = [
        "images/train/apple_pie/notes.txt", "images/train/loose.jpg", "images/apple_pie/a.jpg",
        "images/val/apple_pie/a.jpg", "images/train/apple_pie/more/a.jpg", "texts/notes.csv",
        "a.jpg", "class_idx.json",
    ]  # fmt: skip
    tree(tmp_path, PLAIN, PIE, SUSHI, "train/apple_pie/.DS_Store", "train/sushi/Thumbs.db")
    plant(tmp_path, *others, "__MACOSX/images/train/sushi/._sushi_0.jpg")
    found = scan(tmp_path)
    assert titles(found) == EXPECTED_TITLES
    assert reasons(found) == dict.fromkeys(others, "unknown_name")


def test_hostile_names_stay_names(tmp_path):
    names = ['-x "y", z;.jpg', "ü 寿司.JPG", "x..jpg.png", "a\nb.gif"]
    with open(tmp_path / "list", "w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows((name, "T", "sushi") for name in [*names, "../../../x.jpg"])
    content = (tmp_path / "list").read_bytes()
    (tmp_path / "list").unlink()
    (tmp_path.parent / "x.jpg").write_bytes(b"")
    found = scan(tree(tmp_path, content, *(f"train/sushi/{name}" for name in names)))
    assert set(titles(found)) == {f"train/sushi/{name}" for name in names}
    assert [(r.id, r.reason) for r in found.rejected] == [("train/sushi/x.jpg", "missing_file")]


def test_a_name_that_is_not_utf8_is_told_and_ends_nothing(tmp_path):
    tree(tmp_path, PLAIN, PIE, SUSHI)
    (tmp_path / "images/train/sushi" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).touch()
    assert reasons(scan(tmp_path)) == {r"images/train/sushi/caf\xe9.jpg": "unknown_name"}


def test_the_set_may_stand_in_a_folder_of_the_root(tmp_path):
    tree(tmp_path / "upmc", PLAIN + "a.jpg,T,tacos\n", PIE, SUSHI)
    plant(tmp_path, "upmc.zip")
    found = scan(tmp_path)
    assert found.candidates[0].sources["image"] == (f"upmc/images/{PIE}",)
    assert reasons(found) == {"upmc.zip": "unknown_name", f"upmc/{TRAIN}": "missing_file"}


@pytest.mark.parametrize("lacking", ["images", TRAIN, TEST])
def test_a_wrong_root_says_what_it_must_hold(tmp_path, lacking):
    tree(tmp_path, PLAIN)
    (tmp_path / lacking).rename(tmp_path / "away")
    with pytest.raises(UsageError, match="texts/train_titles.csv") as error:
        scan(tmp_path)
    assert "ETH" in str(error.value) and "\n" not in str(error.value)


def test_the_official_val_part_is_a_tenth_of_each_class_of_train(tmp_path):
    pictures = [
        f"train/{c}/{k}.jpg" for c, n in (("pho", 40), ("sushi", 1), ("pizza", 2)) for k in range(n)
    ]
    pictures += ["test/pho/0.jpg"]
    rows = {
        part: [p.split("/") for p in pictures if p.startswith(part)] for part in ("train", "test")
    }
    text = {
        part: "".join(f"{name},T,{label}\n" for _, label, name in found)
        for part, found in rows.items()
    }
    found = scan(tree(tmp_path, text["train"], *pictures, test=text["test"]))
    parts = {}
    for candidate in found.candidates:
        parts.setdefault((candidate.id.split("/")[1], candidate.part), []).append(candidate.id)
    assert {key: len(ids) for key, ids in parts.items()} == {
        ("pho", "train"): 36, ("pho", "val"): 4, ("pho", "test"): 1, ("sushi", "train"): 1,
        ("pizza", "train"): 1, ("pizza", "val"): 1,
    }  # fmt: skip
    ranked = sorted(pictures[:40], key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert sorted(parts["pho", "val"]) == sorted(ranked[:4])


def test_specs_and_views():
    spec = food101.spec(SETTINGS)
    assert list(spec) == ["text", "image"] == list(food101.views(SETTINGS))
    assert spec["text"] == Text("build", 4000, 40, False, "release")
    assert (spec["image"].short_side, spec["image"].quality, spec["image"].missing) == (
        256,
        90,
        "reject",
    )
    assert food101.spec(food101.Settings("build", 24))["text"].max_tokens == 24
    assert food101.views(SETTINGS) == {"text": PlainView(), "image": VideoView(1, "rotate_flip")}
    assert food101.normalise(SETTINGS) == {"text": None, "image": "imagenet"}
    assert food101.Settings() == food101.Settings("electra", 512, "release")


# --- the fixture, and all the way -----------------------------------------------------------------


def test_words_of_titles_tell_no_class():
    named = {word for label in food101.LABELS for word in label.split("_")}
    assert len(WORDS) == len(set(WORDS)) == 300 and not named & set(WORDS)
    assert not named & set(" ".join(ENDINGS).lower().split())


@pytest.fixture(scope="module")
def fixture(tmp_path_factory):
    """(root, truth, prepared folder) of a small tree with every kind of damage."""
    folder = tmp_path_factory.mktemp("food")
    write_food101(
        folder / "raw", 3, truth_path=folder / "truth.csv", corrupt_each=2, workers=1,
        look=Look(64, 48),
    )  # fmt: skip
    place = prepare("food101", folder / "raw", folder / "data", SETTINGS, workers=2, max_bad=0.9)
    return folder / "raw", read_table(folder / "truth.csv"), place


def test_every_kind_of_damage_ends_as_the_truth_says(fixture):
    _, truth, folder = fixture
    kept = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    rejected = read_table(folder / "rejected.csv")
    assert {page["corruption"] for page in truth} == {"", *EXPECTED}
    for page in truth:
        expected, row = page["expected_reason"], kept.get(page["id"])
        told = [r["reason"] for r in rejected if r["id"] == page["id"]]
        if expected.startswith("flag:"):
            assert row["flags"] == expected[5:] and not told, page
        elif not expected:
            assert row["flags"] in ("", "cut") and not told, (page, row, told)
        else:
            assert told == [expected] and (row is not None) == (
                expected in (*KEPT_REASONS, "duplicate")
            ), page
        assert row is None or row["label_name"] == page["label"]
    ids = {page["id"] for page in truth}
    endless = {r["id"].split(" ")[1] for r in rejected if r["id"] not in ids}
    assert endless == {"line"}
    assert set(kept) <= ids


def test_every_raw_file_is_accounted_for(fixture):
    root, _, folder = fixture
    told = told_in(folder)
    assert raw_files(root) - {TRAIN, TEST} <= told and not hidden(told)


def test_batches_hold_tokens_and_one_picture(fixture):
    prepared = Prepared(fixture[2])
    views = food101.views(SETTINGS)
    positions = prepared.split("paper", 0)["train"]
    words, device = prepared.vocabulary("paper", 0), torch.device("cpu")
    loader = Loader(prepared, positions, views, 32, 16, 0, 0, device, vocabulary=words)
    batch = next(loader.epoch(1))
    text, image = batch["inputs"]["text"], batch["inputs"]["image"]
    longest = int(text[:, 2].sum(1).max())
    assert text.shape == (16, 3, longest) and 4 <= longest <= 40
    assert image.shape == (16, 1, 3, 32, 32) and image.dtype == torch.uint8


def test_long_titles_are_cut_and_empty_ones_are_two_tokens(fixture):
    _, truth, folder = fixture
    prepared = Prepared(folder)
    lengths, words = {}, prepared.vocabulary("paper", 0)
    for page in truth:
        if page["corruption"] in ("long_title", "empty_title"):
            stored = prepared.value(prepared.ids.index(page["id"]), "text")
            mask = tokens(stored, prepared.spec["text"], words)[2]
            lengths.setdefault(page["corruption"], []).append(int(mask.sum()))
    assert lengths == {"long_title": [40, 40], "empty_title": [2, 2]}


def test_a_turned_picture_is_stored_upright(fixture):
    _, truth, folder = fixture
    prepared = Prepared(folder)
    for page in truth:
        if page["corruption"] in ("exif_6", "cmyk_jpg", "animated_gif", "rgba_png"):
            (stored,) = prepared.value(prepared.ids.index(page["id"]), "image")
            assert cv2.imdecode(np.frombuffer(stored, np.uint8), 1).shape == (48, 64, 3), page


def test_the_official_rule_keeps_the_test_part(fixture):
    prepared = Prepared(fixture[2])
    parts = prepared.split("official", 0)
    names = {part: {prepared.ids[k].split("/")[0] for k in where} for part, where in parts.items()}
    assert names == {"train": {"train"}, "val": {"train"}, "test": {"test"}}
    with pytest.raises(UsageError, match="allowed here: paper"):
        prepared.split("group", 0)


def test_both_forms_of_the_lists_give_equal_shards(tmp_path):
    folders = []
    for form, workers in (("plain", 1), ("header", 2)):
        root = tmp_path / form
        write_food101(root, 2, truth_path=tmp_path / f"{form}.csv", form=form, workers=workers)
        folders.append(
            prepare("food101", root, tmp_path / f"{form}-data", SETTINGS, workers=workers)
        )
    one, two = folders
    names = sorted(str(path.relative_to(one)) for path in one.rglob("[!.]*.*") if path.is_file())
    assert {"manifest.csv", "samples-00000.arrow"} <= set(names)
    for name in names:
        if not name.endswith(".lock"):
            assert file_digest(one / name) == file_digest(two / name), name
    assert (tmp_path / "plain" / TRAIN).read_bytes()[:3] != b"\xef\xbb\xbf"
    assert (tmp_path / "header" / TRAIN).read_bytes()[:3] == b"\xef\xbb\xbf"


def test_the_fixture_is_the_same_again_and_another_with_another_seed(tmp_path):
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        root = tmp_path / name
        write_food101(
            root, 1, truth_path=tmp_path / f"{name}.csv", seed=seed, corrupt_each=1, workers=1
        )
        files = [p for p in sorted(root.rglob("*")) if p.is_file()]
        digests.append([(str(p.relative_to(root)), file_digest(p)) for p in files])
    assert digests[0] == digests[1] != digests[2]
    assert [name for name, _ in digests[0]] == [name for name, _ in digests[2]]


def test_erased_cues_are_the_shares_asked_for(tmp_path):
    look = Look(16, 16, text_erased=0.0, image_erased=1.0)
    write_food101(tmp_path / "raw", 1, truth_path=tmp_path / "truth.csv", look=look, workers=1)
    truth = read_table(tmp_path / "truth.csv")
    assert {(page["m1_cue"], page["m2_cue"]) for page in truth} == {("1", "0")}
    for candidate in scan(tmp_path / "raw").candidates:
        name = food101.LABELS[candidate.label].replace("_", " ")
        assert name in candidate.inline["text"].lower()


def test_a_used_root_and_an_unknown_form_are_refused(tmp_path):
    plant(tmp_path, "raw/x")
    with pytest.raises(UsageError, match="not empty"):
        write_food101(tmp_path / "raw", 1, truth_path=tmp_path / "t.csv", workers=1)
    with pytest.raises(UsageError, match="plain, header"):
        write_food101(tmp_path / "new", 1, truth_path=tmp_path / "t.csv", form="pln", workers=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_from_titles_and_pictures_to_a_result(tmp_path):
    write_food101(tmp_path / "raw", 5, truth_path=tmp_path / "truth.csv", look=Look(48, 48))
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    small = ("--size", "32", "--max_epochs", "3", "--devices", "cpu", "--encoder", "small")
    text = ("--vocabulary", "build", "--text_model", "tiny", "--weights", "none")
    raw = ("--dataset", "food101", "--dataset_root", tmp_path / "raw", "--method", "Midas")
    done = program("train.py", *raw, *places, *small, *text)
    assert done.returncode == 0, done.stderr
    assert "505 of 505 samples prepared" in done.stderr and "pairs " in done.stdout
    run = RunFolder(tmp_path / "run")
    result = run.read_json("result.json")
    assert result["count/n_train"] == 353 and 0 <= result["test/acc_mis"] <= 1
    assert all(np.isfinite(line["train/loss"]) for line in run.read_log())
    assert run.read_log()[-1]["train/n_valid"] > 0
    (words,) = (tmp_path / "data").rglob("*vocab.txt")
    assert words.name == "paper-seed2.vocab.txt"
    assert (tmp_path / "run" / "vocab.txt").read_bytes() == words.read_bytes()
    (start,) = run.read_json("env.json")["starts"]
    assert start["hashes"]["vocabulary"] == file_digest(words) == result["hashes"]["vocabulary"]
