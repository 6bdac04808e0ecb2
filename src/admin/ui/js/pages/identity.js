// A user's sessions and how they end, what is revoked and how it is taken back, an owner's API
// keys, and the keys of issuers.

import { ask } from "../dialog.js";
import { fill, h, say, state } from "../dom.js";
import { count, moment, NONE, span } from "../format.js";
import { lookUp } from "../lookup.js";
import { table } from "../table.js";

export const title = "Identity";
export const path = "identity";
export const key = "i";

// Revocations that are fetched: as many as a table shows.
const SHOWN = 500;
// What can be revoked here, as the API calls it. A token itself is for no form.
const KINDS = { sub: "user (sub)", sid: "session (sid)", jti: "token (jti)",
  key_id: "API key", cert: "certificate (SHA-256)" };

const sessionsOf = (user) => `/v1/users/${encodeURIComponent(user)}/sessions`;
const day = (at) => (typeof at === "number" ? moment(at * 1000) : NONE);
/** What a revocation is about, under the name that its kind has. */
const named = (row) => row[row.kind === "key" ? "key_id" : row.kind] ?? NONE;

/** Takes away the rows of somebody: they must not stand under another name. */
function drop(shown) {
  shown.node.hidden = true;
  shown.set([]);
}

/** A button in a row, which stays while the row does. */
function action(word, label, act) {
  return (row, old) => old ?? h("button", {
    type: "button", class: "small", "aria-label": `${word} ${label(row)}`,
    on: { click: () => act(row) },
  }, `${word}…`);
}

function endSession(context, row, done) {
  ask({
    title: "End a session",
    words: h("p", {}, "The session ", h("code", {}, row.id), " of ", h("strong", {}, row.user),
      " is refused from the next request on, at every gateway. Tokens go on."),
    verb: "End",
    async act() {
      await context.api.remove(`/v1/sessions/${encodeURIComponent(row.id)}`);
      done();
      return "It has ended.";
    },
  });
}

function logOut(context, user, auth, done) {
  ask({
    title: "Log out everywhere",
    words: h("p", {}, "All sessions of ", h("strong", {}, user), " end, and every token that was ",
      "issued up to now is refused, at every gateway. New log-ins work."),
    verb: "Log out everywhere",
    typed: user,
    async act() {
      const answer = await context.api.remove(sessionsOf(user), { auth });
      done();
      return `${count(answer.ended)} sessions ended, and the tokens are revoked.`;
    },
  });
}

function takeBack(context, row, done) {
  ask({
    title: "Take a revocation back",
    words: h("p", {}, `What was revoked as ${row.kind} `, h("code", {}, named(row)),
      " is accepted again from the next request on. Sessions that have ended stay ended."),
    verb: "Take back",
    async act() {
      await context.api.remove("/v1/revocations", { id: row.id });
      done();
      return "It is taken back.";
    },
  });
}

function endKey(context, row, done) {
  ask({
    title: "End an API key",
    words: h("p", {}, "The key ", h("code", {}, row.id), " of ", h("strong", {}, row.owner),
      " is refused from the next request on, for good."),
    verb: "End for good",
    async act() {
      await context.api.remove(`/v1/keys/${encodeURIComponent(row.id)}`);
      done();
      return "It has ended.";
    },
  });
}

