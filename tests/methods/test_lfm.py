"""LFM: the golden numbers, the ways alpha moves, and what its passes must leave alone."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import TinySet, facts, tiny_batch, tiny_model
from torch import nn

from common.options import UsageError
from methods import lfm
from methods.lfm import (
    LFM,
    fitted_alpha_cls,
    gather_batch,
    hessian_vector_mean,
    heuristic_alpha_match,
    matching_loss,
    mixed,
    mixture_divergence,
)
from models.build import Choice, Stream, build_classifier
from models.classifier import Classifier, Execution

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def make(modalities=PAIR, epochs=10, seed=0, size=40, model=None, **values):
    hp = LFM.HParams(**values)
    model = model or tiny_model(modalities, heads=LFM.has_unimodal_heads(hp))
    return LFM(model, hp, facts(seed, epochs, size))


def begun(epoch=1, modalities=PAIR, data=None, **how):
    method = make(modalities, **how)
    method.begin_epoch(epoch, data or TinySet(modalities))
    return method.train()


class Recorder(TinySet):
    """A training part that notes what is read, and draws from the global generator as torch's."""

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.reads = []

    def batches(self, indices=None, transforms="eval"):
        torch.rand(3)
        self.reads.append((transforms, list(indices)))
        yield from super().batches(indices, transforms)


# The matching loss --------------------------------------------------------------------------------


def test_golden_divergences_and_their_bounds():
    logits = {"a": double([[0.8, 0.2]]).log(), "v": double([[0.4, 0.6]]).log()}
    assert matching_loss(logits, "kl_code").item() == pytest.approx(0.0928713, abs=1e-6)
    assert matching_loss(logits, "js").item() == pytest.approx(0.0863046, abs=1e-6)
    far = {"a": double([[20.0, 0.0]]), "v": double([[0.0, 20.0]])}
    assert matching_loss(far, "kl_code").item() == pytest.approx(9.306853, abs=1e-6)
    assert 0.69 < matching_loss(far, "js").item() <= math.log(2)


def test_divergences_of_huge_logits_are_finite_with_their_gradients():
    z = torch.tensor([[2000.0, 0.0, -2000.0]], requires_grad=True)
    loss = matching_loss({"a": z, "v": -z})
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all() and loss > 1000


@pytest.mark.parametrize("kind", ["kl_code", "js"])
def test_a_divergence_is_symmetric_positive_and_ignores_a_rows_constant(kind):
    z = {m: torch.randn(50, 6, dtype=torch.float64) for m in "av"}
    loss = matching_loss(z, kind)
    assert loss > 0.01
    assert matching_loss({"v": z["v"], "a": z["a"]}, kind).item() == pytest.approx(loss.item())
    shifted = {"a": z["a"] + torch.randn(50, 1, dtype=torch.float64), "v": z["v"]}
    assert matching_loss(shifted, kind).item() == pytest.approx(loss.item())
    assert matching_loss({"a": z["a"], "v": z["a"] + 3}, kind).item() == pytest.approx(0, abs=1e-12)
    log_p = F.log_softmax(z["a"], 1)
    other = log_p.clone()
    other[5] = other[5].flip(0)
    per_row = mixture_divergence(log_p, other)
    assert per_row[5] > 1e-4 and per_row.count_nonzero() < 50 and per_row.min() > -1e-12


@pytest.mark.parametrize("kind", ["kl_code", "js"])
def test_three_modalities_take_the_mean_over_pairs(kind):
    z = {m: torch.randn(7, 5) for m in "tav"}
    pairs = [
        matching_loss({a: z[a], b: z[b]}, kind).item() for a, b in itertools.combinations("tav", 2)
    ]
    assert matching_loss(z, kind).item() == pytest.approx(sum(pairs) / 3)


def test_matching_ignores_labels_and_depends_on_who_is_paired():
    method, batch = begun(alpha_mode="fixed").eval(), tiny_batch()
    match = method(batch)[1]["train/L_match"]
    assert method(batch | {"label": batch["label"].flip(0)})[1]["train/L_match"] == match
    inputs = batch["inputs"] | {"audio": batch["inputs"]["audio"].flip(0)}
    assert method(batch | {"inputs": inputs})[1]["train/L_match"] != match


# Schedules ----------------------------------------------------------------------------------------


def test_the_fitted_polynomial_is_bounded_and_stretched_to_the_runs_length():
    table = {
        0: 0.2046, 10: 0.2478, 20: 0.3009, 50: 0.4367, 70: 0.4840, 80: 0.5002, 100: 0.5392,
        120: 0.6146, 150: 0.8213, 183: 1.0, 199: 0.9160,
    }  # fmt: skip
    for e, expected in table.items():
        assert fitted_alpha_cls(e + 1, 200) == pytest.approx(expected, abs=5e-5)
    assert fitted_alpha_cls(1, 200) == fitted_alpha_cls(1, 10) == fitted_alpha_cls(1, 1)
    assert fitted_alpha_cls(1, 1) == 0.204623704
    assert fitted_alpha_cls(10, 10) == fitted_alpha_cls(200, 200)
    clipped = [e for e in range(200) if fitted_alpha_cls(e + 1, 200) == 1]
    assert clipped == list(range(177, 189))


