"""Checks a prepared folder against itself and its spec. It reads everything and writes nothing.

    python -m data_prep --dataset cremad --verify

Every shard opens and holds its run of candidates; the hash of the spec is that of the folder's
name, of meta.json and of each shard; every stored value has its spec's shape and decodes; manifest,
rejects and counts are the shards' own; splits and pairs name each sample as their rule has it; a
vocabulary that was built is the one that its train part's texts give.
A finding is one line. The raw data is not needed, so what was lost before is not found here.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.files import digest
from common.options import UsageError
from data_prep.checksums import damaged
from data_prep.pool import DONE, Crew
from data_prep.shards import Shard, schema, shard_name
from data_prep.spec import VERSION, Array, Spec, Text, spec_from_json
from data_prep.store import VOCABULARY, read_meta
from data_prep.verify_tables import (
    check_counts,
    check_manifest,
    check_pool,
    check_rejected,
    check_splits,
    few,
    gather,
    one_line,
    read_csv,
)

LIMIT_S = 600.0  # for one shard of 256 samples, which takes some seconds
SPEC_KEYS = ("version", "dataset", "order", "modalities")
META_KEYS = (
    *SPEC_KEYS, "spec_hash", "complete", "label_names", "candidates", "candidates_hash",
    "split_second", "release_cut", "shard_size", "tools", "samples", "rejected", "per_class",
    "flags", "shards",
)  # fmt: skip


def verify(folder: Path, dataset: str, workers: int = 1) -> list[str]:
    """The findings about a prepared folder, one line each; none when all is well.

    `dataset` is the name it should bear. One worker means this very process; with more of them, a
    shard whose content crashes the reader costs its own samples alone.
    """
    try:
        meta = read_meta(folder)
    except (UsageError, OSError) as error:
        return [f"{folder.name}/meta.json cannot be read: {error}"]
    findings = check_meta(meta, dataset)
    if findings:  # nothing else can be judged without it
        return findings
    shards, findings = open_shards(folder, meta)
    spec, strange = sound_spec(folder, meta, shards)
    findings += strange
    if spec is None:
        return [*findings, "the samples are not checked: no spec has the hash of the folder's name"]
    unfit = check_columns(dataset, spec, shards)
    findings += few(unfit.values())
    readable = {name: shard for name, shard in shards.items() if name not in unfit}
    findings += check_samples(folder, dataset, spec, readable, workers)
    if len(readable) < -(-meta["candidates"] // meta["shard_size"]):
        return [*findings, "manifest, counts and splits are not checked: they need all shards"]
    found = gather(shards)
    findings += check_manifest(folder, found, meta["label_names"])
    findings += check_rejected(folder, found)
    findings += check_counts(found, meta)
    findings += check_pool(folder)
    findings += check_splits(folder / "splits", found, list(spec), meta)
    return findings + check_vocabularies(folder / "splits", spec, shards)


# meta.json and the shards -------------------------------------------------------------------------


def check_meta(meta: Any, dataset: str) -> list[str]:
    """Findings that leave nothing else to check."""
    if not isinstance(meta, dict) or not meta:
        return ["meta.json is missing or empty"]
    if not meta.get("complete"):
        return ["meta.json: the preparation is not finished: run it again, it goes on"]
    missing = [key for key in META_KEYS if key not in meta]
    if missing:
        return [f"meta.json lacks {', '.join(missing)}"]
    if meta["dataset"] != dataset:
        return [f"meta.json: the data set is {meta['dataset']!r}, the folder is one of {dataset!r}"]
    if meta["version"] != VERSION:
        return [f"meta.json: prepared by version {meta['version']!r}, this is {VERSION}"]
    if not isinstance(meta["shards"], dict):
        return ["meta.json: shards is no object"]
    counts = [meta[key] for key in ("candidates", "shard_size", "samples", "rejected")]
    natural = all(isinstance(count, int) and count >= 0 for count in counts)
    if not natural or not counts[1] or counts[0] != counts[2] + counts[3]:
        return [f"meta.json: candidates, shard_size, samples and rejected are {counts}"]
    names, second = meta["label_names"], meta["split_second"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ["meta.json: label_names is no list of names"]
    if not isinstance(second, float) or not 0 < second < 1:
        return [f"meta.json: split_second is {second!r}, not between 0 and 1"]
    if meta["release_cut"] not in ("train", "test"):
        return [f"meta.json: release_cut is {meta['release_cut']!r}, not train or test"]
    return []


def open_shards(folder: Path, meta: dict) -> tuple[dict[str, Shard], list[str]]:
    """The shards that open, by name, and what is wrong with the others or with their number."""
    total, size, shards, findings = meta["candidates"], meta["shard_size"], {}, []
    names = [shard_name(k) for k in range(-(-total // size))]
    wrong = damaged(folder, {n: s for n, s in meta["shards"].items() if n in names})
    for k, name in enumerate(names):
        if not (folder / name).exists():
            findings.append(f"{name}: missing")
            continue
        if name in wrong:
            findings.append(f"{name}: changed since it was prepared: its SHA-256 is another")
        elif name not in meta["shards"]:
            findings.append(f"{name}: meta.json has no SHA-256 of it")
        try:
            shard = Shard(folder / name)
        except UsageError as error:
            findings.append(f"{name}: does not open: {one_line(error)}")
            continue
        shards[name] = shard
        here, run = len(shard) + len(shard.rejected), min(size, total - k * size)
        if here != run:
            findings.append(f"{name}: {here} samples and rejects instead of {run} candidates")
    more = sorted({path.name for path in folder.glob("samples-*.arrow")} - set(names))
    findings += [f"{name}: no shard of this set bears that name" for name in more]
    return shards, few(findings)


def sound_spec(folder: Path, meta: dict, shards: dict[str, Shard]) -> tuple[Spec | None, list[str]]:
    """The spec whose hash is the folder's name, and who else says something different."""
    told = {"meta.json": {key: meta[key] for key in SPEC_KEYS}}
    told |= {name: shard.spec for name, shard in shards.items()}
    findings, sound = [], None
    if meta["spec_hash"] != folder.name:
        findings.append(f"meta.json: spec_hash {meta['spec_hash']!r} in the folder {folder.name}")
    for name, value in told.items():
        seen = digest(value)
        if seen != folder.name:
            findings.append(f"{name}: its spec has the hash {seen}, the folder is {folder.name}")
        elif sound is None:
            try:
                sound = spec_from_json(value)
            except (KeyError, TypeError) as error:
                findings.append(f"{name}: its spec is none that this version reads: {error!r}")
    return sound, few(findings)


