"""How the encoders run: in parts of a batch, clipped gradients, and the kernels that are chosen."""

import pytest
import torch
from conftest import TinySet, tiny_batch, tiny_model
from small_runs import make, train

import methods
import train as program
from common.options import UsageError
from experiments.run.session import choose_kernels
from models import classifier
from models.classifier import encoded

QUICK = ("Midas", "LFM", "SMV")  # the plain step, second derivatives, a pass before the epoch
METHODS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in methods.METHODS
    if name != "Unimodal"
]


@pytest.fixture
def in_parts(monkeypatch):
    """Makes every model encode its training batches in three parts."""
    object.__setattr__(classifier.ON_CPU, "parts", 3)
    yield
    object.__setattr__(classifier.ON_CPU, "parts", 1)


def states(name, repeats):
    method = make(name, size=27, **({"pretrain_epochs": 2} if name == "MCR" else {}))
    losses = train(method, TinySet(keep_last=True, size=27), 1, repeats)[2]
    return losses, {k: v for k, v in method.state_dict().items() if torch.is_tensor(v)}


@pytest.mark.parametrize("name", METHODS)
def test_repeating_the_forward_pass_of_a_part_changes_nothing(name, in_parts, monkeypatch):
    """Against the same parts with all activations kept: losses, weights, statistics, counts."""
    losses, state = states(name, 3)
    monkeypatch.setattr(classifier, "checkpoint", lambda encoder, part, **_: encoder(part))
    kept, expected = states(name, 3)
    assert losses == pytest.approx(kept, rel=1e-6)
    for key, value in expected.items():
        assert torch.allclose(state[key], value, rtol=1e-5, atol=1e-7, equal_nan=True), key


def test_parts_without_batch_norm_are_the_whole_batch():
    model, x = tiny_model(("vectors",)), tiny_batch(("vectors",), 7)["inputs"]["vectors"]
    encoder, found = model.encoders["vectors"].eval(), []  # without dropout
    for parts in (1, 3):
        encoder.zero_grad()
        features = encoded(encoder, x, parts)
        features.square().sum().backward()
        found.append([features.detach(), *(p.grad.clone() for p in encoder.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_part_has_two_samples_and_evaluation_has_no_parts():
    sizes = []

    class Encoder(torch.nn.Linear):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    encoder = Encoder(3, 3)
    encoded(encoder, torch.zeros(7, 3), 9)
    assert sizes == [3, 3, 1] or min(sizes) >= 2
    sizes.clear()
    with torch.no_grad():
        encoded(encoder, torch.zeros(7, 3), 3)
    assert sizes == [7]


def test_the_gradient_of_each_optimizer_is_clipped(monkeypatch, tmp_path, demo_data):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda p, most: norms.append((clip(p, most), most))
    )
    words = f"--method Joint --devices cpu --max_epochs 1 --data_dir {demo_data[1]}"
    assert (
        program.main([*words.split(), "--output_dir", str(tmp_path / "run"), "--grad_clip", "0.5"])
        == 0
    )
    assert len(norms) == 4 and all(most == 0.5 and norm > 0 for norm, most in norms)


def test_kernels_are_deterministic_and_exact_unless_told():
    choose_kernels(deterministic=False, tf32=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    choose_kernels()
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    for products in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        assert products.fp32_precision == "ieee"


@pytest.mark.parametrize(
    "words, message",
    [
        ("--precision tf32", "needs a GPU"),
        ("--cache disk", "'device'|memory"),
        ("--accumulate 0", "accumulate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(words, message, demo_data):
    given = f"--devices cpu --data_dir {demo_data[1]} {words}"
    with pytest.raises(UsageError, match=message):
        program.main(given.split())
