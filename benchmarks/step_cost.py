"""Measures the time of a training step relative to Joint, on the CREMA-D model.

    python benchmarks/step_cost.py [--batch 16] [--rounds 9] [--size 112] [--device cpu]

All variants run in turn in one process on the same tensors. The ratio is a variant's time over
Joint's in the same round; the median over rounds is printed. The head is also timed separately on
stored features, since its share of a full step is too small to measure. The profiler counts host
reads, without the optimizers (Adam keeps its step counts on the host). "start / epoch" is the time
for work before an epoch (SMV's valuation, GMM's pass and fit, LFM's second derivatives), relative
to Joint's steps over the same number of samples, here 64.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402

import methods  # noqa: E402
from experiments.run.session import choose_kernels  # noqa: E402
from methods.base import Facts, Method  # noqa: E402
from models.build import Choice, Stream, build_classifier  # noqa: E402
from models.classifier import Classifier, Execution  # noqa: E402

CLASSES = 6
SAMPLES = 64  # in the training set that methods read before an epoch
RELEASE = {"uni_reduce": "mean", "pairing": "permutation", "alpha_rule": "ratio"}
# name -> (method, its hyperparameters); measured at epoch 60, after every warm-up
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Joint": ("Joint", {}),
    "JointUni": ("JointUni", {}),
    "Midas, feature level": ("Midas", {}),
    "Midas, release": ("Midas", RELEASE),
    "Midas, input level": ("Midas", {"level": "input"}),
    "SMV": ("SMV", {}),
    "OPM": ("OPM", {}),
    "OPM + OGM": ("OPM", {"ogm": True}),
    "OGM": ("OGM", {}),
    "AMCo, logit": ("AMCo", {}),
    "AMCo, feature": ("AMCo", {"variant": "feature"}),
    "LFM": ("LFM", {}),
    "LFM, official": ("LFM", {"variant": "official"}),
    "MCR": ("MCR", {}),
    "MCR, with CEB": ("MCR", {"lib": 1.0}),
    "Mixup": ("Mixup", {}),
    "PowMix": ("PowMix", {}),
    "LeMDA": ("LeMDA", {}),
    "ARL": ("ARL", {}),
    "GMM": ("GMM", {}),
    "UMT": ("UMT", {"teacher_epochs": 10}),  # a step of the second stage
    "ReLearning": ("ReLearning", {"every": 59}),  # epoch 60 begins with a diagnosis
    "InfoReg": ("InfoReg", {}),
    "ReconBoost": ("ReconBoost", {}),
    "GBlending": ("GBlending", {"super_epoch": 1}),  # the estimate's share of each epoch
    "Remix": ("Remix", {}),
    "MLA": ("MLA", {}),
    "AUG": ("AUG", {}),
    "PMR": ("PMR", {"end_epoch": 0}),
    "MLB": ("MLB", {}),
    "MBSD": ("MBSD", {}),
    "DGL": ("DGL", {}),
    "MMCosine": ("MMCosine", {}),
    "CML": ("CML", {}),
    "MNL": ("MNL", {}),
    "MMPareto": ("MMPareto", {}),
    "AGM": ("AGM", {}),
    "IPRM": ("IPRM", {}),
}


class Part:
    """A training set of `SAMPLES` samples that repeats one batch."""

    def __init__(self, batch: dict):
        self.batch, self.size = batch, len(batch["label"])

    def __len__(self) -> int:
        return SAMPLES

    def batches(
        self, indices: Any = None, transforms: str = "eval", batch_size: int | None = None
    ) -> Iterator[dict]:
        """Batches in fixed order, as the project's loader yields them."""
        wanted = torch.as_tensor(range(SAMPLES) if indices is None else list(indices))
        for index in wanted.split(batch_size or self.size):
            rows = index % self.size
            inputs = {m: x[rows] for m, x in self.batch["inputs"].items()}
            label = self.batch["label"][rows.to(self.batch["label"].device)]
            yield {"index": index.to(label.device), "label": label, "inputs": inputs}


def make(name: str, device: torch.device, precision: str) -> tuple[Method, list]:
    """A variant with two ResNet-18 encoders and its optimizers, based on the shared SGD."""
    public, values = VARIANTS[name]
    cls: Any = methods.load(public)
    hparams = cls.HParams(**values)
    model = build_classifier(
        {"audio": Stream("audio", (0.0, 1.0), 1), "video": Stream("video", "imagenet")},
        CLASSES,
        Choice(),
        heads=cls.has_unimodal_heads(hparams),
        execution=Execution(device, precision),
    )
    method = cls(model, hparams, Facts(0, 70, SAMPLES, CLASSES)).to(device)
    shared = partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    return method, method.optimizers(shared)


