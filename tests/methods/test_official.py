"""The numbers of the authors' release: steps, trajectories, schedule and evaluation.

Each case runs through our training and evaluation code with `--recipe official`.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import facts, tiny_model
from official import cases, close, exact
from torch import nn

from experiments.run.metrics import Protocol, f1_batch, measure, release_metrics
from experiments.run.resolve import resolve
from methods import midas
from methods.ops import true_probability
from models.classifier import Classifier
from train import epochs_to_run, train_epoch

# Steps and trajectories ---------------------------------------------------------------------------


class Exact(Classifier):
    """A classifier in float64 throughout."""

    def encode(self, inputs):
        return {m: self.encoders[m](inputs[m]) for m in self.modalities}


def linear(weight, bias=None):
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    values = {"weight": exact(weight)} | ({} if bias is None else {"bias": exact(bias)})
    layer.load_state_dict(values)
    layer.width = len(weight)
    return layer


def model_of(given, encoders):
    model = Exact(encoders, len(given["fusion"]["bias"]), "heads" in given, 0).double()
    model.fusion = linear(**given["fusion"])
    for m, head in given.get("heads", {}).items():
        model.heads[m] = linear(**head)
    return model


def identity(width):
    layer = nn.Identity()
    layer.width = width
    return layer


def session_of(variant, given, encoders, epochs):
    """A run of `--recipe official` with the case's numbers, and its method on the encoders."""
    wanted = given.get("optimizer", {}) | {k: given[k] for k in ("lam", "eta", "warmup_epochs")}
    flags = [w for k, v in wanted.items() for w in (f"--{k}", str(v))]
    named = ["--dataset", variant, "--method", "Midas", "--max_epochs", str(epochs)]
    run, _ = resolve([*named, "--recipe", "official", *flags], "")
    method = midas.Midas(model_of(given, encoders), run.hparams, facts(epochs=epochs)).double()
    method.alpha[0] = given["alpha"]
    return SimpleNamespace(run=run, method=method, loaders={}, ids={"train": []})


@pytest.fixture
def seen(monkeypatch):
    """Replaces drawn permutations with the case's; records what functions of the step return."""
    kept = SimpleNamespace(permutations=[], similarity=[], misaligned_loss=[])

    def partners(y, *rest):
        drawn, valid, fell_back = choose(y, *rest)
        assert drawn.sort().values.tolist() == list(range(len(y)))
        return torch.tensor(kept.permutations.pop(0)), valid, fell_back

    def watch(name):
        function = getattr(midas, name)

        def watched(*words, **more):
            getattr(kept, name).append(function(*words, **more))
            return getattr(kept, name)[-1]

        monkeypatch.setattr(midas, name, watched)

    choose = midas.choose_partners
    monkeypatch.setattr(midas, "choose_partners", partners)
    watch("similarity")
    watch("misaligned_loss")
    return kept


def assert_numbers(found, expect, kind):
    for name, value in found.items():
        assert close(value, expect[name], kind), (name, value, expect[name])


def over_under(variant, p, rho):
    """The ratio of the two modalities' means as in the release."""
    over = int(variant == "food101") ^ int(variant == "kinetics" and rho <= 1)
    return p[over] / p[1 - over]


@cases("step")
def test_a_step(variant, given, expect, seen):
    first, second = names = given["modalities"]
    x = {m: exact(given["features"][m]).requires_grad_() for m in names}
    encoders, y = {m: identity(v.shape[1]) for m, v in x.items()}, torch.tensor(given["labels"])
    if projection := given.get("projection"):
        encoders[projection["modality"]] = linear(projection["weight"], projection["bias"])
    epochs = given["warmup_epochs"] + given["epoch"] + 1
    method = session_of(variant, given, encoders, epochs).method
    seen.permutations = [given["permutation"]]
    method.begin_epoch(given["epoch"] + 1, None)
    loss, logs = method({"label": y, "inputs": x})
    loss.backward()

    found = {"loss": loss, "alpha_after": method.alpha.max(), "L_uni": logs["train/L_uni"]}
    z = method.model.unimodal(method.model.encode(x))
    q = {m: true_probability(z[m], y) for m in names}
    for m in names:
        assert close(-q[m].log().mean(), expect["L_uni_terms"][m], "step")
    if given["permutation"] is None:
        assert "train/L_align" not in logs and "train/L_mis" not in logs
    else:
        rho = logs["train/rho"]
        found |= {"L_align": logs["train/L_align"], "L_mis": logs["train/L_mis"]}
        found |= {"ratio_unimodal": rho, "ratio_fused": logs["train/r"]}
        for d, p in zip("AB", seen.misaligned_loss[0].p):
            assert close(over_under(variant, p, rho), expect[f"ratio_fused_{d}"], "step")
        assert [m for m in names if logs[f"train/weakest/{m}"]] == [expect["weak"]]
        of_a, of_b = seen.similarity[0].chunk(2)
        for m, s in ((second, of_a), (first, of_b)):
            assert close(s, expect["similarity"][m], "step")
            assert close(q[m], expect["confidence"][m], "step")
            assert close(logs[f"train/q/{m}"], q[m].mean().item(), "step")
    assert_numbers(found, expect, "step")
    grad = expect["grad"]
    layers = {"fusion": (method.model.fusion, grad["fusion"])}
    layers |= {m: (method.model.heads[m], grad["heads"][m]) for m in names}
    if projection:
        layers["projection"] = (encoders[projection["modality"]], grad["projection"])
    for name, (layer, wanted) in layers.items():
        for key in ("weight", "bias"):
            assert close(getattr(layer, key).grad, wanted[key], "step"), (name, key)
    assert all(close(x[m].grad, grad["features"][m], "step") for m in names)


