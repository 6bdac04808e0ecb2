// Is it well, and what must I do? Findings first, then the numbers of the whole gateway, its
// bounds, and its routes.

import { meter, spark, summary } from "../chart.js";
import { fill, h, patch, say, state } from "../dom.js";
import { bytes, count, percent, rate, seconds } from "../format.js";
import { ALL, recent } from "../history.js";
import { go, link } from "../router.js";
import { routesTable } from "../routes_table.js";
import { PAGES } from "./index.js";

export const title = "Overview";
export const path = "overview";
export const key = "o";

const FIGURES = [
  { name: "req/s", field: "rps", form: rate },
  { name: "errors", field: "error_ratio", form: percent },
  { name: "p50", field: "p50_s", form: seconds },
  { name: "p99", field: "p99_s", form: seconds },
  { name: "hits", field: "hit_ratio", form: percent },
  { name: "refused/s", field: "refused_ps", form: rate },
];
const CONFIGS = {
  same: "same configuration", older: "older configuration", other: "another configuration",
};
const RANK = { poor: 0, watch: 1, info: 2 };

function figure({ name, field, form }) {
  const value = h("span", { class: "value live" }, "–");
  const chart = spark();
  const node = h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value, chart.node));
  const draw = () => {
    const values = recent.of(ALL, field);
    chart.draw(values, `${name} in 5 minutes: ${summary(values, form)}`);
  };
  draw();
  return { node, draw, hear: (numbers) => say(value, form(numbers?.[field])) };
}

function finding(item) {
  const page = PAGES.find((it) => it.path === item.page);
  return h("li", { class: item.muted ? "finding muted" : "finding" },
    item.muted ? state("info", "MUTED") : state(item.level, item.level.toUpperCase()),
    h("div", {},
      h("p", {}, h("strong", {}, item.what), " ", h("span", { class: "quiet" }, item.why ?? "")),
      item.do && h("p", {}, h("span", { class: "quiet" }, "Do: "), item.do)),
    page ? h("a", { href: link(page.path) }, page.title) : h("span", {}));
}

function findings() {
  const heading = h("h2", {}, "Findings");
  const list = h("ul", {});
  const node = h("section", { class: "findings", "aria-live": "polite", "aria-label": "Findings" },
    heading, list);
  const draw = (all) => {
    // What is muted stands last and is not counted.
    const rank = (item) => (item.muted ? 4 : RANK[item.level] ?? 3);
    const sorted = [...all].sort((a, b) => rank(a) - rank(b));
    const number = sorted.filter((item) => !item.muted).length;
    const muted = sorted.length > number ? `, ${sorted.length - number} muted` : "";
    fill(heading, number === 0
      ? state("good", `All is well: no findings${muted}.`)
      : `${number} finding${number === 1 ? "" : "s"}${muted}`);
    patch(list, sorted, { key: (item) => JSON.stringify(item), make: finding });
  };
  return { node, draw };
}

function upstreams() {
  const list = h("ul", { class: "line" });
  const node = h("section", { class: "block", "aria-label": "Upstreams", hidden: true },
    h("div", { class: "block-head" }, h("h2", {}, "Upstreams")), list);
  const draw = (all) => {
    const rows = Object.entries(all ?? {}).map(([name, { servers = [], breaker }]) => {
      const taking = servers.filter((server) => server.state === "in").length;
      const level = breaker === "open" || taking === 0 ? "poor"
        : taking < servers.length ? "watch" : "good";
      const words = breaker === "open" ? "breaker open" : `${taking} of ${servers.length} in`;
      return { name, level, words };
    });
    node.hidden = rows.length === 0;
    patch(list, rows, {
      key: (row) => `${row.name} ${row.level} ${row.words}`,
      make: (row) => h("li", {}, h("strong", {}, row.name), " ", state(row.level, row.words)),
    });
  };
  return { node, draw };
}

function fleet() {
  const list = h("ul", { class: "line" });
  const node = h("section", { class: "block", "aria-label": "Fleet", hidden: true },
    h("div", { class: "block-head" }, h("h2", {}, "Fleet")), list);
  const draw = ({ node: own, fleet: all = [] }) => {
    node.hidden = all.length < 2;
    const rows = all.map((it, index) => ({
      name: it.node, version: it.version, own: index === 0 && it.node === own, config: it.config,
    }));
    patch(list, rows, {
      key: (row) => JSON.stringify(row),
      make: (row) => h("li", {}, h("strong", {}, row.name), " ",
        h("span", { class: "quiet" }, row.version ?? ""), " ",
        state(row.config === "same" ? "good" : "watch",
          row.own ? "this one" : CONFIGS[row.config])),
    });
  };
  return { node, draw };
}

export function render(context) {
  const { api, live, signal } = context;
  const found = findings();
  const figures = FIGURES.map(figure);
  const meters = [
    { draw: meter("connections", count), of: (tick) => tick.connections ?? [] },
    { draw: meter("in flight", count), of: (tick) => [tick.in_flight, null] },
    { draw: meter("backlog", bytes), of: (tick) => tick.backlog_bytes ?? [] },
    { draw: meter("store p99", seconds), of: (tick) => [tick.store_p99_s, tick.store_timeout_s] },
  ];
  const routes = routesTable(context, (row) => go("traffic", { route: row.route }));
  const servers = upstreams();
  const others = fleet();

  live.on("tick", (tick) => {
    figures.forEach((it) => it.hear(tick.all));
    meters.forEach((it) => it.draw.draw(...it.of(tick)));
  }, signal);
  live.addEventListener("drawn", () => figures.forEach((it) => it.draw()), { signal });
  context.onOverview((overview) => {
    found.draw(overview.findings ?? []);
    others.draw(overview);
  });
  context.every(10, async () => {
    servers.draw((await api.get("/v1/upstreams", {}, signal)).upstreams);
  });

  const node = h("div", { class: "page" }, found.node,
    h("dl", { class: "figures" }, figures.map((it) => it.node)),
    h("div", { class: "meters" }, meters.map((it) => it.draw.node)),
    routes.node, servers.node, others.node);
  return { node, onView: ({ q }) => routes.filter(q) };
}
