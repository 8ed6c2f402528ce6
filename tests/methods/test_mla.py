"""MLA: the recursion of P, the order of steps and projections, fusion by certainty."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.mla import MLA, absorb, certainty_weights

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])
LR = 0.05


def make(modalities, size=16, **values):
    """A method in float64 whose encoders are one weight matrix each, and stored inputs."""
    method = tiny_method(MLA, modalities, 1, size=size, **values).double()
    draw = torch.Generator().manual_seed(2)
    widths = method.model.widths
    method.model.encoders = torch.nn.ModuleDict(
        {m: torch.nn.Linear(3, w, bias=False) for m, w in widths.items()}
    ).double()
    method.model.encode = lambda x: {m: method.model.encoders[m](v) for m, v in x.items()}
    inputs = [
        {m: torch.randn(8, 3, generator=draw, dtype=torch.float64) for m in widths}
        for _ in range(2)
    ]
    label = torch.arange(8) % 4
    return method, [{"inputs": x, "label": label} for x in inputs]


def train(method, batches):
    optimizer = torch.optim.SGD(method.parameters(), lr=LR)
    found = []
    for batch in batches:
        for loss, _ in method.losses(batch):
            optimizer.zero_grad()
            loss.backward()
            method.after_backward()
            optimizer.step()
            found.append(loss.item())
    return found


def slow(method, batches, order, normalise, a):
    """(losses, W, P) of the same training, with gradients and recursion written out in loops."""
    w, b = method.head.weight.detach().clone(), method.head.bias.detach().clone()
    encoders = {m: e.weight.detach().clone() for m, e in method.model.encoders.items()}
    size = len(method.P)
    p, losses, done = torch.eye(size, dtype=torch.float64), [], 0
    for batch in batches:
        h = {m: batch["inputs"][m] @ encoders[m].T for m in encoders}
        for m in encoders:
            probability = torch.softmax(h[m] @ w.T + b, dim=1)
            error, loss = probability.clone(), 0.0
            for i, label in enumerate(batch["label"].tolist()):
                error[i, label] -= 1
                loss -= math.log(probability[i, label]) / 8
            losses.append(loss)
            grad_w, grad_b, grad_h = error.T @ h[m] / 8, error.sum(0) / 8, error @ w / 8
            r, alpha = h[m].mean(0), a ** (1 + done / 16)

            def step(p, r=r, alpha=alpha):
                denominator, k = alpha, [0.0] * size
                for i in range(size):
                    k[i] = sum(p[i, j] * r[j] for j in range(size))
                for i in range(size):
                    denominator += r[i] * k[i]
                q = p.clone()
                for i in range(size):
                    for j in range(size):
                        q[i, j] -= k[i] * k[j] / denominator
                return q / q.square().sum().sqrt() if normalise else q

            if order == "current":
                p = step(p)
            w = w - LR * grad_w @ p
            if order == "previous":
                p = step(p)
            b = b - LR * grad_b
            encoders[m] = encoders[m] - LR * grad_h.T @ batch["inputs"][m]
        done += 8
    return losses, w, p


@SETS
@pytest.mark.parametrize(
    ("order", "normalise", "a"), [("previous", True, 0.1), ("current", False, 0.5)]
)
def test_two_batches_equal_the_training_written_out(modalities, order, normalise, a):
    method, batches = make(modalities, projection=order, normalise=normalise, alpha=a)
    assert len(set(method.model.widths.values())) == 1  # no common width to learn
    losses, w, p = slow(method, batches, order, normalise, a)
    assert train(method, batches) == pytest.approx(losses, rel=1e-9)
    assert torch.allclose(method.head.weight, w, rtol=0, atol=1e-9)
    assert torch.allclose(method.P, p, rtol=0, atol=1e-9)


def test_golden_recursion():
    p = absorb(torch.eye(2, dtype=torch.float64), doubles(3.0, 0.0), 1.0, False)
    assert p.tolist() == [[pytest.approx(0.1), 0.0], [0.0, 1.0]]
    p = absorb(p, doubles(0.0, 1.0), 1.0, True)  # diag(0.1, 0.5), then its norm
    assert torch.allclose(p, torch.diag(doubles(0.1, 0.5)) / math.sqrt(0.26))


def test_the_head_no_longer_changes_its_answers_to_seen_features():
    """Without normalisation and with a small alpha, P is a projection off the absorbed features."""
    r = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = torch.eye(6, dtype=torch.float64)
    for row in r:
        p = absorb(p, row, 1e-9, False)
    update = torch.ones(4, 6, dtype=torch.float64) @ p  # of W
    assert (update @ r.T).abs().max() < 1e-7
    assert update.abs().max() > 0.1 and torch.allclose(p @ p, p, atol=1e-7)


@SETS
def test_a_step_changes_one_encoder_and_the_head(modalities):
    method = tiny_method(MLA, modalities, 1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)

    def weights():
        return {n: p.detach().clone() for n, p in method.named_parameters()}

    for _ in range(2):  # momentum of the first batch must not move another encoder in the second
        before = weights()
        for m, (loss, _) in zip(modalities, method.losses(tiny_batch(modalities)), strict=True):
            optimizer.zero_grad()
            loss.backward()
            method.after_backward()
            optimizer.step()
            after = weights()
            changed = {n for n in after if not torch.equal(after[n], before[n])}
            own = {n for n in after if n.startswith(f"model.encoders.{m}.")}
            assert changed - own == {"head.weight", "head.bias"} and changed & own
            before = after


def test_without_projection_the_gradient_is_that_of_the_loss():
    for order, equal in (("off", True), ("current", False)):
        method = tiny_method(MLA, PAIR, 1, projection=order)
        loss, _ = next(method.losses(tiny_batch()))
        (plain,) = torch.autograd.grad(loss, [method.head.weight], retain_graph=True)
        loss.backward()
        method.after_backward()
        assert torch.equal(method.head.weight.grad, plain) is equal


def test_alpha_falls_from_a_to_its_square_in_each_epoch():
    method, batches = make(PAIR, size=16, alpha=0.2)
    assert method.alpha == pytest.approx(0.2)
    train(method, batches[:1])
    assert method.alpha == pytest.approx(0.2**1.5)
    train(method, batches)
    assert method.alpha == pytest.approx(0.04)  # never less, though repeats were seen
    method.begin_epoch(2, None)
    assert method.alpha == pytest.approx(0.2)


@SETS
def test_predictions_are_weighted_by_certainty_of_each_sample(modalities):
    method = tiny_method(MLA, modalities, 1).double()
    draw = torch.Generator().manual_seed(3)
    torch.nn.init.normal_(method.head.weight, std=2.0, generator=draw)
    widths = method.model.widths.items()
    f = {m: torch.randn(5, w, generator=draw, dtype=torch.float64) for m, w in widths}
    z = {m: method.head(x) for m, x in f.items()}
    for i in range(5):
        raw = []
        for m in modalities:
            p = F.softmax(z[m][i], 0).tolist()
            raw.append(math.exp(sum(q * math.log(q) for q in p)))
        expected = sum(r / sum(raw) * z[m][i] for r, m in zip(raw, modalities))
        assert torch.allclose(method.logits(f)[i], expected, rtol=0, atol=1e-9)
    mean = tiny_method(MLA, modalities, 1, combine="mean").double()
    mean.load_state_dict(method.state_dict())
    assert torch.allclose(mean.logits(f), sum(z.values()) / len(z))


def test_golden_weights_of_a_certain_and_an_uncertain_prediction():
    z = torch.stack([doubles([1e4, 0.0, 0.0, 0.0]), doubles([0.0, 0.0, 0.0, 0.0])])
    assert certainty_weights(z)[:, 0].tolist() == pytest.approx([0.8, 0.2])  # e^0 : e^(-ln 4)
