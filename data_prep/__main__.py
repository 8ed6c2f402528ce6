"""Prepares a dataset: turns raw media into spectrograms and frames on disk.

    python -m data_prep --dataset cremad --dataset_root RAW --data_dir data --num_workers 8
    python -m data_prep --dataset cremad --verify
    python -m data_prep --dataset cremad --stats

An interrupted preparation resumes where it stopped. Exit status 3: too many files were rejected;
1: --verify found problems and printed one line for each.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import to_json
from common.options import Parser, UsageError, add_flags, check, collect, number
from common.program import cores
from common.program import run as run_program
from data_prep import datasets
from data_prep.prepare import prepare, prepared_folder
from data_prep.spec import Spec, spec_json
from data_prep.store import read_meta

# Flags that a command does not use are refused, not ignored.
USELESS = {
    "verify": ("dataset_root", "max_bad", "limit_s", "ray", "allow_missing_classes", "json"),
    "stats": ("dataset_root", "max_bad", "limit_s", "ray", "allow_missing_classes", "num_workers"),
    "": ("json",),
}
FLAGS = (
    ("dataset", "NAME", "dataset (default demo), or the path of your own manifest.csv"),
    (
        "dataset_root",
        "DIR",
        "folder of the raw data (demo: written if absent; your own csv: default its folder;"
        " if given, absolute paths must be inside it and links may point anywhere)",
    ),
    ("data_dir", "DIR", "prepared data (default data)"),
    ("num_workers", "N", "number of processes (default: one per core)"),
    ("max_bad", "X", "maximum share of rejects and placeholders (default 0.05)"),
    ("limit_s", "S", "time limit per file in seconds (default 60)"),
    ("ray", "ADDRESS", "HOST:PORT of a Ray cluster, or auto, instead of local processes"),
)
SWITCHES = (
    ("allow_missing_classes", "leave out classes without any file (for a partial download)"),
    ("verify", "check the prepared data; writes nothing and needs no raw data"),
    ("stats", "show statistics: classes, splits, durations, rejects, disk usage"),
    ("json", "print --stats as JSON"),
)


def make_parser(name: str, layout: Any) -> Parser:
    """The command line of one dataset."""
    rows = "\n".join(f"  {key:13} {line}" for key, (line, _) in datasets.DATASETS.items())
    parser = Parser(prog="python -m data_prep", description=__doc__, epilog=f"datasets:\n{rows}")
    for flag, metavar, words in FLAGS:
        parser.add_argument(f"--{flag}", metavar=metavar, help=words)
    for flag, words in SWITCHES:
        parser.add_argument(f"--{flag}", action="store_const", const=True, help=words)
    add_flags(parser, f"preparation of {datasets.public_name(name)}", layout.Settings, {})
    return parser


def main(argv: Sequence[str]) -> int:
    """The program."""
    first = Parser(add_help=False)
    first.add_argument("--dataset")
    name = first.parse_known_args(argv)[0].dataset or "demo"
    layout, public = datasets.load(name), datasets.public_name(name)
    args = make_parser(name, layout).parse_strictly(list(argv))
    given = collect(args, layout.Settings)
    found = datasets.detected(layout, args.dataset_root)
    datasets.tell_detected(args.dataset_root, found, given)
    settings = layout.Settings(**found | given)
    check(settings)
    if args.verify and args.stats:
        raise UsageError("--verify and --stats are separate commands: give only one of them")
    verb = "verify" if args.verify else "stats" if args.stats else ""
    for flag in USELESS[verb]:
        if getattr(args, flag) is not None:
            where = f"--{verb}" if verb else "a preparation, only to --stats"
            raise UsageError(f"--{flag} does not apply to {where}")
    data_dir = Path(args.data_dir or "data")
    workers = number("num_workers", args.num_workers or str(cores()), int, 1)
    if verb:
        folder = find_folder(data_dir, public, layout.spec(settings), bool(given))
        if verb == "verify":
            return show_findings(folder, public, workers)
        from data_prep.stats import stats, text

        figures = stats(folder)
        print(to_json(figures).rstrip("\n") if args.json else text(figures))
        return 0
    folder = prepare(
        name if datasets.is_manifest(name) else public,
        Path(args.dataset_root) if args.dataset_root else None,
        data_dir,
        settings,
        workers=workers,
        max_bad=number("max_bad", args.max_bad or "0.05", float, 0, 1),
        limit_s=number("limit_s", args.limit_s or "60", float, 0),
        ray=args.ray or "",
        allow_missing_classes=bool(args.allow_missing_classes),
    )
    print(f"ready: {folder}")
    return 0


# Prepared folders ---------------------------------------------------------------------------------


def find_folder(data_dir: Path, dataset: str, spec: Spec, selected: bool) -> Path:
    """The prepared folder of a spec; without selecting flags, the only folder that exists.

    Otherwise raises a `UsageError` that lists the prepared folders and their differing settings.
    """
    home, folder = data_dir / dataset, prepared_folder(data_dir, dataset, spec)
    if folder.is_dir():
        return folder
    others = sorted(path for path in home.glob("*") if path.is_dir())
    if not others:
        raise UsageError(
            f"no prepared {dataset} in {home}: prepare it with --dataset_root <raw folder>, or"
            " give its location with --data_dir <folder>"
        )
    if len(others) == 1 and not selected:
        print(f"note: using a folder with non-default settings: {others[0]}", file=sys.stderr)
        return others[0]
    wanted, listed = spec_json(dataset, spec), []
    for path in others:
        try:
            meta = read_meta(path)
            differing = [
                f"{m}.{key}={value}"
                for m, fields in meta["modalities"].items()
                for key, value in fields.items()
                if wanted["modalities"].get(m, {}).get(key) != value
            ]
            if meta.get("classes") != wanted.get("classes"):
                differing.append(f"{len(meta['label_names'])} classes of another list")
            why = ", ".join(differing) or "from another version of this program"
        except (UsageError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            why = "without a readable meta.json"
        listed.append(f"{path.name} ({why})")
    raise UsageError(
        f"no {dataset} with these settings ({folder.name}) in {home}. Existing folders:"
        f" {'; '.join(listed)}. Give the flags that one of them was prepared with"
    )


def show_findings(folder: Path, dataset: str, workers: int) -> int:
    """Verifies a folder: prints findings to stderr and sample counts to stdout."""
    from data_prep.stats import counts_text, stats
    from data_prep.verify import verify

    findings = verify(folder, dataset, workers)
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    try:
        print(counts_text(stats(folder)))
    except UsageError:
        if not findings:
            raise
        return 1
    print(f"{'damaged' if findings else 'sound'}: {folder}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(run_program(main))
