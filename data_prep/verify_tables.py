"""The tables of a prepared folder against its shards: manifest, rejects, counts, splits, pairs.

Each check returns its findings, one line each; `verify` puts them together.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.files import file_digest, read_object, without_formulas
from common.options import UsageError
from data_prep.reasons import REASONS
from data_prep.shards import Shard
from data_prep.split import PARTS, RULES, declared_part, paper_counts, release_parts
from data_prep.store import CHECKSUMS, VOCABULARY, read_pool

MOST = 5  # findings of one kind that are spelled out
MANIFEST = (
    "id", "label", "label_name", "group", "part", "sources", "duration_s", "n_frames", "flags",
)  # fmt: skip
REJECTED = ("id", "source", "reason", "detail")
SPLIT_NAME = re.compile(rf"({'|'.join(RULES)})(-plain)?-seed(\d+)", re.ASCII)
PAIRS_NAME = re.compile(rf"(.+)\.(release-)?pairs-({'|'.join(PARTS)})", re.ASCII)
POOL = ("id", "key", "lost")
RELEASE_BATCH = 64  # samples among which the release's pairs are drawn


@dataclass
class Found:
    """What the shards say: the columns of the manifest but for label_name, and the rejects."""

    columns: dict[str, list] = field(default_factory=dict)
    rejected: list[tuple[str, ...]] = field(default_factory=list)


def few(lines: Iterable[str]) -> list[str]:
    """The first of many findings of one kind, and how many more there are."""
    lines = list(lines)
    if len(lines) <= MOST:
        return lines
    kind = lines[0].split(":")[0]
    return [*lines[:MOST], f"{kind}: {len(lines) - MOST} more findings of this kind"]


def one_line(error: Exception) -> str:
    """An error's text without line ends."""
    return " ".join(str(error).split())


# Manifest, rejects, counts ------------------------------------------------------------------------


def gather(shards: dict[str, Shard]) -> Found:
    """The shards' facts in the samples' order."""
    found = Found()
    for name in MANIFEST:
        if name != "label_name":
            found.columns[name] = [v for shard in shards.values() for v in shard.column(name)]
    rejects = [reject for shard in shards.values() for reject in shard.rejected]
    found.rejected = [tuple(str(value) for value in vars(reject).values()) for reject in rejects]
    return found


