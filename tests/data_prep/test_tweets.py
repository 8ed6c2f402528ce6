"""The two sets of tweets with pictures: their lists, their generators, raw tree to result."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT, program

from common.files import file_digest, read_table
from common.options import UsageError
from data_prep.datasets import sarcasm, twitter2015
from data_prep.datasets.lines import MAX_LINE_BYTES, read_lines
from data_prep.prepare import prepare
from data_prep.reasons import REASONS
from data_prep.spec import PlainView, VideoView
from data_prep.store import Prepared
from experiments.run.folder import RunFolder
from fixtures.tweets import TweetLook
from fixtures.tweets_tree import EXPECTED, write_sarcasm, write_twitter2015

WRITERS = {"sarcasm": write_sarcasm, "twitter2015": write_twitter2015}
LAYOUTS = {"sarcasm": sarcasm, "twitter2015": twitter2015}


def reasons(scan):
    assert all(rejection.reason in REASONS for rejection in scan.rejected)
    return Counter(rejection.reason for rejection in scan.rejected)


def plant(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"picture")


# --- lines ----------------------------------------------------------------------------------------


def test_lines_with_mark_crlf_and_no_last_end(tmp_path):
    (tmp_path / "l").write_bytes("\ufeffa b\r\n\r\nc\u2028d\x85e\x0bf\n é".encode())
    lines = [(1, "a b"), (2, ""), (3, "c\u2028d\x85e\x0bf"), (4, " é")]
    assert list(read_lines(tmp_path / "l")) == lines


def test_lines_that_are_too_long_or_not_utf8_are_none(tmp_path):
    long = b"x" * MAX_LINE_BYTES
    (tmp_path / "l").write_bytes(b"a\n" + long * 3 + b"\nb\n\xff\nc\n" + long[1:] + b"\n" + long)
    found = list(read_lines(tmp_path / "l"))
    assert [number for number, _ in found] == list(range(1, 8))
    assert [text and text[:2] for _, text in found] == ["a", None, "b", None, "c", "xx", None]


def test_a_list_of_another_size_is_refused(tmp_path):
    with open(tmp_path / "l", "wb") as handle:
        handle.truncate((64 << 20) + 1)
    with pytest.raises(UsageError, match="not the list"):
        list(read_lines(tmp_path / "l"))


# --- sarcasm --------------------------------------------------------------------------------------


def sarcasm_tree(root, train=(), val=(), test=(), folder="text", images=None):
    """The three lists of `lines`, and the pictures of the ids that they name."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    lists = {"train.txt": train, "valid2.txt": val, "test2.txt": test}
    for name, lines in lists.items():
        text = "".join(f"{line}\n" for line in lines)
        (root / folder / name).write_text(text, encoding="utf-8")
    if images is None:
        images = [f"{k}.jpg" for k in range(100, 130)]
    plant(root / "dataset_image", images)
    return root


def scan_sarcasm(root):
    return sarcasm.scan(root, sarcasm.Settings(vocabulary="build"))


@pytest.mark.parametrize("line,parsed", [
    ("['1', 'a b', 0]", ("1", "a b", 0)),
    ("['1', 'a b', 1, 0]", ("1", "a b", 0)),
    (r"""['1', "it 's \" so ' good", 0, 1]""", ("1", "it 's \" so ' good", 1)),
    (r"""['1', '\' a \\ b \u2028 \d', 1]""", ("1", "' a \\ b \u2028 \\d", 1)),
    (r"""  [ "1" , '' ,0 , 1 ]  """, ("1", "", 1)),
    (r"""['1', '\ud83d\ude00 \ud800', 1]""", ("1", "😀 \ufffd", 1)),
    ("['1', 'x', -1]", ("1", "x", -1)),
])  # fmt: skip
def test_sarcasm_lines(line, parsed):
    assert sarcasm.parse_line(line) == parsed


