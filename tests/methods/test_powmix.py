"""PowMix(R): hand-worked values, the distributions of its draws, and a training step."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.powmix import PowMix, draw_factors, draw_mixed, log_attention, onehot, reweight

Z = doubles([1.0, 0.0], [0.0, 1.0], [2.0, 2.0])


def generator():
    return torch.Generator().manual_seed(0)


def test_golden_factors_attention_embeddings_and_labels():
    factors, a = doubles([0.5, 0.3, 0.2], [0.1, 0.1, 0.8]), doubles(0.2, 0.3, 0.5)
    gamma = reweight(factors, a.log())
    for found, expected in (
        (gamma, doubles([0.344828, 0.310345, 0.344828], [0.044444, 0.066667, 0.888889])),
        (log_attention(Z).exp(), doubles(0.096692, 0.096692, 0.806617)),
        (gamma @ Z, doubles([1.034483, 1.0], [1.822222, 1.844444])),
        (
            gamma @ onehot(torch.tensor([0, 1, 1]), 3).double(),
            doubles([0.344828, 0.655172, 0.0], [0.044444, 0.955556, 0.0]),
        ),
    ):
        assert torch.allclose(found, expected, atol=1e-6)


def test_factors_are_dirichlet():
    factors = draw_factors(60_000, 3, 1.0, generator())
    assert factors.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.005)
    assert factors.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.002)
    assert torch.allclose(factors.sum(1), torch.ones(60_000))


def test_reweighting_by_attention_that_underflows_stays_finite_and_keeps_zero_factors():
    gamma = reweight(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([-200.0, -201.0, 0.0]))
    assert gamma[0].tolist() == pytest.approx([0.731059, 0.268941, 0.0], abs=1e-6)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("p", [0.3, 0.5, 1.0])
def test_mixed_sets_match_independent_draws_repeated_while_empty(count, p):
    mixed = draw_mixed(60_000, count, p, generator())
    for members in itertools.product([False, True], repeat=count):
        chance = 1.0
        for m in members:
            chance *= p if m else 1 - p
        chance = chance / (1 - (1 - p) ** count) if any(members) else 0.0
        share = (mixed == torch.tensor(members)).all(1).float().mean().item()
        assert share == pytest.approx(chance, abs=0.01)


@pytest.mark.parametrize(("values", "rows"), [({}, 8), ({"rows": 4.0}, 32), ({"rows": 0.01}, 1)])
def test_the_number_of_mixed_rows(values, rows):
    method, seen = tiny_method(PowMix, **values), []
    method.model.fusion.register_forward_hook(lambda _, __, z: seen.append(len(z)))
    method(tiny_batch())
    assert seen == [8, rows]


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_step_mixes_each_modality_by_its_own_factors_or_keeps_an_anchor(modalities):
    method, y = tiny_method(PowMix, modalities, rows=2.0, w=0.5), tiny_batch(modalities)["label"]
    loss, logs = method(tiny_batch(modalities))
    method.begin_epoch(9, None)  # the same draws again
    f, draw = method.model.encode(tiny_batch(modalities)["inputs"]), method.generator
    factors = {m: draw_factors(16, 8, 1.0, draw) for m in modalities}
    mixed = draw_mixed(16, len(modalities), 0.5, draw)
    anchor = torch.randperm(8, generator=draw).repeat(2)
    gammas = {m: reweight(factors[m], log_attention(f[m])) for m in modalities}
    for k, m in enumerate(modalities):
        for row in range(16):
            if not mixed[row, k]:
                gammas[m][row] = F.one_hot(anchor[row], 8)
        assert logs[f"train/peak/{m}"].item() == pytest.approx(gammas[m].amax(1).mean().item())
        assert logs[f"train/mixed/{m}"].item() == mixed[:, k].float().mean().item()
    yhat = sum(gammas.values()) / len(modalities) @ F.one_hot(y, 4).float()
    log_p = F.log_softmax(method.model.fuse({m: gammas[m] @ f[m] for m in f}), 1)
    l_mix = -(yhat * log_p).sum(1).mean()
    assert logs["train/L_mix"].item() == pytest.approx(l_mix.item(), rel=1e-5)
    clean = F.cross_entropy(method.model.fuse(f), y)
    assert loss.item() == pytest.approx((clean + 0.5 * l_mix).item(), rel=1e-5)
    entropy = -torch.xlogy(yhat, yhat).sum(1).mean()
    assert logs["train/target_entropy"].item() == pytest.approx(entropy.item(), abs=1e-5)


def test_a_batch_of_one_sample_has_a_loss():
    loss, logs = tiny_method(PowMix).eval()(tiny_batch(size=1))
    assert loss.item() == pytest.approx(2 * logs["train/L_align"].item(), rel=1e-5)
