"""The lists of the two datasets of tweets with pictures."""

import pytest
from raw import kept, plant, rejects, scan

from common.options import UsageError
from data_prep.datasets import sarcasm
from data_prep.datasets.lists import MAX_LINE

# Sarcasm ------------------------------------------------------------------------------------------


def sarcasm_tree(root, train=(), val=(), test=(), folder="text", images=None):
    """Writes the three lists of `lines`, and pictures for their ids."""
    lists = {"train.txt": train, "valid2.txt": val, "test2.txt": test}
    text = {f"{folder}/{name}": "".join(f"{line}\n" for line in lines)
            for name, lines in lists.items()}  # fmt: skip
    images = [f"{k}.jpg" for k in range(100, 130)] if images is None else images
    return plant(root, *(f"dataset_image/{name}" for name in images), lists=text)


@pytest.mark.parametrize("line,parsed", [
    ("['1', 'a b', 0]", ("1", "a b", 0)),
    ("['1', 'a b', 1, 0]", ("1", "a b", 0)),
    (r"""['1', "it 's \" so ' good", 0, 1]""", ("1", "it 's \" so ' good", 1)),
    (r"""['1', '\' a \\ b \u2028 \d', 1]""", ("1", "' a \\ b \u2028 \\d", 1)),
    (r"""  [ "1" , '' ,0 , 1 ]  """, ("1", "", 1)),
    (r"""['1', '\ud83d\ude00 \ud800', 1]""", ("1", "😀 \ufffd", 1)),
    ("['1', 'x', -1]", ("1", "x", -1)),
    *((line, None) for line in (
        "['1', __import__('os').getcwd(), 1]", "['1', 'a', 1", "['1', 'a']", "['1', 'a', 1, 1, 1]",
        "[1, 'a', 1]", "['1', 'a', 1.5]", "['1', b'a', 1]", "['1', 'a', True]", "['1', f'{1}', 1]",
        "('1', 'a', 1)", "['1', ['a'], 1]", "[" * 5000, r"['1', '\x1', 1]", "['1', 'a', 01]",
        "['1', 'a', 9999999999]", "['1', 'a', 1] + []", "['1', 'a\x00', 1]", "", "['1', 'a', ١]")),
])  # fmt: skip
def test_sarcasm_lines_are_two_strings_and_numbers_and_nothing_else(line, parsed):
    assert sarcasm.parse_line(line) == parsed


@pytest.mark.parametrize("base", ["", "data"])
@pytest.mark.parametrize("folder", ["text", "."])
def test_sarcasm_takes_the_last_element_in_any_folder(tmp_path, base, folder):
    plant(tmp_path, "train.txt")  # the authors' repository has a different one there
    lists = ["['100', 'a', 1]", "['101', 'b', 0]"], ["['102', 'c', 1, 0]"], ["['103', 'd', 0, 1]"]
    sarcasm_tree(tmp_path / base, *lists, folder=folder)
    found = scan("sarcasm", tmp_path)
    words = sarcasm.LABELS
    assert kept(found) == {
        "100": (words[1], "train"), "101": (words[0], "train"), "102": (words[0], "val"),
        "103": (words[1], "test"),
    }  # fmt: skip
    assert [c.inline for c in found.candidates] == [{"text": text} for text in "abcd"]
    assert all((tmp_path / c.sources["image"][0]).is_file() for c in found.candidates)
    unlisted = [r for r in found.rejected if r.reason == "no_label"]
    assert len(unlisted) == 26 and all(r.detail.startswith("no line") for r in unlisted)


