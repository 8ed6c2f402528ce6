"""Mixup: hand-worked values, the identities of a linear fusion, and its options."""

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model

from common import options
from common.options import UsageError
from methods.joint import Joint
from methods.mixup import Mixup, draw_lam, mix_features, pair_loss

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def make(modalities=PAIR, epoch=3, seed=0, **values):
    method = Mixup(tiny_model(modalities, heads=False), Mixup.HParams(**values), facts(seed=seed))
    method.begin_epoch(epoch, None)
    return method


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def example(batch=6, classes=4):
    """Features of three modalities, a fusion of them, labels and partners, in double precision."""
    f = {m: torch.randn(batch, 3 + k, dtype=torch.float64) for k, m in enumerate("abc")}
    weight, bias = torch.randn(classes, 12).double(), torch.randn(classes).double()
    y, j = torch.randint(0, classes, (batch,)), torch.randperm(batch)
    return f, lambda f: F.linear(torch.cat(list(f.values()), 1), weight, bias), y, j


def test_golden_mixed_feature():
    f = {"a": torch.tensor([[1.0, 2.0], [3.0, -2.0]], dtype=torch.float64)}
    mixed = mix_features(f, torch.tensor([1, 0]), torch.full((1, 1), 0.3).double())
    assert mixed["a"][0].tolist() == pytest.approx([2.4, -0.8], abs=1e-6)


@pytest.mark.parametrize(("lam", "expected"), [([0.3], 1.325612), ([0.3, 0.8], 1.426979)])
def test_golden_loss_of_a_shared_lam_and_of_one_a_modality(lam, expected):
    z = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    weight = torch.tensor([lam], dtype=torch.float64).mean(1)
    loss = pair_loss(z, torch.tensor([0]), torch.tensor([2]), weight)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("a", "variance"), [(0.2, 0.178571), (0.4, 0.138889), (1.0, 0.083333)])
def test_lam_has_the_mean_and_variance_of_beta(a, variance):
    lam = draw_lam(a, 100_000, 2, generator())
    assert lam.mean().item() == pytest.approx(0.5, abs=0.005)
    assert lam.var().item() == pytest.approx(variance, abs=0.002)
    assert torch.corrcoef(lam.T)[0, 1].abs() < 0.01  # one draw a modality, not one copied


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_lam_one_is_joint_to_the_last_bit(modalities):
    batch, model = tiny_batch(modalities, size=7), tiny_model(modalities, heads=False)
    y, j, one = batch["label"], torch.randperm(7), torch.ones(1, 1)
    joint, _ = Joint(model, None, facts())(batch)
    expected = gradients(model, joint)
    f = model.encode(batch["inputs"])
    loss = pair_loss(model.fuse(mix_features(f, j, one)), y, y[j], one.mean(1))
    found = gradients(model, loss)
    assert torch.equal(loss, joint)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_lam_one_for_each_sample_is_the_plain_cross_entropy():
    f, fuse, y, j = example()
    one = torch.ones(6, 3).double()
    loss = pair_loss(fuse(mix_features(f, j, one)), y, y[j], one.mean(1))
    assert loss.item() == pytest.approx(F.cross_entropy(fuse(f), y).item(), abs=1e-12)


@pytest.mark.parametrize("rows", [1, 6])
def test_a_linear_fusion_of_mixed_features_is_the_mixed_fusion(rows):
    f, fuse, _, j = example()
    lam = draw_lam(0.2, rows, 1, generator()).double()
    z = fuse(f)
    assert torch.allclose(fuse(mix_features(f, j, lam)), lam * z + (1 - lam) * z[j], atol=1e-12)


def test_each_modality_is_mixed_by_its_own_lam_and_each_sample_by_its_own():
    f, _, _, j = example()
    lam = draw_lam(1.0, 6, 3, generator()).double()
    mixed = mix_features(f, j, lam)
    for k, m in enumerate(f):
        for i in range(6):
            expected = lam[i, k] * f[m][i] + (1 - lam[i, k]) * f[m][j[i]]
            assert torch.allclose(mixed[m][i], expected)


def test_swapped_roles_with_one_minus_lam_give_the_same_loss():
    f, fuse, y, _ = example()
    j = torch.tensor([1, 0, 3, 2, 5, 4])  # its own inverse: the roles swap within each pair
    lam = draw_lam(1.0, 6, 3, generator()).double()
    loss = pair_loss(fuse(mix_features(f, j, lam)), y, y[j], lam.mean(1))
    swapped = {m: v[j] for m, v in f.items()}
    mirror = pair_loss(fuse(mix_features(swapped, j, 1 - lam)), y[j], y, (1 - lam).mean(1))
    assert mirror.item() == pytest.approx(loss.item(), abs=1e-12)


@pytest.mark.parametrize("rows", [1, 6])
def test_equal_labels_give_the_cross_entropy_at_that_label(rows):
    z, y = torch.randn(6, 4).double(), torch.arange(6) % 4
    weight = draw_lam(0.4, rows, 1, generator()).double().mean(1)
    loss = pair_loss(z, y, y.clone(), weight)
    assert loss.item() == pytest.approx(F.cross_entropy(z, y).item(), abs=1e-12)


