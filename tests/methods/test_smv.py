"""SMV: the table of contributions and copies, the size laws, masked copies, the epoch's list."""

import math

import pytest
import torch
from conftest import facts, host_reads, tiny_batch, tiny_model

from common.options import UsageError
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


class Part:
    """A training part like the loader's: fixed order, whole, and the batches of an epoch's plan."""

    def __init__(self, size=100, batch_size=64, modalities=PAIR, classes=4):
        self.all, self.batch_size = tiny_batch(modalities, size, classes), batch_size
        self.views = []

    def __len__(self):
        return len(self.all["label"])

    def rows(self, rows):
        inputs = {m: x[rows] for m, x in self.all["inputs"].items()}
        return {"index": self.all["index"][rows], "label": self.all["label"][rows]} | {
            "inputs": inputs
        }

    def batches(self, indices=None, transforms="eval"):
        self.views.append(transforms)
        wanted = torch.arange(len(self)) if indices is None else torch.as_tensor(indices)
        for rows in wanted.split(self.batch_size):
            yield self.rows(rows)

    def epoch(self, plan):
        order = torch.randperm(len(plan.indices), generator=torch.Generator().manual_seed(1))
        for places in order.split(self.batch_size):
            columns = {name: values[places] for name, values in plan.columns.items()}
            yield self.rows(plan.indices[places]) | columns


def make(modalities=PAIR, epochs=10, seed=0, **values):
    """A method whose fusion layer tells the tiny encoders' features apart."""
    hp = SMV.HParams(**{"warmup_epochs": 0, **values})
    method = SMV(tiny_model(modalities, heads=False), hp, facts(seed=seed, epochs=epochs))
    torch.nn.init.normal_(
        method.model.fusion.weight, std=3.0, generator=torch.Generator().manual_seed(5)
    )
    return method


def every_pattern(modalities):
    """All games: the hits [2 ** (2 ** M - 1)] of each coalition."""
    names = subsets(modalities)
    games = torch.arange(2 ** len(names))
    return {s: (games >> k) & 1 for k, s in enumerate(names)}


def random_hits(modalities, size=500, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {s: torch.rand(size, generator=draw) < 0.6 for s in subsets(modalities)}


def gradients(method):
    return {name: p.grad for name, p in method.named_parameters()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for a, b in zip(one.values(), other.values(), strict=True)
    )


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


def test_contributions_are_double_precision():
    assert contributions(random_hits(PAIR), PAIR)["audio"].dtype == torch.float64


def test_swapping_modalities_swaps_contributions():
    hits = random_hits(TRIO)
    rename = dict(zip(TRIO, ("audio", "text", "video"), strict=True))
    swapped = {
        tuple(m for m in TRIO if m in {rename[n] for n in s}): hit for s, hit in hits.items()
    }
    before, after = contributions(hits, TRIO), contributions(swapped, TRIO)
    assert not torch.equal(before["text"], before["audio"])
    for m in TRIO:
        assert torch.equal(after[rename[m]], before[m])


def test_modalities_with_the_same_hits_have_the_same_contribution():
    hits = random_hits(TRIO)
    hits[("audio",)] = hits[("text",)]
    hits[("audio", "video")] = hits[("text", "video")]
    phi = contributions(hits, TRIO)
    assert torch.equal(phi["text"], phi["audio"])


def test_grid_of_three_modalities_is_in_sixths():
    phi = contributions(every_pattern(TRIO), TRIO)["text"]
    assert phi.unique().tolist() == pytest.approx([k / 6 for k in range(-6, 13)])


def test_copies_are_linear_in_the_shortfall_on_the_grid_of_two():
    phi = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=torch.float64)
    assert copies(phi).tolist() == (2 * (1 - phi)).clamp_min(0).tolist()


def test_copies_at_and_beside_each_threshold():
    phi = torch.tensor([1.0, 0.999, 0.4, 0.399, -0.1, -0.101], dtype=torch.float64)
    assert copies(phi).tolist() == [0, 1, 1, 2, 2, 3]


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


def test_a_bound_of_nine_tenths_differs_from_four_modalities_on():
    for players, differs in ((2, False), (3, False), (4, True)):
        names = "abcd"[:players]
        phi = contributions(every_pattern(names), names)["a"]
        assert ((phi >= 0.9) & (phi < 1)).any().item() is differs


# The list of the sample level ---------------------------------------------------------------------