/** The sessions of a user, and the end of one or all of them. */
function users(context, changed) {
  const { api, signal, canOperate } = context;
  const again = () => {
    form.again();
    changed();
  };
  const whose = h("span", {});
  const sessions = table({
    caption: "Sessions", empty: "There is no session.", key: (row) => row.id, note: whose,
    sort: { name: "seen", falls: true },
    columns: [
      { name: "id", head: "session", text: (row) => row.id, size: "name" },
      { name: "created", head: "created", text: (row) => day(row.created_at),
        value: (row) => row.created_at },
      { name: "seen", head: "seen", text: (row) => day(row.seen_at), value: (row) => row.seen_at },
      { name: "ends", head: "ends in", text: (row) => span(row.expires_in_seconds),
        value: (row) => row.expires_in_seconds, numeric: true },
      canOperate && { name: "actions", head: "", text: () => "",
        node: action("End", (row) => row.id, (row) => endSession(context, row, again)) },
    ].filter(Boolean),
  });
  sessions.node.hidden = true;
  const auth = h("input", { name: "auth", autocomplete: "off", spellcheck: "false" });
  function draw([answer, revoked], user) {
    sessions.node.hidden = false;
    say(whose, `of ${user}`);
    sessions.set(answer.sessions.map((row) => ({ ...row, user })));
    const more = answer.not_listed > 0 && h("p", { class: "quiet" },
      `${count(answer.not_listed)} more are not listed.`);
    const tokens = revoked.revocations.map((row) => h("p", {},
      state("watch", "tokens revoked"), ` that were issued before ${day(row.not_before)}`,
      row.auth && `, at ${row.auth}`));
    return [tokens, more, canOperate && h("div", { class: "row-form" },
      h("label", { class: "field" }, "Verifier, if there are several", auth),
      h("button", {
        type: "button", on: { click: () => logOut(context, user, auth.value, again) },
      }, "Log out everywhere…"))];
  }
  const form = lookUp(context, {
    name: "user", heading: "Whose sessions?", label: "User, the claim sub", placeholder: "42", draw,
    ask: (user) => Promise.all([
      api.get(sessionsOf(user), {}, signal), api.get("/v1/revocations", { sub: user }, signal),
    ]),
    clear: () => drop(sessions),
  });
  return { nodes: [form.node, sessions.node], onView: form.onView, filter: sessions.filter };
}

/** What is revoked now, and a form that revokes. */
function revocations(context) {
  const { api, signal, canOperate } = context;
  const told = h("span", {});
  const look = async () => {
    const answer = await api.get("/v1/revocations", { limit: SHOWN }, signal);
    const rows = answer.revocations;
    const words = [
      answer.from === "stream" ? "As the stream in Redis has them" : "As this gateway knows them",
      rows.length < answer.total && `the newest ${count(rows.length)} of ${count(answer.total)}`,
      !answer.complete && "▲ some may be missing",
      !answer.current && "▲ as they were before Redis went away",
    ];
    say(told, `${words.filter(Boolean).join("; ")}.`);
    shown.set(rows);
  };
  const again = () => look().catch(() => {});
  const shown = table({
    caption: "Revoked now", empty: "Nothing is revoked.", note: told,
    key: (row) => row.id, sort: { name: "revoked", falls: true },
    columns: [
      { name: "what", head: "what", text: named, size: "name" },
      { name: "kind", head: "kind", text: (row) => row.kind },
      { name: "auth", head: "verifier", text: (row) => row.auth ?? "", wide: true },
      { name: "revoked", head: "revoked", text: (row) => moment(row.revoked_at ?? NaN),
        value: (row) => row.revoked_at },
      { name: "ends", head: "ends", text: (row) => moment(row.expires_at ?? NaN),
        value: (row) => row.expires_at, wide: true },
      canOperate && { name: "actions", head: "", text: () => "",
        node: action("Undo", named, (row) => takeBack(context, row, again)) },
    ].filter(Boolean),
  });
  // A list costs the store more than a number does.
  context.every(15, look);
  return { nodes: [canOperate && revoking(context, again), shown.node], again,
    filter: shown.filter };
}

