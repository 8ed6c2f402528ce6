"""The generators of raw trees: content, determinism, the truth they write, and their refusals."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import write_tree as demo
from sklearn.datasets import load_digits

from common.files import read_table, write_table
from common.options import UsageError
from common.program import run as run_program
from data_prep import datasets, digits
from data_prep.datasets import demo as layout
from data_prep.digits import whole_folder
from data_prep.prepare import prepare
from data_prep.reasons import REASONS
from data_prep.store import read_meta
from fixtures import corrupt, scenes
from fixtures.media import write_video
from fixtures.scenes import Look
from fixtures.trees import write_cremad, write_kinetics

REPOSITORY = Path(__file__).resolve().parents[2]


def decode(path: Path) -> tuple[np.ndarray, list[float]]:
    """Frames uint8 [T, H, W, 3] and their presentation times in seconds."""
    with av.open(str(path)) as source:
        frames = list(source.decode(video=0))
    return np.stack([f.to_ndarray(format="rgb24") for f in frames]), [float(f.time) for f in frames]


def decoded_audio(path: Path) -> tuple[float, float]:
    """(seconds, largest value) that decode from the sound track before its end or first error."""
    seconds, peak = 0.0, 0.0
    with av.open(str(path)) as source:
        try:
            for frame in source.decode(audio=0):
                seconds = float(frame.time) + frame.samples / frame.sample_rate
                peak = max(peak, float(np.abs(frame.to_ndarray()).max()))
        except av.error.InvalidDataError:
            pass  # the packet at the cut
    return seconds, peak


def content(root: Path) -> dict[str, bytes]:
    """Every file under `root`."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def write_some(folder: Path, name: str, seed: int = 0, count: int = 9, workers: int = 1) -> Path:
    truth_path = folder / f"{name}-truth.csv"
    digits.write_digits(folder / name, truth_path, seed, workers=workers, count=count)
    return folder / name


@pytest.fixture(scope="session")
def trees(tmp_path_factory) -> dict[str, tuple[Path, list[dict[str, str]]]]:
    """One tiny damaged tree a layout: name -> (root, truth)."""
    folder, made = tmp_path_factory.mktemp("trees"), {}
    for name in ("cremad", "A", "B", "C"):
        root, truth = folder / name, folder / f"{name}-truth.csv"
        common = {"truth_path": truth, "corrupt_each": 1, "workers": 1}
        if name == "cremad":
            write_cremad(root, 3, look=Look(64, 48, 15, (1.0, 1.2)), **common)
        else:
            write_kinetics(root, 1, layout=name, look=Look(64, 48, 10, (3.1, 3.3)), **common)
        made[name] = (root, read_table(truth))
    return made


def damaged(trees: dict, name: str, kind: str) -> Path:
    """The media file of the clip with this kind of damage (the video file for CREMA-D)."""
    root, truth = trees[name]
    found = next(row["id"] for row in truth if row["corruption"] == kind)
    return next(p for p in root.rglob(f"*{found}*") if p.suffix != ".wav" and p.name[:2] != "._")


def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    first, again, other = (write_some(tmp_path, name, seed) for name, seed in zip("abc", (0, 0, 1)))
    assert content(first) == content(again)
    assert (decode(first / "clips/0003.avi")[0] != decode(other / "clips/0003.avi")[0]).any()
    assert (tmp_path / "a-truth.csv").read_bytes() == (tmp_path / "b-truth.csv").read_bytes()


def test_processes_and_count_change_no_clip(tmp_path):
    alone, pair = write_some(tmp_path, "a", count=9), write_some(tmp_path, "b", count=20, workers=2)
    few, many = content(alone / "clips"), content(pair / "clips")
    assert len(few) == 18 and len(many) == 40
    assert all(many[name] == few[name] for name in few)


def test_digit_files_decode_to_what_was_rendered(tmp_path):
    root = write_some(tmp_path, "a", seed=5)
    images = load_digits()
    for index in range(3):
        clip = digits.render(int(images.target[index]), images.images[index], 5, index)
        frames, times = decode(root / f"clips/000{index}.avi")
        assert frames.shape == (12, 64, 64, 3)
        assert times == pytest.approx(np.arange(12) / 10)
        errors = np.sqrt(((frames.astype(float) - clip.frames) ** 2).mean((1, 2, 3)))
        assert errors.max() < 13  # of 255, in the last frame as in the first
        wave, rate = soundfile.read(root / f"clips/000{index}.wav")
        assert rate == 16000 and wave == pytest.approx(clip.wave, abs=1 / 32768)


