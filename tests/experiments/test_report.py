"""The report: a whole page that loads nothing, and what it tells of each cell and each run."""

import base64
import re
import struct
from html.parser import HTMLParser

import pytest
from fake_runs import fake_run

from experiments.launch.estimate import COSTLY, settings_of
from experiments.paper import registry
from experiments.paper.contradictions import CONTRADICTIONS
from experiments.paper.illustration import JOINT, MIDAS
from experiments.paper.kinds import Cell, Column, Figure, Panel, Row, RunSet, Series, Table, Value
from experiments.report.compare import paper_results
from experiments.report.html import SCRIPT, VOID, prose, tag
from experiments.report.page import report
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
FIGURE = Figure(
    "drawing",
    "What it shows.",
    "curves",
    (Panel("p", "y", (Series("s", (Value(MIDAS, ("val/acc",)),)),)),),
)
BOTH = (TABLE, FIGURE)


class Page(HTMLParser):
    """Tags in order with their attributes; fails on any that is not closed where it must be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def values(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def results(folder):
    """All runs of KS; of JOINT one that failed and one that is damaged; none of MIDAS."""
    for seed, acc in ((1, 0.61), (2, 0.62), (3, 0.63)):
        fake_run(folder, KS, seed, acc=acc, torch="2.11.0", threads=1 + (seed == 3))
    fake_run(folder, JOINT, 1, acc=0.9)
    fake_run(folder, JOINT, 2, done=False).fail("loss is not finite")
    fake_run(folder, JOINT, 3).file("result.json").write_text('{"best_epo')
    return folder


def made(folder, artifacts=BOTH, pictures=None):
    return report(artifacts, Reader(folder), pictures or {})


def cell_of(text, name):
    """The markup of a cell's body in the list of cells."""
    return re.search(rf'<tbody id="{name}">.*?</tbody>', text, re.DOTALL).group(0)


def words(markup):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", markup)).strip()


# --- the page -------------------------------------------------------------------------------------


def test_the_page_of_everything_is_whole_and_loads_nothing(tmp_path):
    results(tmp_path)
    pictures = {"demo-figure1": PNG, "figure2": PNG}
    text = made(tmp_path, registry.ARTIFACTS, pictures)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">\n')
    page = Page(text)
    ids, links = page.values("id"), page.values("href")
    assert len(set(ids)) == len(ids)
    assert {a.id for a in registry.ARTIFACTS} <= set(ids)
    assert links and all(href.startswith("#") and href[1:] in ids for href in links)
    sources = page.values("src")
    assert len(sources) == 2 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert not {"link", "iframe", "object", "base"} & {name for name, _ in page.tags}
    assert not re.search(r"@import|url\(|https?:|//\w", re.sub(r'src="[^"]*"', "", text))
    assert "default-src 'none'" in text


def test_every_cell_of_every_table_has_its_list_of_runs(tmp_path):
    text = made(tmp_path, registry.ARTIFACTS)
    page = Page(text)
    tables = [a for a in registry.ARTIFACTS if isinstance(a, Table)]
    cells = sum(1 for table in tables for _ in table.cells())
    assert text.count('<td class="runs"') == cells
    links = [href for href in page.values("href") if re.search(r"-\d+-\d+$", href)]
    assert len(set(links)) == len(links) == cells


def test_the_same_runs_give_the_same_bytes(tmp_path):
    results(tmp_path)
    assert made(tmp_path, pictures={"drawing": PNG}) == made(tmp_path, pictures={"drawing": PNG})


def test_what_others_wrote_is_text_and_never_markup(tmp_path, capsys):
    evil = "</td><script>alert(1)</script>&amp;\"'<img src=x>"
    table = Table(
        "small",
        evil,
        (Column(evil, evil),),
        (Row(evil, (Cell(JOINT, evil),)),),
        (evil, f"`{evil}`"),
        first=evil,
    )
    figure = Figure("drawing", evil, "curves", FIGURE.panels)
    hashes = {evil: evil}
    folder = fake_run(
        tmp_path, JOINT, 1, device=evil, hashes=hashes, spec_hash=evil, commit=evil, torch=evil
    )
    folder.write_json("result.json", folder.read_json("result.json") | {evil: 0.5})
    page = Page(made(tmp_path, (table, figure), {"drawing": PNG}))
    names = [name for name, _ in page.tags]
    assert names.count("script") == names.count("img") == 1
    assert sum(evil in part for part in page.text) >= 8


