"""PowMix(R): hand-worked values, the distributions of its draws, its limits and its switches."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model

from common import options
from common.options import UsageError
from methods.joint import Joint
from methods.mixup import mix_features, pair_loss
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


def make(modalities=PAIR, epoch=3, seed=0, **values):
    method = PowMix(tiny_model(modalities, heads=False), PowMix.HParams(**values), facts(seed=seed))
    method.begin_epoch(epoch, None)
    return method


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gradients(method, loss):
    loss.backward()
    return {name: p.grad for name, p in method.named_parameters()}


def draw(method, batch=8, rows=8):
    """The gammas and the mixed modalities of a step on random features."""
    f = {m: torch.rand(batch, w) for m, w in method.model.widths.items()}
    return f, *method._draw(f, rows)


def close(found, expected):
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6)


# Golden values ------------------------------------------------------------------------------------


def test_golden_reweighted_factors():
    gamma = reweight(LAMBDA, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log())
    assert close(gamma, [[0.344828, 0.310345, 0.344828], [0.044444, 0.066667, 0.888889]])


def test_golden_attention():
    assert close(log_attention(Z).exp(), [0.096692, 0.096692, 0.806617])


def test_golden_mixed_embeddings_and_labels():
    gamma = reweight(LAMBDA, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log())
    assert close(gamma @ Z, [[1.034483, 1.0], [1.822222, 1.844444]])
    first = [[0.344828, 0.655172, 0.0], [0.044444, 0.955556, 0.0]]
    assert close(mixed_targets([gamma], Y, 3), first)
    second = torch.tensor([[0.2, 0.2, 0.6], [0.6, 0.3, 0.1]], dtype=torch.float64)
    both = [[0.272414, 0.727586, 0.0], [0.322222, 0.677778, 0.0]]
    assert close(mixed_targets([gamma, second], Y, 3), both)
    assert close(mixed_targets([gamma, second], Y, 3, cross_modal=False), first)


# Factors ------------------------------------------------------------------------------------------


def test_factors_of_the_whole_batch_have_dirichlets_moments():
    factors = draw_factors(60_000, 3, 1.0, generator())
    assert factors.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.005)
    assert factors.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.002)
    assert torch.allclose(factors.sum(1), torch.ones(60_000))


def test_the_largest_of_64_factors_is_the_harmonic_number_over_64():
    peak = draw_factors(20_000, 64, 1.0, generator()).amax(1).mean()
    expected = sum(1 / k for k in range(1, 65)) / 64
    assert peak.item() == pytest.approx(expected, abs=0.001)
    assert expected == pytest.approx(0.074, abs=5e-4)  # the number in the module's text


@pytest.mark.parametrize("a", [0.2, 1.0])
def test_pairs_are_uniform_and_their_lam_is_beta(a):
    factors = draw_factors(60_000, 5, a, generator(), tuple_length=2)
    assert ((factors > 0).sum(1) <= 2).all()
    assert factors.mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.01)
    lam = factors[factors[:, 0] > 0][:, 0]  # the factor of sample 0 in the rows that hold it
    assert len(lam) / 60_000 == pytest.approx(2 / 5, abs=0.01)
    assert lam.mean().item() == pytest.approx(0.5, abs=0.01)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * a + 1)), abs=0.005)


def test_random_tuple_lengths_are_uniform_from_two_and_the_rest_is_dirichlet():
    factors = draw_factors(60_000, 6, 1.0, generator(), tuple_length=4, tuple_random=True)
    assert torch.allclose(factors.sum(1), torch.ones(60_000))
    length = (factors > 0).sum(1)
    for t in (2, 3, 4):
        rows = factors[length == t]
        assert len(rows) / 60_000 == pytest.approx(1 / 3, abs=0.01)
        assert rows.square().sum(1).mean().item() == pytest.approx(2 / (t + 1), abs=0.01)
    whole = draw_factors(20_000, 5, 1.0, generator(), tuple_random=True)
    assert (whole > 0).sum(1).unique().tolist() == [2, 3, 4, 5]


def test_a_tuple_is_never_longer_than_the_batch():
    factors = draw_factors(100, 3, 1.0, generator(), tuple_length=9)
    assert factors.shape == (100, 3) and (factors > 0).all()
    for random in (False, True):
        one = draw_factors(4, 1, 1.0, generator(), tuple_length=2, tuple_random=random)
        assert one.tolist() == [[1.0]] * 4


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("random", [False, True])
def test_a_tiny_concentration_and_a_vast_attention_stay_finite(random, flush):
    torch.set_flush_denormal(flush)
    try:
        factors = draw_factors(5_000, 32, 1e-3, generator(), 3, random)
        gamma = reweight(factors, log_attention(1e3 * torch.rand(32, 16)))
    finally:
        torch.set_flush_denormal(False)
    for rows in (factors, gamma):
        assert rows.isfinite().all() and torch.allclose(rows.sum(1), torch.ones(5_000))
    assert (gamma[factors == 0] == 0).all()


def test_equal_attention_leaves_the_factors():
    factors = draw_factors(50, 8, 0.5, generator(), tuple_length=5).double()
    assert torch.allclose(reweight(factors, log_attention(torch.ones(8, 3).double())), factors)


def test_attention_carries_no_gradient():
    assert not log_attention(torch.rand(4, 3, requires_grad=True)).requires_grad


# Dynamic mixing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("modalities", "p"), [(2, 0.5), (2, 0.2), (3, 0.5), (3, 0.3)])
def test_mixed_sets_have_the_distribution_given_that_they_are_not_empty(modalities, p):
    mixed = draw_mixed(80_000, modalities, p, generator())
    total = 0.0
    for members in itertools.product((False, True), repeat=modalities):
        share = (mixed == torch.tensor(members)).all(1).float().mean().item()
        free = p ** sum(members) * (1 - p) ** (modalities - sum(members))
        expected = free / (1 - (1 - p) ** modalities) if any(members) else 0.0
        assert share == pytest.approx(expected, abs=0.007 if expected else 0)
        total += expected
    assert total == pytest.approx(1.0)


def test_probability_one_mixes_everything():
    assert draw_mixed(1_000, 3, 1.0, generator()).all()


def test_unmixed_rows_are_the_anchors_embedding():
    mixed, anchor = torch.tensor([True, False]), torch.tensor([0, 2])
    gamma = leave_unmixed(LAMBDA, mixed, anchor)
    assert torch.equal(gamma @ Z, torch.stack([LAMBDA[0] @ Z, Z[2]]))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_rows_unmixed_modalities_share_one_anchor_and_anchors_take_turns(modalities):
    _, gammas, mixed = draw(make(modalities, rows=2.0, p_mix=0.01), batch=8, rows=16)
    anchors = torch.full((16,), -1)
    for k, m in enumerate(modalities):
        alone = ~mixed[:, k]
        assert torch.equal(gammas[m][alone].amax(1), torch.ones(int(alone.sum())))
        place = gammas[m].argmax(1)
        assert ((anchors == -1) | (anchors == place) | ~alone).all()
        anchors = torch.where(alone, place, anchors)
    assert mixed.any(1).all() and (anchors >= 0).all()  # at 0.01 no row mixed all of them
    assert anchors.bincount().tolist() == [2] * 8


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("size", [3, 7, 8])
@pytest.mark.parametrize("values", [{}, {"rows": 2.0, "dynamic_form": "step"}])
def test_weight_zero_is_joint_to_the_last_bit(modalities, size, values):
    batch, method = tiny_batch(modalities, size=size), make(modalities, w=0.0, **values)
    joint = Joint(tiny_model(modalities, heads=False), None, facts())
    (loss, logs), (expected, clean) = method(batch), joint(batch)
    found, wanted = gradients(method, loss), gradients(joint, expected)
    assert torch.equal(loss, expected) and torch.equal(logs["train/acc"], clean["train/acc"])
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_pairs_without_the_components_are_mixup(modalities):
    method = make(modalities, **PLAIN, tuple_length=2, mode="replace", rows=2.0, concentration=0.4)
    batch = tiny_batch(modalities)
    loss, _ = method(batch)
    method.begin_epoch(3, None)  # the same draws again
    factors = draw_factors(16, 8, 0.4, method.generator, tuple_length=2)
    lam, pair = factors.topk(2, dim=1)
    assert ((factors > 0).sum(1) <= 2).all()
    f, y = method.model.encode(batch["inputs"]), batch["label"]
    both = {m: torch.cat([v[pair[:, 0]], v[pair[:, 1]]]) for m, v in f.items()}
    partner = torch.arange(32).roll(16)  # row k's partner is row k + 16
    doubled = torch.cat([lam[:, :1], lam[:, 1:]])
    z = method.model.fuse(mix_features(both, partner, doubled))
    labels = torch.cat([y[pair[:, 0]], y[pair[:, 1]]])
    first = slice(0, 16)
    expected = pair_loss(z[first], labels[first], labels[partner][first], doubled[first, 0])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_hot_factors_give_rows_of_the_batch_and_their_labels():
    place = torch.tensor([2, 0, 0, 1])
    factors = F.one_hot(place, 3).double()
    gammas = [reweight(factors, log_attention(z)) for z in (Z, 5 * Z.flip(0))]
    assert all(torch.equal(gamma @ Z, Z[place]) for gamma in gammas)
    assert torch.equal(mixed_targets(gammas, Y, 3), F.one_hot(Y[place], 3).double())


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("switches", list(itertools.product((False, True), repeat=4)))
def test_rows_are_convex_combinations_whatever_the_switches(modalities, switches):
    names = ("reweight", "anisotropic", "dynamic", "label")
    method = make(modalities, **dict(zip(names, switches)), rows=4.0)
    f, gammas, _ = draw(method, rows=32)
    for m, gamma in gammas.items():
        assert gamma.shape == (32, 8) and (gamma >= 0).all() and not gamma.requires_grad
        assert torch.allclose(gamma.sum(1), torch.ones(32), atol=1e-5)
        z = gamma @ f[m]
        assert (z >= f[m].amin(0) - 1e-5).all() and (z <= f[m].amax(0) + 1e-5).all()
    targets = mixed_targets(list(gammas.values()), torch.arange(8) % 4, 4, switches[3])
    assert torch.allclose(targets.sum(1), torch.ones(32), atol=1e-5)


# Switches and options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "rows"),
    [({}, 8), ({"rows": 0.5}, 4), ({"rows": 4.0}, 32), ({"rows": 0.01}, 1),
     ({"rows": 4.0, "number": False}, 8)],
)  # fmt: skip
def test_the_number_of_mixed_rows(values, rows):
    method, seen = make(**values), []
    method.model.fusion.register_forward_hook(lambda _, __, z: seen.append(len(z)))
    method(tiny_batch())
    assert seen == [8, rows]


def test_reweight_multiplies_by_each_modalitys_attention():
    f, gammas, _ = draw(make(anisotropic=False, dynamic=False))
    method = make(**PLAIN)
    _, plain, _ = draw(method)
    for m in PAIR:
        assert torch.equal(gammas[m], reweight(plain[m], log_attention(f[m])))
        assert not torch.allclose(gammas[m], plain[m], atol=1e-4)


def test_anisotropic_draws_own_factors_for_each_modality():
    one, own = (draw(make(**PLAIN | {"anisotropic": on}))[1] for on in (False, True))
    assert torch.equal(one["audio"], one["video"])
    assert not torch.allclose(own["audio"], own["video"], atol=1e-3)


def test_without_dynamic_every_modality_of_every_row_is_mixed():
    _, logs = make(dynamic=False)(tiny_batch())
    assert logs["train/mixed/audio"] == logs["train/mixed/video"] == 1


def test_without_label_the_first_modalitys_factors_make_the_targets():
    batch, entropies = tiny_batch(), []
    for on in (True, False):
        method = make(label=on)
        _, logs = method(batch)
        method.begin_epoch(3, None)
        gammas, _ = method._draw(method.model.encode(batch["inputs"]), 8)
        weights = (gammas["audio"] + gammas["video"]) / 2 if on else gammas["audio"]
        targets = weights @ F.one_hot(batch["label"], 4).float()
        entropy = -torch.xlogy(targets, targets).sum(1).mean()
        assert logs["train/target_entropy"].item() == pytest.approx(entropy.item(), abs=1e-5)
        entropies.append(entropy.item())
    assert entropies[0] > entropies[1]


@pytest.mark.parametrize("mode", ["add", "replace"])
def test_a_step_is_mixed_with_probability_p_mix_or_is_joints(mode):
    method, batch, mixed = make(dynamic_form="step", p_mix=0.3, mode=mode, w=0.5), tiny_batch(), 0
    method.model.eval()
    for _ in range(120):
        loss, logs = method(batch)
        on = not logs["train/L_mix"].isnan().item()
        mixed += on
        if not on:
            assert torch.equal(loss.detach(), logs["train/L_align"])
            assert logs["train/target_entropy"].isnan() and logs["train/peak/audio"].isnan()
        assert logs["train/mixed/audio"] == logs["train/mixed/video"] == on
    assert mixed / 120 == pytest.approx(0.3, abs=0.1)


def test_a_step_left_out_has_joints_gradients():
    batch = tiny_batch()
    for epoch in range(1, 20):
        method = make(epoch=epoch, dynamic_form="step")
        loss, logs = method(batch)
        if logs["train/L_mix"].isnan():
            break
    joint = Joint(tiny_model(heads=False), None, facts())
    found, wanted = gradients(method, loss), gradients(joint, joint(batch)[0])
    assert logs["train/L_mix"].isnan()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("w", [0.1, 2.0])
def test_the_weight_and_the_two_modes(w):
    batch, losses = tiny_batch(), {}
    for mode in ("add", "replace"):
        loss, logs = make(w=w, mode=mode)(batch)
        losses[mode] = loss.item() - (mode == "add") * logs["train/L_align"].item()
        assert losses[mode] == pytest.approx(w * logs["train/L_mix"].item(), rel=1e-5)
    assert losses["add"] == pytest.approx(losses["replace"], rel=1e-4)


def test_the_step_is_the_functions_on_the_drawn_gammas():
    method, batch = make(TRIO, rows=2.0), tiny_batch(TRIO)
    loss, logs = method(batch)
    method.begin_epoch(3, None)
    f, y = method.model.encode(batch["inputs"]), batch["label"]
    gammas, mixed = method._draw(f, 16)
    yhat = sum(gammas.values()) / 3 @ F.one_hot(y, 4).float()
    log_p = F.log_softmax(method.model.fuse({m: gammas[m] @ f[m] for m in f}), 1)
    l_mix = -(yhat * log_p).sum(1).mean()
    assert logs["train/L_mix"].item() == pytest.approx(l_mix.item(), rel=1e-5)
    clean = F.cross_entropy(method.model.fuse(f), y)
    assert loss.item() == pytest.approx((clean + l_mix).item(), rel=1e-5)
    for k, m in enumerate(TRIO):
        assert logs[f"train/peak/{m}"].item() == pytest.approx(gammas[m].amax(1).mean().item())
        assert logs[f"train/mixed/{m}"].item() == mixed[:, k].float().mean().item()


@pytest.mark.parametrize(
    "values",
    [
        {"reweight": False}, {"anisotropic": False}, {"dynamic": False}, {"label": False},
        {"rows": 2.0}, {"concentration": 0.2}, {"tuple_length": 2}, {"tuple_random": True},
        {"p_mix": 0.9}, {"dynamic_form": "step", "p_mix": 1.0}, {"w": 0.5}, {"mode": "replace"},
    ],
)  # fmt: skip
def test_every_option_changes_the_loss(values):
    batch = tiny_batch()
    assert make(**values)(batch)[0].item() != make()(batch)[0].item()


def test_a_smaller_concentration_gives_sparser_rows_and_targets():
    logs = [make(concentration=a, dynamic=False, rows=16.0)(tiny_batch())[1] for a in (0.2, 2.0)]
    assert logs[0]["train/peak/audio"] > 1.3 * logs[1]["train/peak/audio"]
    assert logs[0]["train/target_entropy"] < logs[1]["train/target_entropy"]


# The method in a run ------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_the_mixed_term_alone_trains_each_encoder(modalities):
    method = make(modalities, mode="replace")
    method(tiny_batch(modalities))[0].backward()
    for m in modalities:
        assert all(p.grad.abs().sum() > 0 for p in method.model.encoder_parameters(m) if p.ndim > 1)


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_the_log_has_every_series_and_no_gradient(modalities):
    _, logs = make(modalities)(tiny_batch(modalities))
    series = {"train/acc", "train/L_align", "train/L_mix", "train/target_entropy"}
    assert set(logs) == series | {f"train/{k}/{m}" for k in ("peak", "mixed") for m in modalities}
    assert all(v.ndim == 0 and v.isfinite() and not v.requires_grad for v in logs.values())


def test_accuracy_and_align_are_of_the_clean_rows():
    batch = tiny_batch()
    _, logs = make()(batch)
    _, clean = Joint(tiny_model(heads=False), None, facts())(batch)
    assert all(torch.equal(logs[name], clean[name]) for name in clean)


def test_a_batch_of_one_sample_has_a_loss():
    method, batch = make(), tiny_batch(size=1)
    method.model.eval()
    loss, logs = method(batch)
    assert loss.item() == pytest.approx(2 * logs["train/L_align"].item(), rel=1e-5)


def test_draws_depend_on_seed_and_epoch_alone():
    batch = tiny_batch()
    first, again, epoch, seed = make(), make(), make(epoch=4), make(seed=1)
    losses = [method(batch)[0].item() for method in (first, again, epoch, seed)]
    assert losses[0] == losses[1] and len(set(losses)) == 3


def test_the_model_of_a_run_is_joints_and_so_is_its_evaluation():
    method, batch = make(), tiny_batch()
    joint = Joint(tiny_model(heads=False), None, facts())
    joint.load_state_dict(method.state_dict())
    f = method.model.eval().encode(batch["inputs"])
    g = joint.model.eval().encode(batch["inputs"])
    assert torch.equal(method.logits(f), joint.logits(g))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tuple_length": 1}, "--tuple_length 1 mixes nothing"),
        ({"mode": "replace", "w": 0.0}, "leaves no loss"),
    ],
)
def test_settings_without_effect_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        PowMix.check(PowMix.HParams(**values), 10, list(PAIR))
    PowMix.check(PowMix.HParams(), 10, list(PAIR))


def test_one_modality_is_refused():
    with pytest.raises(UsageError, match="2 or more modalities"):
        PowMix.check(PowMix.HParams(), 10, ["audio"])


@pytest.mark.parametrize(
    "values",
    [{"rows": 0.0}, {"concentration": 0.0}, {"tuple_length": -1}, {"p_mix": 0.0}, {"p_mix": 1.5},
     {"dynamic_form": "row"}, {"w": -1.0}, {"mode": "both"}],
)  # fmt: skip
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match=f"--{next(iter(values))} .* is refused"):
        options.check(PowMix.HParams(**values))


@pytest.mark.parametrize(
    "values", [{}, {"dynamic_form": "step"}, {"tuple_length": 4, "tuple_random": True}]
)
def test_no_host_read_in_a_step(values):
    method, batch = make(**values), tiny_batch()
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0
