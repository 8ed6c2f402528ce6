"""Tests that every dataset must pass: damage, wrong roots, equal bytes, a run from a raw tree.

What is specific to the layout of one dataset is tested in a separate file in tests/data_prep.
"""

import importlib
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from accounts import hidden, paths_in, raw_files
from conftest import ROOT, program

from common.files import file_digest, read_table
from common.options import UsageError, check
from data_prep import datasets
from data_prep.modalities.base import Modality
from data_prep.prepare import prepare, scan_root
from data_prep.reasons import KEPT_REASONS, REASONS
from data_prep.store import Prepared, read_meta
from data_prep.verify import verify
from experiments.run.folder import RunFolder
from experiments.run.settings import DATASET_DEFAULTS
from fixtures.scenes import Look
from fixtures.trees import MANY_CLASSES, TREES, write_tree

FORMS = [(dataset, layout) for dataset, (_, layouts) in TREES.items() for layout in layouts]
IDS = [f"{dataset} {layout}".strip() for dataset, layout in FORMS]
TEXTS = {"vocabulary": "build", "max_tokens": 64}
# Preparation settings, in addition to those that follow from the layout.
SETTINGS = dict.fromkeys(("food101", "sarcasm", "twitter2015", "mvsa", "mvsa_multiple"), TEXTS)
FEATURES = ("mosi", "mosei", "iemocap")  # all of one pickle
LIST_ENDINGS = (".txt", ".jsonl", ".csv", ".tsv", "idx1-ubyte", "idx1-ubyte.gz")
ALL = dict(workers=1, max_bad=1.0, allow_missing_classes=True)


def settings_of(dataset, layout):
    chosen = dict(SETTINGS.get(dataset, {}))
    chosen |= {"feature_files": layout} if dataset in FEATURES else {}
    chosen |= {"flow_algo": "precomputed"} if layout == "precomputed" else {}
    return datasets.load(dataset).Settings(**chosen)


def write(folder, dataset, layout="", per_class=2, **more):
    """A tree of at most three classes and its truth."""
    classes = 3 if dataset in MANY_CLASSES else None
    per_class = 10 if dataset in FEATURES else per_class
    root, truth = folder / "raw", folder / "truth.csv"
    write_tree(dataset, root, per_class, truth_path=truth, layout=layout, classes=classes, **more)
    return root, read_table(truth)


def contents(root):
    """The digest of every non-hidden file below `root`."""
    return {str(p.relative_to(root)): file_digest(p) for p in root.rglob("[!.]*") if p.is_file()}


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "layout"), FORMS, ids=IDS)
def test_every_kind_of_damage_has_the_expected_outcome(tmp_path, dataset, layout):
    root, truth = write(tmp_path, dataset, layout, corrupt_each=1, workers=1)
    module = importlib.import_module(f"fixtures.{TREES[dataset][0]}")
    due = module.expected(dataset, layout) | {"": ""}
    assert {row["corruption"]: row["expected_reason"] for row in truth} == due
    before = contents(root)
    folder = prepare(dataset, root, tmp_path / "data", settings_of(dataset, layout), **ALL)
    assert contents(root) == before and verify(folder, dataset) == []
    kept = {row["id"]: row for row in read_table(folder / "manifest.csv")}
    rejected = read_table(folder / "rejected.csv")
    for row in truth:
        check_outcome(row, kept.get(row["id"]), rejected)
    named = [row for row in truth if row["id"] in kept]
    assert kept.keys() == {row["id"] for row in named}
    check_accounts(root, dataset, settings_of(dataset, layout))


def check_accounts(root, dataset, settings):
    """A scan names every entry of the tree, or its folder, and nothing hidden."""
    scan = scan_root(datasets.load(dataset), dataset, root, settings, allow_missing_classes=True)
    sources = [path for c in scan.candidates for paths in c.sources.values() for path in paths]
    named = paths_in(sources + [rejection.source for rejection in scan.rejected])
    lists = {path for path in raw_files(root) if path.endswith(LIST_ENDINGS)}
    # Read folder by folder, or skipped with a note.
    flow = {path for path in raw_files(root) if path.startswith("tvl1_flow/")}
    left = raw_files(root) - lists - flow - named
    assert {path for path in left if str(Path(path).parent) not in named} == set()
    assert not hidden(named)


def check_outcome(row, sample, rejected):
    """Checks a line of the truth against its manifest row and the rejects."""
    reason = row["expected_reason"]
    assert not row["corruption"] or reason in REASONS or reason[:5] in ("", "flag:")
    reasons = {r["reason"] for r in rejected if r["id"] == row["id"]}
    if reason == "" or reason.startswith("flag:"):
        flags = set(sample["flags"].split(";")) if sample else None
        assert sample and reason[5:] in flags | {""}, (row, reasons, sample)
        assert reason or flags <= {"", "cut"}, (row, flags)  # texts may be longer than the limit
    elif row["id"]:
        assert reason in reasons, (row, reasons)
        # Of two files or rows, the first is still a sample; a tweet's picture has no row.
        is_kept = reason in (*KEPT_REASONS, "duplicate")
        assert bool(sample) == is_kept or row["corruption"] == "second_picture", (row, sample)
    else:
        assert any(r["reason"] == reason for r in rejected), row
    if sample and reason != "duplicate":
        assert sample["label_name"] == row["label"], row


