"""OPM and OGM: golden numbers, what reduces to Joint, what is hidden and what is slowed."""

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, host_reads, tiny_batch, tiny_model
from torch import nn

from common.options import UsageError
from methods.joint import Joint
from methods.modulation import (
    OGM,
    OPM,
    draw_masks,
    drop_features,
    drop_probability,
    dropped_width,
    gradient_factor,
    modulate_gradient_,
    ratios,
    scores,
)
from models.classifier import Classifier

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def make(cls=OPM, modalities=PAIR, epoch=9, model=None, seed=0, **values):
    hp = cls.HParams(**{"warmup_epochs": 0, **values})
    method = cls(model or tiny_model(modalities, heads=False), hp, facts(seed=seed))
    method.begin_epoch(epoch, None)
    return method


def lead(model, leader, strength=4.0):
    """The model, changed so that the `leader` alone speaks for a class, always class 0."""
    with torch.no_grad():
        model.fusion.weight.zero_()
        model.fusion.bias.zero_()
        model.fusion.weight[0, model.modality_slices[leader]] = strength
    return model


def one_class(modalities=PAIR, size=8):
    """A batch of class 0 only."""
    batch = tiny_batch(modalities, size)
    batch["label"].zero_()
    return batch


def led(cls=OPM, leader="audio", modalities=PAIR, **values):
    """A method whose model lets `leader` know the label of each sample of `one_class`."""
    model = lead(tiny_model(modalities, heads=False), leader)
    return make(cls, modalities, model=model, **values)


class Passing(nn.Linear):
    """An encoder of plain vectors: weight [width, width] and bias [width]."""

    def __init__(self, width):
        super().__init__(width, width)
        self.width = width


def vector_model(widths, classes=4):
    torch.manual_seed(3)
    return Classifier({m: Passing(w) for m, w in widths.items()}, classes, False, 0)


def vector_batch(widths, size, classes=4):
    draw = torch.Generator().manual_seed(5)
    inputs = {m: torch.randn(size, w, generator=draw) for m, w in widths.items()}
    return {"label": torch.zeros(size, dtype=torch.long), "inputs": inputs}


def step(method, batch):
    """(loss, logs, {name: gradient after `after_backward`})."""
    method.zero_grad(set_to_none=True)
    loss, logs = method(batch)
    loss.backward()
    method.after_backward()
    return loss.detach(), logs, {n: p.grad.clone() for n, p in method.model.named_parameters()}


def assert_is_joint(method, batches, modalities=PAIR):
    joint = Joint(tiny_model(modalities, heads=False), Joint.HParams(), facts())
    joint.model.load_state_dict(method.model.state_dict())
    for batch in batches:
        loss, logs, grads = step(method, batch)
        expected, expected_logs, expected_grads = step(joint, batch)
        assert torch.equal(loss, expected)
        assert all(torch.equal(grads[n], g) for n, g in expected_grads.items())
        assert torch.equal(logs["train/acc"], expected_logs["train/acc"])
        assert torch.equal(logs["train/L_align"], expected)
    return logs


# Golden numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "q_base", "lam", "q"),
    [
        (2.0, 0.5, 0.5, 0.690399),
        (2.0, 0.4, 0.5, 0.552319),
        (1.5, 0.5, 0.5, 0.615529),
        (1.0, 0.5, 0.5, 0.0),
        (0.3, 0.5, 0.5, 0.0),
        (9.0, 0.9, 2.0, 1.0),  # clipped
    ],
)
def test_golden_drop_probability(rho, q_base, lam, q):
    found = drop_probability(torch.tensor([rho], dtype=torch.float64), q_base, lam)
    assert found.item() == pytest.approx(q, abs=1e-6)


@pytest.mark.parametrize(
    ("q", "widths", "theta", "factor"),
    [(0.690399, (512, 512), 0.345199, 1.527182), (0.615529, (768, 512), 0.369318, 1.585584)],
)
def test_golden_theta_and_rescaling(q, widths, theta, factor):
    found = dropped_width(torch.tensor([q, 0.0], dtype=torch.float64), dict(zip("ab", widths)))
    assert found.item() == pytest.approx(theta, abs=2e-6)
    ones = drop_features({"a": torch.ones(1, 3)}, torch.ones(1, 1, dtype=torch.bool), found)
    assert ones["a"].tolist() == [pytest.approx([factor] * 3, abs=2e-6)]


