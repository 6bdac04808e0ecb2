// A walk through what Redis holds of the cache, on request: some entries at a time, until it is
// stopped or there are as many as anyone reads.

import { fill, h, say, set } from "./dom.js";
import { bytes, span } from "./format.js";
import { table } from "./table.js";

// A second of steps for one answer, so that a stop is soon one.
const STEPS = 5;
const ENTRIES_MAX = 500;

/** The section, which is hidden until it is opened. */
export function walkSection({ api, signal }, open) {
  let turn = 0;
  const found = new Map();
  const said = h("p", { class: "outcome", role: "status" });
  const matching = h("input", { name: "match", placeholder: "/products/", autocomplete: "off",
    spellcheck: "false" });
  const start = h("button", { type: "submit" }, "Walk");
  const stop = h("button", { type: "button", hidden: true, on: { click: () => end("Stopped") } },
    "Stop");
  const shown = table({
    caption: "Entries in Redis", empty: "None found.", sort: { name: "url" },
    note: "By the operator's user, five small steps a second, one walk at a time.",
    key: (row) => row.id, open: (row) => row.url && !row.parted && open(row.url),
    columns: [
      { name: "url", head: "URL", text: (row) => row.url ?? "a digest", size: "name" },
      { name: "route", head: "route", text: (row) => row.route ?? "–", size: "short" },
      { name: "left", head: "kept for", numeric: true, value: (row) => row.ttl_s,
        text: (row) => span(row.ttl_s) },
      { name: "bytes", head: "memory", numeric: true, value: (row) => row.bytes,
        text: (row) => bytes(row.bytes) },
    ],
  });
  function end(word) {
    turn += 1;
    set(stop, "hidden", true);
    set(start, "disabled", false);
    say(said, word);
  }
  async function walk() {
    const own = ++turn;
    found.clear();
    set(start, "disabled", true);
    set(stop, "hidden", false);
    let [cursor, seen] = ["0", 0];
    try {
      while (cursor !== null && found.size < ENTRIES_MAX) {
        say(said, `Walking: ${seen} entries have come by.`);
        const asked = { cursor, match: matching.value, steps: STEPS };
        const answer = await api.post("/v1/cache/walk", asked);
        if (own !== turn || signal.aborted) return;
        ({ cursor } = answer);
        seen += answer.seen;
        // Redis may show an entry twice.
        answer.entries.forEach((entry) => found.set(entry.id, entry));
        shown.set([...found.values()]);
      }
      const rest = cursor === null ? "That is all" : `The first ${ENTRIES_MAX}; name a path`;
      end(`${rest}: ${seen} entries have come by.`);
    } catch (error) {
      if (own !== turn || signal.aborted) return;
      end("");
      fill(said, `✖ ${error.message}`);
    }
  }
  const submit = (event) => {
    event.preventDefault();
    walk();
  };
  const node = h("section", { class: "block", "aria-label": "Walk through Redis", hidden: true },
    h("div", { class: "block-head" }, h("h2", {}, "Walk through Redis")),
    h("form", { class: "row-form", on: { submit } },
      h("label", { class: "field grow" }, "Host and path contain", matching), start, stop),
    said, shown.node);
  return { node, filter: shown.filter, reveal() { set(node, "hidden", false); matching.focus(); } };
}
