"""Verifies a prepared folder against its own checksums. Reads everything and writes nothing.

    python -m data_prep --dataset cremad --verify

Checks that the settings match the hash in the folder's name; that shards, tables and files derived
from splits have the SHA-256 recorded when they were written; that all shards open; and that each
split is what its rule draws. It does not need the raw data, so it cannot find errors in them.
"""

from pathlib import Path

from common.files import csv_text, digest, file_digest, read_object
from common.options import UsageError
from data_prep.checksums import digests
from data_prep.shards import SHARD
from data_prep.spec import VERSION, spec_json
from data_prep.store import CHECKSUMS, Prepared, read_meta

MOST = 5  # findings listed per kind


def verify(folder: Path, dataset: str, workers: int | None = None) -> list[str]:
    """Returns the problems found in a prepared folder, one line each; empty if there are none.

    `dataset` is the expected name; `workers`: the number of files read in parallel.
    """
    try:
        meta = read_meta(folder)
    except (UsageError, OSError) as error:
        return [_one_line(error)]
    if not meta.get("complete"):
        return ["meta.json: the preparation is not finished: run it again to resume"]
    if meta.get("version") != VERSION:
        return [f"meta.json: prepared by version {meta.get('version')!r}, not {VERSION}"]
    if meta.get("dataset") != dataset:
        return [f"meta.json: the dataset is {meta.get('dataset')!r} in a folder of {dataset!r}"]
    kinds, findings = [meta.get("shards"), meta.get("tables")], []
    if not all(isinstance(sums, dict) for sums in kinds):
        return ["meta.json: the checksums of shards and tables are missing"]
    for sums in kinds:
        found = digests((folder / n for n in sums if (folder / n).is_file()), workers)
        lines = [f"{name}: missing" for name in sums if name not in found]
        changed = [name for name, seen in found.items() if seen != sums[name]]
        lines += [f"{n}: changed since it was written: its SHA-256 differs" for n in changed]
        findings += few(lines)
    others = {p.name for p in folder.glob("*.arrow") if SHARD.fullmatch(p.name)} - set(kinds[0])
    findings += few([f"{name}: not a shard of this dataset" for name in sorted(others)])
    try:
        prepared = Prepared(folder, check=False)
    except UsageError as error:
        return [*findings, _one_line(error)]
    own = digest(spec_json(dataset, prepared.spec))
    if not own == folder.name == meta["spec_hash"]:
        findings.append(f"meta.json: the hash of its settings is {own}, not {folder.name}")
    unlike = [shard.path.name for shard in prepared.shards if digest(shard.spec) != own]
    findings += few([f"{name}: prepared with other settings" for name in unlike])
    return findings + _check_splits(prepared)


def _check_splits(prepared: Prepared) -> list[str]:
    """Checks that the files of splits/ are complete, unchanged, and match their rule."""
    home, findings = prepared.folder / "splits", []
    splits = prepared.splits()
    for path, how in splits.items():
        try:
            prepared.split(*how)
            if path.read_text(encoding="utf-8") != csv_text(("id", "part"), prepared.draw(how)):
                findings.append(f"splits/{path.name}: not what its rule draws")
        except (UsageError, OSError, UnicodeDecodeError) as error:
            findings.append(_one_line(error))
    try:
        noted = read_object(home / CHECKSUMS) if (home / CHECKSUMS).exists() else {}
    except UsageError as error:
        return [*findings, _one_line(error)]
    changed = [n for n, s in noted.items() if (home / n).is_file() and file_digest(home / n) != s]
    findings += few([f"splits/{name}: changed since it was written" for name in sorted(changed)])
    known = {path.name for path in splits} | set(noted)
    others = {p.name for p in home.glob("*") if not p.name.startswith(".")} - known
    return findings + few([f"splits/{name}: not a file of this dataset" for name in sorted(others)])


def few(lines: list[str]) -> list[str]:
    """The first `MOST` findings of one kind, and the number of others."""
    more = len(lines) - MOST
    return [*lines[:MOST], f"{more} more findings of this kind"] if more > 0 else lines


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
