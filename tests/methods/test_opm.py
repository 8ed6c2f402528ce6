"""OPM: golden numbers, what is dropped, what reduces to Joint, and OGM beside it."""

import pytest
import torch
import torch.nn.functional as F
from conftest import facts, tiny_batch, tiny_model

from methods.joint import Joint
from methods.ogm import OGM
from methods.opm import OPM, draw_masks, drop_features, drop_probability, dropped_width
from methods.ops import discrepancy_ratio, gradient_factor

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def led(cls=OPM, leaders=(("audio", 4.0),), modalities=PAIR, epoch=9, **values):
    """A method whose model lets `leaders` know the label of each sample of `one_class`."""
    model = tiny_model(modalities, heads=False)
    with torch.no_grad():
        model.fusion.weight.zero_()
        model.fusion.bias.zero_()
        for m, strength in leaders:
            model.fusion.weight[0, model.modality_slices[m]] = strength
    method = cls(model, cls.HParams(**{"warmup_epochs": 0, **values}), facts())
    method.begin_epoch(epoch, None)
    return method


def one_class(modalities=PAIR, size=8):
    """A batch of class 0 only."""
    batch = tiny_batch(modalities, size)
    batch["label"].zero_()
    return batch


def step(method, batch):
    """(logs, gradients before, gradients after `after_backward`, loss) of a step."""
    method.zero_grad(set_to_none=True)
    loss, logs = method(batch)
    loss.backward()
    before = {n: p.grad.clone() for n, p in method.model.named_parameters()}
    method.after_backward()
    return logs, before, {n: p.grad for n, p in method.model.named_parameters()}, loss.detach()


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


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_no_sample_ever_loses_all_modalities(modalities):
    draw, hidden = torch.Generator().manual_seed(modalities), 0
    for trial in range(300):
        score = torch.rand(modalities, generator=draw) * 64
        if trial % 3 == 1:  # apart by a rounding error or not at all
            score = score[0] * (1 + 1e-7 * torch.randint(-1, 2, (modalities,), generator=draw))
        if trial % 3 == 2:  # around the clamp of the denominators
            score = score * 1e-6
        q = drop_probability(discrepancy_ratio(score), 1.0, 1.0)
        _, keep = draw_masks(q, 50, 1.0, draw)
        assert keep[:, score.argmin()].all() and (modalities > 2 or (q > 0).sum() <= 1)
        assert dropped_width(q, dict.fromkeys("abcd"[:modalities], 2)) < 1
        hidden += (~keep).sum().item()
    assert hidden > 1000


def test_shares_of_dropped_rows_and_of_modulated_batches():
    q = torch.tensor([0.690399, 0.0, 0.25])
    gate, keep = draw_masks(q, 40_000, 1.0, torch.Generator().manual_seed(0))
    assert gate
    assert (1 - keep.float().mean(0)).tolist() == pytest.approx(q.tolist(), abs=0.01)
    both = (~keep[:, 0] & ~keep[:, 2]).float().mean()  # independent over modalities
    assert both.item() == pytest.approx(0.690399 * 0.25, abs=0.01)
    draw, q = torch.Generator().manual_seed(0), torch.tensor([1.0, 0.0])
    gates = torch.stack([torch.stack([g, ~k[0, 0]]) for g, k in (
        draw_masks(q, 1, 0.7, draw) for _ in range(5000))])  # fmt: skip
    assert gates[:, 0].float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert torch.equal(gates[:, 0], gates[:, 1])  # q = 1 drops exactly where the gate is open


def test_dropped_rows_send_no_gradient_to_the_leader():
    f = {m: torch.randn(30, 5, requires_grad=True) for m in "ab"}
    q = torch.tensor([0.5, 0.0])
    _, keep = draw_masks(q, 30, 1.0, torch.Generator().manual_seed(0))
    hidden = drop_features(f, keep, dropped_width(q, {"a": 5, "b": 5}))
    z = torch.cat(list(hidden.values()), 1) @ torch.randn(10, 3)
    F.cross_entropy(z, torch.arange(30) % 3).backward()
    assert 5 < keep[:, 0].sum() < 25
    assert (f["a"].grad[~keep[:, 0]] == 0).all() and (f["a"].grad[keep[:, 0]] != 0).any(1).all()
    assert (f["b"].grad != 0).any(1).all()


