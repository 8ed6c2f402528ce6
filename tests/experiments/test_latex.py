"""Tables as LaTeX: a golden file, what is escaped, and that all of the registry are whole."""

import re

import pytest
from fake_runs import fake_run

from experiments.paper import registry
from experiments.paper.illustration import JOINT, JOINT_UNI, MIDAS
from experiments.paper.kinds import Cell, Column, Row, RunSet, Table
from experiments.report.latex import WIDEST, escape, latex, panels
from experiments.report.reader import Reader

TABLES = [artifact for artifact in registry.ARTIFACTS if isinstance(artifact, Table)]
SMV = RunSet("demo", "SMV")
SMALL = Table(
    "small",
    "50 % of A & B_1: {x} < y.",
    (Column("Acc", "CREMA-D", digits=1), Column("min", "R&D", percent=False, lower=True)),
    (
        Row("Joint #1", (Cell(JOINT, "test/acc"), Cell(JOINT, "time"))),
        Row("JointUni", (Cell(JOINT_UNI, "test/acc"), None), ours=True),
        Row("SMV", (Cell(SMV, "test/acc"), Cell(SMV, "time"))),
        Row("MIDAS", (Cell(MIDAS, "test/acc"), None)),
    ),
    ("See `--lam` ~ 10^2.",),
)
GOLDEN = r"""\begin{table}[tbp]
\centering
\caption{50 \% of A \& B\_1: \{x\} \textless{} y.}
\label{tab:small}
\small
\setlength{\tabcolsep}{3pt}
\smallskip
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{lcc}
\toprule
& \multicolumn{1}{c}{CREMA-D} & \multicolumn{1}{c}{R\&D} \\
\cmidrule(lr){2-2} \cmidrule(lr){3-3}
method & Acc & min \\
\midrule
Joint \#1 & \underline{91.0} $\pm$ 1.0 & 2.50 $\pm$ 0.00 \\
SMV & 50.0 (1) & \textbf{1.25} (1) \\
MIDAS & \textbf{95.0} $\pm$ 1.4 (2) & n/a \\
\midrule
JointUni & -- & n/a \\
\bottomrule
\end{tabular}}
\par\smallskip
{\footnotesize\raggedright
Mean $\pm$ sample standard deviation (n - 1) over 3 seeds.
$\pm$ of demo holds the spread between trainings alone (one split for all seeds).
Where fewer runs are there, their number stands in parentheses. A dash: no run yet.
Bold: best mean of the column; underlined: second best.
The paper has no rows like those below the rule.
See \`{}-{}-lam\`{} \textasciitilde{} 10\textasciicircum{}2.
\par}
\end{table}
"""


def small_results(results):
    for seed, acc in ((1, 0.90), (2, 0.91), (3, 0.92)):
        fake_run(results, JOINT, seed, acc=acc)
    for seed, acc in ((1, 0.94), (2, 0.96)):
        fake_run(results, MIDAS, seed, acc=acc)
    folder = fake_run(results, SMV, 1, acc=0.5)
    folder.write_json("result.json", folder.read_json("result.json") | {"time": 1.25})


def body(text):
    """Without the comments at the top."""
    return "".join(line for line in text.splitlines(True) if not line.startswith("%"))


def test_golden_table(tmp_path):
    small_results(tmp_path)
    text = latex(SMALL, Reader(tmp_path))
    assert body(text) == GOLDEN
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n% Each run's epoch is chosen")
    assert "spec feed, split 0123456789ab. Commit: abc." in text


def test_the_same_runs_give_the_same_file(tmp_path):
    small_results(tmp_path)
    assert latex(SMALL, Reader(tmp_path)) == latex(SMALL, Reader(tmp_path))


def test_an_environment_cannot_leave_its_comment(tmp_path):
    fake_run(tmp_path, JOINT, 1, device="a\n\\input{b}")
    fake_run(tmp_path, JOINT, 2)
    assert r"\input" not in body(latex(SMALL, Reader(tmp_path)))


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("a_b % & # $", r"a\_b \% \& \# \$"),
        ("{x}", r"\{x\}"),
        ("~ ^ \\", r"\textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("1 < 2 > 0 | x", r"1 \textless{} 2 \textgreater{} 0 \textbar{} x"),
        ("3 ± 1", r"3 $\pm$ 1"),
        ("--x ---", "-{}-x -{}-{}-"),
        ('say "no"', "say ''no''"),
    ],
)
def test_special_characters_are_escaped(text, escaped):
    assert escape(text) == escaped


def test_wide_tables_go_on_below_themselves_by_whole_blocks():
    def columns(*counts):
        return tuple(Column("x", f"block {k}") for k, n in enumerate(counts) for _ in range(n))

    assert [len(p) for p in panels(columns(3, 3, 3, 3))] == [6, 6]
    assert [len(p) for p in panels(columns(2, 3, 2))] == [5, 2]
    assert [len(p) for p in panels(columns(8, 1))] == [8, 1]
    assert panels(columns(3, 3, 3))[1] == [6, 7, 8]


def check_environments(text):
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened


def check_braces(text):
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)
def test_every_table_is_whole(tmp_path, table):
    for runs in table.runs()[::2]:
        folder = fake_run(tmp_path, runs, 1)
        keys = {cell.key: 0.5 for _, _, cell in table.cells()}
        folder.write_json("result.json", folder.read_json("result.json") | keys)
    text = body(latex(table, Reader(tmp_path)))
    assert text.isascii()
    check_environments(text)
    check_braces(text)
    wide = len(re.search(r"\\begin\{tabular\}\{l(c+)\}", text).group(1))
    assert wide <= WIDEST
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) <= wide for row in rows)
    for low, high in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", text):
        assert 2 <= int(low) <= int(high) <= wide + 1
    headings = [len(p) for p in panels(table.columns)]
    assert sum(headings) == len(table.columns)
    assert all(text.count(f"\n{escape(row.label)} & ") >= len(headings) for row in table.rows)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
