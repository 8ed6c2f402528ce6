"""A raw tree becomes a prepared folder: parallel, resumable, the same bytes whatever the workers.

    scan the root -> candidates -> extract each (a worker process) -> shards -> manifest, splits

`<data_dir>/<dataset>/<spec hash>/` gets samples-*.arrow, manifest.csv, rejected.csv, meta.json and
splits/. A shard appears under its name only when it is whole; a stopped preparation goes on with
the first missing one. `meta.json` says `"complete": true` last of all, and only then is it read.
"""

import functools
import platform
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.files import digest, locked, remove_leftovers, write_json, write_table
from common.options import UsageError, check
from common.program import cores
from data_prep import layouts
from data_prep.prepared import Prepared, read_meta
from data_prep.reasons import KEPT_REASONS, REASONS
from data_prep.shards import SHARD_SIZE, Shard, ShardWriter, schema, shard_name
from data_prep.spec import Audio, Candidate, Rejection, Scan, Spec, Text, spec_hash, spec_json
from data_prep.workers import DONE, Crew

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


# Between the paths of one sample: a space occurs inside them.
SEPARATOR = ";"


class TooManyRejects(UsageError):
    """More than --max_bad of the candidates were rejected: the set is not marked complete."""

    exit_status = 3


def prepared_folder(data_dir: Path, dataset: str, spec: Spec) -> Path:
    """Where the samples of this data set and spec stand."""
    return data_dir / dataset / spec_hash(dataset, spec)


def extract_row(
    root: Path, spec: Spec, assets: Path | None, candidate: Candidate
) -> dict[str, Any] | Rejection:
    """The stored row of one candidate, or why there is none. Runs in a worker process."""
    from data_prep.extracted import extract_sample
    from data_prep.reasons import Reject
    from data_prep.transforms import frame_bytes

    try:
        parts = extract_sample(root, candidate, spec, assets)
    except Reject as reject:
        sources = sorted({path for paths in candidate.sources.values() for path in paths})
        return Rejection(candidate.id, SEPARATOR.join(sources), reject.reason, reject.detail)
    row = {
        "id": candidate.id,
        "label": candidate.label,
        "group": candidate.group,
        "part": candidate.part,
        "sources": SEPARATOR.join(paths[0] for paths in candidate.sources.values()),
        "duration_s": round(max(p.duration_s for p in parts.values()), 3),
        "n_frames": max(
            (parts[m].n_frames for m in parts if not isinstance(spec[m], Audio)), default=0
        ),
        "flags": ";".join(sorted({flag for part in parts.values() for flag in part.flags})),
    }
    for name, part in parts.items():
        row[name] = part.payload if isinstance(part.payload, list) else part.payload.tobytes()
        if isinstance(part.payload, list):
            row[name] = [
                f if isinstance(f, bytes) else frame_bytes(f, spec[name]) for f in part.payload
            ]
    return row


def single_threaded() -> None:
    """Runs once in each worker: one clip, one core; the workers are the parallelism."""
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def make_crew(
    root: Path, spec: Spec, workers: int, limit_s: float, assets: Path, ray: str = ""
) -> Any:
    """What turns candidates into rows: supervised processes here, or a Ray cluster's.

    `assets` holds a text's vocab.txt, `ray` is a cluster's address.
    """
    work = functools.partial(extract_row, root, spec, assets)
    if ray:
        from data_prep.cluster import RayCrew

        work = functools.partial(extract_row, root.resolve(), spec, assets.resolve())
        return RayCrew(work, ray, limit_s, single_threaded)
    return Crew(work, workers, limit_s, single_threaded, preload=["data_prep.extracted"])


def scan_root(layout: Any, dataset: str, root: Path, settings: Any) -> Scan:
    """The candidates under `root`; raises `UsageError` for a root that is not this data set's."""
    if not root.is_dir():
        raise UsageError(f"--dataset_root {root} is not a folder. {layout.SOURCE}")
    scan = layout.scan(root, settings)
    if not scan.candidates:
        raise UsageError(f"no sample of {dataset} found under {root}. {layout.SOURCE}")
    counts = Counter(candidate.label for candidate in scan.candidates)
    for label, name in enumerate(scan.label_names):
        if not counts[label]:
            raise UsageError(
                f"class {name!r} of {dataset} has no file under {root}. {layout.SOURCE}"
            )
    return scan


