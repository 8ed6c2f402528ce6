"""From a candidate to its stored row: what a worker does, and the workers that do it."""

import functools
from pathlib import Path
from typing import Any

from data_prep.pool import Crew
from data_prep.spec import Audio, Candidate, Rejection, Spec

# Between the paths of one sample: a space occurs inside them.
SEPARATOR = ";"


def rejection(candidate: Candidate, reason: str, detail: str) -> Rejection:
    """The line of rejected.csv for a candidate with all of its files."""
    paths = sorted({path for paths in candidate.sources.values() for path in paths})
    return Rejection(candidate.id, SEPARATOR.join(paths), reason, detail)


def extract_row(
    root: Path, spec: Spec, assets: Path | None, candidate: Candidate
) -> dict[str, Any] | Rejection:
    """The stored row of one candidate, or why there is none. Runs in a worker process."""
    from data_prep.modalities.extracted import extract_sample
    from data_prep.modalities.transforms import frame_bytes
    from data_prep.reasons import Reject

    try:
        parts = extract_sample(root, candidate, spec, assets)
    except Reject as reject:
        return rejection(candidate, reject.reason, reject.detail)
    row = {
        "id": candidate.id,
        "label": candidate.label,
        "group": candidate.group,
        "part": candidate.part,
        "sources": SEPARATOR.join(
            paths[parts[m].used if m in parts else 0] for m, paths in candidate.sources.items()
        ),
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

    `assets` holds the vocab.txt by which texts become tokens, `ray` is a cluster's address.
    """
    work = functools.partial(extract_row, root, spec, assets)
    if ray:
        from data_prep.on_ray import RayCrew

        work = functools.partial(extract_row, root.resolve(), spec, assets.resolve())
        return RayCrew(work, ray, limit_s, single_threaded)
    return Crew(work, workers, limit_s, single_threaded, preload=["data_prep.modalities.extracted"])
