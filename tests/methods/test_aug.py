"""AUG: the residual loss, the choice of the weak modality, when heads are added and what trains."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles, tiny_batch, tiny_method

from methods.aug import AUG, boosting_loss, weakest

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def log_softmax(z):
    total = math.log(sum(math.exp(v) for v in z))
    return [v - total for v in z]


def slow_loss(outputs, labels, lam):
    """The loss of one modality, with the code's soft labels, written out over samples."""
    total = 0.0
    for i, label in enumerate(labels.tolist()):
        rows = [z[i].tolist() for z in outputs]
        full = [sum(v) for v in zip(*rows)]
        total -= log_softmax(full)[label]
        if len(rows) > 1:
            old = [sum(v) for v in zip(*rows[:-1])]
            total -= log_softmax(old)[label]
            soft = [0.0] * len(old)
            soft[label] = 1 - lam * math.exp(log_softmax(old)[label])
            total -= sum(y * v for y, v in zip(soft, log_softmax(rows[-1])))
    return total / len(labels)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_loss_equals_a_loop_over_samples(heads):
    draw = torch.Generator().manual_seed(heads)
    z = [torch.randn(6, 4, generator=draw, dtype=torch.float64) for _ in range(heads)]
    y = torch.arange(6) % 4
    assert boosting_loss(z, y, 0.3).item() == pytest.approx(slow_loss(z, y, 0.3), rel=1e-9)


def test_golden_residual_and_its_gradients():
    """Earlier heads with p = 3/4 on the label: lam = 0.8 leaves 0.4 of it to the new head."""
    old, new = doubles([math.log(3), 0.0]), doubles([0.0, 0.0])
    old.requires_grad_()
    loss = boosting_loss([old, new], torch.tensor([0]), 0.8)
    assert loss.item() == pytest.approx(2 * math.log(4 / 3) + 0.4 * math.log(2))
    (gradient,) = torch.autograd.grad(loss, [old])  # of two cross-entropies; none through p
    assert gradient.tolist() == [[pytest.approx(-0.5), pytest.approx(0.5)]]


def test_the_weak_modality_must_be_clearly_below_the_others():
    assert weakest(torch.tensor([10.0, 9.8]), 0.01) == 1
    assert weakest(torch.tensor([9.8, 10.0]), 0.01) == 0
    assert weakest(torch.tensor([10.0, 9.95]), 0.01) is None
    assert weakest(torch.tensor([8.0, 6.0, 4.0]), 0.4) == 2  # 4 < 0.6 * 7
    assert weakest(torch.tensor([8.0, 6.0, 4.0]), 0.5) is None
    assert weakest(torch.zeros(2), 0.01) is None


def test_heads_are_added_after_the_first_epoch_and_then_in_steps_up_to_the_limit():
    method = tiny_method(AUG, TRIO, 1, every=3, max_heads=3)
    seen = []
    for epoch in range(1, 15):
        method.begin_epoch(epoch, None)
        seen.append(method.counts.tolist())
        method.score.copy_(torch.tensor([3.0, 1.0, 2.0]))
    # After epochs 1, 3, 6; there is no fourth.
    assert [c[1] for c in seen] == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert all(c[0] == c[2] == 0 for c in seen)


@SETS
def test_a_batch_equals_its_losses_written_out_and_the_score_is_that_of_the_epoch(modalities):
    method = tiny_method(AUG, modalities, 1, lam=0.25)
    method.counts[1] = 2
    method.begin_epoch(2, None)
    method.eval()  # the same features in each pass
    batch = tiny_batch(modalities)
    y, score = batch["label"], torch.zeros(len(modalities))
    with torch.no_grad():
        f = method.model.encode(batch["inputs"])
        z = {}
        for k, m in enumerate(modalities):
            z[m] = []
            for embed in method.embed[m][: 3 if k == 1 else 1]:
                hidden = (f[m] @ embed.weight.T + embed.bias).clamp_min(0)
                z[m].append(hidden @ method.shared.weight.T + method.shared.bias)
        for _ in range(2):  # no step between: the same losses, and twice the score
            for (loss, logs), m in zip(method.losses(batch), modalities, strict=True):
                expected = slow_loss(z[m], y, 0.25)
                assert loss.item() == pytest.approx(expected, rel=1e-5)
                assert logs[f"train/L_uni/{m}"].item() == loss.item()
    for k, m in enumerate(modalities):
        p = sum(z[m]).softmax(1)
        score[k] = 2 * sum(p[i, label] for i, label in enumerate(y.tolist()))
    assert torch.allclose(method.score, score)
    assert torch.allclose(method.logits(f), sum(sum(v) for v in z.values()) / len(z), atol=1e-6)
    method.begin_epoch(3, None)
    assert not method.score.any()


@SETS
@pytest.mark.parametrize("heads", ["trained", "frozen"])
def test_a_step_trains_one_modality_and_only_heads_in_use(modalities, heads):
    method = tiny_method(AUG, modalities, 1, heads=heads)
    method.counts[0] = 2
    method.begin_epoch(2, None)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    for _ in range(2):  # momentum of the first batch must not move others in the second
        for m, (loss, _) in zip(modalities, method.losses(tiny_batch(modalities)), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            after = {n: p.detach().clone() for n, p in method.named_parameters()}
            changed = {n for n in after if not torch.equal(after[n], before[n])}
            used = range(3 if m == modalities[0] and heads == "trained" else 1)
            embeds = {f"embed.{m}.{k}.{part}" for k in used for part in ("weight", "bias")}
            rest = {n for n in changed if not n.startswith(f"model.encoders.{m}.")}
            assert rest == embeds | {"shared.weight", "shared.bias"} and changed > rest
            before = after


def test_a_new_head_is_random_until_its_first_epoch_and_does_not_reach_the_evaluation_before():
    data = TinySet(size=16)
    method = tiny_method(AUG, PAIR, 1, data, margin=0.0)
    f = method.model.encode(data.data["inputs"])
    for batch in data.epoch(1):
        list(method.losses(batch))
    before = method.logits(f)
    method.end_epoch()
    assert torch.equal(method.logits(f), before)
    method.begin_epoch(2, data)
    assert method.counts.sum() == 1 and not torch.allclose(method.logits(f), before)
