"""Tables from small made-up results: golden texts, sources, missing and damaged runs."""

from dataclasses import replace

import pytest
from fake_runs import fake_run

from common.files import file_digest
from experiments.paper.illustration import DEMO_TABLE, JOINT, JOINT_UNI, MIDAS
from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.report.evaluate import evaluate
from experiments.report.reader import Reader
from experiments.report.render import escape, latex, markdown, numbers_csv, panels
from experiments.report.statistics import Summary, summarise

TABLE = Table(
    "small",
    "50 % of A & B_1.",
    (Column("Acc", "CREMA-D", digits=1), Column("min", "R&D", percent=False, lower=True)),
    (
        Row("Joint #1", (Cell(JOINT, "test/acc"), Cell(JOINT, "time"))),
        Row("JointUni", (Cell(JOINT_UNI, "test/acc"), None), ours=True),
        Row("SMV", (Cell(RunSet("demo", "SMV"), "test/acc"), "some & words")),
        Row("MIDAS", (Cell(MIDAS, "test/acc"), Cell(MIDAS, "time"))),
    ),
    ("See `--lam`.",),
)
GOLDEN = """**small.** 50 % of A & B_1.

| method | CREMA-D: Acc | R&D: min |
|---|---|---|
| Joint #1 | <u>91.0 ± 1.0 (3)</u> | 2.50 ± 0.00 (3) |
| JointUni | -- | n/a |
| SMV | 50.0 (1) | some & words |
| MIDAS | **95.0 ± 1.4 (2)** | **1.25 ± 0.00 (2)** |

Bold: best mean of the column; underlined: second best.

See `--lam`.

Missing runs:

- `for seed in 1 2 3; do python train.py --dataset demo --method JointUni --seed $seed{places}; \
done`
- `for seed in 2 3; do python train.py --dataset demo --method SMV --seed $seed{places}; done`
- `python train.py --dataset demo --method Midas --seed 3{places}` \
(started: it will resume)

{footer}
"""
FOOTER = (
    "The epoch of each run is selected by validation accuracy only (ties: the first); the complete"
    " test split is evaluated once, at the end. ± is the sample standard deviation (n - 1) over the"
    " n seeds in parentheses. ± for demo includes only the variation between trainings (one split"
    " for all seeds). Hashes of demo: spec feed, split 0123456789ab. Commit: abc. Environments:"
    " mixed (threads: 1, 2). Settings: one."
)


def texts(results, *cells):
    """Markdown and CSV of a table with one row."""
    columns = tuple(Column(f"c{k}") for k in range(len(cells)))
    evaluated = evaluate(Table("t", "T.", columns, (Row("Joint", cells),)), Reader(results))
    return markdown(evaluated), numbers_csv(evaluated)


def change_json(folder, name, **values):
    folder.write_json(name, folder.read_json(name) | values)


def test_golden_text(tmp_path, capsys):
    for seed, acc in ((1, 0.90), (2, 0.91), (3, 0.92)):
        fake_run(tmp_path, JOINT, seed, acc=acc)
    for seed, acc in ((1, 0.94), (2, 0.96)):
        change_json(fake_run(tmp_path, MIDAS, seed, acc=acc, threads=2), "result.json", time=1.25)
    fake_run(tmp_path, MIDAS, 3, done=False)
    fake_run(tmp_path, RunSet("demo", "SMV"), 1, acc=0.5)
    evaluated = evaluate(TABLE, Reader(tmp_path))
    places = f" --results_dir {tmp_path}"
    assert markdown(evaluated) == GOLDEN.format(places=places, footer=FOOTER)
    line = "JointUni,CREMA-D: Acc,demo/JointUni/default,test/acc,,,0,,\n"
    assert line in numbers_csv(evaluated)
    tex = latex(evaluated)
    assert tex.startswith(f"% \\usepackage{{booktabs,graphicx}}\n% {FOOTER}\n")
    assert r"SMV & 50.0 (1) & some \& words \\" in tex
    assert capsys.readouterr().err == ""


def test_the_usual_results_folder_needs_no_flag():
    assert Reader("results").commands(JOINT, [99]) == JOINT.command(99)


