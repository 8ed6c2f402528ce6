"""Trees of which too much is broken, and inputs made to do harm: one line each, and no traceback.

Elsewhere: damaged video and sound (`test_media`, `test_sound`), pictures (`test_image`), pickles
and .npy files (`test_array`, `test_mosi`), single lines of lists (`test_food101`, `test_tweets`,
`test_ucf101`, `test_ave`, `test_layouts`), paths of a manifest (`test_manifest`).
"""

import csv
import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from accounts import hidden, raw_files, told_of
from clips import rejection, write_clip
from conftest import ROOT, program

import train
from common.files import read_table
from common.options import UsageError
from common.program import run as run_program
from data_prep import __main__ as data_prep
from data_prep import datasets
from data_prep.datasets import kinetics
from data_prep.datasets.csv_rows import read_records
from data_prep.datasets.manifest import Manifest, Settings
from data_prep.modalities import audio, video
from data_prep.prepare import prepare, scan_root
from data_prep.spec import Audio, Video
from fixtures.ave_tree import write_ave
from fixtures.food_tree import Look as FoodLook
from fixtures.food_tree import write_food101
from fixtures.mosi_tree import write_mosi
from fixtures.pickles import write_bad_pickle
from fixtures.pictures import zero_png
from fixtures.scenes import Look
from fixtures.trees import write_cremad, write_kinetics
from fixtures.tweets import TweetLook
from fixtures.tweets_tree import write_sarcasm, write_twitter2015
from fixtures.ucf_scenes import Look as UcfLook
from fixtures.ucf_tree import write_ucf101

# Small: what the files show does not matter here.
SCENES = {"look": Look(32, 24, 5, (1.0, 1.0))}
UCF = {"look": UcfLook(48, 36, 10, (0.5, 0.5))}
FOOD, TWEETS = {"look": FoodLook(24, 24)}, {"look": TweetLook(24, 24)}
# form of a tree -> (data set, its writer, samples of each class)
TREES = {
    "cremad": ("cremad", partial(write_cremad, workers=1, **SCENES), 4),
    **{
        f"kinetics {x}": ("kinetics", partial(write_kinetics, layout=x, workers=1, **SCENES), 2)
        for x in "ABC"
    },
    "ucf101": ("ucf101", partial(write_ucf101, workers=1, **UCF), 2),
    "food101": ("food101", partial(write_food101, workers=1, **FOOD), 2),
    "food101 header": ("food101", partial(write_food101, form="header", workers=1, **FOOD), 2),
    "mosi": ("mosi", write_mosi, 10),
    "mosi mult": ("mosi", partial(write_mosi, files="mult_unaligned"), 10),
    "ave": ("ave", partial(write_ave, workers=1, **SCENES), 2),
    "sarcasm": ("sarcasm", partial(write_sarcasm, workers=1, **TWEETS), 12),
    **{
        f"twitter2015 {x}": (
            "twitter2015",
            partial(write_twitter2015, lists=x, workers=1, **TWEETS),
            8,
        )
        for x in ("both", "tsv", "txt")
    },
}
# Lists of a data set: they are read, and told of where they are the source of a rejected line.
LISTS = (
    "annotations/",
    "texts/",
    "text/",
    "absa_data/",
    "ucfTrainTestlist/",
    "Set.txt",
    "tions.txt",
)
BUILD = ("--vocabulary", "build")
MORE = {"food101": BUILD, "sarcasm": BUILD, "twitter2015": (*BUILD, "--drop_missing", "true")}


def write_tree(folder: Path, form: str, corrupt_each: int = 0) -> tuple[str, Path, list[dict]]:
    """(data set, root, truth) of a generated tree; with damage, one sound sample of each class."""
    dataset, writer, count = TREES[form]
    count = 1 if corrupt_each else count
    root, truth = folder / "raw", folder / "truth.csv"
    writer(root, count, truth_path=truth, corrupt_each=corrupt_each)
    return dataset, root, read_table(truth)


# --- every entry of a tree ------------------------------------------------------------------------


