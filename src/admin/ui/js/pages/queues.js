// What waits to be delivered, what could not be, and what to do about it: pause a queue, look into
// it, try the dead again, cancel what waits.

import { meter } from "../chart.js";
import { ask, show } from "../dialog.js";
import { h, say } from "../dom.js";
import { bytes, count, moment, NONE, rate, span } from "../format.js";
import { adjust } from "../router.js";
import { table } from "../table.js";

export const title = "Queues";
export const path = "queues";
export const key = "d";

const LOOK_S = 5;
// As the API calls them; what is done or cancelled is in no list.
const STATES = ["waiting", "behind", "delivering", "retrying", "dead"];
const SAFETY = {
  evicting: "✖ Redis evicts, so nothing is accepted: set maxmemory-policy to noeviction.",
  not_appending: "▲ Redis keeps no append-only file: what waits is gone if it dies.",
  unknown: "▲ It is not known yet whether Redis evicts.",
};

const of = (name) => `/v1/queues/${encodeURIComponent(name)}`;
const ofDelivery = (id) => `/v1/deliveries/${encodeURIComponent(id)}`;
const at = (time) => (time ? moment(time) : NONE);

/** What this gateway has delivered a second, since the last look. */
class Rates {
  #before = new Map();

  of(name, done, now) {
    const before = this.#before.get(name);
    this.#before.set(name, { done, now });
    if (!before || now <= before.now || done < before.done) return null;
    return (done - before.done) / ((now - before.now) / 1000);
  }
}

function level(row) {
  return row.paused || row.warned || row.items.dead > 0 ? "watch" : null;
}

function words(row) {
  const found = [
    row.paused && `▲ paused: ${row.paused.why}${
      row.paused.seconds_left === null ? "" : `, ${span(row.paused.seconds_left)} left`}`,
    row.warned && "▲ above its warn",
    !row.paused && !row.warned && row.items.dead > 0 && "▲ some are dead",
  ].filter(Boolean);
  return found.length ? found.join(" · ") : "● well";
}

function pause(context, row, done) {
  const why = h("input", { name: "why", maxlength: 100, autocomplete: "off" });
  ask({
    title: "Pause a queue",
    words: [h("p", {}, "Nothing is taken from ", h("strong", {}, row.name),
      ", at any gateway, until it is resumed. It goes on to accept, and what is under way ends."),
    h("label", { class: "field" }, "Why", why)],
    verb: "Pause",
    async act() {
      await context.api.post(`${of(row.name)}/pause`, why.value ? { why: why.value } : {});
      done();
      return "It is paused.";
    },
  });
}

function resume(context, row, done) {
  ask({
    title: "Resume a queue",
    words: h("p", {}, "What is due in ", h("strong", {}, row.name),
      " is delivered again, at every gateway, whoever has paused it."),
    verb: "Resume",
    async act() {
      await context.api.post(`${of(row.name)}/resume`, {});
      done();
      return "It is resumed.";
    },
  });
}

/** One button: what can be done to the queue as it is. */
function action(context, done) {
  return (row, old) => {
    const verb = row.paused ? "Resume" : "Pause";
    if (old?.verb === verb) return old;
    const act = row.paused ? resume : pause;
    const button = h("button", {
      type: "button", class: "small", "aria-label": `${verb} ${row.name}`,
      on: { click: () => act(context, row, done) },
    }, `${verb}…`);
    button.verb = verb;
    return button;
  };
}

function full(row, old) {
  const drawn = old?.meter ?? meter("", bytes);
  drawn.draw(row.bytes, row.max_bytes);
  drawn.node.meter = drawn;
  return drawn.node;
}

