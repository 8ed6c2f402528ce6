"""The fusions: their formulas, which methods refuse them, and that every other method trains."""

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, STREAMS, TRIO, TinySet, tiny_batch
from small_runs import train

import methods
from common.options import UsageError
from experiments.run.resolve import check_model
from methods.base import Facts
from models.build import Choice, Stream, build_classifier
from models.fusion import FUSIONS, LINEAR

NAMES = [name for name in methods.METHODS if name != "Unimodal"]
KINDS = dict.fromkeys(PAIR, "video")


def model_of(fusion, modalities=PAIR, heads=True):
    sound = Stream("audio", (0.0, 1.0), 1)
    streams = {m: STREAMS.get(m, sound) for m in modalities}
    return build_classifier(streams, 4, Choice("small", fusion=fusion), heads=heads)


def method_of(name, fusion, modalities=PAIR):
    cls = methods.load(name)
    hparams = cls.HParams()
    model = model_of(fusion, modalities, cls.has_unimodal_heads(hparams))
    return cls(model, hparams, Facts(0, 6, 40, 4))


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_film_and_gate_by_hand(modalities):
    features = {m: torch.randn(5, 48) for m in modalities}
    first, others = features[modalities[0]], torch.cat([features[m] for m in modalities[1:]], 1)
    for name in ("film", "gated"):
        model = model_of(name, modalities)
        layer = model.fusion
        given = F.linear(first, layer.condition.weight, layer.condition.bias)
        if name == "film":
            half = given.shape[1] // 2
            changed = given[:, :half] * others + given[:, half:]
        else:
            hidden = F.linear(others, layer.hidden.weight, layer.hidden.bias)
            changed = hidden / (1 + torch.exp(-given))
        expected = F.linear(changed, layer.out.weight, layer.out.bias)
        assert torch.allclose(model.fuse(features), expected, atol=1e-5)
        assert not model.linear


def test_sum_is_linear_with_the_initial_weights_of_separate_layers():
    model, features = model_of("sum"), {m: torch.randn(5, 48) for m in PAIR}
    assert model.linear
    parts = model.split_logits(features)
    assert torch.allclose(sum(parts.values()), model.fuse(features), atol=1e-6)
    bound = 48**-0.5  # of a layer of 48 features; 96**-0.5 for concat
    assert 0.9 * bound < model.fusion.weight.abs().max() <= bound
    assert model_of("concat").fusion.weight.abs().max() <= 96**-0.5


@pytest.mark.parametrize("fusion", [f for f in FUSIONS if f not in LINEAR])
@pytest.mark.parametrize("name", NAMES)
def test_a_method_trains_with_a_fusion_or_refuses_it(name, fusion):
    if methods.load(name).needs_linear_fusion:
        with pytest.raises(UsageError, match=f"{fusion} does not work with {name}, which splits"):
            check_model("small", fusion, name, KINDS)
        return
    check_model("small", fusion, name, KINDS)
    method = method_of(name, fusion)
    _, touched, losses = train(method, TinySet(), 1, 6)
    assert losses and any("encoders.audio" in p for p in touched)
    assert any("encoders.video" in p for p in touched)
    f = method.model.encode(tiny_batch()["inputs"])
    assert method.logits(f).shape == (8, 4)


def test_a_fusion_of_one_modality_is_refused():
    with pytest.raises(UsageError, match="does not work with Unimodal, which has one modality"):
        check_model("small", "gated", "Unimodal", KINDS)
