"""MCR: the terms of the game written out, the contrastive term's golden values, each option."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model

from common.options import UsageError, check
from methods.joint import Joint
from methods.mcr import (
    MCR,
    contrastive_loss,
    draw_swaps,
    game,
    scale_gradient,
    swap_weights,
)
from models.classifier import Classifier

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")
STRATEGIES = ("greedy", "independent", "collaborative")
NO_TERMS = {"lam": 0.0, "w_uni": 0.0, "contr": 0.0, "lib": 0.0}


class Toy:
    """Linear players theta_m, slices W_m and a bias, in float64."""

    def __init__(self, players, batch=7, classes=3, width=4):
        draw = torch.Generator().manual_seed(5)

        def leaf(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=draw).requires_grad_()

        names = "abc"[:players]
        self.x = {m: leaf(batch, 5).detach() for m in names}
        self.theta = {m: leaf(5, width) for m in names}
        self.w = {m: leaf(classes, width) for m in names}
        self.bias = leaf(classes)
        self.y = torch.arange(batch) % classes
        self.swaps = draw_swaps(6, batch, draw)
        self.all = swap_weights(self.swaps, self.y, "rand")

    def contributions(self):
        return {m: self.x[m] @ self.theta[m] @ self.w[m].T for m in self.x}

    def fused(self):
        return sum(self.contributions().values()) + self.bias

    def play(self, strategy, weights=None, swaps=None):
        weights = self.all if weights is None else weights
        swaps = self.swaps if swaps is None else swaps
        return game(self.contributions(), self.bias, self.fused(), swaps, weights, strategy)

    def players(self, m):
        return [self.theta[m], self.w[m]]

    def parameters(self):
        return [*self.theta.values(), *self.w.values(), self.bias]


def gradients(loss, parameters):
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def far_apart(first, second):
    return max((a - b).abs().max().item() for a, b in zip(first, second))


def divergence(fused, z):
    """The public code's form: probabilities, clamped, mean over rows."""
    p, q = (F.softmax(v, 1).clamp_min(1e-20) for v in (fused, z))
    mean = (p + q) / 2
    return 0.5 * (p * (p / mean).log() + q * (q / mean).log()).sum(1).mean()


def term(toy, swapped, live, detach_fused=False):
    """J_swapped^(live), or nothing stopped for live = None, from stacked rows."""
    rows = []
    for m, c in toy.contributions().items():
        c = c[toy.swaps].flatten(0, 1) if m == swapped else c.repeat(len(toy.swaps), 1)
        rows.append(c if live in (None, m) else c.detach())
    fused = toy.fused().detach() if detach_fused else toy.fused()
    return divergence(fused.repeat(len(toy.swaps), 1), sum(rows) + toy.bias)


def written_out(toy, strategy, detach_fused=False):
    """R / lambda, term by term."""
    names = list(toy.x)
    if strategy == "collaborative":
        return -sum(term(toy, m, None, detach_fused) for m in names)
    total = -sum(term(toy, m, m, detach_fused) for m in names)
    if strategy == "greedy":
        total = total + sum(term(toy, j, m, detach_fused) for m in names for j in names if j != m)
    return total


def make(modalities=PAIR, epoch=3, seed=0, **values):
    method = MCR(tiny_model(modalities), MCR.HParams(**values), facts(seed=seed))
    method.begin_epoch(epoch, None)
    return method


def step(method, modalities=PAIR, batch_seed=0, size=8):
    loss, logs = method(tiny_batch(modalities, size=size, seed=batch_seed))
    loss.backward()
    return loss, logs


def encoder_gradient(method):
    return torch.cat([p.grad.flatten() for p in method.model.encoders.parameters()])


# The game -----------------------------------------------------------------------------------------


