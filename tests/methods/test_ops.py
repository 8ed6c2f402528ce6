"""The methods' shared mathematics, against closed forms and slow versions."""

import math

import pytest
import torch
import torch.nn.functional as F

from methods.ops import CommonWidth, dirichlet, jensen_shannon, shapley, true_probability

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
