"""Mixup: hand-worked values and the identities of a linear fusion."""

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, tiny_batch, tiny_model

from methods.joint import Joint
from methods.mixup import Mixup, draw_lam, mix_features, pair_loss

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def make(modalities=PAIR, **values):
    method = Mixup(tiny_model(modalities, heads=False), Mixup.HParams(**values), facts())
    method.begin_epoch(3, None)
    return method


def example(batch=6, classes=4):
    """Features of three modalities, a fusion of them, labels and partners, in double precision."""
    f = {m: torch.randn(batch, 3 + k, dtype=torch.float64) for k, m in enumerate("abc")}
    weight, bias = torch.randn(classes, 12).double(), torch.randn(classes).double()
    y, j = torch.randint(0, classes, (batch,)), torch.randperm(batch)
    return f, lambda f: F.linear(torch.cat(list(f.values()), 1), weight, bias), y, j


def test_golden_mixed_feature():
    f = {"a": torch.tensor([[1.0, 2.0], [3.0, -2.0]], dtype=torch.float64)}
    mixed = mix_features(f, torch.tensor([1, 0]), torch.tensor([0.3]).double())
    assert mixed["a"][0].tolist() == pytest.approx([2.4, -0.8], abs=1e-6)


@pytest.mark.parametrize(("lam", "expected"), [([0.3], 1.325612), ([0.3, 0.8], 1.426979)])
def test_golden_loss_of_a_shared_lam_and_of_one_a_modality(lam, expected):
    z = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    weight = torch.tensor(lam, dtype=torch.float64).mean()
    loss = pair_loss(z, torch.tensor([0]), torch.tensor([2]), weight)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("a", "variance"), [(0.2, 0.178571), (0.4, 0.138889), (1.0, 0.083333)])
def test_lam_has_the_mean_and_variance_of_beta(a, variance):
    lam = draw_lam(a, 100_000, torch.Generator().manual_seed(0))
    assert lam.mean().item() == pytest.approx(0.5, abs=0.005)
    assert lam.var().item() == pytest.approx(variance, abs=0.002)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_lam_one_is_joint_to_the_last_bit(modalities):
    batch, model = tiny_batch(modalities, size=7), tiny_model(modalities, heads=False)
    y, j, one, grads = batch["label"], torch.randperm(7), torch.ones(1), []
    f = model.encode(batch["inputs"])
    mixed = pair_loss(model.fuse(mix_features(f, j, one)), y, y[j], one.mean())
    for loss in (Joint(model, None, facts())(batch)[0], mixed):
        model.zero_grad()
        loss.backward()
        grads.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_a_linear_fusion_of_mixed_features_is_the_mixed_fusion():
    f, fuse, _, j = example()
    lam = torch.tensor([0.3]).double()
    z = fuse(f)
    assert torch.allclose(fuse(mix_features(f, j, lam)), lam * z + (1 - lam) * z[j], atol=1e-12)


def test_equal_labels_give_the_cross_entropy_at_that_label():
    z, y = torch.randn(6, 4).double(), torch.arange(6) % 4
    loss = pair_loss(z, y, y.clone(), torch.tensor(0.3))
    assert loss.item() == pytest.approx(F.cross_entropy(z, y).item(), abs=1e-7)


def test_the_gradient_of_one_mixed_sample_reaches_both_partners_and_no_other():
    f, fuse, y, _ = example()
    f = {m: v.requires_grad_() for m, v in f.items()}
    j, lam = torch.tensor([4, 0, 1, 2, 3, 5]), torch.tensor([0.3]).double()
    pair_loss(fuse(mix_features(f, j, lam))[:1], y[:1], y[j][:1], lam.mean()).backward()
    for v in f.values():
        assert (v.grad.abs().sum(1) > 0).tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("lam_mode", ["shared", "per_modality"])
def test_a_step_is_the_soft_cross_entropy_of_features_mixed_by_hand(modalities, lam_mode):
    method = make(modalities, lam_mode=lam_mode, concentration=1.0)
    batch = tiny_batch(modalities)
    loss, logs = method(batch)
    method.begin_epoch(3, None)  # the same draws again
    lam = draw_lam(1.0, len(modalities) if lam_mode == "per_modality" else 1, method.generator)
    j = torch.randperm(8, generator=method.generator)
    f, y = method.model.encode(batch["inputs"]), batch["label"]
    of = dict(zip(modalities, lam.expand(len(modalities))))
    mixed = {m: of[m] * f[m] + (1 - of[m]) * f[m][j] for m in modalities}
    soft = lam.mean() * F.one_hot(y, 4) + (1 - lam.mean()) * F.one_hot(y[j], 4)
    expected = F.cross_entropy(method.model.fuse(mixed), soft)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["train/lam"].item() == pytest.approx(lam.mean().item())
    clean = Joint(method.model, None, facts())(batch)[1]  # logged, but not trained on
    assert torch.equal(logs["train/acc"], clean["train/acc"])
    assert torch.equal(logs["train/L_align"], clean["train/L_align"])