@pytest.mark.parametrize(
    ("rho", "alpha", "form", "k"),
    [
        (2.0, 0.3, "tanh", 0.462950),
        (2.0, 0.8, "tanh", 0.078331),
        (2.0, 1.0, "tanh", 0.035972),
        (2.0, 0.5, "tanh", 0.238406),
        (1.2, 0.3, "tanh", 0.654786),
        (1.5, 0.3, "tanh", 0.578101),
        (1.0, 0.3, "tanh", 1.0),
        (0.5, 0.3, "tanh", 1.0),
        (2.0, 0.3, "linear", 0.771522),  # 1 - 0.3 tanh(1), tanh(1) = 0.761594
        (2.0, 1.5, "linear", 0.0),  # 1 - 1.142391 is clamped
        (1.0, 0.3, "linear", 1.0),
    ],
)
def test_golden_gradient_factor(rho, alpha, form, k):
    found = gradient_factor(torch.tensor([rho], dtype=torch.float64), alpha, form)
    assert found.item() == pytest.approx(k, abs=1e-6)


# The ratio ----------------------------------------------------------------------------------------


def test_scores_are_sums_of_the_true_class_probability():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], dtype=torch.float64)
    found = scores({"a": p.log(), "b": p.flip(0).log()}, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([1.3, 0.5])


def test_two_ratios_multiply_to_one_and_scores_stay_within_the_batch():
    for seed in range(20):
        draw = torch.Generator().manual_seed(seed)
        logits = {m: 3 * torch.randn(64, 5, generator=draw) for m in "ab"}
        score = scores(logits, torch.arange(64) % 5)
        assert (score > 0).all() and (score <= 64).all()
        assert ratios(score).prod().item() == pytest.approx(1.0, abs=1e-5)


def test_three_ratios_are_averaged_over_the_other_modalities():
    found = ratios(torch.tensor([20.0, 10.0, 5.0]))
    assert found.tolist() == pytest.approx([(2 + 4) / 2, (0.5 + 2) / 2, (0.25 + 0.5) / 2])


def test_a_score_of_zero_gives_finite_ratios():
    found = ratios(torch.tensor([3.0, 0.0]))
    assert found.tolist() == pytest.approx([3e5, 0.0]) and found.isfinite().all()


def test_ratio_does_not_depend_on_the_order_of_the_batch():
    draw = torch.Generator().manual_seed(1)
    logits = {m: torch.randn(32, 4, generator=draw) for m in "abc"}
    y, order = torch.arange(32) % 4, torch.randperm(32, generator=draw)
    shuffled = scores({m: z[order] for m, z in logits.items()}, y[order])
    assert torch.allclose(ratios(shuffled), ratios(scores(logits, y)), atol=1e-6)


def test_ratio_is_of_the_whole_features():
    open_gate, joint_like = led(q_base=1.0, p_exe=1.0), led(p_exe=0.0)
    batch = one_class()
    _, hidden_logs, _ = step(open_gate, batch)
    _, whole_logs, _ = step(joint_like, batch)
    assert hidden_logs["train/dropped/audio"] == 1
    for m in PAIR:
        assert torch.equal(hidden_logs[f"train/ratio/{m}"], whole_logs[f"train/ratio/{m}"])


def test_logged_score_and_ratio_are_those_of_the_split_logits():
    method, batch = make(OGM), tiny_batch()
    method.model.eval()
    _, logs = method(batch)
    z = method.model.split_logits(method.model.encode(batch["inputs"]))
    score = torch.stack([F.softmax(v, 1)[range(8), batch["label"]].sum() for v in z.values()])
    for n, m in enumerate(PAIR):
        assert logs[f"train/score/{m}"].item() == pytest.approx(score[n].item() / 8, rel=1e-5)
        expected = (score[n] / score[1 - n]).item()
        assert logs[f"train/ratio/{m}"].item() == pytest.approx(expected, rel=1e-5)


# Masks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_no_sample_ever_loses_all_modalities(modalities):
    draw, hidden = torch.Generator().manual_seed(modalities), 0
    for trial in range(300):
        score = torch.rand(modalities, generator=draw) * 64
        if trial % 3 == 1:  # apart by a rounding error or not at all
            score = score[0] * (1 + 1e-7 * torch.randint(-1, 2, (modalities,), generator=draw))
        if trial % 3 == 2:  # around the clamp of the denominators
            score = score * 1e-6
        q = drop_probability(ratios(score), 1.0, 1.0)
        _, keep = draw_masks(q, 50, 1.0, draw)
        assert keep[:, score.argmin()].all()
        assert dropped_width(q, dict.fromkeys("abcd"[:modalities], 2)) < 1
        hidden += (~keep).sum().item()
    assert hidden > 1000


def test_of_two_modalities_at_most_one_is_dropped():
    draw = torch.Generator().manual_seed(0)
    for _ in range(300):
        q = drop_probability(ratios(torch.rand(2, generator=draw)), 0.5, 0.5)
        assert (q > 0).sum() <= 1


def test_share_of_hidden_rows_is_the_drop_probability():
    q = torch.tensor([0.690399, 0.0, 0.25])
    gate, keep = draw_masks(q, 40_000, 1.0, torch.Generator().manual_seed(0))
    assert gate
    assert (1 - keep.float().mean(0)).tolist() == pytest.approx(q.tolist(), abs=0.01)
    both = (~keep[:, 0] & ~keep[:, 2]).float().mean()  # independent over modalities
    assert both.item() == pytest.approx(0.690399 * 0.25, abs=0.01)


def test_share_of_modulated_batches_is_p_exe():
    draw, q = torch.Generator().manual_seed(0), torch.tensor([1.0, 0.0])
    gates = torch.stack([torch.stack([g, ~k[0, 0]]) for g, k in (
        draw_masks(q, 1, 0.7, draw) for _ in range(5000))])  # fmt: skip
    assert gates[:, 0].float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(gates[:, 0], gates[:, 1])  # q = 1 hides exactly where the gate is open


def test_a_large_batch_hides_the_leader_as_often_as_logged():
    widths = {"a": 6, "v": 4}
    model, batch, seen = lead(vector_model(widths), "a"), vector_batch(widths, 20_000), []
    with torch.no_grad():  # the leader's features all vote for class 0
        model.encoders["a"].bias.add_(5.0)
    method = make(model=model, p_exe=1.0)
    model.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _, logs = method(batch)
    hidden = (seen[0][:, :6] == 0).all(1).float().mean().item()
    assert hidden == pytest.approx(logs["train/drop/a"].item(), abs=0.01) and hidden > 0.5
    assert logs["train/dropped/a"].item() == pytest.approx(hidden, abs=1e-6)
    assert logs["train/dropped/v"] == logs["train/drop/v"] == 0
    theta = logs["train/theta"]
    assert theta.item() == pytest.approx(0.6 * logs["train/drop/a"].item(), rel=1e-6)
    f = model.encode(batch["inputs"])
    assert torch.equal(seen[0][:, 6:], f["v"] / (1 - theta))
    kept = (seen[0][:, :6] != 0).any(1)
    assert torch.equal(seen[0][kept, :6], (f["a"] / (1 - theta))[kept])


def test_hidden_rows_send_no_gradient_to_the_leader():
    f = {m: torch.randn(30, 5, requires_grad=True) for m in "ab"}
    q = torch.tensor([0.5, 0.0])
    _, keep = draw_masks(q, 30, 1.0, torch.Generator().manual_seed(0))
    hidden = drop_features(f, keep, dropped_width(q, {"a": 5, "b": 5}))
    weight = torch.randn(10, 3)
    y = torch.arange(30) % 3
    F.cross_entropy(torch.cat(list(hidden.values()), 1) @ weight, y).backward()
    assert 5 < keep[:, 0].sum() < 25
    assert (f["a"].grad[~keep[:, 0]] == 0).all() and (f["a"].grad[keep[:, 0]] != 0).any(1).all()
    assert (f["b"].grad != 0).any(1).all()


def test_no_gradient_flows_through_ratio_probability_or_theta():
    method, batch = led(q_base=0.5, p_exe=1.0), one_class(size=16)
    method.model.eval()
    _, logs, grads = step(method, batch)
    assert logs["train/dropped/audio"] > 0
    q = torch.tensor([logs[f"train/drop/{m}"].item() for m in PAIR])  # now constants
    again = led(p_exe=1.0)
    again.model.eval()
    _, keep = draw_masks(q, 16, 1.0, again.generator)
    theta = dropped_width(q, again.model.widths)
    f = drop_features(again.model.encode(batch["inputs"]), keep, theta)
    F.cross_entropy(again.model.fuse(f), batch["label"]).backward()
    for name, p in again.model.named_parameters():
        assert torch.equal(p.grad, grads[name])


# What is Joint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (OPM, {"p_exe": 0.0}),
        (OPM, {"q_base": 0.0, "p_exe": 1.0}),
        (OPM, {"warmup_epochs": 9, "p_exe": 1.0, "ogm": True}),
        (OPM, {"end_epoch": 8, "p_exe": 1.0, "ogm": True}),
        (OPM, {"p_exe": 0.0, "ogm": True, "alpha": 0.0, "noise": False}),
        (OGM, {"warmup_epochs": 9}),
        (OGM, {"end_epoch": 8}),
        (OGM, {"alpha": 0.0, "noise": False}),
    ],
)
def test_is_joint_to_the_last_bit(cls, values, modalities):
    method = make(cls, modalities, epoch=9, **values)
    assert_is_joint(method, [tiny_batch(modalities, seed=s) for s in range(2)], modalities)


