"""`make_tables.py` as a program: its files, reproducible bytes, missing runs, refusals."""

import json
import shutil

import pytest
from conftest import ROOT, cpu_of_children, program
from fake_runs import fake_run, fill

from experiments.paper import illustration as demo
from experiments.paper import registry
from experiments.paper.kinds import Table

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
ENDINGS = {"figures": (".png", ".pdf", ".csv", ".md", ".tex"), "tables": (".md", ".csv", ".tex")}


def make_tables(results, *words, out="out", code=CODE + END, **environment):
    places = ("--results_dir", results, "--out", results / out)
    return program("-c", code, *places, *words, **environment)


def add_every_key(results, artifacts):
    """Adds the keys that the tables read to the result of each run."""
    for table in [a for a in artifacts if isinstance(a, Table)]:
        for _, _, cell in table.cells():
            for seed in table.seeds:
                folder = cell.runs.folder(results, seed)
                result = folder.read_json("result.json")
                folder.file("result.json").write_text(json.dumps({cell.key: 0.5} | result))


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_all_files_are_written_twice_the_same_without_torch(tmp_path):
    """Also with other hash seeds, time zones and user settings of matplotlib."""
    fill(tmp_path)
    add_every_key(tmp_path, demo.ARTIFACTS)
    first = make_tables(tmp_path, "demo", PYTHONHASHSEED="1")
    assert (first.returncode, first.stderr) == (0, "")
    assert "| JointUni | 92.0 ± 1.0 (3) | 50.0 ± 0.0 (3) |" in first.stdout
    assert "missing" not in first.stdout
    files = files_of(tmp_path / "out")
    wanted = {"report-demo.html"} | {f"figures/figure2{e}" for e in (".png", ".pdf", ".md", ".tex")}
    for artifact in demo.ARTIFACTS:
        kind = "tables" if isinstance(artifact, Table) else "figures"
        wanted |= {f"{kind}/{artifact.id}{end}" for end in ENDINGS[kind]}
    assert set(files) == wanted
    for name, content in files.items():  # no dates, and text that stays text
        if name.endswith(".pdf"):
            assert b"/FontFile2" in content and b"/Type3" not in content
        if name.endswith((".pdf", ".png")):
            assert not any(word in content for word in (b"Date", b"Producer", b"tEXt", b"tIME"))
    (tmp_path / "matplotlibrc").write_text("font.size: 22\naxes.facecolor: red\npdf.fonttype: 3\n")
    other = {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(tmp_path)}
    second = make_tables(tmp_path, "demo", out="again", **other)
    assert second.stdout == first.stdout.replace("/out/", "/again/")
    assert files_of(tmp_path / "again") == files


def cpu_of(work):
    """CPU seconds of the programs that `work` runs, and what it returns."""
    before = cpu_of_children()
    result = work()
    return cpu_of_children() - before, result


@pytest.mark.slow
def test_runs_of_no_table_cost_little_time_and_all_need_a_part_of_a_gigabyte(tmp_path):
    """CPU times against each other, since machines differ: about 1.0 and 0.1 when measured."""
    fill(tmp_path, registry.ARTIFACTS)
    add_every_key(tmp_path, registry.ARTIFACTS)
    before, _ = cpu_of(lambda: make_tables(tmp_path))
    one = next(iter((tmp_path / "runs").glob("*/*/*/seed1")))
    for seed in range(10, 1010):
        shutil.copytree(one, one.with_name(f"seed{seed}"))
    after, made = cpu_of(lambda: make_tables(tmp_path, code=CODE + MEMORY + END))
    assert made.returncode == 0 and "missing" not in made.stdout
    assert after < 1.5 * before
    assert float(made.stderr.split()[-1]) < 1024  # MiB
    words = ("-m", "experiments", "status", "--results_dir", tmp_path)
    seconds, status = cpu_of(lambda: program(*words))
    due = len(list(registry.needed(registry.ARTIFACTS)))
    assert status.stdout.splitlines()[-1].startswith(f"{due} done"), status.stdout[-300:]
    assert seconds < 0.5 * after
    table = (tmp_path / "out/tables/table1.md").read_text(encoding="utf-8")
    assert "Compared with the paper, cell by cell: " in table and "| --" not in table
    assert (tmp_path / "out/tables/table1.paper.csv").read_text().count("\n") == 57
    assert (tmp_path / "out/report.html").exists()


def test_what_is_missing_is_listed_and_what_would_mislead_is_removed(tmp_path):
    fake_run(tmp_path, demo.JOINT, 1)
    (tmp_path / "out/figures").mkdir(parents=True)
    for end in ENDINGS["figures"]:
        (tmp_path / f"out/figures/demo-figure4{end}").write_bytes(b"old")
    made = make_tables(tmp_path, "demo-short")
    assert made.returncode == 0
    line = "demo-figure4: not drawn, its runs are missing (an earlier one was removed)"
    assert line in made.stdout and not list((tmp_path / "out/figures").glob("demo-figure4*"))
    assert f"demo-figure1: {tmp_path}/out/figures/demo-figure1.png (without " in made.stdout
    assert "missing: 11 runs" in made.stdout
    commands = make_tables(tmp_path, "demo-figure4", "--missing").stdout.splitlines()
    assert commands == [demo.MIDAS.commands([1, 2, 3], ["--results_dir", str(tmp_path)])]
    assert commands[0].startswith("for seed in 1 2 3; do python train.py --dataset demo")


def test_no_run_or_an_unknown_name_is_refused_in_a_line(tmp_path):
    made = make_tables(tmp_path)
    assert made.returncode == 1 and made.stdout == ""
    assert made.stderr.count("\n") == 1 and "`make demo`" in made.stderr
    assert not (tmp_path / "out").exists()
    made = make_tables(tmp_path, "dmeo")
    assert made.returncode == 2
    assert made.stderr.startswith("error: unknown table or figure 'dmeo'. Did you mean 'demo'?")


def test_help_answers_from_the_root():
    made = program(ROOT / "make_tables.py", "--help")
    assert (made.returncode, made.stderr) == (0, "") and "--missing" in made.stdout
