"""DGL: who trains whom, against the two backward passes and a slow loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method, tiny_model

from methods.dgl import DGL
from methods.ops import zero_padded_logits

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def step(modalities=PAIR, **values):
    """(method, loss, logs) after one step's backward pass."""
    method = tiny_method(DGL, modalities, **{"clip": 0.0, **values})
    loss, logs = method(tiny_batch(modalities))
    loss.backward()
    method.after_backward()
    return method, loss.detach(), logs


def gradients(method):
    return {n: p.grad for n, p in method.model.named_parameters() if p.grad is not None}


def in_double(modalities, **values):
    """(method, features that get a gradient, labels), all in float64 and without encoders."""
    method = tiny_method(DGL, modalities, **values).double()
    widths = method.model.widths.items()
    f = {m: torch.randn(8, w, dtype=torch.float64, requires_grad=True) for m, w in widths}
    method.model.encode = lambda inputs: f
    return method, f, tiny_batch(modalities)["label"]


def slow_cross_entropy(z, label):
    return math.log(sum(math.exp(value) for value in z)) - z[label]


@SETS
def test_the_loss_against_a_slow_loop(modalities):
    method, f, y = in_double(modalities, alpha=2.5)
    loss = method({"inputs": {}, "label": y})[0]
    weight, bias = method.model.fusion.weight.tolist(), method.model.fusion.bias.tolist()
    total = 0.0
    for i, label in enumerate(y.tolist()):
        joint, start = list(bias), 0
        for x in f.values():
            row = x[i].tolist()
            alone = list(bias)
            for c in range(4):
                part = sum(weight[c][start + d] * value for d, value in enumerate(row))
                alone[c] += part
                joint[c] += part
            total += 2.5 * slow_cross_entropy(alone, label)
            start += len(row)
        total += slow_cross_entropy(joint, label)
    assert loss.item() == pytest.approx(total / len(y), rel=1e-9)


@SETS
def test_one_backward_pass_gives_the_gradients_of_the_published_two(modalities):
    method, f, y = in_double(modalities, alpha=3.0)
    method({"inputs": {}, "label": y})[0].backward()
    found = {m: x.grad.clone() for m, x in f.items()}, gradients(method)
    method.zero_grad()
    for x in f.values():
        x.grad = None
    # First alpha sum_m CE(s^m) into everything, then the fusion layer's gradient is deleted, then
    # CE(o) on detached features.
    uni = [F.cross_entropy(method.model.fuse_subset(f, [m]), y) for m in f]
    (3.0 * sum(uni)).backward()
    method.zero_grad()
    F.cross_entropy(method.model.fuse({m: x.detach() for m, x in f.items()}), y).backward()
    for m, x in f.items():
        assert torch.allclose(found[0][m], x.grad, rtol=1e-9, atol=1e-12)
    assert found[1].keys() == {"fusion.weight", "fusion.bias"}
    for name, gradient in gradients(method).items():
        assert torch.allclose(found[1][name], gradient, rtol=1e-9, atol=1e-12)


@SETS
def test_an_encoders_gradient_is_that_of_training_it_alone(modalities):
    """Neither another modality nor the joint loss enters it."""
    whole, _, _ = step(modalities, alpha=2.0)
    alone = tiny_method(DGL, modalities)
    y, m = tiny_batch(modalities)["label"], modalities[-1]
    f = alone.model.encode(tiny_batch(modalities)["inputs"])
    z = F.linear(f[m], alone.model.fusion.weight[:, alone.model.modality_slices[m]])
    (2.0 * F.cross_entropy(z + alone.model.fusion.bias, y)).backward()
    found, expected = gradients(whole), gradients(alone)
    for name in found:
        if name.startswith(f"encoders.{m}."):
            assert torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-7), name


@SETS
def test_each_cut_can_be_removed(modalities):
    def by_part(**values):
        found = gradients(step(modalities, **values)[0])
        return {part: {n: g for n, g in found.items() if n.startswith(part)} for part in parts}

    def equal(a, b):
        return all(torch.allclose(a[n], b[n], rtol=1e-4, atol=1e-7) for n in a)

    parts = ("encoders.", "fusion.")
    cut, joint = by_part(), by_part(joint_to_encoders=True)
    uni = by_part(uni_to_fusion=True)
    assert equal(cut["fusion."], joint["fusion."]) and not equal(
        cut["encoders."], joint["encoders."]
    )
    assert equal(cut["encoders."], uni["encoders."]) and not equal(cut["fusion."], uni["fusion."])


def test_own_heads_learn_and_keep_the_fusion_layer_to_the_joint_loss():
    method, _, logs = step(heads="own")
    found, shared = gradients(method), gradients(step()[0])
    assert {"heads.audio.weight", "heads.video.bias"} <= found.keys()
    assert torch.equal(found["fusion.weight"], shared["fusion.weight"])
    y = tiny_batch()["label"]
    z = method.model.unimodal(method.model.encode(tiny_batch()["inputs"]))
    for m in PAIR:
        assert logs[f"train/L_uni/{m}"].item() == pytest.approx(F.cross_entropy(z[m], y).item())


def test_clipping_takes_the_norm_over_all_parameters():
    free, bound = (gradients(step(clip=c)[0]) for c in (0.0, 0.5))
    norm = torch.cat([g.flatten() for g in free.values()]).norm()
    assert norm > 0.6
    assert all(torch.allclose(bound[n], 0.5 / norm * free[n], rtol=1e-4, atol=1e-7) for n in free)


def test_zero_padded_logits_by_hand():
    model = tiny_model(classes=2).double()
    widths = model.widths
    with torch.no_grad():
        model.fusion.weight.zero_()
        model.fusion.weight[:, 0] = doubles(1, -2)
        model.fusion.weight[:, widths["audio"]] = doubles(3, 5)
        model.fusion.bias.copy_(doubles(0.5, 0.25))
    f = {m: torch.ones(1, w, dtype=torch.float64) for m, w in widths.items()}
    s = zero_padded_logits(model, f, frozen=True)
    assert s["audio"].tolist() == [[1.5, -1.75]] and s["video"].tolist() == [[3.5, 5.25]]
    assert not s["audio"].requires_grad and zero_padded_logits(model, f)["audio"].requires_grad
