"""What a training step costs, relative to Joint, on the CREMA-D model.

    python benchmarks/step_cost.py [--batch 16] [--rounds 9] [--size 112] [--device cpu]

All variants take turns in one process on the same tensors; a round's ratio is a variant's time over
Joint's of the same round, and the median over rounds is printed. The head part is timed alone on
stored features, since whole steps cannot resolve it. Host reads are counted by the profiler.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402

import methods  # noqa: E402
from assemble import make_deterministic  # noqa: E402
from methods.base import Facts, Method  # noqa: E402
from models.build import build_classifier  # noqa: E402
from models.classifier import Execution  # noqa: E402

CLASSES = 6
# name -> (method, its hyper-parameters)
VARIANTS = {
    "Joint": ("Joint", {}),
    "JointUni": ("JointUni", {}),
    "Midas, feature level": ("Midas", {"warmup_epochs": 0}),
    "Midas, input level": ("Midas", {"warmup_epochs": 0, "level": "input"}),
}


def make(name: str, device: torch.device, precision: str) -> tuple[Method, torch.optim.Optimizer]:
    """A variant with its own two ResNet-18 and the shared optimizer."""
    public, values = VARIANTS[name]
    cls = methods.load(public)
    model = build_classifier(
        {"audio": "audio", "video": "video"},
        {"audio": (0.0, 1.0), "video": "imagenet"},
        CLASSES,
        encoder="resnet18",
        heads=cls.needs_unimodal_heads,
        execution=Execution(device, precision),
    )
    method = cls(model, cls.HParams(**values), Facts(0, 70, 5209, CLASSES)).to(device)
    method.begin_epoch(60, None)
    method.train()
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    return method, optimizer


def make_batch(size: int, side: int, device: torch.device) -> dict:
    """A batch with CREMA-D's shapes: spectrogram [1, 257, 188], two frames of `side` pixels."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (size, 2, 3, side, side), generator=draw, dtype=torch.uint8)
    inputs = {"audio": torch.randn(size, 1, 257, 188, generator=draw).half(), "video": frames}
    label = (torch.arange(size) % CLASSES).to(device)
    return {"index": torch.arange(size, device=device), "label": label, "inputs": inputs}


def step(method: Method, optimizer: torch.optim.Optimizer, batch: dict) -> None:
    """One training step, as in train.py."""
    optimizer.zero_grad(set_to_none=True)
    loss, _ = method(batch)
    loss.backward()
    method.after_backward()
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
    """Times of each piece of work, in turn in every round, after one round unmeasured."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, one in work.items():
            spent = seconds(one, device)
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


def head_alone(method: Method, size: int, device: torch.device) -> Callable[[], None]:
    """Everything of a step but the encoders: forward and backward on stored features."""
    draw = torch.Generator().manual_seed(0)
    widths = method.model.widths
    stored = {m: torch.rand(size, w, generator=draw).to(device) for m, w in widths.items()}
    batch = {"label": (torch.arange(size) % CLASSES).to(device), "inputs": stored}

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
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    args = parser.parse_args()
    device = torch.device(args.device)
    make_deterministic()  # as train.py does
    torch.set_num_threads(args.threads)
    batch = make_batch(args.batch, args.size, device)
    made = {name: make(name, device, args.precision) for name in VARIANTS}
    steps = {n: lambda n=n: step(*made[n], batch) for n in VARIANTS}
    heads = {n: head_alone(made[n][0], 64, device) for n in VARIANTS if "input" not in n}

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(
        f"torch {torch.__version__}, {where}, {args.threads} threads, {args.precision}, batch"
        f" {args.batch}, spectrogram 257x188, 2 frames of {args.size}, {args.rounds} rounds"
    )
    times, head_times = in_turn(steps, args.rounds, device), in_turn(heads, 30, device)
    relative = ratios(times, "Joint")
    head_ms = {n: 1e3 * statistics.median(v) for n, v in head_times.items()}
    print(
        f"{'variant':22} {'step / Joint':>12} {'median ms':>10} {'head ms, B=64':>14} {'reads':>6}"
    )
    for name in VARIANTS:
        reads = host_reads(steps[name], device)
        head = f"{head_ms[name]:14.2f}" if name in head_ms else f"{'':14}"
        median = 1e3 * statistics.median(times[name])
        print(f"{name:22} {relative[name]:12.3f} {median:10.1f} {head} {reads:6d}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