def test_sarcasm_lines_with_one_of_eleven_whole_words_are_left_out(tmp_path):
    words = [*sorted(sarcasm.FILTER), "sarcasms", "# lolsarcasm", "joker", "url", "humor.", "Joke"]
    train = [repr([str(100 + k), f"so  {word} here", k % 2]) for k, word in enumerate(words)]
    found = scan("sarcasm", sarcasm_tree(tmp_path, train, ["['122', 'a joke and irony', 1, 1]"]))
    assert [c.id for c in found.candidates] == [str(100 + k) for k in range(11, 17)]
    details = {r.id: r.detail for r in found.rejected if r.reason == "filtered"}
    assert len(details) == 12 and details["122"] == "text/valid2.txt line 1: irony joke"


def test_sarcasm_lines_and_files_that_are_not_samples(tmp_path):
    train = [
        "['100', 'first', 0]", "['100', 'second', 1]", "['99', 'no picture', 1]",
        "['101', 'x', 2]", "['../101', 'x', 1]", "['1 01', 'x', 1]", "['', 'x', 1]", "", "  ",
        "['102', 'filtered joke', 1]", "['102', 'then not', 1]", "no list",
        f"['103', '{'x' * MAX_LINE}', 1]", "['٣', 'x', 1]",
    ]  # fmt: skip
    names = ["100.jpg", "101.jpg", "102.JPEG", "103.jpg", "104.png", "me.jpg", "105.gif", ".x.jpg"]
    plant(tmp_path, *(f"text/{n}" for n in ("Readme.MD", "test.txt", ".DS_Store", "Thumbs.db")))
    found = scan("sarcasm", sarcasm_tree(tmp_path, train, images=names))
    assert [(c.id, c.inline["text"], c.sources["image"]) for c in found.candidates] == [
        ("100", "first", ("dataset_image/100.jpg",)),
        ("102", "then not", ("dataset_image/102.JPEG",)),
    ]  # fmt: skip
    assert sorted((r.id, r.reason) for r in found.rejected) == sorted([
        ("100", "duplicate"), ("101", "no_label"), ("102", "filtered"), ("103", "no_label"),
        ("104", "no_label"), ("105", "unknown_name"), ("99", "missing_file"),
        ("me", "unknown_name"), ("Readme", "unknown_name"), ("test", "unknown_name"),
        *((f"train-{k:05d}", "bad_line") for k in (5, 6, 7, 12, 13, 14)),
    ])  # fmt: skip


# Twitter2015 --------------------------------------------------------------------------------------

HEADER = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"
SHORT_HEADER = "index\t#1 ImageID\t#2 String\t#2 String"  # as test.tsv has it
ROWS = [
    ("0", "7.jpg", '$T$ is " bad', "Ann"),
    ("2", "7.jpg", 'Ann is " $T$', "Bo"),
    ("1", "8.jpg", "RT @ x : $T$ .", "# NYR"),
]


def tsv(rows, header=HEADER):
    return [header, *("\t".join((str(k), *row)) for k, row in enumerate(rows, 1))]


def txt(rows):
    return [s for label, image, *both in rows for s in (*both, str(int(label) - 1), image)]


def twitter_tree(root, folder="twitter2015", images=("7.jpg", "8.jpg"), **lists):
    """Lists by name, "__" for the dot; parts that are not given hold no sample."""
    for part in ("train", "dev", "test"):
        if f"{part}__txt" not in lists:
            lists.setdefault(f"{part}__tsv", [HEADER])
    text = {f"{folder}/{name.replace('__', '.')}": "".join(f"{line}\n" for line in lines)
            for name, lines in lists.items()}  # fmt: skip
    return plant(root, *(f"twitter2015_images/{name}" for name in images), lists=text)


