"""Turns --config, --extend and --seeds into plain flags, before a command line is resolved."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from common.files import CHECKSUM, shown
from common.options import Parser, UsageError, format_value, number
from experiments.run.folder import RunFolder
from experiments.run.settings import MAX_SEED
from methods import load

OWN = ("dataset", "method", "seed")
PARTS = ("settings", "prep", "hparams")


def with_config(argv: list[str]) -> list[str]:
    """`argv`, preceded by the flags of the file that --config names; flags in `argv` win.

    The file is a run's config.json, of which the settings that differ from their defaults count, or
    any part of one: an object of names and values, possibly in the groups that config.json has.
    Raises `UsageError` if it cannot be read.
    """
    parser = Parser(add_help=False)
    for flag in ("config", "extend", "dataset", "method"):
        parser.add_argument(f"--{flag}")
    early, rest = parser.parse_known_args(argv)
    if early.extend:
        if early.config:
            raise UsageError("--config does not work with --extend, which keeps the run's settings")
        return extended(Path(early.extend), argv)
    if not early.config:
        return argv
    value = read_config(Path(early.config))
    values = flags_of(value)
    # The settings of another method or dataset mean nothing to these.
    for part, name, chosen in (
        ("hparams", "method", early.method),
        ("prep", "dataset", early.dataset),
    ):
        if chosen and str(values.get(name, chosen)).casefold() != chosen.casefold():
            values = {k: v for k, v in values.items() if k not in value.get(part, {})}
    words = [w for k, v in values.items() for w in (f"--{k}", format_value(v))]
    for name in ("dataset", "method"):
        if chosen := getattr(early, name):
            rest = [f"--{name}", chosen, *rest]
    return [*words, *rest]


def read_config(path: Path) -> dict[str, Any]:
    """The object in a file, which may have been edited: its checksum does not count."""
    try:
        value = json.loads(path.read_bytes())
    except IsADirectoryError:
        raise UsageError(f"--config {path} is a folder: give the config.json in it") from None
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {path} is not JSON: {shown(str(error))}") from None
    if not isinstance(value, dict):
        raise UsageError(f"--config {path} must hold an object, not a {type(value).__name__}")
    value.pop(CHECKSUM, None)
    return value


def flags_of(value: dict[str, Any]) -> dict[str, Any]:
    """Flag -> value of a config.json or a part of one."""
    if isinstance(value.get("differing"), dict):  # complete: the rest are defaults
        own = {name: value[name] for name in OWN if name in value}
        own |= {"dataset": value["manifest"]} if value.get("manifest") else {}
        return own | value["differing"]
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= inner if name in PARTS and isinstance(inner, dict) else {name: inner}
    return flat


def extended(folder: Path, argv: list[str]) -> list[str]:
    """`argv`, preceded by all that identifies a finished run, for --extend.

    Numbers of epochs that are scaled with --max_epochs keep the values that the run was trained
    with. Raises `UsageError` if `argv` changes anything else.
    """
    config = RunFolder(folder).read_json("config.json")
    hparams: Any = load(config["method"]).HParams
    scaled = {
        field.name: config["hparams"][field.name]
        for field in fields(hparams)
        if field.metadata["per_epochs"]
    }
    values = flags_of(config) | scaled
    words = {word.split("=")[0].removeprefix("--") for word in argv if word.startswith("--")}
    kept = set(OWN).union(*(config[part] for part in PARTS)) - {"max_epochs"}
    for name in sorted(words & kept):
        raise UsageError(f"--{name} does not work with --extend, which keeps the run's settings")
    if "max_epochs" not in words:
        raise UsageError("--extend needs --max_epochs, the new number of epochs in all")
    values.pop("max_epochs", None)
    return [*(w for k, v in values.items() for w in (f"--{k}", format_value(v))), *argv]


def each_seed(argv: list[str]) -> list[list[str]]:
    """A command line for each of --seeds; `argv` itself if there is none.

    Raises `UsageError` if other flags exclude it.
    """
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", nargs="+")
    early, rest = parser.parse_known_args(argv)
    if not early.seeds:
        return [argv]
    for flag in ("--seed", "--output_dir", "--extend"):
        if any(word == flag or word.startswith(f"{flag}=") for word in rest):
            raise UsageError(f"{flag} does not work with --seeds, which makes several runs")
    seeds = [number("seeds", seed, int, 0, MAX_SEED) for seed in early.seeds]
    return [[*rest, "--seed", str(seed)] for seed in dict.fromkeys(seeds)]