def test_a_closed_gate_is_joint_to_the_last_bit_although_something_leads():
    method, batch = led(q_base=0.9, p_exe=0.3), one_class()
    state = {n: v.clone() for n, v in method.state_dict().items()}
    seen = set()
    for _ in range(30):
        method.load_state_dict(state)
        joint = Joint(tiny_model(heads=False), Joint.HParams(), facts())
        joint.load_state_dict(state)
        loss, logs, grads = step(method, batch)
        expected, _, expected_grads = step(joint, batch)
        same = all(torch.equal(grads[n], g) for n, g in expected_grads.items())
        equal = same and torch.equal(loss, expected)
        assert logs["train/drop/audio"] > 0.5 and equal is (logs["train/gate"] == 0).item()
        seen.add(equal)
    assert seen == {True, False}


@pytest.mark.parametrize(("cls", "series"), [(OPM, "drop"), (OGM, "k")])
def test_the_window_opens_after_the_warm_up_and_closes_after_its_end(cls, series):
    method, acts = make(cls, warmup_epochs=3, end_epoch=5), []
    for epoch in range(1, 8):
        method.begin_epoch(epoch, None)
        acts.append(f"train/{series}/audio" in method(tiny_batch())[1])
    assert acts == [False] * 3 + [True] * 2 + [False] * 2


