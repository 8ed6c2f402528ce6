"""Malicious inputs, and trees of stand-ins: one line each, and no traceback.

Elsewhere: damaged video and sound (`test_media`, `test_sound`), pictures (`test_image`), pickles
and .npy files (`test_array`), single lines of lists (the datasets' own files), paths of a manifest
(`test_manifest`), and every kind of damage (`tests/contracts/test_datasets.py`).
"""

import errno
import json
import os
import re
from functools import partial

import pytest
from clips import extract, refused, write_clip
from conftest import program
from raw import plant

from common.options import UsageError
from common.program import run as run_program
from data_prep import __main__ as data_prep
from data_prep import datasets
from data_prep.modalities.audio import Audio
from data_prep.modalities.video import Video
from data_prep.prepare import prepare
from fixtures.pickles import write_bad_pickle
from fixtures.scenes import Look
from fixtures.trees import write_tree

BUILD = ("--vocabulary", "build")


def refusal(capsys, status, *words):
    """The one line on stderr, apart from notes, that a preparation ends with."""
    assert run_program(data_prep.main, list(map(str, words))) == status
    err = capsys.readouterr().err
    (error,) = [line for line in err.splitlines() if not line.startswith("note:")]
    return error


@pytest.mark.parametrize("every", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stand_ins_count_towards_the_allowed_share_and_alone_are_no_dataset(tmp_path, every):
    root, truth, look = tmp_path / "raw", tmp_path / "truth.csv", Look(24, 24, fps=2)
    write_tree("twitter2015", root, 12, truth_path=truth, workers=1, look=look)
    for path in sorted(path for path in root.rglob("*.jpg") if path.name[0] != ".")[::every]:
        path.write_bytes(b"")
    if every == 1:
        settings = datasets.load("twitter2015").Settings(vocabulary="build")
        with pytest.raises(UsageError, match="none of the .* samples has a usable image"):
            prepare("twitter2015", root, tmp_path / "data", settings, workers=1)
        return
    words = ["--dataset", "twitter2015", "--dataset_root", root, "--data_dir", tmp_path / "data"]
    done = program("-m", "data_prep", *words, *BUILD, "--num_workers", "1")
    assert done.returncode == 3, done.stderr
    assert re.search(r"unusable, .*: \d+ with a placeholder for an unreadable", done.stderr)


def test_a_folder_without_read_permission_ends_in_one_line(tmp_path, monkeypatch, capsys):
    """Simulated, since permissions have no effect if the tests run as root."""
    root = plant(tmp_path / "raw", "UCF-101/Archery/v_Archery_g01_c01.avi")
    closed = os.fspath(root / "UCF-101/Archery")

    def refuse(look, path):
        if os.fspath(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), closed)
        return look(path)

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, partial(refuse, getattr(os, name)))
    words = ["--dataset", "ucf101", "--dataset_root", root, "--data_dir", tmp_path / "data"]
    error = refusal(capsys, 74, *words)
    assert error.startswith(f"error: {closed}: permission denied: check the permissions")


def test_a_pickle_that_would_run_a_command_ends_in_one_line(tmp_path, capsys):
    root = plant(tmp_path / "raw", "x")
    write_bad_pickle(root / "aligned_50.pkl", "system_4", tmp_path / "marker")
    words = ["--dataset", "mosi", "--dataset_root", root, "--data_dir", tmp_path / "data"]
    assert "posix.system" in refusal(capsys, 2, *words)
    assert not (tmp_path / "marker").exists() and not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize("words", [
    "ffconcat version 1.0\nfile '{0}'\n", "ffconcat version 1.0\nfile secret.ts\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{0}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
])  # fmt: skip
def test_a_playlist_that_poses_as_a_clip_reads_nothing_else(tmp_path, words):
    secret = write_clip(tmp_path / "secret.ts", 20)
    assert extract(Video(fps=1.0), secret).n_frames == 20
    for name in ("clip.mp4", "clip.m3u8"):
        path = plant(tmp_path, lists={name: words.format(secret)}) / name
        assert refused(Video(fps=1.0), path) == refused(Audio(), path) == "unreadable"


