"""Trees made for the official MIDAS release: lists, folders of frames, damage, and its commands."""

import json
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import rejection
from conftest import program
from release_trees import (
    DAMAGE,
    LISTS,
    line_of,
    write_frames,
    write_lists,
    write_sample,
    write_tree,
)

from common.files import read_table
from common.options import UsageError
from data_prep import datasets
from data_prep.datasets import kinetics
from data_prep.datasets.release_lists import find
from data_prep.modalities import flow, frames, video
from data_prep.modalities.image import is_plain_jpeg
from data_prep.modalities.transforms import choose_frames
from data_prep.prepare import prepare, with_printable_names
from data_prep.reasons import REASONS
from data_prep.spec import Flow, Listed, Video
from data_prep.store import Prepared, read_pool, write_pool
from data_prep.verify import verify
from experiments.run.folder import RunFolder
from experiments.run.predict import read_manifest

SETS = ["cremad", "ucf101", "food101", "kinetics"]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden_midas_official.json").read_text("utf-8"))
CASES = {case["id"]: case for case in GOLDEN["cases"] if case["kind"] == "layout"}


def scan(dataset, root, **settings):
    layout = datasets.load(dataset)
    return layout.scan(root, layout.Settings(**settings))


def prepared(dataset, tmp_path, **settings):
    chosen = datasets.load(dataset).Settings(**settings)
    return prepare(dataset, tmp_path / "raw", tmp_path / "data", chosen, workers=1, max_bad=1.0,
                   allow_missing_classes=True)  # fmt: skip


# --- the release's own numbers --------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_release_s_split_of_a_tree(tmp_path, case):
    dataset, inputs, expect = CASES[case]["variant"], CASES[case]["inputs"], CASES[case]["expect"]
    root, names, labels = tmp_path / "raw", [], datasets.load(dataset).LABELS
    for file in LISTS[dataset]:
        for line in inputs["files"][file].splitlines()[1:]:
            word = line.split(",")[1] if dataset == "cremad" else line.split("/")[0]
            clip = line.split(",")[0] if dataset == "cremad" else line.split("/")[1].split(".")[0]
            names.append((clip, labels.index(word)))
    for clip, label in names:
        write_sample(dataset, root, "", clip, label, 6 if dataset == "cremad" else 101, 0)
    for file, text in inputs["files"].items():
        (root / file).write_text(text, encoding="utf-8", newline="")
    for clip in inputs.get("without_wav", []):
        (root / "AudioWAV" / f"{clip}.wav").unlink()
    for clip in inputs.get("two_frames", []):
        for picture in sorted((root / "visual_frames" / clip).iterdir())[2:]:
            picture.unlink()
    for folder in ("visual_frames", "flows_v"):
        for clip in inputs.get(
            {"visual_frames": "without_frames"}.get(folder, "without_flow_v"), []
        ):
            shutil.rmtree(root / folder / clip, ignore_errors=True)
    folder = prepared(dataset, tmp_path)
    found, parts = Prepared(folder), Prepared(folder).split("release", inputs["seed"])
    for part, positions in parts.items():
        seen = [(found.ids[p], found.label_names[found.labels[p]]) for p in positions]
        assert seen == [(sample, expect["classes"][k]) for sample, k in expect[part]]
    assert len(read_table(folder / "pool.csv")) == expect["listed"]
    assert verify(folder, dataset) == []


# --- recognition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("inside", ["", "made"])
def test_a_tree_is_recognised_at_the_root_or_a_folder_down(tmp_path, dataset, inside):
    write_tree(dataset, tmp_path / inside, 3, 2)
    found = scan(dataset, tmp_path)
    assert len(found.candidates) == 6 and found.rejected == []
    assert {row.id for row in found.pool} == {c.id for c in found.candidates}
    keys = {"cremad": {"NEU", "HAP"}, "ucf101": {1, 2}}.get(dataset, {0, 1})
    assert {row.key for row in found.pool} == keys
    assert any("official MIDAS code" in warning for warning in found.warnings)
    sources = [path for c in found.candidates for paths in c.sources.values() for path in paths]
    assert all((tmp_path / path).exists() for path in sources)
    assert {c.label for c in found.candidates} == {0, 1}


