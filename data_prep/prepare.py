"""A raw tree becomes a prepared folder: parallel, resumable, the same bytes whatever the workers.

    scan the root -> candidates -> extract each (a worker process) -> shards -> manifest, splits

`<data_dir>/<dataset>/<spec hash>/` gets samples-*.arrow, manifest.csv, rejected.csv, meta.json and
splits/. A shard appears under its name only when it is whole; a stopped preparation goes on with
the first missing one. `meta.json` says `"complete": true` last of all, and only then is it read.
"""

import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.files import file_digest, locked, remove_leftovers, shown, write_json
from common.options import UsageError, check
from common.program import cores
from data_prep import datasets
from data_prep.checksums import changed, note, read_local, remember
from data_prep.finish import finish, tell_split
from data_prep.pool import DONE
from data_prep.sample import make_pool, rejection
from data_prep.shards import SHARD_SIZE, ShardWriter, schema, shard_name
from data_prep.sources import check_same_candidates, prepare_command, source_of, stamp
from data_prep.spec import Candidate, Rejection, Scan, Spec, spec_hash, spec_json
from data_prep.store import read_meta

TOOLS = (
    "numpy",
    "torch",
    "torchaudio",
    "av",
    "opencv-contrib-python-headless",
    "soundfile",
    "pyarrow",
    "pillow",
    "tokenizers",
)


def prepared_folder(data_dir: Path, dataset: str, spec: Spec) -> Path:
    """Where the samples of this data set and spec stand."""
    return data_dir / dataset / spec_hash(dataset, spec)


def scan_root(
    layout: Any, dataset: str, root: Path, settings: Any, allow_missing_classes: bool = False
) -> Scan:
    """The candidates under `root`; raises `UsageError` for a root that is not this data set's.

    A class without a file is refused, or with `allow_missing_classes` left out of the set.
    """
    if not root.is_dir():
        raise UsageError(f"--dataset_root {root} is not a folder. {layout.SOURCE}")
    scan = with_printable_names(layout.scan(root, settings))
    if not scan.candidates:
        raise UsageError(f"no sample of {dataset} found under {root}{_why(scan)}. {layout.SOURCE}")
    present = {candidate.label for candidate in scan.candidates}
    missing = [name for label, name in enumerate(scan.label_names) if label not in present]
    if missing and not allow_missing_classes:
        count = f" (nor have {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise UsageError(
            f"class {missing[0][:80]!r} of {dataset} has no file under {root}{count}."
            f" {layout.SOURCE} To leave such classes out, prepare with --allow_missing_classes"
        )
    return without_classes(scan, missing)


def _why(scan: Scan) -> str:
    """What was found instead of samples: the counts by reason, and the first two of each."""
    told = []
    for reason, count in Counter(r.reason for r in scan.rejected).most_common():
        first = [r for r in scan.rejected if r.reason == reason][:2]
        where = "; ".join(
            shown(f"{r.source}: {r.detail}" if r.detail else r.source, 100) for r in first
        )
        told.append(f"{count} {reason} ({where})")
    return f": {', '.join(told)[:500]}" if told else ""


def raw_root(dataset: str, layout: Any, given: Path | None, data_dir: Path) -> Path:
    """The folder of the raw data: the one given, a manifest's own, or the demo's, which it writes.

    Raises `UsageError` where there is none.
    """
    if datasets.is_manifest(dataset):
        layout.anywhere = given is not None
        return given or layout.path.parent
    if given is None and datasets.public_name(dataset) == "demo":
        from data_prep.digits import ensure_digits

        return ensure_digits(data_dir)
    if given is None:
        raise UsageError(f"--dataset {dataset} needs --dataset_root <raw folder>. {layout.SOURCE}")
    return given


def without_classes(scan: Scan, missing: Sequence[str]) -> Scan:
    """The scan with classes fewer, and the others numbered anew."""
    if not missing:
        return scan
    names = tuple(name for name in scan.label_names if name not in missing)
    number = {scan.label_names.index(name): label for label, name in enumerate(names)}
    candidates = [replace(c, label=number[c.label]) for c in scan.candidates]
    warning = f"{len(missing)} of {len(scan.label_names)} classes have no file and are left out"
    warnings = [*scan.warnings, warning]
    return replace(scan, label_names=names, candidates=candidates, warnings=warnings)