@pytest.mark.parametrize("form", TREES)
def test_every_entry_of_a_damaged_tree_is_told_of_and_nothing_hidden(tmp_path, form):
    dataset, root, _ = write_tree(tmp_path, form, corrupt_each=1)
    layout = datasets.load(dataset)
    chosen = {"feature_files": "mult_unaligned"} if form == "mosi mult" else {}
    scan = scan_root(layout, dataset, root, layout.Settings(**chosen))
    sources = [path for c in scan.candidates for paths in c.sources.values() for path in paths]
    told = told_of(sources + [rejection.source for rejection in scan.rejected])
    files = {path for path in raw_files(root) if not any(name in path for name in LISTS)}
    # Beside CREMA-D's two folders stands what is never looked at, and above the lists of sarcasm
    # a file of the authors' that bears the name of one.
    files -= {"SentenceFilenames.csv", "train.txt"}
    assert len(files) > 1 and files <= told
    assert not hidden(told)


# --- too much of it is broken ---------------------------------------------------------------------


def break_media(root: Path, truth: list[dict]) -> None:
    """Empties the files of the first sample of every third class."""
    first = {row["label"]: row["id"] for row in reversed(truth)}
    ids = [first[label] for label in sorted(first)[::3]]
    for path in root.rglob("*.*"):
        if path.suffix not in (".txt", ".csv") and any(name in str(path) for name in ids):
            path.write_bytes(b"")


def break_pictures(root: Path, _: list[dict]) -> None:
    """Empties every third picture."""
    for path in sorted(root.rglob("*.jpg"))[::3]:
        path.write_bytes(b"")


def break_texts(root: Path, _: list[dict]) -> None:
    """Gives every fourth clip of the pickle a text that is not finite."""
    (path,) = root.rglob("*.pkl")
    parts = pickle.loads(path.read_bytes())  # of our own making
    for fields in parts.values():
        fields["text"][::4, 0, 0] = np.nan
    path.write_bytes(pickle.dumps(parts, protocol=4))