@pytest.mark.parametrize(("dataset", "folder", "list_"), [
    ("cremad", "VideoFlash", "splits/test.csv"),
    ("cremad", "CREMA-D/VideoFlash", "val.csv"),
    ("ucf101", "UCF-101", "ucfTrainTestlist/trainlist01_new.txt"),
    ("food101", "texts", "meta/train.jsonl"),
    ("kinetics", "train", "videos/train.txt"),
])  # fmt: skip
def test_a_list_of_that_name_in_a_download_is_no_release_tree(tmp_path, dataset, folder, list_):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / list_).parent.mkdir(exist_ok=True)
    (tmp_path / list_).touch()
    assert find(tmp_path, dataset) is None


def test_predictions_read_folders_of_flow_where_the_run_did(tmp_path):
    spec = {"flow": Flow("dis", of_folder=30)}
    for cell, due in (
        ("flows_u/a;flows_v/a", ("flows_u/a", "flows_v/a")),
        ("a.avi", ("a.avi",)),
    ):
        (tmp_path / "new.csv").write_text(f'id,flow\na,"{cell}"\n')
        (candidate,), bad = read_manifest(tmp_path / "new.csv", spec)
        assert candidate.sources["flow"] == due and not bad


@pytest.mark.parametrize("dataset", SETS)
def test_a_tree_that_is_not_whole_is_refused(tmp_path, dataset):
    write_tree(dataset, tmp_path, 2, 2)
    for file in LISTS[dataset]:
        text = (tmp_path / file).read_text()
        (tmp_path / file).unlink()
        with pytest.raises(UsageError, match=f"lacks {file}: such a tree must be whole"):
            scan(dataset, tmp_path)
        (tmp_path / file).write_text(text)
    folder = {"cremad": "AudioWAV", "kinetics": "audios", "food101": "images/test"}
    (tmp_path / folder.get(dataset, "flows_v")).rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"lacks {folder.get(dataset, 'flows_v')}: such a tree"):
        scan(dataset, tmp_path)


def test_a_download_with_a_list_of_the_release_is_still_the_download(tmp_path):
    for name in ("AudioWAV/1001_DFA_ANG_XX.wav", "VideoFlash/1001_DFA_ANG_XX.flv", "test.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [c.sources["video"] for c in scan("cremad", tmp_path).candidates] == [
        ("VideoFlash/1001_DFA_ANG_XX.flv",)
    ]


# --- lists ----------------------------------------------------------------------------------------

WORDS = {"cremad": "NEU", "ucf101": "ApplyEyeMakeup", "food101": "apple_pie", "kinetics": ""}


def with_lines(dataset, root, *lines: bytes):
    """The scan of a sound tree with lines more at the end of its first list."""
    write_tree(dataset, root, 3, 2)
    path = root / next(iter(LISTS[dataset]))
    path.write_bytes(path.read_bytes() + b"".join(lines))
    found = scan(dataset, root)
    assert len(found.candidates) == 6
    assert all(r.reason in REASONS and len(r.detail) < 400 for r in found.rejected)
    return found


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("line,reason", [
    (b"\n", None), (b"  \r\n", None), (b"a\n", "bad_line"), (b"\xe9 0 0 1\n", "bad_line"),
    (b"x" * 20000 + b"\n", "bad_line"), (b'"a,b\n', "bad_line"), (b"[" * 9000 + b"\n", "bad_line"),
    (b'{"img": "a.jpg" }\n', "bad_line"), (b"\0\n", "bad_line"), (b"a,b,c,d,e f g h i", "bad_line"),
])  # fmt: skip
def test_lines_of_another_form(tmp_path, dataset, line, reason):
    found = with_lines(dataset, tmp_path, line)
    assert [r.reason for r in found.rejected] == [reason] * bool(reason)
    assert len(found.pool) == 6
    if reason:
        assert "line " in found.rejected[0].id


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("name,reason", [
    ("../../etc/passwd", "outside_root"), ("/etc/passwd", "outside_root"),
    ("a/../b", "outside_root"), ("a//b", "unknown_name"), ("./a", "unknown_name"),
    (".git", "unknown_name"), ("a\x01", "unknown_name"), ("nothing", "missing_file"),
    ("n" * 300, "missing_file"),
])  # fmt: skip
def test_names_that_lead_nowhere(tmp_path, dataset, name, reason):
    line = f"{WORDS[dataset]}/{name}.avi 1" if dataset == "ucf101" else ""
    line = line or line_of(dataset, name, 0, WORDS[dataset])
    found = with_lines(dataset, tmp_path, f"{line}\n".encode())
    (row,) = found.rejected
    if dataset == "ucf101" and reason != "outside_root" and "/" in name:
        reason = "unknown_name"
    if dataset == "ucf101" and name == "/etc/passwd":
        reason = "unknown_name"  # "ApplyEyeMakeup//etc/passwd.avi"
    assert row.reason == reason and "line " in row.detail
    assert len(found.pool) == 7


