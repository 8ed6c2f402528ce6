"""MLB: the ratios, the factors, and which gradients they scale."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mlb import MLB, balancing_factor, others_ratio

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def method_with_a_leader(modalities, **values):
    """A method in float64 whose first modality's head knows the labels of its features."""
    method = tiny_method(MLB, modalities, **values).double()
    batch, draw = tiny_batch(modalities), torch.Generator().manual_seed(1)
    f = {m: torch.randn(8, w, generator=draw).double() for m, w in method.model.widths.items()}
    first = modalities[0]
    f[first] += 20 * method.model.heads[first].weight.detach()[batch["label"]]
    return method, batch, f


def slow_factors(method, f, y, alpha, beta):
    """k {m} by loops over samples, from the heads' weights."""
    scores = {}
    for m, rows in f.items():
        w, b = (p.tolist() for p in method.model.heads[m].parameters())
        scores[m] = 0.0
        for i, row in enumerate(rows.tolist()):
            z = [sum(p * x for p, x in zip(line, row)) + c for line, c in zip(w, b)]
            scores[m] += math.exp(z[y[i]]) / sum(map(math.exp, z)) / len(y)
    k = {}
    for m in f:
        others = [scores[o] for o in f if o != m]
        x = alpha * (sum(others) / len(others) / scores[m] - 1)
        k[m] = 1 + math.tanh(x) * (beta - 1 if x > 0 else 1)
    return k


@SETS
@pytest.mark.parametrize(("alpha", "beta"), [(0.8, 2.0), (3.0, 1.5)])
def test_the_loss_and_the_gradients_are_those_of_the_formula(modalities, alpha, beta):
    method, batch, f = method_with_a_leader(modalities, alpha=alpha, beta=beta, w_uni=0.7)
    y, model = batch["label"], method.model
    model.encode = lambda _: f
    loss, logs = method(batch)
    l_uni = sum(F.cross_entropy(model.heads[m](f[m]), y) for m in modalities)
    expected = F.cross_entropy(model.fuse(f), y) + 0.7 * l_uni
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    k = slow_factors(method, f, y, alpha, beta)
    assert k[modalities[0]] < 1 < max(k.values())
    owners = {"fusion.bias": 1.0}
    for m in modalities:
        assert logs[f"train/k/{m}"].item() == pytest.approx(k[m], abs=1e-6)
        owners |= {f"heads.{m}.{part}": k[m] for part in ("weight", "bias")}
    named = {n: p for n, p in model.named_parameters() if not n.startswith("encoders")}
    plain = dict(zip(named, torch.autograd.grad(expected, list(named.values()))))
    loss.backward()
    method.after_backward()
    for name, factor in owners.items():
        assert torch.allclose(named[name].grad, factor * plain[name], atol=1e-9), name
    for m, columns in model.modality_slices.items():
        scaled, before = named["fusion.weight"].grad, plain["fusion.weight"]
        assert torch.allclose(scaled[:, columns], k[m] * before[:, columns], atol=1e-9)


@SETS
def test_the_encoders_gradients_of_all_losses_are_scaled(modalities):
    found = []
    for alpha in (0.0, 5.0):
        method = tiny_method(MLB, modalities, alpha=alpha)
        loss, logs = method(tiny_batch(modalities))
        loss.backward()
        method.after_backward()
        found.append({n: p.grad for n, p in method.model.encoders.named_parameters()})
    for name, grad in found[0].items():
        k = logs[f"train/k/{name.split('.')[0]}"]
        assert k != 1 and torch.allclose(found[1][name], k * grad), name


def test_golden_ratios_and_factors():
    assert others_ratio(doubles(0.5, 0.25)).tolist() == [0.5, 2.0]
    assert others_ratio(doubles(0.6, 0.3, 0.3)).tolist() == pytest.approx([0.5, 1.5, 1.5])
    assert others_ratio(doubles(0, 0)).tolist() == [1, 1]
    assert others_ratio(doubles(0.5, 0)).isfinite().all()
    k = balancing_factor(doubles(0.5, 2.0, 1.0), 0.8, 2.0)
    assert k.tolist() == pytest.approx([0.6200510, 1.6640368, 1.0])
    k = balancing_factor(doubles(0.5, 2.0, 1e9), 0.8, 1.5)
    assert k.tolist() == pytest.approx([0.6200510, 1.3320184, 1.5])
    assert balancing_factor(doubles(0.5, 2.0), 0.8, 1.0).tolist() == pytest.approx([0.6200510, 1])
