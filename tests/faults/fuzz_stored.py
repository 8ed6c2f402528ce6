"""Fuzzer targets: the files of prepared folders and of runs, pickles and arrays."""

import contextlib
import io
import json
import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fake_runs import fake_run
from fuzz_targets import Read, Target, check_message, checked, one_file

from common.files import CHECKSUM, file_digest, read_object, to_json, write_json, write_table
from common.options import UsageError
from data_prep.datasets import mosi
from data_prep.modalities import array, unpickle, unpickle_child
from data_prep.modalities.array import Array
from data_prep.modalities.audio import Audio
from data_prep.modalities.image import Image
from data_prep.shards import FACTS, Shard, schema, write_shard
from data_prep.spec import Rejection, spec_hash, spec_json
from data_prep.split import Split
from data_prep.store import Prepared, read_pool
from experiments.paper.kinds import RunSet
from experiments.report.reader import Reader
from experiments.run.folder import RunFolder
from experiments.run.resolve import resolve, run_from_config
from fixtures.features import Look
from fixtures.pickles import python2_pickle
from fixtures.trees import write_tree


def without_checksum(data: bytes) -> bytes:
    """A JSON object without checksum, as in older files, so that its content is read."""
    value = json.loads(data)
    value.pop(CHECKSUM, None)
    return to_json(value).encode()


# Prepared folders ---------------------------------------------------------------------------------

SPEC = {"audio": Audio(seconds=0.05, n_fft=16, hop=400), "image": Image(), "array": Array()}
SAMPLES = 12
RUNS = RunSet("demo", "Midas")


