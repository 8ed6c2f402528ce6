"""ARL: golden coefficients, the scaling of encoder gradients, warm-up and clipping."""

import pytest
import torch
from conftest import facts, tiny_batch, tiny_model

from methods.arl import ARL, coefficients, entropy, reliance, shares, target, zero_padded_logits

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def make(modalities=PAIR, epoch=9, **values):
    hp = ARL.HParams(**{"warmup_epochs": 0, "clip": 0.0, **values})
    method = ARL(tiny_model(modalities, heads=False), hp, facts())
    method.begin_epoch(epoch, None)
    return method


def step(modalities=PAIR, **values):
    """(method, loss, logs, gradients) of one step."""
    method = make(modalities, **values)
    loss, logs = method(tiny_batch(modalities))
    loss.backward()
    method.after_backward()
    return method, loss.detach(), logs, {n: p.grad for n, p in method.model.named_parameters()}


def norm(gradients):
    return torch.cat([g.flatten() for g in gradients.values()]).norm().item()


def test_golden_coefficients():
    q = target(doubles(1.2, 0.6), 0.3)
    assert q.tolist() == pytest.approx([1 / 3, 2 / 3])
    k = coefficients(shares(doubles(3, 1)), q, 8.0)
    assert k.log().diff().item() == pytest.approx(4.0 - 0.66667, abs=1e-5)
    assert k.tolist() == pytest.approx([0.0344, 0.9656], abs=5e-5)


def test_golden_floor_and_six_tenths_of_the_equal_share():
    assert target(doubles(9, 1), 0.3).tolist() == pytest.approx([0.25, 0.75])
    assert target(doubles(8, 1, 1), 0.3).tolist() == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    q = target(doubles(97, 1, 1, 1), 0.3)  # shares 0.97 and three of 0.15
    assert (q[1] / q[0]).item() == pytest.approx(0.97 / 0.15)


