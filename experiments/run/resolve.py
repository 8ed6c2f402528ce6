"""Resolves a command line to a run: names, settings, preparation, hyperparameters.

Unknown names are rejected before torch is imported. A method's flags need its module, and thus
torch, so `--help` shows them only with an explicit `--method`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import methods
from common.files import shown
from common.options import Parser, UsageError, add_flags, collect, match_name, number
from data_prep import datasets
from data_prep.spec import fits, spec_from_json, spec_hash, spec_json
from experiments.run import recipe as recipes
from experiments.run.folder import ANEW, run_path
from experiments.run.given import with_config
from experiments.run.settings import (
    DECLARED,
    MAX_SEED,
    RELEASE,
    Settings,
    build,
    check_recipe,
    method_defaults,
)

DEFAULT_SEED = 2  # as in the official README
CACHES = ("auto", "off", "memory", "device")
PARTS = ("settings", "prep", "hparams")
RUN_FLAGS = (  # flag, metavar, default, help
    ("dataset", "NAME", None,
     "dataset (default demo: embedded, no download), or the path to your own manifest.csv"),
    ("method", "NAME", None, "training method (default Midas)"),
    ("seed", "K", str(DEFAULT_SEED), "seed (default 2, as in the official README)"),
    ("seeds", "K ...", None, "several seeds: one run after another"),
    ("extend", "RUN", None, "go on with a finished run of --keep_checkpoints up to --max_epochs"),
    ("config", "FILE", None, "take settings from a run's config.json or a part of one; flags win"),
    ("dataset_root", "DIR", None, "raw data, prepared first if needed; for your own manifest, the"
     " folder of its files, below which absolute paths and links must stay"),
    ("data_dir", "DIR", "data", "prepared data (default data)"),
    ("results_dir", "DIR", "results", "folder of all runs"),
    ("output_dir", "DIR", None, "this run's folder (default: a folder below --results_dir)"),
    ("devices", "D", "0", "CUDA device such as 0, several such as 0,1, or cpu (default 0)"),
    ("threads", "N", None, "CPU threads (default: torch's own choice)"),
    ("num_workers", "N", None, "loader workers (default: up to 8 with CUDA, else 0)"),
    ("cache", "WHERE", "auto", "keep decoded samples: off, memory, device, or auto (default), which"
     " uses up to 40 %% of the free memory"),
    ("track", "NAMES", None, "trackers, such as tensorboard or wandb,mlflow"),
    ("max_bad", "X", "0.05", "largest share of rejected files in preparation (default 0.05)"),
)  # fmt: skip
SWITCHES = (
    ("overwrite", "start over, replacing a finished or stopped run"),
    ("keep_checkpoints", "keep the optimizer state of the finished run"),
    ("print_config", "print the resolved run and exit"),
    ("list", "list methods and datasets and exit"),
)


@dataclass(frozen=True)
class Run:
    """A resolved run; `differing` contains the settings that are not at their defaults.

    `manifest` is the path of the user's own dataset, or ""; `layout` describes the dataset's files.
    """

    dataset: str
    method: str
    seed: int
    settings: Settings
    prep: Any
    hparams: Any
    differing: dict
    manifest: str = ""
    layout: Any = field(default=None, compare=False)

    @property
    def spec(self) -> dict:
        return self.layout.spec(self.prep)

    @property
    def spec_hash(self) -> str:
        return spec_hash(self.dataset, self.spec)

    def config(self) -> dict:
        """Everything that identifies the run, as JSON."""
        parts = {part: asdict(getattr(self, part)) for part in PARTS}
        names = ("dataset", "manifest", "method", "seed", "differing", "spec_hash")
        own = {name: getattr(self, name) for name in names}
        return own | parts | {"spec": spec_json(self.dataset, self.spec)}

    def to_load(self) -> "Run":
        """The run without initial weights, which its own will replace: their source may be gone."""
        return replace(self, settings=replace(self.settings, weights="none", init_from=""))

    def default_folder(self, results: Path) -> Path:
        """The run folder used without --output_dir."""
        return run_path(results, self.dataset, self.method, self.differing, self.seed)


def run_from_config(config: dict) -> Run:
    """The run that a config.json describes; raises `UsageError` if it is damaged or too old."""
    try:
        source, spec = config["manifest"] or config["dataset"], spec_from_json(config["spec"])
        kinds = {m: modality.kind for m, modality in spec.items()}
        layout, method = datasets.load(source, kinds), methods.load(config["method"])
        parts = dict(zip(PARTS, (Settings, layout.Settings, method.HParams)))
        for part, cls in parts.items():
            for name, kind in ((each.name, each.type) for each in fields(cls)):
                if name not in config[part]:
                    raise UsageError(
                        f"the run was made by an older version without the setting {name}: repeat"
                        " it with its train.py command and --overwrite, or use that version"
                    )
                if not fits(config[part][name], kind):
                    raise TypeError(f"{name} is {config[part][name]!r}")
        own = {"dataset": str, "method": str, "seed": int, "differing": dict, "manifest": str}
        for name, kind in own.items():
            if not isinstance(config[name], kind):
                raise TypeError(f"{name} is {config[name]!r}")
        names = {each.name for cls in parts.values() for each in fields(cls)}
        if not config["differing"].keys() <= names:
            raise TypeError(f"differing is {config['differing']!r}")
        built = {part: build(cls, config[part]) for part, cls in parts.items()}
        return Run(**{name: config[name] for name in own}, **built, layout=layout)
    except UsageError as error:
        raise UsageError(shown(str(error), 900)) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = shown(f"{type(error).__name__}: {error}")
        raise UsageError(f"config.json is damaged ({what}); {ANEW}") from None


def listing() -> str:
    rows = ["methods:", *(f"  {name:13} {line}" for name, (_, line) in methods.METHODS.items())]
    sets = (f"  {name:13} {line}" for name, (line, _) in datasets.DATASETS.items())
    return "\n".join([*rows, "data sets:", *sets])


def setting_names(dataset: str, method: str) -> set[str]:
    """The names of all settings of a run with this dataset and method."""
    classes = (Settings, datasets.load(dataset).Settings, methods.load(method).HParams)
    return {each.name for cls in classes for each in fields(cls)}


def make_parser(description: str) -> Parser:
    """A parser with the flags that choose a run and its folders, without settings."""
    parser = Parser(description=description, add_help=False, prog="train.py", epilog=listing())
    parser.add_argument(
        "-h", "--help", action="store_true", help="show this text; with --method, also its flags"
    )
    group = parser.add_argument_group("the run")
    for flag, metavar, default, words in RUN_FLAGS:
        group.add_argument(f"--{flag}", metavar=metavar, default=default, help=words)
    for flag, words in SWITCHES:
        group.add_argument(f"--{flag}", action="store_true", help=words)
    return parser


def early_flags(argv: list[str]) -> argparse.Namespace:
    """The flags that decide the others and their defaults; raises `UsageError` if unknown."""
    first = Parser(add_help=False)
    first.add_argument("-h", "--help", action="store_true")
    for flag in ("dataset", "method", "recipe", "dataset_root"):
        first.add_argument(f"--{flag}")
    early, _ = first.parse_known_args(argv)
    early.source, early.named = early.dataset or "demo", bool(early.method)
    if not datasets.is_manifest(early.source):
        early.source = match_name("dataset", early.source, datasets.DATASETS)
    early.method = match_name("method", early.method or "Midas", methods.METHODS)
    early.recipe = match_name("recipe", early.recipe or "paper", ("paper", "official"))
    return early


def shared_defaults(
    dataset: str, layout: Any, recipe: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Defaults of settings and preparation, and the sources of those that override a field's."""
    classes, sources = (Settings, layout.Settings), {}
    defaults = {each.name: each.default for cls in classes for each in fields(cls)}
    layers = [(name, *pair) for name, pair in DECLARED.get(dataset, {}).items()]
    layers += [(k, v, "the manifest") for k, v in getattr(layout, "defaults", {}).items()]
    layers += [(k, v, RELEASE) for k, v in recipe.items()]
    for name, value, origin in layers:  # later ones win
        defaults[name], sources[name] = value, origin
    return defaults, sources


