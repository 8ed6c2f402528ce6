"""Shared test helpers: tiny models, a small prepared demo dataset, running programs."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from methods.base import Facts
from models.build import Choice, Stream, build_classifier

ROOT = Path(__file__).parent.parent
PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")

# Kind of a tiny model's modality, by the first word of its name; others are spectrograms.
STREAMS = {
    "video": Stream("video", ([0.5] * 3, [0.25] * 3)),
    "image": Stream("image", "imagenet"),
    "flow": Stream("flow", ([0.5], [0.5]), 2),
    "tokens": Stream("text", None, length=9, vocabulary=20),
    "vectors": Stream("array", ([0.0] * 5, [1.0] * 5)),
}


def tiny_model(modalities=("audio", "video"), classes=4, heads=True, seed=0):
    """A classifier of small encoders for modalities from `STREAMS`."""
    sound = Stream("audio", (0.0, 1.0), 1)
    streams = {m: STREAMS.get(m.split("_")[0], sound) for m in modalities}
    return build_classifier(streams, classes, Choice("small"), heads=heads, seed=seed)


def tiny_batch(modalities=("audio", "video"), size=8, classes=4, seed=0):
    """A random batch for `tiny_model`."""
    draw = torch.Generator().manual_seed(seed)
    inputs = {}
    for m in modalities:
        kind = m.split("_")[0]
        if kind in ("video", "image", "flow"):
            frames, channels = {"video": (2, 3), "image": (1, 3), "flow": (3, 2)}[kind]
            shape = (size, frames, channels, 16, 16)
            inputs[m] = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
        elif kind == "tokens":
            ids = torch.randint(5, 20, (size, 9), generator=draw, dtype=torch.int32)
            mask = (torch.arange(9) < torch.arange(size)[:, None] % 6 + 4).int()
            inputs[m] = torch.stack([ids * mask, torch.zeros_like(ids), mask], 1)
        elif kind == "vectors":
            inputs[m] = torch.randn(size, 6, 5, generator=draw)
        else:
            inputs[m] = torch.randn(size, 1, 17, 12, generator=draw).half()
    label = torch.arange(size) % classes
    return {"index": torch.arange(size), "label": label, "inputs": inputs}


class TinySet:
    """An in-memory training set, as methods and the training loop see it."""

    def __init__(self, modalities=("audio", "video"), size=40, batch=8, seed=0, keep_last=False):
        self.data, self.batch = tiny_batch(modalities, size, seed=seed), batch
        self.keep_last = keep_last

    def __len__(self):
        return len(self.data["index"])

    def take(self, indices):
        inputs = {m: x[indices] for m, x in self.data["inputs"].items()}
        return {"index": indices, "label": self.data["label"][indices], "inputs": inputs}

    def batches(self, indices=None, transforms="eval", batch_size=None):
        wanted = torch.as_tensor(range(len(self)) if indices is None else list(indices))
        for part in wanted.split(batch_size or self.batch):
            yield self.take(part)

    def cut(self, places):
        size = min(self.batch, len(places))
        end = len(places) if self.keep_last else len(places) // size * size
        return places[:end].split(size)

    def epoch(self, epoch, plan=None):
        indices = torch.arange(len(self)) if plan is None else plan.indices
        places = torch.randperm(len(indices), generator=torch.Generator().manual_seed(epoch))
        key = torch.zeros(1) if plan is None or plan.batch_key is None else plan.batch_key[places]
        groups = [places[(key == value).expand(len(places))] for value in key.unique()]
        for part in (part for group in groups for part in self.cut(group)):
            columns = {} if plan is None else {k: v[part] for k, v in plan.columns.items()}
            yield self.take(indices[part]) | columns


def facts(seed=0, epochs=10, train_size=64, classes=4):
    return Facts(seed, epochs, train_size, classes)


def tiny_method(cls, modalities=PAIR, epoch=9, data=None, size=64, seed=0, **values):
    """A method with these settings on a tiny model, with the epoch started."""
    hp = cls.HParams(**values)
    model = tiny_model(modalities, heads=cls.has_unimodal_heads(hp))
    torch.manual_seed(0)
    method = cls(model, hp, facts(seed, train_size=size))
    method.begin_epoch(epoch, data)
    return method


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def equal_states(a, b):
    """Whether two state dicts are equal bit for bit; NaN (not known yet) equals NaN."""
    same = [((v == b[k]) | ((v != v) & (b[k] != b[k]))).all() for k, v in a.items() if k in b]
    return a.keys() == b.keys() and all(same)


def host_reads(work):
    """How often `work()` waits for a value from the device."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
        work()
    names = [e.name for e in profile.events()]
    assert names  # the profiler saw the work
    return names.count("aten::_local_scalar_dense")


def program(*words, timeout=240, **env):
    """Runs `python <words>` in the project's root; returns the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
    )


def start(command):
    """A Python program of the project, started with pipes for what it prints."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, **streams)


def cpu_of_children():
    """CPU seconds used so far by all finished children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(autouse=True)
def same_draws():
    """Every test sees the same random draws, alone or after others."""
    torch.manual_seed(0)


@pytest.fixture
def float64(monkeypatch):
    """Models and features in double precision."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def deterministic():
    """As train.py; one thread, since the tiny models are too small for two."""
    from experiments.run.session import choose_kernels

    choose_kernels()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory):
    """(raw root, data_dir) of the first 300 AV-Digits, prepared once per test session."""
    from data_prep.datasets.demo import Settings
    from data_prep.digits import write_digits
    from data_prep.prepare import prepare

    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "raw", folder / "truth.csv", 3, workers=1, count=300)
    prepare("demo", folder / "raw", folder / "data", Settings(), workers=1)
    return folder / "raw", folder / "data"
