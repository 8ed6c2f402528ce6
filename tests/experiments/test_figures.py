"""Figures from small made-up results: plotted numbers, what is missing, and how they look."""

import csv
import io
import itertools

import pytest
from conftest import program
from fake_runs import fake_run, fill, full_log
from matplotlib.patches import FancyBboxPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from experiments.paper import registry
from experiments.paper.adapt import RELEASE_PAIRS, adapted
from experiments.paper.illustration import JOINT, MIDAS
from experiments.paper.kinds import Figure, RunSet
from experiments.report import schematic
from experiments.report.figures import (
    WARMUP,
    compose,
    draw,
    figure_csv,
    figure_points,
    full_caption,
    not_drawn,
    warmup_epochs,
)
from experiments.report.reader import Reader
from experiments.report.style import style
from make_tables import make_figure

FIGURES = [a for a in registry.ARTIFACTS if isinstance(a, Figure)]
PLOTS = [figure for figure in FIGURES if figure.panels]
OFFICIAL = {"recipe": "official"}
KINETICS, UCF = (RunSet(d, "Joint") for d in ("kinetics", "ucf101"))


def named(name):
    (figure,) = [figure for figure in FIGURES if figure.id == name]
    return figure


def points_of(results, name):
    reader = Reader(results)
    return named(name), figure_points(named(name), reader), reader


def rows(figure, points):
    return list(csv.DictReader(io.StringIO(figure_csv(figure, points))))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Three seeds of every run that a figure needs."""
    results = tmp_path_factory.mktemp("full")
    fill(results, PLOTS + adapted(PLOTS, OFFICIAL))
    return results


# --- plotted numbers ------------------------------------------------------------------------------


def test_bars_are_the_best_epochs_values(full):
    figure, points, _ = points_of(full, "demo-figure1")
    found = rows(figure, points)
    assert len(found) == 8
    aligned, misaligned = found[0], found[1]
    assert aligned["series"] == "Joint" and aligned["group"] == "aligned"
    assert float(aligned["mean"]) == pytest.approx(92.0)  # percent of 0.91, 0.92, 0.93
    assert float(aligned["std"]) == pytest.approx(1.0)
    assert float(misaligned["mean"]) == pytest.approx(20.0)
    audio = found[4]
    assert audio["group"] == "audio"
    assert float(audio["mean"]) == pytest.approx(0.23)  # epoch 3 of seeds 1, 2, 3: 0.13 0.23 0.33


def test_curves_are_means_over_the_seeds_of_each_epoch(full):
    figure, points, _ = points_of(full, "figure5")
    found = [r for r in rows(figure, points) if r["series"] == "Midas-RF"]
    assert {r["panel"] for r in found} == {"(b) UCF-101"}
    assert [r["epoch"] for r in found] == ["1", "2", "3", "4"]
    assert [float(r["mean"]) for r in found] == pytest.approx([0.22, 0.23, 0.24, 0.25])
    assert [float(r["std"]) for r in found] == pytest.approx([0.1] * 4)
    assert {r["n"] for r in found} == {"3"}


def test_curves_end_where_their_runs_end(tmp_path):
    for seed in (1, 2):
        fake_run(
            tmp_path, RunSet("food101", "Midas"), seed, epochs=3, log=full_log(seed, "food101")
        )
        fake_run(tmp_path, RunSet("cremad", "Midas"), seed, epochs=5, log=full_log(seed, "cremad"))
    figure, points, _ = points_of(tmp_path, "figure4")
    ends = {row["series"]: row["epoch"] for row in rows(figure, points)}
    assert ends == {"Food-101": "3", "CREMA-D": "5"}


def test_alpha_is_the_largest_at_each_epochs_end(full):
    figure, points, reader = points_of(full, "demo-figure4")
    assert [p.y.mean for p in points] == pytest.approx([1.0, 1.4, 1.6, 1.8])
    assert points[0].y.std == 0.0 and points[1].y.std == pytest.approx(0.2)
    assert warmup_epochs(figure.panels[0], figure, reader) == 1


@pytest.mark.parametrize("name", ["figure1", "figure5", "figure6", "figure7"])
def test_figures_measure_by_their_recipe_and_say_so(full, name):
    """The release's values are half of ours in these runs."""
    ours, (theirs,) = named(name), adapted([named(name)], OFFICIAL)
    sentence = f" {RELEASE_PAIRS}"
    assert sentence not in ours.caption and theirs.caption.endswith(sentence)
    means = [
        [p.y.mean for p in figure_points(f, Reader(full)) if p.x != "aligned"]
        for f in (ours, theirs)
    ]
    assert len(means[0]) == len(means[1]) > 0
    assert [2 * x for x in means[1]] == pytest.approx(means[0])


