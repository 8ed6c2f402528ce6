"""Splits: assign samples to train, val and test, once, and stored in a file.

`paper`: 70/10/20, stratified by class, samples ranked by SHA-256 of "split_seed:id". `release`: the
draw of the authors' release on the rows of the raw data's lists, before any rejection; a part keeps
the order of the draw. `group`: 70/10/20, but no group (actor, source video) is in two parts.
`official`, `official2`, `official3`: the parts declared by the raw dataset.
The misaligned pairs for the evaluation are drawn here too, the same for all methods and epochs.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from common.options import UsageError
from data_prep.spec import Listed

PARTS = ("train", "val", "test")
RULES = ("paper", "release", "group", "official", "official2", "official3")
FILE_NAME = re.compile(rf"({'|'.join(RULES)})(-plain)?-seed(\d+)\.csv", re.ASCII)


class Split(NamedTuple):
    """The parameters that determine a split of a dataset."""

    rule: str
    seed: int
    stratify: bool = True

    @property
    def stem(self) -> str:
        """The name of its file, without the extension."""
        return f"{self.rule}{'' if self.stratify else '-plain'}-seed{self.seed}"

    @classmethod
    def of_file(cls, name: str) -> "Split | None":
        """The split that a file name belongs to, or None."""
        match = FILE_NAME.fullmatch(name)
        return cls(match[1], int(match[3]), not match[2]) if match else None


def paper_counts(total: int, second: float = 2 / 3) -> tuple[int, int, int]:
    """(train, val, test) sizes: H = ceil(0.3 N) are held out, ceil(second * H) of them for test.

    Reproduces Table 5 exactly for Kinetics-Sounds (second = 0.66), CREMA-D, UCF-101, Food-101 and
    Twitter2015 (second = 2/3). Uses integers, since a float 0.7 * N is one too small at 90, 170...
    """
    train = 7 * total // 10
    held_out = total - train
    test = -(-Fraction(second).limit_denominator(100) * held_out // 1)
    return train, held_out - int(test), int(test)


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Integers proportional to `weights` that sum to `total`."""
    whole = sum(weights) or 1
    shares = [total * w // whole for w in weights]
    order = sorted(range(len(weights)), key=lambda k: (-(total * weights[k] % whole), k))
    for k in order[: total - sum(shares)]:
        shares[k] += 1
    return shares


def split_paper(
    ids: Sequence[str], labels: Sequence[int], seed: int, second: float, stratify: bool = True
) -> list[str]:
    """The part of each sample by the `paper` rule."""
    groups = defaultdict(list)
    for k in sorted(range(len(ids)), key=lambda k: _rank(seed, ids[k])):
        groups[labels[k] if stratify else 0].append(k)
    members = [groups[key] for key in sorted(groups)]
    train_total, val_total, _ = paper_counts(len(ids), second)
    train = _largest_remainder(train_total, [len(m) for m in members])
    val = _largest_remainder(val_total, [len(m) - t for m, t in zip(members, train)])
    parts = [""] * len(ids)
    for own, n_train, n_val in zip(members, train, val):
        for place, k in enumerate(own):
            parts[k] = PARTS[(place >= n_train) + (place >= n_train + n_val)]
    return parts


def split_release(
    pool: Sequence[Listed], seed: int, second: float, cut: str
) -> list[tuple[str, str]]:
    """(id, part) of each row of the pool, in the order of the draw: train, val, test.

    `cut`: whether scikit-learn gets the "train" or "test" fraction, which affects the rounding.
    Rows that the release treats as a header are left out. Raises `UsageError` if a class has too
    few rows to be stratified.
    """
    from sklearn.model_selection import train_test_split  # takes a second

    rows = [row for row in pool if not row.header]
    first = {"test_size": 0.3} if cut == "test" else {"train_size": 0.7}
    again = {"test_size": second} if cut == "test" else {"train_size": 1 / 3}
    keys, drawn = np.asarray([row.key for row in rows]), {"random_state": seed}
    try:
        train, rest = train_test_split(np.arange(len(rows)), **first, **drawn, stratify=keys)
        val, test = train_test_split(rest, **again, **drawn, stratify=keys[rest])
    except ValueError as error:
        why = str(error).split(". ")[0]
        raise UsageError(
            f"--split_rule release cannot split {len(rows)} samples ({why}): scikit-learn's"
            " stratified split needs about 10 of each class"
        ) from None
    return [(rows[k].id, part) for part, where in zip(PARTS, (train, val, test)) for k in where]


def release_parts(
    pool: Sequence[Listed], ids: Sequence[str], seed: int, second: float, cut: str
) -> list[tuple[str, str]]:
    """(id, part) of each sample in `ids`, in the order of the release's draw.

    A sample that is listed twice is in the part into which it was drawn first. Samples without a
    drawn row come last, with the part "".
    """
    drawn: dict[str, str] = {}
    for sample, part in split_release(pool, seed, second, cut):
        drawn.setdefault(sample, part)
    there = set(ids)
    parts = [(sample, part) for sample, part in drawn.items() if sample in there]
    return parts + [(sample, "") for sample in ids if sample not in drawn]


def split_groups(ids: Sequence[str], groups: Sequence[str], seed: int, second: float) -> list[str]:
    """The part of each sample by the `group` rule: sizes as close as intact groups allow."""
    if not all(groups) or len(set(groups)) < len(PARTS):
        raise UsageError(
            f"--split_rule group needs at least {len(PARTS)} groups, but this dataset has"
            f" {len(set(groups) - {''})}; allowed here: paper, release, official if parts are"
            " declared"
        )
    members = defaultdict(list)
    for k, group in enumerate(groups):
        members[group].append(k)
    need = dict(zip(PARTS, paper_counts(len(ids), second)))
    empty, parts = list(PARTS), [""] * len(ids)
    ranked = sorted(members, key=lambda group: _rank(seed, group))
    for place, group in enumerate(ranked):
        # The last groups go to parts that are still empty.
        choice = empty if len(ranked) - place <= len(empty) else PARTS
        part = max(choice, key=lambda p: (need[p], -PARTS.index(p)))
        need[part] -= len(members[group])
        empty = [p for p in empty if p != part]
        for k in members[group]:
            parts[k] = part
    return parts


def split_official(declared: Sequence[str], rule: str = "official") -> list[str]:
    """The parts by an official rule; raises `UsageError` if a sample has none or a part is empty.

    `declared` comes from the layout: "train", or "train/test/val" for three official lists.
    """
    number = int(rule.removeprefix("official") or 1)
    lists = [value.split("/") for value in declared]
    parts = [value[number - 1] if len(value) >= number else "" for value in lists]
    missing = [part for part in PARTS if part not in parts]
    if missing or set(parts) - set(PARTS):
        raise UsageError(
            f"--split_rule {rule}: the raw data declare no {' and no '.join(missing) or 'part'}"
            f"{' part' if missing else ' for some samples'}; allowed here: paper, release, group"
        )
    return parts


def make_split(
    how: Split,
    ids: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[str],
    declared: Sequence[str],
    label_names: Sequence[str],
    second: float,
) -> list[str]:
    """The part of each sample by any rule except `release`; see `check_parts`."""
    if how.rule == "paper":
        counts = np.bincount(np.asarray(labels), minlength=len(label_names))
        if how.stratify and counts.min() < 2:
            name = label_names[int(counts.argmin())]
            raise UsageError(
                f"class {name!r} has {counts.min()} usable sample(s): a stratified split needs at"
                " least 2 per class; add samples or give --stratify off"
            )
        parts = split_paper(ids, labels, how.seed, second, how.stratify)
    elif how.rule == "group":
        parts = split_groups(ids, groups, how.seed, second)
    else:
        parts = split_official(declared, how.rule)
    check_parts(parts, labels, label_names, how)
    return parts


def check_parts(
    parts: Sequence[str], labels: Sequence[int], label_names: Sequence[str], how: Split
) -> None:
    """Raises `UsageError` if a part is empty or a class has no training sample."""
    present = {label for label, part in zip(labels, parts) if part == "train"}
    absent = [name for k, name in enumerate(label_names) if k not in present]
    if absent:
        raise UsageError(
            f"the train part of --split_rule {how.rule} --split_seed {how.seed} has no sample of"
            f" class {absent[0]!r}; add samples or choose another rule or seed"
        )
    for part in PARTS:
        if part not in parts:
            raise UsageError(f"the {part} part is empty: {len(parts)} samples are too few to split")


class NoPairs(UsageError):
    """A part has no misaligned pairs, so its metrics on them are left out."""


def misaligned_sources(labels: np.ndarray, modalities: int, seed: int = 0) -> np.ndarray:
    """Sources of the misaligned samples of one part: [R, M] positions, one column per modality.

    M = 2: for each i one uniform j with another label, in both directions (i, j) and (j, i), so
    R = 2N (paper Sec. 1; the draw is our choice). M >= 3: j_1 has another label, the others are
    drawn without replacement from the rest, and a random permutation assigns them (Sec. A.2),
    R = N. Raises `NoPairs` if no sample has a partner.
    """
    n, classes, rng, rows = len(labels), len(set(labels.tolist())), np.random.default_rng(seed), []
    if n < modalities or classes < 2:
        raise NoPairs(
            f"misaligned pairs need at least {modalities} samples of at least two classes, but"
            f" there are {n} of {classes}"
        )
    for i in range(n):
        j = int(rng.choice(np.flatnonzero(labels != labels[i])))
        if modalities == 2:
            rows += [(i, j), (j, i)]
        else:
            rest = np.setdiff1d(np.arange(n), (i, j))
            sources = [i, j, *rng.choice(rest, modalities - 2, replace=False).tolist()]
            rows.append(tuple(sources[k] for k in rng.permutation(modalities)))
    return np.asarray(rows, dtype=np.int64)


def release_partners(count: int, batch: int = 64, seed: int = 0) -> np.ndarray:
    """Misaligned samples of one part as in the official release: [N] positions of the partners.

    A permutation within each batch, in the order of the part and regardless of labels. It is drawn
    once here; the release draws it again in each epoch.
    """
    rng = np.random.default_rng(seed)
    starts = range(0, count, batch)
    return np.concatenate([k + rng.permutation(min(batch, count - k)) for k in starts])