def test_kept_tones_sound_and_erased_ones_do_not():
    pitches = digits.LOWEST * digits.RATIO ** np.arange(10)
    for index in range(30):
        clip = digits.render(4, np.zeros((8, 8)), 0, index)
        power = np.abs(np.fft.rfft(clip.wave)) ** 2
        bins = np.fft.rfftfreq(len(clip.wave), 1 / digits.RATE)
        loud = [power[np.abs(bins / p - 1) < 0.015].max() > 100 * np.median(power) for p in pitches]
        assert loud == [k in (4, 5) and clip.tones_kept[k - 4] for k in range(10)]


def test_cues_of_digits_are_erased_as_often_as_said():
    clips = [digits.render(0, np.full((8, 8), 16.0), 3, index) for index in range(600)]
    erased = 1 - np.mean([(*clip.tones_kept, clip.digit_kept) for clip in clips], axis=0)
    assert erased == pytest.approx([0.2, 0.2, 0.15], abs=0.05)
    bright = np.array([clip.frames.mean() for clip in clips])
    kept = np.array([clip.digit_kept for clip in clips])
    assert bright[kept].min() > bright[~kept].max()


def test_ceilings_follow_the_formulas(tmp_path):
    rows = [("0000", 3, 1, 1, 1), ("0001", 3, 1, 0, 0), ("0002", 3, 0, 0, 0), ("0003", 3, 0, 0, 1)]
    write_table(tmp_path / "truth.csv", digits.TRUTH, rows)
    expected = {"audio": 1.7 / 4, "video": 2.2 / 4, "both": 2.6 / 4}
    assert digits.ceilings(tmp_path / "truth.csv") == pytest.approx(expected)
    two = digits.ceilings(tmp_path / "truth.csv", {"0000", "0003"})
    assert two == pytest.approx({"audio": 1.1 / 2, "video": 1.0, "both": 1.0})


def test_layout_finds_what_the_generator_wrote(tmp_path):
    root = write_some(tmp_path, "a")
    scan = layout.scan(root, layout.Settings())
    assert [c.id for c in scan.candidates] == [f"{k:04d}" for k in range(9)]
    listed = read_table(root / "labels.csv")
    assert [str(c.label) for c in scan.candidates] == [row["label"] for row in listed]
    assert not scan.rejected and layout.spec(layout.Settings())["audio"].shape == (129, 31)


def test_layout_reports_what_it_cannot_use(tmp_path):
    root = write_some(tmp_path, "a")
    (root / "clips/0001.wav").unlink()
    (root / "clips/.DS_Store").touch()
    (root / "clips/notes.txt").touch()
    (root / "clips/9999.avi").touch()
    (root / "labels.csv").write_text((root / "labels.csv").read_text() + "0002,7\n0100,eleven\n")
    scan = layout.scan(root, layout.Settings())
    assert {(r.id, r.reason) for r in scan.rejected} == {
        ("0001", "missing_file"),
        ("0002", "duplicate"),
        ("0100", "no_label"),
        ("notes", "unknown_name"),
        ("9999", "no_label"),
    }
    assert len(scan.candidates) == 8


def test_layout_names_the_command_for_a_wrong_root(tmp_path):
    with pytest.raises(UsageError, match=r"labels\.csv.*data_prep --dataset demo`"):
        layout.scan(tmp_path, layout.Settings())


def test_failed_generation_leaves_nothing(tmp_path):
    with pytest.raises(OSError), whole_folder(tmp_path / "a", tmp_path / "t.csv") as folder:
        (folder / "labels.csv").write_text("id,label\n")
        raise OSError("disk full")
    assert [p.name for p in tmp_path.iterdir()] == [".a.part.lock"]


