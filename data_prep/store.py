"""Opens a prepared folder and gives access to its splits and samples.

Raises an error with the repair command if a folder is incomplete, damaged or of another spec.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from common.files import (
    file_digest,
    locked,
    read_columns,
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
    Split,
    check_parts,
    make_split,
    misaligned_sources,
    release_partners,
    release_parts,
)

MAX_DIGITS = 80  # a class with more digits stays text: int() accepts at most 4,300
NEEDED = {  # required keys of meta.json
    "spec_hash": str, "label_names": list, "samples": int, "shards": dict, "tables": dict,
    "split_second": float, "release_cut": str,
}  # fmt: skip
CHECKSUMS = ".checksums.json"  # in splits/: file name of pairs or vocabulary -> SHA-256
VOCABULARY = ".vocab.txt"  # suffix after a split's name: the vocabulary of its training texts


def read_meta(folder: Path) -> dict:
    """The folder's meta.json, or {} if it is missing."""
    try:
        return read_object(folder / "meta.json")
    except FileNotFoundError:
        return {}
    except UsageError as error:
        raise UsageError(f"{error}; remove {folder} and prepare again") from None


def write_pool(path: Path, pool: list[Listed]) -> None:
    """Writes the rows of the raw data's lists: id, class as listed, whether it is a header."""
    rows = [(row.id, row.key, "header" if row.header else "") for row in pool]
    write_table(path, ("id", "key", "lost"), rows)


def read_pool(path: Path) -> list[Listed]:
    """Reads what `write_pool` wrote; classes become numbers again if all of them are integers."""
    if not path.exists():
        raise UsageError(f"{path} is missing: remove {path.parent} and prepare again")
    rows = read_table(path, ("id", "key", "lost"))
    whole = all(row["key"].isdecimal() and len(row["key"]) < MAX_DIGITS for row in rows)
    return [
        Listed(row["id"], int(row["key"]) if whole else row["key"], bool(row["lost"]))
        for row in rows
    ]