# Runs each reader in a forked process, which inherits the imports, and reports the outcome, the
# seconds, and by how many MB the memory in use grew.
READERS = """
import json, os, sys, time
from pathlib import Path
from common.options import UsageError
from data_prep import datasets
from data_prep.datasets.manifest import Manifest
from data_prep.modalities import KINDS, load
from tests.memory import peak

for name in datasets.DATASETS:
    datasets.load(name)
for kind in KINDS:
    load(kind)

def read(name, root):
    dataset = name.split()[0]
    try:
        layout = Manifest(root / "own.csv") if dataset == "own" else datasets.load(dataset)
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


def read_all(folder):
    """name -> [outcome, length of the longest message, seconds, MB] of the trees in a folder."""
    done = program("-c", READERS, folder)
    assert done.returncode == 0, done.stderr
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


CLIP = "-3Mwkq-7TV4"
# dataset -> one of its lists, and what the tree needs to be recognised
PLACES = {
    "own": ("own.csv", ()),
    "kinetics": ("l.csv", (f"singing/{CLIP}.mp4",)),
    "food101": ("texts/train_titles.csv", ("images/train/pho/1.jpg", "texts/test_titles.csv")),
    "sarcasm": ("text/train.txt", ("text/valid2.txt", "text/test2.txt", "dataset_image/1.jpg")),
    "twitter2015": (
        "twitter2015/train.tsv",
        ("twitter2015/dev.tsv", "twitter2015/test.tsv", "twitter2015_images/1.jpg"),
    ),
    "mvsa": ("labelResultAll.txt", ("data/1.jpg", "data/1.txt")),
    "ave": ("trainSet.txt", (f"AVE/{CLIP}.mp4",)),
    "ucf101": ("ucfTrainTestlist/trainlist01.txt", ("UCF-101/YoYo/v_YoYo_g01_c01.avi",)),
    "mosi": ("aligned_50.pkl", ("label.csv",)),
}


def test_a_field_of_ten_million_characters_is_bounded_in_memory_and_time(tmp_path):
    x, row = "x" * ENDLESS, "1\t1\t1.jpg\t$T$\tx\n"
    header = f"label,youtube_id,time_start,time_end,split\nsinging,{CLIP},1,11,train\n"
    texts = {
        "own cell": f"id,label,text\n1,a,b\n2,b,{x}\n",
        "own quoted": f'id,label,text\n1,a,b\n2,b,"{x}\n',
        "kinetics label": f"{header}{x},a2345678901,1,11,val\n",
        "kinetics quoted": f'{header}"{x}',
        "kinetics lines": header + '"' + "x\n" * (ENDLESS // 2),
        "food101 title": f"1.jpg,{x},pho\n",
        "sarcasm text": f"['1', 'a', 0]\n['2', '{x}', 1]\n",
        "sarcasm nested": "['1', 'a', 0]\n" + "[" * ENDLESS,
        "twitter2015 tsv": f"{row}1\t1\t1.jpg\t{x}\tx\n",
        "twitter2015 txt": f"$T$\nx\n0\n1.jpg\n{x}\nx\n0\n1.jpg",
        "mvsa row": f"ID\ttext,image\n1\t{x},{x}\n",
        "ave id": f"Bus&{CLIP}&&0&9\nBus&{x}&&0&9\n",
        "ucf101 row": f"YoYo/{x}.avi 1\n",
    }
    for name, text in texts.items():
        place, beside = PLACES[name.split()[0]]
        place = place.replace("tsv", "txt") if name.endswith("txt") else place
        plant(tmp_path / name, *beside, lists={place: text})
    outcomes = read_all(tmp_path)
    assert outcomes.keys() == texts.keys()
    for name, (outcome, longest, seconds, grown) in outcomes.items():
        refused = name[:3] == "own" or name == "kinetics lines"
        assert outcome == ("refused" if refused else "read"), name
        assert 0 < longest < 200, (name, longest)
        assert seconds < 10 and grown < 100, (name, seconds, grown)


def test_a_pipe_or_a_dead_link_in_place_of_a_list_is_refused_at_once(tmp_path):
    for kind, put in (("pipe", os.mkfifo), ("link", lambda path: path.symlink_to("gone"))):
        for dataset, (place, beside) in PLACES.items():
            folder = plant(tmp_path / f"{dataset} {kind}", place, *beside)
            (folder / place).unlink()
            put(folder / place)
    for name, (outcome, _, seconds, _) in read_all(tmp_path).items():
        # Then one of many csv files is not a list.
        assert outcome == ("read" if "kinetics" in name else "refused") and seconds < 10, name
