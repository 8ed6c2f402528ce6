"""AGM: golden factors, and steps against Shapley values by enumeration with scaled gradients."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.agm import AGM, factors, ratios, scores


def step(method, batch):
    torch.manual_seed(0)  # dropout
    method.zero_grad()
    loss, logs = method(batch)
    loss.backward()
    method.after_backward()
    return {k: float(v) for k, v in logs.items()}


def by_enumeration(model, f):
    """{m: [B, C]}: mean gain in the fused output over all orders; hiding all gives zero."""
    names, total = list(f), {}
    for m in names:
        gains = []
        for order in itertools.permutations(names):
            before = order[: order.index(m)]
            out = model.fuse_subset(f, [*before, m])
            gains.append(out - model.fuse_subset(f, before) if before else out)
        total[m] = sum(gains) / len(gains)
    return total


def slow_score(response, labels):
    p = [row.softmax(0)[y].item() for row, y in zip(response, labels)]
    return sum(-math.log(max(value, 1e-8)) for value in p) / len(p)


def slow_ratio(s, m):
    others = [value - s[m] for n, value in s.items() if n != m]
    return math.exp(sum(others) / len(others))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_steps_agree_with_shapley_values_whose_gradients_are_scaled(modalities, float64):
    method = tiny_method(AGM, modalities, alpha=2.0, cap=0.05, clip=0.0)
    history, capped = {m: [] for m in modalities}, 0
    for seed in range(4):
        batch, model = tiny_batch(modalities, seed=seed), copy.deepcopy(method.model)
        logs = step(method, batch)
        torch.manual_seed(0)
        responses = by_enumeration(model, model.encode(batch["inputs"]))
        s = {m: slow_score(z, batch["label"]) for m, z in responses.items()}
        past = {m: sum(h) / max(len(h), 1) for m, h in history.items()}
        k = {}
        for m in modalities:
            lead = slow_ratio(past, m) - slow_ratio(s, m)
            capped += lead > 0.05
            k[m] = math.exp(2.0 * min(lead, 0.05))
            assert logs[f"train/k/{m}"] == pytest.approx(k[m], rel=1e-6)
            history[m].append(s[m])
        z = sum(k[m] * r + (1 - k[m]) * r.detach() for m, r in responses.items())
        model.zero_grad()
        F.cross_entropy(z, batch["label"]).backward()
        found = dict(method.model.named_parameters())
        for name, p in model.named_parameters():
            if p.grad is not None:
                assert torch.allclose(found[name].grad, p.grad, rtol=1e-6, atol=1e-10), name
        with torch.no_grad():  # other weights in the next step
            for p in method.model.parameters():
                p.add_(0.05 * torch.randn_like(p))
    assert 0 < capped < 4 * len(modalities)


def test_golden_factors():
    s, running = doubles(0.2, 0.5), doubles(0.4, 0.4)  # the first is further ahead than usual
    assert ratios(s).tolist() == pytest.approx([math.exp(0.3), math.exp(-0.3)])
    k = factors(s, running, 2.0, 10.0)
    assert k.tolist() == pytest.approx([0.496726, 1.679277], abs=1e-6)
    assert ratios(doubles(0.3, 0.6, 0.9)).tolist() == pytest.approx(
        [math.exp(0.45), 1, math.exp(-0.45)]
    )
    assert factors(s, s, 5.0, 10.0).tolist() == [1, 1]
    assert factors(doubles(9, 0), doubles(0, 9), 1.0, 7.0)[0].item() == pytest.approx(math.exp(7))


def test_the_score_of_a_certain_mistake_is_bounded():
    z = {"a": doubles([0.0, 99.0]), "v": doubles([0.0, 0.0])}
    s = scores(z, torch.tensor([0])).tolist()
    assert s == pytest.approx([-math.log(1e-8), math.log(2)])


def test_the_encoders_scope_leaves_the_fusion_layer_alone():
    def gradients(**values):
        method = tiny_method(AGM, clip=0.0, **values)
        logs = step(method, tiny_batch())
        return {n: p.grad for n, p in method.model.named_parameters() if p.grad is not None}, logs

    scaled, logs = gradients(alpha=3.0, scope="encoders")
    plain, _ = gradients(alpha=0.0)
    for name, gradient in plain.items():
        m = name.split(".")[1]
        k = logs[f"train/k/{m}"] if m in PAIR else 1.0
        assert torch.allclose(scaled[name], k * gradient, rtol=1e-5), name


def test_outside_the_window_gradients_are_plain_and_the_means_go_on():
    method = tiny_method(AGM, epoch=2, warmup_epochs=2, end_epoch=4, alpha=3.0, clip=0.0)
    plain = tiny_method(AGM, alpha=0.0, clip=0.0)
    for epoch, open_ in ((2, False), (3, True), (4, True), (5, False)):
        method.begin_epoch(epoch, None)
        logs = step(method, tiny_batch(seed=epoch))
        step(plain, tiny_batch(seed=epoch))
        pairs = zip(method.model.parameters(), plain.model.parameters(), strict=True)
        same = all(torch.equal(p.grad, q.grad) for p, q in pairs if p.grad is not None)
        assert same == (not open_) and ("train/k/audio" in logs) == open_
    assert method.steps == 4 and torch.equal(method.running, plain.running)


def test_clipping_acts_only_if_an_entry_of_the_fusion_gradient_is_too_large():
    def gradients(clip):
        method = tiny_method(AGM, clip=clip)
        step(method, tiny_batch())
        largest = method.model.fusion.weight.grad.abs().max()
        return [p.grad for p in method.model.parameters() if p.grad is not None], largest

    free, largest = gradients(0.0)
    norm = torch.cat([g.flatten() for g in free]).norm()
    assert norm > largest * 1.2
    kept, _ = gradients(largest.item() * 1.1)  # below the norm, but no entry is above it
    assert all(torch.equal(a, b) for a, b in zip(kept, free))
    clipped, _ = gradients(largest.item() * 0.9)
    scale = 0.9 * largest / norm
    assert all(torch.allclose(a, scale * b, rtol=1e-4, atol=1e-8) for a, b in zip(clipped, free))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_features_that_are_all_zero_give_finite_gradients(modalities):
    method = tiny_method(AGM, modalities)
    encode = method.model.encode
    method.model.encode = lambda x: {m: f * 0 if m == "video" else f for m, f in encode(x).items()}
    for seed in range(2):
        logs = step(method, tiny_batch(modalities, size=2, seed=seed))
        assert all(math.isfinite(value) for value in logs.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
