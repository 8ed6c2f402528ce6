"""MIDAS: the paper's worked examples, golden numbers and invariants."""

import pytest
import torch
import torch.nn.functional as F
from conftest import PAIR, TRIO, doubles, tiny_batch, tiny_method

from methods.midas import (
    Midas,
    assign_sources,
    choose_partners,
    misaligned_loss,
    similarity,
    unimodal_shares,
    update_alpha,
)
from methods.midas_release import carry_alpha, update_alpha_by_ratio
from methods.ops import label_shares

# Worked example G2: three samples, three classes, two features per modality.
Y = torch.tensor([0, 1, 2])
J = torch.tensor([1, 2, 0])
P1 = doubles([0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.25, 0.25, 0.5])
P2 = doubles([0.4, 0.3, 0.3], [0.3, 0.2, 0.5], [0.1, 0.8, 0.1])
FEATURES = {
    "a": doubles([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]),
    "v": doubles([3.0, 4.0], [4.0, 3.0], [0.0, -2.0]),
}
WEIGHT = doubles([0.5, 0.0, 0.1, 0.0], [0.0, 0.5, 0.0, 0.1], [-0.5, 0.5, 0.2, -0.1])
LOGITS = {"a": P1.log(), "v": P2.log()}


def fuse(features):
    return torch.cat(list(features.values()), 1) @ WEIGHT.T


ROWS = assign_sources(J, 2, "mean", None).reshape(-1, 2)  # directions A, then B


def golden_loss(direction="mean", kind="cosine"):
    sources = assign_sources(J, 2, direction, None)
    alpha, valid = torch.ones(2, dtype=torch.float64), torch.ones(3, dtype=torch.bool)
    return misaligned_loss(FEATURES, Y, LOGITS, fuse, alpha, sources, valid, kind=kind)


def make(modalities=PAIR, epoch=9, **values):
    return tiny_method(Midas, modalities, epoch, **{"warmup_epochs": 0, **values})


@pytest.mark.parametrize(
    ("direction", "loss", "unweighted", "c", "r"),
    [
        ("mean", 1.622072, 1.055468, (0.735979, 0.264021), (0.527083, 0.472917)),
        ("a_only", 1.448361, 1.072046, (0.737566, 0.262434), (0.467104, 0.532896)),
    ],
)
def test_golden_losses(direction, loss, unweighted, c, r):
    found = golden_loss(direction)
    assert found.loss.item() == pytest.approx(loss, abs=1e-5)
    assert found.c.tolist() == pytest.approx(c, abs=1e-5)
    assert found.r.tolist() == pytest.approx(r, abs=1e-5)
    assert golden_loss(direction, kind=None).loss.item() == pytest.approx(unweighted, abs=1e-5)


@pytest.mark.parametrize("lam", [0.0, 5.0])
def test_the_total_is_the_sum_of_its_terms(lam):
    loss, logs = make(lam=lam)(tiny_batch())
    total = logs["train/L_align"] + logs["train/L_uni"] + lam * logs["train/L_mis"]
    assert loss.item() == pytest.approx(total.item())


def test_golden_similarity_of_each_row():
    cosine = similarity(FEATURES, Y, ROWS)
    assert cosine.tolist() == pytest.approx([0.96, -0.6, -0.8, 0, 0.707107, 0.707107], abs=1e-5)
    weight = 1 + (similarity(FEATURES, Y, ROWS, "l2") + 1) / 2
    expected = [1.414214, 1.135078, 1.129732, 1.414214, 1.5, 1.5]
    assert weight.tolist() == pytest.approx(expected, abs=1e-5)


def test_paper_example_of_shares_and_of_the_weighted_loss():
    logits = {
        "a": doubles([0.9, 0.1], [0.5, 0.5]).log(),
        "v": doubles([0.5, 0.5], [0.7, 0.3]).log(),
    }
    c = unimodal_shares(logits, torch.tensor([0, 1]), torch.tensor([[0, 1]]))
    assert c[0].tolist() == pytest.approx([0.75, 0.25])
    log_p, k = doubles([0.6, 0.1, 0.3]).log(), torch.tensor([[0, 1]])
    assert label_shares(log_p, k)[0].tolist() == pytest.approx([0.857143, 0.142857], abs=1e-5)
    for alpha, expected in (((1, 1), 0.958765), ((1, 1.05), 0.987548), ((1, 1.5), 1.246589)):
        loss = -(doubles(*alpha) * c * log_p.gather(1, k)).sum()
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_alpha_state_machine():
    alpha = torch.ones(2)
    steps = [
        ((0.7, 0.3), (0.8, 0.2), (1, 1.05)), ((0.7, 0.3), (0.8, 0.2), (1, 1.10)),
        ((0.65, 0.35), (0.5, 0.5), (1, 1.05)), ((0.65, 0.35), (0.7, 0.3), (1, 1.10)),
        ((0.45, 0.55), (0.3, 0.7), (1.05, 1)), ((0.7, 0.3), (0.7, 0.3), (1, 1)),
    ]  # fmt: skip
    for c, r, expected in steps:
        alpha, _ = update_alpha(alpha, torch.tensor(c), torch.tensor(r), 0.05)
        assert alpha.tolist() == pytest.approx(expected)