# Roots and classes --------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", datasets.DATASETS)
def test_a_wrong_root_is_one_clear_error(tmp_path, dataset):
    layout = datasets.load(dataset)
    for name in ("photos/1.jpg", "notes.txt", "train/readme.md", "index.csv"):
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / name).write_text("hello\n")
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "gone", tmp_path / "empty", tmp_path / "other"):
        with pytest.raises(UsageError) as error:
            prepare(dataset, root, tmp_path / "data", layout.Settings(), **ALL)
        message = str(error.value)
        assert str(root) in message and "\n" not in message
        assert (layout.SOURCE if dataset != "demo" else "data_prep --dataset demo") in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("dataset", ["kinetics", "food101"])
def test_missing_classes_are_refused_unless_allowed(tmp_path, dataset):
    root, truth = write(tmp_path, dataset, per_class=2, workers=1)
    settings, labels = settings_of(dataset, ""), datasets.load(dataset).LABELS
    missing = f"class '{labels[3]}' .* more such classes.* --allow_missing"
    with pytest.raises(UsageError, match=missing):
        prepare(dataset, root, tmp_path / "data", settings, workers=1)
    folder = prepare(dataset, root, tmp_path / "data", settings, **ALL)
    assert read_meta(folder)["label_names"] == list(labels[:3])
    rows = {row["id"]: row["label_name"] for row in read_table(folder / "manifest.csv")}
    assert rows == {row["id"]: row["label"] for row in truth}


# Equal bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", TREES)
def test_trees_and_prepared_bytes_do_not_depend_on_workers_or_place(tmp_path, dataset):
    layout = TREES[dataset][1][0]
    settings, made = settings_of(dataset, layout), []
    for place, workers, seed in (("one", 1, 0), ("two", 2, 0), ("other", 2, 1)):
        (tmp_path / place).mkdir()
        root, truth = write(tmp_path / place, dataset, layout, 1, workers=workers, seed=seed)
        made.append([truth, contents(root)])
        if not seed:
            options = ALL | {"workers": workers}
            folder = prepare(dataset, root, tmp_path / place / "data", settings, **options)
            made[-1].append(contents(folder))
            files = [path for path in folder.rglob("[!.]*") if path.is_file()]
            assert not any(str(tmp_path).encode() in path.read_bytes() for path in files)
    one, two, other = made
    assert one == two and "samples-00000.arrow" in one[2] and other[1] != one[1]


# The program with shards of 5 candidates, so that a kill leaves only some shards finished.
SMALL_SHARDS = """
import sys
import data_prep.prepare
data_prep.prepare.SHARD_SIZE = 5
if __name__ == "__main__":
    from data_prep.__main__ import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cremad", "sarcasm"])
def test_a_killed_preparation_resumes_and_gives_the_same_bytes(tmp_path, dataset):
    root, _ = write(tmp_path, dataset, per_class=8, corrupt_each=1)
    texts = ("--vocabulary", "build") if dataset == "sarcasm" else ()
    command = [sys.executable, "-c", SMALL_SHARDS, "--dataset", dataset, "--dataset_root", root]
    command += [*texts, "--max_bad", "1", "--num_workers", "1", "--data_dir"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for count in (1, 3):  # shards that are finished before the kill
        process = subprocess.Popen([*command, killed], cwd=ROOT, stderr=subprocess.DEVNULL)
        while len(list(killed.rglob("*.arrow"))) < count and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not list(killed.rglob("manifest.csv"))
    for data in (killed, whole):
        subprocess.run([*command, data], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert contents(killed) == contents(whole) and len(list(whole.rglob("*.arrow"))) > 4


# Modules, names and settings ----------------------------------------------------------------------


IMPORTS = """
import sys
from common.options import UsageError
from data_prep import datasets
for name in datasets.DATASETS:
    datasets.load(name).Settings()
print("data sets load", sorted({"torch", "numpy", "av", "cv2", "tokenizers"} & set(sys.modules)))
from data_prep.__main__ import main
for words in (["--help"], ["--dataset", "kremad"], ["--dataset", "ave", "--max_bat", "1"]):
    try:
        main(words)
    except (SystemExit, UsageError) as error:
        print(error)
