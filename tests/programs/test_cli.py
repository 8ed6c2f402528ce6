"""The command line: fast answers without torch, one-line errors that leave no files behind."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, cpu_of_children

import train
from common.files import read_table, write_table
from common.options import UsageError, format_value
from common.program import run as run_program
from experiments.run.folder import run_path, variant_name
from experiments.run.resolve import resolve


@pytest.mark.parametrize("words", ["--help", "--list", "--method Mida", "--dataset kinetcs"])
def test_help_and_wrong_names_are_answered_at_once_without_torch(words):
    code = (
        "import sys, train\nfrom common.program import run\n"
        "status = run(train.main, sys.argv[1:])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\nsys.exit(status)"
    )
    before, command = cpu_of_children(), [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert cpu_of_children() - before < 1.0
    assert "torch was imported" not in done.stderr
    assert done.returncode == (0 if words in ("--help", "--list") else 2)


def test_a_methods_help_lists_its_flags_with_defaults_and_sources(capsys):
    assert resolve(["--method", "Midas", "--help"], "")[0] is None
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--lam V", "default 1; Sec. A.3", "--warmup_epochs V", "one of cosine, l2"):
        assert words in text


REFUSED = {
    "--dataset kinetcs": "Did you mean 'kinetics'?",
    "--method Mida": "Did you mean 'Midas'?",
    "--lamb 3": "Did you mean '--lam'?",
    "--lam -1": "--lam -1 is invalid: it must be at least 0",
    "--lam much": "--lam takes a number, not 'much'",
    "--similarity euclid": "one of cosine, l2",
    "--weak_modality perhaps": "takes on or off",
    "--max_epochs 3 --warmup_epochs 3": "leaves no epoch",
    "--lr nan": "--lr nan is invalid",
    "--seed -1": "--seed takes a whole number, 0 to 4294967295",
    "--threads 100000": "--threads takes a whole number, 1 to 1024",
    "--devices gpu": "give CUDA devices by number, such as 0 or 0,1, or cpu",
    "--devices 0,0": "give CUDA devices by number",
    "--method Unimodal": "needs --modality; allowed: audio, video",
    "--method Joint --lam 3": "unknown flag '--lam'",
    "--recipe offical": "Did you mean 'official'?",
    "--recipe official": "the official release has no demo; it has cremad, kinetics",
    "--alpha_cap 10": "--alpha_rule share needs --alpha_cap 0",
    "--dataset cremad": "--dataset_root <raw folder> to prepare it",
    "--dataset cremad --dataset_root /nowhere": "/nowhere is not a folder",
    "--dataset cremad --split_rule group --stratify off": "--split_rule paper only, not group",
    "extra": "unexpected argument 'extra'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, words, capsys):
    places = ["--results_dir", f"{tmp_path}/results", "--data_dir", f"{tmp_path}/data"]
    assert run_program(train.main, [*words.split(), *places]) == 2
    errors = capsys.readouterr().err.splitlines()
    (line,) = [line for line in errors if not line.startswith("note: ")]
    assert line.startswith("error: ") and REFUSED[words] in line
    assert not (tmp_path / "results").exists() and not list(tmp_path.rglob("*.arrow"))


def test_a_wrong_folder_as_output_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="not a run folder"):
        train.main(["--output_dir", str(tmp_path), "--overwrite", "--devices", "cpu"])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_print_config_shows_the_resolved_run(capsys):
    assert train.main("--dataset kinetics --max_epochs 40 --print_config".split()) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["method"], config["seed"]) == ("Midas", 2)
    assert config["hparams"]["lam"] == 5.0 and config["hparams"]["warmup_epochs"] == 6
    assert config["settings"]["lr"] == 1e-3 and config["settings"]["lr_step"] == 50
    assert config["differing"] == {"max_epochs": 40}


def resolved(dataset, words="", method="Midas", recipe="official"):
    flags = ["--dataset", dataset, "--method", method, "--recipe", recipe, *words.split()]
    return resolve(flags, "")[0]


@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize(
    ("dataset", "epochs", "expected"),
    [("food101", 30, 2), ("food101", 60, 4), ("cremad", 70, 10), ("cremad", 35, 5)],
)
def test_a_warm_up_scales_with_the_datasets_own_training_length(dataset, epochs, expected, recipe):
    run = resolved(dataset, f"--max_epochs {epochs}", recipe=recipe)
    assert run.hparams.warmup_epochs == expected


def test_other_methods_get_the_shared_part_of_the_recipe():
    run, paper = (resolved("ucf101", method="SMV", recipe=name) for name in ("official", "paper"))
    assert (run.settings.split_rule, run.prep.flip) == ("release", "apart")
    assert run.hparams == paper.hparams


def test_a_flag_beside_the_recipe_wins_and_names_the_folder(tmp_path):
    run = resolved("cremad", "--uni_reduce sum --split_rule paper --crop none")
    assert (run.hparams.uni_reduce, run.hparams.pairing) == ("sum", "permutation")
    name = "crop=none,recipe=official,split_rule=paper,uni_reduce=sum"
    assert run.default_folder(tmp_path).parts[-2:] == (name, "seed2")
    run = resolved("kinetics", "--alpha_rule share")  # removes the cap of the ratio rules
    assert run.hparams.alpha_cap == 0
    assert run.differing == {"recipe": "official", "alpha_rule": "share"}


def test_the_split_follows_the_seed_only_on_the_papers_datasets():
    for dataset, expected in (("cremad", 7), ("mosi", 7), ("demo", 1), ("ave", 0)):
        run = resolved(dataset, "--seed 7", recipe="paper")
        assert run.settings.split_seed == expected and run.differing == {}
    run = resolved("cremad", "--seed 7 --split_seed 3", recipe="paper")
    assert run.settings.split_seed == 3 and run.differing == {"split_seed": 3}


def test_folder_names_are_stable_and_readable(tmp_path):
    path = run_path(tmp_path, "kinetics", "Midas", {"lam": 5.0, "hard_sample": False}, 2)
    assert path == tmp_path / "runs/kinetics/Midas/hard_sample=off,lam=5/seed2"
    assert variant_name({}) == "default"
    assert "/" not in variant_name({"x": "a/../b"}) and len(variant_name({"x": "y" * 400})) < 160
    shown = [format_value(value) for value in (5.0, 0.05, 1e-4, True, "a")]
    assert shown == ["5", "0.05", "0.0001", "on", "a"]


def test_a_value_that_equals_the_default_does_not_change_the_name():
    run, _ = resolve(["--method", "midas", "--lam", "1", "--lr", "0.045"], "")
    assert run.differing == {} and run.method == "Midas"
    run, _ = resolve(["--lam", "1.50", "--seed", "3"], "")
    assert run.differing == {"lam": 1.5}


def test_a_table_is_read_back_whatever_its_cells_hold(tmp_path):
    path = tmp_path / "t.csv"
    rows = [("a\rb", "1"), ('q"', "x,y"), ("", "two\nlines"), ("\r\n", "'"), ("plain", "é")]
    write_table(path, ("id", "part"), rows)
    assert [tuple(row.values()) for row in read_table(path)] == rows
    path.write_text("id,part\na\n")
    with pytest.raises(UsageError, match="t.csv, line 2: 1 cells, but the header has 2"):
        read_table(path)