def test_sources_of_one_label_share_its_mass():
    log_p, k = doubles([0.5, 0.3, 0.2]).log(), torch.tensor([[0, 1, 0]])
    assert label_shares(log_p, k)[0].tolist() == pytest.approx([0.3125, 0.375, 0.3125])


@pytest.mark.parametrize(
    ("rho", "p", "how", "expected"),
    [
        (2.0, [(0.6, 0.2), (0.6, 0.2)], {}, 1.55),  # r = 3 is further from 1 than 2
        (2.0, [(0.6, 0.2), (0.3, 0.3)], {}, 1.45),  # r = 2, the mean of both, is not
        (0.5, [(0.1, 0.4), (0.1, 0.4)], {}, 1.55),
        (0.5, [(0.4, 0.4), (0.4, 0.4)], {"rule": "ratio_inverted"}, 1.55),  # 1 > 0.5
        (0.5, [(0.6, 0.2), (0.6, 0.2)], {"rule": "ratio_inverted"}, 1.45),  # 1/3 < 0.5
        (2.0, [(0.6, 0.2), (0.6, 0.2)], {"cap": 1.5}, 1.5),
        (2.0, [(0.3, 0.2), (0.3, 0.2)], {"eta": 0.7}, 1.0),
        (2.0, [(float("nan"), 0.2), (0.3, 0.2)], {}, 1.5),
    ],
)
def test_alpha_by_ratio(rho, p, how, expected):
    how = {"eta": 0.05, "rule": "ratio", **how}
    alpha, weakest = carry_alpha(torch.tensor([1.0, 1.5]), torch.tensor(rho), how["rule"])
    moved, _ = update_alpha_by_ratio(alpha, weakest, torch.tensor(rho), torch.tensor(p), **how)
    assert moved[weakest].item() == pytest.approx(expected)
    assert moved[~weakest].item() == 1.0


@pytest.mark.parametrize("pairing", ["uniform", "shuffle", "confusion"])
def test_partners_have_another_label(pairing):
    y, fused = torch.arange(40) % 5, torch.randn(40, 5)
    j, valid, _ = choose_partners(y, torch.Generator().manual_seed(1), pairing, fused)
    assert (y[j] != y)[valid].all()
    assert valid.all() or pairing == "shuffle"


def test_the_permutation_of_the_release_keeps_pairs_of_one_label():
    y = torch.tensor([0, 0, 0, 1])
    j, valid, fell_back = choose_partners(y, torch.Generator().manual_seed(0), "permutation")
    assert sorted(j.tolist()) == [0, 1, 2, 3] and valid.all() and not fell_back.any()
    method, batch = make(pairing="permutation"), tiny_batch()
    batch["label"][:] = 2
    _, logs = method(batch)
    assert logs["train/n_valid"] == 2 * 8 and logs["train/L_mis"] > 0


def test_uniform_partners_are_uniform():
    y, counts = torch.tensor([0, 1, 1, 2]), torch.zeros(4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        counts[choose_partners(y, generator)[0][0]] += 1
    assert (counts / 3000).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.04)


def test_confusion_takes_the_two_likeliest_classes_and_falls_back():
    fused = torch.tensor([[3.0, 2, 0, 0], [2, 3, 0, 0], [0, 0, 3, 2], [1, 0, 0, 5]])
    how = (torch.Generator().manual_seed(0), "confusion")
    j, valid, fell_back = choose_partners(torch.arange(4), *how, fused)
    assert j.tolist() == [1, 0, 3, 0] and valid.all() and not fell_back.any()
    only = torch.tensor([[9.0, 0, 0, 8], [0, 9, 0, 8]])
    j, valid, fell_back = choose_partners(torch.arange(2), *how, only)
    assert fell_back.all() and j.tolist() == [1, 0]


