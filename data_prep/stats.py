"""Statistics of a prepared folder, read from its tables and shown next to the paper's.

    python -m data_prep --dataset cremad --stats

Reports samples by class and part of each split drawn so far, durations, rejects by reason, flags,
and disk usage. It opens no shards and writes nothing; `verify` checks whether the tables are right.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common.files import read_table
from common.options import UsageError
from data_prep.split import PARTS, Split
from data_prep.store import read_meta

# Train, validation and test samples: the paper's Table 5. `split.paper_counts` gives five of the
# rows; CMU-MOSI has the official split, and we know no rule that gives the row for Sarcasm.
TABLE_5 = {
    "kinetics": (16890, 2461, 4778), "cremad": (5209, 744, 1489), "ucf101": (9159, 1308, 2618),
    "food101": (63481, 9069, 18138), "mosi": (1284, 229, 686), "sarcasm": (17316, 2463, 4936),
    "twitter2015": (3736, 534, 1068),
}  # fmt: skip
FILES = {  # kind -> file pattern, for disk usage
    "samples": "samples-*.arrow", "manifest": "manifest.csv", "rejects": "rejected.csv",
    "meta": "meta.json", "vocabulary": "**/*vocab.txt", "splits": "splits/*.csv",
}  # fmt: skip


def stats(folder: Path) -> dict[str, Any]:
    """All statistics, JSON-serializable. Raises `UsageError` for an unfinished or damaged folder.

    `classes`: name -> samples. `splits`: file stem -> class -> part -> samples. `duration_s`:
    minimum, median and maximum seconds of samples with a duration. `disk`: kind -> bytes.
    """
    meta = read_meta(folder)
    if not meta.get("complete"):
        raise UsageError(f"{folder} is not a finished prepared folder: prepare it first")
    try:
        manifest, names, splits = read_table(folder / "manifest.csv"), meta["label_names"], {}
        paper = TABLE_5.get(meta["dataset"], ()) if "classes" not in meta else ()
        label = {row["id"]: row["label_name"] for row in manifest}
        counts = Counter(label.values())
        times = sorted(t for t in (float(row["duration_s"]) for row in manifest) if t > 0)
        for path in sorted((folder / "splits").glob("*.csv")):
            if Split.of_file(path.name):
                found = Counter((label[row["id"]], row["part"]) for row in read_table(path))
                splits[path.stem] = {n: {part: found[n, part] for part in PARTS} for n in names}
        return {
            "dataset": meta["dataset"],
            "spec_hash": meta["spec_hash"],
            "samples": len(manifest),
            "candidates": meta["candidates"],
            "paper": dict(zip(PARTS, paper)),
            "classes": {name: counts[name] for name in names},
            "splits": splits,
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
            f"{folder} has damaged tables ({type(error).__name__}: {error}): run --verify"
        ) from None


# As text ------------------------------------------------------------------------------------------

Rows = Sequence[Sequence[Any]]


def _aligned(rows: Rows) -> str:
    """Columns separated by two spaces, the first left-aligned, the others right-aligned."""
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = (
        "  ".join(v.rjust(w) if k else v.ljust(w) for k, (v, w) in enumerate(zip(row, widths)))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def counts_text(found: dict[str, Any]) -> str:
    """Samples by class and part, one table per split; the last line has the paper's sizes."""
    paper, tables = found["paper"], []
    unsplit: dict[str, dict] = {
        "no split": {name: {"all": n} for name, n in found["classes"].items()}
    }
    for split, classes in (found["splits"] or unsplit).items():
        parts = PARTS if found["splits"] else ()
        counts = {n: (sum(own.values()), *(own[p] for p in parts)) for n, own in classes.items()}
        rows: list[tuple] = [(split, "all", *parts)]
        rows += [(name, *numbers) for name, numbers in counts.items()]
        rows.append(("together", *map(sum, zip(*counts.values()))))
        if paper:
            rows.append(("paper, Table 5", sum(paper.values()), *(paper[p] for p in parts)))
        tables.append(_aligned(rows))
    return "\n\n".join(tables)


def text(found: dict[str, Any]) -> str:
    """All statistics as aligned tables."""
    samples, disk = found["samples"], found["disk"]
    tables = [
        f"{found['dataset']} {found['spec_hash']}: {samples:,} samples of"
        f" {found['candidates']:,} candidates",
        counts_text(found),
    ]
    if found["duration_s"]:
        seconds = [f"{seconds:.2f}" for seconds in found["duration_s"]]
        tables.append(_aligned([("seconds", "least", "median", "most"), ("a sample", *seconds)]))
    for what in ("rejects", "flags"):
        counts = sorted(found[what].items()) or [("none", 0)]
        tables.append(_aligned([(what, "count"), *counts]))
    sizes = {kind: size for kind, size in disk.items() if size} | {"together": sum(disk.values())}
    rows = [(kind, size, f"{size / max(1, samples):,.1f}") for kind, size in sizes.items()]
    tables.append(_aligned([("disk", "bytes", "a sample"), *rows]))
    return "\n\n".join(tables)
