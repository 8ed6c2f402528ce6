#!/usr/bin/env python3
"""Tables, figures and the report from the runs in results/: no training, twice equal bytes.

    python make_tables.py                     everything that the runs allow, and report.html
    python make_tables.py table1 figure5      these alone, and report-table1-figure5.html
    python make_tables.py table1 --missing    the commands of the runs that are not there yet

Writes <out>/tables/<id>.md, .csv, .tex and, beside the paper's numbers, .paper.csv;
<out>/figures/<id>.png, .pdf and .csv. What cannot be made yet is listed with the commands that make
it; that is no error.
"""

import sys
from pathlib import Path

from common.files import atomic, digest, write_text
from common.options import Parser
from common.program import run as run_program
from experiments.paper.adapt import adapted, read_settings
from experiments.paper.kinds import Artifact, Figure, Table, told_settings
from experiments.paper.registry import ARTIFACTS, select
from experiments.report.latex import latex
from experiments.report.provenance import to_fill
from experiments.report.reader import Reader
from experiments.report.tables import comparison_csv, markdown, numbers_csv
from experiments.run.folder import find_runs

MOST_COMMANDS = 30  # that are printed without being asked for


def make_table(table: Table, reader: Reader, out: Path) -> str:
    """Writes a table, and prints it if it holds a number; returns the line that reports it."""
    text, path = markdown(table, reader), out / "tables" / f"{table.id}.md"
    write_text(path, text)
    write_text(path.with_suffix(".csv"), numbers_csv(table, reader))
    write_text(path.with_suffix(".tex"), latex(table, reader))
    if any(cell.paper for _, _, cell in table.cells()):
        write_text(path.with_suffix(".paper.csv"), comparison_csv(table, reader))
    if any(reader.finished(runs, table.seeds) for runs in table.runs()):
        print(text)
    return f"{table.id}: {path}"


def make_figure(figure: Figure, reader: Reader, out: Path) -> str:
    """Writes a figure; when all its runs are missing, removes an earlier one, which would mislead.

    A figure of which some runs are missing is drawn without them, and its caption says so.
    """
    from experiments.report.figures import draw, figure_csv, figure_points, not_drawn

    path = out / "figures" / f"{figure.id}.png"
    points = figure_points(figure, reader)
    if figure.panels and not points:
        removed = " (an earlier one was removed)" if path.exists() else ""
        for suffix in (".png", ".pdf", ".csv"):
            path.with_suffix(suffix).unlink(missing_ok=True)
        return f"{figure.id}: not drawn, its runs are missing{removed}"
    if points:
        write_text(path.with_suffix(".csv"), figure_csv(figure, points))
    for suffix, content in draw(figure, points, reader).items():
        with atomic(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(content)
    missing = not_drawn(figure, points)
    return f"{figure.id}: {path}" + (f" (without {missing})" if missing else "")


def make(artifact: Artifact, reader: Reader, out: Path) -> str:
    """Writes an artifact and returns the line that reports it."""
    if isinstance(artifact, Table):
        return make_table(artifact, reader, out)
    return make_figure(artifact, reader, out)


def make_report(
    artifacts: list[Artifact], names: list[str], given: dict[str, str], reader: Reader, out: Path
) -> str:
    """Writes the report of what was made; returns the line that tells of it."""
    from experiments.report.page import report

    drawn = {a.id: out / "figures" / f"{a.id}.png" for a in artifacts if isinstance(a, Figure)}
    pictures = {name: path.read_bytes() for name, path in drawn.items() if path.exists()}
    name = "-".join(["report", *names])
    if len(name) > 120:
        name = f"{name[:100]}~{digest(names)}"
    if given:
        name, _ = told_settings(name, given)
    path = out / f"{name}.html"
    write_text(path, report(artifacts, reader, pictures))
    return f"report: {path}"


def missing_text(artifacts: list[Artifact], names: list[str], reader: Reader) -> str:
    """How to make the runs that are missing: their commands, or where they are too many, how."""
    lines = [command for command, _ in to_fill(artifacts, reader)]
    count = len(reader.missing(artifacts))
    if not count:
        return ""
    if len(lines) > MOST_COMMANDS:
        which = " ".join(names) or "NAME"
        return (
            f"missing: {count} runs (python -m experiments run {which} makes them;"
            " --missing prints their commands)"
        )
    return "\n".join([f"missing: {count} runs", *lines])


def main(argv: list[str]) -> int:
    """The program; missing cells are no failure, no run at all is one."""
    parser = Parser(prog="make_tables.py", description=__doc__)
    names = ", ".join(artifact.id for artifact in ARTIFACTS)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{names}, or a group (default all)"
    )
    parser.add_argument("--results_dir", default="results", metavar="DIR", help="root of all runs")
    parser.add_argument(
        "--out", default="results", metavar="DIR", help="where tables/ and figures/ go"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="of runs with these settings"
    )
    parser.add_argument(
        "--missing", action="store_true", help="only print the missing runs' commands"
    )
    args = parser.parse_strictly(argv)

    given = read_settings(args.set)
    artifacts = adapted(select(args.names), given)
    reader, out = Reader(Path(args.results_dir)), Path(args.out)
    if args.missing:
        print("".join(f"{command}\n" for command, _ in to_fill(artifacts, reader)), end="")
        return 0
    if not find_runs(reader.results):
        print(
            f"no run in {reader.results}: `make demo` trains the demo set's and makes its tables",
            file=sys.stderr,
        )
        return 1
    made = [make(artifact, reader, out) for artifact in artifacts]
    made.append(make_report(artifacts, args.names, given, reader, out))
    print("\n".join([*made, *filter(None, [missing_text(artifacts, args.names, reader)])]))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