def test_greedy_value_of_two_players_is_zero_and_both_learn():
    toy = Toy(2)
    r, _ = toy.play("greedy")
    assert r.item() == 0.0
    for m in toy.x:
        assert all(g.norm() > 1e-3 for g in gradients(toy.play("greedy")[0], toy.players(m)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("players", [2, 3])
def test_game_is_the_sum_of_the_terms_written_out(players, strategy):
    toy = Toy(players)
    expected = written_out(toy, strategy, detach_fused=strategy == "greedy" and players > 2)
    r, _ = toy.play(strategy)
    assert r.item() == pytest.approx(expected.item(), abs=1e-12)
    assert far_apart(gradients(r, toy.parameters()), gradients(expected, toy.parameters())) < 1e-12


def test_golden_importance():
    """JSD of (0.8, 0.2) and (0.4, 0.6) is 0.0863046."""
    rows = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64).log()
    c = {"a": rows, "b": torch.zeros_like(rows)}
    swaps = torch.tensor([[1, 0]])
    everything = torch.ones(1, 2, dtype=torch.bool)
    r, j = game(c, torch.zeros(2, dtype=torch.float64), rows, swaps, everything, "independent")
    assert j.tolist() == pytest.approx([0.0863046, 0.0], abs=1e-6)
    assert r.item() == pytest.approx(-0.0863046, abs=1e-6)


def test_the_bias_is_outside_the_greedy_game_of_two():
    toy = Toy(2)
    assert gradients(toy.play("greedy")[0], [toy.bias])[0].abs().max() == 0
    assert gradients(written_out(toy, "greedy"), [toy.bias])[0].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("players", "strategy"), [(2, "independent"), (2, "collaborative"), (3, "greedy")]
)
def test_the_bias_is_inside_every_other_game(players, strategy):
    toy = Toy(players)
    assert gradients(toy.play(strategy)[0], [toy.bias])[0].norm() > 1e-4


@pytest.mark.parametrize(
    ("players", "strategy", "equal"),
    [(2, "greedy", True), (2, "independent", False), (2, "collaborative", False)]
    + [(3, "greedy", False)],
)
def test_where_a_detached_reference_would_change_nothing(players, strategy, equal):
    toy = Toy(players)
    live, detached = (
        gradients(written_out(toy, strategy, detach), toy.parameters()) for detach in (False, True)
    )
    assert (far_apart(live, detached) < 1e-12) is equal


@pytest.mark.parametrize("players", [2, 3])
def test_each_greedy_player_raises_its_own_importance_and_lowers_the_others(players):
    toy = Toy(players)
    for m in toy.x:
        played = gradients(toy.play("greedy")[0], toy.players(m))
        own = -term(toy, m, None, detach_fused=True)
        others = sum(term(toy, j, None, detach_fused=True) for j in toy.x if j != m)
        assert far_apart(played, gradients(own + others, toy.players(m))) < 1e-12


def test_importances_are_the_divergences_and_carry_no_gradient():
    toy = Toy(3)
    _, j = toy.play("greedy")
    assert j.tolist() == pytest.approx([term(toy, m, None).item() for m in toy.x], abs=1e-12)
    assert not j.requires_grad


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_identity_swaps_change_nothing(strategy):
    toy = Toy(2)
    r, j = toy.play(strategy, swaps=torch.arange(7).expand(6, 7))
    assert j.abs().max() < 1e-12
    assert all(g.abs().max() < 1e-12 for g in gradients(r, toy.parameters()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_of_equal_rows_has_no_importance(strategy):
    toy = Toy(2)
    toy.x = {m: x[:1].expand(7, 5) for m, x in toy.x.items()}
    r, j = toy.play(strategy)
    assert j.abs().max() < 1e-12
    assert all(g.abs().max() < 1e-12 for g in gradients(r, toy.parameters()))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_importance_lies_between_zero_and_ln_2(scale):
    toy = Toy(3)
    toy.x = {m: scale * x for m, x in toy.x.items()}
    r, j = toy.play("independent")
    assert (j > 0).all() and (j <= math.log(2) + 1e-12).all()
    assert all(g.isfinite().all() for g in gradients(r, toy.parameters()))


def test_independent_and_collaborative_differ_in_gradients_only():
    toy = Toy(2)
    first, second = toy.play("independent")[0], toy.play("collaborative")[0]
    assert first.item() == second.item() < 0
    assert far_apart(*(gradients(r, toy.parameters()) for r in (first, second))) > 1e-3


def test_a_modality_that_the_fusion_ignores_has_no_importance():
    toy = Toy(3)
    toy.w["b"].data.zero_()
    _, j = toy.play("greedy")
    assert j[1].abs() < 1e-12 and j[0] > 1e-3 and j[2] > 1e-3


def test_greedy_value_of_three_players_is_the_sum_of_importances():
    r, j = Toy(3).play("greedy")
    assert r.item() == pytest.approx(j.sum().item(), abs=1e-15)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.0, 3.0])