function queues(context, safety, done) {
  const number = (name, more) => ({
    name, head: name, numeric: true, size: "live", text: (row) => count(row.items[name]),
    value: (row) => row.items[name], ...more,
  });
  return table({
    caption: "Queues", empty: "There is no queue.", key: (row) => row.name, note: safety,
    open: (row) => adjust({ queue: row.name }), sort: { name: "queue", falls: false },
    columns: [
      { name: "queue", head: "queue", text: (row) => row.name, size: "name" },
      { name: "state", head: "state", text: words, level, size: "short" },
      number("waiting"), number("later"), number("behind", { wide: true }), number("delivering"),
      number("dead", {
        level: (row) => (row.items.dead > 0 ? "watch" : null),
        text: (row) => `${row.items.dead > 0 ? "▲ " : ""}${count(row.items.dead)}`,
      }),
      { name: "oldest", head: "oldest", numeric: true, size: "live",
        text: (row) => span(row.oldest_seconds), value: (row) => row.oldest_seconds },
      { name: "bytes", head: "bytes", numeric: true, node: full, size: "bar",
        text: (row) => `${bytes(row.bytes)} of ${bytes(row.max_bytes)}`,
        value: (row) => row.bytes / Math.max(1, row.max_bytes) },
      { name: "rate", head: "done/s", numeric: true, size: "live", text: (row) => rate(row.rate),
        value: (row) => row.rate },
      context.canOperate && { name: "actions", head: "", text: () => "",
        node: action(context, done) },
    ].filter(Boolean),
  });
}