def test_three_sources_are_distinct_and_have_two_labels():
    y, generator = torch.arange(9) % 3, torch.Generator().manual_seed(4)
    j, _, _ = choose_partners(y, generator)
    sources = assign_sources(j, 3, "mean", generator)[0]
    for i, row in enumerate(sources.tolist()):
        assert len(set(row)) == 3 and i in row and int(j[i]) in row
        assert len({int(y[s]) for s in row}) >= 2


def test_without_weights_the_loss_is_soft_cross_entropy():
    c, k = unimodal_shares(LOGITS, Y, ROWS), Y[ROWS]
    soft = torch.zeros(6, 3, dtype=torch.float64).scatter_add(1, k, c)
    z = fuse({m: f[ROWS[:, n]] for n, (m, f) in enumerate(FEATURES.items())})
    assert golden_loss(kind=None).loss.item() == pytest.approx(F.cross_entropy(z, soft).item())


def test_one_label_gives_no_loss_and_leaves_alpha():
    method, batch = make(), tiny_batch()
    method.alpha.copy_(torch.tensor([1.0, 1.3]))
    batch["label"][:] = 2
    loss, logs = method(batch)
    assert loss.isfinite() and logs["train/L_mis"] == 0 and logs["train/n_valid"] == 0
    assert method.alpha.tolist() == pytest.approx([1.0, 1.3])


@pytest.mark.parametrize("modalities", [PAIR, TRIO])
def test_mean_reduction_divides_the_unimodal_losses_by_their_number(modalities):
    batch, kinds = tiny_batch(modalities), ("sum", "mean")
    total, mean = (make(modalities, uni_reduce=how)(batch)[1]["train/L_uni"] for how in kinds)
    assert (total / mean).item() == pytest.approx(len(modalities))


def test_heads_get_no_gradient_from_the_misaligned_loss():
    method, y = make(), tiny_batch()["label"]
    f = method.model.encode(tiny_batch()["inputs"])
    sources = assign_sources(choose_partners(y, method.generator)[0], 2, "mean", None)
    z, valid = method.model.unimodal(f), torch.ones(8, dtype=torch.bool)
    misaligned_loss(f, y, z, method.model.fuse, method.alpha, sources, valid).loss.backward()
    assert all(p.grad is None for p in method.model.heads.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.model.encoders.parameters() if p.ndim > 1)


def test_warm_up_leaves_the_fusion_layer_without_gradient():
    loss, logs = (method := make(warmup_epochs=3, epoch=2))(tiny_batch())
    loss.backward()
    assert method.model.fusion.weight.grad is None and logs.keys() == {"train/L_uni"}


def test_input_level_encodes_twice_and_equals_feature_level_for_fixed_encoders():
    losses = []
    for level, calls in (("feature", 1), ("input", 2)):
        method, seen = make(level=level), []
        method.model.eval()
        method.model.encoders["audio"].register_forward_hook(lambda *_: seen.append(1))  # noqa: B023
        losses.append(method(tiny_batch())[0].item())
        assert len(seen) == calls
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("rule", ["share", "ratio"])
def test_switches_of_alpha_change_what_they_name(rule):
    alphas = {}
    for on in (True, False):
        method, alphas[on] = make(weak_modality=on, alpha_rule=rule), []
        for seed in range(24):
            _, logs = method(tiny_batch(seed=seed))
            alphas[on].append(method.alpha.max().item())
            assert logs["train/alpha"] == alphas[on][-1]
    assert max(alphas[True]) > 1.0 and alphas[False] == [1.0] * 24
    method = make(alpha_reset="epoch", alpha_rule=rule)
    method.alpha.fill_(1.4)
    method.begin_epoch(5, None)
    assert method.alpha.tolist() == [1.0, 1.0]


def test_a_batch_smaller_than_the_modalities_has_no_misaligned_part():
    assert "train/L_mis" not in make(TRIO)(tiny_batch(TRIO, size=2))[1]


def test_gradients_are_equal_to_the_last_bit_with_several_threads():
    from experiments.run.session import choose_kernels

    choose_kernels()  # as in train.py; without it, half of these repetitions differ
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    draw, y, valid = torch.Generator(), torch.arange(64) % 6, torch.ones(64, dtype=torch.bool)
    values, weight = torch.randn(2, 64, 512), torch.randn(6, 1024)
    sources = assign_sources(choose_partners(y, draw)[0], 2, "mean", draw)

    def fuse(features):
        return torch.cat(list(features.values()), 1) @ weight.T

    def gradient():
        x = values.clone().requires_grad_()
        f, z = dict(zip("av", x)), dict(zip("av", values[:, :, :6]))
        misaligned_loss(f, y, z, fuse, torch.ones(2), sources, valid).loss.backward()
        return x.grad

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(20))
    torch.set_num_threads(threads)
