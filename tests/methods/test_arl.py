"""ARL: golden coefficients, the scaling of encoder gradients, and what reduces it to Joint."""

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model

from common.options import UsageError
from methods.arl import ARL, coefficients, entropy, reliance, shares, target, zero_padded_logits
from methods.joint import Joint

TRIO = ("text", "audio", "video")
PAIR = ("audio", "video")


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def make(modalities=PAIR, epoch=9, **values):
    hp = ARL.HParams(**{"warmup_epochs": 0, "clip": 0.0, **values})
    method = ARL(tiny_model(modalities, heads=False), hp, facts())
    method.begin_epoch(epoch, None)
    return method


def step(method, batch):
    """Loss and logs of one step; gradients are left on the parameters."""
    loss, logs = method(batch)
    loss.backward()
    method.after_backward()
    return loss.detach(), logs


def gradients(method):
    return {name: p.grad.clone() for name, p in method.model.named_parameters()}


def norm(method):
    return torch.cat([g.flatten() for g in gradients(method).values()]).norm().item()


def k_of(d, h, temperature=8.0, floor=0.3):
    return coefficients(shares(d), target(h, floor), temperature)


def test_golden_coefficients():
    q = target(doubles(1.2, 0.6), 0.3)
    assert q.tolist() == pytest.approx([1 / 3, 2 / 3])
    k = coefficients(shares(doubles(3, 1)), q, 8.0)
    assert k.log().diff().item() == pytest.approx(4.0 - 0.66667, abs=1e-5)
    assert k.tolist() == pytest.approx([0.0344, 0.9656], abs=5e-5)


def test_golden_floor():
    assert target(doubles(9, 1), 0.3).tolist() == pytest.approx([0.25, 0.75])


def test_the_floor_is_six_tenths_of_the_equal_share():
    assert target(doubles(8, 1, 1), 0.3).tolist() == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    q = target(doubles(97, 1, 1, 1), 0.3)  # shares 0.97 and three of 0.15
    assert (q[1] / q[0]).item() == pytest.approx(0.97 / 0.15)


def test_two_modalities_use_the_others_share():
    d, q = doubles(0.7, 0.3), doubles(0.2, 0.8)
    expected = torch.softmax(5.0 * d.flip(0) * q, 0)
    assert torch.allclose(coefficients(d, q, 5.0), expected)


