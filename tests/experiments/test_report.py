"""The report: its opening, what it says about each cell and run, and that it loads nothing."""

import re
import struct
from html.parser import HTMLParser

import pytest
from fake_runs import fake_run

from experiments.paper import registry
from experiments.paper.illustration import JOINT, MIDAS
from experiments.paper.kinds import Cell, Column, Figure, Panel, Row, RunSet, Series, Table, Value
from experiments.report.compare import paper_results
from experiments.report.evaluate import evaluate
from experiments.report.figures import evaluate_figure
from experiments.report.html import finding, report
from experiments.report.reader import Reader
from experiments.report.statistics import summarise, welch

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + b"rest"
KS = RunSet("kinetics", "Joint")
TABLE = Table(
    "small",
    "A caption with `code`.",
    (Column("Acc", "Kinetics"), Column("minutes", "Cost", percent=False, lower=None)),
    (
        Row("Joint", (Cell(KS, "test/acc", ("table1", "kinetics", "Joint", "", "acc")), None)),
        Row("Demo", (Cell(JOINT, "test/acc"), Cell(JOINT, "time"))),
        Row("Midas", (Cell(MIDAS, "test/acc"), Cell(MIDAS, "time")), ours=True),
    ),
    ("A note.",),
)
PANEL = Panel("p", "y", (Series("s", (Value(MIDAS, ("val/acc",)),)),))
FIGURE = Figure("drawing", "What it shows.", "curves", (PANEL,))


