// Charts in SVG: a spark in a table, a line over time, a meter against a bound, stages as a bar.
// Each says in words what it shows, and the large one can be read as a table.

import { fill, h, say, set, svg } from "./dom.js";
import { clock } from "./format.js";

const SPARK = { width: 96, height: 20 };
const LINE = { width: 640, height: 120 };

const known = (value) => typeof value === "number" && Number.isFinite(value);

function highest(lists) {
  const all = lists.flat().filter(known);
  return all.length ? Math.max(...all) : 0;
}

/** The next round number from which an axis reads well. */
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value);
}

/** A path through points; what is not known leaves a gap. */
function path(values, { width, height }, top) {
  const step = width / Math.max(1, values.length - 1);
  let drawn = "";
  let isDown = false;
  values.forEach((value, index) => {
    if (!known(value)) {
      isDown = false;
      return;
    }
    const x = (index * step).toFixed(1);
    const y = (height - 1 - (Math.min(value, top) / top) * (height - 2)).toFixed(1);
    drawn += `${isDown ? "L" : "M"}${x} ${y}`;
    isDown = true;
  });
  return drawn;
}

/** The area below such a path, where it has no gap. */
function area(values, size, top) {
  const first = values.findIndex(known);
  if (first < 0 || values.slice(first).some((value) => !known(value))) return "";
  const begin = ((size.width / Math.max(1, values.length - 1)) * first).toFixed(1);
  return `${path(values, size, top)}V${size.height}H${begin}Z`;
}

/** A small chart. `draw(values, words)` shows other values. */
export function spark() {
  const line = svg("path", { class: "line" });
  const below = svg("path", { class: "area" });
  const root = svg("svg", {
    class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, role: "img",
    preserveAspectRatio: "none",
  }, below, line);
  const draw = (values, words, length = 60) => {
    // The newest stands at the right, however few there are.
    const padded = [...Array(Math.max(0, length - values.length)).fill(null), ...values];
    const top = (highest([values]) || 1) * 1.1;
    set(line, "d", path(padded, SPARK, top));
    set(below, "d", area(padded, SPARK, top));
    set(root, "aria-label", words);
  };
  return { node: root, draw };
}

/** What a series did, in words. */
export function summary(values, form) {
  const all = values.filter(known);
  if (all.length === 0) return "nothing yet";
  return `now ${form(all.at(-1))}, least ${form(Math.min(...all))}, most ${form(Math.max(...all))}`;
}

/**
 * A chart over time with a title, a summary and its numbers as a table.
 * `draw({ from, step_s, lines: [{ name, values, className }] })` shows other values.
 */
export function timeline(title, form) {
  const words = h("span", { class: "names" });
  const top = h("span", { class: "axis" });
  const drawing = svg("svg", {
    class: "timeline", viewBox: `0 0 ${LINE.width} ${LINE.height}`, role: "img",
    preserveAspectRatio: "none", "aria-label": title,
  });
  const begin = h("span", {});
  const table = h("div", { class: "numbers" });
  let shown = null;
  const details = h("details", { on: { toggle: () => details.open && write() } },
    h("summary", {}, "Show as table"), table);
  const node = h("figure", { class: "chart" },
    h("figcaption", {}, h("strong", {}, title), words),
    h("div", { class: "plot" }, top, drawing),
    h("div", { class: "ends quiet" }, begin, h("span", {}, "now")),
    details);

  function write() {
    if (!shown) return;
    const { lines, from, step_s: step } = shown;
    const rows = lines[0].values.map((_, index) => h("tr", {},
      h("th", { scope: "row" }, clock(new Date(Date.parse(from) + index * step * 1000))),
      lines.map((line) => h("td", { class: "num" }, form(line.values[index])))));
    fill(table, h("table", {}, h("caption", { class: "unseen" }, title),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "time"),
        lines.map((line) => h("th", { scope: "col", class: "num" }, line.name)))),
      h("tbody", {}, rows.reverse())));
  }

  function draw(series) {
    shown = series;
    const ceil = ceiling(highest(series.lines.map((line) => line.values)));
    say(top, form(ceil));
    say(begin, clock(series.from));
    const told = series.lines.map((line) => `${line.name}: ${summary(line.values, form)}`);
    fill(words, series.lines.map((line) => h("span", { class: "quiet" },
      svg("svg", { class: "key", viewBox: "0 0 12 8", "aria-hidden": "true" },
        svg("path", { class: `line ${line.className ?? ""}`, d: "M0 4H12" })),
      line.name, h("span", { class: "value" }, form(line.values.at(-1))),
      series.lines.length === 1 && h("span", {}, `at most ${form(highest([line.values]))}`))));
    set(drawing, "aria-label", `${title}. ${told.join("; ")}`);
    const grid = [0.25, 0.5, 0.75].map((part) => svg("line", {
      class: "grid", x1: 0, x2: LINE.width, y1: LINE.height * part, y2: LINE.height * part,
    }));
    const paths = series.lines.map((line) => svg("path", {
      class: `line ${line.className ?? ""}`, d: path(line.values, LINE, ceil),
    }));
    const below = svg("path", { class: "area", d: area(series.lines[0].values, LINE, ceil) });
    if (series.lines[0].className) set(below, "class", `area ${series.lines[0].className}`);
    drawing.replaceChildren(...grid, below, ...paths);
    if (details.open) write();
  }
  return { node, draw };
}

/** How much of a bound is used: a bar, the numbers, and a state from 70 and 90 % on. */
export function meter(name, form) {
  const bar = svg("rect", { class: "used", height: 6, width: 0 });
  const words = h("span", { class: "value live" });
  const mark = h("span", { class: "mark" });
  const node = h("div", { class: "meter" },
    h("span", { class: "label" }, name, " ", mark), words,
    svg("svg", { viewBox: "0 0 64 6", "aria-hidden": "true", preserveAspectRatio: "none" },
      svg("rect", { class: "room", width: 64, height: 6 }), bar));
  const draw = (used, most) => {
    const part = known(used) && most > 0 ? Math.min(1, used / most) : 0;
    const level = part >= 0.9 ? "poor" : part >= 0.7 ? "watch" : "";
    set(bar, "width", (part * 64).toFixed(1));
    set(node, "data-level", level || null);
    say(words, most === null || most === undefined ? form(used) : `${form(used)} of ${form(most)}`);
    say(mark, { poor: "✖ full", watch: "▲ near" }[level] ?? "");
  };
  return { node, draw };
}

/** Parts of a whole beside each other, with a legend. */
export function stages(parts, form) {
  const all = parts.reduce((sum, part) => sum + part.value, 0) || 1;
  let at = 0;
  const bars = parts.map((part, index) => {
    const width = (part.value / all) * 100;
    const bar = svg("rect", {
      class: `stage-${index % 5}`, x: at.toFixed(2), y: 0, height: 8,
      width: Math.max(0, width - 0.4).toFixed(2),
    });
    at += width;
    return bar;
  });
  const told = parts.map((part) => `${part.name} ${form(part.value)}`).join(", ");
  return h("figure", { class: "stages" },
    svg("svg", {
      viewBox: "0 0 100 8", role: "img", preserveAspectRatio: "none", "aria-label": `Took: ${told}`,
    }, bars),
    h("ul", { class: "legend" }, parts.map((part, index) => h("li", {},
      svg("svg", { class: "key", viewBox: "0 0 8 8", "aria-hidden": "true" },
        svg("rect", { class: `stage-${index % 5}`, width: 8, height: 8 })),
      part.name, " ", h("span", { class: "value" }, form(part.value))))));
}