def check_columns(dataset: str, spec: Spec, shards: dict[str, Shard]) -> dict[str, str]:
    """A finding for each shard that has not the columns of the spec, or lacks a value in one."""
    columns, findings = schema(dataset, spec), {}
    for name, shard in shards.items():
        for batch in shard.batches:
            if not batch.schema.equals(columns):
                findings[name] = f"{name}: its columns are not those of the spec"
                continue
            empty = [c for c in columns.names if batch.column(c).null_count]
            if empty:
                findings[name] = f"{name}: values are missing in {', '.join(empty)}"
    return findings


# Stored values ------------------------------------------------------------------------------------


def check_shard(folder: Path, spec: Spec, name: str) -> tuple[list[str], dict[str, list[int]]]:
    """Findings about all values of a shard, and the widths of its arrays. Runs in a worker."""
    from data_prep.modalities.stored import fault

    shard, findings, widths = Shard(folder / name), [], {}
    tokens = any(isinstance(m, Text) and not m.built for m in spec.values())
    words = len(vocabulary(folder)) if tokens else 0
    for row, sample in enumerate(shard.column("id")):
        for m, modality in spec.items():
            value = shard.value(row, m)
            wrong = fault(value, modality, words)
            if wrong:
                findings.append(f"{name}: {m} of {sample!r}: {wrong}")
            elif isinstance(modality, Array):
                width = int.from_bytes(bytes(value[0])[4:], "little")
                widths[m] = sorted({*widths.get(m, []), width})
    return findings, widths


def vocabulary(folder: Path) -> list[str]:
    """The lines of vocab.txt, none where it cannot be read."""
    try:
        # Not splitlines(): a token may hold other characters that count as line ends there.
        return (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError):
        return []


def _one_thread() -> None:
    """The workers are the parallelism: one core each."""
    import cv2

    cv2.setNumThreads(0)


def check_samples(
    folder: Path, dataset: str, spec: Spec, shards: dict[str, Shard], workers: int
) -> list[str]:
    """Findings about every stored value, in the order of the samples."""
    findings, widths, names = [], {}, list(shards)
    for m, modality in spec.items():
        if isinstance(modality, Text) and not modality.built:
            lines = len(vocabulary(folder))
            if not 0 < lines <= modality.words:
                findings.append(f"vocab.txt: {lines} lines, the spec of {m} has {modality.words}")
    work = functools.partial(check_shard, folder, spec)
    total = sum(map(len, shards.values()))
    with tqdm(total=total, desc=f"verify {dataset}", unit="sample") as bar:
        for name, (state, result) in zip(names, _apply(work, names, workers)):
            bar.update(len(shards[name]))
            if state != DONE:
                findings.append(f"{name}: the reader crashed: {result}")
                continue
            findings += result[0]
            for m, seen in result[1].items():
                widths[m] = {*widths.get(m, ()), *seen}
    several = {m: sorted(seen) for m, seen in widths.items() if len(seen) > 1}
    return few(findings) + [f"{m}: vectors of the widths {w}" for m, w in several.items()]


def _apply(work: Any, names: list[str], workers: int) -> Iterable[tuple[str, Any]]:
    """(DONE, result) or a crash of each name, in order."""
    if workers <= 1:
        for name in names:
            yield DONE, work(name)
        return
    with Crew(work, workers, LIMIT_S, _one_thread, preload=["data_prep.modalities.stored"]) as crew:
        yield from crew.map(names)


# The vocabularies of splits -----------------------------------------------------------------------


def check_vocabularies(folder: Path, spec: Spec, shards: dict[str, Shard]) -> list[str]:
    """Each vocabulary of splits/, made again from the stored texts of its split's train part."""
    from data_prep.modalities.text import build_vocabulary

    texts = {m: kind for m, kind in spec.items() if isinstance(kind, Text) and kind.built}
    findings = []
    for path in sorted(folder.glob(f"*{VOCABULARY}")):
        split = path.with_name(path.name.removesuffix(VOCABULARY) + ".csv")
        rows, unread = read_csv(split, ("id", "part"))
        if unread:  # told of the split already
            continue
        train = {sample for sample, part in rows if part == "train"}
        for m, kind in texts.items():
            try:
                due = build_vocabulary(_texts_of(shards, m, train), kind.words)
            except UnicodeDecodeError:  # told of the sample already
                continue
            if not path.is_file() or path.read_bytes() != due:
                findings.append(f"{path.name}: not what the texts of the train part give")
        if not texts:
            findings.append(f"splits/{path.name}: no vocabulary is built of these samples")
    return findings


def _texts_of(shards: dict[str, Shard], modality: str, samples: set[str]) -> Iterable[str]:
    for shard in shards.values():
        for row, sample in enumerate(shard.column("id")):
            if sample in samples:
                yield from (bytes(text).decode() for text in shard.value(row, modality))