@pytest.mark.parametrize("lists", [
    {"test__tsv": tsv(ROWS)}, {"test__txt": [*txt(ROWS), "", " "]},
    {"test__tsv": tsv(ROWS), "test__txt": ["of another form"]},
    {"test__tsv": [line + "\r" for line in tsv(ROWS, "\ufeff" + SHORT_HEADER)]},
])  # fmt: skip
def test_twitter_lists_in_every_form(tmp_path, lists):
    found = scan("twitter2015", twitter_tree(tmp_path, **lists))
    assert kept(found) == {
        "test-00001": ("negative", "test"), "test-00002": ("positive", "test"),
        "test-00003": ("neutral", "test"),
    }  # fmt: skip
    assert [c.group for c in found.candidates] == ["7.jpg", "7.jpg", "8.jpg"]
    assert found.candidates[1].inline == {"text": ['Ann is " $T$', "Bo"]}
    assert found.candidates[1].sources == {"image": ("twitter2015_images/7.jpg",)}
    assert not found.rejected and len(found.warnings) == 1


def test_twitter_lines_that_are_not_samples(tmp_path):
    lines = tsv([
        ROWS[0], ("3", "7.jpg", "$T$", "x"), ("-1", "7.jpg", "$T$", "x"), ("1", "7.jpg", "$T$ x"),
        ("1", "7.jpg", "a", "b", "c"), ("1", "../7.jpg", "$T$", "x"), ("1", "7", "$T$", "x"),
        ("", "7.jpg", "$T$", "x"), ("1", "7.jpg", "y" * MAX_LINE, "x"),
    ])  # fmt: skip
    twitter_tree(tmp_path, train__tsv=[*lines, "", lines[1]], images=["7.jpg", "9.jpg", "a b.jpg"])
    found = scan("twitter2015", plant(tmp_path, "twitter2015/notes.doc", "twitter2015_images/.x"))
    assert [c.id for c in found.candidates] == ["train-00001", "train-00011"]
    numbers = dict.fromkeys((2, 3, 8), "no_label") | dict.fromkeys((4, 5, 6, 7, 9), "bad_line")
    assert sorted((r.id, r.reason) for r in found.rejected) == [
        ("9.jpg", "no_label"), ("a b", "unknown_name"), ("notes", "unknown_name"),
        *((f"train-{k:05d}", reason) for k, reason in sorted(numbers.items())),
    ]  # fmt: skip


def test_twitter_missing_pictures_stay_unless_dropped(tmp_path):
    twitter_tree(tmp_path, train__tsv=tsv(ROWS), images=["7.jpg"])
    found = scan("twitter2015", tmp_path)
    assert len(found.candidates) == 3 and not found.rejected
    assert found.candidates[2].sources == {"image": ("twitter2015_images/8.jpg",)}
    dropped = scan("twitter2015", tmp_path, drop_missing=True)
    assert len(dropped.candidates) == 2
    assert rejects(dropped) == [("train-00003", "twitter2015_images/8.jpg", "missing_file")]


@pytest.mark.parametrize("harm", [
    lambda lines: lines[:5] + lines[6:], lambda lines: [lines[0], *lines],
    lambda lines: lines[:-1], lambda lines: [*lines[:6], "good", *lines[7:]],
], ids=["drop", "twice", "cut", "polarity"])  # fmt: skip
def test_twitter_txt_out_of_step_is_refused(tmp_path, harm):
    with pytest.raises(UsageError, match="misaligned"):
        scan("twitter2015", twitter_tree(tmp_path, train__txt=harm(txt(ROWS))))


@pytest.mark.parametrize(("outer", "images"), [
    ("", "absa_data/twitter2015"), ("IJCAI2019_data", "absa_data"), ("IJCAI2019_data", ""),
])  # fmt: skip
def test_twitter_is_found_in_any_folder(tmp_path, images, outer):
    base = twitter_tree(tmp_path / outer, "absa_data/twitter2015", train__tsv=tsv(ROWS))
    twitter_tree(base, "absa_data/twitter", train__tsv=tsv(ROWS[:1]))  # the 2017 dataset next to it
    if images:
        (base / "twitter2015_images").rename(base / images / "twitter2015_images")
    found = scan("twitter2015", tmp_path)
    assert len(found.candidates) == 3 and not found.rejected
    assert (tmp_path / found.candidates[0].sources["image"][0]).is_file()
