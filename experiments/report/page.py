"""The report: all tables, figures and the runs behind them in one HTML file that loads nothing.

Every number leads to the commands, folders and environments of its runs, and what is missing to
the commands that make it. Equal runs give equal bytes. The page is readable without its script,
which only sorts the lists of cells.
"""

import base64
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from experiments.launch.estimate import Estimator
from experiments.paper.contradictions import CONTRADICTIONS
from experiments.paper.kinds import Artifact, Figure, RunSet, Table
from experiments.paper.registry import needed
from experiments.report.compare import FOOTNOTE, Comparison, compare
from experiments.report.html import Html, listing, markup, page, prose, scroller, tag
from experiments.report.provenance import PLUS_MINUS, SELECTION, provenance
from experiments.report.reader import Reader
from experiments.report.runs_html import STATES, Times, cost, launch_command, to_fill
from experiments.report.tables_html import table_body, verdict_counts

TITLE = "MIDAS: tables and figures, and the runs behind them"
WHAT = (
    "A reproduction of MIDAS (misalignment-based data augmentation for imbalanced multimodal"
    " learning, NeurIPS 2025) and of the methods it is compared with. This page is made from"
    " training runs alone: each number leads to the commands, folders and environments of its runs."
)
DEMO = (
    "Numbers of the demo set illustrate, and are no evidence for or against a method: the set is"
    " ours, and its constants were chosen so that the effect shows within minutes."
)
PAPER_SPREAD = (
    "The paper's is over three runs; cells without it show the paper's number alone, and cannot be"
    " tested."
)
CONTRADICTS = (
    "Where the paper's text and tables, and the authors' released code, contradict one another or"
    " themselves. No verdict above should be read without them."
)


def report(artifacts: Sequence[Artifact], reader: Reader, pictures: Mapping[str, bytes]) -> str:
    """The page; `pictures` has the PNG of each figure that could be drawn, by the figure's id."""
    times = cache(Estimator(reader).seconds)
    tables = [a for a in artifacts if isinstance(a, Table)]
    figures = [a for a in artifacts if isinstance(a, Figure)]
    compared = {table.id: compare(table, reader) for table in tables}
    parts = [
        tag("h1", TITLE),
        overview(artifacts, compared, reader, times),
        *([tag("h2", "Tables")] if tables else []),
        *(section(t, reader, times, table_body(t, compared[t.id], reader, times)) for t in tables),
        *([tag("h2", "Figures")] if figures else []),
        *(section(f, reader, times, [figure_body(f, pictures.get(f.id))]) for f in figures),
        contradictions({artifact.id for artifact in artifacts}),
        missing(artifacts, reader, times),
    ]
    body = tag("main", *(markup(part, "\n") for part in parts))
    return page(TITLE, navigation(tables, figures, reader), body)


def there(artifact: Artifact, reader: Reader) -> tuple[int, int]:
    """How many of the artifact's runs are there, and how many it needs."""
    wanted = list(needed([artifact]))
    return len(wanted) - len(reader.missing([artifact])), len(wanted)


def link(name: str, text: str) -> Html:
    """A link within the page."""
    return tag("a", text, href=f"#{name}")


def navigation(tables: list[Table], figures: list[Figure], reader: Reader) -> Html:
    """Links to all sections, with the number of runs that each one has."""

    def group(title: str, artifacts: Sequence[Artifact]) -> list[Html]:
        items = []
        for artifact in artifacts:
            has, wants = there(artifact, reader)
            count = tag("small", f" {has}/{wants}") if wants else ""
            items.append(markup(link(artifact.id, artifact.id), count))
        return [tag("p", title), listing(items)] if items else []

    general = [
        link("overview", "Overview"),
        link("contradictions", "Contradictions"),
        link("missing", "What is missing"),
    ]
    return tag(
        "nav",
        listing(general),
        *group("Tables", tables),
        *group("Figures", figures),
        aria_label="Contents",
    )


