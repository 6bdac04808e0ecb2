// What the cache saves, which route is poor and why, whether a URL is stored, and purges.

import { choosePurge, purge, purgeAll } from "../cache_purge.js";
import { walkSection } from "../cache_walk.js";
import { show } from "../dialog.js";
import { fill, h, say, state } from "../dom.js";
import { NONE, bytes, clock, count, percent } from "../format.js";
import { members } from "../request.js";
import { adjust } from "../router.js";
import { table } from "../table.js";

export const title = "Cache";
export const path = "cache";
export const key = "c";

const MARKS = { good: "● ", watch: "▲ ", poor: "✖ " };
const WINDOWS = [["15m", "15 min"], ["1m", "1 min"], ["start", "since start"]];
const BY = ["hits", "misses", "bytes"];

const ttl = (it) => (it.ttl_s > 0 ? `${it.ttl_s} of ${it.lifetime_s} s` : `stale ${-it.ttl_s} s`);
const vary = (it) => Object.entries(it.vary).map(([name, value]) => `${name}: ${value ?? NONE}`);
const top = (words) => Object.entries(words).sort((a, b) => b[1] - a[1]);

/** Whether one URL is stored, and for how long. */
function lookUp(context) {
  const url = h("input", {
    name: "url", required: true, placeholder: "shop.example/products/1", autocomplete: "off",
    spellcheck: "false",
  });
  const place = h("div", { class: "answer", role: "status" });
  const variants = table({
    caption: "Stored responses", key: (row) => row.id, columns: [
      { name: "where", head: "where", text: (row) => row.where.join(" + ") },
      { name: "status", head: "status", text: (row) => row.status },
      { name: "bytes", head: "size", numeric: true, value: (row) => row.bytes,
        text: (row) => bytes(row.bytes) },
      { name: "ttl", head: "TTL", numeric: true, value: (row) => row.ttl_s, text: ttl },
      { name: "valid", head: "state", size: "long",
        text: (row) => (row.valid ? "● answers" : `✖ ${row.why}`),
        level: (row) => (row.valid ? null : "poor") },
      { name: "tags", head: "tags", text: (row) => row.tags.join(" "), size: "short" },
      { name: "vary", head: "varies by", text: (row) => vary(row).join(", "), size: "short" },
      { name: "of", head: "of", text: (row) => `${row.upstream}, ${row.scheme}`, wide: true },
    ],
  });
  let turn = 0;
  async function look(wanted) {
    const own = ++turn;
    try {
      const answer = await context.api.get("/v1/cache/entry", { url: wanted }, context.signal);
      if (own !== turn) return;
      variants.set(answer.variants.map((row, id) => ({ ...row, id })));
      const again = (soft) => purge("url", answer.variants[0].url,
        { soft, done: () => look(wanted) });
      fill(place, h("p", {}, h("strong", {}, answer.url), ` on the route ${answer.route}`,
        answer.more && "; there are more variants"), variants.node,
      context.canOperate && h("div", { class: "buttons" },
        h("button", { type: "button", on: { click: () => again(false) } }, "Purge…"),
        h("button", { type: "button", on: { click: () => again(true) } }, "Purge softly…")));
    } catch (error) {
      if (context.signal.aborted || own !== turn) return;
      const mark = error.code === "entry_not_stored" ? "○" : "✖";
      fill(place, h("p", { class: "outcome" }, `${mark} ${error.message}`));
    }
  }
  let shown = "";
  const onView = (params) => {
    if (!params.url || params.url === shown) return;
    shown = params.url;
    url.value = shown;
    look(shown);
  };
  const submit = (event) => {
    event.preventDefault();
    if (shown === url.value) look(shown);
    else adjust({ url: url.value });
  };
  const node = h("section", { class: "block", "aria-label": "Whether a URL is stored" },
    h("div", { class: "block-head" }, h("h2", {}, "Is it stored?")),
    h("form", { class: "row-form", on: { submit } },
      h("label", { class: "field grow" }, "URL", url),
      h("button", { type: "submit" }, "Look up")), place);
  const begin = (text) => {
    url.value = text;
    url.focus();
  };
  return { node, onView, begin };
}

/** All that is known of a route's cache. */
function openRoute({ route, windows, verdicts, not_kept, hints, ...rest }, context, done) {
  show(`The cache of ${route}`, h("div", {},
    hints.map((hint) => h("p", {}, state("watch", hint.reason), ` ${hint.what}. `,
      h("strong", {}, "Do: "), hint.do, ".")),
    members({
      ...Object.fromEntries(WINDOWS.filter(([name]) => windows[name]).map(([name, head]) =>
        [head, `${percent(windows[name].ratio)} of ${count(windows[name].requests)} requests`])),
      stored: count(rest.stored), "mean TTL": rest.mean_ttl_s === null ? NONE
        : `${rest.mean_ttl_s} s`, "sent from the cache": bytes(rest.sent_bytes),
    }),
    h("h3", {}, "Requests, by verdict"), members(Object.fromEntries(top(verdicts))),
    h("h3", {}, "Responses that were not kept"), members(Object.fromEntries(top(not_kept))),
    context.canOperate && h("div", { class: "buttons" }, h("button", {
      type: "button", on: { click: () => purge("route", route, { done }) },
    }, "Purge the route…"))), { wide: true });
}

