"""Measures what the loader and the training loop add to the work of the encoders.

    python benchmarks/train_throughput.py [--dataset cremad] [--batch 8] [--size 112] [--rounds 5]

On a synthetic prepared dataset of the given shapes. In turn in one process, an epoch of:

- *bare loop*: the encoders alone on a batch that is ready: forward, backward, SGD
- *Joint* and *Midas* on that batch: the ratios to the bare loop are the cost of the methods
- *Joint, loader ...*: the same steps with the real loader; the ratio to Joint is that of waiting

Prints the median over rounds of the ratios within a round.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import synthetic  # noqa: E402
import torch  # noqa: E402
from step_cost import in_turn, step  # noqa: E402

from data_prep.loader import Loader  # noqa: E402
from experiments.run.resolve import resolve  # noqa: E402
from experiments.run.session import Session, assemble  # noqa: E402

SGD: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}


def session_of(dataset: str, data: Path, method: str, words: str) -> Session:
    """What train.py assembles for these flags."""
    more = " --vocabulary build --text_model tiny --weights none" if dataset == "food101" else ""
    given = f"--dataset {dataset} --method {method} --data_dir {data} {words}{more}"
    run, args = resolve(given.split(), "")
    assert run is not None
    return assemble(run, args)


def optimizers_of(session: Session) -> list:
    """The optimizers as train.py makes them, with the last epoch's state of the method."""
    base = partial(torch.optim.SGD, **SGD, fused=session.method.model.device.type == "cuda")
    return session.method.optimizers(base)


def bare_loop(session: Session, batch: dict) -> Callable[[], None]:
    """Forward, backward and SGD of the encoders, with the sum of the features as the loss."""
    model: Any = session.method.model
    optimizer = torch.optim.SGD(model.encoders.parameters(), **SGD)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        inputs = {m: x.to(model.device, non_blocking=True) for m, x in batch["inputs"].items()}
        torch.stack([model.encoders[m](x).sum() for m, x in inputs.items()]).sum().backward()
        optimizer.step()

    model.train()
    return work


def epoch_of(session: Session, loader: Loader, optimizers: list) -> Callable[[], None]:
    """An epoch of the session's method with the batches of `loader`."""
    epochs = iter(range(1, 1000))

    def work() -> None:
        for batch in loader.epoch(next(epochs)):
            step(session.method, optimizers, batch)

    return work


def repeated(work: Callable[[], None], times: int) -> None:
    for _ in range(times):
        work()


def variants(args: argparse.Namespace, data: Path) -> tuple[dict[str, Callable[[], None]], int]:
    """Everything to measure, an epoch each, and the steps of an epoch."""
    common = (
        f"--devices {args.device} --batch_size {args.batch} --size {args.size} --last_batch drop"
    )
    sessions = {
        name: session_of(args.dataset, data, name, f"{common} --cache off")
        for name in ("Joint", "Midas")
    }
    joint = sessions["Joint"]
    batch = next(joint.loaders["train"].epoch(1))
    steps = joint.loaders["train"].steps()
    found: dict[str, Callable[[], None]] = {}
    found["bare loop"] = partial(repeated, bare_loop(joint, batch), steps)
    for name, session in sessions.items():
        session.method.begin_epoch(60, session.loaders["train"])
        session.method.train()
        one = partial(step, session.method, optimizers_of(session), batch)
        found[name] = partial(repeated, one, steps)
    caches = ("off", "memory", "device") if args.device != "cpu" else ("off", "memory")
    for cache in caches:
        for workers in dict.fromkeys((0, args.workers)) if cache != "device" else (0,):
            words = f"{common} --cache {cache} --num_workers {workers}"
            session = session_of(args.dataset, data, "Joint", words)
            session.method.train()
            name = f"Joint, loader, cache {cache}, {workers} workers"
            found[name] = epoch_of(joint, session.loaders["train"], optimizers_of(joint))
    return found, steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cremad", choices=synthetic.SHAPES)
    numbers = {"batch": 8, "size": 112, "rounds": 5, "samples": 90, "workers": 2}
    for flag, default in numbers.items():
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu, or a CUDA device number")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        synthetic.write(Path(place), args.dataset, args.samples)
        work, steps = variants(args, Path(place))
        device = torch.device("cpu" if args.device == "cpu" else f"cuda:{args.device}")
        times = in_turn(work, args.rounds, device)
    print(
        f"torch {torch.__version__}, {args.device}, {args.threads} threads, {args.dataset}, batch"
        f" {args.batch}, images of {args.size}, {steps} steps a round, {args.rounds} rounds"
    )
    for name, own in times.items():
        of = "bare loop" if name in ("bare loop", "Joint", "Midas") else "Joint"
        ratios = [a / b for a, b in zip(own, times[of])]
        print(
            f"{name:40} / {of:10} {statistics.median(ratios):6.3f}"
            f"  ({min(ratios):.3f} to {max(ratios):.3f}){1e3 * statistics.median(own) / steps:9.1f}"
            " ms a step"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
