"""Splits: which sample is in which part, decided once and written to a file.

* `paper`: 70/10/20 of the whole pool, which gives the totals of Table 5 where the pool is the
  paper's. Each class's samples are ranked by SHA-256 of "split_seed:id" and cut (our choice: one
  clip more or less moves one sample, not all). Stratified by class, as in the authors' release.
* `release`: the draw of the authors' release, scikit-learn's `train_test_split` twice, stratified,
  on the rows of the raw data's lists in their order (in the order of ids where there are none). It
  is made before anything is rejected, and a part keeps the order of the draw.
* `group`: the same shares, but no group (actor, source video) stands in two parts.
* `official`: the parts that the raw data set itself declares, where it does. Where it has several
  lists of them, as UCF-101, this is the first, `official2` and `official3` are the others.

The misaligned pairs of the evaluation are drawn here too, once a part, so that every method, seed
and epoch is measured on the same ones.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from common.options import UsageError
from data_prep.spec import Listed

PARTS = ("train", "val", "test")
RULES = ("paper", "release", "group", "official", "official2", "official3")


def paper_counts(total: int, second: float = 2 / 3) -> tuple[int, int, int]:
    """(train, val, test) sizes: hold out ceil(0.3 N), of that ceil(second * H) is the test part.

    Reproduces Table 5 exactly for Kinetics-Sounds (second = 0.66), CREMA-D, UCF-101, Food-101 and
    Twitter2015 (second = 2/3). In whole numbers, since a float 0.7 * N is one short at 90, 170...
    """
    train = 7 * total // 10
    held_out = total - train
    test = -(-Fraction(second).limit_denominator(100) * held_out // 1)
    return train, held_out - int(test), int(test)


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to `weights` that sum to `total`."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares = [total * w // whole for w in weights]
    order = sorted(range(len(weights)), key=lambda k: (-(total * weights[k] % whole), k))
    for k in order[: total - sum(shares)]:
        shares[k] += 1
    return shares


def split_paper(
    ids: Sequence[str], labels: Sequence[int], seed: int, second: float, stratify: bool = True
) -> list[str]:
    """The part of each sample under the `paper` rule."""
    groups = defaultdict(list)
    for k in sorted(range(len(ids)), key=lambda k: _rank(seed, ids[k])):
        groups[labels[k] if stratify else 0].append(k)
    keys = sorted(groups)
    sizes = [len(groups[key]) for key in keys]
    train_total, val_total, test_total = paper_counts(len(ids), second)
    train = _largest_remainder(train_total, sizes)
    rest = [n - t for n, t in zip(sizes, train)]
    val = _largest_remainder(val_total, rest)
    parts = [""] * len(ids)
    for key, n_train, n_val in zip(keys, train, val):
        for place, k in enumerate(groups[key]):
            parts[k] = PARTS[(place >= n_train) + (place >= n_train + n_val)]
    return parts


def split_release(
    pool: Sequence[Listed], seed: int, second: float, cut: str
) -> list[tuple[str, str]]:
    """(id, part) of each row of the pool, in the order of the draw: train, val, test.

    `cut`: which part's share is given to scikit-learn, "train" or "test": the rounding follows it.
    Rows that the release takes for a header are left out. Raises `UsageError` where a class has too
    few rows to be stratified.
    """
    from sklearn.model_selection import train_test_split  # takes a second

    rows = [row for row in pool if not row.header]
    first = {"test_size": 0.3} if cut == "test" else {"train_size": 0.7}
    again = {"test_size": second} if cut == "test" else {"train_size": 1 / 3}
    keys = np.asarray([row.key for row in rows])
    try:
        train, rest = train_test_split(
            np.arange(len(rows)), **first, random_state=seed, stratify=keys
        )
        val, test = train_test_split(rest, **again, random_state=seed, stratify=keys[rest])
    except ValueError as error:
        why = str(error).split(". ")[0]
        raise UsageError(
            f"--split_rule release cannot draw from {len(rows)} samples ({why}): scikit-learn's"
            " stratified draw needs some 10 of each class"
        ) from None
    drawn = zip(PARTS, (train, val, test))
    return [(rows[k].id, part) for part, places in drawn for k in places]


def release_parts(
    pool: Sequence[Listed], ids: Sequence[str], seed: int, second: float, cut: str
) -> list[tuple[str, str]]:
    """(id, part) of each of the samples `ids`, in the order of the release's draw.

    A sample that the lists have twice is in the part into which it was drawn first. Those that no
    row drawn from names come last, in the part "".
    """
    drawn: dict[str, str] = {}
    for sample, part in split_release(pool, seed, second, cut):
        drawn.setdefault(sample, part)
    there = set(ids)
    parts = [(sample, part) for sample, part in drawn.items() if sample in there]
    return parts + [(sample, "") for sample in ids if sample not in drawn]


def split_groups(ids: Sequence[str], groups: Sequence[str], seed: int, second: float) -> list[str]:
    """The part of each sample under the `group` rule: sizes as near as whole groups allow."""
    if not all(groups) or len(set(groups)) < len(PARTS):
        raise UsageError(
            f"--split_rule group needs at least {len(PARTS)} groups, and this data set has"
            f" {len(set(groups) - {''})}; allowed here: paper, release, official where parts are"
            " declared"
        )
    members = defaultdict(list)
    for k, group in enumerate(groups):
        members[group].append(k)
    need = dict(zip(PARTS, paper_counts(len(ids), second)))
    empty, parts = list(PARTS), [""] * len(ids)
    ranked = sorted(members, key=lambda g: _rank(seed, g))
    for place, group in enumerate(ranked):
        # The last groups go to parts that have none yet.
        choice = empty if len(ranked) - place <= len(empty) else PARTS
        part = max(choice, key=lambda p: (need[p], -PARTS.index(p)))
        need[part] -= len(members[group])
        empty = [p for p in empty if p != part]
        for k in members[group]:
            parts[k] = part
    return parts


def declared_part(declared: str, rule: str) -> str:
    """A sample's part in the rule's list, "" where it has none.

    `declared` is what a layout gives: "train", or "train/test/val" for three lists.
    """
    number = int(rule.removeprefix("official") or 1)
    return declared.split("/")[number - 1] if declared.count("/") >= number - 1 else ""


def split_official(declared: Sequence[str], rule: str = "official") -> list[str]:
    """The declared parts; raises `UsageError` if a sample has none or a part is empty."""
    parts = [declared_part(value, rule) for value in declared]
    missing = [part for part in PARTS if part not in parts]
    if missing or set(parts) - set(PARTS):
        raise UsageError(
            f"--split_rule {rule}: the raw data declare no {' and no '.join(missing) or 'part'}"
            f"{' part' if missing else ' for some samples'}; allowed here: paper, release, group"
        )
    return parts


def make_split(
    rule: str,
    seed: int,
    ids: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[str],
    declared: Sequence[str],
    label_names: Sequence[str],
    second: float,
    stratify: bool = True,
) -> list[str]:
    """The part of each sample; raises `UsageError` where a class would be missing from train."""
    if rule == "paper":
        counts = np.bincount(np.asarray(labels), minlength=len(label_names))
        if stratify and counts.min() < 2:
            name = label_names[int(counts.argmin())]
            raise UsageError(
                f"class {name!r} has {counts.min()} usable sample(s): a stratified split needs 2"
                " or more of each; add samples or give --stratify off"
            )
        parts = split_paper(ids, labels, seed, second, stratify)
    elif rule == "group":
        parts = split_groups(ids, groups, seed, second)
    else:
        parts = split_official(declared, rule)
    check_parts(parts, labels, label_names, f"--split_rule {rule} --split_seed {seed}")
    return parts


def check_parts(
    parts: Sequence[str], labels: Sequence[int], label_names: Sequence[str], flags: str
) -> None:
    """Raises `UsageError` for an empty part, and for a class without a sample in train."""
    present = {label for label, part in zip(labels, parts) if part == "train"}
    absent = [name for k, name in enumerate(label_names) if k not in present]
    if absent:
        raise UsageError(
            f"the train part of {flags} has no sample of class {absent[0]!r}; add samples or choose"
            " another rule or seed"
        )
    for part in PARTS:
        if part not in parts:
            raise UsageError(f"the {part} part is empty: {len(parts)} samples are too few to split")


class NoPairs(UsageError):
    """A part has no misaligned pairs: what they measure is left out there."""


def misaligned_sources(labels: np.ndarray, modalities: int, seed: int = 0) -> np.ndarray:
    """Sources of the misaligned samples of one part: [R, M] positions, one column a modality.

    M = 2: for each i one j with another label, uniform, and both directions (i, j) and (j, i), so
    R = 2N (paper Sec. 1; the draw is our choice). M >= 3: j_1 has another label, the others are
    drawn without replacement from the rest, and a random permutation assigns them (Sec. A.2),
    R = N. Raises `NoPairs` where no sample has a partner.
    """
    n, rng, rows = len(labels), np.random.default_rng(seed), []
    if n < modalities or len(set(labels.tolist())) < 2:
        raise NoPairs(
            f"misaligned pairs need {modalities} or more samples of two or more classes, there are"
            f" {n} of {len(set(labels.tolist()))}"
        )
    for i in range(n):
        others = np.flatnonzero(labels != labels[i])
        j = int(rng.choice(others))
        if modalities == 2:
            rows += [(i, j), (j, i)]
        else:
            rest = np.setdiff1d(np.arange(n), (i, j))
            sources = [i, j, *rng.choice(rest, modalities - 2, replace=False).tolist()]
            rows.append(tuple(sources[k] for k in rng.permutation(modalities)))
    return np.asarray(rows, dtype=np.int64)


def release_partners(count: int, batch: int = 64, seed: int = 0) -> np.ndarray:
    """The official release's misaligned samples of one part: [N] place of each one's partner.

    A permutation within each batch of 64 in the part's order, labels not looked at. The release
    draws it anew in each epoch, this one is drawn once.
    """
    rng = np.random.default_rng(seed)
    starts = range(0, count, batch)
    return np.concatenate([k + rng.permutation(min(batch, count - k)) for k in starts])
