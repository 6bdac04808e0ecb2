// What runs and since when, what the file says otherwise, why the last reload was refused, and what
// would happen to a request.

import { ask, show } from "../dialog.js";
import { fill, h, set, state } from "../dom.js";
import { count, moment } from "../format.js";
import { explained } from "../request.js";
import { table } from "../table.js";

export const title = "Config";
export const path = "config";
export const key = "f";

const short = (sha256) => (sha256 ? sha256.slice(0, 12) : "–");

/** A value in words. */
function words(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) {
    return value.length === 0 ? "none" : value.map((item) => words(item)).join(", ");
  }
  if (typeof value !== "object") return String(value);
  const entries = Object.entries(value);
  if (entries.length === 1 && typeof value.secret === "string") return `secret in ${value.secret}`;
  return entries.length === 0 ? "none"
    : entries.map(([name, item]) => `${name} = ${words(item)}`).join(", ");
}

const isSecret = (value) => value === "[secret]"
  || (Object.keys(value ?? {}).length === 1 && typeof value.secret === "string");

/** Each key with its value, as a row of its own. */
function rowsOf(value, name = "") {
  const isTable = value !== null && typeof value === "object" && !Array.isArray(value)
    && !isSecret(value) && Object.keys(value).length > 0;
  const isList = Array.isArray(value) && value.some((it) => it !== null && typeof it === "object");
  if (!isTable && !isList) return [{ key: name, value }];
  return Object.entries(value).flatMap(([part, item]) => rowsOf(item,
    isList ? `${name}[${part}]` : name ? `${name}.${part}` : part));
}