@pytest.mark.parametrize("dataset", SETS)
def test_duplicates_and_unknown_classes(tmp_path, dataset):
    write_tree(dataset, tmp_path / "first", 3, 2)
    first = (tmp_path / "first" / next(iter(LISTS[dataset]))).read_bytes().splitlines(True)[1]
    strange = {
        "cremad": b"a,JOY,JOY\n",
        "ucf101": b"Yoga/v_Yoga_g01_c01.avi 102\n",
        "food101": b'{"img": "a.jpg", "text": "", "label": 101}\n',
        "kinetics": b"a 0 1 31\n",
    }
    found = with_lines(dataset, tmp_path / "second", first, strange[dataset])
    assert [r.reason for r in found.rejected] == ["duplicate", "no_label"]
    assert len(found.pool) == 8


@pytest.mark.parametrize("dataset", SETS)
def test_crlf_and_a_byte_order_mark(tmp_path, dataset):
    write_tree(dataset, tmp_path, 3, 2)
    before = scan(dataset, tmp_path)
    for file in LISTS[dataset]:
        data = (tmp_path / file).read_bytes().replace(b"\n", b"\r\n")
        (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + data)
    assert scan(dataset, tmp_path) == before


def test_a_list_without_a_column_called_label_is_refused(tmp_path):
    write_tree("cremad", tmp_path, 2, 2)
    for text in ("", "clip,class\na,NEU\n", "label\nNEU\n", "\xff"):
        (tmp_path / "val.csv").write_text(text, "latin-1")
        with pytest.raises(UsageError, match="val.csv does not begin with a header of 2 columns"):
            scan("cremad", tmp_path)


def test_the_list_s_label_column_decides_the_draw_and_the_second_the_class(tmp_path):
    rows = [f"100{k}_DFA_HAP_XX,HAP,{k % 2}" for k in range(6)]
    write_tree("cremad", tmp_path, 1, 2)
    (tmp_path / "val.csv").write_text("\n".join(["name,emotion,label", *rows]))
    found = scan("cremad", tmp_path)
    keys = [row.key for row in found.pool if row.id in {line[:15] for line in rows}]
    assert keys == [f"{k % 2}" for k in range(6)]  # text, since other rows have words


def test_a_class_that_the_name_contradicts_is_told(tmp_path):
    write_tree("cremad", tmp_path / "a", 2, 2)
    path = tmp_path / "a/val.csv"
    path.write_text(path.read_text().replace("NEU,", "SAD,").replace("HAP,", "SAD,"))
    kinds = {r.reason for r in scan("cremad", tmp_path / "a").rejected}
    write_tree("food101", tmp_path / "b", 2, 2)
    path = tmp_path / "b/test.jsonl"
    path.write_text(path.read_text().replace('"label": 1', '"label": 7'))
    found = scan("food101", tmp_path / "b")
    assert kinds | {r.reason for r in found.rejected} == {"label_conflict"}
    assert max(c.label for c in found.candidates) == 7  # the list wins


def test_class_lists_of_another_set_are_told(tmp_path):
    write_tree("cremad", tmp_path, 2, 2)
    (tmp_path / "stat.csv").write_text("\ufeffNEU,1\nJOY,2\n", encoding="utf-8")
    assert [(r.id, r.reason) for r in scan("cremad", tmp_path).rejected] == [
        ("stat.csv, line 2", "no_label")
    ]


