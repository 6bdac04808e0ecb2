// Redis: does it answer in time, how full is it, who may ask it what, and what takes long there.

import { meter, timeline } from "../chart.js";
import { fill, h, say, set, state } from "../dom.js";
import { bytes, clock, count, moment, NONE, seconds } from "../format.js";
import { table } from "../table.js";

export const title = "Store";
export const path = "store";
export const key = "s";

const LOOK_S = 5;
// Five minutes of seconds.
const POINTS = 300;
const RUNGS = { healthy: null, slow: "watch", recovering: "watch", open: "poor" };
const MARKS = { poor: "✖ ", watch: "▲ " };
// What may have a store of its own.
const USES = ["cache", "limits"];

/** The main store and those of the uses that have one of their own. */
const stores = (answer) => [["main", answer],
  ...USES.filter((use) => answer[use]).map((use) => [use, answer[use]])];

// The p99 of each second that was heard of; it outlives the page.
const heard = [];

function latency({ live, signal }) {
  const chart = timeline("Slowest hundredth of answers, and store.timeout", seconds);
  const draw = () => {
    if (heard.length === 0) return;
    chart.draw({
      from: heard[0].at, step_s: 1,
      lines: [
        { name: "p99", values: heard.map((it) => it.p99) },
        { name: "store.timeout", values: heard.map((it) => it.most), className: "soft" },
      ],
    });
  };
  live.on("tick", (tick) => {
    heard.push({ at: tick.t, p99: tick.store_p99_s, most: tick.store_timeout_s });
    if (heard.length > POINTS) heard.shift();
    draw();
  }, signal);
  draw();
  return h("section", { class: "block", "aria-label": "Latency" },
    h("div", { class: "block-head" }, h("h2", {}, "Does it answer in time?"),
      h("span", { class: "quiet" }, "by the second, while this page is open")), chart.node);
}

/** The servers that are asked, and how well each serves. */
function servers() {
  const level = (row) => (row.rung in RUNGS ? RUNGS[row.rung] : "watch");
  return table({
    caption: "Servers", empty: "The embedded store has no server.",
    key: (row) => `${row.store} ${row.node}`, sort: { name: "node", falls: false },
    note: "How well each serves this gateway.",
    columns: [
      { name: "node", head: "server", text: (row) => row.node, size: "name" },
      { name: "store", head: "store", text: (row) => row.store },
      { name: "role", head: "role", text: (row) => row.role },
      { name: "rung", head: "state", level, value: (row) => row.rung,
        text: (row) => (MARKS[level(row)] ?? "● ") + row.rung },
      { name: "since", head: "since", text: (row) => moment(row.since ?? NaN),
        value: (row) => row.since, wide: true },
      { name: "cause", head: "why", text: (row) => row.cause, size: "name" },
    ],
  });
}

function memoryBar(row, old) {
  const drawn = old?.meter ?? meter("", bytes);
  drawn.draw(row.memory?.used, row.memory?.max || null);
  drawn.node.meter = drawn;
  return drawn.node;
}

/** What the servers say of themselves to `[store.operator]`. */
function looks() {
  const evicts = (row) => row.memory && row.memory.policy !== "noeviction";
  return table({
    caption: "Redis says", empty: "Nobody may look.",
    key: (row) => `${row.store} ${row.node}`, sort: { name: "node", falls: false },
    columns: [
      { name: "node", head: "server", text: (row) => row.node ?? NONE, size: "name" },
      { name: "role", head: "role", text: (row) => row.topology?.role ?? NONE },
      { name: "replicas", head: "replicas", numeric: true,
        text: (row) => count(row.topology?.replicas), value: (row) => row.topology?.replicas },
      { name: "memory", head: "memory", node: memoryBar, size: "bar",
        text: (row) => bytes(row.memory?.used), value: (row) => row.memory?.used },
      { name: "policy", head: "policy", level: (row) => (evicts(row) ? "poor" : null),
        text: (row) => (evicts(row) ? "✖ " : "") + (row.memory?.policy ?? NONE) },
      { name: "evicted", head: "evicted", numeric: true,
        level: (row) => (row.evicted > 0 ? "poor" : null), value: (row) => row.evicted,
        text: (row) => (row.evicted > 0 ? "✖ " : "") + count(row.evicted) },
      { name: "keys", head: "keys", numeric: true, text: (row) => count(row.keys),
        value: (row) => row.keys, wide: true },
      { name: "clients", head: "clients", numeric: true, text: (row) => count(row.clients),
        value: (row) => row.clients, wide: true },
      { name: "ping", head: "ping", numeric: true, size: "live", text: (row) => seconds(row.ping_s),
        value: (row) => row.ping_s },
      { name: "version", head: "version", text: (row) => row.version ?? NONE, wide: true },
    ],
  });
}

function slowLog() {
  return table({
    caption: "Slow log", empty: "Nothing was slow, or nobody may look.",
    key: (row) => `${row.node} ${row.at} ${row.command} ${row.took_s}`,
    sort: { name: "at", falls: true },
    columns: [
      { name: "at", head: "at", text: (row) => clock(row.at), value: (row) => row.at,
        title: (row) => row.at },
      { name: "took", head: "took", numeric: true, text: (row) => seconds(row.took_s),
        value: (row) => row.took_s },
      { name: "command", head: "command", text: (row) => row.command, size: "name" },
      { name: "keys", head: "keys", text: (row) => row.keys ?? "", size: "short" },
      { name: "client", head: "client", text: (row) => row.client ?? "", wide: true },
    ],
  });
}