def write_prepared(folder: Path) -> Path:
    """A complete prepared folder of a few samples, with its split and pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = SPEC["audio"].shape
    values = {"audio": bytes(2 * rows * columns), "image": [b"jpeg"], "array": [b"a", b"b"]}
    values |= {"group": "", "part": "", "sources": "x", "duration_s": 1.0, "n_frames": 3}
    results = [{"id": f"s{k:02d}", "label": k % 2, "flags": ""} | values for k in range(SAMPLES)]
    rejected = Rejection("r", "r.wav", "unreadable", "why")
    write_shard(folder / "samples-00000.arrow", schema("demo", SPEC), [*results, rejected])
    meta = spec_json("demo", SPEC) | {
        "spec_hash": spec_hash("demo", SPEC), "complete": True, "label_names": ["cat", "dog"],
        "samples": SAMPLES, "split_second": 2 / 3, "release_cut": "test",
        "shards": {"samples-00000.arrow": file_digest(folder / "samples-00000.arrow")},
    }  # fmt: skip
    write_table(
        folder / "pool.csv", ("id", "key", "lost"), [(f"s{k:02d}", k % 2, "") for k in range(3)]
    )
    meta["tables"] = {"pool.csv": file_digest(folder / "pool.csv")}
    write_json(folder / "meta.json", meta)
    prepared = Prepared(folder)
    for part in ("train", "test"):
        prepared.pairs(Split("paper", 0), part, ["audio", "image"])
    return folder


def look_through(prepared: Prepared) -> None:
    """Reads from a prepared folder what training reads."""
    parts = prepared.split("paper", 0)
    for part in ("train", "test"):
        prepared.pairs(Split("paper", 0), part, ["audio", "image"])
    for position in parts["val"]:
        for modality in prepared.modalities:
            prepared.value(int(position), modality)
    prepared.vocabulary("paper", 0)


def of_prepared(name: str) -> Callable[[Path], list[bytes]]:
    """A file of a valid prepared folder."""

    def seeds(folder: Path) -> list[bytes]:
        data = (write_prepared(folder) / name).read_bytes()
        return [data, without_checksum(data)] if name.endswith(".json") else [data]

    return seeds


def prepared_target(name: str, weight: float = 4) -> Target:
    """A prepared folder with one fuzzed file."""

    def reader(folder: Path) -> Read:
        write_prepared(folder)

        def feed(data: bytes) -> None:
            (folder / name).write_bytes(data)
            look_through(Prepared(folder))

        return feed

    return Target(of_prepared(name), reader, weight)


def _shard(path: Path) -> Shard:
    shard = Shard(path)
    if shard.gaps:  # which a prepared folder refuses
        raise UsageError(f"{path} has missing values")
    for name in FACTS:
        assert None not in shard.column(name)
    for name in shard.modalities:
        for row in range(len(shard)):
            shard.value(row, name)
    words = [word for line in shard.rejected for word in vars(line).values()]
    assert all(isinstance(word, str) for word in words)
    return shard


# Runs ---------------------------------------------------------------------------------------------


def run_target(name: str) -> Target:
    """A finished run with one fuzzed file."""

    def seeds(folder: Path) -> list[bytes]:
        known = [fake_run(folder / str(k), RUNS, 1, known_log=k) for k in (False, True)]
        files = [run.file(name).read_bytes() for run in known]
        return files + [without_checksum(f) for f in files if name.endswith(".json")]

    def reader(folder: Path) -> Read:
        run = fake_run(folder, RUNS, 1)

        def feed(data: bytes) -> None:
            run.file(name).write_bytes(data)
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                found = Reader(folder)
                _, state = found.run(RUNS, 1)
                for key in ("test/acc", "val/acc", "time"):
                    found.values(RUNS, [1], key)
            text = said.getvalue().removesuffix("\n")
            if state == "unusable":
                raise UsageError(text)
            for line in text.split("\n") if text else ():
                check_message(line)

        return feed

    return Target(seeds, reader)


def _config_seeds(folder: Path) -> list[bytes]:
    (folder / "m.csv").write_text("id,label,audio,video\na,x,a.wav,a.mp4\n", encoding="utf-8")
    lines = (["--dataset", "demo"], ["--dataset", "cremad", "--method", "LFM", "--batch_size", "8"],
             ["--dataset", str(folder / "m.csv"), "--method", "Joint"])  # fmt: skip
    return [to_json(resolve(line, "")[0].config()).encode() for line in lines]


def _resolved(path: Path) -> Any:
    run = run_from_config(read_object(path))
    return run.config(), run.default_folder(Path("results"))


# Checkpoints --------------------------------------------------------------------------------------


def _checkpoint(folder: Path) -> bytes:
    import torch

    state = {
        "epoch": 3, "log": [{"epoch": 1, "val/acc": 0.5}], "hashes": {"split": "ab"},
        "method": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.int64)},
        "optimizers": [{"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1}]}],
    }  # fmt: skip
    RunFolder(folder).save("last.pt", state)
    return (folder / "last.pt").read_bytes()


def _inner_seeds(folder: Path) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_checkpoint(folder))) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        return [archive.read(name)]


def _inner(folder: Path) -> Read:
    """The pickle within a checkpoint, in an archive with the right checksum."""
    whole = _checkpoint(folder)

    def feed(data: bytes) -> dict:
        source, target = zipfile.ZipFile(io.BytesIO(whole)), io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name in source.namelist():
                fuzzed = name.endswith("data.pkl")
                archive.writestr(name, data if fuzzed else source.read(name))
        (folder / "last.pt").write_bytes(target.getvalue())
        return RunFolder(folder).load("last.pt")

    return feed


# Pickles and arrays -------------------------------------------------------------------------------

TINY = Look((3, 2, 2), aligned=(2, 2, 2), unaligned=(2, 3, 4), shortest=1)


@contextlib.contextmanager
def limited_memory(size: int) -> Iterator[None]:
    """Limits this process to `size` bytes more than it has now, as for the child."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def load_here(path: Path) -> Any:
    """Like `unpickle.load`, but in this process: the child's classes, then the parent's."""
    child, folder = unpickle_child, path.parent / "out"
    folder.mkdir(exist_ok=True)
    try:
        with limited_memory(unpickle.MEMORY):
            child.convert(path, folder)
    except Exception as error:  # the child's main block turns each into a line
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise child.Refused("".join(c if c.isprintable() else "?" for c in line)[:300]) from None
    try:
        return unpickle.read_result(folder, path)
    except Exception as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _pickle_seeds(folder: Path) -> list[bytes]:
    values = {
        "a": np.arange(6, dtype=">f4").reshape(2, 3), "b": [np.float64(2.5), np.int64(3), b"\xff"],
        "c": np.asarray(["x", "yy"]), "d": np.asfortranarray(np.ones((2, 2), bool)),
        "e": np.asarray([b"z", None, 1.5], dtype=object), "f": (True, None, "\u00e9", 1 << 70),
    }  # fmt: skip
    seeds = [pickle.dumps(values, protocol=protocol) for protocol in (0, 2, 4, 5)]
    plain = {"a": np.zeros((2, 2)), "b": [1, 2.5, "x"], "c": {"d": (1,)}}
    return [*seeds, python2_pickle(plain)]


