"""Arrow IPC shards: the stored form of prepared samples, written once, read through a memory map.

A shard holds a fixed run of consecutive candidates in id order, one row a sample. It explains
itself: the schema's metadata carries the spec, the last record batch (it has no rows) carries the
rejects of the shard's own candidates. No times and no machine names: equal input, equal bytes.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from common.files import atomic, shown
from common.options import UsageError
from data_prep.spec import Rejection, Spec, spec_json

SHARD = re.compile(r"samples-\d{5,}\.arrow", re.ASCII)  # the names of shards
SHARD_SIZE = 256  # candidates a shard: Kinetics-Sounds makes 95 shards of about 130 MB
BATCH_ROWS = 16  # rows a record batch: what the writer holds in memory


def shard_name(number: int) -> str:
    """The file name of shard `number`, counted from 0."""
    return f"samples-{number:05d}.arrow"


FACTS = {
    "id": pa.string(),
    "label": pa.int16(),
    "group": pa.string(),
    "part": pa.string(),
    "sources": pa.string(),
    "duration_s": pa.float64(),
    "n_frames": pa.int32(),
    "flags": pa.string(),
}


def schema(dataset: str, spec: Spec) -> pa.Schema:
    """Columns: id, label, what the manifest tells, and one column a modality."""
    fields = [pa.field(name, kind) for name, kind in FACTS.items()]
    for name, modality in spec.items():
        kind, about = modality.column()
        fields.append(pa.field(name, kind, metadata=about))
    text = json.dumps(spec_json(dataset, spec), sort_keys=True)
    return pa.schema(fields, metadata={"spec": text})


class ShardWriter:
    """Collects rows and writes them as one shard; the file appears when `close` succeeds."""

    def __init__(self, path: Path, columns: pa.Schema):
        self.columns, self.rows = columns, []
        self._atomic = atomic(path)
        self._temporary = self._atomic.__enter__()
        self._file = pa.OSFile(str(self._temporary), "wb")
        self._writer = pa.ipc.new_file(self._file, columns)

    def append(self, row: dict[str, Any]) -> None:
        """Adds one row: values by column name."""
        self.rows.append(row)
        if len(self.rows) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self.rows, schema=self.columns))
            self.rows = []

    def close(self, rejected: list[Rejection]) -> None:
        """Writes the last rows and the rejects, and gives the file its final name."""
        self._flush()
        text = json.dumps([vars(r) for r in rejected], sort_keys=True)
        empty = pa.RecordBatch.from_pylist([], schema=self.columns)
        self._writer.write_batch(empty, custom_metadata={"rejected": text})
        self._writer.close()
        self._file.close()
        self._atomic.__exit__(None, None, None)

    def abandon(self) -> None:
        """Removes what was written."""
        self._writer.close()
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class Shard:
    """A shard read through a memory map: rows without a copy.

    Raises `UsageError` for a file that is none. Its offsets are checked here, once: Arrow reads
    wherever they point to.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._open()
        except (
            pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError
        ) as error:  # fmt: skip
            reason = shown(" ".join(str(error).split()), 200)
            raise UsageError(
                f"{path} is not a readable shard ({reason}); remove it and prepare again"
            ) from None
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])

    def _open(self) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        batches = [
            reader.get_batch_with_custom_metadata(k) for k in range(reader.num_record_batches)
        ]
        if not batches:
            raise ValueError("it has no record batch")
        for name, kind in FACTS.items():
            if reader.schema.field(name).type != kind:
                raise ValueError(f"its column {name} is no {kind}")
        for batch, _ in batches:
            batch.validate(full=True)
        self.spec = json.loads(reader.schema.metadata[b"spec"])
        self.modalities = list(self.spec["order"])
        for name in self.modalities:
            if not _is_stored(reader.schema.field(name).type):
                raise ValueError(f"its column {name} holds no bytes")
        self.batches = [batch for batch, _ in batches[:-1]]
        metadata = batches[-1].custom_metadata or {}
        self.rejected = [Rejection(**entry) for entry in json.loads(metadata[b"rejected"])]
        if not all(isinstance(text, str) for line in self.rejected for text in vars(line).values()):
            raise ValueError("its rejects are no texts")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def gaps(self) -> list[str]:
        """The columns in which a value is missing."""
        names = (*FACTS, *self.modalities)
        return [n for n in names if any(_has_gaps(batch.column(n)) for batch in self.batches)]

    def column(self, name: str) -> list:
        """All values of a column."""
        return [value for batch in self.batches for value in batch.column(name).to_pylist()]

    def value(self, row: int, name: str) -> Any:
        """One value: a buffer for binary columns, a list of buffers for lists of frames."""
        batch = int(np.searchsorted(self.starts, row, side="right")) - 1
        scalar = self.batches[batch].column(name)[row - int(self.starts[batch])]
        if pa.types.is_list(scalar.type):
            return [item.as_buffer() for item in scalar]
        return scalar.as_buffer()


def _is_stored(kind: pa.DataType) -> bool:
    """Whether a column has the type of a modality's: bytes of one length, or lists of bytes."""
    if pa.types.is_list(kind):
        return pa.types.is_binary(kind.value_type)
    return pa.types.is_fixed_size_binary(kind)


def _has_gaps(column: pa.Array) -> bool:
    """Whether a value is missing, or one in a list; an empty column's offsets may be anything."""
    if not len(column):
        return False
    inner = column.flatten() if pa.types.is_list(column.type) else column
    return bool(column.null_count or inner.null_count)
