"""LeMDA: golden numbers, the routing of the gradient, and the two optimizers."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, tiny_batch, tiny_model
from torch import nn

from common.options import UsageError
from methods.joint import Joint
from methods.lemda import (
    LeMDA,
    MlpVae,
    TransformerVae,
    consistency,
    hidden_sizes,
    kl_to_normal,
    sample_latent,
)
from methods.ops import scale_gradient

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")
NO_WEIGHTS = {"adv": 0.0, "w_consist": 0.0, "w_reg": 0.0, "w_kld": 0.0}
NETWORKS = pytest.mark.parametrize("network", ["mlp_vae", "trans_vae"])


def make(modalities=PAIR, awake=False, **values):
    """A method in training mode; `awake`: with noise, as if G had trained for a while."""
    model = tiny_model(modalities, heads=False)
    torch.manual_seed(0)  # as `assemble` does: equal settings make an equal G
    method = LeMDA(model, LeMDA.HParams(**values), facts())
    if awake:
        nn.init.normal_(last_linear(method).weight, std=0.5)
    method.begin_epoch(1, None)
    return method.train()


def last_linear(method):
    """The layer that makes the noise."""
    return [part for part in method.augmenter.modules() if isinstance(part, nn.Linear)][-1]


def backward(method, modalities=PAIR, seed=0):
    """One backward with fixed draws of dropout; returns the loss's logs."""
    torch.manual_seed(1)
    loss, logs = method(tiny_batch(modalities, seed=seed))
    loss.backward()
    return logs


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters()}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)


def train(method, steps):
    """Steps as the training loop makes them; returns the last step's logs."""
    optimizers = method.optimizers(sgd)
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss, logs = method(tiny_batch(seed=step))
        loss.backward()
        method.after_backward()
        for optimizer in optimizers:
            optimizer.step()
    return logs


# Golden numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "sizes"),
    [
        (1024, [821, 618, 415, 212]),
        (1280, [1026, 772, 518, 264]),
        (1536, [1231, 926, 621, 316]),
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
    for row, expected in enumerate((0.098886, 0.152101)):
        alone = consistency(z_aug[[row]], z[[row]], 0.0)[0]
        assert alone.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert z.grad is None and z_aug.grad.abs().sum() > 0


def test_golden_kl_of_the_latent_adds_up_over_tokens():
    mu, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4)]])
    assert kl_to_normal(mu, logvar).item() == pytest.approx(0.653426, abs=1e-5)
    tokens = mu.expand(5, 3, 2), logvar.expand(5, 3, 2)
    assert kl_to_normal(*tokens).item() == pytest.approx(3 * 0.653426, abs=1e-5)


def test_golden_routing():
    x, theta, w = (torch.tensor(v, dtype=torch.float64).requires_grad_() for v in (2.0, 0.5, 3.0))
    x_aug = x.detach() + theta
    loss = 0.5 * (w * scale_gradient(x_aug, -1e-4) - 6).square()
    loss.backward()
    assert x_aug.item() == 2.5 and (w * x_aug - 6).item() == 1.5
    assert w.grad.item() == pytest.approx(3.75)
    assert theta.grad.item() == pytest.approx(-4.5e-4)
    assert x.grad is None


# G ------------------------------------------------------------------------------------------------


@NETWORKS
def test_g_is_the_identity_at_the_start(network):
    method = make(network=network, threshold=0.0)
    x = torch.randn(8, 96)
    for training in (False, True):
        augmenter = method.augmenter.train(training)
        assert torch.equal(augmenter(x, torch.Generator())[0], x)
    logs = backward(method)
    assert logs["train/confident"] == 1.0
    assert logs["train/L_reg"] == logs["train/L_consist"] == logs["train/noise"] == 0.0
    assert logs["train/L_aug"] == logs["train/L_align"] and logs["train/L_kld"] > 0


def test_latent_has_the_asked_mean_and_spread():
    mu = torch.tensor([2.0, -1.0], dtype=torch.float64).expand(20000, 2)
    logvar = torch.tensor([0.0, math.log(9)], dtype=torch.float64).expand(20000, 2)
    drawn = sample_latent(mu, logvar, torch.Generator().manual_seed(0))
    assert drawn.mean(0).tolist() == pytest.approx([2.0, -1.0], abs=0.06)
    assert drawn.std(0).tolist() == pytest.approx([1.0, 3.0], abs=0.06)