def test_markup_is_escaped_unless_it_is_ours():
    assert (
        tag("p", "<b>", tag("i", "&"), title='"<')
        == '<p title="&quot;&lt;">&lt;b&gt;<i>&amp;</i></p>'
    )
    assert prose("a `<b>` c") == "a <code>&lt;b&gt;</code> c"


def test_all_is_there_without_the_script(tmp_path):
    """Its buttons are made by itself, nothing is hidden for it, and it cannot end early."""
    text = made(tmp_path)
    assert text.count(SCRIPT) == 1 and "</" not in SCRIPT
    assert "<button" not in text and " hidden" not in text.partition("<body>")[2]


# --- cells ----------------------------------------------------------------------------------------


def test_a_cell_stands_beside_the_paper_and_above_its_runs(tmp_path):
    results(tmp_path)
    reader = Reader(tmp_path)
    cell = cell_of(made(tmp_path), "small-0-0")
    ours = [0.61, 0.62, 0.63]
    test = welch(summarise(ours).scaled(100.0), paper_results()[TABLE.rows[0].cells[0].paper])
    shown = words(cell)
    assert shown.startswith(
        f"Joint Kinetics: Acc 62.00 ± 1.00 (3) 63.92 ± 0.23 -1.92 [{test.low:.2f}, {test.high:.2f}]"
        f" {test.p:.3f} {test.p:.3f} agrees kinetics/Joint/default, test/acc: 3 of 3 runs"
    )
    for seed in (1, 2, 3):
        command = reader.command(KS, seed)
        assert f"seed {seed}: {60 + seed} , {command} , in runs/kinetics/Joint/default/" in shown
    same = "device cpu, threads {}, torch 2.11.0, commit abc, spec feed, split 0123456789ab."
    assert f"Seeds 1, 2: {same.format(1)}" in shown and f"Seed 3: {same.format(2)}" in shown
    sorts = [float(v) for v in re.findall('data-v="(.*?)"', cell)]
    p = [test.p, test.p]
    assert sorts == pytest.approx([0, 0, 0.62, 63.92, -1.92, test.low, *p], abs=1e-8)


def test_a_cell_that_the_paper_lacks_says_so(tmp_path):
    results(tmp_path)
    shown = words(cell_of(made(tmp_path), "small-1-0"))
    assert shown.startswith(
        "Demo Kinetics: Acc 90.00 (1) ours only demo/Joint/default, test/acc: 1"
    )


def test_missing_runs_show_their_state_command_and_time(tmp_path, capsys):
    results(tmp_path)
    for seed in (1, 2):
        folder = JOINT.folder(tmp_path, seed)
        config, lines = folder.read_json("config.json"), folder.read_log()
        config["settings"] |= {key: settings_of(JOINT)[key] for key in COSTLY}
        folder.write_json("config.json", config)
        folder.file("log.jsonl").unlink()
        for line in lines:
            folder.append_log(line | {"time/epoch_s": 60.0})
    text = made(tmp_path)
    shown = words(cell_of(text, "small-1-1"))
    failed, damaged = (Reader(tmp_path).command(JOINT, seed) for seed in (2, 3))
    assert f"missing , seed 2: {failed} (it stopped with an error: see error.txt" in shown
    assert damaged.endswith("--overwrite")
    assert f"missing , seed 3: {damaged} (its folder is damaged" in shown
    assert re.search(r"given up for it; about \d+ min left\)", shown)
    overview = words(re.search(r'<section id="overview">.*?</section>', text, re.DOTALL).group(0))
    assert "4 of 9 are there; 3 not begun, 1 stopped with an error, 1 damaged" in overview
    assert re.search(r"Missing: 5 runs, about [\d.]+ (min|h) left Verdicts", overview)
    assert "Of 1 cells: 1 agrees" in overview


def test_the_end_tells_what_fills_each_table_and_figure(tmp_path, capsys):
    results(tmp_path)
    text = made(tmp_path)
    assert text.count("All at once, but those with --overwrite: <code>python -m exper") == 1
    assert text.count("All at once: <code>python -m exper") == 1
    last = words(re.search(r'<section id="missing">.*?</table>', text, re.DOTALL).group(0))
    assert last.startswith("What is missing Missing: 5 runs, no estimate.")
    assert "Missing: 5 runs" in made(tmp_path, BOTH[::-1])  # each run counts once
    where = f"--results_dir {tmp_path}"
    assert f"small python -m experiments run small {where} 5 runs, no estimate" in last
    assert f"drawing python -m experiments run drawing {where} 3 runs, no estimate" in last