def read_csv(path: Path, header: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The rows below the expected header, or why they cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.reader(handle, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [f"{path.name}: cannot be read: {one_line(error)}"]
    if not rows or rows[0] != list(header):
        return [], [f"{path.name}: its header is {rows[:1]!r} instead of {','.join(header)}"]
    wrong = [k for k, row in enumerate(rows, 1) if len(row) != len(header)]
    if wrong:
        return [], [f"{path.name}: line {wrong[0]} has not {len(header)} fields"]
    return rows[1:], []


def check_manifest(folder: Path, found: Found, label_names: list[str]) -> list[str]:
    """manifest.csv against the shards, line by line."""
    ids, labels = found.columns["id"], found.columns["label"]
    findings = [f"shards: the id {i!r} stands there twice" for i in _twice(ids)]
    strange = sorted(set(labels) - set(range(len(label_names))))
    if strange:
        return [*few(findings), f"shards: labels {strange} of {len(label_names)} classes"]
    rows, wrong = read_csv(folder / "manifest.csv", MANIFEST)
    if wrong:
        return [*few(findings), *wrong]
    columns = {**found.columns, "label_name": [label_names[label] for label in labels]}
    stored = list(zip(*(columns[name] for name in MANIFEST)))
    if len(rows) != len(stored):
        findings.append(f"manifest.csv: {len(rows)} samples, the shards have {len(stored)}")
    for number, (row, expected) in enumerate(zip(rows, stored), 2):
        for name, seen, value in zip(MANIFEST, row, expected):
            if seen != str(value):
                findings.append(
                    f"manifest.csv: line {number}: {name} {seen!r}, the shard has {str(value)!r}"
                )
    return few(findings)


def _twice(values: Iterable[str]) -> list[str]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def check_rejected(folder: Path, found: Found) -> list[str]:
    """rejected.csv holds every reject of the shards; it may hold more, from the scan."""
    rows, findings = read_csv(folder / "rejected.csv", REJECTED)
    if findings:
        return findings
    unknown = sorted({row[2] for row in rows} - set(REASONS))
    findings += [f"rejected.csv: the reason {reason!r} does not exist" for reason in unknown]
    lost = Counter(map(tuple, without_formulas(found.rejected))) - Counter(
        tuple(row) for row in rows
    )
    findings += [f"rejected.csv: lacks {row[0]!r}, {row[2]}, of the shards" for row in sorted(lost)]
    return few(findings)


def check_counts(found: Found, meta: dict) -> list[str]:
    """The counts of meta.json."""
    names, labels = meta["label_names"], Counter(found.columns["label"])
    flags = Counter(f for text in found.columns["flags"] for f in text.split(";") if f)
    counted = {
        "samples": len(found.columns["id"]),
        "rejected": len(found.rejected),
        "per_class": {name: labels[k] for k, name in enumerate(names)},
        "flags": dict(flags),
    }
    findings = []
    for key, value in counted.items():
        seen = meta[key]
        if isinstance(seen, dict) and isinstance(value, dict):  # what differs alone
            seen, value = (
                {k: v for k, v in one.items() if k not in other or other[k] != v}
                for one, other in ((seen, value), (value, seen))
            )
        if seen != value:
            findings.append(
                f"meta.json: {key} {json.dumps(seen)}, the shards have {json.dumps(value)}"
            )
    return findings


def check_pool(folder: Path) -> list[str]:
    """pool.csv, the rows of the raw data's lists: an id, its class, and whether it is a header."""
    rows, wrong = read_csv(folder / "pool.csv", POOL)
    strange = [k for k, row in enumerate(rows, 2) if not row[0] or row[2] not in ("", "header")]
    return wrong or [f"pool.csv: line {k}: {','.join(rows[k - 2])!r}" for k in strange[:MOST]]


# Splits and pairs ---------------------------------------------------------------------------------


def check_splits(folder: Path, found: Found, order: list[str], meta: dict) -> list[str]:
    """All files of splits/: disjoint, complete, as their rule has it; and the pairs of their parts.

    `order` are the modalities. The paper rule's draw is not repeated, only its sizes are checked:
    the file decides, whatever drew it. The release's draw is repeated from pool.csv. Vocabularies
    of splits that are here are `verify`'s affair.
    """
    findings, splits = [], {}
    paths = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    for path in paths:
        match = SPLIT_NAME.fullmatch(path.stem) if path.suffix == ".csv" else None
        if match:
            splits[path.stem], wrong = check_split(path, match, found, meta)
            findings += wrong
    for path in paths:
        match = PAIRS_NAME.fullmatch(path.stem) if path.suffix == ".csv" else None
        if match and match[1] in splits:
            members = [i for i, part in splits[match[1]].items() if part == match[3]]
            check = check_release_pairs if match[2] else check_pairs
            findings += check(path, members, found, order)
        elif path.stem not in splits and path.name.removesuffix(VOCABULARY) not in splits:
            findings.append(f"splits/{path.name}: neither a split nor pairs of one that is here")
    return findings + check_noted(folder)


def check_noted(folder: Path) -> list[str]:
    """The files of splits/ that are not those whose SHA-256 was noted when they were written."""
    try:
        sums = read_object(folder / CHECKSUMS)
    except FileNotFoundError:
        return []
    except UsageError as error:
        return [str(error)]
    wrong = [
        n for n in sorted(sums) if (folder / n).is_file() and file_digest(folder / n) != sums[n]
    ]
    return few(f"splits/{name}: changed since it was written" for name in wrong)


def check_split(
    path: Path, name_parts: re.Match, found: Found, meta: dict
) -> tuple[dict[str, str], list[str]]:
    """The part of each id, and the findings about one split's file, a match of `SPLIT_NAME`."""
    rows, wrong = read_csv(path, ("id", "part"))
    ids, name, parts = found.columns["id"], path.name, {row[0]: row[1] for row in rows}
    rule, second = name_parts[1], meta["split_second"]
    allowed = (*PARTS, "") if rule == "release" else PARTS
    if wrong:
        return {}, wrong
    wrong += few(f"{name}: id {i!r} stands there twice" for i in _twice(row[0] for row in rows))
    wrong += few(f"{name}: id {i!r} is no sample" for i in sorted(set(parts) - set(ids)))
    wrong += few(f"{name}: sample {i!r} is missing" for i in sorted(set(ids) - set(parts)))
    strange = sorted(set(parts.values()) - set(allowed))
    wrong += [f"{name}: part {part!r} is none of {', '.join(PARTS)}" for part in strange]
    wrong += [f"{name}: the {part} part is empty" for part in PARTS if part not in parts.values()]
    if wrong:
        return parts, wrong
    if rule == "paper":
        sizes = tuple(Counter(parts.values())[part] for part in PARTS)
        due = paper_counts(len(ids), second)
        wrong += [f"{name}: parts of {sizes} samples instead of {due}"] if sizes != due else []
    elif rule == "release":
        wrong += check_release_draw(path, rows, int(name_parts[3]), ids, meta)
    elif rule.startswith("official"):
        declared = zip(ids, (declared_part(value, rule) for value in found.columns["part"]))
        wrong += few(
            f"{name}: {i!r} is in {parts[i]}, the raw data say {part!r}"
            for i, part in declared
            if parts[i] != part
        )
    else:
        seen: dict[str, set[str]] = {}
        for i, group in zip(ids, found.columns["group"]):
            seen.setdefault(group, set()).add(parts[i])
        torn = sorted(group for group, where in seen.items() if len(where) > 1)
        wrong += few(f"{name}: group {group!r} stands in several parts" for group in torn)
    return parts, wrong


def check_release_draw(
    path: Path, rows: list[tuple[str, ...]], seed: int, ids: list[str], meta: dict
) -> list[str]:
    """The release's draw, made again from the pool that was stored."""
    try:
        pool = read_pool(path.parent.parent / "pool.csv")
        due = release_parts(pool, ids, seed, meta["split_second"], meta["release_cut"])
    except (UsageError, KeyError) as error:
        return [f"{path.name}: the draw cannot be repeated: {one_line(error)}"]
    if [tuple(row) for row in rows] != due:
        return [f"{path.name}: not what the release's rule draws from pool.csv"]
    return []


def check_release_pairs(
    path: Path, members: list[str], found: Found, order: list[str]
) -> list[str]:
    """The release's pairs of one part: its samples in order, each with one of its batch of 64."""
    rows, wrong = read_csv(path, order)
    if wrong:
        return wrong
    position = {sample: k for k, sample in enumerate(found.columns["id"])}
    if not path.name.startswith("release-"):  # other rules keep a part in the order of ids
        members = sorted(members, key=position.get)
    first, second = zip(*rows) if rows else ((), ())
    if list(first) != members:
        return [f"{path.name}: the first column is not the part in its order"]
    for k in range(0, len(members), RELEASE_BATCH):
        batch = slice(k, k + RELEASE_BATCH)
        if sorted(second[batch]) != sorted(members[batch]):
            return [f"{path.name}: line {k + 2} on: not a permutation of these 64 samples"]
    return []


def check_pairs(path: Path, members: list[str], found: Found, order: list[str]) -> list[str]:
    """The misaligned pairs of one part: its samples alone, distinct, of two or more classes."""
    rows, wrong = read_csv(path, order)
    if wrong:
        return wrong
    label, name = dict(zip(found.columns["id"], found.columns["label"])), path.name
    due = len(members) * (2 if len(order) == 2 else 1)
    findings = [f"{name}: {len(rows)} rows instead of {due}"] if len(rows) != due else []
    inside = set(members)
    if len(order) == 2 and [row[::-1] for row in rows[0::2]] != rows[1::2]:
        findings.append(f"{name}: not every pair stands there in both directions")
    for number, row in enumerate(rows, 2):
        outside = [i for i in row if i not in inside]
        if outside:
            findings.append(f"{name}: line {number}: {outside[0]!r} is no sample of this part")
        elif len(set(row)) < len(row):
            findings.append(f"{name}: line {number}: one sample twice")
        elif len({label.get(i) for i in row}) < 2:
            findings.append(f"{name}: line {number}: samples of one class alone")
    return few(findings)
