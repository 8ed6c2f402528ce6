"""Trains each method for some epochs as one of several processes; rank 0 stores what came out.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python tests/ranked.py float64 OUT
"""

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
from conftest import TinySet  # noqa: E402
from small_runs import all_epochs, make, train  # noqa: E402

import methods  # noqa: E402
from experiments.run.devices import join  # noqa: E402
from experiments.run.session import choose_kernels  # noqa: E402
from models.classifier import ON_CPU  # noqa: E402

# Beside every method's defaults: two stages, and what reads the training part between epochs.
CASES = [(name, {}) for name in methods.METHODS if name != "Unimodal"]
CASES += [("MCR", {"pretrain_epochs": 2}), ("Midas", {"level": "input"})]


class PartOfSet(TinySet):
    """The training part as one rank reads it; batches of 8 and a last one of 3."""

    def __init__(self, ranks):
        super().__init__(size=43, keep_last=True)
        self.ranks = ranks

    def take(self, indices):
        batch = super().take(indices)
        if self.ranks:
            rows = self.ranks.share(len(indices))
            inputs = {m: x[rows] for m, x in batch["inputs"].items()}
            batch["inputs"] = self.ranks.rows(inputs, len(indices))
        return batch


def main(dtype, out):
    if dtype == "float64":
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # the layers that cast their inputs
    choose_kernels()
    torch.set_num_threads(1)
    _, ranks = join("cpu")
    object.__setattr__(ON_CPU, "ranks", ranks)  # every model's execution here
    found = []
    for name, values in CASES:
        method = make(name, size=43, **values)
        losses = train(method, PartOfSet(ranks), 1, all_epochs(method))[2]
        state = {k: v for k, v in method.state_dict().items() if torch.is_tensor(v)}
        found.append({"losses": losses, "state": state})
    if os.environ.get("RANK", "0") == "0":
        torch.save(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