function revoking(context, done) {
  const kind = h("select", { name: "kind" },
    Object.entries(KINDS).map(([name, words]) => h("option", { value: name }, words)));
  const value = h("input", {
    name: "value", required: true, autocomplete: "off", spellcheck: "false",
  });
  const submit = (event) => {
    event.preventDefault();
    const [name, what] = [kind.value, value.value];
    ask({
      title: "Revoke",
      words: h("p", {}, `The ${KINDS[name]} `, h("code", {}, what), " is refused from the next ",
        "request on, at every gateway", name === "sub" && ", with all sessions", "."),
      verb: "Revoke",
      typed: name === "sub" ? what : undefined,
      async act() {
        const answer = await context.api.post("/v1/revocations", { [name]: what });
        done();
        return `It is revoked, for ${span(answer.expires_in_seconds)}.`;
      },
    });
  };
  return h("section", { class: "block", "aria-label": "Revoke" },
    h("div", { class: "block-head" }, h("h2", {}, "Revoke")),
    h("form", { class: "row-form", on: { submit } },
      h("label", { class: "field" }, "What", kind),
      h("label", { class: "field grow" }, "Its name", value),
      h("button", { type: "submit" }, "Revoke…")));
}

/** The API keys of an owner. */
function owners(context) {
  const { api, signal, canOperate } = context;
  const keys = table({
    caption: "API keys", empty: "The owner has no key.", key: (row) => row.id,
    sort: { name: "created", falls: true },
    columns: [
      { name: "id", head: "key", text: (row) => row.id, size: "name" },
      { name: "tier", head: "tier", text: (row) => row.tier ?? "" },
      { name: "scopes", head: "scopes", text: (row) => (row.scopes ?? []).join(" "),
        size: "short" },
      { name: "created", head: "created", text: (row) => day(row.created),
        value: (row) => row.created, wide: true },
      { name: "ends", head: "ends", text: (row) => (row.expires ? day(row.expires) : "never"),
        value: (row) => row.expires ?? Infinity },
      canOperate && { name: "actions", head: "", text: () => "",
        node: action("End", (row) => row.id,
          (row) => endKey(context, row, () => form.again())) },
    ].filter(Boolean),
  });
  keys.node.hidden = true;
  function draw(answer) {
    keys.node.hidden = false;
    keys.set(answer.keys);
    return answer.not_listed > 0
      ? h("p", { class: "quiet" }, `${count(answer.not_listed)} more are not listed.`) : [];
  }
  const form = lookUp(context, {
    name: "owner", heading: "Whose API keys?", label: "Owner", placeholder: "acme", draw,
    ask: (owner) => api.get("/v1/keys", { owner }, signal), clear: () => drop(keys),
  });
  return { nodes: [form.node, keys.node], onView: form.onView, filter: keys.filter };
}

/** Whose keys verify tokens, and how old they are. */
function issuers(context) {
  const { api, signal } = context;
  const failure = (row) => row.failure ?? row.discovery?.failure ?? "";
  const level = (row) => (row.keys_age_seconds === null ? "poor" : failure(row) ? "watch" : null);
  const word = { poor: "✖ none yet", watch: "▲ not fetched anew" };
  const shown = table({
    caption: "Issuers' keys", empty: "No verifier fetches keys.", key: (row) => row.url,
    columns: [
      { name: "url", head: "from", text: (row) => row.url, size: "name" },
      { name: "state", head: "state", text: (row) => word[level(row)] ?? "● fetched", level },
      { name: "age", head: "age", text: (row) => span(row.keys_age_seconds), numeric: true,
        value: (row) => row.keys_age_seconds },
      { name: "failure", head: "failure", text: failure, size: "name" },
    ],
  });
  context.every(10, async () => shown.set((await api.get("/v1/status", {}, signal)).issuers));
  return { nodes: [shown.node], filter: shown.filter };
}

export function render(context) {
  const revoked = revocations(context);
  const parts = [users(context, revoked.again), revoked, owners(context), issuers(context)];
  const node = fill(h("div", { class: "page" }), parts.map((part) => part.nodes));
  const onView = (params) => parts.forEach((part) => {
    part.filter(params.q);
    part.onView?.(params);
  });
  return { node, onView };
}