def test_figures_of_the_training_part_are_the_same_by_any_recipe():
    for name in ("figure3", "figure4"):
        told = f"{named(name).caption} All runs with recipe=official."
        assert adapted([named(name)], OFFICIAL)[0].caption == told


def test_shares_begin_after_the_warm_up(full):
    _, points, _ = points_of(full, "figure3")
    assert sorted({p.x for p in points}) == [2, 3, 4]
    assert len(points) == 2 * 4 * 3


# --- missing runs ---------------------------------------------------------------------------------


def run(results, *several, seeds=(1, 2, 3)):
    for runs, seed in itertools.product(several, seeds):
        fake_run(results, runs, seed, log=full_log(seed, runs.dataset))


def test_nothing_is_missing_of_a_full_figure(full):
    for figure in PLOTS:
        points = figure_points(figure, Reader(full))
        assert not_drawn(figure, points) == "" and "Not drawn" not in full_caption(figure, points)


@pytest.mark.parametrize(
    "name, there, words",
    [
        ("figure1", [KINETICS], "Midas"),
        ("figure3", [RunSet("cremad", "Midas")], "(a) without weak-modality weighting"),
        ("figure4", [RunSet("ucf101", "Midas")], "Kinetics-Sounds, CREMA-D, Food-101"),
        ("figure5", [UCF], "(a) CREMA-D; (b) UCF-101: Midas-OF, Midas-RF"),
        (
            "figure6",
            [KINETICS, UCF, RunSet("ucf101", "Midas")],
            "Joint on CREMA-D and Food-101, Midas on Kinetics-Sounds and CREMA-D and Food-101",
        ),
        ("demo-figure6", [MIDAS], "Joint, JointUni"),
    ],
)
def test_what_has_runs_is_drawn_and_the_caption_names_the_rest(tmp_path, name, there, words):
    run(tmp_path, *there)
    figure, points, reader = points_of(tmp_path, name)
    assert not_drawn(figure, points) == words
    assert full_caption(figure, points).endswith(f"no finished run has them: {words}.")
    made = make_figure(figure, reader, tmp_path)
    assert made == f"{name}: {tmp_path}/figures/{name}.png (without {words})"
    files = [path.name for path in sorted((tmp_path / "figures").iterdir())]
    assert files == [f"{name}.csv", f"{name}.pdf", f"{name}.png"]


def test_a_missing_series_changes_no_colour(tmp_path, full):
    run(tmp_path, RunSet("cremad", "Midas"))
    colours = []
    for results in (full, tmp_path):
        with style():
            drawing = compose(*points_of(results, "figure4"))
        (line,) = [x for x in drawing.axes[0].lines if x.get_linestyle() == "--"]
        colours.append(line.get_color())
        (legend,) = drawing.legends
        assert "CREMA-D" in [text.get_text() for text in legend.get_texts()]
    assert colours[0] == colours[1]


def test_a_figure_without_any_run_is_not_drawn_and_an_earlier_one_removed(tmp_path):
    figure = named("figure6")
    reader = Reader(tmp_path)
    told = "figure6: not drawn, its runs are missing"
    assert make_figure(figure, reader, tmp_path) == told
    (tmp_path / "figures").mkdir()
    for suffix in (".png", ".pdf", ".csv"):
        (tmp_path / f"figures/figure6{suffix}").write_bytes(b"old")
    assert make_figure(figure, reader, tmp_path) == f"{told} (an earlier one was removed)"
    assert list((tmp_path / "figures").iterdir()) == []


