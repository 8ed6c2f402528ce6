"""Tables and figures from small made-up results: texts, plotted numbers, and what is missing."""

import json
import shutil
from dataclasses import replace

import pytest
from conftest import ROOT, cpu_of_children, program
from fake_runs import fake_run, fill

from common.files import file_digest
from experiments.paper import illustration as demo
from experiments.paper import registry
from experiments.paper.illustration import JOINT, MIDAS
from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.report.grid import grid, marks
from experiments.report.latex import latex
from experiments.report.page import report
from experiments.report.reader import Reader
from experiments.report.tables import markdown, numbers_csv

TABLE = Table(
    "small",
    "A caption.",
    (Column("accuracy %", digits=1), Column("minutes", percent=False, lower=None)),
    tuple(
        Row(label, (Cell(runs, "test/acc"), Cell(runs, "time")))
        for label, runs in (("Joint", JOINT), ("Midas", MIDAS))
    ),
    ("A note.",),
)


def texts(results, table=TABLE):
    """(Markdown, CSV) of a table."""
    reader = Reader(results)
    return markdown(table, reader), numbers_csv(table, reader)


# --- tables ---------------------------------------------------------------------------------------

GOLDEN = """**small.** A caption.

| method | accuracy % | minutes |
|---|---|---|
| Joint | 91.0 ± 1.0 (3) | 2.50 ± 0.00 (3) |
| Midas | **96.0 (1)** | 2.50 (1) |

Bold: best mean of the column.

A note.

To fill:

- `python train.py --dataset demo --method Midas --seed 2{places}` \
(begun: it goes on where it stopped)
- `python train.py --dataset demo --method Midas --seed 3{places}`

Each run's epoch is chosen on validation accuracy alone (the first of equals); the test part is \
read once, at the end, whole. ± is the sample standard deviation (n - 1) over the n seeds in \
parentheses. ± of demo holds the spread between trainings alone (one split for all seeds). Hashes \
of demo: spec feed, split 0123456789ab. Commit: abc. Environments: mixed (threads: 1, 2). \
Settings: one.
"""

GOLDEN_CSV = """row,column,runs,metric,mean,std,n,seeds,values
Joint,accuracy %,demo/Joint/default,test/acc,0.91,0.01,3,1 2 3,0.9 0.91 0.92
Joint,minutes,demo/Joint/default,time,2.5,0,3,1 2 3,2.5 2.5 2.5
Midas,accuracy %,demo/Midas/default,test/acc,0.96,,1,1,0.96
Midas,minutes,demo/Midas/default,time,2.5,,1,1,2.5
"""


def test_golden_table(tmp_path, capsys):
    for seed, acc in ((1, 0.90), (2, 0.91), (3, 0.92)):
        fake_run(tmp_path, JOINT, seed, acc=acc)
    fake_run(tmp_path, MIDAS, 1, acc=0.96, threads=2)
    fake_run(tmp_path, MIDAS, 2, done=False)
    text, comma = texts(tmp_path)
    assert text == GOLDEN.format(places=f" --results_dir {tmp_path}")
    assert comma == GOLDEN_CSV
    assert capsys.readouterr().err == ""


def test_a_table_without_runs_is_all_missing_cells(tmp_path):
    text, comma = texts(tmp_path)
    assert "| Joint | -- | -- |\n| Midas | -- | -- |\n" in text
    assert text.count("- `for seed in 1 2 3; do python train.py --dataset demo --method") == 2
    assert "No finished run yet." in text
    assert "Joint,accuracy %,demo/Joint/default,test/acc,,,0,,\n" in comma


def test_the_usual_results_folder_needs_no_flag():
    assert Reader("results").command(JOINT, 99) == JOINT.command(99)


def test_mixed_settings_and_hashes_are_told(tmp_path):
    fake_run(tmp_path, JOINT, 1)
    fake_run(tmp_path, JOINT, 2, epochs=5, hashes={"split": "other"})
    text, _ = texts(tmp_path)
    assert "Settings: mixed (demo.max_epochs: 4, 5)." in text
    assert "split 0123456789ab and other" in text