def test_the_heuristic_falls():
    for t, expected in ((1, 0.632121), (2, 0.393469), (10, 0.095163), (70, 0.014184)):
        assert heuristic_alpha_match(t) == pytest.approx(expected, abs=1e-6)
    values = [heuristic_alpha_match(t) for t in range(1, 71)]
    assert all(a > b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("values", "epoch", "alpha_match"),
    [
        ({"alpha_mode": "heuristic"}, 2, 0.393469),
        ({"alpha_mode": "fitted"}, 10, 1 - 0.9160),
        ({"variant": "official"}, 10, 1 - 0.9160),
        ({"alpha_mode": "fixed"}, 7, 0.05),
        ({"alpha_mode": "fixed", "alpha_match": 0.3}, 7, 0.3),
        ({"alpha_mode": "fixed", "variant": "official"}, 7, 0.95),
    ],
)
def test_schedules_set_alpha_hold_nothing_out_and_read_nothing(values, epoch, alpha_match):
    method, data = make(**values), Recorder()
    assert method.begin_epoch(epoch, data) is None and not data.reads
    logs = method.end_epoch()
    assert logs.keys() == {"train/alpha_cls", "train/alpha_match"}
    assert logs["train/alpha_match"].item() == pytest.approx(alpha_match, abs=5e-5)
    assert sum(logs.values()).item() == pytest.approx(1, abs=1e-9)


# What is learnt -----------------------------------------------------------------------------------


def test_hessian_vector_mean_is_that_of_the_whole_hessian():
    draw = torch.Generator().manual_seed(0)
    shapes = [(5, 4), (3, 4), (6, 8), (6,)]
    p = [torch.randn(s, dtype=torch.float64, generator=draw).requires_grad_() for s in shapes]
    a, v = (torch.randn(9, d, dtype=torch.float64, generator=draw) for d in (5, 3))

    def losses(p):
        f, g = torch.tanh(a @ p[0]), torch.tanh(v @ p[1])
        z = {"a": f @ p[2][:, :4].T + p[3] / 2, "v": g @ p[2][:, 4:].T + p[3] / 2}
        return F.cross_entropy(z["a"] + z["v"], torch.arange(9) % 6), matching_loss(z)

    alpha, sizes = double(0.3), [x.numel() for x in p]

    def unflat(flat):
        return [part.view_as(x) for part, x in zip(flat.split(sizes), p)]

    flat = torch.cat([x.detach().flatten() for x in p])
    hessian = torch.autograd.functional.hessian(lambda w: mixed(*losses(unflat(w)), alpha), flat)
    direction = torch.autograd.functional.jacobian(lambda w: losses(unflat(w))[0], flat)
    expected = (hessian @ direction)[: sizes[0]].mean().item()
    found = hessian_vector_mean(*losses(p), p, p[0], alpha)
    assert found.item() == pytest.approx(expected, rel=1e-9) and abs(expected) > 1e-6


