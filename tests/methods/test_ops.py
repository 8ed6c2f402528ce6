"""The methods' shared mathematics, against closed forms and slow versions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.ops import (
    CommonWidth,
    compare_modalities,
    dirichlet,
    discrepancy_ratio,
    gradient_factor,
    jensen_shannon,
    modulate_gradient_,
    modulate_gradients_,
    scale_gradient,
    shapley,
    true_probability,
)

TRIO = ("a", "b", "c")


def of_accuracies(values):
    return lambda kept: values["+".join(kept)] if kept else 0.0


def test_shapley_of_the_papers_numbers():
    joint = of_accuracies({"audio": 42.1, "video": 19.2, "audio+video": 60.2})
    assert shapley(joint, ["audio", "video"]) == pytest.approx({"audio": 41.55, "video": 18.65})
    midas = of_accuracies({"audio": 54.3, "video": 49.9, "audio+video": 73.7})
    assert shapley(midas, ["audio", "video"]) == pytest.approx({"audio": 39.05, "video": 34.65})


def test_shapley_of_many_games_at_once_is_the_coalition_formula():
    draw = torch.Generator().manual_seed(0)
    names = [(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), TRIO]
    worth = {s: torch.rand(50, dtype=torch.float64, generator=draw) for s in names}
    found = shapley(worth.__getitem__, TRIO)
    for m in TRIO:
        expected = torch.zeros(50, dtype=torch.float64)
        for s in names:
            if m not in s:
                weight = math.factorial(len(s)) * math.factorial(2 - len(s)) / 6
                joined = tuple(p for p in TRIO if p in s or p == m)
                expected += weight * (worth[joined] - worth[s])
        assert torch.allclose(found[m], expected)
    assert torch.allclose(sum(found.values()), worth[TRIO] - worth[()])


def test_jensen_shannon_of_hand_values_and_bounds():
    p = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    q = torch.tensor([[0.4, 0.6]], dtype=torch.float64).log()
    assert jensen_shannon(p, q).item() == pytest.approx(0.0863046, abs=1e-6)
    far = F.log_softmax(torch.tensor([[200.0, 0.0]], dtype=torch.float64), 1)
    assert jensen_shannon(far, far.flip(1)).item() == pytest.approx(math.log(2))
    assert jensen_shannon(p, p).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.0, 3.0])
def test_scale_gradient_keeps_the_value_to_the_last_bit(factor):
    x = (torch.randn(200) * 1e3).requires_grad_()
    y = scale_gradient(x, factor)
    assert torch.equal(y, x)
    (y + 0 * x).sum().backward()
    assert torch.equal(x.grad, torch.full((200,), factor))


def test_dirichlet_has_its_mean_and_variance_and_repeats():
    for a, columns in ((1.0, 3), (0.2, 2), (0.05, 64)):
        rows = dirichlet(a, (40_000, columns), torch.Generator().manual_seed(1))
        assert torch.allclose(rows.sum(1), torch.ones(40_000)) and rows.isfinite().all()
        mean = 1 / columns
        variance = mean * (1 - mean) / (columns * a + 1)
        assert rows.mean(0).tolist() == pytest.approx([mean] * columns, abs=0.01)
        assert rows.var().item() == pytest.approx(variance, rel=0.05)
    again = dirichlet(0.05, (40_000, 64), torch.Generator().manual_seed(1))
    assert torch.equal(rows, again)


def test_true_probability_is_the_labels_softmax():
    z = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    assert true_probability(z, torch.tensor([1, 1])).tolist() == pytest.approx([0.75, 0.2])


def test_equal_widths_pass_unchanged_and_others_are_projected():
    f = {"a": torch.rand(2, 5), "b": torch.rand(2, 5)}
    same = CommonWidth({"a": 5, "b": 5})
    assert not list(same.parameters()) and all(same(f)[m] is f[m] for m in f)
    f = {"a": torch.rand(2, 5), "b": torch.rand(2, 3)}
    other = CommonWidth({"a": 5, "b": 3})
    assert [v.shape for v in other(f).values()] == [(2, 3), (2, 3)]


# Modulation ---------------------------------------------------------------------------------------


def test_scores_are_sums_of_the_true_class_probability():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], dtype=torch.float64)
    logits = {"a": p.log().requires_grad_(), "b": p.flip(0).log()}
    score, ratio = compare_modalities(logits, torch.tensor([0, 1]))
    assert score.tolist() == pytest.approx([1.3, 0.5]) and not score.requires_grad
    assert ratio.tolist() == pytest.approx([2.6, 5 / 13]) and not ratio.requires_grad


def test_two_ratios_multiply_to_one_and_three_are_averaged():
    for seed in range(20):
        score = 64 * torch.rand(2, generator=torch.Generator().manual_seed(seed)) + 1e-3
        assert discrepancy_ratio(score).prod().item() == pytest.approx(1.0, abs=1e-5)
    found = discrepancy_ratio(torch.tensor([20.0, 10.0, 5.0]))
    assert found.tolist() == pytest.approx([(2 + 4) / 2, (0.5 + 2) / 2, (0.25 + 0.5) / 2])
    assert discrepancy_ratio(torch.tensor([3.0, 0.0])).tolist() == pytest.approx([3e5, 0.0])


@pytest.mark.parametrize(
    ("rho", "alpha", "k"),
    [
        (2.0, 0.3, 0.462950),
        (2.0, 0.8, 0.078331),
        (2.0, 1.0, 0.035972),
        (2.0, 0.5, 0.238406),
        (1.2, 0.3, 0.654786),
        (1.5, 0.3, 0.578101),
        (1.0, 0.3, 1.0),
        (0.5, 0.3, 1.0),
    ],
)
def test_golden_gradient_factor(rho, alpha, k):
    found = gradient_factor(torch.tensor([rho], dtype=torch.float64), alpha)
    assert found.item() == pytest.approx(k, abs=1e-6)


def test_noise_has_the_standard_deviation_of_the_unscaled_gradient():
    draw = torch.Generator().manual_seed(0)
    grad = 0.01 * torch.randn(256, 512, generator=draw) + 0.02
    before, k = grad.clone(), torch.tensor(0.25)
    modulate_gradient_(grad, k, draw)
    noise = grad - k * before
    assert noise.std().item() == pytest.approx(before.std().item(), rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=2e-4)
    zero = torch.zeros(100, 100, dtype=torch.float64)
    modulate_gradient_(zero, torch.tensor(1.0), draw)
    assert zero.std().item() == pytest.approx(1e-8, rel=0.05)  # the floor


def test_vectors_single_elements_and_parameters_without_gradient_are_skipped():
    shapes = [(3, 2), (2, 3, 1, 1), (4,), (1, 1), (), (2, 2)]
    parameters = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    for p in parameters[:-1]:
        p.grad = torch.ones_like(p)
    modulate_gradients_(parameters, torch.tensor(0.5), None)
    assert [float(p.grad.mean()) for p in parameters[:-1]] == [0.5, 0.5, 1, 1, 1]
    assert parameters[-1].grad is None