@pytest.mark.parametrize("value", ["size", "unit"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_list_holds_all_samples_whole_and_each_copy(modalities, value):
    phi = contributions(random_hits(modalities), modalities, value)
    indices, keep = sample_plan(phi)
    assert indices.dtype == keep.dtype == torch.int64
    assert torch.equal(indices[:500], torch.arange(500)) and (keep[:500] == 0).all()
    for k, m in enumerate(modalities, start=1):
        found = torch.bincount(indices[500:][keep[500:] == k], minlength=500)
        assert torch.equal(found, copies(phi[m]))
    assert len(indices) == 500 + sum(int(copies(phi[m]).sum()) for m in modalities)


def test_size_law_of_unit_and_card():
    hits = random_hits(PAIR)
    a = hits[PAIR].double().mean().item()
    one_alone = (hits[PAIR] & (hits[("audio",)] ^ hits[("video",)])).double().mean().item()
    unit = len(sample_plan(contributions(hits, PAIR, "unit"))[0])
    card = len(sample_plan(contributions(hits, PAIR, "size"))[0])
    assert unit == pytest.approx(500 * (5 - 2 * a))
    assert card == pytest.approx(500 * (1 + 4 * (1 - a) + one_alone))


@pytest.mark.parametrize(
    ("modalities", "value", "factor"),
    [(PAIR, "unit", 3), (PAIR, "size", 1), (TRIO, "unit", 7), (TRIO, "size", 1)],
)
def test_size_when_every_coalition_is_right(modalities, value, factor):
    hits = {s: torch.ones(10, dtype=torch.bool) for s in subsets(modalities)}
    assert len(sample_plan(contributions(hits, modalities, value))[0]) == factor * 10


@pytest.mark.parametrize("value", ["size", "unit"])
@pytest.mark.parametrize(("modalities", "most"), [(PAIR, 4), (TRIO, 8)])
def test_most_copies_of_one_sample(modalities, most, value):
    phi = contributions(every_pattern(modalities), modalities, value)
    assert sum(copies(values) for values in phi.values()).max() == most


# The modality level -------------------------------------------------------------------------------


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


def constant_phi(means, size=100):
    return {m: torch.full((size,), v, dtype=torch.float64) for m, v in means.items()}


@pytest.mark.parametrize(
    ("means", "weakest", "count"),
    [
        ({"a": 1.1, "v": 0.5}, 2, 40),
        ({"a": 0.5, "v": 1.1}, 1, 40),
        ({"t": 0.9, "a": 0.6, "v": 0.0}, 3, 40),
        ({"a": 0.7, "v": 0.7}, 1, 0),
    ],
)
def test_modality_list_adds_copies_of_the_weakest_alone(means, weakest, count):
    phi = constant_phi(means)
    indices, keep = modality_plan(phi, torch.Generator().manual_seed(0))
    assert torch.equal(indices[:100], torch.arange(100)) and (keep[:100] == 0).all()
    assert keep[100:].tolist() == [weakest] * count
    assert count == 0 or len(set(indices[100:].tolist())) > 20  # drawn over the whole set


def test_modality_list_averages_over_a_part_of_the_samples():
    phi = {"a": torch.zeros(50).double(), "v": torch.zeros(50).double()}
    phi["a"][:25] = 1.0  # the mean over a part is a multiple of 1 / draws
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(50, (5,), generator=torch.Generator().manual_seed(0))
    share = modality_gap([phi["a"][drawn].mean().item(), 0.0], 1.0)
    indices, _ = modality_plan(phi, generator, part_ratio=0.1)
    assert len(indices) == 50 + int(round(share * 50, 9))


def test_a_whole_number_of_copies_is_not_missed_by_rounding():
    assert int(0.29 * 100) == 28
    phi = constant_phi({"a": 1.5, "v": 0.0})  # the gap is 1
    indices, _ = modality_plan(phi, torch.Generator(), strength=0.29)
    assert len(indices) == 129


def test_a_part_of_less_than_one_sample_is_one_sample():
    indices, keep = modality_plan(constant_phi({"a": 1.0, "v": 0.0}, 3), torch.Generator())
    assert len(indices) == 5 and keep.tolist() == [0, 0, 0, 2, 2]


def test_modality_draws_depend_on_seed_and_epoch_alone():
    lists = []
    for seed, epoch in ((0, 3), (0, 3), (0, 4), (1, 3)):
        method = make(level="modality", strength=9.0, part_ratio=1.0, seed=seed)
        lists.append(method.begin_epoch(epoch, Part()).indices[100:].tolist())
    assert lists[0] == lists[1] != []
    assert lists[0] != lists[2] and lists[0] != lists[3]


# Valuation of a model -----------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_hits_are_those_of_zeroed_features(modalities):
    method, part = make(modalities), Part(modalities=modalities)
    hits = method._hits(part)
    model, everything = method.model.eval(), part.rows(torch.arange(100))
    f = model.encode(everything["inputs"])
    for s in subsets(modalities):
        zeroed = {m: x if m in s else torch.zeros_like(x) for m, x in f.items()}
        expected = model.fuse(zeroed).argmax(1) == everything["label"]
        assert torch.equal(hits[s], expected) and 0 < expected.sum() < 100
    assert list(hits) == subsets(modalities) and len(hits) == 2 ** len(modalities) - 1


def test_batch_size_does_not_matter():
    method = make()
    small, large = (method._hits(Part(batch_size=size)) for size in (7, 64))
    one, other = contributions(small, PAIR), contributions(large, PAIR)
    assert all(torch.equal(one[m], other[m]) for m in PAIR)
    assert one["audio"][64:].unique().numel() > 1  # beyond a first batch too


def test_list_is_the_same_when_nothing_was_trained():
    method, part = make(), Part()
    first, again = method.begin_epoch(2, part), method.begin_epoch(3, part)
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.columns["keep"], again.columns["keep"])
    assert 100 < len(first.indices) <= 500


def test_list_never_outgrows_its_bound_while_training():
    method, part = make(value="unit"), Part()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
    sizes = []
    for epoch in range(1, 4):
        plan = method.begin_epoch(epoch, part)
        method.train()
        for batch in part.epoch(plan):
            optimizer.zero_grad(set_to_none=True)
            method(batch)[0].backward()
            optimizer.step()
        sizes.append(len(plan.indices))
    assert len(set(sizes)) > 1 and all(300 <= size <= 500 for size in sizes)


def test_valuation_leaves_the_model_as_it_was():
    method, part = make(), Part()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.train()
    method.begin_epoch(1, part)
    assert same(before, method.state_dict()) and not method.model.training
    assert part.views == ["eval"]
    assert all(p.grad is None for p in method.parameters())


def test_valuation_is_one_encoder_pass_without_gradient():
    method, part, seen = make(), Part(), []
    method.model.encoders["audio"].register_forward_hook(lambda _, x, y: seen.append(y))
    method.begin_epoch(1, part)
    assert sum(len(y) for y in seen) == 100
    assert not any(y.requires_grad for y in seen)


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_copy_is_fused_as_its_subset(modalities):
    method = make(modalities)
    f = method.model.encode(tiny_batch(modalities)["inputs"])
    for k, m in enumerate(modalities, start=1):
        hidden = keep_only(f, torch.full((8,), k))
        assert torch.equal(method.model.fuse(hidden), method.model.fuse_subset(f, [m]))


def test_whole_rows_pass_unchanged_beside_masked_ones():
    f = {"audio": torch.randn(4, 3), "video": torch.randn(4, 5)}
    masked = keep_only(f, torch.tensor([0, 1, 2, 0]))
    assert torch.equal(masked["audio"][[0, 1, 3]], f["audio"][[0, 1, 3]])
    assert torch.equal(masked["video"][[0, 2, 3]], f["video"][[0, 2, 3]])
    assert not masked["audio"][2].any() and not masked["video"][1].any()


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_a_copy_trains_its_own_encoder_alone(modalities):
    method = make(modalities)
    loss, _ = method(tiny_batch(modalities) | {"keep": torch.ones(8, dtype=torch.int64)})
    loss.backward()
    seen, *hidden = modalities
    weight, columns = method.model.fusion.weight.grad, method.model.modality_slices
    assert all(p.grad.any() for p in method.model.encoder_parameters(seen) if p.ndim > 1)
    assert weight[:, columns[seen]].any() and method.model.fusion.bias.grad.any()
    for m in hidden:
        assert not any(p.grad.any() for p in method.model.encoder_parameters(m))
        assert not weight[:, columns[m]].any()


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
@pytest.mark.parametrize("level", ["sample", "modality"])
def test_gradient_of_an_enlarged_epoch_reaches_each_encoder(level, modalities):
    method, part = make(modalities, level=level), Part(40, 16, modalities)
    plan = method.begin_epoch(1, part)
    method.train()
    loss = sum(method(batch)[0] for batch in part.epoch(plan))
    loss.backward()
    assert loss.isfinite() and (plan.columns["keep"] > 0).any()
    for m in modalities:
        assert all(p.grad.any() for p in method.model.encoder_parameters(m) if p.ndim > 1)


def joint_and_smv(batch, column):
    joint, smv = Joint(tiny_model(heads=False), None, facts()), make(warmup_epochs=3)
    smv.model.load_state_dict(joint.model.state_dict())
    assert smv.begin_epoch(3, Part()) is None
    out = []
    for method, given in ((joint, batch), (smv, batch | column)):
        method.train()
        loss, logs = method(given)
        loss.backward()
        out.append((loss, logs, gradients(method)))
    return out


def test_warm_up_is_joint_to_the_last_bit():
    (loss, logs, grads), (loss_, logs_, grads_) = joint_and_smv(tiny_batch(), {})
    assert torch.equal(loss, loss_) and same(grads, grads_)
    assert logs_.keys() == logs.keys() and all(logs_[n] == logs[n] for n in logs)


def test_whole_samples_are_joint_to_the_last_bit():
    whole = {"keep": torch.zeros(8, dtype=torch.int64)}
    (loss, logs, grads), (loss_, logs_, grads_) = joint_and_smv(tiny_batch(), whole)
    assert torch.equal(loss, loss_) and same(grads, grads_)
    assert logs_["train/acc"] == logs["train/acc"] and logs_["train/masked"] == 0


def test_strength_zero_trains_on_the_samples_themselves():
    plan = make(level="modality", strength=0.0).begin_epoch(1, Part())
    assert torch.equal(plan.indices, torch.arange(100)) and not plan.columns["keep"].any()


def test_warm_up_ends_after_its_last_epoch():
    method, part = make(warmup_epochs=3), Part()
    plans = [method.begin_epoch(epoch, part) for epoch in range(1, 6)]
    assert [isinstance(plan, EpochPlan) for plan in plans] == [False] * 3 + [True] * 2
    assert len(part.views) == 2


# The log ------------------------------------------------------------------------------------------


def test_epoch_log_describes_the_list():
    method, part = make(TRIO), Part(modalities=TRIO)
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


def test_epoch_log_is_empty_in_warm_up():
    method, part = make(warmup_epochs=2), Part()
    for epoch, logged in ((1, False), (2, False), (3, True), (1, False)):
        method.begin_epoch(epoch, part)
        assert bool(method.end_epoch()) is logged


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


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_no_host_read_in_a_step(modalities):
    method = make(modalities)
    batch = tiny_batch(modalities) | {"keep": torch.arange(8) % (len(modalities) + 1)}
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0


# Options and state --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"value": "unit"}),
        ({}, {"level": "modality"}),
        ({"level": "modality"}, {"level": "modality", "part_ratio": 0.03}),
        ({"level": "modality"}, {"level": "modality", "strength": 3.0}),
        ({"level": "modality"}, {"level": "modality", "gap_form": "power"}),
        (
            {"level": "modality", "strength": 6.0},
            {"level": "modality", "strength": 6.0, "gap_form": "tanh"},
        ),
    ],
    ids=str,
)
def test_each_option_changes_the_list(one, other):
    plans = [make(**values).begin_epoch(1, Part()) for values in (one, other)]
    assert len(plans[0].indices) != len(plans[1].indices)