def test_layers_of_the_mlp():
    linears = [m for m in MlpVae(64, 8, 4).modules() if isinstance(m, nn.Linear)]
    shapes = [(m.in_features, m.out_features) for m in linears]
    encoder, decoder = [64, 53, 42, 31, 20], [8, 20, 31, 42, 53, 64]
    heads = [(20, 8), (20, 8)]
    assert shapes == [*zip(encoder, encoder[1:]), *heads, *zip(decoder, decoder[1:])]


def test_transformer_attends_across_modalities_and_not_across_the_batch():
    torch.manual_seed(0)
    augmenter = TransformerVae({"audio": 16, "video": 16}, 8, 2).eval()
    nn.init.normal_(augmenter.last.weight)
    x = torch.randn(3, 32)
    changed = x.clone()
    changed[1, :16] += torch.randn(16)  # the first token of the second sample
    mu = [augmenter(v, torch.Generator().manual_seed(0))[1] for v in (x, changed)]
    moved = (mu[0] - mu[1]).abs().sum(-1) > 1e-6  # [B, M]
    assert moved.tolist() == [[False, False], [True, True], [False, False]]


@pytest.mark.parametrize("values", [{"latent": 96}, {"latent": 92}, {"n_layer": 1}])
def test_sizes_that_leave_no_layer_are_refused(values):
    ((name, value),) = values.items()
    with pytest.raises(UsageError, match=f"--{name} {value}.* 96 features"):
        make(**values)
    assert hidden_sizes(96, 91, 4) == [95, 94, 93]


@pytest.mark.parametrize("widths", [{"a": 48, "v": 40}, {"a": 12, "v": 12}])
def test_transformer_refuses_widths_that_it_cannot_share(widths):
    with pytest.raises(UsageError, match="--network trans_vae needs.*take --network mlp_vae"):
        TransformerVae(widths, 8, 4)


# Who gets which gradient --------------------------------------------------------------------------


@pytest.mark.parametrize(("task_sum", "factor"), [(False, 0.5), (True, 1.0)])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_encoders_get_joints_gradient_halved_or_whole_to_the_bit(modalities, task_sum, factor):
    method = make(modalities, awake=True, threshold=0.0, task_sum=task_sum)
    joint = Joint(tiny_model(modalities, heads=False), Joint.HParams(), facts()).train()
    logs, joint_logs = backward(method, modalities), backward(joint, modalities)
    assert torch.equal(logs["train/L_align"], joint_logs["train/L_align"])
    assert logs["train/L_consist"] > 0
    expected = gradients(joint.model.encoders)
    for name, grad in gradients(method.model.encoders).items():
        assert torch.equal(grad, factor * expected[name]), name


@pytest.mark.parametrize(("task_sum", "factor"), [(False, 0.5), (True, 1.0)])
def test_g_climbs_the_cross_entropy_of_its_features(task_sum, factor):
    method = make(awake=True, task_sum=task_sum, **(NO_WEIGHTS | {"adv": 0.25}))
    backward(method)
    found = last_linear(method).weight.grad
    torch.manual_seed(1)
    method.begin_epoch(1, None)  # the same eps
    batch = tiny_batch()
    f = method.model.encode(batch["inputs"])
    x_aug = method.augmenter(torch.cat(list(f.values()), 1).detach(), method.generator)[0]
    climbed = F.cross_entropy(method.model.fusion(x_aug), batch["label"])
    (plain,) = torch.autograd.grad(climbed, last_linear(method).weight)
    assert plain.abs().sum() > 0
    assert torch.allclose(found, -0.25 * factor * plain, rtol=1e-4, atol=1e-9)


def test_fusion_gets_both_cross_entropies_whatever_adv_is_and_g_nothing_without_weights():
    found = []
    for adv in (0.0, 0.5):
        method = make(awake=True, **(NO_WEIGHTS | {"adv": adv}))
        backward(method)
        found.append(method.model.fusion.weight.grad)
        of_g = [g.abs().sum() for g in gradients(method.augmenter).values()]
        assert (sum(of_g) > 0) == (adv > 0)
    joint = Joint(tiny_model(heads=False), Joint.HParams(), facts()).train()
    backward(joint)
    assert torch.equal(*found)
    assert not torch.allclose(found[0], joint.model.fusion.weight.grad, rtol=1e-3)