def with_printable_names(scan: Scan) -> Scan:
    """Moves candidates with a name that is not UTF-8 to the rejects, bytes written as \\xff."""
    candidates, rejected = [], []
    for candidate in scan.candidates:
        paths = [path for paths in candidate.sources.values() for path in paths]
        if all(text == printable(text) for text in (candidate.id, candidate.group, *paths)):
            candidates.append(candidate)
        else:
            rejected.append(rejection(candidate, "unknown_name", "a name that is not UTF-8"))
    rejected = [
        Rejection(*map(printable, (r.id, r.source, r.reason, r.detail)))
        for r in scan.rejected + rejected
    ]
    warnings = list(map(printable, scan.warnings))
    return replace(scan, candidates=candidates, rejected=rejected, warnings=warnings)


def printable(text: str) -> str:
    """A file's name as valid Unicode: bytes that are not UTF-8 as \\xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def prepare(
    dataset: str,
    root: Path | None,
    data_dir: Path,
    settings: Any,
    *,
    workers: int | None = None,
    max_bad: float = 0.05,
    limit_s: float = 60.0,
    ray: str = "",
    allow_missing_classes: bool = False,
) -> Path:
    """Prepares a data set and returns its folder; of a finished one only damaged shards are made.

    `dataset` is a name, or the path of a manifest; for `root` None see `raw_root`. `workers`:
    processes, one a core when None; `limit_s`: the time that one sample may take; `ray`: a
    cluster's address, in place of `workers`;
    `allow_missing_classes`: a class without any file is left out of the set, and not refused.
    Raises `UsageError` for a root that is not this data set's or has changed since the preparation
    began, and `TooManyRejects`. Waits while another process prepares the same folder.
    """
    check(settings)
    layout, given, source = datasets.load(dataset), root, dataset
    root = raw_root(dataset, layout, given, data_dir)
    spec, dataset = layout.spec(settings), datasets.public_name(dataset)
    folder = prepared_folder(data_dir, dataset, spec)
    for modality in spec.values():
        modality.check()
    scan = scan_root(layout, dataset, root, settings, allow_missing_classes)
    for warning in scan.warnings:
        print(f"note: {warning}", file=sys.stderr)
    meta = _meta_of(dataset, spec, layout, scan)
    meta |= {**source_of(scan, root), "missing_classes": allow_missing_classes}
    command = prepare_command(source, given, data_dir, settings, allow_missing_classes)
    with locked(folder / ".lock", f"another process is preparing {folder}", wait=True):
        before = read_meta(folder)
        check_same_candidates(folder, before, meta, command)
        meta["shards"] = before.get("shards", {})
        shards = -(-len(scan.candidates) // SHARD_SIZE)
        for name in changed(folder, meta["shards"]):
            print(f"WARNING: {folder / name} is damaged, and made anew", file=sys.stderr)
            del meta["shards"][name]
        if not before.get("complete") or _missing(folder, shards, meta["shards"]):
            remove_leftovers(folder)
            _check_lfs(scan, root, max_bad)
            write_json(folder / "meta.json", meta)
            for modality in spec.values():
                modality.prepare_folder(folder, settings)
            pool = make_pool(root, spec, workers or cores(), limit_s, folder, ray)
            _write_shards(folder, dataset, spec, scan, pool, meta)
            count_filled = not getattr(settings, "allow_missing", False)
            finish(folder, scan, spec, meta, max_bad, count_filled)
        # Also of a finished folder: a kill may have come between the two.
        remember(folder, meta["shards"])
        where = {"root": str(root.resolve()), "named_root": given is not None}
        note(folder, stamp=stamp(root, scan.candidates), command=command, **where)
        tell_split(folder, getattr(layout, "SPLIT_RULE", "paper"))
    return folder


def _meta_of(dataset: str, spec: Spec, layout: Any, scan: Scan) -> dict[str, Any]:
    """What meta.json says before any sample is read, but for where the samples are from."""
    return {
        **spec_json(dataset, spec),
        "spec_hash": spec_hash(dataset, spec),
        "complete": False,
        "label_names": list(scan.label_names),
        "split_second": float(layout.SPLIT_SECOND),
        "release_cut": getattr(layout, "RELEASE_CUT", "test"),
        "shard_size": SHARD_SIZE,
        "tools": {"python": platform.python_version(), **{t: version(t) for t in TOOLS}},
    }


def source_in(dataset: str, root: Path | None, data_dir: Path, settings: Any) -> dict[str, Any]:
    """`source_of` the raw data under `root`; raises `UsageError` if that is not the set's root."""
    layout = datasets.load(dataset)
    place = raw_root(dataset, layout, root, data_dir)
    return source_of(scan_root(layout, dataset, place, settings, True), place)