class Page(HTMLParser):
    """The page's texts, and its tags with their attributes; each tag must be closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.words = re.sub(r"\s+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture
def results(tmp_path):
    """All runs of KS, one failed and one damaged run of JOINT, none of MIDAS."""
    for seed, acc in ((1, 0.61), (2, 0.62), (3, 0.63)):
        fake_run(tmp_path, KS, seed, acc=acc, torch="2.11.0", threads=1 + (seed == 3))
    fake_run(tmp_path, JOINT, 1, acc=0.9)
    fake_run(tmp_path, JOINT, 2, done=False).fail("loss is not finite")
    fake_run(tmp_path, JOINT, 3).file("result.json").write_text('{"best_epo')
    return tmp_path


def made(folder, artifacts=(TABLE, FIGURE), pictures=None):
    reader = Reader(folder)
    tables = [evaluate(a, reader) for a in artifacts if isinstance(a, Table)]
    figures = [evaluate_figure(a, reader) for a in artifacts if isinstance(a, Figure)]
    return report(tables, figures, pictures or {}, reader, "../docs/paper-notes.md")


def test_the_page_of_everything_is_complete_and_loads_nothing(results):
    text = made(results, registry.ARTIFACTS, {"demo-figure1": [PNG, PNG], "figure2": [PNG]})
    page = Page(text)
    ids, links, sources = (page.values(name) for name in ("id", "href", "src"))
    assert len(set(ids)) == len(ids) and {a.id for a in registry.ARTIFACTS} <= set(ids)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert {link for link in links if not link.startswith("#")} == {"../docs/paper-notes.md"}
    assert len(sources) == 3 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert not {"link", "iframe", "object", "base"} & {name for name, _ in page.tags}
    assert not re.search(r"@import|url\(|https?:|//\w", re.sub(r'src="[^"]*"', "", text))
    assert "default-src 'none'" in text
    cells = sum(1 for a in registry.ARTIFACTS if isinstance(a, Table) for _ in a.cells())
    assert sum(value == "runs" for value in page.values("class")) == cells


def test_external_text_is_never_markup(tmp_path):
    evil = "<script>alert(\"x\" & 'y')</script>"
    cells = (Cell(JOINT, "test/acc"), Cell(JOINT, evil), evil)
    columns = (Column(evil, evil),) * 3
    table = Table("t", evil, columns, (Row(evil, cells),), (f"`{evil}`",), first=evil)
    start = dict.fromkeys(("device", "spec_hash", "commit", "torch"), evil)
    folder = fake_run(tmp_path, JOINT, 1, hashes={evil: evil}, **start)
    folder.write_json("result.json", folder.read_json("result.json") | {evil: 0.5})
    figure = Figure("drawing", evil, "curves", FIGURE.panels)
    page = Page(made(tmp_path, (table, figure), {"drawing": [PNG]}))
    names = [name for name, _ in page.tags]
    assert names.count("script") == names.count("img") == 1
    assert sum(evil in part for part in page.text) >= 8


def test_a_cell_is_next_to_the_papers_number_and_above_its_runs(results):
    reader, words = Reader(results), Page(made(results)).words
    ours = summarise([0.61, 0.62, 0.63]).scaled(100.0)
    test = welch(ours, paper_results()[TABLE.rows[0].cells[0].paper])
    assert (
        f"Joint Kinetics: Acc 62.00 ± 1.00 (3) 63.92 ± 0.23 -1.92 [{test.low:.2f}, {test.high:.2f}]"
        f" {test.p:.3f} {test.p:.3f} agrees kinetics/Joint/default, test/acc: 3 of 3 runs"
    ) in words
    command = reader.commands(KS, [2])
    assert f"seed 2: 62 , {command} , in runs/kinetics/Joint/default/seed2" in words
    same = "device cpu, threads {}, torch 2.11.0, commit abc, spec feed, split 0123456789ab."
    assert f"Seeds 1, 2: {same.format(1)}" in words and f"Seed 3: {same.format(2)}" in words
    assert "Demo Kinetics: Acc 90.00 (1) ours only demo/Joint/default, test/acc: 1 of 3" in words


def test_provenance_is_folded_unless_it_is_mixed(results):
    fold = '<details class="small"{}><summary>Data, commit, environments, settings'
    mixed = made(results)  # one run of KS has another number of threads
    assert mixed.count(fold.format(" open")) == 1 and fold.format("") not in mixed
    alike = made(results, [Table("t", "T.", TABLE.columns, TABLE.rows[1:])])
    assert alike.count(fold.format("")) == 1 and fold.format(" open") not in alike


def test_missing_runs_show_their_state_command_and_what_makes_them_all(results):
    words = Page(made(results)).words
    failed, damaged = (Reader(results).commands(JOINT, [seed]) for seed in (2, 3))
    assert f"missing , seed 2: {failed} (it failed: see error.txt" in words
    assert damaged.endswith("--overwrite")
    assert f"missing , seed 3: {damaged} (its folder is damaged" in words
    assert "4 of 9 are done; 3 not started; 1 failed; 1 damaged" in words
    assert "Of 1 cells: 1 agrees" in words and "Not drawn: runs are missing." in words
    where = f"--results_dir {results}"
    for name, count in (("small", 5), ("drawing", 3)):
        command = f"python -m experiments run {name} {where}"
        assert f"{name} {command} {count} runs, no estimate" in words
    assert "All of them, except those with --overwrite: python -m experiments run small" in words
    whole = Page(made(results, [Table("t", "T.", TABLE.columns, TABLE.rows[:1])])).words
    assert whole.count("Nothing is missing") == 2 and "Missing:" not in whole


def test_the_page_opens_with_what_was_found(results):
    table = Table("t", "T.", (Column("Acc"),), tuple(Row(r.label, r.cells[:1]) for r in TABLE.rows))
    nothing = finding([evaluate(table, Reader(results / "none"))])
    assert nothing == "No finished run yet, so there is nothing to report."
    sentence = (
        "In t, Demo is best in “Acc” with 90.00 (1), against 62.00 ± 1.00 (3) for Joint (among the"
        " 2 rows that have runs); compared with the paper, cell by cell: 1 in agreement, 0 higher,"
        " 0 lower."
    )
    assert finding([evaluate(table, Reader(results))]) == sentence
    words = Page(made(results, (table, FIGURE))).words
    assert 0 < words.index(sentence) < words.index("method Acc") < words.index("How to read")
