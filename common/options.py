"""Options: one description of each value that a user may set, read by every program.

A method's hyper-parameters, a data set's preparation settings and the training settings are
frozen dataclasses whose fields are made by `option`. From that one description come the flags of
the command line, their help, the checks of value and range, and the text that names a run's
folder. Nothing here imports more than the standard library: `train.py --help` must answer at once.
"""

import argparse
import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any


class UsageError(ValueError):
    """A mistake of the user's: the programs print it as one line and exit with its status."""

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
) -> Any:
    """A dataclass field that is also a flag.

    `low` and `high` are inclusive bounds, `above` an exclusive lower one. `kind` is needed only
    where the default is None. `per_epochs` marks a number of epochs that belongs to the paper's
    training length and is scaled with `--max_epochs` when the user does not give it.
    """
    metadata = {
        "help": help,
        "source": source,
        "choices": choices,
        "low": low,
        "high": high,
        "above": above,
        "kind": kind or type(default),
        "per_epochs": per_epochs,
    }
    return dataclasses.field(default=default, metadata=metadata)


def unknown(what: str, seen: str, allowed: Iterable[str]) -> UsageError:
    """The error for a name that does not exist: seen, allowed, the closest match."""
    allowed = list(allowed)
    folded = {name.casefold(): name for name in allowed}
    close = difflib.get_close_matches(seen.casefold(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    return UsageError(f"unknown {what} {seen!r}.{hint} Allowed: {', '.join(allowed)}")


def match_name(what: str, seen: str, allowed: Iterable[str]) -> str:
    """`seen` in the spelling of `allowed`, whatever its case; raises `UsageError` otherwise."""
    allowed = list(allowed)
    for name in allowed:
        if name.casefold() == seen.casefold():
            return name
    raise unknown(what, seen, allowed)


def parse_value(field: dataclasses.Field, text: str) -> Any:
    """The value of a flag from its text; raises `UsageError` naming the flag and what it takes."""
    kind = field.metadata["kind"]
    try:
        if kind is bool:
            return {"on": True, "true": True, "off": False, "false": False}[text.casefold()]
        return kind(text)
    except (KeyError, ValueError):
        takes = "on or off" if kind is bool else {int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"--{field.name} takes {takes}, not {text!r}") from None


def number(flag: str, text: str, kind: type, low: float, high: float = math.inf) -> Any:
    """The number that a plain flag's text holds; raises `UsageError` outside [low, high]."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        what = "a whole number" if kind is int else "a number"
        upto = f" to {format_value(high)}" if high < math.inf else " or more"
        raise UsageError(f"--{flag} takes {what}, {format_value(low)}{upto}, not {text!r}")
    return value


def format_value(value: Any) -> str:
    """The one canonical text of a value: used in folder names and on printed command lines."""
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
    if meta["kind"] is bool:
        return "on or off"
    parts = []
    if meta["above"] is not None:
        parts.append(f"above {format_value(meta['above'])}")
    if meta["low"] is not None:
        parts.append(f"at least {format_value(meta['low'])}")
    if meta["high"] is not None:
        parts.append(f"at most {format_value(meta['high'])}")
    return " and ".join(parts) or {int: "a whole number", float: "a number"}.get(
        meta["kind"], "text"
    )


def check(settings: Any) -> None:
    """Raises `UsageError` for the first field of a settings dataclass that is out of its range."""
    for field in dataclasses.fields(settings):
        value, meta = getattr(settings, field.name), field.metadata
        if value is None:
            continue
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        bad = (
            (meta["choices"] and value not in meta["choices"])
            or (numeric and not math.isfinite(value))
            or (meta["low"] is not None and value < meta["low"])
            or (meta["high"] is not None and value > meta["high"])
            or (meta["above"] is not None and value <= meta["above"])
        )
        if bad:
            raise UsageError(
                f"--{field.name} {format_value(value)} is refused: it takes {limits(field)}"
            )


def add_flags(
    parser: argparse.ArgumentParser,
    title: str,
    cls: type,
    defaults: dict[str, Any],
    sources: Mapping[str, str] | None = None,
) -> None:
    """One flag a field of the dataclass `cls`; `defaults` holds what this run would use unasked.

    `sources` tells where a default comes from that is not the field's own. The flags' values stay
    text (None where absent): `collect` turns them into values, so that every program refuses a bad
    one in the same words.
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
    """The values that the user gave for the fields of `cls`, parsed."""
    given = {}
    for field in dataclasses.fields(cls):
        text = getattr(args, field.name, None)
        if text is not None:
            given[field.name] = parse_value(field, text)
    return given


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose refusals are one-line `UsageError`s; it never abbreviates."""

    def __init__(self, **kwargs: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def error(self, message: str) -> None:
        raise UsageError(message)

    def parse_strictly(self, argv: list[str]) -> argparse.Namespace:
        """Like `parse_args`, but an unknown flag is answered with the closest one that exists."""
        args, extra = self.parse_known_args(argv)
        if extra:
            flags = [name for action in self._actions for name in action.option_strings]
            seen = extra[0].split("=")[0]
            if not seen.startswith("-"):
                raise UsageError(
                    f"unexpected argument {seen!r}; every setting is a flag (see --help)"
                )
            raise unknown("flag", seen, flags)
        return args
