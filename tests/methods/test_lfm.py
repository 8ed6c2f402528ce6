"""LFM: golden numbers, how alpha changes, and what its passes must leave unchanged."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, STREAMS, TRIO, TinySet, doubles, facts, tiny_batch, tiny_method
from torch import nn

from common.options import UsageError
from methods import lfm
from methods.lfm import (
    LFM,
    fitted_alpha_cls,
    hessian_vector_mean,
    matching_loss,
    mixed,
)
from models.build import Choice, Stream, build_classifier
from models.classifier import Classifier, Execution


def make(modalities=PAIR, epoch=1, data=None, **values):
    return tiny_method(LFM, modalities, epoch, data or TinySet(modalities), 40, **values)


class Recorder(TinySet):
    """A training set that records reads and draws from the global generator, like torch's."""

    reads = ()

    def batches(self, indices=None, transforms="eval", batch_size=None):
        torch.rand(3)
        self.reads += ((transforms, list(indices)),)
        yield from super().batches(indices, transforms, batch_size)


def test_golden_divergences_and_their_bounds():
    logits = {"a": doubles([0.8, 0.2]).log(), "v": doubles([0.4, 0.6]).log()}
    assert matching_loss(logits, "kl_code").item() == pytest.approx(0.0928713, abs=1e-6)
    assert matching_loss(logits, "js").item() == pytest.approx(0.0863046, abs=1e-6)
    far = {"a": doubles([20.0, 0.0]), "v": doubles([0.0, 20.0])}
    assert matching_loss(far, "kl_code").item() == pytest.approx(9.306853, abs=1e-6)
    assert 0.69 < matching_loss(far, "js").item() <= math.log(2)


def test_divergences_of_huge_logits_are_finite_with_their_gradients():
    z = torch.tensor([[2000.0, 0.0, -2000.0]], requires_grad=True)
    loss = matching_loss({"a": z, "v": -z})
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all() and loss > 1000


@pytest.mark.parametrize("kind", ["kl_code", "js"])
def test_a_divergence_is_symmetric_ignores_a_rows_constant_and_is_the_mean_over_pairs(kind):
    z = {m: torch.randn(50, 6, dtype=torch.float64) for m in "tav"}
    a, v = z["a"], z["v"]
    loss = matching_loss({"a": a, "v": v}, kind)
    assert loss > 0.01
    assert matching_loss({"v": v, "a": a}, kind).item() == pytest.approx(loss.item())
    shifted = a + torch.randn(50, 1, dtype=torch.float64)
    assert matching_loss({"a": shifted, "v": v}, kind).item() == pytest.approx(loss.item())
    assert matching_loss({"a": a, "v": shifted}, kind).item() == pytest.approx(0, abs=1e-12)
    pairs = [matching_loss({m: z[m] for m in p}, kind) for p in itertools.combinations(z, 2)]
    assert matching_loss(z, kind).item() == pytest.approx(sum(pairs).item() / 3)


def test_the_fitted_polynomial_is_bounded_and_stretched_to_the_runs_length():
    table = {0: 0.2046, 10: 0.2478, 50: 0.4367, 100: 0.5392, 150: 0.8213, 183: 1, 199: 0.9160}
    for e, expected in table.items():
        assert fitted_alpha_cls(e + 1, 200) == pytest.approx(expected, abs=5e-5)
    assert fitted_alpha_cls(1, 200) == fitted_alpha_cls(1, 10) == fitted_alpha_cls(1, 1)
    assert fitted_alpha_cls(10, 10) == fitted_alpha_cls(200, 200)
    bounded = [e for e in range(200) if fitted_alpha_cls(e + 1, 200) == 1]
    assert bounded == list(range(177, 189))


@pytest.mark.parametrize(
    ("values", "epoch", "alpha_match"),
    [
        ({"alpha_mode": "heuristic"}, 1, 0.632121),
        ({"alpha_mode": "heuristic"}, 2, 0.393469),
        ({"alpha_mode": "heuristic"}, 70, 0.014184),
        ({"alpha_mode": "fitted"}, 10, 1 - 0.9160),
        ({"variant": "official"}, 10, 1 - 0.9160),
        ({"alpha_mode": "fixed"}, 7, 0.05),
        ({"alpha_mode": "fixed", "alpha_match": 0.3}, 7, 0.3),
        ({"alpha_mode": "fixed", "variant": "official"}, 7, 0.95),
    ],
)
def test_schedules_set_alpha_without_holding_out_or_reading_samples(values, epoch, alpha_match):
    data = Recorder()
    method = make(data=data, **values)
    assert method.begin_epoch(epoch, data) is None and not data.reads
    logs = method.end_epoch()
    assert logs["train/alpha_match"].item() == pytest.approx(alpha_match, abs=5e-5)
    assert logs.keys() == {"train/alpha_cls", "train/alpha_match"}
    assert sum(logs.values()).item() == pytest.approx(1, abs=1e-9)