def test_each_modality_is_compared_with_the_mean_of_the_others_shares():
    d, q = doubles(0.7, 0.3), doubles(0.2, 0.8)
    expected = torch.softmax(5.0 * d.flip(0) * q, 0)
    assert torch.allclose(coefficients(d, q, 5.0), expected)
    d, q = doubles(0.5, 0.3, 0.2), doubles(0.2, 0.3, 0.5)
    expected = torch.softmax(6.0 * doubles(0.25 * 0.2, 0.35 * 0.3, 0.4 * 0.5), 0)
    assert torch.allclose(coefficients(d, q, 6.0), expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_factors_lie_between_one_and_two_and_sum_to_m_plus_one(count):
    d, h = torch.rand(count, dtype=torch.float64), torch.rand(count, dtype=torch.float64)
    factors = 1 + coefficients(shares(d), target(h, 0.3), 8.0)
    assert factors.sum().item() == pytest.approx(count + 1)
    assert (factors >= 1).all() and (factors <= 2).all()


def test_zero_logits_and_certain_softmaxes_give_equal_shares():
    assert shares(reliance({m: torch.zeros(4, 3) for m in "av"})).tolist() == [0.5, 0.5]
    certain = {m: torch.tensor([[1e4, 0.0, 0.0]]) for m in "av"}
    assert entropy(certain).tolist() == [0.0, 0.0]
    assert target(entropy(certain), 0.3).tolist() == [0.5, 0.5]


def test_reliance_and_entropy_by_hand():
    z = doubles([1.0, -2.0], [3.0, 0.0]).requires_grad_()
    assert reliance({"a": z}).tolist() == [3.0] and not reliance({"a": z}).requires_grad
    p = doubles([0.8, 0.2], [0.5, 0.5])
    by_hand = -(0.8 * doubles(0.8).log() + 0.2 * doubles(0.2).log() + doubles(0.5).log()) / 2
    assert entropy({"a": p.log()}).item() == pytest.approx(by_hand.item())
    assert not entropy({"a": z}).requires_grad


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_zero_padded_logits_sum_to_the_fused_plus_spare_biases(modalities):
    model = tiny_model(modalities, heads=False).double()
    torch.nn.init.normal_(model.fusion.bias)
    f = {m: torch.randn(5, w, dtype=torch.float64) for m, w in model.widths.items()}
    s = zero_padded_logits(f, model.fusion.weight, model.fusion.bias, model.modality_slices)
    excess = sum(s.values()) - model.fuse(f)
    assert torch.allclose(excess, ((len(f) - 1) * model.fusion.bias).expand(5, -1), atol=1e-9)
    for m in modalities:
        assert torch.allclose(s[m], model.fuse_subset(f, [m]), atol=1e-9)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_this_steps_k_scales_this_steps_encoder_gradients_and_not_the_heads(modalities):
    plain = step(modalities, mode="off")[3]
    for mode in ("paper", "constant_half"):
        method, _, logs, gradients = step(modalities, mode=mode)
        k = torch.stack([logs[f"train/k/{m}"] for m in modalities])
        assert k.sum().item() == pytest.approx(1) and k.unique().numel() == len(modalities)
        factors = 1 + k if mode == "paper" else torch.full_like(k, 1.5)
        assert torch.equal(method.factors, factors)
        of = {f"encoders.{m}": factor for m, factor in zip(modalities, factors)}
        for name, grad in gradients.items():
            factor = of.get(".".join(name.split(".")[:2]), torch.tensor(1.0))
            assert torch.equal(grad, plain[name] * factor), name


def test_scaling_parameters_equals_scaling_the_gradient_of_features():
    method, _, _, gradients = step()
    hooked = make(mode="off")
    for m, factor in zip(PAIR, method.factors):
        hooked.model.encoders[m].register_forward_hook(
            lambda _, __, f, factor=factor: f.register_hook(lambda g: g * factor) and None
        )
    hooked(tiny_batch())[0].backward()
    for name, p in hooked.model.named_parameters():
        assert torch.allclose(gradients[name], p.grad, rtol=1e-4, atol=1e-6), name


def test_the_loss_and_the_warm_up():
    _, loss, logs, _ = step(gamma=3.0)
    l_uni = sum(logs[f"train/L_uni/{m}"] for m in PAIR)
    assert loss.item() == pytest.approx((logs["train/L_align"] + 3.0 * l_uni).item())
    assert logs["train/L_uni"].item() == pytest.approx(l_uni.item())
    warm, loss, logs, gradients = step(warmup_epochs=6, epoch=6)
    assert torch.equal(loss, logs["train/L_align"] + logs["train/L_uni"])  # gamma 1, no scaling
    plain = step(mode="off", gamma=1.0)[3]
    assert all(torch.equal(gradients[n], plain[n]) for n in plain)
    warm.begin_epoch(7, None)
    _, logs = warm(tiny_batch())
    assert all(logs[f"train/grad_factor/{m}"] == 1 + logs[f"train/k/{m}"] for m in PAIR)


@pytest.mark.parametrize("epoch", [1, 9])
def test_clipping_comes_after_the_scaling_and_bounds_the_norm_in_both_phases(epoch):
    free, bound = (step(warmup_epochs=6, epoch=epoch, clip=c)[3] for c in (0.0, 0.5))
    assert norm(free) > 0.6
    assert norm(bound) == pytest.approx(0.5, rel=1e-4)
    shrink = 0.5 / norm(free)
    assert all(torch.allclose(bound[n], shrink * free[n], rtol=1e-4, atol=1e-7) for n in free)
    unclipped = step(warmup_epochs=6, epoch=epoch, clip=1e6)[3]
    assert all(torch.equal(unclipped[n], free[n]) for n in free)


def test_the_floor_bounds_the_target_of_a_certain_modality():
    targets = {}
    for floor in (0.01, 0.3, 1.0):
        method = make(floor=floor)
        with torch.no_grad():  # a sure audio branch: its entropy is a small share
            method.model.fusion.weight[:, method.model.modality_slices["audio"]] *= 200
        _, logs = method(tiny_batch())
        targets[floor] = logs["train/target/audio"].item()
    low, high = logs["train/entropy/audio"].item(), logs["train/entropy/video"].item()
    rest = high / (low + high)
    assert low / (low + high) < 0.2
    assert targets[0.01] == pytest.approx(rest, abs=1e-5)
    assert targets[0.3] == pytest.approx(rest / (0.3 + rest), abs=1e-5)
    assert targets[1.0] == pytest.approx(0.5)


def test_unimodal_accuracy_is_that_of_the_zero_padded_logits():
    method, batch = make(), tiny_batch()
    method.model.eval()
    _, logs = method(batch)
    f = method.model.encode(batch["inputs"])
    for m in PAIR:
        right = method.model.fuse_subset(f, [m]).argmax(1) == batch["label"]
        assert logs[f"train/acc_uni/{m}"].item() == pytest.approx(right.double().mean().item())
