"""Assembles a run's data, model and method, identically for training and evaluation."""

import os
import platform
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

import methods
from common.files import digest, file_digest
from common.options import UsageError, number
from common.program import cores
from data_prep import datasets
from data_prep.cache import choose
from data_prep.checksums import read_local
from data_prep.loader import Loader, train_statistics
from data_prep.modalities import Modality
from data_prep.modalities.base import Draw
from data_prep.prepare import check_source, prepare, prepared_folder
from data_prep.split import NoPairs, Split
from data_prep.store import Prepared, read_meta
from experiments.run.devices import join
from experiments.run.folder import RunFolder
from experiments.run.metrics import Protocol, collect
from experiments.run.resolve import Run
from experiments.run.settings import Settings
from experiments.run.start import load_initial
from methods.base import Facts, Features, Method
from models.build import Choice, Stream, build_classifier
from models.classifier import Execution
from models.ranks import Ranks

T = TypeVar("T")
MOST_THREADS = 1024  # with 100,000 threads torch takes many minutes to start


@dataclass
class Session:
    """Everything that training and evaluation need."""

    run: Run
    prepared: Prepared
    modalities: list[str]
    loaders: dict[str, Loader]
    ids: dict[str, list[str]]
    protocols: dict[str, Protocol]
    vocabulary: Path | None  # vocab.txt, for runs with text
    hashes: dict[str, str]
    method: Method
    ranks: Ranks | None = None  # if several processes train together

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first of several processes, which alone writes files."""
        return self.ranks.first(work) if self.ranks else work()

    def features(self, part: str) -> tuple[Features, torch.Tensor]:
        """`collect` of a part; on a GPU in larger batches, as no gradients take memory."""
        larger = 4 if self.method.model.device.type == "cuda" else 1
        size = larger * self.run.settings.batch_size
        return collect(self.method, self.loaders[part].batches(batch_size=size))


def choose_kernels(deterministic: bool = True, tf32: bool = False) -> None:
    """Selects torch's kernels: with a fixed order of additions, or the fastest ones.

    With the former, a run repeats to the last bit. On the CPU this matters for the gradient of
    indexing rows of a large tensor (MIDAS's swapped features). Operations without a deterministic
    GPU kernel warn. `tf32`: whether a GPU may round the factors of float32 products to 10 bits;
    torch's own choice would be to do so in convolutions only.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Filling uninitialized memory takes time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    for products in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
        products.fp32_precision = "tf32" if tf32 else "ieee"


def find_data(run: Run, args: Namespace) -> Prepared:
    """The run's prepared samples; prepares them from --dataset_root first if needed."""
    data_dir, source = Path(args.data_dir), run.manifest or run.dataset
    folder = prepared_folder(data_dir, run.dataset, run.spec)
    root = Path(args.dataset_root) if args.dataset_root else None
    try:  # the name is a hash of the manifest, which may have changed or been removed since the run
        unchanged = datasets.public_name(source) == run.dataset
    except UsageError:
        unchanged = False
    if read_meta(folder).get("complete"):
        prepared = Prepared(folder, run.spec_hash)
        if root or (run.manifest and unchanged):
            check_source(prepared, source, root, run.prep)
        return prepared
    if not unchanged:
        mend = f"restore the old file, or give the --data_dir that contains {run.dataset}"
        raise UsageError(f"{run.manifest} changed since this run: {mend}")
    if not root and not run.manifest and run.dataset != "demo":
        raise UsageError(
            f"no prepared {run.dataset} in {folder}: give --dataset_root <raw folder> to prepare"
            f" it, or --data_dir <folder> if it is elsewhere. {run.layout.SOURCE}"
        )
    max_bad = number("max_bad", args.max_bad, float, 0, 1)
    prepare(source, root, data_dir, run.prep, max_bad=max_bad)
    return Prepared(folder, run.spec_hash)


def assemble(run: Run, args: Namespace) -> Session:
    """Loads a run's data and builds its model and method."""
    s = run.settings
    choose_kernels(s.deterministic, s.precision == "tf32")
    device, ranks = join(args.devices)
    if s.precision == "tf32" and device.type != "cuda":
        raise UsageError("--precision tf32 needs a GPU; use float32 or bf16")
    if s.accumulate > 1 and ranks:
        raise UsageError("--accumulate does not work with several devices: they share each batch")
    if args.threads:
        torch.set_num_threads(number("threads", args.threads, int, 1, MOST_THREADS))
    if s.init_from:
        RunFolder(s.init_from).read_json("result.json")  # an error now, not after preparation
    prepared = ranks.in_turn(lambda: find_data(run, args)) if ranks else find_data(run, args)
    drawn = (s.split_rule, s.split_seed, s.stratify)
    modalities = methods.load(run.method).used_modalities(run.hparams, prepared.modalities)
    spec, parts = {m: run.spec[m] for m in modalities}, prepared.split(*drawn)
    hashes = {"data": digest(prepared.meta["shards"], 64), "split": prepared.split_digest(*drawn)}
    protocols = {part: protocol(prepared, s, part, modalities, hashes) for part in ("val", "test")}
    vocabulary = None
    if any(modality.inline for modality in spec.values()):
        vocabulary = prepared.vocabulary(*drawn)
        hashes["vocabulary"] = file_digest(vocabulary)
    if len(parts["train"]) < max(2, len(modalities)):
        raise UsageError(f"the training split has only {len(parts['train'])} samples: add data")
    how = (spec, s.size, s.batch_size, run.seed, worker_count(args, device), device)
    draw, share = Draw(s.size, vocabulary=vocabulary), ranks.size if ranks else 1
    cache = choose(args.cache, prepared, spec, draw, device, share)
    if cache != "off":
        place = f"on {device}" if cache == "device" else "in memory"
        print(f"note: samples are decoded once and kept {place} (--cache off)", file=sys.stderr)
    more = (s.last_batch == "keep", vocabulary, cache)
    loaders = {part: Loader(prepared, at, *how, *more) for part, at in parts.items()}
    ids = {part: [prepared.ids[k] for k in at] for part, at in parts.items()}

    def make_streams() -> dict[str, Stream]:
        known = partial(prepared.statistics, Split(*drawn))
        return {
            m: stream_of(kind, normalisation(m, kind, loaders["train"], known))
            for m, kind in spec.items()
        }

    streams = ranks.first(make_streams) if ranks else make_streams()
    for loader in loaders.values():
        loader.ranks = ranks
    execution = Execution(device, s.precision, s.compile, ranks, s.accumulate)
    facts = facts_of(run, prepared.labels[parts["train"]], len(prepared.label_names), device)
    method = build_method(run, streams, facts, execution)
    data = (run, prepared, modalities, loaders, ids, protocols, vocabulary, hashes)
    return Session(*data, method, ranks)


def worker_count(args: Namespace, device: torch.device) -> int:
    """Loader workers: on a GPU up to 8, leaving it a core; on the CPU the model needs the cores."""
    if args.num_workers:
        return number("num_workers", args.num_workers, int, 0)
    return min(8, max(1, cores() - 1)) if device.type == "cuda" else 0


def protocol(
    prepared: Prepared, s: Settings, part: str, modalities: list[str], hashes: dict[str, str]
) -> Protocol:
    """The `Protocol` of a split; adds the hashes of its pairs to `hashes`."""
    how = Split(s.split_rule, s.split_seed, s.stratify)
    sources = release = None
    if len(modalities) > 1:
        try:
            sources, hashes[f"pairs_{part}"] = prepared.pairs(how, part, modalities)
        except NoPairs as why:
            print(f"note: no misaligned metrics for the {part} split: {why}", file=sys.stderr)
    if len(modalities) == 2 == len(prepared.modalities):
        pairs = prepared.pairs(how, part, modalities, release=True)
        release, hashes[f"release_pairs_{part}"] = pairs
    return Protocol(sources, release, s.split_rule == "release")


def normalisation(
    name: str, modality: Modality, train: Loader, known: Callable
) -> tuple | str | None:
    """(mean, std) of a modality, as its dataset declares or measured on the training split.

    `known(key, measure)` keeps what was measured; see `Prepared.statistics`.
    """
    if modality.normalise == "train":
        key = f"statistics-{name}-{digest([repr(modality), train.samples.draw.size])}"
        return known(key, lambda: train_statistics(train.batches, name, modality))
    if modality.normalise == "none":
        *_, means = modality.values(next(iter(train.batches([0])))["inputs"][name])
        return [0.0] * means, [1.0] * means
    return modality.normalise


def stream_of(modality: Modality, constants: tuple | str | None) -> Stream:
    """The model's description of a modality, with its normalisation constants."""
    return Stream(normalise=constants, **modality.stream())


def facts_of(run: Run, labels: np.ndarray, classes: int, device: torch.device) -> Facts:
    """What the method gets to know; `labels` are those of the training part."""
    s, weights = run.settings, None
    if s.class_weights == "balanced":  # mean 1 over the samples; every class has some
        counts = np.bincount(labels, minlength=classes)
        weights = torch.tensor(len(labels) / (classes * counts), dtype=torch.float32, device=device)
    return Facts(run.seed, s.max_epochs, len(labels), classes, s.label_smoothing, weights)


def build_method(
    run: Run, streams: dict[str, Stream], facts: Facts, execution: Execution
) -> Method:
    """The run's method and model; initial weights depend on the run's seed only."""
    cls, s = methods.load(run.method), run.settings
    model = build_classifier(
        streams,
        facts.num_classes,
        Choice(
            s.encoder, s.spec_pool, s.audio_norm, s.weights, s.text_model, s.fusion, s.image_width
        ),
        heads=cls.has_unimodal_heads(run.hparams),
        seed=run.seed,
        execution=execution,
    )
    if s.init_from:
        load_initial(model, s.init_from)
    torch.manual_seed(run.seed)
    return cls(model, run.hparams, facts).to(execution.device)


def environment(session: Session) -> dict:
    """What a result depends on besides its configuration: versions, device, threads, hashes."""
    device, prepared = session.method.model.device, session.prepared
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    here = Path(__file__).parent
    described = subprocess.run(git, capture_output=True, text=True, cwd=here, check=False)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": session.ranks.size if session.ranks else 1,
        "commit": described.stdout.strip() or "not a git checkout",
        "spec_hash": session.run.spec_hash,
        "hashes": session.hashes,
        "data_tools": prepared.meta["tools"],
        "raw": {
            "root": read_local(prepared.folder).get("root", "unknown"),
            "candidates": prepared.meta["candidates_hash"],
        },
    }