print("the program loads", sorted({"torch", "av", "cv2", "tokenizers"} & set(sys.modules)))
"""


def test_help_and_wrong_names_import_no_heavy_module():
    done = program("-c", IMPORTS)
    assert "data sets load []" in done.stdout and "the program loads []" in done.stdout
    assert "Did you mean 'cremad'?" in done.stdout and "Did you mean '--max_bad'?" in done.stdout


@pytest.mark.parametrize("dataset", datasets.DATASETS)
def test_a_dataset_declares_all_that_its_preparation_and_split_need(dataset):
    layout = datasets.load(dataset)
    settings = layout.Settings(**SETTINGS.get(dataset, {}))
    check(settings)
    spec = layout.spec(settings)
    assert len(spec) >= 2 and all(isinstance(kind, Modality) for kind in spec.values())
    for name, kind in spec.items():
        assert kind.normalise is not None or kind.inline, name
        assert name == kind.kind or (dataset in FEATURES and kind.kind == "array")
    assert len(set(layout.LABELS)) == len(layout.LABELS) >= 2 and layout.SOURCE
    assert 0.5 < layout.SPLIT_SECOND < 1 and layout.Settings.__doc__
    default = DATASET_DEFAULTS.get(dataset, {}).get("split_rule", "paper")
    assert getattr(layout, "SPLIT_RULE", "paper") == default
    for field in fields(settings):  # every setting is described, and wrong values are refused
        assert field.metadata["help"] and field.metadata["source"]
        if field.metadata["choices"]:
            with pytest.raises(UsageError, match=f"--{field.name}"):
                check(layout.Settings(**{field.name: "no such choice"}))


# From a raw tree to a result ----------------------------------------------------------------------

SMALL = ("--size", "32", "--encoder", "small")
CLIPS = (*SMALL, "--spec_pool", "4")
PAGES = (*SMALL, "--vocabulary", "build", "--text_model", "tiny", "--weights", "none")
LOOK = Look(32, 24, 5, (1.0, 1.0))
OFFICIAL = ("--split_rule", "official")
# dataset -> (layout, samples of each class, their look, flags)
RUNS = {
    "cremad": ("", 6, LOOK, (*CLIPS, "--split_rule", "group", "--frame_codec", "raw")),
    "kinetics": ("B", 3, LOOK, (*CLIPS, "--audio_feature", "stft", "--precision", "bf16")),
    "ave": ("", 3, LOOK, (*CLIPS, *OFFICIAL)),
    "vggsound": ("sound", 3, LOOK, (*CLIPS, *OFFICIAL)),
    "ucf101": ("clips", 3, LOOK, (*SMALL, *OFFICIAL, "--flow_norm", "center", "--crop", "rrc")),
    "food101": ("plain", 5, None, PAGES),
    "sarcasm": ("", 16, None, PAGES),
    "twitter2015": ("both", 16, None, PAGES),
    "mvsa": ("mmbt", 16, None, (*PAGES, *OFFICIAL)),
    "mvsa_multiple": ("", 16, None, PAGES),
    "avmnist": ("plain", 12, None, ("--split_rule", "group", "--flip", "on")),
    "mosi": ("mult_aligned", 60, None, ("--lr", "0.01", "--warmup_epochs", "1", *OFFICIAL)),
    "mosei": ("mult_unaligned", 60, None, ("--warmup_epochs", "1")),
    "iemocap": ("mult_aligned", 30, None, ("--warmup_epochs", "1")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dataset", RUNS)
def test_one_command_leads_from_the_raw_tree_to_a_result(tmp_path, dataset):
    layout, per_class, look, flags = RUNS[dataset]
    root, truth = tmp_path / "raw", tmp_path / "truth.csv"
    write_tree(dataset, root, per_class, truth_path=truth, layout=layout, look=look)
    raw = ("--dataset", dataset, "--dataset_root", root, "--method", "Midas", "--devices", "cpu")
    places = ("--data_dir", tmp_path / "data", "--output_dir", tmp_path / "run")
    more = ("--feature_files", layout) if dataset in FEATURES else ()
    done = program(
        "train.py", *raw, *places, *flags, *more, "--max_epochs", "3", "--batch_size", "16"
    )
    assert done.returncode == 0, done.stderr
    total = len(read_table(truth))
    assert f"{total} of {total} samples prepared" in done.stderr and "pairs " in done.stdout
    run, log = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run").read_log()
    result = run.read_json("result.json")
    assert 0 <= result["test/acc"] <= 1 and log[-1]["train/n_valid"] > 0
    # With two classes, any two are the top two: misaligned samples need three classes or more.
    assert ("test/acc_mis" in result) == (len(result["label_names"]) > 2)
    (meta,) = (tmp_path / "data").rglob("meta.json")
    splits = [[row["part"] for row in read_table(path)] for path in Prepared(meta.parent).splits()]
    assert result["count/n_train"] in [parts.count("train") for parts in splits]
    assert {len(parts) for parts in splits} == {total}
    if dataset in FEATURES:
        assert log[-1]["train/L_uni"] < 0.95 * log[0]["train/L_uni"]