CREMAD = RunSet("cremad", "Joint")
ONE_SPLIT = RunSet("cremad", "Joint", (("split_seed", 0),))


def split_run(results, runs, seed, split, **more):
    """A run of a split of its own, as its configuration and hashes tell."""
    folder = fake_run(results, runs, seed, hashes={"split": f"hash{split}", "part": "same"}, **more)
    config = folder.read_json("config.json")
    config["settings"] |= {"split_rule": "paper", "split_seed": split}
    folder.write_json("config.json", config)


def test_a_split_a_seed_is_no_mixture_and_is_told(tmp_path):
    for seed in (1, 2, 3):
        split_run(tmp_path, CREMAD, seed, seed)
    row = Row("Joint", (Cell(CREMAD, "test/acc"),))
    text, _ = texts(tmp_path, Table("t", "T.", (Column("x"),), (row,)))
    assert "± of cremad holds the spread between test parts as well as between trainings" in text
    assert "part same, spec feed; for each of 3 splits its own split. Commit" in text
    assert "Settings: one." in text


def test_one_split_beside_a_split_a_seed_is_told(tmp_path):
    for seed in (1, 2, 3):
        split_run(tmp_path, CREMAD, seed, seed)
        split_run(tmp_path, ONE_SPLIT, seed, 0)
    row = Row("Joint", (Cell(CREMAD, "test/acc"), Cell(ONE_SPLIT, "test/acc")))
    text, _ = texts(tmp_path, Table("t", "T.", (Column("x"), Column("y")), (row,)))
    assert "± of cremad holds the spread between test parts in those columns alone" in text
    assert "spec feed; for each of 4 splits its own split." in text and "Settings: one." in text


@pytest.mark.parametrize("specs", ["one", "each its own"])
def test_runs_of_other_samples_are_told_whatever_their_splits(tmp_path, specs):
    """A split a seed explains other splits, and no other samples; another preparation does."""
    for seed in (1, 2):
        split_run(tmp_path, CREMAD, seed, seed)
        folder = CREMAD.folder(tmp_path, seed)
        env = folder.read_json("env.json")
        env["starts"][0]["hashes"]["data"] = f"samples{seed}"
        env["starts"][0]["spec_hash"] = "feed" if specs == "one" else f"feed{seed}"
        folder.write_json("env.json", env)
    row = Row("Joint", (Cell(CREMAD, "test/acc"),))
    text, _ = texts(tmp_path, Table("t", "T.", (Column("x"),), (row,)))
    assert "data samples1 and samples2" in text
    assert ("(MIXED: not all runs saw the same samples)" in text) == (specs == "one")


def test_runs_of_one_split_that_have_different_ones_are_told(tmp_path):
    split_run(tmp_path, CREMAD, 1, 1)
    split_run(tmp_path, CREMAD, 2, 1)
    folder = CREMAD.folder(tmp_path, 2)
    env = folder.read_json("env.json")
    env["starts"][0]["hashes"]["split"] = "other"
    folder.write_json("env.json", env)
    row = Row("Joint", (Cell(CREMAD, "test/acc"),))
    text, _ = texts(tmp_path, Table("t", "T.", (Column("x"),), (row,)))
    assert "split hash1 and other" in text
    assert "Settings: mixed (cremad.split_seed: 1, the run's seed)." in text
    assert "holds the spread between trainings alone" in text


