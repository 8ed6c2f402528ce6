"""LFM: the golden numbers, the ways alpha moves, and what its passes must leave alone."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import TinySet, facts, host_reads, tiny_batch, tiny_model
from torch import nn

from common.options import UsageError
from methods.joint import Joint
from methods.lfm import (
    LFM,
    contrast,
    fitted_alpha_cls,
    hessian_vector_mean,
    heuristic_alpha_match,
    hypergradient,
    matching_loss,
    mixed,
    mixture_divergence,
    read,
)
from models.build import Choice, Stream, build_classifier
from models.classifier import Classifier, Execution

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")


def double(values, **how):
    return torch.tensor(values, dtype=torch.float64, **how)


def base(parameters):
    return torch.optim.SGD(parameters, lr=0.01)


def make(modalities=PAIR, epochs=10, seed=0, size=40, model=None, **values):
    hp = LFM.HParams(**values)
    model = model or tiny_model(modalities, heads=LFM.has_unimodal_heads(hp))
    method = LFM(model, hp, facts(seed, epochs, size))
    method.optimizers(base)
    return method


def begun(epoch=1, modalities=PAIR, data=None, **how):
    method = make(modalities, **how)
    method.begin_epoch(epoch, data or TinySet(modalities))
    method.train()
    return method


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


def test_golden_divergences():
    logits = {"a": double([[0.8, 0.2]]).log(), "v": double([[0.4, 0.6]]).log()}
    assert matching_loss(logits, "kl_code").item() == pytest.approx(0.0928713, abs=1e-6)
    assert matching_loss(logits, "js").item() == pytest.approx(0.0863046, abs=1e-6)


def test_kl_code_is_unbounded_and_js_is_not():
    logits = {"a": double([[20.0, 0.0]]), "v": double([[0.0, 20.0]])}
    assert matching_loss(logits, "kl_code").item() == pytest.approx(9.306853, abs=1e-6)
    assert 0.69 < matching_loss(logits, "js").item() <= math.log(2)


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


def test_one_differing_row_makes_the_divergence_positive():
    log_p = F.log_softmax(torch.randn(9, 4, dtype=torch.float64), 1)
    other = log_p.clone()
    other[5] = other[5].flip(0)
    per_row = mixture_divergence(log_p, other)
    assert per_row[5] > 1e-4 and per_row.count_nonzero() < 9 and per_row.min() > -1e-12


@pytest.mark.parametrize("kind", ["kl_code", "js", "infonce"])
def test_matching_ignores_labels_and_depends_on_who_is_paired(kind):
    method, batch = begun(alpha_mode="fixed", match=kind).eval(), tiny_batch()
    match = method(batch)[1]["train/L_match"]
    relabelled = batch | {"label": batch["label"].flip(0)}
    _, logs = method(relabelled)
    assert logs["train/L_match"] == match and logs["train/L_align"] > 0
    inputs = batch["inputs"] | {"audio": batch["inputs"]["audio"].flip(0)}
    assert method(batch | {"inputs": inputs})[1]["train/L_match"] != match


def test_infonce_of_orthogonal_features():
    eye = torch.eye(4, dtype=torch.float64)
    expected = math.log(1 + 3 * math.exp(-1 / 0.4))
    assert contrast(eye, 7 * eye, 0.4).item() == pytest.approx(expected)
    assert contrast(eye, eye.roll(1, 0), 0.4).item() == pytest.approx(expected + 1 / 0.4)


@pytest.mark.parametrize("kind", ["kl_code", "js", "infonce"])
def test_three_modalities_take_the_mean_over_pairs(kind):
    z = {m: torch.randn(7, 5) for m in "tav"}
    pairs = [
        matching_loss({a: z[a], b: z[b]}, kind).item() for a, b in itertools.combinations("tav", 2)
    ]
    assert matching_loss(z, kind).item() == pytest.approx(sum(pairs) / 3)


# Schedules ----------------------------------------------------------------------------------------


def test_the_fitted_polynomial():
    table = {
        0: 0.2046, 10: 0.2478, 20: 0.3009, 50: 0.4367, 70: 0.4840, 80: 0.5002, 100: 0.5392,
        120: 0.6146, 150: 0.8213, 199: 0.9160,
    }  # fmt: skip
    for e, expected in table.items():
        assert fitted_alpha_cls(e) == pytest.approx(expected, abs=5e-5)
    assert fitted_alpha_cls(0) == 0.204623704
    assert fitted_alpha_cls(180, clip=False) == pytest.approx(1.00767, abs=5e-6)
    raw = [fitted_alpha_cls(e, clip=False) for e in range(200)]
    assert [e for e, a in enumerate(raw) if a > 1] == list(range(177, 189))
    assert raw.index(max(raw)) == 183 and max(raw) == pytest.approx(1.0105, abs=5e-5)
    assert fitted_alpha_cls(183) == 1.0


def test_the_heuristic_falls():
    for t, expected in ((1, 0.632121), (2, 0.393469), (10, 0.095163), (70, 0.014184)):
        assert heuristic_alpha_match(t) == pytest.approx(expected, abs=1e-6)
    values = [heuristic_alpha_match(t) for t in range(1, 71)]
    assert all(a > b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("epochs", "epoch", "rescale", "place"),
    [
        (200, 181, True, 180),
        (10, 10, True, 199),
        (10, 1, True, 0),
        (1, 1, True, 0),
        (10, 10, False, 9),
    ],
)
def test_fitted_is_stretched_to_the_runs_length(epochs, epoch, rescale, place):
    for clip in (True, False):
        method = begun(
            epoch, epochs=epochs, alpha_mode="fitted", fitted_rescale=rescale, clip_fitted=clip
        )
        weights = method.end_epoch()
        cls, match = weights["train/alpha_cls"].item(), weights["train/alpha_match"].item()
        assert cls == pytest.approx(fitted_alpha_cls(place, clip), abs=1e-9)
        assert cls + match == pytest.approx(1, abs=1e-9)


def test_heuristic_counts_epochs_from_one_and_fixed_stays():
    assert begun(2, alpha_mode="heuristic").alpha_match.item() == pytest.approx(0.393469, abs=1e-6)
    assert begun(7, alpha_mode="fixed", alpha_match=0.3).alpha_match.item() == 0.3


@pytest.mark.parametrize(
    ("values", "mode", "start"),
    [
        ({}, "hvp", 0.05),
        ({"variant": "official"}, "fitted", 0.95),
        ({"variant": "official", "alpha_mode": "hvp"}, "hvp", 0.95),
        ({"alpha_mode": "hypergrad"}, "hypergrad", 0.95),
        ({"alpha_mode": "fixed"}, "fixed", 0.05),
        ({"alpha_match": 0.0}, "hvp", 0.0),
    ],
)
def test_mode_and_start_that_auto_stands_for(values, mode, start):
    method = make(**values)
    assert (method.mode, method.alpha_match.item()) == (mode, start)


# What is learnt -----------------------------------------------------------------------------------


def toy(seed=0):
    """A two-layer model of two modalities in float64: (parameters, its losses of a batch)."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(5, 4), (3, 4), (6, 8), (6,)]
    p = [torch.randn(s, dtype=torch.float64, generator=draw).requires_grad_() for s in shapes]

    def losses(p, batch):
        a, v, y = batch
        f, g = torch.tanh(a @ p[0]), torch.tanh(v @ p[1])
        z = {"a": f @ p[2][:, :4].T + p[3] / 2, "v": g @ p[2][:, 4:].T + p[3] / 2}
        return F.cross_entropy(z["a"] + z["v"], y), matching_loss(z)

    def batch(size):
        a, v = (torch.randn(size, d, dtype=torch.float64, generator=draw) for d in (5, 3))
        return a, v, torch.arange(size) % 6

    return p, losses, batch(20), batch(9)


