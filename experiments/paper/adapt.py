"""Tables and figures from runs with other settings: `--set max_epochs=3 size=32`.

Such runs are stored in separate folders, and their tables and figures get separate names. With
`--set recipe=official`, misaligned accuracy and confidence are also measured as in the authors'
release. Runs on datasets that the release does not have are unchanged, with a note.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

from common.options import UsageError, format_value
from experiments.paper.kinds import Artifact, Cell, RunSet, Table, Value, suffix_of
from experiments.run.recipe import SHARED

RELEASE_PAIRS = (
    "Misaligned pairs are made and counted as in the authors' release: by a permutation within each"
    " batch of 64 that ignores labels, in one direction; pairs of the same class are kept and count"
    " as misses."
)


class VariesItself(UsageError):
    """The setting to be set is one that the artifact varies between its runs."""


def read_settings(words: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE words as a dictionary; raises `UsageError` if malformed or repeated."""
    given: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        key = key.removeprefix("--")
        if not sign or not key or key in given:
            raise UsageError(f"--set takes KEY=VALUE, each key once, not {word!r}")
        given[key] = value
    return given


def resolved(source: str, method: str, settings: Mapping[str, Any]) -> RunSet:
    """The runs with these settings, as `train.py` names them; raises what it would raise.

    `source` is a dataset's name or the path of a manifest.
    """
    from experiments.run.resolve import resolve  # imports the methods, and thus torch

    words = ["--dataset", source, "--method", method, "--seed", "1"]
    for name, value in settings.items():
        words += [f"--{name}", value if isinstance(value, str) else format_value(value)]
    run, _ = resolve(words, "")
    assert run is not None
    return RunSet(run.dataset, method, tuple(sorted(run.differing.items())), run.manifest)


def adapted(artifacts: Sequence[Artifact], given: Mapping[str, str]) -> list[Artifact]:
    """The artifacts with the settings `given` in every run that has them.

    Artifacts that vary a given setting themselves are skipped, with a note on stderr. Raises
    `UsageError` if none is left, if no run has a setting, or if `train.py` would reject a value.
    """
    if not given:
        return list(artifacts)
    from experiments.run.resolve import setting_names  # imports the methods, and thus torch

    used: set[str] = set()
    official = given.get("recipe") == "official"

    @cache
    def with_given(runs: RunSet) -> RunSet:
        known = setting_names(runs.dataset, runs.method)
        if official and runs.dataset not in SHARED:
            known -= {"recipe"}
        own = {key: value for key, value in given.items() if key in known}
        for key in sorted(own.keys() & dict(runs.overrides).keys()):
            raise VariesItself(f"--set {key}: this table or figure varies it ({runs.name})")
        used.update(own)
        return resolved(runs.dataset, runs.method, dict(runs.overrides) | own)

    changed = []
    for artifact in artifacts:
        try:
            other = rebuilt(artifact, lambda p: with_given(p) if isinstance(p, RunSet) else p)
        except VariesItself as error:
            if len(artifacts) == 1:
                raise
            print(f"note: {artifact.id} is skipped: {error}", file=sys.stderr)
            continue
        other = with_settings(other, given)
        changed.append(measured_by_release(other) if official else other)
    for key in sorted(given.keys() - used):
        why = f"; the authors' release has {', '.join(SHARED)}" if key == "recipe" else ""
        raise UsageError(f"--set {key}: no run of these tables and figures has this setting{why}")
    return changed


def rebuilt(part: Any, change: Callable[[Any], Any]) -> Any:
    """An artifact, or a part of it, with `change` applied to all its parts, innermost first."""
    if isinstance(part, tuple):
        return tuple(rebuilt(inner, change) for inner in part)
    if is_dataclass(part) and not isinstance(part, type):
        inner = {f.name: rebuilt(getattr(part, f.name), change) for f in fields(part)}
        return change(replace(part, **inner))
    return part


def with_settings(artifact: Artifact, given: Mapping[str, str]) -> Artifact:
    """The table or figure with these settings in its name and caption."""
    changed = tuple(sorted(given.items()))
    caption = f"{artifact.caption} All runs with {', '.join(f'{k}={v}' for k, v in changed)}."
    return replace(artifact, id=artifact.id + suffix_of(given), caption=caption, changed=changed)


def measured_by_release(artifact: Artifact) -> Artifact:
    """The artifact with the release's evaluation for datasets that the release has."""

    def renamed(key: str) -> str:
        return key.replace("/acc_mis", "/acc_mis_release").replace("/conf_raw/", "/conf_release/")

    def release(part: Any) -> Any:
        if not isinstance(part, Cell | Value) or part.runs.dataset not in SHARED:
            return part
        if isinstance(part, Cell):
            return replace(part, key=renamed(part.key))
        return replace(part, keys=tuple(map(renamed, part.keys)))

    changed = rebuilt(artifact, release)
    lacks = sorted({runs.dataset for runs in artifact.runs()} - SHARED.keys())
    stay = f"The authors' release has no {', '.join(lacks)}; these use the paper's recipe."
    notes = (RELEASE_PAIRS,) * (changed != artifact) + (stay,) * bool(lacks)
    if isinstance(changed, Table):
        return replace(changed, notes=changed.notes + notes)
    return replace(changed, caption=" ".join([changed.caption, *notes]))