def test_texts_differences_and_the_chosen_epochs_values_are_cells(tmp_path):
    for seed, acc in ((1, 0.9), (2, 0.95)):
        fake_run(tmp_path, MIDAS, seed, acc=acc, log=lambda epoch: {"val/x": epoch / 10})
        fake_run(tmp_path, JOINT, seed, acc=0.85)
    fake_run(tmp_path, JOINT, 3, acc=0.1)
    difference = Cell(MIDAS, "test/acc", minus=JOINT)
    columns = (Column("points", digits=1), Column("x", digits=1), Column("words", lower=None))
    rows = (Row("a", (difference, Cell(MIDAS, "val/x"), "some & words")),)
    table = Table("t", "T.", columns, rows)
    text, comma = texts(tmp_path, table)
    assert "| a | 7.5 ± 3.5 (2) | 30.0 ± 0.0 (2) | some & words |" in text
    assert table.runs() == [MIDAS, JOINT]
    name = "demo/Midas/default minus demo/Joint/default"
    assert f"a,points,{name},test/acc,0.075,0.03535533906,2,1 2,0.05 0.1\n" in comma
    assert "a,words,,,,,,,some & words\n" in comma
    reader = Reader(tmp_path)
    assert r"& 30.0 $\pm$ 0.0 (2) & some \& words \\" in latex(table, reader)
    page = report([table], reader, {})
    assert "<td>some &amp; words</td>" in page
    assert f"{name}, test/acc: 5 of 6 runs" in page


def damage_result(folder):
    folder.file("result.json").write_text('{"best_epo')


