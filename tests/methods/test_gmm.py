"""GMM-guided loss: the mixture against scikit-learn, the terms by hand, stages and resume."""

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model

from common.options import UsageError
from methods.gmm import (
    GMM,
    Mixture,
    em_step,
    fit_mixture,
    fusion_weights,
    imbalance,
    modality_gap,
    shift_loss,
)
from methods.joint import Joint, JointUni

TRIO = ("text", "audio", "video")
PAIR = ("audio", "video")
ARRAYS = ("pi", "mu", "v", "degenerate", "gaps", "kept")


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def draws(seed=0):
    """600 gaps around 0.1 and 400 around 0.7."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(1000, generator=draw, dtype=torch.float64)
    return torch.cat([0.1 + 0.05 * noise[:600], 0.7 + 0.1 * noise[600:]])


def mixture(pi=(0.5, 0.5), mu=(0.1, 0.7), v=(0.01, 0.01), degenerate=False):
    return Mixture(doubles(*pi), doubles(*mu), doubles(*v), torch.tensor(degenerate))


class Train:
    """A training part of one batch, read in slices; counts the passes."""

    def __init__(self, modalities=PAIR, size=24, slices=10):
        self.whole, self.size, self.slices = tiny_batch(modalities, size), size, slices
        self.passes = []

    def __len__(self):
        return self.size

    def batches(self, indices=None, transforms="eval"):
        assert indices is None
        self.passes.append(transforms)
        for k in range(0, self.size, self.slices):
            cut = slice(k, k + self.slices)
            yield {
                "index": self.whole["index"][cut],
                "label": self.whole["label"][cut],
                "inputs": {m: x[cut] for m, x in self.whole["inputs"].items()},
            }


def make(modalities=PAIR, train_size=24, epochs=10, **values):
    hp = GMM.HParams(**{"warmup_epochs": 2, "finetune_epochs": 2, **values})
    return GMM(tiny_model(modalities), hp, facts(epochs=epochs, train_size=train_size))


def adaptive(modalities=PAIR, **values):
    """A method in an adaptive epoch, on a mixture that is set and not fitted."""
    method = make(modalities, warmup_epochs=0, **values)
    method.adaptive = True
    for mine, given in zip(method.mixture, mixture(mu=(0.01, 0.05), v=(1e-3, 1e-3))):
        mine.copy_(given)
    return method


def gradients(method):
    return {n: p.grad for n, p in method.model.named_parameters() if p.grad is not None}


# The gap ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("onesided", [True, False])
def test_gap_of_two_modalities_is_the_absolute_difference(onesided):
    p = torch.rand(50, 2, dtype=torch.float64)
    assert torch.equal(modality_gap(p, onesided), (p[:, 0] - p[:, 1]).abs())


def test_gap_of_three_modalities():
    p = doubles([0.9, 0.4, 0.1], [0.2, 0.2, 0.5])
    assert modality_gap(p, False).tolist() == pytest.approx([0.8, 0.3])
    assert modality_gap(p, True).tolist() == pytest.approx([(0.5 + 0.8) / 2, 0.3])


@pytest.mark.parametrize("modalities", [2, 3])
def test_onesided_gap_raises_the_lower_scores_and_leaves_the_largest(modalities):
    p = torch.rand(20, modalities, dtype=torch.float64, requires_grad=True)
    modality_gap(p, True).mean().backward()
    best = F.one_hot(p.detach().argmax(1), modalities).bool()
    assert (p.grad[best] == 0).all() and (p.grad[~best] < 0).all()


def test_twosided_gap_also_lowers_the_largest_score():
    p = torch.rand(20, 3, dtype=torch.float64, requires_grad=True)
    modality_gap(p, False).mean().backward()
    best = F.one_hot(p.detach().argmax(1), 3).bool()
    assert (p.grad[best] > 0).all()
    assert (p.grad.sum(1).abs() < 1e-12).all()


def test_hand_value_of_the_gap_and_its_derivative():
    strong = doubles([0.9, 0.1]).log().requires_grad_()
    weak = doubles([0.4, 0.6]).log().requires_grad_()
    p = torch.stack([F.softmax(strong, 1)[:, 0], F.softmax(weak, 1)[:, 0]], dim=1)
    delta = modality_gap(p, True)
    assert delta.item() == pytest.approx(0.5)
    delta.sum().backward()
    assert weak.grad[0, 0].item() == pytest.approx(-0.24)
    assert (strong.grad == 0).all()


# The mixture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_fit_recovers_the_two_groups(seed):
    found = fit_mixture(draws(seed))
    assert found.pi.tolist() == pytest.approx([0.6, 0.4], abs=0.02)
    assert found.mu.tolist() == pytest.approx([0.1, 0.7], abs=0.02)
    assert found.v.sqrt().tolist() == pytest.approx([0.05, 0.1], abs=0.02)
    assert not found.degenerate


def test_fit_agrees_with_scikit_learn():
    from sklearn.mixture import GaussianMixture

    x = draws()
    start = torch.quantile(x, doubles(0.25, 0.75)).numpy()[:, None]
    oracle = GaussianMixture(
        2, tol=1e-6, reg_covar=0, max_iter=200, weights_init=[0.5, 0.5], means_init=start,
        precisions_init=[[[1 / x.var(correction=0).item()]]] * 2,
    ).fit(x[:, None].numpy())  # fmt: skip
    found = fit_mixture(x)
    assert found.pi.tolist() == pytest.approx(oracle.weights_.tolist(), abs=1e-4)
    assert found.mu.tolist() == pytest.approx(oracle.means_[:, 0].tolist(), abs=1e-4)
    assert found.v.tolist() == pytest.approx(oracle.covariances_[:, 0, 0].tolist(), abs=1e-4)
    grid = torch.linspace(found.mu[0], found.mu[1], 50, dtype=torch.float64)
    expected = torch.from_numpy(oracle.predict_proba(grid[:, None].numpy())[:, 1])
    assert torch.allclose(imbalance(grid, found), expected, atol=1e-3)


@pytest.mark.parametrize("x", [draws(), torch.rand(300, dtype=torch.float64), doubles(0, 0, 0, 1)])
def test_likelihood_never_falls(x):
    state = (doubles(0.5, 0.5), torch.quantile(x, doubles(0.25, 0.75)), x.var().expand(2))
    seen = []
    for _ in range(60):
        state, likelihood = em_step(x, *state)
        seen.append(likelihood.item())
    assert all(after >= before - 1e-12 for before, after in zip(seen, seen[1:]))
    assert seen[-1] > seen[0]


def test_fit_ends_where_a_step_gains_little_and_stays_within_its_steps():
    x = draws()
    found = fit_mixture(x)
    after, likelihood = em_step(x, *found[:3])
    assert em_step(x, *after)[1] - likelihood < 1e-6
    one = fit_mixture(x, steps=1)
    start = (doubles(0.5, 0.5), torch.quantile(x, doubles(0.25, 0.75)))
    expected, _ = em_step(x, *start, x.var(correction=0).expand(2))
    assert all(torch.equal(a, b) for a, b in zip(one[:3], expected))


def test_floors_hold_for_constant_and_for_lonely_gaps():
    constant = fit_mixture(torch.full((50,), 0.3))
    assert constant.v.tolist() == [1e-4, 1e-4] and constant.degenerate
    assert constant.mu.tolist() == pytest.approx([0.3, 0.3])
    lonely = torch.cat([0.2 + 0.02 * torch.randn(3000, dtype=torch.float64), doubles(0.95)])
    found = fit_mixture(lonely)
    assert found.pi.sum().item() == pytest.approx(1.0) and found.pi.min() >= 0.99e-3
    assert found.v.min() >= 1e-4


def test_a_gap_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match="2 samples are not all finite"):
        fit_mixture(torch.tensor([0.1, float("nan")]))
    with pytest.raises(FloatingPointError, match="0 samples"):
        fit_mixture(torch.empty(0))


def test_guard_marks_close_means_and_a_small_weight():
    assert fit_mixture(0.3 + 0.01 * torch.randn(500, dtype=torch.float64)).degenerate
    near = torch.cat([torch.zeros(300), torch.full((300,), 0.049)])
    far = torch.cat([torch.zeros(300), torch.full((300,), 0.2)])
    assert fit_mixture(near).degenerate and not fit_mixture(far).degenerate
    few = torch.cat([0.1 + 0.01 * torch.randn(1500, dtype=torch.float64), doubles(0.8, 0.8, 0.8)])
    found = fit_mixture(few)
    assert found.mu[1] - found.mu[0] > 0.05 and found.pi.min() < 0.02 and found.degenerate


# The posterior ------------------------------------------------------------------------------------


def test_posterior_separates_the_groups_and_never_falls():
    found = fit_mixture(draws())
    at_means = imbalance(found.mu, found)
    assert at_means[0] < 0.5 < at_means[1]
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert (imbalance(grid, found).diff() >= 0).all()
    wide = mixture(pi=(0.3, 0.7), mu=(0.4, 0.5), v=(0.001, 0.2))  # wins in both tails, unguarded
    r = imbalance(grid, wide)
    assert (r.diff() >= 0).all()
    assert (r[grid < 0.4] == r[400]).all() and (r[grid > 0.5] == r[500]).all()


def test_posterior_is_bayes_rule():
    m = mixture(pi=(0.3, 0.7), mu=(0.2, 0.6), v=(0.01, 0.04))
    x = torch.linspace(0.2, 0.6, 21, dtype=torch.float64)
    likelihoods = [
        m.pi[c] * torch.distributions.Normal(m.mu[c], m.v[c].sqrt()).log_prob(x).exp()
        for c in range(2)
    ]
    expected = likelihoods[1] / (likelihoods[0] + likelihoods[1])
    assert torch.allclose(imbalance(x, m), expected, atol=1e-12)
    balanced = likelihoods[0] / (likelihoods[0] + likelihoods[1])
    assert (imbalance(x, m) + balanced - 1).abs().max() < 1e-7


def test_equal_components_give_a_sigmoid():
    x = torch.linspace(0.1, 0.7, 31, dtype=torch.float64)
    expected = torch.sigmoid(0.6 * (x - 0.4) / 0.01)
    r = imbalance(x, mixture())
    assert torch.allclose(r, expected, atol=1e-12) and r[15].item() == pytest.approx(0.5)
    outside = imbalance(doubles(0.0, 1.0), mixture())
    assert torch.allclose(outside, r[[0, -1]])


def test_a_degenerate_mixture_gives_the_gap_itself():
    x = torch.rand(9, dtype=torch.float64, requires_grad=True)
    r = imbalance(x, mixture(degenerate=True))
    assert torch.equal(r, x.detach()) and not r.requires_grad


def test_posterior_carries_no_gradient():
    x = torch.rand(9, dtype=torch.float64, requires_grad=True)
    assert not imbalance(x, mixture()).requires_grad


# The loss -----------------------------------------------------------------------------------------


def test_fusion_weights_have_mean_one_and_favour_balanced_samples():
    r = torch.rand(64, dtype=torch.float64)
    w = fusion_weights(r)
    assert w.mean().item() == pytest.approx(1.0, abs=1e-12)
    assert (w[r.argsort()].diff() < 0).all()
    ends = fusion_weights(doubles(0, 1))
    assert (ends[0] / ends[1]).item() == pytest.approx(2.0)


def test_shift_by_hand_and_zero_below_the_balanced_mean():
    delta, r = doubles(0.2, 0.6), doubles(0.25, 0.75)
    assert shift_loss(delta, r, doubles(0.1)[0]).item() == pytest.approx((0.5 - 0.1) ** 2)
    moving = delta.clone().requires_grad_()
    loss = shift_loss(moving, r, doubles(0.55)[0])
    loss.backward()
    assert loss.item() == 0 and (moving.grad == 0).all()


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_warm_up_is_joint_with_unimodal_heads_to_the_last_bit(modalities):
    batch = tiny_batch(modalities)
    control, method = JointUni(tiny_model(modalities), None, facts()), make(modalities)
    method.begin_epoch(2, None)
    losses = [m(batch)[0] for m in (control, method)]
    for loss in losses:
        loss.backward()
    mine, theirs = gradients(method), gradients(control)
    assert torch.equal(*losses) and mine.keys() == theirs.keys()
    assert all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_warm_up_without_unimodal_losses_is_joint_to_the_last_bit():
    batch = tiny_batch()
    control, method = Joint(tiny_model(), None, facts()), make(beta=0.0)
    method.begin_epoch(1, None)
    losses = [m(batch)[0] for m in (control, method)]
    for loss in losses:
        loss.backward()
    mine, theirs = gradients(method), gradients(control)
    assert torch.equal(*losses)
    assert all(torch.equal(mine[n], theirs[n]) for n in theirs)
    assert all((mine[n] == 0).all() for n in mine.keys() - theirs.keys())


def test_without_weights_and_with_equal_posteriors_it_is_joint_with_unimodal_heads():
    batch = tiny_batch()
    method = adaptive(lam_gap=0.0, lam_align=0.0, lam_pen=0.0)
    method.mu.copy_(torch.tensor([0.2, 0.2]))  # equal components: r = 1/2 everywhere
    control = JointUni(tiny_model(), None, facts())
    losses = [m(batch)[0] for m in (control, method)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    mine, theirs = gradients(method), gradients(control)
    assert all(torch.allclose(mine[n], theirs[n], rtol=1e-4, atol=1e-6) for n in theirs)


def test_equal_modalities_have_no_gap_and_no_gap_terms():
    batch, names = tiny_batch(("a", "b")), ("a", "b")
    batch["inputs"]["b"] = batch["inputs"]["a"]
    method = adaptive(names)
    model = method.model
    model.encoders["b"].load_state_dict(model.encoders["a"].state_dict())
    model.heads["b"].load_state_dict(model.heads["a"].state_dict())
    loss, logs = method(batch)
    assert logs["train/gap"] == logs["train/L_shift"] == logs["train/L_pen"] == 0
    expected = logs["train/L_align"] + logs["train/L_uni"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_the_adaptive_loss_by_hand(modalities):
    method, batch = adaptive(modalities), tiny_batch(modalities)
    loss, logs = method(batch)
    y, f = batch["label"], method.model.encode(batch["inputs"])
    z, z_uni = method.model.fuse(f), method.model.unimodal(f)
    p = torch.stack([F.softmax(u, 1)[torch.arange(8), y] for u in z_uni.values()], 1)
    delta = (p.amax(1, keepdim=True) - p).sum(1) / (len(modalities) - 1)
    r = torch.sigmoid(0.04 * (delta.clamp(0.01, 0.05) - 0.03) / 1e-3)
    assert 0.05 < r.std()  # the posterior tells samples apart here
    fusion = ((2 - r) * F.cross_entropy(z, y, reduction="none")).sum() / (2 - r).sum()
    shift = ((r * delta).sum() / r.sum() - 0.01).clamp_min(0) ** 2
    assert shift > 0
    uni = sum(F.cross_entropy(u, y) for u in z_uni.values())
    expected = fusion + uni + 0.1 * delta.mean() + 0.5 * shift + 0.5 * (r * delta).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs["train/L_fusion"].item() == pytest.approx(fusion.item(), rel=1e-5)
    assert logs["train/L_shift"].item() == pytest.approx(shift.item(), rel=1e-4)
    assert logs["train/L_pen"].item() == pytest.approx((r * delta).mean().item(), rel=1e-5)
    assert logs["train/gap"].item() == pytest.approx(delta.mean().item(), rel=1e-5)
    assert logs["train/r_imbalanced"].item() == pytest.approx(r.mean().item(), rel=1e-5)
    for n, m in enumerate(modalities):
        assert logs[f"train/p_true/{m}"].item() == pytest.approx(p[:, n].mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("beta", "train/L_uni"),
        ("lam_gap", "train/gap"),
        ("lam_align", "train/L_shift"),
        ("lam_pen", "train/L_pen"),
    ],
)
def test_each_weight_multiplies_its_own_term(name, key):
    without, logs = adaptive(**{name: 0.0})(tiny_batch())
    with_it, _ = adaptive(**{name: 2.0})(tiny_batch())
    assert logs[key] > 1e-6
    assert (with_it - without).item() == pytest.approx(2 * logs[key].item(), abs=1e-6)


def test_gap_terms_move_only_the_heads_of_the_lower_scores_when_onesided():
    grads = {}
    for onesided in (True, False):
        method = adaptive(gap_onesided=onesided, beta=0.0, lam_gap=1.0)
        with torch.no_grad():  # audio is surer of every true class
            method.model.heads["audio"].weight.zero_()
            method.model.heads["audio"].bias.copy_(torch.tensor([9.0, 0, 0, 0]))
        batch = tiny_batch()
        batch["label"][:] = 0
        method(batch)[0].backward()
        grads[onesided] = [method.model.heads[m].bias.grad.abs().sum() for m in PAIR]
    assert grads[True][0] == 0 and grads[False][0] > 0
    assert grads[True][1] > 0 and grads[False][1] > 0


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_gradient_reaches_each_encoder(modalities):
    method, batch = adaptive(modalities), tiny_batch(modalities)
    loss, logs = method(batch)
    loss.backward()
    assert loss.isfinite() and 0 < logs["train/r_imbalanced"] < 1
    for m in modalities:
        weights = [p for p in method.model.encoder_parameters(m) if p.ndim > 1]
        assert weights and all(p.grad.abs().sum() > 0 for p in weights)
    assert not any(value.requires_grad for value in logs.values())


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("gap_source", ["pass", "running"])
def test_no_host_read_in_a_step(modalities, gap_source):
    method, batch = adaptive(modalities, gap_source=gap_source), tiny_batch(modalities)
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0


# Epochs and stages --------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_each_adaptive_epoch_fits_the_gaps_of_one_pass(modalities):
    method, train = make(modalities), Train(modalities)
    method.begin_epoch(2, train)
    assert train.passes == [] and method.end_epoch() == {} and method.mu.isnan().all()
    method.train()
    before = {k: v.clone() for k, v in method.model.state_dict().items()}
    assert method.begin_epoch(3, train) is None
    after = method.model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)  # no BatchNorm statistics moved
    assert train.passes == ["eval"]
    method.model.eval()
    z = method.model.unimodal(method.model.encode(train.whole["inputs"]))
    y = train.whole["label"]
    p = torch.stack([F.softmax(u, 1)[torch.arange(24), y] for u in z.values()], 1)
    assert torch.allclose(method.gaps, modality_gap(p, True), atol=1e-6)
    assert torch.allclose(method.mu.double(), fit_mixture(method.gaps).mu, atol=1e-6)
    with torch.no_grad():
        method.model.heads["audio"].bias += torch.tensor([5.0, 0, 0, 0])
    old = method.mu.clone()
    method.begin_epoch(4, train)
    assert len(train.passes) == 2 and not torch.equal(method.mu, old)


def test_warm_up_ends_after_its_epochs():
    method, train, batch = make(), Train(), tiny_batch()
    method.begin_epoch(2, train)
    _, logs = method(batch)
    assert "train/r_imbalanced" not in logs and "train/gap" in logs
    method.begin_epoch(3, train)
    _, logs = method(batch)
    assert "train/r_imbalanced" in logs


def test_running_gaps_need_no_pass_and_leave_out_unseen_samples():
    method, train = make(gap_source="running"), Train()
    method.begin_epoch(2, train)
    rows = [3, 20, 4, 11, 7, 9, 0, 1]
    batch = tiny_batch()
    batch["index"] = torch.tensor(rows)
    _, logs = method(batch)
    unseen = sorted(set(range(24)) - set(rows))
    assert method.gaps[unseen].isnan().all() and not method.gaps[rows].isnan().any()
    assert method.gaps[rows].mean().item() == pytest.approx(logs["train/gap"].item(), rel=1e-5)
    method.begin_epoch(3, train)
    assert train.passes == []
    assert torch.allclose(method.mu.double(), fit_mixture(method.gaps[rows]).mu, atol=1e-6)


def test_a_pass_does_not_follow_the_training_steps():
    method = make()
    method.begin_epoch(2, None)
    method(tiny_batch())
    assert method.gaps.isnan().all()


def test_state_at_the_epochs_end():
    method = make()
    method.begin_epoch(3, Train())
    logs = method.end_epoch()
    assert logs["gmm/pi/balanced"] + logs["gmm/pi/imbalanced"] == pytest.approx(1.0)
    assert logs["gmm/mu/balanced"] <= logs["gmm/mu/imbalanced"]
    assert logs["gmm/v/balanced"] > 0 and logs["gmm/v/imbalanced"] > 0
    assert logs["gmm/degenerate"] in (0.0, 1.0) and "train/n_kept" not in logs


def test_stages():
    main, tune = make(finetune_epochs=3, lr_finetune=0.2).stages(10)
    assert (main.name, main.epochs, main.lr_scale, main.start) == ("train", 10, 1.0, "last")
    assert (tune.name, tune.epochs, tune.lr_scale, tune.start) == ("finetune", 3, 0.2, "best")
    assert [s.name for s in make(finetune_epochs=0).stages(10)] == ["train"]


def spread(method):
    """Makes audio's head name one class of four always, so that gaps fall in two groups."""
    with torch.no_grad():
        method.model.heads["audio"].bias.copy_(torch.tensor([9.0, 0, 0, 0]))


