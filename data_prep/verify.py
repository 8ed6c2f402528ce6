"""Checks a prepared folder against its own checksums. It reads everything and writes nothing.

    python -m data_prep --dataset cremad --verify

The settings have the hash that the folder is named by; every shard and table, and what follows from
a split, has the SHA-256 that was noted when it was written; every shard opens; every split is the
one that its rule draws. A finding is one line. The raw data are not needed, so what was lost before
is not found here.
"""

from pathlib import Path

from common.files import csv_text, digest, file_digest, read_object
from common.options import UsageError
from data_prep.checksums import digests
from data_prep.shards import SHARD
from data_prep.spec import VERSION, spec_json
from data_prep.store import CHECKSUMS, Prepared, read_meta

MOST = 5  # findings of one kind that are spelled out


def verify(folder: Path, dataset: str, workers: int | None = None) -> list[str]:
    """The findings about a prepared folder, one line each; none when all is well.

    `dataset` is the name it should bear; `workers`: files that are read at the same time.
    """
    try:
        meta = read_meta(folder)
    except (UsageError, OSError) as error:
        return [one_line(error)]
    if not meta.get("complete"):
        return ["meta.json: the preparation is not finished: run it again, it goes on"]
    if meta.get("version") != VERSION:
        return [f"meta.json: prepared by version {meta.get('version')!r}, this is {VERSION}"]
    if meta.get("dataset") != dataset:
        return [f"meta.json: the data set is {meta.get('dataset')!r} in a folder of {dataset!r}"]
    sums = meta.get("shards"), meta.get("tables")
    if not all(isinstance(of_files, dict) for of_files in sums):
        return ["meta.json: it holds no checksums of shards and tables"]
    findings = [f for s in sums for f in few(_check_files(folder, s, workers))]
    strangers = {p.name for p in folder.glob("*.arrow") if SHARD.fullmatch(p.name)} - set(sums[0])
    findings += few([f"{name}: not a shard of this set" for name in sorted(strangers)])
    try:
        prepared = Prepared(folder, check=False)
    except UsageError as error:
        return [*findings, one_line(error)]
    found = digest(spec_json(dataset, prepared.spec))
    if not found == folder.name == meta["spec_hash"]:
        findings.append(f"meta.json: its settings have the hash {found}, not {folder.name}")
    others = [s.path.name for s in prepared.shards if digest(s.spec) != found]
    findings += few([f"{name}: prepared with other settings" for name in others])
    return findings + check_splits(prepared)


def _check_files(folder: Path, sums: dict[str, str], workers: int | None) -> list[str]:
    """The files of `sums` that are not there, or have another SHA-256."""
    there = digests((folder / n for n in sums if (folder / n).is_file()), workers)
    missing = [f"{name}: missing" for name in sums if name not in there]
    return missing + [
        f"{name}: changed since it was written: its SHA-256 is another"
        for name, found in there.items()
        if found != sums[name]
    ]


def check_splits(prepared: Prepared) -> list[str]:
    """All files of splits/: whole, as their rule draws them, and unchanged."""
    home, findings = prepared.folder / "splits", []
    splits = prepared.splits()
    for path, how in splits.items():
        try:
            prepared.split(*how)
            if path.read_text(encoding="utf-8") != csv_text(("id", "part"), prepared.draw(*how)):
                findings.append(f"splits/{path.name}: not what its rule draws")
        except (UsageError, OSError, UnicodeDecodeError) as error:
            findings.append(one_line(error))
    try:
        noted = read_object(home / CHECKSUMS) if (home / CHECKSUMS).exists() else {}
    except UsageError as error:
        return [*findings, one_line(error)]
    changed = [n for n, s in noted.items() if (home / n).is_file() and file_digest(home / n) != s]
    findings += few([f"splits/{name}: changed since it was written" for name in sorted(changed)])
    known = {path.name for path in splits} | set(noted)
    others = {p.name for p in home.glob("*") if not p.name.startswith(".")} - known
    return findings + few([f"splits/{n}: nothing of this set" for n in sorted(others)])


def few(lines: list[str]) -> list[str]:
    """The first of many findings of one kind, and how many more there are."""
    more = len(lines) - MOST
    return [*lines[:MOST], f"{more} more findings of this kind"] if more > 0 else lines


def one_line(error: Exception) -> str:
    """An error's text without line ends."""
    return " ".join(str(error).split())
