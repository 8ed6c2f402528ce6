"""Puts a run's data, model and method together, the same way for training and for evaluation."""

import os
import platform
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import methods
from common.files import digest, file_digest
from common.options import UsageError, number
from data_prep import datasets
from data_prep.checksums import read_local
from data_prep.loader import Loader, train_statistics
from data_prep.modalities import Modality
from data_prep.prepare import check_source, prepare, prepared_folder
from data_prep.split import NoPairs, Split
from data_prep.store import Prepared, read_meta
from experiments.run.metrics import Protocol
from experiments.run.resolve import Run
from experiments.run.settings import Settings
from methods.base import Facts, Method
from models.build import Choice, Stream, build_classifier
from models.classifier import Execution

MOST_THREADS = 1024  # with 100,000 torch is busy for many minutes before it begins


@dataclass
class Session:
    """Everything that a run works with."""

    run: Run
    prepared: Prepared
    modalities: list[str]
    loaders: dict[str, Loader]
    ids: dict[str, list[str]]
    protocols: dict[str, Protocol]
    vocabulary: Path | None  # where the run has a text: the vocab.txt of its tokens
    hashes: dict[str, str]
    method: Method


def pick_device(devices: str) -> torch.device:
    """The device of a `--devices` value; says so when there is no CUDA device."""
    if devices == "cpu":
        return torch.device("cpu")
    if not devices.isdigit():
        several = "several devices in one run are not supported yet; " if "," in devices else ""
        raise UsageError(f"--devices {devices!r}: {several}give one CUDA device's number, or cpu")
    if not torch.cuda.is_available():
        print("note: no CUDA device here, using the CPU", file=sys.stderr)
        return torch.device("cpu")
    if int(devices) >= torch.cuda.device_count():
        raise UsageError(
            f"--devices {devices}: the last CUDA device here is {torch.cuda.device_count() - 1}"
        )
    return torch.device("cuda", int(devices))


