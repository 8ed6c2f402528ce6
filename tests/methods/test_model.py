"""The model's contract, Joint's invariants, and the metrics."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, facts, tiny_batch, tiny_model

from common.options import UsageError
from experiments.run.metrics import (
    f1_batch,
    f1_macro,
    linear_probes,
    misaligned_metrics,
)
from methods.joint import Joint, JointUni, Unimodal
from models.build import Choice, Stream, build_classifier
from models.classifier import Execution
from models.encoders import PooledEncoder, SpectrogramInput
from models.sequences import SequenceEncoder


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_split_logits_and_subsets_add_up(modalities):
    model = tiny_model(modalities)
    f = {m: torch.randn(5, model.widths[m]) for m in modalities}
    z, bias = model.fuse(f), model.fusion.bias
    assert torch.allclose(sum(model.split_logits(f).values()), z, atol=1e-5)
    alone = sum(model.fuse_subset(f, [m]) for m in modalities)
    assert torch.allclose(alone - (len(modalities) - 1) * bias, z, atol=1e-5)


@pytest.mark.parametrize("classes", [6, 31, 101])
def test_loss_and_bias_gradient_of_a_zero_head(classes):
    model = tiny_model(classes=classes, heads=False)
    torch.nn.init.zeros_(model.fusion.weight)
    torch.nn.init.zeros_(model.fusion.bias)
    batch = tiny_batch(classes=classes)
    loss, _ = Joint(model, None, facts())(batch)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(classes), abs=1e-5)
    counts = torch.bincount(batch["label"], minlength=classes) / 8
    assert torch.allclose(model.fusion.bias.grad, 1 / classes - counts, atol=1e-6)


def test_repeated_frames_give_the_feature_of_one():
    encoder = tiny_model().encoders["video"].eval()
    one = torch.randint(0, 256, (2, 1, 3, 16, 16), dtype=torch.uint8)
    assert torch.allclose(encoder(one), encoder(one.repeat(1, 3, 1, 1, 1)), atol=1e-6)


def test_equal_seeds_give_every_method_equal_encoders():
    both, heads = tiny_model(heads=False, seed=5), tiny_model(heads=True, seed=5)
    alone = tiny_model(("video",), seed=5)
    for other in (heads, alone):
        for a, b in zip(both.encoder_parameters("video"), other.encoder_parameters("video")):
            assert torch.equal(a, b)
    assert torch.equal(both.fusion.weight, heads.fusion.weight)
    assert not torch.equal(both.fusion.weight, tiny_model(seed=6).fusion.weight)


def test_a_frozen_copy_keeps_features_and_running_statistics():
    model, inputs = tiny_model(), tiny_batch()["inputs"]
    twin = model.frozen_copy()
    before = twin.encode(inputs)
    assert all(torch.equal(f, model.eval().encode(inputs)[m]) for m, f in before.items())
    model.train().encode(inputs)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    after = twin.train().encode(inputs)
    assert all(torch.equal(f, before[m]) and not f.requires_grad for m, f in after.items())


def test_joint_uni_is_joint_plus_the_heads():
    model, batch = tiny_model(), tiny_batch()
    model.eval()
    joint, _ = Joint(model, None, facts())(batch)
    both, _ = JointUni(model, None, facts())(batch)
    heads = model.unimodal(model.encode(batch["inputs"]))
    expected = joint + sum(F.cross_entropy(z, batch["label"]) for z in heads.values())
    assert both.item() == pytest.approx(expected.item(), abs=1e-6)


def test_unimodal_names_its_modality():
    assert Unimodal.used_modalities(Unimodal.HParams("video"), list(PAIR)) == ["video"]
    for given, words in (
        ("Video", "Did you mean 'video'"),
        ("", "needs --modality; allowed: audio"),
    ):
        with pytest.raises(UsageError, match=words):
            Unimodal.used_modalities(Unimodal.HParams(given), list(PAIR))


def test_resnet_features_and_initial_weights():
    streams = {"audio": Stream("audio", (0.0, 1.0), 1), "video": Stream("video", "imagenet")}
    model = build_classifier(streams, 6, Choice("resnet18"))
    inputs = {
        "audio": torch.randn(2, 1, 65, 47).half(),
        "video": torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8),
    }
    f = model.encode(inputs)
    assert {m: tuple(v.shape) for m, v in f.items()} == {"audio": (2, 512), "video": (2, 512)}
    assert model.fusion.weight.shape == (6, 1024)
    weight = model.encoders["audio"].trunk.stages[0][0].weight
    assert weight.shape == (64, 1, 7, 7)
    assert weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)
    norms = torch.cat([m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert norms.std().item() == pytest.approx(0.02, rel=0.1)


def test_pictures_but_not_frames_are_projected_to_the_requested_width():
    streams = {"image": Stream("image", "imagenet"), "video": Stream("video", "imagenet")}
    model = build_classifier(streams, 3, Choice("small", image_width=7))
    assert model.widths == {"image": 7, "video": 48} and model.fusion.weight.shape == (3, 55)
    picture = torch.randint(0, 256, (2, 1, 3, 16, 16), dtype=torch.uint8)
    encoder = model.encoders["image"].eval()
    plain = PooledEncoder(encoder.inputs, encoder.trunk).eval()
    assert torch.allclose(encoder(picture), encoder.project(plain(picture)))
    encoder(picture).sum().backward()
    assert encoder.project.weight.grad.abs().sum() > 0


def test_bf16_features_come_back_in_float32():
    streams = {"audio": Stream("audio", (0.0, 1.0), 1)}
    model = build_classifier(streams, 3, Choice("small"), execution=Execution(precision="bf16"))
    assert model.encode({"audio": torch.randn(2, 1, 33, 20).half()})["audio"].dtype == torch.float32


def test_spectrograms_are_normalised_then_pooled():
    x = torch.randn(3, 1, 8, 6).half()
    out, times = SpectrogramInput(mean=1.0, std=2.0, pool=2)(x)
    assert times == 1 and out.shape == (3, 1, 4, 3) and out.dtype == torch.float32
    expected = F.avg_pool2d((x.float() - 1) / 2, 2)
    assert torch.allclose(out, expected)
    alone, _ = SpectrogramInput(zscore=True)(x * 5 + 3)
    assert alone.mean((1, 2, 3)).abs().max() < 1e-3
    assert torch.allclose(alone.std((1, 2, 3), correction=0), torch.ones(3), atol=1e-3)


def test_a_linear_probe_finds_what_is_linear_in_each_modality_and_learns_from_the_training_part():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    centres = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, -9.0]])
    clear = 1000 * (centres[labels] + torch.randn(120, 2, generator=draw))  # any scale
    features = {"audio": clear, "video": torch.randn(120, 2, generator=draw)}
    train, test = torch.arange(0, 60), torch.arange(60, 120)
    parts = [({m: f[rows] for m, f in features.items()}, labels[rows]) for rows in (train, test)]
    found = linear_probes(*parts)
    assert found["acc_probe/audio"] == 1 and found["acc_probe/video"] < 0.6
    wrong = (parts[0][0], (parts[0][1] + 1) % 3)  # what it is fitted on decides
    assert linear_probes(wrong, parts[1])["acc_probe/audio"] == 0


def test_batch_f1_by_hand_in_its_fixed_order(monkeypatch):
    y = torch.tensor([0, 1, 2, 0, 1, 2, 3, 3])
    guess = torch.tensor([0, 1, 1, 0, 1, 2, 3, 0])
    order = np.random.default_rng(0).permutation(8)
    undo = torch.from_numpy(np.argsort(order))  # rows placed so that the permutation restores them
    assert f1_batch(guess[undo], y[undo], 4, batch=4) == pytest.approx(0.611111, abs=1e-6)


def test_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    y, guess = draw.integers(0, 7, 200), draw.integers(0, 7, 200)
    ours = f1_macro(torch.from_numpy(guess), torch.from_numpy(y), 7)
    assert ours == pytest.approx(f1_score(y, guess, average="macro"))
    zeros = torch.tensor([0, 0])  # an absent class counts as 0
    assert f1_macro(zeros, zeros, 3) == pytest.approx(1 / 3)


def test_misaligned_accuracy_golden():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.4, 0.35, 0.25], [0.2, 0.2, 0.6]])
    k = torch.tensor([[0, 1], [0, 1], [1, 0], [2, 0]])
    out = misaligned_metrics(p.log(), k, ["a", "v"])
    assert out["acc_mis"] == 0.75
    assert out["conf_raw/a"] == pytest.approx((0.5 + 0.1 + 0.35 + 0.6) / 4)
    assert out["conf_norm/a"] + out["conf_norm/v"] == pytest.approx(1.0)


def test_two_classes_give_no_misaligned_accuracy():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    out = misaligned_metrics(p.log(), torch.tensor([[0, 1], [1, 0]]), ["a", "v"])
    assert sorted(out) == ["conf_norm/a", "conf_norm/v", "conf_raw/a", "conf_raw/v"]


def test_three_modalities_need_as_many_hits_as_labels():
    p = torch.tensor([[0.5, 0.4, 0.06, 0.04], [0.4, 0.3, 0.2, 0.1]])
    k = torch.tensor([[0, 1, 0], [0, 1, 3]])
    assert misaligned_metrics(p.log(), k, ["t", "a", "v"])["acc_mis"] == 0.5


def sequences():
    torch.manual_seed(1)
    return SequenceEncoder(mean=[0.5] * 6, std=[2.0] * 6).eval()


def padded(x, rows):
    return torch.cat([x, torch.zeros(len(x), rows, x.shape[2])], dim=1)


@pytest.mark.parametrize("grad", [True, False])  # torch uses another code path without gradients
def test_padding_and_other_samples_do_not_change_the_features_and_order_does(grad):
    x, short, long = torch.randn(4, 9, 6), torch.randn(1, 3, 6), torch.randn(1, 40, 6)
    near = dict(atol=1e-5, rtol=1e-5)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(sequences()(x), sequences()(padded(x, 31)), **near)
        both = sequences()(torch.cat([padded(short, 37), long]))
        torch.testing.assert_close(both[:1], sequences()(short), **near)
        assert (sequences()(x) - sequences()(x.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("train", [True, False])
def test_a_sample_with_only_padding_stays_finite(train):
    model, x = sequences().train(train), torch.randn(3, 8, 6)
    x[1] = 0
    features = model(x)
    features.square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