def test_scale_gradient_keeps_the_value_to_the_last_bit(factor):
    x = (torch.randn(200) * 1e3).requires_grad_()
    y = scale_gradient(x, factor)
    assert torch.equal(y, x)
    assert torch.equal(gradients((y + 0 * x).sum(), [x])[0], torch.full((200,), factor))


# The swaps ----------------------------------------------------------------------------------------


def test_swaps_are_uniform_permutations():
    swaps = draw_swaps(12_000, 3, torch.Generator().manual_seed(0))
    assert torch.equal(swaps.sort(1).values, torch.arange(3).expand(12_000, 3))
    kinds, counts = swaps.unique(dim=0, return_counts=True)
    assert len(kinds) == 6
    assert (counts / 12_000).tolist() == pytest.approx([1 / 6] * 6, abs=0.015)


@pytest.mark.parametrize("kind", ["rsl", "rsi"])
def test_rows_that_do_not_count_are_left_out_of_the_mean(kind):
    toy, values = Toy(2), []
    keep = swap_weights(toy.swaps, toy.y, kind)
    _, j = toy.play("greedy", keep)
    c, fused = toy.contributions(), toy.fused()
    for row in toy.swaps:
        for i, k in enumerate(row.tolist()):
            if (toy.y[k] != toy.y[i]) if kind == "rsl" else (k != i):
                z = c["a"][k] + c["b"][i] + toy.bias
                values.append(divergence(fused[i][None], z[None]))
    assert 0 < len(values) < toy.swaps.numel() and keep.sum() == len(values)
    assert j[0].item() == pytest.approx(torch.stack(values).mean().item(), abs=1e-12)


def test_without_any_row_that_counts_the_game_is_off():
    toy = Toy(2)
    r, j = toy.play("independent", swap_weights(toy.swaps, torch.zeros(7), "rsl"))
    assert r.item() == 0 and j.tolist() == [0, 0]
    assert all((g == 0).all() for g in gradients(r, toy.parameters()))


def test_draws_depend_on_seed_and_epoch_alone():
    first, again, epoch, seed = make(), make(), make(epoch=4), make(seed=1)
    found = [step(m)[1]["train/J/audio"].item() for m in (first, again, epoch, seed)]
    assert found[0] == found[1] and len(set(found)) == 3


# The contrastive term -----------------------------------------------------------------------------


def test_golden_contrastive_values():
    labels = torch.tensor([0, 0, 1, 1])
    orthogonal = torch.eye(4, dtype=torch.float64)
    assert contrastive_loss(orthogonal, labels, 0.5).item() == pytest.approx(math.log(3), abs=1e-9)
    equal = orthogonal[[0, 0, 1, 1]]
    assert contrastive_loss(equal, labels, 0.5).item() == pytest.approx(0.2395448, abs=1e-7)


def test_contrastive_loss_is_its_sum_over_pairs():
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    rows = torch.randn(6, 4, dtype=torch.float64)
    unit = rows / rows.norm(dim=1, keepdim=True)
    s, terms = unit @ unit.T / 0.3, []
    for i in range(6):
        negatives = s[i][labels != labels[i]].exp().sum()
        for p in range(6):
            if p != i and labels[p] == labels[i]:
                terms.append(-s[i, p] + (s[i, p].exp() + negatives).log())
    assert len(terms) == 8
    assert contrastive_loss(rows, labels, 0.3).item() == pytest.approx(
        torch.stack(terms).mean().item(), abs=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "what"), [([0, 1, 2, 3], "no pair"), ([1, 1, 1, 1], "no negative")]
)
def test_contrastive_loss_of_a_batch_without_pairs_or_negatives_is_zero(labels, what):
    rows = torch.randn(4, 3).requires_grad_()
    loss = contrastive_loss(rows, torch.tensor(labels), 0.5)
    loss.backward()
    assert loss.item() == 0, what
    assert torch.equal(rows.grad, torch.zeros(4, 3)), what


