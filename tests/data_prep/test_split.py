"""Splits and misaligned pairs: the paper's exact sizes, stability, disjoint groups."""

from collections import Counter

import numpy as np
import pytest

from common.options import UsageError
from data_prep.spec import Listed
from data_prep.split import (
    PARTS,
    make_split,
    misaligned_sources,
    paper_counts,
    release_partners,
    release_parts,
    split_paper,
    split_release,
)

TABLE_5 = [  # N, share of the second cut, the paper's sizes
    (7442, 2 / 3, (5209, 744, 1489)),  # CREMA-D
    (13085, 2 / 3, (9159, 1308, 2618)),  # UCF-101
    (90688, 2 / 3, (63481, 9069, 18138)),  # Food-101
    (5338, 2 / 3, (3736, 534, 1068)),  # Twitter2015
    (24129, 0.66, (16890, 2461, 4778)),  # Kinetics-Sounds
]


@pytest.mark.parametrize(("total", "second", "sizes"), TABLE_5)
def test_sizes_of_the_papers_table_5(total, second, sizes):
    assert paper_counts(total, second) == sizes


@pytest.mark.parametrize(("total", "second", "sizes"), TABLE_5)
@pytest.mark.parametrize("stratify", [True, False])
def test_the_split_itself_has_these_sizes(total, second, sizes, stratify):
    ids = [f"clip{k}" for k in range(total)]
    labels = [k * k % 6 for k in range(total)]
    counts = Counter(split_paper(ids, labels, 0, second, stratify))
    assert tuple(counts[part] for part in PARTS) == sizes


@pytest.mark.parametrize("total", [90, 170, 180, 7])
def test_whole_numbers_where_a_float_is_one_short(total):
    train, val, test = paper_counts(total)
    assert train == 7 * total // 10 and train + val + test == total


def test_every_class_is_in_every_part_in_proportion():
    labels = [k % 5 for k in range(500)]
    parts = split_paper([str(k) for k in range(500)], labels, 0, 2 / 3)
    for part, share in zip(PARTS, (70, 10, 20)):
        counts = Counter(y for y, p in zip(labels, parts) if p == part)
        assert set(counts.values()) == {share}


def test_one_clip_less_moves_few():
    ids = [f"clip{k}" for k in range(1000)]
    labels = [k % 4 for k in range(1000)]
    before = dict(zip(ids, split_paper(ids, labels, 0, 2 / 3)))
    after = dict(zip(ids[1:], split_paper(ids[1:], labels[1:], 0, 2 / 3)))
    assert sum(before[k] != after[k] for k in after) <= 8  # rounding of four classes, two cuts


def test_seed_decides_the_draw():
    ids, labels = [str(k) for k in range(100)], [k % 2 for k in range(100)]
    assert split_paper(ids, labels, 0, 2 / 3) == split_paper(ids, labels, 0, 2 / 3)
    assert split_paper(ids, labels, 0, 2 / 3) != split_paper(ids, labels, 1, 2 / 3)


def split(rule, n=60, groups=None, declared=None, labels=None, classes=3):
    labels = labels if labels is not None else [k % classes for k in range(n)]
    return make_split(
        rule, 0, [str(k) for k in range(n)], labels, groups or [""] * n, declared or [""] * n,
        [f"c{k}" for k in range(classes)], 2 / 3,
    )  # fmt: skip


def test_group_rule_tears_no_group_apart():
    groups = [f"actor{k % 12}" for k in range(60)]
    parts = split("group", groups=groups)
    for group in set(groups):
        assert len({p for p, g in zip(parts, groups) if g == group}) == 1
    assert set(parts) == set(PARTS)


def test_three_groups_fill_three_parts():
    parts = split("group", groups=[f"actor{k // 20}" for k in range(60)])
    assert sorted(parts.count(part) for part in PARTS) == [20, 20, 20]


