// Which server is slow, full or down, and why: eject one, restore it, and the canaries.

import { meter } from "../chart.js";
import { ask } from "../dialog.js";
import { h, patch, say, state } from "../dom.js";
import { count, percent, rate, seconds, span } from "../format.js";
import { table } from "../table.js";

export const title = "Upstreams";
export const path = "upstreams";
export const key = "u";

const LOOK_S = 5;
const STATES = { in: "● in", probing: "▲ probing", out: "✖ out" };
const MARKS = { poor: "✖ ", watch: "▲ " };
const LEVELS = { probing: "watch", out: "poor" };
// The bounds of findings: from there on something is nearly full, or failing.
const FULL = [0.7, 0.9];
const FAILING = [0.01, 0.05];

const level = (part, [watch, poor]) => (part >= poor ? "poor" : part >= watch ? "watch" : null);
const sum = (counts) => Object.values(counts ?? {}).reduce((all, one) => all + one, 0);

/** What has come since the last look: per second, and the part that failed. */
class Rates {
  #before = new Map();

  of(name, { requests, errors }, now) {
    const before = this.#before.get(name);
    const failed = sum(errors);
    this.#before.set(name, { requests, failed, now });
    // A server that was made anew counts from zero.
    if (!before || now <= before.now || requests < before.requests) return {};
    const since = requests - before.requests;
    return {
      rps: since / ((now - before.now) / 1000),
      failing: since > 0 ? (failed - before.failed) / since : null,
    };
  }
}

function change(context, row, verb, done) {
  const isOut = verb === "Eject";
  ask({
    title: `${verb} a server`,
    words: h("p", {}, h("code", {}, row.server), " of ", h("strong", {}, row.upstream),
      isOut ? " gets no more requests from this gateway until it is restored. Those in progress "
        + "go on; the other servers take its share."
        : " gets requests from this gateway again, whatever is known of it."),
    verb,
    async act() {
      const { upstream, server } = row;
      await context.api.post(`/v1/upstreams/${verb.toLowerCase()}`, { upstream, server });
      done();
      return isOut ? "It is out." : "It is in.";
    },
  });
}

/** One button: what can be done to the server as it is. */
function action(context, done) {
  return (row, old) => {
    if (!row.can_change) return old ?? h("span", {});
    const verb = row.state === "in" ? "Eject" : "Restore";
    if (old?.verb === verb) return old;
    const button = h("button", {
      type: "button", class: "small", "aria-label": `${verb} ${row.server}`,
      on: { click: () => change(context, row, verb, done) },
    }, `${verb}…`);
    button.verb = verb;
    return button;
  };
}

const part = ([used, most]) => used / Math.max(1, most);

/** Connections in use: those at rest are places for whoever comes. */
const used = (row) => [row.connections_used, row.connections[1]];

function bar(row, old) {
  const drawn = old?.meter ?? meter("", count);
  drawn.draw(...used(row));
  drawn.node.meter = drawn;
  return drawn.node;
}

const why = (row) => [
  ...row.reasons.map((reason) => reason.replaceAll("_", " ")),
  row.seconds_left > 0 && `${span(row.seconds_left)} left`, row.check,
].filter(Boolean).join(" · ");

const errors = (row) => Object.entries(row.errors ?? {}).filter(([, times]) => times > 0)
  .map(([kind, times]) => `${kind} ${count(times)}`).join(" · ");

function servers(context, done) {
  const failing = (row) => level(row.failing ?? 0, FAILING);
  return table({
    caption: "Servers", empty: "There is no server.", key: (row) => `${row.upstream} ${row.server}`,
    sort: { name: "state", falls: false },
    columns: [
      { name: "server", head: "server", text: (row) => row.server, size: "name" },
      { name: "upstream", head: "upstream", text: (row) => row.upstream, size: "short" },
      { name: "state", head: "state", text: (row) => STATES[row.state] ?? row.state,
        // What is out stands first.
        value: (row) => ["out", "probing", "in"].indexOf(row.state),
        level: (row) => LEVELS[row.state] },
      { name: "why", head: "why", text: why, size: "short" },
      { name: "rps", head: "req/s", numeric: true, size: "live", text: (row) => rate(row.rps),
        value: (row) => row.rps },
      { name: "failing", head: "failing", numeric: true, size: "live", level: failing,
        text: (row) => `${MARKS[failing(row)] ?? ""}${percent(row.failing)}`,
        value: (row) => row.failing },
      { name: "errors", head: "failed so far", text: errors, value: (row) => sum(row.errors),
        size: "short", wide: true },
      { name: "busy", head: "busy", numeric: true, size: "live", text: (row) => count(row.busy),
        value: (row) => row.busy },
      { name: "idle", head: "idle", numeric: true, size: "live", wide: true,
        text: (row) => count(row.idle), value: (row) => row.idle },
      { name: "latency", head: "expected", numeric: true, size: "live", wide: true,
        text: (row) => seconds(row.ewma_ms === null ? null : row.ewma_ms / 1000),
        value: (row) => row.ewma_ms },
      context.canOperate && { name: "actions", head: "", text: () => "",
        node: action(context, done) },
    ].filter(Boolean),
  });
}

