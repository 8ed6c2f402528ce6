"""Every method on every set of modalities trains, runs its mechanism and resumes exactly."""

import copy
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import PAIR, ROOT, TRIO, TinySet, equal_states, program, tiny_batch
from small_runs import EPOCHS, GOLDEN, all_epochs, base, epoch_losses, make, train

import methods
from experiments.run.folder import RunFolder
from experiments.run.settings import METHOD_DEFAULTS, build, method_defaults

# Modalities of other datasets: UCF-101, Food-101 and CMU-MOSI.
KINDS = {
    "flow": ("flow", "video"),
    "text": ("tokens", "image"),
    "arrays": ("vectors_t", "vectors_a", "vectors_v"),
}
SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])
ALL = [name for name in methods.METHODS if name != "Unimodal"]

# Methods whose draws must depend only on seed and epoch; the others draw nothing.
DRAWS = (
    "Midas", "OPM", "OGM", "AMCo", "MCR", "Mixup", "PowMix", "LeMDA", "PMR", "CML",
)  # fmt: skip

# Methods whose prediction is not that of the fusion layer.
OWN_LOGITS = ("ReconBoost", "MLA", "AUG", "MMCosine", "MNL", "IPRM")

# What the log of a run must show: not only that a loss was finite, but that the method's mechanism
# was active. Keys of a record of the main stage; {m} stands for each modality.
RAN = {
    "Joint": lambda r, of: r["train/acc"] > 0,
    "JointUni": lambda r, of: r["train/L_uni"] > 0,
    "Midas": lambda r, of: r["train/n_valid"] > 0,
    "SMV": lambda r, of: r["train/expansion"] > 1 and r["train/masked"] > 0,
    "OPM": lambda r, of: max(of("train/dropped")) > 0,
    "OGM": lambda r, of: min(of("train/k")) < 1,
    "AMCo": lambda r, of: r["train/mask_ratio"] > 0 and max(of("train/dependent")) > 0,
    "LFM": lambda r, of: (
        r["train/L_match"] > 0 and r["train/alpha_match"] != pytest.approx(0.05, 0)
    ),
    "MCR": lambda r, of: min(of("train/J")) > 0 and r["train/L_con"] > 0,
    "Mixup": lambda r, of: 0 < r["train/lam"] < 1,
    "PowMix": lambda r, of: r["train/L_mix"] > 0 and 0 < min(of("train/mixed")) < 1,
    "LeMDA": lambda r, of: r["train/noise"] > 0,
    "ARL": lambda r, of: sum(of("train/k")) == pytest.approx(1) and r["train/L_uni"] > 0,
    "GMM": lambda r, of: r["train/gap"] > 0 and r["train/n_kept"] > 0,
    "UMT": lambda r, of: min(of("train/L_distill")) > 0 and r["train/L_align"] > 0,
    "ReLearning": lambda r, of: max(of("train/moved_back")) > 0,
    "InfoReg": lambda r, of: max(of("train/beta")) > 0 and max(of("train/window_open")) > 0,
    "ReconBoost": lambda r, of: r["train/L_boost"] > 0 and r["train/L_agree"] > 0,
    "GBlending": lambda r, of: r["train/weight/fused"] > 0 and len(set(of("train/weight"))) > 1,
    "Remix": lambda r, of: (
        sum(of("train/share")) == pytest.approx(1) and min(of("train/certainty")) > 0
    ),
    "MLA": lambda r, of: min(of("train/L_uni")) > 0 and 0 < max(of("train/kept")) < 1,
    "AUG": lambda r, of: max(of("train/heads")) > 0 and min(of("train/score")) > 0,
    "PMR": lambda r, of: max(of("train/slow")) > 0 and min(of("train/L_proto")) > 0,
    "MLB": lambda r, of: min(of("train/k")) < 1 < max(of("train/k")) and r["train/L_uni"] > 0,
    "MBSD": lambda r, of: min(r[f"train/{key}"] for key in ("L_RS", "L_KL", "weight")) > 0,
    "DGL": lambda r, of: min(of("train/L_uni")) > 0 and max(of("train/acc_uni")) > 0.3,
    "MMCosine": lambda r, of: all(0.01 < c < 1 for c in of("train/cos_true")),
    "CML": lambda r, of: r["train/L_reg"] > 0 and 0 < r["train/vrr"] < 1,
    "MNL": lambda r, of: r["train/L_mnl"] > 0 and 0 < max(of("train/guided")) <= 1,
    "MMPareto": lambda r, of: (
        max(of("train/conflict")) > 0 and max(of("train/weight_multimodal")) > 0.5
    ),
    "AGM": lambda r, of: min(of("train/k")) < 1 < max(of("train/k")),
    "IPRM": lambda r, of: min(of("train/KL")) > 0 and max(of("train/weight")) > 0.51,
}


