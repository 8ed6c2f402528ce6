"""GMM-guided loss: the mixture against scikit-learn, the terms by hand, epochs and stages."""

import pytest
import torch
import torch.nn.functional as F
from conftest import TinySet, facts, tiny_batch, tiny_model

from methods.gmm import (
    GMM,
    degenerate,
    em_step,
    fit_mixture,
    fusion_weights,
    imbalance,
    modality_gap,
    shift_loss,
)

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def draws(seed=0):
    """600 gaps around 0.1 and 400 around 0.7."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(1000, generator=draw, dtype=torch.float64)
    return torch.cat([0.1 + 0.05 * noise[:600], 0.7 + 0.1 * noise[600:]])


def mixture(pi=(0.5, 0.5), mu=(0.1, 0.7), v=(0.01, 0.01)):
    return doubles(pi, mu, v)


class Train(TinySet):
    """A training part of 24 samples that counts the passes."""

    def __init__(self, modalities=PAIR):
        super().__init__(modalities, 24, batch=10)
        self.passes = 0

    def batches(self, indices=None, transforms="eval"):
        assert indices is None and transforms == "eval"
        self.passes += 1
        yield from super().batches()


def make(modalities=PAIR, **values):
    hp = GMM.HParams(**{"warmup_epochs": 2, "finetune_epochs": 2, **values})
    return GMM(tiny_model(modalities), hp, facts(train_size=24))


def adaptive(modalities=PAIR, **values):
    """A method in an adaptive epoch, on a mixture that is set and not fitted."""
    method = make(modalities, **values)
    method.adaptive = True
    method.mixture.copy_(mixture(mu=(0.01, 0.07), v=(1e-3, 1e-3)))
    return method


def true_class(logits, y):
    """p [B, M] without the method's own function."""
    return torch.stack([F.softmax(z, 1)[torch.arange(len(y)), y] for z in logits.values()], 1)


# The gap ------------------------------------------------------------------------------------------


def test_gaps_by_hand():
    p = torch.rand(50, 2, dtype=torch.float64)
    assert torch.equal(modality_gap(p), (p[:, 0] - p[:, 1]).abs())
    p = doubles([0.9, 0.4, 0.1], [0.2, 0.2, 0.5])
    assert modality_gap(p).tolist() == pytest.approx([(0.5 + 0.8) / 2, 0.3])


def test_the_gap_raises_the_lower_scores_and_leaves_the_largest():
    for modalities in (2, 3):
        p = torch.rand(20, modalities, dtype=torch.float64, requires_grad=True)
        modality_gap(p).mean().backward()
        best = F.one_hot(p.detach().argmax(1), modalities).bool()
        assert (p.grad[best] == 0).all() and (p.grad[~best] < 0).all()
    strong = doubles([0.9, 0.1]).log().requires_grad_()
    weak = doubles([0.4, 0.6]).log().requires_grad_()
    p = torch.stack([F.softmax(strong, 1)[:, 0], F.softmax(weak, 1)[:, 0]], dim=1)
    delta = modality_gap(p)
    delta.sum().backward()
    assert delta.item() == pytest.approx(0.5) and (strong.grad == 0).all()
    assert weak.grad[0, 0].item() == pytest.approx(-0.24)


# The mixture --------------------------------------------------------------------------------------


def test_the_fit_agrees_with_scikit_learn():
    from sklearn.mixture import GaussianMixture

    x = draws()
    start = torch.quantile(x, doubles(0.25, 0.75)).numpy()[:, None]
    oracle = GaussianMixture(
        2, tol=1e-6, reg_covar=0, max_iter=200, weights_init=[0.5, 0.5], means_init=start,
        precisions_init=[[[1 / x.var(correction=0).item()]]] * 2,
    ).fit(x[:, None].numpy())  # fmt: skip
    found = fit_mixture(x)
    pi, mu, v = found
    assert pi.tolist() == pytest.approx(oracle.weights_.tolist(), abs=1e-4)
    assert mu.tolist() == pytest.approx(oracle.means_[:, 0].tolist(), abs=1e-4)
    assert v.tolist() == pytest.approx(oracle.covariances_[:, 0, 0].tolist(), abs=1e-4)
    assert mu.tolist() == pytest.approx([0.1, 0.7], abs=0.02) and not degenerate(found)
    grid = torch.linspace(mu[0], mu[1], 50, dtype=torch.float64)
    expected = torch.from_numpy(oracle.predict_proba(grid[:, None].numpy())[:, 1])
    assert torch.allclose(imbalance(grid, found), expected, atol=1e-3)
    after, likelihood = em_step(x, *found)
    assert em_step(x, *after)[1] - likelihood < 1e-6  # it ended where a step gains little