def test_a_closed_window_leaves_gradients_alone_after_an_open_one():
    method, batch = led(OGM, end_epoch=9), one_class()
    step(method, batch)
    method.begin_epoch(10, None)
    loss, _ = method(batch)
    loss.backward()
    before = {n: p.grad.clone() for n, p in method.named_parameters()}
    method.after_backward()
    assert all(torch.equal(p.grad, before[n]) for n, p in method.named_parameters())


# OGM ----------------------------------------------------------------------------------------------


def before_and_after(method, batch):
    """({name: gradient before}, {name: gradient after}, logs)."""
    loss, logs = method(batch)
    loss.backward()
    before = {n: p.grad.clone() for n, p in method.model.named_parameters()}
    method.after_backward()
    return before, {n: p.grad for n, p in method.model.named_parameters()}, logs


def test_only_the_leading_convolutions_are_slowed_by_exactly_k():
    model = tiny_model(heads=False)
    with torch.no_grad():  # audio leads, and both encoders get gradients
        model.fusion.weight[0, model.modality_slices["audio"]] = 1.0
    method, batch = make(OGM, model=model, noise=False), one_class()
    before, after, logs = before_and_after(method, batch)
    k, changed = logs["train/k/audio"], set()
    assert k < 1 and logs["train/k/video"] == 1
    assert k.item() == pytest.approx(gradient_factor(logs["train/ratio/audio"], 0.3).item())
    for name, grad in before.items():
        slowed = name.startswith("encoders.audio") and grad.ndim == 4
        assert grad.abs().sum() > 0
        assert torch.equal(after[name], grad * k if slowed else grad)
        changed |= {name} if slowed else set()
    assert len(changed) == 3  # the small trunk's convolutions


