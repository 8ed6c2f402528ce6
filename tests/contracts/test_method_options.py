"""Every option of every method has an effect, can be switched off, and refuses invalid values."""

from dataclasses import fields

import pytest
from conftest import PAIR, TRIO, TinySet, equal_states, host_reads
from small_runs import EPOCHS, hparams, make, train

import methods
from common import options
from common.options import UsageError
from experiments.run.resolve import RUN_FLAGS, SWITCHES
from experiments.run.settings import Settings

SETS = pytest.mark.parametrize("modalities", [PAIR, TRIO], ids=["pair", "trio"])
ALL = [name for name in methods.METHODS if name != "Unimodal"]

# Settings that differ from the defaults. The last option of an entry must act, given the others.
VARIANTS = {
    "Midas": [
        {"lam": 5.0}, {"eta": 0.2}, {"warmup_epochs": 0}, {"uni_reduce": "mean"},
        {"eta": 0.2, "weak_modality": False}, {"hard_sample": False}, {"similarity": "l2"},
        {"level": "input"}, {"pairing": "shuffle"}, {"pairing": "confusion"},
        {"pairing": "permutation"},
        {"direction": "a_only"}, {"alpha_rule": "ratio"}, {"alpha_rule": "ratio_2over1"},
        {"alpha_rule": "ratio_inverted"}, {"alpha_rule": "ratio_inverted", "alpha_cap": 1.0},
    ],
    "SMV": [{"value": "unit"}, {"level": "modality"}, {"level": "modality", "part_ratio": 0.1},
            {"level": "modality", "strength": 6.0},
            {"level": "modality", "strength": 6.0, "gap_form": "tanh"}],
    "OPM": [{"q_base": 0.9}, {"lam": 0.1}, {"p_exe": 0.3}, {"end_epoch": 2}, {"ogm": True},
            {"ogm": True, "alpha": 0.8}, {"ogm": True, "noise": False}],
    "OGM": [{"alpha": 0.8}, {"noise": False}, {"end_epoch": 2}],
    "AMCo": [{"variant": "feature"}, {"sigma": 0.9}, {"epsilon": 0.1}, {"linear_star": True},
             {"warmup_epochs": 1}, {"end_epoch": 2}],
    "LFM": [{"variant": "official"}, {"alpha_mode": "fixed"}, {"alpha_mode": "heuristic"},
            {"alpha_mode": "fitted"}, {"alpha_match": 0.5}, {"lr_alpha": 5.0}, {"match": "js"},
            {"factor": 1.0}, {"held_out": 5}],
    "MCR": [{"lam": 1.0}, {"w_uni": 1.0}, {"contr": 0.0}, {"lib": 1.0}, {"strategy": "independent"},
            {"strategy": "collaborative"}, {"num_samples": 2}, {"shuffle": "rsl"},
            {"shuffle": "rsi"}, {"features": "recompute_eval"}, {"tau": 0.1},
            {"contr_type": "pure"}, {"lib": 1.0, "ceb_input": "label"}, {"detach_uni": True},
            {"pretrain_epochs": 1}],
    "Mixup": [{"concentration": 1.0}, {"lam_mode": "per_modality"}],
    "PowMix": [{"rows": 2.0}, {"concentration": 0.2}, {"p_mix": 1.0}, {"w": 0.3}],
    "LeMDA": [{"network": "trans_vae"}, {"latent": 5}, {"n_layer": 2}, {"adv": 5.0},
              {"w_consist": 5.0, "threshold": 0.1}, {"w_reg": 9.0}, {"w_kld": 1.0},
              {"threshold": 0.1, "w_consist": 50.0},
              {"aug_lr": 1e-2}, {"clip": 0.1}, {"task_sum": True}, {"last_act": "relu"},
              {"w_consist": 50.0, "threshold": 0.1, "consist_train_head": False}],
    "ARL": [{"gamma": 1.0}, {"temperature": 0.0}, {"warmup_epochs": 2}, {"floor": 1.0},
            {"clip": 0.5}, {"mode": "constant_half"}, {"mode": "off"}],
    "GMM": [{"warmup_epochs": 2}, {"lam_gap": 2.0}, {"lam_align": 9.0}, {"lam_pen": 5.0}],
    # The teachers' epochs come before the four that are trained here.
    "UMT": [{"lam": 0.0}, {"teacher_epochs": 1}, {"teacher_epochs": 1, "lam": 99.0}],
    "ReLearning": [{"lam": 1.0}, {"every": 2}, {"times": 1}, {"held_out": 0.4}],
    "InfoReg": [{"beta": 9.0}, {"w_uni": 0.2}, {"beta": 9.0, "window": 3},
                {"beta": 9.0, "threshold": -9.0}],
    "ReconBoost": [{"w_label": 2.0}, {"w_rest": 0.0}, {"alpha": 0.0}, {"reconcile": "kl"},
                   {"stage_epochs": 2, "alpha": 5.0}, {"stage_epochs": 2}, {"rectify_epochs": 2}],
    "GBlending": [{"super_epoch": 2}, {"held_out": 0.3}, {"negative": "abs"}],
    "Remix": [{"w_warm": 2.0}, {"gamma": 3.0}, {"reassemble": False}],
    "MLA": [{"projection": "off"}, {"projection": "current"}, {"alpha": 0.5},
            {"normalise": False}],
    "AUG": [{"lam": 0.0}, {"margin": 0.0, "every": 3}, {"margin": 1.0}, {"max_heads": 1},
            {"hidden": 16}, {"heads": "frozen"}],
    "PMR": [{"alpha": 0.3}, {"coefficient": "clip"}, {"proto_momentum": 0.9}, {"share": 0.5},
            {"end_epoch": 2}, {"entropy": 0.5}, {"entropy": 0.5, "entropy_epochs": 3}],
    "MLB": [{"alpha": 3.0}, {"beta": 1.2}, {"w_uni": 0.3}],
    "MBSD": [{"w_uni": 0.3}, {"w_rs": 0.0}, {"w_kl": 0.0}, {"learner": "both"},
             {"space": "probabilities"}],
    "DGL": [{"alpha": 1.0}, {"clip": 0.5}, {"heads": "own"}, {"joint_to_encoders": True},
            {"uni_to_fusion": True}],
    "MMCosine": [{"scale": 15.0}],
    "CML": [{"lam": 1.0}, {"reduce": "mean"}, {"hinge": "batch"}, {"order": "epoch"},
            {"exempt": True}, {"ce": "full"}],
    "MNL": [{"lam": 5.0}, {"reduce": "mean"}, {"positive": True}, {"combine": "concat"}],
    "MMPareto": [{"gamma": 1.0}, {"length": "encoder"}],
    "AGM": [{"alpha": 3.0}, {"alpha": 3.0, "cap": 0.01}, {"clip": 0.1}, {"scope": "encoders"}],
    "IPRM": [{"alpha": 0.0}],
}  # fmt: skip
EACH = [(name, values) for name, variants in VARIANTS.items() for values in variants]
NAMES = [f"{name}-{'-'.join(f'{k}={v}' for k, v in values.items())}" for name, values in EACH]


pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.mark.parametrize(("name", "values"), EACH, ids=NAMES)
def test_every_option_changes_training_and_reaches_every_encoder(name, values):
    weights, before = [], dict(list(values.items())[:-1])
    for given in (before, values):
        method = make(name, **given)
        _, touched, _ = train(method, TinySet(), 1, 4)
        weights.append({k: v.clone() for k, v in method.model.state_dict().items()})
    assert not equal_states(*weights)
    names = {n for n, _ in method.named_parameters() if n.startswith("model.encoders.")}
    assert names <= touched


def test_no_option_is_left_out_of_the_variants():
    for name in ALL:
        fields = set(methods.load(name).HParams.__dataclass_fields__)
        tried = {key for values in VARIANTS.get(name, ()) for key in values}
        # Windows are tested below; the others act outside these four epochs; fusion at test time.
        later = {"lr_from", "alpha_reset", "finetune_epochs", "combine"}
        left = fields - tried - {"warmup_epochs", "end_epoch"} - later
        assert not left, f"add to VARIANTS[{name!r}] other values of: {', '.join(sorted(left))}"


@pytest.mark.parametrize(("name", "values"), [(name, {}) for name in ALL] + EACH)
def test_no_step_reads_anything_back_from_the_device(name, values):
    method, data = make(name, **values), TinySet()
    train(method, data, 1, 3)
    plan = method.begin_epoch(4, data)
    method.train()
    batch = next(data.epoch(4, plan))

    def step():
        for loss, _ in method.losses(batch):
            loss.backward()
            method.after_backward()

    assert host_reads(step) == 0


