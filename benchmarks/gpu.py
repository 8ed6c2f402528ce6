"""Measures on a GPU what only a GPU shows, in under ten minutes, and writes one JSON file.

    python benchmarks/gpu.py [--out gpu.json] [--device 0] [--quick]

On synthetic prepared datasets of full shapes: CREMA-D, Kinetics-Sounds, UCF-101 and Food-101. For
each: samples per second, memory, and the share of an epoch spent waiting for data, with the inputs
on the device and with the loader. For CREMA-D also each precision, compiled encoders, deterministic
kernels on and off, fused SGD, MIDAS at the feature and at the input level, and what 70 epochs of
5,209 samples would take. `--quick` makes everything small, to try the script: with `--device cpu`
it needs no GPU.
"""

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import synthetic  # noqa: E402
import torch  # noqa: E402
from step_cost import seconds, step  # noqa: E402
from train_throughput import optimizers_of, session_of  # noqa: E402

CREMAD_SAMPLES, PAPER_EPOCHS, PAPER_MINUTES = 5209, 70, 52
# name -> (dataset, method, flags); the first is what the others of CREMA-D are compared with
CASES = {
    "cremad": ("cremad", "Midas", "--cache device"),
    "cremad, loader": ("cremad", "Midas", "--cache off"),
    "cremad, memory": ("cremad", "Midas", "--cache memory"),
    "cremad, Joint": ("cremad", "Joint", "--cache device"),
    "cremad, input level": ("cremad", "Midas", "--cache device --level input"),
    "cremad, tf32": ("cremad", "Midas", "--cache device --precision tf32"),
    "cremad, bf16": ("cremad", "Midas", "--cache device --precision bf16"),
    "cremad, not deterministic": ("cremad", "Midas", "--cache device --deterministic off"),
    "cremad, bf16, not deterministic": (
        "cremad", "Midas", "--cache device --precision bf16 --deterministic off"),
    "cremad, bf16, not deterministic, compiled": (
        "cremad", "Midas", "--cache device --precision bf16 --deterministic off --compile on"),
    "cremad, 4 parts": ("cremad", "Midas", "--cache device --accumulate 4"),
    "kinetics": ("kinetics", "Midas", "--cache device"),
    "kinetics, loader": ("kinetics", "Midas", "--cache off"),
    "kinetics, bf16": ("kinetics", "Midas", "--cache device --precision bf16"),
    "ucf101": ("ucf101", "Midas", "--cache device"),
    "ucf101, loader": ("ucf101", "Midas", "--cache off"),
    "food101": ("food101", "Midas", "--cache device"),
    "food101, loader": ("food101", "Midas", "--cache off"),
    "food101, bf16": ("food101", "Midas", "--cache device --precision bf16"),
}  # fmt: skip


def measure(session: Any, epochs: int) -> dict[str, float]:
    """Epochs of training in turn with as many steps on a batch that is on the device already.

    What an epoch takes longer is the time in which the device waits for data. A first round, which
    compiles, allocates and selects kernels, does not count.
    """
    method, loader = session.method, session.loaders["train"]
    device, optimizers = method.model.device, optimizers_of(session)
    plan = method.begin_epoch(60, loader)
    ready = next(loader.epoch(1, plan))
    ready["inputs"] = {m: x.to(device) for m, x in ready["inputs"].items()}
    times, waits = [], []
    method.train()
    for epoch in range(epochs + 1):

        def train(batches: Any) -> None:
            for batch in batches:
                step(method, optimizers, batch)

        took = seconds(partial(train, loader.epoch(epoch + 1, plan)), device)
        bare = seconds(partial(train, [ready] * loader.steps(plan)), device)
        if epoch:
            times.append(took)
            waits.append(1 - bare / took)
        elif device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
    found = {"epoch_s": statistics.median(times), "waiting": statistics.median(waits)}
    found["samples_per_s"] = len(loader) / found["epoch_s"]
    if device.type == "cuda":
        found["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def evaluation(session: Any) -> float:
    """Samples per second of an evaluation pass."""
    from experiments.run.metrics import collect

    loader, device = session.loaders["train"], session.method.model.device
    collect(session.method, loader.batches())
    return len(loader) / seconds(lambda: collect(session.method, loader.batches()), device)  # type: ignore[arg-type,return-value]


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
        found["cuda"], found["cudnn"] = str(torch.version.cuda), str(torch.backends.cudnn.version())
    return found


def summary(found: dict[str, Any]) -> dict[str, float]:
    """The ratios that the figures are for, each from two cases of this run."""
    cases = {name: case for name, case in found["cases"].items() if "epoch_s" in case}

    def ratio(a: str, b: str) -> float | None:
        both = a in cases and b in cases
        return cases[a]["samples_per_s"] / cases[b]["samples_per_s"] if both else None

    fastest = max(
        (case for name, case in cases.items() if name.startswith("cremad")),
        key=lambda case: case["samples_per_s"],
    )
    epoch_s = CREMAD_SAMPLES / fastest["samples_per_s"]
    ratios = {
        "bf16 / float32": ratio("cremad, bf16", "cremad"),
        "tf32 / float32": ratio("cremad, tf32", "cremad"),
        "deterministic off / on": ratio("cremad, not deterministic", "cremad"),
        "feature / input level": ratio("cremad", "cremad, input level"),
        "Midas / Joint": ratio("cremad", "cremad, Joint"),
        "device / loader": ratio("cremad", "cremad, loader"),
        "CREMA-D epoch of 5,209, s": epoch_s,
        "CREMA-D 70 epochs, min (paper: 52)": PAPER_EPOCHS * epoch_s / 60,
    }
    return {name: value for name, value in ratios.items() if value is not None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="gpu.json", help="where to write (default gpu.json)")
    parser.add_argument("--device", default="0", help="CUDA device number, or cpu")
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases (default: all)")
    parser.add_argument("--quick", action="store_true", help="small images, few samples")
    parser.add_argument("--limit_s", type=float, default=540, help="start no case after this")
    args = parser.parse_args()
    device = torch.device("cpu" if args.device == "cpu" else f"cuda:{args.device}")
    small = " --size 32 --encoder small --batch_size 8" if args.quick else ""
    begun, epochs = time.perf_counter(), 1 if args.quick else 2
    found: dict[str, Any] = {"machine": machine(device), "cases": {}}
    with tempfile.TemporaryDirectory() as place:
        for name in args.only or CASES:
            if time.perf_counter() - begun > args.limit_s:
                found["cases"][name] = {"skipped": f"after {args.limit_s:.0f} s"}
                continue
            dataset, method, words = CASES[name]
            samples = max(40, 4 * synthetic.SHAPES[dataset][0]) if args.quick else 1100
            synthetic.write(Path(place), dataset, samples)
            given = f"{words} --devices {args.device} --max_epochs 70{small}"
            try:
                session = session_of(dataset, Path(place), method, given)
                case: dict[str, Any] = measure(session, epochs)
                if name in ("cremad", "kinetics", "ucf101", "food101"):
                    case["evaluated_per_s"] = evaluation(session)
            except Exception as error:  # one case must not cost the others
                case = {"error": f"{type(error).__name__}: {error}"[:300]}
            found["cases"][name], session = case, None
            print(name, case, flush=True)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    found["ratios"] = summary(found)
    found["seconds"] = time.perf_counter() - begun
    Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["ratios"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
