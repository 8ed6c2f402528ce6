"""What every modality does: the methods that the rest of the project calls, with their defaults.

A modality is a frozen dataclass in a file of its own. Its fields are its settings: those that
decide the stored bytes, and those declared with `view`, which only decide how the model sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from data_prep.reasons import Reject

if TYPE_CHECKING:  # --help must not wait for these modules
    import numpy as np
    import pyarrow as pa
    from torch import Tensor


def view(default: Any) -> Any:
    """A field that does not affect the stored bytes: it is not part of the spec and its hash."""
    return field(default=default, metadata={"view": True})


@dataclass
class Extracted:
    """What the extraction of one modality of one sample gives.

    `payload`: the stored bytes, or a list of them. `flags`: remarks for the manifest. `duration_s`:
    seconds found in the file, 0 for data without time. `n_frames`: frames, tokens or vectors found
    (0 for audio). `found`: False if the payload only stands in for missing data. `used`: the index
    of the file it was read from.
    """

    payload: bytes | list[bytes]
    flags: tuple[str, ...]
    duration_s: float
    n_frames: int
    found: bool
    used: int = 0


class Draw(NamedTuple):
    """What decides the input made of a stored sample, beside the modality's settings.

    `size`: side of pictures in pixels. `rng`: draws the augmentation; None gives the deterministic
    view of evaluation. `flip`: whether this sample is mirrored. `vocabulary`: the vocab.txt for
    texts that are stored as texts.
    """

    size: int = 224
    rng: np.random.Generator | None = None
    flip: bool = False
    vocabulary: Path | None = None


@dataclass(frozen=True)
class Modality:
    """The base of all modalities, with the defaults of most.

    `inline`: whether a dataset's lists hold the content itself, as they do for texts.
    """

    inline: ClassVar[bool] = False

    @property
    def normalise(self) -> Any:
        """(mean, deviation) of the input layer, "train" to measure them, "imagenet", or "none"."""
        return None

    @property
    def kind(self) -> str:
        """The modality's name in manifests and meta.json."""
        return type(self).__name__.lower()

    @property
    def built_vocabulary(self) -> bool:
        """Whether texts are stored, which a vocabulary of a split's training part makes tokens."""
        return False

    def stored_settings(self) -> dict[str, Any]:
        """The fields that decide the stored bytes."""
        return {f.name: getattr(self, f.name) for f in fields(self) if "view" not in f.metadata}

    def with_view_of(self, other: Modality) -> Modality:
        """The same stored form, seen by the model as `other` is."""
        names = [f.name for f in fields(self) if "view" in f.metadata]
        return replace(self, **{name: getattr(other, name) for name in names})

    # From a row of an own csv ---------------------------------------------------------------------

    def columns(self, name: str) -> list[str]:
        """The columns of an own csv that hold the modality `name`."""
        return [name]

    def from_row(self, name: str, row: dict[str, str]) -> tuple[list[str], Any]:
        """(paths, inline) of a row: see `Candidate`. Raises `ValueError` with what is wrong."""
        return [row[name]], None

    # From a raw file to stored bytes --------------------------------------------------------------

    def check(self) -> None:
        """Raises `UsageError` where this machine cannot extract the modality."""

    def prepare_folder(self, folder: Path, settings: Any) -> None:
        """Puts what all samples share into the prepared folder, before the first is extracted."""

    def is_one_source(self, paths: Sequence[Path]) -> bool:
        """Whether all paths together hold the sample; else each is an alternative to the others."""
        return len(paths) < 2

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of a sample; raises `Reject`.

        `paths`: the files that hold it, one unless `is_one_source`. `inline`: what the dataset's
        lists say of it beside the files. `folder`: the prepared folder.
        """
        raise NotImplementedError

    def strict(self) -> Modality:
        """The same modality without stand-ins: what cannot be read is rejected."""
        without: dict[str, Any] = {"missing": "reject"}
        return replace(self, **without) if hasattr(self, "missing") else self

    def column(self) -> tuple[pa.DataType, dict[str, str]]:
        """The Arrow type of the stored form, and the metadata of its column."""
        import pyarrow as pa

        return pa.list_(pa.binary()), {"codec": getattr(self, "codec", "")}

    def check_together(self, name: str, samples: Iterable[tuple[str, Any]]) -> None:
        """Raises `UsageError` where the (id, stored form) of all samples do not fit together."""

    # From stored bytes to the model's input -------------------------------------------------------

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """The input of one sample; `stored` is what `Shard.value` gives."""
        raise NotImplementedError

    def trim(self, batch: np.ndarray) -> np.ndarray:
        """A batch [B, ...] without the padding that all of its samples share."""
        return batch

    def width(self, made: np.ndarray) -> int | None:
        """What of an input's shape the encoder was built for, where no setting says it."""
        return None

    def stream(self) -> dict[str, Any]:
        """What the model must know to build the encoder (`models.build.Stream`): RGB pictures."""
        return {"kind": self.kind, "channels": 3}

    def values(self, batch: Tensor) -> tuple[Tensor, tuple[int, ...], int]:
        """The numbers of a batch that normalisation is measured on.

        Returns (values, the axes over which one mean is taken, the number of means): of pictures
        [B, T, C, H, W] those scaled to [0, 1], with one mean for each channel.
        """
        return batch / 255, (0, 1, 3, 4), batch.shape[2]


def the_file(paths: Sequence[Path], absent: str) -> Path:
    """The one file of `paths`; raises `Reject` with the reason `absent` where there is none."""
    if not paths:
        raise Reject(absent, "no file holds this modality")
    (path,) = paths
    return path


def last_used(used: Any) -> int:
    """One more than the last place of a vector that is used, and at least 1."""
    places = used.nonzero()[0]
    return int(places[-1]) + 1 if len(places) else 1