def test_a_step_is_the_functions_with_the_logged_probabilities_as_constants():
    method, batch = led(p_exe=1.0), one_class(size=16)
    method.model.eval()
    logs, grads, after, loss = step(method, batch)
    assert 0 < logs["train/dropped/audio"] < 1 and logs["train/dropped/video"] == 0
    ratio = logs["train/ratio/audio"]
    assert logs["train/drop/audio"].item() == drop_probability(ratio, 0.5, 0.5).item()
    assert all(torch.equal(after[n], g) for n, g in grads.items())  # no --ogm
    assert not [name for name in logs if name.startswith("train/k/")]
    q = torch.tensor([logs[f"train/drop/{m}"].item() for m in PAIR])
    again = led(p_exe=1.0)
    again.model.eval()
    _, keep = draw_masks(q, 16, 1.0, again.generator)
    f = drop_features(again.model.encode(batch["inputs"]), keep, dropped_width(q, {"a": 1, "v": 1}))
    expected = F.cross_entropy(again.model.fuse(f), batch["label"])
    expected.backward()
    assert torch.equal(loss, expected)
    for name, p in again.model.named_parameters():
        assert torch.equal(p.grad, grads[name])
    assert logs["train/dropped/audio"].item() == (~keep[:, 0]).float().mean().item()


def test_the_ratio_is_of_whole_features_even_if_all_of_them_are_dropped():
    hidden, whole = (step(led(q_base=1.0, p_exe=p), one_class())[0] for p in (1.0, 0.0))
    assert hidden["train/dropped/audio"] == 1 and whole["train/dropped/audio"] == 0
    assert all(hidden[f"train/ratio/{m}"] == whole[f"train/ratio/{m}"] for m in PAIR)


def test_a_closed_gate_is_joint_to_the_last_bit_although_something_leads():
    method, batch = led(q_base=0.9, p_exe=0.3), one_class()
    state = {n: v.clone() for n, v in method.state_dict().items()}
    seen = set()
    for _ in range(20):
        method.load_state_dict(state)
        joint = Joint(tiny_model(heads=False), Joint.HParams(), facts())
        joint.load_state_dict(state)
        logs, _, grads, loss = step(method, batch)
        _, _, expected_grads, expected = step(joint, batch)
        same = all(torch.equal(grads[n], g) for n, g in expected_grads.items())
        equal = same and torch.equal(loss, expected)
        assert logs["train/drop/audio"] > 0.5 and equal is (logs["train/gate"] == 0).item()
        seen.add(equal)
    assert seen == {True, False}


@pytest.mark.parametrize(("cls", "series"), [(OPM, "drop"), (OGM, "k")])
def test_the_window_opens_after_the_warm_up_and_closes_after_its_end(cls, series):
    method, acts = led(cls, warmup_epochs=3, end_epoch=5), []
    for epoch in range(1, 8):
        method.begin_epoch(epoch, None)
        logs, before, after, _ = step(method, one_class())
        acts.append(f"train/{series}/audio" in logs)
        if not acts[-1]:
            assert all(torch.equal(after[n], g) for n, g in before.items())
    assert acts == [False] * 3 + [True] * 2 + [False] * 2


# OGM ----------------------------------------------------------------------------------------------


def test_ogm_slows_the_matrices_of_each_leading_encoder_by_exactly_k():
    leaders = (("text", 0.4), ("audio", 0.3), ("video", 0.01))
    method = led(OGM, leaders, TRIO, noise=False)
    logs, before, after, _ = step(method, one_class(TRIO))
    k = {m: logs[f"train/k/{m}"] for m in TRIO}
    assert k["text"] < 1 and k["audio"] < 1 and k["video"] == 1
    for m in TRIO:
        assert k[m].item() == pytest.approx(gradient_factor(logs[f"train/ratio/{m}"], 0.3).item())
    for name, grad in before.items():
        slowed = name.startswith("encoders.") and grad.ndim == 4
        assert grad.abs().sum() > 0
        assert torch.equal(after[name], grad * k[name.split(".")[1]] if slowed else grad)


def test_noise_is_added_to_both_encoders_and_spares_batch_norms_biases_and_fusion():
    logs, before, after, _ = step(led(OGM), one_class())
    assert logs["train/k/video"] == 1
    for name, grad in before.items():
        noisy = name.startswith("encoders.") and grad.ndim > 1
        assert torch.equal(after[name], grad) is not noisy


def test_opm_with_ogm_uses_one_ratio_and_the_masked_gradients():
    logs, before, after, _ = step(led(p_exe=1.0, noise=False, ogm=True), one_class())
    ratio = logs["train/ratio/audio"]
    assert logs["train/drop/audio"].item() == drop_probability(ratio, 0.5, 0.5).item()
    assert logs["train/k/audio"].item() == gradient_factor(ratio, 0.3).item()
    alone = step(led(p_exe=1.0), one_class())[1]
    for name, grad in before.items():
        assert torch.equal(grad, alone[name])  # the same masks
        slowed = name.startswith("encoders.audio") and grad.ndim == 4
        assert torch.equal(after[name], grad * logs["train/k/audio"] if slowed else grad)