/** All that is known of one delivery, and what can be done with it. */
function detail(context, row, done) {
  const act = (verb, words, ended) => h("button", {
    type: "button",
    on: { click() {
      node.close();
      ask({
        title: `${verb} a delivery`,
        words: h("p", {}, h("code", {}, row.id), " ", words),
        verb,
        async act() {
          await context.api.post(`${ofDelivery(row.id)}/${verb.toLowerCase()}`, {});
          done();
          return ended;
        },
      });
    } },
  }, `${verb}…`);
  const told = [
    ["id", row.id], ["state", row.state], ["route", row.route],
    ["request", `${row.method ?? ""} ${row.path ?? ""}`], ["accepted", at(row.accepted_at)],
    ["due", at(row.due_at)], ["given up", at(row.give_up_at)], ["settled", at(row.settled_at)],
    ["failures", count(row.failures)], ["taken", `${count(row.claims)} times`],
    ["stalls", count(row.stalls)], ["last status", row.status], ["error", row.error],
    ["bytes", bytes(row.bytes)], ["owner", row.owner],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const buttons = context.canOperate && h("div", { class: "buttons" },
    row.state === "dead" && act("Requeue", "is tried again, as if it were new.",
      "It waits to be delivered."),
    ["waiting", "behind", "retrying"].includes(row.state)
      && act("Cancel", "is not delivered any more.", "It is cancelled."));
  const node = show("Delivery", h("div", {},
    h("dl", { class: "members" }, told.map(([name, value]) => h("div", {},
      h("dt", {}, name), h("dd", {}, String(value))))), buttons));
}

function tryAgain(context, queue, done) {
  const error = h("input", { name: "error", autocomplete: "off", spellcheck: "false",
    placeholder: "exhausted" });
  const submit = (event) => {
    event.preventDefault();
    const which = error.value.trim();
    ask({
      title: "Requeue what is dead",
      words: h("p", {}, "What is dead in ", h("strong", {}, queue()), which
        ? [" by the error ", h("code", {}, which)] : ", whatever it died of,",
      " is tried again as if it were new: the oldest first, 1,000 at most."),
      verb: "Requeue",
      async act() {
        const answer = await context.api.post(`${of(queue())}/requeue`,
          which ? { error: which } : {});
        done();
        return `${count(answer.requeued)} wait to be delivered.`;
      },
    });
  };
  return h("form", { class: "row-form", on: { submit } },
    h("label", { class: "field grow" }, "Error, or all that are dead", error),
    h("button", { type: "submit" }, "Requeue dead…"));
}

/** The items of one queue, a page at a time. */
function items(context, changed) {
  const { api, signal } = context;
  let [queue, wanted, turn, next] = ["", "", 0, null];
  let pages = [""];
  const whose = h("span", {});
  const again = () => {
    look();
    changed();
  };
  const shown = table({
    caption: "Items", empty: "Nothing is there.", key: (row) => row.id, note: whose,
    open: (row) => detail(context, row, again),
    columns: [
      { name: "accepted", head: "accepted", text: (row) => at(row.accepted_at),
        value: (row) => row.accepted_at },
      { name: "state", head: "state", text: (row) => `${row.state === "dead" ? "✖" : "●"} ${
        row.state}`, level: (row) => (row.state === "dead" ? "poor" : null) },
      { name: "path", head: "request", text: (row) => `${row.method ?? ""} ${row.path ?? ""}`,
        size: "name" },
      { name: "route", head: "route", text: (row) => row.route ?? "", wide: true, size: "short" },
      { name: "due", head: "due", text: (row) => at(row.due_at), value: (row) => row.due_at,
        wide: true },
      { name: "failures", head: "failures", numeric: true, text: (row) => count(row.failures),
        value: (row) => row.failures },
      { name: "status", head: "status", numeric: true, text: (row) => row.status ?? NONE,
        value: (row) => row.status },
      { name: "error", head: "error", text: (row) => row.error ?? "", size: "short" },
      { name: "bytes", head: "bytes", numeric: true, text: (row) => bytes(row.bytes),
        value: (row) => row.bytes, wide: true },
    ],
  });
  const which = h("select", {
    name: "state", on: { change: () => adjust({ state: which.value }) },
  }, h("option", { value: "" }, "all that are open"),
  STATES.map((name) => h("option", { value: name }, name)));
  const turns = (word, act) => h("button", {
    type: "button", class: "small", disabled: true, on: { click: act },
  }, word);
  const first = turns("Oldest", () => turnTo([""]));
  const older = turns("Next page", () => turnTo([...pages, next]));
  const fault = h("p", { class: "outcome", role: "status" });
  const node = h("div", { hidden: true },
    h("div", { class: "row-form" }, h("label", { class: "field" }, "State", which), first, older),
    context.canOperate && tryAgain(context, () => queue, again), fault, shown.node);

  function turnTo(there) {
    pages = there;
    look();
  }

  async function look() {
    // An answer that comes after the next question is nobody's any more.
    const own = ++turn;
    say(fault, "");
    try {
      const params = { state: wanted, after: pages.at(-1) };
      const page = await api.get(`${of(queue)}/items`, params, signal);
      if (own !== turn) return;
      next = page.next;
      older.disabled = !next;
      first.disabled = pages.length === 1;
      say(whose, `of ${queue}, the oldest first, page ${pages.length}`);
      shown.set(page.items);
    } catch (error) {
      if (signal.aborted || own !== turn) return;
      shown.set([]);
      say(fault, `✖ ${error.message}`);
    }
  }

  function onView(params) {
    const [name, kind] = [params.queue ?? "", params.state ?? ""];
    if (name === queue && kind === wanted) return;
    [queue, wanted] = [name, kind];
    which.value = kind;
    node.hidden = !name;
    shown.set([]);
    if (name) turnTo([""]);
  }
  return { node, onView, filter: shown.filter };
}

export function render(context) {
  const rates = new Rates();
  const safety = h("span", {});
  const again = () => look().catch(() => {});
  const all = queues(context, safety, again);
  const inside = items(context, again);
  async function look() {
    const told = await context.api.get("/v1/queues", {}, context.signal);
    const now = performance.now();
    say(safety, Object.keys(told.queues).length > 0 ? SAFETY[told.store] : "");
    all.set(Object.entries(told.queues).map(([name, one]) => ({
      ...one, name, rate: rates.of(name, one.attempts_here.done, now),
    })));
  }
  context.every(LOOK_S, look);
  const node = h("div", { class: "page" }, all.node, inside.node);
  return { node, onView: (params) => {
    all.filter(params.q);
    inside.filter(params.q);
    inside.onView(params);
  } };
}
