"""Batches of a prepared split part, independent of the number of loader workers.

A batch is {"index": [B] int64, "label": [B] int64, "inputs": {modality: tensor}, ...}; `index` is
the position of the sample in the part. Data order and augmentation are functions of (seed, epoch,
place in the epoch's list), so a run can be resumed without storing generator states.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_prep.cache import Decoded
from data_prep.modalities import Modality
from data_prep.modalities.base import Draw
from data_prep.modalities.views import flipped
from data_prep.sample import single_threaded
from data_prep.spec import Spec
from data_prep.store import Prepared

Batch = dict
# Identifies one item for a worker: (epoch, or -1 for evaluation; place in the list; index).
Key = tuple[int, int, int]


@dataclass
class Samples(Dataset):
    """The samples of one part; `__getitems__` builds a full batch from a list of keys.

    `draw` is the evaluation transform; `seed` determines the training augmentation.
    """

    prepared: Prepared | Decoded
    positions: np.ndarray
    spec: Spec
    seed: int
    draw: Draw
    kept: dict[str, Any] = field(default_factory=dict)  # modality -> its samples on a device

    def keep(self, where: str, device: torch.device) -> None:
        """Decodes all samples in advance; `where`: "off", "memory" or "device"."""
        if where == "memory":
            self.prepared = Decoded(self.prepared, self.positions, self.spec)
            self.draw = self.draw._replace(decoded=True)
        for m, modality in self.spec.items() if where == "device" else ():
            stored = (self.prepared.value(int(position), m) for position in self.positions)
            if kept := modality.on_device(stored, self.draw, device):
                self.kept[m] = kept

    def __getitems__(self, request: tuple[Sequence[Key], slice]) -> Batch:
        keys, rows = request
        count = len(keys[rows])
        inputs = self.inputs(keys[rows] or keys[:1])  # one shows the shapes if there is none
        where = torch.tensor([index for _, _, index in keys])
        return {
            "index": where,
            "label": torch.from_numpy(self.prepared.labels[self.positions[where.numpy()]]),
            "inputs": {m: values[:count] for m, values in inputs.items()},
            "place": torch.tensor([place for _, place, _ in keys]),
        }

    def draws(self, keys: Sequence[Key]) -> Iterator[tuple[int, Draw]]:
        """(index, draw) of each sample."""
        for epoch, place, index in keys:
            rng = np.random.default_rng([self.seed, epoch, place]) if epoch >= 0 else None
            yield index, self.draw._replace(rng=rng, flip=flipped(rng))

    def inputs(self, keys: Sequence[Key]) -> dict[str, torch.Tensor]:
        """The model input of samples, by modality."""
        made: dict[str, list] = {m: [] for m in self.spec}
        for index, draw in self.draws(keys):
            for m, modality in self.spec.items():  # in this order, as they share the generator
                if m in self.kept:
                    made[m].append(self.kept[m].drawn(index, draw))
                else:
                    stored = self.prepared.value(int(self.positions[index]), m)
                    made[m].append(modality.to_input(stored, draw))
        return {
            m: self.kept[m].inputs(values, self.draw.size)
            if m in self.kept
            else torch.from_numpy(self.spec[m].trim(np.stack(values)))
            for m, values in made.items()
        }


def _as_is(batch: Any) -> Batch:
    return batch


class Loader:
    """Batches of one part, on `device` except for the inputs (the model's `encode` moves those)."""

    def __init__(
        self,
        prepared: Prepared,
        positions: np.ndarray,
        spec: Spec,
        size: int,
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device,
        keep_last: bool = True,
        vocabulary: Path | None = None,
        cache: str = "off",
    ):
        self.samples = Samples(prepared, positions, spec, seed, Draw(size, vocabulary=vocabulary))
        self.samples.keep(cache, device)
        self.keep_last = keep_last
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.ranks: Any = None  # if several processes train together: models.ranks.Ranks
        self.keys: list[Any] = []  # (keys, rows) of one pass's batches; updated in place
        on_device = bool(self.samples.kept)
        workers = 0 if on_device else workers
        self.loader = DataLoader(
            self.samples,
            batch_sampler=self.keys,
            num_workers=workers,
            collate_fn=_as_is,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda" and not on_device,
            worker_init_fn=single_threaded,
        )

    def __len__(self) -> int:
        return len(self.samples.positions)

    def steps(self, plan: Any = None) -> int:
        """The number of batches that `epoch` yields."""
        return len(self._cut(0, plan))

    def _cut(self, epoch: int, plan: Any) -> list[np.ndarray]:
        """The places of each training batch in the epoch's list, in random order."""
        rng = np.random.default_rng([self.seed, epoch])
        places = rng.permutation(len(self) if plan is None else len(plan.indices))
        if plan is None or plan.batch_key is None:
            return self._pieces(places)
        key = plan.batch_key.cpu().numpy()[places]
        groups = [places[key == value] for value in np.unique(key)]
        batches = [piece for group in groups if len(group) > 1 for piece in self._pieces(group)]
        return [batches[k] for k in rng.permutation(len(batches))]

    def _pieces(self, places: np.ndarray) -> list[np.ndarray]:
        """`places` cut into batches; the last may be smaller or is dropped.

        A final single sample is added to the previous batch: batch norm cannot train on one value.
        """
        size = min(self.batch_size, len(places))
        pieces = [places[start : start + size] for start in range(0, len(places), size)]
        rest = len(places) % size
        if rest and not self.keep_last:
            return pieces[:-1]
        return [*pieces[:-2], np.concatenate(pieces[-2:])] if rest == 1 else pieces

    def epoch(self, epoch: int, plan: Any = None) -> Iterator[Batch]:
        """Training batches of an epoch in random order; the last may be smaller or is dropped.

        If there are fewer samples than a batch, they form one smaller batch. A `plan` of a method
        (`methods.base.EpochPlan`) replaces the epoch's sample list; samples whose `batch_key` no
        other has are left out.
        """
        indices = np.arange(len(self)) if plan is None else plan.indices.cpu().numpy()
        batches = [
            [(epoch, int(p), int(indices[p])) for p in places] for places in self._cut(epoch, plan)
        ]
        columns = {} if plan is None else {name: v.cpu() for name, v in plan.columns.items()}
        for batch in self._run(batches):
            for name, values in columns.items():
                batch[name] = values[batch["place"]].to(self.device, non_blocking=True)
            yield batch

    def batches(
        self,
        indices: Sequence[int] | None = None,
        transforms: str = "eval",
        batch_size: int | None = None,
    ) -> Iterator[Batch]:
        """All samples (or `indices`) in fixed order: nothing is shuffled or dropped.

        `transforms`: "eval" is deterministic, "train" uses the augmentation of the first epoch.
        """
        size = batch_size or self.batch_size
        epoch = {"eval": -1, "train": 0}[transforms]
        wanted = range(len(self)) if indices is None else [int(k) for k in indices]
        keys = [(epoch, place, index) for place, index in enumerate(wanted)]
        yield from self._run([keys[k : k + size] for k in range(0, len(keys), size)])

    def _run(self, batches: list[list[Key]]) -> Iterator[Batch]:
        share = self.ranks.share if self.ranks else slice  # of a batch: the rows with inputs
        self.keys[:] = [(keys, share(len(keys))) for keys in batches]
        for batch in self.loader:
            for name in ("label", "index"):
                batch[name] = batch[name].to(self.device, non_blocking=True)
            if self.ranks:
                batch["inputs"] = self.ranks.rows(batch["inputs"], len(batch["label"]))
            yield batch


def train_statistics(
    batches: Callable[[], Iterator[Batch]], name: str, modality: Modality
) -> tuple[list, list]:
    """Mean and standard deviation over all batches, as lists; see `Modality.values`."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches():
        values, axes, means = modality.values(batch["inputs"][name].double())
        count += values.numel() // means
        total, squares = total + values.sum(axes), squares + values.square().sum(axes)
    mean = total / count
    spread = (squares / count - mean.square()).clamp_min(0).sqrt()
    # A constant feature gets deviation 1: dividing by almost 0 would amplify numerical noise.
    spread = torch.where(spread < 1e-5, 1.0, spread)
    return mean.reshape(-1).tolist(), spread.reshape(-1).tolist()
