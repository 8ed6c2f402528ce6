"""MBSD: who teaches, how much a sample counts, the two losses and who learns from them."""

import itertools
import math

import pytest
import torch
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mbsd import MBSD, distillation, roles

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def softmax(z):
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def slow_terms(logits, y, space):
    """(L_RS, L_KL) of logits {m: lists [B][C]}, with loops over pairs and samples."""
    rs, kl, pairs = 0.0, 0.0, list(itertools.combinations(logits, 2))
    for a, b in pairs:
        for i, label in enumerate(y):
            z = sorted((logits[a][i], logits[b][i]), key=lambda v: softmax(v)[label])  # noqa: B023
            weak, strong = map(softmax, z)
            if label not in (weak.index(max(weak)), strong.index(max(strong))):
                continue
            weight = (strong[label] - weak[label]) / len(y) / len(pairs)
            compared = z if space == "logits" else (weak, strong)
            rs += weight * sum((u - v) ** 2 for u, v in zip(*compared)) / len(weak)
            kl += weight * sum(s * math.log(s / w) for s, w in zip(strong, weak))
    return rs, kl


@SETS
@pytest.mark.parametrize("space", ["logits", "probabilities"])
@pytest.mark.parametrize("learner", ["weaker", "both"])
def test_the_loss_is_that_of_the_formula(modalities, space, learner):
    values = {"w_uni": 0.5, "w_rs": 0.3, "w_kl": 2.0, "space": space, "learner": learner}
    method = tiny_method(MBSD, modalities, **values).double()
    batch, draw = tiny_batch(modalities), torch.Generator().manual_seed(5)
    f = {m: torch.randn(8, w, generator=draw).double() for m, w in method.model.widths.items()}
    f = {m: 5 * x for m, x in f.items()}
    method.model.encode = lambda _: f
    loss, logs = method(batch)
    y, split = batch["label"].tolist(), {}
    weight, bias = method.model.fusion.weight.detach(), method.model.fusion.bias.detach()
    for m, columns in method.model.modality_slices.items():
        split[m] = (f[m] @ weight[:, columns].T + bias / len(modalities)).tolist()
    fused = torch.tensor(list(split.values()), dtype=torch.float64).sum(0).tolist()
    l_align, *l_uni = (
        -sum(math.log(softmax(z)[k]) for z, k in zip(rows, y)) / 8
        for rows in (fused, *split.values())
    )
    rs, kl = slow_terms(split, y, space)
    assert 0 < logs["train/weight"] < 1
    assert logs["train/L_RS"].item() == pytest.approx(rs, abs=1e-6)
    assert logs["train/L_KL"].item() == pytest.approx(kl, abs=1e-6)
    assert loss.item() == pytest.approx(l_align + 0.5 * sum(l_uni) + 0.3 * rs + 2 * kl, abs=1e-6)


def test_golden_roles():
    one = doubles([0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.7, 0.3]).log()
    other = doubles([0.4, 0.6], [0.4, 0.6], [0.1, 0.9], [0.9, 0.1]).log()
    weight, ahead = roles(one, other, torch.tensor([0, 1, 0, 1]))
    assert weight.tolist() == pytest.approx([0.4, 0.4, 0, 0])  # both are wrong on the last two
    assert ahead.tolist() == [True, False, True, True]


@pytest.mark.parametrize("swapped", [False, True])
def test_golden_losses(swapped):
    pair = [doubles([0.8, 0.2]).log(), doubles([0.5, 0.5]).log()]
    rs, kl, weight = distillation(*(pair[::-1] if swapped else pair), torch.tensor([0]))
    assert weight.item() == pytest.approx(0.3)
    assert kl.item() == pytest.approx(0.3 * 0.1927448)
    assert rs.item() == pytest.approx(0.3 * 0.5302461)


@pytest.mark.parametrize("learner", ["weaker", "both"])
@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_the_teacher_learns_only_if_asked_and_the_weaker_modality_gains(learner, space):
    strong = doubles([2.0, 0.0, -1.0]).requires_grad_()
    weak = doubles([0.3, 0.2, 0.1]).requires_grad_()
    rs, kl, _ = distillation(strong, weak, torch.tensor([0]), learner, space)
    (rs + kl).backward()
    if learner == "weaker":
        assert strong.grad is None or not strong.grad.any()
        assert weak.grad[0, 0] < 0 < weak.grad[0, 2]  # descent makes it surer of the true class
    else:
        assert strong.grad.abs().sum() > 0