def begin(method: Method, part: Part, columns: dict) -> None:
    """Starts epoch 60; adds the batch columns of the method's plan to `columns`."""
    plan = method.begin_epoch(60, part)
    method.train()
    if plan is not None:
        spread = slice(None, None, max(1, len(plan.indices) // part.size))  # originals and copies
        columns |= {name: values[spread][: part.size] for name, values in plan.columns.items()}


def make_batch(size: int, side: int, device: torch.device) -> dict:
    """A batch with CREMA-D's shapes: spectrogram [1, 257, 188], two frames of `side` pixels."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (size, 2, 3, side, side), generator=draw, dtype=torch.uint8)
    inputs = {"audio": torch.randn(size, 1, 257, 188, generator=draw).half(), "video": frames}
    label = (torch.arange(size) % CLASSES).to(device)
    return {"index": torch.arange(size, device=device), "label": label, "inputs": inputs}


def step(method: Method, optimizers: list, batch: dict) -> None:
    """One training step, as in train.py; without optimizers, only the method's part of it."""
    for loss, _ in method.losses(batch):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        method.after_backward()
        for optimizer in optimizers:
            optimizer.step()


def head_step(method: Method, batch: dict) -> None:
    """A step without the encoders: forward and backward on stored features."""
    features = {m: f.clone().requires_grad_() for m, f in batch["inputs"].items()}
    # Of every model: a method may also encode with a frozen copy.
    with mock.patch.object(Classifier, "encode", lambda *_: features):
        for loss, _ in method.losses(batch):
            loss.backward()


def head_batch(method: Method, size: int, columns: dict, device: torch.device) -> dict:
    """A batch of `size` samples with stored features."""
    draw = torch.Generator().manual_seed(0)
    widths: Any = method.model.widths
    stored = {m: torch.rand(size, w, generator=draw).to(device) for m, w in widths.items()}
    more = {name: v.repeat(size // len(v) + 1)[:size] for name, v in columns.items()}
    index = torch.arange(size, device=device)
    return {"index": index % SAMPLES, "label": index % CLASSES, "inputs": stored} | more


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """The time of one call, including device synchronization."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begun


def in_turn(
    work: Mapping[str, Callable], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Times of each function, called in turn in every round, after a warm-up round.

    Each round starts at another function and every second one is reversed, because the position in
    a round shifts times by a few percent.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for turn in range(rounds + 1):
        first = turn * 7 % len(names)
        order = names[first:] + names[:first]
        for name in order if turn % 2 else reversed(order):
            spent = seconds(work[name], device)
            if turn:
                times[name].append(spent)
    return times


def host_reads(work: Callable[[], None]) -> int:
    """How often a step waits for a value from the device."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
        work()
    return sum(e.name == "aten::_local_scalar_dense" for e in profile.events())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag, default in (("batch", 16), ("rounds", 9), ("size", 112)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="variants (Joint is added)")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    args = parser.parse_args()
    device = torch.device(args.device)
    choose_kernels()  # as train.py does
    torch.set_num_threads(args.threads)
    batch = make_batch(args.batch, args.size, device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        f"torch {torch.__version__}, {where}, {args.threads} threads, {args.precision}, batch"
        f" {args.batch}, spectrogram 257x188, 2 frames of {args.size}, {args.rounds} rounds"
    )
    starts, reads, steps, heads = {}, {}, {}, {}
    for name in dict.fromkeys(("Joint", *(args.only or VARIANTS))):
        method, optimizers = make(name, device, args.precision)
        columns: dict[str, torch.Tensor] = {}
        starts[name] = seconds(partial(begin, method, Part(batch), columns), device)
        whole = batch | {k: v.to(device) for k, v in columns.items()}
        steps[name] = partial(step, method, optimizers, whole)
        reads[name] = host_reads(partial(step, method, [], whole))
        if "input" not in name:
            heads[name] = partial(head_step, method, head_batch(method, 64, columns, device))
    times, head_times = in_turn(steps, args.rounds, device), in_turn(heads, 30, device)
    epoch_s = statistics.median(times["Joint"]) * SAMPLES / args.batch
    titles = ("step / Joint", "median ms", "head ms, B=64", "reads", "start / epoch")
    print(f"{'variant':22}" + "".join(f"{title:>14}" for title in titles))
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(own, times["Joint"]))
        head = f"{1e3 * statistics.median(head_times[name]):.2f}" if name in heads else ""
        print(
            f"{name:22}{ratio:14.3f}{1e3 * statistics.median(own):14.1f}{head:>14}"
            f"{reads[name]:14d}{starts[name] / epoch_s:14.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
