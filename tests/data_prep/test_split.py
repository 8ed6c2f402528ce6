"""Splits and misaligned pairs: the paper's exact sizes, stability, disjoint groups."""

from collections import Counter

import numpy as np
import pytest

from common.options import UsageError
from data_prep.spec import Listed
from data_prep.split import (
    PARTS,
    Split,
    make_split,
    misaligned_sources,
    paper_counts,
    release_partners,
    release_parts,
    split_paper,
    split_release,
)

SECOND = 2 / 3


@pytest.mark.parametrize(("total", "second", "sizes"), [
    (7442, SECOND, (5209, 744, 1489)),  # CREMA-D
    (13085, SECOND, (9159, 1308, 2618)),  # UCF-101
    (90688, SECOND, (63481, 9069, 18138)),  # Food-101
    (5338, SECOND, (3736, 534, 1068)),  # Twitter2015
    (24129, 0.66, (16890, 2461, 4778)),  # Kinetics-Sounds
])  # fmt: skip
def test_sizes_are_those_of_the_papers_table_5(total, second, sizes):
    assert paper_counts(total, second) == sizes
    ids, labels = [f"clip{k}" for k in range(total)], [k * k % 6 for k in range(total)]
    for stratify in (True, False):
        counts = Counter(split_paper(ids, labels, 0, second, stratify))
        assert tuple(counts[part] for part in PARTS) == sizes


@pytest.mark.parametrize("total", [90, 170, 180, 7])
def test_sizes_are_right_even_if_a_float_is_one_short(total):
    train, val, test = paper_counts(total)
    assert train == 7 * total // 10 and train + val + test == total


def test_every_class_is_in_every_part_in_proportion_and_the_seed_decides_the_draw():
    ids, labels = [str(k) for k in range(500)], [k % 5 for k in range(500)]
    parts = split_paper(ids, labels, 0, SECOND)
    for part, share in zip(PARTS, (70, 10, 20)):
        counts = Counter(y for y, p in zip(labels, parts) if p == part)
        assert set(counts.values()) == {share}
    assert parts == split_paper(ids, labels, 0, SECOND) != split_paper(ids, labels, 1, SECOND)


def test_removing_one_clip_moves_few_others():
    ids, labels = [f"clip{k}" for k in range(1000)], [k % 4 for k in range(1000)]
    before = dict(zip(ids, split_paper(ids, labels, 0, SECOND)))
    after = dict(zip(ids[1:], split_paper(ids[1:], labels[1:], 0, SECOND)))
    assert sum(before[k] != after[k] for k in after) <= 8  # rounding of four classes, two cuts


def split(rule, n=60, groups=None, declared=None, labels=None, classes=3):
    ids, names = [str(k) for k in range(n)], [f"c{k}" for k in range(classes)]
    facts = labels or [k % classes for k in range(n)], groups or [""] * n, declared or [""] * n
    return make_split(Split(rule, 0), ids, *facts, names, SECOND)


def test_the_group_rule_splits_no_group_and_fills_all_parts():
    groups = [f"actor{k % 12}" for k in range(60)]
    parts = split("group", groups=groups)
    assert len(set(zip(parts, groups))) == 12 and set(parts) == set(PARTS)
    three = split("group", groups=[f"actor{k // 20}" for k in range(60)])
    assert sorted(three.count(part) for part in PARTS) == [20, 20, 20]


def test_the_official_rule_takes_the_declared_parts():
    declared, labels = ["train", "val", "test"] * 20, [k // 3 % 3 for k in range(60)]
    assert split("official", declared=declared, labels=labels) == declared


@pytest.mark.parametrize(("rule", "how", "words"), [
    ("group", {}, "needs at least 3 groups"),
    ("official", {}, "declare no train"),
    ("paper", {"labels": [0] * 59 + [1], "classes": 2}, "'c1' has 1 usable"),
    ("paper", {"n": 4, "labels": [0, 0, 1, 1], "classes": 2}, "no sample of class|is empty"),
])  # fmt: skip
def test_impossible_splits_are_refused(rule, how, words):
    with pytest.raises(UsageError, match=words):
        split(rule, **how)


# Misaligned pairs ---------------------------------------------------------------------------------


def test_pairs_of_two_modalities_hold_both_directions_of_another_label():
    labels = np.arange(30) % 4
    rows = misaligned_sources(labels, 2)
    assert rows.shape == (60, 2) and (labels[rows[:, 0]] != labels[rows[:, 1]]).all()
    assert (rows[0::2] == rows[1::2, ::-1]).all() and (rows[0::2, 0] == np.arange(30)).all()
    assert (rows == misaligned_sources(labels, 2)).all()


def test_sources_of_three_modalities_are_distinct_with_two_labels():
    labels = np.arange(30) % 4
    for i, row in enumerate(misaligned_sources(labels, 3)):
        assert len(set(row)) == 3 and i in row and len(set(labels[row])) >= 2


def test_pairs_need_two_classes():
    with pytest.raises(UsageError, match="at least two classes"):
        misaligned_sources(np.zeros(5, dtype=int), 2)


def test_partners_of_the_release_are_a_permutation_within_each_batch_of_64():
    places = release_partners(150)
    for start in (0, 64, 128):
        batch = places[start : start + 64]
        assert sorted(batch) == list(range(start, min(start + 64, 150)))
        assert (batch != np.sort(batch)).any()
    assert (places == release_partners(150)).all()


# The release's draw; its golden numbers are in test_official_inputs.py -----------------------

POOL = [Listed(f"s{k:02d}", k % 3) for k in range(60)]
IDS = [row.id for row in POOL]


def drawn(rows, seed=0, cut="test"):
    return split_release(rows, seed, SECOND, cut)


@pytest.mark.parametrize("cut", ["test", "train"])
def test_the_releases_split_is_stratified_and_each_seed_has_another(cut):
    rows = drawn(POOL, cut=cut)
    assert [part for _, part in rows] == ["train"] * 42 + ["val"] * 6 + ["test"] * 12
    assert sorted(sample for sample, _ in rows) == IDS != [sample for sample, _ in rows]
    for part, count in zip(PARTS, (14, 2, 4)):
        counts = Counter(int(sample[1:]) % 3 for sample, p in rows if p == part)
        assert set(counts.values()) == {count}
    assert drawn(POOL, cut=cut) == rows != drawn(POOL, seed=1, cut=cut)


def test_a_row_taken_for_a_header_is_in_no_part_and_moves_the_draw():
    lost = drawn([Listed("s00", 0, header=True), *POOL[1:]])
    assert lost == drawn(POOL[1:]) and "s00" not in dict(lost)


def test_a_sample_without_a_file_changes_no_others_part_and_an_unlisted_one_comes_last():
    ids = [*IDS[1::7], "new"]
    parts = release_parts(POOL, ids, 0, SECOND, "test")
    assert parts == [*((s, part) for s, part in drawn(POOL) if s in ids), ("new", "")]


def test_a_sample_that_the_lists_have_twice_is_where_it_was_drawn_first():
    rows = drawn(POOL + POOL)
    first = dict(reversed(rows))
    assert first != dict(rows)
    parts = release_parts(POOL + POOL, IDS, 0, SECOND, "test")
    assert dict(parts) == first and len(parts) == 60


def test_a_class_too_small_for_the_releases_draw_is_refused():
    with pytest.raises(UsageError, match="--split_rule release cannot split 10 samples"):
        drawn([Listed(str(k), int(k == 9)) for k in range(10)])
