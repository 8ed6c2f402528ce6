"""InfoReg: its small functions by hand, and whole epochs against loops in float64."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles
from small_runs import base, make

from methods.inforeg import growth, lead, regulation

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def test_the_lead_by_hand():
    assert lead(doubles(5, 3)).tolist() == [2, -2]
    assert lead(doubles(5, 3, 1)).tolist() == [3, 0, -3]


def test_the_regulation_by_hand():
    opened = torch.tensor([True, True, False, True])
    found = regulation(doubles(0.5, -0.5, 0.5, 0.0), opened, 0.95)
    assert found.tolist() == pytest.approx([0.95 * math.exp(math.tanh(0.5)), 0, 0, 0])


@pytest.mark.parametrize("w", [1, 2, 5])
def test_the_growth_against_means_over_a_list(w):
    history, traces = [[0.0] * 2] * (w + 1), torch.zeros(w + 1, 2, dtype=torch.float64)
    for epoch in range(1, 9):
        history = [*history, [10.0 / epoch, 3.0 + epoch % 3]]
        traces = torch.cat([traces[1:], doubles(history[-1])])
        for m in range(2):
            now = sum(t[m] for t in history[-w:]) / w
            before = sum(t[m] for t in history[-w - 1 : -1]) / w
            assert growth(traces)[m].item() == pytest.approx((now - before) / now, abs=1e-12)


def test_no_trace_at_all_does_not_open_the_window():
    assert growth(torch.zeros(4, 2)).tolist() == [0, 0]


class Linear(torch.nn.Module):
    """A float64 encoder, with a tensor that counts in the trace and a vector that does not."""

    def __init__(self, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(5, 3, generator=draw).double())
        self.bias = torch.nn.Parameter(torch.randn(3, generator=draw).double())

    def forward(self, x):
        return x @ self.weight + self.bias


def linear_model(modalities):
    """(method, batches by epoch) with linear encoders, everything in float64."""
    method = make("InfoReg", modalities, window=2, threshold=0.3, w_uni=0.5, beta=0.7)
    method.double()
    method.model.encoders = torch.nn.ModuleDict({m: Linear(n) for n, m in enumerate(modalities)})
    method.model.fusion = torch.nn.Linear(3 * len(modalities), 4).double()
    for n, m in enumerate(modalities):
        method.model.modality_slices[m] = slice(3 * n, 3 * n + 3)
    encoders = method.model.encoders
    method.model.encode = lambda inputs: {m: encoders[m](x) for m, x in inputs.items()}
    draw = torch.Generator().manual_seed(1)

    def batch():
        inputs = {m: torch.randn(6, 5, generator=draw).double() for m in modalities}
        return {"inputs": inputs, "label": torch.arange(6) % 4}

    return method, [[batch() for _ in range(3)] for _ in range(4)]


def slow_gradients(weights, batch, modalities, beta, opened, start):
    """{(m, tensor): gradient} of one step by autograd on the plain losses, and each beta^m."""
    leaves = {k: v.clone().requires_grad_() for k, v in weights.items()}
    size, y = len(modalities), batch["label"]
    f = {m: x @ leaves[m, "weight"] + leaves[m, "bias"] for m, x in batch["inputs"].items()}
    w, b = leaves["fusion", "weight"], leaves["fusion", "bias"]
    parts = {m: f[m] @ w[:, 3 * n : 3 * n + 3].T + b / size for n, m in enumerate(modalities)}
    loss = 0.0
    for i, c in enumerate(y):
        z = sum(parts[m][i] for m in modalities)
        loss = loss - (z[c] - z.exp().sum().log()) / len(y)
        for m in modalities:
            loss = loss - 0.5 * (parts[m][i, c] - parts[m][i].exp().sum().log()) / len(y)
    loss.backward()
    score = {m: sum(parts[m].softmax(1)[i, c].item() for i, c in enumerate(y)) for m in modalities}
    betas, gradients = {}, {}
    for m in modalities:
        delta = score[m] - sum(score[k] for k in modalities if k != m) / (size - 1)
        betas[m] = beta * math.exp(math.tanh(delta)) if delta > 0 and opened[m] else 0.0
        for part in ("weight", "bias"):
            pull = betas[m] * (weights[m, part] - start[m, part])
            gradients[m, part] = leaves[m, part].grad + pull
    return gradients | {k: v.grad for k, v in leaves.items() if k[0] == "fusion"}, betas


@SETS
def test_four_epochs_against_loops(modalities):
    method, epochs = linear_model(modalities)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.3)
    weights = {("fusion", n): p.detach().clone() for n, p in method.model.fusion.named_parameters()}
    for m in modalities:
        named = method.model.encoders[m].named_parameters()
        weights |= {(m, n): p.detach().clone() for n, p in named}
    history, seen, pulls = {m: [] for m in modalities}, [], 0
    for number, batches in enumerate(epochs):
        opened = {}
        for m in modalities:
            past = [0.0, 0.0, 0.0, *history[m]]
            now, before = sum(past[-2:]) / 2, sum(past[-3:-1]) / 2
            opened[m] = number == 0 or (now - before) / now > 0.3
            seen.append(opened[m])
        start, trace = dict(weights), dict.fromkeys(modalities, 0.0)
        method.begin_epoch(number + 1, None)
        for batch in batches:
            expected, betas = slow_gradients(weights, batch, modalities, 0.7, opened, start)
            loss, logs = method(batch)
            optimizer.zero_grad()
            loss.backward()
            method.after_backward()
            for (m, part), gradient in expected.items():
                owner = method.model.fusion if m == "fusion" else method.model.encoders[m]
                assert torch.allclose(getattr(owner, part).grad, gradient, rtol=1e-6, atol=1e-9)
                weights[m, part] = weights[m, part] - 0.3 * gradient
            for m in modalities:
                assert logs[f"train/beta/{m}"].item() == pytest.approx(betas[m], rel=1e-6)
                pulls += betas[m] > 0
                squares = [g.item() ** 2 for g in expected[m, "weight"].flatten()]
                trace[m] += sum(squares) / len(squares)
            optimizer.step()
        logs = method.end_epoch()
        for m in modalities:
            history[m].append(trace[m])
            assert logs[f"train/trace/{m}"].item() == pytest.approx(trace[m], rel=1e-6)
            assert logs[f"train/window_open/{m}"] == opened[m]
    assert pulls and not all(seen) and any(seen[len(modalities) :])


def test_the_pull_slows_the_encoder_that_is_ahead():
    """With every window open: the larger beta, the less the leading encoder moves in an epoch."""
    moved = []
    for beta in (0.0, 20.0):
        method, data = make("InfoReg", beta=beta, threshold=-99.0), TinySet()
        (optimizer,) = method.optimizers(base)
        method.begin_epoch(2, data)
        first = {m: [p.detach().clone() for p in method.start[m]] for m in PAIR}
        for batch in data.epoch(2):
            method(batch)[0].backward()
            method.beta = torch.tensor([beta, 0.0])  # audio is ahead
            method.after_backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append(
            [
                sum((p - q).square().sum().item() for p, q in zip(parameters, first[m]))
                for m, parameters in ((m, method.model.encoder_parameters(m)) for m in PAIR)
            ]
        )
    assert moved[1][0] < 0.8 * moved[0][0] and moved[1][1] > 0.8 * moved[0][1], moved
