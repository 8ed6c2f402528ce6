"""What a prepared folder holds, in figures: read from its tables, beside the paper's own.

    python -m data_prep --dataset cremad --stats

Samples by class and part of each split that was drawn, durations, rejects by reason, flags, and
bytes on disk. It opens no shard and writes nothing; `verify` tells whether the tables are true.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common.files import read_table
from common.options import UsageError
from data_prep.split import PARTS
from data_prep.store import SPLIT_NAME, read_meta

# Train, validation and test samples: the paper's Table 5. `split.paper_counts` reproduces five of
# the rows to the unit. Two rows no rule of that form gives, as their train part alone shows:
# CMU-MOSI's is the set's official split, and Sarcasm's is not known to come from any rule (the
# filtered public lists hold 80 samples fewer, too).
TABLE_5 = {
    "kinetics": (16890, 2461, 4778),
    "cremad": (5209, 744, 1489),
    "ucf101": (9159, 1308, 2618),
    "food101": (63481, 9069, 18138),
    "mosi": (1284, 229, 686),
    "sarcasm": (17316, 2463, 4936),
    "twitter2015": (3736, 534, 1068),
}

FILES = {  # what the disk is used for -> the files
    "samples": "samples-*.arrow",
    "manifest": "manifest.csv",
    "rejects": "rejected.csv",
    "meta": "meta.json",
    "vocabulary": "**/*vocab.txt",
    "splits": "splits/*.csv",
}


def stats(folder: Path) -> dict[str, Any]:
    """All figures, JSON-able. Raises `UsageError` for an unfinished or damaged folder.

    `classes`: name -> samples. `splits`: file's stem -> class -> part -> samples. `duration_s`:
    least, median and most seconds of the samples that have any. `disk`: kind -> bytes.
    """
    meta = read_meta(folder)
    if not meta.get("complete"):
        raise UsageError(f"{folder} is not a finished prepared folder: prepare it first")
    try:
        manifest = read_table(folder / "manifest.csv")
        label = {row["id"]: row["label_name"] for row in manifest}
        counts = Counter(label.values())
        times = sorted(t for t in (float(row["duration_s"]) for row in manifest) if t > 0)
        splits = sorted(p for p in (folder / "splits").glob("*") if SPLIT_NAME.fullmatch(p.name))
        return {
            "dataset": meta["dataset"],
            "spec_hash": meta["spec_hash"],
            "samples": len(manifest),
            "candidates": meta["candidates"],
            "paper": dict(zip(PARTS, TABLE_5.get(meta["dataset"], ()))),
            "classes": {name: counts[name] for name in meta["label_names"]},
            "splits": {path.stem: _by_class(path, label, meta["label_names"]) for path in splits},
            "duration_s": [times[0], median(times), times[-1]] if times else [],
            "rejects": dict(Counter(row["reason"] for row in read_table(folder / "rejected.csv"))),
            "flags": dict(Counter(f for r in manifest for f in r["flags"].split(";") if f)),
            "disk": {
                kind: sum(path.stat().st_size for path in folder.glob(pattern))
                for kind, pattern in FILES.items()
            },
        }
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{folder} has damaged tables ({type(error).__name__}: {error}): --verify tells more"
        ) from None


def _by_class(path: Path, label: dict[str, str], names: Sequence[str]) -> dict[str, dict]:
    """class -> part -> samples of one split's file."""
    counts = Counter((label[row["id"]], row["part"]) for row in read_table(path))
    return {name: {part: counts[name, part] for part in PARTS} for name in names}


# As text ------------------------------------------------------------------------------------------


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Lines of columns: the first to the left, the others to the right, two blanks between."""
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = (
        "  ".join(v.rjust(w) if k else v.ljust(w) for k, (v, w) in enumerate(zip(row, widths)))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def counts_text(found: dict[str, Any]) -> str:
    """Samples by class and part, one table a split; the paper's sizes in the last line."""
    tables = []
    paper = found["paper"]
    for split, classes in found["splits"].items():
        rows = [(split, "all", *PARTS)]
        rows += [(name, sum(c.values()), *(c[p] for p in PARTS)) for name, c in classes.items()]
        totals = [sum(c[part] for c in classes.values()) for part in PARTS]
        rows.append(("together", sum(totals), *totals))
        if paper:
            rows.append(("paper, Table 5", sum(paper.values()), *(paper[p] for p in PARTS)))
        tables.append(aligned(rows))
    if not tables:
        rows = [("no split", "all"), *found["classes"].items(), ("together", found["samples"])]
        rows += [("paper, Table 5", sum(paper.values()))] if paper else []
        tables.append(aligned(rows))
    return "\n\n".join(tables)


def text(found: dict[str, Any]) -> str:
    """All figures as aligned tables."""
    samples, disk = found["samples"], found["disk"]
    parts = [
        f"{found['dataset']} {found['spec_hash']}: {samples:,} samples of"
        f" {found['candidates']:,} candidates",
        counts_text(found),
    ]
    if found["duration_s"]:
        shown = [f"{seconds:.2f}" for seconds in found["duration_s"]]
        parts.append(aligned([("seconds", "least", "median", "most"), ("a sample", *shown)]))
    for what in ("rejects", "flags"):
        rows = sorted(found[what].items())
        parts.append(aligned([(what, "count"), *(rows or [("none", 0)])]))
    rows = [(kind, size, f"{size / max(1, samples):,.1f}") for kind, size in disk.items() if size]
    whole = sum(disk.values())
    rows.append(("together", whole, f"{whole / max(1, samples):,.1f}"))
    parts.append(aligned([("disk", "bytes", "a sample"), *rows]))
    return "\n\n".join(parts)
