"""MNL: who guides whom and the loss, against slow loops over samples; warm-up and fusion."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mnl import MNL, guidance, negative, rival

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def in_double(modalities=PAIR, epoch=9, **values):
    """(method, features that get a gradient, labels), all in float64 and without encoders."""
    method = tiny_method(MNL, modalities, epoch, **{"warmup_epochs": 0, **values}).double()
    with torch.no_grad():
        for head in method.model.heads.values():
            head.weight.mul_(4.0)  # probabilities far from 1 / C
    widths = method.model.widths.items()
    f = {m: torch.randn(8, w, dtype=torch.float64, requires_grad=True) for m, w in widths}
    method.model.encode = lambda inputs: f
    return method, f, tiny_batch(modalities)["label"]


def log_softmax(z):
    total = math.log(sum(math.exp(value) for value in z))
    return [value - total for value in z]


def slow_guidance(z, o, y):
    """{guided modality: its guide} of one sample's logits {m: C numbers} and fused logits."""
    others = [c for c in range(len(o)) if c != y]
    j = max(others, key=lambda c: o[c])
    p = {m: math.exp(log_softmax(z_m)[y]) for m, z_m in z.items()}
    margin = {m: z_m[y] - z_m[j] for m, z_m in z.items()}
    d = max(p, key=lambda m: p[m])
    return {m: d for m in z if p[d] > p[m] and margin[d] > margin[m]}


def slow_negative(teacher, pupil, y):
    p, log_q = log_softmax(teacher), log_softmax(pupil)
    return -sum(math.exp(p[c]) * log_q[c] for c in range(len(p)) if c != y)


def test_the_rival_and_the_margins_by_hand():
    y = torch.tensor([0, 2])
    assert rival(doubles([9.0, 1.0, 3.0], [5.0, 1.0, 3.0]), y).tolist() == [2, 0]
    # The first modality is surer of class 0 than the second; against class 1 its margin is larger
    # (4 to 2), against class 2 smaller (1 to 2).
    z = doubles([[4.0, 0.0, 3.0]], [[2.0, 0.0, 0.0]])
    p = z.softmax(2)[:, 0, 0]
    assert p[1] > p[0]
    d, guided = guidance(z, y[:1], torch.tensor([2]))
    assert d.tolist() == [1] and guided.tolist() == [[True], [False]]
    _, guided = guidance(z, y[:1], torch.tensor([1]))
    assert not guided.any()


def test_the_guidance_by_hand():
    p, q = doubles(0.5, 0.3, 0.2), doubles(0.2, 0.4, 0.4)
    z = torch.stack([p.log(), q.log()])[:, None]
    found = negative(z, torch.tensor([0]), torch.tensor([0]))
    expected = -(0.3 * math.log(0.4) + 0.2 * math.log(0.4))
    assert found[1].item() == pytest.approx(expected)


@SETS
@pytest.mark.parametrize("fusion", ["late", "concat"])
@pytest.mark.parametrize("release", [False, True])
def test_the_loss_against_a_slow_loop(modalities, fusion, release):
    values = {"reduce": "mean", "positive": True} if release else {}
    method, f, y = in_double(modalities, combine=fusion, lam=0.9, **values)
    loss, logs = method({"inputs": {}, "label": y})
    heads = {m: z.tolist() for m, z in method.model.unimodal(f).items()}
    total, count = 0.0, dict.fromkeys(f, 0)
    for i, label in enumerate(y.tolist()):
        z = {m: rows[i] for m, rows in heads.items()}
        o = [sum(z_m[c] for z_m in z.values()) / len(z) for c in range(4)]
        if fusion == "concat":
            o = method.model.fuse(f)[i].tolist()
        total -= log_softmax(o)[label] + sum(log_softmax(z_m)[label] for z_m in z.values())
        for m, d in slow_guidance(z, o, label).items():
            taught = 0.9 * slow_negative(z[d], z[m], label)
            if release:
                taught = (taught - log_softmax(z[m])[label]) / 4
            total += taught
            count[m] += 1
    assert loss.item() == pytest.approx(total / len(y), rel=1e-9)
    assert sum(count.values()) > 0
    for m in f:
        assert logs[f"train/guided/{m}"].item() == pytest.approx(count[m] / len(y))


@SETS
def test_guidance_teaches_only_the_guided_modalities_and_not_their_label(modalities):
    method, f, y = in_double(modalities)
    z = torch.stack([x.detach() for x in method.model.unimodal(f).values()]).requires_grad_()
    d, guided = guidance(z, y, rival(z.mean(0), y))
    assert guided.any() and not guided.all() and not guided.gather(0, d[None]).any()
    (guided * negative(z, y, d)).sum().backward()
    assert (z.grad[~guided] == 0).all() and (z.grad[guided].abs().sum(1) > 0).all()
    # The gradient of -sum_c t_c ln p_c in the logits is p sum_c t_c - t; t is 0 at the label.
    m, i = guided.nonzero()[0].tolist()
    teacher = z.detach()[d[i], i].softmax(0)
    teacher[y[i]] = 0
    pupil = z.detach()[m, i].softmax(0)
    assert torch.allclose(z.grad[m, i], pupil * teacher.sum() - teacher)


def test_the_warm_up_has_no_guidance_and_ends():
    method, _, y = in_double(epoch=2, warmup_epochs=2)
    loss, logs = method({"inputs": {}, "label": y})
    assert torch.equal(loss, logs["train/L_align"] + logs["train/L_uni"])
    assert "train/L_mnl" not in logs
    method.begin_epoch(3, None)
    assert method({"inputs": {}, "label": y})[1]["train/L_mnl"] > 0


@SETS
def test_late_fusion_is_the_mean_of_the_heads_and_leaves_the_fusion_layer_alone(modalities):
    late, f, y = in_double(modalities)
    assert torch.allclose(late.logits(f), sum(late.model.unimodal(f).values()) / len(modalities))
    late({"inputs": {}, "label": y})[0].backward()
    assert late.model.fusion.weight.grad is None
    concat, f, _ = in_double(modalities, combine="concat")
    assert torch.equal(concat.logits(f), concat.model.fuse(f))