def test_noise_spares_batch_norms_biases_and_the_fusion_layer_alone():
    before, after, logs = before_and_after(led(OGM, noise=True), one_class())
    assert logs["train/k/video"] == 1
    for name, grad in before.items():
        noisy = name.startswith("encoders.") and grad.ndim > 1  # the encoder with k = 1 as well
        assert torch.equal(after[name], grad) is not noisy


def test_noise_has_the_standard_deviation_of_the_gradient_as_it_came():
    draw = torch.Generator().manual_seed(0)
    grad = 0.01 * torch.randn(256, 512, generator=draw) + 0.02
    before, k = grad.clone(), torch.tensor(0.25)
    modulate_gradient_(grad, k, draw)
    noise = grad - k * before
    assert noise.std().item() == pytest.approx(before.std().item(), rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=2e-4)


def test_a_gradient_of_zero_gets_noise_of_the_floor():
    grad = torch.zeros(100, 100, dtype=torch.float64)
    modulate_gradient_(grad, torch.tensor(1.0), torch.Generator().manual_seed(0))
    assert grad.std().item() == pytest.approx(1e-8, rel=0.05)


def test_noise_comes_from_the_methods_generator():
    runs = []
    for seed, epoch in ((0, 9), (0, 9), (0, 8), (1, 9)):
        torch.manual_seed(len(runs))
        method = led(OGM, seed=seed, epoch=epoch)
        runs.append(before_and_after(method, one_class())[1])
    name = next(n for n in runs[0] if n.startswith("encoders.video") and runs[0][n].ndim == 4)
    assert torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])
    assert not torch.equal(runs[0][name], runs[3][name])


def test_parameters_without_gradient_or_with_one_element_are_skipped():
    widths = {"a": 3, "v": 3}
    model = vector_model(widths)
    model.encoders["a"].unused = nn.Parameter(torch.ones(2, 2))
    model.encoders["a"].scale = nn.Parameter(torch.ones(1, 1))
    model.encoders["a"].scalar = nn.Parameter(torch.tensor(1.0))
    method = make(OGM, model=model)
    loss, _ = method(vector_batch(widths, 8))
    (loss + 3 * model.encoders["a"].scale.sum() + 2 * model.encoders["a"].scalar).backward()
    method.after_backward()
    assert model.encoders["a"].unused.grad is None
    assert model.encoders["a"].scale.grad.item() == 3 and model.encoders["a"].scalar.grad == 2
    assert model.encoders["a"].weight.grad.isfinite().all()


@pytest.mark.parametrize("tensors", ["matrices", "conv4d"])
def test_matrices_are_modulated_unless_convolutions_are_asked_for(tensors):
    widths = {"a": 6, "v": 4}
    method = make(OGM, model=vector_model(widths), tensors=tensors)
    before, after, _ = before_and_after(method, vector_batch(widths, 8))
    for m in widths:
        same = torch.equal(before[f"encoders.{m}.weight"], after[f"encoders.{m}.weight"])
        assert same is (tensors == "conv4d")
        assert torch.equal(before[f"encoders.{m}.bias"], after[f"encoders.{m}.bias"])


@pytest.mark.parametrize("tensors", ["matrices", "conv4d"])
def test_convolutional_encoders_are_modulated_under_both_rules(tensors):
    before, after, _ = before_and_after(led(OGM, tensors=tensors), one_class())
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed == {n for n in before if n.startswith("encoders.") and before[n].ndim == 4}


def test_alpha_and_form_set_the_factor():
    found = {}
    for alpha, form in ((0.3, "tanh"), (0.8, "tanh"), (0.3, "linear")):
        _, _, logs = before_and_after(led(OGM, alpha=alpha, form=form), one_class())
        found[alpha, form] = logs["train/k/audio"].item()
        expected = gradient_factor(logs["train/ratio/audio"], alpha, form)
        assert found[alpha, form] == expected.item()
    assert len(set(found.values())) == 3