def test_official_rule_takes_the_declared_parts():
    declared = ["train", "val", "test"] * 20
    labels = [k // 3 % 3 for k in range(60)]
    assert split("official", declared=declared, labels=labels) == declared


@pytest.mark.parametrize(
    ("rule", "how", "words"),
    [
        ("group", {}, "needs at least 3 groups"),
        ("official", {}, "declares? no train|declare no train"),
        ("paper", {"labels": [0] * 59 + [1], "classes": 2}, "'c1' has 1 usable"),
        ("paper", {"n": 4, "labels": [0, 0, 1, 1], "classes": 2}, "no sample of class|is empty"),
    ],
)
def test_impossible_splits_are_refused(rule, how, words):
    with pytest.raises(UsageError, match=words):
        split(rule, **how)


def test_pairs_of_two_modalities_hold_both_directions_of_another_label():
    labels = np.arange(30) % 4
    rows = misaligned_sources(labels, 2)
    assert rows.shape == (60, 2)
    assert (labels[rows[:, 0]] != labels[rows[:, 1]]).all()
    assert (rows[0::2] == rows[1::2, ::-1]).all()
    assert (rows[0::2, 0] == np.arange(30)).all()
    assert (rows == misaligned_sources(labels, 2)).all()


def test_sources_of_three_modalities_are_distinct_with_two_labels():
    labels = np.arange(30) % 4
    for i, row in enumerate(misaligned_sources(labels, 3)):
        assert len(set(row)) == 3 and i in row and len(set(labels[row])) >= 2


def test_pairs_need_two_classes():
    with pytest.raises(UsageError, match="two or more classes"):
        misaligned_sources(np.zeros(5, dtype=int), 2)


# The draw of the release; its golden numbers are in test_official.py ------------------------------


def pool(n=60, classes=3, lost=()):
    return [Listed(f"s{k:02d}", k % classes, k in lost) for k in range(n)]


def drawn(rows, seed=0, cut="test"):
    return split_release(rows, seed, 2 / 3, cut)


@pytest.mark.parametrize("cut", ["test", "train"])
def test_the_releases_split_is_stratified_and_each_seed_has_another(cut):
    rows = drawn(pool(), cut=cut)
    assert [part for _, part in rows] == ["train"] * 42 + ["val"] * 6 + ["test"] * 12
    assert sorted(sample for sample, _ in rows) == [row.id for row in pool()]
    for part, count in zip(PARTS, (14, 2, 4)):
        counts = Counter(int(sample[1:]) % 3 for sample, p in rows if p == part)
        assert set(counts.values()) == {count}
    assert drawn(pool(), cut=cut) == rows != drawn(pool(), seed=1, cut=cut)


def test_the_releases_parts_keep_the_order_of_the_draw():
    train = [sample for sample, part in drawn(pool()) if part == "train"]
    assert train != sorted(train)


def test_a_row_taken_for_a_header_is_in_no_part_and_moves_the_draw():
    lost = drawn(pool(lost=(0,)))
    assert lost == drawn(pool()[1:]) and "s00" not in dict(lost)


def test_a_sample_without_a_file_changes_no_others_part():
    ids = [f"s{k:02d}" for k in range(60) if k % 7]
    parts = release_parts(pool(), ids, 0, 2 / 3, "test")
    assert parts == [(sample, part) for sample, part in drawn(pool()) if sample in ids]


def test_a_sample_that_no_row_names_comes_last_in_no_part():
    parts = release_parts(pool(), [row.id for row in pool()] + ["new"], 0, 2 / 3, "test")
    assert parts == [*drawn(pool()), ("new", "")]


def test_a_sample_that_the_lists_have_twice_is_where_it_was_drawn_first():
    rows = drawn(pool() + pool())
    first = dict(reversed(rows))
    assert first != dict(rows)
    parts = release_parts(pool() + pool(), [row.id for row in pool()], 0, 2 / 3, "test")
    assert dict(parts) == first and len(parts) == 60


def test_a_class_too_small_for_the_releases_draw_is_refused():
    with pytest.raises(UsageError, match="--split_rule release cannot draw from 10 samples"):
        drawn([Listed(str(k), int(k == 9)) for k in range(10)])


def test_partners_of_the_release_are_a_permutation_within_each_batch_of_64():
    places = release_partners(150)
    for start in (0, 64, 128):
        batch = places[start : start + 64]
        assert sorted(batch) == list(range(start, min(start + 64, 150)))
        assert (batch != np.sort(batch)).any()
    assert (places == release_partners(150)).all()
