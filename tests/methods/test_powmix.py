"""PowMix(R): hand-worked values, the distributions of its draws, its limits and its switches."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, tiny_batch, tiny_model

from methods.powmix import (
    PowMix,
    draw_factors,
    draw_mixed,
    leave_unmixed,
    log_attention,
    mixed_targets,
    reweight,
)

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")
LAMBDA = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
Z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
Y = torch.tensor([0, 1, 1])
PLAIN = {"reweight": False, "anisotropic": False, "dynamic": False}


def make(modalities=PAIR, **values):
    method = PowMix(tiny_model(modalities, heads=False), PowMix.HParams(**values), facts())
    method.begin_epoch(3, None)
    return method


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(method, batch=8, rows=8):
    """The gammas and the mixed modalities of a step on random features."""
    f = {m: torch.rand(batch, w) for m, w in method.model.widths.items()}
    return f, *method._draw(f, rows)


def close(found, expected):
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6)


def test_golden_factors_attention_embeddings_and_labels():
    gamma = reweight(LAMBDA, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log())
    assert close(gamma, [[0.344828, 0.310345, 0.344828], [0.044444, 0.066667, 0.888889]])
    assert close(log_attention(Z).exp(), [0.096692, 0.096692, 0.806617])
    assert close(gamma @ Z, [[1.034483, 1.0], [1.822222, 1.844444]])
    first = [[0.344828, 0.655172, 0.0], [0.044444, 0.955556, 0.0]]
    assert close(mixed_targets([gamma], Y, 3), first)
    second = torch.tensor([[0.2, 0.2, 0.6], [0.6, 0.3, 0.1]], dtype=torch.float64)
    both = [[0.272414, 0.727586, 0.0], [0.322222, 0.677778, 0.0]]
    assert close(mixed_targets([gamma, second], Y, 3), both)
    assert close(mixed_targets([gamma, second], Y, 3, cross_modal=False), first)


def test_factors_of_the_whole_batch_have_dirichlets_moments():
    factors = draw_factors(60_000, 3, 1.0, generator())
    assert factors.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.005)
    assert factors.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.002)
    assert torch.allclose(factors.sum(1), torch.ones(60_000))
    peak = draw_factors(20_000, 64, 1.0, generator()).amax(1).mean()  # H_64 / 64
    assert peak.item() == pytest.approx(sum(1 / k for k in range(1, 65)) / 64, abs=0.001)


@pytest.mark.parametrize("a", [0.2, 1.0])
def test_pairs_are_uniform_and_their_lam_is_beta(a):
    factors = draw_factors(60_000, 5, a, generator(), tuple_length=2)
    assert ((factors > 0).sum(1) <= 2).all()
    assert factors.mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.01)
    lam = factors[factors[:, 0] > 0][:, 0]  # the factor of sample 0 in the rows that hold it
    assert len(lam) / 60_000 == pytest.approx(2 / 5, abs=0.01)
    assert lam.mean().item() == pytest.approx(0.5, abs=0.01)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * a + 1)), abs=0.005)
    assert draw_factors(100, 3, 1.0, generator(), tuple_length=9).shape == (100, 3)
    assert draw_factors(4, 1, 1.0, generator(), tuple_length=2).tolist() == [[1.0]] * 4


@pytest.mark.parametrize("flush", [False, True])
def test_a_tiny_concentration_and_a_vast_attention_stay_finite(flush):
    torch.set_flush_denormal(flush)
    try:
        factors = draw_factors(5_000, 32, 1e-3, generator(), 3)
        gamma = reweight(factors, log_attention(1e3 * torch.rand(32, 16)))
    finally:
        torch.set_flush_denormal(False)
    for rows in (factors, gamma):
        assert rows.isfinite().all() and torch.allclose(rows.sum(1), torch.ones(5_000))
    assert (gamma[factors == 0] == 0).all()


def test_equal_attention_leaves_the_factors_and_attention_carries_no_gradient():
    factors = draw_factors(50, 8, 0.5, generator(), tuple_length=5).double()
    assert torch.allclose(reweight(factors, log_attention(torch.ones(8, 3).double())), factors)
    assert not log_attention(torch.rand(4, 3, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("modalities", "p"), [(2, 0.5), (2, 0.2), (3, 0.5), (3, 0.3)])
def test_mixed_sets_have_the_distribution_given_that_they_are_not_empty(modalities, p):
    mixed = draw_mixed(80_000, modalities, p, generator())
    for members in itertools.product((False, True), repeat=modalities):
        share = (mixed == torch.tensor(members)).all(1).float().mean().item()
        free = p ** sum(members) * (1 - p) ** (modalities - sum(members))
        expected = free / (1 - (1 - p) ** modalities) if any(members) else 0.0
        assert share == pytest.approx(expected, abs=0.007 if expected else 0)
    assert draw_mixed(1_000, modalities, 1.0, generator()).all()


def test_unmixed_rows_are_the_anchors_embedding():
    gamma = leave_unmixed(LAMBDA, torch.tensor([True, False]), torch.tensor([0, 2]))
    assert torch.equal(gamma @ Z, torch.stack([LAMBDA[0] @ Z, Z[2]]))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_rows_unmixed_modalities_share_one_anchor_and_anchors_take_turns(modalities):
    _, gammas, mixed = draw(make(modalities, p_mix=0.01), batch=8, rows=16)
    anchors = torch.full((16,), -1)
    for k, m in enumerate(modalities):
        alone = ~mixed[:, k]
        assert torch.equal(gammas[m][alone].amax(1), torch.ones(int(alone.sum())))
        place = gammas[m].argmax(1)
        assert ((anchors == -1) | (anchors == place) | ~alone).all()
        anchors = torch.where(alone, place, anchors)
    assert mixed.any(1).all() and (anchors >= 0).all()  # at 0.01 no row mixed all of them
    assert anchors.bincount().tolist() == [2] * 8


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("switches", list(itertools.product((False, True), repeat=4)))
def test_rows_are_convex_combinations_whatever_the_switches(modalities, switches):
    names = ("reweight", "anisotropic", "dynamic", "label")
    f, gammas, mixed = draw(make(modalities, **dict(zip(names, switches))), rows=32)
    for m, gamma in gammas.items():
        assert gamma.shape == (32, 8) and (gamma >= 0).all() and not gamma.requires_grad
        assert torch.allclose(gamma.sum(1), torch.ones(32), atol=1e-5)
        z = gamma @ f[m]
        assert (z >= f[m].amin(0) - 1e-5).all() and (z <= f[m].amax(0) + 1e-5).all()
    targets = mixed_targets(list(gammas.values()), torch.arange(8) % 4, 4, switches[3])
    assert torch.allclose(targets.sum(1), torch.ones(32), atol=1e-5)
    assert switches[2] or mixed.all()


def test_reweight_multiplies_by_each_modalitys_attention():
    f, gammas, _ = draw(make(anisotropic=False, dynamic=False))
    _, plain, _ = draw(make(**PLAIN))
    assert torch.equal(plain["audio"], plain["video"])  # one draw for all modalities
    for m in PAIR:
        assert torch.equal(gammas[m], reweight(plain[m], log_attention(f[m])))
    own = draw(make(**PLAIN | {"anisotropic": True}))[1]
    assert not torch.allclose(own["audio"], own["video"], atol=1e-3)


@pytest.mark.parametrize(
    ("values", "rows"), [({}, 8), ({"rows": 0.5}, 4), ({"rows": 4.0}, 32), ({"rows": 0.01}, 1)]
)
def test_the_number_of_mixed_rows(values, rows):
    method, seen = make(**values), []
    method.model.fusion.register_forward_hook(lambda _, __, z: seen.append(len(z)))
    method(tiny_batch())
    assert seen == [8, rows]


@pytest.mark.parametrize("label", [True, False])
def test_a_step_is_the_functions_on_the_drawn_gammas(label):
    method, batch = make(TRIO, rows=2.0, w=0.5, label=label), tiny_batch(TRIO)
    loss, logs = method(batch)
    method.begin_epoch(3, None)
    f, y = method.model.encode(batch["inputs"]), batch["label"]
    gammas, mixed = method._draw(f, 16)
    weights = sum(gammas.values()) / 3 if label else gammas["text"]
    yhat = weights @ F.one_hot(y, 4).float()
    log_p = F.log_softmax(method.model.fuse({m: gammas[m] @ f[m] for m in f}), 1)
    l_mix = -(yhat * log_p).sum(1).mean()
    assert logs["train/L_mix"].item() == pytest.approx(l_mix.item(), rel=1e-5)
    clean = F.cross_entropy(method.model.fuse(f), y)
    assert loss.item() == pytest.approx((clean + 0.5 * l_mix).item(), rel=1e-5)
    entropy = -torch.xlogy(yhat, yhat).sum(1).mean()
    assert logs["train/target_entropy"].item() == pytest.approx(entropy.item(), abs=1e-5)
    for k, m in enumerate(TRIO):
        assert logs[f"train/peak/{m}"].item() == pytest.approx(gammas[m].amax(1).mean().item())
        assert logs[f"train/mixed/{m}"].item() == mixed[:, k].float().mean().item()


def test_a_batch_of_one_sample_has_a_loss():
    method, batch = make(), tiny_batch(size=1)
    method.model.eval()
    loss, logs = method(batch)
    assert loss.item() == pytest.approx(2 * logs["train/L_align"].item(), rel=1e-5)