def check_model(encoder: str, fusion: str, method: str, kinds: Mapping[str, str]) -> None:
    """Raises `UsageError` for encoders that do not fit, or a fusion that the method cannot use."""
    from models.build import encoders_of  # imports torch

    encoders_of(encoder, kinds)
    if fusion in ("film", "gated") and methods.load(method).needs_linear_fusion:
        why = "has one modality" if method == "Unimodal" else "splits the fused logits by modality"
        raise UsageError(
            f"--fusion {fusion} does not work with {method}, which {why}: use concat or sum"
        )


def resolve(argv: list[str], description: str) -> tuple[Run | None, argparse.Namespace]:
    """The run and arguments of a command line; the run is None after `--help` or `--list`."""
    argv = with_config(argv)
    early = early_flags(argv)
    source, method, layout = early.source, early.method, datasets.load(early.source)
    dataset = datasets.public_name(source)
    shared, special = recipes.values(early.recipe, dataset, method)
    defaults, sources = shared_defaults(dataset, layout, shared)
    found = datasets.detected(layout, early.dataset_root)
    defaults |= found
    epochs = defaults["max_epochs"]

    parser = make_parser(description)
    add_flags(parser, f"training, defaults for {dataset}", Settings, defaults, sources)
    add_flags(parser, f"preparation of {dataset}", layout.Settings, defaults, sources)
    if (early.help and not early.named) or "--list" in argv:
        print(listing() if "--list" in argv else parser.format_help())
        return None, argparse.Namespace()
    cls = methods.load(method)
    title = f"{method}, defaults for {dataset} at {epochs} epochs"
    own = method_defaults(cls.HParams, dataset, method, epochs, special)
    add_flags(parser, title, cls.HParams, own, dict.fromkeys(special, RELEASE))
    args = parser.parse_strictly(argv)
    if args.help:
        print(parser.format_help())
        return None, args

    args.cache = match_name("cache", args.cache, CACHES)
    given = collect(args, Settings)
    settings = build(Settings, defaults, given)
    check_recipe(settings, given)
    if not settings.stratify and settings.split_rule != "paper":
        raise UsageError(
            f"--stratify off works with --split_rule paper only, not {settings.split_rule}"
        )
    given = collect(args, layout.Settings)
    datasets.tell_detected(args.dataset_root, found, given)
    prep, epochs = build(layout.Settings, defaults, given), settings.max_epochs
    given = collect(args, cls.HParams)
    if given.get("alpha_rule") == "share":  # the recipe's alpha_cap is for the ratio rules
        special = {name: value for name, value in special.items() if name != "alpha_cap"}
    defaults |= method_defaults(cls.HParams, dataset, method, epochs, special)
    hparams = build(cls.HParams, defaults, given)
    kinds = {m: modality.stream()["kind"] for m, modality in layout.spec(prep).items()}
    modalities = list(kinds)
    check_model(settings.encoder, settings.fusion, method, kinds)
    cls.check(hparams, epochs, cls.used_modalities(hparams, modalities))
    chosen = asdict(settings) | asdict(prep) | asdict(hparams)
    differing = {name: value for name, value in chosen.items() if value != defaults[name]}
    seed = number("seed", args.seed, int, 0, MAX_SEED)
    if settings.split_seed is None:  # one split per seed
        settings = replace(settings, split_seed=seed)
    manifest = source if source != dataset else ""
    return Run(dataset, method, seed, settings, prep, hparams, differing, manifest, layout), args
