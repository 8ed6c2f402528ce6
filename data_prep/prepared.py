"""A prepared folder: opening it, its splits, and its samples by position.

Refuses what is not complete or was made with another spec, and names the command that repairs it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.files import file_digest, read_table, write_table
from common.options import UsageError
from data_prep.shards import Shard
from data_prep.spec import spec_from_json
from data_prep.split import PARTS, make_split, misaligned_sources


def read_meta(folder: Path) -> dict:
    """The folder's meta.json, or an empty dictionary."""
    try:
        return json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{folder}/meta.json is damaged ({error}); remove {folder} and prepare again"
        ) from None


class Prepared:
    """The samples of a prepared folder, numbered by position in id order over all shards.

    Raises `UsageError` when the folder is absent, unfinished, or holds another spec than its name
    says or than `expected_hash`.
    """

    def __init__(self, folder: Path, expected_hash: str | None = None):
        self.folder, self.meta = Path(folder), read_meta(Path(folder))
        again = "prepare again: python -m data_prep --dataset {} --dataset_root <raw folder>"
        again = again.format(self.meta.get("dataset", "<name>"))
        if not self.meta.get("complete"):
            raise UsageError(f"{folder} is not a finished prepared folder; {again}")
        if expected_hash not in (None, self.meta["spec_hash"]):
            raise UsageError(
                f"{folder} holds spec {self.meta['spec_hash']}, not {expected_hash}; {again}"
            )
        self.spec = spec_from_json(self.meta)
        self.modalities = list(self.spec)
        self.label_names = self.meta["label_names"]
        self._open()

    def _open(self) -> None:
        self.shards = [Shard(path) for path in sorted(self.folder.glob("samples-*.arrow"))]
        self.starts = np.cumsum([0, *map(len, self.shards)])
        if int(self.starts[-1]) != self.meta["samples"]:
            raise UsageError(
                f"{self.folder} holds {self.starts[-1]} samples and its meta.json says"
                f" {self.meta['samples']}: a shard is missing; remove the folder and prepare again"
            )
        self.ids = [value for shard in self.shards for value in shard.column("id")]
        self.labels = np.asarray(
            [v for s in self.shards for v in s.column("label")], dtype=np.int64
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict:
        # Memory maps are opened anew in each process.
        return {"folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"])

    def value(self, position: int, modality: str) -> Any:
        """The stored bytes of one sample's modality (a list of them for frames)."""
        shard = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.shards[shard].value(position - int(self.starts[shard]), modality)

    def _split_path(self, rule: str, seed: int, stratify: bool) -> Path:
        plain = "" if stratify else "-plain"
        return self.folder / "splits" / f"{rule}{plain}-seed{seed}.csv"

    def split(self, rule: str, seed: int, stratify: bool = True) -> dict[str, np.ndarray]:
        """Positions of each part; the split's file is written on first use and read ever after."""
        path = self._split_path(rule, seed, stratify)
        if not path.exists():
            groups = [v for shard in self.shards for v in shard.column("group")]
            declared = [v for shard in self.shards for v in shard.column("part")]
            parts = make_split(
                rule,
                seed,
                self.ids,
                self.labels.tolist(),
                groups,
                declared,
                self.label_names,
                self.meta["split_second"],
                stratify,
            )
            write_table(path, ("id", "part"), list(zip(self.ids, parts)))
        rows = read_table(path)
        position = {sample: k for k, sample in enumerate(self.ids)}
        unknown = [row["id"] for row in rows if row["id"] not in position]
        if unknown or len({row["id"] for row in rows}) != len(rows) or len(rows) != len(self.ids):
            raise UsageError(
                f"{path} does not list each sample exactly once, so its parts may not be disjoint;"
                " remove it: it is written anew"
            )
        found = {part: [position[r["id"]] for r in rows if r["part"] == part] for part in PARTS}
        return {part: np.asarray(sorted(where), dtype=np.int64) for part, where in found.items()}

    def split_digest(self, rule: str, seed: int, stratify: bool = True) -> str:
        """SHA-256 of the split's file."""
        return file_digest(self._split_path(rule, seed, stratify))

    def pairs(
        self, rule: str, seed: int, part: str, modalities: list[str], stratify: bool = True
    ) -> tuple[np.ndarray, str]:
        """Sources of the misaligned samples of a part, and the SHA-256 of their file.

        [R, M] positions *within the part*, one column a modality in the order of `modalities`. The
        file holds the ids, one column a modality, and is written on first use.
        """
        positions = self.split(rule, seed, stratify)[part]
        path = self._split_path(rule, seed, stratify)
        path = path.with_name(f"{path.stem}.pairs-{part}.csv")
        if not path.exists():
            sources = misaligned_sources(self.labels[positions], len(self.modalities))
            ids = [[self.ids[positions[k]] for k in row] for row in sources]
            write_table(path, self.modalities, ids)
        place = {self.ids[position]: k for k, position in enumerate(positions)}
        rows = read_table(path)
        try:
            sources = np.asarray(
                [[place[row[m]] for m in modalities] for row in rows], dtype=np.int64
            )
        except KeyError as error:
            raise UsageError(
                f"{path} names {error}, not a sample of the {part} part; remove it"
            ) from None
        return sources, file_digest(path)
