"""Trees made for the official MIDAS release: recognition, lists, damage, and its commands."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import program
from raw import plant, reasons, scan

from common.files import read_table
from common.options import UsageError
from data_prep import datasets
from data_prep.datasets.release import find_release
from data_prep.prepare import prepare
from data_prep.spec import Listed
from data_prep.store import Prepared
from data_prep.verify import verify
from experiments.run.folder import RunFolder
from fixtures.release import DAMAGE, LISTS, line_of, write_lists, write_release, write_sample

SETS = ["cremad", "ucf101", "food101", "kinetics"]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden_midas_official.json").read_text("utf-8"))
CASES = {case["id"]: case for case in GOLDEN["cases"] if case["kind"] == "layout"}


def prepared(dataset, tmp_path, **settings):
    chosen = datasets.load(dataset).Settings(**settings)
    return prepare(dataset, tmp_path / "raw", tmp_path / "data", chosen, workers=1, max_bad=1.0,
                   allow_missing_classes=True)  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_release_s_split_of_a_tree(tmp_path, case):
    dataset, inputs, expect = CASES[case]["variant"], CASES[case]["inputs"], CASES[case]["expect"]
    root, labels = tmp_path / "raw", datasets.load(dataset).LABELS
    for file in LISTS[dataset]:
        for line in inputs["files"][file].splitlines()[1:]:
            word = line.split(",")[1] if dataset == "cremad" else line.split("/")[0]
            clip = line.split(",")[0] if dataset == "cremad" else line.split("/")[1].split(".")[0]
            write_sample(dataset, root, "", clip, labels.index(word), 0)
    for file, text in inputs["files"].items():
        (root / file).write_text(text, encoding="utf-8", newline="")
    for clip in inputs.get("without_wav", []):
        (root / "AudioWAV" / f"{clip}.wav").unlink()
    for clip in inputs.get("two_frames", []):
        for picture in sorted((root / "visual_frames" / clip).iterdir())[2:]:
            picture.unlink()
    for key, folder in (("without_frames", "visual_frames"), ("without_flow_v", "flows_v")):
        for clip in inputs.get(key, []):
            shutil.rmtree(root / folder / clip, ignore_errors=True)
    folder = prepared(dataset, tmp_path)
    found, parts = Prepared(folder), Prepared(folder).split("release", inputs["seed"])
    for part, positions in parts.items():
        seen = [(found.ids[p], found.label_names[found.labels[p]]) for p in positions]
        assert seen == [(sample, expect["classes"][k]) for sample, k in expect[part]]
    assert len(read_table(folder / "pool.csv")) == expect["listed"]
    assert verify(folder, dataset) == []


# Recognition --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("inside", ["", "made"])
def test_a_tree_is_recognised_at_the_root_or_a_folder_down(tmp_path, dataset, inside):
    write_release(dataset, tmp_path / inside, 3, 2)
    for file in LISTS[dataset] if inside else ():  # as another system writes them
        data = (tmp_path / inside / file).read_bytes().replace(b"\n", b"\r\n")
        (tmp_path / inside / file).write_bytes(b"\xef\xbb\xbf" + data)
    found = scan(dataset, tmp_path)
    assert len(found.candidates) == 6 and found.rejected == []
    assert {row.id for row in found.pool} == {c.id for c in found.candidates}
    keys = {"cremad": {"NEU", "HAP"}, "ucf101": {1, 2}}.get(dataset, {0, 1})
    assert {row.key for row in found.pool} == keys and {c.label for c in found.candidates} == {0, 1}
    assert any("official MIDAS code" in warning for warning in found.warnings)
    sources = [path for c in found.candidates for paths in c.sources.values() for path in paths]
    assert all((tmp_path / path).exists() for path in sources)


@pytest.mark.parametrize(("dataset", "folder", "name"), [
    ("cremad", "VideoFlash", "splits/test.csv"), ("cremad", "CREMA-D/VideoFlash", "val.csv"),
    ("ucf101", "UCF-101", "ucfTrainTestlist/trainlist01_new.txt"),
    ("food101", "texts", "meta/train.jsonl"), ("kinetics", "train", "videos/train.txt"),
])  # fmt: skip
def test_a_list_of_that_name_in_a_download_is_no_release_tree(tmp_path, dataset, folder, name):
    (tmp_path / folder).mkdir(parents=True)
    assert find_release(plant(tmp_path, name), dataset, ()) is None


@pytest.mark.parametrize("dataset", SETS)
def test_an_incomplete_tree_is_refused(tmp_path, dataset):
    write_release(dataset, tmp_path, 2, 2)
    folder = {"cremad": "AudioWAV", "kinetics": "audios", "food101": "images/test"}
    for name in (*LISTS[dataset], folder.get(dataset, "flows_v")):
        (tmp_path / name).rename(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match=f"lacks {name}: such a tree must be complete"):
            scan(dataset, tmp_path)
        (tmp_path / "elsewhere").rename(tmp_path / name)


# Lists --------------------------------------------------------------------------------------------

WORDS = {"cremad": "NEU", "ucf101": "ApplyEyeMakeup", "food101": "apple_pie", "kinetics": ""}
BAD = [
    b"a\n", b"\xe9 0 0 1\n", b"x" * 20000 + b"\n", b'"a,b\n', b"[" * 9000 + b"\n",
    b'{"img": "a.jpg" }\n', b"\0\n", b"a,b,c,d,e f g h i\n",
]  # fmt: skip
STRANGE = {
    "cremad": b"a,JOY,JOY\n", "ucf101": b"Yoga/v_Yoga_g01_c01.avi 102\n",
    "food101": b'{"img": "a.jpg", "text": "", "label": 101}\n', "kinetics": b"a 0 1 31\n",
}  # fmt: skip
NOWHERE = {
    "../../etc/passwd": "outside_root", "/etc/shadow": "outside_root", "a/../b": "outside_root",
    "a//c": "unknown_name", "./d": "unknown_name", ".git": "unknown_name", "e\x01": "unknown_name",
    "nothing": "missing_file", "n" * 300: "missing_file",
}  # fmt: skip


@pytest.mark.parametrize("dataset", SETS)
def test_a_row_that_is_not_a_sample_affects_no_others(tmp_path, dataset):
    write_release(dataset, tmp_path, 3, 2)
    path, due = tmp_path / next(iter(LISTS[dataset])), dict(NOWHERE)
    if dataset == "ucf101":  # below a class: "ApplyEyeMakeup//etc/shadow.avi"
        due["/etc/shadow"] = "unknown_name"
    names = [f"{line_of(dataset, name, 0, WORDS[dataset])}\n".encode() for name in NOWHERE]
    first = path.read_bytes().splitlines(True)[1]
    lines = [b"\n", b"  \r\n", *BAD, first, STRANGE[dataset], *names]
    path.write_bytes(path.read_bytes() + b"".join(lines))
    found = scan(dataset, tmp_path)
    assert len(found.candidates) == 6 and all(len(r.detail) < 400 for r in found.rejected)
    reasons = ["bad_line"] * len(BAD) + ["duplicate", "no_label", *due.values()]
    assert [r.reason for r in found.rejected] == reasons
    assert len(found.pool) == 6 + 2 + len(due)
    assert all("line " in r.id + r.detail for r in found.rejected)


@pytest.mark.parametrize("text", ["", "clip,class\na,NEU\n", "label\nNEU\n", "\xff"])
def test_a_list_without_a_column_called_label_is_refused(tmp_path, text):
    write_release("cremad", tmp_path, 2, 2)
    (tmp_path / "val.csv").write_text(text, "latin-1")
    with pytest.raises(UsageError, match="val.csv must begin with a header of at least 2 columns"):
        scan("cremad", tmp_path)


def test_the_list_s_label_column_decides_the_draw_and_the_second_the_class(tmp_path):
    rows = [f"100{k}_DFA_HAP_XX,HAP,{k % 2}" for k in range(6)]
    write_release("cremad", tmp_path, 1, 2)
    (tmp_path / "val.csv").write_text("\n".join(["name,emotion,label", *rows]))
    found = scan("cremad", tmp_path)
    keys = [row.key for row in found.pool if row.id in {line[:15] for line in rows}]
    assert keys == [f"{k % 2}" for k in range(6)]  # text, since other rows have words


@pytest.mark.parametrize(("dataset", "file", "old", "new", "label"), [
    ("cremad", "val.csv", ",HAP,", ",SAD,", 2), ("cremad", "val.csv", ",NEU,", ",SAD,", 2),
    ("food101", "test.jsonl", '"label": 1', '"label": 7', 7),
    ("ucf101", "testlist01_new.txt", "ApplyLipstick/", "YoYo/", 100),
])  # fmt: skip
def test_the_list_s_class_wins_over_the_name_s(tmp_path, dataset, file, old, new, label):
    write_release(dataset, tmp_path, 10, 2)
    (tmp_path / file).write_text((tmp_path / file).read_text().replace(old, new))
    found = scan(dataset, tmp_path)
    assert {r.reason for r in found.rejected} == {"label_conflict"}
    assert label in {c.label for c in found.candidates} and len(found.candidates) == 20


# folders with entries in no list -> reasons for a folder of pictures and for a file a.wav
SOUNDS, PICTURES = ("unknown_name", "no_label"), ("no_label", "unknown_name")
UNLISTED = {
    "cremad": {"AudioWAV": SOUNDS, "visual_frames": PICTURES},
    "kinetics": {"audios": SOUNDS, "videos": PICTURES},
    "ucf101": dict.fromkeys(("frames_rgb", "flows_u", "flows_v"), PICTURES),
    "food101": {"images/train": (None, "unknown_name")},
}  # fmt: skip


@pytest.mark.parametrize("dataset", SETS)
def test_each_unlisted_entry_is_one_line(tmp_path, dataset):
    write_release(dataset, tmp_path, 3, 2)
    expected = {"more": "unknown_name", "caf\udce9": "unknown_name"}
    (tmp_path / "more").mkdir()
    plant(tmp_path, "caf\udce9")
    for folder, (of_folder, of_file) in UNLISTED[dataset].items():
        plant(tmp_path / folder, *(f"other/{k}.jpg" for k in range(3)), "a.wav", ".DS_Store")
        expected[f"{folder}/a.wav"] = of_file
        if of_folder:
            expected[f"{folder}/other"] = of_folder
        else:
            expected |= {f"{folder}/other/{k}.jpg": "no_text" for k in range(3)}
    assert reasons(scan(dataset, tmp_path)) == expected


@pytest.mark.parametrize("first,lost,noted", [
    ("00000000000_000000_000010 0 8 0", True, []), ("name start end label", False, ["header_line"]),
    ("name 5", False, ["bad_line"]),
])  # fmt: skip
def test_the_first_line_of_the_kinetics_lists(tmp_path, first, lost, noted):
    write_release("kinetics", tmp_path, 4, 2)
    path = tmp_path / "videos/train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([first, *lines[lost:]]) + "\n")
    found = scan("kinetics", tmp_path)
    assert [r.reason for r in found.rejected] == noted and len(found.candidates) == 8
    lost_rows = [row.id for row in found.pool if row.header]
    assert len(lost_rows) == 1 + lost and (lines[0].split()[0] in lost_rows) == lost
    assert any("no part" in w and lost_rows[-1] in w for w in found.warnings)


def test_kinetics_groups_are_the_videos(tmp_path):
    rows = [("ab_-cdefghi_000001_000011", 3), ("clip7", 3), ("x", 0)]
    write_lists("kinetics", tmp_path, rows)
    for name, label in rows[:2]:
        write_sample("kinetics", tmp_path, "", name, label, 0)
    assert [(c.id, c.group, c.label, c.part) for c in scan("kinetics", tmp_path).candidates] == [
        ("ab_-cdefghi_000001_000011", "ab_-cdefghi", 3, "train"), ("clip7", "clip7", 3, "train"),
    ]  # fmt: skip


def test_the_order_of_the_titles_is_the_pool_of_a_download(tmp_path):
    rows = "b.jpg,x,waffles\nnone.jpg,x,waffles\na.jpg,x,sushi\nd.jpg,x,soup\n"
    pictures = (f"images/{p}" for p in ("train/waffles/b.jpg", "train/apple_pie/a.jpg",
                                        "test/ramen/c.jpg"))  # fmt: skip
    lists = {"texts/train_titles.csv": rows, "texts/test_titles.csv": "c.jpg,x,ramen\n"}
    assert scan("food101", plant(tmp_path, *pictures, lists=lists)).pool == [
        Listed("train/waffles/b.jpg", 100), Listed("train/waffles/none.jpg", 100),
        Listed("train/apple_pie/a.jpg", 95), Listed("test/ramen/c.jpg", 81),
    ]  # fmt: skip


# Damage, and the official commands ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SETS)
def test_damage_of_each_kind(tmp_path, dataset):
    truth = write_release(dataset, tmp_path / "raw", 12, 2, damaged=True)
    assert len(truth) == len(DAMAGE[dataset])
    settings = {"vocabulary": "build"} if dataset == "food101" else {}
    folder = prepared(dataset, tmp_path, **settings)
    manifest = {row["id"]: row["flags"].split(";") for row in read_table(folder / "manifest.csv")}
    rejected = {row["id"]: row["reason"] for row in read_table(folder / "rejected.csv")}
    for sample, expected in truth.items():
        if expected and not expected.startswith("flag:"):
            assert (rejected.get(sample), sample in manifest) == (expected, False), sample
        else:
            assert expected.removeprefix("flag:") in [*manifest[sample], ""], sample
    sound = set(manifest) - set(truth)
    usual = {"precomputed_flow"} if dataset == "ucf101" else {""}
    assert len(sound) == 24 and all(set(manifest[name]) == usual for name in sound)
    assert len(manifest) + len(rejected) == 24 + len(truth)
    assert verify(folder, dataset) == []


SMALL = "--max_epochs 2 --size 16 --encoder small --weights none --batch_size 32".split()
MORE = {
    "cremad": ["--spec_pool", "8"], "kinetics": ["--spec_pool", "8"], "ucf101": [],
    "food101": "--vocabulary build --text_model tiny --max_tokens 16".split(),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("recipe", [(), ("--recipe", "official")])
def test_the_commands_of_the_official_readme(tmp_path, dataset, recipe):
    write_release(dataset, tmp_path / "raw", 10)  # fewer of a class, and the release cannot draw
    official = ["--dataset", dataset, "--dataset_root", tmp_path / "raw", "--devices", "0"]
    where = ["--data_dir", tmp_path / "data", "--results_dir", tmp_path / "results"]
    done = program("train.py", *official, *SMALL, *MORE[dataset], *where, *recipe)
    assert done.returncode == 0, done.stderr[-2000:]
    (config,) = (tmp_path / "results").rglob("config.json")
    run = RunFolder(config.parent)
    assert run.read_log()[-1]["train/n_valid"] > 0
    result = run.read_json("result.json")
    parts = [result[f"count/n_{part}"] for part in ("train", "val", "test")]
    lost = 2 if recipe and dataset == "kinetics" else 0  # the first lines of its lists
    assert sum(parts) == 10 * len(datasets.load(dataset).LABELS) - lost
