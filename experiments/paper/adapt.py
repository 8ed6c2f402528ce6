"""The same tables and figures of runs with other settings: `--set max_epochs=3 size=32`.

A smaller protocol for all runs at once: to try the whole on a small machine, or to see what a
shorter training does. Such runs have folders of their own, and so have the tables and figures made
of them: their names and captions give the settings.

With `--set recipe=official`, misaligned accuracy and confidence are read as the authors' release
measures them, and captions and notes say so. Runs of data sets that the release lacks stay as they
are, and notes say that as well.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache

from common.options import UsageError
from experiments.paper.kinds import Artifact, RunSet, with_settings
from experiments.run.recipe import SHARED

RELEASE_PAIRS = (
    "Misaligned pairs are made and counted as in the authors' release: by a permutation within each"
    " batch of 64 that looks at no label, in one direction; a pair of one label stays, and is a"
    " miss."
)
# what a key holds -> what stands for it under the release's evaluation
RELEASE_KEYS = {"/acc_mis": "/acc_mis_release", "/conf_raw/": "/conf_release/"}


class VariesItself(UsageError):
    """An artifact's runs differ in a setting that is to be the same for all."""


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

    The official recipe is a setting of the data sets alone that the release has. An artifact that
    varies a setting itself is left out, with a note on stderr. Raises `UsageError` where none is
    left, for a setting that no run has, or a value that `train.py` would refuse.
    """
    if not given:
        return list(artifacts)
    # Loads the methods, and with them torch.
    from experiments.run.resolve import resolve, setting_names

    used: set[str] = set()
    official = given.get("recipe") == "official"

    @cache
    def change(runs: RunSet) -> RunSet:
        known = setting_names(runs.dataset, runs.method)
        if official and runs.dataset not in SHARED:
            known -= {"recipe"}
        own = {key: value for key, value in given.items() if key in known}
        varied = sorted(own.keys() & dict(runs.overrides).keys())
        if varied:
            raise VariesItself(f"--set {varied[0]}: the entry varies it itself ({runs.name})")
        used.update(own)
        flags = [word for key, value in own.items() for word in (f"--{key}", value)]
        run, _ = resolve([*runs.arguments(1), *flags], "")
        return RunSet(runs.dataset, runs.method, tuple(sorted(run.differing.items())))

    changed = []
    for artifact in artifacts:
        try:
            other = artifact.mapped(lambda runs, key: (change(runs), key))
        except VariesItself as error:
            if len(artifacts) == 1:
                raise
            print(f"note: {artifact.id} is left out: {error}", file=sys.stderr)
            continue
        other = with_settings(other, given)
        changed.append(measured_by_release(other) if official else other)
    unused = sorted(given.keys() - used)
    if unused:
        why = f"; the authors' release has {', '.join(SHARED)}" if unused[0] == "recipe" else ""
        raise UsageError(
            f"--set {unused[0]}: no run of these tables and figures has this setting{why}"
        )
    return changed


def measured_by_release(artifact: Artifact) -> Artifact:
    """The artifact with the release's evaluation where its runs have the release's recipe."""
    renamed = set()

    def other(runs: RunSet, key: str) -> tuple[RunSet, str]:
        own = key
        if runs.dataset in SHARED:
            for ours, release in RELEASE_KEYS.items():
                own = own.replace(ours, release)
            renamed.update({own} - {key})
        return runs, own

    changed = artifact.mapped(other)
    lacks = sorted({runs.dataset for runs in artifact.runs()} - SHARED.keys())
    stay = f"The authors' release has no {', '.join(lacks)}: there the recipe is the paper's."
    return changed.noted(*[RELEASE_PAIRS] * bool(renamed), *[stay] * bool(lacks))
