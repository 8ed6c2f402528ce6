"""SMV: the table of contributions and copies, the size laws, masked copies, the epoch's list."""

import math

import pytest
import torch
from conftest import TinySet, facts, tiny_batch, tiny_model

from methods.base import EpochPlan
from methods.joint import Joint
from methods.ops import subsets
from methods.smv import (
    SMV,
    contributions,
    copies,
    keep_only,
    modality_gap,
    modality_plan,
    sample_plan,
)

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")
# hits of ({1,2}, {1}, {2}) -> (phi_1, phi_2), (copies of 1, of 2): "size", then "unit".
TABLE = [
    ((1, 1, 1), (1, 1), (0, 0), (0.5, 0.5), (1, 1)),
    ((1, 1, 0), (1.5, 0.5), (0, 1), (1, 0), (0, 2)),
    ((1, 0, 1), (0.5, 1.5), (1, 0), (0, 1), (2, 0)),
    ((1, 0, 0), (1, 1), (0, 0), (0.5, 0.5), (1, 1)),
    ((0, 1, 1), (0, 0), (2, 2), (0, 0), (2, 2)),
    ((0, 1, 0), (0.5, -0.5), (1, 3), (0.5, -0.5), (1, 3)),
    ((0, 0, 1), (-0.5, 0.5), (3, 1), (-0.5, 0.5), (3, 1)),
    ((0, 0, 0), (0, 0), (2, 2), (0, 0), (2, 2)),
]


class Part(TinySet):
    """A training part of 100 samples that notes under which transforms it is read."""

    def __init__(self, modalities=PAIR, batch=64):
        super().__init__(modalities, 100, batch)
        self.views = []

    def batches(self, indices=None, transforms="eval"):
        self.views.append(transforms)
        yield from super().batches(indices, transforms)


def make(modalities=PAIR, **values):
    """A method whose fusion layer makes different predictions from the tiny encoders' features."""
    hp = SMV.HParams(**{"warmup_epochs": 0, **values})
    method = SMV(tiny_model(modalities, heads=False), hp, facts())
    draw = torch.Generator().manual_seed(5)
    torch.nn.init.normal_(method.model.fusion.weight, std=3.0, generator=draw)
    return method


def every_pattern(modalities):
    """All games: the hits [2 ** (2 ** M - 1)] of each coalition."""
    names = subsets(modalities)
    games = torch.arange(2 ** len(names))
    return {s: (games >> k) & 1 for k, s in enumerate(names)}


def random_hits(modalities, size=500):
    draw = torch.Generator().manual_seed(0)
    return {s: torch.rand(size, generator=draw) < 0.6 for s in subsets(modalities)}


# Valuation and copies -----------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE, ids=str)
@pytest.mark.parametrize("value", ["size", "unit"])
def test_table_of_contributions_and_copies(row, value):
    both, one, two = (torch.tensor([h]) for h in row[0])
    hits = {("audio",): one, ("video",): two, PAIR: both}
    phi = contributions(hits, PAIR, value)
    expected_phi, expected_copies = row[1:3] if value == "size" else row[3:5]
    assert tuple(phi[m].item() for m in PAIR) == expected_phi
    assert tuple(copies(phi[m]).item() for m in PAIR) == expected_copies


@pytest.mark.parametrize("value", ["size", "unit"])
@pytest.mark.parametrize("players", [2, 3, 4])
def test_contributions_sum_to_the_worth_of_all(players, value):
    names = "abcd"[:players]
    hits = every_pattern(names) if players < 4 else random_hits(names)
    total = sum(contributions(hits, names, value).values())
    full = hits[tuple(names)].double() * (players if value == "size" else 1)
    assert torch.allclose(total, full, rtol=0, atol=1e-8)


@pytest.mark.parametrize("players", [2, 3, 4])
def test_no_copy_is_lost_or_added_by_rounding(players):
    # Shapley values are multiples of 1 / M!: exact integers decide what the copies must be.
    names, unit = "abcd"[:players], math.factorial(players)
    phi = contributions(every_pattern(names), names)["a"]
    exact = (phi * unit).round().long()
    assert torch.allclose(exact.double() / unit, phi, rtol=0, atol=1e-8)
    expected = (exact < unit).long() + (10 * exact < 4 * unit) + (10 * exact < -unit)
    assert torch.equal(copies(phi), expected)
    assert (exact == unit).any() and not (10 * exact == 4 * unit).any()
    # A bound of 0.9, as in the authors' code, differs from M = 4 on.
    assert ((phi >= 0.9) & (phi < 1)).any().item() is (players == 4)


def test_copies_at_and_beside_each_threshold():
    phi = torch.tensor([1.0, 0.999, 0.4, 0.399, -0.1, -0.101], dtype=torch.float64)
    assert copies(phi).tolist() == [0, 1, 1, 2, 2, 3]


