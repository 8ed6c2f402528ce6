"""The registry of all tables and figures by name; they share runs."""

from collections.abc import Iterable, Iterator

from common.options import match_name
from experiments.paper import extras, figures, illustration, real, tables
from experiments.paper.kinds import Artifact, RunSet

# Names for several artifacts.
GROUPS: dict[str, tuple[Artifact, ...]] = {
    "paper": (*tables.ARTIFACTS, *figures.ARTIFACTS),
    "extra": extras.ARTIFACTS,
    "demo": (figures.FIGURE_2, *illustration.ARTIFACTS),
    "demo-short": (figures.FIGURE_2, *illustration.SHORT),
    "avmnist": real.ARTIFACTS,
    "methods-all": (illustration.DEMO_METHODS, *real.ARTIFACTS),
}
ARTIFACTS: list[Artifact] = [
    *GROUPS["paper"], *GROUPS["extra"], *illustration.ARTIFACTS, *real.ARTIFACTS,
]  # fmt: skip


def select(names: Iterable[str]) -> list[Artifact]:
    """The artifacts with the given names or group names, in registry order; all if none is given.

    Raises `UsageError` if a name is unknown.
    """
    known = {artifact.id: (artifact,) for artifact in ARTIFACTS} | GROUPS
    chosen = {a.id for n in names for a in known[match_name("table or figure", n, known)]}
    return [a for a in ARTIFACTS if a.id in chosen or not chosen]


def needed(
    artifacts: Iterable[Artifact], seeds: Iterable[int] | None = None
) -> Iterator[tuple[RunSet, int]]:
    """The (runs, seed) pairs that the artifacts need, without duplicates; `seeds` overrides."""
    given = None if seeds is None else tuple(seeds)
    pairs = (
        (r, s) for a in artifacts for r in a.runs() for s in (a.seeds if given is None else given)
    )
    return iter(dict.fromkeys(pairs))
