"""Short training runs of a few steps on one batch of noise, the same for every method.

`python tests/small_runs.py NAME` writes a method's lines to golden_losses.json: only for a new
method, or for a change that intentionally changes its numbers, and says so.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402
from conftest import TinySet, tiny_model  # noqa: E402

import methods  # noqa: E402
from experiments.run.session import choose_kernels  # noqa: E402
from experiments.run.settings import build, method_defaults  # noqa: E402
from methods.base import Facts  # noqa: E402

EPOCHS = 6
GOLDEN = Path(__file__).parent / "golden_losses.json"


def hparams(name, **values):
    """The demo dataset's defaults for EPOCHS epochs."""
    cls = methods.load(name)
    return build(cls.HParams, method_defaults(cls.HParams, "demo", name, EPOCHS), values)


def make(name, modalities=("audio", "video"), size=40, seed=0, **values):
    cls, hp = methods.load(name), hparams(name, **values)
    model = tiny_model(modalities, heads=cls.has_unimodal_heads(hp))
    torch.manual_seed(0)
    return cls(model, hp, Facts(seed, EPOCHS, size, 4))


def all_epochs(method):
    """The epochs of all stages."""
    return sum(stage.epochs for stage in method.stages(EPOCHS))


def base(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)


def train(method, data, first, last, optimizers=None, log=None):
    """Trains like train.py in epochs `first` to `last`, with the first stage's optimizers.

    Returns them, the names of the parameters that ever got a gradient, and the losses; the last
    value of each logged name goes to `log`.
    """
    optimizers, touched, losses = optimizers or method.optimizers(base), set(), []
    for epoch in range(first, last + 1):
        torch.manual_seed(epoch)
        plan = method.begin_epoch(epoch, data)
        method.train()
        for batch in data.epoch(epoch, plan):
            for loss, logs in method.losses(batch):
                assert loss.isfinite() and loss.ndim == 0
                assert all(v.ndim == 0 and not v.requires_grad for v in logs.values())
                for optimizer in optimizers:
                    optimizer.zero_grad(set_to_none=True)
                loss.backward()
                method.after_backward()
                for name, p in method.named_parameters():
                    if p.grad is not None and p.grad.abs().sum() > 0:
                        assert p.grad.isfinite().all(), name
                        touched.add(name)
                for optimizer in optimizers:
                    optimizer.step()
                losses.append(loss.item())
                if log is not None:
                    log.update({k: float(v) for k, v in logs.items() if not v.isnan()})
        ended = {k: float(v) for k, v in method.end_epoch().items()}
        if log is not None:
            log.update(ended)
    return optimizers, touched, losses


def epoch_losses(name):
    """The mean loss of each epoch."""
    data, method, means = TinySet(), make(name), []
    optimizers = method.optimizers(base)
    for epoch in range(1, all_epochs(method) + 1):
        losses = train(method, data, epoch, epoch, optimizers)[2]
        means.append(sum(losses) / len(losses))
    return means


if __name__ == "__main__":
    choose_kernels()
    torch.set_num_threads(1)
    golden = json.loads(GOLDEN.read_text())
    for name in sys.argv[1:]:
        golden[name] = [round(value, 6) for value in epoch_losses(name)]
    lines = [f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in golden.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