def check_source(folder: Path, dataset: str, root: Path | None, settings: Any) -> None:
    """Holds a finished folder against the raw data that a run is given.

    Raises `UsageError`, with the command that prepares the set again, where the raw data are not
    those that it was made of.
    A manifest's files are looked for where they were, unless `root` says where.
    """
    layout, meta, local = datasets.load(dataset), read_meta(folder), read_local(folder)
    if root is None and local.get("named_root"):
        root = Path(local["root"])
    place = raw_root(dataset, layout, root, folder.parent.parent)
    missing, data_dir = bool(meta.get("missing_classes")), folder.parent.parent
    scan = scan_root(layout, dataset, place, settings, missing)
    now = stamp(place, scan.candidates)
    if local.get("stamp") == now:
        return
    command = prepare_command(dataset, root, data_dir, settings, missing)
    check_same_candidates(folder, meta, source_of(scan, place), command)
    note(folder, stamp=now)


def _check_lfs(scan: Scan, root: Path, max_bad: float) -> None:
    from data_prep.media import is_lfs_pointer

    def pointer(candidate: Candidate) -> bool:
        return any(is_lfs_pointer(root / p) for paths in candidate.sources.values() for p in paths)

    pointers = sum(map(pointer, scan.candidates))
    if pointers > max_bad * len(scan.candidates):
        raise UsageError(
            f"{pointers} of {len(scan.candidates)} samples under {root} are git-lfs pointers, not"
            " media files: run `git lfs pull` in that folder and start again"
        )


def _missing(folder: Path, shards: int, sums: dict[str, str]) -> list[int]:
    """The numbers of the shards that are still to be written, or whose checksum is not noted."""
    names = [shard_name(k) for k in range(shards)]
    return [k for k, n in enumerate(names) if n not in sums or not (folder / n).exists()]


def _write_shards(
    folder: Path, dataset: str, spec: Spec, scan: Scan, pool: Any, meta: dict
) -> None:
    """Writes the missing shards, and the checksum of each into meta.json once it is there."""
    runs = [scan.candidates[k : k + SHARD_SIZE] for k in range(0, len(scan.candidates), SHARD_SIZE)]
    missing = _missing(folder, len(runs), meta["shards"])
    columns = schema(dataset, spec)
    done = len(scan.candidates) - sum(len(runs[k]) for k in missing)
    bar = tqdm(total=len(scan.candidates), initial=done, desc=f"prepare {dataset}", unit="clip")
    with bar, pool:
        results = pool.map([candidate for k in missing for candidate in runs[k]])
        for k in missing:
            writer, rejected = ShardWriter(folder / shard_name(k), columns), []
            try:
                for candidate in runs[k]:
                    state, result = next(results)
                    if state != DONE:
                        result = rejection(candidate, "decoder_crash", result)
                    (rejected.append if isinstance(result, Rejection) else writer.append)(result)
                    bar.update()
            except BaseException:
                writer.abandon()
                raise
            writer.close(rejected)
            meta["shards"][shard_name(k)] = file_digest(folder / shard_name(k))
            write_json(folder / "meta.json", meta)
