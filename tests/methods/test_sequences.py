"""The encoder of sequences: padding is not seen, the order of the vectors is."""

import pytest
import torch

from models.sequences import SequenceEncoder


def encoder(width=6):
    torch.manual_seed(1)
    return SequenceEncoder(mean=[0.5] * width, std=[2.0] * width).eval()


def padded(x, rows):
    return torch.cat([x, torch.zeros(len(x), rows, x.shape[2])], dim=1)


@pytest.mark.parametrize("grad", [True, False])  # without gradients torch takes another path
def test_padding_and_other_samples_do_not_change_the_features_and_order_does(grad):
    x, short, long = torch.randn(4, 9, 6), torch.randn(1, 3, 6), torch.randn(1, 40, 6)
    near = dict(atol=1e-5, rtol=1e-5)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(encoder()(x), encoder()(padded(x, 31)), **near)
        both = encoder()(torch.cat([padded(short, 37), long]))
        torch.testing.assert_close(both[:1], encoder()(short), **near)
        assert (encoder()(x) - encoder()(x.flip(1))).abs().max() > 1e-3


@pytest.mark.parametrize("train", [True, False])
def test_a_sample_of_padding_alone_stays_finite(train):
    model, x = encoder().train(train), torch.randn(3, 8, 6)
    x[1] = 0
    features = model(x)
    features.square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
