"""Turns the files of one candidate into its stored row; runs in worker processes.

Any file content results in a row or a `Rejection`; any other exception is a bug in this program.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.modalities.base import Extracted
from data_prep.pool import Pool
from data_prep.reasons import Reject
from data_prep.spec import SEPARATOR, Candidate, Rejection, Spec


def rejection(candidate: Candidate, reason: str, detail: str) -> Rejection:
    """The rejected.csv line of a candidate, with all of its files."""
    paths = sorted({path for paths in candidate.sources.values() for path in paths})
    return Rejection(candidate.id, SEPARATOR.join(paths), reason, detail)


def extract_row(
    root: Path, spec: Spec, folder: Path | None, candidate: Candidate
) -> dict[str, Any] | Rejection:
    """The stored row of one candidate, or its rejection. Runs in a worker process.

    `folder` is the prepared folder, which contains files shared by all samples.
    """
    try:
        parts = extract_sample(root, spec, folder, candidate)
    except Reject as reject:
        return rejection(candidate, reject.reason, reject.detail)
    return {
        "id": candidate.id,
        "label": candidate.label,
        "group": candidate.group,
        "part": candidate.part,
        "sources": SEPARATOR.join(
            paths[parts[m].used if m in parts else 0] for m, paths in candidate.sources.items()
        ),
        "duration_s": round(max(part.duration_s for part in parts.values()), 3),
        "n_frames": max(part.n_frames for part in parts.values()),
        "flags": ";".join(sorted({flag for part in parts.values() for flag in part.flags})),
        **{name: part.payload for name, part in parts.items()},
    }


def extract_sample(
    root: Path, spec: Spec, folder: Path | None, candidate: Candidate
) -> dict[str, Extracted]:
    """All modalities of a candidate, in the order of `spec`.

    Raises `Reject`: "lfs_pointer" if any source is a pointer, even if another file could replace
    it; "unreadable" if a source is not a file, or no modality could be read; and whatever the
    modalities raise.
    """
    from data_prep.media import is_lfs_pointer

    sources = {name: [root / path for path in candidate.sources.get(name, ())] for name in spec}
    for path in dict.fromkeys(path for paths in sources.values() for path in paths):
        if is_lfs_pointer(path):
            raise Reject("lfs_pointer", path.name)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise Reject("unreadable", f"{path.name}: a pipe, socket or device, not a regular file")
    sample: dict[str, Extracted] = {}
    for name, modality in spec.items():
        paths = sources[name]
        if name in sample:
            continue
        if modality.is_one_source(paths):
            sample[name] = modality.extract(paths, candidate.inline.get(name), folder)
        else:
            same = {m: spec[m] for m in spec if sources[m] == paths}
            sample |= _of_one_file(same, paths, candidate.inline, folder)
    if not any(part.found for part in sample.values()):
        raise Reject("unreadable", "no modality can be decoded")
    return {name: sample[name] for name in spec}


def _of_one_file(
    spec: Spec, paths: Sequence[Path], inline: dict[str, Any], folder: Path | None
) -> dict[str, Extracted]:
    """Extracts modalities that share the same files, from the first file with all of them complete.

    If there is none, uses the first file that has all of them truncated, and after that allows as
    few placeholders as possible. Raises `Reject` with the reason of the first file, which is the
    one to repair, and the details of all files.
    """
    failures: list[Reject] = []
    for fill in (False, True):
        usable = []
        for number, path in enumerate(paths):
            try:
                found = {
                    name: (m if fill else m.strict()).extract([path], inline.get(name), folder)
                    for name, m in spec.items()
                }
            except Reject as failure:
                failures.append(failure)
                continue
            whole = not any("truncated" in part.flags for part in found.values())
            for part in found.values():
                part.used = number
                part.flags += (f"source={path.suffix[1:].lower()}",) if number else ()
            if whole and not fill:
                return found
            usable.append(found)
        if usable:
            return max(usable, key=lambda found: sum(part.found for part in found.values()))
        if not any(getattr(m, "missing", "") == "fill" for m in spec.values()):
            break
    details = [failure.detail or failure.reason for failure in failures[: len(paths)]]
    raise Reject(failures[0].reason, "; ".join(details))


def single_threaded(_: int = 0) -> None:
    """Runs once in each worker: parallelism comes from the workers, so each uses one core."""
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def make_pool(
    root: Path, spec: Spec, workers: int, limit_s: float, folder: Path, ray: str = ""
) -> Pool:
    """The pool that turns candidates into rows: local supervised processes, or a Ray cluster.

    `folder` is the prepared folder, `ray` the address of a cluster.
    """
    if ray:
        from data_prep.on_ray import RayPool

        work = functools.partial(extract_row, root.resolve(), spec, folder.resolve())
        return RayPool(work, ray, limit_s, single_threaded)
    work = functools.partial(extract_row, root, spec, folder)
    return Pool(work, workers, limit_s, single_threaded, preload=["data_prep.modalities.sound"])
