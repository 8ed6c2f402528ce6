"""G-Blending: weights by hand, the estimate against separate copies, what it leaves alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, TinySet, doubles, equal_states, tiny_batch, tiny_model
from small_runs import train

from methods.base import Facts
from methods.gblending import Change, GBlending, blend

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


def made(modalities=PAIR, size=20, lr=0.05, **values):
    model = tiny_model(modalities)
    method = GBlending(model, GBlending.HParams(**values), Facts(0, 10, size, 4))
    (optimizer,) = method.optimizers(sgd)
    optimizer.param_groups[0]["lr"] = lr
    return method


def started(method, data, epoch=1):
    """The plan of an epoch whose weights have been estimated."""
    torch.manual_seed(epoch)
    return method.begin_epoch(epoch, data)


def slow_losses(model, data, positions):
    """Mean loss of each head and of the fused logits, sample by sample."""
    model.eval()
    totals = [0.0] * (len(model.modalities) + 1)
    for position in positions:
        batch = data.take(torch.tensor([position]))
        f = model.encode(batch["inputs"])
        for k, z in enumerate([*model.unimodal(f).values(), model.fuse(f)]):
            totals[k] -= torch.log_softmax(z, 1)[0, batch["label"][0]].item()
    return [total / len(positions) for total in totals]


def slow_changes(method, data, orders):
    """(dG, dO) of each loss, each from a copy of the model that is trained on it alone."""
    held, rest = method.held_out.tolist(), method.rest.tolist()
    changes = []
    for k in range(len(method.model.modalities) + 1):
        model = copy.deepcopy(method.model)
        values = [[slow_losses(model, data, part)[k] for part in (rest, held)]]
        optimizer = sgd(model.parameters())
        optimizer.param_groups[0]["lr"] = 0.02
        for order in orders:
            model.train()
            for start in range(0, len(order), data.batch):
                batch = data.take(order[start : start + data.batch])
                f = model.encode(batch["inputs"])
                z = [*model.unimodal(f).values(), model.fuse(f)][k]
                optimizer.zero_grad()
                F.cross_entropy(z, batch["label"]).backward()
                optimizer.step()
        values.append([slow_losses(model, data, part)[k] for part in (rest, held)])
        (train_0, held_0), (train_1, held_1) = values
        changes.append([held_0 - held_1, (held_1 - train_1) - (held_0 - train_0)])
    return doubles(*zip(*changes))


def test_the_weights_by_hand():
    before = doubles([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    after = doubles([0.2, 0.8, 0.5], [0.6, 0.9, 0.8])
    change = Change.between(before, after)
    assert change.gain.tolist() == pytest.approx([0.4, 0.1, 0.2])
    assert change.overfitting.tolist() == pytest.approx([0.4, 0.1, 0.3])
    ratios = [0.4 / 0.16, 0.1 / 0.01, 0.2 / 0.09]
    assert blend(change).tolist() == pytest.approx([r / sum(ratios) for r in ratios])


def test_a_rising_held_out_loss_gets_nearly_no_weight_or_with_abs_a_large_one():
    change = Change(doubles(0.3, -0.3), doubles(0.5, 0.5))
    assert blend(change).tolist() == pytest.approx([300 / 301, 1 / 301])
    assert blend(change, "abs").tolist() == pytest.approx([0.5, 0.5])


def test_no_overfitting_and_no_gain_at_all_give_finite_weights():
    nothing = torch.zeros(3, dtype=torch.float64)
    assert blend(Change(nothing, nothing)).tolist() == pytest.approx([1 / 3] * 3)


@SETS
def test_the_estimate_is_that_of_copies_trained_on_one_loss_each(modalities, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    method = made(modalities, size=26, lr=0.02, super_epoch=3, held_out=0.3)
    method.model.double()
    data, orders = TinySet(modalities, 26), []
    batches = data.batches

    def noted(indices=None, transforms="eval", batch_size=None):
        if transforms == "train":
            orders.append(torch.tensor(indices))
        return batches(indices, transforms, batch_size)

    monkeypatch.setattr(data, "batches", noted)
    method.epoch = 1
    state = copy.deepcopy(method.model.state_dict())
    change = method.estimate(data)
    assert equal_states(state, method.model.state_dict())
    assert len(orders) == 6 and torch.equal(torch.stack(orders[:3]), torch.stack(orders[3:]))
    assert all(sorted(order.tolist()) == method.rest.tolist() for order in orders)
    assert not torch.equal(orders[0], orders[1])
    slow = slow_changes(method, data, orders[:3])
    assert torch.allclose(torch.stack(change), slow, rtol=1e-6) and slow.abs().min() > 1e-3


@SETS
def test_an_estimate_leaves_the_model_its_gradients_and_the_global_draws_alone(modalities):
    method, data = made(modalities, super_epoch=2), TinySet(modalities, 20)
    state = copy.deepcopy(method.model.state_dict())
    equal = method.weights.clone()
    torch.manual_seed(3)
    after = torch.random.get_rng_state()
    plan = method.begin_epoch(1, data)
    assert torch.equal(after, torch.random.get_rng_state())
    assert equal_states(state, method.model.state_dict())
    assert all(p.grad is None for p in method.parameters())
    assert not method.main.state  # its momentum has not begun
    assert not torch.equal(method.weights, equal)
    assert method.weights.sum().item() == pytest.approx(1)
    assert plan.indices.tolist() == method.rest.tolist()


def test_weights_are_estimated_once_per_super_epoch_from_the_seed_and_the_epoch():
    data, found = TinySet(size=20), []
    for seed, epoch in ((0, 1), (0, 1), (0, 4), (1, 1)):
        method = made(super_epoch=3, held_out=0.2)
        object.__setattr__(method.facts, "seed", seed)
        started(method, data, epoch)
        found.append(method.weights.clone())
        kept = method.weights.clone()
        started(method, data, epoch + 1)
        assert torch.equal(method.weights, kept) and "train/gain/audio" not in method.end_epoch()
    first, again, later, other = found
    assert torch.equal(first, again)
    assert not torch.equal(first, later) and not torch.equal(first, other)


def test_held_out_samples_are_never_trained_on(monkeypatch):
    method, data, seen = made(size=40, held_out=0.25, super_epoch=1), TinySet(size=40), set()
    encode = method.model.encode
    where = {x.numpy().tobytes(): k for k, x in enumerate(data.data["inputs"]["audio"])}

    def noted(inputs):
        if method.training:
            seen.update(where[x.numpy().tobytes()] for x in inputs["audio"])
        return encode(inputs)

    monkeypatch.setattr(method.model, "encode", noted)
    train(method, data, 1, 2, [method.main])
    assert len(method.held_out) == 10 and seen == set(method.rest.tolist())


@SETS
def test_the_loss_is_the_weighted_sum(modalities):
    method = made(modalities)
    share = torch.arange(1.0, len(modalities) + 2)
    method.weights.copy_(share / share.sum())
    batch = tiny_batch(modalities)
    loss, logs = method(batch)
    parts = [logs[f"train/L_uni/{m}"].item() for m in modalities] + [logs["train/L_align"].item()]
    expected = sum(k * part for k, part in enumerate(parts, 1)) / sum(range(len(parts) + 1))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_last_batch_of_one_sample_is_skipped_and_one_of_two_is_trained_on():
    for size, least in ((19, 2), (21, 2)):  # 17 and 19 samples to train on, in batches of 8
        method, data = made(size=size, super_epoch=1), TinySet(size=size)
        sizes, encode = [], method.model.encode

        def noted(inputs, sizes=sizes, encode=encode, method=method):
            if method.training:
                sizes.append(len(inputs["audio"]))
            return encode(inputs)

        method.model.encode = noted
        started(method, data)
        assert min(sizes) >= least and method.weights.isfinite().all()