def test_mean_and_sample_std_by_hand():
    assert summarise([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5), 3)  # (4 + 1 + 9) / 2
    assert summarise([5.0]) == (5.0, None, 1) and summarise([]) is None
    assert Summary(90.24, 0.36, 3).spread(1) == "90.2 ± 0.4"


def test_differences_are_taken_seed_by_seed_and_val_is_the_chosen_epochs(tmp_path):
    for seed, acc in ((1, 0.9), (2, 0.95)):
        fake_run(tmp_path, MIDAS, seed, acc=acc, log=lambda epoch: {"val/x": epoch / 10})
        fake_run(tmp_path, JOINT, seed, acc=0.85)
    fake_run(tmp_path, JOINT, 3, acc=0.1)
    text, comma = texts(tmp_path, Cell(MIDAS, "test/acc", minus=JOINT), Cell(MIDAS, "val/x"))
    assert "| Joint | 7.50 ± 3.54 (2) | 30.00 ± 0.00 (2) |" in text
    name = "demo/Midas/default minus demo/Joint/default"
    assert f"Joint,c0,{name},test/acc,0.075,0.03535533906,2,1 2,0.05 0.1\n" in comma
    assert "--method Joint --" not in text and "--method Midas --seed 3" in text


def test_rows_of_ours_compete_for_bold_only_where_the_paper_has_no_such_table(tmp_path):
    for runs, acc in ((JOINT, 0.5), (JOINT_UNI, 0.9), (MIDAS, 0.8)):
        fake_run(tmp_path, runs, 1, acc=acc)
    table = replace(DEMO_TABLE, seeds=(1,))

    def marks(table):
        return [entries[0].mark for _, entries in evaluate(table, Reader(tmp_path)).rows()]

    assert marks(table) == ["", "best", "second"]
    cell = Cell(JOINT, "test/acc", ("table1", "cremad", "Joint", "", "acc"))
    row = Row("Joint", (cell, *table.rows[0].cells[1:]))
    assert marks(replace(table, rows=(row, *table.rows[1:]))) == ["", "", "best"]


def test_special_characters_are_escaped():
    assert escape("a_b % & # $ {x}") == r"a\_b \% \& \# \$ \{x\}"
    assert escape("~ ^ \\") == r"\textasciitilde{} \textasciicircum{} \textbackslash{}"
    assert escape("1 < 2 > 0 | x") == r"1 \textless{} 2 \textgreater{} 0 \textbar{} x"
    assert escape('3 ± 1 --x --- "no"') == r"3 $\pm$ 1 -{}-x -{}-{}- ''no''"


def test_wide_tables_wrap_by_whole_blocks():
    places = [[len(part) for part in panels(n)] for n in ((3, 3, 3, 3), (2, 3, 2), (8, 1))]
    assert places == [[6, 6], [5, 2], [8, 1]]


# --- where the numbers come from ------------------------------------------------------------------

CREMAD, ONE_SPLIT = (RunSet("cremad", "Joint", more) for more in ((), (("split_seed", 0),)))


def split_run(results, runs, seed, drawn, spec="feed", **hashes):
    """A run whose configuration and hashes name its split."""
    hashes = {"split": f"hash{drawn}", "part": "same"} | hashes
    folder = fake_run(results, runs, seed, hashes=hashes, spec_hash=spec)
    settings = folder.read_json("config.json")["settings"]
    settings |= {"split_rule": "paper", "split_seed": drawn}
    change_json(folder, "config.json", settings=settings)


def footer(results, *several):
    return texts(results, *(Cell(runs, "test/acc") for runs in several))[0]


def test_one_split_per_seed_is_not_a_mixture(tmp_path):
    for seed in (1, 2, 3):
        split_run(tmp_path, CREMAD, seed, seed)
        split_run(tmp_path, ONE_SPLIT, seed, 0)
    text = footer(tmp_path, CREMAD)
    assert "± for cremad includes the variation between test sets as well as between" in text
    assert "part same, spec feed; different for each of 3 splits: split. Commit" in text
    both = footer(tmp_path, CREMAD, ONE_SPLIT)
    assert "± for cremad includes the variation between test sets only in columns with" in both
    assert "spec feed; different for each of 4 splits: split." in both
    assert "Settings: one." in text and "Settings: one." in both


