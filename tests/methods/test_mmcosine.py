"""MMCosine: the logits against a slow loop, invariance to norms, features of zero."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mmcosine import MMCosine, cosines, direction

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def in_double(modalities, **values):
    """(method, features that get a gradient, labels), all in float64 and without encoders."""
    method = tiny_method(MMCosine, modalities, **values).double()
    widths = method.model.widths.items()
    f = {m: torch.randn(8, w, dtype=torch.float64, requires_grad=True) for m, w in widths}
    method.model.encode = lambda inputs: f
    return method, f, tiny_batch(modalities)["label"]


def test_cosines_by_hand():
    weight = doubles([3.0, 4.0, 5.0], [-1.0, 0.0, -2.0])
    f = {"a": doubles([2.0, 0.0], [0.0, 0.5]), "v": doubles([7.0], [-1.0])}
    cos = cosines(f, weight, {"a": slice(0, 2), "v": slice(2, 3)})
    assert torch.allclose(cos["a"], doubles([0.6, -1.0], [0.8, 0.0]))
    assert torch.allclose(cos["v"], doubles([1.0, -1.0], [-1.0, 1.0]))


@SETS
def test_logits_and_loss_against_a_slow_loop(modalities):
    method, f, y = in_double(modalities, scale=7.0)
    weight, z = method.model.fusion.weight.tolist(), method.logits(f)
    total = 0.0
    for i, label in enumerate(y.tolist()):
        row = []
        for c in range(4):
            logit, start = 0.0, 0
            for x in f.values():
                feature = x[i].tolist()
                part = weight[c][start : start + len(feature)]
                product = sum(a * b for a, b in zip(feature, part))
                logit += 7.0 * product / math.hypot(*feature) / math.hypot(*part)
                start += len(feature)
            row.append(logit)
            assert z[i, c].item() == pytest.approx(logit, rel=1e-9)
        total += math.log(sum(math.exp(value) for value in row)) - row[label]
    loss, logs = method({"inputs": {}, "label": y})
    assert loss.item() == pytest.approx(total / len(y), rel=1e-9)
    for m, x in f.items():
        part = method.model.fusion.weight[y][:, method.model.modality_slices[m]]
        expected = F.cosine_similarity(x, part).mean().item()
        assert logs[f"train/cos_true/{m}"].item() == pytest.approx(expected, rel=1e-6)


@SETS
def test_norms_and_bias_do_not_count(modalities):
    method, f, _ = in_double(modalities)
    z = method.logits(f)
    with torch.no_grad():
        method.model.fusion.bias.add_(3.0)
        method.model.fusion.weight.mul_(torch.rand(4, 1, dtype=torch.float64) + 0.1)
        m = modalities[0]
        method.model.fusion.weight[:, method.model.modality_slices[m]] *= 40.0
    assert torch.allclose(z, method.logits(f | {m: 0.01 * f[m]}))
    assert z.abs().max() <= 10.0 * len(modalities)


@SETS
def test_the_gradient_is_orthogonal_to_features_and_weights(modalities):
    """A step can only turn a feature or a weight, since scaling it does not change the loss."""
    method, f, y = in_double(modalities)
    method({"inputs": {}, "label": y})[0].backward()
    weight = method.model.fusion.weight
    for m, x in f.items():
        s = method.model.modality_slices[m]
        assert (x * x.grad).sum(1).abs().max() < 1e-12
        assert (weight * weight.grad)[:, s].sum(1).abs().max() < 1e-12
        assert x.grad.norm() > 0
    assert method.model.fusion.bias.grad is None


def test_a_modality_of_zeros_adds_nothing_and_gets_no_gradient():
    method, f, y = in_double(PAIR)
    f["video"] = torch.zeros_like(f["video"]).requires_grad_()
    loss = method({"inputs": {}, "label": y})[0]
    loss.backward()
    expected = F.cross_entropy(10 * method.cosines(f)["audio"], y)
    assert loss.item() == pytest.approx(expected.item())
    assert (f["video"].grad == 0).all() and f["audio"].grad.isfinite().all()
    assert direction(doubles([0.0, 0.0], [0.0, 2.0])).tolist() == [[0.0, 0.0], [0.0, 1.0]]
