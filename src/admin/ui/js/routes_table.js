// The table of routes by the tick: rates, latencies, hits, refusals, and the last five minutes.

import { spark, summary } from "./chart.js";
import { h } from "./dom.js";
import { percent, rate, seconds } from "./format.js";
import { recent } from "./history.js";
import { table } from "./table.js";

const number = (name, head, form, field, extra) => ({
  name, head, numeric: true, size: "live",
  value: (row) => row[field] ?? null, text: (row) => form(row[field]), ...extra,
});

function chart(row, old) {
  const node = old ?? h("span", { class: "cell-spark" });
  const values = recent.of(row.route, "rps");
  // Points come each 5 s; the ticks between have nothing new to draw.
  if (node.drawn === values) return node;
  node.spark ??= spark();
  node.spark.draw(values, `Requests per second in 5 minutes: ${summary(values, rate)}`);
  if (!old) node.append(node.spark.node);
  node.drawn = values;
  return node;
}

/** A level for the part of answers that failed: 1 and 5 % are the bounds of the overview. */
function failing(row) {
  const all = row.rps || 0;
  const part = all > 0 ? (row.s5xx_ps ?? 0) / all : 0;
  return part >= 0.05 ? "poor" : part >= 0.01 ? "watch" : null;
}

const MARKS = { poor: "✖ ", watch: "▲ " };

/** The table; `open(row)` is what a row does. `hear(tick)` shows other numbers. */
export function routesTable(context, open) {
  const shown = table({
    caption: "Routes", open, key: (row) => row.route, empty: "No route has had a request.",
    sort: { name: "rps", falls: true },
    columns: [
      { name: "route", head: "route", text: (row) => row.route, size: "name" },
      number("rps", "req/s", rate, "rps"),
      number("s2xx", "2xx", rate, "s2xx_ps", { wide: true }),
      number("s4xx", "4xx", rate, "s4xx_ps", { wide: true }),
      number("s5xx", "5xx", rate, "s5xx_ps", {
        text: (row) => (MARKS[failing(row)] ?? "") + rate(row.s5xx_ps), level: failing,
        title: (row) => failing(row) && "1 % of the answers or more are 5xx",
      }),
      number("p50", "p50", seconds, "p50_s"),
      number("p99", "p99", seconds, "p99_s"),
      number("hits", "hits", percent, "hit_ratio"),
      number("refused", "refused/s", rate, "refused_ps", { wide: true }),
      { name: "recent", label: "last 5 min", text: () => "", node: chart, size: "chart" },
    ],
  });
  let order = 0;
  const hear = (tick) => {
    recall(Object.keys(tick.routes ?? {}), context);
    // Rows that change places each second cannot be read: the order is looked at each 5 s.
    const now = Math.floor(Date.now() / 5000);
    const routes = Object.entries(tick.routes ?? {});
    shown.set(routes.map(([route, numbers]) => ({ route, ...numbers })), now === order);
    order = now;
  };
  context.live.on("tick", hear, context.signal);
  return shown;
}

// More are not worth so many questions; their charts begin with the first tick.
const RECALLED_MAX = 24;
let isRecalling = false;

/** Fetches what the gateway remembers of routes, one after the other, once. */
async function recall(routes, { api, signal }) {
  if (isRecalling) return;
  isRecalling = true;
  try {
    for (const route of routes.slice(0, RECALLED_MAX)) {
      if (recent.isSeeded(route)) continue;
      recent.seed(route, await api.get("/v1/series", { window: "5m", route }, signal));
    }
  } catch {
    // The page was left, or there is nothing to remember.
  } finally {
    isRecalling = false;
  }
}