# Strength zero, or a window that does not cover the first three epochs.
CLOSED = [
    ("SMV", {"warmup_epochs": 5}),
    ("SMV", {"level": "modality", "strength": 0.0}),
    ("OPM", {"p_exe": 0.0, "warmup_epochs": 0}),
    ("OPM", {"q_base": 0.0, "warmup_epochs": 0}),
    ("OPM", {"p_exe": 1.0, "warmup_epochs": 5, "ogm": True}),
    ("OGM", {"alpha": 0.0, "noise": False, "warmup_epochs": 0}),
    ("OGM", {"warmup_epochs": 5}),
    ("AMCo", {"warmup_epochs": 5}),
    ("AMCo", {"variant": "feature", "warmup_epochs": 5}),
    ("LFM", {"alpha_mode": "fixed", "alpha_match": 0.0, "factor": 1.0}),
    ("MCR", {"lam": 0.0, "w_uni": 0.0, "contr": 0.0, "lib": 0.0}),
    ("MCR", {"features": "recompute_eval", "lam": 0.0, "w_uni": 0.0, "contr": 0.0}),
    ("PowMix", {"w": 0.0}),
    ("PowMix", {"w": 0.0, "rows": 2.0}),
    ("ARL", {"gamma": 0.0, "mode": "off", "clip": 0.0, "warmup_epochs": 0}),
    ("UMT", {"lam": 0.0}),
    ("ReLearning", {"lam": 0.0}),
    ("ReLearning", {"times": 0}),
    ("InfoReg", {"beta": 0.0, "w_uni": 0.0}),
    ("Remix", {"warmup_epochs": 5, "w_warm": 0.0}),
    ("PMR", {"alpha": 0.0}),
    ("MLB", {"alpha": 0.0, "w_uni": 0.0}),
    ("MBSD", {"w_uni": 0.0, "w_rs": 0.0, "w_kl": 0.0}),
    ("DGL", {"alpha": 0.0, "joint_to_encoders": True, "clip": 0.0}),
    ("CML", {"lam": 0.0, "ce": "full"}),
    ("AGM", {"alpha": 0.0, "clip": 0.0}),
    ("AGM", {"warmup_epochs": 5, "clip": 0.0}),
]


@SETS
@pytest.mark.parametrize(("name", "values"), CLOSED)
def test_an_idle_method_trains_joints_weights_to_the_last_bit(name, values, modalities):
    joint, idle = make("Joint", modalities), make(name, modalities, **values)
    for method in (joint, idle):
        train(method, TinySet(modalities), 1, 3)
    heads = {k for k in idle.state_dict() if k.startswith("model.heads.")}
    kept = {k: v for k, v in idle.model.state_dict().items() if "model." + k not in heads}
    assert equal_states(kept, joint.model.state_dict())


# Settings that leave Joint plus the losses of unimodal heads.
JOINT_UNI = [
    ("GMM", {"warmup_epochs": 5}),
    ("DGL", {"alpha": 1.0, "heads": "own", "joint_to_encoders": True, "clip": 0.0}),
    ("MNL", {"combine": "concat", "warmup_epochs": 5}),
    ("MNL", {"combine": "concat", "warmup_epochs": 0, "lam": 0.0}),
]


@SETS
@pytest.mark.parametrize(("name", "values"), JOINT_UNI)
def test_an_idle_method_with_heads_trains_jointunis_weights_to_the_last_bit(
    name, values, modalities
):
    control, idle = make("JointUni", modalities), make(name, modalities, **values)
    for method in (control, idle):
        train(method, TinySet(modalities), 1, 3)
    assert equal_states(control.model.state_dict(), idle.model.state_dict())


def test_no_option_of_a_method_is_a_flag_that_every_run_has():
    taken = {field.name for field in fields(Settings)} | {name for name, *_ in RUN_FLAGS + SWITCHES}
    for name in methods.METHODS:
        both = set(methods.load(name).HParams.__dataclass_fields__) & taken
        assert not both, (name, both)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ALL if methods.load(n).min_modalities > 1])
def test_too_few_modalities_are_refused(name):
    with pytest.raises(UsageError, match=f"{name} needs 2 or more modalities"):
        methods.load(name).check(hparams(name), EPOCHS, ["audio"])