def fake_run(method, train, until):
    """The training loop in small: the best epoch's weights are loaded before epoch 11."""
    best, plans = None, {}
    for epoch in range(2, until + 1):
        if epoch == 4:
            spread(method)
        if epoch == 5:
            best = {k: v.clone() for k, v in method.state_dict().items()}
        if epoch == 11:
            method.load_state_dict(best)
        plans[epoch] = method.begin_epoch(epoch, train)
        method.train()
    return plans


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_fine_tuning_keeps_the_samples_found_balanced(modalities):
    method, train = make(modalities, tau=0.6), Train(modalities)
    plans = fake_run(method, train, until=12)
    assert all(plans[epoch] is None for epoch in range(2, 11))
    kept = (1 - imbalance(method.gaps, method.mixture) >= 0.6).nonzero().squeeze(1)
    assert 2 <= len(kept) < 24 and not method.degenerate
    assert torch.equal(plans[11].indices, kept) and torch.equal(plans[12].indices, kept)
    assert plans[11].indices.dtype == torch.int64 and plans[11].columns == {}
    assert len(train.passes) == 8 + 1  # epochs 3 to 10, and once for fine-tuning
    assert method.end_epoch()["train/n_kept"] == len(kept)


def test_fine_tuning_drops_the_adaptive_loss_unless_asked():
    for keep in (False, True):
        method, train = make(finetune_adaptive=keep), Train()
        fake_run(method, train, until=11)
        loss, logs = method(tiny_batch())
        assert ("train/r_imbalanced" in logs) is keep
        if not keep:
            assert torch.equal(loss.detach(), logs["train/L_align"] + logs["train/L_uni"])


