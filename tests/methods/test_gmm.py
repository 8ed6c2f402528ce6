"""GMM-guided loss: the mixture against scikit-learn, the loss by hand, epochs and stages."""

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, TinySet, doubles, tiny_batch, tiny_method

from methods.gmm import GMM, degenerate, fit_mixture, imbalance, modality_gap

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO])


class Train(TinySet):
    """A training set of 24 samples that counts the passes."""

    def __init__(self, modalities=PAIR):
        super().__init__(modalities, 24, batch=10)
        self.passes = 0

    def batches(self, indices=None, transforms="eval"):
        self.passes += 1
        yield from super().batches()


def make(modalities=PAIR, epoch=1, train=None, **values):
    values = {"warmup_epochs": 2, "finetune_epochs": 2, **values}
    return tiny_method(GMM, modalities, epoch, train, size=24, **values)


def true_class(logits, y):
    """p [B, M], computed without the method's function."""
    return torch.stack([F.softmax(z, 1)[torch.arange(len(y)), y] for z in logits.values()], 1)


def test_gaps_by_hand():
    p = doubles([0.9, 0.4, 0.1], [0.2, 0.2, 0.5])
    assert modality_gap(p).tolist() == pytest.approx([(0.5 + 0.8) / 2, 0.3])
    assert modality_gap(p[:, :2]).tolist() == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("count", [2, 3])
def test_the_gap_raises_the_lower_scores_and_leaves_the_largest(count):
    p = torch.rand(20, count, dtype=torch.float64, requires_grad=True)
    modality_gap(p).mean().backward()
    best = F.one_hot(p.detach().argmax(1), count).bool()
    assert (p.grad[best] == 0).all() and (p.grad[~best] < 0).all()


def test_the_fit_agrees_with_scikit_learn():
    from sklearn.mixture import GaussianMixture

    noise = torch.randn(1000, dtype=torch.float64)
    x = torch.cat([0.1 + 0.05 * noise[:600], 0.7 + 0.1 * noise[600:]])
    start = torch.quantile(x, doubles(0.25, 0.75)).numpy()[:, None]
    how = {"weights_init": [0.5, 0.5], "means_init": start}
    how["precisions_init"] = [[[1 / x.var(correction=0).item()]]] * 2
    oracle = GaussianMixture(2, tol=1e-6, reg_covar=0, max_iter=200, **how).fit(x[:, None].numpy())
    pi, mu, v = found = fit_mixture(x)
    assert pi.tolist() == pytest.approx(oracle.weights_.tolist(), abs=1e-4)
    assert mu.tolist() == pytest.approx(oracle.means_[:, 0].tolist(), abs=1e-4)
    assert v.tolist() == pytest.approx(oracle.covariances_[:, 0, 0].tolist(), abs=1e-4)
    assert mu.tolist() == pytest.approx([0.1, 0.7], abs=0.02) and not degenerate(found)
    grid = torch.linspace(mu[0], mu[1], 50, dtype=torch.float64)
    expected = torch.from_numpy(oracle.predict_proba(grid[:, None].numpy())[:, 1])
    assert torch.allclose(imbalance(grid, found), expected, atol=1e-3)


def test_constant_gaps_and_gaps_with_one_outlier_are_degenerate():
    constant = fit_mixture(torch.full((50,), 0.3))
    assert constant[2].tolist() == [1e-4, 1e-4] and degenerate(constant)
    lonely = torch.cat([0.2 + 0.02 * torch.randn(3000, dtype=torch.float64), doubles(0.95)])
    pi, mu, v = found = fit_mixture(lonely)
    assert pi.sum().item() == pytest.approx(1.0) and v.min() >= 1e-4
    assert mu[1] - mu[0] > 0.05 and 0.99e-3 <= pi.min() < 0.02 and degenerate(found)
    with pytest.raises(FloatingPointError, match="2 samples are not all finite"):
        fit_mixture(torch.tensor([0.1, float("nan")]))


def test_the_posterior_never_falls_although_the_wider_component_wins_in_both_tails():
    wide = doubles((0.3, 0.7), (0.4, 0.5), (0.001, 0.2))
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    r = imbalance(grid, wide)
    assert (r.diff() >= 0).all()
    assert (r[grid < 0.4] == r[400]).all() and (r[grid > 0.5] == r[500]).all()


