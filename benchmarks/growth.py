"""Measures how MIDAS's part of a step grows with classes, modalities and the batch size.

    python benchmarks/growth.py [--device cpu] [--rounds 15]

Times everything after the encoders (pairing, fusion, losses, alpha, backward) on stored features of
512 values, in turn with Joint's. The encoders' own time grows with modalities and batch only.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
from step_cost import head_batch, head_step, in_turn  # noqa: E402

import methods  # noqa: E402
from experiments.run.session import choose_kernels  # noqa: E402
from methods.base import Facts, Method  # noqa: E402
from models.build import Choice, Stream, build_classifier  # noqa: E402
from models.classifier import Execution  # noqa: E402

CLASSES, BATCH = 31, 64  # unless varied
VARIED = {
    "classes": (6, 31, 101, 1000),
    "modalities": (2, 3, 4, 5),
    "batch size": (16, 64, 256, 1024, 4096),
}


def make(name: str, modalities: int, classes: int, device: torch.device) -> Method:
    """A method after its warm-up; its encoders have ResNet-18's width."""
    cls = methods.load(name)
    streams = {f"m{k}": Stream("audio", (0.0, 1.0), 1) for k in range(modalities)}
    heads, hparams = cls.has_unimodal_heads(cls.HParams()), cls.HParams()
    how: dict[str, Any] = {"heads": heads, "execution": Execution(device)}
    model = build_classifier(streams, classes, Choice(), **how)
    method = cls(model, hparams, Facts(0, 70, 64, classes)).to(device)
    method.begin_epoch(60, None)
    method.train()
    return method


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    choose_kernels()
    device = torch.device(args.device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads: ms after the"
          " encoders, forward and backward")  # fmt: skip
    for what, values in VARIED.items():
        for value in values:
            sizes = {"classes": CLASSES, "modalities": 2, "batch size": BATCH} | {what: value}
            work = {}
            for name in ("Joint", "Midas"):
                method = make(name, sizes["modalities"], sizes["classes"], device)
                batch = head_batch(method, sizes["batch size"], {}, device)
                batch["label"] = batch["index"] % sizes["classes"]
                work[name] = partial(head_step, method, batch)
            times = in_turn(work, args.rounds, device)
            joint, midas = (1e3 * statistics.median(times[name]) for name in ("Joint", "Midas"))
            print(f"{what:12}{value:6d}   Joint {joint:8.2f}   Midas {midas:8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