@pytest.mark.parametrize("line", [
    "['1', __import__('os').getcwd(), 1]", "['1', 'a', 1", "'1', 'a', 1", "['1', 'a']",
    "['1', 'a', 1, 1, 1]", "['1', 'a', 'b', 1]", "[1, 'a', 1]", "['1', 'a', 1.5]", "['1', b'a', 1]",
    "['1', 'a', True]", "['1', f'{1}', 1]", "['1', 'a' 'b', 1]", "('1', 'a', 1)", "['1', ['a'], 1]",
    "[" * 5000, "['1', " + "(" * 5000 + "'a'" + ")" * 5000 + ", 1]", r"['1', '\x1', 1]",
    "['1', 'a', 01]", "['1', 'a', 9999999999]", "['1', 'a', 1] + []", "['1', 'a\x00', 1]", "",
    "['1', 'a', ١]",
])  # fmt: skip
def test_what_is_no_sarcasm_line(line):
    assert sarcasm.parse_line(line) is None


def test_sarcasm_takes_the_last_element_everywhere(tmp_path):
    sarcasm_tree(
        tmp_path, ["['100', 'a', 1]", "['101', 'b', 0]"], ["['102', 'c', 1, 0]"],
        ["['103', 'd', 0, 1]"],
    )  # fmt: skip
    scan = scan_sarcasm(tmp_path)
    found = [(c.id, c.label, c.part, c.inline, c.group) for c in scan.candidates]
    assert found == [
        ("100", 1, "train", {"text": "a"}, ""), ("101", 0, "train", {"text": "b"}, ""),
        ("102", 0, "val", {"text": "c"}, ""), ("103", 1, "test", {"text": "d"}, ""),
    ]  # fmt: skip
    assert scan.candidates[0].sources == {"image": ("dataset_image/100.jpg",)}
    assert reasons(scan) == {"no_label": 26}  # pictures that no line names
    assert any("24715" in warning for warning in scan.warnings)


FILTERED = (
    "sarcasm", "sarcastic", "reposting", "<url>", "joke", "humour", "humor", "jokes", "irony",
    "ironic", "exgag",
)  # fmt: skip
KEPT = (
    "sarcasms", "# lolsarcasm", "joker", "prjokes", "<user>", "url", "ironically", "humor.", "Joke",
    "exgags", "repost",
)  # fmt: skip


def test_sarcasm_filter_counts(tmp_path):
    """A line goes when a whole word, as the text is split at blanks, is one of eleven."""
    words = [*FILTERED, *KEPT]
    train = [repr([str(100 + k), f"so  {word} here", k % 2]) for k, word in enumerate(words)]
    val = [repr(["122", "a joke and irony", 1, 1]), repr(["123", "fine", 1, 0])]
    scan = scan_sarcasm(sarcasm_tree(tmp_path, train, val, ["['124', 'irony', 0, 0]"]))
    assert Counter(c.part for c in scan.candidates) == {"train": len(KEPT), "val": 1}
    assert reasons(scan) == {"filtered": len(FILTERED) + 2, "no_label": 5}
    details = {r.id: r.detail for r in scan.rejected}
    assert details["122"] == "text/valid2.txt line 1: irony joke"


def test_sarcasm_lines_that_are_no_samples(tmp_path):
    train = [
        "['100', 'first', 0]", "['100', 'second', 1]", "['99', 'no picture', 1]",
        "['101', 'x', 2]", "['../101', 'x', 1]", "['1 01', 'x', 1]", "['', 'x', 1]", "", "  ",
        "['102', 'filtered joke', 1]", "['102', 'then not', 1]", "no list",
        f"['103', '{'x' * MAX_LINE_BYTES}', 1]", "['٣', 'x', 1]",
    ]  # fmt: skip
    names = ["100.jpg", "101.jpg", "102.JPEG", "103.jpg", "104.png", "me.jpg", "105.gif", ".x.jpg"]
    scan = scan_sarcasm(sarcasm_tree(tmp_path, train, images=names))
    assert [(c.id, c.inline["text"]) for c in scan.candidates] == [
        ("100", "first"), ("102", "then not"),
    ]  # fmt: skip
    assert scan.candidates[1].sources == {"image": ("dataset_image/102.JPEG",)}
    assert sorted((r.id, r.reason) for r in scan.rejected) == [
        ("100", "duplicate"), ("101", "no_label"), ("102", "filtered"), ("103", "no_label"),
        ("104", "no_label"), ("105", "unknown_name"), ("99", "missing_file"),
        ("me", "unknown_name"),
        *((f"train-{k:05d}", "bad_line") for k in (5, 6, 7, 12, 13, 14)),
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["text", ".", "data/text", "data"])
def test_sarcasm_is_found_where_it_stands(tmp_path, folder):
    base = tmp_path / "data" if folder.startswith("data") else tmp_path
    sarcasm_tree(
        base, ["['100', 'a', 1]"], folder=folder.removeprefix("data/").replace("data", ".")
    )
    (tmp_path / "train.txt").touch()  # the authors' repository has one of another form there
    (candidate,) = scan_sarcasm(tmp_path).candidates
    assert (tmp_path / candidate.sources["image"][0]).is_file()