class Prepared:
    """The samples of a prepared folder, indexed by position in id order over all shards.

    Raises `UsageError` if the folder is missing, unfinished or damaged, or if its spec differs from
    `expected_hash`. `check`: whether to hash shards that may have changed.
    """

    def __init__(self, folder: Path, expected_hash: str | None = None, check: bool = True):
        self.folder, self.meta = Path(folder), read_meta(Path(folder))
        meta, about = self.meta, self.folder / "meta.json"
        unknown = f"python -m data_prep --dataset {meta.get('dataset', '<name>')}"
        unknown += " --dataset_root <raw folder>"
        again = f"prepare again: {read_local(self.folder).get('command', unknown)}"

        def refuse(problem: str) -> NoReturn:
            raise UsageError(f"{problem}; {again}")

        if not meta.get("complete") or "shards" not in meta:
            refuse(f"{folder} is not a finished prepared folder")
        wrong = [key for key, kind in NEEDED.items() if not isinstance(meta.get(key), kind)]
        if not wrong:
            wrong += ["label_names"] * (not all(isinstance(n, str) for n in meta["label_names"]))
            wrong += ["shards"] * (not all(map(SHARD.fullmatch, meta["shards"])))
        if wrong:
            refuse(f"{about} is damaged (no {wrong[0]}): remove {folder}")
        if expected_hash not in (None, meta["spec_hash"]):
            refuse(f"{folder} contains spec {meta['spec_hash']}, not {expected_hash}")
        try:
            self.spec = spec_from_json(meta)
        except UsageError as error:
            refuse(f"{about}: {error}")
        self.modalities, self.label_names = list(self.spec), meta["label_names"]
        paths = [self.folder / name for name in sorted(meta["shards"])]
        for path in paths:
            if not path.exists():
                refuse(f"{path} is missing")
        bad = changed(self.folder, meta["shards"]) if check else []
        if bad:
            why = f"its SHA-256 differs from meta.json ({len(bad)} of {len(paths)} shards)"
            refuse(f"{self.folder / bad[0]} changed since it was prepared: {why}")
        self.shards = [Shard(path) for path in paths]
        self.starts = np.cumsum([0, *map(len, self.shards)])
        if int(self.starts[-1]) != meta["samples"]:
            held = f"contains {self.starts[-1]} samples, but meta.json says {meta['samples']}"
            refuse(f"{folder} {held}: remove the folder")
        for shard in self.shards:
            if not set(self.spec) <= set(shard.modalities):
                refuse(f"{shard.path} lacks a modality of meta.json: remove it")
            for name in shard.gaps:
                refuse(f"{shard.path} has missing values in {name}: remove it")
        self.ids = self._column("id")
        labels = [shard.facts.column("label").to_numpy() for shard in self.shards]
        self.labels = np.concatenate(labels or [[]]).astype(np.int64)
        self._split = lru_cache(4)(self._drawn)

    def _column(self, name: str) -> list:
        return [value for shard in self.shards for value in shard.column(name)]

    def __len__(self) -> int:
        return len(self.ids)

    def sources(self) -> set[str]:
        """The raw files of all samples; those of one sample are joined by `SEPARATOR`."""
        found = (shard.facts.column("sources").unique() for shard in self.shards)
        return {source for sources in found for source in sources.to_pylist()}

    def __reduce__(self) -> tuple:
        # Each process opens its own memory maps; checksums were checked in the first one.
        return Prepared, (self.folder, None, False)

    def value(self, position: int, modality: str) -> Any:
        """The stored bytes of one modality of a sample (a list of them for frames)."""
        shard = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.shards[shard].value(position - int(self.starts[shard]), modality)

    def texts(self, positions: Iterable[int], modality: str) -> Iterator[str]:
        """The stored texts of samples; a pair gives two texts."""
        for position in positions:
            yield from (bytes(text).decode() for text in self.value(int(position), modality))

    # Splits and the files derived from them -------------------------------------------------------

    def splits(self) -> dict[Path, Split]:
        """The files of the splits drawn so far."""
        found = {p: Split.of_file(p.name) for p in (self.folder / "splits").glob("*.csv")}
        return {path: split for path, split in sorted(found.items()) if split}

    def split(self, rule: str, seed: int, stratify: bool = True) -> dict[str, np.ndarray]:
        """The positions of each part; the first call writes the split file, later calls read it.

        Parts are in id order, for the rule `release` in the order of its draw. Only with `release`
        a sample may be in no part: if the lists lack it, or the release loses its row.
        """
        return self._split(Split(rule, seed, stratify))

    def _drawn(self, how: Split) -> dict[str, np.ndarray]:
        path = self._split_file(how, ".csv")
        if not path.exists():
            write_table(path, ("id", "part"), self.draw(how))
        ids, parts = [], []
        for line, (sample, part) in enumerate(read_columns(path, ("id", "part")), 2):
            if part not in PARTS and not (how.rule == "release" and part == ""):
                raise UsageError(
                    f"{path}, line {line}: part {part[:80]!r} is not in {', '.join(PARTS)}"
                )
            ids.append(sample)
            parts.append(part)
        places: Sequence[int] = range(len(ids))
        if ids != self.ids:  # other rules than `release` keep the order of the samples
            place = {sample: k for k, sample in enumerate(self.ids)}
            places = [place.pop(sample, -1) for sample in ids]
            if place or -1 in places:
                raise UsageError(
                    f"{path} does not list each sample exactly once, so its parts may overlap;"
                    " remove it, and it will be written again"
                )
        listed, drawn = np.asarray(places, dtype=np.int64), np.asarray(parts)
        found = {part: listed[drawn == part] for part in PARTS}
        return found if how.rule == "release" else {p: np.sort(k) for p, k in found.items()}

    def draw(self, how: Split) -> list[tuple[str, str]]:
        """(id, part) of each sample."""
        meta, names, labels = self.meta, self.label_names, self.labels.tolist()
        if how.rule != "release":
            facts = (self.ids, labels, self._column("group"), self._column("part"))
            parts = make_split(how, *facts, names, meta["split_second"])
            return list(zip(self.ids, parts))
        path = self.folder / "pool.csv"
        pool = read_pool(path)
        if meta["tables"].get(path.name) != file_digest(path):
            raise UsageError(
                f"{path} changed since it was prepared: remove {self.folder} and prepare again"
            )
        rows = release_parts(pool, self.ids, how.seed, meta["split_second"], meta["release_cut"])
        part_of = dict(rows)
        check_parts([part_of[sample] for sample in self.ids], labels, names, how)
        return rows

    def split_digest(self, rule: str, seed: int, stratify: bool = True) -> str:
        """SHA-256 of the split's file."""
        return file_digest(self._split_file(Split(rule, seed, stratify), ".csv"))

    def vocabulary(self, rule: str, seed: int, stratify: bool = True) -> Path | None:
        """The vocab.txt used to tokenize texts; None if there is no text modality.

        A built vocabulary is made on first use, from the training texts of the split only.
        """
        inline = [(name, kind) for name, kind in self.spec.items() if kind.inline]
        if not inline:
            return None
        name, kind = inline[0]
        if not kind.built_vocabulary:
            return self.folder / "vocab.txt"
        from data_prep.modalities.vocabulary import build_vocabulary

        texts = self.texts(self.split(rule, seed, stratify)["train"], name)
        words = kind.stored_settings()["words"]

        def write(path: Path) -> None:
            write_text(path, build_vocabulary(texts, words).decode())

        return self._kept(self._split_file(Split(rule, seed, stratify), VOCABULARY), write)

    def pairs(
        self, how: Split, part: str, modalities: list[str], release: bool = False
    ) -> tuple[np.ndarray, str]:
        """Sources of the misaligned samples of a part, and the SHA-256 of their file.

        [R, M] positions *within the part*, one column per modality in the order of `modalities`.
        The file contains the ids and is written on first use. `release`: drawn as in the official
        release, see `split.release_partners`; only for two modalities.
        """
        positions = self.split(*how)[part]
        ids = [self.ids[position] for position in positions.tolist()]

        def write(path: Path) -> None:
            if release:
                sources = np.stack([np.arange(len(ids)), release_partners(len(ids))], 1)
            else:
                sources = misaligned_sources(self.labels[positions], len(self.modalities))
            write_table(path, self.modalities, [[ids[k] for k in row] for row in sources])

        kind = "release-pairs" if release else "pairs"
        path = self._kept(self._split_file(how, f".{kind}-{part}.csv"), write)
        place = {sample: k for k, sample in enumerate(ids)}
        try:
            cells = [place[cell] for row in read_columns(path, modalities) for cell in row]
        except KeyError as error:
            raise UsageError(
                f"{path} names {str(error)[:80]}, which is not in the {part} part; remove it"
            ) from None
        sources = np.asarray(cells, dtype=np.int64).reshape(-1, len(modalities))
        return sources, file_digest(path)

    def statistics(
        self, how: Split, name: str, measure: Callable[[], tuple[list, list]]
    ) -> tuple[list, list]:
        """The (mean, std) that `measure` returns for the training part, measured on first use."""

        def write(path: Path) -> None:
            write_json(path, dict(zip(("mean", "std"), measure(), strict=True)))

        found = read_object(self._kept(self._split_file(how, f".{name}.json"), write))
        return found["mean"], found["std"]

    def _split_file(self, how: Split, ending: str) -> Path:
        return self.folder / "splits" / f"{how.stem}{ending}"

    def _kept(self, path: Path, write: Any) -> Path:
        """Returns the file; on first use, writes it with `write(path)` and records its SHA-256.

        Raises `UsageError` if the file no longer matches. (Split files need no record: their ids
        and parts are checked on reading, and each run stores their SHA-256.)
        """
        noted = path.with_name(CHECKSUMS)
        sums = read_object(noted) if noted.exists() else {}
        if not path.exists() or path.name not in sums:
            with locked(path.with_name(".lock"), f"another process writes {path.parent}", True):
                if not path.exists():
                    write(path)
                sums = read_object(noted) if noted.exists() else {}
                write_json(noted, sums | {path.name: file_digest(path)})
        elif (now := file_digest(path)) != sums[path.name]:
            raise UsageError(
                f"{path} changed since it was written: its SHA-256 was {sums[path.name][:12]}..."
                f" and is now {now[:12]}...; remove it, and it will be written again"
            )
        return path
