"""The settings that determine the content of a prepared sample, and their hash.

A `Spec` maps each modality, in the dataset's order, to a description of its stored form. Its JSON
form is stored with the data, and its hash names the folder: folders with the same hash have the
same content, and a reader that expects another hash raises an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from common.files import digest, shown
from common.options import UsageError
from data_prep.modalities import Modality, load

VERSION = 4  # increased whenever the same settings would produce different content
SEPARATOR = ";"  # between the paths of one sample, which may contain spaces

Spec = dict[str, Modality]


class OwnClasses(dict[str, Modality]):
    """A `Spec` with a user's list of classes, whose digest `classes` is part of its hash."""

    def __init__(self, spec: Spec, classes: str):
        super().__init__(spec)
        self.classes = classes


@dataclass(frozen=True, slots=True)  # a list may have a million
class Candidate:
    """One sample of a raw tree before decoding.

    `sources` maps a modality to its files, relative to the root, in the order in which they are
    tried. `group` is what a group split keeps together (actor, video); `part` is the official part,
    if any ("train", "val" or "test"). `inline` contains data that are not files: the text of a
    modality or the encoding of its file, the row of a sample in a shared file, or the [start, end]
    of an event in seconds.
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

    `key` is the class as written in the list: its sort order affects the draw. `header`: the
    release treats this row as a header and loses it.
    """

    id: str
    key: str | int
    header: bool = False


@dataclass
class Scan:
    """What a layout found under a root: candidates in id order, and what it could not use.

    `pool`: the rows of the raw data's lists, None if there are none. `listed`: the number of
    samples in a user's manifest, usable or not; 0 for downloads, which are never complete.
    """

    label_names: tuple[str, ...]
    candidates: list[Candidate]
    rejected: list[Rejection] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pool: list[Listed] | None = None
    listed: int = 0


def spec_json(dataset: str, spec: Spec) -> dict:
    """The spec as JSON-serializable values, with everything that affects the stored content."""
    modalities = {name: {"kind": m.kind, **m.stored_settings()} for name, m in spec.items()}
    value = {"version": VERSION, "dataset": dataset, "order": list(spec), "modalities": modalities}
    return value | ({"classes": spec.classes} if isinstance(spec, OwnClasses) else {})


def spec_from_json(value: dict) -> Spec:
    """The inverse of `spec_json`; raises `UsageError` for invalid content."""
    spec: Spec = {}
    try:
        for name in value["order"]:
            settings = dict(value["modalities"][name])
            spec[name] = load(settings.pop("kind"))(**settings)
            if settings.keys() != spec[name].stored_settings().keys():
                raise ValueError(f"settings of {name}")
            for each in fields(spec[name]):
                if each.name in settings and not fits(settings[each.name], each.type):
                    raise ValueError(f"{each.name} of {name}")
        if not isinstance(value.get("classes", ""), str):
            raise ValueError("classes")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the spec of the samples is damaged ({shown(str(error))})") from None
    return OwnClasses(spec, value["classes"]) if "classes" in value else spec


def fits(value: Any, kind: Any) -> bool:
    """Whether the value is valid for a field annotated with `kind`; ints are valid floats."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, kind) or isinstance(value, int) and isinstance(0.5, kind)


def spec_hash(dataset: str, spec: Spec) -> str:
    """The name of the prepared folder: twelve hexadecimal digits."""
    return digest(spec_json(dataset, spec))