def test_sarcasm_reports_other_files_beside_its_lists(tmp_path):
    sarcasm_tree(tmp_path, ["['100', 'a', 1]"], images=["100.jpg"])
    for name in ("Readme.MD", "test.txt", ".DS_Store", "Thumbs.db"):
        (tmp_path / "text" / name).touch()
    scan = scan_sarcasm(tmp_path)
    found = [(r.source, r.reason) for r in scan.rejected]
    assert found == [("text/Readme.MD", "unknown_name"), ("text/test.txt", "unknown_name")]


# --- Twitter2015 ----------------------------------------------------------------------------------


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
    (root / folder).mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev", "test"):
        if f"{part}__txt" not in lists:
            lists.setdefault(f"{part}__tsv", [HEADER])
    for name, lines in lists.items():
        text = "".join(f"{line}\n" for line in lines)
        (root / folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    plant(root / "twitter2015_images", images)
    return root


def scan_twitter(root, **settings):
    return twitter2015.scan(root, twitter2015.Settings(vocabulary="build", **settings))


@pytest.mark.parametrize("lists", [
    {"test__tsv": tsv(ROWS)}, {"test__tsv": tsv(ROWS, SHORT_HEADER)}, {"test__txt": txt(ROWS)},
    {"test__txt": [*txt(ROWS), "", " "]}, {"test__tsv": tsv(ROWS), "test__txt": txt(ROWS)},
    {"test__tsv": [line + "\r" for line in tsv(ROWS, "\ufeff" + SHORT_HEADER)]},
])  # fmt: skip
def test_twitter_lists_in_every_form(tmp_path, lists):
    scan = scan_twitter(twitter_tree(tmp_path, **lists))
    assert [(c.id, c.label, c.group, c.part) for c in scan.candidates] == [
        ("test-00001", 0, "7.jpg", "test"), ("test-00002", 2, "7.jpg", "test"),
        ("test-00003", 1, "8.jpg", "test"),
    ]  # fmt: skip
    assert scan.candidates[1].inline == {"text": ['Ann is " $T$', "Bo"]}
    assert scan.candidates[1].sources == {"image": ("twitter2015_images/7.jpg",)}
    assert not scan.rejected and len(scan.warnings) == 1 and "5338" in scan.warnings[0]


def test_twitter_counts_by_part_and_class(tmp_path):
    def rows(*counts):
        return [
            (str(label), f"{n}.jpg", "$T$", "x") for label, c in enumerate(counts) for n in range(c)
        ]

    twitter_tree(
        tmp_path, images=[f"{k}.jpg" for k in range(9)], train__tsv=tsv(rows(3, 9, 4)),
        dev__txt=txt(rows(1, 6, 3)), test__tsv=tsv(rows(1, 5, 3), SHORT_HEADER),
    )  # fmt: skip
    scan = scan_twitter(tmp_path)
    assert Counter((c.part, twitter2015.LABELS[c.label]) for c in scan.candidates) == {
        ("train", "negative"): 3, ("train", "neutral"): 9, ("train", "positive"): 4,
        ("val", "negative"): 1, ("val", "neutral"): 6, ("val", "positive"): 3,
        ("test", "negative"): 1, ("test", "neutral"): 5, ("test", "positive"): 3,
    }  # fmt: skip
    assert not scan.rejected and len({c.id for c in scan.candidates}) == 35


def test_twitter_lines_that_are_no_samples(tmp_path):
    lines = tsv([
        ROWS[0], ("3", "7.jpg", "$T$", "x"), ("-1", "7.jpg", "$T$", "x"), ("1", "7.jpg", "$T$ x"),
        ("1", "7.jpg", "a", "b", "c"), ("1", "../7.jpg", "$T$", "x"), ("1", "7", "$T$", "x"),
        ("", "7.jpg", "$T$", "x"), ("1", "7.jpg", "y" * MAX_LINE_BYTES, "x"),
    ])  # fmt: skip
    twitter_tree(tmp_path, train__tsv=[*lines, "", lines[1]], images=["7.jpg", "9.jpg", "a b.jpg"])
    (tmp_path / "twitter2015" / "notes.doc").touch()
    (tmp_path / "twitter2015_images" / "Thumbs.db").touch()
    scan = scan_twitter(tmp_path)
    assert [c.id for c in scan.candidates] == ["train-00001", "train-00011"]
    assert sorted((r.id, r.reason) for r in scan.rejected) == [
        ("9.jpg", "no_label"), ("a b", "unknown_name"), ("notes", "unknown_name"),
        ("train-00002", "no_label"), ("train-00003", "no_label"), ("train-00004", "bad_line"),
        ("train-00005", "bad_line"), ("train-00006", "bad_line"), ("train-00007", "bad_line"),
        ("train-00008", "no_label"), ("train-00009", "bad_line"),
    ]  # fmt: skip


def test_twitter_missing_pictures_stay_unless_dropped(tmp_path):
    twitter_tree(tmp_path, train__tsv=tsv(ROWS), images=["7.jpg"])
    kept, dropped = scan_twitter(tmp_path), scan_twitter(tmp_path, drop_missing=True)
    assert len(kept.candidates) == 3 and not kept.rejected
    assert kept.candidates[2].sources == {"image": ("twitter2015_images/8.jpg",)}
    assert len(dropped.candidates) == 2
    (line,) = dropped.rejected
    assert (line.id, line.source, line.reason) == (
        "train-00003", "twitter2015_images/8.jpg", "missing_file",
    )  # fmt: skip


@pytest.mark.parametrize("harm", ["drop", "twice", "cut", "polarity"])
def test_twitter_txt_out_of_step_is_refused(tmp_path, harm):
    lines = txt(ROWS)
    lines = {
        "drop": lines[:5] + lines[6:], "twice": [lines[0], *lines], "cut": lines[:-1],
        "polarity": [*lines[:6], "good", *lines[7:]],
    }[harm]  # fmt: skip
    with pytest.raises(UsageError, match="out of step"):
        scan_twitter(twitter_tree(tmp_path / "a", train__txt=lines))
    twitter_tree(tmp_path / "b", train__txt=lines, train__tsv=tsv(ROWS))
    scan = scan_twitter(tmp_path / "b")  # the .tsv is whole: the other is only noted
    assert len(scan.candidates) == 3 and "out of step" in scan.warnings[0]


def test_twitter_txt_with_a_text_that_cannot_be_read_loses_that_sample(tmp_path):
    lines = txt(ROWS)
    lines[4] = "x" * (MAX_LINE_BYTES + 1)
    scan = scan_twitter(twitter_tree(tmp_path, train__txt=lines))
    assert [c.id for c in scan.candidates] == ["train-00001", "train-00003"]
    assert [(r.id, r.reason) for r in scan.rejected] == [("train-00002", "bad_line")]


def test_twitter_lists_that_differ_are_noted(tmp_path):
    twitter_tree(tmp_path, train__tsv=tsv(ROWS), train__txt=txt(ROWS[:2]))
    scan = scan_twitter(tmp_path)
    assert len(scan.candidates) == 3 and "different samples (3 and 2)" in scan.warnings[0]


@pytest.mark.parametrize("images", ["", "absa_data", "absa_data/twitter2015"])
@pytest.mark.parametrize("outer", ["", "IJCAI2019_data"])
def test_twitter_is_found_where_it_stands(tmp_path, images, outer):
    base = tmp_path / outer
    twitter_tree(base, "absa_data/twitter2015", train__tsv=tsv(ROWS))
    twitter_tree(base, "absa_data/twitter", train__tsv=tsv(ROWS[:1]))  # the set of 2017 beside it
    if images:
        (base / "twitter2015_images").rename(base / images / "twitter2015_images")
    scan = scan_twitter(tmp_path)
    assert len(scan.candidates) == 3 and not scan.rejected
    assert (tmp_path / scan.candidates[0].sources["image"][0]).is_file()


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_wrong_root_says_what_it_must_hold(tmp_path, dataset):
    layout = LAYOUTS[dataset]
    (tmp_path / "train.txt").touch()
    with pytest.raises(UsageError) as error:
        layout.scan(tmp_path, layout.Settings())
    assert str(tmp_path) in str(error.value) and layout.IMAGES in str(error.value)
    assert layout.SOURCE in str(error.value) and "\n" not in str(error.value)


def test_specs_and_views():
    for layout, pair, missing in ((sarcasm, False, "reject"), (twitter2015, True, "fill")):
        settings = layout.Settings(vocabulary="build", max_tokens=50)
        spec = layout.spec(settings)
        assert list(spec) == ["image", "text"] == list(layout.views(settings))
        assert (spec["text"].pair, spec["text"].max_tokens) == (pair, 50)
        assert layout.Settings().max_tokens == 512 and layout.Settings().vocabulary == "electra"
        assert spec["image"].missing == missing
        assert layout.views(settings) == {"image": VideoView(1, "rotate_flip"), "text": PlainView()}
        assert layout.normalise(settings) == {"image": "imagenet", "text": None}
    dropped = twitter2015.spec(twitter2015.Settings(vocabulary="build", drop_missing=True))
    assert dropped["image"].missing == "reject"


def test_the_layouts_import_without_numpy_or_torch():
    code = (
        "import sys, data_prep.datasets.sarcasm, data_prep.datasets.twitter2015;"
        "sys.exit(bool({'torch', 'numpy', 'av', 'cv2', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def write(dataset, folder, per_class=4, corrupt_each=0, **more):
    """A generated tree folder/raw and its truth folder/truth.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    root, truth = folder / "raw", folder / "truth.csv"
    WRITERS[dataset](
        root, per_class, truth_path=truth, corrupt_each=corrupt_each, workers=1, **more
    )
    return root


def files(root):
    return {str(p.relative_to(root)): file_digest(p) for p in root.rglob("[!.]*") if p.is_file()}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_the_generators_are_deterministic(tmp_path, dataset):
    one = write(dataset, tmp_path / "1", corrupt_each=1)
    two = write(dataset, tmp_path / "2", corrupt_each=1)
    other = write(dataset, tmp_path / "3", corrupt_each=1, seed=1)
    assert files(one) == files(two) != files(other)
    assert file_digest(tmp_path / "1/truth.csv") == file_digest(tmp_path / "2/truth.csv")


@pytest.mark.parametrize("dataset,lists", [
    ("sarcasm", None), ("twitter2015", "both"), ("twitter2015", "tsv"), ("twitter2015", "txt"),
])  # fmt: skip
def test_every_kind_of_damage_ends_as_the_truth_says(tmp_path, dataset, lists):
    more = {"lists": lists} if lists else {}
    root = write(dataset, tmp_path, per_class=4, corrupt_each=2, **more)
    settings = LAYOUTS[dataset].Settings(vocabulary="build")
    before = files(root)
    folder = prepare(dataset, root, tmp_path / "data", settings, max_bad=1.0, workers=1)
    assert files(root) == before
    kept = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    rejected = {(row["id"], row["reason"]) for row in read_table(folder / "rejected.csv")}
    truth = read_table(tmp_path / "truth.csv")
    kinds = set(EXPECTED[dataset]) - ({"bad_line"} if lists == "txt" else set())
    assert {row["corruption"] for row in truth} == kinds | {""}
    for row in truth:
        reason, sample = row["expected_reason"], kept.get(row["id"])
        if not reason:
            assert sample["label_name"] == row["label"] and not sample["flags"], row
        elif reason.startswith("flag:"):
            assert sample["flags"] == reason[5:], row
        else:
            # Of a duplicate, the first is a sample, and has a line of its own in the truth.
            assert (row["id"], reason) in rejected and (
                sample is None or reason in ("duplicate", "second_file")
            )
    assert set(kept) <= {row["id"] for row in truth}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_prepared_bytes_do_not_depend_on_workers_or_place(tmp_path, dataset):
    root = write(dataset, tmp_path, corrupt_each=1)
    settings = LAYOUTS[dataset].Settings(vocabulary="build")
    folders = [
        prepare(dataset, root, tmp_path / "data1", settings, max_bad=1.0, workers=1),
        prepare(dataset, root.rename(tmp_path / "r"), tmp_path / "data2", settings, max_bad=1.0),
    ]
    one, two = (files(folder) for folder in folders)
    assert one == two and "samples-00000.arrow" in one
    assert all(str(tmp_path).encode() not in (folders[0] / name).read_bytes() for name in one)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_declared_parts_and_groups_become_splits(tmp_path, dataset):
    root = write(dataset, tmp_path, per_class=20)
    settings = LAYOUTS[dataset].Settings(vocabulary="build")
    prepared = Prepared(prepare(dataset, root, tmp_path / "data", settings, workers=1))
    declared = np.array([v for shard in prepared.shards for v in shard.column("part")])
    for part, positions in prepared.split("official", 0).items():
        assert len(positions) and (declared[positions] == part).all()
    if dataset == "sarcasm":
        with pytest.raises(UsageError, match="groups"):
            prepared.split("group", 0)
        return
    groups = np.array([v for shard in prepared.shards for v in shard.column("group")])
    assert len(set(groups)) < len(groups)  # tweets with two targets are among them
    parts = [set(groups[positions]) for positions in prepared.split("group", 0).values()]
    assert sum(map(len, parts)) == len(set(groups))


def test_cues_are_erased_as_often_as_asked(tmp_path):
    write("twitter2015", tmp_path / "a", 8, look=TweetLook(image_erased=1, text_erased=0))
    write(
        "sarcasm", tmp_path / "b", 8, look=TweetLook(image_erased=0, text_erased=1, interaction=1)
    )
    write("sarcasm", tmp_path / "c", 8, look=TweetLook(image_erased=0, interaction=0))
    cues = [
        {(row["m1_cue"], row["m2_cue"]) for row in read_table(tmp_path / name / "truth.csv")}
        for name in "abc"
    ]
    assert cues[0] == {("0", "1")} and cues[1] == {("1", "0")} and {c for c, _ in cues[2]} == {"0"}


@pytest.mark.parametrize("dataset", LAYOUTS)
@pytest.mark.slow
def test_from_raw_to_a_trained_run(tmp_path, dataset):
    root = write(dataset, tmp_path, per_class=16)
    done = program(
        "train.py", "--dataset", dataset, "--dataset_root", root, "--method", "Midas",
        "--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run", "--size", "32",
        "--max_epochs", "3", "--devices", "cpu", "--vocabulary", "build", "--text_model", "tiny",
        "--weights", "none", "--encoder", "small", "--batch_size", "16",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run, total = RunFolder(tmp_path / "run"), 16 * len(LAYOUTS[dataset].LABELS)
    assert f"{total} of {total} samples prepared" in done.stderr
    result = run.read_json("result.json")
    assert result["count/n_train"] == 7 * total // 10 and 0 <= result["test/acc"] <= 1
    # Of two classes any two are the best two: misaligned samples tell something from three on.
    assert ("test/acc_mis" in result) == (dataset == "twitter2015")
    assert run.read_log()[-1]["train/n_valid"] > 0
    assert run.read_json("config.json")["prep"]["vocabulary"] == "build"