# The lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["size", "unit"])
@pytest.mark.parametrize(("modalities", "most"), [(PAIR, 4), (TRIO, 8)])
def test_a_list_holds_all_samples_whole_and_each_copy(modalities, most, value):
    phi = contributions(random_hits(modalities), modalities, value)
    indices, keep = sample_plan(phi)
    assert indices.dtype == keep.dtype == torch.int64
    assert torch.equal(indices[:500], torch.arange(500)) and (keep[:500] == 0).all()
    for k, m in enumerate(modalities, start=1):
        found = torch.bincount(indices[500:][keep[500:] == k], minlength=500)
        assert torch.equal(found, copies(phi[m]))
    assert len(indices) == 500 + sum(int(copies(phi[m]).sum()) for m in modalities)
    phi = contributions(every_pattern(modalities), modalities, value)
    assert sum(copies(values) for values in phi.values()).max() == most


def test_size_laws():
    hits = random_hits(PAIR)
    a = hits[PAIR].double().mean().item()
    one_alone = (hits[PAIR] & (hits[("audio",)] ^ hits[("video",)])).double().mean().item()
    unit = len(sample_plan(contributions(hits, PAIR, "unit"))[0])
    card = len(sample_plan(contributions(hits, PAIR, "size"))[0])
    assert unit == pytest.approx(500 * (5 - 2 * a))
    assert card == pytest.approx(500 * (1 + 4 * (1 - a) + one_alone))
    for modalities, value, factor in ((PAIR, "unit", 3), (PAIR, "size", 1), (TRIO, "unit", 7)):
        hits = {s: torch.ones(10, dtype=torch.bool) for s in subsets(modalities)}
        assert len(sample_plan(contributions(hits, modalities, value))[0]) == factor * 10


@pytest.mark.parametrize(
    ("form", "strength", "expected"),
    [
        ("linear", 1.0, 0.4),
        ("linear", 0.5, 0.2),
        ("tanh", 1.0, math.tanh(0.4)),
        ("tanh", 2.0, math.tanh(0.8)),
        ("power", 1.0, 0.4**1.5),
        ("power", 2.0, 2 * 0.4**1.5),
    ],
)
def test_gap_of_two_modalities(form, strength, expected):
    assert modality_gap([1.1, 0.5], strength, form) == pytest.approx(expected)


def test_gap_of_three_modalities_is_the_mean_over_pairs():
    assert modality_gap([0.9, 0.6, 0.0], 1.0) == pytest.approx(2 / 3 * (0.3 + 0.9 + 0.6) / 3)


@pytest.mark.parametrize(
    ("means", "how", "weakest", "count"),
    [
        ({"a": 1.1, "v": 0.5}, {}, 2, 40),
        ({"a": 0.5, "v": 1.1}, {}, 1, 40),
        ({"t": 0.9, "a": 0.6, "v": 0.0}, {}, 3, 40),
        ({"a": 0.7, "v": 0.7}, {}, 1, 0),
        ({"a": 1.5, "v": 0.0}, {"strength": 0.29}, 2, 29),  # int(0.29 * 100) is 28
    ],
)
def test_modality_list_adds_copies_of_the_weakest_alone(means, how, weakest, count):
    phi = {m: torch.full((100,), v, dtype=torch.float64) for m, v in means.items()}
    indices, keep = modality_plan(phi, torch.Generator().manual_seed(0), **how)
    assert torch.equal(indices[:100], torch.arange(100)) and (keep[:100] == 0).all()
    assert keep[100:].tolist() == [weakest] * count
    assert count == 0 or len(set(indices[100:].tolist())) > 20  # drawn over the whole set


def test_modality_list_averages_over_a_part_of_the_samples_of_at_least_one():
    phi = {"a": torch.zeros(50).double(), "v": torch.zeros(50).double()}
    phi["a"][:25] = 1.0  # the mean over a part is a multiple of 1 / draws
    drawn = torch.randint(50, (5,), generator=torch.Generator().manual_seed(0))
    share = modality_gap([phi["a"][drawn].mean().item(), 0.0], 1.0)
    indices, _ = modality_plan(phi, torch.Generator().manual_seed(0), part_ratio=0.1)
    assert len(indices) == 50 + int(round(share * 50, 9))
    few = {m: values[:3] for m, values in phi.items()}
    indices, keep = modality_plan(few, torch.Generator())
    assert len(indices) == 5 and keep.tolist() == [0, 0, 0, 2, 2]


# Valuation of a model -----------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_hits_are_those_of_zeroed_features_whatever_the_batch_size(modalities):
    method, part = make(modalities), Part(modalities)
    hits, small = method._hits(part), method._hits(Part(modalities, batch=7))
    f = method.model.eval().encode(part.data["inputs"])
    for s in subsets(modalities):
        zeroed = {m: x if m in s else torch.zeros_like(x) for m, x in f.items()}
        expected = method.model.fuse(zeroed).argmax(1) == part.data["label"]
        assert torch.equal(hits[s], expected) and 0 < expected.sum() < 100
        assert torch.equal(small[s], expected)
    assert list(hits) == subsets(modalities) and len(hits) == 2 ** len(modalities) - 1


