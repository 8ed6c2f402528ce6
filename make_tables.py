#!/usr/bin/env python3
"""Makes tables, figures and the report from the runs in results/, reproducibly to the byte.

    python make_tables.py                     everything, and report.html
    python make_tables.py table1 figure5      only these, and report-table1-figure5.html
    python make_tables.py table1 --missing    the commands of the missing runs
    python make_tables.py results/runs/pets-1a2b3c4d    own runs: all that are finished there

Writes <out>/tables/<id>.md, .csv, .tex and the comparison with the paper, .paper.csv;
<out>/figures/<id>.png, .pdf, .csv and, with the caption, .md and .tex. Missing runs are listed with
their commands and are not an error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from common.files import digest
from common.options import Parser, UsageError
from common.program import run as run_program
from experiments.paper.adapt import adapted, read_settings
from experiments.paper.kinds import Figure, Table, suffix_of
from experiments.paper.registry import ARTIFACTS, select
from experiments.report.evaluate import evaluate
from experiments.report.figures import evaluate_figure
from experiments.report.own import TUNED, own_artifacts, results_of, tuned_artifacts
from experiments.report.reader import Reader
from experiments.report.write import write_figure, write_report, write_table
from experiments.run.folder import find_runs

MOST_COMMANDS = 30  # printed without --missing


def main(argv: Sequence[str]) -> int:
    """Returns 0 even if some runs are missing, 1 if there is no run at all."""
    parser = Parser(prog="make_tables.py", description=__doc__)
    known = ", ".join(artifact.id for artifact in ARTIFACTS)
    add = parser.add_argument
    words = f"{known}, {TUNED}, a group, or a folder of own runs (default all)"
    add("names", nargs="*", metavar="NAME", help=words)
    add("--results_dir", default="results", metavar="DIR", help="folder of all runs")
    add("--out", default="results", metavar="DIR", help="where tables/ and figures/ go")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="use runs with these settings")
    add("--missing", action="store_true", help="only print the commands of missing runs")
    args = parser.parse_strictly(list(argv))
    given = read_settings(args.set)
    folders = [Path(name) for name in args.names if Path(name).is_dir()]
    for name in args.names:
        if Path(name).name != name and not Path(name).is_dir():
            raise UsageError(f"there is no folder {name}")
    if TUNED in args.names and (len(args.names) > 1 or given):
        raise UsageError(f"{TUNED} goes without other names and without --set")
    if folders and (len(folders) < len(args.names) or given):
        raise UsageError("folders of own runs go without names of tables and without --set")
    results = results_of(folders) if folders else Path(args.results_dir)
    reader, out = Reader(results), Path(args.out)
    if folders:
        artifacts = own_artifacts(folders, reader)
    elif args.names == [TUNED]:
        artifacts = tuned_artifacts(reader)
    else:
        artifacts = adapted(select(args.names), given)
    commands = [command for command, _ in reader.to_fill(artifacts)]
    if args.missing:
        for command in commands:
            print(command)
        return 0
    if not find_runs(reader.results):
        hint = "`make demo` trains the demo runs and makes their tables"
        if args.names == [TUNED]:
            hint = f"`python -m experiments run {TUNED}` trains the best settings"
        print(f"no run in {reader.results}: {hint}", file=sys.stderr)
        return 1
    tables = [evaluate(a, reader) for a in artifacts if isinstance(a, Table)]
    figures = [evaluate_figure(a, reader) for a in artifacts if isinstance(a, Figure)]
    lines = {table.table.id: write_table(table, out) for table in tables}
    lines |= {figure.figure.id: write_figure(figure, out) for figure in figures}
    name = "-".join(["report", *(Path(name).name for name in args.names)])
    if len(name) > 120:
        name = f"{name[:100]}~{digest(args.names)}"
    for artifact in artifacts:
        print(lines[artifact.id])
    print(write_report(tables, figures, name + suffix_of(given), reader, out))
    missing = f"missing: {len(reader.missing(artifacts))} runs"
    if len(commands) > MOST_COMMANDS:
        how = f"python -m experiments run {' '.join(args.names) or 'NAME'} makes them"
        print(f"{missing} ({how}; --missing prints their commands)")
    elif commands:
        print("\n".join([missing, *commands]))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
