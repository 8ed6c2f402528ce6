"""ReconBoost: the schedule, the two losses by hand, which parameters a stage may move."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles, tiny_batch, tiny_method
from small_runs import base, train

from methods.reconboost import ReconBoost, agreement, boosting, phase

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def softmax(row):
    top = max(row)
    parts = [math.exp(value - top) for value in row]
    return [part / sum(parts) for part in parts]


def slow_stage_loss(phi, labels, learner, before, hp):
    """L_boost + alpha L_agree of logits {m: lists} by loops over samples and classes."""
    size, classes = len(labels), len(phi[learner][0])
    boost = agree = 0.0
    for i, y in enumerate(labels):
        p = softmax(phi[learner][i])
        q = softmax([sum(phi[m][i][c] for m in phi if m != learner) for c in range(classes)])
        boost -= hp.w_label * math.log(p[y]) / classes
        for c in [y] if hp.reconcile == "label" else range(classes):
            boost += hp.w_rest * q[c] * math.log(p[c]) / classes
        if before:
            other = softmax(phi[before][i])
            agree += sum((one - two) ** 2 for one, two in zip(p, other)) / classes
    return (boost + hp.alpha * agree) / size


def test_stages_take_turns_and_each_is_followed_by_a_rectification():
    found = [phase(epoch, 2, 1) for epoch in range(1, 8)]
    assert found == [(0, 1), (0, 1), (0, 0), (1, 1), (1, 1), (1, 0), (2, 1)]
    assert [phase(epoch, 1, 0) for epoch in (1, 2, 3)] == [(0, True), (1, True), (2, True)]
    method = tiny_method(ReconBoost, TRIO, epoch=1)
    turns = []
    for epoch in range(1, 9):
        method.begin_epoch(epoch, None)
        turns.append((method.learner, method.before))
    text, audio, video = TRIO
    assert turns[::2] == [(text, None), (audio, text), (video, audio), (text, video)]
    assert all(learner is None for learner, _ in turns[1::2])


def test_the_boosting_loss_by_hand():
    own = doubles([0.5, 0.5], [0.9, 0.1]).log()
    rest = doubles([0.75, 0.25], [0.2, 0.8]).log() + 3
    label = torch.tensor([0, 0])
    # weights of the labels 5 - 0.75 and 5 - 0.2, averaged over two samples and two classes
    expected = -(4.25 * math.log(0.5) + 4.8 * math.log(0.9)) / 4
    assert boosting(own, rest, label, 5.0, 1.0).item() == pytest.approx(expected)
    more = (0.25 * math.log(0.5) + 0.8 * math.log(0.1)) / 4
    assert boosting(own, rest, label, 5.0, 1.0, "kl").item() == pytest.approx(expected + more)


def test_with_equal_weights_the_kl_form_steps_along_the_residual_of_the_others():
    """The gradient of boosting: minus (one-hot label - what the others predict)."""
    own, rest = doubles([0.3, -1.0, 2.0]).requires_grad_(), doubles([1.0, 0.0, 0.5])
    (3 * boosting(own, rest, torch.tensor([1]), 1.0, 1.0, "kl")).backward()
    residual = doubles([0.0, 1.0, 0.0]) - torch.softmax(rest, 1)
    assert torch.allclose(own.grad, -residual)


def test_the_agreement_by_hand_moves_only_the_learner():
    own = doubles([0.5, 0.5], [0.9, 0.1]).log().requires_grad_()
    other = doubles([0.7, 0.3], [0.9, 0.1]).log().requires_grad_()
    loss = agreement(own, other)
    assert loss.item() == pytest.approx(2 * 0.2**2 / 4)
    loss.backward()
    assert own.grad[0].abs().min() > 0 and other.grad is None


@SETS
@pytest.mark.parametrize("reconcile", ["label", "kl"])
def test_a_stage_matches_loops_over_samples(modalities, reconcile, monkeypatch):
    for epoch in (1, 3, 5):
        method = tiny_method(ReconBoost, modalities, epoch, reconcile=reconcile)
        batch, model = tiny_batch(modalities), method.model
        f = {m: 3 * x.double() for m, x in model.encode(batch["inputs"]).items()}
        model.heads.double()
        monkeypatch.setattr(model, "encode", lambda _, f=f: f)
        loss, logs = method(batch)
        phi = {m: z.tolist() for m, z in model.unimodal(f).items()}
        who = (method.learner, method.before)
        slow = slow_stage_loss(phi, batch["label"].tolist(), *who, method.hparams)
        assert loss.item() == pytest.approx(slow, rel=1e-6)
        assert ("train/L_agree" in logs) == (epoch > 1)


@SETS
def test_the_prediction_is_the_sum_of_the_learners(modalities):
    method = tiny_method(ReconBoost, modalities, epoch=2)
    f = method.model.encode(tiny_batch(modalities)["inputs"])
    learners = [f[m] @ h.weight.T + h.bias for m, h in method.model.heads.items()]
    assert torch.allclose(method.logits(f), sum(learners), atol=1e-6)
    loss, logs = method(tiny_batch(modalities))
    assert torch.equal(loss, logs["train/L_align"]) and "train/L_boost" not in logs


@SETS
def test_a_stage_moves_one_modality_and_the_rectification_moves_all(modalities):
    method, data = tiny_method(ReconBoost, modalities, epoch=1), TinySet(modalities, 16)
    optimizers = method.optimizers(base)
    for epoch, free in enumerate((modalities[:1], modalities, modalities[1:2], modalities), 1):
        before = {n: p.clone() for n, p in method.model.named_parameters()}
        train(method, data, epoch, epoch, optimizers)
        moved = {n for n, p in method.model.named_parameters() if not torch.equal(p, before[n])}
        assert {n.split(".")[1] for n in moved} == set(free)
        assert not any(n.startswith("fusion") for n in moved)


def test_without_alpha_a_stage_trains_as_the_public_codes_whose_agreement_has_no_gradient():
    gradients = []
    for alpha in (0.0, 0.5):
        method = tiny_method(ReconBoost, PAIR, epoch=3, alpha=alpha)
        loss, logs = method(tiny_batch())
        assert loss.item() == pytest.approx(
            (logs["train/L_boost"] + alpha * logs["train/L_agree"]).item()
        )
        loss.backward()
        gradients.append(method.model.heads[method.learner].weight.grad)
    assert not torch.allclose(*gradients)
