"""Optimizer, schedule, warm-up, label smoothing and class weights, against closed forms."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TinySet, tiny_batch
from small_runs import make

import methods
from common.options import UsageError
from experiments.run.optim import base_optimizer, lr_factor, make_schedulers
from experiments.run.session import facts_of
from experiments.run.settings import Settings, check_recipe
from methods.base import Facts

ALL = [name for name in methods.METHODS if name != "Unimodal"]


def rates(epochs, **settings):
    """The learning rate of each epoch, as train.py steps it."""
    s = Settings(lr=0.5, max_epochs=epochs, **settings)
    one = base_optimizer(s, 1.0, False)([torch.nn.Parameter(torch.zeros(2))])
    (scheduler,) = make_schedulers([one], s, epochs)
    found = []
    for _ in range(epochs):
        found.append(one.param_groups[0]["lr"])
        one.step()
        scheduler.step()
    return found


def test_schedules_by_hand():
    assert rates(5, lr_step=2) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])
    assert rates(3, schedule="constant") == [0.5] * 3
    half = [0.5 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert rates(4, schedule="cosine") == pytest.approx(half)
    warm = rates(6, schedule="constant", lr_warmup=3)
    assert warm == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert rates(6, lr_step=2, lr_warmup=1)[:3] == pytest.approx([0.25, 0.5, 0.05])
    s = Settings(schedule="cosine", lr_warmup=2, max_epochs=6)
    assert lr_factor(s, 6, 2) == 1 and lr_factor(s, 6, 6) == pytest.approx(0)


@pytest.mark.parametrize(
    ("name", "cls"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam),
                      ("adamw", torch.optim.AdamW)]
)  # fmt: skip
def test_optimizers_are_torchs_with_the_runs_settings(name, cls):
    s = Settings(optimizer=name, lr=0.2, weight_decay=0.3, momentum=0.8)
    one = base_optimizer(s, 0.5, False)([torch.nn.Parameter(torch.zeros(2))])
    group = one.param_groups[0]
    assert type(one) is cls and (group["lr"], group["weight_decay"]) == (0.1, 0.3)
    assert group.get("momentum", 0.8) == 0.8


def test_settings_that_would_do_nothing_are_refused():
    for given, words in (
        ({"momentum": 0.5, "optimizer": "adam"}, "momentum does nothing without --optimizer sgd"),
        ({"lr_step": 3, "schedule": "cosine"}, "lr_step does nothing without --schedule step"),
        ({"lr_gamma": 0.3, "schedule": "constant"}, "lr_gamma does nothing without"),
        ({"lr_warmup": 5, "max_epochs": 5}, "lr_warmup 5 leaves no epoch of --max_epochs 5"),
    ):
        with pytest.raises(UsageError, match=words):
            check_recipe(Settings(**given), given)
    check_recipe(Settings(optimizer="adam"), ["optimizer"])


def test_class_weights_are_inverse_shares_with_mean_one_over_the_samples():
    run = SimpleNamespace(seed=1, settings=Settings(class_weights="balanced", label_smoothing=0.1))
    labels = np.array([0, 0, 0, 1, 2, 2])
    facts = facts_of(run, labels, 3, torch.device("cpu"))
    assert facts.class_weights.tolist() == pytest.approx([6 / 9, 2.0, 1.0])
    assert facts.class_weights[labels].mean().item() == pytest.approx(1.0)
    assert (facts.label_smoothing, facts.train_size) == (0.1, 6)


@pytest.mark.parametrize("name", ALL)
def test_smoothing_and_weights_change_the_loss_of_every_method(name):
    found = []
    weights = torch.tensor([0.2, 3.0, 1.0, 0.5])
    for more in ((), (0.3,), (0.0, weights)):
        method = make(name)
        method.facts = Facts(0, 6, 40, 4, *more)
        method.optimizers(partial(torch.optim.SGD, lr=0.1))  # GBlending trains before its epoch
        method.begin_epoch(2 if name == "ReconBoost" else 1, TinySet())  # its first has L_boost
        method.train()
        found.append([loss.item() for loss, _ in method.losses(tiny_batch())])
    assert found[0] != found[1] and found[0] != found[2]


def test_joints_loss_is_torchs_with_smoothing_and_weights():
    method, weights = make("Joint"), torch.tensor([0.2, 3.0, 1.0, 0.5])
    method.facts = Facts(0, 6, 40, 4, 0.3, weights)
    method.eval()
    batch = tiny_batch()
    z = method.model.fuse(method.model.encode(batch["inputs"]))
    log_p, w = F.log_softmax(z, 1), weights[batch["label"]]
    soft = (
        0.3 / 4 * (log_p * weights).sum(1)
        + 0.7 * w * log_p.gather(1, batch["label"][:, None])[:, 0]
    )
    assert method(batch)[0].item() == pytest.approx(-(soft.sum() / w.sum()).item(), rel=1e-5)