@pytest.mark.parametrize("dataset", SETS)
def test_what_no_list_names_is_one_line_each(tmp_path, dataset):
    write_tree(dataset, tmp_path, 3, 2)
    folders = {
        "cremad": ("AudioWAV", "visual_frames"),
        "kinetics": ("audios", "videos"),
        "ucf101": ("frames_rgb", "flows_u", "flows_v"),
        "food101": ("images/train",),
    }
    expected = {"more": "unknown_name", "caf\udce9": "unknown_name"}
    for folder in folders[dataset]:
        (tmp_path / folder / "other").mkdir()
        for k in range(3):
            (tmp_path / folder / f"other/{k}.jpg").write_bytes(b"")
        (tmp_path / folder / "a.wav").write_bytes(b"")
        (tmp_path / folder / ".DS_Store").write_bytes(b"")
        expected[f"{folder}/other"] = "no_label"
        expected[f"{folder}/a.wav"] = "unknown_name"
    if dataset in ("cremad", "kinetics"):
        expected[f"{folders[dataset][0]}/other"] = "unknown_name"
        expected[f"{folders[dataset][0]}/a.wav"] = "no_label"
    if dataset == "food101":
        del expected["images/train/other"]
        expected |= {f"images/train/other/{k}.jpg": "no_text" for k in range(3)}
    (tmp_path / "more").mkdir()
    (tmp_path / "caf\udce9").write_bytes(b"")
    found = scan(dataset, tmp_path)
    assert {r.source: r.reason for r in found.rejected} == expected


@pytest.mark.parametrize("first,lost,told", [
    ("00000000000_000000_000010 0 8 0", True, []), ("name start end label", False, ["header_line"]),
    ("name 5", False, ["bad_line"]),
])  # fmt: skip
def test_the_first_line_of_the_kinetics_lists(tmp_path, first, lost, told):
    write_tree("kinetics", tmp_path, 4, 2)
    path = tmp_path / "videos/train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([first, *lines[lost:]]) + "\n")
    found = scan("kinetics", tmp_path)
    assert [r.reason for r in found.rejected] == told and len(found.candidates) == 8
    lost_rows = [row.id for row in found.pool if row.header]
    assert len(lost_rows) == 1 + lost and (lines[0].split()[0] in lost_rows) == lost
    assert any("no part" in w and lost_rows[-1] in w for w in found.warnings)


def test_a_kinetics_clip_of_a_first_line_is_in_no_part_under_the_release_s_rule_alone(tmp_path):
    write_tree("kinetics", tmp_path / "raw", 15, 2)
    found = Prepared(prepared("kinetics", tmp_path))
    assert len(found) == 30
    assert sum(map(len, found.split("release", 2).values())) == 28
    assert sum(map(len, found.split("paper", 2).values())) == 30


# --- folders of frames ----------------------------------------------------------------------------

CREMAD, UCF = (datasets.load(d).spec(datasets.load(d).Settings())["video"] for d in SETS[:2])


