"""OPM: golden numbers, what is dropped, when it equals Joint, and combination with OGM."""

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.ogm import OGM
from methods.opm import OPM, draw_masks, drop_features, drop_probability, dropped_width
from methods.ops import discrepancy_ratio, gradient_factor


def led(cls=OPM, leaders=(("audio", 4.0),), modalities=PAIR, **values):
    """A method whose model lets `leaders` predict the label of each sample of `one_class`."""
    method = tiny_method(cls, modalities, **{"warmup_epochs": 0, **values})
    with torch.no_grad():
        method.model.fusion.weight.zero_()
        method.model.fusion.bias.zero_()
        for m, strength in leaders:
            method.model.fusion.weight[0, method.model.modality_slices[m]] = strength
    return method


def one_class(modalities=PAIR, size=8):
    """A batch of class 0 only."""
    return tiny_batch(modalities, size) | {"label": torch.zeros(size, dtype=torch.int64)}


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
        (1.0, 0.5, 0.5, 0.0),
        (9.0, 0.9, 2.0, 1.0),  # clipped
    ],
)
def test_golden_drop_probability(rho, q_base, lam, q):
    assert drop_probability(doubles(rho), q_base, lam).item() == pytest.approx(q, abs=1e-6)


@pytest.mark.parametrize(
    ("q", "widths", "theta", "factor"),
    [(0.690399, (512, 512), 0.345199, 1.527182), (0.615529, (768, 512), 0.369318, 1.585584)],
)
def test_golden_theta_and_rescaling(q, widths, theta, factor):
    found = dropped_width(doubles(q, 0.0), dict(zip("ab", widths)))
    assert found.item() == pytest.approx(theta, abs=2e-6)
    ones = drop_features({"a": torch.ones(1, 3)}, torch.ones(1, 1, dtype=torch.bool), found)
    assert ones["a"].tolist() == [pytest.approx([factor] * 3, abs=2e-6)]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_sample_ever_loses_all_modalities(count):
    draw, hidden = torch.Generator().manual_seed(count), 0
    for trial in range(300):
        score = torch.rand(count, generator=draw) * 64
        if trial % 3 == 1:  # equal, or apart by a rounding error
            score = score[0] * (1 + 1e-7 * torch.randint(-1, 2, (count,), generator=draw))
        if trial % 3 == 2:  # around the clamp of the denominators
            score = score * 1e-6
        q = drop_probability(discrepancy_ratio(score), 1.0, 1.0)
        _, keep = draw_masks(q, 50, 1.0, draw)
        assert keep[:, score.argmin()].all()
        assert dropped_width(q, dict.fromkeys("abcd"[:count], 2)) < 1
        hidden += (~keep).sum().item()
    assert hidden > 1000


def test_shares_of_dropped_rows_and_of_modulated_batches():
    draw, q = torch.Generator().manual_seed(0), torch.tensor([0.690399, 0.0, 0.25])
    _, keep = draw_masks(q, 40_000, 1.0, draw)
    assert (1 - keep.float().mean(0)).tolist() == pytest.approx(q.tolist(), abs=0.01)
    both = (~keep[:, 0] & ~keep[:, 2]).float().mean()  # independent over modalities
    assert both.item() == pytest.approx(0.690399 * 0.25, abs=0.01)
    gates = [draw_masks(torch.tensor([1.0, 0.0]), 1, 0.7, draw) for _ in range(5000)]
    assert all(gate != keep[0, 0] for gate, keep in gates)  # q = 1 drops if the gate is open
    assert sum(gate.item() for gate, _ in gates) / 5000 == pytest.approx(0.7, abs=0.02)


def test_a_step_is_the_functions_with_the_logged_probabilities_as_constants():
    method, batch = led(p_exe=1.0).eval(), one_class(size=16)
    logs, grads, after, loss = step(method, batch)
    assert 0 < logs["train/dropped/audio"] < 1 and logs["train/dropped/video"] == 0
    assert all(torch.equal(after[n], g) for n, g in grads.items())  # no --ogm
    q = torch.stack([logs[f"train/drop/{m}"] for m in PAIR])
    assert q[0] == drop_probability(logs["train/ratio/audio"], 0.5, 0.5)
    again = led(p_exe=1.0).eval()
    _, keep = draw_masks(q, 16, 1.0, again.generator)
    f = drop_features(again.model.encode(batch["inputs"]), keep, dropped_width(q, {"a": 1, "v": 1}))
    expected = F.cross_entropy(again.model.fuse(f), batch["label"])
    expected.backward()
    assert torch.equal(loss, expected)
    for n, p in again.model.named_parameters():  # not to the bit on every processor
        assert torch.allclose(p.grad, grads[n], rtol=1e-5, atol=1e-7), n


def test_the_ratio_uses_unmasked_features_even_if_all_are_dropped():
    hidden, whole = (step(led(q_base=1.0, p_exe=p), one_class())[0] for p in (1.0, 0.0))
    assert hidden["train/dropped/audio"] == 1 and whole["train/dropped/audio"] == 0
    assert all(hidden[f"train/ratio/{m}"] == whole[f"train/ratio/{m}"] for m in PAIR)


@pytest.mark.parametrize(("cls", "series"), [(OPM, "drop"), (OGM, "k")])
def test_the_window_opens_after_the_warm_up_and_closes_after_its_end(cls, series):
    method, acts = led(cls, warmup_epochs=3, end_epoch=5), []
    for epoch in range(1, 8):
        method.begin_epoch(epoch, None)
        logs, before, after, _ = step(method, one_class())
        acts.append(f"train/{series}/audio" in logs)
        assert acts[-1] or all(torch.equal(after[n], g) for n, g in before.items())
    assert acts == [False] * 3 + [True] * 2 + [False] * 2


def test_ogm_slows_the_matrices_of_each_leading_encoder_by_exactly_k():
    leaders = (("text", 0.4), ("audio", 0.3), ("video", 0.01))
    logs, before, after, _ = step(led(OGM, leaders, TRIO, noise=False), one_class(TRIO))
    k = {m: logs[f"train/k/{m}"] for m in TRIO}
    assert k["text"] < 1 and k["audio"] < 1 and k["video"] == 1
    for m in TRIO:
        assert k[m].item() == pytest.approx(gradient_factor(logs[f"train/ratio/{m}"], 0.3).item())
    for name, grad in before.items():
        slowed = name.startswith("encoders.") and grad.ndim == 4
        assert torch.equal(after[name], grad * k[name.split(".")[1]] if slowed else grad)


def test_noise_is_added_to_both_encoders_and_spares_batch_norms_biases_and_fusion():
    logs, before, after, _ = step(led(OGM), one_class())
    assert logs["train/k/video"] == 1
    for name, grad in before.items():
        noisy = name.startswith("encoders.") and grad.ndim > 1
        assert torch.equal(after[name], grad) is not noisy


def test_opm_with_ogm_uses_one_ratio_and_the_masked_gradients():
    logs, before, after, _ = step(led(p_exe=1.0, noise=False, ogm=True), one_class())
    k = logs["train/k/audio"]
    assert k == gradient_factor(logs["train/ratio/audio"], 0.3)
    alone = step(led(p_exe=1.0), one_class())[1]
    for name, grad in before.items():
        assert torch.equal(grad, alone[name])  # the same masks
        slowed = name.startswith("encoders.audio") and grad.ndim == 4
        assert torch.equal(after[name], grad * k if slowed else grad)