def test_hypergradient_is_autograds_through_one_step():
    p, losses, train, held_out = toy()
    alpha, eta = double(0.3, requires_grad=True), 0.2
    slope = torch.autograd.grad(mixed(*losses(p, train), alpha), p, create_graph=True)
    after = [x - eta * g for x, g in zip(p, slope)]
    (expected,) = torch.autograd.grad(losses(after, held_out)[0], alpha)
    before = [x.detach().clone() for x in p]
    found = hypergradient(
        lambda: losses(p, train), lambda: losses(p, held_out)[0], p, alpha.detach(), eta
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(torch.equal(x, old) for x, old in zip(p, before))


def test_a_failing_held_out_pass_still_restores_the_parameters():
    p, losses, train, _ = toy()
    before = [x.detach().clone() for x in p]
    with pytest.raises(ZeroDivisionError):
        hypergradient(lambda: losses(p, train), lambda: 1 / 0, p, double(0.5), 0.1)
    assert all(torch.equal(x, old) for x, old in zip(p, before))


def test_hessian_vector_mean_is_that_of_the_whole_hessian():
    p, losses, _, held_out = toy()
    alpha, sizes = double(0.3), [x.numel() for x in p]

    def unflat(flat):
        return [part.view_as(x) for part, x in zip(flat.split(sizes), p)]

    flat = torch.cat([x.detach().flatten() for x in p])
    hessian = torch.autograd.functional.hessian(
        lambda w: mixed(*losses(unflat(w), held_out), alpha), flat
    )
    v = torch.autograd.functional.jacobian(lambda w: losses(unflat(w), held_out)[0], flat)
    expected = (hessian @ v)[: sizes[0]].mean().item()
    found = hessian_vector_mean(*losses(p, held_out), p, p[0], alpha)
    assert found.item() == pytest.approx(expected, rel=1e-9) and abs(expected) > 1e-6


@pytest.mark.parametrize("mode", ["hvp", "hypergrad"])
@pytest.mark.parametrize("variant", ["balancebench", "official"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_alpha_descends_by_its_rate(mode, variant, modalities):
    rate = {"hvp": "lr_alpha", "hypergrad": "lr_alpha_hyper"}[mode]
    values = {"alpha_mode": mode, "variant": variant, "alpha_match": 0.5, rate: 0.25}
    method = begun(modalities=modalities, **values)
    g = method.end_epoch()["train/alpha_grad"].item()
    assert g != 0 and method.alpha_match.item() == pytest.approx(0.5 - 0.25 * g, rel=1e-9)
    assert method.end_epoch()["train/alpha_cls"] == 1 - method.alpha_match


def test_alpha_grad_is_that_of_the_held_out_samples_and_the_first_tensor():
    method, data = make(alpha_match=0.4), TinySet()
    before = {k: v.clone() for k, v in method.model.state_dict().items()}
    plan = method.begin_epoch(1, data)
    other = tiny_model(heads=False).eval()
    other.load_state_dict(before)
    held_out = data.take(torch.tensor([k for k in range(40) if k not in plan.indices.tolist()]))
    f = other.encode(held_out["inputs"])
    l_cls = F.cross_entropy(other.fuse(f), held_out["label"])
    loss = 0.6 * l_cls + 0.4 * matching_loss(other.split_logits(f))
    p = list(other.parameters())
    v = torch.autograd.grad(l_cls, p, retain_graph=True)
    slope = torch.autograd.grad(loss, p, create_graph=True)
    product = torch.autograd.grad(slope, p, grad_outputs=v)  # the whole H v
    conv = other.encoders["audio"].trunk[0].weight
    assert p[0] is conv
    assert method.alpha_grad.item() == pytest.approx(product[0].mean().item(), rel=1e-4)


def test_alpha_keeps_to_its_bounds():
    g = begun(alpha_match=0.5, lr_alpha=1e-6).alpha_grad.item()
    over = begun(alpha_match=0.5, lr_alpha=10 / abs(g), alpha_low=0.2, alpha_high=0.7)
    assert over.alpha_match.item() == (0.2 if g > 0 else 0.7)


def test_the_rate_is_halved_for_good_every_20_epochs():
    for every, expected in ((20, [1, 1, 0.5, 0.5, 0.25]), (2, [1, 0.5, 0.25, 0.25, 0.125])):
        method, data, seen = make(lr_alpha=1.0, halve_every=every), TinySet(), []
        for epoch in (1, 19, 21, 40, 41):
            method.begin_epoch(epoch, data)
            seen.append(method.end_epoch()["train/alpha_lr"].item())
        assert seen == expected
    method = begun(21, lr_alpha=1.0, halve_every=0)
    assert method.alpha_lr == 1


def test_steps_smaller_than_float32_resolves_are_kept():
    method = begun(alpha_match=0.9, lr_alpha=1e-9)
    assert 0 < abs(method.alpha_match.item() - 0.9) < 1e-9


def test_the_loss_factor_does_not_touch_alpha():
    assert begun(factor=2.0).alpha_grad == begun(factor=1.0).alpha_grad


def test_hypergrad_steps_by_the_optimizers_current_rate():
    found = []
    for lr in (1e-4, 2e-4):
        method = make(alpha_mode="hypergrad")
        (optimizer,) = method.optimizers(base)
        optimizer.param_groups[0]["lr"] = lr
        method.begin_epoch(1, TinySet())
        found.append(method.alpha_grad.item())
    assert found[0] != 0 and found[1] / found[0] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("mode", ["hvp", "hypergrad"])
def test_held_out_samples_are_never_trained_on(mode):
    data = Recorder(size=100, batch=24)
    method = make(alpha_mode=mode, size=100, held_out=20)
    plan = method.begin_epoch(3, data)
    kept = method.held_out.tolist()
    assert len(set(kept)) == 20
    assert sorted(plan.indices.tolist() + kept) == list(range(100))
    assert data.reads[0] == ("eval", kept)
    if mode == "hypergrad":
        transforms, batch = data.reads[1]
        assert transforms == "train" and len(set(batch)) == 64 and not set(batch) & set(kept)
    assert len(data.reads) == (2 if mode == "hypergrad" else 1)


def test_held_out_samples_depend_on_the_runs_seed_alone():
    first, again, other = make(), make(variant="official", alpha_mode="hvp"), make(seed=1)
    assert torch.equal(first.held_out, again.held_out)
    assert not torch.equal(first.held_out, other.held_out)
    assert len(make(held_out=5).held_out) == 5


def test_hypergrads_batch_depends_on_seed_and_epoch_alone():
    reads = []
    for epoch in (4, 4, 5):
        data = Recorder(size=100)
        make(alpha_mode="hypergrad", size=100).begin_epoch(epoch, data)
        reads.append(data.reads[1])
    assert reads[0] == reads[1] != reads[2]


@pytest.mark.parametrize("mode", ["fixed", "heuristic", "fitted"])
def test_schedules_hold_nothing_out_and_read_nothing(mode):
    method, data = make(alpha_mode=mode), Recorder()
    assert method.begin_epoch(2, data) is None
    assert not data.reads and set(dict(method.named_buffers())) >= {"alpha_match"}
    assert "train/alpha_grad" not in method.end_epoch()
    assert "held_out" not in dict(method.named_buffers())


@pytest.mark.parametrize("mode", ["hvp", "hypergrad"])
def test_learning_alpha_leaves_model_gradients_and_global_draws_alone(mode):
    method, data = make(alpha_mode=mode), Recorder()
    model = {k: v.clone() for k, v in method.model.state_dict().items()}
    draws = torch.get_rng_state()
    method.begin_epoch(1, data)
    assert all(torch.equal(v, model[k]) for k, v in method.model.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    assert torch.equal(torch.get_rng_state(), draws)


@pytest.mark.parametrize("mode", ["hvp", "hypergrad"])
def test_train_mode_lets_batch_norm_see_the_held_out_samples(mode):
    method = make(alpha_mode=mode, held_out_mode="train")
    before = method.model.encoders["audio"].trunk[1].running_mean.clone()
    method.begin_epoch(1, TinySet())
    assert not torch.equal(method.model.encoders["audio"].trunk[1].running_mean, before)
    seen = {m: begun(alpha_mode=mode, held_out_mode=m).alpha_grad.item() for m in ("eval", "train")}
    assert seen["eval"] != pytest.approx(seen["train"])


@pytest.mark.parametrize("mode", ["hvp", "hypergrad"])
def test_compiled_encoders_run_eagerly_for_alpha(mode):
    video = Stream("video", ([0.5] * 3, [0.25] * 3))
    streams = {"audio": Stream("audio", (0.0, 1.0), 1), "video": video}
    how = Execution(compile=True)
    compiled = build_classifier(streams, 4, Choice("small"), execution=how)
    assert begun(model=compiled, alpha_mode=mode).alpha_grad == begun(alpha_mode=mode).alpha_grad


class Words(nn.Module):
    """An encoder with fused attention over the first axis of its input."""

    def __init__(self, width):
        super().__init__()
        self.width, self.map = width, nn.Linear(12, 2 * width)

    def forward(self, x):
        q, v = self.map(x.float()).chunk(2, -1)  # [B, 1, 17, width]
        return F.scaled_dot_product_attention(q, q, v).mean((1, 2))


def words_model(widths, heads=False):
    return Classifier({m: Words(w) for m, w in widths.items()}, 4, heads, 0)


def test_attention_has_second_derivatives():
    widths = {"audio": 8, "text": 8}
    method = begun(modalities=tuple(widths), model=words_model(widths))
    assert method.alpha_grad.isfinite() and method.alpha_grad != 0


def test_a_frozen_parameter_takes_no_part():
    model = tiny_model(heads=False)
    model.fusion.bias.requires_grad_(False)
    assert begun(model=model).alpha_grad.isfinite()


# A step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kl_code", "js", "infonce"])
def test_without_matching_it_is_joint_to_the_bit(kind):
    off = begun(alpha_mode="fixed", alpha_match=0.0, factor=1.0, match=kind)
    joint = Joint(tiny_model(heads=False), Joint.HParams(), facts())
    batch, losses = tiny_batch(), []
    for method in (off, joint):
        loss, _ = method(batch)
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (name, p), q in zip(joint.model.named_parameters(), off.model.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name


def test_the_loss_is_the_weighted_sum_times_the_factor():
    for factor in (2.0, 0.5):
        loss, logs = begun(alpha_mode="fixed", alpha_match=0.25, factor=factor)(tiny_batch())
        expected = factor * (0.75 * logs["train/L_align"] + 0.25 * logs["train/L_match"])
        assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item())
        assert logs["train/L_match"] > 0 and not logs["train/L_match"].requires_grad


def test_balancebench_matches_slices_of_the_fused_logits():
    method, batch = begun(alpha_mode="fixed").eval(), tiny_batch()
    f = method.model.encode(batch["inputs"])
    _, logs = method(batch)
    assert torch.equal(method.logits(f), method.model.fuse(f)) and not method.model.heads
    assert torch.equal(logs["train/L_match"], matching_loss(method.model.split_logits(f)))


def test_official_matches_heads_and_predicts_by_their_mean():
    method, batch = begun(variant="official").eval(), tiny_batch()
    f = method.model.encode(batch["inputs"])
    z = method.model.unimodal(f)
    loss, logs = method(batch)
    assert torch.allclose(method.logits(f), (z["audio"] + z["video"]) / 2)
    assert torch.equal(logs["train/L_match"], matching_loss(z))
    assert torch.equal(logs["train/L_align"], F.cross_entropy(method.logits(f), batch["label"]))
    assert logs["train/acc"] == (method.logits(f).argmax(1) == batch["label"]).float().mean()
    loss.backward()
    assert method.model.fusion.weight.grad is None  # no part of this variant


@pytest.mark.parametrize("kind", ["kl_code", "js", "infonce"])
@pytest.mark.parametrize("variant", ["balancebench", "official"])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_gradient_reaches_each_encoder_through_matching_alone(modalities, variant, kind):
    values = {"alpha_mode": "fixed", "alpha_match": 1.0, "variant": variant, "match": kind}
    method = begun(modalities=modalities, **values)
    loss, logs = method(tiny_batch(modalities))
    loss.backward()
    assert logs["train/L_match"] > 0 and loss.item() == 2 * logs["train/L_match"].item()
    for m in modalities:
        assert all(p.grad.abs().sum() > 0 for p in method.model.encoder_parameters(m) if p.ndim > 1)


def test_each_matching_loss_and_temperature_gives_another_value():
    values = set()
    for kind, tau in (("kl_code", 0.4), ("js", 0.4), ("infonce", 0.4), ("infonce", 1.0)):
        _, logs = begun(alpha_mode="fixed", match=kind, tau=tau)(tiny_batch())
        values.add(round(logs["train/L_match"].item(), 5))
    assert len(values) == 4


def test_infonce_brings_unequal_widths_together():
    widths = {"audio": 8, "text": 5}
    model = words_model(widths)
    method = begun(modalities=tuple(widths), model=model, match="infonce", alpha_match=0.5)
    assert method.alpha_grad.isfinite()
    method(tiny_batch(tuple(widths)))[0].backward()
    grads = [p.grad for p in method.common.parameters()]
    assert len(grads) == 2 and all(g.abs().sum() > 0 for g in grads)
    assert not hasattr(begun(alpha_mode="fixed"), "common")


def test_heads_are_asked_for_by_the_official_variant_alone():
    assert LFM.has_unimodal_heads(LFM.HParams(variant="official"))
    assert not LFM.has_unimodal_heads(LFM.HParams())


@pytest.mark.parametrize("mode", ["hvp", "hypergrad"])
def test_a_copy_made_from_the_state_goes_on_with_the_same_alpha(mode):
    rates = {"halve_every": 2, "lr_alpha": 0.1, "lr_alpha_hyper": 1.0}
    values = {"alpha_mode": mode, "alpha_match": 0.5, **rates}
    method, other, data = make(**values), make(**values), TinySet()
    for epoch in (1, 2, 3):
        method.begin_epoch(epoch, data)
    other.load_state_dict(method.state_dict())
    assert other.alpha_match == method.alpha_match != 0.5
    torch.rand(5)
    for epoch in (4, 5):
        plans = [m.begin_epoch(epoch, data).indices for m in (method, other)]
        assert torch.equal(*plans) and method.alpha_match == other.alpha_match
    assert method.alpha_lr == other.alpha_lr == (0.1 if mode == "hvp" else 1.0) / 4


@pytest.mark.parametrize("values", [{}, {"variant": "official"}, {"match": "infonce"}])
@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_no_host_read_in_a_step(modalities, values):
    method, batch = begun(modalities=modalities, **values), tiny_batch(modalities)
    method(batch)
    assert host_reads(lambda: method(batch)[0].backward()) == 0


@pytest.mark.parametrize(
    ("values", "modalities", "words"),
    [
        ({}, ["a"], "2 or more modalities"),
        ({"alpha_match": -0.5}, ["a", "v"], "takes 0 to 1, or -1"),
        ({"alpha_match": 0.5, "variant": "official"}, ["a", "v"], "no use beside .* fitted"),
        ({"alpha_match": 0.5, "alpha_mode": "heuristic"}, ["a", "v"], "no use beside .* heuristic"),
        ({"alpha_low": 0.6, "alpha_high": 0.4}, ["a", "v"], "--alpha_low 0.6 is above"),
    ],
)
def test_impossible_settings_are_refused(values, modalities, words):
    with pytest.raises(UsageError, match=words):
        LFM.check(LFM.HParams(**values), 10, modalities)


def test_a_training_part_too_small_for_the_held_out_samples_is_refused():
    with pytest.raises(UsageError, match="--held_out 16 leaves too few of 17"):
        make(size=17)
    assert make(size=18).learns and not make(size=17, alpha_mode="fixed").learns


def test_held_out_samples_of_several_batches_become_one_batch():
    whole = TinySet(("tokens", "vectors"), size=10)
    batches = [whole.take(torch.arange(6)), whole.take(torch.arange(6, 10))]
    inputs = batches[1]["inputs"]  # as the loader cuts the padding of each batch
    inputs["tokens"], inputs["vectors"] = inputs["tokens"][:, :, :7], inputs["vectors"][:, :4]
    whole.batches = lambda indices, transforms: iter(batches)
    found = read(whole, torch.arange(10), "eval")
    assert torch.equal(found["label"], whole.data["label"])
    for m, x in whole.data["inputs"].items():
        assert torch.equal(found["inputs"][m][:6], x[:6])
    assert torch.equal(found["inputs"]["tokens"][6:, :, :7], inputs["tokens"])
    assert not found["inputs"]["tokens"][6:, :, 7:].any()
    assert not found["inputs"]["vectors"][6:, 4:].any()
