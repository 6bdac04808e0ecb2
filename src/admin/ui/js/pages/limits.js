// Who is near a limit or over it, what one key has left, and the reset of it.

import { meter } from "../chart.js";
import { fill, h, say } from "../dom.js";
import { clock, count, rate } from "../format.js";
import { isNameable, resetLimit } from "../request.js";
import { adjust } from "../router.js";
import { table } from "../table.js";

export const title = "Limits";
export const path = "limits";
export const key = "l";

const NEAR = 0.8;

const part = (row) => (row.allowed > 0 ? row.used / row.allowed : 1);
const word = (row) => (part(row) >= 1 ? "✖ over" : part(row) >= NEAR ? "▲ near" : "● room");

function bar(row, old) {
  const drawn = old?.meter ?? meter("", count);
  drawn.draw(row.used, row.allowed);
  drawn.node.meter = drawn;
  return drawn.node;
}

/** What `GET /v1/limits?policy&key` says, in words. */
function left(answer) {
  if (answer.windows === undefined) {
    return h("p", {}, `${count(answer.in_flight)} of ${count(answer.concurrent)} in flight`);
  }
  return h("dl", { class: "members" }, answer.windows.map((window) => h("div", {},
    h("dt", {}, window.window ?? "window"),
    h("dd", {}, Object.entries(window)
      .filter(([name]) => name !== "window")
      .map(([name, value]) => `${name.replaceAll("_", " ")} ${value ?? "–"}`).join(" · ")))));
}

const named = ({ policy, key }) => `${policy ?? ""} ${key ?? ""}`;

function lookUp(context, known) {
  const policy = h("input", {
    name: "policy", required: true, list: "policies", autocomplete: "off",
  });
  const principal = h("input", {
    name: "key", required: true, placeholder: "claim:sub=42", autocomplete: "off",
    spellcheck: "false",
  });
  const place = h("div", { class: "answer", role: "status" });
  const submit = async (event) => {
    event.preventDefault();
    const params = { policy: policy.value, key: principal.value };
    if (shown === named(params)) look(params);
    else adjust(params);
  };
  let turn = 0;
  async function look(params) {
    // An answer that comes after the next question is nobody's any more.
    const own = ++turn;
    try {
      const wanted = { policy: params.policy, key: params.key };
      const answer = await context.api.get("/v1/limits", wanted, context.signal);
      if (own !== turn) return;
      const reset = () => resetLimit(params.policy, params.key, () => look(params));
      fill(place, left(answer), context.canOperate && h("button", {
        type: "button", on: { click: reset },
      }, "Reset…"));
    } catch (error) {
      if (context.signal.aborted || own !== turn) return;
      fill(place, h("p", { class: "outcome" }, `✖ ${error.message}`));
    }
  }
  let shown = "";
  const onView = (params) => {
    const wanted = named(params);
    if (wanted === shown) return;
    shown = wanted;
    if (!params.policy || !params.key) return;
    policy.value = params.policy;
    principal.value = params.key;
    look(params);
  };
  const node = h("section", { class: "block", "aria-label": "What a key has left" },
    h("div", { class: "block-head" }, h("h2", {}, "What has a key left?")),
    h("form", { class: "row-form", on: { submit } },
      h("label", { class: "field" }, "Policy", policy),
      h("label", { class: "field grow" }, "Key", principal),
      h("button", { type: "submit" }, "Look up"), known), place);
  return { node, onView };
}

export function render(context) {
  const { api, signal } = context;
  let all = [];
  const known = h("datalist", { id: "policies" });
  const form = lookUp(context, known);
  const near = h("input", {
    type: "checkbox", checked: true, on: { change: () => look().catch(() => {}) },
  });
  const bounds = h("span", {});
  const note = [bounds, " ", h("label", { class: "check" }, near, "only from 80 % on")];
  const pressed = table({
    caption: "Keys near their limit, or over it", empty: "No key is near its limit.", note,
    key: (row) => `${row.policy} ${row.window} ${row.key}`,
    sort: { name: "used", falls: true },
    open: (row) => isNameable(row.key) && adjust({ policy: row.policy, key: row.key }),
    columns: [
      { name: "key", head: "key", text: (row) => row.key, size: "name" },
      { name: "policy", head: "policy", text: (row) => row.policy, size: "short" },
      { name: "window", head: "window", text: (row) => row.window },
      { name: "used", head: "used", text: (row) => `${row.used} of ${row.allowed}`, value: part,
        numeric: true, node: bar, size: "bar" },
      { name: "state", head: "state", text: word,
        level: (row) => (part(row) >= 1 ? "poor" : part(row) >= NEAR ? "watch" : null) },
      { name: "refused", head: "refused/min", numeric: true,
        text: (row) => rate(row.refused_per_minute), value: (row) => row.refused_per_minute },
      { name: "seen", head: "seen", text: (row) => clock(row.seen), value: (row) => row.seen,
        wide: true },
      context.canOperate && { name: "actions", head: "", text: () => "", node: reset },
    ].filter(Boolean),
  });

  function reset(row, old) {
    if (!isNameable(row.key)) return old ?? h("span", {});
    return old ?? h("button", {
      type: "button", class: "small", "aria-label": `Reset ${row.policy} of ${row.key}`,
      on: { click: () => resetLimit(row.policy, row.key, () => look().catch(() => {})) },
    }, "Reset…");
  }
  async function look() {
    const answer = await api.get("/v1/limits/pressed", { min: near.checked ? NEAR : 0 }, signal);
    all = answer.keys;
    say(bounds, `This gateway alone, at most ${answer.bound ?? 256} keys, by the last minute.`);
    pressed.set(all);
    const policies = [...new Set(all.map((row) => row.policy))].sort();
    fill(known, policies.map((name) => h("option", { value: name })));
  }
  context.every(5, look);
  const onView = (params) => {
    pressed.filter(params.q);
    form.onView(params);
  };
  return { node: h("div", { class: "page" }, form.node, pressed.node), onView };
}