def _mosi_seeds(files: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        truth = folder / "t.csv"
        write_tree("mosi", folder / "r", 10, truth_path=truth, layout=files, look=TINY)
        return [next((folder / "r").rglob(mosi.FILES.variants[files].names[0])).read_bytes()]

    return seeds


def in_mosi(files: str) -> Callable[[Path], Read]:
    """Sets up a scan of CMU-MOSI that reads its pickle in this process."""

    def reader(folder: Path) -> Read:
        unpickle.load = array.load = load_here  # this process does nothing else
        settings = mosi.Settings(feature_files=files)
        path = folder / mosi.FILES.variants[files].names[0]

        def feed(data: bytes) -> Any:
            path.write_bytes(data)
            array.opened.cache_clear()
            scan = checked(mosi.scan(folder, settings))
            for candidate in scan.candidates[:2]:
                for m, spec in mosi.spec(settings).items():
                    spec.extract([path], candidate.inline[m], None)
            return scan

        return feed

    return reader


def _npy_seeds(folder: Path) -> list[bytes]:
    arrays = [np.ones((3, 2), np.float32), np.arange(4), np.asfortranarray(np.eye(3)), np.zeros(0)]
    made = []
    for values in arrays:
        out = io.BytesIO()
        np.save(out, values)
        made.append(out.getvalue())
    return made


TARGETS = {
    "prepared.meta": prepared_target("meta.json"),
    "prepared.split": prepared_target("splits/paper-seed0.csv", 3),
    "prepared.pairs": prepared_target("splits/paper-seed0.pairs-test.csv", 3),
    "prepared.pool": Target(of_prepared("pool.csv"), one_file("pool.csv", read_pool)),
    "prepared.local": prepared_target(".local.json", 3),
    "arrow.shard": Target(of_prepared("samples-00000.arrow"), one_file("a.arrow", _shard), 6),
    **{
        f"run.{Path(name).stem}": run_target(name)
        for name in ("config.json", "env.json", "result.json", "log.jsonl")
    },
    "run.resolved": Target(_config_seeds, one_file("config.json", _resolved)),
    "run.checkpoint": Target(
        lambda folder: [_checkpoint(folder)],
        one_file("last.pt", lambda path: RunFolder(path.parent).load("last.pt")), 1,
    ),
    "run.state": Target(_inner_seeds, _inner, 1),
    "pickle.child": Target(_pickle_seeds, one_file("a.pkl", load_here), 20),
    "pickle.mosi": Target(_mosi_seeds("mmsa_aligned"), in_mosi("mmsa_aligned")),
    "pickle.mosi.old": Target(_mosi_seeds("mult_unaligned"), in_mosi("mult_unaligned")),
    "pickle.load": Target(_pickle_seeds, one_file("a.pkl", unpickle.load), 0.05),
    "array.npy": Target(
        _npy_seeds, one_file("a.npy", lambda path: Array(2).extract([path], None, None)),
    ),
}  # fmt: skip
