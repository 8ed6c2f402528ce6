"""Mixup: hand-worked values and a step from its draws."""

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mixup import Mixup, mix_features, pair_loss
from methods.ops import dirichlet

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO])


def test_golden_mixed_feature():
    f = {"a": doubles([1.0, 2.0], [3.0, -2.0])}
    mixed = mix_features(f, torch.tensor([1, 0]), doubles(0.3))
    assert mixed["a"][0].tolist() == pytest.approx([2.4, -0.8], abs=1e-6)


@pytest.mark.parametrize(("lam", "expected"), [([0.3], 1.325612), ([0.3, 0.8], 1.426979)])
def test_golden_loss_of_a_shared_lam_and_of_one_per_modality(lam, expected):
    z = doubles([0.2, 0.5, 0.3]).log()
    loss = pair_loss(z, torch.tensor([0]), torch.tensor([2]), doubles(*lam).mean())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("a", "variance"), [(0.2, 0.178571), (0.4, 0.138889), (1.0, 0.083333)])
def test_lam_has_the_mean_and_variance_of_beta(a, variance):
    lam = dirichlet(a, (100_000, 2), torch.Generator().manual_seed(0))[:, 0]
    assert lam.mean().item() == pytest.approx(0.5, abs=0.005)
    assert lam.var().item() == pytest.approx(variance, abs=0.002)


@SETS
def test_lam_one_changes_nothing_and_a_linear_fusion_of_mixed_features_is_the_mixed_fusion(
    modalities,
):
    model, j = tiny_method(Mixup, modalities).model, torch.randperm(7)
    f = {m: torch.randn(7, width) for m, width in model.widths.items()}
    z = model.fuse(f)
    assert torch.equal(model.fuse(mix_features(f, j, torch.ones(1))), z)
    mixed = model.fuse(mix_features(f, j, torch.tensor([0.3])))
    assert torch.allclose(mixed, 0.3 * z + 0.7 * z[j], atol=1e-6)


@SETS
@pytest.mark.parametrize("lam_mode", ["shared", "per_modality"])
def test_a_step_is_the_soft_cross_entropy_of_features_mixed_by_hand(modalities, lam_mode):
    method = tiny_method(Mixup, modalities, lam_mode=lam_mode, concentration=1.0)
    loss, logs = method(tiny_batch(modalities))
    method.begin_epoch(9, None)  # the same draws again
    count = len(modalities) if lam_mode == "per_modality" else 1
    lam = dirichlet(1.0, (count, 2), method.generator)[:, 0]
    j = torch.randperm(8, generator=method.generator)
    f, y = method.model.encode(tiny_batch(modalities)["inputs"]), tiny_batch()["label"]
    of = dict(zip(modalities, lam.expand(len(modalities))))
    mixed = {m: of[m] * f[m] + (1 - of[m]) * f[m][j] for m in modalities}
    soft = lam.mean() * F.one_hot(y, 4) + (1 - lam.mean()) * F.one_hot(y[j], 4)
    expected = F.cross_entropy(method.model.fuse(mixed), soft)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    clean = F.cross_entropy(method.model.fuse(f), y)  # logged, but not trained on
    assert torch.equal(logs["train/L_align"], clean)
