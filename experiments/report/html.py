"""The report's page: markup that cannot be unescaped by mistake, its style and its script.

`tag` escapes every text that is not `Html`, so only this module's callers' own tags are markup.
The page loads nothing: its policy forbids it, and all it needs stands in it.
"""

import html
import re
from collections.abc import Iterable

VOID = ("br", "img", "link", "meta")


class Html(str):
    """Markup; any other text is escaped where it enters the page."""

    __slots__ = ()


def markup(*children: str) -> Html:
    """The children one after another, escaped where they are plain text."""
    return Html(
        "".join(c if isinstance(c, Html) else html.escape(c, quote=False) for c in children)
    )


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """An element; `class_` and `aria_label` stand for class and aria-label."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
    )
    if name in VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{markup(*children)}</{name}>")


def prose(text: str) -> Html:
    """A sentence of ours, in which `backticks` mark code."""
    parts = re.split(r"`([^`]*)`", text)
    return markup(*(tag("code", part) if k % 2 else part for k, part in enumerate(parts)))


def listing(items: Iterable[str], **attributes: str) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items), **attributes)


def scroller(inner: str, label: str, class_: str = "scroll") -> Html:
    """A box of its own for what may be wider than the page; the keyboard reaches it."""
    return tag("section", inner, class_=class_, aria_label=label, tabindex="0")


def page(title: str, navigation: str, main: str) -> str:
    """The whole file."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        "\n",
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        "\n",
        tag("meta", name="color-scheme", content="light dark"),
        "\n",
        tag("title", title),
        "\n",
        Html(f"<style>{STYLE}</style>\n"),
    )
    skip = tag("a", "Skip to the contents", href="#overview", class_="skip")
    body = tag("body", skip, "\n", navigation, "\n", main, "\n", Html(f"<script>{SCRIPT}</script>"))
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --back: #f6f8fa;
  --link: #0a58ca; --hit: #fff5cc; --good: #1a6b34; --up: #0b5394; --down: #9a3412;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e4e7eb; --soft: #a0a9b4; --line: #363d46; --back: #1d2228;
    --link: #7fb2ff; --hit: #453c12; --good: #74d391; --up: #86b9f5; --down: #f5a97f;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 1px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 0; z-index: 9; padding: .5rem 1rem; background: var(--paper); }