def test_valuation_is_one_pass_without_gradient_that_leaves_the_model_as_it_was():
    method, part, seen = make(), Part(), []
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.model.encoders["audio"].register_forward_hook(lambda _, x, y: seen.append(y))
    first = method.train().begin_epoch(1, part)
    assert sum(len(y) for y in seen) == 100 and not any(y.requires_grad for y in seen)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert part.views == ["eval"] and not method.model.training
    again = method.begin_epoch(2, part)  # nothing was trained
    assert torch.equal(first.indices, again.indices) and 100 < len(first.indices) <= 500
    assert torch.equal(first.columns["keep"], again.columns["keep"])


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_copy_is_fused_as_its_subset_and_trains_its_own_encoder_alone(modalities):
    method = make(modalities)
    f = method.model.encode(tiny_batch(modalities)["inputs"])
    for k, m in enumerate(modalities, start=1):
        hidden = keep_only(f, torch.full((8,), k))
        assert torch.equal(method.model.fuse(hidden), method.model.fuse_subset(f, [m]))
    loss, _ = method(tiny_batch(modalities) | {"keep": torch.ones(8, dtype=torch.int64)})
    loss.backward()
    seen, *hidden = modalities
    weight, columns = method.model.fusion.weight.grad, method.model.modality_slices
    assert all(p.grad.any() for p in method.model.encoder_parameters(seen) if p.ndim > 1)
    assert weight[:, columns[seen]].any() and method.model.fusion.bias.grad.any()
    for m in hidden:
        assert not any(p.grad.any() for p in method.model.encoder_parameters(m))
        assert not weight[:, columns[m]].any()


def test_whole_rows_pass_unchanged_beside_masked_ones():
    f = {"audio": torch.randn(4, 3), "video": torch.randn(4, 5)}
    masked = keep_only(f, torch.tensor([0, 1, 2, 0]))
    assert torch.equal(masked["audio"][[0, 1, 3]], f["audio"][[0, 1, 3]])
    assert torch.equal(masked["video"][[0, 2, 3]], f["video"][[0, 2, 3]])
    assert not masked["audio"][2].any() and not masked["video"][1].any()


def test_whole_samples_are_joint_to_the_last_bit():
    batch, found = tiny_batch(), []
    whole = batch | {"keep": torch.zeros(8, dtype=torch.int64)}
    joint, smv = Joint(tiny_model(heads=False), None, facts()), make()
    smv.model.load_state_dict(joint.model.state_dict())
    for method, given in ((joint, batch), (smv, whole)):
        loss, logs = method.train()(given)
        loss.backward()
        found.append([loss, logs["train/acc"], *(p.grad for p in method.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert logs["train/masked"] == 0


def test_warm_up_ends_after_its_last_epoch():
    method, part = make(warmup_epochs=3), Part()
    for epoch in range(1, 6):
        plan = method.begin_epoch(epoch, part)
        assert isinstance(plan, EpochPlan) is bool(method.end_epoch()) is (epoch > 3)
    assert len(part.views) == 2


def test_the_epochs_log_describes_its_list():
    method, part = make(TRIO), Part(TRIO)
    plan = method.begin_epoch(1, part)
    logs, hits = method.end_epoch(), method._hits(part)
    phi, keep = contributions(hits, TRIO), plan.columns["keep"]
    assert logs["train/expansion"].item() == pytest.approx(len(plan.indices) / 100)
    for k, m in enumerate(TRIO, start=1):
        assert logs[f"train/shapley/{m}"] == phi[m].mean()
        assert logs[f"train/copies/{m}"].item() == pytest.approx((keep == k).sum().item() / 100)
    for s in subsets(TRIO):
        assert logs[f"train/hit/{'+'.join(s)}"] == hits[s].double().mean()
    assert len(logs) == 1 + 3 + 3 + 7


def test_accuracy_counts_whole_samples_alone():
    method, batch = make(), tiny_batch()
    method.eval()
    keep = torch.tensor([0, 0, 0, 1, 2, 1, 2, 1])
    z = method.model.fuse(method.model.encode(batch["inputs"]))
    batch["label"] = z.argmax(1)
    batch["label"][0] = (batch["label"][0] + 1) % 4
    _, logs = method(batch | {"keep": keep})
    assert logs["train/acc"].item() == pytest.approx(2 / 3)
    assert logs["train/masked"].item() == pytest.approx(5 / 8)
    _, logs = method(batch | {"keep": keep.clamp_min(1)})
    assert logs["train/acc"].isnan() and logs["train/masked"] == 1