/** The upstream itself: its breaker, and how full it is. */
function upstreams() {
  const breaker = { open: "poor", half_open: "watch" };
  const busy = (row) => level(part(row.in_flight), FULL);
  const words = (row) => (row.panic ? "▲ panic: all are used" : row.breaker === null ? "none"
    : `${MARKS[breaker[row.breaker]] ?? "● "}`
      + row.breaker.replace("_", " "));
  return table({
    caption: "Upstreams", empty: "There is no upstream.", key: (row) => row.upstream,
    note: "Connections in use and requests in progress, of how many. p99 is of the last ten "
      + "seconds, until the head of the response.",
    sort: { name: "connections", falls: true },
    columns: [
      { name: "upstream", head: "upstream", text: (row) => row.upstream, size: "name" },
      { name: "taking", head: "in", text: (row) => `${row.taking} of ${row.all}`,
        value: (row) => row.taking / Math.max(1, row.all),
        level: (row) => (row.taking === 0 ? "poor" : row.taking < row.all ? "watch" : null) },
      { name: "breaker", head: "breaker", text: words,
        level: (row) => (row.panic ? "watch" : breaker[row.breaker]) },
      { name: "connections", head: "in use", numeric: true, node: bar, size: "bar",
        text: (row) => used(row).join(" of "), value: (row) => part(used(row)) },
      { name: "in_flight", head: "requests", numeric: true, size: "live", level: busy,
        text: (row) => (MARKS[busy(row)] ?? "") + row.in_flight.map(count).join(" of "),
        value: (row) => part(row.in_flight) },
      { name: "waiting", head: "waiting", numeric: true, size: "live",
        text: (row) => (row.waiting > 0 ? `▲ ${count(row.waiting)}` : count(row.waiting)),
        value: (row) => row.waiting, level: (row) => (row.waiting > 0 ? "watch" : null) },
      { name: "p99", head: "p99", numeric: true, size: "live", text: (row) => seconds(row.p99_s),
        value: (row) => row.p99_s },
      { name: "names", head: "names", text: (row) => row.lost, size: "short", wide: true },
    ],
  });
}

function steer(context, route, verb, done) {
  ask({
    title: `${verb} a canary`,
    words: h("p", {}, verb === "Stop"
      ? "All requests of " : "The ramp begins with its first step again for ",
    h("strong", {}, route), verb === "Stop"
      ? " go to the first upstream, at every gateway, until a reset." : ", at every gateway."),
    verb,
    async act() {
      await context.api.post(`/v1/canary/${verb.toLowerCase()}`, { route });
      done();
      return verb === "Stop" ? "It is stopped." : "It begins anew.";
    },
  });
}

function canaries(context) {
  const list = h("ul", {});
  const node = h("section", { class: "block", "aria-label": "Canaries", hidden: true },
    h("div", { class: "block-head" }, h("h2", {}, "Canaries")), list);
  const make = (row) => {
    const words = h("span", { class: "live" });
    const mark = h("span", {});
    const item = h("li", { class: "row-form" }, h("strong", {}, row.route), mark, words,
      context.canOperate && ["Stop", "Reset"].map((verb) => h("button", {
        type: "button", class: "small", "aria-label": `${verb} ${row.route}`,
        on: { click: () => steer(context, row.route, verb, look) },
      }, `${verb}…`)));
    Object.assign(item, { mark, words });
    return item;
  };
  const update = (item, { arms, step, steps, stopped }) => {
    item.mark.replaceChildren(stopped ? state("poor", `stopped: ${stopped}`)
      : state("good", step === null ? "split" : `step ${step} of ${steps}`));
    say(item.words, arms.map((arm) => `${arm.upstream} ${arm.percent} %, `
      + `${count(arm.failures)} of ${count(arm.answers)} failed`).join(" · "));
  };
  async function look() {
    const { routes } = await context.api.get("/v1/canary", {}, context.signal);
    const rows = Object.entries(routes).map(([route, canary]) => ({ route, ...canary }));
    node.hidden = rows.length === 0;
    patch(list, rows, { key: (row) => row.route, make, update });
  }
  context.every(LOOK_S, look);
  return node;
}

export function render(context) {
  const rates = new Rates();
  const all = upstreams();
  const each = servers(context, () => look().catch(() => {}));
  async function look() {
    const told = Object.entries(
      (await context.api.get("/v1/upstreams", {}, context.signal)).upstreams);
    const now = performance.now();
    all.set(told.map(([upstream, one]) => ({
      ...one, upstream, all: one.servers.length,
      taking: one.servers.filter((server) => server.state === "in").length,
      lost: one.names.filter((it) => it.fault).map((it) => `▲ ${it.name}: ${it.fault}`).join(" · "),
    })));
    each.set(told.flatMap(([upstream, one]) => one.servers.map((server) => ({
      ...server, upstream, can_change: one.can_change,
      ...rates.of(`${upstream} ${server.server}`, server, now),
    }))));
  }
  context.every(LOOK_S, look);
  const node = h("div", { class: "page" }, each.node, all.node, canaries(context));
  return { node, onView: ({ q }) => [all, each].forEach((it) => it.filter(q)) };
}
