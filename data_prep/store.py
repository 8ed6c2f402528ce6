"""A prepared folder: opening it, its splits, and its samples by position.

Refuses what is not complete or was made with another spec, and names the command that repairs it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.files import (
    file_digest,
    locked,
    read_object,
    read_table,
    write_json,
    write_table,
    write_text,
)
from common.options import UsageError
from data_prep.checksums import changed, read_local
from data_prep.shards import SHARD, Shard
from data_prep.spec import Listed, spec_from_json
from data_prep.split import (
    PARTS,
    RULES,
    check_parts,
    make_split,
    misaligned_sources,
    release_partners,
    release_parts,
)

MAX_DIGITS = 80  # a class with more digits stays text: int() refuses over 4,300
# What meta.json tells that its readers need.
NEEDED = {
    "spec_hash": str, "label_names": list, "samples": int, "shards": dict, "tables": dict,
    "split_second": float, "release_cut": str,
}  # fmt: skip
# The file of a split: rule, whether it is not stratified, and seed.
SPLIT_NAME = re.compile(rf"({'|'.join(RULES)})(-plain)?-seed(\d+)\.csv", re.ASCII)
CHECKSUMS = ".checksums.json"  # in splits/: pairs' or vocabulary's file name -> SHA-256
VOCABULARY = ".vocab.txt"  # behind a split's name: the vocabulary of its train part's texts


def read_meta(folder: Path) -> dict:
    """The folder's meta.json, or an empty dictionary."""
    try:
        return read_object(folder / "meta.json")
    except FileNotFoundError:
        return {}
    except UsageError as error:
        raise UsageError(f"{error}; remove {folder} and prepare again") from None


def _check_meta(folder: Path, meta: dict) -> None:
    """Raises `UsageError` for a finished folder's meta.json that is damaged."""
    wrong = [key for key, kind in NEEDED.items() if not isinstance(meta.get(key), kind)]
    if not wrong:
        wrong += ["label_names"] * (not all(isinstance(n, str) for n in meta["label_names"]))
        wrong += ["shards"] * (not all(map(SHARD.fullmatch, meta["shards"])))
    if wrong:
        raise UsageError(
            f"{folder / 'meta.json'} is damaged (no {wrong[0]}); remove {folder} and prepare again"
        )


def write_pool(path: Path, pool: list[Listed]) -> None:
    """The rows of the raw data's lists: id, class as written there, and whether it is a header."""
    rows = [(row.id, row.key, "header" if row.header else "") for row in pool]
    write_table(path, ("id", "key", "lost"), rows)


def read_pool(path: Path) -> list[Listed]:
    """What `write_pool` wrote; classes that are all whole numbers are numbers again."""
    if not path.exists():
        raise UsageError(f"{path} is missing: remove {path.parent} and prepare again")
    rows = read_table(path, ("id", "key", "lost"))
    whole = all(row["key"].isdecimal() and len(row["key"]) < MAX_DIGITS for row in rows)
    return [
        Listed(row["id"], int(row["key"]) if whole else row["key"], bool(row["lost"]))
        for row in rows
    ]