def test_contrastive_loss_stays_finite_at_a_tiny_temperature():
    rows = torch.randn(8, 3).requires_grad_()
    loss = contrastive_loss(rows, torch.arange(8) % 2, 1e-5)
    loss.backward()
    assert loss.isfinite() and loss > 1 and rows.grad.isfinite().all()


# The method ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_strengths_it_is_joint_to_the_last_bit(modalities, strategy):
    method = make(modalities, strategy=strategy, **NO_TERMS)
    joint = Joint(tiny_model(modalities, heads=False), Joint.HParams(), facts())
    loss, _ = step(method, modalities)
    expected, _ = step(joint, modalities)
    assert torch.equal(loss, expected)
    found = dict(method.named_parameters())
    for name, p in joint.named_parameters():
        assert torch.equal(found.pop(name).grad, p.grad), name
    assert found and all(p.grad is None for p in found.values())


def test_without_strengths_the_second_pass_leaves_no_trace():
    method = make(features="recompute_eval", **NO_TERMS)
    joint = Joint(tiny_model(heads=False), Joint.HParams(), facts())
    graphs = []
    method.model.encoders["audio"].register_forward_hook(
        lambda *_: graphs.append(torch.is_grad_enabled())
    )
    assert torch.equal(step(method)[0], step(joint)[0])
    assert torch.equal(encoder_gradient(method), encoder_gradient(joint))
    assert graphs == [True, False]
    state = method.state_dict()
    assert all(torch.equal(state[name], value) for name, value in joint.state_dict().items())


def test_the_total_is_the_weighted_sum_of_the_logged_terms():
    method = make(TRIO, lam=0.3, w_uni=0.2, contr=0.7, lib=0.4)
    loss, logs = step(method, TRIO)
    weights = {"L_align": 1, "R": 1, "L_uni": 0.2, "L_con": 0.7, "L_ceb": 0.4}
    total = sum(w * logs[f"train/{name}"].item() for name, w in weights.items())
    assert loss.item() == pytest.approx(total, rel=1e-6)
    importance = sum(logs[f"train/J/{m}"].item() for m in TRIO)
    assert logs["train/R"].item() == pytest.approx(0.3 * importance, rel=1e-5)
    assert logs.keys() == {f"train/{n}" for n in [*weights, "acc", *(f"J/{m}" for m in TRIO)]}
    assert all(not value.requires_grad for value in logs.values())


def test_a_term_of_weight_zero_is_not_logged_but_importance_is():
    _, logs = step(make(**NO_TERMS))
    assert logs.keys() == {f"train/{n}" for n in ("acc", "L_align", "R", "J/audio", "J/video")}
    assert min(logs["train/J/audio"], logs["train/J/video"]) > 0


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_game_alone_moves_every_encoder_and_no_head(modalities, strategy):
    gradient = {}
    for lam in (0.0, 1.0):
        method = make(modalities, **{**NO_TERMS, "lam": lam}, strategy=strategy)
        step(method, modalities)
        gradient[lam] = {
            m: torch.cat([p.grad.flatten() for p in method.model.encoder_parameters(m)])
            for m in modalities
        }
        assert all(p.grad is None for p in method.model.heads.parameters())
    assert all((gradient[1.0][m] - gradient[0.0][m]).norm() > 1e-5 for m in modalities)


def test_the_game_of_a_step_is_the_pure_function_on_its_features():
    method = make(**{**NO_TERMS, "lam": 1.0})
    method.eval()
    method.model.fusion.weight.data *= 100  # importances far above float32's rounding
    batch = tiny_batch()
    _, logs = method(batch)
    f = method.model.encode(batch["inputs"])
    method.begin_epoch(3, None)
    swaps = draw_swaps(32, 8, method.generator)
    for m in PAIR:
        z = [method.model.fuse({**f, m: f[m][row]}) for row in swaps]
        expected = divergence(method.model.fuse(f).repeat(32, 1), torch.cat(z))
        assert logs[f"train/J/{m}"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        {"lam": 1.0}, {"w_uni": 1.0}, {"contr": 0.0}, {"lib": 1.0}, {"strategy": "independent"},
        {"strategy": "collaborative"}, {"num_samples": 2}, {"shuffle": "rsl"}, {"shuffle": "rsi"},
        {"features": "recompute_eval"}, {"tau": 0.1}, {"contr_type": "pure"}, {"detach_uni": True},
    ],
)  # fmt: skip
def test_each_option_changes_the_encoders_gradient(values):
    plain, changed = make(), make(**values)
    step(plain)
    step(changed)
    difference = (encoder_gradient(plain) - encoder_gradient(changed)).norm()
    assert difference / encoder_gradient(plain).norm() > 1e-5


