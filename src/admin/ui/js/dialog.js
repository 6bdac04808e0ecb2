// Dialogs. The browser's own `<dialog>` keeps the focus inside, closes by Esc and gives the focus
// back to where it was.

import { fill, h, say, set, shown } from "./dom.js";

/** Shows content with a title until it is closed. */
export function show(title, content, { wide = false } = {}) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const node = h("dialog", {
    class: wide ? "wide" : null, "aria-labelledby": "dialog-title",
    on: {
      close: () => node.remove(),
      // A click on what is behind it.
      click: (event) => event.target === node && node.close(),
    },
  }, h("div", { class: "inside" },
    h("div", { class: "block-head" }, heading, h("span", { class: "grow" }),
      h("button", { type: "button", class: "small", on: { click: () => node.close() } }, "Close")),
    content));
  document.body.append(node);
  node.showModal();
  return node;
}

/**
 * Asks before something is done: what will happen to how much, with the verb as the button.
 * `typed` is a name that has to be written first. `act` does it and returns what to say of it.
 */
export function ask({ title, words, verb, typed, act }) {
  const outcome = h("p", { role: "status", class: "outcome" });
  const button = h("button", { type: "submit", class: "verb", disabled: Boolean(typed) }, verb);
  // Of a name that cannot be typed, what is shown of it will do.
  const isName = (value) => value === typed || value === shown(typed);
  const field = typed && h("label", { class: "field" }, `Write ${typed} to go on`,
    h("input", {
      autocomplete: "off", spellcheck: "false",
      on: { input: (event) => set(button, "disabled", !isName(event.target.value)) },
    }));
  const form = h("form", { method: "dialog", on: { submit: carryOut } },
    h("div", {}, words), field, outcome, h("div", { class: "buttons" }, button));
  const node = show(title, form);

  async function carryOut(event) {
    event.preventDefault();
    set(button, "disabled", true);
    say(outcome, "…");
    try {
      const done = await act();
      fill(outcome, h("span", { class: "state good" }, "● "), done);
      button.remove();
    } catch (error) {
      fill(outcome, h("span", { class: "state poor" }, "✖ "), error.message);
      set(button, "disabled", false);
    }
  }
  return node;
}
