"""LeMDA: golden numbers, the routing of the gradient, and the two optimizers."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, tiny_batch, tiny_method
from small_runs import base
from torch import nn

from common.options import UsageError
from methods.joint import Joint
from methods.lemda import (
    LeMDA,
    TransformerVae,
    consistency,
    hidden_sizes,
    kl_to_normal,
)

NO_WEIGHTS = {"adv": 0.0, "w_consist": 0.0, "w_reg": 0.0, "w_kld": 0.0}
NETWORKS = pytest.mark.parametrize("network", ["mlp_vae", "trans_vae"])
SUMS = pytest.mark.parametrize(("task_sum", "factor"), [(False, 0.5), (True, 1.0)])


def last_linear(method):
    """The layer that produces the noise."""
    return [part for part in method.augmenter.modules() if isinstance(part, nn.Linear)][-1]


def awake(modalities=PAIR, **values):
    """A method with noise, as if G had trained for a while."""
    method = tiny_method(LeMDA, modalities, **values)
    nn.init.normal_(last_linear(method).weight, std=0.5)
    return method


def backward(method, modalities=PAIR):
    """One backward pass with fixed dropout draws; returns the logs."""
    torch.manual_seed(1)
    loss, logs = method(tiny_batch(modalities))
    loss.backward()
    return logs


@pytest.mark.parametrize(
    ("d", "sizes"),
    [
        (1024, [821, 618, 415, 212]),
        (1280, [1026, 772, 518, 264]),
        (64, [53, 42, 31, 20]),
        (768, [616, 464, 312]),
        (128, [104, 80, 56]),
    ],
)
def test_golden_hidden_sizes(d, sizes):
    assert hidden_sizes(d, 8, 4) == sizes


def test_golden_consistency_whose_target_gets_no_gradient():
    z_aug = torch.tensor([[2.0, 0, 0], [0, 0, 1]], dtype=torch.float64).requires_grad_()
    z = torch.tensor([[1.0, 0, 0], [0.2, 0, 0]], dtype=torch.float64).requires_grad_()
    loss, share = consistency(z_aug, z, 0.5)
    assert loss.item() == pytest.approx(0.049443, abs=1e-5) and share == 0.5
    assert consistency(z_aug, z, 0.0)[0].item() == pytest.approx(
        (0.098886 + 0.152101) / 2, abs=1e-5
    )
    loss.backward()
    assert z.grad is None and z_aug.grad.abs().sum() > 0


def test_golden_kl_of_the_latent_adds_up_over_tokens():
    mu, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4)]])
    assert kl_to_normal(mu, logvar).item() == pytest.approx(0.653426, abs=1e-5)
    tokens = mu.expand(5, 3, 2), logvar.expand(5, 3, 2)
    assert kl_to_normal(*tokens).item() == pytest.approx(3 * 0.653426, abs=1e-5)


@NETWORKS
def test_g_is_the_identity_at_the_start(network):
    method = tiny_method(LeMDA, network=network, threshold=0.0)
    x = torch.randn(8, 96)
    for training in (False, True):
        assert torch.equal(method.augmenter.train(training)(x, torch.Generator())[0], x)
    logs = backward(method)
    assert logs["train/L_reg"] == logs["train/L_consist"] == logs["train/noise"] == 0.0
    assert logs["train/L_aug"] == logs["train/L_align"] and logs["train/L_kld"] > 0


def test_the_transformer_attends_across_modalities_and_not_across_the_batch():
    augmenter = TransformerVae({"audio": 16, "video": 16}, 8, 2).eval()
    x = torch.randn(3, 32)
    changed = x.clone()
    changed[1, :16] += torch.randn(16)  # the first token of the second sample
    mu = [augmenter(v, torch.Generator())[1] for v in (x, changed)]
    moved = (mu[0] - mu[1]).abs().sum(-1) > 1e-6  # [B, M]
    assert moved.tolist() == [[False, False], [True, True], [False, False]]


@pytest.mark.parametrize("values", [{"latent": 96}, {"latent": 92}, {"n_layer": 1}])
def test_sizes_that_leave_no_layer_are_refused(values):
    ((name, value),) = values.items()
    with pytest.raises(UsageError, match=f"--{name} {value}.* 96 features"):
        tiny_method(LeMDA, **values)
    assert hidden_sizes(96, 91, 4) == [95, 94, 93]


@pytest.mark.parametrize("widths", [{"a": 48, "v": 40}, {"a": 12, "v": 12}])
def test_the_transformer_refuses_widths_that_it_cannot_share(widths):
    with pytest.raises(UsageError, match="--network trans_vae needs.*use --network mlp_vae"):
        TransformerVae(widths, 8, 4)


@SUMS
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_encoders_get_exactly_joints_gradient_or_half_of_it(modalities, task_sum, factor):
    method = awake(modalities, threshold=0.0, task_sum=task_sum)
    joint = tiny_method(Joint, modalities)
    backward(method, modalities), backward(joint, modalities)
    pairs = zip(method.model.encoders.parameters(), joint.model.encoders.parameters())
    assert all(torch.equal(p.grad, factor * q.grad) for p, q in pairs)


@SUMS
def test_g_maximises_the_cross_entropy_of_its_features(task_sum, factor):
    method = awake(task_sum=task_sum, **(NO_WEIGHTS | {"adv": 0.25}))
    backward(method)
    found = last_linear(method).weight.grad
    torch.manual_seed(1)
    method.begin_epoch(9, None)  # the same eps
    f = method.model.encode(tiny_batch()["inputs"])
    x_aug = method.augmenter(torch.cat(list(f.values()), 1).detach(), method.generator)[0]
    climbed = F.cross_entropy(method.model.fusion(x_aug), tiny_batch()["label"])
    (plain,) = torch.autograd.grad(climbed, last_linear(method).weight)
    assert plain.abs().sum() > 0
    assert torch.allclose(found, -0.25 * factor * plain, rtol=1e-4, atol=1e-9)


def test_the_fusion_layer_gets_both_cross_entropies_whatever_adv_is():
    found = []
    for adv in (0.0, 0.5):
        method = awake(**(NO_WEIGHTS | {"adv": adv}))
        backward(method)
        found.append(method.model.fusion.weight.grad)
        assert (sum(p.grad.abs().sum() for p in method.augmenter.parameters()) > 0) == (adv > 0)
    joint = tiny_method(Joint)
    backward(joint)
    assert torch.equal(*found)
    assert not torch.allclose(found[0], joint.model.fusion.weight.grad, rtol=1e-3)


def test_consistency_trains_g_and_the_fusion_layer_or_g_alone():
    of_g = []
    for trained in (True, False):
        fusion = []
        for weight in (0.0, 5.0):
            values = NO_WEIGHTS | {"w_consist": weight, "threshold": 0.0}
            method = awake(consist_train_head=trained, **values)
            backward(method)
            fusion.append(method.model.fusion.weight.grad)
        assert torch.equal(*fusion) is not trained
        of_g.append(last_linear(method).weight.grad)
    assert of_g[0].abs().sum() > 0 and torch.allclose(*of_g)


@pytest.mark.parametrize(
    ("values", "learns"),
    [({"last_act": "relu"}, False), ({}, True), ({"network": "trans_vae"}, True)],
)
def test_the_released_last_layer_gets_no_gradient_and_ours_does(values, learns):
    method = tiny_method(LeMDA, **values)
    backward(method)
    assert (last_linear(method).weight.grad.abs().sum() > 0) == learns


@NETWORKS
def test_each_parameter_has_one_optimizer(network):
    method = tiny_method(LeMDA, network=network, aug_lr=3e-4)
    task, aug = method.optimizers(base)
    owned = [{id(p) for group in o.param_groups for p in group["params"]} for o in (task, aug)]
    assert owned[0] == {id(p) for p in method.model.parameters()}
    assert owned[1] == {id(p) for p in method.augmenter.parameters()}
    assert isinstance(aug, torch.optim.Adam)
    assert (aug.param_groups[0]["lr"], aug.param_groups[0]["weight_decay"]) == (3e-4, 0)


@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_the_gradients_of_both_networks_are_clipped_together(clip):
    method, reference = (awake(clip=clip) for _ in range(2))
    for part in (method, reference):
        backward(part)
    method.after_backward()
    assert nn.utils.clip_grad_norm_(reference.parameters(), clip or math.inf) > 0.1
    pairs = zip(method.parameters(), reference.parameters())
    assert all(torch.equal(p.grad, q.grad) for p, q in pairs)


@pytest.mark.parametrize("task_sum", [True, False])
def test_the_loss_is_the_weighted_sum_of_its_parts(task_sum):
    hp = {"w_consist": 0.3, "w_reg": 0.2, "w_kld": 0.7, "threshold": 0.0, "task_sum": task_sum}
    loss, logs = awake(**hp)(tiny_batch())
    part = {name.removeprefix("train/"): value.item() for name, value in logs.items()}
    task = (part["L_align"] + part["L_aug"]) * (1.0 if task_sum else 0.5)
    own = 0.3 * part["L_consist"] + 0.2 * part["L_reg"] + 0.7 * part["L_kld"]
    assert min(part["L_consist"], part["L_reg"], part["L_kld"]) > 0
    assert loss.item() == pytest.approx(task + own, rel=1e-5)