def test_pure_pairs_join_the_modalities_of_a_sample():
    method, batch = make(contr_type="pure"), tiny_batch()
    method.eval()
    _, logs = method(batch)
    rows = torch.cat(list(method.model.encode(batch["inputs"]).values()))
    expected = contrastive_loss(rows, torch.arange(8).repeat(2), 0.5)
    assert logs["train/L_con"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_detached_unimodal_losses_train_the_heads_alone():
    without, detached, attached = (
        make(**{**NO_TERMS, "w_uni": w}, detach_uni=d)
        for w, d in ((0.0, False), (1.0, True), (1.0, False))
    )
    for method in (without, detached, attached):
        step(method)
    assert torch.equal(encoder_gradient(without), encoder_gradient(detached))
    assert not torch.equal(encoder_gradient(without), encoder_gradient(attached))
    for a, b in zip(detached.model.heads.parameters(), attached.model.heads.parameters()):
        assert torch.equal(a.grad, b.grad) and a.grad.norm() > 0


# Features of the second pass ----------------------------------------------------------------------


@pytest.mark.parametrize(("features", "calls"), [("reuse", 1), ("recompute_eval", 2)])
def test_encoder_calls_a_step(features, calls):
    method, modes = make(features=features), []
    encoder = method.model.encoders["audio"]
    encoder.register_forward_hook(lambda *_: modes.append(encoder.training))
    step(method)
    assert modes == [True, False][:calls]


def test_the_second_pass_restores_each_modules_mode_and_moves_no_statistics():
    plain, method = make(), make(features="recompute_eval")
    frozen = next(m for m in method.model.encoders.modules() if not list(m.children()))
    frozen.eval()
    before = [m.training for m in method.model.modules()]
    step(method)
    assert [m.training for m in method.model.modules()] == before
    step(plain)
    statistics = [(a, b) for a, b in zip(plain.model.buffers(), method.model.buffers())]
    assert statistics and all(torch.equal(a, b) for a, b in statistics)


def test_in_evaluation_mode_both_kinds_of_features_are_one():
    found = []
    for features in ("reuse", "recompute_eval"):
        method = make(features=features)
        method.eval()
        step(method)
        found.append(encoder_gradient(method))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-7)


# CEB ----------------------------------------------------------------------------------------------


def test_h_exists_only_where_it_is_used():
    assert not [n for n, _ in make().named_parameters() if not n.startswith("model.")]
    method = make(TRIO, lib=1.0)
    width = method.model.widths["audio"]
    assert [tuple(p.shape) for p in method.h.parameters()] == [(width, 4), (3 * width, width)]