def test_nothing_is_missing_when_all_runs_are_there(tmp_path):
    for runs in (KS, JOINT, MIDAS):
        for seed in (1, 2, 3):
            fake_run(tmp_path, runs, seed)
    text = made(tmp_path)
    assert text.count("Nothing is missing") == 2 and "To fill" not in text


def test_marks_rows_of_ours_and_absent_cells(tmp_path):
    results(tmp_path)
    fake_run(tmp_path, MIDAS, 1, acc=0.99)
    grid = re.search(r'<table class="grid">.*?</table>', made(tmp_path), re.DOTALL).group(0)
    assert '<a href="#small-1-0"><b>90.00 (1)</b></a>' in grid
    assert '<span class="none">n/a</span>' in grid
    papers, ours = re.findall(r"<tbody>.*?</tbody>", grid, re.DOTALL)
    assert "Midas" not in papers and '<a href="#small-2-0">99.00 (1)</a>' in ours
    assert '<th colspan="1" scope="colgroup">Kinetics</th>' in grid


# --- figures and contradictions -------------------------------------------------------------------


def test_a_picture_stands_in_the_page_with_its_caption(tmp_path):
    text = made(tmp_path, pictures={"drawing": PNG})
    figure = re.search(r"<figure>.*?</figure>", text, re.DOTALL).group(0)
    assert base64.b64decode(re.search(r'base64,([^"]*)"', figure).group(1)) == PNG
    assert 'width="640" height="480"' in figure
    assert "<figcaption>What it shows.</figcaption>" in figure


def test_a_figure_without_picture_lists_its_runs(tmp_path):
    text = made(tmp_path)
    section = re.search(r'<section id="drawing">.*?</section>', text, re.DOTALL).group(0)
    assert "<figure>" not in section and "Not drawn: runs are missing." in section
    assert all(Reader(tmp_path).command(MIDAS, seed) in section for seed in (1, 2, 3))


def test_the_contradictions_link_to_the_tables_of_the_page(tmp_path):
    text = made(tmp_path, registry.find("table1"))
    assert all(tag("strong", f"{one.title}.") in text for one in CONTRADICTIONS)
    listed = re.search(r'<section id="contradictions">.*?</section>', text, re.DOTALL).group(0)
    assert '<a href="#table1">' in listed and "#table2" not in listed


# Differences of two of the paper's numbers, figures of its text, and what we computed.
OTHERS = {"7.53", "5.08", "87.22", "0.66", "5.5", "0.4", "1.6", "2.4"}


@pytest.mark.parametrize("one", CONTRADICTIONS, ids=lambda one: one.title)
def test_every_number_of_a_contradiction_is_the_papers(one):
    known = {x for s in paper_results().values() for x in (s.mean, s.std) if x is not None}
    text = re.sub(r"(Secs?\.|and) \d\.\d|A\.\d", "", one.text)
    numbers = set(re.findall(r"\d+\.\d+", text)) - OTHERS
    assert {n for n in numbers if float(n) not in known} == set()
    for name in one.about:
        assert isinstance(registry.find(name)[0], Table)


def test_the_differences_and_the_bound_hold():
    paper = paper_results()

    def acc(dataset, method):
        return paper["table1", dataset, method, "", "acc"].mean

    gains = {
        ("kinetics", "MCR"): 3.13,
        ("cremad", "MCR"): 4.08,
        ("kinetics", "OPM"): 7.53,
        ("cremad", "AMCo"): 5.08,
    }
    for (dataset, method), gain in gains.items():
        assert acc(dataset, "Midas") - acc(dataset, method) == pytest.approx(gain)
    below = 0
    for (table, dataset, method, variant, metric), one in paper.items():
        if table == "table1" and dataset in ("ucf101", "food101") and metric == "acc":
            a = one.mean / 100
            f1 = paper[table, dataset, method, variant, "f1"].mean
            below += f1 < 100 * 2 * a**2 / (1 + a)
    assert below == 14
    assert 100 * 2 * 0.9135**2 / 1.9135 == pytest.approx(87.22, abs=0.005)