pytestmark = pytest.mark.usefixtures("deterministic")


def logged(method, data, last):
    """The log of epochs 1 to `last`: for each, the last value of each numeric name."""
    records, optimizers = [], method.optimizers(base)
    for epoch in range(1, last + 1):
        records.append({})
        train(method, data, epoch, epoch, optimizers, records[-1])
    return records


def test_every_name_loads_its_class_whatever_its_case():
    for name in methods.METHODS:
        assert methods.load(name.lower()).__name__ == name


@pytest.mark.parametrize("modalities", [PAIR, TRIO, *KINDS.values()], ids=["pair", "trio", *KINDS])
@pytest.mark.parametrize("name", ALL)
def test_the_gradient_reaches_every_encoder(name, modalities):
    method, data = make(name, modalities), TinySet(modalities)
    _, touched, losses = train(method, data, 1, all_epochs(method))
    assert losses
    for m in modalities:
        names = {n for n, _ in method.model.encoders[m].named_parameters()}
        assert {f"model.encoders.{m}.{n}" for n in names} <= touched


@SETS
@pytest.mark.parametrize("name", ALL)
def test_the_mechanism_runs_and_the_log_shows_it(name, modalities):
    assert name in RAN, "add a line to RAN: what the log shows if the method's mechanism runs"
    # With three modalities, one rarely has half of AMCo's mass, and SMV's "size" gives few copies.
    eager = {"AMCo": {"sigma": 0.34}, "SMV": {"value": "unit"}}.get(name, {})
    method = make(name, modalities, **eager)
    records = logged(method, TinySet(modalities), all_epochs(method))
    found = [r for r in records if r.keys() >= records[-2].keys()]
    assert any(
        RAN[name](records[-1] | r, lambda key: [r[f"{key}/{m}"] for m in modalities])  # noqa: B023
        for r in found
    ), records[-1]


@SETS
@pytest.mark.parametrize("name", ALL)
def test_a_last_batch_of_two_samples_trains(name, modalities):
    method, data = make(name, modalities, size=18), TinySet(modalities, 18, keep_last=True)
    sizes, encode = [], method.model.encode

    def counted(inputs):
        sizes.append(len(next(iter(inputs.values()))))
        return encode(inputs)

    method.model.encode = counted
    train(method, data, 1, EPOCHS)  # each loss is finite
    assert 2 in sizes
    assert all(p.isfinite().all() for p in method.parameters())


STATEFUL = [("AMCo", {"linear_star": True}), ("MCR", {"lib": 1.0, "pretrain_epochs": 2}),
            ("LeMDA", {"network": "trans_vae"}), ("Midas", {"alpha_rule": "ratio"}),
            ("LFM", {"lr_alpha": 5.0}), ("GMM", {"warmup_epochs": 2}),
            ("GBlending", {"super_epoch": 5})]  # fmt: skip