def test_three_modalities_slow_each_one_that_leads():
    model = lead(tiny_model(TRIO, heads=False), "text", strength=4.0)
    with torch.no_grad():  # audio a little ahead of the mean, video behind
        model.fusion.weight[0, model.modality_slices["audio"]] = 3.0
    method = make(OGM, TRIO, model=model, noise=False)
    before, after, logs = before_and_after(method, one_class(TRIO))
    factors = {m: logs[f"train/k/{m}"] for m in TRIO}
    assert factors["text"] < 1 and factors["audio"] < 1 and factors["video"] == 1
    for name, grad in before.items():
        m = name.split(".")[1]
        slowed = name.startswith("encoders.") and grad.ndim == 4
        assert torch.equal(after[name], grad * factors[m] if slowed else grad)


# OPM's options ------------------------------------------------------------------------------------


def test_both_together_use_one_ratio_and_the_masked_gradients():
    values = {"p_exe": 1.0, "noise": False, "ogm": True}
    before, after, logs = before_and_after(led(**values), one_class())
    ratio = logs["train/ratio/audio"]
    assert logs["train/drop/audio"].item() == drop_probability(ratio, 0.5, 0.5).item()
    assert logs["train/k/audio"].item() == gradient_factor(ratio, 0.3).item()
    alone = step(led(p_exe=1.0), one_class())[2]
    for name, grad in before.items():
        assert torch.equal(grad, alone[name])  # the same masks
        slowed = name.startswith("encoders.audio") and grad.ndim == 4
        assert torch.equal(after[name], grad * logs["train/k/audio"] if slowed else grad)


def test_without_ogm_gradients_are_left_alone():
    before, after, logs = before_and_after(led(p_exe=1.0), one_class())
    assert all(torch.equal(after[n], g) for n, g in before.items())
    assert not [name for name in logs if name.startswith("train/k/")]


def test_q_base_and_lam_set_the_drop_probability():
    found = set()
    for q_base, lam in ((0.5, 0.5), (0.4, 0.5), (0.5, 0.2)):
        _, logs = led(q_base=q_base, lam=lam, p_exe=1.0)(one_class())
        expected = drop_probability(logs["train/ratio/audio"], q_base, lam).item()
        assert logs["train/drop/audio"].item() == expected
        found.add(expected)
    assert len(found) == 3


def test_lag_applies_the_previous_steps_ratio():
    method = led(lag=True, p_exe=1.0, ogm=True)
    first = method(one_class())[1]
    assert first["train/drop/audio"] == 0 and first["train/ratio/audio"] > 1
    other = one_class()
    other["label"][:7] = 1  # the leader is wrong now
    second = method(other)[1]
    assert second["train/ratio/audio"] < 1 and second["train/k/audio"] == 1
    assert second["train/drop/audio"] == drop_probability(first["train/ratio/audio"], 0.5, 0.5)
    third = method(one_class())[1]
    assert third["train/drop/video"] == drop_probability(second["train/ratio/video"], 0.5, 0.5)
    assert third["train/drop/video"] > 0


def test_lag_watches_the_ratio_in_the_warm_up():
    method = led(lag=True, p_exe=1.0, warmup_epochs=9, epoch=9)
    last = method(one_class())[1]
    method.begin_epoch(10, None)
    now = method(one_class())[1]
    assert now["train/drop/audio"] == drop_probability(last["train/ratio/audio"], 0.5, 0.5)


def test_lags_first_step_is_joint_to_the_last_bit():
    assert_is_joint(make(lag=True, p_exe=1.0), [tiny_batch()])


def test_the_lagged_ratio_survives_a_round_trip():
    method, other = led(lag=True, p_exe=1.0), led(lag=True, p_exe=1.0)
    seen = method(one_class())[1]
    other.load_state_dict(method.state_dict())
    assert other.last_ratio.tolist() == [seen[f"train/ratio/{m}"].item() for m in PAIR]
    method.begin_epoch(10, None)
    other.begin_epoch(10, None)
    assert torch.equal(method(one_class())[0], other(one_class())[0])