@pytest.mark.parametrize("finetune_adaptive", [False, True])
def test_a_resume_within_fine_tuning_continues_with_the_same_samples(finetune_adaptive):
    method, train = make(finetune_adaptive=finetune_adaptive), Train()
    plans = fake_run(method, train, until=12)
    resumed, fresh = make(finetune_adaptive=finetune_adaptive), Train()
    resumed.load_state_dict(method.state_dict())
    plan = resumed.begin_epoch(12, fresh)
    resumed.train()
    assert fresh.passes == [] and torch.equal(plan.indices, plans[12].indices)
    assert torch.equal(resumed(tiny_batch())[0], method(tiny_batch())[0])


def test_fine_tuning_chooses_by_a_pass_even_when_gaps_are_running():
    method, train = make(gap_source="running"), Train()
    for epoch in (2, 3):
        method.begin_epoch(epoch, train)
        method(tiny_batch())  # the first 8 of 24 samples
    assert train.passes == []
    spread(method)
    plan = method.begin_epoch(11, train)
    assert train.passes == ["eval"] and not method.gaps.isnan().any()
    assert plan.indices.max() >= 8


@pytest.mark.parametrize(("tau", "kept"), [(0.0, 24), (1.0, 0)])
def test_tau_bounds_the_choice_and_too_few_samples_mean_all(tau, kept):
    method = make(tau=tau)  # heads as they begin: gaps near 0, a degenerate fit, so r = gap > 0
    plan = method.begin_epoch(11, Train())
    logs = method.end_epoch()
    assert logs["gmm/degenerate"] == 1 and logs["train/n_kept"] == kept
    assert plan is None if kept == 0 else len(plan.indices) == kept