@pytest.mark.parametrize("specs", [("feed", "feed"), ("feed1", "feed2")])
def test_runs_of_other_samples_are_reported_whatever_their_splits(tmp_path, specs):
    """A split per seed explains other splits but not other samples; a new preparation does."""
    for seed, spec in enumerate(specs, 1):
        split_run(tmp_path, CREMAD, seed, seed, spec, data=f"samples{seed}")
    text = footer(tmp_path, CREMAD)
    assert "data samples1 and samples2" in text
    assert ("(MIXED: not all runs saw the same samples)" in text) == (specs[0] == specs[1])


def test_runs_of_one_split_seed_with_different_splits_are_reported(tmp_path):
    split_run(tmp_path, CREMAD, 1, 1)
    split_run(tmp_path, CREMAD, 2, 1, split="other")
    text = footer(tmp_path, CREMAD)
    assert "split hash1 and other" in text
    assert "Settings: mixed (cremad.split_seed: 1, the run's seed)." in text
    assert "includes only the variation between trainings" in text


# --- damaged runs ---------------------------------------------------------------------------------


def write(name, content):
    """Damage that overwrites a file of the folder."""
    return lambda folder: folder.file(name).write_bytes(content)


def cut_log(folder):
    text = folder.file("log.jsonl").read_bytes()
    folder.file("log.jsonl").write_bytes(text[: len(text) // 2])


def certify_a_cut_log(folder):
    """A truncated log, and a result that calls it correct."""
    cut_log(folder)
    change_json(folder, "result.json", log=file_digest(folder.file("log.jsonl")))


def flip_a_digit(folder):
    text = folder.file("result.json").read_text()
    folder.file("result.json").write_text(text.replace('"test/acc": 0.9', '"test/acc": 0.8'))


@pytest.mark.parametrize(
    "harm, words",
    [
        (cut_log, "log.jsonl is damaged: 2 valid lines, expected 4 epochs"),
        (certify_a_cut_log, "log.jsonl is damaged: 2 valid lines, expected 4 epochs"),
        (lambda f: change_json(f, "result.json", log="0" * 64), "log.jsonl is damaged"),
        (flip_a_digit, "result.json is damaged: its content does not match its sha256"),
        (lambda f: f.file("env.json").unlink(), "has no env.json"),
        (lambda f: f.file("config.json").unlink(), "a result but no config.json"),
        (lambda f: change_json(f, "config.json", method="Midas"), "from another run: method"),
        (write("log.jsonl", b"\xff\xfe\x00"), "0 valid lines, expected 4 epochs"),
        (write("result.json", b'{"best_epoch": 1, "test/acc": NaN}'), "test/acc is nan"),
        (write("result.json", b'{"best_epoch": 1, "test/acc": 1e308}'), "is not used"),
        (write("config.json", b"[1, 2]"), "config.json is damaged: expected an object"),
        *(
            (write(name, text), "is not used")
            for name in ("config.json", "result.json", "env.json")
            for text in (b"", b"[" * 100_000, b'{"settings": 3}')
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_and_the_rest_is_made(tmp_path, capsys, harm, words):
    for seed in (1, 2, 3):
        fake_run(tmp_path, JOINT, seed)
    folder = JOINT.folder(tmp_path, 2)
    harm(folder)
    text, _ = texts(tmp_path, Cell(JOINT, "test/acc"))
    assert "| Joint | 90.00 ± 0.00 (2) |" in text
    assert f"--seed 2 --results_dir {tmp_path} --overwrite`" in text
    error = capsys.readouterr().err
    assert error.count("WARNING") == 1 and str(folder.path) in error and words in error


def test_a_number_that_a_run_lacks_is_named(tmp_path, capsys):
    fake_run(tmp_path, JOINT, 1)
    assert "| Joint | -- |" in texts(tmp_path, Cell(JOINT, "test/none"))[0]
    assert "demo/Joint/default/seed1 has no value test/none" in capsys.readouterr().err
