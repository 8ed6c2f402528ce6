"""Prepares a data set: raw media become spectrograms and frames on disk.

    python -m data_prep --dataset cremad --dataset_root RAW --data_dir data --num_workers 8
    python -m data_prep --dataset cremad --verify
    python -m data_prep --dataset cremad --stats

Run again, it goes on where it stopped. Exit status 3: too many files were rejected; 1: --verify
found something wrong, one line each.
"""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from common.files import to_json
from common.options import Parser, UsageError, add_flags, check, collect, number
from common.program import cores
from common.program import run as run_program
from data_prep import datasets
from data_prep.prepare import prepare, prepared_folder
from data_prep.spec import spec_json
from data_prep.store import read_meta

# What a verb does not read is refused beside it, and not ignored.
USELESS = {
    "verify": ("dataset_root", "max_bad", "limit_s", "ray", "allow_missing_classes", "json"),
    "stats": ("dataset_root", "max_bad", "limit_s", "ray", "allow_missing_classes", "num_workers"),
    "": ("json",),
}


def make_parser(name: str, layout: Any) -> Parser:
    """The command line of one data set."""
    rows = "\n".join(f"  {key:11} {line}" for key, (line, _) in datasets.DATASETS.items())
    parser = Parser(prog="python -m data_prep", description=__doc__, epilog=f"data sets:\n{rows}")
    for flag, metavar, words in (
        ("dataset", "NAME", "data set (default demo), or the path of your own manifest.csv"),
        (
            "dataset_root",
            "DIR",
            "the raw data (demo: written if absent; of an own csv: its folder,"
            " or another one, below which absolute paths and links work)",
        ),
        ("data_dir", "DIR", "prepared data (default data)"),
        ("num_workers", "N", "processes (default: cores)"),
        ("max_bad", "X", "share of rejects and stand-ins allowed (default 0.05)"),
        ("limit_s", "S", "seconds that one file may take (default 60)"),
        ("ray", "ADDRESS", "a Ray cluster's HOST:PORT, or auto, in place of processes here"),
    ):
        parser.add_argument(f"--{flag}", metavar=metavar, help=words)
    for flag, words in (
        ("allow_missing_classes", "leave out classes without any file, as of a part of a download"),
        ("verify", "check what is prepared; nothing is written, and no raw data are needed"),
        ("stats", "tell what is prepared: classes, parts, durations, rejects, disk"),
        ("json", "--stats as JSON"),
    ):
        parser.add_argument(f"--{flag}", action="store_const", const=True, help=words)
    add_flags(parser, f"preparation of {datasets.public_name(name)}", layout.Settings, {})
    return parser


def refuse_useless(args: Namespace) -> str:
    """The verb, "" for a preparation; raises `UsageError` for a flag that has no effect on it."""
    verbs = [verb for verb in ("verify", "stats") if getattr(args, verb)]
    if len(verbs) > 1:
        raise UsageError("--verify and --stats are two commands: give one of them")
    verb = verbs[0] if verbs else ""
    for flag in USELESS[verb]:
        if getattr(args, flag) is not None:
            where = f"--{verb}" if verb else "a preparation, only to --stats"
            raise UsageError(f"--{flag} does not apply to {where}")
    return verb


def main(argv: list[str]) -> int:
    """The program."""
    first = Parser(add_help=False)
    first.add_argument("--dataset")
    known, _ = first.parse_known_args(argv)
    name = known.dataset or "demo"
    layout = datasets.load(name)
    args = make_parser(name, layout).parse_strictly(argv)
    given = collect(args, layout.Settings)
    found = datasets.detected(layout, args.dataset_root)
    datasets.tell_detected(args.dataset_root, found, given)
    settings = layout.Settings(**found | given)
    check(settings)
    verb, data_dir = refuse_useless(args), Path(args.data_dir or "data")
    workers = number("num_workers", args.num_workers or str(cores()), int, 1)
    public = datasets.public_name(name)
    if verb:
        folder = find_folder(data_dir, public, layout, settings, bool(given))
        if verb == "stats":
            return show_stats(folder, bool(args.json))
        return show_findings(folder, public, workers)
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


# What is prepared ---------------------------------------------------------------------------------


def find_folder(data_dir: Path, dataset: str, layout: Any, settings: Any, selected: bool) -> Path:
    """The prepared folder of these settings; where no flag selected it, the only one there is.

    Raises `UsageError` that names the prepared folders and how they differ from what was asked.
    """
    home, spec = data_dir / dataset, layout.spec(settings)
    folder = prepared_folder(data_dir, dataset, spec)
    if folder.is_dir():
        return folder
    others = sorted(path for path in home.glob("*") if path.is_dir())
    if not others:
        raise UsageError(
            f"no prepared {dataset} in {home}: --dataset_root <raw folder> prepares it,"
            " --data_dir <folder> says where it is"
        )
    if len(others) == 1 and not selected:
        print(f"note: of other settings than the defaults: {others[0]}", file=sys.stderr)
        return others[0]
    wanted = spec_json(dataset, spec)["modalities"]
    listed = "; ".join(f"{path.name} ({differences(path, wanted)})" for path in others)
    raise UsageError(
        f"no {dataset} of these settings ({folder.name}) in {home}. Prepared are: {listed}."
        " Give the flags with which one of them was prepared"
    )


def differences(folder: Path, wanted: dict[str, dict]) -> str:
    """How a prepared spec differs from the `wanted` modalities: "audio.feature=stft, ..."."""
    try:
        stored = read_meta(folder)["modalities"]
        found = [
            f"{m}.{key}={value}"
            for m, fields in stored.items()
            for key, value in fields.items()
            if wanted.get(m, {}).get(key) != value
        ]
    except (UsageError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return "without a readable meta.json"
    return ", ".join(found) or "of another version of this program"


def show_findings(folder: Path, dataset: str, workers: int) -> int:
    """Checks a folder: findings on standard error, the counts on standard output."""
    from data_prep.stats import counts_text, stats
    from data_prep.verify import verify

    findings = verify(folder, dataset, workers)
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    try:
        found = stats(folder)
    except UsageError:
        if not findings:
            raise
        return 1
    print(counts_text(found))
    print(f"{'damaged' if findings else 'sound'}: {folder}")
    return 1 if findings else 0


def show_stats(folder: Path, as_json: bool) -> int:
    """Prints a folder's figures."""
    from data_prep.stats import stats, text

    found = stats(folder)
    print(to_json(found) if as_json else text(found), end="" if as_json else "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
