"""Arrow IPC shards: the storage format of prepared samples, written once and memory-mapped.

A shard contains a fixed range of candidates in id order, one row per sample. It is self-contained:
the schema metadata contains the spec, the last record batch (without rows) the rejects among the
shard's candidates. It stores no timestamps or host names: equal input gives equal bytes.
"""

import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from common.files import atomic, shown
from common.options import UsageError
from data_prep.spec import Rejection, Spec, spec_json

SHARD = re.compile(r"samples-\d{5,}\.arrow", re.ASCII)  # shard file names
SHARD_SIZE = 256  # candidates per shard: Kinetics-Sounds gives 95 shards of about 130 MB
BATCH_ROWS = 16  # rows per record batch, which the writer keeps in memory
FACTS = {
    "id": pa.string(), "label": pa.int16(), "group": pa.string(), "part": pa.string(),
    "sources": pa.string(), "duration_s": pa.float64(), "n_frames": pa.int32(),
    "flags": pa.string(),
}  # fmt: skip


def shard_name(number: int) -> str:
    """The file name of shard `number` (zero-based)."""
    return f"samples-{number:05d}.arrow"


def schema(dataset: str, spec: Spec) -> pa.Schema:
    """The columns: those of the manifest, and one per modality."""
    fields = [pa.field(name, kind) for name, kind in FACTS.items()]
    for name, modality in spec.items():
        kind, about = modality.column()
        fields.append(pa.field(name, kind, metadata=about))
    text = json.dumps(spec_json(dataset, spec), sort_keys=True)
    return pa.schema(fields, metadata={"spec": text})


def write_shard(path: Path, columns: pa.Schema, results: Iterable[dict | Rejection]) -> None:
    """Writes rows (values by column name) and rejects; the file appears once it is complete."""
    rows: list[dict] = []
    rejected: list[dict] = []
    with atomic(path) as temporary, pa.OSFile(str(temporary), "wb") as file:
        with pa.ipc.new_file(file, columns) as writer:
            for result in results:
                if isinstance(result, Rejection):
                    rejected.append(vars(result))
                else:
                    rows.append(result)
                if len(rows) == BATCH_ROWS:
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=columns))
                    rows = []
            if rows:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=columns))
            empty = pa.RecordBatch.from_pylist([], schema=columns)
            text = json.dumps(rejected, sort_keys=True)
            writer.write_batch(empty, custom_metadata={"rejected": text})


class Shard:
    """A memory-mapped shard, read without copies.

    Raises `UsageError` if the file is not a shard. The offsets are validated once here, because
    Arrow reads wherever they point. Only the facts stay in memory: a batch that is opened takes
    12 KB, and a million samples have 62,500 of them.
    """

    def __init__(self, path: Path):
        self.path = path
        self._last: tuple[int, Any] = (-1, None)
        try:
            self._open()
        except (
            pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError
        ) as error:  # fmt: skip
            reason = shown(" ".join(str(error).split()), 200)
            raise UsageError(
                f"{path} is not a readable shard ({reason}); remove it and prepare again"
            ) from None

    def _open(self) -> None:
        self._inode = os.stat(self.path).st_ino
        reader = self._reader
        del self._reader  # opened again on use: thousands of them would take memory
        *batches, (_, metadata) = map(
            reader.get_batch_with_custom_metadata, range(reader.num_record_batches)
        )  # ValueError if there is none
        columns = reader.schema  # made anew each time it is asked for
        for name, kind in FACTS.items():
            if columns.field(name).type != kind:
                raise ValueError(f"its column {name} is not of type {kind}")
        table = pa.Table.from_batches([batch for batch, _ in batches], columns)
        table.validate(full=True)
        self.spec = json.loads(columns.metadata[b"spec"])
        self.modalities = list(self.spec["order"])
        for name in self.modalities:
            kind = columns.field(name).type
            frames = pa.types.is_list(kind) and pa.types.is_binary(kind.value_type)
            if not (frames or pa.types.is_fixed_size_binary(kind)):
                raise ValueError(f"its column {name} does not contain bytes")
        entries = json.loads((metadata or {})[b"rejected"])
        self.rejected = [Rejection(**entry) for entry in entries]
        if not all(isinstance(text, str) for line in self.rejected for text in vars(line).values()):
            raise ValueError("its rejects are not strings")
        self.facts = table.select(list(FACTS)).combine_chunks()
        names = (*FACTS, *self.modalities)
        self.gaps = [name for name in names if _has_gaps(table.column(name))]
        self.starts = np.cumsum([0, *(batch.num_rows for batch, _ in batches)])

    @cached_property
    def _reader(self) -> Any:
        if os.stat(self.path).st_ino != self._inode:
            raise UsageError(f"{self.path} was replaced while it was in use: start again")
        return pa.ipc.open_file(pa.memory_map(str(self.path)))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> list:
        """All values of one of `FACTS`."""
        return self.facts.column(name).to_pylist()

    def value(self, row: int, name: str) -> Any:
        """One value: a buffer for binary columns, a list of buffers for lists of frames."""
        batch = int(np.searchsorted(self.starts, row, side="right")) - 1
        if batch != self._last[0]:  # the modalities of a sample come one after another
            self._last = batch, self._reader.get_batch(batch)
        scalar = self._last[1].column(name)[row - int(self.starts[batch])]
        if pa.types.is_list(scalar.type):
            return [item.as_buffer() for item in scalar]
        return scalar.as_buffer()


def _has_gaps(column: pa.ChunkedArray) -> bool:
    """Whether a value is missing, also inside lists; offsets of an empty column are undefined."""
    if column.null_count or not pa.types.is_list(column.type):
        return bool(column.null_count)
    return any(chunk.values.null_count for chunk in column.chunks if len(chunk))