def test_killed_generation_leaves_no_root_and_can_be_repeated(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; import data_prep.digits as media\n"
        "with media.whole_folder(Path(sys.argv[1]), Path(sys.argv[1] + '.csv')) as folder:\n"
        "    (folder / 'labels.csv').write_text('id,label')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a")]
    killed = subprocess.run(command, cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    root = write_some(tmp_path, "a", count=1)
    assert sorted(content(root)) == ["clips/0000.avi", "clips/0000.wav", "labels.csv"]
    assert not (tmp_path / ".a.part").exists()


def test_truth_inside_the_root_is_refused(tmp_path):
    with pytest.raises(UsageError, match="outside"):
        digits.write_digits(tmp_path / "a", tmp_path / "a/truth.csv", 0, workers=1, count=1)


def test_scene_cues_are_erased_as_often_as_said():
    look = Look(32, 24, 2, (0.5, 0.5), sound_erased=0.3, video_erased=0.1)
    made = [scenes.render(2, 6, look, np.random.default_rng([0, k])) for k in range(500)]
    erased = 1 - np.mean([(s.sound_cue, s.video_cue) for s in made], axis=0)
    assert erased == pytest.approx([0.3, 0.1], abs=0.06)


def test_31_classes_differ_in_glyph_and_formants():
    assert len({scenes.glyph(label, 24).tobytes() for label in range(31)}) == 31
    assert len(np.unique(scenes.formants(31), axis=0)) == 31


@pytest.mark.parametrize("codec, ending", [("mpeg4", "avi"), ("flv1", "flv"), ("h264", "mp4")])
def test_videos_keep_count_and_times(tmp_path, codec, ending):
    frames = scenes.render_glyph(0, 15, Look(64, 48), np.random.default_rng(0))
    write_video(tmp_path / f"a.{ending}", frames, 15, codec)
    decoded, times = decode(tmp_path / f"a.{ending}")
    assert decoded.shape == frames.shape
    assert np.diff(times) == pytest.approx(np.full(14, 1 / 15), abs=1e-3)
    assert np.abs(decoded.astype(float) - frames).mean() < 12


@pytest.mark.parametrize("name", ["cremad", "A", "B", "C"])
def test_every_kind_of_damage_is_in_the_truth(trees, name):
    expected = dict(corrupt.EXPECTED["cremad" if name == "cremad" else "kinetics"])
    if name in "AC":
        del expected["label_conflict"]  # flat folders tell no class
    rows = [row for row in trees[name][1] if row["corruption"]]
    assert {row["corruption"]: row["expected_reason"] for row in rows} == expected
    for reason in expected.values():
        assert reason == "" or reason in REASONS or re.fullmatch(r"flag:[a-z_]+(=[a-z]+)?", reason)


def test_cremad_names_are_those_of_the_set(trees):
    root, truth = trees["cremad"]
    grammar = r"1\d{3}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX|X)\.wav"
    odd = [p.name for p in (root / "AudioWAV").glob("1*") if not re.fullmatch(grammar, p.name)]
    assert len(odd) == 1 and "outtake" in odd[0]
    assert (root / "AudioWAV/1040_ITH_SAD_X.wav").exists()
    sound = [row for row in truth if not row["corruption"]]
    assert len(sound) == 18 and len({row["id"][:4] for row in sound}) == 3


@pytest.mark.parametrize(
    "name, pattern",
    [
        ("A", r"(train|val|test)/ID_\d{6}_\d{6}\.mp4"),
        ("B", r"(train|val)/[a-z_ ]+/ID_\d{6}_\d{6}\.mp4"),
        ("C", r"(train|val|test)/ID(_\d+)?\.mp4"),
    ],
)
def test_kinetics_files_stand_where_the_layout_says(trees, name, pattern):
    root, truth = trees[name]
    files = {str(p.relative_to(root)) for p in root.rglob("*.mp4") if not p.name.startswith("._")}
    assert len({row["label"] for row in truth}) == 31
    ids = [row["id"] for row in truth if not row["corruption"]]
    for clip in ids:
        assert any(re.fullmatch(pattern.replace("ID", re.escape(clip)), file) for file in files)
    assert {len(i) for i in ids} == {11}
    assert any(i[0] == "-" for i in ids) and any("--" in i for i in ids)


def test_kinetics_lists_come_in_several_dialects(trees):
    lists = {p.stem: p.read_bytes() for p in (trees["A"][0] / "annotations").iterdir()}
    assert len(lists) == 3 and lists["train"].split(b"\n")[0].endswith(b",split,is_cc")
    assert lists["val"].startswith(b'\xef\xbb\xbf"label","youtube_id"') and b"\r\n" in lists["val"]


def test_damaged_kinetics_files_are_damaged_as_said(trees):
    for kind in ("zero_byte", "html", "lfs_pointer", "no_moov"):
        with pytest.raises(av.error.InvalidDataError):
            av.open(str(damaged(trees, "A", kind)))
    assert 3 < decoded_audio(damaged(trees, "A", "cut_60"))[0] < 6
    assert 0 < decoded_audio(damaged(trees, "A", "cut_10"))[0] < 2
    assert decoded_audio(damaged(trees, "A", "silent"))[1] < 1e-4
    assert decoded_audio(damaged(trees, "A", "short_audio"))[0] < 0.1
    assert len(decode(damaged(trees, "A", "one_frame"))[0]) == 1
    with av.open(str(damaged(trees, "A", "no_audio"))) as source:
        assert not source.streams.audio
    assert damaged(trees, "A", "wrong_extension").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("name, fps", [("cremad", 15), ("A", 10)])
def test_false_frame_rate_leaves_the_times_true(trees, name, fps):
    path = damaged(trees, name, "fps_1000")
    with av.open(str(path)) as source:
        assert source.streams.video[0].average_rate == 1000
    assert np.diff(decode(path)[1]) == pytest.approx(1 / fps, abs=2e-3)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--dataset", "kremad", "--out", "x"], "takes one of cremad, kinetics"),
        (["--dataset", "ave"], "--out is missing"),
        (
            ["--dataset", "cremad", "--out", "x", "--layout", "B"],
            "--layout does not apply to cremad",
        ),
        (["--dataset", "cremad", "--out", "x", "--per_clas", "2"], "Did you mean '--per_class'?"),
        (
            ["--dataset", "cremad", "--out", "x", "--per_class", "9999"],
            "--per_class 9999 is refused",
        ),
        (["--out", "x", "--seed", "-1"], "at least 0"),
    ],
)
def test_command_refuses_in_one_line(capsys, argv, message):
    assert run_program(demo.main, argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("dataset", "layout"), [("sarcasm", ""), ("twitter2015", "tsv"), ("mosi", "mult_aligned")]
)
def test_command_writes_the_trees_of_other_sets(tmp_path, dataset, layout):
    argv = ["--dataset", dataset, "--out", str(tmp_path / "raw"), "--per_class", "6", "--corrupt=1"]
    more = ["--layout", layout] if layout else []
    assert run_program(demo.main, [*argv, "--profile=tiny", "--workers=1", *more]) == 0
    truth = read_table(tmp_path / "raw-truth.csv")
    assert len(truth) > 12 and any(row["corruption"] for row in truth)


