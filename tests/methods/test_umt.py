"""UMT: the distance and the loss by hand, the exchange of weights, teachers that do not change."""

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles, tiny_batch
from small_runs import EPOCHS, all_epochs, make, train

from methods.umt import distillation

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


def encoders(model):
    return {name: value.clone() for name, value in model.encoders.state_dict().items()}


def same(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_distance_by_hand():
    f = {"a": doubles([1.0, 2.0], [3.0, 4.0]), "v": doubles([1.0], [0.0])}
    t = {"v": doubles([0.0], [2.0]), "a": doubles([1.0, 0.0], [0.0, 4.0])}
    assert distillation(f, t).tolist() == [(0 + 4 + 9 + 0) / 4, (1 + 4) / 2]


def test_the_teachers_come_first_and_take_as_long_as_the_second_stage():
    stages = make("UMT").stages(EPOCHS)
    assert [(s.name, s.epochs, s.start) for s in stages] == [
        ("teachers", EPOCHS, "last"),
        ("train", EPOCHS, "last"),
    ]
    assert [s.name for s in make("UMT", lam=0.0).stages(EPOCHS)] == ["train"]


@SETS
def test_each_teacher_is_trained_as_if_it_were_alone(modalities):
    """The weights after the first stage are those of one model for each modality's loss."""
    method, data = make("UMT", modalities, teacher_epochs=3), TinySet(modalities)
    before = make("UMT", modalities).model.fusion.state_dict()
    train(method, data, 1, 3)
    for m in modalities:
        alone = make("Joint", modalities).model
        head = make("UMT", modalities).model.heads[m]
        parameters = [*alone.encoders[m].parameters(), *head.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)
        for epoch in range(1, 4):
            for batch in data.epoch(epoch):
                optimizer.zero_grad()
                logits = head(alone.encode(batch["inputs"])[m])
                log_p = logits.log_softmax(1)
                (-sum(log_p[i, c] for i, c in enumerate(batch["label"])) / len(log_p)).backward()
                optimizer.step()
        for name, value in alone.encoders[m].state_dict().items():
            found = method.model.encoders[m].state_dict()[name]
            assert torch.allclose(found, value, atol=1e-5), (m, name)
    assert same(before, method.model.fusion.state_dict())  # has no part in it


@SETS
def test_the_second_stage_exchanges_the_encoders_and_nothing_else(modalities):
    method, data = make("UMT", modalities, teacher_epochs=2), TinySet(modalities)
    initial = encoders(method.model)
    train(method, data, 1, 2)
    assert same(initial, encoders(method.teacher))
    trained, heads = encoders(method.model), method.model.heads.state_dict()
    heads = {name: value.clone() for name, value in heads.items()}
    assert not same(trained, initial)
    method.begin_epoch(3, data)
    assert same(trained, encoders(method.teacher)) and same(initial, encoders(method.model))
    assert same(heads, method.model.heads.state_dict())
    train(method, data, 4, 5)  # not exchanged back, and not trained: batch norm included
    assert same(trained, encoders(method.teacher))
    assert not same(trained, encoders(method.model))
    assert same(heads, method.model.heads.state_dict())


@SETS
def test_the_loss_of_the_second_stage_against_loops(modalities):
    method, data = make("UMT", modalities, teacher_epochs=1, lam=3.0), TinySet(modalities)
    train(method, data, 1, 1)
    method.begin_epoch(2, data)
    method.train()
    batch = tiny_batch(modalities, seed=5)
    with torch.no_grad():  # the teachers stay in evaluation mode, whatever the method's mode is
        t = {m: method.teacher.encoders[m].eval()(x) for m, x in batch["inputs"].items()}
        f = {m: x.double() for m, x in method.model.encode(batch["inputs"]).items()}
    found = method.teacher.encode(batch["inputs"])
    assert all(torch.equal(t[m], found[m]) and not found[m].requires_grad for m in modalities)
    method.double()
    method.model.encode, method.teacher.encode = lambda _: f, lambda _: t
    loss, logs = method(batch)
    z, expected = method.model.fuse(f), 0.0
    for i, c in enumerate(batch["label"]):
        expected -= (z[i, c] - z[i].exp().sum().log()).item() / len(z)
    for m in modalities:
        squares = [(float(a) - float(b)) ** 2 for a, b in zip(f[m].flatten(), t[m].flatten())]
        d = sum(squares) / len(squares)
        assert d > 1e-4 and logs[f"train/L_distill/{m}"].item() == pytest.approx(d, rel=1e-6)
        expected += 3 * d
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_distillation_brings_the_encoders_nearer_to_their_teachers():
    far, near = [], []
    for lam, distances in ((1e-6, far), (30.0, near)):
        method, data, log = make("UMT", lam=lam, teacher_epochs=4), TinySet(), {}
        train(method, data, 1, all_epochs(method), log=log)
        distances += [log[f"train/L_distill/{m}"] for m in PAIR]
    assert all(n < 0.7 * f for n, f in zip(near, far)), (near, far)