def make_deterministic() -> None:
    """Equal runs end in equal bits: no kernel may add in whatever order its threads arrive.

    That holds for the CPU too: with several threads, the gradient of picking rows of a large tensor
    (MIDAS's swapped features) is otherwise summed by atomic additions. An operation that has no
    deterministic kernel on a GPU warns.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time and changes no result
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def find_data(run: Run, args: Namespace) -> Prepared:
    """The run's prepared samples; prepares them first from --dataset_root where needed.

    What is prepared is held against the root or the manifest that the user names. Raises
    `UsageError` where it was made from other files, and where there is nothing to prepare from.
    """
    data_dir, source = Path(args.data_dir), run.manifest or run.dataset
    folder = prepared_folder(data_dir, run.dataset, run.spec)
    root = Path(args.dataset_root) if args.dataset_root else None
    if read_meta(folder).get("complete"):
        # The csv of a run that is only evaluated may have changed since, or be gone.
        if root or (run.manifest and _current_name(run.manifest) == run.dataset):
            check_source(folder, source, root, run.prep)
    else:
        if root is None and not run.manifest and run.dataset != "demo":
            raise UsageError(
                f"no prepared {run.dataset} in {folder}; --dataset_root <raw folder> prepares it"
                f" first, or --data_dir <where it is>. {run.layout.SOURCE}"
            )
        if run.manifest and _current_name(run.manifest) != run.dataset:
            raise UsageError(
                f"{run.manifest} changed since this run: put the former file back, or give the"
                f" --data_dir that holds {run.dataset}"
            )
        max_bad = number("max_bad", args.max_bad, float, 0, 1)
        prepare(source, root, data_dir, run.prep, max_bad=max_bad)
    return Prepared(folder, run.spec_hash)


def _current_name(manifest: str) -> str:
    """The data set that a manifest is by its content of today; "" where it cannot be read."""
    try:
        return datasets.public_name(manifest)
    except UsageError:
        return ""


def assemble(run: Run, args: Namespace) -> Session:
    """Data, model and method of a run."""
    make_deterministic()
    device = pick_device(args.devices)
    if args.threads:
        torch.set_num_threads(number("threads", args.threads, int, 1, MOST_THREADS))
    prepared = find_data(run, args)
    cls, s = methods.load(run.method), run.settings
    modalities = cls.used_modalities(run.hparams, prepared.modalities)
    spec = {m: run.spec[m] for m in modalities}
    parts = prepared.split(s.split_rule, s.split_seed, s.stratify)
    hashes = {"data": digest(prepared.meta["shards"], 64)}
    hashes |= {"split": prepared.split_digest(s.split_rule, s.split_seed, s.stratify)}
    protocols = {part: protocol(prepared, s, part, modalities, hashes) for part in ("val", "test")}
    vocabulary = None
    if any(modality.inline for modality in spec.values()):
        vocabulary = prepared.vocabulary(s.split_rule, s.split_seed, s.stratify)
        hashes["vocabulary"] = file_digest(vocabulary)
    if len(parts["train"]) < max(2, len(modalities)):
        raise UsageError(f"the train part has {len(parts['train'])} samples, too few")
    workers = (
        number("num_workers", args.num_workers, int, 0)
        if args.num_workers
        else 5 * (device.type == "cuda")
    )
    loaders = {
        part: Loader(
            prepared,
            positions,
            spec,
            s.size,
            s.batch_size,
            run.seed,
            workers,
            device,
            s.last_batch == "keep",
            vocabulary,
        )
        for part, positions in parts.items()
    }
    ids = {part: [prepared.ids[p] for p in positions] for part, positions in parts.items()}
    constants = {m: normalisation(m, modality, loaders["train"]) for m, modality in spec.items()}
    method = build_method(
        run,
        {m: stream_of(modality, constants[m]) for m, modality in spec.items()},
        len(prepared.label_names),
        len(parts["train"]),
        device,
    )
    return Session(run, prepared, modalities, loaders, ids, protocols, vocabulary, hashes, method)


def protocol(
    prepared: Prepared, s: Settings, part: str, modalities: list[str], hashes: dict[str, str]
) -> Protocol:
    """What the metrics of a part need; the hashes of its pairs go into `hashes`."""
    how = Split(s.split_rule, s.split_seed, s.stratify)
    sources = release = None
    if len(modalities) > 1:
        try:
            sources, hashes[f"pairs_{part}"] = prepared.pairs(how, part, modalities)
        except NoPairs as why:
            print(f"note: no misaligned figures of the {part} part: {why}", file=sys.stderr)
    if len(modalities) == 2 == len(prepared.modalities):
        pairs = prepared.pairs(how, part, modalities, release=True)
        release, hashes[f"release_pairs_{part}"] = pairs
    return Protocol(sources, release, s.split_rule == "release")


def stream_of(modality: Modality, constants: tuple | str | None) -> Stream:
    """What the model must know of a modality, with the constants of its normalisation."""
    return Stream(normalise=constants, **modality.stream())


def build_method(
    run: Run, streams: dict[str, Stream], classes: int, train_size: int, device: torch.device
) -> Method:
    """The run's method with its model: first weights from the run's seed alone."""
    cls, s = methods.load(run.method), run.settings
    model = build_classifier(
        streams,
        classes,
        Choice(s.encoder, s.spec_pool, s.audio_norm, s.weights, s.text_model, s.image_width),
        heads=cls.has_unimodal_heads(run.hparams),
        seed=run.seed,
        execution=Execution(device, s.precision, s.compile),
    )
    torch.manual_seed(run.seed)
    return cls(model, run.hparams, Facts(run.seed, s.max_epochs, train_size, classes)).to(device)


def environment(session: Session) -> dict:
    """What a result depends on beside its configuration: versions, device, threads, hashes."""
    device = session.method.model.device
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "commit": commit or "not a git checkout",
        "spec_hash": session.run.spec_hash,
        "hashes": session.hashes,
        "data_tools": session.prepared.meta["tools"],
        "raw": {
            "root": read_local(session.prepared.folder).get("root", "unknown"),
            "candidates": session.prepared.meta["candidates_hash"],
        },
    }


def normalisation(name: str, modality: Modality, train: Loader) -> tuple | str | None:
    """(mean, std) of a modality: what its data set declares, or the training part's own."""
    if modality.normalise == "train":
        return train_statistics(train.batches, name, modality)
    if modality.normalise == "none":
        *_, means = modality.values(next(iter(train.batches([0])))["inputs"][name])
        return [0.0] * means, [1.0] * means
    return modality.normalise