def test_the_posterior_carries_no_gradient_and_a_degenerate_one_is_the_gap():
    x = torch.rand(9, dtype=torch.float64, requires_grad=True)
    for mu, is_gap in (((0.1, 0.7), False), ((0.1, 0.14), True)):
        r = imbalance(x, doubles((0.5, 0.5), mu, (0.01, 0.01)))
        assert not r.requires_grad and torch.equal(r, x.detach()) is is_gap


@SETS
def test_the_adaptive_loss_by_hand(modalities):
    method = make(modalities, lam_gap=0.3, lam_align=2.0, lam_pen=0.7)
    method.adaptive = True
    method.mixture.copy_(doubles((0.5, 0.5), (0.01, 0.07), (1e-3, 1e-3)))
    loss, logs = method(tiny_batch(modalities))
    y, f = tiny_batch(modalities)["label"], method.model.encode(tiny_batch(modalities)["inputs"])
    z, z_uni = method.model.fuse(f), method.model.unimodal(f)
    p = true_class(z_uni, y)
    delta = (p.amax(1, keepdim=True) - p).sum(1) / (len(modalities) - 1)
    r = torch.sigmoid(0.06 * (delta.clamp(0.01, 0.07) - 0.04) / 1e-3)
    fusion = ((2 - r) * F.cross_entropy(z, y, reduction="none")).sum() / (2 - r).sum()
    shift = ((r * delta).sum() / r.sum() - 0.01).clamp_min(0) ** 2
    uni, pen = sum(F.cross_entropy(u, y) for u in z_uni.values()), (r * delta).mean()
    assert r.std() > 0.05 and shift > 0
    expected = fusion + uni + 0.3 * delta.mean() + 2.0 * shift + 0.7 * pen
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    values = {"L_fusion": fusion, "L_pen": pen, "gap": delta.mean(), "r_imbalanced": r.mean()}
    values |= {f"p_true/{m}": p[:, n].mean() for n, m in enumerate(modalities)}
    for name, value in values.items():
        assert logs[f"train/{name}"].item() == pytest.approx(value.item(), rel=1e-5), name


@SETS
def test_each_adaptive_epoch_fits_the_gaps_of_one_pass(modalities):
    train = Train(modalities)
    method = make(modalities, 2, train)
    assert train.passes == 0 and method.end_epoch() == {}
    before = {k: v.clone() for k, v in method.model.state_dict().items()}
    assert method.begin_epoch(3, train) is None and train.passes == 1
    after = method.model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)  # no BatchNorm statistics moved
    z = method.model.unimodal(method.model.eval().encode(train.data["inputs"]))
    delta = modality_gap(true_class(z, train.data["label"]))
    assert torch.allclose(method.gaps, delta, atol=1e-6)
    assert torch.allclose(method.mixture.double(), fit_mixture(method.gaps), atol=1e-6)
    logs = method.end_epoch()
    assert logs["gmm/mu/balanced"] <= logs["gmm/mu/imbalanced"] and "train/n_kept" not in logs
    method.begin_epoch(4, train)
    assert train.passes == 2


def test_stages():
    main, tune = make(finetune_epochs=3).stages(10)
    assert (main.name, main.epochs, main.lr_scale, main.start) == ("train", 10, 1.0, "last")
    assert (tune.name, tune.epochs, tune.lr_scale, tune.start) == ("finetune", 3, 0.1, "best")
    assert [s.name for s in make(finetune_epochs=0).stages(10)] == ["train"]


@SETS
def test_fine_tuning_keeps_the_samples_found_balanced_without_the_adaptive_loss(modalities):
    method, train = make(modalities), Train(modalities)
    with torch.no_grad():  # audio's head predicts one class of four: gaps form two groups
        method.model.heads["audio"].bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    plans = [method.begin_epoch(epoch, train) for epoch in (11, 12)]
    kept = (1 - imbalance(method.gaps, method.mixture) >= 0.5).nonzero().squeeze(1)
    assert 2 <= len(kept) < 24 and train.passes == 1
    assert all(torch.equal(plan.indices, kept) for plan in plans)
    assert method.end_epoch()["train/n_kept"] == len(kept)
    loss, logs = method.train()(tiny_batch(modalities))
    assert torch.equal(loss.detach(), logs["train/L_align"] + logs["train/L_uni"])
    for count, planned in ((len(modalities) - 1, False), (len(modalities), True)):
        method.kept.zero_()  # fewer samples than modalities: use all
        method.kept[:count] = True
        assert (method.begin_epoch(12, None) is not None) is planned
