"""Settings of a run: the paper's protocol for each data set, in one declared place.

The paper (Sec. A.3) states optimizer, learning rate, epochs, batch size, weight decay and the step
of StepLR. Where it is silent, the defaults follow the authors' release (commit d25b225), which the
help texts call "official release"; docs/recipe.md names the exceptions. `--recipe official` follows
the release in these too, and where the paper says otherwise.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from common.options import UsageError, check, option

PAPER = "paper Sec. A.3"
RELEASE = "official release"
MAX_SEED = 2**32 - 1  # what scikit-learn's draw of the release's split takes


@dataclass(frozen=True)
class Settings:
    """What any run may be told, whatever its data set and method."""

    recipe: str = option(
        "paper",
        "where paper and official release differ: the paper's way, or the release's (cremad,"
        " kinetics, ucf101 and food101; docs/recipe.md)",
        choices=("paper", "official"),
    )
    batch_size: int = option(64, "samples a step", low=1, source=PAPER)
    last_batch: str = option(
        "keep",
        "an epoch's last batch, where it is smaller",
        choices=("keep", "drop"),
        source=RELEASE,
    )
    max_epochs: int = option(70, "epochs", low=1, source=PAPER)
    lr: float = option(1e-3, "learning rate of SGD", above=0, source=PAPER)
    momentum: float = option(0.9, "momentum of SGD", low=0, high=1, source=PAPER)
    weight_decay: float = option(1e-4, "weight decay", low=0, source=PAPER)
    lr_step: int = option(50, "epochs between two decays of the learning rate", low=1, source=PAPER)
    lr_gamma: float = option(
        0.1,
        "factor of a decay",
        above=0,
        high=1,
        source="official release; Sec. A.3 for CMU-MOSI",
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
        "google/electra-small-discriminator",
        "the text encoder: a name of the Hugging Face hub, a folder, or tiny (2 layers, random)",
        source="paper Sec. 4.1: ELECTRA; official release: the small one",
    )
    image_width: int = option(
        0,
        "a trained linear layer brings pictures (not frames) to this width; 0: none",
        low=0,
        source="official release: 256 on food101",
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
        choices=("paper", "release", "group", "official", "official2", "official3"),
        source="Table 5; release: the authors' draw; group: no leakage; official2 and 3:"
        " UCF-101's other lists",
    )
    split_seed: int = option(
        0,
        "seed of the split; on the paper's data sets it follows --seed unless it is given",
        low=0,
        high=MAX_SEED,
        source="official release: a split a seed",
    )
    stratify: bool = option(
        True, "paper rule: each class cut in proportion", source="official release"
    )


# A split a seed, as the authors' release draws it: None becomes the run's own seed.
_OWN_SEED = {"split_seed": None}
# Food-101's recipe and encoders. The paper has none for Sarcasm and Twitter2015, whose kinds of
# modality are Food-101's: there it is an inference.
_TEXT_AND_IMAGE = {
    "max_epochs": 30, "lr_step": 15, "weights": "pretrained", "image_width": 256, **_OWN_SEED,
}  # fmt: skip
# What differs from `Settings` for a data set; `dataset_sources` tells where each value comes from.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "kinetics": _OWN_SEED,
    "cremad": _OWN_SEED,
    "ucf101": {"lr": 1e-2, **_OWN_SEED},
    "food101": _TEXT_AND_IMAGE,
    "mosi": {"lr": 1e-2, "split_rule": "official", **_OWN_SEED},
    "sarcasm": _TEXT_AND_IMAGE,
    "twitter2015": _TEXT_AND_IMAGE,
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


def dataset_sources(dataset: str) -> dict[str, str]:
    """Where each of a data set's own defaults comes from."""
    common = "our choice for the demo set" if dataset == "demo" else PAPER
    if dataset in ("sarcasm", "twitter2015", "ave"):
        common = "an inference, the paper has no recipe for it"
    sources = dict.fromkeys(DATASET_DEFAULTS.get(dataset, {}), common)
    if dataset in ("kinetics", "cremad", "ucf101", "food101"):
        sources["split_seed"] = RELEASE
    elif dataset != "demo" and "split_seed" in sources:
        sources["split_seed"] = "an inference: the official release's way on its own sets"
    own = {"image_width": RELEASE, "weights": "paper Sec. 4.1"}
    return sources | (own if dataset == "food101" else {})


