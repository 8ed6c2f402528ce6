#!/usr/bin/env python3
"""Tables, figures and the report from the runs in results/: no training, twice equal bytes.

    python make_tables.py                     everything that the runs allow, and report.html
    python make_tables.py table1 figure5      these alone, and report-table1-figure5.html
    python make_tables.py table1 --missing    the commands of the runs that are not there yet

Writes <out>/tables/<id>.md, .csv, .tex and, beside the paper's numbers, .paper.csv;
<out>/figures/<id>.png, .pdf, .csv and, with its caption, .md and .tex. What cannot be made yet is
listed with the commands that make it; that is no error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from common.files import digest
from common.options import Parser
from common.program import run as run_program
from experiments.paper.adapt import adapted, read_settings
from experiments.paper.kinds import Figure, Table, suffix_of
from experiments.paper.registry import ARTIFACTS, select
from experiments.report.evaluate import evaluate
from experiments.report.figures import evaluate_figure
from experiments.report.reader import Reader
from experiments.report.write import write_figure, write_report, write_table
from experiments.run.folder import find_runs

MOST_COMMANDS = 30  # that are printed without being asked for


def missing_text(commands: list[str], count: int, names: list[str]) -> str:
    """How to make the runs that are missing: their commands, or where they are too many, how."""
    if len(commands) > MOST_COMMANDS:
        return (
            f"missing: {count} runs (python -m experiments run {' '.join(names) or 'NAME'} makes"
            " them; --missing prints their commands)"
        )
    return "\n".join([f"missing: {count} runs", *commands])


def main(argv: Sequence[str]) -> int:
    """The program; missing cells are no failure, no run at all is one."""
    parser = Parser(prog="make_tables.py", description=__doc__)
    known = ", ".join(artifact.id for artifact in ARTIFACTS)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"{known}, or a group (default all)")
    add("--results_dir", default="results", metavar="DIR", help="root of all runs")
    add("--out", default="results", metavar="DIR", help="where tables/ and figures/ go")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of runs with these settings")
    add("--missing", action="store_true", help="only print the missing runs' commands")
    args = parser.parse_strictly(list(argv))
    given = read_settings(args.set)
    artifacts = adapted(select(args.names), given)
    reader, out = Reader(Path(args.results_dir)), Path(args.out)
    commands = [command for command, _ in reader.to_fill(artifacts)]
    if args.missing:
        print("".join(f"{command}\n" for command in commands), end="")
        return 0
    if not find_runs(reader.results):
        print(
            f"no run in {reader.results}: `make demo` trains the demo set's and makes its tables",
            file=sys.stderr,
        )
        return 1
    tables = [evaluate(a, reader) for a in artifacts if isinstance(a, Table)]
    figures = [evaluate_figure(a, reader) for a in artifacts if isinstance(a, Figure)]
    lines = {table.table.id: write_table(table, out) for table in tables}
    lines |= {figure.figure.id: write_figure(figure, out) for figure in figures}
    name = "-".join(["report", *args.names])
    if len(name) > 120:
        name = f"{name[:100]}~{digest(args.names)}"
    made = [lines[artifact.id] for artifact in artifacts]
    made.append(write_report(tables, figures, name + suffix_of(given), reader, out))
    count = len(reader.missing(artifacts))
    print("\n".join([*made, *([missing_text(commands, count, args.names)] if commands else [])]))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