def test_hessian_vector_mean_matches_the_full_hessian():
    shapes = [(5, 4), (3, 4), (6, 8), (6,)]
    p = [torch.randn(s, dtype=torch.float64).requires_grad_() for s in shapes]
    a, v = (torch.randn(9, d, dtype=torch.float64) for d in (5, 3))

    def losses(p):
        f, g = torch.tanh(a @ p[0]), torch.tanh(v @ p[1])
        z = {"a": f @ p[2][:, :4].T + p[3] / 2, "v": g @ p[2][:, 4:].T + p[3] / 2}
        return F.cross_entropy(z["a"] + z["v"], torch.arange(9) % 6), matching_loss(z)

    alpha, sizes = torch.tensor(0.3), [x.numel() for x in p]

    def unflat(flat):
        return [part.view_as(x) for part, x in zip(flat.split(sizes), p)]

    flat = torch.cat([x.detach().flatten() for x in p])
    hessian = torch.autograd.functional.hessian(lambda w: mixed(*losses(unflat(w)), alpha), flat)
    direction = torch.autograd.functional.jacobian(lambda w: losses(unflat(w))[0], flat)
    expected = (hessian @ direction)[: sizes[0]].mean().item()
    found = hessian_vector_mean(*losses(p), alpha, p)
    assert found.item() == pytest.approx(expected, rel=1e-9) and abs(expected) > 1e-6


@pytest.mark.parametrize("variant", ["balancebench", "official"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_alpha_descends_by_its_rate_within_its_bounds(variant, modalities):
    values = {"alpha_mode": "hvp", "variant": variant, "alpha_match": 0.5}
    method = make(modalities, lr_alpha=0.25, **values)
    logs = method.end_epoch()
    g = logs["train/alpha_grad"].item()
    assert g != 0 and method.alpha_match.item() == pytest.approx(0.5 - 0.25 * g, rel=1e-9)
    assert logs["train/alpha_cls"] == 1 - method.alpha_match and logs["train/alpha_lr"] == 0.25
    far = make(modalities, lr_alpha=10 / abs(g), **values)
    assert far.alpha_match.item() == (0.05 if g > 0 else 0.95)
    small = make(modalities, lr_alpha=1e-9, **values)  # below float32's resolution
    assert 0 < abs(small.alpha_match.item() - 0.5) < 1e-9


def test_the_pass_for_alpha_reads_the_held_out_samples_once_and_changes_nothing_else():
    method, data = make(alpha_mode="hvp", held_out=5), Recorder()
    before, draws = (
        {k: v.clone() for k, v in method.model.state_dict().items()},
        torch.get_rng_state(),
    )
    plan = method.begin_epoch(2, data)
    assert all(torch.equal(v, before[k]) for k, v in method.model.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    assert torch.equal(torch.get_rng_state(), draws)
    kept = method.held_out.tolist()
    assert len(set(kept)) == 5 and data.reads == (("eval", kept),)
    assert sorted(plan.indices.tolist() + kept) == list(range(40))
    assert next(method.parameters()) is method.model.encoders["audio"].trunk[0].weight


def test_the_rate_is_halved_for_good(monkeypatch):
    monkeypatch.setattr(lfm, "HALVE_EVERY", 2)
    method, data, seen = make(lr_alpha=1.0), TinySet(), []
    for epoch in (1, 2, 3, 4, 5):
        method.begin_epoch(epoch, data)
        seen.append(method.end_epoch()["train/alpha_lr"].item())
    assert seen == [1, 1, 0.5, 0.5, 0.25]


def test_held_out_samples_depend_only_on_the_runs_seed():
    first, again, other = make(), make(variant="official", alpha_mode="hvp"), make(seed=1)
    assert torch.equal(first.held_out, again.held_out)
    assert not torch.equal(first.held_out, other.held_out)
    with pytest.raises(UsageError, match="--held_out 39 leaves too few of 40"):
        make(held_out=39)


class Words(nn.Module):
    """An encoder with fused attention over the first axis of its input."""

    def __init__(self, width):
        super().__init__()
        self.width, self.map = width, nn.Linear(12, 2 * width)

    def forward(self, x):
        q, v = self.map(x.float()).chunk(2, -1)  # [B, 1, 17, width]
        return F.scaled_dot_product_attention(q, q, v).mean((1, 2))


def test_compiled_encoders_and_fused_attention_have_second_derivatives():
    streams = {"audio": Stream("audio", (0.0, 1.0), 1), "video": STREAMS["video"]}
    compiled = build_classifier(streams, 4, Choice("small"), execution=Execution(compile=True))
    attention = Classifier({m: Words(8) for m in ("audio", "text")}, 4, False, 0)
    found = []
    for model in (compiled, attention):
        method = LFM(model, LFM.HParams(), facts(train_size=40))
        method.begin_epoch(1, TinySet(model.modalities))
        found.append(method.alpha_grad)
    assert found[0] == make().alpha_grad and found[1].isfinite() and found[1] != 0


@pytest.mark.parametrize("variant", ["balancebench", "official"])
def test_a_step_is_the_weighted_sum_of_both_losses_of_the_variants_logits(variant):
    values = {"alpha_mode": "fixed", "alpha_match": 0.25, "factor": 0.5, "variant": variant}
    method, batch = make(**values).eval(), tiny_batch()
    loss, logs = method(batch)
    f = method.model.encode(batch["inputs"])
    if variant == "official":
        z = method.model.unimodal(f)
        o = (z["audio"] + z["video"]) / 2
    else:
        z, o = method.model.split_logits(f), method.model.fuse(f)
    l_cls, l_match = F.cross_entropy(o, batch["label"]), matching_loss(z)
    assert torch.allclose(method.logits(f), o) and loss.dtype == torch.float32
    assert logs["train/L_match"].item() == pytest.approx(l_match.item())
    assert loss.item() == pytest.approx(0.5 * (0.75 * l_cls + 0.25 * l_match).item())
    loss.backward()  # the official variant does not use the fusion layer
    assert (method.model.fusion.weight.grad is None) is (variant == "official")
