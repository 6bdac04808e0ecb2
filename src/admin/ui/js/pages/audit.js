// Who did what here: the last operations that changed something, or tried to.

import { show } from "../dialog.js";
import { h } from "../dom.js";
import { moment } from "../format.js";
import { members } from "../request.js";
import { table } from "../table.js";

export const title = "Audit";
export const path = "audit";
export const key = "a";

const KEPT_MAX = 512;
const MARKS = { done: "●", refused: "▲", failed: "✖", unknown: "▲" };
const LEVELS = { refused: "watch", failed: "poor", unknown: "watch" };

const object = (row) => Object.entries(row.object ?? {})
  .map(([name, value]) => `${name} ${value}`).join(" · ");

export function render({ api, live, signal, every }) {
  let all = [];
  const operations = table({
    caption: "Operations", empty: "None since the start.",
    note: "This gateway alone, the newest 512 at most; its diagnostics have all of them.",
    key: (row) => String(row.id), sort: { name: "time", falls: true },
    open: (row) => show(row.operation, members(row), { wide: true }),
    columns: [
      { name: "time", head: "time", text: (row) => moment(row.t), value: (row) => row.id,
        title: (row) => row.t, size: "time" },
      { name: "operation", head: "operation", text: (row) => row.operation, size: "name" },
      { name: "object", head: "what", text: object, title: object, size: "short" },
      { name: "result", head: "result",
        text: (row) => `${MARKS[row.result] ?? "●"} ${row.result}`,
        level: (row) => LEVELS[row.result] ?? null },
      { name: "status", head: "status", numeric: true, text: (row) => String(row.status ?? "–"),
        value: (row) => row.status },
      { name: "by", head: "by", text: (row) => row.by, size: "short" },
      { name: "from", head: "from", text: (row) => row.from ?? "–", wide: true },
    ],
  });
  every(30, async () => {
    all = (await api.get("/v1/operations", {}, signal)).operations;
    operations.set(all);
  });
  live.on("operation", (operation) => {
    all = [operation, ...all.filter((it) => it.id !== operation.id)].slice(0, KEPT_MAX);
    operations.set(all);
  }, signal);
  const node = h("div", { class: "page" }, operations.node);
  return { node, onView: ({ q }) => operations.filter(q) };
}
