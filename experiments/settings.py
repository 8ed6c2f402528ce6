"""Settings of a run: the paper's protocol for each data set, in one declared place.

The paper (Sec. A.3) states optimizer, learning rate, epochs, batch size, weight decay and the step
of StepLR; its decay 0.1 is stated for CMU-MOSI only and taken everywhere.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from common.options import UsageError, check, option

PAPER = "paper Sec. A.3"


@dataclass(frozen=True)
class Settings:
    """What any run may be told, whatever its data set and method."""

    batch_size: int = option(64, "samples a step", low=1, source=PAPER)
    max_epochs: int = option(70, "epochs", low=1, source=PAPER)
    lr: float = option(1e-3, "learning rate of SGD", above=0, source=PAPER)
    momentum: float = option(0.9, "momentum of SGD", low=0, high=1, source=PAPER)
    weight_decay: float = option(1e-4, "weight decay", low=0, source=PAPER)
    lr_step: int = option(50, "epochs between two decays of the learning rate", low=1, source=PAPER)
    lr_gamma: float = option(
        0.1, "factor of a decay", above=0, high=1, source="Sec. A.3 for CMU-MOSI"
    )
    encoder: str = option(
        "resnet18", "convolutional trunk", choices=("resnet18", "small"), source="paper Sec. 4.1"
    )
    weights: str = option(
        "none",
        "first weights of pictures, frames and texts: none, pretrained (the ordinary caches), or a"
        " folder that holds them",
        source="paper Sec. 4.1: pretrained for Food-101 alone",
    )
    text_model: str = option(
        "google/electra-base-discriminator",
        "the text encoder: a name of the Hugging Face hub, a folder, or tiny (2 layers, random)",
        source="paper Sec. 4.1 says ELECTRA; which one is our choice",
    )
    size: int = option(
        224, "side of every image tensor, pixels", low=16, high=1024, source="the field's loaders"
    )
    spec_pool: int = option(1, "average-pool spectrograms by this factor", low=1, high=16)
    audio_norm: str = option(
        "dataset",
        "spectrograms: the data set's constants, or each clip's own z-score",
        choices=("dataset", "zscore"),
    )
    precision: str = option("float32", "arithmetic of the encoders", choices=("float32", "bf16"))
    compile: bool = option(False, "compile the encoders (pays on a GPU only)")
    split_rule: str = option(
        "paper",
        "how samples are divided",
        choices=("paper", "group", "official", "official2", "official3"),
        source="Table 5; group: no leakage; official2 and 3: UCF-101's other lists",
    )
    split_seed: int = option(0, "seed of the split, apart from --seed", low=0)
    stratify: bool = option(True, "paper rule: each class cut in proportion")


# What differs from `Settings` for a data set: from the paper's Sec. A.3, but for the demo set.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "kinetics": {},
    "cremad": {},
    "ucf101": {"lr": 1e-2},
    "food101": {"max_epochs": 30, "lr_step": 15, "weights": "pretrained"},
    "mosi": {"lr": 1e-2, "split_rule": "official"},
    # The paper gives no recipe for these two: Food-101's, whose encoders they share (an inference).
    "sarcasm": {"max_epochs": 30, "lr_step": 15, "weights": "pretrained"},
    "twitter2015": {"max_epochs": 30, "lr_step": 15, "weights": "pretrained"},
    # Not in the paper: the split on which others report (an inference), the common recipe.
    "ave": {"split_rule": "official"},
    # Our choice: the recipe under which the small encoders learn the demo set within a minute, and
    # a split on which nothing was chosen.
    "demo": {
        "max_epochs": 30,
        "lr": 0.045,
        "lr_step": 20,
        "size": 32,
        "encoder": "small",
        "split_seed": 1,
    },
}


def dataset_source(dataset: str) -> str:
    """Where a data set's own defaults come from."""
    if dataset in ("sarcasm", "twitter2015", "ave"):
        return "an inference, the paper has no recipe for it"
    return "our choice for the demo set" if dataset == "demo" else PAPER


# What differs from a method's own defaults for a data set.
#
# SMV on the four sets of Table 1: worth 1 for any hit, and 1 epoch of warm-up, as BalanceBenchmark
# has them, which the paper follows; only so does the enlarged set reach its "about 3 times" (an
# inference). MCR: its official scripts where they have the set, the nearest one otherwise (also an
# inference; CREMA-D's official values are the class's defaults). ARL: its paper's temperatures.
_SMV = {"value": "unit", "warmup_epochs": 1}
_MCR_PRETRAINED = {"lam": 0.01, "w_uni": 1.0, "lib": 1.0}
METHOD_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("kinetics", "Midas"): {"lam": 5.0},
    ("kinetics", "SMV"): _SMV,
    ("kinetics", "MCR"): {"lam": 0.01},
    ("cremad", "SMV"): _SMV,
    ("cremad", "ARL"): {"temperature": 8.0},
    ("ucf101", "SMV"): _SMV,
    ("ucf101", "MCR"): {"lam": 0.001, "w_uni": 0.1},
    ("food101", "Midas"): {"warmup_epochs": 3},
    ("food101", "SMV"): _SMV,
    ("food101", "MCR"): _MCR_PRETRAINED,
    ("food101", "GMM"): {"warmup_epochs": 5},
    ("sarcasm", "MCR"): _MCR_PRETRAINED,
    ("twitter2015", "MCR"): _MCR_PRETRAINED,
    ("mosi", "MCR"): {"lam": 0.01, "detach_uni": True},
}

# The paper's number of epochs, to which default warm-ups belong, where it is not 70.
PAPER_EPOCHS = {"food101": 30, "sarcasm": 30, "twitter2015": 30}


def scaled_epochs(own: int, dataset: str, max_epochs: int) -> int:
    """A default number of epochs for another training length: 10 of 70 is 6 of 40 and 1 of 3.

    Rounded; at least 1 where the default is at least 1.
    """
    if own < 1:
        return own
    return max(1, round(own * max_epochs / PAPER_EPOCHS.get(dataset, 70)))


def build(cls: type, *layers: dict[str, Any]) -> Any:
    """An instance of a settings dataclass from its defaults and `layers`, later ones winning."""
    names = {field.name for field in fields(cls)}
    values = {name: value for layer in layers for name, value in layer.items() if name in names}
    instance = cls(**values)
    check(instance)
    return instance


def method_defaults(cls: type, dataset: str, method: str, max_epochs: int) -> dict[str, Any]:
    """Every hyper-parameter's value when the user gives none, epochs scaled to `max_epochs`."""
    special = METHOD_DEFAULTS.get((dataset, method), {})
    values = {}
    for field in fields(cls):
        value = special.get(field.name, field.default)
        if field.metadata["per_epochs"]:
            value = scaled_epochs(value, dataset, max_epochs)
        values[field.name] = value
    return values


def differing(settings: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    """The fields of `settings` whose values are not the defaults'."""
    return {k: v for k, v in asdict(settings).items() if v != defaults[k]}


def assert_distinct(*classes: type) -> None:
    """One name is one flag: raises `UsageError` if two of the classes share a field's name."""
    seen: dict[str, type] = {}
    for cls in classes:
        for field in fields(cls):
            if field.name in seen:
                raise UsageError(
                    f"setting {field.name!r} is declared by {seen[field.name].__qualname__} and"
                    f" by {cls.__qualname__}: rename one"
                )
            seen[field.name] = cls