main, nav { padding: 1rem; min-width: 0; }
main { max-width: 76rem; }
nav { border-bottom: 1px solid var(--line); background: var(--back); font-size: .875rem; }
nav p { margin: .6rem 0 .2rem; font-weight: 600; }
nav ul { display: flex; flex-wrap: wrap; gap: 0 .9rem; list-style: none; margin: 0; padding: 0; }
nav a { display: inline-block; padding: .2rem 0; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
nav small { color: var(--soft); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.1rem; margin: 2.5rem 0 .3rem; }
h4 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, li, dd { overflow-wrap: anywhere; max-width: 70rem; }
p { margin: .5rem 0; }
code { font: .8125rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.small { font-size: .8125rem; color: var(--soft); }
dl.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 1rem 0;
}
dl.facts dt { font-weight: 600; }
dl.facts dd { margin: 0; }
.scroll, .tall { overflow-x: auto; max-width: 100%; margin: .6rem 0; }
.tall { overflow-y: auto; max-height: 34rem; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; vertical-align: baseline; }
th { font-weight: 600; }
thead th { text-align: center; border-bottom: 1px solid var(--soft); }
th[scope=row], .text { text-align: left; }
thead tr:first-child th:first-child { text-align: left; }
table.grid { border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
table.grid tbody + tbody { border-top: 1px solid var(--soft); }
table.grid thead th[scope=colgroup] { border-bottom-width: 0; text-decoration: none; }
table.grid .first { border-left: 1px solid var(--line); }
table.grid td a { color: inherit; text-decoration: none; }
table.grid td a:hover { background: var(--hit); }
table.grid u { text-underline-offset: .2em; }
table.grid tbody th { position: sticky; left: 0; background: var(--paper); }
table.cells { width: 100%; font-size: .8125rem; }
table.few { width: auto; min-width: 34rem; }
.tall:has(.few) { width: fit-content; }
table.cells th, table.cells td { padding: .25rem .4rem; }
table.cells thead th { text-align: right; }
table.cells thead th:nth-child(-n+2), table.cells thead th:nth-child(9) { text-align: left; }
table.cells thead th { position: sticky; top: 0; background: var(--back); z-index: 1; }
table.cells thead button {
  font: inherit; color: inherit; background: none; border: 0; padding: .1rem; cursor: pointer;
}
table.cells thead button::after { content: " \\2195"; color: var(--soft); }
table.cells th[aria-sort=ascending] button::after { content: " \\2191"; }
table.cells th[aria-sort=descending] button::after { content: " \\2193"; }
table.cells tbody { border-bottom: 1px solid var(--line); scroll-margin-top: 3rem; }
table.cells tbody:target { background: var(--hit); }
table.cells td.runs { padding-top: 0; white-space: normal; text-align: left; color: var(--soft); }
td.runs ul { margin: .3rem 0; padding-left: 1.1rem; }
td.runs details[open] { padding-bottom: .4rem; }
summary { cursor: pointer; }
td.runs summary { font-size: .75rem; }
.verdict { white-space: nowrap; }
.agrees { color: var(--good); } .higher { color: var(--up); } .lower { color: var(--down); }
.higher, .lower { font-weight: 600; }
.missing, .untestable, .none { color: var(--soft); font-style: italic; }
figure { margin: .6rem 0; }
figure img {
  display: block; max-width: min(100%, 56rem); height: auto; padding: 6px; background: #fff;
}
figcaption { margin-top: .4rem; max-width: 56rem; }
ul.plain { padding-left: 1.2rem; }
ul.plain li { margin: .25rem 0; }
ol.paper > li { margin: .8rem 0; }
@media (min-width: 70rem) {
  body { display: grid; grid-template-columns: 13rem minmax(0, 1fr); }
  nav {
    position: sticky; top: 0; height: 100vh; overflow-y: auto;
    border-right: 1px solid var(--line); border-bottom: 0;
  }
  nav ul { display: block; }
  main { padding: 1.5rem; }
}
@media (max-width: 40rem) {
  dl.facts { display: block; }
  dl.facts dd { margin-bottom: .6rem; }
  .tall { max-height: 26rem; }
  table.few { min-width: 100%; }
  td.runs details { position: sticky; left: .4rem; width: calc(100vw - 3.5rem); }
  th, td { padding: .2rem .4rem; }
}
@media print {
  @page { margin: 12mm; }
  :root {
    --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --back: #fff;
    --link: #000; --good: #000; --up: #000; --down: #000;
  }
  body { display: block; font-size: 9pt; }
  nav, .skip { display: none; }
  main { max-width: none; padding: 0; }
  .scroll, .tall { overflow: visible; max-height: none; border: 0; }
  table, table.cells { font-size: 6.5pt; }
  table.grid { font-size: 5pt; }
  table.cells thead th { position: static; }
  th, td { padding: 1pt 2pt; }
  td.runs details:not([open]) { display: none; }
  td.runs details { width: auto; }
  table.cells thead button::after { content: none; }
  tr, figure, li { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
}
"""

# A click sorts upwards, a second one downwards, a third puts back the table's own order. Cells
# without a value come last both ways. A link to a cell opens the runs behind it.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.cells")) {
  const heads = [...table.tHead.rows[0].cells], own = [...table.tBodies];
  const value = (body, place) => {
    const cell = body.rows[0].cells[place];
    if (!("v" in cell.dataset)) return cell.textContent;
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const after = { ascending: "descending", descending: "" };
      const order = after[head.getAttribute("aria-sort")] ?? "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const compare = (a, b) => {
        const x = value(a, place), y = value(b, place);
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      };
      table.append(...(order ? [...own].sort(compare) : own));
    });
  });
}
const show = () => {
  const target = document.getElementById(location.hash.slice(1));
  const runs = target && target.matches("table.cells tbody") && target.querySelector("details");
  if (runs) runs.open = true;
};
addEventListener("hashchange", show);
show();
"""
