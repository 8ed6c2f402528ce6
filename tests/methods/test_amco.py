"""AMCo: the ramp, the masks, the alternation, and where it is joint training."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, tiny_batch, tiny_model

from methods.amco import (
    AMCo,
    dependent_modalities,
    dropped_places,
    mask_features,
    mask_logits,
    mask_ratio,
    modality_masses,
)
from methods.joint import Joint

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")
SMOOTH = math.sqrt(3) / 2  # 0.866025


def make(epoch=5, modalities=PAIR, **values):
    method = AMCo(tiny_model(modalities, heads=False), AMCo.HParams(**values), facts())
    method.begin_epoch(epoch, None)
    return method


def masked_step(first=True, **values):
    """(method, loss, logs) of the second step of epoch 5 (p = 1), one modality dependent."""
    method = make(**values)
    method(tiny_batch())
    method.dependent = torch.tensor([first, not first])
    return method, *method(tiny_batch())


def used(logs, modalities=PAIR):
    return [int(logs[f"train/dependent/{m}"]) for m in modalities]


def gradients(loss, model):
    named = dict(model.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True)))


# The mask -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "epsilon", "ratios"),
    [
        (0, 0.3, [0, 0, 0, 0]),
        (1, 0.3, [0, 0.5, SMOOTH, 1]),
        (2, 0.3, [0, SMOOTH, 1, 1]),
        (3, 0.3, [0, 1, 1, 1]),
        (1, 0.1, [0, 1, 1, 1]),
        (1, 0.2, [0, math.sqrt(0.5), 1, 1]),
    ],
)
def test_ratio_of_the_first_batches(epoch, epsilon, ratios):
    assert [mask_ratio(epoch, b, epsilon) for b in range(4)] == pytest.approx(ratios, abs=1e-6)
    method = make(epoch=epoch + 1, epsilon=epsilon)
    seen = [method(tiny_batch())[1]["train/mask_ratio"].item() for _ in range(4)]
    assert seen == pytest.approx(ratios, abs=1e-6)


@pytest.mark.parametrize(
    ("batch", "counts"), [(0, (0, 0, 0)), (1, (3, 15, 50)), (2, (5, 26, 87)), (3, (6, 31, 101))]
)
def test_number_of_masked_places(batch, counts):
    p, generator = mask_ratio(1, batch, 0.3), torch.Generator()
    drops = [dropped_places(p, width, generator) for width in (6, 31, 101)]
    assert [int(d.sum()) for d in drops] == list(counts)
    assert [tuple(d.shape) for d in drops] == [(1, 6), (1, 31), (1, 101)]


def test_one_mask_serves_all_rows_and_only_dependent_modalities():
    logits = {m: torch.rand(9, 6) + 1 for m in TRIO}
    dropped = dropped_places(0.5, 6, torch.Generator().manual_seed(3))
    masked = mask_logits(logits, dropped, torch.tensor([True, False, True]))
    for m in ("text", "video"):
        assert torch.equal(masked[m] == 0, dropped.expand(9, 6))
        assert torch.equal(masked[m], logits[m] * ~dropped)
    assert torch.equal(masked["audio"], logits["audio"])


@pytest.mark.parametrize(
    ("p", "scale"), [(0, 1), (0.5, 2), (SMOOTH, 7.464102), (0.95, 10), (1, 10)]
)
def test_scale_of_masked_features(p, scale):
    f = {m: torch.rand(3, 4, dtype=torch.float64) for m in PAIR}
    none = {m: torch.zeros(1, 4, dtype=torch.bool) for m in PAIR}
    masked = mask_features(f, none, torch.tensor([False, True]), p)
    assert torch.equal(masked["audio"], f["audio"])
    assert torch.allclose(masked["video"], scale * f["video"], rtol=1e-6)


# The dependent modality ---------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_masses_sum_to_one_and_two_modalities_have_exactly_one_dependent(modalities):
    for _ in range(50):
        masses = modality_masses({m: 3 * torch.randn(16, 6) for m in modalities})
        assert masses.sum().item() == pytest.approx(1, abs=1e-6)
        assert len(modalities) > 2 or dependent_modalities(masses, 0.5).sum() == 1
    z = torch.randn(16, 6, dtype=torch.float64)
    masked = modality_masses({"a": torch.zeros_like(z), "v": z})
    assert masked[0].item() == pytest.approx((6 / (6 + z.exp().sum(1))).mean().item())


@pytest.mark.parametrize(
    ("sigma", "first_only", "flags"),
    [(0.5, False, [0, 0, 0]), (0.38, False, [0, 1, 0]), (0.35, False, [1, 1, 0]),
     (0.35, True, [1, 0, 0])],
)  # fmt: skip
def test_dependents_of_three(sigma, first_only, flags):
    masses = torch.tensor([0.36, 0.39, 0.25])
    assert dependent_modalities(masses, sigma, first_only).int().tolist() == flags


# A step of the logit variant ----------------------------------------------------------------------


@pytest.mark.parametrize("linear_star", [False, True])
def test_a_wholly_masked_modality_has_loss_ln_c_and_gets_no_gradient(linear_star):
    method, loss, logs = masked_step(linear_star=linear_star)
    assert used(logs) == [1, 0] and logs["train/mask_ratio"] == 1
    loss.backward()
    columns, fusion = method.model.modality_slices, method.model.fusion
    assert all(not p.grad.any() for p in method.model.encoder_parameters("audio"))
    assert all(p.grad.any() for p in method.model.encoder_parameters("video") if p.ndim > 1)
    assert not fusion.weight.grad[:, columns["audio"]].any()
    assert fusion.weight.grad[:, columns["video"]].any()
    # The output is what the other modality says.
    f, y = method.model.encode(tiny_batch()["inputs"])["video"], tiny_batch()["label"]
    z = f @ fusion.weight[:, columns["video"]].T + fusion.bias / 2
    out = method.linear_star(z) if linear_star else z
    l_align, l_uni = F.cross_entropy(out, y).item(), math.log(4) + F.cross_entropy(z, y).item()
    assert logs["train/L_align"].item() == pytest.approx(l_align, abs=1e-6)
    assert logs["train/L_uni"].item() == pytest.approx(l_uni, abs=1e-6)
    assert loss.item() == pytest.approx(l_align + l_uni, abs=1e-5)
    assert logs["train/acc"] == (out.argmax(1) == y).float().mean()
    assert logs.get("train/acc_sum") == ((z.argmax(1) == y).float().mean() if linear_star else None)


def test_two_modalities_are_masked_in_turns_by_the_method_until_the_epoch_ends():
    method = make()
    with torch.no_grad():  # logits of zero mean over the classes
        for p in method.model.fusion.parameters():
            p -= p.mean(0)
    flags = [used(method(tiny_batch(seed=seed))[1]) for seed in range(21)]
    assert flags[0] == [0, 0] and sum(flags[1]) == 1
    assert flags[1:] == [flags[1], flags[1][::-1]] * 10
    method.begin_epoch(6, None)
    _, logs = method(tiny_batch())
    assert used(logs) == [0, 0] and logs["train/mask_ratio"] == 0


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_first_epoch_masks_nothing(sigma):
    method, y = make(epoch=1, sigma=sigma), tiny_batch()["label"]
    for _ in range(4):
        loss, logs = method(tiny_batch())
        f = method.model.encode(tiny_batch()["inputs"])
        split = method.model.split_logits(f).values()
        expected = F.cross_entropy(sum(split), y) + sum(F.cross_entropy(z, y) for z in split)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert logs["train/mask_ratio"] == 0
    assert sum(used(logs)) == (sigma < 1)  # a modality is dependent, but p = 0


def test_one_backward_is_the_sum_of_separate_ones():
    method, loss, _ = masked_step(epoch=2)  # p = 0.5: 2 of 4 classes
    whole = gradients(loss, method.model)
    again, y = make(epoch=2), tiny_batch()["label"]
    again(tiny_batch())
    z = again.model.split_logits(again.model.encode(tiny_batch()["inputs"]))
    dropped = dropped_places(mask_ratio(1, 1, 0.3), 4, again.generator)
    masked = mask_logits(z, dropped, torch.tensor([True, False]))
    for logits in (sum(masked.values()), *masked.values()):
        F.cross_entropy(logits, y).backward(retain_graph=True)
    for name, p in again.model.named_parameters():
        assert torch.allclose(whole[name], p.grad, atol=1e-6), name


@pytest.mark.parametrize("variant", ["logit", "feature"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_only_what_is_not_masked_gets_a_gradient(modalities, variant):
    method = make(modalities=modalities, variant=variant, sigma=1 / len(modalities) + 1e-6)
    for step in range(3):
        loss, logs = method(tiny_batch(modalities))
        method.zero_grad()
        loss.backward()
        flags = used(logs, modalities)
        assert loss.isfinite() and (0 < sum(flags) < len(modalities) if step else not any(flags))
        for flag, m in zip(flags, modalities):
            grads = [p.grad for p in method.model.encoder_parameters(m) if p.ndim > 1]
            assert all(g.any() != bool(flag) for g in grads)
        masses = sum(logs[f"train/mass/{m}"] for m in modalities)
        assert masses.item() == pytest.approx(1.0, abs=1e-6)


# Windows, the feature variant, linear_star --------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "acting"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_epochs": 2}, [0, 0, 1, 1]),
        ({"end_epoch": 2}, [1, 1, 0, 0]),
        ({"warmup_epochs": 1, "end_epoch": 3}, [0, 1, 1, 0]),
    ],
)
def test_outside_the_window_it_is_joint_to_the_last_bit(window, acting):
    method, joint = make(**window), Joint(tiny_model(heads=False), Joint.HParams(), facts())
    for epoch, expected in enumerate(acting, start=1):
        method.begin_epoch(epoch, None)
        (loss, logs), (joint_loss, joint_logs) = method(tiny_batch()), joint(tiny_batch())
        assert ("train/L_uni" in logs) == expected
        assert expected or (torch.equal(loss, joint_loss) and logs == joint_logs)
    late = make(epoch=4, warmup_epochs=3)  # the ramp counts the epochs of the warm-up
    assert [late(tiny_batch())[1]["train/mask_ratio"].item() for _ in range(2)] == [0, 1]


def test_feature_variant_masks_the_feature_before_fusion():
    method, loss, logs = masked_step(first=False, variant="feature")
    y, model = tiny_batch()["label"], method.model
    f = model.encode(tiny_batch()["inputs"])
    z = {"audio": model.split_logits(f)["audio"], "video": (model.fusion.bias / 2).expand(8, 4)}
    align = F.cross_entropy(model.fuse_subset(f, ["audio"]), y)
    assert logs["train/L_align"].item() == pytest.approx(align.item(), abs=1e-6)
    uni = sum(F.cross_entropy(v, y).item() for v in z.values())
    assert logs["train/L_uni"].item() == pytest.approx(uni, abs=1e-6)
    masses = modality_masses(z)
    assert logs["train/mass/video"].item() == pytest.approx(masses[1].item(), abs=1e-6)


def test_feature_variant_masks_half_of_the_feature_and_doubles_the_rest():
    method = make(variant="feature")
    method.dependent = torch.tensor([True, False])
    f = {"audio": torch.rand(5, 32) + 1, "video": torch.rand(5, 32) + 1}
    method.model.split_logits = method.model.fuse = lambda features: features
    masked, _ = method._mask(f, 0.5)
    assert torch.equal(masked["video"], f["video"])
    kept = masked["audio"] != 0
    assert kept[0].sum() == 16 and torch.equal(kept, kept[:1].expand(5, 32))
    assert torch.equal(masked["audio"], 2 * f["audio"] * kept)


def test_the_extra_layer_is_trained_and_serves_in_evaluation():
    method = make(linear_star=True)
    loss, _ = method(tiny_batch())
    loss.backward()
    assert method.linear_star.weight.grad.any() and method.linear_star.bias.grad.any()
    f = {m: torch.randn(3, method.model.widths[m]) for m in PAIR}
    total = sum(method.model.split_logits(f).values())
    assert torch.allclose(method.logits(f), method.linear_star(total), atol=1e-5)
    assert not torch.allclose(method.logits(f), total, atol=1e-2)
