"""What a training step costs, relative to Joint, on the CREMA-D model.

    python benchmarks/step_cost.py [--batch 16] [--rounds 9] [--size 112] [--device cpu]

All variants take turns in one process on the same tensors; a round's ratio is a variant's time over
Joint's of the same round, and the median over rounds is printed. The head part is timed alone on
stored features, since whole steps cannot resolve it. Host reads are counted by the profiler,
without the optimizers (Adam keeps its step counts on the host). "start / epoch" is what a method
does before an epoch (SMV's valuation, GMM's pass and fit, LFM's second derivatives), relative to
Joint's steps over as many samples, here 64: the pass of SMV and GMM grows with the training part as
Joint's epoch does, LFM's work does not grow.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402

import methods  # noqa: E402
from experiments.run.session import make_deterministic  # noqa: E402
from methods.base import Facts, Method  # noqa: E402
from models.build import Choice, Stream, build_classifier  # noqa: E402
from models.classifier import Execution  # noqa: E402

CLASSES = 6
SAMPLES = 64  # of the training part that methods read before an epoch
# name -> (method, its hyper-parameters); epoch 60 is behind every warm-up
VARIANTS = {
    "Joint": ("Joint", {}),
    "JointUni": ("JointUni", {}),
    "Midas, feature level": ("Midas", {}),
    "Midas, release": (
        "Midas",
        {"uni_reduce": "mean", "pairing": "permutation", "alpha_rule": "ratio"},
    ),
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
}


class Part:
    """A training part of `SAMPLES` samples that repeats one batch."""

    def __init__(self, batch: dict):
        self.batch, self.size = batch, len(batch["label"])

    def __len__(self) -> int:
        return SAMPLES

    def batches(self, indices: object = None, transforms: str = "eval") -> Iterator[dict]:
        """The samples in fixed order, as the project's loader yields them."""
        wanted = torch.as_tensor(range(SAMPLES) if indices is None else list(indices))
        for index in wanted.split(self.size):
            rows = index % self.size
            inputs = {m: x[rows] for m, x in self.batch["inputs"].items()}
            label = self.batch["label"][rows.to(self.batch["label"].device)]
            yield {"index": index.to(label.device), "label": label, "inputs": inputs}


def make(name: str, device: torch.device, precision: str) -> tuple[Method, list]:
    """A variant with its own two ResNet-18 and its optimizers around the shared one."""
    public, values = VARIANTS[name]
    cls = methods.load(public)
    hparams = cls.HParams(**values)
    model = build_classifier(
        {"audio": Stream("audio", (0.0, 1.0), 1), "video": Stream("video", "imagenet")},
        CLASSES,
        Choice(),
        heads=cls.has_unimodal_heads(hparams),
        execution=Execution(device, precision),
    )
    method = cls(model, hparams, Facts(0, 70, SAMPLES, CLASSES)).to(device)
    return method, method.optimizers(
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    )