def candidates_hash(root: Path, candidates: list[Candidate]) -> str:
    """A hash of the candidates and the sizes of their files: it tells when a root has changed."""

    def size(path: str) -> int:
        try:
            return (root / path).stat().st_size
        except OSError:
            return -1

    return digest(
        [
            [vars(c), [size(path) for paths in c.sources.values() for path in paths]]
            for c in candidates
        ]
    )


def prepare(
    dataset: str,
    root: Path,
    data_dir: Path,
    settings: Any,
    *,
    workers: int | None = None,
    max_bad: float = 0.05,
    limit_s: float = 60.0,
    ray: str = "",
) -> Path:
    """Prepares a data set and returns its folder; a finished one is only checked.

    `dataset` is a name, or the path of a manifest. `workers`: processes, one a core when None;
    `limit_s`: the time that one sample may take; `ray`: a cluster's address, in place of `workers`.
    Raises `UsageError` for a root that is not this data set's or has changed since the preparation
    began, and `TooManyRejects`. Waits while another process prepares the same folder.
    """
    check(settings)
    layout = layouts.load(dataset)
    spec, dataset = layout.spec(settings), layouts.public_name(dataset)
    folder = prepared_folder(data_dir, dataset, spec)
    scan = scan_root(layout, dataset, root, settings)
    for warning in scan.warnings:
        print(f"note: {warning}", file=sys.stderr)
    meta = {
        **spec_json(dataset, spec),
        "spec_hash": spec_hash(dataset, spec),
        "complete": False,
        "label_names": list(scan.label_names),
        "candidates": len(scan.candidates),
        "candidates_hash": candidates_hash(root, scan.candidates),
        "split_second": float(layout.SPLIT_SECOND),
        "shard_size": SHARD_SIZE,
        "tools": {"python": platform.python_version(), **{t: version(t) for t in TOOLS}},
    }
    with locked(folder / ".lock", f"another process is preparing {folder}", wait=True):
        _check_same_candidates(folder, meta, root)
        shards = -(-len(scan.candidates) // SHARD_SIZE)
        if read_meta(folder).get("complete") and not _missing(folder, shards):
            return folder
        remove_leftovers(folder)
        _check_lfs(scan, root, max_bad)
        write_json(folder / "meta.json", meta)
        _place_vocabulary(folder, spec, settings, scan.candidates)
        crew = make_crew(root, spec, workers or cores(), limit_s, folder, ray)
        _write_shards(folder, dataset, spec, scan, crew)
        _finish(folder, scan, spec, meta, max_bad)
    return folder


def _place_vocabulary(folder: Path, spec: Spec, settings: Any, candidates: list[Candidate]) -> None:
    """Where the spec has a text: its vocabulary beside the samples, before any is extracted."""
    for name, modality in spec.items():
        if isinstance(modality, Text):
            from data_prep.text import place_vocabulary

            texts = (candidate.inline[name] for candidate in candidates)
            place_vocabulary(folder / "vocab.txt", modality, settings.vocabulary, texts)


def _check_same_candidates(folder: Path, meta: dict, root: Path) -> None:
    before = read_meta(folder)
    if before and before["candidates_hash"] != meta["candidates_hash"]:
        raise UsageError(
            f"{folder} was begun from other files ({before['candidates']} candidates then,"
            f" {meta['candidates']} now under {root}); the two are not mixed:"
            " give the former root, another --data_dir, or remove that folder"
        )


def _check_lfs(scan: Scan, root: Path, max_bad: float) -> None:
    from data_prep.extracted import is_lfs_pointer

    def pointer(candidate: Candidate) -> bool:
        return any(is_lfs_pointer(root / p) for paths in candidate.sources.values() for p in paths)

    pointers = sum(map(pointer, scan.candidates))
    if pointers > max_bad * len(scan.candidates):
        raise UsageError(
            f"{pointers} of {len(scan.candidates)} samples under {root} are git-lfs pointers, not"
            " media files: run `git lfs pull` in that folder and start again"
        )


def _missing(folder: Path, shards: int) -> list[int]:
    """The numbers of the shards that are still to be written."""
    return [k for k in range(shards) if not (folder / shard_name(k)).exists()]


def _write_shards(folder: Path, dataset: str, spec: Spec, scan: Scan, crew: Any) -> None:
    runs = [scan.candidates[k : k + SHARD_SIZE] for k in range(0, len(scan.candidates), SHARD_SIZE)]
    missing = _missing(folder, len(runs))
    columns = schema(dataset, spec)
    done = len(scan.candidates) - sum(len(runs[k]) for k in missing)
    bar = tqdm(total=len(scan.candidates), initial=done, desc=f"prepare {dataset}", unit="clip")
    with bar, crew:
        results = crew.map([candidate for k in missing for candidate in runs[k]])
        for k in missing:
            writer, rejected = ShardWriter(folder / shard_name(k), columns), []
            try:
                for candidate in runs[k]:
                    state, result = next(results)
                    if state != DONE:
                        paths = sorted({p for paths in candidate.sources.values() for p in paths})
                        result = Rejection(
                            candidate.id, SEPARATOR.join(paths), "decoder_crash", result
                        )
                    (rejected.append if isinstance(result, Rejection) else writer.append)(result)
                    bar.update()
            except BaseException:
                writer.abandon()
                raise
            writer.close(rejected)


def _finish(folder: Path, scan: Scan, spec: Spec, meta: dict, max_bad: float) -> None:
    """The manifest, the list of rejects, the report, and the mark of completeness."""
    shards = [Shard(path) for path in sorted(folder.glob("samples-*.arrow"))]
    rejected = [r for shard in shards for r in shard.rejected]
    facts = ("id", "label", "group", "part", "sources", "duration_s", "n_frames", "flags")
    columns = {name: [v for shard in shards for v in shard.column(name)] for name in facts}
    names = [scan.label_names[label] for label in columns["label"]]
    header = ("id", "label", "label_name", *facts[2:])
    rows = zip(columns["id"], columns["label"], names, *(columns[name] for name in facts[2:]))
    write_table(folder / "manifest.csv", header, list(rows))
    listed = sorted(rejected + scan.rejected, key=lambda r: (r.reason, r.id, r.source))
    write_table(
        folder / "rejected.csv",
        ("id", "source", "reason", "detail"),
        [tuple(vars(r).values()) for r in listed],
    )
    flags = Counter(f for text in columns["flags"] for f in text.split(";") if f)
    meta = {
        **meta,
        "samples": len(names),
        "rejected": len(rejected),
        "per_class": {name: names.count(name) for name in scan.label_names},
        "flags": dict(flags),
    }
    report(folder, meta, listed)
    share = len(rejected) / len(scan.candidates)
    if share > max_bad:
        write_json(folder / "meta.json", meta)
        raise TooManyRejects(
            f"{len(rejected)} of {len(scan.candidates)} samples ({share:.1%}) were rejected, more"
            f" than --max_bad {max_bad:g}: see {folder}/rejected.csv; mend them, remove {folder},"
            " or run again with a higher --max_bad (the finished shards are kept)"
        )
    for name in scan.label_names:
        if name not in names:
            write_json(folder / "meta.json", meta)
            raise UsageError(
                f"every file of class {name!r} was rejected: see {folder / 'rejected.csv'}"
            )
    write_json(folder / "meta.json", {**meta, "complete": True})
    try:
        Prepared(folder).split("paper", 0)
    except UsageError as error:  # a run that asks for it is refused with the same words
        print(f"note: the default split cannot be made: {error}", file=sys.stderr)


def report(folder: Path, meta: dict, listed: list[Rejection]) -> None:
    """Says on stderr what was prepared and what was not, grouped by reason."""
    print(
        f"{meta['samples']} of {meta['candidates']} samples prepared in {folder}", file=sys.stderr
    )
    for reason, count in sorted(Counter(r.reason for r in listed).items()):
        kept = " (kept)" if reason in KEPT_REASONS else ""
        print(f"  {count:6d} {reason}{kept}: {REASONS[reason]}", file=sys.stderr)
    for flag, count in sorted(meta["flags"].items()):
        print(f"  {count:6d} kept with flag {flag}", file=sys.stderr)
