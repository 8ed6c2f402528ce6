"""Remix: the certainty of a prediction, its assignment, batches of one modality, the two losses."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, doubles, tiny_batch, tiny_method

from methods.remix import Remix, assign, certainty

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])


class Part(TinySet):
    """A training set that records how it is read."""

    views = ()

    def batches(self, indices=None, transforms="eval"):
        self.views += (transforms,)
        yield from super().batches(indices, transforms)


def make(modalities, data=None, **values):
    """A method after a warm-up of one epoch, with heads whose predictions differ."""
    method = tiny_method(Remix, modalities, 1, data, **{"warmup_epochs": 1, **values})
    draw = torch.Generator().manual_seed(3)
    for head in method.model.heads.values():
        torch.nn.init.normal_(head.weight, std=2.0, generator=draw)
    return method


def cross_entropy(z, label):
    """-log softmax(z)[label] of one row of numbers."""
    return math.log(sum(math.exp(v) for v in z)) - z[label]


def test_golden_certainty():
    z = doubles([0.0, 0.0, 0.0, 0.0], [math.log(5), math.log(1), math.log(1), math.log(1)])
    expected = 0.625 * math.log(2.5) + 3 * 0.125 * math.log(0.5)
    assert certainty(z).tolist() == pytest.approx([0.0, expected])
    # A certain prediction has the largest value, ln C, and no NaN from 0 ln 0.
    assert certainty(torch.tensor([[1e4, 0.0, 0.0]])).item() == pytest.approx(math.log(3))


def test_the_least_certain_modality_is_chosen_and_a_tie_goes_to_the_first():
    kl = doubles([0.3, 0.2, 0.5], [0.1, 0.1, 0.4], [0.9, 0.8, 0.0])
    assert assign(kl).tolist() == [1, 0, 2]


@SETS
def test_the_assignment_equals_a_loop_over_samples(modalities):
    data = Part(modalities, size=30)
    method = make(modalities, data).double()
    draw = torch.Generator().manual_seed(4)
    widths = method.model.widths.items()
    f = {m: torch.randn(30, w, generator=draw, dtype=torch.float64) for m, w in widths}
    data.data["inputs"], method.model.encode = f, dict  # features in place of inputs
    plan = method.begin_epoch(2, data)
    heads = {m: z.tolist() for m, z in method.model.unimodal(f).items()}
    expected, sums = [], [0.0] * len(modalities)
    for i in range(30):
        kls = []
        for m in modalities:
            total = sum(math.exp(v) for v in heads[m][i])
            p = [math.exp(v) / total for v in heads[m][i]]
            kls.append(sum(q * math.log(q * len(p)) for q in p))
        expected.append(kls.index(min(kls)))
        sums = [s + kl for s, kl in zip(sums, kls)]
    assert plan.columns["modality"].tolist() == expected
    assert set(expected) == set(range(len(modalities)))
    assert plan.indices.tolist() == list(range(30)) and data.views == ("eval",)
    logs = method.end_epoch()
    for k, m in enumerate(modalities):
        assert logs[f"train/share/{m}"].item() == pytest.approx(expected.count(k) / 30)
        assert logs[f"train/certainty/{m}"].item() == pytest.approx(sums[k] / 30, rel=1e-9)


@SETS
def test_batches_hold_one_modality_and_every_sample_appears_once(modalities):
    data = TinySet(modalities, size=40, keep_last=True)
    method = make(modalities, data)
    plan = method.begin_epoch(2, data)
    batches = list(data.epoch(2, plan))
    assert all(len(batch["modality"].unique()) == 1 for batch in batches)
    assert torch.cat([batch["index"] for batch in batches]).sort().values.tolist() == [*range(40)]
    mixed = make(modalities, data, reassemble=False).begin_epoch(2, data)
    assert torch.equal(mixed.columns["modality"], plan.columns["modality"])
    assert mixed.batch_key is None
    assert any(len(b["modality"].unique()) > 1 for b in data.epoch(2, mixed))


@SETS
def test_the_loss_is_that_of_single_modalities(modalities):
    method, batch = make(modalities, gamma=3.0), tiny_batch(modalities)
    method.eval()  # the same features in each pass
    count = len(modalities)
    modality = torch.arange(8) % count
    loss, logs = method(batch | {"modality": modality})
    with torch.no_grad():
        f = method.model.encode(batch["inputs"])
        heads = method.model.unimodal(f)
        align, uni = [], []
        for i, k in enumerate(modality.tolist()):
            m, label = modalities[k], int(batch["label"][i])
            alone = method.model.fuse_subset({n: x[i : i + 1] for n, x in f.items()}, [m])
            align.append(cross_entropy(alone[0].tolist(), label))
            uni.append(cross_entropy(heads[m][i].tolist(), label))
    assert loss.item() == pytest.approx(sum(align) / 8 + 3 * sum(uni) / 8, rel=1e-5)
    assert logs["train/L_uni"].item() == pytest.approx(sum(uni) / 8, rel=1e-5)


@SETS
def test_a_batch_of_one_modality_trains_its_encoder_and_head_only(modalities):
    method = make(modalities)
    loss, _ = method(tiny_batch(modalities) | {"modality": torch.ones(8, dtype=torch.int64)})
    loss.backward()
    for m in modalities:
        seen = m == modalities[1]
        assert any(p.grad.any() for p in method.model.encoder_parameters(m)) is seen
        assert bool(method.model.heads[m].weight.grad.any()) is seen


def test_the_warm_up_trains_on_whole_samples_and_ends_after_its_epochs():
    data = TinySet(size=24)
    method = tiny_method(Remix, PAIR, 1, data, warmup_epochs=2, w_warm=0.25)
    assert method.begin_epoch(2, data) is None and not method.end_epoch()
    loss, logs = method(tiny_batch())
    assert loss.item() == pytest.approx((logs["train/L_align"] + 0.25 * logs["train/L_uni"]).item())
    assert method.begin_epoch(3, data) is not None
