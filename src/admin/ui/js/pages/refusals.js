// Who is refused, why, and by what. A row opens the request, where Explain says whether it was
// right.

import { h, patch, say, set } from "../dom.js";
import { count } from "../format.js";
import { isNameable, openRequest, resetLimit } from "../request.js";
import { adjust, view } from "../router.js";
import { table } from "../table.js";
import { COLUMNS, asked } from "./traffic.js";

export const title = "Refusals";
export const path = "refusals";
export const key = "r";

const KEPT_MAX = 1_000;

const filterOf = (reason) => `reason:${reason}`;

/** Filters by a reason, or no more. */
function toggle(reason) {
  const wanted = filterOf(reason);
  adjust({ q: view().params.q === wanted ? "" : wanted });
}

function reasons(rows) {
  const counts = new Map();
  for (const { reason, status } of rows) {
    const name = reason ?? String(status);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([reason, number]) => ({ reason, number }))
    .sort((a, b) => b.number - a.number);
}

export function render(context) {
  const { api, live, signal } = context;
  let all = [];
  const chips = h("ul", { class: "line chips", "aria-label": "Reasons" });
  const refused = table({
    caption: "Refused requests", empty: "None was refused.",
    note: "This gateway alone, the newest 1,000 at most.",
    key: (row) => row.id ?? `${row.request_id} ${row.time}`, sort: { name: "time", falls: true },
    open: (row) => openRequest(row, context),
    columns: [COLUMNS.time, COLUMNS.request, COLUMNS.status, COLUMNS.reason, COLUMNS.route,
      COLUMNS.subject, COLUMNS.client],
  });
  const keys = table({
    caption: "Keys that limits refuse most", empty: "No limit has refused anybody.",
    note: "An estimate of this gateway alone.",
    key: (row) => `${row.policy} ${row.window} ${row.key}`, sort: { name: "refusals", falls: true },
    columns: [
      { name: "key", head: "key", text: (row) => row.key, size: "name" },
      { name: "policy", head: "policy", text: (row) => row.policy, size: "short" },
      { name: "window", head: "window", text: (row) => row.window },
      { name: "refusals", head: "refusals", numeric: true, value: (row) => row.refusals,
        text: (row) => count(row.refusals) },
      context.canOperate && { name: "actions", head: "", text: () => "", node: reset },
    ].filter(Boolean),
  });

  function reset(row, old) {
    if (!isNameable(row.key)) return old ?? h("span", {});
    return old ?? h("button", {
      type: "button", class: "small", "aria-label": `Reset ${row.policy} of ${row.key}`,
      on: { click: () => resetLimit(row.policy, row.key, lookAtKeys) },
    }, "Reset…");
  }

  function draw() {
    refused.set(all);
    patch(chips, reasons(all), {
      key: (it) => it.reason,
      make: (it) => h("li", {}, h("button", {
        type: "button", class: "chip", on: { click: () => toggle(it.reason) },
      }, h("strong", {}, it.reason), " ", h("span", { class: "value live" }))),
      update: (node, it) => {
        say(node.querySelector(".value"), count(it.number));
        set(node.firstChild, "aria-pressed", view().params.q === filterOf(it.reason));
      },
    });
  }
  async function look() {
    const wanted = { ...asked(view().params), refused: "true" };
    all = (await api.get("/v1/requests", wanted, signal)).requests;
    draw();
  }
  async function lookAtKeys() {
    keys.set((await api.get("/v1/limits/refused", {}, signal)).refused);
  }
  context.every(10, look);
  context.every(10, lookAtKeys);
  live.on("refusal", (request) => {
    all = [request, ...all].slice(0, KEPT_MAX);
    draw();
  }, signal);

  let shown;
  const onView = (params) => {
    refused.filter(params.q);
    keys.filter(params.q);
    draw();
    const wanted = JSON.stringify(asked(params));
    if (shown !== undefined && shown !== wanted) look().catch(() => {});
    shown = wanted;
  };
  const node = h("div", { class: "page" }, chips, refused.node, keys.node);
  return { node, onView };
}
