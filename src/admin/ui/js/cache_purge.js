// Purges: what is to go is said before it goes, and everything wants its name typed.

import * as api from "./api.js";
import { ask, show } from "./dialog.js";
import { h, say } from "./dom.js";

// What each kind takes: what is typed, and what of the cache it is, in words.
const KINDS = {
  url: [`${location.protocol}//shop.example/products/1`, ofUrl],
  path: ["/products/*", (it) => `All that is stored at ${it} and below it, on every host`],
  tag: ["product-1", (it) => `All that is tagged ${it}`],
  host: ["shop.example", (it) => `All that is stored of the host ${it}`],
  route: ["products", (it) => `All that is stored of the route ${it}`],
};

const HARD = "goes, at all gateways of this store. The next requests ask the upstream.";
const SOFT = "is confirmed with its upstream before it is used again. What did not change stays.";

// A purge of a URL takes both schemes, all queries, and its host without the port, too: which port
// needs no mention is each listener's own.
function ofUrl(url) {
  const [, authority, path] = /^https?:\/\/([^/?#]+)([^?#]*)/i.exec(url) ?? [];
  if (!authority) return `What is stored for ${url}`;
  const places = new Set([authority, authority.replace(/:\d*$/, "")]);
  const named = [...places].map((place) => place + (path || "/")).join(" and ");
  return `All that is stored for ${named}, with every query, over http and https,`;
}

// Whether a path is the root, however it is written: all that is stored lies below it.
function isEverything(kind, value) {
  if (kind !== "path" || !value.startsWith("/")) return false;
  const path = value.replace(/[?].*$/, "").replace(/\/\*$/, "") || "/";
  try {
    return /^\/+$/.test(new URL(`.${path}`, location.origin).pathname);
  } catch {
    return false;
  }
}

/** Asks whether this is to be purged, softly or not, and purges it. */
export function purge(kind, value, { soft = false, done } = {}) {
  if (isEverything(kind, value)) return purgeAll(done, { soft });
  ask({
    title: soft ? "Purge softly" : "Purge",
    words: h("p", {}, `${KINDS[kind][1](value)} ${soft ? SOFT : HARD}`),
    verb: soft ? "Purge softly" : "Purge",
    act: () => carryOut({ [kind]: value, ...(soft && { soft }) }, done),
  });
}

/** The same of everything, whose name has to be typed. */
export function purgeAll(done, { soft = false } = {}) {
  const words = `The whole cache ${soft ? SOFT : HARD}`;
  ask({
    title: soft ? "Purge everything softly" : "Purge everything",
    words: h("p", {}, `${words} All of it at once will be work for upstreams.`),
    verb: "Purge everything", typed: "everything",
    act: () => carryOut({ all: true, ...(soft && { soft }) }, done),
  });
}

async function carryOut(body, done) {
  const answer = await api.post("/v1/cache/purge", body);
  done?.();
  const how = answer.soft ? "To be confirmed" : "Purged";
  const late = answer.confirmed === false ? " Not all replicas of Redis have it yet." : "";
  return `${how}: ${answer.purged}.${late}`;
}

/** Asks what is to be purged. */
export function choosePurge(done) {
  const value = h("input", { name: "value", required: true, autocomplete: "off",
    spellcheck: "false", placeholder: KINDS.url[0] });
  const words = h("p", { class: "quiet", role: "status" });
  const soft = h("input", { type: "checkbox", on: { change: tell } });
  const kind = h("select", { name: "kind", on: { change: tell } },
    Object.keys(KINDS).map((name) => h("option", { value: name }, name)));
  function tell() {
    value.placeholder = KINDS[kind.value][0];
    const what = KINDS[kind.value][1](value.value || value.placeholder);
    say(words, `${what} ${soft.checked ? SOFT : HARD}`);
  }
  value.addEventListener("input", tell);
  tell();
  const submit = (event) => {
    event.preventDefault();
    node.close();
    purge(kind.value, value.value, { soft: soft.checked, done });
  };
  const node = show("What is to be purged?", h("form", { on: { submit } },
    h("label", { class: "field" }, "By", kind),
    h("label", { class: "field" }, "Value", value),
    h("p", {}, h("label", { class: "check" }, soft, "softly")), words,
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Go on…"))));
}
