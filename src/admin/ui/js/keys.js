// The keyboard. Single letters can be switched off, and mean nothing where text is written.

import { h } from "./dom.js";
import { show } from "./dialog.js";

const NAME = "portcullis.keys";
// How long the letter behind `g` may take.
const SECOND_KEY_MS = 1_500;

const isOn = () => localStorage.getItem(NAME) !== "off";
const rows = () => [...document.querySelectorAll("main button.row")];

let actions = {};
let pages = [];
let wentAt = -Infinity;

/** Begins to listen. `actions` are by key; `pages` are `{ key, title, go }`. */
export function listen(given, shownPages) {
  actions = given;
  pages = shownPages;
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !isOn()) return;
  if (event.target.closest("input, textarea, select")) return;
  if (document.querySelector("dialog[open]")) return;
  const isSecond = event.timeStamp - wentAt < SECOND_KEY_MS;
  wentAt = -Infinity;
  if (isSecond) {
    const page = pages.find((it) => it.key === event.key);
    if (page) {
      event.preventDefault();
      page.go();
    }
    return;
  }
  if (event.key === "g") {
    wentAt = event.timeStamp;
  } else if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
  } else if (event.key === "?") {
    help();
  } else if (actions[event.key]) {
    event.preventDefault();
    actions[event.key].act();
  }
}

function step(by) {
  const all = rows();
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by;
  all[next]?.focus();
  all[next]?.scrollIntoView({ block: "nearest" });
}

/** All keys, and the switch. */
export function help() {
  const known = [
    ["?", "this help"], ["j k", "next row, row before"], ["Enter", "open the row"],
    ["Esc", "close"],
    ...Object.entries(actions).map(([key, { name }]) => [key, name]),
    ...pages.map(({ key, title }) => [`g ${key}`, title]),
  ];
  const toggle = h("input", {
    type: "checkbox", checked: isOn(),
    on: { change: () => localStorage.setItem(NAME, toggle.checked ? "on" : "off") },
  });
  show("Keys", h("div", {},
    h("dl", { class: "keys" }, known.map(([keys, what]) => h("div", {},
      h("dt", {}, keys.split(" ").map((key) => [h("kbd", {}, key), " "])), h("dd", {}, what)))),
    h("label", { class: "check" }, toggle, " Single keys do something"),
    h("p", { class: "quiet" }, "The search takes words and qualifiers: ",
      h("code", {}, "route:login status:4xx sub:42"))));
}
