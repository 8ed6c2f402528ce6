"""A raw tree becomes a prepared folder: parallel, resumable, the same bytes whatever the workers.

    scan the root -> candidates -> extract each (a worker process) -> shards -> manifest, splits

`<data_dir>/<dataset>/<spec hash>/` gets samples-*.arrow, manifest.csv, rejected.csv, meta.json and
splits/. A shard gets its name only when it is whole; a stopped preparation goes on with the first
missing one. `meta.json` says `"complete": true` last of all, and only then is it read.
"""

import platform
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
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
from data_prep.finish import finish, report_split
from data_prep.pool import DONE, Pool
from data_prep.sample import make_pool, rejection
from data_prep.shards import SHARD_SIZE, schema, shard_name, write_shard
from data_prep.sources import check_same_candidates, prepare_command, source_of, stamp
from data_prep.spec import Candidate, Rejection, Scan, Spec, spec_hash, spec_json
from data_prep.store import read_meta

TOOLS = (
    "numpy", "torch", "torchaudio", "av", "opencv-contrib-python-headless", "soundfile", "pyarrow",
    "pillow", "tokenizers",
)  # fmt: skip


def prepared_folder(data_dir: Path, dataset: str, spec: Spec) -> Path:
    """The folder of the prepared samples of a data set and spec."""
    return data_dir / dataset / spec_hash(dataset, spec)


# The raw tree -------------------------------------------------------------------------------------


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
    if not missing:
        return scan
    if not allow_missing_classes:
        count = f" (nor have {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise UsageError(
            f"class {missing[0][:80]!r} of {dataset} has no file under {root}{count}."
            f" {layout.SOURCE} To leave such classes out, prepare with --allow_missing_classes"
        )
    number = {label: k for k, label in enumerate(sorted(present))}
    warning = f"{len(missing)} of {len(scan.label_names)} classes have no file and are left out"
    return replace(
        scan,
        label_names=tuple(scan.label_names[label] for label in number),
        candidates=[replace(c, label=number[c.label]) for c in scan.candidates],
        warnings=[*scan.warnings, warning],
    )


def _why(scan: Scan) -> str:
    """What was found instead of samples: the counts by reason, and the first two of each."""
    found = []
    for reason, count in Counter(r.reason for r in scan.rejected).most_common():
        first = [r for r in scan.rejected if r.reason == reason][:2]
        texts = [f"{r.source}: {r.detail}" if r.detail else r.source for r in first]
        found.append(f"{count} {reason} ({'; '.join(shown(text, 100) for text in texts)})")
    return f": {', '.join(found)[:500]}" if found else ""


def with_printable_names(scan: Scan) -> Scan:
    """Moves candidates with a name that is not UTF-8 to the rejects, bytes written as \\xff."""
    candidates, rejected = [], list(scan.rejected)
    for candidate in scan.candidates:
        paths = [path for paths in candidate.sources.values() for path in paths]
        try:
            "".join((candidate.id, candidate.group, *paths)).encode()
            candidates.append(candidate)
        except UnicodeEncodeError:
            rejected.append(rejection(candidate, "unknown_name", "a name that is not UTF-8"))
    rejected = [Rejection(*map(printable, vars(line).values())) for line in rejected]
    warnings = list(map(printable, scan.warnings))
    return replace(scan, candidates=candidates, rejected=rejected, warnings=warnings)


def printable(text: str) -> str:
    """A file's name as valid Unicode: bytes that are not UTF-8 as \\xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def source_in(dataset: str, root: Path | None, data_dir: Path, settings: Any) -> dict[str, Any]:
    """`source_of` the raw data under `root`; raises `UsageError` if that is not the set's root."""
    layout = datasets.load(dataset)
    place = raw_root(dataset, layout, root, data_dir)
    return source_of(scan_root(layout, dataset, place, settings, True), place)


def check_source(folder: Path, dataset: str, root: Path | None, settings: Any) -> None:
    """Raises `UsageError` where the raw data are not those that a finished folder was made from.

    The error has the command that prepares the set again. A manifest's files are looked for where
    they were, unless `root` says where.
    """
    layout, meta, local = datasets.load(dataset), read_meta(folder), read_local(folder)
    if root is None and local.get("named_root"):
        root = Path(local["root"])
    missing, data_dir = bool(meta.get("missing_classes")), folder.parent.parent
    place = raw_root(dataset, layout, root, data_dir)
    scan = scan_root(layout, dataset, place, settings, missing)
    now = stamp(place, scan.candidates)
    if local.get("stamp") == now:
        return
    command = prepare_command(dataset, root, data_dir, settings, missing)
    check_same_candidates(folder, meta, source_of(scan, place), command)
    note(folder, stamp=now)


