"""Every method, on every set of modalities: it trains, its mechanism runs, it forgets nothing.

What a method computes is tested in its own file; here all of them pass the same gate.
"""

import copy
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, TinySet, equal_states, host_reads, program, tiny_batch
from small_runs import EPOCHS, GOLDEN, base, epoch_losses, hparams, make, train

import methods
from common.options import UsageError
from experiments.run.folder import RunFolder
from experiments.run.session import make_deterministic
from experiments.run.settings import METHOD_DEFAULTS, build, method_defaults

PAIR, TRIO = ("audio", "video"), ("text", "audio", "video")
# The other data sets' modalities: UCF-101's, Food-101's and CMU-MOSI's.
KINDS = {
    "flow": ("flow", "video"),
    "text": ("tokens", "image"),
    "arrays": ("vectors_t", "vectors_a", "vectors_v"),
}
ALL = [name for name in methods.METHODS if name != "Unimodal"]

# What the log of a finished run must show: not that a loss was finite, but that the method's own
# mechanism acted. Keys of a record of the main stage; {m} stands for each modality.
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
}


@pytest.fixture(autouse=True)
def deterministic():
    """As train.py: with several threads some gradients are otherwise summed in any order."""
    make_deterministic()


def test_every_name_loads_its_class_whatever_its_case():
    for name in methods.METHODS:
        assert methods.load(name.lower()).__name__ == name


@pytest.mark.parametrize("modalities", [PAIR, TRIO, *KINDS.values()], ids=["pair", "trio", *KINDS])
@pytest.mark.parametrize("name", ALL)
def test_the_gradient_reaches_every_encoder(name, modalities):
    method, data = make(name, modalities), TinySet(modalities)
    _, touched, losses = train(method, data, 1, EPOCHS)
    assert losses
    for m in modalities:
        names = {n for n, _ in method.model.encoders[m].named_parameters()}
        assert {f"model.encoders.{m}.{n}" for n in names} <= touched


@pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])
@pytest.mark.parametrize("name", ALL)
def test_a_last_batch_of_two_samples_trains(name, modalities):
    method, data = make(name, modalities, size=18), TinySet(modalities, 18, keep_last=True)
    sizes = []
    method.register_forward_pre_hook(lambda _, words: sizes.append(len(words[0]["label"])))
    train(method, data, 1, EPOCHS)  # each loss is finite
    assert 2 in sizes
    assert all(p.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])
@pytest.mark.parametrize("name", ALL)
def test_all_that_a_method_knows_is_in_its_state(name, modalities):
    """A copy made from the state dict alone goes on with the very same bits."""
    one, data = make(name, modalities), TinySet(modalities)
    optimizers, _, _ = train(one, data, 1, 3)
    state = {k: v.clone() for k, v in one.state_dict().items()}
    kept = copy.deepcopy([o.state_dict() for o in optimizers])
    other = make(name, modalities)
    other.load_state_dict(state)
    again = other.optimizers(base)
    for optimizer, saved in zip(again, kept, strict=True):
        optimizer.load_state_dict(saved)
    torch.randn(3)  # nothing may hang on the global generator's place
    losses = train(one, data, 4, EPOCHS, optimizers)[2]
    assert losses == train(other, data, 4, EPOCHS, again)[2]
    assert equal_states(one.state_dict(), other.state_dict())


# Strength zero, or a window that has not opened in the first three epochs.
IDLE = {
    "SMV": {"warmup_epochs": 5},
    "OPM": {"p_exe": 0.0, "warmup_epochs": 0},
    "OGM": {"alpha": 0.0, "noise": False, "warmup_epochs": 0},
    "AMCo": {"warmup_epochs": 5},
    "LFM": {"alpha_mode": "fixed", "alpha_match": 0.0, "factor": 1.0},
    "MCR": {"lam": 0.0, "w_uni": 0.0, "contr": 0.0, "lib": 0.0},
    "PowMix": {"w": 0.0},
    "ARL": {"gamma": 0.0, "mode": "off", "clip": 0.0, "warmup_epochs": 0},
}


@pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])
@pytest.mark.parametrize("name", IDLE)
def test_an_idle_method_trains_joints_weights_to_the_last_bit(name, modalities):
    joint, idle = make("Joint", modalities), make(name, modalities, **IDLE[name])
    for method in (joint, idle):
        train(method, TinySet(modalities), 1, 3)
    heads = {k for k in idle.state_dict() if k.startswith("model.heads.")}
    kept = {k: v for k, v in idle.model.state_dict().items() if "model." + k not in heads}
    assert equal_states(kept, joint.model.state_dict())


@pytest.mark.parametrize("name", ALL)
def test_the_losses_are_those_written_down(name):
    """Rounding differs among machines, by far less than this; a changed method by far more."""
    assert epoch_losses(name) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_evaluation_draws_nothing_and_depends_on_no_other_sample(name):
    method, data = make(name), TinySet()
    train(method, data, 1, 2)
    method.eval()
    batch = tiny_batch(size=8)
    with torch.no_grad():
        f = method.model.encode(batch["inputs"])
        z = method.logits(f)
        assert torch.equal(z, method.logits(f))
        few = {m: x[2:5] for m, x in f.items()}
        assert torch.allclose(method.logits(few), z[2:5], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_step_reads_nothing_back_from_the_device(name):
    method, data = make(name), TinySet()
    train(method, data, 1, 3)
    plan = method.begin_epoch(4, data)
    method.train()
    batch = next(data.epoch(4, plan))
    assert host_reads(lambda: (method(batch)[0].backward(), method.after_backward())) == 0


@pytest.mark.parametrize("name", [n for n in ALL if methods.load(n).min_modalities > 1])
def test_too_few_modalities_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} needs 2 or more modalities"):
        methods.load(name).check(hparams(name), EPOCHS, ["audio"])


@pytest.mark.parametrize("name", [n for n in ALL if hasattr(hparams(n), "warmup_epochs")])
def test_a_warmup_that_leaves_no_epoch_is_refused(name):
    with pytest.raises(UsageError, match=f"leaves no epoch of --max_epochs {EPOCHS} for {name}"):
        methods.load(name).check(hparams(name, warmup_epochs=EPOCHS), EPOCHS, list(PAIR))


def test_each_methods_settings_of_a_data_set_exist():
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

# 14 epochs: every default warm-up is 1 to 3 of them, so that a kill after 4 hits the method.
LONG, SHORT = 14, 8
# A method with two stages is killed in both, with epochs left.
STAGES = {
    "GMM": (("--finetune_epochs", "6"), (4, 11)),
    "MCR": (("--pretrain_epochs", "4"), (2, 6)),
}


def command(dataset, name, data, root, folder, epochs=LONG):
    places = ("--data_dir", data, "--dataset_root", root, "--output_dir", folder)
    run = ("--dataset", dataset, "--method", name, "--seed", "1", "--lr", "0.045")
    model = ("--encoder", "small", "--size", "32", "--batch_size", "32", "--max_epochs", epochs)
    run += ("--devices", "cpu", "--threads", "1")
    return [str(w) for w in ("tests/probe.py", *run, *places, *model)]


def weights(folder, name):
    return RunFolder(folder).load(name)["method"]


def show(folder, name, modalities, epochs=LONG):
    """A record of the main stage's second half proves that the method's own mechanism ran."""
    log = RunFolder(folder).read_log()
    assert any(
        RAN[name](log[-1] | record, lambda key: [record[f"{key}/{m}"] for m in modalities])  # noqa: B023
        for record in log[epochs // 2 : epochs]
    ), log[epochs - 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_killed_run_ends_with_the_same_bits(name, demo_data, tmp_path):
    root, data = demo_data
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more, epochs = STAGES.get(name, ((), (random.Random(name).randint(3, 9),)))
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
@pytest.mark.parametrize("name", ALL)
def test_three_modalities_from_files_to_result(name, demo_data, tmp_path_factory):
    root, _ = demo_data
    data = tmp_path_factory.getbasetemp() / "trio-data"  # prepared by the first of these runs
    folder = tmp_path_factory.mktemp(name) / "run"
    done = program(*command("trio", name, data, root, folder, SHORT))
    assert done.returncode == 0, done.stderr
    show(folder, name, ("audio", "video", "still"), SHORT)
    result = RunFolder(folder).read_json("result.json")
    assert {f"test/acc_zero/{m}" for m in ("audio", "video", "still")} <= result.keys()