def overview(
    artifacts: Sequence[Artifact],
    compared: Mapping[str, list[Comparison]],
    reader: Reader,
    times: Times,
) -> Html:
    """What the page is, how much of it is there, and how to read its numbers."""
    wanted = list(needed(artifacts))
    states = Counter(reader.run(runs, seed)[1] for runs, seed in wanted)
    rest = [f"{states[state]} {words}" for state, words in STATES.items() if states[state]]
    counted = f"{states['done']} of {len(wanted)} are there" + (
        f"; {', '.join(rest)}. " if rest else ". "
    )
    every = [comparison for comparisons in compared.values() for comparison in comparisons]
    verdicts = markup(f"Of {len(every)} cells: ", verdict_counts(every), ".") if every else "None."
    facts = {
        "What it is": WHAT,
        "Runs": markup(counted, link("missing", what_it_takes(artifacts, reader, times))),
        "Verdicts": verdicts,
        "Selection": SELECTION,
        "±": f"{PLUS_MINUS} {PAPER_SPREAD}",
        "How verdicts are made": prose(FOOTNOTE),
        "The demo set": DEMO,
    }
    pairs = [part for name, text in facts.items() for part in (tag("dt", name), tag("dd", text))]
    return tag("section", tag("h2", "Overview"), tag("dl", *pairs, class_="facts"), id="overview")


def what_it_takes(artifacts: Sequence[Artifact], reader: Reader, times: Times) -> str:
    """The missing runs' number and time, each counted once."""
    wanted = reader.missing(artifacts)
    if not wanted:
        return "Nothing is missing"
    return f"Missing: {cost(wanted, times)}"


def section(artifact: Artifact, reader: Reader, times: Times, body: Iterable[Html]) -> Html:
    """An artifact under its name: what it shows, its runs, and what fills it."""
    has, wants = there(artifact, reader)
    used = [run for runs in artifact.runs() for run in reader.finished(runs, artifact.seeds)]
    sources = " ".join([f"{has} of {wants} runs.", *provenance(used)]) if wants else "No runs."
    return tag(
        "section",
        tag("h3", artifact.id),
        *body,
        tag("p", sources, class_="small"),
        *to_fill(artifact, reader, times),
        id=artifact.id,
    )


def figure_body(figure: Figure, picture: bytes | None) -> Html:
    """The picture with its caption, or that it is not drawn."""
    caption = prose(figure.caption)
    if picture is None:
        why = "Not drawn: runs are missing." if figure.runs() else "Not drawn."
        return markup(tag("p", caption), tag("p", why, class_="missing"))
    wide, high = struct.unpack(">II", picture[16:24])  # of the header that comes first in a PNG
    data = base64.b64encode(picture).decode()
    image = tag(
        "img",
        src=f"data:image/png;base64,{data}",
        alt=f"{figure.id}, drawn; the caption tells what it shows",
        width=str(wide),
        height=str(high),
    )
    return tag("figure", image, tag("figcaption", caption))


def contradictions(present: set[str]) -> Html:
    """The paper's contradictions, with links to the tables that they touch."""
    items = []
    for one in CONTRADICTIONS:
        links = [link(name, name) for name in one.about if name in present]
        touched = [part if k == 0 else markup(", ", part) for k, part in enumerate(links)]
        tail = tag("p", "Touches ", *touched, ".", class_="small") if touched else ""
        items.append(tag("li", tag("strong", f"{one.title}."), " ", one.text, tail))
    head = tag("h2", "Contradictions of the paper")
    listed = tag("ol", *items, class_="paper")
    return tag("section", head, tag("p", CONTRADICTS), listed, id="contradictions")


def missing(artifacts: Sequence[Artifact], reader: Reader, times: Times) -> Html:
    """What is missing, artifact by artifact, and what makes it."""
    rows = []
    for artifact in artifacts:
        wanted: list[tuple[RunSet, int]] = reader.missing([artifact])
        if wanted:
            rows.append(
                tag(
                    "tr",
                    tag("th", link(artifact.id, artifact.id), scope="row"),
                    tag("td", tag("code", launch_command(artifact, reader)), class_="text"),
                    tag("td", cost(wanted, times), class_="text"),
                )
            )
    names = ("table or figure", "command", "runs, and their time one after another")
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    total = tag(
        "p",
        f"{what_it_takes(artifacts, reader, times)}.",
        " Tables and figures share runs, so the lines add up to more." if rows else "",
    )
    table = [scroller(tag("table", head, tag("tbody", *rows)), "What is missing")] if rows else []
    return tag("section", tag("h2", "What is missing"), total, *table, id="missing")
