"""MMPareto: golden weights, and steps against gradients of each loss on its own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mmpareto import MMPareto, inner, integrate, multimodal_weight


def step(modalities=PAIR, seed=0, **values):
    """(method, a copy from before the step, its batch) after one step."""
    method = tiny_method(MMPareto, modalities, **values)
    before, batch = copy.deepcopy(method.model), tiny_batch(modalities, seed=seed)
    torch.manual_seed(0)  # dropout
    loss, _ = method(batch)
    loss.backward()
    method.after_backward()
    return method, before, batch


def alone(model, batch, of):
    """{name: gradient} of one loss alone: the fused one, or that of modality `of`."""
    model = copy.deepcopy(model)
    torch.manual_seed(0)
    f = model.encode(batch["inputs"])
    z = model.fuse(f) if of is None else model.heads[of](f[of])
    F.cross_entropy(z, batch["label"]).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients.values()])


def shortest(a, b):
    """c in [0, 1] that minimises |c a + (1 - c) b|, by halving the interval of its slope's sign."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if (middle * a + (1 - middle) * b) @ (a - b) > 0:
            high = middle
        else:
            low = middle
    return low


def slow(model, batch, m, gamma, length):
    """({name: gradient} of encoder m, whether there was a conflict)."""
    fused = {n: g for n, g in alone(model, batch, None).items() if n.startswith(f"encoders.{m}.")}
    own = {n: g for n, g in alone(model, batch, m).items() if n in fused}
    conflict = bool(flat(fused) @ flat(own) <= 0)
    c = shortest(flat(fused), flat(own)) if conflict else 0.5
    h = {n: 2 * c * fused[n] + 2 * (1 - c) * own[n] for n in fused}
    both = {n: fused[n] + own[n] for n in fused}
    found = {}
    for n in h:
        scale = both[n].norm() / h[n].norm()
        if length == "encoder":
            scale = flat(both).norm() / flat(h).norm()
        found[n] = gamma * (h[n] * scale if scale > 1 else h[n])
    return found, conflict


@pytest.mark.parametrize("length", ["tensor", "encoder"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_step_agrees_with_separate_backward_passes(modalities, length, float64):
    conflicts = set()
    for seed in range(4):
        method, before, batch = step(modalities, seed, length=length, gamma=1.3)
        for m in modalities:
            expected, conflict = slow(before, batch, m, 1.3, length)
            conflicts.add(conflict)
            found = dict(method.model.named_parameters())
            for name, gradient in expected.items():
                assert torch.allclose(found[name].grad, gradient, rtol=1e-6, atol=1e-10), name
    assert conflicts == {True, False}


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_fusion_and_heads_get_the_plain_gradients(modalities, float64):
    method, before, batch = step(modalities)
    heads = {m: alone(before, batch, m)[f"heads.{m}.weight"] for m in modalities}
    for m, gradient in heads.items():
        assert torch.allclose(method.model.heads[m].weight.grad, gradient)
    fused = alone(before, batch, None)["fusion.weight"]
    assert torch.allclose(method.model.fusion.weight.grad, fused)


def test_golden_weights():
    def weight(a, b):
        return multimodal_weight(inner(a, a), inner(a, b), inner(b, b)).item()

    east, north, west = [doubles(2.0, 0.0)], [doubles(0.0, 1.0)], [doubles(-1.0, 0.0)]
    assert weight(east, [doubles(2.0, 5.0)]) == 0.5  # no conflict
    assert weight(east, north) == pytest.approx(0.2)  # at a right angle: 1 / (4 + 1)
    assert weight(east, west) == pytest.approx(1 / 3)  # opposite: they cancel
    assert weight([doubles(-1.0, 1.0)], [doubles(3.0, 1.0)]) == pytest.approx(0.75)
    assert weight([0 * east[0]], north) == 1 and 0 <= weight([0 * east[0]], [0 * east[0]]) <= 1


def test_in_a_conflict_both_losses_descend_and_no_length_is_lost():
    mul, uni = [doubles(1.0, 0.0)], [doubles(-3.0, 3.0)]
    total = [mul[0] + uni[0]]
    weight = multimodal_weight(inner(mul, mul), inner(mul, uni), inner(uni, uni))
    (h,) = integrate(total, uni, weight, 1.0, "tensor")
    assert h @ mul[0] > 0 and h @ uni[0] > 0
    assert total[0] @ mul[0] < 0  # the plain sum would raise the multimodal loss
    assert h.norm().item() == pytest.approx(total[0].norm().item())


def test_lengths_are_compared_for_each_tensor_or_over_the_encoder():
    # a_mul = 3/4: h is -2 and 1.5, the sums are 4 and 1.
    total, uni = [doubles(4.0), doubles(1.0)], [doubles(8.0), doubles(0.0)]
    weight = torch.tensor(0.75, dtype=torch.float64)
    h = [1.5 * 4 - 8, 1.5]
    each = integrate(total, uni, weight, 2.0, "tensor")
    assert [g.item() for g in each] == pytest.approx([2 * h[0] * 2, 2 * h[1]])
    whole = integrate(total, uni, weight, 2.0, "encoder")
    scale = (17 / (h[0] ** 2 + h[1] ** 2)) ** 0.5
    assert [g.item() for g in whole] == pytest.approx([2 * scale * h[0], 2 * scale * h[1]])


def test_without_a_conflict_the_encoders_gradient_is_the_sum_to_the_last_bit():
    total, uni = [torch.randn(5, 3), torch.randn(7)], [torch.randn(5, 3), torch.randn(7)]
    for scope in ("tensor", "encoder"):
        kept = integrate(total, uni, torch.tensor(0.5), 1.0, scope)
        assert all(torch.equal(a, b) for a, b in zip(kept, total))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_features_that_are_all_zero_give_finite_gradients(modalities):
    method = tiny_method(MMPareto, modalities)
    encode = method.model.encode
    method.model.encode = lambda x: {m: f * 0 if m == "video" else f for m, f in encode(x).items()}
    loss, _ = method(tiny_batch(modalities, size=2))
    loss.backward()
    method.after_backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert all(value.isfinite() for value in method.end_epoch().values())
