"""From a command line to a fully resolved run: names, settings, preparation, hyper-parameters.

Wrong names are refused before torch is imported; a method's own flags need its module, and with it
torch, so `--help` shows them only beside an explicit `--method`.
"""

import argparse
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import methods
from common.files import shown
from common.options import Parser, UsageError, add_flags, collect, match_name, number
from data_prep import datasets
from data_prep.spec import fits, spec_from_json, spec_hash, spec_json
from experiments.run import recipe as recipes
from experiments.run.folder import run_path
from experiments.run.settings import (
    DATASET_DEFAULTS,
    MAX_SEED,
    Settings,
    assert_distinct,
    build,
    dataset_sources,
    differing,
    method_defaults,
)

DEFAULT_SEED = 2  # the official README's


@dataclass(frozen=True)
class Run:
    """A resolved run; `differing` holds the settings that are not the defaults.

    `manifest` is the path of a user's own data set, "" for the others; `layout` knows its files.
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
        """The preparation spec of its data."""
        return self.layout.spec(self.prep)

    @property
    def spec_hash(self) -> str:
        """The hash that names its prepared folder."""
        return spec_hash(self.dataset, self.spec)

    def config(self) -> dict:
        """Everything that identifies the run, as JSON."""
        return {
            "dataset": self.dataset,
            "manifest": self.manifest,
            "method": self.method,
            "seed": self.seed,
            "settings": asdict(self.settings),
            "prep": asdict(self.prep),
            "hparams": asdict(self.hparams),
            "differing": self.differing,
            "spec": spec_json(self.dataset, self.spec),
            "spec_hash": self.spec_hash,
        }

    def default_folder(self, results: Path) -> Path:
        """Where the run's files go unless --output_dir says otherwise."""
        return run_path(results, self.dataset, self.method, self.differing, self.seed)


def run_from_config(config: dict) -> Run:
    """The run that a config.json describes.

    Raises `UsageError` where it is damaged, or lacks a setting: today's default need not be what
    the run had.
    """
    try:
        return _run_from_config(config)
    except UsageError as error:
        raise UsageError(shown(str(error), 900)) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = shown(f"{type(error).__name__}: {error}")
        raise UsageError(
            f"config.json is damaged ({what}): --overwrite with the run's train.py command makes it"
            " anew"
        ) from None


def _run_from_config(config: dict) -> Run:
    source = config["manifest"] or config["dataset"]
    layout = datasets.load(source, list(spec_from_json(config["spec"])))
    method = methods.load(config["method"])
    for part, cls in (
        ("settings", Settings),
        ("prep", layout.Settings),
        ("hparams", method.HParams),
    ):
        missing = [f.name for f in fields(cls) if f.name not in config[part]]
        if missing:
            raise UsageError(
                f"the run was made by an older version, which had no setting {missing[0]}: run its"
                " train.py command again with --overwrite, or evaluate it with that version"
            )
        wrong = [f.name for f in fields(cls) if not fits(config[part][f.name], f.type)]
        if wrong:
            raise TypeError(f"{wrong[0]} is {config[part][wrong[0]]!r}")
    for key, kind in (("dataset", str), ("seed", int), ("differing", dict), ("manifest", str)):
        if not isinstance(config[key], kind):
            raise TypeError(f"{key} is {config[key]!r}")
    names = {name for part in ("settings", "prep", "hparams") for name in config[part]}
    if not config["differing"].keys() <= names:
        raise TypeError(f"differing is {config['differing']!r}")
    return Run(
        config["dataset"],
        config["method"],
        config["seed"],
        build(Settings, config["settings"]),
        build(layout.Settings, config["prep"]),
        build(method.HParams, config["hparams"]),
        config["differing"],
        config["manifest"],
        layout,
    )


def listing() -> str:
    """The methods and data sets, a line each."""
    rows = ["methods:", *(f"  {name:10} {line}" for name, (_, line) in methods.METHODS.items())]
    rows += [
        "data sets:",
        *(f"  {name:10} {line}" for name, (line, _) in datasets.DATASETS.items()),
    ]
    return "\n".join(rows)


def _names(argv: list[str]) -> tuple[str, str, bool]:
    """The data set and method of a command line, and whether the method was named."""
    first = Parser(add_help=False)
    first.add_argument("--dataset", default="demo")
    first.add_argument("--method")
    args, _ = first.parse_known_args(argv)
    dataset = args.dataset
    if not datasets.is_manifest(dataset):
        dataset = match_name("data set", dataset, datasets.DATASETS)
    return dataset, match_name("method", args.method or "Midas", methods.METHODS), bool(args.method)


RUN_FLAGS = (  # flag, metavar, default, help
    ("dataset", "NAME", None, "data set (default demo: embedded, no download), or the path of your"
     " own manifest.csv"),
    ("method", "NAME", None, "training method (default Midas)"),
    ("seed", "K", str(DEFAULT_SEED), "default 2, the official README's"),
    ("dataset_root", "DIR", None, "the raw data, prepared first where needed; of an own csv the"
     " folder of its files, below which absolute paths and links work"),
    ("data_dir", "DIR", "data", "prepared data (default data)"),
    ("results_dir", "DIR", "results", "root of all runs"),
    ("output_dir", "DIR", None, "this run's own folder"),
    ("devices", "D", "0", "a CUDA device's number, or cpu"),
    ("threads", "N", None, "CPU threads (default: torch's own choice)"),
    ("num_workers", "N", None, "loader processes (default: 5 with CUDA as in the paper, else 0)"),
    ("max_bad", "X", "0.05", "share of rejected files that preparation allows"),
)  # fmt: skip
SWITCHES = (
    ("overwrite", "start a finished or stopped run anew"),
    ("keep_checkpoints", "keep the optimizer's state when done"),
    ("tensorboard", "write TensorBoard files into the run's folder"),
    ("print_config", "show the resolved run and stop"),
    ("list", "show methods and data sets and stop"),
)


