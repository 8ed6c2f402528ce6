"""The fixtures teach: a modality trained alone comes near what its cues allow, and no further.

The data sets and modalities here are those that a core learns within seconds; the others are
measured by `tests/learnable.py`, whose functions these tests call.
"""

import math

import pytest
from learnable import LEAST, RECIPES, Row, certainties, run_check

from common.files import read_table

# (data set, modalities, samples a class)
QUICK = [
    ("cremad", ("audio",), 60),
    ("food101", ("image", "text"), 400),
    ("sarcasm", ("text",), 300),
    ("twitter2015", ("text",), 200),
    ("mosi", ("text", "audio", "video"), 600),
]


def by_chance(row):
    """The share of right guesses that blind guessing stays below, 3 standard deviations up."""
    return row.chance + 3 * math.sqrt(row.chance * (1 - row.chance) / row.tested)


@pytest.mark.slow
@pytest.mark.parametrize("dataset,modalities,per_class", QUICK, ids=[quick[0] for quick in QUICK])
def test_each_modality_is_learnt_alone(tmp_path, dataset, modalities, per_class):
    rows = list(run_check(dataset, tmp_path, modalities=modalities, per_class=per_class, workers=1))
    assert [row.modality for row in rows] == list(modalities)
    for row in rows:
        # More than chance, and no more than the cues give but for the luck of the draw.
        assert row.ratio >= LEAST and row.accuracy > by_chance(row), row.line()
        assert row.accuracy <= row.ceiling + 3 * math.sqrt(0.25 / row.tested), row.line()


@pytest.mark.slow
@pytest.mark.parametrize("dataset,modality", [("cremad", "audio"), ("twitter2015", "text")])
def test_nothing_is_learnt_where_all_cues_are_left_out(tmp_path, dataset, modality):
    (row,) = run_check(
        dataset, tmp_path, modalities=[modality], per_class=60, erased=1.0, workers=1
    )
    assert row.ceiling == pytest.approx(row.chance)
    assert row.accuracy <= by_chance(row), row.line()


def test_a_row_passes_at_four_fifths_of_the_ceiling():
    good, bad = (Row("d", "m", accuracy, 0.75, 0.5, 100, 1.0) for accuracy in (0.61, 0.59))
    assert good.passed and good.line().startswith("PASS")
    assert not bad.passed and bad.line().startswith("FAIL")


def write(dataset, tmp_path, **values):
    import write_tree as demo

    settings = demo.Settings(
        dataset=dataset, out=str(tmp_path / "raw"), profile="tiny", workers=1, **values
    )
    root, truth = demo.write(settings)
    return root, {row["id"]: row for row in read_table(truth)}


def test_certainties_follow_the_cues_of_each_modality(tmp_path):
    root, truth = write("twitter2015", tmp_path, per_class=40, strong_noise=0.0, weak_noise=1.0)
    assert set(certainties("twitter2015", "text", root, truth, 3).values()) == {1.0}
    assert set(certainties("twitter2015", "image", root, truth, 3).values()) == {1 / 3}


def test_a_sarcastic_text_tells_its_class_by_a_marker_alone(tmp_path):
    root, truth = write("sarcasm", tmp_path, per_class=200, strong_noise=0.0)
    known = certainties("sarcasm", "text", root, truth, 2)
    assert {truth[sample]["m2_cue"] for sample in known} == {"1"}
    assert sum(value == 1.0 for value in known.values()) / len(known) == pytest.approx(0.5, abs=0.1)


def test_clips_of_mosi_are_as_sure_as_their_ratings(tmp_path):
    root, truth = write("mosi", tmp_path, per_class=200, strong_noise=0.0, weak_noise=1.0)
    text = certainties("mosi", "text", root, truth, 2)
    # 0.905: the mean of Phi(0.5 |y| sqrt(n)) over ratings and lengths (4 to 12 rows).
    assert sum(text.values()) / len(text) == pytest.approx(0.905, abs=0.03)
    assert min(text.values()) >= 0.5 and max(text.values()) > 0.999
    assert set(certainties("mosi", "audio", root, truth, 2).values()) == {0.5}


def test_every_data_set_of_the_generators_has_a_recipe_for_each_modality():
    import write_tree as demo

    from data_prep import datasets

    assert set(RECIPES) == set(demo.TREES)
    for dataset, recipe in RECIPES.items():
        layout = datasets.load(dataset)
        assert list(recipe.own) == list(layout.spec(layout.Settings(**recipe.prep)))