def damage_log(folder):
    text = folder.file("log.jsonl").read_text()
    folder.file("log.jsonl").write_text(text[: len(text) // 2])


def damage_log_bytes(folder):
    folder.file("log.jsonl").write_bytes(b"\xff\xfe\x00")


def lose_environment(folder):
    folder.file("env.json").unlink()


def make_foreign(folder):
    config = folder.read_json("config.json")
    folder.write_json("config.json", config | {"method": "Midas"})


def make_a_list(folder):
    folder.file("config.json").write_text("[1, 2]")


def lose_config(folder):
    folder.file("config.json").unlink()


def make_infinite(folder):
    folder.file("result.json").write_text('{"best_epoch": 1, "test/acc": NaN}')


def certify(folder, log):
    """The log's content, and a result that says it is right."""
    folder.file("log.jsonl").write_bytes(log)
    known = {"log": file_digest(folder.file("log.jsonl"))}
    folder.write_json("result.json", folder.read_json("result.json") | known)


def certify_a_cut_log(folder):
    certify(folder, folder.file("log.jsonl").read_bytes()[:40])


def certify_an_empty_log(folder):
    certify(folder, b"")


def flip_a_digit(folder):
    text = folder.file("result.json").read_text()
    folder.file("result.json").write_text(text.replace('"test/acc": 0.9', '"test/acc": 0.8'))


@pytest.mark.parametrize(
    "harm, words",
    [
        (certify_a_cut_log, "log.jsonl is damaged: 4 epochs expected, 1 whole lines"),
        (certify_an_empty_log, "log.jsonl is damaged: 4 epochs expected, 0 whole lines"),
        (flip_a_digit, "result.json is damaged: its content is not what its sha256 says"),
        (damage_result, "result.json is damaged"),
        (damage_log, "log.jsonl is damaged: 4 epochs expected, 2 whole lines"),
        (damage_log_bytes, "log.jsonl is damaged: 4 epochs expected, 0 whole lines"),
        (lose_environment, "has no env.json"),
        (make_foreign, "config.json is another run's: method is 'Midas', not 'Joint'"),
        (make_a_list, "config.json is damaged: an object was expected, not list"),
        (lose_config, "it holds a result and no config.json: move the folder away"),
        (make_infinite, "test/acc is nan"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_and_the_rest_is_made(tmp_path, capsys, harm, words):
    for seed in (1, 2, 3):
        fake_run(tmp_path, JOINT, seed)
    folder = JOINT.folder(tmp_path, 2)
    harm(folder)
    text, _ = texts(tmp_path)
    assert "| Joint | **90.0 ± 0.0 (2)** |" in text or "| Joint | 90.0 ± 0.0 (2) |" in text
    assert f"--seed 2 --results_dir {tmp_path} --overwrite`" in text
    error = capsys.readouterr().err
    assert error.count("WARNING") == 1 and str(folder.path) in error and words in error


def test_a_log_that_is_not_the_results_own_is_damaged(tmp_path, capsys):
    for seed in (1, 2):
        folder = fake_run(tmp_path, JOINT, seed, known_log=True)
    text = folder.file("log.jsonl").read_text()
    folder.file("log.jsonl").write_text(text.replace('"epoch": 2', '"epoch": 2 ', 1))
    reader = Reader(tmp_path)
    assert [run.seed for run in reader.finished(JOINT, (1, 2))] == [1]
    assert "log.jsonl is damaged" in capsys.readouterr().err
    (whole,) = reader.finished(JOINT, (1,))
    assert whole.lines is None and [line["epoch"] for line in whole.log] == [1, 2, 3, 4]


def test_a_number_that_a_run_lacks_is_told(tmp_path, capsys):
    row = Row("Joint", (Cell(JOINT, "test/none"),))
    table = Table("t", "T.", (Column("x"),), (row,))
    fake_run(tmp_path, JOINT, 1)
    assert "| Joint | -- |" in texts(tmp_path, table)[0]
    assert "demo/Joint/default/seed1 has no value test/none" in capsys.readouterr().err


# --- make_tables.py -------------------------------------------------------------------------------

CODE = """
import sys
from common.program import run
from make_tables import main
status = run(main, sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
"""
END = "sys.exit(status)"
MEMORY = """
from tests.memory import peak
print(peak(), file=sys.stderr)
"""


def make_tables(results, *words):
    return program("-c", CODE + END, "--results_dir", results, "--out", results / "out", *words)


def add_every_key(results, artifacts):
    """Gives each run's result the keys that the tables read."""
    for table in [a for a in artifacts if isinstance(a, Table)]:
        for _, _, cell in table.cells():
            for seed in table.seeds:
                folder = cell.runs.folder(results, seed)
                result = folder.read_json("result.json")
                folder.file("result.json").write_text(json.dumps({cell.key: 0.5} | result))


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_make_tables_writes_all_twice_the_same_without_torch(tmp_path):
    fill(tmp_path)
    add_every_key(tmp_path, demo.ARTIFACTS)
    first = make_tables(tmp_path, "demo")
    assert (first.returncode, first.stderr) == (0, "")
    assert "| JointUni | 92.0 ± 1.0 (3) | 50.0 ± 0.0 (3) |" in first.stdout
    assert "missing" not in first.stdout
    files = files_of(tmp_path / "out")
    assert {str(path) for path in files} == {
        "report-demo.html",
        *(
            f"figures/{a.id}{end}" if hasattr(a, "panels") else f"tables/{a.id}{end}"
            for a in demo.ARTIFACTS
            for end in (
                (".png", ".pdf", ".csv") if hasattr(a, "panels") else (".md", ".csv", ".tex")
            )
        ),
    }
    second = make_tables(tmp_path, "demo")
    assert second.stdout == first.stdout
    assert files_of(tmp_path / "out") == files


@pytest.mark.slow
def test_a_thousand_runs_take_seconds_and_a_part_of_a_gigabyte(tmp_path):
    """CPU time, which other programs change less than the clock: 7 s where it was measured."""
    fill(tmp_path, registry.ARTIFACTS)
    add_every_key(tmp_path, registry.ARTIFACTS)
    one = next(iter((tmp_path / "runs").glob("*/*/*/seed1")))
    total = len(list((tmp_path / "runs").glob("*/*/*/seed*")))
    for seed in range(10, 10 + 1000 - total):
        shutil.copytree(one, one.with_name(f"seed{seed}"))
    before = cpu_of_children()
    made = program("-c", CODE + MEMORY + END, "--results_dir", tmp_path, "--out", tmp_path / "out")
    after = cpu_of_children()
    assert made.returncode == 0 and "missing" not in made.stdout
    assert after - before < 15
    assert float(made.stderr.split()[-1]) < 1024  # MiB
    told = program("-m", "experiments", "status", "--results_dir", tmp_path)
    asked = cpu_of_children()
    assert told.stdout.splitlines()[-1].startswith("537 done"), told.stdout[-300:]
    assert asked - after < 2
    table = (tmp_path / "out/tables/table1.md").read_text(encoding="utf-8")
    assert "Against the paper, cell by cell: " in table and "| --" not in table
    assert (tmp_path / "out/tables/table1.paper.csv").read_text().count("\n") == 57
    assert (tmp_path / "out/report.html").exists()


def test_make_tables_lists_what_is_missing_and_removes_what_would_mislead(tmp_path):
    fake_run(tmp_path, JOINT, 1)
    old = tmp_path / "out/figures/demo-figure4.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    made = make_tables(tmp_path, "demo-short")
    assert made.returncode == 0
    assert (
        "demo-figure4: not drawn, its runs are missing (an earlier one was removed)" in made.stdout
    )
    assert not old.exists()
    assert "missing: 11 runs" in made.stdout
    commands = make_tables(tmp_path, "demo-figure4", "--missing")
    assert commands.stdout.splitlines() == [
        MIDAS.commands([1, 2, 3], ["--results_dir", str(tmp_path)])
    ]
    assert commands.stdout.startswith("for seed in 1 2 3; do python train.py --dataset demo")


def test_make_tables_without_any_run_names_make_demo(tmp_path):
    made = make_tables(tmp_path)
    assert made.returncode == 1 and made.stdout == ""
    assert made.stderr.count("\n") == 1 and "`make demo`" in made.stderr
    assert not (tmp_path / "out").exists()


def test_make_tables_refuses_an_unknown_name(tmp_path):
    made = make_tables(tmp_path, "dmeo")
    assert made.returncode == 2
    assert made.stderr.startswith("error: unknown table or figure 'dmeo'. Did you mean 'demo'?")


def test_make_tables_answers_help_from_the_root():
    made = program(ROOT / "make_tables.py", "--help")
    assert made.returncode == 0 and "--missing" in made.stdout
    assert made.stderr == ""


def test_all_rows_compete_for_bold_in_a_table_that_the_paper_lacks(tmp_path):
    for runs, acc in ((demo.JOINT, 0.5), (demo.JOINT_UNI, 0.9), (demo.MIDAS, 0.8)):
        fake_run(tmp_path, runs, 1, acc=acc)
    table = replace(demo.DEMO_TABLE, seeds=(1,))
    marked = marks(table, grid(table, Reader(tmp_path)))
    assert (marked[1, 0], marked[2, 0]) == ("best", "second")
    cell = Cell(demo.JOINT, "test/acc", ("t", "cremad", "Joint", "", "acc"))
    row = Row("Joint", (cell, *table.rows[0].cells[1:]))
    repeats = replace(table, rows=(row, *table.rows[1:]))
    marked = marks(repeats, grid(repeats, Reader(tmp_path)))
    assert marked[2, 0] == "best" and (1, 0) not in marked


@pytest.mark.parametrize("name", ["config.json", "result.json", "env.json"])
@pytest.mark.parametrize("text", [
    "null", "{}", "[]", "7", '"text"', "no JSON", "", "\0",
    "\ud800".encode("utf-8", "surrogatepass"),
    '{"best_epoch": 1e308}', '{"best_epoch": ' + "9" * 400 + "}", "[" * 100_000,
    '{"best_epoch": 1, "test/acc": 1e308}', '{"settings": 3, "starts": 4}',
])  # fmt: skip
def test_no_damaged_file_of_one_run_stops_the_others(tmp_path, capsys, name, text):
    for seed in (1, 2):
        folder = fake_run(tmp_path, JOINT, seed)
    folder.file(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    made, _ = texts(tmp_path)
    assert "90.0 ± 0.0 (1)" in made or "90.0 (1)" in made, made
    assert "is not used" in capsys.readouterr().err
