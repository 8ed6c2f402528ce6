"""Options: each user setting is declared once, as a dataclass field made by `option`.

Hyperparameters, preparation settings and training settings are frozen dataclasses of such fields.
Flags, help texts, checks and the names of run folders are derived from them. Imports only the
standard library, so that `--help` is fast.
"""

import argparse
import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

MOST_LISTED = 100  # names in an error message
TAKES = {bool: "on or off", int: "a whole number", float: "a number"}


class UsageError(ValueError):
    """A user error; a program prints it as one line and exits with its status."""

    exit_status = 2
    prefix = "error: "


def option(
    default: Any,
    help: str,
    *,
    source: str = "our choice",
    choices: tuple | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    kind: type | None = None,
    per_epochs: bool = False,
    search: tuple | None = None,
) -> Any:
    """A dataclass field that is also a flag.

    `low` and `high` are inclusive bounds, `above` is exclusive. `kind` is needed only if `default`
    is None. `per_epochs` marks a number of epochs whose default is for the paper's training length
    and is scaled with `--max_epochs`. `search` is what tuning tries: (low, high), or with a third
    entry "log", or ("of", values...).
    """
    metadata = {"help": help, "source": source, "choices": choices, "per_epochs": per_epochs}
    metadata |= {"search": search}
    metadata |= {"low": low, "high": high, "above": above, "kind": kind or type(default)}
    return dataclasses.field(default=default, metadata=metadata)


def unknown(what: str, seen: str, allowed: Iterable[str]) -> UsageError:
    """The error for an unknown name, suggesting the closest one; lists all unless they are many."""
    folded = {name.casefold(): name for name in allowed}
    close = difflib.get_close_matches(seen.casefold(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    listed = f" Allowed: {', '.join(folded.values())}" if len(folded) <= MOST_LISTED else ""
    return UsageError(f"unknown {what} {seen!r}.{hint}{listed}")


def match_name(what: str, seen: str, allowed: Iterable[str]) -> str:
    """The name in `allowed` equal to `seen` up to case; raises `UsageError` if there is none."""
    folded = {name.casefold(): name for name in allowed}
    if seen.casefold() not in folded:
        raise unknown(what, seen, folded.values())
    return folded[seen.casefold()]


def number(flag: str, text: str, kind: type, low: float, high: float = math.inf) -> Any:
    """Parses a plain flag's number; raises `UsageError` outside [low, high]."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        upto = f" to {format_value(high)}" if high < math.inf else " or more"
        raise UsageError(f"--{flag} takes {TAKES[kind]}, {format_value(low)}{upto}, not {text!r}")
    return value


def format_value(value: Any) -> str:
    """The canonical text of a value, used in folder names and printed command lines."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def limits(field: dataclasses.Field) -> str:
    """The allowed values in words, for help texts and errors."""
    meta = field.metadata
    if meta["choices"]:
        return "one of " + ", ".join(map(str, meta["choices"]))
    words = {"above": "above", "low": "at least", "high": "at most"}
    bounds = [f"{words[k]} {format_value(meta[k])}" for k in words if meta[k] is not None]
    return " and ".join(bounds) or TAKES.get(meta["kind"], "text")


def check(settings: Any) -> None:
    """Raises `UsageError` for the first field of a settings dataclass that is out of range."""
    for field in dataclasses.fields(settings):
        value, meta = getattr(settings, field.name), field.metadata
        if value is not None and (
            (meta["choices"] and value not in meta["choices"])
            or (isinstance(value, float) and not math.isfinite(value))
            or (meta["low"] is not None and value < meta["low"])
            or (meta["high"] is not None and value > meta["high"])
            or (meta["above"] is not None and value <= meta["above"])
        ):
            shown = f"--{field.name} {format_value(value)}"
            raise UsageError(f"{shown} is invalid: it must be {limits(field)}")


def add_flags(
    parser: argparse.ArgumentParser,
    title: str,
    cls: type,
    defaults: dict[str, Any],
    sources: Mapping[str, str] | None = None,
) -> None:
    """Adds a flag for each field of the dataclass `cls`, with this run's defaults in the help.

    `sources` gives the origin of defaults that differ from the field's. Values stay text (None if
    absent); `collect` parses them.
    """
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(cls):
        meta = field.metadata
        value = defaults.get(field.name, field.default)
        origin = (sources or {}).get(field.name, meta["source"])
        default = "the run's --seed" if value is None else format_value(value)
        scales = ", scales with --max_epochs" if meta["per_epochs"] else ""
        text = f"{meta['help']} ({limits(field)}; default {default}{scales}; {origin})"
        group.add_argument(f"--{field.name}", metavar="V", help=text.replace("%", "%%"))


def collect(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The values given by the user for fields of `cls`; raises `UsageError` if one is invalid."""
    given = {}
    switch = {"on": True, "true": True, "off": False, "false": False}
    for field in dataclasses.fields(cls):
        text, kind = getattr(args, field.name, None), field.metadata["kind"]
        if text is None:
            continue
        try:
            given[field.name] = switch[text.casefold()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise UsageError(f"--{field.name} takes {TAKES[kind]}, not {text!r}") from None
    return given


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UsageError`, rejects abbreviations, suggests close names."""

    def __init__(self, **kwargs: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def parse_strictly(self, argv: list[str]) -> argparse.Namespace:
        """Like `parse_args`, but suggests the closest flag for an unknown one."""
        args, extra = self.parse_known_args(argv)
        if extra:
            flags = [name for action in self._actions for name in action.option_strings]
            seen = extra[0].split("=")[0]
            if seen.startswith("-"):
                raise unknown("flag", seen, flags)
            raise UsageError(f"unexpected argument {seen!r}; every setting is a flag (see --help)")
        return args