BREAK = {
    "cremad": (break_media, "unreadable"),
    "kinetics A": (break_media, "unreadable"),
    "ucf101": (break_media, "unreadable"),
    "food101": (break_media, "unreadable"),
    "mosi": (break_texts, "bad_values"),
    "ave": (break_media, "unreadable"),
    "sarcasm": (break_pictures, "unreadable"),
    "twitter2015 both": (break_pictures, "unreadable"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("form", "files"), [
    ("twitter2015 both", "*.jpg"), ("cremad", "*.flv"),
])  # fmt: skip
def test_stand_ins_count_towards_the_share_that_is_allowed(tmp_path, form, files):
    dataset, root, _ = write_tree(tmp_path, form)
    for path in sorted(root.rglob(files))[::2]:
        path.write_bytes(b"<html>not found</html>" if files == "*.jpg" else b"")
    words = ["--dataset", dataset, "--dataset_root", root, "--data_dir", tmp_path / "data"]
    texts = ("--vocabulary", "build") if dataset == "twitter2015" else ()
    done = program("-m", "data_prep", *words, *texts, "--num_workers", "1")
    assert done.returncode == 3, done.stderr
    assert re.search(r"cannot be used, .*: \d+ with a stand-in for a modality", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("form", BREAK)
def test_a_tree_of_which_too_much_is_broken(tmp_path, form, capsys):
    dataset, root, truth = write_tree(tmp_path, form)
    break_it, reason = BREAK[form]
    break_it(root, truth)
    data = tmp_path / "data"
    more = MORE.get(dataset, ())
    words = ["--dataset", dataset, "--dataset_root", root, "--data_dir", data, *more]

    done = program("-m", "data_prep", *words, "--num_workers", "1")
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    *report, last = done.stderr.splitlines()
    told = re.match(r"error: (\d+) of (\d+) samples .* cannot be used", last)
    bad, total = map(int, told.groups())
    assert bad > 0.05 * total and "--max_bad 0.05" in last
    assert any(re.fullmatch(rf" +{bad} {reason}: .*", line) for line in report)
    (folder,) = (data / dataset).iterdir()
    reasons = [row["reason"] for row in read_table(folder / "rejected.csv")]
    assert reasons.count(reason) == bad
    assert json.loads((folder / "meta.json").read_text())["complete"] is False
    shards = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("*.arrow")}
    assert shards

    run = ["--dataset", dataset, "--data_dir", data, "--output_dir", tmp_path / "run"]
    capsys.readouterr()
    assert run_program(train.main, [*map(str, [*run, *more]), "--devices", "cpu"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line[:5] != "note:"]
    assert len(errors) == 1 and f"no prepared {dataset}" in errors[0]

    assert run_program(data_prep.main, [*map(str, words), "--max_bad", "1"]) == 0
    assert json.loads((folder / "meta.json").read_text())["samples"] == total - bad
    assert shards == {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in shards}


# --- values of a manifest -------------------------------------------------------------------------


def write_manifest(folder: Path, header: str, rows: list[list[str]]) -> Path:
    with open(folder / "own.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header.split(","), *rows])
    return folder / "own.csv"


@pytest.mark.parametrize("value", [
    "file:/etc/hostname", "http://127.0.0.1:9/a.wav", "pipe:0", "-", ".",
    "concat:0.wav|/etc/hostname", "data:audio/wav;base64,UklGRg==", "~/a.wav", "$HOME/a.wav",
    "`id`", "a" * 5000, "self.wav", "\\\\host\\share\\a.wav", "0.wav\n", "a\r\nb", "\u202evaw.a",
])  # fmt: skip
def test_a_path_that_other_programs_would_follow_is_a_name(tmp_path, value):
    """It names a file of the manifest's folder, or none."""
    (tmp_path / "self.wav").symlink_to("self.wav")
    for k in range(4):
        (tmp_path / f"{k}.wav").write_bytes(b"x")
    rows = [[f"p{k}", "ab"[k % 2], f"{k}.wav"] for k in range(4)] + [["p4", "a", value]]
    found = Manifest(write_manifest(tmp_path, "id,label,audio", rows)).scan(tmp_path, Settings())
    kept = [c for c in found.candidates if c.id == "p4"]
    if value.strip() == "0.wav":
        assert kept[0].sources == {"audio": ("0.wav",)}
    else:
        assert not kept and [r.reason for r in found.rejected] == ["missing_file"]


@pytest.mark.parametrize("column", ["id", "label", "audio", "split"])
def test_a_nul_in_a_manifest_ends_in_one_line_or_in_a_row(tmp_path, column, capsys):
    header = ["id", "label", "audio", "split"]
    rows = [[f"p{k}", "ab"[k % 2], f"{k}.wav", "train"] for k in range(4)]
    rows[0][header.index(column)] += "\0/etc/hostname"
    path = write_manifest(tmp_path, ",".join(header), rows)
    argv = ["--dataset", path, "--data_dir", tmp_path / "data", "--num_workers", "1"]
    assert run_program(data_prep.main, list(map(str, argv))) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line[:5] != "note:"]
    assert len(errors) == 1, errors


def test_a_bomb_in_a_manifests_pictures_costs_itself_alone(tmp_path):
    bomb = zero_png(30_000, 30_000)
    for k in range(6):
        (tmp_path / f"{k}.png").write_bytes(bomb if k == 0 else zero_png(20, 10))
    rows = [[f"p{k}", "ab"[k % 2], f"{k}.png", f"text {k}"] for k in range(6)]
    path = write_manifest(tmp_path, "id,label,image,text", rows)
    settings = Settings(vocabulary="build")
    folder = prepare(str(path), tmp_path, tmp_path / "data", settings, workers=1, max_bad=0.5)
    (line,) = read_table(folder / "rejected.csv")
    assert (line["id"], line["reason"]) == ("p0", "bad_image") and "900000000" in line["detail"]


def test_a_pickle_that_would_run_a_command_ends_in_one_line(tmp_path, capsys):
    root = tmp_path / "raw"
    root.mkdir()
    write_bad_pickle(root / "aligned_50.pkl", "system_4", tmp_path / "marker")
    argv = ["--dataset", "mosi", "--dataset_root", root, "--data_dir", tmp_path / "data"]
    assert run_program(data_prep.main, list(map(str, argv))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "posix.system" in error
    assert not (tmp_path / "marker").exists() and not list((tmp_path).rglob("*.arrow"))


@pytest.mark.parametrize("words", [
    "ffconcat version 1.0\nfile '{0}'\n", "ffconcat version 1.0\nfile ../secret.mp4\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{0}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
])  # fmt: skip
def test_a_playlist_that_poses_as_a_clip_reads_nothing_else(tmp_path, words):
    secret = write_clip(tmp_path / "secret.mp4", 5)
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "clip.mp4"
    path.write_text(words.format(secret))
    for extract in (video.extract, audio.extract):
        spec = Video(fps=1.0) if extract is video.extract else Audio()
        assert rejection(extract, [path], spec) == "unreadable"


@pytest.mark.parametrize("name, words", [
    ("clip.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n../secret.ts\n#EXT-X-ENDLIST\n"),
    ("clip.mp4", "ffconcat version 1.0\nfile beside.ts\n"),
])  # fmt: skip
def test_a_playlist_of_sound_files_beside_it_reads_none_of_them(tmp_path, name, words):
    folder = tmp_path / "own"
    folder.mkdir()
    for place in (tmp_path / "secret.ts", folder / "beside.ts"):
        write_clip(place, 20)
    (folder / name).write_text(words)
    assert rejection(video.extract, [folder / name], Video(fps=1.0)) == "unreadable"
    assert video.extract([folder / "beside.ts"], Video(fps=1.0)).n_frames == 20


def test_a_list_of_gigabytes_is_refused_unread(tmp_path, monkeypatch):
    with open(tmp_path / "huge.csv", "wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(UsageError, match="huge.csv has more than"):
        next(read_records(tmp_path / "huge.csv", bool, bool))


def test_a_link_to_nothing_or_a_pipe_named_like_a_list_is_no_list(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "-abcdefghij.mp4").write_bytes(b"x")
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    found = kinetics.scan(tmp_path, kinetics.Settings())
    assert {r.source for r in found.rejected if r.reason == "unknown_name"} == {
        "gone.csv", "pipe.csv"
    }  # fmt: skip


@pytest.mark.parametrize("form", ["kinetics A", "ucf101"])
def test_a_folder_that_may_not_be_read_ends_in_one_line(tmp_path, form, monkeypatch, capsys):
    """By hand instead of by its permissions, which a superuser's tests would not notice."""
    dataset, root, _ = write_tree(tmp_path, form)
    closed = sorted(path for path in root.rglob("*") if path.is_dir())[-1]

    def refuse(look, path):
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return look(path)

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, partial(refuse, getattr(os, name)))
    capsys.readouterr()
    words = ["--dataset", dataset, "--dataset_root", root, "--data_dir", tmp_path / "data"]
    assert run_program(data_prep.main, list(map(str, words))) == 74
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {closed}: the system denies access: see the permissions")


def test_a_set_of_which_no_picture_can_be_read_is_no_set(tmp_path):
    dataset, root, _ = write_tree(tmp_path, "twitter2015 both")
    shutil.rmtree(root / "twitter2015_images")
    (root / "twitter2015_images").mkdir()
    settings = datasets.load(dataset).Settings(vocabulary="build")
    with pytest.raises(UsageError, match="none of the .* samples has a picture that can be read"):
        prepare(dataset, root, tmp_path / "data", settings, workers=1)


# --- lists made to do harm ------------------------------------------------------------------------

# Each reader in a process of its own that inherits what is imported: what came of it, in how many
# seconds, and by how many MB the memory in use grew.
READERS = """
import json, os, sys, time
from pathlib import Path
from common.options import UsageError
from data_prep.modalities import audio
from data_prep import datasets
from data_prep.modalities import video
from data_prep.datasets import ave
from data_prep.datasets import food101
from data_prep.datasets import kinetics
from data_prep.datasets import sarcasm
from data_prep.datasets import twitter2015
from data_prep.datasets import ucf101
from data_prep.datasets.manifest import Manifest
from tests.memory import peak

def read(name, root):
    dataset = name.split()[0]
    try:
        if dataset == "own":
            layout = Manifest(root / "own.csv")
        else:
            layout = datasets.load(dataset)
        found = layout.scan(root, layout.Settings())
    except UsageError as error:
        return "refused", [str(error)]
    lines = [f"{r.id} {r.source} {r.detail}" for r in found.rejected] + found.warnings
    return "read", lines

for root in sorted(Path(sys.argv[1]).iterdir()):
    if not (child := os.fork()):
        before, begun = peak(), time.process_time()
        outcome, lines = read(root.name, root)
        longest = max(map(len, lines), default=0)
        seconds = time.process_time() - begun
        print(json.dumps([root.name, outcome, longest, seconds, peak() - before]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, root
"""
ENDLESS = 10_000_000  # characters in one field


def write_endless(folder: Path, place: str, text: str, beside: tuple[str, ...]) -> None:
    """A tree whose list `place` holds a sound line and one of a field of ten million characters."""
    for path in beside:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(text, encoding="utf-8")


def read_all(folder: Path) -> dict[str, list]:
    """name -> [outcome, length of the longest message, seconds, MB] of the trees in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", READERS, folder],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


def test_a_field_of_ten_million_characters_is_bounded_in_memory_and_time(tmp_path):
    x = "x" * ENDLESS
    clip = "-3Mwkq-7TV4"
    kinetics = "label,youtube_id,time_start,time_end,split\nsinging,-3Mwkq-7TV4,1,11,train\n"
    tweets = ("text/valid2.txt", "text/test2.txt", "dataset_image/1.jpg")
    twitter = tuple(f"twitter2015/{name}" for name in ("dev.tsv", "test.tsv"))
    twitter += ("twitter2015_images/1.jpg",)
    row = "1\t1\t1.jpg\t$T$\tx\n"
    pair = ("UCF-101/YoYo/v_YoYo_g01_c01.avi",)
    food = ("images/train/pho/1.jpg", "texts/test_titles.csv")
    trees = {
        "own cell": ("own.csv", f"id,label,text\n1,a,b\n2,b,{x}\n", ()),
        "own quoted": ("own.csv", f'id,label,text\n1,a,b\n2,b,"{x}\n', ()),
        "own header": ("own.csv", f"id,label,{x}\n1,a,b\n", ()),
        "own label": ("own.csv", f"id,label,text\n1,a,b\n2,{x},c\n", ()),
        "kinetics label": ("l.csv", f"{kinetics}{x},a2345678901,1,11,val\n", (f"{clip}.mp4",)),
        "kinetics quoted": ("l.csv", f'{kinetics}"{x}', (f"{clip}.mp4",)),
        "kinetics header": ("l.csv", f"youtube_id,{x}\n{clip},1\n", (f"singing/{clip}.mp4",)),
        "kinetics lines": ("l.csv", kinetics + '"' + "x\n" * (ENDLESS // 2), (f"{clip}.mp4",)),
        "food101 title": ("texts/train_titles.csv", f"1.jpg,{x},pho\n", food),
        "sarcasm text": ("text/train.txt", f"['1', 'a', 0]\n['2', '{x}', 1]\n", tweets),
        "sarcasm nested": ("text/train.txt", "['1', 'a', 0]\n" + "[" * ENDLESS, tweets),
        "twitter2015 tsv": ("twitter2015/train.tsv", f"{row}1\t1\t1.jpg\t{x}\tx\n", twitter),
        "twitter2015 txt": (
            "twitter2015/train.txt",
            f"$T$\nx\n0\n1.jpg\n{x}\nx\n0\n1.jpg",
            twitter,
        ),
        "ave category": ("trainSet.txt", f"Bus&{clip}&&0&9\n{x}&b&&0&9\n", (f"AVE/{clip}.mp4",)),
        "ave id": ("trainSet.txt", f"Bus&{clip}&&0&9\nBus&{x}&&0&9\n", (f"AVE/{clip}.mp4",)),
        "ucf101 row": ("ucfTrainTestlist/trainlist01.txt", f"YoYo/{x}.avi 1\n", pair),
    }
    for name, (place, text, beside) in trees.items():
        write_endless(tmp_path / name, place, text, beside)
    told = read_all(tmp_path)
    assert told.keys() == trees.keys()
    for name, (outcome, longest, seconds, grown) in told.items():
        refused = name[:3] == "own" or name == "kinetics lines"
        assert outcome == ("refused" if refused else "read"), name
        assert 0 < longest < 200, (name, longest)
        assert seconds < 10 and grown < 100, (name, seconds, grown)


# A list of each data set that is read by lines, and what makes its tree one.
PLACES = {
    "food101": ("texts/train_titles.csv", ("images/train/pho/1.jpg", "texts/test_titles.csv")),
    "sarcasm": ("text/train.txt", ("text/valid2.txt", "text/test2.txt", "dataset_image/1.jpg")),
    "twitter2015": (
        "twitter2015/train.tsv",
        ("twitter2015/dev.tsv", "twitter2015/test.tsv", "twitter2015_images/1.jpg"),
    ),
    "ave": ("trainSet.txt", ("AVE/-3Mwkq-7TV4.mp4",)),
    "ucf101": ("ucfTrainTestlist/trainlist01.txt", ("UCF-101/YoYo/v_YoYo_g01_c01.avi",)),
    "mosi": ("aligned_50.pkl", ("label.csv",)),
}


def test_a_pipe_or_a_link_to_nothing_in_a_lists_place_is_refused_at_once(tmp_path):
    for kind, put in (("pipe", os.mkfifo), ("link", lambda path: path.symlink_to("gone"))):
        for dataset, (place, beside) in PLACES.items():
            folder = tmp_path / f"{dataset} {kind}"
            write_endless(folder, place, "", beside)
            (folder / place).unlink()
            put(folder / place)
    for name, (outcome, _, seconds, _) in read_all(tmp_path).items():
        assert outcome == "refused" and seconds < 10, name
