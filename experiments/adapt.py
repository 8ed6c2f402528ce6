"""The same tables and figures of runs with other settings: `--set max_epochs=3 size=32`.

A smaller protocol for all runs at once: to try the whole on a small machine, or to see what a
shorter training does. Such runs have folders of their own, and each table's footer tells it.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from common.options import UsageError
from experiments.artifacts import Artifact, Runs


def read_settings(words: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE words as a dictionary; raises `UsageError` for another form or a key twice."""
    given: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        key = key.removeprefix("--")
        if not sign or not key or key in given:
            raise UsageError(f"--set takes KEY=VALUE, each key once, not {word!r}")
        given[key] = value
    return given


def adapted(artifacts: Sequence[Artifact], given: Mapping[str, str]) -> list[Artifact]:
    """The artifacts with the settings `given` in every run that has them.

    Raises `UsageError` for a setting that no run has, that an artifact varies itself, or a value
    that `train.py` would refuse.
    """
    if not given:
        return list(artifacts)
    from experiments.resolve import resolve, setting_names  # loads the methods, and with them torch

    used: set[str] = set()

    @cache
    def change(runs: Runs) -> Runs:
        known = setting_names(runs.dataset, runs.method)
        own = {key: value for key, value in given.items() if key in known}
        taken = sorted(own.keys() & dict(runs.overrides).keys())
        if taken:
            raise UsageError(f"--set {taken[0]}: the entry varies it itself ({runs.name})")
        used.update(own)
        flags = [word for key, value in own.items() for word in (f"--{key}", value)]
        run, _ = resolve([*runs.arguments(1), *flags], "")
        return Runs(runs.dataset, runs.method, tuple(sorted(run.differing.items())))

    changed = [artifact.mapped(change) for artifact in artifacts]
    unused = sorted(given.keys() - used)
    if unused:
        raise UsageError(f"--set {unused[0]}: no run of these tables and figures has this setting")
    return changed
