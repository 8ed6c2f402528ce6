"""AMCo: the ramp, the masks, the alternation, and a step of each variant."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, tiny_batch, tiny_method

from methods.amco import (
    AMCo,
    dependent_modalities,
    dropped_places,
    mask,
    mask_ratio,
    modality_masses,
)

SMOOTH = math.sqrt(3) / 2  # 0.866025


def masked_step(first, **values):
    """(method, loss, logs) of the second step of epoch 5 (p = 1), one modality dependent."""
    method = tiny_method(AMCo, epoch=5, **values)
    method(tiny_batch())
    method.dependent = torch.tensor([first, not first])
    return method, *method(tiny_batch())


def used(logs):
    return [int(logs[f"train/dependent/{m}"]) for m in PAIR]


@pytest.mark.parametrize(
    ("epoch", "epsilon", "ratios"),
    [
        (0, 0.3, [0, 0, 0, 0]),
        (1, 0.3, [0, 0.5, SMOOTH, 1]),
        (2, 0.3, [0, SMOOTH, 1, 1]),
        (3, 0.3, [0, 1, 1, 1]),
        (1, 0.2, [0, math.sqrt(0.5), 1, 1]),
    ],
)
def test_the_mask_ratio_of_the_first_batches(epoch, epsilon, ratios):
    assert [mask_ratio(epoch, b, epsilon) for b in range(4)] == pytest.approx(ratios, abs=1e-6)
    method = tiny_method(AMCo, epoch=epoch + 1, epsilon=epsilon)
    seen = [method(tiny_batch())[1]["train/mask_ratio"].item() for _ in range(4)]
    assert seen == pytest.approx(ratios, abs=1e-6)


def test_the_ramp_counts_the_epochs_of_the_warm_up():
    method = tiny_method(AMCo, epoch=4, warmup_epochs=3)
    assert [method(tiny_batch())[1]["train/mask_ratio"].item() for _ in range(2)] == [0, 1]


def test_the_number_of_masked_places():
    counts = [(0, 0, 0), (3, 15, 50), (5, 26, 87), (6, 31, 101)]
    for batch, expected in enumerate(counts):
        p, generator = mask_ratio(1, batch, 0.3), torch.Generator()
        drops = [dropped_places(p, width, generator) for width in (6, 31, 101)]
        assert tuple(int(d.sum()) for d in drops) == expected


def test_a_mask_covers_all_rows_of_only_the_dependent_modalities():
    values = {m: torch.rand(9, 6) + 1 for m in TRIO}
    places = dict.fromkeys(TRIO, dropped_places(0.5, 6, torch.Generator().manual_seed(3)))
    masked = mask(values, places, torch.tensor([True, False, True]), 2.0)
    for m in ("text", "video"):
        assert torch.equal(masked[m], 2 * values[m] * ~places[m]) and places[m].sum() == 3
    assert torch.equal(masked["audio"], values["audio"])


def test_masses_sum_to_one_and_a_masked_modality_has_that_of_zero_logits():
    z = torch.randn(16, 6, dtype=torch.float64)
    masses = modality_masses({"a": torch.zeros_like(z), "v": z})
    assert masses.sum().item() == pytest.approx(1)
    assert masses[0].item() == pytest.approx((6 / (6 + z.exp().sum(1))).mean().item())


@pytest.mark.parametrize(
    ("sigma", "first_only", "flags"),
    [
        (0.5, False, [0, 0, 0]),
        (0.38, False, [0, 1, 0]),
        (0.35, False, [1, 1, 0]),
        (0.35, True, [1, 0, 0]),
    ],
)
def test_dependent_modalities_among_three(sigma, first_only, flags):
    masses = torch.tensor([0.36, 0.39, 0.25])
    assert dependent_modalities(masses, sigma, first_only).int().tolist() == flags


@pytest.mark.parametrize("linear_star", [False, True])
def test_a_fully_masked_modality_has_loss_ln_c_and_gets_no_gradient(linear_star):
    method, loss, logs = masked_step(True, linear_star=linear_star)
    assert used(logs) == [1, 0] and logs["train/mask_ratio"] == 1
    loss.backward()
    fusion, audio = method.model.fusion, method.model.modality_slices["audio"]
    assert all(not p.grad.any() for p in method.model.encoder_parameters("audio"))
    assert not fusion.weight.grad[:, audio].any()
    # The output comes from the other modality.
    f, y = method.model.encode(tiny_batch()["inputs"]), tiny_batch()["label"]
    z = method.model.split_logits(f)["video"]
    out = method.linear_star(z) if linear_star else z
    l_align, l_uni = F.cross_entropy(out, y).item(), math.log(4) + F.cross_entropy(z, y).item()
    assert loss.item() == pytest.approx(l_align + l_uni, abs=1e-5)
    assert logs["train/acc"] == (out.argmax(1) == y).float().mean()
    assert logs.get("train/acc_sum") == ((z.argmax(1) == y).float().mean() if linear_star else None)


def test_two_modalities_are_masked_in_turns_until_the_epoch_ends():
    method = tiny_method(AMCo, epoch=5)
    with torch.no_grad():  # logits of zero mean over the classes
        for p in method.model.fusion.parameters():
            p -= p.mean(0)
    flags = [used(method(tiny_batch(seed=seed))[1]) for seed in range(21)]
    assert flags[0] == [0, 0] and sum(flags[1]) == 1
    assert flags[1:] == [flags[1], flags[1][::-1]] * 10
    method.begin_epoch(6, None)
    assert used(method(tiny_batch())[1]) == [0, 0]


def test_the_feature_variant_masks_the_feature_before_fusion():
    method, loss, logs = masked_step(False, variant="feature")
    y, model = tiny_batch()["label"], method.model
    f = model.encode(tiny_batch()["inputs"])
    z = {"audio": model.split_logits(f)["audio"], "video": (model.fusion.bias / 2).expand(8, 4)}
    align = F.cross_entropy(model.fuse_subset(f, ["audio"]), y).item()
    assert logs["train/L_align"].item() == pytest.approx(align, abs=1e-6)
    uni = sum(F.cross_entropy(v, y).item() for v in z.values())
    assert loss.item() == pytest.approx(align + uni, abs=1e-6)
    assert logs["train/mass/video"].item() == pytest.approx(modality_masses(z)[1].item(), abs=1e-6)


def test_the_extra_layer_is_used_in_evaluation():
    method = tiny_method(AMCo, linear_star=True)
    f = {m: torch.randn(3, method.model.widths[m]) for m in PAIR}
    total = sum(method.model.split_logits(f).values())
    assert torch.allclose(method.logits(f), method.linear_star(total), atol=1e-5)
