"""Diagnosing & Re-learning: purity and strength by hand, a whole diagnosis, its epochs."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles, equal_states
from sklearn.exceptions import ConvergenceWarning
from small_runs import EPOCHS, make, train

from common.options import UsageError
from methods.base import Facts
from methods.relearning import ReLearning, purity, strength

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def test_purity_by_hand():
    x = doubles([0.0, 0], [0, 1], [1, 0], [50, 50], [50, 51], [90, 0], [91, 0], [90, 1])
    y = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0])  # clusters of 3, 2 and 3
    assert purity(x, y, 3) == (2 + 2 + 2) / 8
    assert purity(x, torch.zeros_like(y), 3) == 1
    with pytest.warns(ConvergenceWarning):
        assert purity(torch.zeros(8, 2), y, 3) == 3 / 8  # one cluster


def test_purity_does_not_depend_on_a_features_scale():
    """Of two features, one separates the classes; unscaled, the other would decide."""
    y = torch.arange(40) % 2
    noise = 1000 * torch.rand(40, 1, generator=torch.Generator().manual_seed(0))
    assert purity(torch.cat([y[:, None] + 0.0, noise], 1), y, 2) == 1
    assert purity(noise, y, 2) < 0.8


def test_purity_of_overlapping_classes_against_a_loop_over_clusters():
    """k-means by its definition: each sample is in the cluster of the nearest mean."""
    draw = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])
    group = torch.arange(80) % 4
    x = centres[group] + torch.rand(80, 2, generator=draw)
    y = torch.where(torch.rand(80, generator=draw) < 0.3, (group + 1) % 4, group)
    right = 0
    for k in range(4):
        of = [int(label) for label, g in zip(y, group) if g == k]
        right += max(of.count(c) for c in range(4))
    assert 0.5 < right / 80 < 0.9 and purity(x, y, 4) == right / 80


def test_the_strength_by_hand():
    alpha = strength(doubles(0.9, 0.5, 0.4), doubles(0.4, 0.5, 0.6), 3.0)
    assert alpha.tolist() == pytest.approx([math.tanh(1.5), 0.0, math.tanh(0.6)], abs=1e-12)


@SETS
def test_a_diagnosis_moves_each_encoder_back_by_its_own_gap(modalities):
    method, data = make("ReLearning", modalities, every=3, held_out=0.4), TinySet(modalities)
    start = {n: p.detach().clone() for n, p in method.model.named_parameters()}
    train(method, data, 1, 3)
    assert all(v == 0 for v in method.end_epoch().values())  # no diagnosis so far
    trained = {n: p.detach().clone() for n, p in method.model.named_parameters()}
    buffers = {n: b.clone() for n, b in method.model.named_buffers()}
    held_out, rest = method.set_aside(16)
    plan = method.begin_epoch(4, data)
    logs, moved = method.end_epoch(), []
    assert torch.equal(plan.indices, rest) and len(rest) == 24
    reader = make("ReLearning", modalities)
    reader.model.load_state_dict(trained | buffers)
    reader.eval()
    for m in modalities:
        found = []
        for part in (rest, held_out):
            batch = data.take(part)
            with torch.no_grad():
                found.append(purity(reader.model.encode(batch["inputs"])[m], batch["label"], 4))
        alpha = math.tanh(3 * abs(found[0] - found[1]))
        assert logs[f"train/purity/{m}"] == found[0]
        assert logs[f"train/purity_held_out/{m}"] == found[1]
        assert logs[f"train/moved_back/{m}"].item() == pytest.approx(alpha, abs=1e-12)
        moved.append(alpha)
        for name, p in method.model.encoders[m].named_parameters():
            name = f"encoders.{m}.{name}"
            expected = alpha * start[name].double() + (1 - alpha) * trained[name].double()
            assert torch.allclose(p.double(), expected, rtol=0, atol=1e-6), name
    assert max(moved) > 0.05 and len(set(moved)) > 1
    assert torch.equal(method.model.fusion.weight, trained["fusion.weight"])
    assert equal_states(buffers, dict(method.model.named_buffers()))


def test_the_epochs_of_the_diagnoses_and_the_samples_of_all_epochs():
    method, data = make("ReLearning", every=2, times=2), TinySet()
    held_out, seen = set(method.held_out.tolist()), []
    for epoch in range(1, 10):
        plan = method.begin_epoch(epoch, data)
        assert set(plan.indices.tolist()) == set(range(40)) - held_out
        seen.append("train/purity/audio" in method.end_epoch())
    assert seen == [False, False, True, False, True, False, False, False, False]
    assert len(held_out) == 8  # two of each class, more than 0.11 of 40


def test_settings_that_leave_nothing_are_refused():
    method = make("ReLearning")
    with pytest.raises(UsageError, match="holds out 8 samples: too many of 9 training samples"):
        ReLearning(method.model, method.hparams, Facts(0, EPOCHS, 9, 4))
    ReLearning(method.model, method.hparams, Facts(0, EPOCHS, 10, 4))
