"""Writes a small raw tree in the layout of a real dataset, for tests and for inspection.

    python tests/write_tree.py --dataset cremad --out DIR --corrupt 1

The truth (labels, kinds of damage and the expected outcome of each) goes to DIR-truth.csv next to
the folder, where no loader looks.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.options import Parser, UsageError, add_flags, check, collect, option
from common.program import run as run_program
from fixtures.trees import TREES, write_tree

LAYOUTS = "; ".join(f"{name} {', '.join(forms)}" for name, (_, forms) in TREES.items() if forms[1:])


@dataclass(frozen=True)
class Settings:
    """The flags of this command."""

    dataset: str = option("cremad", "which tree to write", choices=tuple(TREES))
    out: str = option("", "the new folder; a non-empty folder is refused")
    seed: int = option(0, "seed of the content", low=0)
    per_class: int = option(10, "intact samples of each class", low=1)
    classes: int = option(0, "number of classes, from the first; 0: all", low=0)
    corrupt: int = option(0, "extra samples with each kind of damage", low=0)
    layout: str = option("", f"form of the tree (default: the first): {LAYOUTS}")


def main(argv: Sequence[str]) -> int:
    """The program."""
    parser = Parser(prog="python tests/write_tree.py", description=__doc__)
    add_flags(parser, "settings", Settings, {"out": "none: it must be given"})
    s = Settings(**collect(parser.parse_strictly(argv), Settings))
    check(s)
    if not s.out:
        raise UsageError("--out is missing: name the folder to write, for example --out raw/cremad")
    root = Path(s.out).absolute()
    truth = root.with_name(f"{root.name}-truth.csv")
    more = {"classes": s.classes or None, "seed": s.seed, "corrupt_each": s.corrupt}
    write_tree(s.dataset, root, s.per_class, truth_path=truth, layout=s.layout, **more)
    print(f"{root} is written; its truth is in {truth}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