@pytest.mark.parametrize("dataset", ["kinetics", "ave", "ucf101", "food101"])
def test_fewer_classes_are_the_first_ones(tmp_path, dataset):
    """No other class is written, nor prepared."""
    argv = ["--dataset", dataset, "--out", str(tmp_path / "raw"), "--classes", "3"]
    argv += ["--per_class", "4", "--corrupt", "1", "--profile=tiny", "--workers=1"]
    assert run_program(demo.main, argv) == 0
    module = datasets.load(dataset)
    truth = read_table(tmp_path / "raw-truth.csv")
    sound = [row["label"] for row in truth if not row["corruption"]]
    assert set(sound) == set(module.LABELS[:3])
    assert all(sound.count(label) >= 4 for label in module.LABELS[:3])
    settings = module.Settings(**({"vocabulary": "build"} if dataset == "food101" else {}))
    options = {"workers": 1, "max_bad": 1.0}
    with pytest.raises(UsageError, match=f"class '{module.LABELS[3]}' .* others.* --allow_missing"):
        prepare(dataset, tmp_path / "raw", tmp_path / "data", settings, **options)
    options["allow_missing_classes"] = True
    folder = prepare(dataset, tmp_path / "raw", tmp_path / "data", settings, **options)
    meta = read_meta(folder)
    assert meta["complete"] and meta["label_names"] == list(module.LABELS[:3])
    rows = {row["id"]: row["label_name"] for row in read_table(folder / "manifest.csv")}
    labels = {row["id"]: row["label"] for row in truth if row["corruption"] != "label_conflict"}
    assert len(rows) >= 12
    assert all(labels[name] == rows[name] for name in rows.keys() & labels.keys())
    assert len(rows.keys() & labels.keys()) >= 12


def test_impossible_numbers_of_classes_are_refused(tmp_path, capsys):
    argv = ["--out", str(tmp_path / "raw"), "--classes"]
    assert run_program(demo.main, ["--dataset", "sarcasm", *argv, "2"]) == 2
    assert "--classes does not apply to sarcasm" in capsys.readouterr().err
    for count in ("1", "32"):
        assert run_program(demo.main, ["--dataset", "kinetics", *argv, count]) == 2
        assert f"--classes {count} is refused: the data set has 2 to 31" in capsys.readouterr().err
    assert run_program(demo.main, [*argv[:-1], "--dataset", "ave", "--group_nuisance", "off"]) == 2
    assert "--group_nuisance does not apply to ave" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_a_layout_of_another_set_is_refused(capsys):
    assert run_program(demo.main, ["--dataset", "food101", "--out", "x", "--layout", "A"]) == 2
    assert "unknown layout 'A'. Allowed: plain, header" in capsys.readouterr().err


def test_command_writes_once_and_refuses_a_used_folder(tmp_path, capsys):
    argv = ["--dataset", "cremad", "--out", str(tmp_path / "raw"), "--per_class", "1"]
    assert run_program(demo.main, [*argv, "--profile=tiny", "--workers=1"]) == 0
    assert len(read_table(tmp_path / "raw-truth.csv")) == 6 and capsys.readouterr()
    assert run_program(demo.main, argv) == 2
    assert "is not empty" in capsys.readouterr().err
