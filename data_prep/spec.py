"""What a prepared sample is: the settings that decide its content, and the hash that names them.

A `Spec` maps each modality, in the data set's order, to the description of its stored form. Its
JSON form is stored with the data, and its hash names the folder: two preparations with the same
hash hold the same content, and a reader that expects another hash refuses.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from common.files import digest, shown
from common.options import UsageError
from data_prep.modalities import Modality, load

VERSION = 4  # raised whenever the content that equal settings produce changes

Spec = dict[str, Modality]


@dataclass(frozen=True, slots=True)  # a list may have a million
class Candidate:
    """One sample of a raw tree before decoding.

    `sources` maps a modality to the files that hold it, relative to the root, in the order in which
    they are tried. `group` names what a group split keeps together (actor, video); `part` is the
    official part, if there is one ("train", "val" or "test"). `inline` holds what is not a file: a
    modality's text, a sample's row in a file of many, or the [start, end] of an event in seconds.
    """

    id: str
    label: int
    sources: Mapping[str, tuple[str, ...]]
    group: str = ""
    part: str = ""
    inline: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejection:
    """A line of rejected.csv."""

    id: str
    source: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Listed:
    """A row of the lists from which the release's split is drawn, usable or not.

    `key` is its class as the list writes it: its sorting order decides the draw. `header`: the
    release takes this row for a header and loses it.
    """

    id: str
    key: str | int
    header: bool = False


@dataclass
class Scan:
    """What a layout found under a root: candidates in id order, and what it could not use.

    `pool`: the rows of the raw data's lists, None where there are none. `listed`: the samples that
    an own manifest names, usable or not; 0 for downloads, which are never whole.
    """

    label_names: tuple[str, ...]
    candidates: list[Candidate]
    rejected: list[Rejection] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pool: list[Listed] | None = None
    listed: int = 0


def spec_json(dataset: str, spec: Spec) -> dict:
    """The spec as JSON-able values, with everything that decides the stored content."""
    modalities = {name: {"kind": m.kind, **m.stored_settings()} for name, m in spec.items()}
    return {"version": VERSION, "dataset": dataset, "order": list(spec), "modalities": modalities}


def spec_from_json(value: dict) -> Spec:
    """The inverse of `spec_json`; raises `UsageError` for what it cannot have written."""
    spec = {}
    try:
        for name in value["order"]:
            settings = dict(value["modalities"][name])
            spec[name] = load(settings.pop("kind"))(**settings)
            if settings.keys() != spec[name].stored_settings().keys():
                raise ValueError(f"settings of {name}")
            for each in fields(spec[name]):
                if each.name in settings and not fits(settings[each.name], each.type):
                    raise ValueError(f"{each.name} of {name}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the stored form of the samples is damaged ({shown(str(error))})"
        ) from None
    return spec


def fits(value: Any, kind: Any) -> bool:
    """Whether a field annotated with `kind` may hold the value; an int may stand for a float."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, kind) or isinstance(value, int) and isinstance(0.5, kind)


def spec_hash(dataset: str, spec: Spec) -> str:
    """Twelve hexadecimal digits that name the prepared folder."""
    return digest(spec_json(dataset, spec))