def test_three_modalities_use_the_mean_of_the_others_shares():
    d, q = doubles(0.5, 0.3, 0.2), doubles(0.2, 0.3, 0.5)
    expected = torch.softmax(6.0 * doubles(0.25 * 0.2, 0.35 * 0.3, 0.4 * 0.5), 0)
    assert torch.allclose(coefficients(d, q, 6.0), expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_factors_lie_between_one_and_two_and_sum_to_m_plus_one(count):
    d, h = torch.rand(count, dtype=torch.float64), torch.rand(count, dtype=torch.float64)
    factors = 1 + k_of(d, h)
    assert factors.sum().item() == pytest.approx(count + 1)
    assert (factors >= 1).all() and (factors <= 2).all()
    equal = k_of(torch.ones(count), torch.ones(count))
    assert equal.tolist() == pytest.approx([1 / count] * count)


def test_swapped_modalities_swap_k():
    d, h = doubles(3, 1), doubles(1.2, 0.6)
    assert torch.equal(k_of(d.flip(0), h.flip(0)), k_of(d, h).flip(0))


def test_all_zero_logits_and_certain_softmaxes_give_equal_shares():
    zero = {m: torch.zeros(4, 3) for m in "av"}
    assert shares(reliance(zero)).tolist() == [0.5, 0.5]
    certain = {m: torch.tensor([[1e4, 0.0, 0.0]]) for m in "av"}
    assert entropy(certain).tolist() == [0.0, 0.0]
    assert target(entropy(certain), 0.3).tolist() == [0.5, 0.5]


def test_reliance_and_entropy_by_hand():
    z = doubles([1.0, -2.0], [3.0, 0.0])
    assert reliance({"a": z}).tolist() == [3.0]
    p = doubles([0.8, 0.2], [0.5, 0.5])
    by_hand = -(0.8 * doubles(0.8).log() + 0.2 * doubles(0.2).log() + doubles(0.5).log()) / 2
    assert entropy({"a": p.log()}).item() == pytest.approx(by_hand.item())


def test_k_carries_no_gradient():
    z = {m: torch.randn(4, 3, requires_grad=True) for m in "av"}
    k = k_of(reliance(z), entropy(z))
    assert not k.requires_grad


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_zero_padded_logits_sum_to_the_fused_plus_spare_biases(modalities):
    model = tiny_model(modalities, heads=False).double()
    with torch.no_grad():
        model.fusion.bias.normal_()
    f = {m: torch.randn(5, w, dtype=torch.float64) for m, w in model.widths.items()}
    s = zero_padded_logits(f, model.fusion.weight, model.fusion.bias, model.modality_slices)
    excess = sum(s.values()) - model.fuse(f)
    assert torch.allclose(excess, ((len(f) - 1) * model.fusion.bias).expand(5, -1), atol=1e-9)
    for m in modalities:
        assert torch.allclose(s[m], model.fuse_subset(f, [m]), atol=1e-9)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_without_its_parts_it_is_joint_to_the_last_bit(modalities):
    batch = tiny_batch(modalities)
    joint = Joint(tiny_model(modalities, heads=False), None, facts())
    loss, _ = step(joint, batch)
    method = make(modalities, gamma=0.0, mode="off")
    assert torch.equal(step(method, batch)[0], loss)
    mine, theirs = gradients(method), gradients(joint)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_a_constant_coefficient_scales_the_encoders_and_not_the_head():
    batch = tiny_batch()
    plain, scaled = make(mode="off"), make(mode="constant_half")
    step(plain, batch)
    step(scaled, batch)
    before, after = gradients(plain), gradients(scaled)
    for name in before:
        factor = 1.5 if name.startswith("encoders.") else 1.0
        assert torch.equal(after[name], factor * before[name])


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_scaling_parameters_equals_scaling_the_gradient_of_features(modalities):
    batch = tiny_batch(modalities)
    method = make(modalities)
    step(method, batch)
    assert method.factors.unique().numel() == len(modalities)  # k is not uniform here
    hooked = make(modalities, mode="off")
    for m, factor in zip(modalities, method.factors):
        hooked.model.encoders[m].register_forward_hook(
            lambda _, __, f, factor=factor: f.register_hook(lambda g: g * factor) and None
        )
    step(hooked, batch)
    mine, theirs = gradients(method), gradients(hooked)
    assert all(torch.allclose(mine[n], theirs[n], rtol=1e-4, atol=1e-6) for n in mine)
    unscaled = make(modalities, mode="off")
    step(unscaled, batch)
    name = "encoders.audio." + next(iter(dict(unscaled.model.encoders["audio"].named_parameters())))
    assert not torch.allclose(mine[name], gradients(unscaled)[name], rtol=1e-2)


def test_this_steps_k_scales_this_steps_gradients():
    method, plain, batch = make(), make(mode="off"), tiny_batch()
    _, logs = step(method, batch)
    step(plain, batch)
    for m in PAIR:
        pairs = zip(method.model.encoder_parameters(m), plain.model.encoder_parameters(m))
        for mine, theirs in pairs:
            assert torch.equal(mine.grad, theirs.grad * (1 + logs[f"train/k/{m}"]))


def test_the_loss_is_fused_plus_gamma_times_unimodal():
    loss, logs = make(gamma=3.0)(tiny_batch())
    l_uni = sum(logs[f"train/L_uni/{m}"] for m in PAIR)
    assert loss.item() == pytest.approx((logs["train/L_align"] + 3.0 * l_uni).item())
    assert logs["train/L_uni"].item() == pytest.approx(l_uni.item())


def test_warm_up_has_gamma_one_and_no_scaling():
    batch = tiny_batch()
    warm = make(warmup_epochs=6, epoch=6)
    loss, logs = step(warm, batch)
    assert torch.equal(loss, logs["train/L_align"] + logs["train/L_uni"])
    plain = make(mode="off", gamma=1.0)
    step(plain, batch)
    mine, theirs = gradients(warm), gradients(plain)
    assert all(torch.equal(mine[n], theirs[n]) for n in mine)
    assert all(logs[f"train/grad_factor/{m}"] == 1 for m in PAIR)
    warm.begin_epoch(7, None)
    _, logs = warm(batch)
    assert all(logs[f"train/grad_factor/{m}"] == 1 + logs[f"train/k/{m}"] for m in PAIR)


@pytest.mark.parametrize("epoch", [1, 9])
def test_clipping_bounds_the_norm_of_all_gradients_in_both_phases(epoch):
    free, bound = make(warmup_epochs=6, epoch=epoch), make(warmup_epochs=6, epoch=epoch, clip=0.5)
    step(free, tiny_batch())
    step(bound, tiny_batch())
    assert norm(free) > 0.6
    assert norm(bound) == pytest.approx(0.5, rel=1e-4)


def test_clipping_comes_after_the_scaling():
    batch = tiny_batch()
    scaled, bound = make(), make(clip=0.5)
    step(scaled, batch)
    step(bound, batch)
    shrink = 0.5 / norm(scaled)
    mine, theirs = gradients(bound), gradients(scaled)
    assert all(torch.allclose(mine[n], shrink * theirs[n], rtol=1e-4, atol=1e-7) for n in mine)


def test_clipping_below_its_bound_changes_nothing():
    batch = tiny_batch()
    free, bound = make(), make(clip=1e6)
    step(free, batch)
    step(bound, batch)
    mine, theirs = gradients(bound), gradients(free)
    assert all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_temperature_moves_k():
    _, default = make()(tiny_batch())
    _, flat = make(temperature=0.0)(tiny_batch())
    assert [flat[f"train/k/{m}"].item() for m in PAIR] == pytest.approx([0.5, 0.5])
    assert default["train/k/audio"].item() != pytest.approx(0.5, abs=1e-3)


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


def test_the_constant_mode_still_logs_the_k_that_it_does_not_use():
    _, half = make(mode="constant_half")(tiny_batch())
    _, used = make()(tiny_batch())
    for m in PAIR:
        assert torch.equal(half[f"train/k/{m}"], used[f"train/k/{m}"])
        assert half[f"train/grad_factor/{m}"] == 1.5 != used[f"train/grad_factor/{m}"]


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_gradient_reaches_each_encoder_and_logs_are_complete(modalities):
    method = make(modalities)
    loss, logs = step(method, tiny_batch(modalities))
    assert loss.isfinite()
    for m in modalities:
        assert all(p.grad is not None for p in method.model.encoder_parameters(m))
        weights = [p for p in method.model.encoder_parameters(m) if p.ndim > 1]
        assert weights and all(p.grad.abs().sum() > 0 for p in weights)
    for series in ("reliance", "target", "k"):
        total = sum(logs[f"train/{series}/{m}"] for m in modalities)
        assert total.item() == pytest.approx(1.0, abs=1e-5)
    for series in ("entropy", "L_uni", "acc_uni", "grad_factor"):
        assert all(logs[f"train/{series}/{m}"].ndim == 0 for m in modalities)
    assert not any(value.requires_grad for value in logs.values())


def test_unimodal_accuracy_is_that_of_the_zero_padded_logits():
    method, batch = make(), tiny_batch()
    method.model.eval()
    _, logs = method(batch)
    f = method.model.encode(batch["inputs"])
    for m in PAIR:
        right = method.model.fuse_subset(f, [m]).argmax(1) == batch["label"]
        assert logs[f"train/acc_uni/{m}"].item() == pytest.approx(right.double().mean().item())


def test_prediction_is_the_fused_output():
    method, batch = make(), tiny_batch()
    f = method.model.encode(batch["inputs"])
    assert torch.equal(method.logits(f), method.model.fuse(f))
    method.model.eval()
    _, logs = method(batch)
    z = method.model.fuse(method.model.encode(batch["inputs"]))
    assert torch.equal(logs["train/L_align"], F.cross_entropy(z, batch["label"]))


def test_it_adds_no_parameter_and_no_state():
    joint = Joint(tiny_model(heads=False), None, facts())
    assert make().state_dict().keys() == joint.state_dict().keys()


@pytest.mark.parametrize(
    ("values", "modalities", "words"),
    [
        ({"warmup_epochs": 3}, ["a", "v"], "leaves no epoch"),
        ({"warmup_epochs": 0}, ["a"], "2 or more modalities"),
    ],
)
def test_impossible_settings_are_refused(values, modalities, words):
    with pytest.raises(UsageError, match=words):
        ARL.check(ARL.HParams(**values), 3, modalities)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_no_host_read_in_a_step(modalities):
    method, batch = make(modalities, clip=40.0), tiny_batch(modalities)
    step(method, batch)
    assert host_reads(lambda: step(method, batch)) == 0
