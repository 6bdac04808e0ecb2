// One request: all that its line says, its stages, what would happen to it now, and the reset of
// the limit that refused it.

import * as api from "./api.js";
import { stages } from "./chart.js";
import { ask, show } from "./dialog.js";
import { fill, h } from "./dom.js";
import { micros, moment } from "./format.js";

const FIRST = ["time", "method", "host", "path", "route", "status", "reason", "error", "subject"];

function words(name, value) {
  if (name === "time") return `${moment(value)} (${value})`;
  if (name.endsWith("_ms")) return micros(value * 1000);
  if (Array.isArray(value)) return value.map((item) => words("", item)).join("; ");
  if (value === null || typeof value !== "object") return String(value);
  return Object.entries(value).map(([key, item]) => `${key} ${words(key, item)}`).join(" · ");
}

/** The name and the value of each member, in two columns. */
export function members(object) {
  return h("dl", { class: "members" }, Object.entries(object).map(([name, value]) => h("div", {},
    h("dt", {}, name), h("dd", {}, words(name, value)))));
}

function sorted(request) {
  const rank = (name) => (FIRST.indexOf(name) + 1 || FIRST.length + 1);
  const hidden = ["stages_us", "id"];
  const entries = Object.entries(request).filter(([name]) => !hidden.includes(name));
  return Object.fromEntries(entries.sort(([a], [b]) => rank(a) - rank(b)));
}

/** What the gateway itself answers, and by which part of its configuration. */
function ownAnswer({ status, location, by }) {
  if (!status) return `would be answered by ${by}`;
  return `would be answered ${status}${location ? ` to ${location}` : ""}, by ${by}`;
}

/** What would happen to a request, as the gateway explains it. */
export function explained(answer) {
  const { outcome, ...rest } = answer;
  const passes = outcome?.passes;
  const verdict = outcome?.by ? ownAnswer(outcome) : passes
    ? `would pass to ${outcome.upstream}` : `would be refused: ${outcome?.code}`;
  const level = passes || outcome?.status < 400 ? "good" : "poor";
  return h("div", { class: "explained" },
    h("h3", {}, "Explain"),
    h("p", {}, h("span", { class: `state ${level}` },
      h("span", { "aria-hidden": "true" }, level === "good" ? "● " : "✖ "), verdict)),
    members({ ...rest, ...outcome }));
}

/** Asks what would happen to such a request now. Credentials are not kept, so it has none. */
async function explain(request, place) {
  fill(place, h("p", { class: "quiet" }, "…"));
  try {
    const { path, method, host, client } = request;
    const answer = await api.post("/v1/explain", { path, method, host, address: client });
    fill(place, explained(answer), h("p", { class: "quiet" },
      "Asked without credentials and without the query: neither is kept."));
  } catch (error) {
    fill(place, h("p", { class: "outcome" }, `✖ ${error.message}`));
  }
}

/** Whether a key can be named to the gateway: one that is shown by a digest cannot. */
export const isNameable = (key) => !/(^|=)#/.test(key);

/** Asks whether what a limit has counted is to be forgotten, and forgets it. */
export function resetLimit(policy, key, done) {
  ask({
    title: "Reset a limit",
    words: h("p", {}, "All windows of ", h("code", {}, policy), " for ", h("code", {}, key),
      " begin anew, at all gateways of this store. What was counted is lost."),
    verb: "Reset",
    async act() {
      const answer = await api.remove("/v1/limits", { policy, key });
      done?.();
      return `${answer.counters_reset} counters were reset.`;
    },
  });
}

/** Opens the request. */
export function openRequest(request, { canOperate }) {
  const place = h("div", { role: "status" });
  const parts = Object.entries(request.stages_us ?? {})
    .filter(([, value]) => value > 0)
    .map(([name, value]) => ({ name, value }));
  const isNamed = request.limit && request.limit_key && isNameable(request.limit_key);
  show(`${request.method} ${request.path}`, h("div", {},
    parts.length > 0 && stages(parts, micros),
    members(sorted(request)),
    h("div", { class: "buttons" },
      h("button", { type: "button", on: { click: () => explain(request, place) } }, "Explain"),
      canOperate && isNamed && h("button", {
        type: "button", on: { click: () => resetLimit(request.limit, request.limit_key) },
      }, "Reset the limit…")),
    place), { wide: true });
}