class Prepared:
    """The samples of a prepared folder, numbered by position in id order over all shards.

    Raises `UsageError` when the folder is absent, unfinished, or holds another spec than its name
    says or than `expected_hash`.
    """

    def __init__(self, folder: Path, expected_hash: str | None = None, check: bool = True):
        self.folder, self.meta = Path(folder), read_meta(Path(folder))
        name = self.meta.get("dataset", "<name>")
        unknown = f"python -m data_prep --dataset {name} --dataset_root <raw folder>"
        again = f"prepare again: {read_local(self.folder).get('command', unknown)}"
        if not self.meta.get("complete") or "shards" not in self.meta:
            raise UsageError(f"{folder} is not a finished prepared folder; {again}")
        _check_meta(self.folder, self.meta)
        if expected_hash not in (None, self.meta["spec_hash"]):
            raise UsageError(
                f"{folder} holds spec {self.meta['spec_hash']}, not {expected_hash}; {again}"
            )
        try:
            self.spec = spec_from_json(self.meta)
        except UsageError as error:
            raise UsageError(f"{self.folder / 'meta.json'}: {error}; {again}") from None
        self.modalities = list(self.spec)
        self.label_names = self.meta["label_names"]
        names = sorted(self.meta["shards"])
        lost = [name for name in names if not (self.folder / name).exists()]
        if lost:
            raise UsageError(f"{self.folder / lost[0]} is missing; {again}")
        wrong = changed(self.folder, self.meta["shards"]) if check else []
        if wrong:
            raise UsageError(
                f"{self.folder / wrong[0]} changed since it was prepared: its SHA-256 is not the"
                f" one in meta.json ({len(wrong)} shards of {len(names)}); {again}"
            )
        self._open(names, again)

    def _open(self, names: list[str], again: str) -> None:
        self.shards = [Shard(self.folder / name) for name in names]
        self.starts = np.cumsum([0, *map(len, self.shards)])
        if int(self.starts[-1]) != self.meta["samples"]:
            raise UsageError(
                f"{self.folder} holds {self.starts[-1]} samples and its meta.json says"
                f" {self.meta['samples']}: remove the folder and {again}"
            )
        unfit = [s.path for s in self.shards if not set(self.spec) <= set(s.modalities)]
        if unfit:
            raise UsageError(f"{unfit[0]} lacks a modality of meta.json: remove it and {again}")
        gap = next(((s.path, g) for s in self.shards for g in s.gaps()), None)
        if gap:
            raise UsageError(f"{gap[0]} lacks values of {gap[1]}: remove it and {again}")
        self.ids = [value for shard in self.shards for value in shard.column("id")]
        self.labels = np.asarray(
            [v for s in self.shards for v in s.column("label")], dtype=np.int64
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict:
        # Memory maps are opened anew in each process; the checksums were looked at in the first.
        return {"folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"], check=False)

    def value(self, position: int, modality: str) -> Any:
        """The stored bytes of one sample's modality (a list of them for frames)."""
        shard = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.shards[shard].value(position - int(self.starts[shard]), modality)

    def _keep(self, path: Path, write: Callable[[], None]) -> None:
        """Lets `write` make a file that follows from a split on first use, and notes its SHA-256.

        Raises `UsageError` where the file is not what was noted. (A split's own file needs no note:
        whatever it is, its ids and parts are looked at, and each run knows its SHA-256.)
        """
        noted = path.with_name(CHECKSUMS)
        sums = read_object(noted) if noted.exists() else {}
        if not path.exists() or path.name not in sums:
            with locked(path.with_name(".lock"), f"another process writes {path.parent}", True):
                if not path.exists():
                    write()
                sums = read_object(noted) if noted.exists() else {}
                write_json(noted, sums | {path.name: file_digest(path)})
        elif (now := file_digest(path)) != sums[path.name]:
            raise UsageError(
                f"{path} changed since it was written: it had the SHA-256 {sums[path.name][:12]}..."
                f" then, and has {now[:12]}... now; remove it: it is written anew"
            )

    def _split_path(self, rule: str, seed: int, stratify: bool) -> Path:
        plain = "" if stratify else "-plain"
        return self.folder / "splits" / f"{rule}{plain}-seed{seed}.csv"

    def splits(self) -> dict[Path, tuple[str, int, bool]]:
        """The files of the splits that were drawn, each with the arguments of `split`."""
        found = ((p, SPLIT_NAME.fullmatch(p.name)) for p in (self.folder / "splits").glob("*.csv"))
        return {p: (name[1], int(name[3]), not name[2]) for p, name in sorted(found) if name}

    def split(self, rule: str, seed: int, stratify: bool = True) -> dict[str, np.ndarray]:
        """Positions of each part; the split's file is written on first use and read ever after.

        Parts are in the order of ids, under the rule `release` in that of its draw. There alone a
        sample may stand in no part: one that the lists lack, or whose row the release loses.
        """
        path = self._split_path(rule, seed, stratify)
        if not path.exists():
            write_table(path, ("id", "part"), self.draw(rule, seed, stratify))
        rows = read_table(path, ("id", "part"))
        position = {sample: k for k, sample in enumerate(self.ids)}
        parts = (*PARTS, "") if rule == "release" else PARTS
        for line, row in enumerate(rows, 2):
            if row["part"] not in parts:
                raise UsageError(
                    f"{path}, line {line}: part {row['part'][:80]!r} is none of {', '.join(PARTS)}"
                )
        unknown = [row["id"] for row in rows if row["id"] not in position]
        if unknown or len({row["id"] for row in rows}) != len(rows) or len(rows) != len(self.ids):
            raise UsageError(
                f"{path} does not list each sample exactly once, so its parts may not be disjoint;"
                " remove it: it is written anew"
            )
        found = {part: [position[r["id"]] for r in rows if r["part"] == part] for part in PARTS}
        order = list if rule == "release" else sorted
        return {part: np.asarray(order(where), dtype=np.int64) for part, where in found.items()}

    def draw(self, rule: str, seed: int, stratify: bool) -> list[tuple[str, str]]:
        """(id, part) of each sample."""
        labels = self.labels.tolist()
        if rule == "release":
            meta, path = self.meta, self.folder / "pool.csv"
            pool = read_pool(path)
            if meta["tables"].get(path.name) != file_digest(path):
                raise UsageError(
                    f"{path} changed since it was prepared: remove {self.folder} and prepare again"
                )
            rows = release_parts(pool, self.ids, seed, meta["split_second"], meta["release_cut"])
            part_of = dict(rows)
            parts, flags = [part_of[sample] for sample in self.ids], f"--split_seed {seed}"
            check_parts(parts, labels, self.label_names, f"--split_rule {rule} {flags}")
            return rows
        groups, declared = (
            [v for shard in self.shards for v in shard.column(name)] for name in ("group", "part")
        )
        second, names = self.meta["split_second"], self.label_names
        return list(
            zip(
                self.ids,
                make_split(rule, seed, self.ids, labels, groups, declared, names, second, stratify),
            )
        )

    def vocabulary(self, rule: str, seed: int, stratify: bool = True) -> Path | None:
        """The vocab.txt by which texts are tokens; None where there is no text.

        One that is built is made on first use, of the texts of the split's train part alone.
        """
        inline = [(name, kind) for name, kind in self.spec.items() if kind.inline]
        if not inline:
            return None
        name, kind = inline[0]
        if not kind.built_vocabulary:
            return self.folder / "vocab.txt"
        path = self._split_path(rule, seed, stratify)
        path = path.with_name(path.stem + VOCABULARY)
        train = self.split(rule, seed, stratify)["train"]

        def write() -> None:
            from data_prep.modalities.vocabulary import build_vocabulary

            write_text(path, build_vocabulary(self.texts(train, name), kind.words).decode())

        self._keep(path, write)
        return path

    def texts(self, positions: Iterable[int], modality: str) -> Iterator[str]:
        """The stored texts of samples, those of a pair one by one."""
        for position in positions:
            yield from (bytes(text).decode() for text in self.value(int(position), modality))

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

        def write() -> None:
            sources = misaligned_sources(self.labels[positions], len(self.modalities))
            ids = [[self.ids[positions[k]] for k in row] for row in sources]
            write_table(path, self.modalities, ids)

        self._keep(path, write)
        return self._read_pairs(path, positions, part, modalities)

    def release_pairs(
        self, rule: str, seed: int, part: str, modalities: list[str], stratify: bool = True
    ) -> tuple[np.ndarray, str]:
        """As `pairs`, for the official release's way: `split.release_partners`, two modalities."""
        positions = self.split(rule, seed, stratify)[part]
        path = self._split_path(rule, seed, stratify)
        path = path.with_name(f"{path.stem}.release-pairs-{part}.csv")

        def write() -> None:
            partners = release_partners(len(positions))
            names = [self.ids[position] for position in positions]
            write_table(path, self.modalities, [(n, names[j]) for n, j in zip(names, partners)])

        self._keep(path, write)
        return self._read_pairs(path, positions, part, modalities)

    def _read_pairs(
        self, path: Path, positions: np.ndarray, part: str, modalities: list[str]
    ) -> tuple[np.ndarray, str]:
        """A file of ids, one column a modality, as places within the part, and its SHA-256."""
        place = {self.ids[position]: k for k, position in enumerate(positions)}
        rows = read_table(path, modalities)
        try:
            sources = np.asarray(
                [[place[row[m]] for m in modalities] for row in rows], dtype=np.int64
            )
        except KeyError as error:
            raise UsageError(
                f"{path} names {str(error)[:80]}, not a sample of the {part} part; remove it"
            ) from None
        return sources, file_digest(path)
