"""`--cache`: whether prepared samples are decoded once, and kept in memory or on the device."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from common.program import cores, free_memory
from data_prep.modalities.base import Draw
from data_prep.spec import Spec
from data_prep.store import Prepared

SHARE = 0.4  # of the free memory that `auto` may use; our choice
TRIED = 16  # samples from which `auto` estimates the size


class Decoded:
    """Samples of a prepared folder, decoded and kept in memory; `value` is that of `Prepared`."""

    def __init__(self, prepared: Any, positions: np.ndarray, spec: Spec):
        self.labels = prepared.labels

        # Reads here: only decoding runs in threads.
        wanted = [int(position) for position in positions]
        with ThreadPoolExecutor(cores()) as pool:
            made = {
                m: pool.map(kind.decode, [prepared.value(place, m) for place in wanted])
                for m, kind in spec.items()
            }
            self._values = {m: dict(zip(wanted, values)) for m, values in made.items()}

    def value(self, position: int, modality: str) -> Any:
        return self._values[modality][position]


def needed(prepared: Prepared, spec: Spec, draw: Draw, on_device: bool) -> int:
    """Bytes that all samples take once decoded, estimated from a few; 0 if nothing is decoded."""
    every = max(1, len(prepared) // TRIED)
    positions, total = range(0, len(prepared), every), 0
    for m, modality in spec.items():
        stored = [prepared.value(position, m) for position in positions]
        if on_device:
            kept = modality.on_device(stored, draw, torch.device("cpu"))
            total += kept.nbytes() if kept else 0
        else:
            decoded = [modality.decode(value) for value in stored]
            images = [image for value in decoded if isinstance(value, list) for image in value]
            total += sum(image.nbytes for image in images if isinstance(image, np.ndarray))
    return total * len(prepared) // len(positions)


def choose(
    cache: str, prepared: Prepared, spec: Spec, draw: Draw, device: torch.device, ranks: int = 1
) -> str:
    """ "off", "memory" or "device": for `auto`, the fastest place with enough free memory.

    Runs that share a machine have a part of its cores each (`--threads`), and claim no more of its
    memory than that part.
    """
    if cache != "auto":
        return cache
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if needed(prepared, spec, draw, on_device=True) < SHARE * free:
            return "device"
    size = needed(prepared, spec, draw, on_device=False)
    part = min(1.0, torch.get_num_threads() / cores()) / ranks
    return "memory" if 0 < size < SHARE * part * free_memory() else "off"
