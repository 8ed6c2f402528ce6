"""The interface of all modalities, with default implementations.

A modality is a frozen dataclass in its own module. Its fields are its settings: some determine the
stored bytes, and those declared with `view` only determine how the model sees them.
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
    import torch
    from torch import Tensor


def view(default: Any) -> Any:
    """A field that does not affect the stored bytes and so is not part of the spec and its hash."""
    return field(default=default, metadata={"view": True})


@dataclass
class Extracted:
    """The result of extracting one modality of one sample.

    `payload`: the stored bytes, or a list of them. `flags`: remarks for the manifest. `duration_s`:
    seconds found in the file, 0 for data without time. `n_frames`: frames, tokens or vectors found
    (0 for audio). `found`: False if the payload is a placeholder for missing data. `used`: the
    index of the file it was read from.
    """

    payload: bytes | list[bytes]
    flags: tuple[str, ...]
    duration_s: float
    n_frames: int
    found: bool
    used: int = 0


class Draw(NamedTuple):
    """What determines the model input of a stored sample, besides the modality's settings.

    `size`: side of images in pixels. `rng`: used for augmentation; None gives the deterministic
    evaluation transform. `flip`: whether this sample is mirrored. `vocabulary`: the vocab.txt for
    texts that are stored untokenized. `decoded`: what `to_input` gets was `decode`d before.
    """

    size: int = 224
    rng: np.random.Generator | None = None
    flip: bool = False
    vocabulary: Path | None = None
    decoded: bool = False


@dataclass(frozen=True)
class Modality:
    """The base class of all modalities.

    `inline`: whether the dataset's lists contain the data themselves, as for texts. `folders`:
    whether a user's csv may name a folder instead of a file.
    """

    inline: ClassVar[bool] = False
    folders: ClassVar[bool] = False

    @property
    def normalise(self) -> Any:
        """(mean, std) of the input layer, "train" to measure them, "imagenet", or "none"."""
        return None

    @property
    def kind(self) -> str:
        """The modality's name in manifests and meta.json."""
        return type(self).__name__.lower()

    @property
    def built_vocabulary(self) -> bool:
        """Whether texts are stored and tokenized with a vocabulary from the training part."""
        return False

    def stored_settings(self) -> dict[str, Any]:
        """The fields that affect the stored bytes."""
        return {f.name: getattr(self, f.name) for f in fields(self) if "view" not in f.metadata}

    def with_view_of(self, other: Modality) -> Modality:
        """The same stored form with the `view` fields of `other`."""
        names = [f.name for f in fields(self) if "view" in f.metadata]
        return replace(self, **{name: getattr(other, name) for name in names})

    # From a row of a user's csv -------------------------------------------------------------------

    def columns(self, name: str) -> list[str]:
        """The columns of a user's csv for the modality `name`."""
        return [name]

    def from_row(self, name: str, row: dict[str, str]) -> tuple[list[str], Any]:
        """(paths, inline) of a row: see `Candidate`. Raises `ValueError` with the problem."""
        return [row[name]], None

    # From a raw file to stored bytes --------------------------------------------------------------

    def check(self) -> None:
        """Raises `UsageError` if this machine cannot extract the modality."""

    def prepare_folder(self, folder: Path, settings: Any) -> None:
        """Writes files shared by all samples to the prepared folder, before any extraction."""

    def is_one_source(self, paths: Sequence[Path]) -> bool:
        """Whether all paths together form the sample; else they are alternatives."""
        return len(paths) < 2

    def extract(self, paths: Sequence[Path], inline: Any, folder: Path | None) -> Extracted:
        """The stored form of a sample; raises `Reject`.

        `paths`: the files of the sample, one unless `is_one_source`. `inline`: its data from the
        dataset's lists. `folder`: the prepared folder.
        """
        raise NotImplementedError

    def strict(self) -> Modality:
        """The same modality without placeholders: unreadable data are rejected."""
        without: dict[str, Any] = {"missing": "reject"}
        return replace(self, **without) if hasattr(self, "missing") else self

    def column(self) -> tuple[pa.DataType, dict[str, str]]:
        """The Arrow type of the stored form, and the metadata of its column."""
        import pyarrow as pa

        return pa.list_(pa.binary()), {"codec": getattr(self, "codec", "")}

    def check_together(self, name: str, samples: Iterable[tuple[str, Any]]) -> None:
        """Raises `UsageError` if the samples, (id, stored form), do not fit together."""

    # From stored bytes to the model's input -------------------------------------------------------

    def decode(self, stored: Any) -> Any:
        """A stored form that is faster to read, for keeping in memory; by default the same."""
        return stored

    def on_device(self, stored: Iterable, draw: Draw, device: torch.device) -> Any:
        """Keeps all samples on `device` (see `on_device.py`).

        None, the default: inputs are made on the host by `to_input`.
        """
        return None

    def to_input(self, stored: Any, draw: Draw) -> np.ndarray:
        """The input of one sample; `stored` is what `Shard.value` gives."""
        raise NotImplementedError

    def trim(self, batch: np.ndarray) -> np.ndarray:
        """A batch [B, ...] without the padding that all of its samples share."""
        return batch

    def width(self, made: np.ndarray) -> int | None:
        """The input size that the encoder is built for, if no setting determines it."""
        return None

    def stream(self) -> dict[str, Any]:
        """What the model needs to build the encoder (`models.build.Stream`): RGB images."""
        return {"kind": self.kind, "channels": 3}

    def values(self, batch: Tensor) -> tuple[Tensor, tuple[int, ...], int]:
        """The values of a batch from which normalisation statistics are measured.

        Returns (values, axes to reduce, number of means). For images [B, T, C, H, W]: scaled to
        [0, 1], one mean per channel.
        """
        return batch / 255, (0, 1, 3, 4), batch.shape[2]


def the_file(paths: Sequence[Path], absent: str) -> Path:
    """The only file in `paths`; raises `Reject` with the reason `absent` if there is none."""
    if not paths:
        raise Reject(absent, "no file for this modality")
    (path,) = paths
    return path


def last_used(used: Any) -> int:
    """One more than the last nonzero index of a vector, at least 1."""
    places = used.nonzero()[0]
    return int(places[-1]) + 1 if len(places) else 1
