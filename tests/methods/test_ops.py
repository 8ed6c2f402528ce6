"""The methods' shared functions, against closed forms and slow versions."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import doubles
from torch import nn

from methods.ops import (
    CommonWidth,
    compare_modalities,
    dirichlet,
    discrepancy_ratio,
    gradient_factor,
    jensen_shannon,
    modulate_encoders_,
    shapley,
    subsets,
    true_probability,
)


def modulated(k, generator, *tensors):
    """The gradients, after OGM-GE, of an encoder with these parameters and gradients."""
    parameters = [nn.Parameter(torch.zeros_like(t)) for t in tensors]
    for p, t in zip(parameters, tensors):
        p.grad = t.clone(memory_format=torch.preserve_format)
    model = SimpleNamespace(modalities=["a"], encoder_parameters=lambda m: parameters)
    modulate_encoders_(model, torch.tensor([k]), generator)
    return [p.grad for p in parameters]


@pytest.mark.parametrize(
    ("audio", "video", "both", "expected"),
    [(42.1, 19.2, 60.2, (41.55, 18.65)), (54.3, 49.9, 73.7, (39.05, 34.65))],
)
def test_shapley_of_the_papers_numbers(audio, video, both, expected):
    values = {(): 0.0, ("audio",): audio, ("video",): video, ("audio", "video"): both}
    found = shapley(values.__getitem__, ["audio", "video"])
    assert tuple(found.values()) == pytest.approx(expected)


def test_shapley_of_many_games_at_once_is_the_coalition_formula():
    names = [(), *subsets("abc")]
    worth = {s: torch.rand(50, dtype=torch.float64) for s in names}
    found = shapley(worth.__getitem__, "abc")
    for m in "abc":
        expected = torch.zeros(50, dtype=torch.float64)
        for s in (s for s in names if m not in s):
            weight = math.factorial(len(s)) * math.factorial(2 - len(s)) / 6
            joined = tuple(p for p in "abc" if p in s or p == m)
            expected += weight * (worth[joined] - worth[s])
        assert torch.allclose(found[m], expected)


def test_jensen_shannon_of_hand_values_and_bounds():
    p, q = doubles([0.8, 0.2]).log(), doubles([0.4, 0.6]).log()
    assert jensen_shannon(p, q).item() == pytest.approx(0.0863046, abs=1e-6)
    far = F.log_softmax(doubles([200.0, 0.0]), 1)
    assert jensen_shannon(far, far.flip(1)).item() == pytest.approx(math.log(2))
    assert jensen_shannon(p, p).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("a", "columns"), [(1.0, 3), (0.2, 2), (0.05, 64)])
def test_dirichlet_has_its_mean_and_variance(a, columns):
    rows = dirichlet(a, (40_000, columns), torch.Generator().manual_seed(1))
    assert torch.allclose(rows.sum(1), torch.ones(40_000)) and rows.isfinite().all()
    mean = 1 / columns
    assert rows.mean(0).tolist() == pytest.approx([mean] * columns, abs=0.01)
    assert rows.var().item() == pytest.approx(mean * (1 - mean) / (columns * a + 1), rel=0.05)


def test_true_probability_is_the_labels_softmax():
    z = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    assert true_probability(z, torch.tensor([1, 1])).tolist() == pytest.approx([0.75, 0.2])


def test_equal_widths_pass_unchanged_and_others_are_projected():
    f = {"a": torch.rand(2, 5), "b": torch.rand(2, 5)}
    same = CommonWidth({"a": 5, "b": 5})
    assert not list(same.parameters()) and all(same(f)[m] is f[m] for m in f)
    other = CommonWidth({"a": 5, "b": 3})
    assert [v.shape for v in other(f | {"b": torch.rand(2, 3)}).values()] == [(2, 3), (2, 3)]


def test_scores_are_sums_of_the_true_class_probability():
    p = doubles([0.7, 0.2, 0.1], [0.3, 0.6, 0.1])
    logits = {"a": p.log().requires_grad_(), "b": p.flip(0).log()}
    score, ratio = compare_modalities(logits, torch.tensor([0, 1]))
    assert score.tolist() == pytest.approx([1.3, 0.5]) and not score.requires_grad
    assert ratio.tolist() == pytest.approx([2.6, 5 / 13])


def test_ratios_of_three_are_averaged_and_a_score_of_zero_is_clamped():
    found = discrepancy_ratio(torch.tensor([20.0, 10.0, 5.0]))
    assert found.tolist() == pytest.approx([(2 + 4) / 2, (0.5 + 2) / 2, (0.25 + 0.5) / 2])
    assert discrepancy_ratio(torch.tensor([3.0, 0.0])).tolist() == pytest.approx([3e5, 0.0])


@pytest.mark.parametrize(
    ("rho", "alpha", "k"),
    [(2.0, 0.3, 0.462950), (2.0, 0.8, 0.078331), (1.5, 0.3, 0.578101), (1.0, 0.3, 1.0)],
)
def test_golden_gradient_factor(rho, alpha, k):
    assert gradient_factor(doubles(rho), alpha).item() == pytest.approx(k, abs=1e-6)


def test_noise_has_the_standard_deviation_of_the_unscaled_gradient():
    draw = torch.Generator().manual_seed(0)
    before = 0.01 * torch.randn(256, 512, generator=draw) + 0.02
    zero = torch.zeros(100, 100, dtype=torch.float64)
    after, floor = modulated(0.25, draw, before, zero)
    noise = after - 0.25 * before
    assert noise.std().item() == pytest.approx(before.std().item(), rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=2e-4)
    assert floor.std().item() == pytest.approx(1e-8, rel=0.05)


def test_vectors_and_single_elements_are_not_modulated():
    shapes = [(3, 2), (2, 3, 1, 1), (4,), (1, 1), ()]
    after = modulated(0.5, None, *map(torch.ones, shapes))
    assert [float(g.mean()) for g in after] == [0.5, 0.5, 1, 1, 1]
