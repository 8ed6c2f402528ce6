"""Figures from small made-up results: plotted numbers, names, missing runs, appearance."""

import csv
import io
import itertools

import pytest
from fake_runs import fake_run, fill, full_log

from experiments.paper import registry
from experiments.paper.adapt import RELEASE_PAIRS, adapted
from experiments.paper.illustration import JOINT, MIDAS
from experiments.paper.kinds import Figure, RunSet
from experiments.report.draw import LOOKS, colour, compose
from experiments.report.figures import evaluate_figure
from experiments.report.reader import Reader
from experiments.report.render import figure_csv, latex_figure, markdown_figure

PLOTS = [a for a in registry.ARTIFACTS if isinstance(a, Figure) and a.panels]
OFFICIAL = {"recipe": "official"}
KINETICS, UCF = (RunSet(d, "Joint") for d in ("kinetics", "ucf101"))


def named(name):
    (figure,) = [figure for figure in PLOTS if figure.id == name]
    return figure


def evaluated(results, name):
    return evaluate_figure(named(name), Reader(results))


def lines(results, name):
    """(panel, series, x) -> mean, std and n."""
    rows = csv.reader(io.StringIO(figure_csv(evaluated(results, name))))
    return {tuple(row[:3]): tuple(map(float, row[4:])) for row in list(rows)[1:]}


def run(results, *several, seeds=(1, 2, 3), **more):
    for runs, seed in itertools.product(several, seeds):
        fake_run(results, runs, seed, log=full_log(seed, runs.dataset), **more)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Three seeds of every run that a figure needs."""
    results = tmp_path_factory.mktemp("full")
    fill(results, PLOTS + adapted(PLOTS, OFFICIAL))
    return results


def test_bars_are_the_best_epochs_values(full):
    found = lines(full, "demo-figure1")
    accuracy, confidence = dict.fromkeys(panel for panel, _, _ in found)
    assert len(found) == 8
    assert found[accuracy, "Joint", "aligned"] == pytest.approx((92.0, 1.0, 3))  # percent
    assert found[accuracy, "Joint", "misaligned"][0] == pytest.approx(20.0)
    # Epoch 3 of seeds 1, 2, 3: 0.13, 0.23, 0.33.
    assert found[confidence, "Joint", "audio"][0] == pytest.approx(0.23)


def test_curves_are_means_over_the_seeds_of_each_epoch(full):
    found = {x: y for (_, name, x), y in lines(full, "figure5").items() if name == "Midas-RF"}
    assert list(found) == ["1", "2", "3", "4"]
    for place, summary in enumerate(found.values()):
        assert summary == pytest.approx((0.22 + place / 100, 0.1, 3))
    shares = {epoch for _, _, epoch in lines(full, "figure3")}
    assert shares == {"2", "3", "4"}  # they start after the warm-up


def test_alpha_is_the_largest_and_the_legend_names_whose_it_is(full):
    figure = evaluated(full, "demo-figure4")
    (panel,) = figure.panels
    (curve,) = panel.series
    assert [y.mean for y in curve.points.values()] == pytest.approx([1.0, 1.4, 1.6, 1.8])
    assert [y.std for y in curve.points.values()][:2] == pytest.approx([0.0, 0.2])
    assert panel.warmup_end == 1
    assert curve.label == "Midas (video)" and "In parentheses" in figure.caption
    assert evaluated(full, "figure4").panels[0].series[3].label == "Food-101 (image)"


def test_a_weak_modality_is_named_even_if_its_weight_falls_back(tmp_path):
    weights = {2: (1.0, 3.0), 4: (1.05, 1.0)}

    def log(epoch):
        return dict(zip(("alpha/audio", "alpha/video"), weights.get(epoch, (1.0, 1.0))))

    fake_run(tmp_path, MIDAS, 1, log=log)
    (panel,) = evaluated(tmp_path, "demo-figure4").panels
    assert panel.series[0].label == "Midas (video)"


@pytest.mark.parametrize("name", ["figure1", "figure5", "figure6", "figure7"])
def test_figures_measure_by_their_recipe_and_say_so(full, name):
    """In these runs the release's values are half of ours."""
    ours, (theirs,) = named(name), adapted([named(name)], OFFICIAL)
    assert RELEASE_PAIRS not in ours.caption and theirs.caption.endswith(f" {RELEASE_PAIRS}")
    means = [
        [
            y.mean
            for p in made.panels
            for s in p.series
            for x, y in s.points.items()
            if x != "aligned"
        ]
        for made in (evaluate_figure(figure, Reader(full)) for figure in (ours, theirs))
    ]
    assert means[0] and [2 * x for x in means[1]] == pytest.approx(means[0])


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
    ],
)
def test_what_has_runs_is_drawn_and_the_caption_names_the_rest(tmp_path, full, name, there, words):
    run(tmp_path, *there)
    figure = evaluated(tmp_path, name)
    assert figure.not_drawn == words
    assert figure.caption.endswith(f"Not drawn, because no run is finished: {words}.")
    assert evaluated(full, name).not_drawn == ""
    assert len(compose(figure).axes) == len(figure.drawn)


def test_the_caption_counts_the_seeds_and_is_beside_the_picture(tmp_path):
    run(tmp_path, JOINT, MIDAS, seeds=(1,))
    figure = evaluated(tmp_path, "demo-figure1")
    assert figure.caption.endswith("One training seed.")
    text = markdown_figure(figure)
    assert text.startswith("![demo-figure1](<demo-figure1.png>)\n\n**demo-figure1.** Demo")
    assert r"\begin{figure*}" in latex_figure(figure)
    run(tmp_path, MIDAS, seeds=(2,))
    assert evaluated(tmp_path, "demo-figure1").caption.endswith("(error bars) over 1 to 2 seeds.")
    assert r"\begin{figure}" in latex_figure(evaluated(tmp_path, "demo-figure5"))


@pytest.mark.parametrize("figure", PLOTS, ids=lambda figure: figure.id)
def test_a_colour_is_a_method_and_no_two_series_of_a_panel_look_alike(figure):
    for panel in figure.panels:
        looks = {(s.method, s.dash, s.shade) for s in panel.series}
        assert len(looks) == len(panel.series)
        assert {s.method for s in panel.series} <= LOOKS.keys()
        midas, others = (
            {colour(s) for s in panel.series if (s.method == "Midas") == m} for m in (1, 0)
        )
        assert not midas & others
