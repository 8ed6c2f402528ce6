"""What was found, in one sentence computed from the evaluated tables."""

from collections.abc import Sequence

from experiments.report.compare import verdict_counts
from experiments.report.evaluate import EvaluatedCell, EvaluatedTable

COMPARED = {"agrees": "in agreement", "higher": "higher", "lower": "lower"}


def leading_table(tables: Sequence[EvaluatedTable]) -> EvaluatedTable | None:
    """The first table that has a number; without any, the first one."""
    return next((t for t in tables if t.runs), tables[0] if tables else None)


def finding(tables: Sequence[EvaluatedTable]) -> str:
    """Who leads the leading table, and how far the numbers agree with the paper's."""
    table = leading_table(tables)
    if table is None or not table.runs:
        return "No finished run yet: there is nothing to report."
    return f"{leader(table)}; {agreement(tables)}."


def leader(evaluated: EvaluatedTable) -> str:
    """Which row is best in the first column that has a best one, beside the first other row."""
    name = evaluated.table.id
    for place, column in enumerate(evaluated.table.columns):
        numbers = {
            row.label: entries[place]
            for row, entries in evaluated.rows()
            if isinstance(entries[place], EvaluatedCell) and entries[place].summary
        }
        best = [label for label, cell in numbers.items() if cell.mark == "best"]
        if best:
            other = next(label for label in numbers if label not in best)
            few = f" (among the {len(numbers)} rows that have runs)"
            return (
                f"In {name}, {' and '.join(best)} {'is' if len(best) == 1 else 'are'} best in"
                f" “{column.name}” with {numbers[best[0]].text}, against {numbers[other].text} for"
                f" {other}{few if len(numbers) < len(evaluated.table.rows) else ''}"
            )
    return f"No row of {name} is better than another yet"


def agreement(tables: Sequence[EvaluatedTable]) -> str:
    """How many numbers agree with the paper's, of those that can be compared."""
    comparisons = [comparison for table in tables for comparison in table.comparisons]
    counts = verdict_counts(comparisons)
    if COMPARED.keys() & counts.keys():
        words = ", ".join(f"{counts.get(v, 0)} {phrase}" for v, phrase in COMPARED.items())
        return f"against the paper, cell by cell: {words}"
    if any(comparison.ours for comparison in comparisons):
        return "none of the numbers could be compared with the paper's"
    return "the paper reports no counterpart of these numbers"