def grey_frames(folder: Path, count: int, shape=(24, 32)) -> Path:
    """A folder of frames of which number k, from 0, has the level 5 * k."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * 5
    write_frames(folder, "img_{:05d}.jpg", np.broadcast_to(levels, (count, *shape, 3)))
    return folder


def levels(payload, step=5) -> list[int]:
    pictures = [cv2.imdecode(np.frombuffer(p, np.uint8), 1) for p in payload]
    return [round(float(picture.mean()) / step) for picture in pictures]


@pytest.mark.parametrize("count,spec,expected", [
    (7, CREMAD, range(7)), (30, CREMAD, range(30)),
    (45, CREMAD, [int((j + 0.5) * 1.5) for j in range(30)]),
    (9, Video(first=6, min_decoded=6, of_folder=30), range(6)),
    (10, UCF, range(10)), (40, UCF, range(2, 40, 4)), (6, UCF, [0, 0, 1, 2, 2, 3, 3, 4, 5, 5]),
])  # fmt: skip
def test_which_frames_of_a_folder_are_stored(tmp_path, count, spec, expected):
    folder = grey_frames(tmp_path / "a", count)
    found = video.extract([folder], spec)
    assert levels(found.payload) == list(expected)
    assert found.payload[0] == (folder / f"img_{expected[0] + 1:05d}.jpg").read_bytes()
    assert (found.flags, found.duration_s, found.n_frames) == ((), 0.0, count)
    raw = Video(**{**vars(spec), "codec": "raw"})
    assert [round(i.mean() / 5) for i in video.extract([folder], raw).payload] == list(expected)


def test_only_fitting_jpegs_are_stored_as_they_are(tmp_path):
    folder = grey_frames(tmp_path / "a", 5)
    plain, more, grey, png, turned = sorted(folder.iterdir())
    whole = plain.read_bytes()
    more.write_bytes(whole + b"more")
    cv2.imwrite(str(grey), np.zeros((24, 32), np.uint8))
    png.write_bytes(cv2.imencode(".png", np.zeros((24, 32, 3), np.uint8))[1].tobytes())
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
    turned.write_bytes(
        whole[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + whole[2:]
    )
    found = frames.extract(folder, CREMAD)
    kept = [
        data == path.read_bytes() for data, path in zip(found.payload, sorted(folder.iterdir()))
    ]
    assert kept == [True, False, False, False, False] and found.flags == ()
    assert is_plain_jpeg(whole) and not is_plain_jpeg(turned.read_bytes())
    assert frames.extract(grey_frames(tmp_path / "b", 3, (300, 400)), CREMAD).flags == ()


def test_frames_of_several_sizes_become_the_first_one_s(tmp_path):
    folder = grey_frames(tmp_path / "a", 4, (300, 400))
    write_frames(folder, "img_{:05d}.jpg", np.zeros((1, 600, 300, 3), np.uint8))
    sizes = {cv2.imdecode(np.frombuffer(p, np.uint8), 1).shape
             for p in frames.extract(folder, CREMAD).payload}  # fmt: skip
    assert sizes == {(512, 256, 3)}


def test_broken_frames_are_passed_over(tmp_path):
    folder = grey_frames(tmp_path / "a", 9)
    for k in (1, 4):
        (folder / f"img_{k:05d}.jpg").write_bytes(b"<html>")
    found = frames.extract(folder, Video(first=6, min_decoded=6, of_folder=30))
    assert levels(found.payload) == [1, 2, 4, 5, 6, 7] and found.flags == ("bad_frames",)
    assert len(frames.extract(folder, UCF).payload) == 10
    few = Video(min_decoded=8, of_folder=30)
    assert rejection(frames.extract, folder, few) == "few_frames"
    assert rejection(video.extract, [folder], Video()) == "unreadable"  # that takes no folder


# --- folders of flow ------------------------------------------------------------------------------


def flow_folders(folder: Path, count: int, name="frame{:05d}.jpg") -> list[Path]:
    """Folders of u and v whose picture n has the level 2 n."""
    pictures = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint8)[:, None, None] * 2,
                               (count, 24, 32))  # fmt: skip
    for axis in "uv":
        write_frames(folder / axis, name, pictures)
    return [folder / "u", folder / "v"]


@pytest.mark.parametrize("count,chosen", [
    (2, [1, 2]), (7, range(1, 8)), (30, range(1, 31)), (60, range(2, 61, 2)),
])  # fmt: skip
@pytest.mark.parametrize("stack", [1, 2])
def test_flow_of_folders_is_stored_whatever_the_algorithm(tmp_path, count, chosen, stack):
    paths = flow_folders(tmp_path, count)
    spec = Flow("tvl1" if stack == 2 else "dis", stack=stack, of_folder=30)
    found = flow.extract(paths, spec)
    numbers = [round(level / 2) for level in levels(found.payload, 1)]
    if stack == 1:
        assert numbers == [n for n in chosen for _ in range(2)]
    assert len(numbers) % (2 * stack) == 0 and numbers[0] < numbers[-1] <= count
    assert found.flags == ("precomputed_flow",) and found.n_frames == count + 1
    (paths[1] / "frame00002.jpg").write_bytes((paths[1] / "frame00002.jpg").read_bytes() + b"note")
    assert flow.extract(paths, spec) == found


def test_flow_of_folders_by_positions_and_of_one_picture(tmp_path):
    found = flow.extract(flow_folders(tmp_path / "a", 40), Flow("precomputed", of_folder=30))
    assert len(found.payload) == 20 and found.flags == ()
    few = flow_folders(tmp_path / "b", 1)
    assert rejection(flow.extract, few, Flow(of_folder=30)) == "few_frames"


def seen(stored: list[bytes], rule: str, step: int, channels: int = 1) -> list[int]:
    """The levels, in steps, of the frames or of u that evaluation shows."""
    chosen = choose_frames(len(stored) // channels, 3, None, rule)
    return [levels(stored, step)[channels * k] for k in chosen]


@pytest.mark.parametrize("case", ["frames-cremad", "frames-ucf101"])
def test_the_release_s_frames_of_a_folder(tmp_path, case):
    (found,) = (c for c in GOLDEN["cases"] if c["id"] == case)
    official = datasets.load("ucf101").Settings(rgb_frames="first6", frame_choice="release")
    spec = datasets.load("ucf101").spec(official)
    rgb = video.extract([grey_frames(tmp_path / "rgb", 9)], spec["video"]).payload
    for count, expect in found["expect"].items():
        if not expect or not expect["val"]:
            continue
        if case == "frames-cremad":
            stored = video.extract([grey_frames(tmp_path / count, int(count))], CREMAD).payload
            assert seen(stored, "cremad", 5) == expect["val"]
            continue
        stored = flow.extract(flow_folders(tmp_path / count, int(count)), spec["flow"]).payload
        assert seen(stored, "ucf101_flow", 2, 2) == expect["val"]["flow"]
        assert [k + 1 for k in seen(rgb, "ucf101", 5)] == expect["val"]["rgb"]


@pytest.mark.parametrize("dataset", SETS)
def test_random_damage_of_the_lists_ends_in_rows_or_in_a_refusal(tmp_path, dataset):
    write_tree(dataset, tmp_path, 3, 2)
    path, draw, kept = tmp_path / next(iter(LISTS[dataset])), random.Random(0), []
    whole = path.read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 30])):
            data[draw.randrange(len(data))] = draw.choice(b'\0\n\r",{}[]/\\.: 0a\xff\xe9')
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        try:
            found = with_printable_names(scan(dataset, tmp_path))
        except UsageError:
            continue
        kept.append(len(found.candidates))
        assert all(r.reason in REASONS and r.id for r in found.rejected)
        assert all(row.id and row.key != "" for row in found.pool)
        write_pool(tmp_path / ".pool.csv", found.pool)
        assert read_pool(tmp_path / ".pool.csv") == found.pool
    assert min(kept) < max(kept) == 6


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SETS)
def test_damage_of_each_kind(tmp_path, dataset):
    truth = write_tree(dataset, tmp_path / "raw", 12, 2, damaged=True)
    assert len(truth) == len(DAMAGE[dataset])
    settings = {"vocabulary": "build"} if dataset == "food101" else {}
    folder = prepared(dataset, tmp_path, **settings)
    manifest = {row["id"]: row["flags"].split(";") for row in read_table(folder / "manifest.csv")}
    rejected = {row["id"]: row["reason"] for row in read_table(folder / "rejected.csv")}
    for sample, expected in truth.items():
        if expected and not expected.startswith("flag:"):
            assert (rejected.get(sample), sample in manifest) == (expected, False), sample
        else:
            flag = expected.removeprefix("flag:")
            assert sample in manifest and flag in manifest[sample] + [""], sample
    sound = set(manifest) - set(truth)
    usual = {"precomputed_flow"} if dataset == "ucf101" else {""}
    assert len(sound) == 24 and all(set(manifest[name]) == usual for name in sound)
    assert len(manifest) + len(rejected) == 24 + len(truth)
    assert verify(folder, dataset) == []


# --- the official commands ------------------------------------------------------------------------

SMALL = {"max_epochs": 2, "size": 16, "encoder": "small", "weights": "none", "batch_size": 32}
MORE = {
    "cremad": {"spec_pool": 8}, "kinetics": {"spec_pool": 8}, "ucf101": {},
    "food101": {"vocabulary": "build", "text_model": "tiny", "max_tokens": 16},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("recipe", [(), ("--recipe", "official")])
def test_the_commands_of_the_official_readme(tmp_path, dataset, recipe):
    write_tree(dataset, tmp_path / "raw", 10)  # fewer of a class, and the release cannot draw
    official = ["--dataset", dataset, "--dataset_root", tmp_path / "raw", "--devices", "0"]
    small = [w for name, v in (SMALL | MORE[dataset]).items() for w in (f"--{name}", v)]
    where = ["--data_dir", tmp_path / "data", "--results_dir", tmp_path / "results"]
    done = program("train.py", *official, *small, *where, *recipe)
    assert done.returncode == 0, done.stderr[-2000:]
    (config,) = (tmp_path / "results").rglob("config.json")
    run = RunFolder(config.parent)
    assert run.read_log()[-1]["train/n_valid"] > 0
    result = run.read_json("result.json")
    parts = [result[f"count/n_{part}"] for part in ("train", "val", "test")]
    lost = 2 if recipe and dataset == "kinetics" else 0  # the first lines of its lists
    assert sum(parts) == 10 * len(datasets.load(dataset).LABELS) - lost


# --- pools of downloads ---------------------------------------------------------------------------


def test_the_order_of_the_official_lists_is_the_pool_of_a_download(tmp_path):
    for clip in ("g01_c02", "g08_c01", "g01_c01"):
        path = tmp_path / f"HandstandPushups/v_HandStandPushups_{clip}.avi"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    name = "HandstandPushups/v_HandStandPushups_{}.avi"
    (tmp_path / "trainlist01.txt").write_text(f"{name.format('g08_c01')} 37\n")
    (tmp_path / "testlist01.txt").write_text(f"{name.format('g01_c02')}\n")
    assert scan("ucf101", tmp_path).pool is None
    more = "Archery/v_Archery_g01_c09.avi"
    (tmp_path / "testlist01.txt").write_text(
        "\n".join([name.format("g01_c02"), more, name.format("g01_c01")])
    )
    names = ("HandStandPushups_g08_c01", "HandStandPushups_g01_c02", "Archery_g01_c09",
             "HandStandPushups_g01_c01")  # fmt: skip
    keys = (36, 36, 2, 36)
    assert scan("ucf101", tmp_path).pool == [Listed(f"v_{n}", k) for n, k in zip(names, keys)]


def test_the_order_of_the_titles_is_the_pool_of_a_download(tmp_path):
    pictures = ("train/waffles/b.jpg", "train/apple_pie/a.jpg", "test/ramen/c.jpg")
    for path in pictures:
        (tmp_path / "images" / path).parent.mkdir(parents=True)
        (tmp_path / "images" / path).write_bytes(b"")
    (tmp_path / "texts").mkdir()
    rows = "b.jpg,x,waffles\nnone.jpg,x,waffles\na.jpg,x,sushi\nd.jpg,x,soup\n"
    (tmp_path / "texts/train_titles.csv").write_text(rows)
    (tmp_path / "texts/test_titles.csv").write_text("c.jpg,x,ramen\n")
    assert scan("food101", tmp_path).pool == [
        Listed("train/waffles/b.jpg", 100), Listed("train/waffles/none.jpg", 100),
        Listed("train/apple_pie/a.jpg", 95), Listed("test/ramen/c.jpg", 81),
    ]  # fmt: skip


def test_kinetics_groups_are_the_videos(tmp_path):
    write_lists("kinetics", tmp_path, [("ab_-cdefghi_000001_000011", 3), ("clip7", 3), ("x", 0)])
    for name in ("ab_-cdefghi_000001_000011", "clip7"):
        write_sample("kinetics", tmp_path, "", name, 3, 31, 0)
    found = kinetics.scan(tmp_path, kinetics.Settings())
    assert [(c.id, c.group, c.label, c.part) for c in found.candidates] == [
        ("ab_-cdefghi_000001_000011", "ab_-cdefghi", 3, "train"), ("clip7", "clip7", 3, "train"),
    ]  # fmt: skip
