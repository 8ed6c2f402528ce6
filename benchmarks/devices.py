"""Trains the same run on one device and on two, and compares losses and speed.

    python benchmarks/devices.py [--devices cpu,cpu]

On the CPU each process has one thread, so two of them may be up to twice as fast on two cores. The
dataset is synthetic, with CREMA-D's shapes. The two runs take turns; prints their largest relative
difference in the losses of the epochs, and the median ratio of their times.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import synthetic  # noqa: E402

ROOT = Path(__file__).parent.parent


def log_of(place: Path, devices: str, words: list[str]) -> list[dict]:
    """The log of a run on `devices`."""
    out = place / devices.replace(",", "-")
    command = [sys.executable, "train.py", "--dataset", "cremad", "--data_dir", str(place)]
    command += ["--devices", devices, "--output_dir", str(out), "--overwrite", *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="cpu,cpu", help="such as 0,1 (default cpu,cpu)")
    numbers = {"batch": 32, "size": 64, "rounds": 3, "samples": 320}
    for flag, default in numbers.items():
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--method", default="Midas")
    args = parser.parse_args()
    words = f"--method {args.method} --batch_size {args.batch} --size {args.size} --threads 1"
    words += " --max_epochs 2 --warmup_epochs 1" * (args.method == "Midas") or " --max_epochs 2"
    apart, ratios = 0.0, []
    with tempfile.TemporaryDirectory() as place:
        synthetic.write(Path(place), "cremad", args.samples)
        for _ in range(args.rounds):
            one, two = (
                log_of(Path(place), devices, words.split())
                for devices in (args.devices.split(",")[0], args.devices)
            )
            for a, b in zip(one, two, strict=True):
                apart = max(apart, abs(a["train/loss"] / b["train/loss"] - 1))
            ratios.append(two[1]["time/epoch_s"] / one[1]["time/epoch_s"])
    print(f"{args.method}, {args.devices}: losses differ by at most {apart:.1e}; time of an epoch")
    print(f"  relative to one device {statistics.median(ratios):.3f}, {args.rounds} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