def test_as_many_kept_samples_as_modalities_are_enough():
    method = make(TRIO)
    method.begin_epoch(11, Train(TRIO))
    for count, planned in ((2, False), (3, True)):
        method.kept.zero_()
        method.kept[:count] = True
        plan = method.begin_epoch(12, None)
        assert (plan is not None and plan.indices.tolist() == [0, 1, 2]) is planned


def test_state_survives_a_round_trip():
    method, other = make(), make()
    fake_run(method, Train(), until=11)
    other.load_state_dict(method.state_dict())
    for name in ARRAYS:
        mine, theirs = getattr(method, name), getattr(other, name)
        assert torch.equal(mine, theirs) and not mine.float().isnan().any()


def test_prediction_is_the_fused_output_and_heads_are_the_only_extra():
    method = make()
    f = method.model.encode(tiny_batch()["inputs"])
    assert torch.equal(method.logits(f), method.model.fuse(f))
    control = JointUni(tiny_model(), None, facts())
    assert [n for n, _ in method.named_parameters()] == [n for n, _ in control.named_parameters()]


@pytest.mark.parametrize(
    ("values", "modalities", "words"),
    [
        ({"warmup_epochs": 3}, ["a", "v"], "leaves no epoch"),
        ({"warmup_epochs": 1}, ["a"], "2 or more modalities"),
        ({"warmup_epochs": 0, "gap_source": "running"}, ["a", "v"], "needs --warmup_epochs 1"),
    ],
)
def test_impossible_settings_are_refused(values, modalities, words):
    with pytest.raises(UsageError, match=words):
        GMM.check(GMM.HParams(**values), 3, modalities)