class InOrder:
    """A training set whose epochs are the batches in order, with a smaller last batch."""

    def __init__(self, given, before):
        self.x, self.y = {m: exact(v) for m, v in given["x"].items()}, torch.tensor(given["labels"])
        self.parts, self.before = torch.arange(len(self.y)).split(given["batch_size"]), before

    def steps(self, plan):
        return len(self.parts)

    def epoch(self, epoch, plan):
        for rows in self.parts:
            self.before()
            inputs = {m: x[rows] for m, x in self.x.items()}
            yield {"index": rows, "label": self.y[rows], "inputs": inputs}


@cases("trajectory")
def test_a_trajectory(variant, given, expect, seen):
    names, kind = given["modalities"], "trajectory"
    encoders = {m: linear(w) for m, w in given["encoders"].items()}
    session = session_of(variant, given, encoders, given["epochs"])
    method, fusions, steps = session.method, [], []
    session.loaders["train"] = InOrder(
        given, lambda: fusions.append(method.model.fusion.weight.detach().clone())
    )
    method.register_forward_hook(lambda _, __, out: steps.append((out, method.alpha.max().item())))
    seen.permutations = [p for epoch in given["permutations"] for p in epoch]
    recorded, rates = [], []
    for epoch, _, optimizers, schedulers in epochs_to_run(session, None, None):
        # Like `train.train`, whose validation needs prepared data.
        begun, looked = len(seen.misaligned_loss), len(steps)
        record = train_epoch(session, epoch, optimizers, SimpleNamespace(check=lambda: None))
        rates += [optimizers[0].param_groups[0]["lr"]] * (len(steps) - looked)
        for scheduler in schedulers if method.counts_for_decay(epoch) else ():
            scheduler.step()
        p = [mis.p[1] for mis in seen.misaligned_loss[begun:]]
        recorded.append((record, torch.stack(p).mean(0) if p else None))
        if "val" in given:
            found = validate(method, given["val"], epoch - 1)
            assert_numbers(found, expect["val_recorded"][epoch - 1], kind)

    fusions.append(method.model.fusion.weight)
    assert len(steps) == len(expect["steps"]) and not seen.permutations
    for k, (((loss, logs), alpha), step) in enumerate(zip(steps, expect["steps"])):
        assert_numbers({"loss": loss, "alpha": alpha, "lr": rates[k]}, step, kind)
        assert torch.equal(fusions[k], fusions[k + 1]) is not step["fusion_moved"]
        if "weak" in step:
            assert logs[f"train/weakest/{step['weak']}"] == 1
            told = {"ratio_unimodal": "rho", "ratio_fused": "r", "L_mis": "L_mis"}
            assert_numbers({k: logs[f"train/{v}"] for k, v in told.items()}, step, kind)
    for k, (record, p_b) in enumerate(recorded):
        assert close(record["train/loss"], expect["mean_train_loss"][k], kind)
        alpha = max(record[f"alpha/{m}"] for m in names)
        assert close(alpha, expect["alpha_recorded"][k] or 1.0, kind)  # cremad: 0 before the first
        if "confidence_recorded" in expect and p_b is not None:
            series = expect["confidence_recorded"][k]
            for m, value in zip(names, p_b):
                assert close(record[f"train/q/{m}"], series["uni"][m], kind)
                assert close(value, series["fused_B"][m], kind)
    final = expect["final"]
    for m in names:
        assert close(method.model.encoders[m].weight, final["encoders"][m], kind)
    layers = [(method.model.fusion, final["fusion"])]
    for layer, wanted in layers + [(method.model.heads[m], final["heads"][m]) for m in names]:
        assert close(layer.weight, wanted["weight"], kind)
        assert close(layer.bias, wanted["bias"], kind)