@pytest.mark.parametrize("ceb_input", ["logits", "label"])
def test_reconstruction_is_the_mean_squared_error_of_all_features(ceb_input):
    method, batch = make(TRIO, lib=1.0, ceb_input=ceb_input), tiny_batch(TRIO)
    method.eval()
    _, logs = method(batch)
    f = method.model.encode(batch["inputs"])
    read = method.model.fuse(f) if ceb_input == "logits" else torch.eye(4)[batch["label"]]
    expected = (torch.cat([f[m] for m in TRIO], 1) - method.h(read)).square().mean()
    assert logs["train/L_ceb"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("ceb_input", ["logits", "label"])
def test_reconstruction_reaches_encoders_and_h_but_not_the_fusion(ceb_input):
    without = make(**NO_TERMS)
    method = make(**{**NO_TERMS, "lib": 1.0}, ceb_input=ceb_input)
    step(without)
    step(method)
    for a, b in zip(without.model.fusion.parameters(), method.model.fusion.parameters()):
        assert torch.equal(a.grad, b.grad)
    assert not torch.equal(encoder_gradient(without), encoder_gradient(method))
    assert all(p.grad.norm() > 0 for p in method.h.parameters())


def test_the_input_of_h_changes_the_loss():
    losses = [step(make(lib=1.0, ceb_input=kind))[0].item() for kind in ("logits", "label")]
    assert losses[0] != losses[1]


def test_state_survives_a_round_trip():
    method, other = make(lib=1.0), make(lib=1.0)
    torch.nn.init.constant_(method.h[0].weight, 0.5)
    other.load_state_dict(method.state_dict())
    assert torch.equal(step(method)[0], step(other)[0])


# Unequal widths -----------------------------------------------------------------------------------


class Linear(torch.nn.Linear):
    """An encoder of vectors."""

    @property
    def width(self):
        return self.out_features


def unequal(**values):
    encoders = {"a": Linear(6, 5), "b": Linear(6, 3)}
    method = MCR(Classifier(encoders, 4, True, 0), MCR.HParams(**values), facts())
    method.begin_epoch(1, None)
    inputs = {m: torch.randn(8, 6) for m in "ab"}
    loss, logs = method({"label": torch.arange(8) % 4, "inputs": inputs})
    loss.backward()
    return method, logs


def test_unequal_widths_meet_at_one_width_and_h_reconstructs_them_all():
    method, logs = unequal(lib=1.0)
    assert logs["train/L_con"] > 0 and logs["train/L_ceb"] > 0
    assert all(p.grad.norm() > 0 for p in method.common.parameters())
    assert [tuple(p.shape) for p in method.h.parameters()] == [(3, 4), (8, 3)]


def test_without_the_contrastive_term_nothing_is_projected():
    method, logs = unequal(contr=0.0)
    assert method.common is None and "train/L_con" not in logs


# Pretraining --------------------------------------------------------------------------------------


def test_pretraining_is_a_stage_of_its_own_before_the_games():
    stages = make(pretrain_epochs=4).stages(10)
    assert [(s.name, s.epochs, s.start) for s in stages] == [
        ("pretrain", 4, "last"),
        ("train", 10, "last"),
    ]
    assert [(s.name, s.epochs) for s in make().stages(10)] == [("train", 10)]


def test_in_pretraining_each_encoder_learns_by_its_own_head_alone():
    method, batch = make(pretrain_epochs=4, epoch=4, lib=1.0, detach_uni=True), tiny_batch()
    loss, logs = method(batch)
    loss.backward()
    assert logs.keys() == {"train/L_uni"}
    silent = [*method.model.fusion.parameters(), *method.h.parameters()]
    assert all(p.grad is None for p in silent)
    for m in PAIR:
        model = tiny_model()
        z = model.unimodal(model.encode(batch["inputs"]))[m]
        F.cross_entropy(z, batch["label"]).backward()
        for name in (f"encoders.{m}", f"heads.{m}"):
            alone, found = (x.get_submodule(name).parameters() for x in (model, method.model))
            assert all(torch.allclose(a.grad, b.grad, atol=1e-7) for a, b in zip(alone, found))


def test_the_games_begin_after_the_last_epoch_of_pretraining():
    assert "train/R" in step(make(pretrain_epochs=4, epoch=5))[1]
    assert "train/R" not in step(make(pretrain_epochs=4, epoch=4))[1]


def test_a_method_whose_epoch_was_never_begun_plays():
    method = MCR(tiny_model(), MCR.HParams(), facts())
    assert "train/R" in step(method)[1]


# Refusals and the device --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_samples": 0}, "--num_samples 0 is refused"),
        ({"tau": 0.0}, "--tau 0 is refused"),
        ({"lam": -1.0}, "--lam -1 is refused"),
        ({"strategy": "ind"}, "one of greedy, independent, collaborative"),
    ],
)
def test_values_out_of_range_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        check(MCR.HParams(**values))


def test_one_modality_is_refused():
    with pytest.raises(UsageError, match="MCR needs 2 or more modalities"):
        MCR.check(MCR.HParams(), 3, ["audio"])


@pytest.mark.parametrize(
    "values",
    [
        {"lib": 1.0, "ceb_input": "label", "features": "recompute_eval", "shuffle": "rsl"},
        {"shuffle": "rsi", "contr_type": "pure", "strategy": "collaborative", "detach_uni": True},
        {"pretrain_epochs": 3},
    ],
)
def test_no_host_read_in_a_step(values):
    method, batch = make(TRIO, **values), tiny_batch(TRIO)
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0