@pytest.mark.parametrize("x", [draws(), torch.rand(300, dtype=torch.float64), doubles(0, 0, 0, 1)])
def test_the_likelihood_never_falls(x):
    state = (doubles(0.5, 0.5), torch.quantile(x, doubles(0.25, 0.75)), x.var().expand(2))
    seen = []
    for _ in range(60):
        state, likelihood = em_step(x, *state)
        seen.append(likelihood.item())
    assert all(after >= before - 1e-12 for before, after in zip(seen, seen[1:]))
    assert seen[-1] > seen[0]


def test_floors_hold_for_constant_and_for_lonely_gaps():
    constant = fit_mixture(torch.full((50,), 0.3))
    assert constant[2].tolist() == [1e-4, 1e-4] and degenerate(constant)
    lonely = torch.cat([0.2 + 0.02 * torch.randn(3000, dtype=torch.float64), doubles(0.95)])
    pi, _, v = fit_mixture(lonely)
    assert pi.sum().item() == pytest.approx(1.0) and pi.min() >= 0.99e-3 and v.min() >= 1e-4
    with pytest.raises(FloatingPointError, match="2 samples are not all finite"):
        fit_mixture(torch.tensor([0.1, float("nan")]))


def test_close_means_and_a_small_weight_are_degenerate():
    near = torch.cat([torch.zeros(300), torch.full((300,), 0.049)])
    far = torch.cat([torch.zeros(300), torch.full((300,), 0.2)])
    assert degenerate(fit_mixture(near)) and not degenerate(fit_mixture(far))
    few = torch.cat([0.1 + 0.01 * torch.randn(1500, dtype=torch.float64), doubles(0.8, 0.8, 0.8)])
    found = fit_mixture(few)
    pi, mu, _ = found
    assert mu[1] - mu[0] > 0.05 and pi.min() < 0.02 and degenerate(found)


def test_the_posterior_is_bayes_rule_between_the_means_and_constant_outside():
    m = mixture(pi=(0.3, 0.7), mu=(0.2, 0.6), v=(0.01, 0.04))
    x = torch.linspace(0.2, 0.6, 21, dtype=torch.float64)
    normals = [torch.distributions.Normal(m[1, c], m[2, c].sqrt()) for c in range(2)]
    likelihoods = [m[0, c] * normals[c].log_prob(x).exp() for c in range(2)]
    expected = likelihoods[1] / (likelihoods[0] + likelihoods[1])
    assert torch.allclose(imbalance(x, m), expected, atol=1e-12)
    wide = mixture(pi=(0.3, 0.7), mu=(0.4, 0.5), v=(0.001, 0.2))  # wins in both tails, unguarded
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    r = imbalance(grid, wide)
    assert (r.diff() >= 0).all()
    assert (r[grid < 0.4] == r[400]).all() and (r[grid > 0.5] == r[500]).all()


def test_the_posterior_carries_no_gradient_and_a_degenerate_one_is_the_gap():
    x = torch.rand(9, dtype=torch.float64, requires_grad=True)
    for mu, is_gap in (((0.1, 0.7), False), ((0.1, 0.14), True)):
        r = imbalance(x, mixture(mu=mu))
        assert not r.requires_grad and torch.equal(r, x.detach()) is is_gap


# The loss -----------------------------------------------------------------------------------------


def test_fusion_weights_and_shift_by_hand():
    w = fusion_weights(torch.rand(64, dtype=torch.float64))
    assert w.mean().item() == pytest.approx(1.0, abs=1e-12)
    ends = fusion_weights(doubles(0, 1))
    assert (ends[0] / ends[1]).item() == pytest.approx(2.0)
    delta, r = doubles(0.2, 0.6).requires_grad_(), doubles(0.25, 0.75)
    assert shift_loss(delta, r, doubles(0.1)[0]).item() == pytest.approx((0.5 - 0.1) ** 2)
    below = shift_loss(delta, r, doubles(0.55)[0])
    below.backward()
    assert below.item() == 0 and (delta.grad == 0).all()


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_the_adaptive_loss_by_hand(modalities):
    method = adaptive(modalities, lam_gap=0.3, lam_align=2.0, lam_pen=0.7)
    batch = tiny_batch(modalities)
    loss, logs = method(batch)
    y, f = batch["label"], method.model.encode(batch["inputs"])
    z, z_uni = method.model.fuse(f), method.model.unimodal(f)
    p = true_class(z_uni, y)
    delta = (p.amax(1, keepdim=True) - p).sum(1) / (len(modalities) - 1)
    r = torch.sigmoid(0.06 * (delta.clamp(0.01, 0.07) - 0.04) / 1e-3)
    assert 0.05 < r.std()  # the posterior differs between samples
    fusion = ((2 - r) * F.cross_entropy(z, y, reduction="none")).sum() / (2 - r).sum()
    shift = ((r * delta).sum() / r.sum() - 0.01).clamp_min(0) ** 2
    assert shift > 0
    uni = sum(F.cross_entropy(u, y) for u in z_uni.values())
    pen = (r * delta).mean()
    expected = fusion + uni + 0.3 * delta.mean() + 2.0 * shift + 0.7 * pen
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    values = {"L_fusion": fusion, "L_pen": pen, "gap": delta.mean(), "r_imbalanced": r.mean()}
    values |= {f"p_true/{m}": p[:, n].mean() for n, m in enumerate(modalities)}
    for name, value in values.items():
        assert logs[f"train/{name}"].item() == pytest.approx(value.item(), rel=1e-5), name
    assert logs["train/L_shift"].item() == pytest.approx(shift.item(), rel=1e-4)