def validate(method, given, epoch):
    """The release's record of a validation set."""
    method.eval()
    f = method.model.encode({m: exact(x) for m, x in given["x"].items()})
    return misaligned(method.model, f, given, given["permutations"][epoch])


def misaligned(model, f, given, permutations):
    """Accuracy, and the release's metrics of misaligned samples under its names."""
    y, places = torch.tensor(given["labels"]), partners_of(permutations)
    first, second = names = list(f)
    z = model.fuse({first: f[first], second: f[second][places]})
    out = release_metrics(z, torch.stack([y, y[places]], 1), names)
    return {
        "acc": (model.fuse(f).argmax(1) == y).double().mean(),
        "acc_misaligned": out["acc_mis_release"],
        "confidence_1": out[f"conf_release/{first}"],
        "confidence_2": out[f"conf_release/{second}"],
    }


def partners_of(permutations):
    """Permutations of successive batches, as positions in the validation set."""
    starts = np.cumsum([0, *map(len, permutations)])
    return torch.tensor([int(s) + p for s, batch in zip(starts, permutations) for p in batch])


# Schedule, evaluation -----------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["official", "paper"])
@cases("schedule")
def test_the_learning_rate_of_each_epoch(variant, given, expect, recipe):
    flags = {"max_epochs": given["epochs"], "lr": given["lr"]}
    flags |= {"warmup_epochs": given["warmup_epochs"], "recipe": recipe, "dataset": variant}
    run, _ = resolve([f"--{k}={v}" for k, v in flags.items()] + ["--method", "Midas"], "")
    method = midas.Midas(tiny_model(), run.hparams, facts(epochs=given["epochs"]))
    session = SimpleNamespace(run=run, method=method)
    rates, main = [], []
    for epoch, _, optimizers, schedulers in epochs_to_run(session, None, None):
        method.begin_epoch(epoch, None)
        main += [epoch - 1] if method.active else []
        rates.append(optimizers[0].param_groups[0]["lr"])
        optimizers[0].step()
        for scheduler in schedulers if method.counts_for_decay(epoch) else ():
            scheduler.step()
    changes = expect["changes"]
    ends = [change["first_epoch"] for change in changes[1:]] + [given["epochs"]]
    wanted = [c["lr"] for c, end in zip(changes, ends) for _ in range(c["first_epoch"], end)]
    assert close(rates, wanted, "schedule") and main[0] == expect["first_main_epoch"]


@cases("test_metrics")
def test_the_f1_of_batches_weighted_by_size(variant, given, expect):
    guess, y = torch.tensor(given["predicted"]), torch.tensor(given["labels"])
    classes, size = given["classes"], given["batch_size"]
    f1 = f1_batch(guess, y, classes, size, in_order=True)
    assert close(f1, expect["test_f1"], "test_metrics")
    assert close((guess == y).double().mean(), expect["test_acc"], "test_metrics")
    parts = list(zip(guess.split(size), y.split(size)))
    assert [len(part) for part, _ in parts] == expect["batch_sizes"]
    alone = [f1_batch(*part, classes, size, in_order=True) for part in parts]
    assert close(alone, expect["f1_of_batches"], "test_metrics")


@cases("misaligned_validation")
def test_misaligned_samples_of_validation(variant, given, expect):
    f = {m: exact(given["features"][m]) for m in given["modalities"]}
    model = model_of(given, {m: identity(x.shape[1]) for m, x in f.items()})
    found = misaligned(model, f, given, given["permutations"])
    assert_numbers(found, expect, "misaligned_validation")
    y, places = torch.tensor(given["labels"]), partners_of(given["permutations"])
    assert (y == y[places]).sum() == expect["equal_label_pairs"]
    protocol = Protocol(None, torch.stack([torch.arange(len(y)), places], 1).numpy(), True)
    whole = measure(SimpleNamespace(model=model, logits=model.fuse), f, y, protocol)  # in float32
    told = {"acc": whole["acc"], "acc_misaligned": whole["acc_mis_release"]}
    told |= {f"confidence_{k + 1}": whole[f"conf_release/{m}"] for k, m in enumerate(f)}
    assert told == pytest.approx({name: float(value) for name, value in found.items()}, abs=1e-6)
