"""MCR: the game against the public code, golden values of the contrastive term, each loss term."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mcr import MCR, contrastive_loss, draw_swaps, game, swap_weights

STRATEGIES = pytest.mark.parametrize("strategy", ["greedy", "independent", "collaborative"])
PLAYERS = pytest.mark.parametrize("players", [2, 3])
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

    def contributions(self):
        return {m: self.x[m] @ self.theta[m] @ self.w[m].T for m in self.x}

    def fused(self):
        return sum(self.contributions().values()) + self.bias

    def play(self, strategy, kind="rand", swaps=None):
        swaps = self.swaps if swaps is None else swaps
        weights = swap_weights(swaps, self.y, kind)
        return game(self.contributions(), self.bias, self.fused(), swaps, weights, strategy)

    def parameters(self):
        return [*self.theta.values(), *self.w.values(), self.bias]


def gradients(loss, parameters):
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def far_apart(first, second):
    return max((a - b).abs().max().item() for a, b in zip(first, second))


def divergence(fused, z):
    """As in the public code: probabilities, clamped, mean over rows."""
    p, q = (F.softmax(v, 1).clamp_min(1e-20) for v in (fused, z))
    mean = (p + q) / 2
    return 0.5 * (p * (p / mean).log() + q * (q / mean).log()).sum(1).mean()


def term(toy, swapped, live=None, detach_fused=True):
    """J(swapped) with all but `live` detached, or none detached, from stacked rows."""
    rows = []
    for m, c in toy.contributions().items():
        c = c[toy.swaps].flatten(0, 1) if m == swapped else c.repeat(len(toy.swaps), 1)
        rows.append(c if live in (None, m) else c.detach())
    fused = toy.fused().detach() if detach_fused else toy.fused()
    return divergence(fused.repeat(len(toy.swaps), 1), sum(rows) + toy.bias)


def step(method, modalities=PAIR):
    loss, logs = method(tiny_batch(modalities))
    loss.backward()
    return loss, logs


def encoder_gradient(method):
    return torch.cat([p.grad.flatten() for p in method.model.encoders.parameters()])


@STRATEGIES
@PLAYERS
def test_the_game_matches_the_public_code(players, strategy):
    toy, expected = Toy(players), 0
    greedy, of_all = strategy == "greedy", strategy == "collaborative"
    for m in toy.x:  # m learns
        expected = expected - term(toy, m, None if of_all else m, greedy and players > 2)
        for j in toy.x:
            if j != m and greedy:
                expected = expected + term(toy, j, m, players > 2)
    r, j = toy.play(strategy)
    assert r.item() == pytest.approx(expected.item(), abs=1e-12)
    assert far_apart(gradients(r, toy.parameters()), gradients(expected, toy.parameters())) < 1e-12
    assert j.tolist() == pytest.approx([term(toy, m).item() for m in toy.x], abs=1e-12)
    assert not j.requires_grad
    if greedy and players == 2:
        assert r.item() == 0.0 and gradients(toy.play("greedy")[0], [toy.bias])[0].norm() < 1e-12


def test_golden_importance():
    """JSD of (0.8, 0.2) and (0.4, 0.6) is 0.0863046."""
    rows = doubles([0.8, 0.2], [0.4, 0.6]).log()
    c = {"a": rows, "b": torch.zeros_like(rows)}
    everything = torch.ones(1, 2, dtype=torch.bool)
    bias, swaps = doubles(0, 0), torch.tensor([[1, 0]])
    r, j = game(c, bias, rows, swaps, everything, "independent")
    assert j.tolist() == pytest.approx([0.0863046, 0.0], abs=1e-6)
    assert r.item() == pytest.approx(-0.0863046, abs=1e-6)


@PLAYERS
def test_each_greedy_player_raises_its_own_importance_and_lowers_the_others(players):
    toy = Toy(players)
    for m in toy.x:
        own = [toy.theta[m], toy.w[m]]
        played = gradients(toy.play("greedy")[0], own)
        others = sum(term(toy, j) for j in toy.x if j != m)
        assert far_apart(played, gradients(others - term(toy, m), own)) < 1e-12
        assert all(g.norm() > 1e-3 for g in played)


def test_swaps_are_uniform_permutations():
    swaps = draw_swaps(12_000, 3, torch.Generator().manual_seed(0))
    assert torch.equal(swaps.sort(1).values, torch.arange(3).expand(12_000, 3))
    counts = swaps.unique(dim=0, return_counts=True)[1]
    assert (counts / 12_000).tolist() == pytest.approx([1 / 6] * 6, abs=0.015)


@pytest.mark.parametrize("kind", ["rsl", "rsi"])
def test_rows_that_do_not_count_are_left_out_of_the_mean(kind):
    toy, values = Toy(2), []
    _, j = toy.play("greedy", kind)
    c, fused = toy.contributions(), toy.fused()
    for row in toy.swaps:
        for i, k in enumerate(row.tolist()):
            if (toy.y[k] != toy.y[i]) if kind == "rsl" else (k != i):
                z = c["a"][k] + c["b"][i] + toy.bias
                values.append(divergence(fused[i][None], z[None]))
    assert 0 < len(values) < toy.swaps.numel()
    assert j[0].item() == pytest.approx(torch.stack(values).mean().item(), abs=1e-12)
    toy.y = torch.zeros(7)
    if kind == "rsl":  # no row counts
        r, j = toy.play("independent", kind)
        assert r.item() == 0 and j.tolist() == [0, 0]
        assert all((g == 0).all() for g in gradients(r, toy.parameters()))


def test_golden_contrastive_values():
    labels, orthogonal = torch.tensor([0, 0, 1, 1]), torch.eye(4, dtype=torch.float64)
    assert contrastive_loss(orthogonal, labels, 0.5).item() == pytest.approx(math.log(3), abs=1e-9)
    equal = orthogonal[[0, 0, 1, 1]]
    assert contrastive_loss(equal, labels, 0.5).item() == pytest.approx(0.2395448, abs=1e-7)


def test_the_contrastive_loss_is_its_sum_over_pairs():
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    rows = torch.randn(6, 4, dtype=torch.float64)
    unit = rows / rows.norm(dim=1, keepdim=True)
    s, terms = unit @ unit.T / 0.3, []
    for i in range(6):
        negatives = s[i][labels != labels[i]].exp().sum()
        for p in range(6):
            if p != i and labels[p] == labels[i]:
                terms.append(-s[i, p] + (s[i, p].exp() + negatives).log())
    found = contrastive_loss(rows, labels, 0.3).item()
    assert found == pytest.approx(torch.stack(terms).mean().item(), abs=1e-12)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [1, 1, 1, 1]], ids=["no pair", "no negative"])
def test_the_contrastive_loss_of_a_batch_without_pairs_or_negatives_is_zero(labels):
    rows = torch.randn(4, 3).requires_grad_()
    loss = contrastive_loss(rows, torch.tensor(labels), 1e-5)
    loss.backward()
    assert loss.item() == 0 and torch.equal(rows.grad, torch.zeros(4, 3))


def test_the_total_is_the_weighted_sum_of_the_logged_terms():
    loss, logs = step(tiny_method(MCR, TRIO, lam=0.3, w_uni=0.2, contr=0.7, lib=0.4), TRIO)
    weights = {"L_align": 1, "R": 1, "L_uni": 0.2, "L_con": 0.7, "L_ceb": 0.4}
    total = sum(w * logs[f"train/{name}"].item() for name, w in weights.items())
    assert loss.item() == pytest.approx(total, rel=1e-6)
    importance = sum(logs[f"train/J/{m}"].item() for m in TRIO)
    assert logs["train/R"].item() == pytest.approx(0.3 * importance, rel=1e-5)
    _, logs = step(tiny_method(MCR, **NO_TERMS))
    assert logs.keys() == {f"train/{n}" for n in ("acc", "L_align", "R", "J/audio", "J/video")}
    assert min(logs["train/J/audio"], logs["train/J/video"]) > 0


def test_the_game_of_a_step_is_played_with_its_features():
    method = tiny_method(MCR, **{**NO_TERMS, "lam": 1.0}).eval()
    method.model.fusion.weight.data *= 100  # importances well above float32 rounding
    _, logs = method(tiny_batch())
    f = method.model.encode(tiny_batch()["inputs"])
    method.begin_epoch(9, None)
    swaps = draw_swaps(32, 8, method.generator)
    for m in PAIR:
        z = [method.model.fuse({**f, m: f[m][row]}) for row in swaps]
        expected = divergence(method.model.fuse(f).repeat(32, 1), torch.cat(z))
        assert logs[f"train/J/{m}"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_pure_pairs_join_the_modalities_of_a_sample():
    method = tiny_method(MCR, contr_type="pure").eval()
    rows = torch.cat(list(method.model.encode(tiny_batch()["inputs"]).values()))
    expected = contrastive_loss(rows, torch.arange(8).repeat(2), 0.5).item()
    assert method(tiny_batch())[1]["train/L_con"].item() == pytest.approx(expected, rel=1e-6)


def test_detached_unimodal_losses_train_only_the_heads():
    settings = ({}, {"w_uni": 1.0, "detach_uni": True}, {"w_uni": 1.0})
    without, detached, attached = (tiny_method(MCR, **{**NO_TERMS, **more}) for more in settings)
    for method in (without, detached, attached):
        step(method)
    assert torch.equal(encoder_gradient(without), encoder_gradient(detached))
    assert not torch.equal(encoder_gradient(without), encoder_gradient(attached))
    for a, b in zip(detached.model.heads.parameters(), attached.model.heads.parameters()):
        assert torch.equal(a.grad, b.grad) and a.grad.norm() > 0


def test_the_second_pass_restores_modes_and_leaves_statistics_unchanged():
    plain, method, modes = tiny_method(MCR), tiny_method(MCR, features="recompute_eval"), []
    encoder = method.model.encoders["audio"]
    encoder.register_forward_hook(lambda *_: modes.append(encoder.training))
    step(plain), step(method)
    assert all(m.training for m in method.model.modules()) and modes == [True, False]
    statistics = list(zip(plain.model.buffers(), method.model.buffers()))
    assert statistics and all(torch.equal(a, b) for a, b in statistics)


@pytest.mark.parametrize("ceb_input", ["logits", "label"])
def test_reconstruction_is_the_mean_squared_error_and_reaches_all_but_the_fusion(ceb_input):
    values = {**NO_TERMS, "lib": 1.0, "ceb_input": ceb_input}
    without, method = (tiny_method(MCR, TRIO, **v).eval() for v in (NO_TERMS, values))
    _, logs = step(method, TRIO)
    f = method.model.encode(tiny_batch(TRIO)["inputs"])
    label = torch.eye(4)[tiny_batch(TRIO)["label"]]
    read = method.model.fuse(f) if ceb_input == "logits" else label
    expected = (torch.cat([f[m] for m in TRIO], 1) - method.h(read)).square().mean()
    assert logs["train/L_ceb"].item() == pytest.approx(expected.item(), rel=1e-5)
    step(without, TRIO)
    for a, b in zip(without.model.fusion.parameters(), method.model.fusion.parameters()):
        assert torch.equal(a.grad, b.grad)
    assert not torch.equal(encoder_gradient(without), encoder_gradient(method))
    assert all(p.grad.norm() > 0 for p in method.h.parameters())


def test_pretraining_is_a_stage_with_only_unimodal_losses():
    method = tiny_method(MCR, epoch=4, pretrain_epochs=4, lib=1.0)
    assert [(s.name, s.epochs) for s in method.stages(10)] == [("pretrain", 4), ("train", 10)]
    loss, logs = step(method)
    assert logs.keys() == {"train/L_uni"} and logs["train/L_uni"] == loss
    assert all(p.grad is None for m in (method.model.fusion, method.h) for p in m.parameters())