# Epochs and stages --------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_each_adaptive_epoch_fits_the_gaps_of_one_pass(modalities):
    method, train = make(modalities), Train(modalities)
    method.begin_epoch(2, train)
    assert train.passes == 0 and method.end_epoch() == {} and method.mixture.isnan().all()
    method.train()
    before = {k: v.clone() for k, v in method.model.state_dict().items()}
    assert method.begin_epoch(3, train) is None and train.passes == 1
    after = method.model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)  # no BatchNorm statistics moved
    z = method.model.unimodal(method.model.eval().encode(train.data["inputs"]))
    delta = modality_gap(true_class(z, train.data["label"]))
    assert torch.allclose(method.gaps, delta, atol=1e-6)
    assert torch.allclose(method.mixture.double(), fit_mixture(method.gaps), atol=1e-6)
    logs = method.end_epoch()
    assert logs["gmm/pi/balanced"] + logs["gmm/pi/imbalanced"] == pytest.approx(1.0)
    assert logs["gmm/mu/balanced"] <= logs["gmm/mu/imbalanced"] and logs["gmm/v/balanced"] > 0
    assert "train/n_kept" not in logs
    old = method.mixture.clone()
    torch.nn.init.constant_(method.model.heads["audio"].bias[:1], 5.0)
    method.begin_epoch(4, train)
    assert train.passes == 2 and not torch.equal(method.mixture, old)


def test_stages():
    main, tune = make(finetune_epochs=3, lr_finetune=0.2).stages(10)
    assert (main.name, main.epochs, main.lr_scale, main.start) == ("train", 10, 1.0, "last")
    assert (tune.name, tune.epochs, tune.lr_scale, tune.start) == ("finetune", 3, 0.2, "best")
    assert [s.name for s in make(finetune_epochs=0).stages(10)] == ["train"]


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_fine_tuning_keeps_the_samples_found_balanced_without_the_adaptive_loss(modalities):
    method, train = make(modalities, tau=0.6), Train(modalities)
    with torch.no_grad():  # audio's head names one class of four: gaps fall in two groups
        method.model.heads["audio"].bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    assert method.begin_epoch(10, train) is None and method.adaptive
    plans = [method.begin_epoch(epoch, train) for epoch in (11, 12)]
    kept = (1 - imbalance(method.gaps, method.mixture) >= 0.6).nonzero().squeeze(1)
    assert 2 <= len(kept) < 24 and not degenerate(method.mixture)
    for plan in plans:
        assert torch.equal(plan.indices, kept) and plan.columns == {}
    assert train.passes == 2 and method.end_epoch()["train/n_kept"] == len(kept)
    loss, logs = method.train()(tiny_batch(modalities))
    assert torch.equal(loss.detach(), logs["train/L_align"] + logs["train/L_uni"])
    # A resume within fine-tuning goes on with the same samples, without a pass.
    resumed = make(modalities, tau=0.6)
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.begin_epoch(12, None).indices, kept)


@pytest.mark.parametrize(("tau", "kept"), [(0.0, 24), (1.0, 0)])
def test_tau_bounds_the_choice_and_too_few_samples_mean_all(tau, kept):
    method = make(tau=tau)  # heads as they begin: gaps near 0, a degenerate fit, so r = gap > 0
    plan = method.begin_epoch(11, Train())
    logs = method.end_epoch()
    assert logs["gmm/degenerate"] == 1 and logs["train/n_kept"] == kept
    assert plan is None if kept == 0 else len(plan.indices) == kept
    trio = make(TRIO)
    for count, planned in ((2, False), (3, True)):  # as many as modalities are enough
        trio.kept.zero_()
        trio.kept[:count] = True
        assert (trio.begin_epoch(12, None) is not None) is planned