def test_the_caption_counts_the_seeds(tmp_path):
    run(tmp_path, JOINT, MIDAS, seeds=(1,))
    figure, points, _ = points_of(tmp_path, "demo-figure1")
    assert full_caption(figure, points).endswith("One training seed.")
    run(tmp_path, MIDAS, seeds=(2,))
    figure, points, _ = points_of(tmp_path, "demo-figure1")
    assert full_caption(figure, points).endswith("(error bars) over 1 to 2 seeds.")


# --- how they look --------------------------------------------------------------------------------


def texts(drawing):
    """Every text of a drawing but the numbers on its axes, and every legend."""
    found = [drawing._supxlabel, *drawing.legends]
    for axes in drawing.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        found += [axes.legend_] if axes.legend_ else []
    return [x for x in found if not hasattr(x, "get_text") or x.get_text()]


def check_apart(drawing, name):
    """Asserts that nothing leaves the drawing and no text meets another."""
    drawing.canvas.draw()
    found = [(str(x), x.get_window_extent()) for x in texts(drawing)]
    for axes in drawing.axes:
        if axes.axison:
            low, high = axes.get_xlim()
            for place, label in zip(axes.get_xticks(), axes.get_xticklabels()):
                if low <= place <= high:
                    found.append((str(label), label.get_window_extent()))
    for text, one in found:
        assert drawing.bbox.x0 <= one.x0 and one.x1 <= drawing.bbox.x1, (name, text)
        assert drawing.bbox.y0 <= one.y0 and one.y1 <= drawing.bbox.y1, (name, text)
    for (first, one), (second, other) in itertools.combinations(found, 2):
        assert not one.overlaps(other), (name, first, second)


def partial(results):
    """Makes a results folder of which each figure lacks something."""
    run(results, JOINT, KINETICS, RunSet("cremad", "Midas"), UCF, seeds=(1, 2))
    return results


@pytest.mark.parametrize("figure", PLOTS, ids=lambda figure: figure.id)
def test_no_text_meets_another(tmp_path, full, figure):
    for results in (full, partial(tmp_path)):
        reader = Reader(results)
        points = figure_points(figure, reader)
        if points:
            with style():
                check_apart(compose(figure, points, reader), figure.id)


@pytest.mark.parametrize("figure", PLOTS, ids=lambda figure: figure.id)
def test_series_of_a_panel_differ_in_colour_and_in_pattern(full, figure):
    reader = Reader(full)
    with style():
        drawing = compose(figure, figure_points(figure, reader), reader)
    for axes, panel in zip(drawing.axes, figure.panels):
        if figure.kind == "bars":
            bars = [c[0] for c in axes.containers if hasattr(c[0], "get_hatch")]
            looks = [(bar.get_facecolor(), bar.get_hatch()) for bar in bars]
        else:
            lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
            looks = [(line.get_color(), line._unscaled_dash_pattern) for line in lines]
        for seen in zip(*looks):
            assert len(set(map(str, seen))) == len(looks) == len(panel.series)


def test_panels_of_other_series_have_their_own_legends(full):
    with style():
        drawing = compose(*points_of(full, "figure5"))
    assert drawing.legends == []
    named_there = [[t.get_text() for t in axes.legend_.get_texts()] for axes in drawing.axes]
    assert named_there == [
        ["Joint-A", "Joint-V", "Midas-A", "Midas-V", WARMUP],
        ["Joint-OF", "Joint-RF", "Midas-OF", "Midas-RF", WARMUP],
    ]


