"""Every table and figure, found by name; those that name the same runs share them."""

from collections.abc import Iterable, Iterator

from common.options import match_name
from experiments.paper import extras, figures, illustration, tables
from experiments.paper.kinds import Artifact, RunSet

# Several entries under one name.
GROUPS: dict[str, tuple[Artifact, ...]] = {
    "paper": (*tables.ARTIFACTS, *figures.ARTIFACTS),
    "extra": extras.ARTIFACTS,
    "demo": (figures.FIGURE_2, *illustration.ARTIFACTS),
    "demo-short": (figures.FIGURE_2, *illustration.SHORT),
}
ARTIFACTS: list[Artifact] = [*GROUPS["paper"], *GROUPS["extra"], *illustration.ARTIFACTS]


def find(name: str) -> list[Artifact]:
    """The artifacts of that name: one, or a group; raises `UsageError` for an unknown name."""
    names = {artifact.id: (artifact,) for artifact in ARTIFACTS} | GROUPS
    return list(names[match_name("table or figure", name, names)])


def select(names: Iterable[str]) -> list[Artifact]:
    """The artifacts of several names, in the registry's order; all of them for no name."""
    chosen = {artifact.id for name in names for artifact in find(name)}
    return [a for a in ARTIFACTS if a.id in chosen or not chosen]


def needed(
    artifacts: Iterable[Artifact], seeds: Iterable[int] | None = None
) -> Iterator[tuple[RunSet, int]]:
    """Each (runs, seed) that the artifacts need, once; `seeds` replaces their own."""
    given = None if seeds is None else tuple(seeds)
    pairs = (
        (r, s) for a in artifacts for r in a.runs() for s in (a.seeds if given is None else given)
    )
    return iter(dict.fromkeys(pairs))