def test_draws_depend_on_seed_and_epoch_alone():
    runs = []
    for seed, epoch in ((0, 4), (0, 4), (0, 5), (1, 4)):
        torch.manual_seed(len(runs))
        method = led(q_base=0.3, p_exe=0.5, epoch=epoch, seed=seed)
        logs = [method(one_class(size=16))[1] for _ in range(20)]
        runs.append([(v["train/gate"].item(), v["train/dropped/audio"].item()) for v in logs])
    assert runs[0] == runs[1] and runs[0] not in runs[2:]
    assert {gate for gate, _ in runs[0]} == {0.0, 1.0}


# The contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize(
    ("cls", "values"),
    [(OPM, {}), (OPM, {"ogm": True, "lag": True}), (OGM, {}), (OGM, {"form": "linear"})],
)
def test_gradient_reaches_each_encoder(cls, values, modalities):
    method = make(cls, modalities, **values)
    loss, _, grads = step(method, tiny_batch(modalities))
    assert loss.isfinite()
    for name, grad in grads.items():
        assert grad.isfinite().all() and grad.abs().sum() > 0, name


def test_log_names_and_values_are_detached_scalars():
    each = {"score", "ratio", "drop", "dropped", "k"}
    _, logs = make(ogm=True)(tiny_batch())
    names = {f"train/{series}/{m}" for series in each for m in PAIR}
    whole = {"train/acc", "train/L_align", "train/theta", "train/gate"}
    assert set(logs) == names | whole
    assert all(v.ndim == 0 and not v.requires_grad for v in logs.values())
    assert set(make(OGM)(tiny_batch())[1]) == {
        n for n in names | whole if n.split("/")[1] in {"score", "ratio", "k", "acc", "L_align"}
    }


def test_evaluation_is_joints():
    method, batch = led(q_base=1.0, p_exe=1.0), one_class()
    method.eval()
    f = method.model.encode(batch["inputs"])
    assert torch.equal(method.logits(f), method.model.fuse(f))


def test_defaults_are_the_documented_ones():
    assert vars(OPM.HParams()) == {
        "q_base": 0.5, "lam": 0.5, "p_exe": 0.7, "warmup_epochs": 6, "end_epoch": 0, "lag": False,
        "ogm": False, "alpha": 0.3, "noise": True, "tensors": "matrices", "form": "tanh",
    }  # fmt: skip
    assert vars(OGM.HParams()) == {
        "alpha": 0.3, "noise": True, "tensors": "matrices", "form": "tanh", "warmup_epochs": 10,
        "end_epoch": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "values", "modalities", "words"),
    [
        (OPM, {}, ["a"], "2 or more modalities"),
        (OGM, {"warmup_epochs": 20}, PAIR, "leaves no epoch of --max_epochs"),
        (OPM, {"end_epoch": 6}, PAIR, "--end_epoch 6 leaves no epoch after --warmup_epochs 6"),
        (OGM, {"end_epoch": 3}, PAIR, "after --warmup_epochs 10 for OGM"),
        (OPM, {"alpha": 0.8}, PAIR, "--alpha 0.8 does nothing without --ogm on"),
        (OPM, {"noise": False}, PAIR, "--noise off does nothing without --ogm on"),
    ],
)
def test_impossible_settings_are_refused(cls, values, modalities, words):
    with pytest.raises(UsageError, match=words):
        cls.check(cls.HParams(**values), 20, list(modalities))


@pytest.mark.parametrize("values", [{}, {"end_epoch": 7}, {"ogm": True, "alpha": 0.8}])
def test_possible_settings_are_accepted(values):
    assert OPM.check(OPM.HParams(**values), 20, list(TRIO)) is None


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize(("cls", "values"), [(OPM, {"ogm": True, "lag": True}), (OGM, {})])
def test_no_host_read_in_a_step(cls, values, modalities):
    method, batch = make(cls, modalities, **values), tiny_batch(modalities)
    step(method, batch)
    assert host_reads(lambda: (method(batch)[0].backward(), method.after_backward())) == 0
