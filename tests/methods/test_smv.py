"""SMV: the table of contributions and copies, the size laws, masked copies, the epoch's list."""

import math

import pytest
import torch
from conftest import PAIR, TRIO, TinySet, tiny_batch, tiny_method

from methods.ops import keep_only, subsets
from methods.smv import (
    SMV,
    contributions,
    copies,
    modality_gap,
    modality_plan,
    sample_plan,
)

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO])
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
    """A training set of 100 samples that records the transforms it is read with."""

    views = ()

    def batches(self, indices=None, transforms="eval"):
        self.views += (transforms,)
        yield from super().batches(indices, transforms)


def make(modalities=PAIR, **values):
    """A method whose fusion layer gives varied predictions on the tiny encoders' features."""
    method = tiny_method(SMV, modalities, 1, **{"warmup_epochs": 1, **values})
    draw = torch.Generator().manual_seed(5)
    torch.nn.init.normal_(method.model.fusion.weight, std=3.0, generator=draw)
    return method


def every_pattern(modalities):
    """All games: the hits [2 ** (2 ** M - 1)] of each coalition."""
    names = subsets(modalities)
    games = torch.arange(2 ** len(names))
    return {s: (games >> k) & 1 for k, s in enumerate(names)}


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_table_of_contributions_and_copies(row):
    hits = dict(zip((PAIR, PAIR[:1], PAIR[1:]), (torch.tensor([h]) for h in row[0])))
    for value, (expected, counts) in (("size", row[1:3]), ("unit", row[3:5])):
        phi = contributions(hits, PAIR, value)
        assert tuple(phi[m].item() for m in PAIR) == expected
        assert tuple(copies(phi[m]).item() for m in PAIR) == counts


@pytest.mark.parametrize("players", [2, 3])
def test_contributions_sum_to_the_worth_of_all_and_no_copy_is_lost_by_rounding(players):
    # Shapley values are multiples of 1 / M!: exact integers give the expected copies.
    names, unit = "abc"[:players], math.factorial(players)
    hits = every_pattern(names)
    phi = contributions(hits, names)
    assert torch.allclose(sum(phi.values()), players * hits[tuple(names)].double(), atol=1e-8)
    exact = (phi["a"] * unit).round().long()
    expected = (exact < unit).long() + (10 * exact < 4 * unit) + (10 * exact < -unit)
    assert torch.equal(copies(phi["a"]), expected)


def test_copies_at_and_beside_each_threshold():
    phi = torch.tensor([1.0, 0.999, 0.4, 0.399, -0.1, -0.101], dtype=torch.float64)
    assert copies(phi).tolist() == [0, 1, 1, 2, 2, 3]


@SETS
def test_a_list_holds_all_samples_whole_and_each_copy(modalities):
    phi = contributions(every_pattern(modalities), modalities)
    size = len(phi["audio"])
    indices, keep = sample_plan(phi)
    assert torch.equal(indices[:size], torch.arange(size)) and (keep[:size] == 0).all()
    for k, m in enumerate(modalities, start=1):
        found = torch.bincount(indices[size:][keep[size:] == k], minlength=size)
        assert torch.equal(found, copies(phi[m]))
    assert len(indices) == size + sum(int(copies(phi[m]).sum()) for m in modalities)


@pytest.mark.parametrize(
    ("means", "form", "strength", "expected"),
    [
        ([1.1, 0.5], "linear", 0.5, 0.2),
        ([1.1, 0.5], "tanh", 2.0, math.tanh(0.8)),
        ([1.1, 0.5], "power", 2.0, 2 * 0.4**1.5),
        ([0.9, 0.6, 0.0], "linear", 1.0, 2 / 3 * (0.3 + 0.9 + 0.6) / 3),
    ],
)
def test_the_gap_is_the_mean_over_pairs_in_its_form(means, form, strength, expected):
    assert modality_gap(means, strength, form) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("means", "strength", "weakest", "count"),
    [
        ({"a": 1.1, "v": 0.5}, 1.0, 2, 40),
        ({"t": 0.9, "a": 0.0, "v": 0.6}, 1.0, 2, 40),
        ({"a": 0.7, "v": 0.7}, 1.0, 1, 0),
        ({"a": 1.5, "v": 0.0}, 0.29, 2, 29),  # int(0.29 * 100) is 28
    ],
)
def test_the_modality_list_adds_copies_of_only_the_weakest(means, strength, weakest, count):
    phi = {m: torch.full((100,), v, dtype=torch.float64) for m, v in means.items()}
    draws = torch.Generator().manual_seed(0)
    indices, keep = modality_plan(phi, draws, 0.2, strength, "linear")
    assert torch.equal(indices[:100], torch.arange(100)) and (keep[:100] == 0).all()
    assert keep[100:].tolist() == [weakest] * count
    assert count == 0 or len(set(indices[100:].tolist())) > 20  # drawn from the whole training set


