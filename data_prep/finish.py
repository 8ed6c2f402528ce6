"""Finishes a preparation: writes the manifest and rejects, reports, and marks it complete."""

import sys
from collections import Counter
from pathlib import Path

from common.files import without_formulas, write_json, write_table
from common.options import UsageError
from data_prep.checksums import digests
from data_prep.reasons import KEPT_REASONS, REASONS
from data_prep.shards import FACTS, Shard
from data_prep.spec import Listed, Rejection, Scan, Spec
from data_prep.store import Prepared, write_pool

# Flags of samples with a placeholder for a modality, and what is missing.
FILLED = {"missing_image": "a usable image", "no_video": "usable video", "no_audio": "usable audio"}
TABLES = ("manifest.csv", "rejected.csv", "pool.csv", "vocab.txt")


class TooManyRejects(UsageError):
    """Rejected, placeholder and unusable samples exceed --max_bad; the folder stays incomplete."""

    exit_status = 3


def finish(
    folder: Path, scan: Scan, spec: Spec, meta: dict, max_bad: float, count_filled: bool
) -> None:
    """Writes manifest.csv, rejected.csv, pool.csv and meta.json, and prints a report.

    `count_filled`: whether samples with a placeholder count as bad (if not requested).
    Marks the folder complete unless it raises `TooManyRejects`, or `UsageError` for a class
    without samples or for feature vectors of different widths.
    """
    shards = [Shard(path) for path in sorted(folder.glob("samples-*.arrow"))]
    rejected = [r for shard in shards for r in shard.rejected]
    columns = {name: [v for shard in shards for v in shard.column(name)] for name in FACTS}
    names = [scan.label_names[label] for label in columns["label"]]
    flags = [text.split(";") if text else [] for text in columns["flags"]]
    ids, labels, *rest = columns
    header, cells = (ids, labels, "label_name", *rest), [columns[name] for name in rest]
    write_table(folder / "manifest.csv", header, zip(columns[ids], columns[labels], names, *cells))
    listed = sorted(rejected + scan.rejected, key=lambda r: (r.reason, r.id, r.source))
    write_table(
        folder / "rejected.csv",
        ("id", "source", "reason", "detail"),
        without_formulas(tuple(vars(r).values()) for r in listed),
    )
    write_pool(folder / "pool.csv", scan.pool or [Listed(c.id, c.label) for c in scan.candidates])
    meta["tables"] = digests(folder / name for name in TABLES if (folder / name).exists())
    counts = Counter(names)
    meta |= {
        "samples": len(names),
        "rejected": len(rejected),
        "per_class": {name: counts[name] for name in scan.label_names},
        "flags": dict(Counter(flag for own in flags for flag in own)),
    }
    _report(folder, meta, listed, scan.listed)
    write_json(folder / "meta.json", meta)
    filled = sum(not FILLED.keys().isdisjoint(own) for own in flags) if count_filled else 0
    _check_usable(folder, meta, filled, scan.listed, max_bad)
    for m, modality in spec.items():
        stored = ((i, s.value(k, m)) for s in shards for k, i in enumerate(s.column("id")))
        modality.check_together(m, stored)
    write_json(folder / "meta.json", {**meta, "complete": True})


def _report(folder: Path, meta: dict, rejected: list[Rejection], listed: int) -> None:
    """Prints to stderr what was prepared and what was rejected, grouped by reason."""
    total = max(listed, meta["candidates"])
    print(f"{meta['samples']} of {total} samples prepared in {folder}", file=sys.stderr)
    for reason, count in sorted(Counter(r.reason for r in rejected).items()):
        kept = " (kept)" if reason in KEPT_REASONS else ""
        print(f"  {count:6d} {reason}{kept}: {REASONS[reason]}", file=sys.stderr)
    for flag, count in sorted(meta["flags"].items()):
        print(f"  {count:6d} kept with flag {flag}", file=sys.stderr)


def _check_usable(folder: Path, meta: dict, filled: int, listed: int, max_bad: float) -> None:
    """Raises `UsageError` if all samples lack the same modality, or a class has no sample.

    Raises `TooManyRejects` if too large a share is unusable. `filled`: the number of samples with
    a placeholder; `listed`: as in `Scan`.
    """
    for flag, what in FILLED.items():
        if meta["flags"].get(flag) == meta["samples"]:
            raise UsageError(
                f"none of the {meta['samples']} samples has {what}: check that"
                f" --dataset_root is the right folder, then remove {folder} and prepare again"
            )
    total = max(listed, meta["candidates"])
    kinds = {
        "rejected": meta["rejected"],
        "with a placeholder for an unreadable modality": filled,
        "rows without a usable sample": total - meta["candidates"],
    }
    bad = sum(kinds.values())
    if bad > max_bad * total:
        which = ", ".join(f"{count} {what}" for what, count in kinds.items() if count)
        raise TooManyRejects(
            f"{bad} of {total} samples ({bad / total:.1%}) are unusable, more than --max_bad"
            f" {max_bad:g}: {which}. See {folder}/rejected.csv and the flags in manifest.csv."
            f" Either repair the raw files and remove {folder}, or run again with a higher"
            " --max_bad (finished shards are kept)"
        )
    for name, count in meta["per_class"].items():
        if not count:
            raise UsageError(
                f"every file of class {name!r} was rejected: see {folder / 'rejected.csv'}"
            )


def report_split(folder: Path, rule: str) -> None:
    """Draws the split by `rule` with seed 0; notes a failure, or a part that lacks a class."""
    prepared = Prepared(folder)
    try:
        parts = prepared.split(rule, 0)
    except UsageError as error:  # a training run that uses it fails with the same message
        print(f"note: cannot draw a split by the rule {rule}: {error}", file=sys.stderr)
        return
    for part, positions in parts.items():
        present = set(prepared.labels[positions].tolist())
        absent = [name for k, name in enumerate(prepared.label_names) if k not in present]
        if absent:
            more = f" nor of {len(absent) - 1} other classes" if absent[1:] else ""
            print(
                f"note: split by the rule {rule}, the {part} part has no sample of class"
                f" {absent[0]!r}{more}: results on it do not cover that class",
                file=sys.stderr,
            )