# The preparation ----------------------------------------------------------------------------------


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
    """Prepares a data set and returns its folder; in a finished one only damaged shards are redone.

    `dataset` is a name, or the path of a manifest; for `root` None see `raw_root`. `workers`: one a
    core when None; `limit_s`: seconds for one sample; `ray`: a cluster's address, in place of
    `workers`. Raises `UsageError` for a root that is not this data set's or has changed since the
    preparation began, and `TooManyRejects`. Waits while another process prepares the folder.
    """
    check(settings)
    layout, public = datasets.load(dataset), datasets.public_name(dataset)
    place = raw_root(dataset, layout, root, data_dir)
    spec = layout.spec(settings)
    folder = prepared_folder(data_dir, public, spec)
    for modality in spec.values():
        modality.check()
    scan = scan_root(layout, public, place, settings, allow_missing_classes)
    for warning in scan.warnings:
        print(f"note: {warning}", file=sys.stderr)
    meta = {
        **spec_json(public, spec),
        "spec_hash": folder.name,
        "complete": False,
        "label_names": list(scan.label_names),
        "split_second": float(layout.SPLIT_SECOND),
        "release_cut": getattr(layout, "RELEASE_CUT", "test"),
        "shard_size": SHARD_SIZE,
        "tools": {"python": platform.python_version(), **{t: version(t) for t in TOOLS}},
        **source_of(scan, place),
        "missing_classes": allow_missing_classes,
    }
    command = prepare_command(dataset, root, data_dir, settings, allow_missing_classes)
    with locked(folder / ".lock", f"another process is preparing {folder}", wait=True):
        before = read_meta(folder)
        check_same_candidates(folder, before, meta, command)
        meta["shards"] = before.get("shards", {})
        for name in changed(folder, meta["shards"]):
            print(f"WARNING: {folder / name} is damaged and is made again", file=sys.stderr)
            del meta["shards"][name]
        names = [shard_name(k) for k in range(-(-len(scan.candidates) // SHARD_SIZE))]
        missing = [n for n in names if n not in meta["shards"] or not (folder / n).exists()]
        if missing or not before.get("complete"):
            remove_leftovers(folder)
            _check_lfs(scan, place, max_bad)
            write_json(folder / "meta.json", meta)
            for modality in spec.values():
                modality.prepare_folder(folder, settings)
            pool = make_pool(place, spec, workers or cores(), limit_s, folder, ray)
            _write_shards(folder, spec, scan.candidates, missing, pool, meta)
            count_filled = not getattr(settings, "allow_missing", False)
            finish(folder, scan, spec, meta, max_bad, count_filled)
        # Of a finished folder too: a kill may have come between the two.
        remember(folder, meta["shards"])
        where = {"root": str(place.resolve()), "named_root": root is not None}
        note(folder, stamp=stamp(place, scan.candidates), command=command, **where)
        report_split(folder, getattr(layout, "SPLIT_RULE", "paper"))
    return folder


def _check_lfs(scan: Scan, root: Path, max_bad: float) -> None:
    """Raises `UsageError` where too many samples are git-lfs pointers."""
    from data_prep.media import is_lfs_pointer

    pointers = sum(
        any(is_lfs_pointer(root / path) for paths in c.sources.values() for path in paths)
        for c in scan.candidates
    )
    if pointers > max_bad * len(scan.candidates):
        raise UsageError(
            f"{pointers} of {len(scan.candidates)} samples under {root} are git-lfs pointers, not"
            " media files: run `git lfs pull` in that folder and start again"
        )


def _write_shards(
    folder: Path,
    spec: Spec,
    candidates: Sequence[Candidate],
    missing: Sequence[str],
    pool: Pool,
    meta: dict,
) -> None:
    """Writes the missing shards, and each one's checksum into meta.json once it is there."""
    parts = range(0, len(candidates), SHARD_SIZE)
    runs = {shard_name(k): candidates[n : n + SHARD_SIZE] for k, n in enumerate(parts)}
    todo = [candidate for name in missing for candidate in runs[name]]
    bar = tqdm(
        total=len(candidates), initial=len(candidates) - len(todo),
        desc=f"prepare {meta['dataset']}", unit="clip",
    )  # fmt: skip
    with bar, pool:
        answers = pool.map(todo)

        def results(run: Sequence[Candidate]) -> Iterator[dict[str, Any] | Rejection]:
            for candidate in run:
                state, result = next(answers)
                yield result if state == DONE else rejection(candidate, "decoder_crash", result)
                bar.update()

        for name in missing:
            write_shard(folder / name, schema(meta["dataset"], spec), results(runs[name]))
            meta["shards"][name] = file_digest(folder / name)
            write_json(folder / "meta.json", meta)