def test_the_modality_list_averages_over_a_share_of_at_least_one_sample():
    phi = {"a": torch.zeros(50).double(), "v": torch.zeros(50).double()}
    phi["a"][:25] = 1.0  # the mean over a subset is a multiple of 1 / draws
    drawn = torch.randint(50, (5,), generator=torch.Generator().manual_seed(0))
    share = modality_gap([phi["a"][drawn].mean().item(), 0.0], 1.0, "linear")
    indices, _ = modality_plan(phi, torch.Generator().manual_seed(0), 0.1, 1.0, "linear")
    assert len(indices) == 50 + int(round(share * 50, 9))
    few = {m: values[:3] for m, values in phi.items()}
    assert len(modality_plan(few, torch.Generator(), 0.1, 1.0, "linear")[0]) == 5


@SETS
def test_hits_are_those_of_zeroed_features_and_the_log_describes_the_list(modalities):
    method, part = make(modalities), Part(modalities, 100)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    plan = method.begin_epoch(2, part)
    assert part.views == ("eval",) and not method.model.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    f, logs, hits = method.model.encode(part.data["inputs"]), method.end_epoch(), {}
    for s in subsets(modalities):
        zeroed = {m: x if m in s else torch.zeros_like(x) for m, x in f.items()}
        hits[s] = method.model.fuse(zeroed).argmax(1) == part.data["label"]
        assert logs[f"train/hit/{'+'.join(s)}"] == hits[s].double().mean()
    phi = contributions(hits, modalities)
    indices, keep = sample_plan(phi)
    assert torch.equal(plan.indices, indices) and torch.equal(plan.columns["keep"], keep)
    assert logs["train/expansion"].item() == pytest.approx(len(indices) / 100)
    for k, m in enumerate(modalities, start=1):
        assert logs[f"train/shapley/{m}"] == phi[m].mean()
        assert logs[f"train/copies/{m}"].item() == pytest.approx((keep == k).sum().item() / 100)


@SETS
def test_a_copy_is_fused_as_its_subset_and_trains_only_its_encoder(modalities):
    method = make(modalities)
    f = method.model.encode(tiny_batch(modalities)["inputs"])
    for k, m in enumerate(modalities, start=1):
        hidden = keep_only(f, torch.full((8,), k))
        assert torch.equal(method.model.fuse(hidden), method.model.fuse_subset(f, [m]))
    loss, _ = method(tiny_batch(modalities) | {"keep": torch.ones(8, dtype=torch.int64)})
    loss.backward()
    weight, columns = method.model.fusion.weight.grad, method.model.modality_slices
    for m in modalities:
        seen = m == modalities[0]
        assert any(p.grad.any() for p in method.model.encoder_parameters(m)) is seen
        assert bool(weight[:, columns[m]].any()) is seen


def test_whole_rows_are_unchanged_next_to_masked_ones():
    f = {"audio": torch.randn(4, 3), "video": torch.randn(4, 5)}
    masked = keep_only(f, torch.tensor([0, 1, 2, 0]))
    assert torch.equal(masked["audio"][[0, 1, 3]], f["audio"][[0, 1, 3]])
    assert torch.equal(masked["video"][[0, 2, 3]], f["video"][[0, 2, 3]])
    assert not masked["audio"][2].any() and not masked["video"][1].any()


def test_accuracy_counts_only_whole_samples():
    method, batch = make().eval(), tiny_batch()
    keep = torch.tensor([0, 0, 0, 1, 2, 1, 2, 1])
    batch["label"] = method.model.fuse(method.model.encode(batch["inputs"])).argmax(1)
    batch["label"][0] = (batch["label"][0] + 1) % 4
    _, logs = method(batch | {"keep": keep})
    assert logs["train/acc"].item() == pytest.approx(2 / 3)
    assert logs["train/masked"].item() == pytest.approx(5 / 8)
    _, logs = method(batch | {"keep": keep.clamp_min(1)})
    assert logs["train/acc"].isnan() and logs["train/masked"] == 1
