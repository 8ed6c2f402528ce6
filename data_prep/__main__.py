"""Prepares a data set: raw media become spectrograms and frames on disk.

    python -m data_prep --dataset cremad --dataset_root RAW --data_dir data --num_workers 8

Run again, it goes on where it stopped. Exit status 3: too many files were rejected.
"""

import sys
from pathlib import Path

from common.options import Parser, UsageError, add_flags, check, collect, match_name, number
from common.program import cores
from common.program import run as run_program
from data_prep import layouts
from data_prep.prepare import prepare


def main(argv: list[str]) -> int:
    """The program."""
    first = Parser(add_help=False)
    first.add_argument("--dataset")
    known, _ = first.parse_known_args(argv)
    name = match_name("data set", known.dataset or "demo", layouts.DATASETS)
    layout = layouts.load(name)
    rows = "\n".join(f"  {key:10} {line}" for key, (line, _) in layouts.DATASETS.items())
    parser = Parser(prog="python -m data_prep", description=__doc__, epilog=f"data sets:\n{rows}")
    parser.add_argument("--dataset", metavar="NAME", help="data set (default demo)")
    parser.add_argument(
        "--dataset_root", metavar="DIR", help="the raw data (demo: written if absent)"
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", default="data", help="prepared data (default data)"
    )
    parser.add_argument(
        "--num_workers", metavar="N", default=str(cores()), help="processes (default: cores)"
    )
    parser.add_argument(
        "--max_bad", metavar="X", default="0.05", help="share of rejects allowed (default 0.05)"
    )
    parser.add_argument(
        "--limit_s", metavar="S", default="60", help="seconds that one file may take (default 60)"
    )
    add_flags(parser, f"preparation of {name}", layout.Settings, {})
    args = parser.parse_strictly(argv)
    settings = layout.Settings(**collect(args, layout.Settings))
    check(settings)
    data_dir = Path(args.data_dir)
    if args.dataset_root:
        root = Path(args.dataset_root)
    elif name == "demo":
        from data_prep.generate.digits import ensure_digits

        root = ensure_digits(data_dir)
    else:
        raise UsageError(f"--dataset {name} needs --dataset_root <raw folder>. {layout.SOURCE}")
    folder = prepare(
        name,
        root,
        data_dir,
        settings,
        workers=number("num_workers", args.num_workers, int, 1),
        max_bad=number("max_bad", args.max_bad, float, 0, 1),
        limit_s=number("limit_s", args.limit_s, float, 0),
    )
    print(f"ready: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