def test_panels_of_one_quantity_share_their_scale(tmp_path):
    run(tmp_path, UCF)
    high = full_log(1, "cremad")
    fake_run(tmp_path, RunSet("cremad", "Joint"), 1, log=lambda e: {k: 0.9 for k in high(e)})
    with style():
        first, second = compose(*points_of(tmp_path, "figure5")).axes
        bars = compose(*points_of(partial(tmp_path), "figure1")).axes
    assert first.get_ylim() == second.get_ylim() and first.get_ylim()[1] > 0.9
    assert bars[0].get_ylim()[1] > 2 * bars[1].get_ylim()[1]


def test_the_scheme_keeps_its_texts_apart_and_whole(tmp_path):
    with style():
        drawing = schematic.compose(named("figure2").caption)
        check_apart(drawing, "figure2")
    (axes,) = drawing.axes
    boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(boxes) > 20
    words = [text for text in axes.texts if text.get_text()]  # an arrow is a text without words
    for text, outline in itertools.product(words, boxes):
        extent = text.get_window_extent()
        inside = Bbox.intersection(extent, outline)
        whole = inside is None or inside.bounds == pytest.approx(extent.bounds)
        assert whole, f"an outline crosses {text.get_text()!r}"
    lines = [line.get_path() for line in axes.lines]
    lines += [Path([text.xyann, text.xy]) for text in axes.texts if hasattr(text, "xyann")]
    assert len(lines) > 30
    for text, line in itertools.product(words, lines):
        shown = axes.transData.transform_path(line)
        crossed = shown.intersects_bbox(text.get_window_extent(), filled=False)
        assert not crossed, f"a line crosses {text.get_text()!r}"
    shown = " ".join(text.get_text() for text in words)
    for equation in ("Eq. 1", "Eq. 2, 3", "Eq. 5 to 7", "Eq. 8", "Eq. 9, 11", "Eq. 10"):
        assert equation in shown


# --- files ----------------------------------------------------------------------------------------


def test_a_single_seed_is_drawn_without_spread(tmp_path):
    run(tmp_path, JOINT, MIDAS, seeds=(1,))
    for name in ("demo-figure1", "demo-figure5"):
        figure, points, reader = points_of(tmp_path, name)
        with style():
            drawing = compose(figure, points, reader)
        assert all(point.y.std is None for point in points)
        assert not any(axes.collections for axes in drawing.axes)  # no band, no error bar


def test_the_scheme_needs_no_run_and_has_no_numbers(tmp_path):
    made = make_figure(named("figure2"), Reader(tmp_path), tmp_path)
    assert made == f"figure2: {tmp_path}/figures/figure2.png"
    files = {path.suffix: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert sorted(files) == [".pdf", ".png"]


@pytest.mark.parametrize("name", ["figure1", "figure2", "figure5"])
def test_pdf_embeds_truetype_and_neither_file_has_a_date(full, name):
    files = draw(*points_of(full, name))
    png, pdf = files[".png"], files[".pdf"]
    assert png.startswith(b"\x89PNG") and pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    for word in (b"Date", b"Producer", b"Creator"):
        assert word not in pdf
    assert not any(chunk in png for chunk in (b"tEXt", b"iTXt", b"tIME"))


CODE = """
import sys
from pathlib import Path
from experiments.report.reader import Reader
from experiments.paper.registry import find
from make_tables import make_figure
for name in ("figure1", "figure2", "figure5"):
    make_figure(*find(name), Reader(Path(sys.argv[1])), Path(sys.argv[2]))
assert "torch" not in sys.modules, "torch was imported"
"""


def test_two_processes_write_equal_bytes_whatever_the_users_settings(tmp_path, full):
    (tmp_path / "matplotlibrc").write_text("font.size: 22\naxes.facecolor: red\npdf.fonttype: 3\n")
    other = {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(tmp_path)}
    found = []
    for k, extra in enumerate(({"PYTHONHASHSEED": "1"}, other)):
        made = program("-c", CODE, full, tmp_path / str(k), **extra)
        assert (made.returncode, made.stderr) == (0, "")
        files = sorted((tmp_path / str(k) / "figures").iterdir())
        found.append({path.name: path.read_bytes() for path in files})
    assert len(found[0]) == 8 and found[0] == found[1]
