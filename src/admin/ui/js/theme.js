// Light, dark, or as the system has it. The choice stays in this browser.

import { h } from "./dom.js";

const CHOICES = ["light", "dark", "auto"];
const NAME = "portcullis.theme";

function chosen() {
  const kept = localStorage.getItem(NAME);
  return CHOICES.includes(kept) ? kept : "auto";
}

function apply(choice) {
  document.documentElement.dataset.theme = choice;
  for (const input of document.querySelectorAll("input[name=theme]")) {
    input.checked = input.value === choice;
  }
}

/** Takes over a choice and keeps it. */
export function choose(choice) {
  localStorage.setItem(NAME, choice);
  apply(choice);
}

/** The choice after the present one. */
export function next() {
  choose(CHOICES[(CHOICES.indexOf(chosen()) + 1) % CHOICES.length]);
  return chosen();
}

/** The switch for the head of the page. */
export function control() {
  const choices = CHOICES.map((choice) => h("label", {},
    h("input", {
      type: "radio", name: "theme", value: choice, checked: choice === chosen(),
      on: { change: () => choose(choice) },
    }),
    h("span", {}, choice)));
  return h("fieldset", { class: "switch" }, h("legend", { class: "unseen" }, "Theme"), choices);
}

apply(chosen());
