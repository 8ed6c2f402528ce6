"""ARL: golden coefficients, the scaling of encoder gradients, warm-up and clipping."""

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.arl import ARL, coefficients, entropy, reliance, shares, target


def step(modalities=PAIR, epoch=9, **values):
    """(method, loss, logs, gradients) of one step."""
    values = {"warmup_epochs": 0, "clip": 0.0, **values}
    method = tiny_method(ARL, modalities, epoch, **values)
    loss, logs = method(tiny_batch(modalities))
    loss.backward()
    method.after_backward()
    return method, loss.detach(), logs, {n: p.grad for n, p in method.model.named_parameters()}


def test_golden_coefficients():
    q = target(doubles(1.2, 0.6), 0.3)
    assert q.tolist() == pytest.approx([1 / 3, 2 / 3])
    k = coefficients(shares(doubles(3, 1)), q, 8.0)
    assert k.log().diff().item() == pytest.approx(4.0 - 0.66667, abs=1e-5)
    assert k.tolist() == pytest.approx([0.0344, 0.9656], abs=5e-5)


def test_the_floor_is_six_tenths_of_the_equal_share():
    assert target(doubles(9, 1), 0.3).tolist() == pytest.approx([0.25, 0.75])
    assert target(doubles(8, 1, 1), 0.3).tolist() == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    q = target(doubles(97, 1, 1, 1), 0.3)  # shares 0.97 and three of 0.15
    assert (q[1] / q[0]).item() == pytest.approx(0.97 / 0.15)


def test_each_modality_is_compared_with_the_mean_of_the_others_shares():
    d, q = doubles(0.5, 0.3, 0.2), doubles(0.2, 0.3, 0.5)
    expected = torch.softmax(6.0 * doubles(0.25 * 0.2, 0.35 * 0.3, 0.4 * 0.5), 0)
    assert torch.allclose(coefficients(d, q, 6.0), expected)


def test_zero_logits_and_certain_softmaxes_give_equal_shares():
    assert shares(reliance({m: torch.zeros(4, 3) for m in "av"})).tolist() == [0.5, 0.5]
    certain = {m: torch.tensor([[1e4, 0.0, 0.0]]) for m in "av"}
    assert target(entropy(certain), 0.3).tolist() == [0.5, 0.5]


def test_reliance_and_entropy_by_hand():
    assert reliance({"a": doubles([1.0, -2.0], [3.0, 0.0])}).tolist() == [3.0]
    p = doubles([0.8, 0.2], [0.5, 0.5])
    assert entropy({"a": p.log()}).item() == pytest.approx((0.5004024 + 0.6931472) / 2)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_step_is_made_of_the_fused_and_the_zero_padded_logits(modalities):
    method, loss, logs, _ = step(modalities, gamma=3.0)
    y, f = tiny_batch(modalities)["label"], method.model.encode(tiny_batch(modalities)["inputs"])
    s = {m: method.model.fuse_subset(f, [m]) for m in modalities}
    l_uni = [F.cross_entropy(z, y).item() for z in s.values()]
    l_align = F.cross_entropy(method.model.fuse(f), y).item()
    assert loss.item() == pytest.approx(l_align + 3 * sum(l_uni), rel=1e-5)
    k = coefficients(shares(reliance(s)), target(entropy(s), 0.3), 4.0)
    for n, m in enumerate(modalities):
        assert logs[f"train/L_uni/{m}"].item() == pytest.approx(l_uni[n], rel=1e-5)
        assert logs[f"train/acc_uni/{m}"] == (s[m].argmax(1) == y).float().mean()
        assert logs[f"train/k/{m}"].item() == pytest.approx(k[n].item(), rel=1e-4)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("mode", ["paper", "constant_half"])
def test_only_the_encoders_gradients_are_scaled(modalities, mode):
    _, _, logs, scaled = step(modalities, mode=mode)
    _, _, _, plain = step(modalities, mode="off")
    for name, gradient in plain.items():
        part, m = name.split(".")[:2]
        factor = (1 + logs[f"train/k/{m}"] if mode == "paper" else 1.5) if m in modalities else 1.0
        assert torch.allclose(scaled[name], factor * gradient), (part, m)


def test_the_warm_up_has_gamma_one_and_scales_nothing():
    warm, loss, logs, gradients = step(warmup_epochs=6, epoch=6)
    assert torch.equal(loss, logs["train/L_align"] + logs["train/L_uni"])
    plain = step(mode="off", gamma=1.0)[3]
    assert all(torch.equal(gradients[n], plain[n]) for n in plain)
    warm.begin_epoch(7, None)
    _, logs = warm(tiny_batch())
    assert all(logs[f"train/grad_factor/{m}"] == 1 + logs[f"train/k/{m}"] for m in PAIR)


@pytest.mark.parametrize("epoch", [1, 9])
def test_clipping_comes_after_the_scaling_in_both_phases(epoch):
    free, bound = (step(warmup_epochs=6, epoch=epoch, clip=c)[3] for c in (0.0, 0.5))
    norm = torch.cat([g.flatten() for g in free.values()]).norm()
    assert norm > 0.6
    assert all(torch.allclose(bound[n], 0.5 / norm * free[n], rtol=1e-4, atol=1e-7) for n in free)
