"""The command line: quick answers without torch, one-line refusals that leave nothing behind."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, cpu_of_children, program

from common.options import UsageError, format_value
from experiments.run.folder import RunFolder, run_path, variant_name
from experiments.run.resolve import resolve
from experiments.run.settings import scaled_epochs


def test_help_answers_at_once_without_torch():
    code = (
        "import sys, train\nfrom common.program import run\n"
        "status = run(train.main, sys.argv[1:])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\nsys.exit(status)"
    )
    for argv in (["--help"], ["--list"], ["--method", "Mida"], ["--dataset", "kinetcs"]):
        before = cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True
        )
        assert cpu_of_children() - before < 1.0  # the README states the time by the clock
        assert "torch was imported" not in done.stderr
        assert done.returncode == (0 if argv[0] in ("--help", "--list") else 2)


def test_a_methods_help_lists_its_flags_with_defaults_and_sources():
    done = program("train.py", "--method", "Midas", "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for words in ("--lam V", "default 1; Sec. A.3", "--warmup_epochs V", "one of cosine, l2"):
        assert words in text


REFUSED = [
    (["--dataset", "kinetcs"], "Did you mean 'kinetics'?"),
    (["--method", "Mida"], "Did you mean 'Midas'?"),
    (["--lamb", "3"], "Did you mean '--lam'?"),
    (["--lam", "-1"], "--lam -1 is refused: it takes at least 0"),
    (["--lam", "much"], "--lam takes a number, not 'much'"),
    (["--similarity", "euclid"], "one of cosine, l2"),
    (["--weak_modality", "perhaps"], "takes on or off"),
    (["--max_epochs", "3", "--warmup_epochs", "3"], "leaves no epoch"),
    (["--max_epochs", "0"], "at least 1"),
    (["--lr", "nan"], "--lr nan is refused"),
    (["--seed", "-1"], "--seed takes a whole number"),
    (["--seed", "9" * 20], "--seed takes a whole number, 0 to 4294967295"),
    (["--threads", "100000"], "--threads takes a whole number, 1 to 1024"),
    (["--devices", "gpu"], "give one CUDA device's number, or cpu"),
    (["--devices", "0,1"], "several devices in one run are not supported yet"),
    (["--method", "Unimodal"], "needs --modality; allowed: audio, video"),
    (["--method", "Unimodal", "--modality", "smell"], "Allowed: audio, video"),
    (["--method", "Joint", "--lam", "3"], "unknown flag '--lam'"),
    (["--recipe", "offical"], "Did you mean 'official'?"),
    (["--recipe", "official"], "the official release has no demo; it has cremad, kinetics"),
    (["--alpha_cap", "10"], "--alpha_rule share needs --alpha_cap 0"),
    (["--dataset", "mosi", "--pairing", "permutation"], "defined for two modalities only"),
    (["--dataset", "cremad"], "--dataset_root <raw folder> prepares it"),
    (["--dataset", "cremad", "--dataset_root", "/nowhere"], "/nowhere is not a folder"),
    (["extra"], "unexpected argument 'extra'"),
]


@pytest.mark.parametrize(("argv", "words"), REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, argv, words):
    places = ["--results_dir", str(tmp_path / "results"), "--data_dir", str(tmp_path / "data")]
    done = program("train.py", *argv, *places)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ") and words in lines[0]
    assert not (tmp_path / "results").exists() and not list(tmp_path.rglob("*.arrow"))


def test_a_wrong_folder_as_output_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    done = program("train.py", "--output_dir", tmp_path, "--overwrite", "--devices", "cpu")
    assert done.returncode == 2 and "not a run's folder" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_print_config_shows_the_resolved_run():
    done = program("train.py", "--dataset", "kinetics", "--max_epochs", "40", "--print_config")
    config = json.loads(done.stdout)
    assert config["method"] == "Midas" and config["seed"] == 2
    assert config["hparams"]["lam"] == 5.0 and config["hparams"]["warmup_epochs"] == 6
    assert config["settings"]["lr"] == 1e-3 and config["settings"]["lr_step"] == 50
    assert config["differing"] == {"max_epochs": 40}


@pytest.mark.parametrize(
    ("own", "of", "epochs", "expected"),
    [(10, 70, 70, 10), (10, 70, 40, 6), (10, 70, 3, 1), (2, 30, 30, 2), (0, 70, 3, 0)],
)
def test_warm_up_scales_with_the_training_length(own, of, epochs, expected):
    assert scaled_epochs(own, of, epochs) == expected


@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize(
    ("dataset", "epochs", "expected"),
    [("food101", 30, 2), ("food101", 60, 4), ("cremad", 70, 10), ("cremad", 35, 5)],
)
def test_a_data_sets_warm_up_belongs_to_its_own_training_length(dataset, epochs, expected, recipe):
    run = official(dataset, "--max_epochs", str(epochs), recipe=recipe)
    assert run.hparams.warmup_epochs == expected


# What the release has for each set, beside what is common to all: its own page of facts.
COMMON = {"split_rule": "release", "split_seed": 2, "last_batch": "keep"}
COMMON |= {"uni_reduce": "mean", "pairing": "permutation", "direction": "mean", "alpha_cap": 0.0}
COMMON |= {"alpha_rule": "ratio", "alpha_reset": "start", "similarity": "cosine", "lam": 1.0}
COMMON |= {"lr_gamma": 0.1, "batch_size": 64, "eta": 0.05, "hard_sample": True}
LONG = {"warmup_epochs": 10, "lr_from": "main", "max_epochs": 70, "lr_step": 50}
CLIPS = LONG | {"audio_feature": "fbank", "crop": "frame", "frame_choice": "release", "lr": 1e-3}
OFFICIAL = {
    "cremad": COMMON | CLIPS,
    "kinetics": COMMON
    | CLIPS
    | {"lam": 5.0, "alpha_rule": "ratio_inverted", "alpha_cap": 10.0, "sample_rate": 16000},
    "ucf101": COMMON
    | LONG
    | {"lr": 1e-2, "rgb_frames": "first6", "flip": "apart", "flow_norm": "release"}
    | {"frame_choice": "release", "weights": "none", "crop": "none"},
    "food101": COMMON
    | {"warmup_epochs": 2, "lr_from": "start", "max_epochs": 30, "lr_step": 15, "lr": 1e-3}
    | {"text_model": "google/electra-small-discriminator", "max_tokens": 512, "image_width": 256}
    | {"text_clean": "release", "weights": "pretrained", "alpha_rule": "ratio_2over1"},
}


def official(dataset, *words, method="Midas", recipe="official"):
    words = ["--dataset", dataset, "--method", method, "--recipe", recipe, *words]
    return resolve(words, "")[0]


@pytest.mark.parametrize("dataset", OFFICIAL)
def test_the_official_recipe_is_the_releases(dataset):
    run = official(dataset)
    values = vars(run.settings) | vars(run.prep) | vars(run.hparams)
    assert {name: values[name] for name in OFFICIAL[dataset]} == OFFICIAL[dataset]
    assert run.differing == {"recipe": "official"}


def test_other_methods_get_the_shared_part_of_the_recipe():
    run, paper = official("ucf101", method="SMV"), official("ucf101", method="SMV", recipe="paper")
    assert (run.settings.split_rule, run.prep.flip) == ("release", "apart")
    assert run.hparams == paper.hparams


def test_a_flag_beside_the_recipe_wins_and_names_the_folder(tmp_path):
    run = official("cremad", "--uni_reduce", "sum", "--split_rule", "paper", "--crop", "none")
    assert (run.hparams.uni_reduce, run.settings.split_rule) == ("sum", "paper")
    assert (run.prep.crop, run.hparams.pairing) == ("none", "permutation")
    name = "crop=none,recipe=official,split_rule=paper,uni_reduce=sum"
    assert run.default_folder(tmp_path).parts[-2:] == (name, "seed2")


def test_another_rule_for_alpha_takes_the_recipes_cap_away():
    run = official("kinetics", "--alpha_rule", "share")
    assert run.hparams.alpha_cap == 0
    assert run.differing == {"recipe": "official", "alpha_rule": "share"}
    assert official("kinetics", "--alpha_rule", "ratio").hparams.alpha_cap == 10


def test_the_split_follows_the_seed_on_the_papers_sets_alone():
    for dataset, expected in (("cremad", 7), ("mosi", 7), ("demo", 1), ("ave", 0)):
        run, _ = resolve(["--dataset", dataset, "--seed", "7"], "")
        assert run.settings.split_seed == expected and run.differing == {}
    run, _ = resolve(["--dataset", "cremad", "--seed", "7", "--split_seed", "3"], "")
    assert run.settings.split_seed == 3 and run.differing == {"split_seed": 3}


def test_a_draw_that_nothing_can_stratify_otherwise_is_refused():
    for rule in ("release", "group", "official"):
        with pytest.raises(UsageError, match=f"--split_rule paper only, not {rule}"):
            resolve(["--dataset", "cremad", "--split_rule", rule, "--stratify", "off"], "")


def test_folder_names_are_stable_and_readable(tmp_path):
    path = run_path(tmp_path, "kinetics", "Midas", {"lam": 5.0, "hard_sample": False}, 2)
    expected = "runs/kinetics/Midas/hard_sample=off,lam=5/seed2"
    assert path == tmp_path / expected
    assert variant_name({}) == "default"
    assert "/" not in variant_name({"x": "a/../b"}) and len(variant_name({"x": "y" * 400})) < 160
    assert [format_value(v) for v in (5.0, 0.05, 1e-4, True, "a")] == [
        "5",
        "0.05",
        "0.0001",
        "on",
        "a",
    ]


def test_a_value_that_equals_the_default_does_not_change_the_name():
    run, _ = resolve(["--method", "midas", "--lam", "1", "--lr", "0.045"], "")
    assert run.differing == {} and run.method == "Midas"
    run, _ = resolve(["--lam", "1.50", "--seed", "3"], "")
    assert run.differing == {"lam": 1.5}


def test_the_log_survives_a_half_written_line(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append_log({"epoch": 1})
    folder.append_log({"epoch": 2})
    with open(tmp_path / "log.jsonl", "a") as handle:
        handle.write('{"epoch": 3, "train/lo')
    assert [r["epoch"] for r in folder.read_log()] == [1, 2]
    folder.restore_log([{"epoch": 1}])
    assert folder.read_log() == [{"epoch": 1}]


def test_the_official_commands_parse():
    for dataset in ("cremad", "kinetics"):
        run, args = resolve(
            ["--dataset", dataset, "--dataset_root", "/x", "--devices", "0", "--batch_size", "32"],
            "",
        )
        assert run.settings.batch_size == 32 and args.dataset_root == "/x"


def test_two_settings_of_one_name_are_refused():
    from dataclasses import dataclass

    from common.options import option
    from experiments.run.settings import Settings, assert_distinct

    @dataclass(frozen=True)
    class Mine:
        lr: float = option(1.0, "another learning rate")

    with pytest.raises(UsageError, match="'lr' is declared by"):
        assert_distinct(Settings, Mine)


@pytest.mark.parametrize("words", [("train.py", "--help"), ("-m", "experiments", "list")])
def test_programs_start_without_what_only_unix_has(words):
    """A stand-in for Windows: modules that it lacks cannot be imported."""
    code = """
import filelock, psutil, runpy, sys  # which have a Windows of their own
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
target, *sys.argv[1:] = sys.argv[1:]
if target == "-m":
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
else:
    runpy.run_path(target, run_name="__main__")
"""
    done = program("-c", code, *words)
    assert done.returncode == 0, done.stderr


def test_a_table_of_ours_is_read_back_whatever_its_cells_hold(tmp_path):
    from common.files import read_table, write_table

    rows = [("a\rb", "1"), ('q"', "x,y"), ("", "two\nlines"), ("\r\n", "'"), ("plain", "é")]
    write_table(tmp_path / "t.csv", ("id", "part"), rows)
    assert [tuple(row.values()) for row in read_table(tmp_path / "t.csv")] == rows