def test_consistency_trains_g_and_the_fusion_layer_or_g_alone():
    of_g = []
    for trained in (True, False):
        fusion = []
        for weight in (0.0, 5.0):
            values = NO_WEIGHTS | {"w_consist": weight, "threshold": 0.0}
            method = make(awake=True, consist_train_head=trained, **values)
            backward(method)
            fusion.append(method.model.fusion.weight.grad)
        assert torch.equal(*fusion) is not trained
        of_g.append(last_linear(method).weight.grad)
    assert of_g[0].abs().sum() > 0 and torch.allclose(*of_g)


@NETWORKS
def test_gradient_reaches_all_of_g(network):
    method = make(TRIO, awake=True, network=network)
    backward(method, TRIO)
    grads = gradients(method.augmenter)
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    assert all(g.abs().sum() > 0 for name, g in grads.items() if name.endswith("weight"))


# The two optimizers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "learns"),
    [({"last_act": "relu"}, False), ({}, True), ({"network": "trans_vae"}, True)],
)
def test_released_last_layer_never_learns_and_ours_does(values, learns):
    method, moved = make(**values), []
    last_linear(method).weight.register_hook(lambda grad: moved.append(grad.abs().sum() > 0))
    logs = train(method, 12)
    assert moved == [learns] * 12
    assert (last_linear(method).weight.abs().sum() > 0) == learns
    assert (logs["train/noise"] > 0) == learns


@NETWORKS
def test_each_parameter_has_one_optimizer(network):
    method = make(network=network, aug_lr=3e-4)
    task, aug = method.optimizers(sgd)
    assert isinstance(task, torch.optim.SGD) and isinstance(aug, torch.optim.Adam)
    owned = [[p for group in o.param_groups for p in group["params"]] for o in (task, aug)]
    assert {id(p) for p in owned[0]} == {id(p) for p in method.model.parameters()}
    assert {id(p) for p in owned[1]} == {id(p) for p in method.augmenter.parameters()}
    assert len(owned[0]) + len(owned[1]) == len(list(method.parameters()))
    assert (aug.param_groups[0]["lr"], aug.param_groups[0]["weight_decay"]) == (3e-4, 0)


@pytest.mark.parametrize("clip", [0.0, 0.1, 1e6])
def test_the_gradients_of_both_networks_are_clipped_together(clip):
    method, reference = (make(awake=True, clip=clip) for _ in range(2))
    backward(method), backward(reference)
    method.after_backward()
    norm = nn.utils.clip_grad_norm_(reference.parameters(), clip or math.inf)
    assert norm > 0.1
    for name, grad in gradients(method).items():
        assert torch.equal(grad, gradients(reference)[name]), name


@pytest.mark.parametrize("task_sum", [True, False])
def test_loss_is_the_weighted_sum_of_its_parts(task_sum):
    hp = {"w_consist": 0.3, "w_reg": 0.2, "w_kld": 0.7, "threshold": 0.0, "task_sum": task_sum}
    loss, logs = make(awake=True, **hp)(tiny_batch())
    part = {name.removeprefix("train/"): value.item() for name, value in logs.items()}
    task = (part["L_align"] + part["L_aug"]) * (1.0 if task_sum else 0.5)
    own = 0.3 * part["L_consist"] + 0.2 * part["L_reg"] + 0.7 * part["L_kld"]
    assert min(part["L_consist"], part["L_reg"], part["L_kld"]) > 0
    assert loss.item() == pytest.approx(task + own, rel=1e-5)


def test_threshold_selects_confident_rows():
    shares = []
    for threshold in (0.0, 0.7, 1.0):
        method = make(awake=True, threshold=threshold)
        nn.init.normal_(method.model.fusion.weight, generator=torch.Generator().manual_seed(0))
        logs = backward(method)
        shares.append(logs["train/confident"].item())
        assert (logs["train/L_consist"] > 0) == (shares[-1] > 0)
    assert shares[0] == 1.0 > shares[1] > shares[2] == 0.0