const ratio = ([name, head]) => ({
  name, head, numeric: true, size: "live",
  value: (row) => row.windows[name]?.ratio ?? null,
  text: (row) => (MARKS[row.windows[name]?.level] ?? "") + percent(row.windows[name]?.ratio),
  level: (row) => row.windows[name]?.level,
  title: (row) => row.windows[name] && `${row.windows[name].level ?? "too few to judge"}: hits of `
    + `${row.windows[name].requests} requests; good from 90 %, poor below 50 %`,
});

export function render(context) {
  const { api, signal } = context;
  const form = lookUp(context);
  const near = h("span", { class: "live" });
  const open = (url) => {
    // What has a query is shown without its values, and what is long not to its end: that is to be
    // filled in.
    if (url.includes("…")) form.begin(url.match(/^[^?…]*[?]?/)[0]);
    else adjust({ url });
    form.node.scrollIntoView({ block: "nearest" });
  };
  const walk = walkSection(context, open);
  const routes = table({
    caption: "Routes that cache", empty: "No route has a cache.", key: (row) => row.route,
    note: "Hits, stale and collapsed of all GET and HEAD, at this gateway.",
    sort: { name: "start" }, open: (row) => openRoute(row, context, () => look().catch(() => {})),
    columns: [
      { name: "route", head: "route", text: (row) => row.route, size: "name" },
      ...WINDOWS.map(ratio),
      { name: "stored", head: "stored", numeric: true, value: (row) => row.stored,
        text: (row) => count(row.stored), size: "live" },
      { name: "ttl", head: "mean TTL", numeric: true, value: (row) => row.mean_ttl_s,
        text: (row) => (row.mean_ttl_s === null ? NONE : `${row.mean_ttl_s} s`) },
      { name: "not_kept", head: "not kept", wide: true,
        text: (row) => top(row.not_kept).slice(0, 1).map((it) => it.join(" ")).join("") },
      { name: "hint", head: "hint", size: "long",
        text: (row) => row.hints.map((hint) => hint.do).join("; ") },
    ],
  });
  const since = h("span", {});
  const by = h("select", {
    "aria-label": "Order of the URLs", on: { change: () => lookAtTop().catch(() => {}) },
  }, BY.map((name) => h("option", { value: name }, name)));
  const urls = table({
    caption: "URLs that are asked for most", empty: "No request has come since.",
    note: [since, " ", by], key: (row) => row.url, sort: null, open: (row) => open(row.url),
    columns: [
      { name: "url", head: "URL", text: (row) => row.url, size: "name" },
      { name: "route", head: "route", text: (row) => row.route, size: "short", wide: true },
      ...BY.map((name) => ({
        name, head: name, numeric: true, value: (row) => row[name], size: "live",
        text: (row) => (name === "bytes" ? bytes : count)(row[name]),
      })),
      { name: "since", head: "counted since", wide: true, text: (row) => clock(row.since) },
    ],
  });

  async function look() {
    const answer = await api.get("/v1/cache", {}, signal);
    const { bytes: used, max, level, evictions } = answer.near;
    fill(near, state(level, `near cache: ${bytes(used)} of ${bytes(max)}`), " ",
      h("span", { class: "quiet" }, `${count(evictions)} have given way`));
    routes.set(Object.entries(answer.routes).map(([route, told]) => ({ route, ...told })));
  }
  async function lookAtTop() {
    const answer = await api.get("/v1/cache/top", { by: by.value }, signal);
    say(since, `Counted since ${clock(answer.since)}, while somebody looks; without values.`);
    urls.set(answer.urls);
  }
  context.every(5, look);
  context.every(5, lookAtTop);
  const again = () => look().catch(() => {});
  const onView = (params) => {
    routes.filter(params.q);
    urls.filter(params.q);
    walk.filter(params.q);
    form.onView(params);
  };
  const node = h("div", { class: "page" }, form.node,
    h("section", { class: "block", "aria-label": "This gateway's memory" },
      h("div", { class: "block-head" }, near, h("span", { class: "grow" }),
        context.canOperate && [
          h("button", { type: "button", on: { click: () => choosePurge(again) } }, "Purge…"),
          h("button", { type: "button", on: { click: () => purgeAll(again) } },
            "Purge everything…"),
          h("button", { type: "button", on: { click: walk.reveal } }, "Walk Redis…"),
        ])),
    routes.node, urls.node, context.canOperate && walk.node);
  return { node, onView };
}