# What differs from a method's own defaults for a data set.
#
# Midas: official release but for lambda, which the paper states. SMV on the four sets of Table 1:
# the warm-ups of the release's configuration, and worth 1 for any hit as BalanceBenchmark has it;
# only so does the enlarged set reach the paper's "about 3 times" (an inference). MCR: its official
# scripts where they have the set, the nearest one otherwise (also an inference; CREMA-D's official
# values are the class's defaults). ARL: its paper's temperatures. GMM: our choice. Sarcasm and
# Twitter2015 take what Food-101 has.
_MCR_PRETRAINED = {"lam": 0.01, "w_uni": 1.0, "lib": 1.0}
_TEXT_AND_IMAGE_METHODS = {
    "Midas": {"warmup_epochs": 2},
    "MCR": _MCR_PRETRAINED,
    "GMM": {"warmup_epochs": 5},
}
METHOD_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("kinetics", "Midas"): {"lam": 5.0, "lr_from": "main"},
    ("kinetics", "SMV"): {"value": "unit", "warmup_epochs": 5},
    ("kinetics", "MCR"): {"lam": 0.01},
    ("cremad", "Midas"): {"lr_from": "main"},
    ("cremad", "SMV"): {"value": "unit", "warmup_epochs": 5},
    ("cremad", "ARL"): {"temperature": 8.0},
    ("ucf101", "Midas"): {"lr_from": "main"},
    ("ucf101", "SMV"): {"value": "unit", "warmup_epochs": 10},
    ("ucf101", "MCR"): {"lam": 0.001, "w_uni": 0.1},
    ("food101", "SMV"): {"value": "unit", "warmup_epochs": 2},
    ("mosi", "MCR"): {"lam": 0.01, "detach_uni": True},
    ("ave", "MCR"): {"lam": 0.01},
    **{
        (dataset, method): values
        for dataset in ("food101", "sarcasm", "twitter2015")
        for method, values in _TEXT_AND_IMAGE_METHODS.items()
    },
}

# Numbers of epochs above belong to the paper's training length of the data set. That is 70 but for
# these; a method's own defaults belong to 70 epochs everywhere.
PAPER_EPOCHS = {"food101": 30, "sarcasm": 30, "twitter2015": 30}
COMMON_EPOCHS = 70


def scaled_epochs(own: int, of: int, max_epochs: int) -> int:
    """A default number of epochs for another training length: 10 of 70 is 6 of 40 and 1 of 3.

    Rounded; at least 1 where the default is at least 1.
    """
    return own if own < 1 else max(1, round(own * max_epochs / of))


def build(cls: type, *layers: dict[str, Any]) -> Any:
    """An instance of a settings dataclass from its defaults and `layers`, later ones winning."""
    names = {field.name for field in fields(cls)}
    values = {name: value for layer in layers for name, value in layer.items() if name in names}
    instance = cls(**values)
    check(instance)
    return instance


def method_defaults(
    cls: type, dataset: str, method: str, max_epochs: int, recipe: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Every hyper-parameter's value when the user gives none, epochs scaled to `max_epochs`.

    `recipe` holds the values of a recipe, which go before the data set's own.
    """
    special = METHOD_DEFAULTS.get((dataset, method), {}) | (recipe or {})
    values = {}
    for field in fields(cls):
        value = special.get(field.name, field.default)
        if field.metadata["per_epochs"]:
            special_of = PAPER_EPOCHS.get(dataset, COMMON_EPOCHS)
            of = special_of if field.name in special else COMMON_EPOCHS
            value = scaled_epochs(value, of, max_epochs)
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