def begin(method: Method, part: Part) -> dict:
    """Epoch 60 begins; returns the columns that the method's plan adds to a batch."""
    plan = method.begin_epoch(60, part)
    method.train()
    if plan is None:
        return {}
    spread = slice(None, None, max(1, len(plan.indices) // part.size))  # originals and copies
    return {name: values[spread][: part.size] for name, values in plan.columns.items()}


def make_batch(size: int, side: int, device: torch.device) -> dict:
    """A batch with CREMA-D's shapes: spectrogram [1, 257, 188], two frames of `side` pixels."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (size, 2, 3, side, side), generator=draw, dtype=torch.uint8)
    inputs = {"audio": torch.randn(size, 1, 257, 188, generator=draw).half(), "video": frames}
    label = (torch.arange(size) % CLASSES).to(device)
    return {"index": torch.arange(size, device=device), "label": label, "inputs": inputs}


def gradients(method: Method, batch: dict) -> None:
    """The method's part of a training step: loss, backward, its hand on the gradients."""
    loss, _ = method(batch)
    loss.backward()
    method.after_backward()


def step(method: Method, optimizers: list, batch: dict) -> None:
    """One training step, as in train.py."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    gradients(method, batch)
    for optimizer in optimizers:
        optimizer.step()


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """The time of one call, waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def in_turn(work: dict[str, Callable], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Times of each piece of work, in turn in every round, after one round unmeasured.

    Each round begins elsewhere and every other one runs backwards: the place in a round, and what
    ran before, shift times by some percent.
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


def ratios(times: dict[str, list[float]], reference: str) -> dict[str, float]:
    """Median over rounds of the time relative to `reference` in the same round."""
    base = times[reference]
    return {
        name: statistics.median(a / b for a, b in zip(values, base))
        for name, values in times.items()
    }


def head_alone(
    method: Method, size: int, columns: dict, device: torch.device
) -> Callable[[], None]:
    """Everything of a step but the encoders: forward and backward on stored features."""
    draw = torch.Generator().manual_seed(0)
    widths = method.model.widths
    stored = {m: torch.rand(size, w, generator=draw).to(device) for m, w in widths.items()}
    label = (torch.arange(size) % CLASSES).to(device)
    index = torch.arange(size, device=device) % SAMPLES
    more = {name: v.repeat(size // len(v) + 1)[:size] for name, v in columns.items()}
    batch = {"index": index, "label": label, "inputs": stored} | more

    def work() -> None:
        features = {m: f.clone().requires_grad_() for m, f in stored.items()}
        original, method.model.encode = method.model.encode, lambda _: features
        try:
            method(batch)[0].backward()
        finally:
            method.model.encode = original

    return work


def host_reads(work: Callable[[], None], device: torch.device) -> int:
    """How often a step waits for a value of the device."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, acc_events=True) as profile:
        work()
    return sum(e.name == "aten::_local_scalar_dense" for e in profile.events())


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="these beside Joint")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    args = parser.parse_args()
    device = torch.device(args.device)
    make_deterministic()  # as train.py does
    torch.set_num_threads(args.threads)
    batch = make_batch(args.batch, args.size, device)
    part = Part(batch)
    names = ["Joint", *(name for name in args.only or VARIANTS if name != "Joint")]
    made = {name: make(name, device, args.precision) for name in names}
    columns: dict[str, dict] = {}
    starts = {
        n: seconds(lambda n=n: columns.update({n: begin(made[n][0], part)}), device) for n in names
    }
    batches = {n: batch | {k: v.to(device) for k, v in columns[n].items()} for n in names}
    steps = {n: lambda n=n: step(*made[n], batches[n]) for n in names}
    heads = {n: head_alone(made[n][0], 64, columns[n], device) for n in names if "input" not in n}

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        f"torch {torch.__version__}, {where}, {args.threads} threads, {args.precision}, batch"
        f" {args.batch}, spectrogram 257x188, 2 frames of {args.size}, {args.rounds} rounds"
    )
    times, head_times = in_turn(steps, args.rounds, device), in_turn(heads, 30, device)
    relative = ratios(times, "Joint")
    head_ms = {n: 1e3 * statistics.median(v) for n, v in head_times.items()}
    epoch_s = statistics.median(times["Joint"]) * SAMPLES / args.batch
    titles = ("step / Joint", "median ms", "head ms, B=64", "reads", "start / epoch")
    print(f"{'variant':22}" + "".join(f"{title:>14}" for title in titles))
    for name in names:
        reads = host_reads(lambda name=name: gradients(made[name][0], batches[name]), device)
        head = f"{head_ms[name]:14.2f}" if name in head_ms else f"{'':14}"
        median, start = 1e3 * statistics.median(times[name]), starts[name] / epoch_s
        print(f"{name:22}{relative[name]:14.3f}{median:14.1f}{head}{reads:14d}{start:14.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
