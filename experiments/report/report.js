"use strict";
// Clicking a heading sorts ascending, then descending, then restores the original order. Cells
// without a value always come last. A link to a cell opens the list of its runs.
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