function facts() {
  const list = h("dl", { class: "members" });
  const refused = h("ul", {});
  const node = h("section", { class: "block", "aria-label": "What runs" },
    h("div", { class: "block-head" }, h("h2", {}, "What runs")), list, refused);
  const draw = ({ path: file, sha256, loaded_at: since, last_reload: last, log }) => {
    const level = log?.until
      ? `${log.level} until ${moment(log.until)}, then ${log.configured}` : log?.level ?? "–";
    const reload = !last ? "none since the start" : [
      state(last.result === "applied" ? "good" : "poor", last.result), ` ${moment(last.at)}`];
    const rows = [["file", file ?? "none"], ["SHA-256", sha256 ?? "–"], ["since", moment(since)],
      ["last reload", reload], ["diagnostics from", level]];
    fill(list, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    fill(refused, (last?.problems ?? []).map((problem) => h("li", {}, `✖ ${problem}`)));
  };
  return { node, draw };
}

function differences(context, done) {
  const heading = h("h2", {}, "The file");
  const problems = h("ul", {});
  const reload = context.canOperate && h("button", {
    type: "button", on: { click: () => ask(question(compared)) },
  }, "Reload…");
  const changes = table({
    caption: "What the file says otherwise", empty: "Nothing.", key: (row) => row.key,
    sort: { name: "key", falls: false },
    columns: [
      { name: "key", head: "key", text: (row) => row.key, title: (row) => row.key, size: "name" },
      { name: "change", head: "change", text: (row) => row.change },
      { name: "old", head: "runs", text: (row) => words(row.old), title: (row) => words(row.old),
        size: "short" },
      { name: "new", head: "in the file", text: (row) => words(row.new),
        title: (row) => words(row.new), size: "short" },
      { name: "cost", head: "costs", text: (row) => row.cost ?? "", title: (row) => row.cost },
    ],
  });
  const node = h("section", { class: "block", "aria-label": "The file" },
    h("div", { class: "block-head" }, heading, h("span", { class: "grow" }), reload), problems);
  let compared = {};

  function question({ changes: all = [], file, needs_restart: fixed = [], problems: wrong = [] }) {
    const number = all.length;
    // A reload does all that the file says, or nothing.
    const refused = [
      wrong.length > 0 && "✖ The file has mistakes.",
      fixed.length > 0 && `▲ ${fixed.join(", ")} cannot change while the gateway runs.`,
    ].filter(Boolean);
    return {
      title: "Reload the configuration",
      words: h("div", {}, refused.map((why) => h("p", {}, why)),
        h("p", {}, refused.length > 0 ? "Nothing takes effect: the reload will be refused."
          : number === 0 ? "The file says what runs."
            : `${count(number)} ${number === 1 ? "key takes" : "keys take"} effect at once, for `
              + "the requests to come. What is in flight ends by the old ones.")),
      verb: "Reload",
      async act() {
        const answer = await context.api.post("/v1/config/reload", file ? { sha256: file } : {});
        done();
        return `The file ${short(answer.sha256)} is in force.`;
      },
    };
  }
  const draw = (answer) => {
    set(node, "hidden", answer === null);
    set(changes.node, "hidden", answer === null);
    if (answer === null) return;
    compared = answer;
    const { differs, problems: wrong = [], needs_restart: fixed = [] } = answer;
    const [level, said] = wrong.length > 0 ? ["poor", "it has mistakes and cannot take effect"]
      : !differs ? ["good", "it is what runs"]
        : fixed.length > 0 ? ["watch", "it differs, and wants a restart"]
          : ["watch", "it differs from what runs"];
    fill(heading, "The file: ", state(level, said));
    fill(problems, wrong.map((problem) => h("li", {}, `✖ ${problem}`)));
    set(changes.node, "hidden", (answer.changes ?? []).length === 0);
    changes.set(answer.changes ?? []);
  };
  return { nodes: [node, changes.node], draw, filter: changes.filter };
}

function explainForm({ api, signal }) {
  const field = (label, props) => {
    const input = h("input", { autocomplete: "off", spellcheck: "false", ...props });
    return { input, node: h("label", { class: `field ${props.class ?? ""}` }, label, input) };
  };
  const method = field("Method", { name: "method", required: true, value: "GET" });
  const host = field("Host", { name: "host", placeholder: "shop.example.com" });
  const target = field("Path", { name: "path", required: true, placeholder: "/products?page=2" });
  const address = field("Address", { name: "address", placeholder: "203.0.113.9" });
  const place = h("div", { class: "answer", role: "status" });
  async function submit(event) {
    event.preventDefault();
    const given = [[method, "method"], [target, "path"], [host, "host"], [address, "address"]]
      .map(([it, name]) => [name, it.input.value.trim()]).filter(([, value]) => value !== "");
    try {
      fill(place, explained(await api.post("/v1/explain", Object.fromEntries(given))));
    } catch (error) {
      if (!signal.aborted) fill(place, h("p", { class: "outcome" }, `✖ ${error.message}`));
    }
  }
  return h("section", { class: "block", "aria-label": "Explain" },
    h("div", { class: "block-head" }, h("h2", {}, "What would happen to a request?")),
    h("form", { class: "row-form", on: { submit } }, method.node, host.node, target.node,
      address.node, h("button", { type: "submit" }, "Explain")), place);
}

export function render(context) {
  const { api, live, signal } = context;
  const known = facts();
  const there = differences(context, () => look().catch(() => {}));
  const keys = table({
    caption: "Configuration that runs", empty: "No file is in force.",
    note: "With defaults, without secrets.", key: (row) => row.key,
    open: (row) => show(row.key, h("p", {}, words(row.value))),
    columns: [
      { name: "key", head: "key", text: (row) => row.key, title: (row) => row.key, size: "name" },
      { name: "value", head: "value", text: (row) => words(row.value),
        title: (row) => words(row.value), size: "name" },
    ],
  });
  async function look() {
    const shown = await api.get("/v1/config", {}, signal);
    known.draw(shown);
    keys.set(shown.config ? rowsOf(shown.config) : []);
    // The demo, for one, has no file.
    there.draw(shown.path ? await api.get("/v1/config/diff", {}, signal) : null);
  }
  context.every(30, look);
  live.on("reload", () => look().catch(() => {}), signal);
  const onView = ({ q }) => {
    keys.filter(q);
    there.filter(q);
  };
  const node = h("div", { class: "page" }, known.node, there.nodes, explainForm(context),
    keys.node);
  return { node, onView };
}
