// Which route is slow or failing, and such a request: a row of the routes shows its quarter of an
// hour and its last requests, a row of these opens the request.

import { timeline } from "../chart.js";
import { fill, h } from "../dom.js";
import { clock, percent, rate, seconds } from "../format.js";
import { openRequest } from "../request.js";
import { go, link, view } from "../router.js";
import { routesTable } from "../routes_table.js";
import { parse } from "../search.js";
import { table } from "../table.js";

export const title = "Traffic";
export const path = "traffic";
export const key = "t";

/** The columns of a table of requests, here and under Refusals. */
export const COLUMNS = {
  time: { name: "time", head: "time", text: (row) => clock(row.time), value: (row) => row.time,
    title: (row) => row.time, size: "time" },
  route: { name: "route", head: "route", text: (row) => row.route ?? "–", size: "short" },
  request: { name: "path", head: "request", text: (row) => `${row.method} ${row.path}`,
    title: (row) => row.host, size: "name" },
  status: { name: "status", head: "status", numeric: true, value: (row) => row.status,
    text: (row) => (row.status >= 500 ? `✖ ${row.status}` : String(row.status)),
    level: (row) => (row.status >= 500 ? "poor" : null) },
  reason: { name: "reason", head: "reason", text: (row) => row.reason ?? "", size: "short" },
  subject: { name: "subject", head: "subject", text: (row) => row.subject ?? "", wide: true },
  client: { name: "client", head: "client", text: (row) => row.client ?? "", wide: true },
  took: { name: "took", head: "took", numeric: true, value: (row) => row.duration_ms,
    text: (row) => seconds(row.duration_ms / 1000) },
};

/** What the gateway is asked for of a filter; the table does the rest. */
export function asked({ q, route }) {
  const { fields } = parse(q);
  const { status, reason, subject } = fields;
  return { route: route ?? fields.route, status, reason, subject };
}

function charts() {
  const all = [
    { chart: timeline("Requests per second", rate), lines: [["req/s", "rps", ""]] },
    {
      chart: timeline("Latency", seconds),
      lines: [["p99", "p99_s", ""], ["p50", "p50_s", "soft"]],
    },
    { chart: timeline("Errors", percent), lines: [["5xx", "error_ratio", "bad"]] },
  ];
  const draw = (series) => {
    for (const { chart, lines } of all) {
      const shown = lines
        .filter(([, field]) => Array.isArray(series[field]))
        .map(([name, field, className]) => ({ name, values: series[field], className }));
      if (shown.length > 0) chart.draw({ ...series, lines: shown });
    }
  };
  return { node: h("div", { class: "charts" }, all.map((it) => it.chart.node)), draw };
}

export function render(context) {
  const { api, signal } = context;
  const routes = routesTable(context, (row) => go("traffic", { route: row.route }));
  const drawings = charts();
  const heading = h("div", { class: "block-head of-route" });
  const requests = table({
    caption: "Requests",
    note: "Refused, failed and slow ones, and a sample of the others; the newest 1,000.",
    key: (row) => row.id ?? `${row.request_id} ${row.time}`, sort: { name: "time", falls: true },
    empty: "None is kept.", open: (row) => openRequest(row, context),
    columns: [COLUMNS.time, COLUMNS.request, COLUMNS.status, COLUMNS.reason, COLUMNS.took,
      COLUMNS.subject, COLUMNS.client],
  });

  async function look() {
    const { params } = view();
    const series = api.get("/v1/series", { window: "15m", route: params.route }, signal);
    const rows = api.get("/v1/requests", asked(params), signal);
    drawings.draw(await series);
    requests.set((await rows).requests);
  }
  context.every(10, look);

  let shown;
  function onView(params) {
    routes.filter(params.q);
    requests.filter(params.q);
    fill(heading, h("h2", {}, params.route ? `Route ${params.route}` : "All routes"),
      h("span", { class: "quiet grow" }, "the last 15 minutes"),
      params.route && h("a", { href: link("traffic", { q: params.q }) }, "All routes"));
    const wanted = JSON.stringify(asked(params));
    if (shown !== undefined && shown !== wanted) look().catch(() => {});
    shown = wanted;
  }
  const node = h("div", { class: "page" }, routes.node, h("section", { class: "block" },
    heading, drawings.node), requests.node);
  return { node, onView };
}