@SETS
@pytest.mark.parametrize(("name", "values"), [(name, {}) for name in ALL] + STATEFUL)
def test_the_state_holds_everything_that_a_method_knows(name, values, modalities):
    """A copy restored from the state dict alone continues bit for bit."""
    if values.get("alpha_rule") and len(modalities) > 2:
        pytest.skip("defined for two modalities")
    one, data = make(name, modalities, **values), TinySet(modalities)
    optimizers, _, _ = train(one, data, 1, 3)
    state = {k: v.clone() for k, v in one.state_dict().items()}
    kept = copy.deepcopy([o.state_dict() for o in optimizers])
    other = make(name, modalities, **values)
    other.load_state_dict(state)
    again = other.optimizers(base)
    for optimizer, saved in zip(again, kept, strict=True):
        optimizer.load_state_dict(saved)
    torch.randn(3)  # nothing may depend on the global generator's state
    losses = train(one, data, 4, all_epochs(one), optimizers)[2]
    assert losses == train(other, data, 4, all_epochs(other), again)[2]
    assert equal_states(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", DRAWS)
def test_draws_depend_only_on_seed_and_epoch(name):
    found = []
    for seed, epoch in ((0, 4), (0, 4), (0, 5), (1, 4)):
        # Non-zero noise, partial masks, features that differ from one another.
        more = {"LeMDA": {"last_act": "linear"}, "AMCo": {"epsilon": 1.0}, "OPM": {"p_exe": 1.0}}
        method = make(name, seed=seed, **more.get(name, {}))
        for p in [*method.model.fusion.parameters(), *method.parameters()]:
            torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
        method.begin_epoch(epoch, TinySet())
        torch.manual_seed(7)  # dropout draws from the global generator
        for step in range(3):
            for loss, _ in method.losses(tiny_batch(seed=step)):
                method.zero_grad()
                loss.backward()
                method.after_backward()
        gradient = torch.cat([p.grad.flatten() for p in method.model.encoders.parameters()])
        found.append((loss.item(), gradient))
    same = [torch.equal(found[0][1], g) and found[0][0] == loss for loss, g in found[1:]]
    if name == "AMCo":  # the epoch also sets the ratio
        assert same[0] and not same[2]
    else:
        assert same == [True, False, False]


@pytest.mark.parametrize("name", ALL)
def test_the_losses_match_the_golden_ones(name):
    """Rounding differs between machines by far less than this; a changed method by far more."""
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, "a new method: `python tests/small_runs.py NAME` adds its losses"
    assert epoch_losses(name) == pytest.approx(golden[name], rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_evaluation_is_the_fused_output_draws_nothing_and_looks_at_no_other_sample(name):
    method, data = make(name), TinySet()
    train(method, data, 1, 2)
    method.eval()
    batch = tiny_batch(size=8)
    with torch.no_grad():
        f = method.model.encode(batch["inputs"])
        z = method.logits(f)
        assert torch.equal(z, method.logits(f))
        assert name in OWN_LOGITS or torch.equal(z, method.model.fuse(f))
        few = {m: x[2:5] for m, x in f.items()}
        assert torch.allclose(method.logits(few), z[2:5], atol=1e-6)


def test_each_methods_dataset_settings_exist():
    for (dataset, name), values in METHOD_DEFAULTS.items():
        cls = methods.load(name)
        made = build(cls.HParams, method_defaults(cls.HParams, dataset, name, 30), {})
        assert values.keys() <= {f for f in made.__dataclass_fields__}, (dataset, name)


def test_no_method_imports_another_or_names_a_device():
    files = {p for p, _ in methods.METHODS.values()}
    for module in files:
        text = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        for other in files:
            assert f"from {other} " not in text and f"import {other}" not in text, (module, other)
        for word in (".cuda(", "autocast", "open(", "print("):
            assert word not in text, (module, word)


# Through the program ------------------------------------------------------------------------------

# 14 epochs: every default warm-up then takes 1 to 3, so a kill after 4 interrupts the method.
LONG, SHORT = 14, 8


def command(dataset, name, data, root, folder, epochs=LONG):
    places = ("--data_dir", data, "--dataset_root", root, "--output_dir", folder)
    run = ("--dataset", dataset, "--method", name, "--seed", "1", "--lr", "0.045")
    model = ("--encoder", "small", "--size", "32", "--batch_size", "32", "--max_epochs", epochs)
    run += ("--devices", "cpu", "--threads", "1")
    return [str(w) for w in ("tests/probe.py", *run, *places, *model)]


def weights(folder, name):
    return RunFolder(folder).load(name)["method"]


def show(folder, name, modalities, epochs=LONG):
    """A log record from the main stage's second half proves that the method's mechanism ran."""
    log = RunFolder(folder).read_log()
    assert any(
        RAN[name](log[-1] | record, lambda key: [record[f"{key}/{m}"] for m in modalities])  # noqa: B023
        for record in log[epochs // 2 : epochs]
    ), log[epochs - 1]


# One with a single stage, and one killed in each of its two stages, with epochs left.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "epochs"),
    [("Midas", (), (6,)), ("GMM", ("--finetune_epochs", "6"), (4, 11))],
)
def test_a_killed_run_ends_with_the_same_bits(name, more, epochs, demo_data, tmp_path):
    root, data = demo_data
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = program(*command("demo", name, data, root, whole), *more)
    assert done.returncode == 0, done.stderr
    show(whole, name, PAIR)
    words = [sys.executable, *command("demo", name, data, root, killed), *more]
    for count in epochs:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(count):
            process.stdout.readline()
        time.sleep(random.Random(name).uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert RunFolder(killed).state == "partial"
    done = program(*words[1:])
    assert done.returncode == 0, done.stderr
    for file in ("last.pt", "best.pt"):
        assert equal_states(weights(whole, file), weights(killed, file))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Midas", "SMV"])
def test_three_modalities_from_files_to_result(name, demo_data, tmp_path):
    root, _ = demo_data
    done = program(*command("trio", name, tmp_path / "data", root, tmp_path / "run", SHORT))
    assert done.returncode == 0, done.stderr
    show(tmp_path / "run", name, ("audio", "video", "still"), SHORT)
    result = RunFolder(tmp_path / "run").read_json("result.json")
    assert {f"test/acc_zero/{m}" for m in ("audio", "video", "still")} <= result.keys()