def add_run_flags(parser: Parser) -> None:
    """Flags that choose a run and its places, but for settings."""
    group = parser.add_argument_group("the run")
    for flag, metavar, default, words in RUN_FLAGS:
        group.add_argument(f"--{flag}", metavar=metavar, default=default, help=words)
    for flag, words in SWITCHES:
        group.add_argument(f"--{flag}", action="store_true", help=words)


def setting_names(dataset: str, method: str) -> set[str]:
    """All settings that a run of this method on this data set has."""
    classes = (Settings, datasets.load(dataset).Settings, methods.load(method).HParams)
    return {field.name for cls in classes for field in fields(cls)}


def resolve(argv: list[str], description: str) -> tuple[Run | None, argparse.Namespace]:
    """A command line's run and arguments; no run after `--help` or `--list` were answered."""
    source, method, named = _names(argv)
    layout, wants_help = datasets.load(source), bool({"-h", "--help"} & set(argv))
    dataset, own = datasets.public_name(source), getattr(layout, "defaults", {})
    parser = Parser(description=description, add_help=False, prog="train.py", epilog=listing())
    parser.add_argument(
        "-h", "--help", action="store_true", help="this text; with --method also its flags"
    )
    add_run_flags(parser)
    chosen = _recipe(argv)
    shared, own_of_method = recipes.values(chosen, dataset, method)
    special = DATASET_DEFAULTS.get(dataset, {}) | own
    common = {f.name: f.default for f in fields(Settings)} | special
    common |= {name: value for name, value in shared.items() if name in common}
    origin = dataset_sources(dataset) | dict.fromkeys(own, "the manifest")
    origin |= dict.fromkeys(shared, "official release")
    add_flags(parser, f"training, defaults for {dataset}", Settings, common, origin)
    prep_defaults = {f.name: f.default for f in fields(layout.Settings)}
    prep_defaults |= {name: value for name, value in shared.items() if name in prep_defaults}
    found = datasets.detected(layout, _early(argv, "--dataset_root"))
    prep_defaults |= found
    add_flags(parser, f"preparation of {dataset}", layout.Settings, prep_defaults, origin)
    if (wants_help and not named) or "--list" in argv:
        print(listing() if "--list" in argv else parser.format_help())
        return None, argparse.Namespace()

    cls = methods.load(method)
    assert_distinct(Settings, layout.Settings, cls.HParams)
    epochs = common["max_epochs"]
    add_flags(
        parser,
        f"{method}, defaults for {dataset} at {epochs} epochs",
        cls.HParams,
        method_defaults(cls.HParams, dataset, method, epochs, own_of_method),
        dict.fromkeys(own_of_method, "official release"),
    )
    args = parser.parse_strictly(argv)
    if args.help:
        print(parser.format_help())
        return None, args
    settings = training_settings(args, common)
    prep_given = collect(args, layout.Settings)
    datasets.tell_detected(args.dataset_root, found, prep_given)
    prep = build(layout.Settings, prep_defaults, prep_given)
    given = collect(args, cls.HParams)
    own_of_method = recipes.beside(own_of_method, given)
    defaults = method_defaults(cls.HParams, dataset, method, settings.max_epochs, own_of_method)
    hparams = build(cls.HParams, defaults, given)
    modalities = cls.used_modalities(hparams, list(layout.spec(prep)))
    cls.check(hparams, settings.max_epochs, modalities)
    apart = (
        differing(settings, common) | differing(prep, prep_defaults) | differing(hparams, defaults)
    )
    seed = number("seed", args.seed, int, 0, MAX_SEED)
    manifest = source if source != dataset else ""
    if settings.split_seed is None:  # one split for each seed
        settings = replace(settings, split_seed=seed)
    return Run(dataset, method, seed, settings, prep, hparams, apart, manifest, layout), args


def training_settings(args: argparse.Namespace, defaults: dict[str, Any]) -> Settings:
    """The training settings of a command line; raises `UsageError` for those without effect."""
    settings = build(Settings, defaults, collect(args, Settings))
    if not settings.stratify and settings.split_rule != "paper":
        raise UsageError(
            f"--stratify off has an effect with --split_rule paper only, not {settings.split_rule}"
        )
    return settings


def _recipe(argv: list[str]) -> str:
    """The recipe of a command line: it decides the defaults of all other settings."""
    field = next(f for f in fields(Settings) if f.name == "recipe")
    return match_name("recipe", _early(argv, "--recipe") or "paper", field.metadata["choices"])


def _early(argv: list[str], flag: str) -> str | None:
    """The value of a flag on which the defaults of others depend."""
    first = Parser(add_help=False)
    first.add_argument(flag, dest="value")
    return first.parse_known_args(argv)[0].value
