// Tables: real ones, that sort by any column, filter by the search, copy as JSON, and keep their
// rows' elements while numbers change.

import { show } from "./dialog.js";
import { fill, h, patch, say, set } from "./dom.js";
import { keeps, parse } from "./search.js";

// More rows cost more than anyone reads; the filter finds the others.
const ROWS_MAX = 500;

/**
 * A table. Columns: `{ name, head, text(row), value?(row), node?(row, old), level?(row), … }`.
 * `value` sorts, `node` shows in place of `text`, `level` is the state that a cell tells.
 * `open(row)` is what Enter and a click do.
 * `set(rows, isCalm)` shows other rows, calmly in the places that they had; `filter(q)` shows some.
 */
export function table({ caption, columns, key, open, empty = "Nothing.", sort, note }) {
  const order = sort ? { ...sort } : null;
  const known = new Set(columns.map((column) => column.name));
  let all = null;
  let kept = [];
  let places = new Map();
  let query = parse("");

  const heads = columns.map((column) => heading(column, (name) => {
    const isTurned = order?.name === name;
    const falls = isTurned ? !sorted.falls : Boolean(column.numeric);
    Object.assign(sorted, { name, falls });
    draw();
  }));
  const sorted = order ?? { name: null, falls: false };
  const body = h("tbody", {});
  const tail = h("span", { class: "quiet", role: "status" });
  const copied = h("button", { type: "button", class: "small", on: { click: copy } }, "Copy JSON");
  const node = h("section", { class: "block", "aria-label": caption, "data-empty": true },
    h("div", { class: "block-head" }, h("h2", {}, caption),
      h("span", { class: "quiet grow" }, note ?? ""), tail, copied),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}, table` },
      h("table", {}, h("caption", { class: "unseen" }, caption),
        h("thead", {}, h("tr", {}, heads.map((head) => head.node))), body)));

  async function copy() {
    const json = JSON.stringify(kept, null, 2);
    try {
      await navigator.clipboard.writeText(json);
      say(copied, "Copied");
      setTimeout(() => say(copied, "Copy JSON"), 1500);
    } catch {
      // Browsers have no clipboard for pages that came in clear over a network.
      show(`${caption}, as JSON`, h("pre", { tabindex: "0" }, json.split("\n").flatMap(
        (line) => [line, h("br", {})])), { wide: true });
    }
  }

  function build(row) {
    const cells = columns.map((column, index) => {
      const box = h(index === 0 ? "th" : "td", {
        class: classes(column), scope: index === 0 ? "row" : null,
      });
      return index === 0 && open ? fill(box, opener()) : box;
    });
    const line = h("tr", { class: open ? "opens" : null }, cells);
    line.row = row;
    if (open) {
      line.addEventListener("click", (event) => {
        const own = event.target.closest("button, a, input");
        // Who selects text does not mean to open anything.
        if ((!own || own.classList.contains("row")) && !String(getSelection())) open(line.row);
      });
    }
    return line;
  }

  function update(line, row) {
    line.row = row;
    columns.forEach((column, index) => {
      const box = line.cells[index];
      const place = index === 0 && open ? box.firstElementChild : box;
      if (column.node) {
        const next = column.node(row, place.firstElementChild);
        if (next !== place.firstElementChild) fill(place, next);
      } else {
        say(place, column.text(row));
        set(box, "title", column.title ? column.title(row) : null);
        set(box, "data-level", column.level ? column.level(row) : null);
      }
    });
  }

  function draw(isCalm = false) {
    if (all === null) return;
    const texts = (row) => () => columns.map((column) => column.text?.(row) ?? "");
    kept = all.filter((row) => keeps(query, row, fieldsOf(row), texts(row)));
    const column = columns.find((it) => it.name === sorted.name);
    if (isCalm) kept = inPlaces(kept, places, key);
    else if (column) kept = sortBy(kept, column, sorted.falls);
    places = new Map(kept.map((row, index) => [key(row), index]));
    heads.forEach((head) => head.show(sorted));
    patch(body, kept.slice(0, ROWS_MAX), { key, make: build, update });
    const more = kept.length > ROWS_MAX ? `first ${ROWS_MAX} of ` : "";
    const of = kept.length === all.length ? "" : ` of ${all.length}`;
    say(tail, kept.length === 0 ? (all.length ? "No row passes the filter." : empty)
      : `${more}${kept.length}${of}`);
    set(node, "data-empty", kept.length === 0);
  }

  const fieldsOf = (row) => new Set([...known, ...Object.keys(row)]);
  return {
    node,
    set(rows, isCalm) { all = rows; draw(isCalm); },
    filter(text) { query = parse(text); draw(); },
    get rows() { return kept; },
  };
}

function classes(column) {
  const own = [column.numeric && "num", column.wide && "wide", column.size].filter(Boolean);
  return own.length ? own.join(" ") : null;
}

const opener = () => h("button", { type: "button", class: "row" });

function heading(column, sort) {
  const mark = h("span", { class: "arrow", "aria-hidden": "true" });
  const inside = column.head
    ? h("button", { type: "button", on: { click: () => sort(column.name) } }, column.head, mark)
    : h("span", { class: column.label ? null : "unseen" }, column.label ?? column.name);
  const node = h("th", { scope: "col", class: classes(column) }, inside);
  const show = (sorted) => {
    const isBy = sorted.name === column.name;
    set(node, "aria-sort", isBy ? (sorted.falls ? "descending" : "ascending") : null);
    say(mark, isBy ? (sorted.falls ? "↓" : "↑") : "");
  };
  return { node, show };
}

/** Rows in the places that they had; new ones stand last. */
function inPlaces(rows, places, key) {
  const place = (row) => places.get(key(row)) ?? Infinity;
  return [...rows].sort((a, b) => place(a) - place(b) || 0);
}

function sortBy(rows, column, falls) {
  const value = column.value ?? column.text;
  const turn = falls ? -1 : 1;
  return [...rows].sort((left, right) => {
    const [a, b] = [value(left), value(right)];
    // What is not known stands last, whichever way.
    if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
    if (b === null || b === undefined) return -1;
    return turn * (typeof a === "number" && typeof b === "number"
      ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  });
}