def test_the_loss_is_the_soft_cross_entropy_of_averaged_labels():
    z, y, j = torch.randn(6, 4).double(), torch.arange(6) % 4, torch.randperm(6)
    w = draw_lam(1.0, 6, 2, generator()).double().mean(1)
    soft = w[:, None] * F.one_hot(y, 4) + (1 - w[:, None]) * F.one_hot(y[j], 4)
    expected = F.cross_entropy(z, soft).item()
    assert pair_loss(z, y, y[j], w).item() == pytest.approx(expected, abs=1e-12)


def test_gradient_of_one_mixed_sample_reaches_both_partners_and_no_other():
    f, fuse, y, _ = example()
    f = {m: v.requires_grad_() for m, v in f.items()}
    j, lam = torch.tensor([4, 0, 1, 2, 3, 5]), torch.full((1, 1), 0.3).double()
    pair_loss(fuse(mix_features(f, j, lam))[:1], y[:1], y[j][:1], lam.mean(1)).backward()
    for v in f.values():
        assert (v.grad.abs().sum(1) > 0).tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("lam_mode", ["shared", "per_modality"])
@pytest.mark.parametrize("lam_level", ["batch", "sample"])
def test_a_step_is_the_functions_with_the_drawn_factors(modalities, lam_mode, lam_level):
    method = make(modalities, lam_mode=lam_mode, lam_level=lam_level, concentration=1.0)
    batch = tiny_batch(modalities)
    loss, logs = method(batch)
    method.begin_epoch(3, None)  # the same draws again
    rows = 8 if lam_level == "sample" else 1
    columns = len(modalities) if lam_mode == "per_modality" else 1
    lam = draw_lam(1.0, rows, columns, method.generator)
    j = torch.randperm(8, generator=method.generator)
    f, y = method.model.encode(batch["inputs"]), batch["label"]
    mixed = {}
    for k, m in enumerate(modalities):
        w = lam.expand(8, len(modalities))[:, k : k + 1]
        mixed[m] = w * f[m] + (1 - w) * f[m][j]
    soft = lam.mean(1, keepdim=True) * F.one_hot(y, 4) + (
        1 - lam.mean(1, keepdim=True)
    ) * F.one_hot(y[j], 4)
    expected = F.cross_entropy(method.model.fuse(mixed), soft).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logs["train/lam"].item() == pytest.approx(lam.mean().item())
    assert len(lam.unique()) == rows * columns


def test_every_option_changes_the_loss():
    batch = tiny_batch()
    losses = [
        make(**values)(batch)[0].item()
        for values in (
            {}, {"concentration": 1.0}, {"lam_mode": "per_modality"}, {"lam_level": "sample"},
        )
    ]  # fmt: skip
    assert len(set(losses)) == 4


def test_a_large_concentration_draws_lam_near_one_half():
    _, logs = make(concentration=1e6, lam_level="sample")(tiny_batch())
    assert logs["train/lam"].item() == pytest.approx(0.5, abs=0.01)


def test_the_log_has_the_clean_accuracy_and_loss_which_are_not_trained_on():
    method, batch = make(), tiny_batch()
    loss, logs = method(batch)
    joint, clean = Joint(method.model, None, facts())(batch)
    assert torch.equal(logs["train/acc"], clean["train/acc"])
    assert torch.equal(logs["train/L_align"], clean["train/L_align"])
    assert torch.equal(logs["train/L_mix"], loss.detach()) and loss.item() != joint.item()
    assert set(logs) == {"train/acc", "train/L_align", "train/L_mix", "train/lam"}
    assert not any(value.requires_grad for value in logs.values())


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_gradient_reaches_each_encoder(modalities):
    method = make(modalities)
    method(tiny_batch(modalities))[0].backward()
    for m in modalities:
        assert all(p.grad.abs().sum() > 0 for p in method.model.encoder_parameters(m) if p.ndim > 1)


def test_draws_depend_on_seed_and_epoch_alone():
    batch = tiny_batch()
    first, again, epoch, seed = make(), make(), make(epoch=4), make(seed=1)
    losses = [method(batch)[0].item() for method in (first, again, epoch, seed)]
    assert losses[0] == losses[1] and len(set(losses)) == 3


def test_a_single_sample_is_mixed_with_itself():
    method, batch = make(), tiny_batch(size=1)
    method.model.eval()
    loss, logs = method(batch)
    assert loss.item() == pytest.approx(logs["train/L_align"].item(), abs=1e-6)


def test_the_model_of_a_run_is_joints_and_so_is_its_evaluation():
    method, batch = make(), tiny_batch()
    joint = Joint(tiny_model(heads=False), None, facts())
    joint.load_state_dict(method.state_dict())
    f = method.model.eval().encode(batch["inputs"])
    g = joint.model.eval().encode(batch["inputs"])
    assert torch.equal(method.logits(f), joint.logits(g))


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="2 or more modalities"):
        Mixup.check(Mixup.HParams(), 10, ["audio"])
    for values, words in (
        ({"concentration": 0.0}, "--concentration 0 is refused"),
        ({"lam_mode": "own"}, "shared, per_modality"),
        ({"lam_level": "row"}, "batch, sample"),
    ):
        with pytest.raises(UsageError, match=words):
            options.check(Mixup.HParams(**values))


@pytest.mark.parametrize("lam_level", ["batch", "sample"])
def test_no_host_read_in_a_step(lam_level):
    method, batch = make(lam_level=lam_level, lam_mode="per_modality"), tiny_batch()
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0