def test_no_state_of_its_own():
    method = make()
    method.begin_epoch(1, Part())
    assert set(method.state_dict()) == {f"model.{name}" for name in method.model.state_dict()}
    other = make()
    torch.nn.init.zeros_(other.model.fusion.weight)
    other.load_state_dict(method.state_dict())
    plans = [m.begin_epoch(2, Part()) for m in (method, other)]
    assert torch.equal(plans[0].indices, plans[1].indices)


@pytest.mark.parametrize(
    ("values", "modalities", "words"),
    [
        ({"warmup_epochs": 3}, PAIR, "leaves no epoch"),
        ({}, ("audio",), "2 or more modalities"),
        ({"part_ratio": 0.5}, PAIR, "--part_ratio has an effect with --level modality only"),
        ({"strength": 2.0}, PAIR, "--strength has an effect with --level modality only"),
        ({"gap_form": "tanh"}, PAIR, "--gap_form has an effect with --level modality only"),
    ],
)
def test_impossible_settings_are_refused(values, modalities, words):
    with pytest.raises(UsageError, match=words):
        SMV.check(SMV.HParams(**{"warmup_epochs": 0, **values}), 3, list(modalities))


def test_modality_level_takes_its_settings():
    values = {"part_ratio": 0.5, "strength": 2.0, "gap_form": "tanh", "warmup_epochs": 1}
    SMV.check(SMV.HParams(level="modality", **values), 3, list(PAIR))