/** All that can be looked at, when somebody asks: the worst first. */
function doctor({ api, signal }) {
  const order = ["good", "unknown", "watch", "poor", "unusable", "unreachable"];
  const level = (row) => (row.level === "good" || row.level === "unknown" ? null
    : row.level === "watch" ? "watch" : "poor");
  const plain = { good: "● ", unknown: "○ " };
  const said = h("p", { class: "outcome", role: "status" });
  const shown = table({
    caption: "Doctor", empty: "Nothing was looked at.", key: (row) => `${row.table} ${row.check}`,
    note: "As portcullis doctor prints it.", sort: { name: "level", falls: true },
    columns: [
      { name: "check", head: "check", text: (row) => row.check },
      { name: "table", head: "of", text: (row) => row.table, wide: true },
      { name: "level", head: "level", level, value: (row) => order.indexOf(row.level),
        text: (row) => (MARKS[level(row)] ?? plain[row.level]) + row.level },
      { name: "value", head: "value", text: (row) => row.value, size: "name" },
      { name: "bound", head: "bound", text: (row) => row.bound, size: "name" },
      { name: "do", head: "do", text: (row) => row.do, size: "name" },
      { name: "servers", head: "servers", text: (row) => row.servers.join(", "), size: "short",
        wide: true },
    ],
  });
  shown.node.hidden = true;
  async function look() {
    set(button, "disabled", true);
    say(said, "Looking…");
    try {
      const { by, checks } = await api.post("/v1/doctor", {});
      if (signal.aborted) return;
      say(said, `Looked at by ${by}, at ${new Date().toLocaleTimeString("en-GB")}.`);
      shown.node.hidden = false;
      shown.set(checks);
    } catch (error) {
      say(said, `✖ ${error.message}`);
    }
    set(button, "disabled", false);
  }
  const button = h("button", { type: "button", on: { click: look } }, "Run doctor");
  const node = h("section", { class: "block", "aria-label": "Run doctor" },
    h("div", { class: "block-head" }, h("h2", {}, "Is it right for the gateway?"),
      h("span", { class: "quiet grow" }, "Asks Redis some hundreds of times."), button), said);
  return { nodes: [node, shown.node], filter: shown.filter };
}

/** What is wrong, and what is missing: each with what to do. */
function advice() {
  const list = h("ul", {});
  const node = h("section", { class: "block findings", "aria-label": "What to do",
    "aria-live": "polite", hidden: true },
  h("div", { class: "block-head" }, h("h2", {}, "What to do")), list);
  let drawn = "";
  const draw = (rows) => {
    const next = JSON.stringify(rows);
    if (next === drawn) return;
    drawn = next;
    node.hidden = rows.length === 0;
    fill(list, rows.map((row) => h("li", { class: "finding" },
      state(row.level, row.level.toUpperCase()),
      h("div", {}, h("p", {}, h("strong", {}, row.what), " ",
        h("span", { class: "quiet" }, row.why ?? "")),
      row.help && h("p", {}, h("span", { class: "quiet" }, "Do: "), h("code", {}, row.help))))));
  };
  return { node, draw };
}

/** Of a server's own words: what it may not be asked, and that it did not answer. */
function missing(name, look) {
  const rights = look.not_permitted ?? [];
  return [
    look.failure && { level: "poor", what: `${look.node ?? name} does not answer.`,
      why: look.failure },
    rights.length > 0 && { level: "watch", what: `Not permitted: ${rights.join(", ")}.`,
      why: `Of the store ${name}${look.node ? `, ${look.node}` : ""}.`, help: look.help },
  ].filter(Boolean);
}

export function render(context) {
  const { api, signal } = context;
  const [rungs, said, slow, remedies] = [servers(), looks(), slowLog(), advice()];
  const checked = context.canOperate && doctor(context);
  const kind = h("p", {});
  let tested = [];
  let lacking = [];
  const advise = () => remedies.draw([...tested, ...lacking]);

  context.every(LOOK_S, async () => {
    const all = stores((await api.get("/v1/status", {}, signal)).store);
    rungs.set(all.flatMap(([store, one]) => (one.nodes ?? []).map((node) => ({ store, ...node }))));
    tested = all.flatMap(([store, one]) => [
      !one.connected && { level: "poor", what: `The ${store} store does not answer.`,
        why: "Requests are served as store.on_outage says." },
      ...(one.selftest ?? []).map((it) => ({
        level: it.fatal ? "poor" : "watch", what: `${it.seen}.`,
        why: `${it.node}: ${it.suffers}.`, help: it.help,
      })),
    ].filter(Boolean));
    advise();
  });
  context.every(LOOK_S, async () => {
    const all = stores(await api.get("/v1/store", {}, signal));
    const each = all.flatMap(([store, one]) => (one.servers ?? [one])
      .map((look) => ({ store, ...look })));
    say(kind, all.map(([store, one]) => `${store}: ${one.kind}`).join(" · "));
    said.set(each.filter((look) => look.node));
    slow.set(each.flatMap(({ node, slowlog }) => (slowlog ?? []).map((it) => ({ node, ...it }))));
    lacking = each.flatMap((look) => missing(look.store, look));
    advise();
  });
  const node = h("div", { class: "page" }, remedies.node, h("section", { class: "block" }, kind),
    latency(context), rungs.node, said.node, slow.node, checked && checked.nodes);
  return { node, onView({ q }) {
    [rungs, said, slow, checked].forEach((it) => it && it.filter(q));
  } };
}
