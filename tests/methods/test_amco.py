"""AMCo: the schedule, the masks, the alternation, and where it is joint training."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model

from common.options import UsageError
from methods.amco import (
    AMCo,
    dependent_modalities,
    dropped_places,
    feature_scale,
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


# The ramp -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "ratios"),
    [(0, [0, 0, 0, 0]), (1, [0, 0.5, SMOOTH, 1]), (2, [0, SMOOTH, 1, 1]), (3, [0, 1, 1, 1])],
)
def test_ratio_of_the_first_batches(epoch, ratios):
    assert [mask_ratio(epoch, b, 0.3) for b in range(4)] == pytest.approx(ratios, abs=1e-6)


def test_ratio_by_epochs_is_the_same_for_each_batch():
    by_epoch = [mask_ratio(e, 0, 0.3, "epoch") for e in range(5)]
    assert by_epoch == pytest.approx([0, 0.5, SMOOTH, 1, 1], abs=1e-6)
    assert mask_ratio(1, 7, 0.3, "epoch") == by_epoch[1]


@pytest.mark.parametrize(
    ("batch", "counts"), [(0, (0, 0, 0)), (1, (3, 15, 50)), (2, (5, 26, 87)), (3, (6, 31, 101))]
)
def test_number_of_masked_places(batch, counts):
    p, generator = mask_ratio(1, batch, 0.3), torch.Generator()
    drops = [dropped_places(p, width, generator) for width in (6, 31, 101)]
    assert [int(d.sum()) for d in drops] == list(counts)
    assert [tuple(d.shape) for d in drops] == [(1, 6), (1, 31), (1, 101)]


def test_each_batch_draws_new_places():
    generator = torch.Generator().manual_seed(0)
    first, second = (dropped_places(0.5, 101, generator) for _ in range(2))
    assert not torch.equal(first, second)


# The masks ----------------------------------------------------------------------------------------


def test_one_mask_serves_all_rows_and_only_dependent_modalities():
    logits = {m: torch.rand(9, 6) + 1 for m in TRIO}
    dropped = dropped_places(0.5, 6, torch.Generator().manual_seed(3))
    masked = mask_logits(logits, dropped, torch.tensor([True, False, True]))
    for m in ("text", "video"):
        assert torch.equal(masked[m] == 0, dropped.expand(9, 6))
        assert torch.equal(masked[m], logits[m] * ~dropped)
    assert torch.equal(masked["audio"], logits["audio"])


def test_feature_mask_keeps_the_expectation():
    f = {"a": torch.rand(1, 8, dtype=torch.float64) + 0.5}
    generator, total = torch.Generator().manual_seed(0), 0
    for _ in range(5000):
        dropped = {"a": dropped_places(0.5, 8, generator)}
        total = total + mask_features(f, dropped, torch.tensor([True]), 0.5)["a"]
    assert ((total / 5000 / f["a"] - 1).abs() < 0.07).all()


@pytest.mark.parametrize(
    ("p", "scale"), [(0, 1), (0.5, 2), (SMOOTH, 7.464102), (0.95, 10), (1, 10)]
)
def test_scale_of_masked_features(p, scale):
    assert feature_scale(p) == pytest.approx(scale, abs=1e-6)
    f = {m: torch.rand(3, 4, dtype=torch.float64) for m in PAIR}
    none = {m: torch.zeros(1, 4, dtype=torch.bool) for m in PAIR}
    masked = mask_features(f, none, torch.tensor([False, True]), p)
    assert torch.equal(masked["audio"], f["audio"])
    assert torch.allclose(masked["video"], scale * f["video"])


# The dependent modality ---------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_masses_sum_to_one(modalities):
    masses = modality_masses({m: 3 * torch.randn(16, 6) for m in modalities})
    assert masses.shape == (len(modalities),)
    assert masses.sum().item() == pytest.approx(1, abs=1e-6)


def test_mass_of_a_masked_modality():
    z = torch.randn(16, 6, dtype=torch.float64)
    masses = modality_masses({"a": torch.zeros_like(z), "v": z})
    assert masses[0].item() == pytest.approx((6 / (6 + z.exp().sum(1))).mean().item())


def test_two_modalities_have_exactly_one_dependent():
    for _ in range(50):
        masses = modality_masses({m: torch.randn(8, 6) for m in PAIR})
        assert (masses - 0.5).abs().min() > 1e-7
        assert dependent_modalities(masses, 0.5).sum() == 1


def test_equal_masses_have_no_dependent():
    masses = modality_masses({m: torch.zeros(8, 6) for m in PAIR})
    assert not dependent_modalities(masses, 0.5).any()


@pytest.mark.parametrize(
    ("sigma", "first_only", "flags"),
    [
        (0.5, False, [0, 0, 0]),
        (0.38, False, [0, 1, 0]),
        (0.0, False, [1, 1, 0]),
        (0.0, True, [1, 0, 0]),
    ],
)
def test_dependents_of_three(sigma, first_only, flags):
    masses = torch.tensor([0.36, 0.39, 0.25])
    assert dependent_modalities(masses, sigma, first_only).int().tolist() == flags


# A step of the logit variant ----------------------------------------------------------------------


def test_a_wholly_masked_modality_has_loss_ln_c_exactly():
    z = {m: torch.randn(12, 6, dtype=torch.float64) for m in PAIR}
    dropped = dropped_places(1.0, 6, torch.Generator())
    masked = mask_logits(z, dropped, torch.tensor([True, False]))
    loss = F.cross_entropy(masked["audio"], torch.arange(12) % 6).item()
    assert loss == pytest.approx(1.791759, abs=1e-6)
    assert loss == pytest.approx(math.log(6), abs=1e-15)


def test_a_wholly_masked_modality_gets_no_gradient():
    method, loss, logs = masked_step()
    assert used(logs) == [1, 0] and logs["train/mask_ratio"] == 1
    loss.backward()
    columns = method.model.modality_slices
    assert all(not p.grad.any() for p in method.model.encoder_parameters("audio"))
    assert all(p.grad.any() for p in method.model.encoder_parameters("video") if p.ndim > 1)
    assert not method.model.fusion.weight.grad[:, columns["audio"]].any()
    assert method.model.fusion.weight.grad[:, columns["video"]].any()


@pytest.mark.parametrize("linear_star", [False, True])
def test_output_is_what_the_unmasked_modality_says(linear_star):
    method, _, logs = masked_step(linear_star=linear_star)
    fusion, y = method.model.fusion, tiny_batch()["label"]
    f = method.model.encode(tiny_batch()["inputs"])["video"]
    z = f @ fusion.weight[:, method.model.modality_slices["video"]].T + fusion.bias / 2
    out = method.linear_star(z) if linear_star else z
    assert logs["train/L_align"].item() == pytest.approx(F.cross_entropy(out, y).item(), abs=1e-6)
    assert logs["train/L_uni"].item() == pytest.approx(
        math.log(4) + F.cross_entropy(z, y).item(), abs=1e-6
    )
    assert logs["train/acc"] == (out.argmax(1) == y).float().mean()
    assert logs.get("train/acc_sum") == ((z.argmax(1) == y).float().mean() if linear_star else None)


@pytest.mark.parametrize("classes", [6, 31, 101])
def test_fixed_logits_of_zero_mean_are_masked_in_turns(classes):
    z = {m: scale * torch.randn(64, classes) for m, scale in (("audio", 2.0), ("video", 0.5))}
    z = {m: v - v.mean(1, keepdim=True) for m, v in z.items()}
    dependent, flags = torch.tensor([False, False]), []
    for _ in range(21):
        masked = mask_logits(z, dropped_places(1.0, classes, torch.Generator()), dependent)
        dependent = dependent_modalities(modality_masses(masked), 0.5)
        flags.append(dependent.int().tolist())
    assert flags == ([[1, 0], [0, 1]] * 11)[:21]


def test_two_modalities_are_masked_in_turns_by_the_method():
    method = make()
    with torch.no_grad():  # logits of zero mean over the classes
        for p in method.model.fusion.parameters():
            p -= p.mean(0)
    flags = [used(method(tiny_batch(seed=seed))[1]) for seed in range(21)]
    assert flags[0] == [0, 0] and sum(flags[1]) == 1
    other = flags[1][::-1]
    assert flags[1:] == [flags[1], other] * 10


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
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


def test_the_next_epoch_starts_anew():
    method = make(epoch=4)
    for _ in range(3):
        method(tiny_batch())
    assert method.dependent.any()
    method.begin_epoch(5, None)
    _, logs = method(tiny_batch())
    assert used(logs) == [0, 0] and logs["train/mask_ratio"] == 0


# Joint training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [{"warmup_epochs": 3}, {"end_epoch": 2}])
@pytest.mark.parametrize("variant", ["logit", "feature"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_outside_the_window_it_is_joint_to_the_last_bit(window, variant, modalities):
    joint = Joint(tiny_model(modalities, heads=False), Joint.HParams(), facts())
    method = make(epoch=3, modalities=modalities, variant=variant, **window)
    batch = tiny_batch(modalities)
    (loss, logs), (expected, joint_logs) = method(batch), joint(batch)
    assert torch.equal(loss, expected) and logs == joint_logs
    ours, theirs = gradients(loss, method.model), gradients(expected, joint.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("window", "acting"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_epochs": 2}, [0, 0, 1, 1]),
        ({"end_epoch": 2}, [1, 1, 0, 0]),
        ({"warmup_epochs": 1, "end_epoch": 3}, [0, 1, 1, 0]),
    ],
)
def test_epochs_of_the_window(window, acting):
    method = make(**window)
    for epoch, expected in enumerate(acting, start=1):
        method.begin_epoch(epoch, None)
        assert ("train/L_uni" in method(tiny_batch())[1]) == expected


def test_ramp_counts_the_epochs_of_the_warm_up():
    method = make(epoch=4, warmup_epochs=3)
    ratios = [method(tiny_batch())[1]["train/mask_ratio"].item() for _ in range(2)]
    assert ratios == [0, 1]


@pytest.mark.parametrize("window", [{}, {"warmup_epochs": 9}])
def test_identity_layer_without_unimodal_losses_is_joint(window):
    method = make(linear_star=True, lam=0.0, **window)
    torch.nn.init.eye_(method.linear_star.weight)
    torch.nn.init.zeros_(method.linear_star.bias)
    joint = Joint(tiny_model(heads=False), Joint.HParams(), facts())
    loss, _ = method(tiny_batch())
    expected, _ = joint(tiny_batch())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    ours, theirs = gradients(loss, method.model), gradients(expected, joint.model)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


# Options ------------------------------------------------------------------------------------------


def test_unimodal_weight_scales_the_unimodal_losses():
    loss, logs = make(lam=0.25)(tiny_batch())
    expected = logs["train/L_align"] + 0.25 * logs["train/L_uni"]
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_sigma_decides_whether_anything_is_masked(sigma):
    method = make(sigma=sigma)
    flags = [used(method(tiny_batch())[1]) for _ in range(3)]
    assert [sum(f) for f in flags] == ([0, 1, 1] if sigma == 0.5 else [0, 0, 0])


@pytest.mark.parametrize(
    ("values", "ratios"),
    [
        ({}, [0, 0.5, SMOOTH, 1]),
        ({"epsilon": 0.1}, [0, 1, 1, 1]),
        ({"epsilon": 0.2}, [0, math.sqrt(0.5), 1, 1]),
        ({"schedule": "epoch"}, [0.5] * 4),
    ],
)
def test_ramp_options_reach_the_step(values, ratios):
    method = make(epoch=2, **values)
    seen = [method(tiny_batch())[1]["train/mask_ratio"].item() for _ in range(4)]
    assert seen == pytest.approx(ratios, abs=1e-6)


def test_feature_variant_masks_the_feature_before_fusion():
    method, loss, logs = masked_step(first=False, variant="feature")
    y, model = tiny_batch()["label"], method.model
    f = model.encode(tiny_batch()["inputs"])
    z = {"audio": model.split_logits(f)["audio"], "video": (model.fusion.bias / 2).expand(8, 4)}
    align = F.cross_entropy(model.fuse_subset(f, ["audio"]), y)
    assert logs["train/L_align"].item() == pytest.approx(align.item(), abs=1e-6)
    assert logs["train/L_uni"].item() == pytest.approx(
        sum(F.cross_entropy(v, y).item() for v in z.values()), abs=1e-6
    )
    masses = modality_masses(z)
    assert logs["train/mass/video"].item() == pytest.approx(masses[1].item(), abs=1e-6)
    loss.backward()
    assert all(not p.grad.any() for p in model.encoder_parameters("video"))
    assert all(p.grad.any() for p in model.encoder_parameters("audio") if p.ndim > 1)


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


def test_without_the_extra_layer_nothing_is_added_to_the_model():
    method = make()
    f = {m: torch.randn(3, method.model.widths[m]) for m in PAIR}
    assert torch.equal(method.logits(f), method.model.fuse(f))
    assert {n.split(".")[0] for n, _ in method.named_parameters()} == {"model"}


# Any number of modalities, state, draws -----------------------------------------------------------


@pytest.mark.parametrize("variant", ["logit", "feature"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_gradient_reaches_each_encoder_and_masks_are_applied(modalities, variant):
    method = make(modalities=modalities, variant=variant, sigma=0.0)
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


def test_of_three_untrained_modalities_none_reaches_one_half():
    method = make(modalities=TRIO)
    flags = [used(method(tiny_batch(TRIO))[1], TRIO) for _ in range(3)]
    assert flags == [[0, 0, 0]] * 3


@pytest.mark.parametrize("values", [{"linear_star": True}, {"variant": "feature"}])
def test_logged_values_carry_no_gradient(values):
    _, _, logs = masked_step(**values)
    assert all(v.ndim == 0 and not v.requires_grad for v in logs.values())


def test_draws_depend_on_seed_and_epoch_alone():
    def losses(epoch):  # p = 0.707 in both epochs: 2 of 4 classes
        method = make(epoch=epoch, schedule="epoch", epsilon=epoch / 5 - 0.2)
        return [method(tiny_batch())[0].item() for _ in range(6)]

    assert losses(2) == losses(2) != losses(3)


def test_a_resumed_run_goes_on_as_an_undisturbed_one():
    def run(method, epoch):
        optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
        method.begin_epoch(epoch, None)
        losses = []
        for seed in range(4):
            optimizer.zero_grad()
            loss, _ = method(tiny_batch(seed=seed))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    method = make(linear_star=True)
    run(method, 4)
    other = make(linear_star=True)
    other.load_state_dict(method.state_dict())
    assert run(method, 5) == run(other, 5)


@pytest.mark.parametrize(
    ("values", "modalities", "words"),
    [
        ({"warmup_epochs": 3}, PAIR, "leaves no epoch"),
        ({"warmup_epochs": 2, "end_epoch": 2}, PAIR, "--end_epoch 2 leaves no epoch after"),
        ({}, ["audio"], "2 or more modalities"),
        ({"linear_star": True, "variant": "feature"}, PAIR, "--variant logit only"),
        ({"sigma": 0.3}, PAIR, "below an equal share"),
        ({"sigma": 0.2}, TRIO, "give 0 for 1/3"),
    ],
)
def test_impossible_settings_are_refused(values, modalities, words):
    with pytest.raises(UsageError, match=words):
        AMCo.check(AMCo.HParams(**values), 3, list(modalities))


@pytest.mark.parametrize("values", [{}, {"sigma": 0.0}, {"sigma": 0.4, "end_epoch": 1}])
def test_possible_settings_pass(values):
    AMCo.check(AMCo.HParams(**values), 3, list(TRIO))


@pytest.mark.parametrize("values", [{"linear_star": True}, {"variant": "feature"}])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_no_host_read_in_a_step(modalities, values):
    method, batch = make(modalities=modalities, sigma=0.0, **values), tiny_batch(modalities)
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0