@pytest.mark.parametrize("name", [n for n in ALL if hasattr(hparams(n), "warmup_epochs")])
def test_a_warmup_that_leaves_no_epoch_is_refused(name):
    with pytest.raises(UsageError, match=f"leaves no epoch of --max_epochs {EPOCHS} for {name}"):
        methods.load(name).check(hparams(name, warmup_epochs=EPOCHS), EPOCHS, list(PAIR))


@pytest.mark.parametrize(
    ("name", "values", "modalities", "words"),
    [
        ("Midas", {"direction": "a_only"}, TRIO, "direction a_only is defined for two modalities"),
        ("Midas", {"pairing": "permutation"}, TRIO, "pairing permutation is defined for two"),
        ("Midas", {"alpha_rule": "ratio"}, TRIO, "alpha_rule ratio is defined for two"),
        ("Midas", {"alpha_cap": 10.0}, PAIR, "alpha_cap 10 is refused: .*share needs"),
        ("Midas", {"alpha_cap": 0.5, "alpha_rule": "ratio"}, PAIR, "it takes 1 or more"),
        ("SMV", {"part_ratio": 0.5}, PAIR, "part_ratio 0.5 does nothing without --level modality"),
        ("SMV", {"strength": 2.0}, PAIR, "strength 2 does nothing without --level modality"),
        ("SMV", {"gap_form": "tanh"}, PAIR, "gap_form tanh does nothing without --level modality"),
        ("OPM", {"warmup_epochs": 3, "end_epoch": 3}, PAIR, "leaves no epoch after --warmup_epoch"),
        ("OPM", {"alpha": 0.8}, PAIR, "--alpha 0.8 does nothing without --ogm on"),
        ("OPM", {"noise": False}, PAIR, "--noise off does nothing without --ogm on"),
        (
            "AMCo",
            {"linear_star": True, "variant": "feature"},
            PAIR,
            "nothing without --variant logit",
        ),
        ("AMCo", {"sigma": 0.3}, PAIR, "below an equal share"),
        ("AMCo", {"sigma": 0.2}, TRIO, "give 1/3 or more"),
        ("LFM", {"alpha_match": -0.5}, PAIR, "takes 0 to 1, or -1"),
        ("LFM", {"alpha_match": 0.5, "variant": "official"}, PAIR, "does nothing with .* fitted"),
        ("LFM", {"alpha_match": 0.5, "alpha_mode": "heuristic"}, PAIR, "does nothing with .* heur"),
        ("MLA", {"alpha": 0.5, "projection": "off"}, PAIR, "alpha 0.5 does nothing with --proj"),
        ("MLA", {"normalise": False, "projection": "off"}, PAIR, "normalise off does nothing with"),
        ("DGL", {"alpha": 0.0}, PAIR, "leaves the encoders without a gradient"),
        (
            "DGL",
            {"uni_to_fusion": True, "heads": "own"},
            PAIR,
            "uni_to_fusion on does nothing without --heads shared",
        ),
        (
            "LeMDA",
            {"network": "trans_vae", "last_act": "relu"},
            PAIR,
            "last_act relu does nothing without --network mlp_vae",
        ),
        ("ReLearning", {"every": 6}, PAIR, "every 6 leaves no epoch of --max_epochs 6"),
        ("ReconBoost", {"w_rest": 6.0}, PAIR, "w_rest 6 makes .* count negatively"),
    ],
)
def test_impossible_settings_are_refused_and_their_neighbours_are_not(
    name, values, modalities, words
):
    cls = methods.load(name)
    with pytest.raises(UsageError, match=words):
        cls.check(hparams(name, **values), EPOCHS, list(modalities))
    cls.check(hparams(name), EPOCHS, list(modalities))


@pytest.mark.parametrize("name", ALL)
def test_the_defaults_lie_within_their_ranges_and_other_values_are_refused(name):
    options.check(hparams(name))
    for key, field in methods.load(name).HParams.__dataclass_fields__.items():
        low, above = field.metadata["low"], field.metadata["above"]
        bad = None if low is None else low - 1
        bad = above if above is not None else bad
        bad = "nonsense" if field.metadata["choices"] else bad
        if bad is not None:
            with pytest.raises(UsageError, match=f"--{key} .* is invalid"):
                hparams(name, **{key: bad})
