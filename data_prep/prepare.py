"""Turns a raw folder into a prepared one: parallel, resumable, byte-identical for any workers.

    scan the root -> candidates -> extract each (a worker process) -> shards -> manifest, splits

`<data_dir>/<dataset>/<spec hash>/` gets samples-*.arrow, manifest.csv, rejected.csv, meta.json and
splits/. Shards appear once complete, and an interrupted preparation resumes at the first missing
one. `"complete": true` is written to `meta.json` last, and readers require it.
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
from data_prep.sources import (
    check_same_candidates,
    files_stamp,
    prepare_command,
    source_of,
    stamp,
)
from data_prep.spec import Candidate, Rejection, Scan, Spec, spec_hash, spec_json
from data_prep.store import Prepared, read_meta

TOOLS = (
    "numpy", "torch", "torchaudio", "av", "opencv-contrib-python-headless", "soundfile", "pyarrow",
    "pillow", "tokenizers",
)  # fmt: skip


def prepared_folder(data_dir: Path, dataset: str, spec: Spec) -> Path:
    """The folder of the prepared samples of a dataset and spec."""
    return data_dir / dataset / spec_hash(dataset, spec)


# The raw tree -------------------------------------------------------------------------------------


def raw_root(dataset: str, layout: Any, given: Path | None, data_dir: Path) -> Path:
    """The raw folder: the one given, the folder of a manifest, or the demo (generated if absent).

    Raises `UsageError` if there is none.
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
    """The candidates under `root`; raises `UsageError` if `root` does not contain this dataset.

    A class without files raises too, or is left out with `allow_missing_classes`.
    """
    if not root.is_dir():
        raise UsageError(f"--dataset_root {root} is not a folder. {layout.SOURCE}")
    scan = with_printable_names(layout.scan(root, settings))
    if not scan.candidates:
        raise UsageError(f"no samples of {dataset} found under {root}{_why(scan)}. {layout.SOURCE}")
    present = {candidate.label for candidate in scan.candidates}
    missing = [name for label, name in enumerate(scan.label_names) if label not in present]
    if not missing:
        return scan
    if not allow_missing_classes:
        count = f" (and {len(missing) - 1} more such classes)" if len(missing) > 1 else ""
        raise UsageError(
            f"class {missing[0][:80]!r} of {dataset} has no file under {root}{count}."
            f" {layout.SOURCE} To leave out such classes, add --allow_missing_classes"
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
    """What was found instead of samples: counts by reason, with two examples each."""
    found = []
    for reason, count in Counter(r.reason for r in scan.rejected).most_common():
        first = [r for r in scan.rejected if r.reason == reason][:2]
        texts = [f"{r.source}: {r.detail}" if r.detail else r.source for r in first]
        found.append(f"{count} {reason} ({'; '.join(shown(text, 100) for text in texts)})")
    return f": {', '.join(found)[:500]}" if found else ""


def with_printable_names(scan: Scan) -> Scan:
    """Moves candidates whose names are not UTF-8 to the rejects, with bytes written as \\xff."""
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
    """A file name as valid Unicode; bytes that are not UTF-8 become \\xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def source_in(dataset: str, root: Path | None, data_dir: Path, settings: Any) -> dict[str, Any]:
    """`source_of` the raw data under `root`; raises `UsageError` if the dataset is not there."""
    layout = datasets.load(dataset)
    place = raw_root(dataset, layout, root, data_dir)
    return source_of(scan_root(layout, dataset, place, settings, True), place)


def check_source(prepared: Prepared, dataset: str, root: Path | None, settings: Any) -> None:
    """Raises `UsageError` if the raw data changed since a finished folder was prepared from them.

    The message contains the command that prepares the dataset again. The files of a manifest are
    expected in their former root unless `root` is given. Its rows are read again only if a file
    changed or is missing; the manifest itself is unchanged, as its hash is in the folder's name.
    """
    folder, meta, layout = prepared.folder, prepared.meta, datasets.load(dataset)
    local = read_local(folder)
    if root is None and local.get("named_root"):
        root = Path(local["root"])
    missing, data_dir = bool(meta.get("missing_classes")), folder.parent.parent
    place = raw_root(dataset, layout, root, data_dir)
    own, files = datasets.is_manifest(dataset), ""
    if own and (files := files_stamp(place, folder, prepared.sources())) == local.get("files", "-"):
        return
    scan = scan_root(layout, dataset, place, settings, missing)
    now = stamp(place, scan.candidates)
    if local.get("stamp") != now:
        command = prepare_command(dataset, root, data_dir, settings, missing)
        check_same_candidates(folder, meta, source_of(scan, place), command)
    note(folder, stamp=now, **({"files": files} if files else {}))


# The preparation ----------------------------------------------------------------------------------


def constants(layout: Any) -> dict[str, Any]:
    """What meta.json notes of the dataset's module and of this program."""
    return {
        "split_second": float(layout.SPLIT_SECOND),
        "release_cut": getattr(layout, "RELEASE_CUT", "test"),
        "shard_size": SHARD_SIZE,
        "tools": {"python": platform.python_version(), **{t: version(t) for t in TOOLS}},
    }


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
    """Prepares a dataset and returns its folder; if finished, only redoes damaged shards.

    `dataset` is a name, or the path of a manifest; for `root=None` see `raw_root`. `workers`: None
    means one per core; `limit_s`: seconds per sample; `ray`: a cluster address, used instead of
    `workers`. Raises `UsageError` if the root does not contain this dataset or changed since the
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
    meta = spec_json(public, spec) | source_of(scan, place) | constants(layout)
    meta |= {"spec_hash": folder.name, "label_names": list(scan.label_names)}
    meta |= {"complete": False, "missing_classes": allow_missing_classes}
    command = prepare_command(dataset, root, data_dir, settings, allow_missing_classes)
    with locked(folder / ".lock", f"another process is preparing {folder}", wait=True):
        before = read_meta(folder)
        check_same_candidates(folder, before, meta, command)
        meta["shards"] = before.get("shards", {})
        for name in changed(folder, meta["shards"]):
            print(f"WARNING: {folder / name} is damaged; preparing it again", file=sys.stderr)
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
        # Needed for a finished folder too: an earlier run may have been killed before this line.
        remember(folder, meta["shards"])
        where = {"root": str(place.resolve()), "named_root": root is not None}
        note(folder, stamp=stamp(place, scan.candidates), command=command, **where)
        report_split(folder, getattr(layout, "SPLIT_RULE", "paper"))
    return folder


def _check_lfs(scan: Scan, root: Path, max_bad: float) -> None:
    """Raises `UsageError` if too many samples are git-lfs pointers."""
    from data_prep.media import is_lfs_pointer

    pointers = sum(
        any(is_lfs_pointer(root / path) for paths in c.sources.values() for path in paths)
        for c in scan.candidates
    )
    if pointers > max_bad * len(scan.candidates):
        raise UsageError(
            f"{pointers} of {len(scan.candidates)} samples under {root} are git-lfs pointers, not"
            " media files: run `git lfs pull` in that folder and prepare again"
        )


def _write_shards(
    folder: Path,
    spec: Spec,
    candidates: Sequence[Candidate],
    missing: Sequence[str],
    pool: Pool,
    meta: dict,
) -> None:
    """Writes the missing shards, and the checksum of each finished shard to meta.json."""
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
