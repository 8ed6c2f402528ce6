"""Batches of a prepared part, the same ones whatever the number of loader workers.

A batch is {"index": [B] int64, "label": [B] int64, "inputs": {modality: tensor}, ...}; `index` is
the sample's place in the part. Data order and augmentation are functions of (seed, epoch, place in
the epoch's list): no generator's state has to be stored to resume a run.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.modalities.transforms import make_input, toss, without_padding
from data_prep.spec import View
from data_prep.store import Prepared

Batch = dict
Views = dict[str, View]
# A key asks a worker for one item: (epoch or -1 for the evaluation view, place in the list, index).
Key = tuple[int, int, int]


class Samples(Dataset):
    """The samples of one part; a list of keys makes a whole batch at once.

    `vocabulary` is the split's vocab.txt where texts are stored themselves.
    """

    def __init__(
        self,
        prepared: Prepared,
        positions: np.ndarray,
        views: Views,
        size: int,
        seed: int,
        vocabulary: Path | None = None,
    ):
        self.prepared, self.positions, self.views = prepared, positions, views
        self.size, self.seed, self.vocabulary = size, seed, vocabulary

    def __len__(self) -> int:
        return len(self.positions)

    def one(self, key: Key) -> dict[str, np.ndarray]:
        """The inputs of one item."""
        epoch, place, index = key
        rng = np.random.default_rng([self.seed, epoch, place]) if epoch >= 0 else None
        position, flip, inputs = int(self.positions[index]), toss(rng), {}
        for name, view in self.views.items():
            spec, stored = self.prepared.spec[name], self.prepared.value(position, name)
            inputs[name] = make_input(stored, spec, view, self.size, rng, flip, self.vocabulary)
        return inputs

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        items = [self.one(key) for key in keys]
        index = np.asarray([key[2] for key in keys], dtype=np.int64)
        inputs = {
            m: without_padding(np.stack([item[m] for item in items]), self.prepared.spec[m])
            for m in self.views
        }
        return {
            "index": torch.from_numpy(index),
            "label": torch.from_numpy(self.prepared.labels[self.positions[index]]),
            "inputs": {m: torch.from_numpy(values) for m, values in inputs.items()},
            "place": torch.tensor([key[1] for key in keys]),
        }


class _KeyBatches:
    """A batch sampler whose list is set before each pass (persistent workers keep their loader)."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Loader:
    """Batches of one part, on `device` but for the inputs (the model's `encode` moves those)."""

    def __init__(
        self,
        prepared: Prepared,
        positions: np.ndarray,
        views: Views,
        size: int,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device,
        keep_last: bool = True,
        vocabulary: Path | None = None,
    ):
        self.keep_last = keep_last
        self.samples = Samples(prepared, positions, views, size, seed, vocabulary)
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.sampler = _KeyBatches()
        self.loader = DataLoader(
            self.samples,
            batch_sampler=self.sampler,
            num_workers=workers,
            collate_fn=_as_is,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=_quiet_worker,
        )

    def __len__(self) -> int:
        return len(self.samples)

    def steps(self, plan: Any = None) -> int:
        """The number of batches that `epoch` yields."""
        return len(self._starts(len(self) if plan is None else len(plan.indices)))

    def _starts(self, count: int) -> list[int]:
        """Where each training batch begins in a list of `count` samples.

        A last batch of one sample joins the one before it: batch norm cannot train on one value.
        """
        size = min(self.batch_size, count)
        rest = count % size
        starts = list(range(0, count, size))
        return starts[:-1] if rest and (not self.keep_last or rest == 1) else starts

    def epoch(self, epoch: int, plan: Any = None) -> Iterator[Batch]:
        """Training batches of an epoch in random order; the last may be smaller, or is dropped.

        Fewer samples than a batch make one smaller batch. A `plan` (a method's, with `indices` [K]
        into the part and `columns` of length K) replaces the list of samples for this epoch.
        """
        indices = np.arange(len(self)) if plan is None else plan.indices.cpu().numpy()
        rng = np.random.default_rng([self.seed, epoch])
        places = rng.permutation(len(indices))
        starts = self._starts(len(places))
        end = len(places) if self.keep_last else len(places) // self.batch_size * self.batch_size
        batches = [
            [(epoch, int(p), int(indices[p])) for p in places[first:last]]
            for first, last in zip(starts, [*starts[1:], end or len(places)])
        ]
        columns = {} if plan is None else {name: v.cpu() for name, v in plan.columns.items()}
        for batch in self._run(batches):
            for name, values in columns.items():
                batch[name] = values[batch["place"]].to(self.device, non_blocking=True)
            yield batch

    def batches(
        self, indices: Sequence[int] | None = None, transforms: str = "eval"
    ) -> Iterator[Batch]:
        """Every sample (or `indices`) in fixed order, whole: nothing shuffled, nothing dropped.

        `transforms`: "eval" for the deterministic view, "train" for the first epoch's augmentation.
        """
        epoch = {"eval": -1, "train": 0}[transforms]
        wanted = range(len(self)) if indices is None else [int(k) for k in indices]
        keys = [(epoch, place, index) for place, index in enumerate(wanted)]
        yield from self._run(
            [keys[k : k + self.batch_size] for k in range(0, len(keys), self.batch_size)]
        )

    def _run(self, batches: list[list[Key]]) -> Iterator[Batch]:
        self.sampler.batches = batches
        for batch in self.loader:
            batch["label"] = batch["label"].to(self.device, non_blocking=True)
            batch["index"] = batch["index"].to(self.device, non_blocking=True)
            yield batch


def _as_is(batch: Batch) -> Batch:
    return batch


def train_statistics(batches: Callable[[], Iterator[Batch]], modality: str) -> tuple[list, list]:
    """Mean and standard deviation of a part, as lists.

    One pair for sound, one a channel for images (scaled to [0, 1]), one a feature for sequences,
    whose padding (rows of zeros) does not count.
    """
    count, total, squares = 0, 0.0, 0.0
    for batch in batches():
        values = batch["inputs"][modality].double()
        if values.ndim == 3:  # vectors [B, L, D]
            values = values[(values != 0).any(2)]
            axes, channels = (0,), values.shape[1]
        elif values.ndim == 5:  # images [B, T, C, H, W]
            values = values / 255
            axes, channels = (0, 1, 3, 4), values.shape[2]
        else:  # spectrograms [B, 1, F, T]
            axes, channels = (0, 1, 2, 3), 1
        count += values.numel() // channels
        total, squares = total + values.sum(axes), squares + values.square().sum(axes)
    mean = total / count
    spread = (squares / count - mean.square()).clamp_min(0).sqrt()
    # What never changes is only shifted: divided by next to nothing, its noise would be everything.
    spread = torch.where(spread < 1e-5, 1.0, spread)
    return mean.reshape(-1).tolist(), spread.reshape(-1).tolist()
