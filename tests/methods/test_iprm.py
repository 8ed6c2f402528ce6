"""IPRM: golden mixtures and weights, and steps against loops over samples and pairs."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.iprm import IPRM, divergence, rebalanced, slerp


def step(method, batch):
    torch.manual_seed(0)  # dropout
    method.zero_grad()
    loss, logs = method(batch)
    loss.backward()
    return loss.item(), {k: float(v) for k, v in logs.items()}


def slow_mix(x, y, w):
    """The points at the share w of the arcs from y to x, one sample after another."""
    rows = []
    for a, b in zip(x, y):
        u, v = a / a.norm(), b / b.norm()
        angle = math.acos((u @ v).item())
        side = (v - (u @ v) * u) / math.sin(angle)  # unit vector at a right angle to u
        rows.append(math.cos((1 - w) * angle) * u + math.sin((1 - w) * angle) * side)
    return torch.stack(rows)


def slow_kl(z, fused):
    total = 0.0
    for a, b in zip(z.softmax(1), fused.softmax(1)):
        total += sum((p * math.log(p / q)) for p, q in zip(a.tolist(), b.tolist()))
    return total / len(z)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_steps_agree_with_loops_over_samples_and_pairs(modalities, float64):
    method = tiny_method(IPRM, modalities, alpha=0.7)
    pairs = [(a, b) for n, a in enumerate(modalities) for b in modalities[n + 1 :]]
    lam = [0.5] * len(pairs)
    for seed in range(3):
        batch = tiny_batch(modalities, seed=seed)
        twin = copy.deepcopy(method)
        loss, logs = step(method, batch)
        torch.manual_seed(0)
        f = twin.model.encode(batch["inputs"])
        z = twin.model.unimodal(f)
        f = twin.common(f)
        expected = sum(F.cross_entropy(z_m, batch["label"]).item() for z_m in z.values())
        mine = {m: [] for m in modalities}
        for n, (a, b) in enumerate(pairs):
            with torch.no_grad():
                probe = twin.mixed[n](slow_mix(f[a], f[b], lam[n]))
                kl = {m: slow_kl(z[m], probe) for m in (a, b)}
                w = kl[b] / (kl[a] + kl[b])
                fused = twin.mixed[n](slow_mix(f[a], f[b], w))
            expected += F.cross_entropy(fused, batch["label"]).item()
            lam[n] = 0.7 * lam[n] + 0.3 * w
            mine[a].append(w)
            mine[b].append(1 - w)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert method.lam.tolist() == pytest.approx(lam, rel=1e-6)
        for m, weights in mine.items():
            assert logs[f"train/weight/{m}"] == pytest.approx(sum(weights) / len(weights))
        with torch.no_grad():  # other weights in the next step
            for p in method.parameters():
                p.add_(0.05 * torch.randn_like(p))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_the_prediction_adds_the_unimodal_logits_and_the_mean_of_the_fused_ones(modalities):
    method = tiny_method(IPRM, modalities)
    method.lam.copy_(torch.linspace(0.2, 0.6, len(method.lam)))
    method.eval()
    f = method.model.encode(tiny_batch(modalities)["inputs"])
    pairs = [(a, b) for n, a in enumerate(modalities) for b in modalities[n + 1 :]]
    expected = sum(method.model.heads[m](f[m]) for m in modalities)
    g = method.common(f)
    for n, (a, b) in enumerate(pairs):
        mixture = slow_mix(g[a], g[b], method.lam[n].item())
        expected = expected + method.mixed[n](mixture) / len(pairs)
    assert torch.allclose(method.logits(f), expected, atol=1e-5)


def test_golden_mixtures():
    x, y = doubles([2.0, 0.0]), doubles([0.0, 0.5])
    third = slerp(x, y, torch.tensor(1 / 3, dtype=torch.float64))
    assert third[0].tolist() == pytest.approx([0.5, 3**0.5 / 2])  # 60 degrees from x
    ends = [slerp(x, y, torch.tensor(w, dtype=torch.float64))[0].tolist() for w in (1.0, 0.0)]
    assert ends == [pytest.approx([1, 0]), pytest.approx([0, 1])]
    middle = slerp(x, 3 * x, torch.tensor(0.4, dtype=torch.float64))
    assert middle[0].tolist() == pytest.approx([1, 0], abs=1e-5)  # parallel: no angle


def test_the_nearer_modality_gets_more_weight():
    z = {"a": doubles([2.0, 0.0]), "b": doubles([0.0, 0.0])}
    fused = doubles([1.0, 0.0])
    kl = [divergence(value, fused) for value in z.values()]
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))
    by_hand = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert kl[0].item() == pytest.approx(by_hand)
    assert rebalanced(*kl).item() == pytest.approx((kl[1] / (kl[0] + kl[1])).item())
    assert rebalanced(doubles(1.0), doubles(3.0)).item() == 0.75
    assert rebalanced(doubles(0.0), doubles(0.0)).item() == 0.5


def test_no_gradient_flows_through_the_weights():
    method = tiny_method(IPRM)
    constant = copy.deepcopy(method)
    batch = tiny_batch()
    f = method.model.encode(batch["inputs"])
    kl, w = (x.clone() for x in method.probe(f, method.model.unimodal(f)))
    constant.probe = lambda f, z: (kl, w)
    step(method, batch)
    step(constant, batch)
    pairs = zip(method.parameters(), constant.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, atol=1e-6) for p, q in pairs if p.grad is not None)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_zero_and_parallel_features_give_finite_gradients(modalities):
    for change in (lambda f: 0 * f, lambda f: 0 * f + 1.0):
        method = tiny_method(IPRM, modalities)
        encode = method.model.encode
        method.model.encode = lambda x: {
            m: change(f) if m != "audio" else 0 * f + 2.0  # noqa: B023
            for m, f in encode(x).items()  # noqa: B023
        }
        loss, logs = step(method, tiny_batch(modalities, size=2))
        assert math.isfinite(loss) and all(math.isfinite(value) for value in logs.values())
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
        assert method.logits(method.model.encode(tiny_batch(modalities)["inputs"])).isfinite().all()
