"""PMR: prototypes, the coefficient of the slower modality, the loss and its window."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles, equal_states, tiny_batch, tiny_method

from methods.pmr import PMR, class_sums, lag, similarity

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


class Seen(TinySet):
    """A training set that notes which samples were read."""

    read = ()

    def batches(self, indices=None, transforms="eval", batch_size=None):
        self.read = list(range(len(self))) if indices is None else list(indices)
        assert transforms == "eval"
        yield from super().batches(indices, transforms, batch_size)


def slow_loss(f, y, prototypes, z, alpha, form, mu):
    """The loss of features {m: [B, D]} with loops over samples, in float64."""
    size, scores, losses, entropies = len(y), {}, {}, {}
    for m, rows in f.items():
        scores[m] = losses[m] = entropies[m] = 0.0
        for i, row in enumerate(rows.tolist()):
            weights = [math.exp(-math.dist(row, c)) for c in prototypes[m].tolist()]
            p = [w / sum(weights) for w in weights]
            scores[m] += p[y[i]]
            losses[m] -= math.log(p[y[i]]) / size
            entropies[m] -= sum(q * math.log(q) for q in p) / size
    total = -sum(math.log(row.softmax(0)[k]) for row, k in zip(z.detach(), y)) / size
    for m in f:
        others = [scores[m] / scores[o] for o in f if o != m]
        rho = sum(others) / len(others)
        if form == "step":
            slow, fast = float(rho < 1), float(rho > 1)
        else:
            slow, fast = (min(max(x - 1, 0), 1) for x in (1 / rho, rho))
        total += alpha * slow * losses[m] - mu * fast * entropies[m]
    return total


@SETS
@pytest.mark.parametrize("form", ["step", "clip"])
@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_the_loss_is_that_of_the_formula(modalities, form, mu):
    values = {"alpha": 0.6, "coefficient": form, "entropy": mu}
    method = tiny_method(PMR, modalities, 9, TinySet(modalities, 64), **values).double()
    batch, draw = tiny_batch(modalities), torch.Generator().manual_seed(3)
    f = {m: torch.randn(8, w, generator=draw).double() for m, w in method.model.widths.items()}
    c = {m: torch.randn(4, w, generator=draw).double() for m, w in method.model.widths.items()}
    f[modalities[0]] += 2 * c[modalities[0]][batch["label"]]  # this modality leads
    method.prototypes.copy_(torch.cat([c[m] for m in modalities], dim=1))
    method.model.encode = lambda _: f
    loss, logs = method(batch)
    expected = slow_loss(f, batch["label"], c, method.model.fuse(f), 0.6, form, mu)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert logs[f"train/slow/{modalities[0]}"] == 0
    assert max(logs[f"train/slow/{m}"] for m in modalities[1:]) > 0
    assert ("train/entropy/audio" in logs) == (mu > 0)


@SETS
def test_prototypes_are_class_means_and_follow_the_features(modalities):
    data = Seen(modalities, 40)
    method = tiny_method(PMR, modalities, 1, data, size=40, proto_momentum=0.3)
    before, state = torch.zeros_like(method.prototypes), method.model.state_dict()
    for epoch in (1, 2, 3):
        torch.nn.init.normal_(next(method.model.encoder_parameters("audio")), std=0.1)
        kept = {k: v.clone() for k, v in state.items()}
        method.begin_epoch(epoch, data)
        assert len(data.read) == len(set(data.read)) == (40 if epoch == 1 else 4)
        assert equal_states(kept, method.model.state_dict())  # batch statistics included
        batch = data.take(torch.tensor(data.read))
        f = torch.cat(list(method.model.encode(batch["inputs"]).values()), dim=1).double()
        for k in range(4):
            rows = [f[i] for i, label in enumerate(batch["label"]) if label == k]
            expected = before[k].double()
            if rows:
                old = 0.0 if epoch == 1 else 0.3
                expected = (1 - old) * sum(rows) / len(rows) + old * expected
            assert torch.allclose(method.prototypes[k].double(), expected, atol=1e-6), (epoch, k)
        before = method.prototypes.clone()


def test_a_class_that_is_not_drawn_keeps_its_prototype():
    data = Seen(size=40)
    method = tiny_method(PMR, epoch=1, data=data, size=40, share=0.025)
    before = method.prototypes.clone()
    with torch.no_grad():
        for p in method.model.encoders.parameters():
            p.mul_(1.1)
    method.begin_epoch(2, data)
    (k,) = (data.data["label"][i].item() for i in data.read)
    changed = (method.prototypes != before).any(1)
    assert changed[k] and changed.sum() == 1


def test_small_functions_by_hand():
    sums = class_sums(doubles([1, 2], [3, 4], [5, 6]), torch.tensor([1, 1, 0]), 3)
    assert sums.tolist() == [[5, 6, 1], [4, 6, 2], [0, 0, 0]]
    assert similarity(doubles([3, 4]), doubles([0, 0], [3, 0])).tolist() == [[-5, -4]]
    ratio = doubles(0.8, 1.0, 1.25, 0.1, 0.0)
    assert lag(ratio, "step").tolist() == [1, 0, 0, 1, 1]
    assert lag(ratio, "clip").tolist() == pytest.approx([0.25, 0, 0, 1, 1])


def test_a_feature_that_equals_a_prototype_has_a_finite_gradient():
    f = doubles([1, 2], [0, 0]).requires_grad_()
    similarity(f, doubles([1, 2], [0, 0])).logsumexp(1).sum().backward()
    assert f.grad.isfinite().all()


def test_only_the_slower_encoder_learns_from_the_prototypes():
    found = {}
    for alpha in (0.0, 2.0):
        method = tiny_method(PMR, epoch=2, data=TinySet(size=64), alpha=alpha)
        loss, logs = method(tiny_batch())
        loss.backward()
        found[alpha] = {n: p.grad for n, p in method.model.named_parameters() if p.grad is not None}
    (slow,) = (m for m in PAIR if logs[f"train/slow/{m}"] == 1)
    changed = {n for n, g in found[0.0].items() if not torch.equal(g, found[2.0][n])}
    assert changed == {n for n in found[0.0] if n.startswith(f"encoders.{slow}.")}


def test_after_the_last_epoch_the_training_is_joint_and_the_prototypes_rest():
    data = Seen(size=64)
    method = tiny_method(PMR, epoch=5, data=data, end_epoch=5)
    assert len(data.read) == 7 and "train/slow/audio" in method(tiny_batch())[1]
    before, data.read = method.prototypes.clone(), ()
    method.begin_epoch(6, data)
    loss, logs = method(tiny_batch())
    assert data.read == () and torch.equal(method.prototypes, before)
    assert loss == logs["train/L_align"] and "train/slow/audio" not in logs
