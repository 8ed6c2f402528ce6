"""CML: the chain of removals and the penalty against slow loops, and the options by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.cml import CML, chain_logits, confidence, penalty, removal_ranks

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def in_double(modalities, epoch=9, **values):
    """(method, features that get a gradient, labels), all in float64 and without encoders."""
    method = tiny_method(CML, modalities, epoch, **values).double()
    with torch.no_grad():
        method.model.fusion.weight.mul_(6.0)  # confidences far from 1 / C
    widths = method.model.widths.items()
    f = {m: torch.randn(8, w, dtype=torch.float64, requires_grad=True) for m, w in widths}
    method.model.encode = lambda inputs: f
    return method, f, tiny_batch(modalities)["label"]


def softmax(z):
    total = sum(math.exp(value) for value in z)
    return [math.exp(value) / total for value in z]


def slow_chain(model, f, order):
    """Logits of one sample while it loses its modalities in this order: M lists of C numbers."""
    weight, bias, chain = model.fusion.weight.tolist(), model.fusion.bias.tolist(), []
    for n in range(len(f)):
        z = list(bias)
        for m, row in f.items():
            if m not in order[:n]:
                columns = model.modality_slices[m]
                for c in range(len(z)):
                    z[c] += sum(w * x for w, x in zip(weight[c][columns], row))
        chain.append(z)
    return chain


def test_each_row_of_ranks_is_a_permutation_and_all_of_them_occur():
    ranks = removal_ranks(600, 3, torch.Generator().manual_seed(1))
    assert (ranks.sort(1).values == torch.arange(3)).all()
    _, counts = ranks.unique(dim=0, return_counts=True)
    assert len(counts) == 6 and counts.min() > 60


def test_the_penalty_by_hand():
    rise = doubles([0.3, -0.1, -0.4], [0.2, 0.1, -0.5])
    assert penalty(rise).item() == pytest.approx(0.6)
    assert penalty(rise, "batch").item() == 0  # the sums of the rows are -0.2 and -0.2
    assert penalty(rise[:, :2], "batch").item() == pytest.approx(0.5)
    z = doubles([0.0, math.log(3.0)], [0.0, 0.0])
    assert confidence(z).tolist() == pytest.approx([0.75, 0.5])


@SETS
@pytest.mark.parametrize("values", [{}, {"reduce": "mean"}, {"hinge": "batch"}, {"exempt": True},
                                    {"ce": "full"}, {"order": "epoch"}])  # fmt: skip
def test_the_loss_against_a_slow_loop(modalities, values):
    method, f, y = in_double(modalities, lam=0.7, **values)
    loss, logs = method({"inputs": {}, "label": y})
    method.begin_epoch(9, None)  # draws again what the step has drawn
    ranks = method.epoch_ranks.repeat(8, 1)
    if values.get("order") != "epoch":
        ranks = removal_ranks(8, len(f), method.generator)
    ce, rises, violated = 0.0, [[] for _ in f][1:], 0
    for i, label in enumerate(y.tolist()):
        order = sorted(f, key=lambda m: ranks[i, list(f).index(m)])  # noqa: B023
        chain = slow_chain(method.model, {m: x[i].tolist() for m, x in f.items()}, order)
        p = [softmax(z) for z in chain]
        losses = [-math.log(p_n[label]) for p_n in p]
        ce += losses[0] if "ce" in values else sum(losses) / len(f)
        for n in range(len(f) - 1):
            right, right_less = (max(q) == q[label] for q in p[n : n + 2])
            rise = max(p[n + 1]) - max(p[n])
            violated += rise > 0
            rises[n].append(0.0 if "exempt" in values and right_less and not right else rise)
    if "hinge" in values:
        regular = sum(max(0.0, sum(row)) for row in rises)
    else:
        regular = sum(max(0.0, rise) for row in rises for rise in row)
    regular /= 8 if "reduce" in values else 1
    assert loss.item() == pytest.approx(ce / 8 + 0.7 * regular, rel=1e-9)
    assert logs["train/vrr"].item() == pytest.approx(violated / 8 / (len(f) - 1))
    assert regular > 0 or "hinge" in values


@SETS
def test_the_chain_starts_with_joints_output_and_ends_with_one_modality(modalities):
    method, f, _ = in_double(modalities)
    ranks = removal_ranks(8, len(f), method.generator)
    z = chain_logits(method.model, f, ranks)
    assert torch.equal(z[0], method.model.fuse(f))
    for i in range(8):
        last = [modalities[ranks[i].argmax()]]
        one = method.model.fuse_subset({m: x[i : i + 1] for m, x in f.items()}, last)
        assert torch.allclose(z[-1, i], one[0])


def test_a_step_on_the_penalty_lowers_the_rise_in_confidence():
    method, f, y = in_double(PAIR, order="epoch")
    z = chain_logits(method.model, f, method.epoch_ranks)
    rise = confidence(z[1]) - confidence(z[0])
    before = penalty(rise[None])
    before.backward()
    assert all((x.grad[rise <= 0] == 0).all() for x in f.values())
    moved = {m: (x - 0.01 * x.grad).detach() for m, x in f.items()}
    z = chain_logits(method.model, moved, method.epoch_ranks)
    assert penalty((confidence(z[1]) - confidence(z[0]))[None]) < before


def test_the_exemption_spares_samples_that_only_the_smaller_set_gets_right():
    plain, spared = (in_double(PAIR, order="epoch", exempt=e) for e in (False, True))
    method, f, _ = plain
    z = chain_logits(method.model, f, method.epoch_ranks)
    y = z[1].argmax(1)  # the smaller set is always right
    only = z[0].argmax(1) != y
    rise = F.relu(confidence(z[1]) - confidence(z[0]))
    spared[0].model.encode = lambda inputs: f
    found = [one[0]({"inputs": {}, "label": y})[1]["train/L_reg"].item() for one in (plain, spared)]
    assert rise[only].sum() > 0
    assert found[0] - found[1] == pytest.approx(rise[only].sum().item())