@pytest.mark.parametrize("variant", ["balancebench", "official"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_alpha_descends_by_its_rate_within_its_bounds(variant, modalities):
    values = {"alpha_mode": "hvp", "variant": variant, "alpha_match": 0.5}
    method = begun(modalities=modalities, lr_alpha=0.25, **values)
    logs = method.end_epoch()
    g = logs["train/alpha_grad"].item()
    assert g != 0 and method.alpha_match.item() == pytest.approx(0.5 - 0.25 * g, rel=1e-9)
    assert logs["train/alpha_cls"] == 1 - method.alpha_match and logs["train/alpha_lr"] == 0.25
    far = begun(modalities=modalities, lr_alpha=10 / abs(g), **values)
    assert far.alpha_match.item() == (0.05 if g > 0 else 0.95)
    small = begun(modalities=modalities, lr_alpha=1e-9, **values)  # below what float32 resolves
    assert 0 < abs(small.alpha_match.item() - 0.5) < 1e-9


def test_alpha_grad_is_that_of_the_held_out_samples_and_the_first_tensor():
    method, data = make(alpha_match=0.4, factor=7.0), Recorder()
    before = {k: v.clone() for k, v in method.model.state_dict().items()}
    draws = torch.get_rng_state()
    plan = method.begin_epoch(1, data)
    # The pass leaves model, gradients and global draws alone.
    assert all(torch.equal(v, before[k]) for k, v in method.model.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    assert torch.equal(torch.get_rng_state(), draws)
    # Held-out samples are read once, in evaluation view, and never trained on.
    kept = method.held_out.tolist()
    assert len(set(kept)) == 16 and data.reads == [("eval", kept)]
    assert sorted(plan.indices.tolist() + kept) == list(range(40))
    other = tiny_model(heads=False).eval()
    other.load_state_dict(before)
    held_out = data.take(method.held_out)
    f = other.encode(held_out["inputs"])
    l_cls = F.cross_entropy(other.fuse(f), held_out["label"])
    loss = 0.6 * l_cls + 0.4 * matching_loss(other.split_logits(f))  # without the factor
    p = list(other.parameters())
    v = torch.autograd.grad(l_cls, p, retain_graph=True)
    slope = torch.autograd.grad(loss, p, create_graph=True)
    product = torch.autograd.grad(slope, p, grad_outputs=v)  # the whole H v
    assert p[0] is other.encoders["audio"].trunk[0].weight
    assert method.alpha_grad.item() == pytest.approx(product[0].mean().item(), rel=1e-4)


def test_the_rate_is_halved_for_good(monkeypatch):
    for every, expected in ((20, [1, 1, 0.5, 0.5, 0.25]), (2, [1, 0.5, 0.25, 0.25, 0.125])):
        monkeypatch.setattr(lfm, "HALVE_EVERY", every)
        method, data, seen = make(lr_alpha=1.0), TinySet(), []
        for epoch in (1, 19, 21, 40, 41):
            method.begin_epoch(epoch, data)
            seen.append(method.end_epoch()["train/alpha_lr"].item())
        assert seen == expected


def test_held_out_samples_depend_on_the_runs_seed_alone():
    first, again, other = make(), make(variant="official", alpha_mode="hvp"), make(seed=1)
    assert torch.equal(first.held_out, again.held_out)
    assert not torch.equal(first.held_out, other.held_out)
    assert len(make(held_out=5).held_out) == 5
    with pytest.raises(UsageError, match="--held_out 16 leaves too few of 17"):
        make(size=17)
    assert make(size=18).held_out.numel() == 16 and make(size=17, alpha_mode="fixed")


def test_compiled_encoders_run_eagerly_for_alpha():
    video = Stream("video", ([0.5] * 3, [0.25] * 3))
    streams = {"audio": Stream("audio", (0.0, 1.0), 1), "video": video}
    how = Execution(compile=True)
    compiled = build_classifier(streams, 4, Choice("small"), execution=how)
    assert begun(model=compiled).alpha_grad == begun().alpha_grad


class Words(nn.Module):
    """An encoder with fused attention over the first axis of its input."""

    def __init__(self, width):
        super().__init__()
        self.width, self.map = width, nn.Linear(12, 2 * width)

    def forward(self, x):
        q, v = self.map(x.float()).chunk(2, -1)  # [B, 1, 17, width]
        return F.scaled_dot_product_attention(q, q, v).mean((1, 2))


def test_attention_has_second_derivatives_and_a_frozen_parameter_takes_no_part():
    model = Classifier({m: Words(8) for m in ("audio", "text")}, 4, False, 0)
    model.fusion.bias.requires_grad_(False)
    method = begun(modalities=("audio", "text"), model=model)
    assert method.alpha_grad.isfinite() and method.alpha_grad != 0


# A step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("variant", ["balancebench", "official"])
def test_a_step_is_the_weighted_sum_of_both_losses_of_the_variants_logits(variant, factor):
    values = {"alpha_mode": "fixed", "alpha_match": 0.25, "factor": factor, "variant": variant}
    method, batch = begun(**values).eval(), tiny_batch()
    loss, logs = method(batch)
    f = method.model.encode(batch["inputs"])
    if variant == "official":
        z = method.model.unimodal(f)
        o = (z["audio"] + z["video"]) / 2
    else:
        assert not method.model.heads
        z, o = method.model.split_logits(f), method.model.fuse(f)
    l_cls, l_match = F.cross_entropy(o, batch["label"]), matching_loss(z)
    assert torch.allclose(method.logits(f), o) and loss.dtype == torch.float32
    assert logs["train/L_match"].item() == pytest.approx(l_match.item())
    assert logs["train/acc"] == (o.argmax(1) == batch["label"]).float().mean()
    assert loss.item() == pytest.approx(factor * (0.75 * l_cls + 0.25 * l_match).item())
    loss.backward()  # the fusion layer is no part of the official variant
    assert (method.model.fusion.weight.grad is None) is (variant == "official")


def test_held_out_samples_of_several_batches_become_one_batch():
    whole = TinySet(("tokens", "vectors"), size=10)
    batches = [whole.take(torch.arange(6)), whole.take(torch.arange(6, 10))]
    inputs = batches[1]["inputs"]  # as the loader cuts the padding of each batch
    inputs["tokens"], inputs["vectors"] = inputs["tokens"][:, :, :7], inputs["vectors"][:, :4]
    whole.batches = lambda indices, transforms: iter(batches)
    found = gather_batch(whole, torch.arange(10))
    assert torch.equal(found["label"], whole.data["label"])
    for m, x in whole.data["inputs"].items():
        assert torch.equal(found["inputs"][m][:6], x[:6])
    assert torch.equal(found["inputs"]["tokens"][6:, :, :7], inputs["tokens"])
    assert not found["inputs"]["tokens"][6:, :, 7:].any()
    assert not found["inputs"]["vectors"][6:, 4:].any()
